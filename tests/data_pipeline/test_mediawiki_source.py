"""Wiki dumps: pages of the main namespace become readable text, everything else a reason."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import wikitext
from data_pipeline.extract import EXTRACTORS
from data_pipeline.sources import mediawiki
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


# ---------------------------------------------------------------------------------------------------- wikitext


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("'''Bold''' and ''italic'' [[town|towns]] of [[France]].", "Bold and italic towns of France."),
        ("A{{Infobox\n| x = 1\n| y = {{nested|2}}\n}}B", "AB"),
        ("Text<ref>{{cite book|title=X}}</ref> goes<ref name=a /> on.", "Text goes on."),
        ("Before\n{| class=wikitable\n! a\n|-\n| 1 || 2\n|}\nafter", "Before\n\nafter"),
        ("A [[File:x.jpg|thumb|a [[b]] c]] B [[Category:Cats]]", "A B"),
        (
            "It is {{convert|10|km|mi}} away and {{cvt|3|ft}} high.",
            "It is 10 kilometres away and 3 feet high.",
        ),
        ("{{lang|fr|Bonjour}} and {{lang-de|Guten Tag}}.", "Bonjour and Guten Tag."),
        ("See [https://x.test the site] or [https://y.test].", "See the site or ."),
        ("AT&amp;T &ndash; 5&nbsp;m", "AT&T – 5\xa0m"),
        ("<!-- hidden -->Shown", "Shown"),
        ("One<br/>two", "One\ntwo"),
        ("* first\n* second", "first\nsecond"),
        ("__NOTOC__Text ({{IPA|x}}) end", "Text end"),
        ("E = <math>mc^2</math>!", "E = !"),
    ],
)
def test_markup_becomes_text(source: str, text: str) -> None:
    # A list mark keeps or loses its dash with the parser's version; the item's text is what counts.
    assert wikitext.to_text(source).replace("- ", "").replace("  ", " ") == text


def test_sections_of_links_and_sources_go_with_their_subsections() -> None:
    source = (
        "Lead.\n== History ==\nLong ago.\n=== Early ===\nOlder.\n== References ==\n* Smith\n=== Books ===\n* Jones\n"
        "== Legacy ==\nStill there.\n== See also ==\n* [[Other]]"
    )
    assert wikitext.to_text(source) == "Lead.\nHistory\nLong ago.\nEarly\nOlder.\nLegacy\nStill there."


def test_a_disambiguation_page_is_no_document() -> None:
    for name in ("disambiguation", "Disambig", "hndis", "消歧义", "Geo disambig|x"):
        assert EXTRACTORS["wikitext"](f"'''X''' may be:\n* [[Y]]\n{{{{{name}}}}}").reason == "disambiguation"
    assert EXTRACTORS["wikitext"]("Text {{citation needed}}").reason == ""


BROKEN = [
    "An {{unclosed template | a = b\nnext line",
    "A [[link that never ends\nnext line",
    "A [[File:x.jpg|thumb|caption [[inner]]\nnext",
    "A <ref>that never ends\nnext line",
    "A <ref name='x' group=\"y\">open, and another <ref name=z\nnext line",
    "Stray }} and ]] and </ref> here",
    "{{a|{{b|[[c|<ref>{{d}}\nnext line",
    "{| class=wikitable\n| never closed\nnext line",
]


@pytest.mark.parametrize("source", BROKEN)
def test_broken_markup_leaves_none_of_its_signs(source: str) -> None:
    text = wikitext.to_text(source)
    for sign in ("{{", "}}", "[[", "]]", "<ref", "</ref"):
        assert sign not in text
    if "next line" in source and not source.startswith("{|"):
        assert "next line" in text


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"{}[]|=<>'\n*# ab", "<ref>", "</ref>", "{{", "}}", "[[", "]]", "&#xD800;", "&#0;"])
    )
)
def test_no_markup_trips_the_converter(parts: list[str]) -> None:
    wikitext.to_text("".join(parts))


def test_entities_beyond_unicode_are_left_out() -> None:
    text = wikitext.to_text("a &#99999999; b &#99999999999999999999; c")
    assert text.startswith("a ")
    assert text.endswith(" c")


def test_real_dumps_give_text_without_markup(shared_data: Path) -> None:
    num_documents = 0
    for path in sorted((shared_data / "wiki").glob("*.bz2")):
        for index, record in enumerate(mediawiki.read(path)):
            if index >= 100:
                break
            if record.reason:
                continue
            text = EXTRACTORS["wikitext"](record.content).text
            num_documents += 1
            if not wikitext.is_disambiguation(record.content):
                for sign in ("{{", "[[", "<ref"):
                    assert sign not in text, (path.name, record.title)
    assert num_documents > 30
