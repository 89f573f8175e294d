"""EPUB, HTML and zipped books: read in order, bounded, and never by the names inside."""

from __future__ import annotations

import gzip
import time
import zipfile
from pathlib import Path

import pytest

from data_pipeline.books import html as book_html
from data_pipeline.config import SourceConfig
from data_pipeline.extract import EXTRACTORS, Extracted
from data_pipeline.sources import Record, books, list_files
from tests.data_pipeline.made_inputs import book, prose

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
METADATA = (
    '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Emma</dc:title>'
    "<dc:creator>Jane Austen</dc:creator><dc:creator>A. Lady</dc:creator><dc:language>en</dc:language>"
    "<dc:date>1815-12-23</dc:date><dc:identifier>http://www.gutenberg.org/ebooks/158</dc:identifier></metadata>"
)


def xhtml(body: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{body}</body></html>'


def make_epub(path: Path, documents: dict[str, str], extra: dict[str, str] | None = None) -> Path:
    """An EPUB whose spine is in the order of `documents`; ids that begin with "nav" are its navigation."""
    items = "".join(
        f'<item id="{name.split(".")[0]}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"'
        f"{' properties=' + chr(34) + 'nav' + chr(34) if name.startswith('nav') else ''}/>"
        for name in sorted(documents)
    )
    spine = "".join(f'<itemref idref="{name.split(".")[0]}"/>' for name in documents)
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf">{METADATA}<manifest>{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    members = {"META-INF/container.xml": CONTAINER, "OPS/package.opf": package}
    members |= {f"OPS/{name}": markup for name, markup in documents.items()} | (extra or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def extracted(record: Record) -> Extracted:
    return EXTRACTORS[record.format](record.content)


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    documents = {
        "cover.xhtml": xhtml("<p>Cover</p>"),
        "nav.xhtml": xhtml("<p>Contents</p>"),
        "z one.xhtml": xhtml("<h2>Chapter I</h2><p>Emma\nWoodhouse, <i>hand</i>some &amp; rich.</p>"),
        "a.xhtml": xhtml("<h2>Chapter II</h2><p>Mr. Weston&nbsp;was.</p>"),
    }
    (record,) = books.read(make_epub(tmp_path / "emma.epub", documents))
    assert (record.uri, record.title, record.date) == (
        "https://www.gutenberg.org/ebooks/158",
        "Emma",
        "1815-12-23",
    )
    assert record.metadata == {"author": "Jane Austen, A. Lady", "language": "en", "gutenberg_id": "158"}
    text = extracted(record).text
    assert text == "Chapter I\n\nEmma Woodhouse, handsome & rich.\n\nChapter II\n\nMr. Weston was."


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>Tyger, <br/>burning bright</p>", "Tyger,\nburning bright"),
        (
            "<div class='lg'><div>one</div>\n<div>two</div></div><div>\n<div>three</div></div>",
            "one\ntwo\n\nthree",
        ),
        ("<p>a <span class='pagenum'>[Pg 3]</span>b</p>", "a b"),
        ("<p>a</p><div class='figcenter'><img src='x'/><p>caption</p></div><p>b</p>", "a\n\nb"),
        (
            "<table><tr><td>Ben</td><td>1345</td></tr><tr><td>Snow</td><td>1085</td></tr></table>",
            "Ben | 1345\nSnow | 1085",
        ),
        ("<section id='pg-header'><p>Licence</p></section><p>b</p>", "b"),
        ("<div class='pg-boilerplate'>Licence</div><p>b</p><script>x()</script>", "b"),
        ("<ul><li>one</li><li>two</li></ul>", "one\ntwo"),
        ("<pre>\na\n  b\n</pre>", "a\n  b"),
        ("<p>un<b>clos</p>ed &eacute;", "unclos\n\ned é"),
    ],
)
def test_markup_becomes_blocks_and_lines(markup: str, text: str) -> None:
    assert book_html.to_text(xhtml(markup)) == text


def test_no_entity_of_a_document_is_expanded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    doctype = f'<!DOCTYPE html [<!ENTITY l0 "ha"><!ENTITY file SYSTEM "file://{tmp_path}/secret">{laughs}]>'
    text = book_html.to_text(doctype + "<html><body><p>a &file; &l9; b</p></body></html>")
    assert "SECRET" not in text
    assert "hahaha" not in text
    assert text.startswith("a ")


def test_a_locked_epub_says_so_and_obfuscated_fonts_lock_nothing(tmp_path: Path) -> None:
    def encryption(uri: str) -> dict[str, str]:
        return {
            "META-INF/encryption.xml": '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#">'
            f'<e:EncryptedData><e:CipherReference URI="{uri}"/></e:EncryptedData></encryption>'
        }

    documents = {"a.xhtml": xhtml("<p>Text.</p>")}
    locked = make_epub(tmp_path / "locked.epub", documents, encryption("OPS/a.xhtml"))
    fonts = make_epub(tmp_path / "fonts.epub", documents, encryption("OPS/a.otf"))
    assert [record.reason for record in books.read(locked)] == ["encrypted"]
    assert [extracted(record).text for record in books.read(fonts)] == ["Text."]


def test_what_is_no_epub_is_a_record_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_bytes(b"PK\x03\x04 no zip at all")
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as archive:
        archive.writestr("a.xhtml", xhtml("<p>Text.</p>"))
    whole = make_epub(
        tmp_path / "whole.epub", {"a.xhtml": xhtml("<p>" + prose(1, 3000) + "</p>")}
    ).read_bytes()
    (tmp_path / "c.epub").write_bytes(whole[: len(whole) // 2])
    reasons = [[record.reason for record in books.read(tmp_path / f"{name}.epub")] for name in "abc"]
    assert reasons == [["bad_zip"], ["no_epub"], ["bad_zip"]]


def test_a_zip_gives_each_book_in_it(tmp_path: Path) -> None:
    path = tmp_path / "books.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/11.txt", book("The text of one.").replace("\n", "\r\n"))
        archive.writestr("a.htm", "<html><head><title>Two</title></head><body><p>Two.</p></body></html>")
        archive.writestr("picture.jpg", b"\xff\xd8")
        archive.writestr("../../up.txt", "Climbing.")
    records = list(books.read(path))
    assert [record.uri for record in records] == [
        "books.zip#../../up.txt",
        "books.zip#a.htm",
        "https://www.gutenberg.org/ebooks/11",
    ]
    assert [extracted(record).text for record in records] == ["Climbing.", "Two.", "The text of one."]
    assert records[1].title == "Two"
    assert not (tmp_path.parent.parent / "up.txt").exists()


def test_a_zip_bomb_ends_before_memory_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "A good book.")
        archive.writestr("b.txt", b"0" * (65 << 20))
        archive.writestr("c.txt", "Never read.")
    assert [record.reason for record in books.read(path)] == ["", "zip_bomb"]
    monkeypatch.setattr("data_pipeline.books.archive.TOTAL_FLOOR", 100)
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number:02}.txt", b"0" * 30_000)
    reasons = [record.reason for record in books.read(many)]
    assert reasons[0] == ""
    assert reasons[-1] == "zip_bomb"
    assert len(reasons) < 40


def test_one_damaged_member_costs_that_member(tmp_path: Path) -> None:
    path = tmp_path / "books.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "first " * 100)
        archive.writestr("b.txt", "second " * 100)
    path.write_bytes(path.read_bytes().replace(b"first first", b"FIRST first", 1))
    assert [record.reason for record in books.read(path)] == ["bad_zip", ""]


def test_html_books_lose_the_licence_in_words_and_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "1342-h.htm"
    path.write_text(
        "<!DOCTYPE html><html><head><meta charset='iso-8859-1'><title>The Project Gutenberg eBook of Emma</title></head>"
        "<body><p>The Project Gutenberg eBook of Emma, by Jane Austen</p><p>Title: Emma</p><p>Author: Jane Austen</p>"
        "<p>Release Date: May 1994 [EBook #158]</p><p>*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***</p>"
        "<h1>EMMA</h1><p>Caf\xe9 and\nmore.</p><p>*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***</p><p>Project "
        "Gutenberg licence.</p></body></html>",
        encoding="latin-1",
    )
    (record,) = books.read(path)
    found = extracted(record)
    assert (record.uri, record.title) == ("https://www.gutenberg.org/ebooks/158", "Emma")
    assert (found.text, found.metadata["author"]) == ("EMMA\n\nCafé and more.", "Jane Austen")


def test_a_folder_of_books_is_searched_for_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    make_epub(tmp_path / "1" / "a.EPUB", {"a.xhtml": xhtml("<p>Text.</p>")})
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(book("Packed.").encode()))
    (tmp_path / "c.html").write_text("<p>Page.</p>")
    (tmp_path / "d.jpg").write_bytes(b"")
    files = list_files(SourceConfig(name="book", kind="books", paths=(str(tmp_path),)))
    texts = [extracted(record).text for file in files for record in books.read(file)]
    assert texts == ["Text.", "Packed.", "Page."]


@pytest.mark.parametrize(
    "unit", ["<p>", "<div>", "&amp;", "<!DOCTYPE [", "<br/>", "</p>", "<![CDATA[", "<!--"]
)
def test_hostile_markup_takes_seconds(unit: str) -> None:
    start = time.process_time()
    book_html.to_text("<html><body>" + unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 10


EPUBS = {
    "moby-dick.epub": ("Moby-Dick", "Herman Melville", "Call me Ishmael.", "only found another orphan."),
    "wasteland.epub": (
        "The Waste Land",
        "T.S. Eliot",
        "April is the cruellest month, breeding\nLilacs out",
        "Shantih",
    ),
    "childrens-literature.epub": (
        "Children's Literature",
        "Charles Madison Curry, Erle Elsworth Clippinger",
        "SECTION IV FAIRY STORIES",
        "The Black Brothers.",
    ),
}


@pytest.mark.parametrize("name", EPUBS)
def test_real_epubs_give_their_words(name: str, shared_data: Path) -> None:
    title, author, first, last = EPUBS[name]
    (record,) = books.read(shared_data / "books" / "epub" / name)
    assert (record.title, record.metadata["author"]) == (title, author)
    text = extracted(record).text
    assert first in text
    assert last in text[-1500:]
    assert "<" not in text.replace("<http", "")
