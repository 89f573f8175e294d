"""Words of a text as integers, for counting and for shingles: one pass over code points, no strings.

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
    """(class of each code point, its lower-case code point). Built once a process, 0.3 s."""
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


def utf8(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of a string column, without a copy; a null reads as an empty text.

    Args:
        texts: string or large_string, [rows].

    Returns:
        uint8 bytes and int64 or int32 offsets [rows + 1] into them.
    """
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    wide = pa.types.is_large_string(texts.type)
    if not (wide or pa.types.is_string(texts.type)):
        texts, wide = texts.cast(pa.large_string()), True
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    numbers = np.frombuffer(offsets, np.int64 if wide else np.int32)
    return np.frombuffer(data, np.uint8), numbers[texts.offset : texts.offset + len(texts) + 1]


def code_points(text: str) -> np.ndarray:
    """uint32 code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def word_hashes(text: str) -> np.ndarray:
    """64-bit hashes of the text's words, in order (FNV-1a over case-folded code points, then mixed)."""
    kinds, folded = tables()
    return _word_hashes(code_points(text), kinds, folded)


def count_words(text: str) -> int:
    """Number of words, in the sense of this module."""
    return len(word_hashes(text))


@njit(cache=True, nogil=True)
def mix64(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: every input bit reaches every output bit (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _word_hashes(codes: np.ndarray, kinds: np.ndarray, folded: np.ndarray) -> np.ndarray:
    out = np.empty(len(codes), np.uint64)
    count = 0
    offset, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    state, inside = offset, False
    for code in codes:
        kind = kinds[code]
        if inside and kind != WORD:
            out[count] = mix64(state)
            count += 1
            state, inside = offset, False
        if kind == WORD:
            state = (state ^ np.uint64(folded[code])) * prime
            inside = True
        elif kind == SINGLE:
            out[count] = mix64((offset ^ np.uint64(folded[code])) * prime)
            count += 1
    if inside:
        out[count] = mix64(state)
        count += 1
    return out[:count].copy()
