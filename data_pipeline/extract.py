"""Main text from what was read: HTML pages, wikitext, Gutenberg files; plain text passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pyarrow as pa

from data_pipeline import gutenberg_text, wikitext
from data_pipeline.clean import storable
from data_pipeline.schema import Verdict, replace_column, split

STAGE = "extract"


def extract(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Replace `text` by the main text, `title` and `date` where the content states them.

    Args:
        table: rows of schema.RAW.

    Returns:
        (rows with text, rows without, by reason).
    """
    texts, titles, dates, verdicts = [], [], [], []
    for content, kind, title, date in zip(
        table["text"].to_pylist(),
        table["format"].to_pylist(),
        table["title"].to_pylist(),
        table["date"].to_pylist(),
        strict=True,
    ):
        try:
            text, found_title, found_date, reason = EXTRACTORS[kind](content)
        except Exception:  # a page may trip any library; it must never end the job
            text, found_title, found_date, reason = "", "", "", "extraction_failed"
        # An entity of wikitext may stand for a surrogate.
        texts.append(storable(text or content[:1000]))
        titles.append(title or storable(found_title))
        dates.append(date or found_date)
        verdicts.append(Verdict(reason) if reason else None if text.strip() else Verdict("no_main_text"))
    for name, values in (("text", texts), ("title", titles), ("date", dates)):
        table = replace_column(table, name, pa.array(values, pa.string()))
    return split(table, STAGE, verdicts)


Extracted = tuple[str, str, str, str]  # text, title, date, reason


def _from_html(content: str) -> Extracted:
    return _trafilatura()(content), _html_title(content), "", ""


@cache
def _trafilatura() -> Callable[[str], str]:
    import trafilatura  # 0.2 s, and only web workers need it

    def main_text(content: str) -> str:
        # fast=True: the same quality as the fallback chain at 1.5x the speed (reference measurements).
        text = trafilatura.extract(content, fast=True, include_comments=False, include_tables=True) or ""
        return "\n".join(_without_empty_cells(line) for line in text.split("\n"))

    return main_text


def _without_empty_cells(line: str) -> str:
    """A table row as it is, or its one text where it has no other: tables that only lay a page out."""
    if not line.startswith("|"):
        return line
    cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    filled = [cell for cell in cells if cell.strip("| -")]
    return line if len(filled) > 1 else "".join(filled)


TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,500})", re.IGNORECASE)


def _html_title(content: str) -> str:
    import html

    match = TITLE.search(content[:20_000])
    return " ".join(html.unescape(match.group(1)).split()) if match else ""


def _from_wikitext(content: str) -> Extracted:
    if wikitext.is_disambiguation(content):
        return content, "", "", "disambiguation"
    return wikitext.to_text(content), "", "", ""


def _from_gutenberg(content: str) -> Extracted:
    book = gutenberg_text.parse(content)
    return book.text, book.title, book.release_date, ""


def _from_text(content: str) -> Extracted:
    return content, "", "", ""


EXTRACTORS: dict[str, Callable[[str], Extracted]] = {
    "html": _from_html,
    "wikitext": _from_wikitext,
    "gutenberg": _from_gutenberg,
    "text": _from_text,
}
