"""The index beside a multistream dump: a line a page, with the offset of the bz2 stream that it is in, and its number.

...-pages-articles-multistream.xml.bz2 has ...-pages-articles-multistream-index.txt.bz2,
...-multistream1.xml-p1p41242.bz2 has ...-multistream-index1.txt-p1p41242.bz2
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.sources import WHOLE, open_file
from data_pipeline.sources.packed import codec_of, entered

MULTISTREAM = re.compile(r"(.+-multistream)(\d*)\.xml(-p\d+p\d+)?\.bz2")
LINE = re.compile(rb"([0-9]{1,18}):([0-9]{1,18}):[^\n]*\n?")
# Titles have 255 bytes at most.
MAX_LINE_BYTES = 1024


def index_of(path: Path) -> Path | None:
    """Where the index of a dump would be, packed or not; None for a file that is no multistream dump by its name."""
    named = MULTISTREAM.fullmatch(path.name)
    if named is None:
        return None
    stem, number, part = named.groups(default="")
    names = [f"{stem}-index{number}.txt{part}{packed}" for packed in (".bz2", "")]
    return next((index for name in names if (index := path.with_name(name)).exists()), None)


def streams(index: Path) -> Iterator[tuple[int, int]]:
    """(Offset of a stream, number of its first page), ascending by offset.

    Raises:
        ValueError, OSError, EOFError: what is there is no index, or a damaged one.
    """
    with open_file(index) as file:
        lines, _ = entered(file, codec_of(index.name), WHOLE)
        last = -1
        while line := lines.readline(MAX_LINE_BYTES):
            found = LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"{index.name} is no index: {line[:80]!r}")
            offset = int(found.group(1))
            if offset < last:
                raise ValueError(f"{index.name} goes back from {last} to {offset}")
            if offset > last:
                yield offset, int(found.group(2))
                last = offset
