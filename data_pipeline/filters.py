"""Reason-coded quality rules. Each is a small function of one document; the first that fails names the reason.

Rules and thresholds follow Gopher (Rae et al. 2021, table A1 and section A.1.1) and C4 (Raffel et al. 2020)
where a docstring says so. Counts of words use data_pipeline.words, so that text without spaces counts too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from data_pipeline.errors import InputError
from data_pipeline.schema import Verdict, replace_column, split
from data_pipeline.words import count_words

STAGE = "filter"


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


@dataclass(frozen=True)
class _Document:
    text: str
    lines: list[str]
    num_words: int


Rule = Callable[[_Document, FilterOptions], Verdict | None]


def _too_few_words(doc: _Document, options: FilterOptions) -> Verdict | None:
    return Verdict("too_few_words", doc.num_words, options.min_words) if doc.num_words < options.min_words else None


def _too_many_words(doc: _Document, options: FilterOptions) -> Verdict | None:
    return Verdict("too_many_words", doc.num_words, options.max_words) if doc.num_words > options.max_words else None


def _too_many_symbols(doc: _Document, options: FilterOptions) -> Verdict | None:
    symbols = doc.text.count("#") + doc.text.count("...") + doc.text.count("…")
    return _above("too_many_symbols", symbols / max(1, doc.num_words), options.max_symbol_ratio)


BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "- ", "* ", "· ")


def _too_many_bullets(doc: _Document, options: FilterOptions) -> Verdict | None:
    ratio = sum(line.startswith(BULLETS) for line in doc.lines) / len(doc.lines)
    return _above("too_many_bullets", ratio, options.max_bullet_ratio)


def _too_many_ellipses(doc: _Document, options: FilterOptions) -> Verdict | None:
    ratio = sum(line.endswith(("...", "…")) for line in doc.lines) / len(doc.lines)
    return _above("too_many_ellipsis_lines", ratio, options.max_ellipsis_ratio)


NO_LETTERS = re.compile(r"[\W\d_]+")
SPACE = re.compile(r"\s+")


def _too_few_letters(doc: _Document, options: FilterOptions) -> Verdict | None:
    letters = len(NO_LETTERS.sub("", doc.text))
    ratio = letters / max(1, len(SPACE.sub("", doc.text)))
    return Verdict("too_few_letters", ratio, options.min_letter_ratio) if ratio < options.min_letter_ratio else None


def _duplicate_lines(doc: _Document, options: FilterOptions) -> Verdict | None:
    counts = Counter(line for line in doc.lines if len(line) > 3)
    repeated = sum(len(line) * (count - 1) for line, count in counts.items())
    ratio = repeated / max(1, sum(len(line) for line in doc.lines))
    return _above("duplicate_lines", ratio, options.max_duplicate_line_ratio)


def _undecodable(doc: _Document, options: FilterOptions) -> Verdict | None:
    ratio = doc.text.count("\ufffd") / max(1, len(doc.text))
    return _above("undecodable_characters", ratio, options.max_replacement_ratio)


def _lorem_ipsum(doc: _Document, options: FilterOptions) -> Verdict | None:
    return Verdict("lorem_ipsum") if options.drop_lorem_ipsum and "lorem ipsum" in doc.text.lower() else None


def _above(reason: str, value: float, bound: float) -> Verdict | None:
    return Verdict(reason, value, bound) if value > bound else None


RULES: tuple[Rule, ...] = (
    _too_few_words,
    _too_many_words,
    _undecodable,
    _too_few_letters,
    _too_many_symbols,
    _too_many_bullets,
    _too_many_ellipses,
    _duplicate_lines,
    _lorem_ipsum,
)


def judge(text: str, options: FilterOptions, num_words: int | None = None) -> Verdict | None:
    """The first rule that a text fails, or None."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())] or [""]
    doc = _Document(text, lines, count_words(text) if num_words is None else num_words)
    for rule in RULES:
        verdict = rule(doc, options)
        if verdict is not None:
            return verdict
    return None


def filter_documents(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Count words, then judge each row by the options of its `preset`."""
    texts = table["text"].to_pylist()
    counts = [count_words(text) for text in texts]
    table = replace_column(table, "num_words", pa.array(counts, pa.int64()))
    verdicts = [
        judge(text, PRESETS[preset], count)
        for text, preset, count in zip(texts, table["preset"].to_pylist(), counts, strict=True)
    ]
    return split(table, STAGE, verdicts)
