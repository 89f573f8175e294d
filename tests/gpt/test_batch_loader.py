"""The loader yields the order's windows, the same global batch for any number of workers."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.errors import InputError
from data_pipeline.shards import TokenDataset
from gpt.loader import BatchLoader
from gpt.model import IGNORE_INDEX
from gpt.order import SampleOrder, count_windows

CONTEXT = 16


@pytest.fixture
def dataset(dataset_folder: Path) -> TokenDataset:
    return TokenDataset(dataset_folder, "train")


def order_of(dataset: TokenDataset, seed: int = 1) -> SampleOrder:
    windows = {name: count_windows(stream.num_tokens, CONTEXT) for name, stream in dataset.streams.items()}
    return SampleOrder(windows, None, seed, CONTEXT)


def rows_of(
    dataset: TokenDataset, steps: int, *, rank: int = 0, world_size: int = 1, **options
) -> list[list]:
    """For each step this worker's rows as (source, tokens, targets)."""
    order = order_of(dataset)
    with BatchLoader(dataset, order, rank=rank, world_size=world_size, **options) as loader:
        return [
            [
                (int(source), tokens.tolist(), targets.tolist())
                for micro in next(loader).micro_batches
                for source, tokens, targets in zip(
                    micro.source_B, micro.tokens_BT, micro.targets_BT, strict=True
                )
            ]
            for _ in range(steps)
        ]


def test_rows_are_the_windows_of_the_order(dataset: TokenDataset):
    order = order_of(dataset)
    source, window = order.samples(40, 8)
    (rows,) = rows_of(dataset, 1, batch_size=8, start_sample=40)
    for i, (row_source, tokens, targets) in enumerate(rows):
        stream = dataset.streams[order.sources[source[i]]]
        expected = stream.read(int(window[i]) * CONTEXT, CONTEXT + 1).tolist()
        assert (row_source, tokens, targets) == (source[i], expected[:-1], expected[1:])


@pytest.mark.parametrize("world_size", [2, 3, 4, 5])
@pytest.mark.parametrize("micro_batch_size", [0, 1, 2])
def test_global_batch_is_the_same_for_any_number_of_workers(
    dataset: TokenDataset, world_size: int, micro_batch_size: int
):
    alone = rows_of(dataset, 3, batch_size=8)
    together = [
        rows_of(dataset, 3, batch_size=8, rank=rank, world_size=world_size, micro_batch_size=micro_batch_size)
        for rank in range(world_size)
    ]
    for step in range(3):
        assert len({len(worker[step]) for worker in together}) == 1, "workers run the same shapes"
        rows = [together[i % world_size][step][i // world_size] for i in range(8)]
        assert rows == alone[step]
        padding = [row for worker in together for row in worker[step] if row[2][0] == IGNORE_INDEX]
        assert len(padding) == len(together[0][step]) * world_size - 8
        assert all(set(targets) == {IGNORE_INDEX} for _, _, targets in padding)


def test_starting_later_is_skipping(dataset: TokenDataset):
    assert rows_of(dataset, 2, batch_size=8, start_sample=24) == rows_of(dataset, 5, batch_size=8)[3:]


def test_micro_batches_split_the_share_and_types_are_wide(dataset: TokenDataset):
    with BatchLoader(dataset, order_of(dataset), batch_size=8, micro_batch_size=3) as loader:
        batch = next(loader)
    assert [len(micro.tokens_BT) for micro in batch.micro_batches] == [3, 3, 2]
    assert batch.num_valid_tokens == 8 * CONTEXT
    assert batch.micro_batches[0].tokens_BT.dtype == torch.int64
    assert dataset.streams["web"].dtype == np.uint16


def test_an_error_in_the_thread_reaches_training(dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch):
    def broken(start: int, length: int) -> np.ndarray:
        raise OSError("the disk is gone")

    monkeypatch.setattr(dataset.streams["web"], "read", broken)
    loader = BatchLoader(dataset, order_of(dataset), batch_size=8)
    with pytest.raises(OSError, match="the disk is gone"):
        next(loader)
    assert not loader._thread.is_alive()


def test_closing_ends_the_thread(dataset: TokenDataset):
    before = threading.active_count()
    with BatchLoader(dataset, order_of(dataset), batch_size=8) as loader:
        next(loader)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    loader.close()


def test_a_flipped_byte_names_the_shard(tmp_path: Path, dataset_folder: Path):
    for file in dataset_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "book-train-0.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    TokenDataset(tmp_path, "train")
    with pytest.raises(InputError, match=r"book-train-0\.arrow: sha256 differs"):
        TokenDataset(tmp_path, "train", verify=True)
