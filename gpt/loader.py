"""Batches for one worker, read from memory-mapped shards by a thread one step ahead of training.

Shapes: R rows of this worker's share of a step, B rows of a micro-batch, T context_length.

Row i of a global batch is sample start + i; worker r of W takes rows r, r + W, r + 2W, ... Where W does not divide
the batch, the last row of some workers is padding without targets: all workers then run the same shapes, and the
loss, divided by the global count of valid tokens, is that of the batch.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipeline.shards import TokenDataset
from gpt.model import IGNORE_INDEX
from gpt.order import SampleOrder

# Shards of an object store are fetched in the order in which so many steps want them, then the others.
STEPS_AHEAD = 256


class MicroBatch(NamedTuple):
    """What one forward of one worker sees."""

    tokens_BT: Tensor
    """Token ids, int64."""
    targets_BT: Tensor
    """The token after each, int64; IGNORE_INDEX in padding rows."""
    source_B: Tensor
    """Index into the order's `sources`, int64."""


@dataclass(frozen=True)
class StepBatch:
    """One worker's share of one global batch."""

    start_sample: int
    """First sample of the global batch."""
    micro_batches: list[MicroBatch]
    """In order; the same shapes on every worker."""
    num_valid_tokens: int
    """Targets with a loss in the global batch, over all workers."""
    wait_seconds: float
    """How long training waited for this batch."""


class _Rows(NamedTuple):
    """Host side of a StepBatch."""

    start_sample: int
    windows: Tensor  # [R, T + 1], the shards' unsigned type
    source: Tensor  # [R]
    num_real: int  # rows that are not padding; they come first


class BatchLoader:
    """Iterates over steps, for ever; use it as a context manager, or call close().

    Args:
        dataset: the training split.
        order: which window is which sample; its sources are those of the dataset.
        batch_size: rows of a global batch.
        rank, world_size: this worker, and how many there are.
        micro_batch_size: rows of one forward; 0 = all of this worker's rows. The last one may be shorter.
        device: where batches go.
        start_sample: first sample to yield; on resume, `samples_consumed`.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        order: SampleOrder,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch_size: int = 0,
        device: torch.device | str = "cpu",
        start_sample: int = 0,
    ) -> None:
        assert tuple(dataset.streams) == order.sources
        assert 0 <= rank < world_size
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self.num_rows = -(-batch_size // world_size)
        self.micro_batch_size = micro_batch_size or self.num_rows
        self._streams = [dataset.streams[source] for source in order.sources]
        self._start_sample = start_sample
        dataset.fetch_ahead(self._reads(), order.context_length + 1)
        self._queue: queue.Queue[_Rows | BaseException] = queue.Queue(maxsize=2)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="batch-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[StepBatch]:
        return self

    def __next__(self) -> StepBatch:
        """The next step's batch.

        Raises:
            Exception: whatever stopped the reading thread.
        """
        assert not self._closed.is_set(), "the loader is closed"
        began = time.perf_counter()
        rows = self._queue.get()
        if isinstance(rows, BaseException):
            self.close()
            raise rows
        return StepBatch(
            start_sample=rows.start_sample,
            micro_batches=self._to_device(rows),
            num_valid_tokens=self.batch_size * self.order.context_length,
            wait_seconds=time.perf_counter() - began,
        )

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it to end; may be called twice."""
        self._closed.set()
        self._thread.join()

    def _produce(self) -> None:
        sample = self._start_sample
        try:
            while self._put(self._read(sample)):
                sample += self.batch_size
        except BaseException as error:
            self._put(error)

    def _put(self, item: _Rows | BaseException) -> bool:
        """Hand an item over; False if the loader was closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def _reads(self) -> Iterator[tuple[str, np.ndarray]]:
        """(source, positions) of what the first steps will read, all workers' rows."""
        for step in range(STEPS_AHEAD):
            source, window = self.order.samples(self._start_sample + step * self.batch_size, self.batch_size)
            for index in np.unique(source):
                yield self.order.sources[index], window[source == index] * self.order.context_length

    def _read(self, start_sample: int) -> _Rows:
        """This worker's rows of the global batch that begins at `start_sample`."""
        source, window = self.order.samples(start_sample, self.batch_size)
        source, window = source[self.rank :: self.world_size], window[self.rank :: self.world_size]
        context_length = self.order.context_length
        windows = np.zeros((self.num_rows, context_length + 1), self._streams[0].dtype)
        for row, (i, w) in enumerate(zip(source, window, strict=True)):
            windows[row] = self._streams[i].read(int(w) * context_length, context_length + 1)
        padded_source = np.zeros(self.num_rows, np.int64)
        padded_source[: len(source)] = source
        rows = _Rows(start_sample, torch.from_numpy(windows), torch.from_numpy(padded_source), len(source))
        if self.device.type == "cuda":
            rows = rows._replace(windows=rows.windows.pin_memory(), source=rows.source.pin_memory())
        return rows

    def _to_device(self, rows: _Rows) -> list[MicroBatch]:
        """Copy as the shards hold it, 2 bytes a token where the vocabulary fits, and widen on the device."""
        windows = rows.windows.to(self.device, non_blocking=True).to(torch.int64)
        source = rows.source.to(self.device, non_blocking=True)
        tokens, targets = windows[:, :-1], windows[:, 1:].clone()
        targets[rows.num_real :] = IGNORE_INDEX
        return [
            MicroBatch(tokens[i : i + self.micro_batch_size], targets[i : i + self.micro_batch_size], part)
            for i, part in zip(
                range(0, self.num_rows, self.micro_batch_size),
                source.split(self.micro_batch_size),
                strict=True,
            )
        ]
