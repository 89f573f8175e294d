"""Validation loss and bits per byte, the same number for any count of workers.

Shapes: B windows of a batch, T context_length.

Bits per byte = sum of the tokens' negative log-likelihoods / ln 2 / sum of their UTF-8 bytes: unlike loss a token it
compares models with different tokenizers. End-of-text tokens have no bytes, but their loss counts: telling where a
document ends is part of the code length. (nanochat leaves them out.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from data_pipeline.shards import TokenDataset, TokenStream
from gpt.losses import chunked_losses
from gpt.model import GPT, IGNORE_INDEX

ALL_SOURCES = "all"


@dataclass(frozen=True)
class Score:
    """How well a model predicts some text."""

    loss: float
    """Mean negative log-likelihood in nats a token."""
    bits_per_byte: float
    """Bits to encode one byte of the text."""
    num_tokens: int
    """Tokens that were predicted."""
    num_bytes: int
    """UTF-8 bytes of those tokens."""


@torch.no_grad()
def evaluate_bits_per_byte(
    model: GPT,
    dataset: TokenDataset,
    token_bytes: np.ndarray,
    *,
    context_length: int | None = None,
    max_tokens: int = 100_000,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    autocast: bool = False,
    rank: int = 0,
    world_size: int = 1,
    in_lockstep: bool = False,
) -> dict[str, Score]:
    """Score each source of a dataset on its first tokens, in windows that do not overlap.

    Args:
        model: in training or evaluation mode; the mode is restored. With mask_documents attention stays within
            documents, as in training; the windows are those of every model.
        dataset: usually the validation split.
        token_bytes: UTF-8 bytes of each token of the vocabulary, 0 for special ones, [vocab_size].
        context_length: window length; None = the model's.
        max_tokens: most predicted tokens a source.
        batch_size: windows in one forward.
        device: None = the model's.
        autocast: bf16 matrix products.
        rank, world_size: batches are dealt to the workers and the sums added up (torch.distributed).
        in_lockstep: all workers run the same number of forwards, as a sharded model needs.

    Returns:
        Score by source name and, under "all", over the tokens of all sources; empty for an empty dataset.
    """
    device = torch.device(device) if device is not None else model.device
    context_length = context_length or model.config.context_length
    eot_id = dataset.manifest.eot_id
    bytes_V = torch.as_tensor(np.asarray(token_bytes, np.int64), device=device)
    # Sums a source in float64: nats, tokens, bytes.
    sums = torch.zeros(len(dataset.streams), 3, dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    # Whole batches are dealt, so each has the same shape, and the same rounding, whoever computes it.
    for group in _grouped(_batches(dataset, context_length, max_tokens, batch_size), world_size):
        if rank >= len(group) and not in_lockstep:
            continue
        source, window_BT = group[min(rank, len(group) - 1)]
        window_BT = window_BT.to(device)
        tokens_BT, targets_BT = window_BT[:, :-1].clamp(min=0), window_BT[:, 1:]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            documents_BT = _documents(tokens_BT, eot_id) if model.config.mask_documents else None
            hidden_BTD = model.hidden(tokens_BT, documents_BT)
            _, nll_BT = chunked_losses(
                hidden_BTD,
                model.head_weight,
                targets_BT,
                vocab_size=model.config.vocab_size,
                soft_cap=model.config.logit_soft_cap,
            )
        if rank >= len(group):
            continue
        targets = targets_BT[targets_BT != IGNORE_INDEX]
        sums[source, 0] += nll_BT.double().sum()
        sums[source, 1] += targets.numel()
        sums[source, 2] += bytes_V[targets].sum()
    model.train(was_training)
    if world_size > 1:
        dist.all_reduce(sums)
    return _scores(dict(zip(dataset.streams, sums.tolist(), strict=True)))


def _grouped(batches: Iterable[tuple[int, Tensor]], size: int) -> Iterator[list[tuple[int, Tensor]]]:
    """Lists of `size` in a row, the last may be shorter (itertools.batched, of Python 3.12)."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _batches(
    dataset: TokenDataset, context_length: int, max_tokens: int, batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """(source index, windows [B, T + 1] int64 padded with IGNORE_INDEX), always in the same order."""
    for source, stream in enumerate(dataset.streams.values()):
        num_targets = min(stream.num_tokens - 1, max_tokens)
        starts = range(0, num_targets, context_length)
        for first in range(0, len(starts), batch_size):
            yield source, _windows(stream, starts[first : first + batch_size], context_length, num_targets)


def _windows(stream: TokenStream, starts: range, context_length: int, num_targets: int) -> Tensor:
    windows = np.full((len(starts), context_length + 1), IGNORE_INDEX, np.int64)
    for row, start in enumerate(starts):
        length = min(context_length, num_targets - start) + 1
        windows[row, :length] = stream.read(start, length)
    return torch.from_numpy(windows)


def _documents(tokens_BT: Tensor, eot_id: int) -> Tensor:
    """Number of each token's document in its window, from 0: an end-of-text token begins one."""
    begins_BT = tokens_BT == eot_id
    begins_BT[:, 0] = False
    return begins_BT.cumsum(1)


def _scores(sums: Mapping[str, list[float]]) -> dict[str, Score]:
    rows = {source: values for source, values in sums.items() if values[1] > 0}
    if rows:
        rows[ALL_SOURCES] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return {
        source: Score(
            loss=nats / num_tokens,
            bits_per_byte=nats / math.log(2) / num_bytes if num_bytes else math.nan,
            num_tokens=int(num_tokens),
            num_bytes=int(num_bytes),
        )
        for source, (nats, num_tokens, num_bytes) in rows.items()
    }
