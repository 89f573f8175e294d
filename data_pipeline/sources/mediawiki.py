"""Read MediaWiki XML exports, plain, bz2 or gz: one page, one record."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote
from xml.etree.ElementTree import Element, iterparse

from data_pipeline.sources import WHOLE, Record, Span


def read(path: Path, span: Span = WHOLE) -> Iterator[Record]:
    """Pages of the main namespace as documents; redirects and other namespaces by reason.

    A page's uri is the wiki's own address of it, from the export's <base>.
    """
    base = ""
    with _open(path) as file:
        root: Element | None = None
        for event, element in iterparse(file, events=("start", "end")):
            if root is None:
                root = element
            if event == "start":
                continue
            tag = _local(element.tag)
            if tag == "base":
                base = (element.text or "").rsplit("/", 1)[0]
            elif tag == "page":
                yield _page(element, base or path.name)
                # Forget the page, and the root's memory of it: a dump has millions.
                root.clear()


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".bz2":
        return bz2.open(path, "rb")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _page(page: Element, base: str) -> Record:
    fields = {_local(child.tag): child for child in page}
    title = (fields["title"].text or "") if "title" in fields else ""
    uri = f"{base}/{quote(title.replace(' ', '_'))}"
    namespace = (fields["ns"].text or "0") if "ns" in fields else "0"
    if namespace != "0":
        return Record(uri, title=title, reason="other_namespace")
    if "redirect" in fields:
        return Record(uri, title=title, reason="redirect")
    if "revision" not in fields:
        return Record(uri, title=title, reason="no_revision")
    revision = {_local(child.tag): child.text or "" for child in fields["revision"]}
    text = revision.get("text", "")
    if not text.strip():
        return Record(uri, title=title, reason="empty_page")
    if text.lstrip()[:16].lower().startswith(("#redirect", "#重定向")):
        return Record(uri, title=title, reason="redirect")
    return Record(uri, text, "wikitext", title=title, date=revision.get("timestamp", ""))
