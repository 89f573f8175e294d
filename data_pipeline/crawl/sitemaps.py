"""Sitemaps (sitemaps.org): XML or text, also gzip, and indexes of them. No entities, no network, bounded."""

from __future__ import annotations

import gzip
import io
import zlib

import lxml.etree

from data_pipeline.crawl import urls
from data_pipeline.crawl.fetch import Answer
from data_pipeline.sources.web import GZIP_MAGIC, decode_body

# The protocol's own limits; sitemaps.org.
MAX_URLS = 50_000
MAX_BYTES = 50 << 20


def read_sitemap(url: str, answer: Answer, strip_tracking: bool) -> tuple[list[str], list[str]]:
    """(pages, further sitemaps) in the answer to a request for a sitemap, in their one spelling.

    What is broken or beyond the limits is left out; what stands before it counts.
    """
    try:
        body = decode_body(answer.body, None, answer.header("content-encoding"))
        if body.startswith(GZIP_MAGIC):
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BYTES)
    except (OSError, EOFError, ValueError, zlib.error):
        return [], []
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        lines = body.decode("utf-8-sig", "replace").split("\n")[:MAX_URLS]
        found = [("url", line.strip()) for line in lines]
    else:
        found = _locations(body)
    pages = [urls.link(url, place, strip_tracking) for kind, place in found if kind == "url"]
    indexed = [urls.link(url, place, strip_tracking) for kind, place in found if kind == "sitemap"]
    return [page for page in pages if page], [sitemap for sitemap in indexed if sitemap]


def _locations(body: bytes) -> list[tuple[str, str]]:
    """(url or sitemap, location) of each entry."""
    found: list[tuple[str, str]] = []
    parser = lxml.etree.iterparse(
        io.BytesIO(body),
        events=("end",),
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
    )
    try:
        for _, element in parser:
            if not isinstance(element.tag, str):
                continue
            name = lxml.etree.QName(element).localname
            if name == "loc" and element.getparent() is not None:
                kind = lxml.etree.QName(element.getparent()).localname
                found.append((kind, (element.text or "").strip()))
            elif name in ("url", "sitemap"):
                element.clear()
            if len(found) >= MAX_URLS:
                break
    except lxml.etree.LxmlError:
        pass
    return found
