"""The hash by which two texts count as exact copies: xxh3-128 of the text, case-folded and with its spaces levelled."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash
from numba import njit

from data_pipeline.words import utf8

# Lower case of an ASCII character, a space for each that parts words.
_LEVELLED = np.array([ord(chr(code).lower()) for code in range(128)] + [0] * 128, np.uint8)
_LEVELLED[[code for code in range(128) if chr(code).isspace()]] = 32


def text_hash(text: str) -> str:
    """xxh3-128 hex of the text, case-folded and with its spaces levelled: equal for exact copies."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.casefold().split()).encode("utf-8"))


def text_hashes(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """`text_hash` of each text of a column; a null counts as an empty text."""
    hashes: list[str] = []
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        data, offsets = utf8(chunk)
        longest = int(np.diff(offsets).max(initial=0))
        levelled = np.empty(longest, np.uint8)
        for row in range(len(chunk)):
            length = _level(data, offsets[row], offsets[row + 1], _LEVELLED, levelled)
            # Case and spaces beyond ASCII are Python's to know.
            hashes.append(
                xxhash.xxh3_128_hexdigest(levelled[:length].data)
                if length >= 0
                else text_hash(chunk[row].as_py())
            )
    return hashes


@njit(cache=True, nogil=True)
def _level(data: np.ndarray, start: int, stop: int, table: np.ndarray, out: np.ndarray) -> int:
    """Write an ASCII text, lower-cased, its runs of spaces as one; the length, or -1 where it is not ASCII."""
    seen = np.uint8(0)
    length = 0
    was_space = True
    for position in range(start, stop):
        byte = data[position]
        seen |= byte
        char = table[byte]
        is_space = char == 32
        out[length] = char
        length += not (is_space and was_space)
        was_space = is_space
    if seen >= 128:
        return -1
    return length - 1 if length and was_space else length
