"""Lines and paragraphs of a text: how they begin and end, which of them repeat, and which of them C4 would keep.

A line is what stands between two line feeds, without the spaces around it; blank lines are none. Paragraphs are
what blank lines part.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import compiled
from data_pipeline.filters.characters import BULLET, CLOSER, END_MARK, SPACE
from data_pipeline.filters.repetition import duplicates
from data_pipeline.filters.tokens import hash_codes
from data_pipeline.words import mix64

_FEED, _STOP, _ELLIPSIS = map(ord, "\n.\u2026")


@compiled
def find_lines(codes: np.ndarray, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int32 starts and ends of the lines, and whether each begins a paragraph, [lines]."""
    room = 1
    for code in codes:
        room += code == _FEED
    starts, ends = np.empty(room, np.int32), np.empty(room, np.int32)
    begins = np.empty(room, np.bool_)
    count, after_blank, start = 0, True, 0
    for index in range(len(codes) + 1):
        if index < len(codes) and codes[index] != _FEED:
            continue
        first, end = start, index
        while first < end and flags[first] & SPACE:
            first += 1
        while first < end and flags[end - 1] & SPACE:
            end -= 1
        if first < end:
            starts[count], ends[count], begins[count] = first, end, after_blank
            count += 1
        after_blank = first == end
        start = index + 1
    return starts[:count], ends[:count], begins[:count]


@compiled
def count_line_forms(
    codes: np.ndarray, flags: np.ndarray, starts: np.ndarray, ends: np.ndarray, short: float
) -> tuple[int, int, int, int]:
    """Lines (that begin with a bullet, that end in an ellipsis, that end a sentence, of at most `short` characters)."""
    bullets = ellipses = sentences = shorts = 0
    for index in range(len(starts)):
        start, end = starts[index], ends[index]
        bullets += flags[start] & BULLET != 0
        ellipses += ends_in_ellipsis(codes, start, end)
        sentences += ends_a_sentence(flags, start, end)
        shorts += end - start <= short
    return bullets, ellipses, sentences, shorts


@compiled
def ends_in_ellipsis(codes: np.ndarray, start: int, end: int) -> bool:
    """Whether a line that is not empty ends in three full stops or the character for them."""
    if codes[end - 1] == _ELLIPSIS:
        return True
    return end - start > 2 and codes[end - 1] == _STOP and codes[end - 2] == _STOP and codes[end - 3] == _STOP


@compiled
def ends_a_sentence(flags: np.ndarray, start: int, end: int) -> bool:
    """Whether the last character but closing quotes and brackets is an end mark."""
    while end > start and flags[end - 1] & CLOSER:
        end -= 1
    return end > start and flags[end - 1] & END_MARK != 0


@compiled
def count_repeated_lines(
    codes: np.ndarray, starts: np.ndarray, ends: np.ndarray, begins: np.ndarray, secret: np.uint64
) -> tuple[int, int, int, int, int]:
    """(repeated lines, characters in them, paragraphs, repeated paragraphs, characters in them)."""
    count = len(starts)
    hashes = np.empty(count, np.uint64)
    for index in range(count):
        hashes[index] = hash_codes(codes, starts[index], ends[index])
    repeated, repeated_chars = duplicates(hashes, ends - starts, secret)
    paragraphs = 0
    lengths = np.empty(count, np.int32)
    index = 0
    while index < count:
        state, length = hashes[index], ends[index] - starts[index]
        index += 1
        while index < count and not begins[index]:
            state = mix64(state) + hashes[index]
            length += ends[index] - starts[index] + 1
            index += 1
        # Written over what has been read: a paragraph is a line at least.
        hashes[paragraphs], lengths[paragraphs] = state, length
        paragraphs += 1
    whole, whole_chars = duplicates(hashes[:paragraphs], lengths[:paragraphs], secret)
    return repeated, repeated_chars, paragraphs, whole, whole_chars
