"""Words of a text as integers, for counting and for shingles: one pass over UTF-8 bytes, no strings.

A word is a run of letters, marks and digits (in the manner of UAX #29), case-folded. In scripts that do not
space their words (Han, Kana, Thai, Lao, Khmer, Burmese) each character is a word of its own, so that
"five words" reads as "five characters" there.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

OTHER, WORD, SINGLE = 0, 1, 2
# FNV-1a, 64 bits (Fowler, Noll, Vo).
NO_WORD, PRIME = 0xCBF29CE484222325, 0x100000001B3
# Words that one call of `scan_words` gives at most: what a caller works on stays in the first-level cache.
BLOCK = 1024
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Kana
    (0x3105, 0x312F),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(class of each code point, its lower-case code point): built once a process, 0.3 s."""
    size = sys.maxunicode + 1
    kinds = np.zeros(size, np.uint8)
    folded = np.arange(size, dtype=np.uint32)
    # Assigned letters, marks and numbers lie below these bounds; scanning all 1.1 M code points is slow.
    for code in (*range(0x20000), *range(0xE0100, 0xE01F0)):
        char = chr(code)
        if unicodedata.category(char)[0] in "LNM":
            kinds[code] = WORD
            lower = char.lower()
            if len(lower) == 1:
                folded[code] = ord(lower)
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[(block == WORD) | (first >= 0x20000)] = SINGLE
    return kinds, folded


def code_points(text: str) -> np.ndarray:
    """uint32 code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def utf8(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of a string column, without a copy; a null reads as an empty text.

    Args:
        texts: string column of any kind, [rows]; string and large_string are read in place.

    Returns:
        uint8 bytes and int64 or int32 offsets [rows + 1] into them.
    """
    wide = not pa.types.is_string(texts.type)
    if wide and not pa.types.is_large_string(texts.type):
        texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    numbers = np.frombuffer(offsets, np.int64 if wide else np.int32)
    return np.frombuffer(data, np.uint8), numbers[texts.offset : texts.offset + len(texts) + 1]


def word_hashes(text: str) -> np.ndarray:
    """64-bit hashes of the text's words, in order (FNV-1a over case-folded code points, then mixed)."""
    return _word_hashes(np.frombuffer(text.encode("utf-8"), np.uint8), *tables())


def count_words(text: str) -> int:
    """Number of words, in the sense of this module."""
    return _count_words(np.frombuffer(text.encode("utf-8"), np.uint8), *tables())


@njit(cache=True, nogil=True, inline="always")
def mix64(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: every input bit reaches every output bit (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def scan_words(
    data: np.ndarray,
    position: int,
    stop: int,
    kinds: np.ndarray,
    folded: np.ndarray,
    state: np.uint64,
    inside: bool,
    out: np.ndarray,
) -> tuple[int, int, np.uint64, bool]:
    """The next words of a text, as many as `out` holds; called again with what it returned until `stop`.

    Args:
        data: UTF-8 bytes.
        position, stop: where to begin, and the end of the text.
        kinds, folded: `tables()`.
        state, inside: hash of the word that `position` stands in, and whether it stands in one; (NO_WORD, False)
            at the beginning.
        out: the words' hashes before `mix64`, [at least 3].

    Returns:
        (words written, position, state, inside).
    """
    no_word, prime = np.uint64(NO_WORD), np.uint64(PRIME)
    count, room = 0, len(out) - 1
    while position < stop and count < room:
        # ASCII, without a branch on what the byte is: a mispredicted one at each end of a word would cost more
        # than all the rest.
        end = min(stop, position + room - count)
        is_in = np.int64(inside)
        while position < end:
            byte = data[position]
            if byte >= 128:
                break
            is_word = np.int64(kinds[byte])
            out[count] = state
            count += int(is_in & (np.int64(1) - is_word))
            mask = np.uint64(0) - np.uint64(is_word)
            state = (((state ^ np.uint64(folded[byte])) * prime) & mask) | (no_word & ~mask)
            is_in = is_word
            position += 1
        inside = is_in != 0
        if position >= end:
            continue
        code, length = decode(data, position, stop)
        position = position + length
        if kinds[code] == WORD:
            state = (state ^ np.uint64(folded[code])) * prime
            inside = True
            continue
        if inside:
            out[count] = state
            count += 1
            state, inside = no_word, False
        if kinds[code] == SINGLE:
            out[count] = (no_word ^ np.uint64(folded[code])) * prime
            count += 1
    if position >= stop and inside:
        out[count] = state
        count += 1
        state, inside = no_word, False
    return count, position, state, inside


@njit(cache=True, nogil=True, inline="always")
def decode(data: np.ndarray, position: int, stop: int) -> tuple[int, int]:
    """(code point, bytes) of the UTF-8 sequence at `position`; 0 for what is none, whose table entries do nothing."""
    first = int(data[position])
    if first < 0x80:
        return first, 1
    length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if position + length > stop:
        return 0, stop - position
    code = first & (0x7F >> length)
    for index in range(1, length):
        code = (code << 6) | (int(data[position + index]) & 0x3F)
    return (code if code <= 0x10FFFF else 0), length


@njit(cache=True, nogil=True)
def _word_hashes(data: np.ndarray, kinds: np.ndarray, folded: np.ndarray) -> np.ndarray:
    # A word takes a byte at least.
    out = np.empty(len(data) + 3, np.uint64)
    count, _, _, _ = scan_words(data, 0, len(data), kinds, folded, np.uint64(NO_WORD), False, out)
    for index in range(count):
        out[index] = mix64(out[index])
    return out[:count].copy()


@njit(cache=True, nogil=True)
def _count_words(data: np.ndarray, kinds: np.ndarray, folded: np.ndarray) -> int:
    block = np.empty(BLOCK, np.uint64)
    total, position, state, inside = 0, 0, np.uint64(NO_WORD), False
    while position < len(data):
        count, position, state, inside = scan_words(
            data, position, len(data), kinds, folded, state, inside, block
        )
        total += count
    return total
