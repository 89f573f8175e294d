"""Packed files as what they are: gzip members, bz2 or xz streams, zstd frames, one behind the other.

Each of these is a *member* here. A file of several (bgzip, pbzip2, pzstd, files laid end to end) can be entered where
one begins. What lies in a file is told by its place: the member that a byte is in and its number there, which is the
same wherever reading began.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, Protocol

from data_pipeline.sources import Span

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 17
# A bz2 stream begins with its header and the magic of its first block (the digits of pi) ...
BZ2_BEGIN = re.compile(rb"BZh[1-9]1AY&SY")
BZ2_BEGIN_BYTES = 10
# ... and ends, at any bit, with the digits of its root, a checksum of four bytes and the rest of a byte.
BZ2_END, BZ2_END_BITS = 0x177245385090, 48


class Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most that many bytes more."""


class _Gzip:
    """zlib's decompressor, which leaves it to the caller to keep what did not go in."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": _Gzip,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
    ".zst": zstd.ZstdDecompressor,
}


class Plain:
    """What `Unpacked` tells of positions, for a file that is not packed: one member that any byte may be entered at."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def place(self, position: int) -> tuple[int, int]:
        """(0, the byte's number in the file)."""
        return 0, self._span.start + position

    def is_beyond(self, position: int) -> bool:
        """Whether a byte lies behind the span's end."""
        return self._span.stop is not None and self._span.start + position > self._span.stop


def entered(file: BinaryIO, codec: str, span: Span) -> tuple[IO[bytes], Unpacked | Plain]:
    """(The bytes of a file from a span's begin on, what tells where they lie)."""
    if not codec:
        file.seek(span.start)
        return file, Plain(span)
    unpacked = Unpacked(file, codec, span)
    return io.BufferedReader(unpacked, BLOCK_BYTES), unpacked


def codec_of(name: str) -> str:
    """How a file is packed, by the ending of its name: a key of DECOMPRESSORS, or ""."""
    return next((codec for codec in DECOMPRESSORS if name.lower().endswith(codec)), "")


class Unpacked(io.RawIOBase):
    """The bytes of a packed file from the member at a span's begin on, to the file's end.

    A *position* counts the bytes that were given since that begin.

    Attributes:
        members: (position, offset in the packed file) of the members that began, but for those that `place` is past.

    Raises (by reading):
        EOFError: the file breaks off within a member; what was unpacked of it came first.
        OSError, zlib.error, lzma.LZMAError, zstd.ZstdError: it is damaged, or is not packed so.
    """

    def __init__(self, file: BinaryIO, codec: str, span: Span) -> None:
        self._file, self._begin = file, DECOMPRESSORS[codec]
        file.seek(span.start)
        self._stop, self._stop_position = span.stop, -1
        self._offset = span.start
        self._packed = b""
        self._position = 0
        self._member: Decompressor | None = None
        self.members: deque[tuple[int, int]] = deque()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._member is None and not self._next_member():
                return 0
            assert self._member is not None
            at_end = False
            if self._member.needs_input and not self._packed:
                self._packed = self._read()
                at_end = not self._packed
            data, self._packed = self._packed, b""
            block = self._member.decompress(data, len(buffer))
            if self._member.eof:
                self._packed, self._member = self._member.unused_data, None
            elif at_end and not block:
                raise EOFError("the packed file breaks off")
            if block:
                buffer[: len(block)] = block
                self._position += len(block)
                return len(block)

    def _next_member(self) -> bool:
        """Begin the next member, behind what padding there is; False at the file's end."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._read()
            if not self._packed:
                return False
        self._packed = packed
        offset = self._offset - len(packed)
        self._member = self._begin()
        self.members.append((self._position, offset))
        if self._stop is not None and offset >= self._stop and self._stop_position < 0:
            self._stop_position = self._position
        return True

    def _read(self) -> bytes:
        block = self._file.read(BLOCK_BYTES)
        self._offset += len(block)
        return block

    def place(self, position: int) -> tuple[int, int]:
        """(Offset of the member that a byte is in, the byte's number there); positions must not go back."""
        while len(self.members) > 1 and self.members[1][0] <= position:
            self.members.popleft()
        begin, offset = self.members[0]
        return offset, position - begin

    def is_beyond(self, position: int) -> bool:
        """Whether a byte lies behind the first one at or behind the span's end."""
        return 0 <= self._stop_position < position


def member_starts(file: BinaryIO, codec: str, wanted: range) -> Iterator[int]:
    """For each offset wanted, where the first member at it or behind it begins; fewer where there is none.

    gzip and zstd are unpacked from the begin, which is what it takes to know a member from bytes that look like one,
    and cheap beside all that is done with the records. bz2 is many times slower, and its members are told by the end
    of one before the begin of the next, eighteen bytes that no other data has by chance.
    """
    if codec == ".bz2":
        starts: Iterator[int] = _bz2_starts(file, wanted)
    else:
        starts = _all_starts(file, codec)
    last = 0
    following = iter(wanted)
    offset = next(following, None)
    for start in starts:
        if offset is None:
            return
        if start >= offset and start > last:
            yield start
            last = start
            while offset is not None and offset <= start:
                offset = next(following, None)


def _all_starts(file: BinaryIO, codec: str) -> Iterator[int]:
    unpacked = Unpacked(file, codec, Span())
    room = memoryview(bytearray(1 << 20))
    position = 0
    while size := unpacked.readinto(room):
        position += size
        while unpacked.members:
            yield unpacked.members.popleft()[1]


def _bz2_starts(file: BinaryIO, wanted: range) -> Iterator[int]:
    last = 0
    for offset in wanted:
        if offset > last and (start := _bz2_start(file, offset)) is not None:
            yield start
            last = start


def _bz2_start(file: BinaryIO, offset: int) -> int | None:
    overlap = BZ2_BEGIN_BYTES + 11
    at = max(0, offset - 11)
    file.seek(at)
    window = b""
    while block := file.read(BLOCK_BYTES):
        window += block
        for match in BZ2_BEGIN.finditer(window):
            begin = match.start()
            if at + begin >= offset and _ends_bz2(window[max(0, begin - 11) : begin]):
                return at + begin
        at += len(window) - len(window[-overlap:])
        window = window[-overlap:]
    return None


def _ends_bz2(tail: bytes) -> bool:
    """Whether these bytes, the last before some offset, are the end of a bz2 stream, padded to a whole byte."""
    bits = int.from_bytes(tail, "big")
    mask = (1 << BZ2_END_BITS) - 1
    return any((bits >> (32 + padding)) & mask == BZ2_END for padding in range(8))
