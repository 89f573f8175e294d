"""Metrics: written down first, then sent; nothing twice, nothing lost."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from workflows.journal import TRAIN, VALIDATION, Journal, curve, read_journal, read_journal_from
from workflows.metric_sender import MetricSender
from workflows.tracking import client_of, start_run, tracking_uri
from workflows.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "ws"))


def test_a_step_that_is_trained_again_is_not_recorded_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Journal(path)
    for step in (1, 2, 3):
        assert first.add(TRAIN, step, {"loss": 3.0 - step}) is not None
    first.close()
    second = Journal(path)
    assert second.add(TRAIN, 3, {"loss": 99.0}) is None
    assert second.add(TRAIN, 4, {"loss": -1.0}) is not None
    assert second.add(VALIDATION, 3, {"loss": 5.0}) is not None
    second.close()
    assert curve(path, TRAIN, "loss") == ([1, 2, 3, 4], [2.0, 1.0, 0.0, -1.0])
    assert curve(path, VALIDATION, "loss") == ([3], [5.0])


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.add(TRAIN, 1, {"loss": 1.0})
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "st')
    assert [entry["step"] for entry in read_journal(path)] == [1]
    again = Journal(path)
    again.add(TRAIN, 2, {"loss": 0.5})
    again.close()
    assert [entry["step"] for entry in read_journal(path)] == [1, 2]


def test_what_a_killed_process_could_not_send_is_sent_by_the_next(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    uri = tracking_uri(workspace)
    with start_run(workspace, "pretrain", "run", {}) as run:
        journal = Journal(path)
        sender = MetricSender(uri, run.run_id, path)
        for step in (1, 2):
            entry = journal.add(TRAIN, step, {"loss": float(step)})
            assert entry is not None
            sender.send(entry)
        sender.close()
        # These were written down and never sent.
        journal.add(TRAIN, 3, {"loss": 3.0, "learning_rate": 0.1})
        journal.add(VALIDATION, 3, {"loss": 9.0})
        journal.close()
        assert MetricSender(uri, run.run_id, path).close()
        assert MetricSender(uri, run.run_id, path).close()
    history = client_of(workspace).get_metric_history(run.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [metric.step for metric in client_of(workspace).get_metric_history(run.run_id, "val/loss")] == [3]


def test_values_that_are_no_numbers_do_not_stop_the_others(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with start_run(workspace, "pretrain", "run", {}) as run:
        journal = Journal(path)
        sender = MetricSender(tracking_uri(workspace), run.run_id, path)
        entry = journal.add(TRAIN, 1, {"loss": 1.0, "grad_norm": float("nan")})
        assert entry is not None
        sender.send(entry)
        sender.close()
        journal.close()
    metrics = client_of(workspace).get_run(run.run_id).data.metrics
    assert metrics["train/loss"] == 1.0
    assert "train/grad_norm" not in metrics


def test_a_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_journal_from(path, 0)) == []
    journal = Journal(path)
    journal.add(TRAIN, 1, {"loss": 1.0})
    [(entry, offset)] = read_journal_from(path, 0)
    assert (entry["step"], offset) == (1, path.stat().st_size)
    journal.add(TRAIN, 2, {"loss": 0.5})
    assert [entry["step"] for entry, _ in read_journal_from(path, offset)] == [2]
    journal.close()


def test_a_server_that_never_answers_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.add(TRAIN, 1, {"loss": 1.0})
    journal.close()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        began = time.monotonic()
        sender = MetricSender(f"http://127.0.0.1:{server.getsockname()[1]}", "0" * 32, path)
        sender.send({"kind": TRAIN, "step": 2, "time": 0.0, "values": {"loss": 0.5}})
        assert not sender.close(timeout=0.5)
        assert time.monotonic() - began < 5


def test_a_request_never_parts_the_values_of_a_step(workspace: Workspace, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    class Watched(MlflowClient):
        sizes: ClassVar[list[set[int]]] = []

        def log_batch(self, run_id: str, metrics: Any = (), **kwargs: Any) -> Any:
            self.sizes.append({metric.step for metric in metrics})
            assert len(metrics) <= 500
            return super().log_batch(run_id, metrics=metrics, **kwargs)

    with start_run(workspace, "pretrain", "run", {}) as run:
        sender = MetricSender(tracking_uri(workspace), run.run_id)
        names = ["loss", *(f"loss/{number}" for number in range(6))]
        batch = [
            {"kind": TRAIN, "step": step, "time": 0.0, "values": dict.fromkeys(names, 1.0)}
            for step in range(1, 201)
        ]
        sender._log(Watched(tracking_uri=tracking_uri(workspace)), batch)
        sender.close()
    assert len(Watched.sizes) > 1
    assert sum(len(steps) for steps in Watched.sizes) == len(set.union(*Watched.sizes)) == 200


def test_a_run_that_is_interrupted_is_marked_killed(workspace: Workspace) -> None:
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), start_run(workspace, "evaluate", "run", {}) as run:
            raise error
        assert client_of(workspace).get_run(run.run_id).info.status == "KILLED"


def test_a_run_that_raises_is_marked_failed(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), start_run(workspace, "evaluate", "run", {"a": {"b": 1}}) as run:
        raise RuntimeError("no")
    stored = client_of(workspace).get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.params == {"a.b": "1"}
