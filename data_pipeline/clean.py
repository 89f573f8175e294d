"""Normalise text: mojibake, Unicode form, control characters, spaces and line ends."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
# Quotes, ligatures and widths are the author's; the Unicode form is for later.
FTFY = ftfy.TextFixerConfig(
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    normalization=None,
    explain=False,
)
BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Repair:
    """One line that ftfy changed.

    Attributes:
        before, after: the line, without its line break.
        steps: what ftfy did, for example (("encode", "latin-1"), ("decode", "utf-8")).
    """

    before: str
    after: str
    steps: tuple[tuple[str, str], ...]


def clean(table: pa.Table, config: CleanConfig) -> pa.Table:
    """The table with `text` and `title` normalised; no row is removed here.

    A column `unrepaired` holds the text as ftfy got it, where it changed it, for examples of what it did.
    """
    given = [_with_line_feeds(text) for text in table["text"].to_pylist()]
    repaired = [_repair(text, config) for text in given]
    unrepaired = [before if before != after else None for before, after in zip(given, repaired, strict=True)]
    columns = {
        "text": [_normalise(text, config) for text in repaired],
        "title": [" ".join(clean_text(title or "", config).split()) for title in table["title"].to_pylist()],
        "unrepaired": unrepaired,
    }
    for name, values in columns.items():
        table = replace_column(table, name, pa.array(values, pa.string()))
    return table


def clean_text(text: str, config: CleanConfig) -> str:
    """One text, normalised. Indentation and single line breaks stay: code, verse and tables need them."""
    return _normalise(_repair(_with_line_feeds(text), config), config)


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")


def _repair(text: str, config: CleanConfig) -> str:
    return storable(ftfy.fix_text(text, FTFY) if config.fix_encoding else text)


def repairs(text: str) -> Iterator[Repair]:
    """The lines of a text that ftfy changes, and how; as ftfy.fix_text goes through a text, line by line."""
    settings = FTFY._replace(explain=True)
    for line in io.StringIO(text, newline="\n"):
        if "<" in line:  # ftfy takes the rest for markup, in which entities stay
            settings = settings._replace(unescape_html=False)
        if len(line) > settings.max_decode_length:
            continue  # ftfy cuts it into parts, and nobody reads an example of a million characters
        after, steps = ftfy.fix_and_explain(line, settings)
        if after != line:
            taken = tuple((step.action, str(step.parameter)) for step in steps or ())
            yield Repair(storable(line.rstrip("\n")), storable(after.rstrip("\n")), taken)


def _normalise(text: str, config: CleanConfig) -> str:
    text = STRAY_JOINERS.sub("", INVISIBLE.sub("", text))
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


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: unpaired surrogates, which some inputs smuggle in, become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
