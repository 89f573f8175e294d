"""A logistic regression over sets of buckets, and what it is worth on documents that it has not seen.

A window with the buckets S has the logit  bias + sum(weights[S]) / sqrt(|S|): presence, not counts, at unit length.
A document's logit is the mean over its windows. On web pages against books and wiki pages this read better than
counts, their square roots or logarithms at unit length, or frequencies (docs/results-log.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from scipy.stats import rankdata

from data_pipeline.quality.features import Windows
from data_pipeline.words import mix64

MAX_PASSES = 100
# Training ends when no window's probability moved by more than this in a pass over all of them.
TOLERANCE = 1e-4
NUM_BINS = 10


def logits(windows: Windows, weights: np.ndarray, bias: float) -> np.ndarray:
    """float64 [documents]: the mean logit of each document's windows."""
    totals = _totals(windows.starts, windows.indices, weights)
    of_windows = bias + totals / np.sqrt(np.maximum(1, np.diff(windows.starts)))
    return np.bincount(windows.document, of_windows) / np.bincount(windows.document)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, without overflow at either end."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def fit(windows: Windows, is_good: np.ndarray, log2_buckets: int, cost: float) -> tuple[np.ndarray, float]:
    """Weights and bias of the logistic regression  |w|^2 / 2 + cost * sum of the windows' losses.

    Classes weigh the same, within a class each document, within a document each window. Solved in the dual by
    coordinate descent over random permutations (Yu, Huang and Lin 2011, "Dual coordinate descent methods for
    logistic regression and maximum entropy models"), on one thread, with permutations from a hash of the pass: the
    weights depend on the examples and their order only.

    Args:
        windows: of all documents.
        is_good: bool [documents].
        log2_buckets: the buckets are 2^log2_buckets.
        cost: C of a support vector machine or a logistic regression; more fits the examples closer.

    Returns:
        (float32 [2^log2_buckets], bias).
    """
    share = np.where(is_good, 0.5 / is_good.sum(), 0.5 / (~is_good).sum()) * len(is_good)
    share /= np.bincount(windows.document)
    labels = np.where(is_good, 1.0, -1.0)[windows.document]
    weights, bias = _solve(
        windows.starts,
        windows.indices,
        labels,
        cost * share[windows.document],
        1 << log2_buckets,
        MAX_PASSES,
        TOLERANCE,
    )
    return weights.astype(np.float32), float(np.float32(bias))


@njit(cache=True, nogil=True)
def _totals(starts: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    out = np.zeros(len(starts) - 1)
    for row in range(len(out)):
        for index in range(starts[row], starts[row + 1]):
            out[row] += weights[indices[index]]
    return out


@njit(cache=True, nogil=True)
def _solve(
    starts: np.ndarray,
    indices: np.ndarray,
    labels: np.ndarray,
    costs: np.ndarray,
    num_buckets: int,
    max_passes: int,
    tolerance: float,
) -> tuple[np.ndarray, float]:
    weights, bias = np.zeros(num_buckets), 0.0
    # The dual variable of each window, between 0 and its cost; w = sum of dual * label * x over the windows.
    dual = np.zeros(len(labels))
    order = np.arange(len(labels))
    for number in range(max_passes):
        _shuffle(order, number)
        largest = 0.0
        for row in order:
            first, last = starts[row], starts[row + 1]
            scale = 1 / np.sqrt(max(1, last - first))
            total = 0.0
            for index in range(first, last):
                total += weights[indices[index]]
            # |x|^2 is 1, or 0 for a window without words, and 1 more for the bias.
            norm = 2.0 if last > first else 1.0
            value = _dual_step(labels[row] * (bias + total * scale), norm, costs[row], dual[row])
            step = labels[row] * (value - dual[row])
            largest = max(largest, abs(step) / costs[row])
            dual[row] = value
            bias += step
            for index in range(first, last):
                weights[indices[index]] += step * scale
        if largest < tolerance:
            break
    return weights, bias


@njit(cache=True, nogil=True)
def _dual_step(margin: float, norm: float, cost: float, before: float) -> float:
    """The z in (0, cost) with z = cost * sigmoid(-(margin + norm * (z - before))): Newton's method, kept in bounds."""
    low, high = 0.0, cost
    z = min(max(before, 1e-12 * cost), cost * (1 - 1e-12))
    for _ in range(50):
        probability = 1 / (1 + np.exp(margin + norm * (z - before)))
        miss = z - cost * probability
        if abs(miss) <= 1e-9 * cost:
            break
        if miss > 0:
            high = z
        else:
            low = z
        z -= miss / (1 + cost * norm * probability * (1 - probability))
        if not low < z < high:
            z = (low + high) / 2
    return z


@njit(cache=True, nogil=True)
def _shuffle(order: np.ndarray, number: int) -> None:
    """Fisher and Yates, drawn from a hash: a library's generator may change from one version to the next."""
    for index in range(len(order) - 1, 0, -1):
        other = mix64((np.uint64(number + 1) << np.uint64(40)) ^ np.uint64(index)) % np.uint64(index + 1)
        order[index], order[other] = order[other], order[index]


# -------------------------------------------------------------------------------------------------- evaluation


def evaluate(scores: np.ndarray, is_good: np.ndarray) -> dict[str, Any]:
    """How scores (0 to 1) part good documents from bad ones.

    Returns:
        `auc` (the chance that a good document scores above a bad one, ties half), `accuracy` at 0.5 (the mean over
        the classes), `log_loss` (nats, classes weigh the same), and `histogram`: for NUM_BINS equal ranges of the
        score, the number of good and of bad documents, and their mean score (null where there is none).
    """
    good, bad = scores[is_good], scores[~is_good]
    ranks = rankdata(scores)
    above = ranks[is_good].sum() - len(good) * (len(good) + 1) / 2
    tiny = 1e-15
    bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = [np.bincount(bins[side], minlength=NUM_BINS) for side in (is_good, ~is_good)]
    sums = np.bincount(bins, scores, minlength=NUM_BINS)
    return {
        "auc": float(above / (len(good) * len(bad))),
        "accuracy": float(((good >= 0.5).mean() + (bad < 0.5).mean()) / 2),
        "log_loss": float(-(np.log(good.clip(tiny)).mean() + np.log((1 - bad).clip(tiny)).mean()) / 2),
        "histogram": [
            {
                "from": index / NUM_BINS,
                "good": int(counts[0][index]),
                "bad": int(counts[1][index]),
                "mean_score": float(sums[index] / total)
                if (total := counts[0][index] + counts[1][index])
                else None,
            }
            for index in range(NUM_BINS)
        ],
    }
