"""Where runs are kept, how they are found again, and what a logged model asks for."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline import schema
from data_pipeline.corpus import VERSIONS
from data_pipeline.errors import InputError
from tests.workflows.conftest import ROOT, environment
from workflows import refresh, review, tracking
from workflows.console import Step
from workflows.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "ws"))


def commit_empty_version(workspace: Workspace) -> dict:
    """A corpus version as a refresh leaves it when it is killed right behind its commit."""
    corpus = workspace.corpus
    latest = corpus.prepare()
    row = {
        field.name: {"string": "", "int64": 0, "int32": 0}.get(str(field.type)) for field in schema.VERSIONS
    }
    number = latest["version"] + 1 if latest else 1
    row |= {"version": number, "config": '{"dedup": {"threshold": 0.7}}'}
    return corpus.commit([], pa.table({}), row)


def test_two_workspaces_of_one_process_keep_their_runs_and_files_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        workspace = Workspace.open(str(tmp_path / name))
        with tracking.start_run(workspace, "refresh", "run", {"a": 1}) as run:
            pass
        files = list((workspace.root / "mlartifacts").rglob("config.json"))
        assert [run.run_id in str(file) for file in files] == [True]
        assert [found.info.run_id for found in tracking.runs_of(workspace)] == [run.run_id]
        assert "MLFLOW_TRACKING_URI" not in os.environ
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_users_store_is_taken_and_artifacts_go_where_it_says(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mine.db")
    with tracking.start_run(workspace, "refresh", "run", {}):
        pass
    assert (tmp_path / "mine.db").exists()
    assert list(workspace.root.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@mlflow.example:5000/x", "http://mlflow.example:5000/x"),
        ("postgresql://user:secret@db/x", 'ui --backend-store-uri "$MLFLOW_TRACKING_URI"'),
    ],
)
def test_no_password_is_shown(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, uri: str, shown: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.how_to_look(workspace).endswith(shown)
    assert "secret" not in tracking.how_to_look(workspace)


def test_a_user_without_a_name_is_its_number(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    with tracking.start_run(workspace, "refresh", "run", {}) as run:
        pass
    assert tracking.client_of(workspace).get_run(run.run_id).data.tags["mlflow.user"] == "987654"


def test_a_run_that_the_store_does_not_have_is_not_known(workspace: Workspace) -> None:
    with tracking.start_run(workspace, "refresh", "run", {}) as run:
        pass
    assert tracking.known_run(workspace, run.run_id) == run.run_id
    assert tracking.known_run(workspace, "0" * 32) is None
    tracking.client_of(workspace).delete_run(run.run_id)
    assert tracking.known_run(workspace, run.run_id) is None


def test_what_a_killed_refresh_left_out_is_made_up_once(workspace: Workspace) -> None:
    row = commit_empty_version(workspace)
    tags = tracking.corpus_tags(workspace, 1)
    with (
        pytest.raises(KeyboardInterrupt),
        tracking.start_run(workspace, "refresh", "run", {}, tags=tags) as killed,
    ):
        raise KeyboardInterrupt
    for _ in range(2):
        refresh._record(workspace, row, Step("refresh"), None)
    assert workspace.report(1).exists()
    [run] = tracking.runs_of(workspace, "refresh")
    assert (run.info.run_id, run.info.status) == (killed.run_id, "FINISHED")
    assert run.data.metrics["documents/all/kept"] == 0


def test_the_same_version_of_another_corpus_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    monkeypatch.chdir(tmp_path)
    ids = []
    for name in ("one", "two"):
        workspace = Workspace.open(str(tmp_path / name))
        row = commit_empty_version(workspace)
        refresh._record(workspace, row, Step("refresh"), None)
        ids.append(tracking.find_run(workspace, "refresh", tracking.corpus_tags(workspace, 1)))
        assert workspace.corpus_id
    assert None not in ids
    assert len(set(ids)) == 2
    assert VERSIONS in os.listdir(workspace.root / "corpus")


def test_a_logged_model_pins_its_packages_and_its_code_imports_nothing_heavy() -> None:
    code = """
import sys
import pandas, gpt.checkpoint, gpt.generate, data_pipeline.tokenizer, tiktoken
heavy = {"ray", "deltalake", "tokenizers", "numba", "mlflow", "lxml"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    pins = tracking.model_requirements()
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    assert {pin.partition("==")[0] for pin in pins} <= {line.partition("==")[0] for line in locked}


def test_runs_are_named_by_name_or_by_an_unambiguous_beginning(workspace: Workspace) -> None:
    ids = []
    for name in ("first", "second", "second"):
        with tracking.start_run(workspace, "evaluate", name, {}) as run:
            ids.append(run.run_id)
    runs = tracking.runs_of(workspace)
    assert review.find(runs, "first").info.run_id == ids[0]
    assert review.find(runs, "second").info.run_id == ids[2]
    assert review.find(runs, ids[1][:20]).info.run_id == ids[1]
    with pytest.raises(InputError, match="beginning of several"):
        review.find(runs, "")
    with pytest.raises(InputError, match="no run 'third'"):
        review.find(runs, "third")


@pytest.mark.parametrize("given", ["0012,12e4", "[0012, 12e4]", ["0012", "12e4"]])
def test_ids_that_look_like_numbers_stay_text(given: str | list[str]) -> None:
    assert review._wanted(given) == ["0012", "12e4"]
