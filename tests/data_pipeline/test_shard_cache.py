"""Shards of an object store as files of a node: fetched in the order they are wanted, checked, within a budget of disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import Busy, InputError
from data_pipeline.shard_cache import ShardCache
from data_pipeline.shards import Manifest, ShardInfo, TokenDataset
from data_pipeline.sources import as_path
from data_pipeline.storage import remove_tree
from data_pipeline.token_documents import held_still, manifests, unreadable
from tests.data_pipeline.remote_servers import S3, SIGNED, Breaking
from tests.data_pipeline.test_token_shards import _write_shard

NUM_SHARDS, DOCUMENTS = 6, 40


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("local")
    rng = np.random.default_rng(3)
    shards = []
    for number in range(NUM_SHARDS):
        documents = [rng.integers(1, 400, 50).tolist() for _ in range(DOCUMENTS)]
        shards.append(_write_shard(folder, f"{number}.arrow", [documents[:20], documents[20:]], np.uint16))
    manifest = Manifest("bpe", 1, "bpe", "0" * 64, 400, 0, "0" * 64, tuple(shards))
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder, manifest


@pytest.fixture
def uri(s3: S3, local: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": s3.url, "GPTMILL_SHARD_CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for path in local[0].iterdir():
        s3.put("tokens", f"bpe/v1/{path.name}", path.read_bytes())
    return "s3://tokens/bpe/v1"


def files_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.arrow"))


def wanted(shard: ShardInfo) -> tuple[str, int, str]:
    return shard.path, shard.size, shard.sha256


def test_a_dataset_in_a_store_reads_like_the_same_on_disk(
    uri: str, local: tuple[Path, Manifest], tmp_path: Path
) -> None:
    there, here = TokenDataset(uri, "train"), TokenDataset(local[0], "train")
    assert there.num_tokens == here.num_tokens == NUM_SHARDS * DOCUMENTS * 50
    assert files_in(tmp_path) == []  # nothing is fetched before it is wanted
    for start in (0, 1990, 3999, 6001, 11_900):
        assert there.streams["s"].read(start, 100).tolist() == here.streams["s"].read(start, 100).tolist()
    assert there.streams["s"].doc_starts.tolist() == here.streams["s"].doc_starts.tolist()
    assert files_in(tmp_path) == sorted(shard.sha256 for shard in local[1].shards)
    again = TokenDataset(uri, "train")
    again.streams["s"].read(0, 12_000)
    assert again.cache is not None
    assert again.cache.fetched == []  # what is there is taken


def test_shards_are_fetched_in_the_order_in_which_windows_want_them(
    uri: str, local: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.shard_cache.FETCHES_AT_ONCE", 1)
    dataset = TokenDataset(uri, "train")
    assert dataset.cache is not None
    # The window at 5,990 reaches over the end of shard 2.
    reads = [("s", np.array([8_100, 5_990])), ("s", np.array([8_300, 10]))]
    dataset.fetch_ahead(iter(reads), 64)
    for shard in local[1].shards:
        dataset.cache.path(*wanted(shard))
    order = [4, 2, 3, 0, 1, 5]
    assert dataset.cache.fetched == [local[1].shards[index].sha256 for index in order]


def test_the_budget_holds_and_the_files_used_longest_ago_go_first(
    uri: str, local: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = local[1].shards
    budget = shards[0].size * 3
    monkeypatch.setenv("GPTMILL_SHARD_CACHE_BYTES", str(budget))
    dataset, here = TokenDataset(uri, "train"), TokenDataset(local[0], "train")
    rng = np.random.default_rng(1)
    for start in rng.integers(0, 11_900, 60).tolist():
        assert dataset.streams["s"].read(start, 100).tolist() == here.streams["s"].read(start, 100).tolist()
        assert sum(path.stat().st_size for path in tmp_path.glob("*.arrow")) <= budget
        # What is removed is not kept open, or its bytes would stay.
        assert len(dataset.streams["s"]._mapped) <= 3
    for index in (0, 1, 0, 2, 0, 3):
        dataset.streams["s"].read(index * 2000, 10)
        assert dataset.cache is not None
        dataset.cache.path(*wanted(shards[index]))
    assert shards[0].sha256 in files_in(tmp_path)
    assert shards[1].sha256 not in files_in(tmp_path)
    with pytest.warns(UserWarning, match="shards will be fetched again and again"):
        dataset.fetch_ahead([("s", np.array([0]))], 10)


def test_a_damaged_or_missing_shard_is_named_and_never_kept(
    uri: str, local: tuple[Path, Manifest], tmp_path: Path
) -> None:
    cache = ShardCache(uri)
    first = local[1].shards[0]
    with pytest.raises(InputError, match=r"1\.arrow: sha256 differs from the manifest; the shard is damaged"):
        cache.path("1.arrow", first.size, first.sha256)
    with pytest.raises(InputError, match=r"none\.arrow is missing, the manifest names it"):
        ShardCache(uri).path("none.arrow", 1, "f" * 64)
    assert files_in(tmp_path) == []
    assert not list(tmp_path.glob("*.tmp"))


def test_many_readers_of_a_node_fetch_a_shard_once(uri: str, local: tuple[Path, Manifest]) -> None:
    caches = [ShardCache(uri) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: caches[number % 4].path(*wanted(local[1].shards[0])), range(32)))
    assert sum(len(cache.fetched) for cache in caches) == 1


def test_a_connection_that_breaks_for_a_moment_costs_nothing(
    s3: S3, uri: str, local: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Breaking(s3.port, 4000, 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
    shard = local[1].shards[2]
    assert ShardCache(uri).path(*wanted(shard)).stat().st_size == shard.size
    assert line.cuts == 2
    line.close()


def test_what_a_killed_tokenise_left_in_a_store_is_found_while_nobody_writes(s3: S3, uri: str) -> None:
    s3.put("tokens", "bpe/v2/0.arrow", b"begun, and never finished")
    s3.put("tokens", "bpe/v3/manifest.json", b"{")
    root = as_path("s3://tokens")
    with held_still(root, 0, print):
        assert [folder.name for folder in unreadable(root)] == ["v2", "v3"]
        with pytest.raises(Busy, match="token dataset bpe"), held_still(root, 0, print):
            pass
    with held_still(root, 0, print):
        for folder in unreadable(root):
            remove_tree(folder)
        assert unreadable(root) == []
    assert [manifest.name for _, manifest in manifests(root)] == ["bpe"]
