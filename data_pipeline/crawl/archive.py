"""WARC files of a crawl: what was asked, what came back, and what a killed crawl had stored.

All records of a page go out in one write, and its `metadata` record is the last: a page is stored when that record is
whole. It says all that the frontier needs to know, so that after a kill nothing stored is fetched again.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import itertools
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from warcio.archiveiterator import ArchiveIterator
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipeline.crawl.fetch import Answer
from data_pipeline.crawl.visits import Entry, Visit
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.errors import InputError

PART = ".part"
NOT_MODIFIED = "http://netpreserve.org/warc/1.0/revisit/server-not-modified"
MAX_VALIDATOR_CHARS = 1_000
UNLOCK_SECONDS = 30.0


def payload_digest(body: bytes) -> str:
    """The WARC-Payload-Digest of a body."""
    return "sha1:" + base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode("ascii")


class Archive:
    """The WARC files that one worker writes, each up to `archive_bytes`; safe to use from many threads."""

    def __init__(self, folder: Path, config: CrawlConfig) -> None:
        self._folder, self._config = folder, config
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._path = folder

    def store(self, entry: Entry, visit: Visit, answer: Answer) -> None:
        """Add a page: its response, or a revisit where it is unchanged, then request and metadata."""
        buffer = io.BytesIO()
        writer = WARCWriter(buffer, gzip=True)
        if visit.outcome == "unchanged":
            capture = _revisit_record(writer, entry, visit, answer)
        else:
            capture = _response_record(writer, visit, answer)
        writer.write_request_response_pair(_request_record(writer, visit.url, answer), capture)
        writer.write_record(_metadata_record(writer, entry, visit, answer, capture))
        self._append(buffer.getvalue())

    def note(self, entry: Entry, visit: Visit, answer: Answer | None = None) -> None:
        """Add the metadata of a visit that leaves no page to keep."""
        buffer = io.BytesIO()
        writer = WARCWriter(buffer, gzip=True)
        writer.write_record(_metadata_record(writer, entry, visit, answer, None))
        self._append(buffer.getvalue())

    def _append(self, records: bytes) -> None:
        with self._lock:
            if self._file is not None and self._file.tell() >= self._config.archive_bytes:
                self._finish()
            if self._file is None:
                self._begin()
            assert self._file is not None
            self._file.write(records)
            self._file.flush()

    def _begin(self) -> None:
        for number in itertools.count(1):
            self._path = self._folder / f"{self._config.name}-{number:05d}.warc.gz"
            if not self._path.exists() and (file := _open_part(self._path)):
                break
        self._file = file
        writer = WARCWriter(file, gzip=True)
        writer.write_record(writer.create_warcinfo_record(self._path.name, _warcinfo(self._config)))

    def _finish(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._path.with_name(self._path.name + PART).rename(self._path)
        self._file.close()
        self._file = None

    def close(self, finished: bool) -> None:
        """Close the file that is being written; unless finished, it is left for `recover` to read."""
        with self._lock:
            if self._file is not None and finished:
                self._finish()
            elif self._file is not None:
                self._file.close()


def _open_part(path: Path) -> BinaryIO | None:
    """A new file, locked by us, that will be `path`; None where another worker or a recovery was faster."""
    part = path.with_name(path.name + PART)
    try:
        file = part.open("xb")
    except FileExistsError:
        return None
    fcntl.flock(file, fcntl.LOCK_EX)
    if part.exists() and part.stat().st_ino == os.fstat(file.fileno()).st_ino and not path.exists():
        return file
    file.close()
    return None


def _warcinfo(config: CrawlConfig) -> dict[str, str]:
    return {
        "software": config.user_agent.split(" ")[0],
        "format": "WARC File Format 1.0",
        "conformsTo": "http://bibnum.bnf.fr/WARC/WARC_ISO_28500_version1_latestdraft.pdf",
        "robots": "obey",
        "http-header-user-agent": config.user_agent,
        "operator": config.contact,
        "isPartOf": config.name,
    }


def _response_record(writer: WARCWriter, visit: Visit, answer: Answer) -> ArcWarcRecord:
    return writer.create_warc_record(
        visit.url,
        "response",
        payload=io.BytesIO(answer.body),
        length=len(answer.body),
        warc_headers_dict=_capture_headers("response", visit, answer),
        http_headers=_response_headers(answer),
    )


def _revisit_record(writer: WARCWriter, entry: Entry, visit: Visit, answer: Answer) -> ArcWarcRecord:
    record = writer.create_revisit_record(
        visit.url,
        entry.digest,
        visit.url,
        entry.stored_at,
        http_headers=_response_headers(answer),
        warc_headers_dict=_capture_headers("revisit", visit, answer),
    )
    if answer.status == 304:
        record.rec_headers.replace_header("WARC-Profile", NOT_MODIFIED)
    return record


def _capture_headers(kind: str, visit: Visit, answer: Answer) -> dict[str, str]:
    headers = {"WARC-Type": kind}
    if kind == "response":
        headers |= {"WARC-Date": visit.stored_at, "WARC-Payload-Digest": payload_digest(answer.body)}
    return headers | ({"WARC-IP-Address": answer.address} if answer.address else {})


def _response_headers(answer: Answer) -> StatusAndHeaders:
    # The HTTP library has taken the chunks apart, so the header that announces them must go.
    kept = [(name, value) for name, value in answer.headers if name.lower() != "transfer-encoding"]
    return StatusAndHeaders(f"{answer.status} {answer.reason}".strip(), kept, protocol="HTTP/1.1")


def _request_record(writer: WARCWriter, url: str, answer: Answer) -> ArcWarcRecord:
    target = "/" + url.split("/", 3)[3]
    line = StatusAndHeaders(f"GET {target} HTTP/1.1", answer.request_headers, is_http_request=True)
    return writer.create_warc_record(url, "request", http_headers=line)


def _metadata_record(
    writer: WARCWriter, entry: Entry, visit: Visit, answer: Answer | None, capture: ArcWarcRecord | None
) -> ArcWarcRecord:
    fields = [
        ("outcome", visit.outcome),
        ("via", entry.via),
        ("hopsFromSeed", str(entry.depth)),
        ("fetchTimeMs", f"{1000 * answer.seconds:.0f}" if answer else ""),
        ("numBytes", str(visit.num_bytes)),
        ("etag", visit.etag),
        ("lastModified", visit.last_modified),
        ("digest", visit.digest),
        ("storedAt", visit.stored_at),
        ("redirect", visit.redirect),
        *(("outlink", url) for url in visit.links),
        *(("sitemap", url) for url in visit.sitemaps),
    ]
    payload = "".join(f"{name}: {value}\r\n" for name, value in fields if value).encode("utf-8")
    headers = {"WARC-Type": "metadata"}
    if capture is not None:
        headers["WARC-Concurrent-To"] = capture.rec_headers.get_header("WARC-Record-ID")
    return writer.create_warc_record(
        visit.url, "metadata", payload=io.BytesIO(payload), length=len(payload), warc_headers_dict=headers
    )


def _read_metadata(member: bytes) -> Visit:
    record = next(iter(ArchiveIterator(io.BytesIO(member))))
    lines = record.content_stream().read().decode("utf-8").split("\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]
    fields = dict(pairs)
    return Visit(
        record.rec_headers.get_header("WARC-Target-URI"),
        fields["outcome"],
        links=[value for name, value in pairs if name == "outlink"],
        redirect=fields.get("redirect", ""),
        sitemaps=[value for name, value in pairs if name == "sitemap"],
        etag=fields.get("etag", ""),
        last_modified=fields.get("lastModified", ""),
        digest=fields.get("digest", ""),
        stored_at=fields.get("storedAt", ""),
        num_bytes=int(fields.get("numBytes", 0)),
    )


def recover(folder: Path, wait: bool = True) -> Iterator[tuple[Path, list[Visit]]]:
    """What killed workers had stored: the unfinished archives, cut after the last whole page, and their visits.

    Call `adopt` on an archive once the frontier has its visits.

    Args:
        wait: for workers of a killed crawl that still run; else archives in use are passed over.

    Raises:
        InputError: an archive is still in use after 30 seconds.
    """
    for part in sorted(folder.glob(f"*{PART}")):
        with part.open("r+b") as file:
            if not _lock(file, part, wait):
                continue
            visits, end = [], 0
            for stop, member in _members(file):
                if b"\r\nWARC-Type: metadata\r\n" in member[:200]:
                    visits.append(_read_metadata(member))
                    end = stop
            file.truncate(end)
        yield part, visits


def adopt(part: Path) -> None:
    """Give a recovered archive its name; one without a page goes."""
    if part.stat().st_size:
        part.rename(part.with_name(part.name.removesuffix(PART)))
    else:
        part.unlink()


def _lock(file: BinaryIO, part: Path, wait: bool) -> bool:
    deadline = time.monotonic() + (UNLOCK_SECONDS if wait else 0)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            if wait:
                raise InputError(
                    f"{part} is still being written by another crawl; stop that one first"
                ) from None
            return False
        return True


def _members(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(end, content) of each whole gzip member; what breaks off at the end is left out."""
    member, pieces, position, buffer = zlib.decompressobj(wbits=31), [], 0, b""
    while buffer or (buffer := file.read(1 << 20)):
        try:
            pieces.append(member.decompress(buffer))
        except zlib.error:
            return
        position += len(buffer) - len(member.unused_data)
        buffer = member.unused_data
        if member.eof:
            yield position, b"".join(pieces)
            member, pieces = zlib.decompressobj(wbits=31), []
