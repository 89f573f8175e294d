"""The loader yields the order's windows, the same global batch for any number of workers."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from data_pipeline.shards import TokenDataset, TokenStream
from gpt.config import TrainConfig
from gpt.loader import BatchLoader
from gpt.model import IGNORE_INDEX
from gpt.packing import pack_documents
from gpt.schedule import DataSchedule
from gpt.windows import Windows, cut

CONTEXT = 16


@pytest.fixture
def dataset(dataset_folder: Path) -> TokenDataset:
    return TokenDataset(dataset_folder, "train")


def schedule_of(dataset: TokenDataset, **changes: object) -> DataSchedule:
    return DataSchedule.of(
        dataset, TrainConfig(**{"num_steps": 1, "batch_size": 8, "warmup_steps": 0, **changes}), CONTEXT
    )


def loader_of(dataset: TokenDataset, schedule: DataSchedule, **options: object) -> BatchLoader:
    return BatchLoader(
        schedule.windows, schedule.order, schedule.batches, dataset.streams["web"].dtype, **options
    )


def rows_of(dataset: TokenDataset, steps: int, *, schedule: dict | None = None, **options) -> list[list]:
    """For each step this worker's rows as (source, tokens, targets)."""
    with loader_of(dataset, schedule_of(dataset, **(schedule or {})), **options) as loader:
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
    order = schedule_of(dataset).order
    source, window = order.samples(40, 8)
    (rows,) = rows_of(dataset, 1, start_step=5)
    for i, (row_source, tokens, targets) in enumerate(rows):
        stream = dataset.streams[order.sources[source[i]]]
        expected = stream.read(int(window[i]) * CONTEXT, CONTEXT + 1).tolist()
        assert (row_source, tokens, targets) == (source[i], expected[:-1], expected[1:])


@pytest.mark.parametrize("world_size", [2, 3, 4, 5])
@pytest.mark.parametrize("micro_batch_size", [0, 1, 2])
@pytest.mark.parametrize("packing", ["contiguous", "best_fit"])
def test_global_batch_is_the_same_for_any_number_of_workers(
    dataset: TokenDataset, world_size: int, micro_batch_size: int, packing: str
):
    alone = rows_of(dataset, 3, schedule={"packing": packing})
    together = [
        rows_of(
            dataset,
            3,
            schedule={"packing": packing},
            rank=rank,
            world_size=world_size,
            micro_batch_size=micro_batch_size,
        )
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
    assert rows_of(dataset, 2, start_step=3) == rows_of(dataset, 5)[3:]


def test_micro_batches_split_the_share_and_types_are_wide(dataset: TokenDataset):
    with loader_of(dataset, schedule_of(dataset), micro_batch_size=3) as loader:
        batch = next(loader)
    assert [len(micro.tokens_BT) for micro in batch.micro_batches] == [3, 3, 2]
    assert batch.num_valid_tokens == 8 * CONTEXT
    assert batch.micro_batches[0].tokens_BT.dtype == torch.int64
    assert dataset.streams["web"].dtype == np.uint16


@pytest.mark.parametrize("length", [2, CONTEXT + 1, 200])
def test_many_rows_at_once_are_those_read_one_by_one(dataset: TokenDataset, length: int):
    stream = dataset.streams["web"]
    # All places of the first two thousand, so those too where record batches and shards meet, and the last.
    starts = np.r_[np.arange(min(2_000, stream.num_tokens - length)), stream.num_tokens - length]
    rows = np.empty((len(starts), length), stream.dtype)
    stream.read_rows(starts, rows)
    assert all(
        (row == stream.read(int(start), length)).all() for start, row in zip(starts, rows, strict=True)
    )
    few = rows[:3].copy()
    stream.read_rows(starts[-3:], few)
    assert (few == rows[-3:]).all()


def test_an_error_in_the_thread_reaches_training(dataset: TokenDataset, monkeypatch: pytest.MonkeyPatch):
    def broken(starts: np.ndarray, rows: np.ndarray) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(dataset.streams["web"], "read_rows", broken)
    loader = loader_of(dataset, schedule_of(dataset))
    with pytest.raises(OSError, match="the disk is gone"):
        next(loader)
    assert not loader._thread.is_alive()


def test_closing_ends_the_thread(dataset: TokenDataset):
    before = threading.active_count()
    with loader_of(dataset, schedule_of(dataset)) as loader:
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


def test_the_batch_grows_along_the_ramp_and_takes_the_same_samples(dataset: TokenDataset):
    ramp = {"batch_size": 8, "batch_ramp_start": 2, "batch_ramp_samples": 30}
    schedule = schedule_of(dataset, **ramp)
    sizes = [schedule.batches.size(step) for step in range(12)]
    assert sizes == [2, 2, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8]
    assert [schedule.batches.start(step) for step in range(12)] == [0, *np.cumsum(sizes)[:-1].tolist()]
    rows = rows_of(dataset, 12, schedule=ramp)
    assert [len(step) for step in rows] == sizes
    flat = [row for step in rows for row in step]
    assert flat == [row for step in rows_of(dataset, 7) for row in step][: len(flat)]
    assert rows_of(dataset, 2, schedule=ramp, start_step=7) == rows[7:9]


def pairs_in(stream: TokenStream, packing: str) -> tuple[list[tuple[int, int]], Windows]:
    """(input, target) of every place of every window that has a target."""
    (windows,) = cut({"s": stream}, packing, CONTEXT).values()
    rows = np.full((windows.num_windows, windows.row_width), 99, np.uint16)
    every = np.arange(windows.num_windows)
    windows.read(every, rows, None)
    pairs = []
    for row, num_targets in zip(rows, windows.num_targets(every), strict=True):
        pairs += zip(row[:num_targets].tolist(), row[-CONTEXT:][:num_targets].tolist(), strict=True)
    return pairs, windows


def test_packed_windows_have_every_pair_of_the_stream_once_and_cut_no_short_document(dataset: TokenDataset):
    for stream in dataset.streams.values():
        tokens = stream.read(0, stream.num_tokens).tolist()
        pairs, windows = pairs_in(stream, "best_fit")
        assert sorted(pairs) == sorted(itertools.pairwise(tokens))
        # As few windows as the text needs, give or take one in ten.
        assert windows.num_windows <= 1.1 * len(pairs) / CONTEXT + 1
        contiguous, _ = pairs_in(stream, "contiguous")
        assert sorted(contiguous) == sorted(itertools.pairwise(tokens[: len(contiguous) + 1]))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 20))
@settings(max_examples=100)
def test_packing_is_a_partition_of_the_pairs(lengths: list[int], context_length: int):
    starts = np.cumsum([0, *lengths[:-1]])
    packed = pack_documents(starts, sum(lengths), context_length)
    covered = [
        position
        for start, length in zip(packed.piece_starts, packed.piece_lengths, strict=True)
        for position in range(start, start + length)
    ]
    assert sorted(covered) == list(range(sum(lengths) - 1))
    assert (packed.num_pairs <= context_length).all()
    # Only documents too long for a window are cut.
    for start, length in zip(starts[:-1], lengths[:-1], strict=True):
        if length <= context_length:
            assert length in packed.piece_lengths[packed.piece_starts == start]


@pytest.mark.parametrize("packing", ["contiguous", "best_fit"])
def test_documents_are_numbered_as_they_lie_in_the_row(dataset: TokenDataset, packing: str):
    with loader_of(dataset, schedule_of(dataset, packing=packing), with_documents=True) as loader:
        micros = [micro for _ in range(20) for micro in next(loader).micro_batches]
    num_joined = 0
    for micro in micros:
        assert micro.documents_BT is not None
        for tokens, targets, documents in zip(
            micro.tokens_BT.tolist(), micro.targets_BT.tolist(), micro.documents_BT.tolist(), strict=True
        ):
            assert documents[0] == 0
            for t in range(1, CONTEXT):
                if targets[t] == IGNORE_INDEX:
                    continue
                is_new = documents[t] != documents[t - 1]
                assert documents[t] - documents[t - 1] in (0, 1)
                num_joined += is_new
                # Token 0 ends each text, so a document begins with it; the rest of a long one begins anywhere.
                assert is_new == (tokens[t] == 0) or (packing == "best_fit" and is_new)
    assert num_joined > 20


def test_valid_tokens_are_counted_over_all_workers(dataset: TokenDataset):
    schedule = schedule_of(dataset, packing="best_fit")
    seen = []
    for rank in range(3):
        with loader_of(dataset, schedule, rank=rank, world_size=3) as loader:
            seen.append([next(loader) for _ in range(30)])
    counts = []
    for batches in zip(*seen, strict=True):
        own = [int((m.targets_BT != IGNORE_INDEX).sum()) for batch in batches for m in batch.micro_batches]
        assert {batch.num_valid_tokens for batch in batches} == {sum(own)}
        counts.append(sum(own))
    assert len(set(counts)) > 1
    assert max(counts) <= 8 * CONTEXT
