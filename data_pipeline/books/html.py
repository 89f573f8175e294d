"""The text of a book's HTML or XHTML: all of it, in blocks, where a web page's extractor would choose."""

from __future__ import annotations

import html
import html.entities
import re
from typing import Any

import lxml.html
from lxml import etree

# Between the documents of an EPUB; no character of XML.
DOCUMENT_BREAK = "\f"
DOCTYPE = re.compile(
    r"\A\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,2000}?-->\s*)?<!DOCTYPE[^>\[]{0,500}(?:\[[^\]]{0,100000}\]\s*)?>",
    re.I | re.S,
)
DECLARATION = re.compile(r"\A\s*<\?xml[^>]{0,200}\?>", re.I)
ENTITY = re.compile(r"&(\w{2,31});")
XML_ENTITIES = frozenset(("amp", "lt", "gt", "quot", "apos"))
SPACES = re.compile(r"[ \t\n\r\f]+")
# What the walk writes where a line or a block begins or ends; a run of these and spaces is one break.
LINE_BREAK, BLOCK_BREAK = "\x01", "\x02"
BREAKS = re.compile(f" *[\n{LINE_BREAK}{BLOCK_BREAK}][ \n{LINE_BREAK}{BLOCK_BREAK}]*")
# Elements that stand apart, with a blank line around them; other block elements only begin a line.
APART = frozenset(
    ("p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "section", "article", "ul", "ol", "dl",
     "table", "pre", "hr", "body", "header", "footer", "main")
)  # fmt: skip
LINES = frozenset(["div", "li", "dt", "dd", "tr", "caption", "address", "figcaption", "center"])
DROPPED = frozenset(
    ("head", "script", "style", "nav", "img", "svg", "audio", "video", "iframe", "object",
     "template", "noscript", "math", "button", "form", "figure")
)  # fmt: skip
PARTS = frozenset(
    (
        "pg-header",
        "pg-footer",
        "pg-machine-header",
        "pg-machine-footer",
        "pg-start-separator",
        "pg-end-separator",
    )
)
DROPPED_CLASSES = re.compile(
    r"(?:^|\s)(?:pg-boilerplate|page-?num(?:ber)?s?|pageno|pgnum|pagebreak|figcenter|figleft|figright|fig|illus\w*"
    r"|caption|lnum|linenum|tnote|transnote|transcriber\w*|covernote)(?:\s|$)",
    re.I,
)
DROPPED_TYPES = frozenset(("pagebreak", "toc", "cover", "page-list", "landmarks"))
EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
# A class may mean something else elsewhere; what holds this much text is the work itself.
MOST_DROPPED_CHARS = 5_000
DEEPEST = 200


def to_text(markup: str) -> str:
    """Text of one or more documents (DOCUMENT_BREAK between them): a blank line between blocks, lines of verse kept."""
    texts = (_document_text(document) for document in markup.split(DOCUMENT_BREAK))
    return "\n\n\n".join(text for text in texts if text)


def title_of(markup: str) -> str:
    """The first document's <title>, without what Gutenberg's files add to it; "" for none."""
    match = re.search(r"<title[^>]{0,200}>([^<]{1,500})", markup[:20_000], re.I)
    title = " ".join(html.unescape(match.group(1)).split()) if match else ""
    title = re.sub(r"^The Project Gutenberg e-?(?:book|text) of ", "", title, flags=re.I)
    return re.sub(r" \| Project Gutenberg$", "", title, flags=re.I)


def _document_text(document: str) -> str:
    root = _parse(document)
    if root is None:
        return ""
    pieces: list[str] = []
    body = root.find(".//{*}body")
    _walk(root if body is None else body, pieces, 0)
    return BREAKS.sub(_break, "".join(pieces)).strip().replace("\xa0", " ")


def _break(match: re.Match[str]) -> str:
    marks = match.group()
    return "\n\n" if BLOCK_BREAK in marks or marks.count("\n") > 1 else "\n"


def _parse(document: str) -> Any:
    """The tree of an XHTML document by XML's rules or, where it breaks them, of an HTML document.

    By HTML's rules an empty <title/> would take in the rest of the document. The DTD goes before parsing: its
    entities never are expanded.
    """
    source = DECLARATION.sub("", DOCTYPE.sub("", document))
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(ENTITY.sub(_entity, source), parser)
    except (etree.XMLSyntaxError, ValueError):
        pass
    try:
        return lxml.html.document_fromstring(
            source, parser=lxml.html.HTMLParser(remove_comments=True, remove_pis=True)
        )
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return None


def _entity(match: re.Match[str]) -> str:
    name = match.group(1)
    return match.group() if name in XML_ENTITIES else html.entities.html5.get(name + ";", match.group())


def _walk(element: Any, pieces: list[str], depth: int) -> None:
    """Append the element's text, with marks where lines and blocks begin and end."""
    name = _name(element)
    if not name or _is_dropped(element, name):
        return
    if name == "br":
        pieces.append("\n")
        return
    break_ = (
        BLOCK_BREAK if name in APART or _has_blocks(element, name) else LINE_BREAK if name in LINES else ""
    )
    pieces.append(break_)
    pre = name == "pre"
    pieces.append(_text(element.text, pre))
    for number, child in enumerate(element):
        if name == "tr" and number and _name(child) in ("td", "th"):
            pieces.append(" | ")
        if depth < DEEPEST:
            _walk(child, pieces, depth + 1)
        pieces.append(_text(child.tail, pre))
    pieces.append(break_)


def _name(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""


def _has_blocks(element: Any, name: str) -> bool:
    return name == "div" and any(_name(child) in LINES or _name(child) in APART for child in element)


def _text(text: str | None, pre: bool) -> str:
    if not text:
        return ""
    # The spaces of preformatted text survive as ones that do not break.
    return text.replace("  ", "\xa0\xa0") if pre else SPACES.sub(" ", text)


def _is_dropped(element: Any, name: str) -> bool:
    if name in DROPPED or element.get("id") in PARTS:
        return True
    types = (element.get(EPUB_TYPE) or element.get("epub:type") or "").split()
    classes = element.get("class") or ""
    if not DROPPED_TYPES.intersection(types) and not DROPPED_CLASSES.search(classes):
        return False
    return sum(map(len, element.itertext())) <= MOST_DROPPED_CHARS or "pg-boilerplate" in classes
