"""Fourteen nights, each killed once at a random moment and begun again: the same corpus as without kills."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from data_pipeline import history
from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.shard_writer import write_shards
from data_pipeline.shards import Manifest, TokenDataset
from data_pipeline.tokenizer import Tokenizer, train_tokenizer
from tests.data_pipeline.nightly import NIGHTS, TAKEDOWNS, bring, work
from workflows.tokenize import ShardConfig, TokenizerConfig

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

# Where in a night's work it is killed, as far as the files tell; each is followed by a random while.
Moment = Callable[[Path, int], bool]
MOMENTS: dict[str, Moment] = {
    "at the beginning": lambda corpus, before: True,
    "reading": lambda corpus, before: any(corpus.glob(".staging/*/unit-*")),
    "writing the tables": lambda corpus, before: _num(corpus, "*/part-*.parquet") > before,
    "within the commit": lambda corpus, before: _num(corpus, "documents/_delta_log/*.json") > before,
    "before the commit point": lambda corpus, before: _num(corpus, "inputs/_delta_log/*.json") > before,
    "behind the commit point": lambda corpus, before: _num(corpus, "versions/_delta_log/*.json") > before,
}
COUNTED = {
    "writing the tables": "*/part-*.parquet",
    "within the commit": "documents/_delta_log/*.json",
    "before the commit point": "inputs/_delta_log/*.json",
    "behind the commit point": "versions/_delta_log/*.json",
}
LONGEST_WHILE = 0.15


def _num(corpus: Path, pattern: str) -> int:
    return sum(1 for _ in corpus.glob(pattern))


def content(corpus: Corpus) -> dict[str, list[str]]:
    """The rows of all tables of all versions' end, sorted, without the times at which they were written."""
    newest = corpus.at()
    rows: dict[str, list[Any]] = {
        table: [{**row, "modified": None} for row in corpus.scan(table, newest).to_table().to_pylist()]
        for table in TABLES
    }
    rows["versions"] = [
        {key: value for key, value in row.items() if not key.endswith("_version") and key != "created_at"}
        for row in corpus.versions()
    ]
    rows["takedowns"] = (
        corpus.delta("takedowns").to_pyarrow_table(columns=["kind", "value", "note"]).to_pylist()
    )
    return {table: sorted(map(repr, found)) for table, found in rows.items()}


def tokens(corpus: Corpus, folder: Path) -> Manifest:
    config = TokenizerConfig(vocab_size=512)
    path = train_tokenizer(corpus, corpus.at(), config, folder / "tokenizer" / "bpe", 0.1, lambda line: None)
    made, manifest, _ = write_shards(
        corpus, corpus.at(), Tokenizer.load(path), "bpe", ShardConfig(val_share=0.1), folder / "tokens"
    )
    TokenDataset(made, "train", verify=True)
    return manifest


def orphans(corpus: Corpus) -> set[str]:
    """Data files that no version names."""
    named = {
        path.split("/corpus/", 1)[1]
        for row in corpus.versions()
        for table in TABLES
        for path in corpus.files(table, row)
    }
    kept = {
        path.split("/corpus/", 1)[1]
        for table in ("versions", "takedowns")
        for path in corpus.delta(table).file_uris()
    }
    there = {
        str(path.relative_to(corpus.root))
        for path in corpus.root.rglob("*")
        if path.is_file() and "_delta_log" not in path.parts and "reports" not in path.parts
    }
    return there - named - kept - {".lock"}


class Standby:
    """A process that has joined Ray and waits for the word to work a night."""

    def __init__(self, base: Path, corpus: Path, night: int) -> None:
        address = ray.get_runtime_context().gcs_address
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.data_pipeline.nightly",
                address,
                str(base),
                str(corpus),
                str(night),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        assert self.process.stdout.readline() == b"ready\n"
        os.set_blocking(self.process.stdout.fileno(), False)
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def is_done(self) -> bool:
        assert self.process.stdout is not None
        return self.process.stdout.read() is not None or self.process.poll() is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def kill_once(standby: Standby, corpus: Path, name: str, rng: random.Random) -> bool:
    """Let a night begin and kill it at about a moment; whether it was still at work."""
    before = _num(corpus, COUNTED[name]) if name in COUNTED else 0
    standby.start()
    deadline = time.monotonic() + 60
    while not MOMENTS[name](corpus, before) and not standby.is_done():
        assert time.monotonic() < deadline, name
        time.sleep(0.001)
    time.sleep(rng.uniform(0, LONGEST_WHILE) * (10 if name == "at the beginning" else 1))
    was_done = standby.is_done()
    standby.kill()
    return not was_done


def test_fourteen_nights_with_kills_end_as_fourteen_nights_without(tmp_path: Path) -> None:
    seed = int(os.environ.get("NIGHTLY_SEED", "1"))
    rng = random.Random(seed)
    undisturbed, killed = Corpus(tmp_path / "undisturbed/corpus"), Corpus(tmp_path / "killed/corpus")
    caught = []
    standby = Standby(tmp_path, killed.root, 1)
    for night in range(1, NIGHTS + 1):
        bring(tmp_path / "in", night)
        work(tmp_path, undisturbed, night)
        name = rng.choice(sorted(MOMENTS))
        if kill_once(standby, killed.root, name, rng):
            caught.append(name)
        standby = Standby(tmp_path, killed.root, min(NIGHTS, night + 1))
        work(tmp_path, killed, night)
        assert len(killed.versions()) == len(undisturbed.versions()), (night, name)
    standby.kill()
    # Most kills met the work, at several of the moments.
    assert len(caught) >= NIGHTS // 2, caught
    assert len(set(caught)) >= 3, caught

    expected = content(undisturbed)
    found = content(killed)
    for table, rows in expected.items():
        assert found[table] == rows, table
    # The nights were what they were meant to be.
    stages = {json.dumps([row["stage"], row["status"]]) for row in _fates(undisturbed)}
    assert {'["superseded", ""]', '["takedown", ""]', '["exact_dedup", ""]', '["near_dedup", ""]'} <= stages
    assert '["", "damaged"]' in stages or '["read", ""]' in stages
    assert sum(row["num_taken_down"] > 0 for row in undisturbed.versions()) == len(TAKEDOWNS)

    manifests = [tokens(corpus, corpus.root.parent) for corpus in (undisturbed, killed)]
    assert manifests[0].manifest_hash == manifests[1].manifest_hash
    assert manifests[0].to_json() == manifests[1].to_json()

    left = orphans(killed)
    with killed.locked():
        gone = history.vacuum(killed, keep=1000)
    assert left <= {name for name, _ in gone.files}
    assert orphans(killed) == set()
    assert content(killed) == expected


def _fates(corpus: Corpus) -> list[dict[str, str]]:
    removed = corpus.read("removed", corpus.at(), ["stage"]).to_pylist()
    inputs = corpus.read("inputs", corpus.at(), ["status"]).to_pylist()
    return [{"stage": row["stage"], "status": ""} for row in removed] + [
        {"stage": "", "status": row["status"]} for row in inputs
    ]
