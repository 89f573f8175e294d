"""A MediaWiki export as a stream of UTF-8 bytes, entered where a span begins: plain, bz2, gz, 7z, UTF-8 or UTF-16."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_pipeline.errors import InputError
from data_pipeline.sources import Span, is_local, open_file
from data_pipeline.sources.mediawiki_index import index_of, streams

READ_BYTES = 1 << 18
SEVEN_ZIP_TOOLS = ("7z", "7zz", "7za", "7zr")
# A bz2 stream begins with its header and the magic of its first block (the digits of pi).
BZ2_STREAM = re.compile(rb"BZh[1-9]1AY&SY")
BZ2_STREAM_BYTES = 10
PAGE_HEAD = re.compile(rb"\s*<page>")
# A page states its title, its namespace and its number before anything else.
PAGE_NUMBER = re.compile(rb"<id>([0-9]{1,18})</id>")
HEAD_BYTES = 4096
XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,200}encoding=["']([A-Za-z][A-Za-z0-9._-]{0,40})["']""")
# Streams looked at for one cut. In a multistream dump the first one will do; where none of these does, the file was
# packed without regard to pages (pbzip2), and decompressing more heads would cost as much as reading it.
MAX_CANDIDATES = 4


def packing(path: Path) -> str:
    """bz2, gz, 7z or xml, by the file's first bytes."""
    with open_file(path) as file:
        head = file.read(6)
    for magic, name in ((b"BZh", "bz2"), (b"\x1f\x8b", "gz"), (b"7z\xbc\xaf\x27\x1c", "7z")):
        if head.startswith(magic):
            return name
    return "xml"


def cuts(path: Path, span_bytes: int) -> list[int]:
    """Byte offsets, ascending, at which a reader can enter the file; few or none where its packing allows none.

    Plain UTF-8 may be entered anywhere, a bz2 file where a stream begins with a page. The index beside a multistream
    dump names those; where it is missing, damaged or another dump's, they are looked for.

    Raises:
        InputError: a 7z file on a machine without a 7z tool.
    """
    size = path.stat().st_size
    wanted = range(span_bytes, size, span_bytes)
    kind = packing(path)
    if kind == "7z":
        seven_zip_tool(path)
    if kind == "xml":
        with open_file(path) as file:
            return list(wanted) if _encoding(file.read(1024)) == "utf-8" else []
    if kind != "bz2":
        return []
    with open_file(path) as file:
        found = _cuts_of_index(path, file, wanted)
        last = found[-1] if found else 0
        return found + _searched_cuts(file, range(last + span_bytes, size, span_bytes))


def _cuts_of_index(path: Path, file: IO[bytes], wanted: range) -> list[int]:
    """What the dump's index has for the offsets wanted; nothing unless all of it is true of the dump."""
    index = index_of(path)
    if index is None:
        return []
    found: list[int] = []
    following = 0
    try:
        for start, page_id in streams(index):
            if following >= len(wanted):
                break
            if start >= wanted[following]:
                if _first_page(file, start) != page_id:
                    return []
                found.append(start)
                following = 1 + (start - wanted.start) // wanted.step
    except (ValueError, OSError, EOFError):  # a guide to the dump, no part of it: nothing is lost without
        return []
    return found


def _searched_cuts(file: IO[bytes], wanted: range) -> list[int]:
    found: list[int] = []
    for offset in wanted:
        if found and found[-1] >= offset:  # a stream longer than a span
            continue
        cut = _page_stream(file, offset)
        if cut is None:
            break
        found.append(cut)
    return found


def _page_stream(file: IO[bytes], offset: int) -> int | None:
    """Where the first bz2 stream that begins with a page starts, at `offset` or later."""
    file.seek(offset)
    window, at = b"", offset
    candidates = 0
    while block := file.read(READ_BYTES):
        window += block
        for match in BZ2_STREAM.finditer(window):
            start = at + match.start()
            if _first_page(file, start) is not None:
                return start
            candidates += 1
            if candidates >= MAX_CANDIDATES:
                return None
        # Keep what may be the first part of a mark.
        at += len(window) - (BZ2_STREAM_BYTES - 1)
        window = window[-(BZ2_STREAM_BYTES - 1) :]
        file.seek(at + len(window))
    return None


def _first_page(file: IO[bytes], start: int) -> int | None:
    """Number of the page that what is packed at `start` begins with: -1 where it states none, None for no page.

    By chance, the bytes of a stream's mark occur within a stream, too.
    """
    head = _stream_head(file, start)
    if not PAGE_HEAD.match(head):
        return None
    number = PAGE_NUMBER.search(head)
    return int(number.group(1)) if number else -1


def _stream_head(file: IO[bytes], start: int) -> bytes:
    """The first bytes of a bz2 stream, unpacked; none where there is no stream."""
    decompressor = bz2.BZ2Decompressor()
    file.seek(start)
    head = b""
    try:
        while len(head) < HEAD_BYTES and not decompressor.eof and (block := file.read(READ_BYTES)):
            head += decompressor.decompress(block, HEAD_BYTES)
            while len(head) < HEAD_BYTES and not decompressor.needs_input and not decompressor.eof:
                head += decompressor.decompress(b"", HEAD_BYTES)
    except OSError:
        return b""
    return head


@contextmanager
def opened(path: Path, span: Span) -> Iterator[io.BufferedIOBase]:
    """The export's XML as UTF-8 bytes from the beginning of the span; to the span's end where that is a stream's.

    Raises:
        InputError: a 7z file without a tool to unpack it.
    """
    kind = packing(path)
    if kind == "7z":
        with _seven_zip(path) as file:
            yield _as_utf8(file)
        return
    with open_file(path) as raw:
        raw.seek(span.start)
        if kind == "bz2":
            part = raw if span.stop is None else io.BufferedReader(_Limited(raw, span.stop - span.start))
            # bz2 reads through the end of one stream into the next.
            with bz2.BZ2File(part) as file:
                yield _as_utf8(file)
        elif kind == "gz":
            with gzip.GzipFile(fileobj=raw) as file:
                yield _as_utf8(file)
        else:
            yield _as_utf8(raw)


class _Limited(io.RawIOBase):
    """The next `length` bytes of a file."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._file.read(min(len(buffer), self._left))
        buffer[: len(block)] = block
        self._left -= len(block)
        return len(block)


def seven_zip_tool(path: Path) -> str:
    """The 7z program of this machine.

    Raises:
        InputError: there is none.
    """
    for name in SEVEN_ZIP_TOOLS:
        if tool := shutil.which(name):
            return tool
    raise InputError(
        f"{path}: reading 7z needs one of {', '.join(SEVEN_ZIP_TOOLS)} on PATH; install 7zip, or unpack the file first"
    )


@contextmanager
def _seven_zip(path: Path) -> Iterator[IO[bytes]]:
    with _on_disk(path) as local:
        # An absolute path after "--", never a pattern (-spd): no file name is taken for an option or a list of files.
        command = [seven_zip_tool(path), "x", "-so", "-spd", "-bd", "--", str(local.resolve())]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            yield process.stdout
            if not process.stdout.read(1) and process.wait():
                raise OSError(f"7z ended with status {process.returncode}: the archive is damaged")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


@contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """The file where a program finds it: itself, or a copy of a remote one."""
    if is_local(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".7z") as copy, open_file(path) as file:
        shutil.copyfileobj(file, copy, READ_BYTES)
        copy.flush()
        yield Path(copy.name)


def _encoding(head: bytes) -> str:
    """The encoding of an XML file by its first bytes: byte order mark, or its own word, or UTF-8."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith((b"<\0", b"\0<")):
        return "utf-16-le" if head[0] else "utf-16-be"
    stated = XML_ENCODING.match(head.removeprefix(codecs.BOM_UTF8))
    try:
        return codecs.lookup(stated.group(1).decode("ascii")).name if stated else "utf-8"
    except LookupError:
        return "utf-8"


class _Recoded(io.RawIOBase):
    """UTF-8 of a file in another encoding; what cannot be decoded becomes the replacement character."""

    def __init__(self, file: io.BufferedIOBase, encoding: str) -> None:
        self._file, self._ready = file, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what comes next, as UTF-8; the number of bytes, 0 at the end."""
        ended = False
        while not self._ready and not ended:
            block = self._file.read1(READ_BYTES)
            ended = not block
            text = self._decoder.decode(block, final=ended)
            self._ready = text.encode("utf-8", "replace")
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _as_utf8(file: Any) -> io.BufferedIOBase:
    # A second buffer over bz2 or gzip would lose what was unpacked before a file breaks off.
    buffered = file if isinstance(file, io.BufferedIOBase) else io.BufferedReader(file)
    encoding = _encoding(buffered.peek(1024)[:1024])  # type: ignore[attr-defined]
    return buffered if encoding in ("utf-8", "ascii") else io.BufferedReader(_Recoded(buffered, encoding))
