"""Wiki dumps: pages of the main namespace become readable text, everything else a reason."""

from __future__ import annotations

import bz2
import gzip
import io
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from data_pipeline.sources import WHOLE, Record, Span, mediawiki
from data_pipeline.sources.mediawiki_pages import MAX_PAGE_BYTES, pages
from data_pipeline.sources.mediawiki_stream import SEVEN_ZIP_TOOLS
from data_pipeline.staging import guarded
from tests.data_pipeline.made_inputs import dump, prose

ODD_PAGES = """
<page><title>Talk:X</title><ns>1</ns><revision><text>Hello</text></revision></page>
<page><title>Old Name</title><ns>0</ns><redirect title="X" /><revision><text>#REDIRECT [[X]]</text></revision></page>
<page><title>Alter Name</title><ns>0</ns><revision><text>#redirect [[X]]</text></revision></page>
<page><title>Nothing</title><ns>0</ns><revision><text> </text></revision></page>
<page><title>Bare</title><ns>0</ns></page>
"""


@pytest.mark.parametrize(
    ("name", "pack"), [("d.xml", bytes), ("d.xml.bz2", bz2.compress), ("d.xml.gz", gzip.compress)]
)
def test_a_page_becomes_a_document_with_its_address(tmp_path: Path, name: str, pack: object) -> None:
    text = dump([("Ada Lovelace", prose(1)), ("Zürich", prose(2))])
    (tmp_path / name).write_bytes(pack(text.encode()))  # type: ignore[operator]
    ada, zurich = mediawiki.read(tmp_path / name)
    assert (ada.uri, ada.title, ada.content) == (
        "https://wiki.test/wiki/Ada_Lovelace",
        "Ada Lovelace",
        prose(1),
    )
    assert (ada.format, ada.date) == ("wikitext", "2024-01-02T03:04:05Z")
    assert set(ada.metadata) <= {"page_id", "revision_id"}
    assert zurich.uri == "https://wiki.test/wiki/Z%C3%BCrich"


def test_a_page_that_is_no_article_gives_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "d.xml"
    path.write_text(dump([("X", prose(1))]).replace("</mediawiki>", ODD_PAGES + "</mediawiki>"))
    assert [(record.title, record.reason) for record in mediawiki.read(path)] == [
        ("X", ""),
        ("Talk:X", "other_namespace"),
        ("Old Name", "redirect"),
        ("Alter Name", "redirect"),
        ("Nothing", "empty_page"),
        ("Bare", "no_revision"),
    ]


@pytest.mark.parametrize("tail", ["<page><title>C</title><ns>0</ns", "<page><title>C</title></nonsense>"])
def test_a_dump_that_breaks_off_gives_its_good_pages_and_then_damaged(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "d.xml"
    path.write_text(dump([("A", prose(1)), ("B", prose(2))]).replace("</mediawiki>", tail))
    errors: list[str] = []
    records = list(guarded(mediawiki.read(path), errors))
    assert [(record.title, record.reason) for record in records] == [
        ("A", ""),
        ("B", ""),
        ("", "damaged_file"),
    ]
    assert len(errors) == 1


def test_a_compressed_dump_that_breaks_off_gives_its_good_pages_and_then_damaged(tmp_path: Path) -> None:
    pages = dump([(f"P{i}", prose(i)) for i in range(50)]).split("</page>")[:-1]
    packed = b"".join(bz2.compress(f"{part}</page>".encode()) for part in pages)
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(packed[:-40])
    errors: list[str] = []
    records = list(guarded(mediawiki.read(path), errors))
    assert records[-1].reason == "damaged_file"
    # What was read in one go with the break is lost, 16 kB at most.
    assert [record.title for record in records[:-1]] == [f"P{i}" for i in range(len(records) - 1)]
    assert len(records) > 30


@pytest.mark.parametrize(
    "text",
    [
        *("#REDIRECT [[X]]", "#redirect: [[X]]", "\n#WEITERLEITUNG [[X]]", "#REDIRECTION [[X]]", "#REDIRECCIÓN [[X]]"),
        *("#転送 [[X]]", "#넘겨주기 [[X]]", "#пренасочване [[X]]", "#重定向 [[X]]", "#Перенаправление [[X]]"),
    ],
)  # fmt: skip
def test_a_redirect_is_known_by_the_word_of_its_language(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.xml"
    path.write_text(dump([("Old", text), ("List", "# redirects of the first kind\n# [[X]]")]))
    assert [record.reason for record in mediawiki.read(path)] == ["redirect", ""]


def test_ids_are_metadata_and_the_last_revision_counts(tmp_path: Path) -> None:
    page = (
        "<page><title>A</title><ns>0</ns><id>7</id><revision><id>70</id><text>old</text></revision>"
        "<revision><id>71</id><timestamp>2020-01-01T00:00:00Z</timestamp><text>new</text></revision></page>"
    )
    path = tmp_path / "d.xml"
    path.write_text(dump([]).replace("</mediawiki>", page + "</mediawiki>"))
    (record,) = mediawiki.read(path)
    assert (record.content, record.date) == ("new", "2020-01-01T00:00:00Z")
    assert record.metadata == {"page_id": "7", "revision_id": "71"}


def test_what_is_no_wikitext_is_no_document(tmp_path: Path) -> None:
    page = "<page><title>Q1</title><ns>0</ns><revision><model>wikibase-item</model><text>{}</text></revision></page>"
    path = tmp_path / "d.xml"
    path.write_text(dump([]).replace("</mediawiki>", page + "</mediawiki>"))
    assert [record.reason for record in mediawiki.read(path)] == ["no_wikitext"]


def test_an_export_without_ns_tells_namespaces_by_the_prefixes_of_its_head(tmp_path: Path) -> None:
    names = (
        '<siteinfo><namespaces><namespace key="0" /><namespace key="1">Diskussion</namespace></namespaces>'
    )
    text = dump([("Diskussion:A", "x"), ("Film: A Story", "x")]).replace("<ns>0</ns>", "")
    path = tmp_path / "d.xml"
    path.write_text(text.replace("<siteinfo>", names))
    assert [record.reason for record in mediawiki.read(path)] == ["other_namespace", ""]


@pytest.mark.parametrize(
    "broken",
    [
        "<page><title>Bad</title><ns>0</ns><revision><text>mismatch</revision></text></page>",
        "<page><title>Bad</title><ns>0</ns><revision><text>a \x01 character</text></revision></page>",
        "<page><title>Bad</title><ns>0</ns><revision><text>&nosuch;</text></revision></page>",
        "<page><title>Bad</title><ns>0</ns><revision><text>no end",
    ],
)
def test_a_broken_page_costs_itself_only(tmp_path: Path, broken: str) -> None:
    text = dump([("A", prose(1)), ("B", prose(2))])
    path = tmp_path / "d.xml"
    before, after = text.rsplit("<page>", 1)
    path.write_text(f"{before}{broken}\n<page>{after}")
    records = list(mediawiki.read(path))
    assert [(record.title, record.reason) for record in records] == [
        ("A", ""),
        ("Bad", "broken_page"),
        ("B", ""),
    ]
    assert records[1].uri == "https://wiki.test/wiki/Bad"


def test_entities_that_a_dump_declares_are_never_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("TOP SECRET")
    bomb = "".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">' for i in range(1, 12))
    doctype = f'<!DOCTYPE x [<!ENTITY b0 "ha">{bomb}<!ENTITY f SYSTEM "file://{secret}">]>'
    text = dump([("Bomb", "BOMB"), ("File", "FILE"), ("Good", prose(1))])
    path = tmp_path / "d.xml"
    path.write_text(doctype + text.replace("BOMB", "&b11;").replace("FILE", "&f;"))
    records = list(mediawiki.read(path))
    assert [record.reason for record in records] == ["broken_page", "broken_page", ""]
    assert not any("SECRET" in record.content for record in records)


def test_a_page_beyond_every_bound_is_left_out_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "d.xml"
    revisions = f"<revision><id>1</id><text>{'x' * 1_000_000}</text></revision>" * 40
    history = (
        f"<page><title>History</title><ns>0</ns>{revisions}<revision><text>last</text></revision></page>"
    )
    text = dump([("Huge", "x" * 40_000_000), ("Large", "y" * 2_500_000), ("Good", "z")])
    path.write_text(text.replace("</mediawiki>", history + "</mediawiki>"))
    records = list(mediawiki.read(path))
    assert [(record.title, record.reason) for record in records] == [
        ("Huge", "too_large"),
        ("Large", "too_large"),
        ("Good", ""),
        ("History", ""),
    ]
    assert records[3].content == "last"
    with path.open("rb") as file:  # and never held whole
        assert max(len(page.xml) for page in pages(file, 0, 0, None)) <= MAX_PAGE_BYTES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "iso-8859-1"])
def test_a_dump_in_another_encoding_reads_the_same(tmp_path: Path, encoding: str) -> None:
    text = dump([("Zürich", "Über alles & größer")])
    plain, other = tmp_path / "d.xml", tmp_path / "e.xml"
    plain.write_text(text, encoding="utf-8")
    text = text if text.startswith("<?xml") else f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'
    other.write_text(text, encoding=encoding)
    assert list(mediawiki.read(other)) == list(mediawiki.read(plain))
    assert mediawiki.split(other, 10) == [WHOLE]


# ----------------------------------------------------------------------------------------------------------- spans

PAGES = [(f"Page {i}", f"{prose(i)[: 40 + 37 * (i % 11)]} <page> & </page> ü漢") for i in range(40)]


def _spanned(path: Path, span_bytes: int) -> tuple[list[Record], int]:
    spans = mediawiki.split(path, span_bytes)
    assert spans[0].start == 0
    assert spans[-1].stop is None
    assert [span.stop for span in spans[:-1]] == [span.start for span in spans[1:]]
    return [record for span in spans for record in mediawiki.read(path, span)], len(spans)


@settings(max_examples=60, deadline=None)
@given(span_bytes=st.integers(min_value=1, max_value=30_000))
def test_the_spans_of_a_plain_dump_hold_every_page_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, span_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "spans.xml"
    if not path.exists():
        path.write_text(dump(PAGES), encoding="utf-8")
    span_bytes = max(span_bytes, path.stat().st_size // 200)
    whole = list(mediawiki.read(path))
    records, num_spans = _spanned(path, span_bytes)
    assert records == whole
    assert num_spans == max(1, -(-path.stat().st_size // span_bytes))


def _multistream(pages_a_stream: int) -> bytes:
    """As Wikimedia packs them: the head, then groups of pages, then the tail, each a stream of its own."""
    head, *pages = dump(PAGES).split("<page>")
    *pages, last = ["  <page>" + page for page in pages]
    last, tail = last.split("</mediawiki>")
    pages.append(last)
    groups = ["".join(pages[i : i + pages_a_stream]) for i in range(0, len(pages), pages_a_stream)]
    return b"".join(bz2.compress(part.encode()) for part in [head, *groups, "</mediawiki>" + tail])


@pytest.mark.parametrize("span_bytes", [1, 100, 777, 1500, 4000, 10**6])
def test_the_spans_of_a_multistream_dump_hold_every_page_once_in_order(
    tmp_path: Path, span_bytes: int
) -> None:
    path = tmp_path / "d-multistream.xml.bz2"
    path.write_bytes(_multistream(pages_a_stream=3))
    whole = list(mediawiki.read(path))
    assert [record.title for record in whole] == [title for title, _ in PAGES]
    records, num_spans = _spanned(path, span_bytes)
    assert records == whole
    assert (num_spans > 1) == (span_bytes < path.stat().st_size)


@pytest.mark.parametrize("span_bytes", [1, 500, 3000])
def test_streams_that_end_within_a_page_are_never_split(tmp_path: Path, span_bytes: int) -> None:
    raw = dump(PAGES).encode()
    path = tmp_path / "pbzip2.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(raw[i : i + 333]) for i in range(0, len(raw), 333)))
    records, _ = _spanned(path, span_bytes)
    assert records == list(mediawiki.read(path))
    assert len(records) == len(PAGES)


@pytest.mark.parametrize(("name", "pack"), [("d.xml.bz2", bz2.compress), ("d.xml.gz", gzip.compress)])
def test_one_stream_is_one_span(tmp_path: Path, name: str, pack: object) -> None:
    (tmp_path / name).write_bytes(pack(dump(PAGES).encode()))  # type: ignore[operator]
    assert mediawiki.split(tmp_path / name, 100) == [WHOLE]


def test_a_span_knows_what_the_head_of_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "d.xml"
    path.write_text(dump(PAGES))
    half = path.stat().st_size // 2
    assert next(mediawiki.read(path, Span(half, None))).uri.startswith("https://wiki.test/wiki/Page_")


@pytest.mark.parametrize(("cut", "num_spans"), [(0, 3), (0, 20), (0, 97), (30, 5), (90, 40)])
def test_one_span_tells_that_a_dump_breaks_off(tmp_path: Path, cut: int, num_spans: int) -> None:
    path = tmp_path / "d.xml"
    text = dump(PAGES).replace("</mediawiki>", "").encode()
    path.write_bytes(text[: len(text) - cut])
    spans = mediawiki.split(path, path.stat().st_size // num_spans)
    errors: list[list[str]] = [[] for _ in spans]
    records = [
        r
        for span, found in zip(spans, errors, strict=True)
        for r in guarded(mediawiki.read(path, span), found)
    ]
    assert sum(map(len, errors)) == 1
    assert records == list(guarded(mediawiki.read(path), []))


# -------------------------------------------------------------------------------------------------------------- 7z


def test_a_7z_dump_on_a_machine_without_the_tool_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.xml.7z"
    path.write_bytes(b"7z\xbc\xaf\x27\x1c rest")
    monkeypatch.setenv("PATH", str(tmp_path))
    for use in (lambda: mediawiki.split(path, 10), lambda: list(mediawiki.read(path))):
        with pytest.raises(InputError, match=r"install 7zip, or unpack"):
            use()


@pytest.mark.parametrize("name", ["d.xml.7z", "-t *@odd.7z"])
def test_a_7z_dump_is_read_by_the_tool(tmp_path: Path, name: str) -> None:
    tool = next(filter(None, map(shutil.which, SEVEN_ZIP_TOOLS)), None)
    if tool is None:
        pytest.skip("no 7z tool on PATH")
    plain, packed = tmp_path / "d.xml", tmp_path / name
    plain.write_text(dump(PAGES))
    subprocess.run([tool, "a", "-bd", str(tmp_path / "made.7z"), str(plain)], check=True, capture_output=True)
    (tmp_path / "made.7z").rename(packed)
    assert list(mediawiki.read(packed)) == list(mediawiki.read(plain))
    assert mediawiki.split(packed, 10) == [WHOLE]
    packed.write_bytes(packed.read_bytes()[:-20])
    errors: list[str] = []
    assert list(guarded(mediawiki.read(packed), errors))[-1].reason == "damaged_file"


# ------------------------------------------------------------------------------------------------------- real dumps


def test_pages_redirects_and_articles_are_those_that_mwxml_counts(shared_data: Path) -> None:
    mwxml = pytest.importorskip("mwxml")
    num_pages = 0
    for path in sorted((shared_data / "wiki").glob("*.bz2")):
        xml = bz2.decompress(path.read_bytes())
        text = xml.decode("utf-16" if xml[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        if "<siteinfo" not in text:  # mwxml insists on one, and an excerpt may have none
            text = text.replace("<page>", "<siteinfo><namespaces /></siteinfo><page>", 1)
        expected = Counter(
            (page.title, "other_namespace" if page.namespace else "redirect" if page.redirect else "")
            for page in mwxml.Dump.from_file(io.BytesIO(text.encode()))
        )
        assert Counter((record.title, record.reason) for record in mediawiki.read(path)) == expected, (
            path.name
        )
        num_pages += expected.total()
    assert num_pages > 200
