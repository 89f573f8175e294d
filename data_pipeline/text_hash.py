"""The hash by which two texts count as exact copies: xxh3-128 of the text, case-folded and with its spaces levelled."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pyarrow as pa
import xxhash
from numba import njit

from data_pipeline.words import decode, utf8

_SPACE, _SEVERAL = 32, 0xFFFFFFFF


def text_hash(text: str) -> str:
    """xxh3-128 hex of the text, case-folded and with its spaces levelled: equal for exact copies."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.casefold().split()).encode("utf-8"))


def text_hashes(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """`text_hash` of each text of a column; a null counts as an empty text."""
    hashes: list[str] = []
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        data, offsets = utf8(chunk)
        # A folded character may take a byte more than it did: two bytes of input give three at most.
        levelled = np.empty(2 * int(np.diff(offsets).max(initial=0)) + 8, np.uint8)
        for row in range(len(chunk)):
            length = _level(data, offsets[row], offsets[row + 1], _folding(), levelled)
            # One character that folds to several is rare, and Python's to know.
            hashes.append(
                xxhash.xxh3_128_hexdigest(levelled[:length].data)
                if length >= 0
                else text_hash(chunk[row].as_py())
            )
    return hashes


@cache
def _folding() -> np.ndarray:
    """uint32 of each code point: its folded one, _SPACE for all that str.split parts at, _SEVERAL for several."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    # No letters with case and no spaces lie beyond.
    for code in range(0x20000):
        char = chr(code)
        folded = char.casefold()
        if char.isspace():
            table[code] = _SPACE
        elif folded != char:
            table[code] = ord(folded) if len(folded) == 1 else _SEVERAL
    return table


@njit(cache=True, nogil=True)
def _level(data: np.ndarray, start: int, stop: int, folding: np.ndarray, out: np.ndarray) -> int:
    """Write a text folded, its runs of spaces as one, none at its ends; the length, or -1 for what is not folded here."""
    length, position = 0, start
    was_space = True
    while position < stop:
        byte = data[position]
        if byte < 128:
            char = folding[byte]
            is_space = char == _SPACE
            out[length] = char
            length += not (is_space and was_space)
            was_space = is_space
            position += 1
            continue
        code, num_bytes = decode(data, position, stop)
        position = position + num_bytes
        char = folding[code]
        if char == _SEVERAL:
            return -1
        if char == _SPACE:
            out[length] = _SPACE
            length += not was_space
            was_space = True
            continue
        was_space = False
        if char < 0x80:
            out[length] = char
            length += 1
        elif char < 0x800:
            out[length], out[length + 1] = 0xC0 | (char >> 6), 0x80 | (char & 0x3F)
            length += 2
        elif char < 0x10000:
            out[length] = 0xE0 | (char >> 12)
            out[length + 1], out[length + 2] = 0x80 | ((char >> 6) & 0x3F), 0x80 | (char & 0x3F)
            length += 3
        else:
            out[length], out[length + 1] = 0xF0 | (char >> 18), 0x80 | ((char >> 12) & 0x3F)
            out[length + 2], out[length + 3] = 0x80 | ((char >> 6) & 0x3F), 0x80 | (char & 0x3F)
            length += 4
    return length - 1 if length and was_space else length
