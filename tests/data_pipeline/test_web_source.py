"""Web captures become records: a document or a reason, for every capture."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from pathlib import Path

import brotli
import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipeline.html.main_text import main_text
from data_pipeline.sources import Record, web
from data_pipeline.staging import guarded
from tests.data_pipeline.made_inputs import HTML, page, prose, write_warc

TEXT = prose(1, 40)


def records_of(path: Path) -> list[Record]:
    return list(web.read(path))


def one(tmp_path: Path, headers: list[tuple[str, str]], body: bytes, status: str = "200 OK") -> Record:
    (record,) = records_of(write_warc(tmp_path / "one.warc.gz", [("http://a.test/x", status, headers, body)]))
    return record


@pytest.mark.parametrize("compressed", [True, False])
def test_a_response_gives_its_page_uri_and_date(tmp_path: Path, compressed: bool) -> None:
    name = "a.warc.gz" if compressed else "a.warc"
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 40))) for i in range(3)]
    records = records_of(write_warc(tmp_path / name, responses, gzip=compressed))
    assert [record.uri for record in records] == [f"http://a.test/{i}" for i in range(3)]
    assert all(record.format == "html" and not record.reason for record in records)
    assert all(record.date == "2024-05-06T07:08:09Z" for record in records)
    assert all(prose(i, 40) in record.content for i, record in enumerate(records))


@pytest.mark.parametrize(("codec", "suffix"), [("zstd", "zst"), ("lz4", "lz4")])
def test_an_archive_is_read_through_any_compression(tmp_path: Path, codec: str, suffix: str) -> None:
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 40))) for i in range(3)]
    plain = write_warc(tmp_path / "a.warc", responses, gzip=False)
    path = tmp_path / f"b.warc.{suffix}"
    with pa.CompressedOutputStream(str(path), codec) as file:
        file.write(plain.read_bytes())
    assert records_of(path) == records_of(plain)


@pytest.mark.parametrize(
    ("status", "reason"),
    [("404 Not Found", "http_status"), ("500 Oops", "http_status"), ("301 Moved", "redirect")],
)
def test_a_status_that_is_no_success_is_the_reason(tmp_path: Path, status: str, reason: str) -> None:
    record = one(tmp_path, HTML, page(TEXT), status)
    assert (record.reason, record.content, record.uri) == (reason, "", "http://a.test/x")


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ([("Content-Type", "image/png")], b"\x89PNG", "not_text"),
        ([], page(TEXT), "not_text"),
        (HTML, b"", "empty_body"),
        (HTML, b" \n ", "empty_body"),
        (HTML, b"a" * (web.MAX_PAGE_BYTES + 1), "too_large"),
        ([*HTML, ("Content-Encoding", "gzip")], gzip.compress(bytes(web.MAX_PAGE_BYTES + 1)), "too_large"),
        ([*HTML, ("Content-Encoding", "br")], brotli.compress(bytes(web.MAX_PAGE_BYTES + 1)), "too_large"),
    ],
)
def test_a_response_without_a_page_gives_a_reason(
    tmp_path: Path, headers: list[tuple[str, str]], body: bytes, reason: str
) -> None:
    record = one(tmp_path, headers, body)
    assert (record.reason, record.content) == (reason, "")


def test_a_body_beyond_what_is_read_is_too_large(tmp_path: Path) -> None:
    assert one(tmp_path, HTML, b"a" * (web.MAX_RAW_BYTES + 10)).reason == "too_large"


def test_a_revisit_record_gives_a_reason_and_no_document(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        writer.write_record(
            writer.create_revisit_record(
                "http://a.test/", "sha1:AAAA", "http://a.test/", "2020-01-01T00:00:00Z"
            )
        )
    (record,) = records_of(path)
    assert (record.uri, record.reason, record.content) == ("http://a.test/", "revisit", "")


def test_requests_and_metadata_are_no_captures_and_a_log_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        request = writer.create_warc_record(
            "http://a.test/",
            "request",
            http_headers=StatusAndHeaders("GET / HTTP/1.1", [], is_http_request=True),
        )
        response = writer.create_warc_record(
            "http://a.test/",
            "response",
            payload=io.BytesIO(page(TEXT)),
            http_headers=StatusAndHeaders("200 OK", HTML, protocol="HTTP/1.1"),
        )
        writer.write_request_response_pair(request, response)
        for uri in ("metadata://gnu.org/software/wget/log", "http://a.test/resource"):
            writer.write_record(
                writer.create_warc_record(
                    uri, "resource", payload=io.BytesIO(TEXT.encode()), warc_content_type="text/plain"
                )
            )
    response_record, log, resource = records_of(path)
    assert not response_record.reason
    assert log.reason == "not_a_page"
    assert (resource.content, resource.format) == (TEXT, "text")


def test_the_text_of_a_conversion_record_is_the_document(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.wet.gz"
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        writer.write_record(
            writer.create_warc_record(
                "http://a.test/",
                "conversion",
                payload=io.BytesIO(TEXT.encode()),
                warc_content_type="text/plain",
            )
        )
    (record,) = records_of(path)
    assert (record.content, record.format) == (TEXT, "text")


def _chunked(body: bytes) -> bytes:
    pieces = [body[i : i + 100] for i in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


ENCODED = {
    "gzip": gzip.compress(page(TEXT)),
    "deflate": zlib.compress(page(TEXT)),
    "br": brotli.compress(page(TEXT)),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoded_body_is_decoded(tmp_path: Path, encoding: str) -> None:
    headers = [*HTML, ("Content-Encoding", encoding)]
    assert TEXT in one(tmp_path, headers, ENCODED[encoding]).content


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_header_that_claims_an_encoding_which_is_gone_changes_nothing(
    tmp_path: Path, encoding: str
) -> None:
    assert TEXT in one(tmp_path, [*HTML, ("Content-Encoding", encoding)], page(TEXT)).content


def test_a_chunked_body_is_put_together(tmp_path: Path) -> None:
    headers = [*HTML, ("Transfer-Encoding", "chunked")]
    assert one(tmp_path, headers, _chunked(page(TEXT))).content == page(TEXT).decode()


def test_a_chunked_and_compressed_body_is_decoded(tmp_path: Path) -> None:
    headers = [*HTML, ("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")]
    assert one(tmp_path, headers, _chunked(gzip.compress(page(TEXT)))).content == page(TEXT).decode()


def test_a_header_that_claims_chunks_which_are_gone_changes_nothing(tmp_path: Path) -> None:
    headers = [*HTML, ("Transfer-Encoding", "chunked")]
    assert one(tmp_path, headers, page(TEXT)).content == page(TEXT).decode()


def test_the_charset_of_the_header_comes_first(tmp_path: Path) -> None:
    body = "<html><head><meta charset='utf-8'></head><p>Привет, мир</p></html>".encode("cp1251")
    assert "Привет, мир" in one(tmp_path, [("Content-Type", "text/html; charset=windows-1251")], body).content


def test_the_charset_of_a_meta_tag_comes_second(tmp_path: Path) -> None:
    body = "<html><head><meta charset='gb2312'></head><p>床前明月光</p></html>".encode("gb2312")
    assert "床前明月光" in one(tmp_path, [("Content-Type", "text/html")], body).content


def test_a_page_that_states_no_charset_is_detected(tmp_path: Path) -> None:
    text = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 5
    body = f"<html><p>{text}</p></html>".encode("gb18030")
    assert text in one(tmp_path, [("Content-Type", "text/html")], body).content


def test_an_unknown_charset_is_no_obstacle(tmp_path: Path) -> None:
    headers = [("Content-Type", "text/html; charset=no-such-thing")]
    assert TEXT in one(tmp_path, headers, page(TEXT)).content


def _read_as_a_refresh_does(path: Path) -> tuple[list[Record], list[str]]:
    errors: list[str] = []
    return list(guarded(web.read(path), errors)), errors


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("missing", [30, 400, 1300])
def test_an_archive_that_breaks_off_gives_its_good_records_and_then_damaged(
    tmp_path: Path, compressed: bool, missing: int
) -> None:
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 300))) for i in range(6)]
    whole = write_warc(tmp_path / "whole.warc", responses, gzip=compressed).read_bytes()
    path = tmp_path / "broken.warc"
    path.write_bytes(whole[:-missing])
    records, errors = _read_as_a_refresh_does(path)
    *good, last = records
    assert last.reason == "damaged_file"
    assert len(errors) == 1
    assert 4 <= len(good) <= 5
    # No half page among the good ones.
    assert [record.content for record in good] == [page(prose(i, 300)).decode() for i in range(len(good))]


@pytest.mark.parametrize("compressed", [True, False])
def test_an_archive_that_breaks_off_within_a_record_header_is_damaged_too(
    tmp_path: Path, compressed: bool
) -> None:
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 300))) for i in range(3)]
    path = write_warc(tmp_path / "a.warc", responses, gzip=compressed)
    with path.open("rb") as file:
        *_, last = (record.stream_pos for record in ArchiveIterator(file))
    path.write_bytes(path.read_bytes()[: last + 60])
    records, errors = _read_as_a_refresh_does(path)
    assert [record.reason for record in records] == ["", "", "damaged_file"]
    assert len(errors) == 1


def test_an_archive_broken_in_the_middle_gives_its_good_records_and_then_damaged(tmp_path: Path) -> None:
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 300))) for i in range(6)]
    content = bytearray(write_warc(tmp_path / "a.warc.gz", responses).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(20)
    (tmp_path / "a.warc.gz").write_bytes(content)
    records, errors = _read_as_a_refresh_does(tmp_path / "a.warc.gz")
    assert [record.reason for record in records][-1] == "damaged_file"
    assert 1 <= len(records) - 1 < 6
    assert len(errors) == 1


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.arc.gz"])
def test_bytes_that_are_no_archive_are_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive\n" * 50)
    records, errors = _read_as_a_refresh_does(tmp_path / name)
    assert [record.reason for record in records] == ["damaged_file"]
    assert errors


def test_a_saved_page_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "saved.HTML").write_bytes(page(TEXT))
    (record,) = records_of(tmp_path / "saved.HTML")
    assert (record.uri, record.format) == ("saved.HTML", "html")
    assert TEXT in record.content


def _arc(captures: list[tuple[str, bytes]]) -> bytes:
    head = b"1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n"
    out = b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain %d\n%s\n" % (len(head), head)
    for uri, http in captures:
        out += b"%s 1.2.3.4 20080430204826 text/html %d\n%s\n" % (uri.encode(), len(http), http)
    return out


def test_an_arc_file_is_read_like_a_warc(tmp_path: Path) -> None:
    long_page = page(prose(3, 6000))
    (tmp_path / "a.arc").write_bytes(
        _arc(
            [
                ("http://a.test/good", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + long_page),
                ("http://a.test/gone", b"HTTP/1.1 404 Gone\r\nContent-Type: text/html\r\n\r\nno"),
                ("http://a.test/odd", b"HTTP/1.1 OK\r\nContent-Type: text/html\r\n\r\nodd"),
                ("http://a.test/image", b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\n\r\nGIF89a"),
            ]
        )
    )
    good, gone, odd, image = records_of(tmp_path / "a.arc")
    assert good.content == long_page.decode()
    assert good.date == "2008-04-30T20:48:26Z"
    assert [record.reason for record in (gone, odd, image)] == ["http_status", "http_status", "not_text"]


def test_real_archives_of_many_writers_are_read_to_their_end(shared_data: Path) -> None:
    by_reason: dict[str, int] = {}
    for path in sorted((shared_data / "web" / "warc").iterdir()):
        records, errors = _read_as_a_refresh_does(path)
        assert not errors, path.name
        for record in records:
            by_reason[record.reason] = by_reason.get(record.reason, 0) + 1
    assert by_reason[""] > 400
    assert by_reason["revisit"] > 100
    assert set(by_reason) <= {
        *(
            "",
            "revisit",
            "redirect",
            "http_status",
            "not_text",
            "not_a_page",
            "empty_body",
            "undecodable_body",
        ),
        "too_large",
    }


def _is_html(content_type: str | None) -> bool:
    return (content_type or "").split(";")[0].strip().lower() in web.HTML_TYPES


def test_html_responses_are_those_that_other_readers_count(shared_data: Path) -> None:
    index = (shared_data / "INDEX.md").read_text(encoding="utf-8")
    listed = {
        Path(name).name: int(count)
        for name, count in re.findall(r"^\| (web/warc/\S+) \|.*?html responses (\d+)", index, re.MULTILINE)
    }
    assert len(listed) == 45
    for path in sorted((shared_data / "web" / "warc").iterdir()):
        found = [record for record in web.read(path) if record.format == "html" and not record.reason]
        if ".arc" in path.name and ".warc" not in path.name:
            with path.open("rb") as file:
                answers = [
                    (record.http_headers.get_statuscode(), record.http_headers.get_header("Content-Type"))
                    for record in WarcioIterator(file, arc2warc=True)
                    if record.rec_type == "response" and record.http_headers
                ]
        else:
            with path.open("rb") as file:
                answers = [
                    (str(record.http_headers.status_code), record.http_headers.get("Content-Type"))
                    for record in ArchiveIterator(file, parse_http=True, record_types=WarcRecordType.response)
                    if record.http_headers is not None
                ]
        html = [status for status, content_type in answers if _is_html(content_type)]
        xhtml = sum("xhtml" in (content_type or "") for _, content_type in answers)
        assert len(html) - xhtml <= listed[path.name] <= len(html), path.name
        empty = sum(record.reason == "empty_body" for record in web.read(path))
        good = sum(status.startswith("2") for status in html)
        assert good - empty <= len(found) <= good, path.name


@pytest.mark.parametrize(("name", "documents"), [("dolma-sample-0000", 22), ("dolma-sample-0001", 15)])
def test_the_archives_of_dolma_give_as_many_documents_as_there(
    shared_data: Path, name: str, documents: int
) -> None:
    records = list(web.read(shared_data / "web" / "warc" / f"{name}.warc.gz"))
    pages = [record for record in records if not record.reason]
    assert len(pages) == documents
    assert all(main_text(record.content) for record in pages)
    assert [record.reason for record in records if record.reason] == ["not_a_page"] * 2
