"""What gathers between two step records: losses by source, time, and the wait for data.

Shapes: B sequences of a micro-batch, T context_length, S sources.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt.distributed import sum_over_workers
from gpt.loader import MicroBatch
from gpt.model import IGNORE_INDEX


class Losses(NamedTuple):
    """Mean losses in nats a token, over all workers."""

    mean: float
    """Over all tokens."""
    by_source: dict[int, float]
    """By index of the source, for sources that had tokens."""


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
        self.seconds = self.wait_seconds = 0.0
        self.num_steps = 0

    def add_losses(self, nll_BT: Tensor, micro: MicroBatch) -> None:
        """Add the token losses of one micro-batch, by source: the training forward's, no second one."""
        self._nats_S.index_add_(0, micro.source_B, nll_BT.detach().double().sum(1))
        self._tokens_S.index_add_(0, micro.source_B, (micro.targets_BT != IGNORE_INDEX).double().sum(1))

    def add_step(self, seconds: float, wait_seconds: float) -> None:
        """Count a step and how long it took, the wait for its data included."""
        self.seconds += seconds
        self.wait_seconds += wait_seconds
        self.num_steps += 1

    def reduce(self, stop: bool, world_size: int) -> tuple[Losses, float, int]:
        """(losses, share of time spent waiting for data, workers that want to stop), the same on every worker."""
        own = torch.tensor([self.wait_seconds, self.seconds, float(stop)], dtype=torch.float64)
        sums = torch.cat([self._nats_S, self._tokens_S, own.to(self._nats_S.device)])
        values = sum_over_workers(sums, world_size).tolist()
        num_sources = len(self._nats_S)
        nats, tokens = values[:num_sources], values[num_sources : 2 * num_sources]
        wait_seconds, seconds, num_stops = values[2 * num_sources :]
        by_source = {i: n / t for i, (n, t) in enumerate(zip(nats, tokens, strict=True)) if t}
        return Losses(sum(nats) / sum(tokens), by_source), wait_seconds / seconds, int(num_stops)
