"""Packed JSON lines: read in spans from any members on, the records are those of the file read whole."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipeline.config import SourceConfig
from data_pipeline.sources import WHOLE, Record, Span, files, packed, read_records, spans_between, split_file
from data_pipeline.sources.packed import Unpacked, codec_of, member_starts, zstd
from data_pipeline.staging import guarded
from tests.data_pipeline.made_inputs import prose

FILES = SourceConfig(name="mine", kind="files", paths=["x"])
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd.compress,
    ".xz": lzma.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".zst": zstd.decompress,
    ".xz": lzma.decompress,
}
LINES = [json.dumps({"text": prose(number, 20)}) for number in range(400)]


def cut(content: bytes, at: list[int]) -> list[bytes]:
    """The content in pieces; equal places give empty ones."""
    edges = [0, *sorted(place % (len(content) + 1) for place in at), len(content)]
    return [content[start:stop] for start, stop in itertools.pairwise(edges)]


def expected(pieces: list[bytes], codec: str, name: str) -> list[Record]:
    """What a file of these members holds, by the simplest way there is."""
    members, position, offset = [], 0, 0
    for piece in pieces:
        members.append((position, offset))
        position += len(piece)
        offset += len(PACK[codec](piece))
    records, position = [], 0
    for line in b"".join(pieces).split(b"\n"):
        begin, offset = max(member for member in members if member[0] <= position)
        if line.strip():
            place = f"{name}@{offset}+{position - begin}" if offset else f"{name}@{position - begin}"
            records.append(Record(place, json.loads(line)["text"]))
        position += len(line) + 1
    return records


def read_in_spans(path: Path, spans: list[Span]) -> list[Record]:
    return [record for span in spans for record in read_records(FILES, path, span)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.sampled_from(["", "a", "b" * 40, "ü" * 200]), max_size=12),
    ends=st.booleans(),
    at=st.lists(st.integers(0, 3000), max_size=6),
    chosen=st.lists(st.booleans(), min_size=7, max_size=7),
    codec=st.sampled_from([".gz", ".bz2", ".zst"]),
)
@example(lines=["a", "a", "a"], ends=True, at=[12, 12, 24], chosen=[True] * 7, codec=".gz")
@example(lines=["b" * 40], ends=False, at=[5, 6, 7, 8], chosen=[True] * 7, codec=".zst")
def test_any_spans_of_any_members_give_the_records_of_the_whole(
    folder: Path, lines: list[str], ends: bool, at: list[int], chosen: list[bool], codec: str
) -> None:
    rows = "\n".join(json.dumps({"text": line}, ensure_ascii=False) if line else "" for line in lines)
    pieces = cut((rows + "\n" * ends).encode(), at)
    path = folder / f"a.jsonl{codec}"
    path.write_bytes(b"".join(PACK[codec](piece) for piece in pieces))
    starts = itertools.accumulate(len(PACK[codec](piece)) for piece in pieces[:-1])
    cuts = [start for start, is_cut in zip(starts, chosen, strict=False) if is_cut]
    records = read_in_spans(path, spans_between(cuts))
    assert records == read_in_spans(path, [WHOLE]) == expected(pieces, codec, path.name)


@pytest.mark.parametrize("codec", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("at_lines", [True, False])
@pytest.mark.parametrize("span_bytes", [1, 2_000, 15_000])
def test_a_large_packed_file_is_split_where_members_begin(
    tmp_path: Path, codec: str, at_lines: bool, span_bytes: int
) -> None:
    content = "".join(line + "\n" for line in LINES).encode()
    every = 10 * len(LINES[0])
    pieces = (
        ["".join(line + "\n" for line in LINES[i : i + 10]).encode() for i in range(0, 400, 10)]
        if at_lines
        else cut(content, list(range(every, len(content), every)))
    )
    path = tmp_path / f"a.jsonl{codec}"
    path.write_bytes(b"".join(map(PACK[codec], pieces)))
    spans = split_file(FILES, path, span_bytes)
    starts = list(itertools.accumulate(len(PACK[codec](piece)) for piece in pieces[:-1]))
    assert [span.start for span in spans[1:]] == sorted(
        {
            min(start for start in starts if start >= wanted)
            for wanted in range(span_bytes, path.stat().st_size, span_bytes)
            if wanted <= starts[-1]
        }
    )
    assert len(spans) > 1
    records = read_in_spans(path, spans)
    assert records == read_in_spans(path, [WHOLE]) == expected(pieces, codec, path.name)
    assert len(records) == len(LINES)


@pytest.mark.parametrize("codec", list(PACK))
def test_a_file_of_one_member_is_read_in_one_go(tmp_path: Path, codec: str) -> None:
    path = tmp_path / f"a.jsonl{codec}"
    path.write_bytes(PACK[codec]("\n".join(LINES).encode()))
    assert split_file(FILES, path, 1_000) == [WHOLE]
    assert [record.uri for record in read_in_spans(path, [WHOLE])][:2] == [
        f"{path.name}@0",
        f"{path.name}@{len(LINES[0]) + 1}",
    ]


def test_an_array_of_rows_is_never_split(tmp_path: Path) -> None:
    rows = json.dumps([json.loads(line) for line in LINES]).encode()
    for name, content in (
        ("a.jsonl", rows),
        (
            "a.jsonl.gz",
            b"".join(gzip.compress(piece) for piece in cut(rows, list(range(0, len(rows), 5000)))),
        ),
    ):
        (tmp_path / name).write_bytes(content)
        assert split_file(FILES, tmp_path / name, 1_000) == [WHOLE]
        assert len(read_in_spans(tmp_path / name, [WHOLE])) == len(LINES)


def test_members_with_padding_headers_and_skippable_frames_between_are_found(tmp_path: Path) -> None:
    def bgzip(piece: bytes) -> bytes:
        """A member as bgzip writes it, with its size in a field of the header."""
        body = zlib.compress(piece, wbits=-15)
        size = (18 + len(body) + 8 - 1).to_bytes(2, "little")
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + size
        return head + body + zlib.crc32(piece).to_bytes(4, "little") + len(piece).to_bytes(4, "little")

    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    pieces = cut("".join(line + "\n" for line in LINES).encode(), list(range(3000, 30_000, 3000)))
    for name, content in (
        ("b.jsonl.gz", b"".join(map(bgzip, pieces)) + bgzip(b"")),
        ("c.jsonl.gz", b"".join(gzip.compress(piece) + b"\0" * 600 for piece in pieces)),
        ("d.jsonl.zst", b"".join(skippable + zstd.compress(piece) for piece in pieces)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        spans = split_file(FILES, path, 2000)
        assert len(spans) > 3, name
        records = read_in_spans(path, spans)
        assert records == read_in_spans(path, [WHOLE]), name
        assert [record.content for record in records] == [json.loads(line)["text"] for line in LINES], name


@pytest.mark.parametrize("codec", list(PACK))
def test_what_is_unpacked_is_what_the_standard_library_unpacks(codec: str) -> None:
    rng = random.Random(1)
    for _ in range(20):
        pieces = [
            rng.randbytes(rng.randrange(2000)) * rng.randrange(1, 400) for _ in range(rng.randrange(1, 5))
        ]
        content = b"".join(map(PACK[codec], pieces))
        stream = io.BufferedReader(Unpacked(io.BytesIO(content), codec, WHOLE), 1 << 15)
        assert stream.read() == b"".join(pieces) == UNPACK[codec](content)


def test_the_mark_of_a_bz2_stream_counts_only_behind_the_end_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "BLOCK_BYTES", 1000)  # marks fall across blocks
    first = bz2.compress(random.Random(1).randbytes(5000))
    second, third = bz2.compress(b"second " * 900), bz2.compress(b"third")
    fake = b"BZh91AY&SY"
    content = first[:-20] + fake + first[-20:] + second + third
    wanted = range(1, len(content))
    found = list(member_starts(io.BytesIO(content), ".bz2", wanted))
    begins = len(first) + len(fake)
    assert found == [begins, begins + len(second)]


@pytest.mark.parametrize("codec", [".gz", ".zst", ".bz2"])
def test_a_file_that_breaks_off_or_holds_rubbish_gives_its_good_lines_first(
    tmp_path: Path, codec: str
) -> None:
    content = b"".join(PACK[codec]((line + "\n").encode()) for line in LINES)
    for number, damaged in enumerate((content[:-30], content + b"rubbish at the end")):
        path = tmp_path / f"{number}.jsonl{codec}"
        path.write_bytes(damaged)
        errors: list[str] = []
        *good, last = guarded(read_records(FILES, path), errors)
        assert last.reason == "damaged_file"
        assert errors
        assert [record.content for record in good] == [
            json.loads(line)["text"] for line in LINES[: len(LINES) - (number == 0)]
        ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_that_nobody_wrote_is_one_reason_wherever_spans_are_cut(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1_000)
    rows = [LINES[0], '{"text": "' + "x" * 50_000 + '"}', LINES[1], "y" * 999, LINES[2]]
    content = "\n".join(rows).encode()
    path = tmp_path / name
    pieces = cut(content, list(range(0, len(content), 700)))
    path.write_bytes(content if name == "a.jsonl" else b"".join(map(gzip.compress, pieces)))
    whole = read_in_spans(path, [WHOLE])
    assert [record.reason for record in whole] == ["", "too_large", "", "bad_json", ""]
    for span_bytes in (1, 500, 2_000):
        assert read_in_spans(path, split_file(FILES, path, span_bytes)) == whole


def test_the_codec_is_told_by_the_ending() -> None:
    assert [codec_of(name) for name in ("a.jsonl", "A.JSONL.GZ", "b.zst", "c.gz.txt")] == [
        "",
        ".gz",
        ".zst",
        "",
    ]
