"""Incremental tokens: new versions add shards and keep the old ones, and history leaves no trace in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import schema
from data_pipeline.corpus import Corpus
from data_pipeline.shard_plan import CELL_BITS, PlannedShard, _runs, content_key, plan_shards
from data_pipeline.shard_writer import write_shards
from data_pipeline.shards import Manifest, ShardInfo, TokenDataset
from data_pipeline.staging import doc_id
from data_pipeline.text_hash import text_hash
from data_pipeline.tokenizer import Tokenizer, train_tokenizer
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from tests.data_pipeline.made_inputs import inputs_of, make_corpus, prose

CONFIG = ShardConfig(val_share=0.1, shard_chars=20_000)
REFRESHES = [range(200), range(200, 230), range(230, 260), range(260, 300), range(300, 310)]


def documents(numbers: Sequence[int], version: int) -> list[dict]:
    rows = []
    for number in numbers:
        text = prose(number, 60 + number % 50)
        source = "web" if number % 3 else "book"
        rows.append(
            {
                "doc_id": doc_id(source, str(number), text),
                "source": source,
                "uri": str(number),
                "text": text,
                "num_chars": len(text),
                "text_hash": text_hash(text),
                "version": version,
            }
        )
    return rows


def history(root: Path, refreshes: Sequence[Sequence[int]], num_files: int = 1) -> Corpus:
    """A corpus with a version for each refresh."""
    corpus = Corpus(root)
    for version, numbers in enumerate(refreshes, start=1):
        corpus.prepare()
        rows = documents(numbers, version)
        files = [
            corpus.write_file(
                "documents",
                pa.Table.from_pylist(rows[number::num_files], schema=schema.DOCUMENTS),
                f"v{version}-{number}.parquet",
            )
            for number in range(num_files)
        ]
        corpus.commit(files, inputs_of(rows), {"version": version, "config_hash": "0" * 64, "config": "{}"})
    return corpus


def without(root: Path, numbers: set[int]) -> Corpus:
    """The same documents but for some, all with the versions that added them: as after a takedown."""
    rows = [row for version, part in enumerate(REFRESHES, start=1) for row in documents(part, version)]
    rows = [row for row in rows if int(row["uri"]) not in numbers]
    corpus = Corpus(root)
    corpus.prepare()
    file = corpus.write_file("documents", pa.Table.from_pylist(rows, schema=schema.DOCUMENTS), "all.parquet")
    corpus.commit([file], inputs_of(rows), {"version": 6, "config_hash": "0" * 64, "config": "{}"})
    return corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return history(tmp_path_factory.mktemp("corpus"), REFRESHES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus = make_corpus(folder / "corpus", [prose(number) for number in range(40)])
    config = TokenizerConfig(vocab_size=400)
    return Tokenizer.load(
        train_tokenizer(corpus, corpus.at(), config, folder / "bpe", 0.1, lambda line: None)
    )


def tokens_of(folder: Path, manifest: Manifest) -> dict[str, list[int]]:
    rows = {}
    for shard in manifest.shards:
        with pa.memory_map(str(folder / shard.path)) as file:
            for row in pa.ipc.open_file(file).read_all().to_pylist():
                assert row["doc_id"] not in rows
                rows[row["doc_id"]] = row["tokens"]
    return rows


def test_each_version_takes_over_shards_and_equals_the_same_version_made_alone(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    seen: dict[str, int] = {}
    for number in range(1, len(REFRESHES) + 1):
        version = corpus.at(number)
        folder, manifest, _ = write_shards(corpus, version, tokenizer, "bpe", CONFIG, tmp_path / "all")
        inodes = {content_key(shard.path): (folder / shard.path).stat().st_ino for shard in manifest.shards}
        taken = {key for key, inode in inodes.items() if seen.get(key) == inode}
        if number > 1:
            # The large first refresh is cut into full shards, which stay for ever.
            assert len(taken) >= 3
            assert len(inodes) > len(taken)
        seen |= inodes
        alone, made_alone, _ = write_shards(
            corpus, version, tokenizer, "bpe", CONFIG, tmp_path / f"alone-{number}"
        )
        assert made_alone.manifest_hash == manifest.manifest_hash
        for shard in manifest.shards:
            assert (alone / shard.path).read_bytes() == (folder / shard.path).read_bytes()
        expected = corpus.read("documents", version, ["doc_id", "text"]).to_pylist()
        assert tokens_of(folder, manifest) == {
            row["doc_id"]: [tokenizer.eot_id, *tokenizer.encode(row["text"])] for row in expected
        }


def test_removed_documents_drop_out_and_most_shards_stay(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    _, before, _ = write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    gone = without(tmp_path / "corpus", {7, 205})
    folder, after, _ = write_shards(gone, gone.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    ids = {row["doc_id"] for row in documents([7, 205], 1)}
    assert len(ids & set(tokens_of(folder, after))) == 0
    assert sum(shard.num_docs for shard in after.shards) == sum(shard.num_docs for shard in before.shards) - 2
    kept = {content_key(shard.path) for shard in before.shards} & {
        content_key(shard.path) for shard in after.shards
    }
    # Each removed document costs the shard that it was in, and where a cut moved, its neighbour.
    assert len(kept) >= len(before.shards) - 4
    TokenDataset(folder, "train", verify=True)


def test_another_tokenizer_takes_nothing_over(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    other = train_tokenizer(
        corpus, corpus.at(), TokenizerConfig(vocab_size=300), tmp_path / "bpe", 0.1, lambda line: None
    )
    _, first, _ = write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    _, second, _ = write_shards(
        corpus, corpus.at(), Tokenizer.load(other), "bpe", CONFIG, tmp_path / "tokens"
    )
    keys = [{content_key(shard.path) for shard in manifest.shards} for manifest in (first, second)]
    assert not keys[0] & keys[1]


def test_a_shard_that_lost_bytes_is_not_taken_over(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    folder, manifest, _ = write_shards(corpus, corpus.at(4), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    damaged = folder / manifest.shards[0].path
    os.truncate(damaged, damaged.stat().st_size - 8)
    newer, made, _ = write_shards(corpus, corpus.at(5), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    for split in ("train", "val"):
        TokenDataset(newer, split, verify=True)
    _, alone, _ = write_shards(corpus, corpus.at(5), tokenizer, "bpe", CONFIG, tmp_path / "alone")
    assert made.manifest_hash == alone.manifest_hash


def test_shards_of_a_large_refresh_are_of_like_size(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    numbers = rng.permutation(6000)
    corpus = history(tmp_path, [numbers.tolist()], num_files=3)
    total = sum(corpus.read("documents", corpus.at(), ["num_chars"])["num_chars"].to_pylist())
    config = ShardConfig(val_share=0.1, shard_chars=total // 16)
    shards = plan_shards(corpus, corpus.at(), config, tokenizer).shards
    sizes: dict[tuple[str, str], list[int]] = {}
    for shard in shards:
        sizes.setdefault((shard.source, shard.split), []).append(shard.num_chars)
    assert max(map(len, sizes.values())) > 8
    for found in sizes.values():
        assert max(found) <= 1.1 * config.shard_chars
        assert min(found) >= 0.9 * sum(found) / len(found)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 2000), min_size=1, max_size=60))
def test_runs_stay_few_and_full_ones_are_never_joined_again(sizes: list[int]) -> None:
    target = 1000

    def runs(count: int) -> list[tuple[int, ...]]:
        table = {
            ("web", "train", number): pa.table({"chars": [size]}) for number, size in enumerate(sizes[:count])
        }
        return [tuple(key[2] for key in run) for run in _runs(table, target)]

    full: set[tuple[int, ...]] = set()
    for count in range(1, len(sizes) + 1):
        found = runs(count)
        assert [number for run in found for number in run] == list(range(count))
        assert full <= set(found)
        full |= {run for run in found if sum(sizes[number] for number in run) >= target}
    small = [sum(sizes[number] for number in run) for run in found if run not in full]
    # Behind a run that is not full comes a smaller one, or a full one.
    assert len(small) <= 2 + 11 * (1 + len(full))


def test_a_name_says_what_a_shard_is_and_sorts_by_it(corpus: Corpus, tokenizer: Tokenizer) -> None:
    shards: tuple[PlannedShard, ...] = plan_shards(corpus, corpus.at(), CONFIG, tokenizer).shards
    assert [shard.path for shard in shards] == sorted(shard.path for shard in shards)
    for shard in shards:
        source, split, version, index, key = shard.path.removesuffix(".arrow").split("-")
        assert (source, split) == (shard.source, shard.split)
        assert int(version) in range(1, 6)
        assert int(index) < 1 << CELL_BITS
        assert key == content_key(ShardInfo(shard.path, source, split, 0, 0, 0, 0, "").path)


REBUILD = """
import sys, ray, workflows
from pathlib import Path
from data_pipeline.corpus import Corpus
from data_pipeline.shard_writer import write_shards
from data_pipeline.tokenizer import Tokenizer
from data_pipeline.tokenizer_config import ShardConfig
corpus_root, tokenizer, out, temporary, cores = sys.argv[1:]
ray.init(num_cpus=int(cores), include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=temporary)
ray.data.DataContext.get_current().enable_progress_bars = False
corpus = Corpus(Path(corpus_root))
found = Tokenizer.load(Path(tokenizer))
config = ShardConfig(val_share=0.1, shard_chars=20_000)
print(write_shards(corpus, corpus.at(3), found, "bpe", config, Path(out))[1].manifest_hash)
"""


@pytest.mark.slow
def test_an_old_version_is_rebuilt_to_the_same_hash_on_one_and_on_two_workers(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    for version in (1, 2, 3, 5):
        _, manifest, _ = write_shards(corpus, corpus.at(version), tokenizer, "bpe", CONFIG, tmp_path / "all")
        if version == 3:
            stated = manifest.manifest_hash
    path = tmp_path / "bpe" / "tokenizer.json"
    path.parent.mkdir()
    path.write_text(tokenizer.text)
    for cores in ("1", "2"):
        with tempfile.TemporaryDirectory(prefix="gm", dir="/tmp") as temporary:
            arguments = [str(corpus.root), str(path), str(tmp_path / f"alone-{cores}"), temporary, cores]
            done = subprocess.run(
                [sys.executable, "-c", REBUILD, *arguments], capture_output=True, text=True, timeout=120
            )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.split()[-1] == stated
