"""The pages of a MediaWiki export, cut out of the byte stream one by one, so that a broken one costs itself only.

An export writes the text of pages escaped, so that `<page>` and `</page>` in the bytes are tags and nothing else.
Each page is parsed for itself, as XML that can hold no document type: entities cannot be declared, nor files named.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError, fromstring

from data_pipeline.sources.mediawiki_stream import READ_BYTES

PAGE_TAG = re.compile(rb"<(/?)(page|mediawiki)\b[^<>]{0,4096}>")
SITEINFO = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)
HEAD_BYTES = 1 << 20
# Every revision of a page may be in the dump; all but the last are dropped once a page grows beyond this.
MAX_PAGE_BYTES = 16 << 20
# No tag of an export is longer than this where it matters: one that a block ends in is found whole in the next.
TAG_BYTES = 64


@dataclass(frozen=True)
class Site:
    """What the head of an export says of its wiki.

    Attributes:
        base: address below which the pages are, or "".
        namespaces: names of the namespaces other than the main one.
    """

    base: str = ""
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Page:
    """One page's bytes.

    Attributes:
        xml: `<page>` to `</page>`; where the page is broken or too large, what of it was kept.
        reason: broken_page or too_large; "" for a whole page.
    """

    xml: bytes
    reason: str = ""


def site_of(file: io.BufferedIOBase) -> Site:
    """The site from the head of an export; what the head does not state is empty."""
    head = b""
    while len(head) < HEAD_BYTES and b"</siteinfo>" not in head and b"<page>" not in head:
        block = file.read1(1 << 14)
        if not block:
            break
        head += block
    found = SITEINFO.search(head)
    try:
        info = fromstring(found.group()) if found else Element("siteinfo")
    except ParseError:
        return Site()
    names = [item.text or "" for item in info.iter("namespace") if item.get("key", "0") != "0"]
    return Site((info.findtext("base") or "").rsplit("/", 1)[0], frozenset(filter(None, names)))


def pages(file: io.BufferedIOBase, at: int, start: int, stop: int | None) -> Iterator[Page]:
    """The pages whose `<page>` begins at byte `start` or later, before `stop`.

    Args:
        file: its next byte is byte `at` of the export: a little before `start`, to see what tag comes before it.

    Raises:
        ValueError: the stream ends within a page, or (with no `stop`) before the export's end.
    """
    window = b""  # from now on, `at` is the offset of its first byte
    page_at = -1  # where the open page begins in the window
    skipping = False  # the open page has grown beyond every bound
    closed = touched = False
    scanned = 0
    # read1: where a packed file breaks off, what was unpacked before is not lost.
    while block := file.read1(READ_BYTES):
        window += block
        for tag in PAGE_TAG.finditer(window, scanned):
            scanned = tag.end()
            ends, name = tag.group(1) == b"/", tag.group(2)
            if name == b"mediawiki":
                closed = closed or ends
                continue
            touched = True
            if page_at >= 0:  # an end, or the next page where the end is missing
                reason = "too_large" if skipping else "" if ends else "broken_page"
                yield Page(window[page_at : tag.end() if ends else tag.start()], reason)
                page_at, skipping = -1, False
            if not ends and at + tag.start() >= start:
                if stop is not None and at + tag.start() >= stop:
                    return
                page_at, closed = tag.start(), False
        scanned = max(scanned, len(window) - TAG_BYTES)
        if page_at >= 0:
            if len(window) - page_at > MAX_PAGE_BYTES:
                kept, skipping = _without_old_revisions(window[page_at:], skipping)
                at += len(window) - len(kept)
                window, page_at, scanned = kept, 0, max(0, len(kept) - TAG_BYTES)
            elif page_at > 0:
                at, window, scanned, page_at = at + page_at, window[page_at:], scanned - page_at, 0
        else:
            if stop is not None and at + scanned >= stop:
                return
            at, window, scanned = at + scanned, window[scanned:], 0
    if page_at >= 0:
        raise ValueError("the dump ends within a page")
    if stop is None and not closed and (touched or start == 0):
        raise ValueError("no </mediawiki>: the dump breaks off, or is none")


def _without_old_revisions(page: bytes, skipping: bool) -> tuple[bytes, bool]:
    """(the page's head and its last revision, whether even they are too large, so that only the head was kept)."""
    first, last = page.find(b"<revision>"), page.rfind(b"<revision>")
    head = page[: max(first, 0)][:READ_BYTES]
    kept = head + (page[last:] if last >= 0 else page)
    if skipping or len(kept) > MAX_PAGE_BYTES // 2:
        return (head or page[:READ_BYTES]) + page[-TAG_BYTES:], True
    return kept, False
