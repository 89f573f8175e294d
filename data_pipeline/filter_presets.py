"""Bounds of the quality rules, by preset. Light: the command line imports it for its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from data_pipeline.errors import InputError


@dataclass(frozen=True)
class FilterOptions:
    """Bounds of one preset."""

    min_words: int = 50
    """Fewest words (Gopher: 50)."""
    max_words: int = 100_000
    """Most words (Gopher: 100,000)."""
    max_symbol_ratio: float = 0.1
    """Most hash signs and ellipses a word (Gopher: 0.1)."""
    max_bullet_ratio: float = 0.9
    """Largest share of lines that begin with a bullet (Gopher: 0.9)."""
    max_ellipsis_ratio: float = 0.3
    """Largest share of lines that end in an ellipsis (Gopher: 0.3)."""
    min_letter_ratio: float = 0.5
    """Smallest share of letters among characters that are no space."""
    max_duplicate_line_ratio: float = 0.3
    """Largest share of characters in lines seen before in the document (Gopher: 0.3 of lines, 0.2 of characters)."""
    max_replacement_ratio: float = 0.001
    """Largest share of U+FFFD, the mark of undecodable bytes."""
    drop_lorem_ipsum: bool = True
    """Drop placeholder text (C4)."""


PRESETS = {
    "web": FilterOptions(),
    "books": FilterOptions(
        min_words=100,
        max_words=10_000_000,
        max_symbol_ratio=0.3,
        max_bullet_ratio=1.0,
        max_ellipsis_ratio=0.5,
        max_duplicate_line_ratio=0.4,
        drop_lorem_ipsum=False,
    ),
    "wiki": FilterOptions(min_words=30, max_words=1_000_000, max_bullet_ratio=0.95, max_ellipsis_ratio=0.5),
    "permissive": FilterOptions(
        min_words=1,
        max_words=100_000_000,
        max_symbol_ratio=1e9,
        max_bullet_ratio=1.0,
        max_ellipsis_ratio=1.0,
        min_letter_ratio=0.0,
        max_duplicate_line_ratio=1.0,
        drop_lorem_ipsum=False,
    ),
}
DEFAULT_PRESET = {"web": "web", "books": "books", "wiki": "wiki", "files": "permissive"}


def preset_of(kind: str, name: str) -> str:
    """The preset a source uses: its own, else its kind's.

    Raises:
        InputError: an unknown preset.
    """
    chosen = name or DEFAULT_PRESET[kind]
    if chosen not in PRESETS:
        raise InputError(f"sources.preset: {chosen!r} is none of {', '.join(PRESETS)}")
    return chosen


def bounds_of(kind: str, preset: str, own: Mapping[str, float]) -> FilterOptions:
    """The bounds that a source's documents are held to: its preset's, with the source's own laid over them.

    Raises:
        InputError: an unknown preset or bound, or a bound that no document could be measured by.
    """
    known = [entry.name for entry in fields(FilterOptions)]
    changes: dict[str, Any] = {}
    for name, bound in own.items():
        if name not in known:
            raise InputError(f"sources.filters: {name!r} is no bound; there are {', '.join(known)}")
        if not (math.isfinite(bound) and bound >= 0):
            raise InputError(f"sources.filters.{name}: {bound} must be a finite number, 0 or more")
        changes[name] = bound
    return replace(PRESETS[preset_of(kind, preset)], **changes)
