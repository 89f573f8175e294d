"""Read MediaWiki XML exports, plain or packed, whole or by span: one page, one record."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError, fromstring

from data_pipeline.sources import WHOLE, Record, Span
from data_pipeline.sources.mediawiki_pages import TAG_BYTES, Page, Site, pages, site_of
from data_pipeline.sources.mediawiki_stream import cuts, opened, packing
from data_pipeline.wikitext.words import is_redirect

TITLE = re.compile(rb"<title>([^<>]{1,1024})</title>")
PAGE_ID = re.compile(rb"<id>([0-9]{1,20})</id>")
# MediaWiki itself refuses texts beyond 2 MiB unless told otherwise.
MAX_TEXT_CHARS = 2 << 20


def read(path: Path, span: Span = WHOLE) -> Iterator[Record]:
    """Pages of the main namespace as documents; redirects, other namespaces and broken pages by reason.

    A page's uri is the wiki's own address of it, from the export's <base>. Of several revisions the last counts.

    Raises:
        InputError: a 7z file on a machine without a 7z tool.
        ValueError, OSError, EOFError: the file breaks off or cannot be unpacked; its good pages came first.
    """
    with opened(path, WHOLE) as file:
        site = site_of(file)
    base = site.base or path.name
    if packing(path) == "xml":
        entry, stop = Span(max(0, span.start - TAG_BYTES), span.stop), span.stop
    else:  # a span of a packed file ends where a stream does, and with it its pages
        entry, stop = span, None if span.stop is None else _BEYOND
    with opened(path, entry) as file:
        for page in pages(file, entry.start, span.start, stop):
            yield _record(page, site, base)


# An offset that no file has: such a span ends with its bytes, and need not hold the end of the export.
_BEYOND = 1 << 62


def split(path: Path, span_bytes: int) -> list[Span]:
    """Spans of about `span_bytes` bytes, in order; one where the file cannot be entered midway (gz, 7z, UTF-16).

    Raises:
        InputError: a 7z file on a machine without a 7z tool.
    """
    edges = [0, *cuts(path, span_bytes)]
    return [Span(start, stop) for start, stop in zip(edges, [*edges[1:], None], strict=True)]


def _record(page: Page, site: Site, base: str) -> Record:
    if page.reason:
        return _unparsed(page, base)
    try:
        return _page(fromstring(page.xml), site, base)
    except (ParseError, UnicodeDecodeError):
        return _unparsed(Page(page.xml, "broken_page"), base)


def _unparsed(page: Page, base: str) -> Record:
    """A page by its reason alone, with the title where that can be made out."""
    head = page.xml[:4096]
    title, page_id = TITLE.search(head), PAGE_ID.search(head)
    name = html.unescape(title.group(1).decode("utf-8", "replace")) if title else ""
    metadata = {"page_id": page_id.group(1).decode()} if page_id else {}
    return Record(_uri(base, name) if name else "", title=name, reason=page.reason, metadata=metadata)


def _uri(base: str, title: str) -> str:
    return f"{base}/{quote(title.replace(' ', '_'))}"


def _page(page: Element, site: Site, base: str) -> Record:
    title = page.findtext("title") or ""
    revisions = page.findall("revision")
    revision = {child.tag: child.text or "" for child in revisions[-1]} if revisions else {}
    stated = {"page_id": page.findtext("id"), "revision_id": revision.get("id")}
    metadata = {key: value for key, value in stated.items() if value}
    text = revision.get("text", "")
    if reason := _reason(page, title, revision, site):
        return Record(_uri(base, title), title=title, reason=reason, metadata=metadata)
    date = revision.get("timestamp", "")
    return Record(_uri(base, title), text, "wikitext", title=title, date=date, metadata=metadata)


def _reason(page: Element, title: str, revision: dict[str, str], site: Site) -> str:
    """Why a page is no article, or ""."""
    # Exports before version 0.6 of the format state no <ns>: the title's prefix tells.
    default = "1" if title.partition(":")[0] in site.namespaces else "0"
    if (page.findtext("ns") or default) != "0":
        return "other_namespace"
    if page.find("redirect") is not None:
        return "redirect"
    if not revision:
        return "no_revision"
    text = revision.get("text", "")
    if not text.strip():
        return "empty_page"
    if is_redirect(text):
        return "redirect"
    if revision.get("model", "wikitext") != "wikitext":  # Wikidata's items, for one
        return "no_wikitext"
    return "too_large" if len(text) > MAX_TEXT_CHARS else ""
