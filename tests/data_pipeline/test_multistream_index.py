"""Multistream dumps are cut by the index beside them, as far as that is true of the dump."""

from __future__ import annotations

import bz2
import itertools
from pathlib import Path

import pytest

from data_pipeline.config import SourceConfig
from data_pipeline.sources import Record, Span, list_files, mediawiki
from tests.data_pipeline.made_inputs import dump, prose


def read_in_spans(path: Path, spans: list[Span]) -> list[Record]:
    return [record for span in spans for record in mediawiki.read(path, span)]


def indexed(folder: Path) -> tuple[Path, list[str]]:
    """A multistream dump in which streams cannot be found from within, and the lines of its index.

    Each group of pages goes on over more streams than are looked at for one cut.
    """
    head, *pages = dump((f"P {i}", f"{i} " + prose(i, 120)) for i in range(60)).split("<page>")
    pages[-1], tail = pages[-1].split("</mediawiki>")
    pages = [
        f"<page>{page}".replace("<ns>0</ns>", f"<ns>0</ns><id>{i + 7}</id>") for i, page in enumerate(pages)
    ]
    content, lines = bz2.compress(head.encode()), []
    for start in range(0, len(pages), 3):
        lines += [f"{len(content)}:{i + 7}:P {i}\n" for i in range(start, start + 3)]
        group = "".join(pages[start : start + 3]).encode()
        edges = [0, 300, 350, 400, 450, 500, 550, 600, len(group)]
        content += b"".join(bz2.compress(group[a:b]) for a, b in itertools.pairwise(edges))
    path = folder / "d-pages-articles-multistream.xml.bz2"
    path.write_bytes(content + bz2.compress(f"</mediawiki>{tail}".encode()))
    return path, lines


INDEX = "d-pages-articles-multistream-index.txt"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("span_bytes", [1, 2_000])
def test_a_multistream_dump_is_cut_by_its_index(tmp_path: Path, packed: bool, span_bytes: int) -> None:
    path, lines = indexed(tmp_path)
    index = "".join(lines).encode()
    without = mediawiki.split(path, span_bytes)
    (tmp_path / f"{INDEX}{'.bz2' if packed else ''}").write_bytes(bz2.compress(index) if packed else index)
    whole = list(mediawiki.read(path))
    assert len(whole) == 60
    spans = mediawiki.split(path, span_bytes)
    records = read_in_spans(path, spans)
    assert records == whole
    starts = {int(line.split(":")[0]) for line in lines}
    assert {span.start for span in spans} <= starts | {0}
    assert len(without) < 5 < len(spans)
    assert len(spans) >= min(20, path.stat().st_size // (2 * span_bytes))


def test_a_part_of_a_dump_has_an_index_of_its_own(tmp_path: Path) -> None:
    path, lines = indexed(tmp_path)
    part = path.rename(tmp_path / "d-pages-articles-multistream3.xml-p10p70.bz2")
    index = tmp_path / "d-pages-articles-multistream-index3.txt-p10p70.bz2"
    index.write_bytes(bz2.compress("".join(lines).encode()))
    assert len(mediawiki.split(part, 2_000)) > 3
    source = SourceConfig(name="wiki", kind="wiki", paths=[str(tmp_path)])
    assert list_files(source) == [part]


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "of an older dump",
        "of another dump with streams at the same places",
        "breaks off",
        "no index",
        "goes back",
        "empty",
        "offsets beyond the file",
    ],
)
def test_an_index_that_does_not_agree_with_its_dump_is_not_followed(tmp_path: Path, damage: str) -> None:
    path, lines = indexed(tmp_path)
    # Another dump of the same pages, which can be searched.
    path.write_bytes(b"".join(groups_of(path)))
    whole = list(mediawiki.read(path))
    without = mediawiki.split(path, 2_000)
    assert len(without) > 3
    starts = [int(line.split(":")[0]) for line in lines]
    index = {
        "missing": None,
        "of an older dump": [f"{start + 5}:{i}:x\n" for i, start in enumerate(starts)],
        "of another dump with streams at the same places": [f"{span.start}:3:x\n" for span in without[1:]],
        "breaks off": None,
        "no index": ["<html>404</html>\n"],
        "goes back": [f"{without[2].start}:{first_page(path, without[2])}:x\n", f"{without[1].start}:9:x\n"],
        "empty": [],
        "offsets beyond the file": [f"{path.stat().st_size + 100}:9:x\n"],
    }[damage]
    packed = bz2.compress("".join(index or lines).encode())
    if damage != "missing":
        (tmp_path / f"{INDEX}.bz2").write_bytes(packed[:-9] if damage == "breaks off" else packed)
    assert mediawiki.split(path, 2_000) == without
    assert read_in_spans(path, without) == whole


def groups_of(path: Path) -> list[bytes]:
    """The streams of a dump, packed anew so that each but the first and the last begins with a page."""
    head, *groups = bz2.decompress(path.read_bytes()).split(b"<page>")
    groups[-1], tail = groups[-1].split(b"</mediawiki>")
    return [
        bz2.compress(part)
        for part in (head, *(b"<page>" + group for group in groups), b"</mediawiki>" + tail)
    ]


def first_page(path: Path, span: Span) -> str:
    (record, *_) = mediawiki.read(path, span)
    return record.metadata["page_id"]


def test_an_index_that_ends_early_serves_as_far_as_it_goes(tmp_path: Path) -> None:
    path, lines = indexed(tmp_path)
    (tmp_path / INDEX).write_text("".join(lines[:30]))
    spans = mediawiki.split(path, 2_000)
    assert len(spans) > 3
    assert read_in_spans(path, spans) == list(mediawiki.read(path))
