"""Training a quality model as a person does: one command, a table to choose a bound from, a run to find it by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.quality.model import load_model
from tests.data_pipeline.made_examples import sources
from tests.workflows.conftest import run_workflow
from workflows import cli, refresh
from workflows.quality import _bounds, highest_bound
from workflows.tracking import runs_of
from workflows.workspace import Workspace


@pytest.mark.slow
def test_one_command_trains_shows_and_logs_a_model(tmp_path: Path) -> None:
    config = {
        "sources": [
            {"name": source.name, "paths": source.paths} for source in sources(tmp_path / "in", 80).sources
        ]
    }
    (tmp_path / "refresh.yaml").write_text(json.dumps(config))
    workspace = tmp_path / "ws"
    done = run_workflow(
        *("refresh", "--config", str(tmp_path / "refresh.yaml"), "--workspace", str(workspace)),
        *("--train_quality.name", "made", "--train_quality.good", "essays", "--train_quality.bad", "shops"),
    )
    assert done.returncode == 0, done.stderr
    model = load_model(workspace / "corpus" / "quality" / "made")
    assert f"model made {model.model_hash[:12]}, on held-out documents AUC " in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["essays", "good", "80"] in [line[:3] for line in lines]
    assert ["shops", "bad", "130"] in [line[:3] for line in lines]
    table = [line for line in lines if line[:1] and line[0] in {f"0.{digit}" for digit in range(10)}]
    assert [line[:3] for line in table[:1]] == [["0.0", "100.0%", "0.0%"]]
    assert len(table) == 10
    assert "--quality.model made" in done.stdout
    (run,) = runs_of(Workspace.existing(str(workspace)), "quality")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["auc"] == model.metadata["metrics"]["auc"]
    assert run.data.tags["gptmill.quality_model"] == model.model_hash
    assert not (workspace / "corpus" / "versions").exists()


def test_the_options_of_a_training_need_its_name() -> None:
    with pytest.raises(InputError, match=r"train_quality\.name"):
        refresh.main(cli.parse(refresh.Options, "refresh", "", ["--train_quality.good", "wiki,book"]))


@pytest.mark.parametrize("given", ["wiki,book", "[wiki, book]"])
def test_sources_are_named_with_commas_or_as_a_list(given: str) -> None:
    options = cli.parse(refresh.Options, "refresh", "", ["--train_quality.good", given])
    assert options.train_quality.good_sources == ["wiki", "book"]


def test_the_table_says_what_each_bound_keeps_and_removes() -> None:
    histogram = [
        {"from": 0.0, "good": 0, "bad": 6, "mean_score": 0.02},
        {"from": 0.1, "good": 1, "bad": 2, "mean_score": 0.15},
        {"from": 0.2, "good": 3, "bad": 0, "mean_score": None},
    ]
    assert _bounds(histogram) == [
        ["0.0", "100.0%", "0.0%", "0", "6", "0.00", "0.02"],
        ["0.1", "100.0%", "75.0%", "1", "2", "0.50", "0.15"],
        ["0.2", "75.0%", "100.0%", "3", "0", "1.00", ""],
    ]
    assert [highest_bound(histogram, share) for share in (1.0, 0.75, 0.5)] == [0.1, 0.2, 0.2]
