"""Refreshes that were killed, many small ones instead of one, other numbers of workers: the same corpus in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from tests.data_pipeline.made_inputs import prose, reworded

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROOT = Path(__file__).resolve().parents[2]
FAMILIES = 12


def write_files(folder: Path, count: int = 10) -> list[Path]:
    """Files of documents, each with near or exact copies in others: family NUMBER is in its uri."""
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        rows = []
        for family in range(FAMILIES):
            if (number + family) % 3 == 0:
                text = reworded(prose(family, 250), (number * family) % 3, number)
                rows.append({"id": f"family-{family:02d}-file-{number}", "text": text})
        rows.append({"id": f"own-{number}", "text": prose(100 + number, 250)})
        files.append(folder / f"{number}.jsonl")
        files[-1].write_text("\n".join(map(json.dumps, rows)))
    return files


def config_of(files: list[Path]) -> RefreshConfig:
    source = SourceConfig(name="rows", paths=[str(path) for path in files], uri_column="id")
    # Most of these documents are copies, and that is how it should be.
    return RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0))


def content(corpus: Corpus) -> dict[str, list[str]]:
    """The tables' rows, sorted."""
    return {
        table: sorted(map(repr, corpus.scan(table, corpus.at()).to_table().to_pylist()))
        for table in ("documents", "removed", "signatures")
    }


def test_ten_refreshes_end_where_one_does(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in")
    one, ten = Corpus(tmp_path / "one"), Corpus(tmp_path / "ten")
    refresh(one, config_of(files), tmp_path)
    for number in range(1, len(files) + 1):
        refresh(ten, config_of(files[:number]), tmp_path)
    assert ten.at()["version"] == 10
    kept = {
        name: sorted(corpus.read("documents", corpus.at(), ["uri"])["uri"].to_pylist())
        for name, corpus in (("one", one), ("ten", ten))
    }
    # Of each family one document stays; in ten refreshes it is one of the first file that has any.
    families = [f"family-{family:02d}" for family in range(FAMILIES)]
    for name in kept:
        assert [uri[:9] for uri in kept[name] if uri.startswith("family")] == families
        assert sum(uri.startswith("own") for uri in kept[name]) == len(files)
    for uri in kept["ten"]:
        if uri.startswith("family"):
            family, file = int(uri[7:9]), int(uri.split("-")[-1])
            assert file == next(number for number in range(10) if (number + family) % 3 == 0)
    for corpus in (one, ten):
        assert len(corpus.read("removed", corpus.at(), ["uri"])) == 10 * FAMILIES // 3 - FAMILIES


KILLED = """
import sys, tempfile
from pathlib import Path
from data_pipeline.cluster import set_environment
set_environment()
import ray
from tests.data_pipeline.test_refresh_again import Corpus, config_of, refresh
folder = Path(sys.argv[1])
ray.init(num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
refresh(Corpus(Path(sys.argv[2])), config_of(sorted((folder / "in").glob("*.jsonl"))), folder)
ray.shutdown()
"""


def start(folder: Path, corpus: Path, num_cpus: int = 1) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(corpus), str(num_cpus)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _any(corpus: Path, pattern: str) -> bool:
    return any(corpus.glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "is_there"),
    [
        ("reading", lambda corpus: _any(corpus, ".staging/*/unit-*")),
        ("writing", lambda corpus: _any(corpus, "documents/*.parquet")),
        ("within the commit", lambda corpus: _any(corpus, "documents/_delta_log/*1.json")),
    ],
)
def test_a_refresh_killed_at_any_moment_and_run_again_ends_the_same(
    moment: str, is_there: Callable[[Path], bool], tmp_path: Path
) -> None:
    files = write_files(tmp_path / "in")
    refresh(Corpus(tmp_path / "undisturbed"), config_of(files), tmp_path)
    process = start(tmp_path, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not is_there(tmp_path / "killed"):
        assert process.poll() is None, "the refresh ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in children:
        if child.is_running():
            child.kill()
    refresh(Corpus(tmp_path / "killed"), config_of(files), tmp_path)
    assert content(Corpus(tmp_path / "killed")) == content(Corpus(tmp_path / "undisturbed")), moment
    assert len(Corpus(tmp_path / "killed").versions()) == 1


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in")
    refresh(Corpus(tmp_path / "two"), config_of(files), tmp_path)
    expected = content(Corpus(tmp_path / "two"))
    assert len(expected["documents"]) == FAMILIES + 10
    for num_cpus in (1, 4):
        assert start(tmp_path, tmp_path / str(num_cpus), num_cpus).wait(timeout=200) == 0
        assert content(Corpus(tmp_path / str(num_cpus))) == expected
