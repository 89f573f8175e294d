"""Read Project Gutenberg text files: one file, one book."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.sources import Record

# Legacy encodings of Gutenberg files, tried after UTF-8. CP1252 accepts nearly any bytes, so it comes last.
FALLBACKS = ("gb18030", "big5", "cp1252")
STATED = re.compile(rb"^Character set encoding:[ \t]*([\w-]+)", re.IGNORECASE | re.MULTILINE)


def read(path: Path) -> Iterator[Record]:
    """The book as one record; header, footer and line wrapping are left to extraction."""
    raw = path.read_bytes()
    if not raw.strip():
        yield Record(path.name, reason="empty_file")
        return
    text = decode(raw)
    if text is None:
        yield Record(path.name, reason="not_text")
        return
    yield Record(path.name, text.replace("\r\n", "\n").replace("\r", "\n"), "gutenberg")


def decode(raw: bytes) -> str | None:
    """Text of a book file, or None for bytes that are no text.

    UTF-8 first; then the character set that the header states; then Western, unless most bytes are high,
    as they are in the Chinese encodings.
    """
    if b"\0" in raw[:65536]:
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    sample = raw[:65536]
    high = sum(byte >= 0x80 for byte in sample) / len(sample)
    stated = STATED.search(sample)
    encodings = FALLBACKS if high > 0.25 else ("cp1252", "latin-1")
    for encoding in (stated.group(1).decode("ascii"), *encodings) if stated else encodings:
        try:
            return raw.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return None
