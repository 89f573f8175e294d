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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt.batches import BatchSchedule
from gpt.model import IGNORE_INDEX
from gpt.order import SampleOrder
from gpt.windows import Windows

# Shards of an object store are fetched in the order in which so many steps want them, then the others.
STEPS_AHEAD = 256


class MicroBatch(NamedTuple):
    """What one forward of one worker sees."""

    tokens_BT: Tensor
    """Token ids, int64."""
    targets_BT: Tensor
    """The token after each, int64; IGNORE_INDEX in padding."""
    source_B: Tensor
    """Index into the order's `sources`, int64."""
    documents_BT: Tensor | None
    """Number of each token's document in its row, int64 from 0; None unless asked for."""
    sample_B: Tensor
    """Place of each sequence in the training order, int64; of padding, places beyond the batch."""


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
    """Host side of a StepBatch; the shards' unsigned types, 2 bytes a token where the vocabulary fits."""

    start_sample: int
    rows: Tensor  # [R, row_width]
    num_targets: Tensor  # [R], int64; 0 for padding rows
    source: Tensor  # [R], int64
    documents: Tensor | None  # [R, T], uint16
    num_valid_tokens: int


def reads_ahead(
    windows: Mapping[str, Windows], order: SampleOrder, batches: BatchSchedule, start_step: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(source, positions in its stream) of what the first steps read, all workers' rows."""
    for step in range(start_step, start_step + STEPS_AHEAD):
        source, window = order.samples(batches.start(step), batches.size(step))
        for index in np.unique(source):
            name = order.sources[index]
            yield name, windows[name].positions(window[source == index])


class BatchLoader:
    """Iterates over steps, for ever; use it as a context manager, or call close().

    Args:
        windows: of each source, by its name.
        order: which window is which sample; its sources are those of the windows.
        batches: sizes of the global batches.
        dtype: of the streams' tokens, as the shards hold them (data_pipeline.shards.token_dtype).
        rank, world_size: this worker, and how many there are.
        micro_batch_size: rows of one forward; 0 = all of this worker's rows. The last one may be shorter.
        device: where batches go.
        start_step: first step to yield.
        with_documents: also tell which tokens belong to one document.
    """

    def __init__(
        self,
        windows: Mapping[str, Windows],
        order: SampleOrder,
        batches: BatchSchedule,
        dtype: np.dtype,
        *,
        rank: int = 0,
        world_size: int = 1,
        micro_batch_size: int = 0,
        device: torch.device | str = "cpu",
        start_step: int = 0,
        with_documents: bool = False,
    ) -> None:
        assert tuple(windows) == order.sources
        assert 0 <= rank < world_size
        self.order, self.batches = order, batches
        self.rank, self.world_size = rank, world_size
        self.micro_batch_size = micro_batch_size
        self.device = torch.device(device)
        self._windows = [windows[source] for source in order.sources]
        self._dtype = dtype
        self._with_documents = with_documents
        self._start_step = start_step
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
            num_valid_tokens=rows.num_valid_tokens,
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
        step = self._start_step
        try:
            while self._put(self._read(step)):
                step += 1
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

    def _read(self, step: int) -> _Rows:
        """This worker's rows of a step's global batch."""
        start, size = self.batches.start(step), self.batches.size(step)
        source, window = self.order.samples(start, size)
        num_targets = np.empty(size, np.int64)
        for i, windows in enumerate(self._windows):
            num_targets[source == i] = windows.num_targets(window[source == i])
        num_rows = -(-size // self.world_size)
        own = slice(self.rank, None, self.world_size)
        rows, documents = self._read_windows(source[own], window[own], num_rows)
        padding = (0, num_rows - len(source[own]))
        return _Rows(
            start,
            self._pinned(rows),
            self._pinned(np.pad(num_targets[own], padding)),
            self._pinned(np.pad(source[own], padding)),
            None if documents is None else self._pinned(documents),
            int(num_targets.sum()),
        )

    def _read_windows(
        self, source: np.ndarray, window: np.ndarray, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows and documents of these windows, zeros in the rows after them."""
        rows = np.empty((num_rows, self._windows[0].row_width), self._dtype)
        documents = (
            np.zeros((num_rows, self.order.context_length), np.uint16) if self._with_documents else None
        )
        rows[len(source) :] = 0
        for i in np.unique(source):
            places = np.flatnonzero(source == i)
            if len(places) == num_rows:
                self._windows[i].read(window, rows, documents)
                continue
            part = np.empty((len(places), rows.shape[1]), self._dtype)
            part_documents = None if documents is None else documents[places]
            self._windows[i].read(window[places], part, part_documents)
            rows[places] = part
            if documents is not None and part_documents is not None:
                documents[places] = part_documents
        return rows, documents

    def _pinned(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _to_device(self, host: _Rows) -> list[MicroBatch]:
        """Copy as the shards hold it and widen on the device."""
        context_length = self.order.context_length
        rows, num_targets, source = (
            tensor.to(self.device, non_blocking=True) for tensor in (host.rows, host.num_targets, host.source)
        )
        rows = rows.to(torch.int64)
        is_padding = torch.arange(context_length, device=self.device) >= num_targets[:, None]
        targets = rows[:, -context_length:].masked_fill(is_padding, IGNORE_INDEX)
        documents = host.documents
        if documents is not None:
            documents = documents.to(self.device, non_blocking=True).to(torch.int64)
        first = host.start_sample + self.rank
        sample = torch.arange(first, first + len(rows) * self.world_size, self.world_size, device=self.device)
        size = self.micro_batch_size or len(rows)
        return [
            MicroBatch(
                rows[here, :context_length],
                targets[here],
                source[here],
                None if documents is None else documents[here],
                sample[here],
            )
            for here in (slice(i, i + size) for i in range(0, len(rows), size))
        ]
