"""Where two similar texts differ: a part of each that a person can compare, and the differences in it.

Every bound is on tokens: difflib's time may grow with the cube of their number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

# A word, a run of spaces, a mark; one character in scripts that do not space their words.
TOKEN = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]|\w{1,40}|\s{1,40}|[^\w\s]")
# Characters before the first difference, and from there on, that are looked at.
CONTEXT_CHARS, REACH_CHARS = 200, 40_000
MAX_TOKENS, MAX_CHARS = 300, 1_500
# So many equal tokens in a row tell that two texts have met again.
RUN = 8

# (text, whether the other side lacks it)
Piece = tuple[str, bool]


def windows(left: str, right: str) -> tuple[str, str]:
    """The parts of two texts around their first difference, at most MAX_CHARS characters each."""
    start = max(0, _common_prefix(left, right) - CONTEXT_CHARS)
    tokens = [TOKEN.findall(text[start : start + REACH_CHARS]) for text in (left, right)]
    cuts = _where_they_meet_again(*tokens)
    first, second = (
        "".join(part[cut : cut + MAX_TOKENS])[:MAX_CHARS] for part, cut in zip(tokens, cuts, strict=True)
    )
    return first, second


def _common_prefix(left: str, right: str) -> int:
    low, high = 0, min(len(left), len(right))
    while low < high:  # equal slices are compared at the speed of memory
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _where_they_meet_again(left: Sequence[str], right: Sequence[str]) -> tuple[int, int]:
    """Tokens to leave out on either side, so that a long insertion does not fill the whole of a window."""
    same = next(
        (index for index, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]),
        min(len(left), len(right)),
    )
    runs: dict[tuple[str, ...], int] = {}
    for index in range(same, len(right) - RUN + 1):
        runs.setdefault(tuple(right[index : index + RUN]), index)
    for index in range(same, len(left) - RUN + 1):
        place = runs.get(tuple(left[index : index + RUN]))
        if place is not None:
            if max(index, place) <= MAX_TOKENS // 2:
                return 0, 0
            return max(0, index - MAX_TOKENS // 4), max(0, place - MAX_TOKENS // 4)
    return 0, 0


def marked(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, those marked that the other side lacks; at most MAX_TOKENS tokens of each."""
    tokens = [TOKEN.findall(text)[:MAX_TOKENS] for text in (left, right)]
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(None, tokens[0], tokens[1], autojunk=False)
    for operation, *places in matcher.get_opcodes():
        for side, (begin, end) in enumerate((places[:2], places[2:])):
            if begin < end:
                pieces[side].append(("".join(tokens[side][begin:end]), operation != "equal"))
    return pieces
