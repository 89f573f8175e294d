"""An HTML page as a flat list of text blocks, read in one walk over its tree.

An element is then a range of blocks, so that choosing and dropping parts of a page is arithmetic on ranges.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import lxml.etree

from data_pipeline.html.hints import (
    ASIDE,
    BLOCKS,
    LINKS,
    hints_of,
)

# The kind of a block is the nearest of these around its text; "br" is text in a div that <br> parts, "row" a row of
# a table of plain cells, "more" a further block of a list item.
KINDS = {
    **dict.fromkeys(("p", "summary"), "p"),
    **dict.fromkeys(("li", "dd", "dt"), "li"),
    **dict.fromkeys(("td", "th"), "td"),
    **{name: name for name in ("h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote")},
}
INHERITED = ("li", "pre", "blockquote")
LINK_GROUPS = frozenset(["div", "ul", "ol", "dl", "section", "p", "table"])
# Seldom named for what they are; not asked where speed counts.
SMALL = frozenset(
    ("li", "tr", "td", "th", "tbody", "thead", "tfoot", "h1", "h2", "h3", "h4", "h5", "h6", "dd",
     "dt", "blockquote", "pre", "span", "hr", "summary")
)  # fmt: skip
LINE_BREAK = "\x01"
# A figure with less text is a picture with its caption.
FIGURE_CHARS = 400
# Elements below this depth are read as plain text; pages of people stay under 100.
MAX_DEPTH = 200
MAX_BLOCKS = 100_000
MAX_TAGS = 400_000
# Cut out before parsing: half of a page's bytes.
CODE = re.compile(r"<(?:!--|(script|style|svg)(?=[\s/>]))")
# Emptied before parsing, where they are not to be read: a fifth of a page's elements.
ASIDES = re.compile(r"<(nav|footer|aside|select|template)(?=[\s>])")
# Of each, at most; the parser copes with the rest, only slower.
MAX_CUTS = 10_000


# A tag and its attributes, as a browser reads them. The parser takes quadratic time for the attributes of one tag:
# 31,000 of them are 2 s, and a page smaller than LARGE_PAGE has not much more.
ATTRIBUTE = re.compile(
    r"[ \t\n\f\r/]*+[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"?|'[^']*+'?|[^ \t\n\f\r>]*+))?+"
)
TAG = re.compile(rf"<[a-zA-Z][^ \t\n\f\r/>]*+(?:{ATTRIBUTE.pattern})*+")
LARGE_PAGE = 128 << 10
LONG_TAG = 1000
MAX_SQUARED_ATTRIBUTES = 1_000_000_000


class PageTooComplex(ValueError):
    """More tags, attributes or blocks than any page that people read has."""


@dataclass(slots=True)
class Blocks:
    """The text blocks of a page, in order.

    Attributes:
        text, kind: of each block.
        size, link_chars, num_links: characters, those of them in links, and links of each block.
        marks: (order of the element, first block, block after its last, marks of html.hints).
        frames: (rank, order of the element, first block, block after its last, its class).
    """

    text: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    link_chars: list[int] = field(default_factory=list)
    num_links: list[int] = field(default_factory=list)
    marks: list[tuple[int, int, int, int]] = field(default_factory=list)
    frames: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    _sums: list[int] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def finish(self) -> None:
        """Make `chars_in` and `marks_in` work; nothing is added after it."""
        self._sums = [0, *itertools.accumulate(self.size)]
        self.marks.sort(key=lambda mark: mark[1])
        self._starts = [mark[1] for mark in self.marks]

    def chars_in(self, start: int, stop: int) -> int:
        """Characters of a range of blocks."""
        return self._sums[stop] - self._sums[start]

    def chars_of(self, indices: Iterable[int]) -> int:
        """Characters of some blocks."""
        return sum(self.size[index] for index in indices)

    def marks_in(self, order: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(first block, block after the last, marks) of the marked elements within a frame, itself left out."""
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, stop)
        for mark_order, mark_start, mark_stop, marks in self.marks[first:last]:
            if mark_order > order and mark_stop <= stop:
                yield mark_start, mark_stop, marks


def parse_page(html: str, with_asides: bool = False) -> lxml.etree._Element | None:
    """The body of a decoded page, or its root where it has none; None for an empty one.

    Args:
        html: the page.
        with_asides: with what elements hold that are navigation or the like.

    Raises:
        PageTooComplex: more tags, or more attributes in one, than the parser can take in a few seconds.
    """
    html = _without_code(html)
    if not with_asides:
        html = _without_asides(html)
    if html.count("<") > MAX_TAGS:
        raise PageTooComplex(f"more than {MAX_TAGS} tags")
    if len(html) > LARGE_PAGE and _squared_attributes(html) > MAX_SQUARED_ATTRIBUTES:
        raise PageTooComplex("a tag with more than ten thousand attributes")
    if not html.strip():
        return None
    parser = lxml.etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    root = lxml.etree.fromstring(html.encode("utf-8", "replace"), parser=parser)
    body = None if root is None else root.find("body")
    return root if body is None else body


def read_blocks(
    body: lxml.etree._Element | None, skipped: frozenset[str] = ASIDE, skipped_marks: int = 0
) -> Blocks:
    """Blocks of a parsed page.

    Args:
        body: of parse_page; it is not changed.
        skipped: tags that are left out with all they hold.
        skipped_marks: marks of html.hints that leave an element out as well.

    Raises:
        PageTooComplex: more than MAX_BLOCKS blocks.
    """
    reader = _Reader(skipped, skipped_marks)
    if body is not None:
        reader.walk(body, "div", False, 0)
        reader.flush("div")
    reader.blocks.finish()
    return reader.blocks


def _without_code(html: str) -> str:
    """The page without comments, scripts, styles and drawings: nothing that is read."""
    pieces = []
    position = 0
    for _ in range(MAX_CUTS):
        found = CODE.search(html, position)
        if found is None:
            break
        end = html.find(f"</{found[1]}" if found[1] else "-->", found.end())
        if end < 0:
            break
        pieces.append(html[position : found.start()])
        position = html.find(">", end) + 1 or len(html)
    return "".join(pieces) + html[position:]


def _without_asides(html: str) -> str:
    """The page with nothing between the tags of asides; those that hold another of their kind are left alone."""
    pieces: list[str] = []
    position = 0
    ends: dict[str, int] = {}  # the next end tag of each kind; -1 where there is no more
    for found in islice(ASIDES.finditer(html), MAX_CUTS):
        tag, inside = found[1], found.end()
        end = ends.get(tag, 0)
        if 0 <= end < inside:
            end = ends[tag] = html.find(f"</{tag}", inside)
        if found.start() < position or end < 0 or html.find(f"<{tag}", inside, end) >= 0:
            continue
        pieces += html[position : found.start()], f"<{tag}>"
        position = end
    return "".join(pieces) + html[position:]


def _squared_attributes(html: str) -> int:
    """What the attributes of long tags cost to parse: the squares of their numbers, summed."""
    tags = (found[0] for found in TAG.finditer(html) if found.end() - found.start() > LONG_TAG)
    return sum(len(ATTRIBUTE.findall(tag)) ** 2 for tag in tags)


class _Reader:
    """Walks a tree; its state is the text since the last block ended, and running totals."""

    def __init__(self, skipped: frozenset[str], skipped_marks: int) -> None:
        self.blocks = Blocks()
        self.skipped, self.skipped_marks = skipped, skipped_marks
        self.unasked = SMALL if skipped_marks else frozenset()
        self.order = 0
        self.item_begins = False
        self.pending: list[str] = []
        self.pending_link_chars = self.pending_links = 0
        self.total_chars = self.total_link_chars = self.total_links = 0

    def flush(self, kind: str) -> None:
        """End a block of what is pending."""
        if self.pending:
            text = "".join(self.pending)
            self.pending.clear()
            if kind == "pre":
                text = text.replace(LINE_BREAK, "\n").strip("\n")
            else:
                text = " ".join(text.split())
                if LINE_BREAK in text:
                    text = "\n".join(line.strip() for line in text.split(LINE_BREAK)).strip()
            if text and not text.isspace():
                self._add(text, kind)
        self.pending_link_chars = self.pending_links = 0

    def _add(self, text: str, kind: str) -> None:
        blocks, size = self.blocks, len(text)
        if len(blocks.text) >= MAX_BLOCKS:
            raise PageTooComplex(f"more than {MAX_BLOCKS} blocks")
        if kind == "li":
            kind = "li" if self.item_begins else "more"
            self.item_begins = False
        link_chars = min(self.pending_link_chars, size)
        # A block within a link does not see the link begin.
        num_links = self.pending_links or (1 if link_chars else 0)
        blocks.text.append(text)
        blocks.kind.append(kind)
        blocks.size.append(size)
        blocks.link_chars.append(link_chars)
        blocks.num_links.append(num_links)
        self.total_chars += size
        self.total_link_chars += link_chars
        self.total_links += num_links

    def walk(self, element: lxml.etree._Element, kind: str, in_link: bool, depth: int) -> None:
        """Read what an element holds, in order; `kind` is that of its own text."""
        pending, skipped = self.pending, self.skipped
        if (text := element.text) and (pending or not text.isspace()):
            pending.append(text)
            if in_link:
                self.pending_link_chars += len(text)
        for child in element:
            tag = child.tag
            if tag in skipped:
                pass
            elif tag in BLOCKS:
                if pending:
                    self.flush(kind)
                self._block(child, tag, kind, in_link, depth)
            elif tag == "br":
                if kind == "div":
                    self.flush("br")
                else:
                    pending.append(LINE_BREAK)
            else:
                self._inline(child, tag, kind, in_link, depth)
            # Space at the beginning of a block says nothing, and most tails are that.
            if (text := child.tail) and (pending or not text.isspace()):
                pending.append(text)
                if in_link:
                    self.pending_link_chars += len(text)

    def _inline(self, element: lxml.etree._Element, tag: str, kind: str, in_link: bool, depth: int) -> None:
        if tag == "a":
            self.pending_links += 1
            in_link = True
        elif tag == "span" and tag not in self.unasked and (marks := _hints(element, tag)[0]):
            self.flush(kind)
            self.order += 1
            order, start = self.order, len(self.blocks.text)
            self.walk(element, kind, in_link, depth + 1)
            self.flush(kind)
            if (stop := len(self.blocks.text)) > start:
                self.blocks.marks.append((order, start, stop, marks))
            return
        if len(element) == 0:
            if text := element.text:
                self.pending.append(text)
                if in_link:
                    self.pending_link_chars += len(text)
        elif depth < MAX_DEPTH:
            self.walk(element, kind, in_link, depth + 1)
        else:
            self.pending.append(str(element.xpath("string()")))

    def _block(self, element: lxml.etree._Element, tag: str, kind: str, in_link: bool, depth: int) -> None:
        marks, rank = (0, 0) if tag in self.unasked else _hints(element, tag)
        if marks & self.skipped_marks:
            return
        own_kind = KINDS.get(tag, "div")
        if own_kind == "li":
            self.item_begins = True
        elif kind in INHERITED and own_kind in ("div", "p"):
            own_kind = kind
        blocks = self.blocks
        self.order += 1
        order, start = self.order, len(blocks.text)
        totals = self.total_chars, self.total_link_chars, self.total_links
        num_marks, num_frames = len(blocks.marks), len(blocks.frames)
        if depth < MAX_DEPTH:
            self.walk(element, own_kind, in_link, depth + 1)
        else:
            self.pending.append(str(element.xpath("string()")))
        if self.pending:
            self.flush(own_kind)
        if len(blocks.text) == start:
            return
        if tag == "figure" and self._is_picture(start, self.total_chars - totals[0]):
            self._forget(start, num_marks, num_frames, totals)
            return
        if tag == "tr" and num_marks == len(blocks.marks):
            self._join_row(element, start)
        stop = len(blocks.text)
        if rank:
            blocks.frames.append((rank, order, start, stop, element.get("class") or ""))
        num_links = self.total_links - totals[2]
        if num_links and tag in LINK_GROUPS:
            sizes = self.total_chars - totals[0], self.total_link_chars - totals[1], num_links
            if _is_link_group(tag, element.getnext() is None, *sizes):
                marks |= LINKS
        if marks:
            blocks.marks.append((order, start, stop, marks))

    def _is_picture(self, start: int, chars: int) -> bool:
        return chars < FIGURE_CHARS and not {"row", "td", "pre"}.intersection(self.blocks.kind[start:])

    def _forget(self, start: int, num_marks: int, num_frames: int, totals: tuple[int, int, int]) -> None:
        """Take back the blocks from `start` on."""
        blocks = self.blocks
        for column in (blocks.text, blocks.kind, blocks.size, blocks.link_chars, blocks.num_links):
            del column[start:]
        del blocks.marks[num_marks:], blocks.frames[num_frames:]
        self.total_chars, self.total_link_chars, self.total_links = totals

    def _join_row(self, row: lxml.etree._Element, start: int) -> None:
        """Make one block of a table row whose cells hold nothing but a line of text each."""
        blocks = self.blocks
        cells = blocks.text[start:]
        if len(cells) < 2 or len(cells) > len(row) or set(blocks.kind[start:]) != {"td"}:
            return
        text = " | ".join(cell.replace("\n", " ") for cell in cells)
        joined = (text, "row", len(text), sum(blocks.link_chars[start:]), sum(blocks.num_links[start:]))
        for column, value in zip(
            (blocks.text, blocks.kind, blocks.size, blocks.link_chars, blocks.num_links), joined, strict=True
        ):
            column[start:] = [value]  # type: ignore[index]


def _hints(element: lxml.etree._Element, tag: str) -> tuple[int, int]:
    # One call that brings all attributes is cheaper than six that ask for one each.
    get = dict(element.items()).get
    return hints_of(
        tag, get("class"), get("id"), get("role"), get("style"), get("itemprop"), get("aria-hidden")
    )


def _is_link_group(tag: str, is_last: bool, chars: int, link_chars: int, num_links: int) -> bool:
    """Whether an element is a list of links rather than text that has some."""
    if num_links == 1 and link_chars > 100 and link_chars > 0.9 * chars:
        return True
    if tag == "table":
        return chars >= 200 and link_chars > (0.8 if chars < 1000 else 0.5) * chars
    # What stands last is more often a list of further reading.
    limit = (60 if is_last else 30) if tag == "p" else (300 if is_last else 100)
    if chars < limit:
        return link_chars > 0.8 * chars or (num_links > 1 and link_chars < 10 * num_links)
    return num_links > 4 and link_chars > 0.9 * chars and link_chars < 100 * num_links
