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

from data_pipeline.filter_presets import FilterOptions
from data_pipeline.schema import Verdict, replace_column, split
from data_pipeline.words import count_words

STAGE = "filter"


@dataclass(frozen=True)
class _Document:
    text: str
    lines: list[str]
    num_words: int


Rule = Callable[[_Document, FilterOptions], Verdict | None]


def _too_few_words(doc: _Document, options: FilterOptions) -> Verdict | None:
    return (
        Verdict("too_few_words", doc.num_words, options.min_words)
        if doc.num_words < options.min_words
        else None
    )


def _too_many_words(doc: _Document, options: FilterOptions) -> Verdict | None:
    return (
        Verdict("too_many_words", doc.num_words, options.max_words)
        if doc.num_words > options.max_words
        else None
    )


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
    return (
        Verdict("too_few_letters", ratio, options.min_letter_ratio)
        if ratio < options.min_letter_ratio
        else None
    )


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
    doc = document_of(text, num_words)
    for rule in RULES:
        verdict = rule(doc, options)
        if verdict is not None:
            return verdict
    return None


def document_of(text: str, num_words: int | None = None) -> _Document:
    """What the rules look at."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())] or [""]
    return _Document(text, lines, count_words(text) if num_words is None else num_words)


def filter_documents(table: pa.Table, options: FilterOptions) -> tuple[pa.Table, pa.Table]:
    """Count words, then judge each row."""
    texts = table["text"].to_pylist()
    counts = [count_words(text) for text in texts]
    table = replace_column(table, "num_words", pa.array(counts, pa.int64()))
    verdicts = [judge(text, options, count) for text, count in zip(texts, counts, strict=True)]
    return split(table, STAGE, verdicts)
