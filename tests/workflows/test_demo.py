"""The whole path, from a scrape over HTTP to a graded model, in a small version."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from tests.workflows.conftest import ROOT, manifest_hash, run_demo, run_workflow

pytestmark = pytest.mark.slow


def test_the_demo_prints_funnel_tokens_scores_times_and_how_to_go_on(demo_run: tuple[Path, str]) -> None:
    workspace, output = demo_run
    for words in (
        "What became of the documents",
        "exact_dedup: exact_duplicate",
        "near_dedup: near_duplicate",
        "read: not_text",
        "Tokens by source",
        "bag of words",
        "majority class",
        "bits/byte",
        "What it writes:",
        "Where the time went",
        f"ui --backend-store-uri sqlite:///{workspace}/mlflow.db",
        f"{workspace}/corpus/reports/version-000001.html",
    ):
        assert words in output, output
    assert (workspace / "corpus" / "reports" / "version-000001.html").is_file()


def test_each_workflow_left_a_finished_run_that_points_at_its_parent(demo_run: tuple[Path, str]) -> None:
    workspace, _ = demo_run
    with sqlite3.connect(workspace / "mlflow.db") as database:
        runs = dict(database.execute("select run_uuid, status from runs"))
        tags = database.execute("select run_uuid, key, value from tags").fetchall()
    by_run = {run: {key: value for owner, key, value in tags if owner == run} for run in runs}
    kinds = {values["gptmill.workflow"]: run for run, values in by_run.items()}
    assert set(kinds) == {"refresh", "tokenize", "pretrain", "finetune", "evaluate"}
    assert set(runs.values()) == {"FINISHED"}
    parents = {kind: by_run[run].get("mlflow.parentRunId") for kind, run in kinds.items()}
    assert parents == {
        "refresh": None,
        "tokenize": kinds["refresh"],
        "pretrain": kinds["tokenize"],
        "finetune": kinds["pretrain"],
        "evaluate": kinds["pretrain"],
    }
    assert by_run[kinds["pretrain"]]["gptmill.corpus_version"] == "1"


def test_the_pretraining_run_carries_configuration_data_curves_plot_samples_and_model(
    demo_run: tuple[Path, str],
) -> None:
    from workflows.tracking import client_of, runs_of
    from workflows.workspace import Workspace

    workspace, output = demo_run
    store = Workspace.open(str(workspace))
    run = runs_of(store, "pretrain")[0]
    assert run.data.params["train.num_steps"] == "20"
    assert run.inputs.dataset_inputs[0].dataset.digest == manifest_hash(output)[:32]
    client = client_of(store)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == list(
        range(1, 21)
    )
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/bits_per_byte")] == [
        0,
        10,
        20,
    ]
    for name in (
        *("train/learning_rate", "train/grad_norm", "train/tokens_per_second", "train/loss/web"),
        *("val/bits_per_byte/web", "system/cpu_utilization_percentage"),
    ):
        assert name in run.data.metrics, name
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "metrics.jsonl", "plots", "samples"} <= files
    [model] = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id
    # In the workspace, whatever the folder that the command ran in.
    stored = {path.relative_to(workspace).parts[0] for path in workspace.rglob("loss.png")}
    assert stored == {"mlartifacts"}
    assert Path(model.artifact_location.removeprefix("file://")).is_relative_to(workspace / "mlartifacts")
    assert not (ROOT / "mlruns").exists()


def test_the_fine_tuning_has_its_curves_and_scores(demo_run: tuple[Path, str]) -> None:
    from workflows.tracking import client_of, runs_of
    from workflows.workspace import Workspace

    store = Workspace.open(str(demo_run[0]))
    run = runs_of(store, "finetune")[0]
    steps = [metric.step for metric in client_of(store).get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 1
    for name in ("train/lm_loss", "train/learning_rate", "val/accuracy", "accuracy", "majority_accuracy"):
        assert name in run.data.metrics, name


def test_the_logged_model_loads_and_continues_a_prompt(demo_run: tuple[Path, str]) -> None:
    import mlflow
    import pandas as pd

    from workflows.tracking import _current_store, client_of, model_requirements, runs_of, tracking_uri
    from workflows.workspace import Workspace

    workspace, _ = demo_run
    store = Workspace.open(str(workspace))
    experiment = runs_of(store, "pretrain")[0].info.experiment_id
    model_id = client_of(store).search_logged_models([experiment])[0].model_id
    with _current_store(tracking_uri(store)):
        model = mlflow.pyfunc.load_model(f"models:/{model_id}")
        asked_for = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{model_id}")).read_text().splitlines()
    assert set(model_requirements()) < set(asked_for)
    prompts = pd.DataFrame({"prompt": ["The lighthouse", ""]})
    texts = model.predict(prompts, params={"max_new_tokens": 12, "seed": 3})["text"].tolist()
    assert len(texts) == 2
    assert all(text.strip() for text in texts)
    assert texts == model.predict(prompts, params={"max_new_tokens": 12, "seed": 3})["text"].tolist()


def test_the_same_workspace_again_has_nothing_to_do_and_says_so(demo_run: tuple[Path, str]) -> None:
    workspace, output = demo_run
    before = {path: path.stat().st_mtime_ns for path in (workspace / "raw").rglob("*.warc.gz")}
    again = run_demo(workspace)
    assert "nothing to fetch" in again
    assert "nothing new" in again
    assert "there already" in again
    assert "complete already" in again
    assert manifest_hash(again) == manifest_hash(output)
    assert {path: path.stat().st_mtime_ns for path in (workspace / "raw").rglob("*.warc.gz")} == before


def test_review_lists_the_runs_and_compares_two(demo_run: tuple[Path, str]) -> None:
    workspace, _ = demo_run
    listed = run_workflow("review", "--workspace", str(workspace))
    assert listed.returncode == 0, listed.stderr
    for kind in ("refresh", "tokenize", "pretrain", "finetune", "evaluate"):
        assert kind in listed.stdout
    ids = re.findall(r"^([0-9a-f]{8}) +(?:pretrain|evaluate)", listed.stdout, re.MULTILINE)
    assert re.search(r"^[0-9a-f]{8} +evaluate +demo-[0-9a-f]{8}-eval ", listed.stdout, re.MULTILINE), (
        listed.stdout
    )
    compared = run_workflow("review", "--workspace", str(workspace), "--compare", f"[{ids[0]}, {ids[1]}]")
    assert compared.returncode == 0, compared.stderr
    assert "Settings that differ" in compared.stdout
    unknown = run_workflow("review", "--workspace", str(workspace), "--compare", "[nothing]")
    assert unknown.returncode == 2


def test_a_name_is_not_taken_over_by_another_model_or_another_run(demo_run: tuple[Path, str]) -> None:
    workspace, _ = demo_run
    [name] = [path.name for path in (workspace / "runs").glob("demo-????????")]
    small = ["--finetune.precision", "fp32", "--passages.val_share", "0.3"]
    before = (workspace / "models" / name / "config.json").read_bytes()
    for taken, problem in ((name, "holds a gpt"), (f"{name}-source", "made with other settings")):
        done = run_workflow(
            "finetune", "--workspace", str(workspace), "--model", name, "--name", taken, *small
        )
        assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    dataset = ["--dataset", "demo", "--model.num_layers", "1", "--train.num_steps", "60"]
    for taken, problem in ((name, "model.num_layers"), (f"{name}-source", "holds a classifier")):
        done = run_workflow("pretrain", "--workspace", str(workspace), "--name", taken, *dataset)
        assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    assert (workspace / "models" / name / "config.json").read_bytes() == before
