"""Normalise text: mojibake, Unicode form, control characters, spaces, line ends and the lines that pages repeat.

Most documents need nothing, and one pass of a linear-time regular expression finds those that may (`_untidy`); only
they are taken apart. Cleaning twice is cleaning once.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pyarrow as pa

from data_pipeline import mojibake, stock_lines
from data_pipeline.config import CleanConfig
from data_pipeline.patterns import linear
from data_pipeline.schema import replace_column
from data_pipeline.shards import canonical_json

# C0 controls but tab and line feed, DEL, directional and zero-width marks, BOM, interlinear and object marks.
INVISIBLE = "\x00-\x08\x0e-\x1f\x7f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc"
# What may be half of a wrongly decoded character, so that it goes only after the repair: C1 controls, soft hyphen.
LATE_INVISIBLE = "\x80-\x9f\xad"
# Spaces of another width or that must not break: one word boundary like any other.
FIXED_SPACES = "\xa0\u2000-\u200a\u202f\u205f"
ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;]*+[A-Za-z]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]+")
_LATE_INVISIBLE = re.compile(f"[{INVISIBLE}{LATE_INVISIBLE}]+")
_FIXED_SPACES = re.compile(f"[{FIXED_SPACES}]")
# Zero-width (non-)joiners carry meaning after these scripts and in emoji; elsewhere they are noise.
STRAY_JOINERS = re.compile(
    "(?<![\u0600-\u0dff\u1000-\u109f\u1780-\u17ff\U0001f000-\U0001faff\ufe0f])[\u200c\u200d]"
)
# Texts with this many combining marks in a row may hold more of them than MAX_MARKS.
MARKS = r"\p{M}{4}"
# The bound of Unicode's Stream-Safe Text Format (UAX #15); no language needs as many. A normal form puts marks in
# order, for which Python takes quadratic time.
MAX_MARKS = 30
_MARKS = linear(MARKS)
SPACES = " \t\u3000"
# Code has two blank lines between its functions, verse and books between their parts; more say nothing more.
BLANK_LINES = re.compile(r"\n{4,}")
# "<f at 0x7f3a...>", "<weakref at 0x7f3a...; to 'g'>", also with its brackets escaped twice.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,16}(?=>|&gt;|;)")
# Full-width Latin letters and digits; all full-width ASCII, and half-width kana and hangul.
ODD_WIDTH = {
    "letters": re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+"),
    "all": re.compile("[\uff01-\uff5e\uff61-\uffdc\uffe0-\uffee]+"),
}
# A text is done when a pass changes nothing: nearly always the second. Hostile text gets no more than these.
MAX_PASSES = 8


def clean(table: pa.Table, config: CleanConfig) -> pa.Table:
    """The table with `text` and `title` normalised; no row is removed here."""
    texts = [clean_text(text, config) for text in table["text"].to_pylist()]
    # A title is no line of a page.
    of_titles = replace(config, stock_lines=False)
    titles = [" ".join(clean_text(title or "", of_titles).split()) for title in table["title"].to_pylist()]
    return replace_column(
        replace_column(table, "text", pa.array(texts, pa.string())), "title", pa.array(titles, pa.string())
    )


def clean_text(text: str, config: CleanConfig) -> str:
    """One text, normalised. Indentation and single line breaks stay: code, verse and tables need them."""
    text = storable(text)
    for _ in range(MAX_PASSES):
        if not _untidy(config).search(text) and unicodedata.is_normalized(config.normalization, text):  # type: ignore[arg-type]
            break
        before = text
        text = _normalise(text, config)
        if text == before:
            break
    return text


@cache
def _untidy(config: CleanConfig) -> Any:
    """Matches every text that `_normalise` changes, but for one whose normal form alone is wrong."""
    patterns = [
        f"[\r\x0b\x0c\u200c\u200d\u2028\u2029{INVISIBLE}{LATE_INVISIBLE}{FIXED_SPACES}]",
        rf"[{SPACES}](?:\n|\z)|\n{{4}}|\A\n|\n\z",
        MARKS,
    ]
    if config.fix_encoding:
        patterns.append(mojibake.SUSPECT)
    if config.strip_addresses:
        patterns.append(" at 0x[0-9a-fA-F]{4}")
    if config.width != "keep":
        patterns.append(ODD_WIDTH[config.width].pattern)
    if config.stock_lines:
        patterns.append(stock_lines.PATTERN)
    return linear("|".join(patterns))


def _normalise(text: str, config: CleanConfig) -> str:
    text = _INVISIBLE.sub("", ANSI_ESCAPE.sub("", _line_feeds(text)))
    if config.fix_encoding:
        text = _line_feeds(mojibake.repair(_without_stray_joiners(text)))
    text = _with_few_marks(_without_stray_joiners(_LATE_INVISIBLE.sub("", text)))
    if config.width != "keep":
        # Over whole runs: a half-width kana and its voicing mark become one character.
        text = ODD_WIDTH[config.width].sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    # After the removals: a mark may have come to stand beside its letter.
    text = _FIXED_SPACES.sub(" ", unicodedata.normalize(config.normalization, text))  # type: ignore[arg-type]
    if config.strip_addresses:
        text = ADDRESS.sub("", text)
    if config.stock_lines:
        text = stock_lines.without_stock_lines(text)
    # By line: a regular expression for spaces at line ends takes quadratic time on a long run of spaces.
    text = "\n".join([line.rstrip(SPACES) for line in text.split("\n")])
    return BLANK_LINES.sub("\n\n\n", text).strip("\n")


def _line_feeds(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n")
    return text.replace("\u2028", "\n").replace("\u2029", "\n\n")


def _without_stray_joiners(text: str) -> str:
    return STRAY_JOINERS.sub("", text) if "\u200c" in text or "\u200d" in text else text


def _with_few_marks(text: str) -> str:
    """The text with no more than MAX_MARKS combining marks in a row."""
    return _mark_runs().sub(r"\1", text) if _MARKS.search(text) else text


@cache
def _mark_runs() -> re.Pattern[str]:
    marks = "".join(char for char in map(chr, range(0x300, sys.maxunicode)) if unicodedata.combining(char))
    return re.compile(f"([{marks}]{{{MAX_MARKS}}})[{marks}]+")


def storable_json(values: Mapping[str, str]) -> str:
    """A JSON object that any table can hold."""
    return canonical_json({storable(key): storable(value) for key, value in values.items()}).decode("utf-8")


def storable_column(texts: Sequence[str]) -> pa.Array:
    """`storable` of each, as a column."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([storable(text) for text in texts], pa.string())


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: unpaired surrogates, which some inputs smuggle in, become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
