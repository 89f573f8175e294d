"""Large files are read in spans: where they are cut changes neither the records nor their order."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import staging
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from data_pipeline.sources import WHOLE, Record, Span, read_records, split_file
from data_pipeline.sources.packed import zstd
from tests.data_pipeline.made_inputs import HTML, page, prose, warc_records, write_warc

FILES = SourceConfig(name="mine", kind="files", paths=["x"])
WEB = SourceConfig(name="web", kind="web", paths=["x"])


def read_in_spans(source: SourceConfig, path: Path, spans: list[Span]) -> list[Record]:
    return [record for span in spans for record in read_records(source, path, span)]


def warc(path: Path, compressed: bool = True) -> Path:
    responses = [
        (
            f"http://a.test/{i}",
            "404 Gone" if i % 7 == 3 else "200 OK",
            HTML,
            page(prose(i, 20 + 60 * (i % 5))),
        )
        for i in range(40)
    ]
    return write_warc(path, responses, gzip=compressed)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("span_bytes", [1, 1_000, 5_000, 30_000])
def test_an_archive_read_in_spans_gives_the_same_records(
    tmp_path: Path, compressed: bool, span_bytes: int
) -> None:
    path = warc(tmp_path / ("a.warc.gz" if compressed else "a.warc"), compressed)
    spans = split_file(WEB, path, span_bytes)
    assert (len(spans) > 1) == (path.stat().st_size > span_bytes)
    assert read_in_spans(WEB, path, spans) == read_in_spans(WEB, path, [WHOLE])


def dictionary_frame(content: bytes) -> bytes:
    """A dictionary as the WARC format for zstd puts it before the records."""
    return b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("packing", ["zst", "lz4", "zst with a dictionary", "zst with a packed dictionary"])
@pytest.mark.parametrize("span_bytes", [1, 3_000])
def test_an_archive_packed_by_record_gives_the_same_records_in_spans(
    tmp_path: Path, packing: str, span_bytes: int
) -> None:
    plain = warc(tmp_path / "a.warc", compressed=False)
    records = warc_records(plain)
    path = tmp_path / f"b.warc.{packing[:3]}"
    if packing == "lz4":
        path.write_bytes(b"".join(pa.compress(record, "lz4", asbytes=True) for record in records))
    else:
        known = zstd.train_dict(records * 5, 1 << 14)
        head = {
            "zst": b"",
            "zst with a dictionary": dictionary_frame(known.dict_content),
            "zst with a packed dictionary": dictionary_frame(zstd.compress(known.dict_content)),
        }[packing]
        frames = [zstd.compress(record, zstd_dict=known if head else None) for record in records]
        path.write_bytes(head + b"".join(frames))
    spans = split_file(WEB, path, span_bytes)
    assert len(spans) > 3
    assert read_in_spans(WEB, path, spans) == read_in_spans(WEB, path, [WHOLE])
    assert read_in_spans(WEB, path, [WHOLE]) == read_in_spans(WEB, plain, [WHOLE])


@pytest.mark.parametrize("span_bytes", [1, 2_000])
def test_an_arc_packed_by_record_gives_the_same_records_in_spans(tmp_path: Path, span_bytes: int) -> None:
    head = b"1 0 Tests\nURL IP-address Archive-date Content-type Archive-length\n\n"
    records = [b"filedesc://a.arc 0.0.0.0 20200102030405 text/plain %d\n" % len(head) + head]
    for number in range(30):
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page(prose(number, 60))
        line = f"http://a.test/{number} 127.0.0.1 20200102030405 text/html {len(body)}\n"
        records.append(line.encode() + body + b"\n")
    path = tmp_path / "a.arc.gz"
    path.write_bytes(b"".join(map(gzip.compress, records)))
    spans = split_file(WEB, path, span_bytes)
    assert len(spans) > 3
    assert [record.uri for record in read_in_spans(WEB, path, spans)] == [
        f"http://a.test/{i}" for i in range(30)
    ]
    assert read_in_spans(WEB, path, spans) == read_in_spans(WEB, path, [WHOLE])
    # Not by record: as it always was.
    path.write_bytes(gzip.compress(b"".join(records)))
    assert split_file(WEB, path, span_bytes) == [WHOLE]


def test_real_arcs_and_the_real_lz4_archive_give_the_same_records_in_spans(shared_data: Path) -> None:
    for pattern, several in (("*.arc.gz", 2), ("*.lz4", 1)):
        paths = sorted((shared_data / "web" / "warc").glob(pattern))
        assert len(paths) == several
        for path in paths:
            spans = split_file(WEB, path, path.stat().st_size // 20)
            assert len(spans) > 3, path.name
            assert read_in_spans(WEB, path, spans) == read_in_spans(WEB, path, [WHOLE]), path.name


@pytest.mark.parametrize("packing", ["gz", "zst", "lz4"])
def test_an_archive_packed_as_one_member_is_read_in_one_go(tmp_path: Path, packing: str) -> None:
    plain = warc(tmp_path / "a.warc", compressed=False)
    codec = {"gz": "gzip", "zst": "zstd", "lz4": "lz4"}[packing]
    path = tmp_path / f"b.warc.{packing}"
    path.write_bytes(pa.compress(plain.read_bytes(), codec, asbytes=True))
    assert split_file(WEB, path, 1_000) == [WHOLE]


@pytest.mark.parametrize("first", [2, 1])
def test_an_archive_with_several_records_to_a_member_is_read_in_one_go(tmp_path: Path, first: int) -> None:
    records = warc_records(warc(tmp_path / "a.warc", compressed=False))
    groups = [records[:first], *(records[i : i + 2] for i in range(first, len(records), 2))]
    path = tmp_path / "b.warc.gz"
    path.write_bytes(b"".join(gzip.compress(b"".join(group)) for group in groups))
    spans = split_file(WEB, path, 1)
    assert read_in_spans(WEB, path, spans) == read_in_spans(WEB, tmp_path / "a.warc", [WHOLE])


def test_an_archive_within_an_archive_is_no_place_to_cut(tmp_path: Path) -> None:
    inner = warc(tmp_path / "inner.warc.gz").read_bytes()
    responses = [("http://a.test/dump", "200 OK", [("Content-Type", "application/gzip")], inner)]
    responses += [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 40))) for i in range(3)]
    path = write_warc(tmp_path / "outer.warc.gz", responses)
    records = read_in_spans(WEB, path, split_file(WEB, path, 500))
    assert [record.uri for record in records] == [
        "http://a.test/dump",
        *(f"http://a.test/{i}" for i in range(3)),
    ]


def test_a_damaged_archive_is_read_in_one_go(tmp_path: Path) -> None:
    path = warc(tmp_path / "a.warc.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:20] = bytes(20)
    path.write_bytes(
        bytes(content[: len(content) // 2]) + bytes(20) + bytes(content[len(content) // 2 + 20 :])
    )
    assert split_file(WEB, path, 1_000) == [WHOLE]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=40), max_size=12),
    span_bytes=st.integers(1, 200),
    ends_with_a_line=st.booleans(),
)
def test_json_lines_read_in_spans_give_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], span_bytes: int, ends_with_a_line: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path.write_text(content + "\n" * ends_with_a_line, encoding="utf-8")
    spans = split_file(FILES, path, span_bytes)
    records = read_in_spans(FILES, path, spans)
    assert records == read_in_spans(FILES, path, [WHOLE])
    assert [record.content for record in records] == texts


@pytest.mark.parametrize("span_bytes", [1, 3_000, 20_000])
def test_parquet_read_in_spans_gives_the_same_records(tmp_path: Path, span_bytes: int) -> None:
    table = pa.table({"text": [prose(i, 30) for i in range(200)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=17)
    spans = split_file(FILES, tmp_path / "a.parquet", span_bytes)
    assert len(spans) > 1
    records = read_in_spans(FILES, tmp_path / "a.parquet", spans)
    assert records == read_in_spans(FILES, tmp_path / "a.parquet", [WHOLE])
    assert [record.uri for record in records] == [f"a.parquet#{i}" for i in range(1, 201)]


def test_the_size_of_the_tasks_changes_nothing_in_the_corpus(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MIN_SPAN_BYTES", 1_000)
    warc(tmp_path / "a.warc.gz")
    rows = "\n".join(json.dumps({"text": prose(100 + i, 60)}) for i in range(50))
    (tmp_path / "b.jsonl").write_text(rows)
    config = RefreshConfig(
        sources=[
            replace(WEB, paths=[str(tmp_path / "a.warc.gz")]),
            replace(FILES, paths=[str(tmp_path / "b.jsonl")]),
        ]
    )
    found = []
    for unit_bytes in (2_000, 1 << 30):
        corpus = Corpus(tmp_path / f"corpus-{unit_bytes}")
        result = refresh(corpus, replace(config, unit_bytes=unit_bytes), tmp_path)
        tables = {
            name: sorted(corpus.read(name, result.version, columns).to_pylist(), key=str)
            for name, columns in (
                ("documents", ["doc_id", "uri", "input_file", "text"]),
                ("removed", ["doc_id", "uri", "reason"]),
                ("inputs", ["path", "num_documents", "num_kept", "num_removed", "status"]),
            )
        }
        found.append(tables)
    assert found[0] == found[1]
    assert [row["num_documents"] for row in found[0]["inputs"]] == [40, 50]
