"""Books: bytes become text, header and footer go, wrapped prose is joined, everything else keeps its lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline import gutenberg_text
from data_pipeline.sources import gutenberg
from tests.data_pipeline.made_inputs import book, prose

CHINESE = "卻說賈雨村因貪酷之弊，被上司參了一本。\n龍顏大怒，即命革職。" * 30


def wrapped(text: str, width: int = 70) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


# ---------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("naïve".encode(), "naïve"),
        ("naïve".encode("utf-8-sig"), "naïve"),
        ("“naïve” – Œuvre".encode("cp1252"), "“naïve” – Œuvre"),
        (CHINESE.encode("gb18030"), CHINESE),
        (CHINESE.encode(), CHINESE),
        # Big5 is valid GB 18030 as well, so only the header can tell.
        (
            f"Character set encoding: Big5\n\n{CHINESE}".encode("big5"),
            f"Character set encoding: Big5\n\n{CHINESE}",
        ),
        (b"Character set encoding: ASCII\n\ncaf\xe9", "Character set encoding: ASCII\n\ncafé"),
        (b"Character set encoding: none-such\n\ncaf\xe9", "Character set encoding: none-such\n\ncafé"),
    ],
)
def test_a_book_is_decoded_by_what_its_bytes_are(raw: bytes, text: str) -> None:
    assert gutenberg.decode(raw) == text


def test_a_book_that_is_binary_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04\0\0\0\0binary")
    (tmp_path / "b.txt").write_bytes(b" \r\n ")
    assert [record.reason for record in gutenberg.read(tmp_path / "a.txt")] == ["not_text"]
    assert [record.reason for record in gutenberg.read(tmp_path / "b.txt")] == ["empty_file"]


def test_line_ends_of_any_system_become_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    (record,) = gutenberg.read(tmp_path / "a.txt")
    assert (record.content, record.format, record.uri) == ("one\ntwo\nthree\n", "gutenberg", "a.txt")


# ------------------------------------------------------------------------------------------ header and footer

BODY = "It was a dark night.\n\nAnd a stormy one."
OLD_HEADER = (
    "The Project Gutenberg Etext of Something\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
    "Why is this here? You know: lawyers.\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
)


@pytest.mark.parametrize(
    "content",
    [
        f"Header\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{BODY}\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nLicence",
        f"Header\n\n***START OF THIS PROJECT GUTENBERG EBOOK X***\n\n{BODY}\n\n"
        "***END OF THIS PROJECT GUTENBERG EBOOK X***\nLicence",
        f"Header\n\n*** START OF THIS PROJECT GUTENBERG EBOOK\nTHE STRANGE CASE OF X ***\n\n{BODY}\n\n"
        "End of the Project Gutenberg EBook of X\n\nLicence",
        f"Header\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n\nProduced by Some One and\nSome Other\n\n\n"
        f"{BODY}\n\n\nEnd of Project Gutenberg's X, by Y\n\nLicence",
        f"{OLD_HEADER}{BODY}\n\nEnd of this Project Gutenberg Etext of X\n",
        BODY,
    ],
    ids=["new", "no spaces", "wrapped title", "produced by", "small print", "no marks"],
)
def test_header_and_footer_go_in_all_their_forms(content: str) -> None:
    assert gutenberg_text.parse(content).text == BODY


def test_a_mark_inside_the_book_does_not_end_it_before_it_began() -> None:
    content = (
        f"End of Project Gutenberg's last book\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{BODY}"
    )
    assert gutenberg_text.parse(content).text == BODY


def test_the_header_states_title_author_language_and_date() -> None:
    parsed = gutenberg_text.parse(book(BODY, "Moby Dick", "Herman Melville"))
    assert (parsed.title, parsed.author, parsed.language) == ("Moby Dick", "Herman Melville", "English")
    assert parsed.release_date == "March 1, 2004"


def test_a_file_without_a_header_states_nothing() -> None:
    parsed = gutenberg_text.parse("Title: not a header\n\nbut a text")
    assert (parsed.title, parsed.author, parsed.release_date) == ("", "", "")


# ------------------------------------------------------------------------------------------------------ lines

STANZA = (
    "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame thy"
)
TABLE = "  Name        Height\n  Ben Nevis     1345\n  Snowdon       1085"


def test_wrapped_prose_is_joined_and_verse_and_tables_keep_their_lines() -> None:
    paragraphs = [prose(seed, 120) for seed in range(6)]
    parts = [wrapped(text) for text in paragraphs]
    parts[2:2] = [STANZA, TABLE, "CHAPTER II\nThe Return"]
    expected = list(paragraphs)
    expected[2:2] = [STANZA, TABLE, "CHAPTER II\nThe Return"]
    assert gutenberg_text.parse(book("\n\n".join(parts))).text == "\n\n".join(expected)


def test_italics_marks_and_illustrations_go() -> None:
    body = (
        "He was _very_ sure of _it\nall_, but snake_case_names stay.\n\n[Illustration: A whale]\n\nThe end."
    )
    text = gutenberg_text.parse(book(body)).text
    assert "very sure of it" in text
    assert "snake_case_names" in text
    assert "Illustration" not in text
    assert text.endswith("\n\nThe end.")


def test_chinese_text_loses_no_character() -> None:
    lines = [CHINESE.replace("\n", "")[i : i + 35] for i in range(0, 700, 35)]
    text = gutenberg_text.parse(book("第一回　賈雨村\n\n" + "\n".join(lines))).text
    assert text == "第一回　賈雨村\n\n" + "".join(lines)


def test_a_page_of_blank_lines_takes_no_time() -> None:
    assert gutenberg_text.parse("a" + "\n" * 300_000 + "b").text == "a\n\nb"


def test_real_books_lose_their_headers_and_nothing_else(shared_data: Path) -> None:
    paths = sorted((shared_data / "books" / "pg-en").glob("*.txt"))[:30]
    paths += sorted((shared_data / "books" / "pg-zh").glob("*.txt"))
    for path in paths:
        (record,) = gutenberg.read(path)
        parsed = gutenberg_text.parse(record.content)
        assert "START OF TH" not in parsed.text, path.name
        assert "GUTENBERG LICENSE" not in parsed.text.upper(), path.name
        assert len(parsed.text) > 0.5 * len(record.content) - 25_000, path.name
