"""Main text from what was read: HTML pages, wikitext, Gutenberg files; plain text passes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from data_pipeline import wikitext
from data_pipeline.books import gutenberg
from data_pipeline.books import html as book_html
from data_pipeline.clean import storable_column, storable_json
from data_pipeline.config import ExtractConfig
from data_pipeline.html.blocks import PageTooComplex
from data_pipeline.html.main_text import main_text
from data_pipeline.schema import Verdict, replace_column, split

STAGE = "extract"


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a document's content gives.

    Attributes:
        text: the main text; "" for none.
        title, date: as the content states them; "" where it does not.
        reason: why this is no document; "" for a good one.
        metadata: what else the content states.
    """

    text: str = ""
    title: str = ""
    date: str = ""
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def extract(table: pa.Table, config: ExtractConfig) -> tuple[pa.Table, pa.Table]:
    """Replace `text` by the main text; `title`, `date` and `metadata` gain what the content states.

    Args:
        table: rows of schema.RAW.

    Returns:
        (rows with text, rows without, by reason).
    """
    columns: dict[str, list[str]] = {"text": [], "title": [], "date": [], "metadata": []}
    verdicts: list[Verdict | None] = []
    extractors = EXTRACTORS | {"html": partial(_from_html, fast=config.mode == "fast")}
    for row in table.select(["format", *columns]).to_pylist():
        try:
            found = extractors[row["format"]](row["text"])
        except PageTooComplex:
            found = Extracted(reason="too_complex")
        except Exception:  # a page may trip any library; it must never end the job
            found = Extracted(reason="extraction_failed")
        columns["text"].append(found.text or row["text"][:1000])
        columns["title"].append(row["title"] or found.title)
        columns["date"].append(row["date"] or found.date)
        stated = storable_json(json.loads(row["metadata"]) | found.metadata) if found.metadata else ""
        columns["metadata"].append(stated or row["metadata"])
        reason = found.reason or ("" if found.text.strip() else "no_main_text")
        verdicts.append(Verdict(reason) if reason else None)
    for name, values in columns.items():
        # An entity of wikitext may stand for a surrogate.
        table = replace_column(table, name, storable_column(values))
    return split(table, STAGE, verdicts)


def _from_html(content: str, fast: bool = False) -> Extracted:
    return Extracted(main_text(content, fast), _html_title(content))


TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,500})", re.IGNORECASE)


def _html_title(content: str) -> str:
    import html

    match = TITLE.search(content[:20_000])
    return " ".join(html.unescape(match.group(1)).split()) if match else ""


def _from_wikitext(content: str) -> Extracted:
    if wikitext.is_disambiguation(content):
        return Extracted(content, reason="disambiguation")
    return Extracted(wikitext.to_text(content))


def _from_gutenberg(content: str) -> Extracted:
    return _from_book(gutenberg.parse(content))


def _from_book_html(content: str) -> Extracted:
    return _from_book(gutenberg.parse_unwrapped(book_html.to_text(content)))


def _from_book(book: gutenberg.Book) -> Extracted:
    stated = {"author": book.author, "language": book.language, "gutenberg_id": book.number}
    return Extracted(
        book.text,
        book.title,
        book.release_date,
        metadata={key: value for key, value in stated.items() if value},
    )


def _from_text(content: str) -> Extracted:
    return Extracted(content)


EXTRACTORS: dict[str, Callable[[str], Extracted]] = {
    "html": _from_html,
    "wikitext": _from_wikitext,
    "gutenberg": _from_gutenberg,
    "book_html": _from_book_html,
    "text": _from_text,
}
