"""Trainings that are killed end like those that are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from data_pipeline.errors import InputError
from tests.workflows.conftest import ROOT, environment, run_workflow
from workflows import cli
from workflows import pretrain as workflow
from workflows.journal import TRAIN, VALIDATION, curve, read_journal
from workflows.workspace import Workspace

STEPS = 40
# Long enough a step that a kill meets the training, small enough to end soon.
SETTINGS = [
    *(
        "--preset",
        "tiny",
        "--workers",
        "2",
        "--train.num_steps",
        str(STEPS),
        "--train.checkpoint_every",
        "10",
    ),
    *("--train.eval_every", "20", "--train.batch_size", "16", "--model.context_length", "128"),
    *("--model.width", "128", "--model.num_layers", "4", "--model.dropout", "0.1"),
]

pytestmark = pytest.mark.slow


def pretrain(workspace: Path, name: str) -> list[str]:
    return ["--workspace", str(workspace), "--name", name, *SETTINGS]


@pytest.fixture(scope="module")
def undisturbed(tokenised: Path) -> Path:
    done = run_workflow("pretrain", *pretrain(tokenised, "undisturbed"))
    assert done.returncode == 0, done.stderr
    return tokenised / "runs" / "undisturbed" / "metrics.jsonl"


def start(workspace: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.pretrain", *pretrain(workspace, name)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_step(journal: Path, step: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert driver.poll() is None, driver.stderr.read().decode() if driver.stderr else ""
        if any(entry["kind"] == TRAIN and entry["step"] >= step for entry in read_journal(journal)):
            return
        time.sleep(0.02)
    raise AssertionError(f"the training did not reach step {step}")


def training_workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def same_curves(left: Path, right: Path) -> None:
    for kind, name in ((TRAIN, "loss"), (TRAIN, "grad_norm"), (VALIDATION, "bits_per_byte")):
        assert curve(left, kind, name) == curve(right, kind, name)
    assert curve(left, TRAIN, "loss")[0] == list(range(1, STEPS + 1))


def mlflow_run(workspace: Path, name: str) -> tuple[MlflowClient, str]:
    """The client of the workspace's store, and the id of a training's run."""
    from workflows.tracking import client_of

    run_id = json.loads((workspace / "runs" / name / "run.json").read_text())["mlflow_run_id"]
    return client_of(Workspace.open(str(workspace))), run_id


def mlflow_steps(workspace: Path, name: str) -> list[int]:
    client, run_id = mlflow_run(workspace, name)
    assert client.get_run(run_id).info.status == "FINISHED"
    return [metric.step for metric in client.get_metric_history(run_id, "train/loss")]


def test_a_run_whose_worker_is_killed_has_the_curve_of_an_undisturbed_one(
    tokenised: Path, undisturbed: Path
) -> None:
    journal = tokenised / "runs" / "worker-killed" / "metrics.jsonl"
    driver = start(tokenised, "worker-killed")
    wait_for_step(journal, 13, driver)
    workers = training_workers(driver)
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    _, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stderr.decode()
    same_curves(journal, undisturbed)
    assert mlflow_steps(tokenised, "worker-killed") == list(range(1, STEPS + 1))


def test_a_run_that_is_stopped_with_ctrl_c_or_whose_driver_is_killed_goes_on_with_the_same_command(
    tokenised: Path, undisturbed: Path, should_vanish: list[psutil.Process]
) -> None:
    run_dir = tokenised / "runs" / "driver-killed"
    driver = start(tokenised, "driver-killed")
    wait_for_step(run_dir / "metrics.jsonl", 13, driver)
    # A terminal sends it to the whole group.
    os.killpg(driver.pid, signal.SIGINT)
    _, stderr = driver.communicate(timeout=100)
    assert (driver.returncode, stderr.decode().splitlines()[-1][:8]) == (1, "stopped;"), stderr.decode()
    client, run_id = mlflow_run(tokenised, "driver-killed")
    assert client.get_run(run_id).info.status == "KILLED"

    driver = start(tokenised, "driver-killed")
    wait_for_step(run_dir / "metrics.jsonl", 23, driver)
    # Two trainings must not write one folder.
    with pytest.raises(InputError, match="another process"):
        again(tokenised, "driver-killed")
    should_vanish += psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)

    done = run_workflow("pretrain", *pretrain(tokenised, "driver-killed"))
    assert done.returncode == 0, done.stderr
    same_curves(run_dir / "metrics.jsonl", undisturbed)
    assert json.loads((run_dir / "run.json").read_text())["mlflow_run_id"] == run_id
    assert mlflow_steps(tokenised, "driver-killed") == list(range(1, STEPS + 1))


def test_a_run_that_is_complete_is_left_as_it_is(tokenised: Path, undisturbed: Path) -> None:
    before = undisturbed.read_bytes()
    done = run_workflow("pretrain", *pretrain(tokenised, "undisturbed"))
    assert done.returncode == 0, done.stderr
    assert "complete already" in done.stdout
    assert undisturbed.read_bytes() == before


def again(workspace: Path, name: str, **changes: Any) -> dict[str, Any]:
    """The workflow in this process, for what needs no Ray any more."""
    options = cli.parse(workflow.Options, "pretrain", "", pretrain(workspace, name), workflow.preset_defaults)
    store = Workspace.open(str(workspace))
    return workflow.pretrain(store, replace(options, **changes), store.dataset("bpe"))


def test_a_run_whose_driver_was_killed_behind_the_training_is_logged_to_its_end(
    tokenised: Path, undisturbed: Path
) -> None:
    client, run_id = mlflow_run(tokenised, "undisturbed")
    experiment = client.get_run(run_id).info.experiment_id
    [model] = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    # As a driver leaves it that was killed before it logged the model.
    client.delete_logged_model(model.model_id)
    client.update_run(run_id, status="RUNNING")
    (undisturbed.parent / "done.json").unlink()
    for _ in range(2):
        assert again(tokenised, "undisturbed")["mlflow_run_id"] == run_id
        assert mlflow_steps(tokenised, "undisturbed") == list(range(1, STEPS + 1))
        models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
        assert len(models) == 1


def test_a_run_that_its_store_has_lost_gets_a_new_one_with_all_its_metrics(
    tokenised: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    saved = {name: (undisturbed.parent / name).read_bytes() for name in ("run.json", "done.json")}
    (undisturbed.parent / "done.json").unlink()
    try:
        for _ in range(2):
            again(tokenised, "undisturbed")
            assert mlflow_steps(tokenised, "undisturbed") == list(range(1, STEPS + 1))
            (undisturbed.parent / "done.json").unlink()
    finally:
        for name, content in saved.items():
            (undisturbed.parent / name).write_bytes(content)


def test_a_name_never_stands_for_other_settings_or_other_data(tokenised: Path, undisturbed: Path) -> None:
    options = cli.parse(
        workflow.Options, "pretrain", "", pretrain(tokenised, "undisturbed"), workflow.preset_defaults
    )
    with pytest.raises(InputError, match=r"name: run undisturbed .*train\.lr"):
        again(tokenised, "undisturbed", train=replace(options.train, lr=0.5))
    with pytest.raises(InputError, match=r"model\.num_layers \(was 4, now 2\)"):
        again(tokenised, "undisturbed", model=replace(options.model, num_layers=2))
    path = undisturbed.parent / "run.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(before), "manifest_hash": "0" * 64}))
        with pytest.raises(InputError, match=r"data \(manifest 0000"):
            again(tokenised, "undisturbed")
    finally:
        path.write_text(before)
    # What does not change what is learned may change.
    again(tokenised, "undisturbed", workers=1, train=replace(options.train, micro_batch_size=4))
