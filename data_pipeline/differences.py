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
# Ends a window that the text goes on behind.
CUT = " ..."
# Characters of an equal part that are shown before and after a difference.
CONTEXT = 40
# So many equal tokens in a row tell that two texts have met again.
RUN = 16

# (text, whether the other side lacks it)
Piece = tuple[str, bool]


def windows(left: str, right: str) -> tuple[str, str]:
    """The parts of two texts around their first difference, at most MAX_CHARS characters each."""
    start = max(0, _common_prefix(left, right) - CONTEXT_CHARS)
    tokens = [TOKEN.findall(text[start : start + REACH_CHARS]) for text in (left, right)]
    cuts = _where_they_meet_again(*tokens)
    first, second = (_window(part[cut:]) for part, cut in zip(tokens, cuts, strict=True))
    return first, second


def _window(tokens: Sequence[str]) -> str:
    window = "".join(tokens[:MAX_TOKENS])[:MAX_CHARS]
    return window + CUT if len(tokens) > MAX_TOKENS or len(window) == MAX_CHARS else window


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
    pieces = _pieces(left, right)
    return (
        [(ours, ours != theirs) for ours, theirs in pieces if ours],
        [(theirs, ours != theirs) for ours, theirs in pieces if theirs],
    )


def in_line(left: str, right: str) -> str:
    """Both texts as one: what only the left has [-so-], what only the right has {+so+}, equal parts shortened."""
    parts = []
    for ours, theirs in _pieces(left, right):
        if ours == theirs:
            parts.append(ours if len(ours) <= 2 * CONTEXT else f"{ours[:CONTEXT]} ... {ours[-CONTEXT:]}")
        else:
            parts.append((f"[-{ours}-]" if ours else "") + (f"{{+{theirs}+}}" if theirs else ""))
    return "".join(parts)


def _pieces(left: str, right: str) -> list[tuple[str, str]]:
    """Parts of both texts that stand at the same place; those that are equal, and those that are not."""
    ours, theirs = (TOKEN.findall(text)[: MAX_TOKENS + len(CUT)] for text in (left, right))
    steps = SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    pieces = [("".join(ours[begin:end]), "".join(theirs[first:last])) for _, begin, end, first, last in steps]
    if left.endswith(CUT) and right.endswith(CUT) and len(pieces) > 1 and not all(pieces[-2]):
        del pieces[-2]  # what one window holds beyond the other's end is no difference of the texts
    return pieces
