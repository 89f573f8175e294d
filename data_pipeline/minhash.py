"""MinHash signatures over word shingles, equal value for value to datasketch's `affine32` scheme.

Shingles are runs of `shingle_size` words (data_pipeline.words), hashed as integers without ever building
their strings. A signature is the minimum over shingles of a_k * fmix32(h) + b_k mod 2^32 for each
permutation k; the permutations are datasketch's own (Broder 1997; datasketch 2.0, MinHash.permutations).

A batch is read where Arrow holds it: bytes -> words -> shingles -> minima, a block of words at a time, so that memory
does not grow with a document.
"""

from __future__ import annotations

from functools import cache

import datasketch
import numpy as np
import pyarrow as pa
from numba import njit

from data_pipeline.config import SIGNATURE_SCHEME, DedupConfig
from data_pipeline.words import BLOCK, NO_WORD, mix64, scan_words, tables, utf8

# A shingle's hash is a polynomial over its words: START * FACTOR^n + w_1 * FACTOR^(n-1) + ... + w_n, then mixed.
START, FACTOR = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
# What every permutation of a text without shingles gives.
EMPTY = 0xFFFFFFFF
# Arrow's binary type counts its bytes in 32 bits.
MAX_BINARY_BYTES = 2**31 - 1


def signatures(texts: pa.Array | pa.ChunkedArray, config: DedupConfig) -> pa.Array:
    """Signatures of a column of texts as an Arrow binary column (little-endian uint32).

    Args:
        texts: strings, [rows]; a null counts as an empty text.
        config: scheme of the signatures.
    """
    num_bytes = 4 * config.num_permutations
    assert len(texts) * num_bytes <= MAX_BINARY_BYTES, "sign in batches"
    matrix = np.empty((len(texts), config.num_permutations), "<u4")
    permutations = _permutations(config.num_permutations, config.seed)
    start = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        rows = matrix[start : start + len(chunk)]
        _sign(*utf8(chunk), *tables(), config.shingle_size, *permutations, rows)
        start += len(chunk)
    offsets = np.arange(0, (len(texts) + 1) * num_bytes, num_bytes, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(matrix)])


def signature(text: str, config: DedupConfig) -> np.ndarray:
    """uint32 signature of a text, [num_permutations]."""
    return as_matrix(signatures(pa.array([text], pa.string()), config), config.num_permutations)[0]


def as_matrix(column: pa.Array | pa.ChunkedArray, num_permutations: int) -> np.ndarray:
    """uint32 [rows, num_permutations] of a column of signatures; not copied where it is one chunk."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_as_matrix(chunk, num_permutations) for chunk in chunks if len(chunk)]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, num_permutations), np.uint32)


def _as_matrix(column: pa.Array, num_permutations: int) -> np.ndarray:
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    values = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return values.view("<u4").reshape(len(column), num_permutations)


def shingle_hashes(text: str, size: int) -> np.ndarray:
    """`shingle_set` of a string."""
    return shingle_set(np.frombuffer(text.encode("utf-8"), np.uint8), size)


def shingle_set(data: np.ndarray, size: int) -> np.ndarray:
    """Sorted unique 64-bit shingle hashes of a text in UTF-8; a text shorter than one shingle is one shingle."""
    values = _shingles(data, *tables(), size)
    values.sort()
    # np.unique would take four times as long for the same.
    return values[np.concatenate(([True], values[1:] != values[:-1]))] if len(values) else values


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """True Jaccard similarity of two sorted unique shingle sets; 1.0 for two empty ones."""
    union = len(left) + len(right)
    if union == 0:
        return 1.0
    common = num_common(left, right)
    return common / (union - common)


@cache
def _permutations(num_permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = datasketch.MinHash(num_perm=num_permutations, seed=seed, scheme=SIGNATURE_SCHEME).permutations
    return np.ascontiguousarray(a, np.uint32), np.ascontiguousarray(b, np.uint32)


@njit(cache=True, nogil=True)
def _sign(
    data: np.ndarray,
    offsets: np.ndarray,
    kinds: np.ndarray,
    folded: np.ndarray,
    size: int,
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray,
) -> None:
    """Signatures [rows, permutations] of the texts between the offsets, into `out`."""
    words, shingles = np.empty(BLOCK, np.uint64), np.empty(BLOCK + 1, np.uint64)
    hashes = np.empty(BLOCK + 4, np.uint32)
    window = np.empty(size, np.uint64)
    for row in range(len(offsets) - 1):
        position, stop = offsets[row], offsets[row + 1]
        out[row, :] = np.uint32(EMPTY)
        state, inside = np.uint64(NO_WORD), False
        total, rolled = 0, np.uint64(0)
        while position < stop:
            num_words, position, state, inside = scan_words(
                data, position, stop, kinds, folded, state, inside, words
            )
            count, total, rolled = _roll(words[:num_words], size, window, total, rolled, shingles)
            if position >= stop and 0 < total < size:
                shingles[0] = _short(rolled, total)
                count = 1
            _lower(shingles, count, hashes, a, b, out[row])


@njit(cache=True, nogil=True)
def _shingles(data: np.ndarray, kinds: np.ndarray, folded: np.ndarray, size: int) -> np.ndarray:
    """Hash of each run of `size` words of one text."""
    words = np.empty(len(data) + 3, np.uint64)
    num_words, _, _, _ = scan_words(data, 0, len(data), kinds, folded, np.uint64(NO_WORD), False, words)
    out = np.empty(num_words + 1, np.uint64)
    window = np.empty(size, np.uint64)
    count, total, rolled = _roll(words[:num_words], size, window, 0, np.uint64(0), out)
    if 0 < total < size:
        out[0] = _short(rolled, total)
        count = 1
    return out[:count]


@njit(cache=True, nogil=True)
def _roll(
    words: np.ndarray, size: int, window: np.ndarray, total: int, rolled: np.uint64, out: np.ndarray
) -> tuple[int, int, np.uint64]:
    """Hashes of the shingles that end in these words, into `out`.

    Args:
        words: before `mix64`, as scan_words gives them.
        window: the last `size` words of the text, in a ring; updated.
        total: words of the text so far.
        rolled: polynomial over the words in the window.

    Returns:
        (shingles written, total, rolled).
    """
    factor = np.uint64(FACTOR)
    leaving = np.uint64(1)
    for _ in range(size):
        leaving *= factor
    first = np.uint64(START) * leaving
    count, slot = 0, total % size
    for index in range(len(words)):
        word = mix64(words[index])
        if total >= size:
            rolled = rolled * factor + word - window[slot] * leaving
        else:
            rolled = rolled * factor + word
        window[slot] = word
        slot = slot + 1 if slot + 1 < size else 0
        total += 1
        if total >= size:
            out[count] = mix64(rolled + first)
            count += 1
    return count, total, rolled


@njit(cache=True, nogil=True)
def _short(rolled: np.uint64, num_words: int) -> np.uint64:
    """Hash of a text of fewer words than a shingle has."""
    first = np.uint64(START)
    for _ in range(num_words):
        first *= np.uint64(FACTOR)
    return mix64(rolled + first)


@njit(cache=True, nogil=True)
def _lower(
    shingles: np.ndarray, count: int, hashes: np.ndarray, a: np.ndarray, b: np.ndarray, minima: np.ndarray
) -> None:
    """Take the first `count` shingles into the minima [permutations]."""
    if count == 0:
        return
    for index in range(count):
        # The 32-bit hash that datasketch would be fed, then MurmurHash3's 32-bit finaliser.
        h = np.uint32(shingles[index] & np.uint64(0xFFFFFFFF))
        h ^= h >> np.uint32(16)
        h = np.uint32(h * np.uint32(0x85EBCA6B))
        h ^= h >> np.uint32(13)
        h = np.uint32(h * np.uint32(0xC2B2AE35))
        hashes[index] = h ^ (h >> np.uint32(16))
    # Four shingles at a time: a, b and the minima are loaded once for the four, which triples the speed of this loop.
    for index in range(count, count + 3):
        hashes[index] = hashes[count - 1]
    for index in range(0, count, 4):
        h0, h1, h2, h3 = hashes[index], hashes[index + 1], hashes[index + 2], hashes[index + 3]
        for k in range(len(a)):
            factor, shift = a[k], b[k]
            first = min(np.uint32(np.uint32(factor * h0) + shift), np.uint32(np.uint32(factor * h1) + shift))
            second = min(np.uint32(np.uint32(factor * h2) + shift), np.uint32(np.uint32(factor * h3) + shift))
            minima[k] = min(minima[k], min(first, second))


@njit(cache=True, nogil=True)
def num_common(left: np.ndarray, right: np.ndarray) -> int:
    """Values that two sorted unique arrays share."""
    i = j = common = 0
    while i < len(left) and j < len(right):
        x, y = left[i], right[j]
        # Without a branch on the order of the two, which nobody can predict.
        common += x == y
        i += x <= y
        j += y <= x
    return common
