"""The quality rules: what each measures, which bound it is held to, and the paper it comes from.

A rule's measure is a function of the batch's statistics, one value a document. Documents are removed for the first
rule, in the order below, whose bound they miss. docs/filters.md says of each why it is there and where it differs
from the peers' rule of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_pipeline.filter_presets import FilterOptions
from data_pipeline.filters.characters import LAO, SPACED, THAI
from data_pipeline.filters.scripts import CHARS_PER_WORD
from data_pipeline.schema import Verdict

Measure = Callable[[np.ndarray], np.ndarray]

GOPHER = "Rae et al. 2021, Scaling Language Models (Gopher), A.1.1"
C4 = "Raffel et al. 2020, Exploring the Limits of Transfer Learning (C4), 2.2"
FINEWEB = "Penedo et al. 2024, The FineWeb Datasets, 3.6"
OWN = "gptmill"


@dataclass(frozen=True)
class Rule:
    """One reason to remove a document.

    Attributes:
        reason: its code in corpus/removed.
        measure: statistics -> values, [documents]; nan where the rule does not apply.
        bound: field of FilterOptions. One that begins with min_ is the least value that is kept, with max_ the
            greatest; one that begins with drop_ turns the rule on, and nothing above 0 is kept.
        source: where the rule comes from.
    """

    reason: str
    measure: Measure
    bound: str
    source: str

    def is_off(self, options: FilterOptions) -> bool:
        """Whether every document keeps the bound."""
        bound = getattr(options, self.bound)
        return not bound if self.bound.startswith(("min_", "drop_")) else math.isinf(bound)

    def judge(self, statistics: np.ndarray, options: FilterOptions) -> tuple[np.ndarray, np.ndarray, float]:
        """(which documents miss the bound, their values, the bound)."""
        values = self.measure(statistics)
        bound = getattr(options, self.bound)
        if self.bound.startswith("min_"):
            return values < bound, values, bound
        if self.bound.startswith("max_"):
            return values > bound, values, bound
        return (values > 0) & bound, values, 0.0


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


def _words(s: np.ndarray) -> np.ndarray:
    """Words; of scripts without spaces, as many characters as make one."""
    return s["num_spaced_words"] + s["num_unspaced"] / CHARS_PER_WORD[s["script"]]


def _tokens(s: np.ndarray) -> np.ndarray:
    """Words and marks."""
    return _words(s) + s["num_marks"]


def _mean_word_letters(s: np.ndarray) -> np.ndarray:
    is_spaced = (s["script"] == SPACED) & (s["num_spaced_words"] > 0)
    return np.where(is_spaced, _share(s["spaced_word_letters"], s["num_spaced_words"]), np.nan)


def _letter_words(s: np.ndarray) -> np.ndarray:
    letters = s["num_letter_words"] + s["num_unspaced"] / CHARS_PER_WORD[s["script"]]
    return _share(letters, _tokens(s))


def _if_marked(s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values where sentences have end marks: Thai and Lao part them by spaces, as we do clauses."""
    return np.where(np.isin(s["script"], (THAI, LAO)), np.nan, values)


def _stop_words(s: np.ndarray) -> np.ndarray:
    return np.where(s["num_stop_words"] < 0, np.nan, s["num_stop_words"])


def _of_chars(name: str) -> Measure:
    return lambda s: _share(s[name], s["num_chars"])


def _of_visible(name: str) -> Measure:
    return lambda s: _share(s[name], s["num_visible"])


def _of_lines(name: str) -> Measure:
    return lambda s: _share(s[name], s["num_lines"])


def _of_tokens(name: str) -> Measure:
    return lambda s: _share(s[name], _tokens(s))


RULES = (
    Rule("blocked_url", lambda s: s["is_blocked_url"], "drop_blocked_urls", OWN),
    Rule(
        "blocked_words",
        lambda s: _share(s["num_blocked_words"], s["num_words"]),
        "max_blocked_word_ratio",
        C4,
    ),
    Rule("too_few_words", _words, "min_words", GOPHER),
    Rule("too_many_words", _words, "max_words", GOPHER),
    Rule("undecodable_characters", _of_chars("num_replacements"), "max_replacement_ratio", OWN),
    Rule("too_few_letters", _of_visible("num_letters"), "min_letter_ratio", OWN),
    Rule("too_many_digits", _of_visible("num_digits"), "max_digit_ratio", OWN),
    Rule("words_too_short", _mean_word_letters, "min_mean_word_letters", GOPHER),
    Rule("words_too_long", _mean_word_letters, "max_mean_word_letters", GOPHER),
    Rule("too_many_hash_signs", _of_tokens("num_hash_signs"), "max_symbol_ratio", GOPHER),
    Rule("too_many_ellipses", _of_tokens("num_ellipses"), "max_symbol_ratio", GOPHER),
    Rule("too_many_bullets", _of_lines("num_bullet_lines"), "max_bullet_ratio", GOPHER),
    Rule("too_many_ellipsis_lines", _of_lines("num_ellipsis_lines"), "max_ellipsis_ratio", GOPHER),
    Rule("too_few_letter_words", _letter_words, "min_letter_word_ratio", GOPHER),
    Rule("too_few_stop_words", _stop_words, "min_stop_words", GOPHER),
    Rule(
        "duplicate_paragraphs",
        lambda s: _share(s["num_repeated_paragraphs"], s["num_paragraphs"]),
        "max_duplicate_paragraph_ratio",
        GOPHER,
    ),
    Rule(
        "duplicate_paragraph_chars",
        _of_chars("repeated_paragraph_chars"),
        "max_duplicate_paragraph_char_ratio",
        GOPHER,
    ),
    Rule("duplicate_lines", _of_lines("num_repeated_lines"), "max_duplicate_line_ratio", GOPHER),
    Rule("duplicate_line_chars", _of_chars("repeated_line_chars"), "max_duplicate_line_char_ratio", GOPHER),
    *(
        Rule(f"top_{size}gram", _of_chars(f"top_{size}gram_chars"), f"max_top_{size}gram_ratio", GOPHER)
        for size in (2, 3, 4)
    ),
    *(
        Rule(
            f"duplicate_{size}grams",
            _of_chars(f"repeated_{size}gram_chars"),
            f"max_duplicate_{size}gram_ratio",
            GOPHER,
        )
        for size in range(5, 11)
    ),
    Rule("lorem_ipsum", lambda s: s["num_placeholder_lines"], "drop_lorem_ipsum", C4),
    Rule("curly_bracket", lambda s: s["num_curly_lines"], "drop_curly_bracket", C4),
    Rule("too_few_sentences", lambda s: _if_marked(s, s["num_sentences"]), "min_sentences", C4),
    Rule(
        "too_few_sentence_lines",
        lambda s: _if_marked(s, _share(s["num_sentence_lines"], s["num_lines"])),
        "min_sentence_line_ratio",
        FINEWEB,
    ),
    Rule("too_many_short_lines", _of_lines("num_short_lines"), "max_short_line_ratio", FINEWEB),
    Rule("too_many_line_breaks", _of_tokens("num_line_feeds"), "max_line_feed_ratio", FINEWEB),
)


def judge(statistics: np.ndarray, options: FilterOptions) -> list[Verdict | None]:
    """The first rule that each document fails, or None."""
    verdicts: list[Verdict | None] = [None] * len(statistics)
    is_kept = np.ones(len(statistics), np.bool_)
    for rule in RULES:
        fails, values, bound = rule.judge(statistics, options)
        for index in np.flatnonzero(fails & is_kept):
            verdicts[index] = Verdict(rule.reason, float(values[index]), float(bound))
        is_kept &= ~fails
    return verdicts
