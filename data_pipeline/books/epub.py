"""An EPUB's reading order and metadata (EPUB 3.3, sections 4.2 and 5: container, package document, spine)."""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from lxml import etree

from data_pipeline.books.archive import Archive, ArchiveError
from data_pipeline.books.encoding import decode

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
# Fonts may be obfuscated (EPUB 3.3, 4.3); that locks no text.
CONTENT = (".xhtml", ".html", ".htm", ".xml", ".opf")
DOCUMENT_TYPES = frozenset(("application/xhtml+xml", "text/html", "text/x-oeb1-document"))
NOT_THE_WORK = re.compile(r"(?:^|[/_-])(?:cover|nav|toc|titlepage-image|wrap\d+)(?:[._-]|$)", re.I)
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
GUTENBERG_ID = re.compile(r"gutenberg\.org/(?:ebooks/|files/|cache/epub/)?(\d{1,6})", re.I)
NUM_DOCUMENTS = 20_000


@dataclass(frozen=True, slots=True)
class Epub:
    """What an EPUB states and holds.

    Attributes:
        documents: the markup of the spine's documents in reading order.
        title, author, language, date: of its Dublin Core; "" for what it does not state.
        number: Project Gutenberg's number of the book; "" for another's book.
    """

    documents: tuple[str, ...]
    title: str = ""
    author: str = ""
    language: str = ""
    date: str = ""
    number: str = ""


def read_epub(archive: Archive) -> Epub:
    """The spine's documents and the package's metadata.

    Raises:
        ArchiveError: encrypted (DRM), no_epub (no container, package or spine), or what Archive.read raises.
    """
    names = set(archive.names())
    if CONTAINER not in names:
        raise ArchiveError("no_epub")
    if ENCRYPTION in names and _locks_text(_xml(archive.read(ENCRYPTION))):
        raise ArchiveError("encrypted")
    rootfile = _xml(archive.read(CONTAINER)).find(".//{*}rootfile")
    package_name = "" if rootfile is None else rootfile.get("full-path", "")
    if package_name not in names:
        raise ArchiveError("no_epub")
    package = _xml(archive.read(package_name))
    documents = tuple(
        text
        for name in _reading_order(package, posixpath.dirname(package_name))
        if name in names and (text := decode(archive.read(name)))
    )
    if not documents:
        raise ArchiveError("no_epub")
    return _with_metadata(documents, package)


def _xml(data: bytes) -> Any:
    """An XML tree: no network, no DTD, no entities, whatever the document asks for.

    Raises:
        ArchiveError: no_epub, for what is no XML.
    """
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, recover=True)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        root = None
    if root is None:
        raise ArchiveError("no_epub")
    return root


def _locks_text(encryption: Any) -> bool:
    references = (element.get("URI", "") for element in encryption.iter("{*}CipherReference"))
    return any(urllib.parse.unquote(uri).lower().endswith(CONTENT) for uri in references)


def _reading_order(package: Any, folder: str) -> list[str]:
    """Names of the spine's documents, without the cover and the navigation."""
    items = {item.get("id"): item for item in package.iterfind("{*}manifest/{*}item")}
    guide = {
        (reference.get("href") or "").split("#")[0]
        for reference in package.iterfind("{*}guide/{*}reference")
        if reference.get("type") in ("cover", "toc")
    }
    names: list[str] = []
    for itemref in package.iterfind("{*}spine/{*}itemref"):
        item = items.get(itemref.get("idref"))
        if item is None or item.get("media-type") not in DOCUMENT_TYPES:
            continue
        href = item.get("href") or ""
        if "nav" in (item.get("properties") or "").split() or _is_apart(itemref, item, href, guide):
            continue
        names.append(posixpath.normpath(posixpath.join(folder, urllib.parse.unquote(href))))
    return list(dict.fromkeys(names))[:NUM_DOCUMENTS]


def _is_apart(itemref: Any, item: Any, href: str, guide: set[str]) -> bool:
    # A guide may call the first chapter's file the contents as well, if all is in one file.
    named = NOT_THE_WORK.search(href.rsplit("/", 1)[-1]) or NOT_THE_WORK.search(item.get("id") or "")
    return bool(named) or (itemref.get("linear") == "no" and href in guide)


def _with_metadata(documents: tuple[str, ...], package: Any) -> Epub:
    def stated(name: str) -> list[str]:
        elements = package.iterfind(f"{{*}}metadata//{DUBLIN_CORE}{name}")
        return [
            text for element in elements if (text := " ".join("".join(element.itertext()).split())[:1000])
        ]

    def first(name: str) -> str:
        return next(iter(stated(name)), "")

    number = next(
        (
            match.group(1)
            for text in stated("identifier") + stated("source")
            if (match := GUTENBERG_ID.search(text))
        ),
        "",
    )
    return Epub(
        documents, first("title"), ", ".join(stated("creator")[:10]), first("language"), first("date"), number
    )
