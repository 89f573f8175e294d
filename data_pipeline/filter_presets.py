"""Bounds of the quality rules, by preset. Light: the command line imports it for its checks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from data_pipeline.errors import InputError


@dataclass(frozen=True)
class FilterOptions:
    """Bounds of one preset; docs/filters.md says what each rule measures, and how in scripts without spaces.

    The defaults are those of the preset `web`: the bounds of Gopher (Rae et al. 2021, A.1.1), C4 (Raffel et al. 2020,
    2.2) and FineWeb (Penedo et al. 2024, 3.6), as FineWeb combines them, unless a field says otherwise. A min_ of 0,
    a max_ that nothing reaches and a drop_ of False turn a rule off.
    """

    drop_blocked_urls: bool = True
    """Drop what lies at an address of your list (block.urls)."""
    max_blocked_word_ratio: float = 0
    """Largest share of words that your list (block.words) may hold (C4: 0, one is too many)."""
    min_words: float = 50
    """Fewest words (Gopher)."""
    max_words: float = 100_000
    """Most words (Gopher)."""
    max_replacement_ratio: float = 0.001
    """Largest share of U+FFFD, the mark of undecodable bytes, among the characters."""
    min_letter_ratio: float = 0.5
    """Smallest share of letters among the characters that are no space."""
    max_digit_ratio: float = 0.3
    """Largest share of digits among the characters that are no space."""
    min_mean_word_letters: float = 3
    """Least mean length of words in letters (Gopher); not in scripts without spaces."""
    max_mean_word_letters: float = 10
    """Greatest mean length of words (Gopher)."""
    max_symbol_ratio: float = 0.1
    """Most hash signs, and most ellipses, to a word or mark (Gopher)."""
    max_bullet_ratio: float = 0.9
    """Largest share of lines that begin with a bullet (Gopher)."""
    max_ellipsis_ratio: float = 0.3
    """Largest share of lines that end in an ellipsis (Gopher)."""
    min_letter_word_ratio: float = 0.65
    """Smallest share of words and marks that have a letter (Gopher: 0.8 of what stands between spaces, which is this)."""
    min_stop_words: float = 2
    """Fewest different stop words of the document's language (Gopher); not in languages without a list."""
    max_duplicate_paragraph_ratio: float = 0.3
    """Largest share of paragraphs that stood before in the document (Gopher)."""
    max_duplicate_paragraph_char_ratio: float = 0.2
    """Largest share of the characters that is in such paragraphs (Gopher)."""
    max_duplicate_line_ratio: float = 0.3
    """Largest share of lines that stood before (Gopher)."""
    max_duplicate_line_char_ratio: float = 0.1
    """Largest share of the characters that is in such lines (FineWeb; Gopher: 0.2)."""
    max_top_2gram_ratio: float = 0.20
    """Largest share of the characters that is in the most frequent run of two words (Gopher)."""
    max_top_3gram_ratio: float = 0.18
    """The same of three words."""
    max_top_4gram_ratio: float = 0.16
    """The same of four words."""
    max_duplicate_5gram_ratio: float = 0.15
    """Largest share of the characters that is in runs of five words that stood before (Gopher)."""
    max_duplicate_6gram_ratio: float = 0.14
    """The same of six words."""
    max_duplicate_7gram_ratio: float = 0.13
    """The same of seven words."""
    max_duplicate_8gram_ratio: float = 0.12
    """The same of eight words."""
    max_duplicate_9gram_ratio: float = 0.11
    """The same of nine words."""
    max_duplicate_10gram_ratio: float = 0.10
    """The same of ten words."""
    min_gram_count: float = 2
    """Times that the most frequent run of words must occur to count as repeated (datatrove: 1)."""
    drop_lorem_ipsum: bool = True
    """Drop placeholder text (C4)."""
    drop_curly_bracket: bool = False
    """Drop texts with a curly bracket in a line that counts (C4 does: it wanted no code)."""
    min_sentences: float = 3
    """Fewest sentences in the lines that count (C4; datatrove: 5)."""
    needs_end_mark: bool = False
    """A line counts only if it ends a sentence (C4 does; FineWeb found that it costs too much)."""
    min_line_words: float = 5
    """A line counts that has as many words (C4; datatrove: 3)."""
    max_word_chars: float = 1000
    """A line counts if no run without spaces in it has more characters (C4's code)."""
    min_sentence_line_ratio: float = 0.12
    """Smallest share of lines that end a sentence (FineWeb)."""
    max_short_line_ratio: float = 0.67
    """Largest share of short lines (FineWeb)."""
    short_line_chars: float = 30
    """Characters of the longest short line (FineWeb)."""
    max_line_feed_ratio: float = 0.3
    """Most line feeds to a word or mark (FineWeb's code)."""


_OFF: dict[str, Any] = {"min_": 0.0, "max_": math.inf, "drop": False}
_KEPT = ("drop_blocked_urls", "max_blocked_word_ratio", "min_line_words", "max_word_chars", "min_gram_count")
# Every rule off but the user's own lists; the lengths that others are counted by as they are.
UNBOUNDED = replace(
    FilterOptions(),
    **{
        entry.name: _OFF[entry.name[:4]]
        for entry in fields(FilterOptions)
        if entry.name[:4] in _OFF and entry.name not in _KEPT
    },
)
PRESETS = {
    # What the papers kept of Common Crawl.
    "web": FilterOptions(),
    # Verse, drama and dialogue: short lines, refrains, speakers' names, few full stops; a file may be one saying. What
    # is left to find are indexes and tables.
    "books": replace(
        UNBOUNDED,
        min_words=5,
        max_replacement_ratio=0.001,
        min_letter_ratio=0.5,
        max_digit_ratio=0.1,
        min_mean_word_letters=3,
        max_mean_word_letters=10,
        max_symbol_ratio=0.3,
        max_ellipsis_ratio=0.5,
        min_letter_word_ratio=0.55,
        min_stop_words=1,
        max_duplicate_paragraph_ratio=0.5,
        max_duplicate_paragraph_char_ratio=0.4,
        max_duplicate_line_ratio=0.5,
        max_duplicate_line_char_ratio=0.4,
        max_top_2gram_ratio=0.4,
        max_top_3gram_ratio=0.4,
        max_top_4gram_ratio=0.4,
        max_duplicate_5gram_ratio=0.30,
        max_duplicate_6gram_ratio=0.28,
        max_duplicate_7gram_ratio=0.26,
        max_duplicate_8gram_ratio=0.24,
        max_duplicate_9gram_ratio=0.22,
        max_duplicate_10gram_ratio=0.20,
    ),
    # Articles were edited by people, but many are stubs, lists or tables.
    "wiki": replace(
        FilterOptions(),
        min_words=20,
        max_words=1_000_000,
        max_bullet_ratio=1.0,
        min_letter_word_ratio=0.5,
        min_stop_words=1,
        drop_lorem_ipsum=False,
        min_sentences=1,
        min_line_words=3,
        min_sentence_line_ratio=0.0,
        max_short_line_ratio=1.0,
        max_line_feed_ratio=1.0,
    ),
    # Only what is no text at all.
    "permissive": replace(UNBOUNDED, min_words=1, max_replacement_ratio=0.001),
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
        InputError: an unknown preset or bound, or a bound that no document could keep.
    """
    chosen = preset_of(kind, preset)
    known = [entry.name for entry in fields(FilterOptions)]
    changes: dict[str, Any] = {}
    for name, bound in own.items():
        where = f"sources.filters.{name}"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"sources.filters: {name!r} is no bound; {hint}")
        if not (math.isfinite(bound) and bound >= 0):
            raise InputError(f"{where}: {bound} must be a finite number, 0 or more")
        if name.startswith("min_") and name.endswith("_ratio") and bound > 1:
            raise InputError(f"{where}: {bound} is more than the whole; a share is 0 to 1")
        if name.startswith(("drop_", "needs_")) and bound not in (0, 1):
            raise InputError(f"{where}: {bound} is neither 1 (yes) nor 0 (no)")
        changes[name] = bool(bound) if name.startswith(("drop_", "needs_")) else bound
    options = replace(PRESETS[chosen], **changes)
    for least, most in (("min_words", "max_words"), ("min_mean_word_letters", "max_mean_word_letters")):
        if getattr(options, least) > getattr(options, most):
            raise InputError(
                f"sources.filters.{least}: {getattr(options, least)} is more than {most}, {getattr(options, most)}"
                f" (preset {chosen}); no document could keep both"
            )
    return options
