"""Read web captures: WARC and WET (fastwarc), ARC (warcio), and saved HTML pages.

Every capture (response, revisit, resource, conversion) becomes one record, a document or a reason; warcinfo,
request and metadata records are no captures and give none.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import brotli
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from warcio.archiveiterator import ArchiveIterator as ArcIterator
from warcio.bufferedreaders import BufferedReader, ChunkedDataReader
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from data_pipeline.sources import WHOLE, Record, Span, open_file, spans_between

MAX_PAGE_BYTES = 8 << 20
# A body as it was sent; with its encodings taken off, none that is cut here fits in a page.
MAX_RAW_BYTES = 4 * MAX_PAGE_BYTES
GZIP_MAGIC = b"\x1f\x8b"
# Of a skippable zstd frame that holds the dictionary of those behind it.
ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"
MEMBER_MAGICS = (b"WARC/", GZIP_MAGIC, b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
WARC_MAGICS = (*MEMBER_MAGICS, ZSTD_DICTIONARY)
HTML_TYPES = ("text/html", "application/xhtml+xml")
WACZ_MEMBER = re.compile(r"archive/[^/]+\.warc(?:\.gz)?")
CAPTURES = (
    WarcRecordType.response | WarcRecordType.revisit | WarcRecordType.resource | WarcRecordType.conversion
)


def read(path: Path, span: Span = WHOLE) -> Iterator[Record]:
    """Records of one span of an archive, or of a page file."""
    name = path.name.lower()
    if name.endswith((".html", ".htm", ".xhtml")):
        with open_file(path) as file:
            yield page_record(path.name, file.read(MAX_PAGE_BYTES + 1), "text/html", "")
    elif name.endswith(".wacz"):
        yield from _read_wacz(path)
    elif _is_arc(name):
        with open_file(path) as file:
            yield from _read_arc(file, span)
    else:
        with open_file(path) as file:
            yield from _read_warc(file, span)


def split(path: Path, span_bytes: int) -> list[Span]:
    """Spans of an archive that can be entered midway: plain, or packed by record (WARC: gzip, zstd, lz4; ARC: gzip).

    The archive is read through once for the places of its records, which costs a few percent of extraction; looking
    for the marks of a record instead would find those of archives within the archive.
    """
    with open_file(path) as file:
        magic = file.read(5)
        if _is_arc(path.name.lower()):
            starts = _arc_starts(file) if magic.startswith(GZIP_MAGIC) else iter(())
        elif magic.startswith(WARC_MAGICS):
            starts = _warc_starts(file)
        else:
            return [WHOLE]
        cuts: list[int] = []
        last = -1
        for start in starts:
            if start <= last:  # two records in one member: it cannot be entered at the second
                return [WHOLE]
            last = start
            if start >= (cuts[-1] if cuts else 0) + span_bytes:
                cuts.append(start)
        # A whole archive in one member has no places to enter.
        if not all(_at(file, cut, 5).startswith(MEMBER_MAGICS) for cut in cuts):
            return [WHOLE]
    return spans_between(cuts)


def _warc_starts(file: BinaryIO) -> Iterator[int]:
    file.seek(0)
    for record in ArchiveIterator(file, parse_http=False):
        yield record.stream_pos


def _read_warc(file: BinaryIO, span: Span = WHOLE) -> Iterator[Record]:
    stream, shift = _entered(file, span.start)
    position = span.start
    # Bodies are decoded here: crawlers store pages whose headers still claim an encoding that is gone.
    for record in ArchiveIterator(stream, record_types=CAPTURES, parse_http=True, auto_decode="none"):
        position = record.stream_pos + shift
        if span.stop is not None and position >= span.stop:
            return
        yield _warc_record(record)
    _check_end(file, position)


def _entered(file: BinaryIO, start: int) -> tuple[Any, int]:
    """(The archive from a record on, what to add to offsets in it): a dictionary at the archive's begin comes first."""
    if start and _at(file, 0, 4) == ZSTD_DICTIONARY:
        size = 8 + int.from_bytes(_at(file, 4, 4), "little")
        return _Prefixed(_at(file, 0, size), file, start), start - size
    file.seek(start)
    return file, 0


class _Prefixed:
    """Some bytes, then a file from an offset on; offsets count from the first of the bytes."""

    def __init__(self, prefix: bytes, file: BinaryIO, start: int) -> None:
        self._prefix, self._file, self._position = prefix, file, 0
        file.seek(start)

    def read(self, size: int) -> bytes:
        """The next bytes."""
        block, self._prefix = self._prefix[:size], self._prefix[size:]
        block += self._file.read(size - len(block))
        self._position += len(block)
        return block

    def tell(self) -> int:
        """Bytes that were read."""
        return self._position


def _read_wacz(path: Path) -> Iterator[Record]:
    """Records of the WARC files in a web archive collection (WACZ, a zip of them)."""
    with open_file(path) as packed, zipfile.ZipFile(packed) as archive:
        members = sorted(name for name in archive.namelist() if WACZ_MEMBER.fullmatch(name))
        for name in members:
            with archive.open(name) as member:
                yield from _read_warc(cast(BinaryIO, member))


def _check_end(file: BinaryIO, position: int) -> None:
    """Raise EOFError where an archive breaks off: fastwarc takes that for its end.

    Args:
        file: the archive.
        position: where the last capture begins; what lies before was read without a complaint.
    """
    magic = _at(file, 0, 5)
    if magic == b"WARC/":
        broken = _at(file, max(0, file.seek(0, io.SEEK_END) - 2), 2) != b"\r\n"
    elif magic.startswith(GZIP_MAGIC):
        broken = _breaks_off(file, position)
    else:
        broken = False
    if broken:
        raise EOFError("the archive breaks off within a record")


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _breaks_off(file: BinaryIO, position: int) -> bool:
    """Whether the last gzip member from a position on has no end."""
    file.seek(position)
    member = zlib.decompressobj(wbits=31)
    while piece := member.unused_data or file.read(1 << 16):
        if member.eof:
            if not piece.startswith(GZIP_MAGIC[:1]):
                break  # padding after the last record
            member = zlib.decompressobj(wbits=31)
        member.decompress(piece)
    return not member.eof


def _warc_record(record: WarcRecord) -> Record:
    uri = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    date = record.headers.get("WARC-Date") or ""
    if record.record_type == WarcRecordType.revisit:
        return Record(uri, date=date, reason="revisit")
    if record.record_type == WarcRecordType.resource and not uri.startswith(("http://", "https://")):
        return Record(uri, date=date, reason="not_a_page")  # wget keeps its log and manifest this way
    http = record.http_headers
    if http is None:
        content_type = record.headers.get("Content-Type") or ""
        return page_record(uri, _read_body(record), content_type, date)
    refused = _refuse_status(http.status_code)
    if refused:
        return Record(uri, date=date, reason=refused)
    content_type = http.get("Content-Type") or ""
    if not _is_text(content_type):
        return Record(uri, date=date, reason="not_text")
    raw = _read_body(record)
    try:
        body = decode_body(raw, http.get("Transfer-Encoding"), http.get("Content-Encoding"))
    except (zlib.error, OSError, ValueError):
        return Record(uri, date=date, reason="undecodable_body")
    return page_record(uri, body, content_type, date)


def _read_body(record: WarcRecord) -> bytes:
    # Exactly what there is: the reader makes room for all that it is asked for.
    size = min(record.content_length, MAX_RAW_BYTES)
    body = record.reader.read(size)
    if len(body) < size:
        raise EOFError("the archive breaks off within a record")
    return body


def decode_body(raw: bytes, transfer: str | None, content: str | None) -> bytes:
    """The body without its transfer and content encodings, cut just above MAX_PAGE_BYTES.

    warcio's readers pass a body through as it is where it does not have the encoding that it claims.
    """
    if not transfer and not content:
        return raw[: MAX_PAGE_BYTES + 1]
    encoding = (content or "").strip().lower()
    compression = encoding if encoding in ("gzip", "deflate") else None
    reader_type = ChunkedDataReader if "chunked" in (transfer or "").lower() else BufferedReader
    reader = reader_type(io.BytesIO(raw), decomp_type=compression)
    pieces: list[bytes] = []
    size = 0
    while size <= MAX_PAGE_BYTES:
        piece = reader.read(1 << 20)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    body = b"".join(pieces)[: MAX_PAGE_BYTES + 1]
    return _decode_brotli(body) if encoding == "br" else body


def _decode_brotli(body: bytes) -> bytes:
    # warcio 1.8 calls an attribute that brotli's decompressor does not have.
    try:
        return brotli.Decompressor().process(body, output_buffer_limit=MAX_PAGE_BYTES + 1)
    except brotli.error:
        return body


def _is_arc(name: str) -> bool:
    return ".arc" in name and ".warc" not in name


def _arc_starts(file: BinaryIO) -> Iterator[int]:
    file.seek(0)
    archive = ArcIterator(file, no_record_parse=True)
    for _ in archive:
        yield archive.offset


def _read_arc(file: BinaryIO, span: Span = WHOLE) -> Iterator[Record]:
    file.seek(span.start)
    archive = ArcIterator(file, arc2warc=True, ensure_http_headers=False)
    for record in archive:
        if span.stop is not None and archive.offset >= span.stop:
            return
        if record.rec_type in ("response", "resource"):
            yield _arc_record(record)


def _arc_record(record: ArcWarcRecord) -> Record:
    uri = record.rec_headers.get_header("WARC-Target-URI") or ""
    date = record.rec_headers.get_header("WARC-Date") or ""
    if record.http_headers is not None:
        status = record.http_headers.get_statuscode() or ""
        refused = _refuse_status(int(status) if status.isdecimal() else 0)
        if refused:
            return Record(uri, date=date, reason=refused)
        content_type = record.http_headers.get_header("Content-Type") or ""
    else:
        content_type = record.content_type or ""
    try:
        body = record.content_stream().read(MAX_PAGE_BYTES + 1)
    except (ArchiveLoadFailed, zlib.error, OSError, ValueError):
        return Record(uri, date=date, reason="undecodable_body")
    return page_record(uri, body, content_type, date)


def _refuse_status(status: int | None) -> str:
    if status is None or 200 <= status < 300:
        return ""
    return "redirect" if 300 <= status < 400 else "http_status"


def _charset(content_type: str) -> str | None:
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == "charset":
            return value.strip(" \"'").lower() or None
    return None


def _media_type(content_type: str) -> str:
    return content_type.split(";")[0].strip().lower()


def _is_text(content_type: str) -> bool:
    return _media_type(content_type) in (*HTML_TYPES, "text/plain")


def page_record(uri: str, body: bytes, content_type: str, date: str) -> Record:
    """A page as a record: decoded by the HTTP charset, then by meta tag and detection."""
    if not _is_text(content_type):
        return Record(uri, date=date, reason="not_text")
    if len(body) > MAX_PAGE_BYTES:
        return Record(uri, date=date, reason="too_large")
    if not body.strip():
        return Record(uri, date=date, reason="empty_body")
    is_html = _media_type(content_type) in HTML_TYPES
    found = detect_encoding(body, html5_compatible=True, from_html_meta=is_html)
    encoding = _charset(content_type) or found or "utf-8"
    try:
        text = bytes_to_str(body, encoding, errors="replace", fallback_encodings=("utf-8", "windows-1252"))
    except LookupError:
        text = bytes_to_str(body, "utf-8", errors="replace", fallback_encodings=("windows-1252",))
    return Record(uri, text, "html" if is_html else "text", date=date)
