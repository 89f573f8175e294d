"""JSON lines, Parquet, Arrow and text files; and how input files are found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.config import SourceConfig
from data_pipeline.errors import InputError
from data_pipeline.sources import list_files, read_records
from data_pipeline.staging import guarded

ROWS = [{"body": "first", "id": "u1", "name": "T1"}, {"body": "second", "id": "u2", "name": "T2"}]
SOURCE = SourceConfig(
    name="mine", kind="files", paths=["x"], text_column="body", uri_column="id", title_column="name"
)


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


LINES = "\n".join(json.dumps(row) for row in ROWS).encode() + b"\n"


def _write(path: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    else:
        pack: dict[str, Any] = {".gz": gzip.compress, ".zst": zstd}
        path.write_bytes(pack.get(path.suffix, bytes)(LINES))
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.ndjson", "a.parquet", "a.arrow", "A.JSONL"]
)
def test_rows_become_documents_with_uri_and_title(tmp_path: Path, name: str) -> None:
    records = list(read_records(SOURCE, _write(tmp_path / name)))
    assert [(record.content, record.uri, record.title) for record in records] == [
        ("first", "u1", "T1"),
        ("second", "u2", "T2"),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_without_a_uri_column_the_row_number_identifies_a_document(tmp_path: Path, name: str) -> None:
    source = SourceConfig(name="mine", paths=["x"], text_column="body")
    assert [record.uri for record in read_records(source, _write(tmp_path / name))] == [
        f"{name}#1",
        f"{name}#2",
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_rows_without_the_text_column_give_a_reason(tmp_path: Path, name: str) -> None:
    source = SourceConfig(name="mine", paths=["x"], text_column="absent")
    records = list(read_records(source, _write(tmp_path / name)))
    assert [(record.reason, record.content) for record in records] == [("no_text_field", "")] * 2


def test_a_bad_line_gives_a_reason_and_the_lines_after_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        '{"text": "good"}', '{"text": "cut', "", "[" * 200_000, '["no object"]', '{"text": 5}', "\udcff", '{"text": "last"}'
    ]  # fmt: skip
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    records = list(read_records(SourceConfig(name="m", paths=["x"]), path))
    assert [(record.uri.partition("#")[2], record.reason or record.content) for record in records] == [
        ("1", "good"), ("2", "bad_json"), ("4", "bad_json"), ("5", "no_text_field"), ("6", "no_text_field"),
        ("7", "bad_json"), ("8", "last"),
    ]  # fmt: skip


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "c.txt").write_bytes(b"\0\1\2")
    source = SourceConfig(name="m", paths=["x"])
    (a,), (b,), (c,) = (
        list(read_records(source, tmp_path / name)) for name in ("a.txt", "b.txt.gz", "c.txt")
    )
    assert (a.content, b.content, c.reason) == ("café", "packed", "not_text")


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)])
def test_a_compressed_file_that_breaks_off_gives_its_good_rows_and_then_damaged(
    tmp_path: Path, name: str, pack: Any
) -> None:
    raw = "".join(json.dumps({"text": f"row {i} {hash((i, 1))}"}) + "\n" for i in range(20_000)).encode()
    packed = pack(raw)
    (tmp_path / name).write_bytes(packed[: len(packed) * 3 // 4])
    errors: list[str] = []
    source = SourceConfig(name="m", paths=["x"])
    records = list(guarded(read_records(source, tmp_path / name), errors))
    assert records[-1].reason == "damaged_file"
    assert len(errors) == 1
    assert len(records) > 1000
    assert all(record.content.startswith("row") for record in records[:-2])


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_file_that_is_damaged_says_so(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    errors: list[str] = []
    records = list(guarded(read_records(SOURCE, path), errors))
    assert [record.reason for record in records] == ["damaged_file"]
    assert errors


# ------------------------------------------------------------------------------------------------ finding files


def _listed(kind: str, *paths: Path | str) -> list[str]:
    return [
        file.name
        for file in list_files(SourceConfig(name="s", kind=kind, paths=[str(path) for path in paths]))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in (
        *("b.warc.gz", "a.warc", "deep/c.arc.gz", "deep/er/d.html", "x.warc.gz.part", ".hidden.warc"),
        *("e.txt", "deep/f.jsonl", "g.xml.bz2", "h.pdf"),
    ):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_is_searched_to_the_bottom_for_its_kind(folder: Path) -> None:
    assert sorted(_listed("web", folder)) == ["a.warc", "b.warc.gz", "c.arc.gz", "d.html"]
    assert _listed("books", folder) == ["e.txt"]
    assert _listed("wiki", folder) == ["g.xml.bz2"]
    assert sorted(_listed("files", folder)) == ["e.txt", "f.jsonl"]


def test_an_archive_that_a_crawl_still_writes_is_not_listed(folder: Path) -> None:
    assert "x.warc.gz.part" not in _listed("web", folder)


def test_globs_and_single_files_are_listed_once_and_sorted(folder: Path) -> None:
    assert _listed("web", folder / "?.warc*z", folder / "b.warc.gz", folder / "a.warc") == [
        "a.warc",
        "b.warc.gz",
    ]
    assert _listed("web", folder / "**" / "*.html") == ["d.html"]


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("web", "nowhere", ["nowhere", "does not exist", "give a file, a folder or a glob"]),
        ("web", "*.nothing", ["*.nothing", "matches no file"]),
        ("web", "**.warc", ["**.warc", "no glob"]),
        ("wiki", "deep", ["no file for kind wiki", "deep", "*.xml.bz2"]),
    ],
)
def test_what_cannot_be_listed_is_one_line_that_names_field_and_mend(
    folder: Path, kind: str, given: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        _listed(kind, folder / given)
    message = str(error.value)
    assert "\n" not in message
    for word in ["source s", *words]:
        assert word in message
