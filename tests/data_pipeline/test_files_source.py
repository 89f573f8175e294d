"""JSON lines, Parquet, Arrow and text files; and how input files are found."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.config import SourceConfig
from data_pipeline.errors import InputError
from data_pipeline.shards import file_sha256
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


@pytest.mark.parametrize(
    ("name", "places"), [("a.jsonl", ["@0", "@44"]), ("a.parquet", ["#1", "#2"]), ("a.arrow", ["#1", "#2"])]
)
def test_without_a_uri_column_the_place_identifies_a_document(
    tmp_path: Path, name: str, places: list[str]
) -> None:
    source = SourceConfig(name="mine", paths=["x"], text_column="body")
    records = read_records(source, _write(tmp_path / name))
    assert [record.uri for record in records] == [name + place for place in places]


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
    content = path.read_bytes()
    assert [record.reason or record.content for record in records] == [
        "good", "bad_json", "bad_json", "no_text_field", "no_text_field", "bad_json", "last",
    ]  # fmt: skip
    places = [int(record.uri.partition("@")[2]) for record in records]
    ends = [content.index(b"\n", place) if b"\n" in content[place:] else len(content) for place in places]
    found = [
        content[place:end].decode("utf-8", "surrogateescape") for place, end in zip(places, ends, strict=True)
    ]
    assert found == [line for line in lines if line]


def test_a_json_array_gives_its_rows(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": 2}, "three", {"text": "four"}]
    (tmp_path / "a.json").write_text(" \n" + json.dumps(rows, indent=1))
    with lzma.open(tmp_path / "b.json.xz", "wt") as file:
        json.dump(rows, file)
    (tmp_path / "cut.json").write_text(json.dumps(rows)[:-5])
    source = SourceConfig(name="m", paths=["x"])
    for name in ("a.json", "b.json.xz"):
        records = list(read_records(source, tmp_path / name))
        assert [(record.uri, record.content, record.reason) for record in records] == [
            (f"{name}#1", "one", ""),
            (f"{name}#2", "", "no_text_field"),
            (f"{name}#3", "", "no_text_field"),
            (f"{name}#4", "four", ""),
        ]
    assert [record.reason for record in read_records(source, tmp_path / "cut.json")] == ["bad_json"]


def test_csv_rows_keep_line_breaks_within_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffid,text\nu1,"two\nlines"\nu2,"a ""word"""\n', encoding="utf-8")
    with bz2.open(tmp_path / "b.tsv.bz2", "wt") as file:
        file.write("id\ttext\nu3\ttabbed, with comma\n")
    source = SourceConfig(name="m", paths=["x"], uri_column="id")
    (first, second), (third,) = (
        list(read_records(source, tmp_path / name)) for name in ("a.csv", "b.tsv.bz2")
    )
    assert (first.uri, first.content) == ("u1", "two\nlines")
    assert (second.uri, second.content) == ("u2", 'a "word"')
    assert (third.uri, third.content) == ("u3", "tabbed, with comma")


def test_an_arrow_stream_as_hugging_face_keeps_it_is_read(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["one", "two"], "meta": [{"url": "u1"}, {"url": "u2"}], "when": ["2020", "2021"]}
    )
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    source = SourceConfig(
        name="m", paths=[str(tmp_path)], uri_column="meta.url", date_column="when", metadata_columns=["when"]
    )
    assert list_files(source) == [path]
    assert [
        (record.uri, record.content, record.date, dict(record.metadata))
        for record in read_records(source, path)
    ] == [
        ("u1", "one", "2020", {"when": "2020"}),
        ("u2", "two", "2021", {"when": "2021"}),
    ]


@pytest.fixture
def http_folder(tmp_path: Path) -> Iterator[str]:
    """The URL at which a server shows the test's folder, ranges included."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_behind_a_uri_is_read_like_a_local_one(tmp_path: Path, http_folder: str) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow"):
        local = _write(tmp_path / name)
        (remote,) = list_files(replace(SOURCE, paths=[f"{http_folder}/{name}"]))
        assert list(read_records(SOURCE, remote)) == list(read_records(SOURCE, local))
        assert file_sha256(remote) == file_sha256(local)


def test_a_uri_that_gives_nothing_is_one_clear_line(http_folder: str) -> None:
    for place in (f"{http_folder}/absent.jsonl", "nosuchscheme://x/a.jsonl"):
        with pytest.raises(InputError, match=r"source mine: .*(does not exist|cannot be listed)"):
            list_files(replace(SOURCE, paths=[place]))


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
    assert _listed("books", folder) == ["d.html", "e.txt"]
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
        ("web", "**.warc", ["**.warc", "cannot be listed"]),
        ("wiki", "deep", ["no file for kind wiki", "deep", "*.xml"]),
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
