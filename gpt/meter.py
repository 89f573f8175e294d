"""What gathers between two step records: losses by source, time, and the wait for data.

Shapes: B sequences of a micro-batch, T context_length, S sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from gpt.distributed import sum_over_workers
from gpt.loader import MicroBatch
from gpt.model import IGNORE_INDEX


class Interval(NamedTuple):
    """What happened between two step records."""

    loss: float
    """Mean loss in nats a token, over all workers."""
    loss_by_source: dict[int, float]
    """The same by index of the source, for sources that had tokens."""
    seconds_per_step: float
    """Wall-clock time of a step, this worker's."""
    tokens_per_second: float
    """Over all workers, by this worker's clock."""
    data_wait: float
    """Share of the time spent waiting for data, mean over the workers."""
    num_stops: int
    """Workers that were asked to stop."""


class StepMeter:
    """Sums on the device, so that a step costs no wait for it; one reduction over the workers a record."""

    def __init__(self, num_sources: int, device: torch.device) -> None:
        self._nats_S = torch.zeros(num_sources, dtype=torch.float64, device=device)
        self._tokens_S = torch.zeros_like(self._nats_S)
        self.reset()

    def reset(self) -> None:
        """Begin a new interval."""
        self._nats_S.zero_()
        self._tokens_S.zero_()
        self.wait_seconds = self._elsewhere = 0.0
        self.num_tokens = self.num_steps = 0
        self._began = time.perf_counter()

    def add_losses(self, nll_BT: Tensor, micro: MicroBatch) -> None:
        """Add the token losses of one micro-batch, by source: the training forward's, no second one."""
        self._nats_S.index_add_(0, micro.source_B, nll_BT.detach().double().sum(1))
        self._tokens_S.index_add_(0, micro.source_B, (micro.targets_BT != IGNORE_INDEX).double().sum(1))

    def add_step(self, num_tokens: int, wait_seconds: float) -> None:
        """Count a step of so many tokens, over all workers, and the wait for its data."""
        self.num_tokens += num_tokens
        self.wait_seconds += wait_seconds
        self.num_steps += 1

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """The time of this block (an evaluation, a checkpoint) is not that of steps."""
        began = time.perf_counter()
        yield
        self._elsewhere += time.perf_counter() - began

    @property
    def seconds(self) -> float:
        """Time of the steps so far; true only after something waited for the device."""
        return time.perf_counter() - self._began - self._elsewhere

    def reduce(self, stop: bool, world_size: int) -> Interval:
        """The interval that ends here, the same on every worker but for its tokens a second; begins a new one."""
        if self._nats_S.device.type == "cuda":
            torch.cuda.synchronize(self._nats_S.device)
        own = torch.tensor([self.wait_seconds, self.seconds, float(stop)], dtype=torch.float64)
        sums = torch.cat([self._nats_S, self._tokens_S, own.to(self._nats_S.device)])
        values = sum_over_workers(sums, world_size).tolist()
        num_sources = len(self._nats_S)
        nats, tokens = values[:num_sources], values[num_sources : 2 * num_sources]
        wait_seconds, seconds, num_stops = values[2 * num_sources :]
        interval = Interval(
            loss=sum(nats) / sum(tokens),
            loss_by_source={i: n / t for i, (n, t) in enumerate(zip(nats, tokens, strict=True)) if t},
            seconds_per_step=self.seconds / self.num_steps,
            tokens_per_second=self.num_tokens / self.seconds,
            data_wait=wait_seconds / seconds,
            num_stops=int(num_stops),
        )
        self.reset()
        return interval
