"""How much of a text repeats: lines, paragraphs and runs of words, by their 64-bit hashes (Rae et al. 2021, table A1).

Tables are open-addressed and hold the place of a hash's first occurrence. Slots depend on a secret of the process,
so that no text can be made to fill one neighbourhood; what is counted does not depend on it.
"""

from __future__ import annotations

import os

import numpy as np

from data_pipeline.compiled import compiled
from data_pipeline.words import mix64

# Odd, so that the multiplication loses nothing.
SECRET = np.uint64(int.from_bytes(os.urandom(8), "little") | 1)
_BASE = np.uint64(0xD1342543DE82EF95)


@compiled
def empty_table(count: int) -> np.ndarray:
    """A table for `count` hashes, -1 in every slot; its length is a power of two."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int32)


@compiled
def _shift(table: np.ndarray) -> np.uint64:
    """What a 64-bit number is shifted by to give a slot."""
    bits = 0
    while 1 << bits < len(table):
        bits += 1
    return np.uint64(64 - bits)


@compiled
def duplicates(hashes: np.ndarray, lengths: np.ndarray, secret: np.uint64) -> tuple[int, int]:
    """(number, summed length) of the items that stood before.

    Args:
        hashes: uint64, [items].
        lengths: of each item, [items].
        secret: SECRET.
    """
    table = empty_table(len(hashes))
    shift, last = _shift(table), len(table) - 1
    count = total = 0
    for index in range(len(hashes)):
        slot = np.int64((hashes[index] * secret) >> shift)
        while table[slot] >= 0 and hashes[table[slot]] != hashes[index]:
            slot = (slot + 1) & last
        if table[slot] >= 0:
            count += 1
            total += lengths[index]
        else:
            table[slot] = index
    return count, total


@compiled
def running_hashes(hashes: np.ndarray) -> np.ndarray:
    """Polynomial hash of each beginning of a sequence, [items + 1]: the hash of any run is the difference of two."""
    running = np.empty(len(hashes) + 1, np.uint64)
    running[0] = 0
    for index in range(len(hashes)):
        running[index + 1] = running[index] * _BASE + hashes[index]
    return running


@compiled
def power(size: int) -> np.uint64:
    """What a hash weighs in `running_hashes` when `size` others have followed."""
    product = np.uint64(1)
    for _ in range(size):
        product *= _BASE
    return product


@compiled
def top_gram(
    running: np.ndarray,
    ends: np.ndarray,
    size: int,
    gap: int,
    least: int,
    secret: np.uint64,
    table: np.ndarray,
    grams: np.ndarray,
) -> int:
    """Characters in all occurrences of the most frequent run of `size` words, the earliest of those as frequent.

    Args:
        running: running_hashes of the words.
        ends: summed length of the first 0, 1, ... words, [words + 1].
        size: words in a run.
        gap: characters between two words.
        least: occurrences that count as repetition; a run with fewer gives 0.
        secret: SECRET.
        table, grams: room to work in: empty_table of the words, and uint64 [words].
    """
    num_grams = len(running) - size
    if num_grams < 1:
        return 0
    factor = power(size)
    shift, last = _shift(table), len(table) - 1
    table[:] = -1
    counts = np.zeros(num_grams, np.int32)
    best = 0
    for index in range(num_grams):
        gram = mix64(running[index + size] - running[index] * factor)
        grams[index] = gram
        slot = np.int64((gram * secret) >> shift)
        while table[slot] >= 0 and grams[table[slot]] != gram:
            slot = (slot + 1) & last
        if table[slot] < 0:
            table[slot] = index
        first = table[slot]
        counts[first] += 1
        if counts[first] > counts[best] or (counts[first] == counts[best] and first < best):
            best = first
    if counts[best] < least:
        return 0
    return (ends[best + size] - ends[best] + gap * (size - 1)) * counts[best]


@compiled
def duplicate_grams(
    running: np.ndarray,
    ends: np.ndarray,
    size: int,
    secret: np.uint64,
    table: np.ndarray,
    grams: np.ndarray,
) -> int:
    """Characters in runs of `size` words that stood before; runs that are counted never overlap.

    Args:
        running, ends, size, secret, table, grams: as for top_gram.
    """
    num_grams = len(running) - size
    if num_grams < 1:
        return 0
    factor = power(size)
    shift, last = _shift(table), len(table) - 1
    table[:] = -1
    total = index = 0
    while index < num_grams:
        gram = mix64(running[index + size] - running[index] * factor)
        grams[index] = gram
        slot = np.int64((gram * secret) >> shift)
        while table[slot] >= 0 and grams[table[slot]] != gram:
            slot = (slot + 1) & last
        if table[slot] >= 0:
            total += ends[index + size] - ends[index]
            index += size
        else:
            table[slot] = index
            index += 1
    return total
