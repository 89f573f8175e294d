"""From a similarity threshold to bands of a signature, and from signatures to buckets.

A signature is cut into `bands` bands of `rows` values; two documents meet in a bucket where all values of a band are
equal, which has probability 1 - (1 - s^rows)^bands at similarity s (Leskovec et al., Mining of Massive Datasets, 3.4).
"""

from __future__ import annotations

import numpy as np
import xxhash
from numba import njit

from data_pipeline.config import DedupConfig
from data_pipeline.minhash import EMPTY
from data_pipeline.words import mix64

# With `dedup.containment`, bands are those of this similarity: an excerpt of half of a document has no more.
CONTAINMENT_SIMILARITY = 0.5


def collision_probability(similarity: float | np.ndarray, bands: int, rows: int) -> float | np.ndarray:
    """Probability that two documents share at least one band: 1 - (1 - s^r)^b."""
    return 1 - (1 - similarity**rows) ** bands


def choose_bands(
    threshold: float, num_permutations: int, fp_weight: float = 0.02, fn_weight: float = 0.98
) -> tuple[int, int]:
    """(bands, rows) that minimise the weighted areas of false positives and negatives around the threshold.

    False positives only cost a verification, so they weigh little; a missed duplicate is never found again.
    """
    below = np.linspace(0, threshold, 201)
    above = np.linspace(threshold, 1, 201)
    best, choice = np.inf, (1, 1)
    for rows in range(1, num_permutations + 1):
        for bands in range(1, num_permutations // rows + 1):
            false_positive = np.trapezoid(collision_probability(below, bands, rows), below)
            false_negative = np.trapezoid(1 - np.asarray(collision_probability(above, bands, rows)), above)
            error = fp_weight * false_positive + fn_weight * false_negative
            if error < best:
                best, choice = error, (bands, rows)
    return choice


def bands_of(config: DedupConfig) -> tuple[int, int]:
    """(bands, rows) of a configuration."""
    threshold = min(config.threshold, CONTAINMENT_SIMILARITY) if config.containment else config.threshold
    return choose_bands(threshold, config.num_permutations, config.fp_weight, config.fn_weight)


def probability_curve(config: DedupConfig) -> list[tuple[float, float]]:
    """(similarity, probability that a pair of it is compared), around the threshold."""
    bands, rows = bands_of(config)
    steps = sorted({0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, config.threshold})
    return [(step, float(collision_probability(step, bands, rows))) for step in steps]


def describe_bands(config: DedupConfig) -> str:
    """A line that says how surely pairs of each similarity are compared."""
    bands, rows = bands_of(config)
    curve = ", ".join(f"{step:g}: {probability:.1%}" for step, probability in probability_curve(config))
    return f"near-duplicates from {config.threshold:g} on; {bands} bands of {rows} compare pairs of similarity {curve}"


def band_buckets(matrix: np.ndarray, rows: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of the bands `first` to `last` - 1.

    Args:
        matrix: uint32 signatures, [documents, permutations].
        rows: of a band.

    Returns:
        (int64 buckets [documents, last - first], whether each document has any shingle [documents]): texts
        without words have no near-duplicates.
    """
    out = np.empty((len(matrix), last - first), np.uint64)
    _hash_bands(np.ascontiguousarray(matrix), rows, first, out)
    return out.view(np.int64), (matrix[:, : rows * last] != EMPTY).any(axis=1)


def text_buckets(text_hashes: list[str]) -> np.ndarray:
    """int64 bucket of each text hash: equal texts meet, too."""
    values = (xxhash.xxh3_64_intdigest(value.encode()) for value in text_hashes)
    return np.fromiter(values, np.uint64, len(text_hashes)).view(np.int64)


@njit(cache=True, nogil=True)
def _hash_bands(matrix: np.ndarray, rows: int, first: int, out: np.ndarray) -> None:
    for document in range(len(matrix)):
        for index in range(out.shape[1]):
            band = first + index
            # The band's number goes in: equal values in different bands must not meet.
            state = mix64(np.uint64(band + 1) * np.uint64(0x9E3779B97F4A7C15))
            for row in range(rows):
                value = np.uint64(matrix[document, band * rows + row])
                state = (state ^ value) * np.uint64(0xD1342543DE82EF95)
                state ^= state >> np.uint64(32)
            out[document, index] = mix64(state)
