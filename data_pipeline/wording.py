"""Texts from outside and numbers, as reports and explanations show them."""

from __future__ import annotations

import re

# Controls and marks that have no look of their own, or that turn the direction of what stands beside them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def visible(text: str | None, limit: int) -> str:
    """A text from outside, cut to a length, with what cannot be seen written out as [U+202E]."""
    text = text or ""
    cut = UNSEEN.sub(lambda char: f"[U+{ord(char[0]):04X}]", text[:limit])
    return f"{cut} ..." if len(text) > limit else cut


def short_number(value: float | None) -> str:
    """A number for reading: whole ones with separators, others to three figures."""
    if value is None:
        return ""
    return f"{int(value):,}" if abs(value) < 1e15 and value == int(value) else f"{value:.3g}"
