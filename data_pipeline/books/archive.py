"""Read zip archives that anyone may have made: bounded in members, in bytes, and in what a member may unpack to."""

from __future__ import annotations

import zipfile
import zlib
from typing import IO

NUM_MEMBERS = 200_000
MEMBER_BYTES = 64 << 20
# Text packs to a third, the best case to a twentieth; a bomb to a thousandth.
TOTAL_RATIO, TOTAL_FLOOR = 100, 256 << 20


class ArchiveError(ValueError):
    """An archive or member that is not read; `reason` is one of bad_zip, zip_bomb, encrypted, too_large, missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Archive:
    """A zip archive, its members read whole and one at a time; nothing is ever unpacked to a disk."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Open an archive.

        Args:
            file: the open archive, which can seek.
            size: its size in bytes.

        Raises:
            ArchiveError: bad_zip or zip_bomb.
        """
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, RecursionError):
            raise ArchiveError("bad_zip") from None
        members = self._zip.infolist()
        if len(members) > NUM_MEMBERS:
            raise ArchiveError("zip_bomb")
        self._members = {member.filename: member for member in members if not member.is_dir()}
        self._bytes_left = max(TOTAL_FLOOR, TOTAL_RATIO * size)

    def names(self) -> list[str]:
        """The members' names as the archive states them: text to compare, never a path to open."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """One member's bytes.

        Raises:
            ArchiveError: missing, encrypted, too_large (the member), zip_bomb (the whole) or bad_zip.
        """
        member = self._members.get(name)
        if member is None:
            raise ArchiveError("missing")
        if member.flag_bits & 0x1:
            raise ArchiveError("encrypted")
        try:
            with self._zip.open(member) as file:
                # The stated size may lie, so the limit is on what comes out.
                data = file.read(MEMBER_BYTES + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
            OSError,
        ):
            raise ArchiveError("bad_zip") from None
        if len(data) > MEMBER_BYTES:
            raise ArchiveError("zip_bomb" if len(data) > 1000 * max(1, member.compress_size) else "too_large")
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise ArchiveError("zip_bomb")
        return data
