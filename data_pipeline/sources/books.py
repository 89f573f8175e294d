"""Read books: Project Gutenberg and other plain texts, EPUB, HTML, and zip archives of these."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_pipeline.books.archive import MEMBER_BYTES, Archive, ArchiveError
from data_pipeline.books.encoding import decode
from data_pipeline.books.epub import GUTENBERG_ID, read_epub
from data_pipeline.books.header import NUMBER, read_stated, split_parts
from data_pipeline.books.html import DOCUMENT_BREAK, title_of
from data_pipeline.sources import Record, open_file

EBOOKS = "https://www.gutenberg.org/ebooks/"
HTML = (".html", ".htm", ".xhtml")
TEXT = (".txt", ".text")
# The header and the old small print end before; the footer of the oldest files names the book as well.
HEADER_CHARS = 40_000


def read(path: Path) -> Iterator[Record]:
    """One record for a text, an HTML file or an EPUB, one for each book of a zip archive.

    Header, footer and line wrapping are left to extraction. A record's uri is Project Gutenberg's page of the
    book where the book states its number, else the file's name.
    """
    with open_file(path) as file:
        if path.suffix.lower() == ".zip":
            yield from _archive(file, path.name)
        elif path.suffix.lower() == ".gz":
            yield _book(gzip.GzipFile(fileobj=file).read(MEMBER_BYTES + 1), path.name)
        else:
            yield _book(file.read(MEMBER_BYTES + 1), path.name)


def _archive(file: IO[bytes], name: str) -> Iterator[Record]:
    try:
        archive = Archive(file, file.seek(0, io.SEEK_END))
    except ArchiveError as error:
        yield Record(name, reason=error.reason)
        return
    for member in sorted(archive.names()):
        if not member.lower().endswith((*TEXT, *HTML, ".epub")) or member.startswith("__MACOSX/"):
            continue
        place = f"{name}#{member}"
        try:
            yield _book(archive.read(member), place)
        except ArchiveError as error:
            yield Record(place, reason=error.reason)
            if error.reason == "zip_bomb":
                return


def _book(raw: bytes, place: str) -> Record:
    """The book in a file's bytes, by the ending of its name."""
    if len(raw) > MEMBER_BYTES:
        return Record(place, reason="too_large")
    if not raw.strip():
        return Record(place, reason="empty_file")
    ending = place.lower().removesuffix(".gz")
    if ending.endswith(".epub"):
        return _epub(raw, place)
    text = decode(raw)
    if text is None:
        return Record(place, reason="not_text")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if ending.endswith(HTML):
        return _html(text, place)
    number = read_stated(split_parts(text[:HEADER_CHARS]).header).number
    return Record(_uri(number, place), text, "gutenberg", metadata=_metadata(gutenberg_id=number))


def _html(markup: str, place: str) -> Record:
    number = NUMBER.search(markup, 0, HEADER_CHARS) or GUTENBERG_ID.search(markup, 0, HEADER_CHARS)
    number_text = number.group(1) if number else ""
    return Record(
        _uri(number_text, place),
        markup.replace(DOCUMENT_BREAK, " "),
        "book_html",
        title=title_of(markup),
        metadata=_metadata(gutenberg_id=number_text),
    )


def _epub(raw: bytes, place: str) -> Record:
    try:
        epub = read_epub(Archive(io.BytesIO(raw), len(raw)))
    except ArchiveError as error:
        return Record(place, reason=error.reason)
    return Record(
        _uri(epub.number, place),
        DOCUMENT_BREAK.join(document.replace(DOCUMENT_BREAK, " ") for document in epub.documents),
        "book_html",
        epub.title,
        epub.date,
        metadata=_metadata(author=epub.author, language=epub.language, gutenberg_id=epub.number),
    )


def _uri(number: str, place: str) -> str:
    return f"{EBOOKS}{number}" if number else place


def _metadata(**stated: str) -> dict[str, str]:
    return {name: value for name, value in stated.items() if value}
