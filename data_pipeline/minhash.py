"""MinHash signatures over word shingles, equal value for value to datasketch's `affine32` scheme.

Shingles are runs of `shingle_size` words (data_pipeline.words), hashed as integers without ever building
their strings. A signature is the minimum over shingles of a_k * fmix32(h) + b_k mod 2^32 for each
permutation k; the permutations are datasketch's own (Broder 1997; datasketch 2.0, MinHash.permutations).
"""

from __future__ import annotations

from functools import cache

import datasketch
import numpy as np
import pyarrow as pa
from numba import njit

from data_pipeline.config import SIGNATURE_SCHEME, DedupConfig
from data_pipeline.words import mix64, word_hashes


def shingle_hashes(text: str, size: int) -> np.ndarray:
    """Sorted unique 64-bit hashes of the text's shingles; a text shorter than one shingle is one shingle."""
    return np.unique(_shingles(word_hashes(text), size))


def signature(text: str, config: DedupConfig) -> np.ndarray:
    """uint32 signature of a text, [num_permutations]."""
    a, b = _permutations(config.num_permutations, config.seed)
    return _minhash(_shingles(word_hashes(text), config.shingle_size), a, b)


def signatures(texts: list[str], config: DedupConfig) -> pa.Array:
    """Signatures of many texts as an Arrow binary column (little-endian uint32)."""
    return pa.array([signature(text, config).astype("<u4").tobytes() for text in texts], pa.binary())


def as_matrix(column: pa.Array | pa.ChunkedArray, num_permutations: int) -> np.ndarray:
    """uint32 [rows, num_permutations] of a column of signatures."""
    return np.frombuffer(b"".join(column.to_pylist()), "<u4").reshape(-1, num_permutations)


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """True Jaccard similarity of two sorted unique shingle sets; 1.0 for two empty ones."""
    union = len(left) + len(right)
    if union == 0:
        return 1.0
    common = _common(left, right)
    return common / (union - common)


@cache
def _permutations(num_permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = datasketch.MinHash(num_perm=num_permutations, seed=seed, scheme=SIGNATURE_SCHEME).permutations
    return np.ascontiguousarray(a, np.uint32), np.ascontiguousarray(b, np.uint32)


@njit(cache=True, nogil=True)
def _shingles(words: np.ndarray, size: int) -> np.ndarray:
    """Hash of each run of `size` words: order-dependent, one multiply and add a word."""
    count = max(1, len(words) - size + 1) if len(words) else 0
    out = np.empty(count, np.uint64)
    for start in range(count):
        state = np.uint64(0x9E3779B97F4A7C15)
        for index in range(start, min(start + size, len(words))):
            state = state * np.uint64(0xD1342543DE82EF95) + words[index]
        out[start] = mix64(state)
    return out


@njit(cache=True, nogil=True)
def _minhash(shingles: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    minima = np.full(len(a), np.uint32(0xFFFFFFFF), np.uint32)
    for shingle in shingles:
        # The 32-bit hash that datasketch would be fed, then MurmurHash3's 32-bit finaliser.
        h = np.uint32(shingle & np.uint64(0xFFFFFFFF))
        h ^= h >> np.uint32(16)
        h = np.uint32(h * np.uint32(0x85EBCA6B))
        h ^= h >> np.uint32(13)
        h = np.uint32(h * np.uint32(0xC2B2AE35))
        h ^= h >> np.uint32(16)
        for k in range(len(a)):
            value = np.uint32(np.uint32(a[k] * h) + b[k])
            if value < minima[k]:
                minima[k] = value
    return minima


@njit(cache=True, nogil=True)
def _common(left: np.ndarray, right: np.ndarray) -> int:
    i = j = common = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return common


def collision_probability(similarity: float | np.ndarray, bands: int, rows: int) -> float | np.ndarray:
    """Probability that two documents share at least one band: 1 - (1 - s^r)^b."""
    return 1 - (1 - similarity**rows) ** bands


def choose_bands(threshold: float, num_permutations: int, fp_weight: float = 0.1) -> tuple[int, int]:
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
            error = fp_weight * false_positive + (1 - fp_weight) * false_negative
            if error < best:
                best, choice = error, (bands, rows)
    return choice
