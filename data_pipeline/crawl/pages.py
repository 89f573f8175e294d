"""What an answer says: an outcome, and the links that may be followed from it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import lxml.etree
import lxml.html

from data_pipeline.crawl import urls
from data_pipeline.crawl.fetch import Answer, Headers
from data_pipeline.crawl.robots import AGENT
from data_pipeline.sources.web import MAX_PAGE_BYTES, decode_body, page_record

MAX_LINKS = 5_000
TEXT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
# Links that their author does not vouch for, or is paid for.
UNFOLLOWED = {"nofollow", "ugc", "sponsored"}
DIRECTIVE_WITH_COLON = "unavailable_after"
REFRESH = re.compile(r"^\s*\d{1,9}\s*[;,]\s*url\s*=\s*['\"]?([^'\"]{1,2000})", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """What an answer to a request for a page comes to."""

    outcome: str
    links: list[str] = field(default_factory=list)
    redirect: str = ""


def is_wanted(status: int, headers: Headers) -> bool:
    """Whether a body is worth reading: text, or an answer of any other kind than a page."""
    if status != 200:
        return True
    types = [value.split(";")[0].strip().lower() for name, value in headers if name.lower() == "content-type"]
    return not types or types[0] in TEXT_TYPES


def assess(url: str, answer: Answer, strip_tracking: bool) -> Page:
    """The outcome of a fetch and the links to follow from it; a page is stored where the outcome is done."""
    if answer.status == 304:
        return Page("unchanged")
    if 300 <= answer.status < 400:
        return Page("redirect", redirect=urls.link(url, answer.header("location"), strip_tracking))
    if answer.status != 200:
        return Page(f"status_{answer.status}")
    if answer.cut:
        return Page("not_text" if answer.cut == "unwanted" else answer.cut)
    try:
        decoded = decode_body(answer.body, None, answer.header("content-encoding"))
    except (OSError, ValueError, zlib.error):
        return Page("undecodable")
    if len(decoded) > MAX_PAGE_BYTES:
        # decode_body stops just above the limit, however much a small body would swell to.
        return Page("too_large" if len(answer.body) > MAX_PAGE_BYTES else "decompression_bomb")
    return _assess_text(url, answer, decoded, strip_tracking)


def _assess_text(url: str, answer: Answer, decoded: bytes, strip_tracking: bool) -> Page:
    directives = header_directives(answer.values("x-robots-tag"))
    links: list[str] = []
    content_type = answer.header("content-type")
    if "html" in content_type.lower():
        root = _parse(url, decoded, content_type)
        if root is not None:
            directives |= _meta_directives(root)
            if not directives & {"nofollow", "none"}:
                links = _links(url, root, strip_tracking)
    return Page("noindex" if directives & {"noindex", "none"} else "done", links)


def _parse(url: str, decoded: bytes, content_type: str) -> lxml.html.HtmlElement | None:
    content = page_record(url, decoded, content_type, "").content
    try:
        return lxml.html.document_fromstring(
            content.encode("utf-8", "replace"), lxml.html.HTMLParser(encoding="utf-8")
        )
    except (lxml.etree.LxmlError, ValueError):
        return None


def header_directives(values: Iterable[str]) -> set[str]:
    """The directives of X-Robots-Tag headers that are for all or for us, in lower case.

    `otherbot: noindex, nofollow` is for another: a name holds until the end of its header or the next name.
    """
    found: set[str] = set()
    for value in values:
        for_us = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() != DIRECTIVE_WITH_COLON:
                for_us = name.strip() in (AGENT, "*")
                part = rest
            if for_us:
                found.add(part.strip())
    return found


def _meta_directives(root: lxml.html.HtmlElement) -> set[str]:
    found: set[str] = set()
    for node in root.iter("meta"):
        if (node.get("name") or "").strip().lower() in ("robots", AGENT):
            found.update(part.strip().lower() for part in (node.get("content") or "").split(","))
    return found


def _links(url: str, root: lxml.html.HtmlElement, strip_tracking: bool) -> list[str]:
    base = url
    for node in root.iter("base"):
        if node.get("href"):
            base = urls.link(url, node.get("href"), strip_tracking=False) or url
            break
    found: dict[str, None] = {}
    for reference in _references(root):
        target = urls.link(base, reference, strip_tracking)
        if target:
            found[target] = None
        if len(found) >= MAX_LINKS:
            break
    return list(found)


def _references(root: lxml.html.HtmlElement) -> Iterator[str]:
    """Addresses that a reader of a page could get to, in the page's order."""
    for node in root.iter("a", "area", "frame", "iframe", "meta"):
        if node.tag in ("frame", "iframe"):
            yield node.get("src") or ""
        elif node.tag == "meta":
            if (node.get("http-equiv") or "").strip().lower() == "refresh":
                refresh = REFRESH.match(node.get("content") or "")
                yield refresh[1] if refresh else ""
        elif not UNFOLLOWED & set((node.get("rel") or "").lower().split()):
            yield node.get("href") or ""
