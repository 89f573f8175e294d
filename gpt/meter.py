"""What gathers between two step records: losses by source, time, and the wait for data.

Shapes: B sequences of a micro-batch, O objectives, S sources.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from gpt.distributed import sum_over_workers
from gpt.loader import MicroBatch
from gpt.model import IGNORE_INDEX
from gpt.objectives import ObjectiveLoss


class Interval(NamedTuple):
    """What happened between two step records."""

    loss_by_objective: dict[str, float]
    """Mean loss in nats a target, over all workers; nan where there was no target."""
    loss_by_source: dict[int, float]
    """Of the first objective by index of the source, for sources that had targets."""
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

    def __init__(self, objectives: Sequence[str], num_sources: int, device: torch.device) -> None:
        self.objectives = tuple(objectives)
        self._nats_OS = torch.zeros(len(objectives), num_sources, dtype=torch.float64, device=device)
        self._targets_OS = torch.zeros_like(self._nats_OS)
        self.reset()

    def reset(self) -> None:
        """Begin a new interval."""
        self._nats_OS.zero_()
        self._targets_OS.zero_()
        self.wait_seconds = self._elsewhere = 0.0
        self.num_tokens = self.num_steps = 0
        self._began = time.perf_counter()

    def add_losses(self, losses: Mapping[str, ObjectiveLoss], micro: MicroBatch) -> None:
        """Add the losses of one micro-batch, by source: the training forward's, no second one."""
        for name, loss in losses.items():
            row, num_rows = self.objectives.index(name), len(micro.source_B)
            nats_B = loss.losses.double().view(num_rows, -1).sum(1)
            targets_B = (loss.targets != IGNORE_INDEX).double().view(num_rows, -1).sum(1)
            self._nats_OS[row].index_add_(0, micro.source_B, nats_B)
            self._targets_OS[row].index_add_(0, micro.source_B, targets_B)

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
        device = self._nats_OS.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        own = torch.tensor([self.wait_seconds, self.seconds, float(stop)], dtype=torch.float64)
        sums = torch.cat([self._nats_OS.flatten(), self._targets_OS.flatten(), own.to(device)])
        *values, wait_seconds, seconds, num_stops = sum_over_workers(sums, world_size).tolist()
        num_objectives, num_sources = self._nats_OS.shape
        rows = [values[i : i + num_sources] for i in range(0, len(values), num_sources)]
        nats, targets = rows[:num_objectives], rows[num_objectives:]
        interval = Interval(
            loss_by_objective={
                name: sum(n) / sum(t) if sum(t) else math.nan
                for name, n, t in zip(self.objectives, nats, targets, strict=True)
            },
            loss_by_source={i: n / t for i, (n, t) in enumerate(zip(nats[0], targets[0], strict=True)) if t},
            seconds_per_step=self.seconds / self.num_steps,
            tokens_per_second=self.num_tokens / self.seconds,
            data_wait=wait_seconds / seconds,
            num_stops=int(num_stops),
        )
        self.reset()
        return interval
