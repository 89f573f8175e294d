"""One process at a time writes a corpus, on a disk and in an object store; who lost its lock commits nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from obstore.store import from_url

from data_pipeline import locks, schema
from data_pipeline.corpus import Corpus
from data_pipeline.errors import Busy, Overtaken
from data_pipeline.locks import locked
from data_pipeline.sources import as_path
from data_pipeline.storage import client_options
from tests.data_pipeline.made_inputs import inputs_of
from tests.data_pipeline.remote_servers import S3, SIGNED

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    server = S3()
    assert server.ask("PUT", "/locks") == 200
    yield server
    server.close()


@pytest.fixture(params=["disk", "store"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock's place, on a disk or in an object store."""
    if request.param == "disk":
        return tmp_path / "folder" / ".lock"
    server: S3 = request.getfixturevalue("server")
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    return as_path(f"s3://locks/{tmp_path.name}/corpus/.lock")


def hold(path: Path) -> subprocess.Popen[bytes]:
    """A process that holds a lock until it is killed."""
    program = (
        "import sys, time; from data_pipeline import locks; from data_pipeline.sources import as_path\n"
        "with locks.locked(as_path(sys.argv[1]), 'it'):\n    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_who_comes_second_is_told_who_holds_it(path: Path) -> None:
    process = hold(path)
    try:
        message = rf"workspace: it is worked on by another process: process {process.pid} on \S+ since \S+ holds .*\.lock"
        with pytest.raises(Busy, match=message), locked(path, "workspace: it"):
            raise AssertionError("not reached")
        with pytest.raises(Busy, match="another process after 1 s"), locked(path, "it", wait=1.2):
            raise AssertionError("not reached")
    finally:
        process.kill()
        process.wait()


def test_who_waits_gets_it_when_the_first_is_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    order, told = [], []

    def second() -> None:
        with locked(path, "it", wait=30, told=told.append):
            order.append("second")

    with locked(path, "it"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    (line,) = told
    assert line.startswith(f"waiting for process {os.getpid()} on ")
    # Free again, and again.
    with locked(path, "it"):
        pass


def test_the_lock_of_a_killed_process_is_free_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = hold(path)
    process.kill()
    process.wait()
    # On a disk at once; in a store when it was not renewed for a while, by the store's clock (of whole seconds).
    monkeypatch.setattr(locks, "LEASE_SECONDS", 3.0)
    began = time.monotonic()
    with locked(path, "it", wait=60):
        assert time.monotonic() - began < 10


def test_of_many_who_see_a_stale_lock_one_gets_it(
    server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    store = from_url(f"s3://locks/{tmp_path.name}", client_options=client_options())
    obstore.put(store, ".lock", b"{}")
    monkeypatch.setattr(locks, "LEASE_SECONDS", 1.0)
    time.sleep(2.1)
    got = []

    def take() -> None:
        tag = locks._take(store, ".lock")
        got.append(tag is not None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_lock_is_renewed_as_long_as_its_holder_works(
    server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 2.0)
    place = as_path(f"s3://locks/{tmp_path.name}/.lock")
    with locked(place, "it"):
        time.sleep(5)
        with pytest.raises(Busy), locked(place, "it"):
            raise AssertionError("not reached")
    store = from_url(f"s3://locks/{tmp_path.name}", client_options=client_options())
    assert [entry["path"] for entry in obstore.list(store).collect()] == []


def rows(number: int) -> pa.Table:
    row = {"doc_id": f"d{number}", "source": "a", "stage": "filter", "reason": "short", "version": number}
    return pa.Table.from_pylist([row], schema=schema.REMOVED)


@pytest.mark.parametrize("moment", ["before its commit", "within its commit"])
def test_who_was_overtaken_commits_nothing(path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = path.parent
    late, quick = Corpus(root), Corpus(root)
    late.prepare()
    file = late.write_file("removed", rows(1), "late.parquet")
    if moment == "within its commit":
        # Its files are in the table already, its row is not; then it sleeps for a long time.
        late._write("removed", [file], "append")
    assert quick.prepare() is None
    mine = quick.write_file("removed", rows(2), "quick.parquet")
    version = quick.commit([mine], inputs_of(rows(2).to_pylist()), {"version": 1})
    with pytest.raises(Overtaken, match="another process has written corpus/"):
        late.commit(
            [] if moment == "within its commit" else [file],
            inputs_of([] if moment == "within its commit" else rows(1).to_pylist()),
            {"version": 1},
        )
    corpus = Corpus(root)
    assert corpus.prepare() == version
    assert [row["version"] for row in corpus.versions()] == [1]
    assert corpus.read("removed", version, ["doc_id"]).to_pylist() == [{"doc_id": "d2"}]
