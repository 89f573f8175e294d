"""Normalise text: mojibake, Unicode form, control characters, spaces and line ends."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import ftfy
import pyarrow as pa

from data_pipeline.config import CleanConfig
from data_pipeline.schema import replace_column
from data_pipeline.shards import canonical_json

# C0 and C1 controls but tab and line feed, zero-width and directional marks, BOM, soft hyphen, interlinear marks.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufff9-\ufffb]"
)
# Zero-width (non-)joiners carry meaning after these scripts and in emoji; elsewhere they are noise.
STRAY_JOINERS = re.compile(
    "(?<![\u0600-\u0dff\u1000-\u109f\u1780-\u17ff\U0001f000-\U0001faff\ufe0f])[\u200c\u200d]"
)
# Spaces of another width or that must not break: one word boundary like any other.
FIXED_SPACES = re.compile("[\xa0\u2000-\u200a\u202f\u205f]")
SPACES = " \t\u3000"
# "<f at 0x7f3a...>", "<weakref at 0x7f3a...; to 'g'>", also with its brackets escaped twice.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,16}(?=>|&gt;|;)")
BLANK_LINES = re.compile(r"\n{3,}")


def clean(table: pa.Table, config: CleanConfig) -> pa.Table:
    """The table with `text` and `title` normalised; no row is removed here."""
    texts = [clean_text(text, config) for text in table["text"].to_pylist()]
    titles = [" ".join(clean_text(title or "", config).split()) for title in table["title"].to_pylist()]
    return replace_column(
        replace_column(table, "text", pa.array(texts, pa.string())), "title", pa.array(titles, pa.string())
    )


def clean_text(text: str, config: CleanConfig) -> str:
    """One text, normalised. Indentation and single line breaks stay: code, verse and tables need them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if config.fix_encoding:
        text = ftfy.fix_text(
            text,
            uncurl_quotes=False,
            fix_latin_ligatures=False,
            fix_character_width=False,
            normalization=None,
        )
    text = STRAY_JOINERS.sub("", INVISIBLE.sub("", storable(text)))
    # After the removals: a mark may have come to stand beside its letter.
    text = unicodedata.normalize(config.normalization, text)  # type: ignore[arg-type]
    text = FIXED_SPACES.sub(" ", text)
    if config.strip_addresses:
        text = ADDRESS.sub("", text)
    # By line: a regular expression for spaces at line ends takes quadratic time on a long run of spaces.
    text = "\n".join(line.rstrip(SPACES) for line in text.split("\n"))
    return BLANK_LINES.sub("\n\n", text).strip("\n")


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
