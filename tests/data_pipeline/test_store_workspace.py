"""A workspace in an object store: refreshes, takedowns and rollbacks there, and what breaks off is seen by nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.errors import InputError
from data_pipeline.sources import as_path
from tests.data_pipeline.made_inputs import prose, reworded
from tests.data_pipeline.refresh_session import RefreshSession
from tests.data_pipeline.remote_servers import S3, SIGNED, Breaking
from workflows.tracking import tracking_uri
from workflows.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    assert server.ask("PUT", "/mill") == 200
    yield server
    server.close()


@pytest.fixture
def store(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return server


def write(path: Path, **rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in rows.items()))


@pytest.fixture(scope="module")
def line(server: S3) -> Iterator[Breaking]:
    """The connection to the store; uploads break off when its `times` says so."""
    proxy = Breaking(server.port, 20_000, 0, uploads=True)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def session(line: Breaking, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefreshSession]:
    folder = tmp_path_factory.mktemp("session")
    session = RefreshSession(
        folder, **SIGNED, AWS_ENDPOINT_URL=line.url, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"
    )
    yield session
    session.close()


def rows_in(folder: Path) -> list[str]:
    """Options for a source of the files of a folder."""
    source = f"[{{name: rows, paths: [{folder}], uri_column: id}}]"
    return ["--sources", source, "--dedup.max_source_loss", "1"]


def content(corpus: Corpus) -> dict[str, list[str]]:
    left_out = ("modified", "input_file", "path")
    return {
        table: sorted(
            repr({key: value for key, value in row.items() if key not in left_out})
            for row in corpus.scan(table, corpus.at()).to_table().to_pylist()
        )
        for table in TABLES
    }


def test_a_workspace_in_a_store_ends_as_one_on_a_disk(
    store: S3, session: RefreshSession, tmp_path: Path
) -> None:
    text = {name: prose(number, 150) for number, name in enumerate("abcdef")}
    places = ("s3://mill/one", str(tmp_path / "disk"))
    summaries: dict[str, list[dict[str, Any]]] = {place: [] for place in places}

    def everywhere(*arguments: str) -> None:
        for place in places:
            code, summary, errors = session.run(*arguments, "--workspace", place)
            assert code == 0, errors
            summaries[place].append(summary)

    source = rows_in(tmp_path / "in")
    write(tmp_path / "in/1.jsonl", a=text["a"], b=text["b"], http="short")
    everywhere(*source)
    write(tmp_path / "in/1.jsonl", a=text["a"], c=text["c"])
    write(tmp_path / "in/2.jsonl", a_too=text["a"], b_too=reworded(text["b"], 1), d=text["d"])
    everywhere(*source)
    everywhere(*source)
    for place in places:
        answer = session.ask(
            "tokenize", "--workspace", place, "--tokenizer.vocab_size", "300", "--shards.val_share", "0.1"
        )
        assert answer["code"] == 0, answer["err"]
    everywhere("remove", "--uri", "d")
    found = [summaries[place][-1]["token_datasets"] for place in places]
    assert [[row["num_documents"] for row in rows] for rows in found] == [[1], [1]]
    assert found[0][0]["manifest_hash"] == found[1][0]["manifest_hash"]
    for left, right in zip(*summaries.values(), strict=True):
        same = (
            "status",
            "version",
            "versions",
            "num_kept",
            "num_removed",
            "num_superseded",
            "num_taken_down",
        )
        assert {name: left.get(name) for name in same} == {name: right.get(name) for name in same}
    assert [summary["status"] for summary in summaries[places[0]]] == [
        *("committed", "committed", "nothing_new", "committed"),
    ]
    mine, other = Corpus("s3://mill/one/corpus"), Corpus(tmp_path / "disk/corpus")
    assert content(mine) == content(other)
    assert sorted(mine.read("documents", mine.at(), ["uri"])["uri"].to_pylist()) == ["a", "b_too", "c"]
    # Reports lie in the store as well; nothing of the work does.
    names = {path.path.removeprefix("mill/one/corpus/") for path in mine.root.rglob("*") if path.is_file()}  # type: ignore[attr-defined]
    assert {f"reports/version-00000{number}.html" for number in (1, 2, 3)} <= names
    assert not [name for name in names if name.startswith((".staging", ".lock"))]

    code, summary, _ = session.run("rollback", "1", "--workspace", places[0])
    assert (code, summary["version"]) == (0, 4)
    assert sorted(mine.read("documents", mine.at(), ["uri"])["uri"].to_pylist()) == ["a", "b", "http"]
    code, summary, _ = session.run("vacuum", "--keep", "1", "--workspace", places[0])
    # Tokens were made of version 2.
    assert (code, summary["versions"]) == (0, [1, 3])
    assert len(content(mine)["documents"]) == 3


def test_a_store_that_breaks_off_uploads_leaves_no_half_version(
    store: S3, session: RefreshSession, line: Breaking, tmp_path: Path
) -> None:
    command = [*rows_in(tmp_path / "in"), "--workspace", "s3://mill/two"]
    write(tmp_path / "in/1.jsonl", a=prose(1000, 150))
    assert session.run(*command)[0] == 0
    before = content(Corpus("s3://mill/two/corpus"))
    write(tmp_path / "in/2.jsonl", **{str(number): prose(number, 400) for number in range(60)})
    # Large uploads are cut off for ever, small ones (locks, logs) go through.
    line.times = float("inf")
    try:
        code, summary, errors = session.run(*command)
    finally:
        line.times = 0
    assert (code, summary["status"]) == (1, "failed"), errors
    assert line.cuts > 0
    corpus = Corpus("s3://mill/two/corpus")
    assert content(corpus) == before
    assert [row["version"] for row in corpus.versions()] == [1]
    # And then it goes through.
    code, summary, errors = session.run(*command)
    assert (code, summary["version"], summary["num_kept"]) == (0, 2, 60), errors


def test_two_refreshes_of_one_store_do_not_harm_each_other(store: S3, tmp_path: Path) -> None:
    write(tmp_path / "in/1.jsonl", **{str(number): prose(number, 150) for number in range(20)})
    command = [
        *(sys.executable, "-m", "workflows.refresh", "--workspace", "s3://mill/three", "--json"),
        *("--sources", f"[{{name: rows, paths: [{tmp_path}/in], uri_column: id}}]"),
    ]
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_ADDRESS"))
    }
    environment = {**kept, "PYTHONPATH": str(ROOT)}
    first, waiting = (
        subprocess.Popen(
            [*command, *extra], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for extra in ((), ("--wait",))
    )
    lock = as_path("s3://mill/three/corpus/.lock")
    deadline = time.monotonic() + 60
    while not lock.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    summaries = [json.loads(process.communicate(timeout=200)[0]) for process in (first, waiting)]
    if refused.returncode == 1:  # nearly always: the others were at work yet
        assert json.loads(refused.stdout)["status"] == "busy"
        assert "is worked on by another process: process" in refused.stderr
        assert "Traceback" not in refused.stderr
    # Whichever of the two came first, one may be told that the other works; the one that waits never is.
    assert summaries[1]["exit_code"] == 0
    assert sorted(summary["status"] for summary in summaries) in (
        ["committed", "nothing_new"],
        ["busy", "committed"],
    )
    corpus = Corpus("s3://mill/three/corpus")
    assert [row["version"] for row in corpus.versions()] == [1]
    assert corpus.at()["num_kept"] == 20


def test_a_place_that_is_none_is_refused_in_one_line(store: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, message in (
        ("s3://nowhere/ws", "there is no bucket nowhere"),
        ("s3://mill", "is no place for a workspace"),
        ("ftp://mill/ws", "is no place for a workspace"),
    ):
        with pytest.raises(InputError, match=message):
            Workspace.open(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI: s3://mill/four is in an object store"):
        tracking_uri(Workspace.open("s3://mill/four"))
