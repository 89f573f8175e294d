"""Which training sequence comes when, as pure functions: nothing to save, nothing to replay, any number of workers.

Glossary:
    sample   position in the training order: 0, 1, 2, ... for the whole run, over all workers.
    window   window w of a source is tokens [w * T, w * T + T + 1) of its stream, T = context_length. Windows share
             one token, so that every token but the first is a target exactly once an epoch.
    draw     the how-manieth sample of its source a sample is: draw d is in epoch d // windows.
    block    BLOCK consecutive samples of a stage, in which each source has a fixed count.
    stage    a stretch of training with one mixture of the sources; blocks are counted from its first sample.

A sample becomes a window in two steps: sample -> (source, draw) by the mixture, draw -> window by a permutation
keyed with (seed, source, epoch). The scheme is Levanter's (block-deterministic mixture over a Feistel permutation)
with a round function that mixes: `tests/gpt/test_order.py` shows what a weak one does to consecutive samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gpt.config import ConfigError

BLOCK = 2048
NUM_ROUNDS = 8
# Named in every fingerprint: change it when the same settings would give another order.
ORDER_VERSION = "feistel-splitmix64/webster-2048/1"

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def splitmix64(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele 2014) over a uint64 array: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_key(*parts: str | int) -> int:
    """64 bits that stand for these parts; the same on every machine and in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little")


def permute(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where a keyed permutation of range(n) sends each index; int64, any shape, O(1) memory an index.

    A Feistel network over the smallest power of two that holds n; values outside range(n) go round again until
    they fall inside (cycle walking, Black and Rogaway 2002), which keeps it a bijection.
    """
    assert n >= 1
    num_bits = max(2, (n - 1).bit_length())
    x = np.asarray(index).astype(np.uint64)
    assert x.size == 0 or int(x.max()) < n
    round_keys = splitmix64(np.array([(key + i * _GOLDEN) & _MASK64 for i in range(NUM_ROUNDS)], np.uint64))
    x = _feistel(x, num_bits, round_keys)
    while (outside := x >= n).any():
        x[outside] = _feistel(x[outside], num_bits, round_keys)
    return x.astype(np.int64)


def _feistel(x: np.ndarray, num_bits: int, round_keys: np.ndarray) -> np.ndarray:
    """Each half in turn is xored with a hash of the other; halves may differ by one bit."""
    low_bits, high_bits = num_bits // 2, num_bits - num_bits // 2
    low, high = x & np.uint64((1 << low_bits) - 1), x >> np.uint64(low_bits)
    for i, round_key in enumerate(round_keys):
        # The top bits of the hash: they depend on all bits of its input, in both directions.
        if i % 2 == 0:
            low ^= splitmix64(high ^ round_key) >> np.uint64(64 - low_bits)
        else:
            high ^= splitmix64(low ^ round_key) >> np.uint64(64 - high_bits)
    return (high << np.uint64(low_bits)) | low


def apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """Split `total` samples over sources by weight (weights sum to 1); int64 counts within one of total * weight.

    Webster's divisor method: the next seat goes to the largest weight / (count + 1/2). Unlike largest remainders it
    never takes a seat back when the total grows, so the differences between block boundaries are counts, and the
    cumulative shares are exact in the long run.
    """
    # A lower bound that the method is sure to reach, then the last few seats one by one.
    counts = np.floor(max(0, total - len(weights)) * weights).astype(np.int64)
    for _ in range(total - int(counts.sum())):
        counts[np.argmax(weights / (counts + 0.5))] += 1
    return counts


@dataclass(frozen=True)
class SourcePlan:
    """What training takes from one source."""

    source: str
    """Name of the source."""
    weight: float
    """Its share of the mixture that training begins with."""
    num_windows: int
    """Windows it has."""
    num_samples: int
    """Samples that training draws from it."""

    @property
    def epochs(self) -> float:
        """Passes over the source."""
        return self.num_samples / self.num_windows if self.num_windows else 0.0


@dataclass(frozen=True, eq=False)
class _Stage:
    """A stretch of samples drawn by the same weights."""

    number: int
    start: int  # its first sample
    stop: float  # the first sample after it
    weights: np.ndarray
    drawn: np.ndarray  # draws of each source before it


class SampleOrder:
    """The training order: sample -> (source, window).

    Args:
        windows_per_source: number of windows of each source.
        weights: share of each source, None for proportional to windows; any positive scale.
        seed: another seed, another order.
        context_length: only named in the fingerprint, since window numbers mean nothing without it.
        later_weights: other weights from a sample on: (first sample, weights), in order.
        packing: only named in the fingerprint; how windows were cut from the documents.

    Raises:
        ConfigError: weights that name other sources than there are, or give weight to an empty one.
    """

    def __init__(
        self,
        windows_per_source: Mapping[str, int],
        weights: Mapping[str, float] | None,
        seed: int,
        context_length: int,
        later_weights: Sequence[tuple[int, Mapping[str, float]]] = (),
        packing: str = "contiguous",
    ) -> None:
        self.sources: tuple[str, ...] = tuple(sorted(windows_per_source))
        self.num_windows = np.array([windows_per_source[source] for source in self.sources], np.int64)
        self.weights = self._normalised(weights)
        self.seed = seed
        self.context_length = context_length
        self.packing = packing
        self._stages = [_Stage(0, 0, math.inf, self.weights, np.zeros(len(self.sources), np.int64))]
        # A batch or two lies in one block: keep the last few.
        self._block = lru_cache(maxsize=4)(self._make_block)
        for start, stage_weights in later_weights:
            self._add_stage(start, self._normalised(stage_weights))

    def samples(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples [start, start + count) as (index into `sources`, window index), two int64 arrays."""
        source, draw = np.empty(count, np.int64), np.empty(count, np.int64)
        position = start
        while position < start + count:
            stage = self._stage_of(position)
            block, inside = divmod(position - stage.start, BLOCK)
            stop = int(min(start + count, stage.stop, stage.start + (block + 1) * BLOCK))
            block_source, block_draw = self._block(stage.number, block)
            here = slice(inside, inside + stop - position)
            source[position - start : stop - start] = block_source[here]
            draw[position - start : stop - start] = block_draw[here]
            position = stop
        return source, self._windows(source, draw)

    def counts(self, num_samples: int) -> np.ndarray:
        """How many of the first `num_samples` samples each source has, in the order of `sources`."""
        stage = self._stage_of(max(0, num_samples - 1))
        block, rest = divmod(num_samples - stage.start, BLOCK)
        counts = stage.drawn + apportion(stage.weights, block * BLOCK)
        if rest:
            sources = self._block(stage.number, block)[0][:rest]
            counts += np.bincount(sources, minlength=len(self.sources))
        return counts

    def plan(self, num_samples: int, max_epochs: float | None = None) -> list[SourcePlan]:
        """What `num_samples` samples take from each source, to print before training.

        Raises:
            ConfigError: a source would be passed over more than `max_epochs` times (None or 0: no cap).
        """
        counts = self.counts(num_samples)
        rows = [
            SourcePlan(source, float(self.weights[i]), int(self.num_windows[i]), int(counts[i]))
            for i, source in enumerate(self.sources)
        ]
        for row in rows:
            if max_epochs and row.epochs > max_epochs:
                raise ConfigError(
                    f"source {row.source} would be read {row.epochs:.1f} times, max_epochs is {max_epochs:g}: it has "
                    f"{row.num_windows} sequences and training draws {row.num_samples}; lower num_steps or its "
                    "source_weights, raise max_epochs, or add data"
                )
        return rows

    def state(self) -> dict[str, Any]:
        """Everything the order depends on, as plain JSON; equal states give equal orders."""
        stages = [
            {"from_sample": stage.start, "weights": self._by_source(stage.weights)}
            for stage in self._stages[1:]
        ]
        # Not named where there are none, so that an order keeps the fingerprint it had before there were stages.
        optional: dict[str, Any] = {"stages": stages} if stages else {}
        if self.packing != "contiguous":
            optional["packing"] = self.packing
        return {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "context_length": self.context_length,
            "num_windows": dict(zip(self.sources, self.num_windows.tolist(), strict=True)),
            "weights": self._by_source(self.weights),
            **optional,
        }

    def fingerprint(self) -> str:
        """sha256 of `state()`."""
        return hashlib.sha256(json.dumps(self.state(), sort_keys=True).encode("utf-8")).hexdigest()

    def _by_source(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.sources, values.tolist(), strict=True))

    def _stage_of(self, sample: int) -> _Stage:
        return next(stage for stage in reversed(self._stages) if sample >= stage.start)

    def _add_stage(self, start: int, weights: np.ndarray) -> None:
        last = self._stages[-1]
        assert start > last.start, "stages go by sample"
        drawn = self.counts(start)
        self._stages[-1] = dataclasses.replace(last, stop=start)
        self._stages.append(_Stage(last.number + 1, start, math.inf, weights, drawn))

    def _normalised(self, weights: Mapping[str, float] | None) -> np.ndarray:
        if not self.num_windows.sum():
            raise ConfigError(
                "the training split has no full sequence of context_length tokens; lower context_length or add text"
            )
        if weights is None:
            return self.num_windows / self.num_windows.sum()
        if set(weights) != set(self.sources):
            raise ConfigError(
                f"source_weights names {', '.join(sorted(weights)) or 'nothing'}; the dataset has "
                f"{', '.join(self.sources)}: give each a weight, 0 to leave it out"
            )
        values = np.array([weights[source] for source in self.sources], np.float64)
        if not values.sum() > 0:
            raise ConfigError("source_weights are all 0; give at least one source a positive weight")
        for source, weight, num_windows in zip(self.sources, values, self.num_windows, strict=True):
            if weight > 0 and num_windows == 0:
                raise ConfigError(
                    f"source_weights.{source} is {weight:g}, but {source} has no full sequence of context_length "
                    "tokens; set it to 0 or lower context_length"
                )
        return values / values.sum()

    def _make_block(self, stage_number: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, draw) of the BLOCK samples of a block of a stage."""
        stage = self._stages[stage_number]
        before, after = apportion(stage.weights, block * BLOCK), apportion(stage.weights, (block + 1) * BLOCK)
        # The first stage's key has no number: orders made before there were stages stay as they were.
        key = (
            ("mixture", self.seed, block)
            if stage_number == 0
            else ("mixture", self.seed, stage_number, block)
        )
        shuffled = permute(np.arange(BLOCK), BLOCK, hash_key(*key))
        source = np.repeat(np.arange(len(self.sources)), after - before)[shuffled]
        draw = np.empty(BLOCK, np.int64)
        for i in range(len(self.sources)):
            draw[source == i] = stage.drawn[i] + np.arange(before[i], after[i])
        return source, draw

    def _windows(self, source: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """The window of each draw: without replacement within an epoch, another permutation in the next."""
        window = np.empty_like(draw)
        epoch = draw // self.num_windows[source]
        for i, e in np.unique(np.stack([source, epoch]), axis=1).T.tolist():
            chosen = (source == i) & (epoch == e)
            n = int(self.num_windows[i])
            window[chosen] = permute(
                draw[chosen] - e * n, n, hash_key("window", self.seed, self.sources[i], e)
            )
        return window


def plan_table(plan: Sequence[SourcePlan], context_length: int) -> str:
    """The plan as lines of text, to be printed before the first step."""
    lines = [f"{'source':<16} {'weight':>7} {'sequences':>12} {'drawn':>12} {'tokens':>16} {'epochs':>7}"]
    lines += [
        f"{row.source:<16} {row.weight:>7.1%} {row.num_windows:>12,} {row.num_samples:>12,} "
        f"{row.num_samples * context_length:>16,} {row.epochs:>7.2f}"
        for row in plan
    ]
    return "\n".join(lines)


def count_windows(num_tokens: int, context_length: int) -> int:
    """Windows of a stream: each needs context_length tokens and the one that follows as its last target."""
    return max(0, (num_tokens - 1) // context_length)
