"""Books: bytes become text, header and footer go, wrapped prose is joined, everything else keeps its lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.books import gutenberg
from data_pipeline.books.encoding import decode
from data_pipeline.sources import books
from tests.data_pipeline.made_inputs import book, prose

CHINESE = "卻說賈雨村因貪酷之弊，被上司參了一本。\n龍顏大怒，即命革職。" * 30

RUSSIAN = "Однажды весною, в час небывало жаркого заката, в Москве. " * 40


def wrapped(text: str, width: int = 70) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
KOREAN = "계절이 지나가는 하늘에는 가을로 가득 차 있습니다. 나는 아무 걱정도 없이 가을 속의 별들을 다 헤일 듯합니다."


# ---------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("naïve".encode(), "naïve"),
        ("naïve".encode("utf-8-sig"), "naïve"),
        ("“naïve” – Œuvre".encode("cp1252"), "“naïve” – Œuvre"),
        (CHINESE.encode("gb18030"), CHINESE),
        (CHINESE.encode(), CHINESE),
        (CHINESE.encode("big5"), CHINESE),
        (
            f"Character set encoding: Big5\n\n{CHINESE}".encode("big5"),
            f"Character set encoding: Big5\n\n{CHINESE}",
        ),
        # What a header states may be the other one.
        (
            f"Character set encoding: GB18030\n\n{CHINESE}".encode("big5"),
            f"Character set encoding: GB18030\n\n{CHINESE}",
        ),
        ("naïve".encode("utf-16"), "naïve"),
        ("“naïve” café ".encode() * 9 + b"\xff" + b" ok", "“naïve” café " * 9 + "\ufffd ok"),
        (
            "Character set encoding: KOI8-R\n\nМой дядя".encode("koi8-r"),
            "Character set encoding: KOI8-R\n\nМой дядя",
        ),
        (RUSSIAN.encode("cp1251"), RUSSIAN),
        *((JAPANESE.encode(name), JAPANESE) for name in ("euc_jp", "shift_jis", "cp932")),
        *((KOREAN.encode(name), KOREAN) for name in ("euc_kr", "cp949")),
        # Windows has more syllables than the standard that a header states.
        (
            f"Character set encoding: EUC-KR\n\n{KOREAN} 똠방각하".encode("cp949"),
            f"Character set encoding: EUC-KR\n\n{KOREAN} 똠방각하",
        ),
        # No character set, though Python knows it, and slow on purpose.
        (b"Character set encoding: punycode\n\ncaf\xe9", "Character set encoding: punycode\n\ncafé"),
        (b"charset=unicode_escape \xe9 \\x41", "charset=unicode_escape é \\x41"),
        (b"Character set encoding: ASCII\n\ncaf\xe9", "Character set encoding: ASCII\n\ncafé"),
        (b"Character set encoding: none-such\n\ncaf\xe9", "Character set encoding: none-such\n\ncafé"),
    ],
)
def test_a_book_is_decoded_by_what_its_bytes_are(raw: bytes, text: str) -> None:
    assert decode(raw) == text


def test_a_book_that_is_binary_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04\0\0\0\0binary")
    (tmp_path / "b.txt").write_bytes(b" \r\n ")
    assert [record.reason for record in books.read(tmp_path / "a.txt")] == ["not_text"]
    assert [record.reason for record in books.read(tmp_path / "b.txt")] == ["empty_file"]


def test_line_ends_of_any_system_become_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    (record,) = books.read(tmp_path / "a.txt")
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
    assert gutenberg.parse(content).text == BODY


@pytest.mark.parametrize(
    "content",
    [
        f"{BODY}\n\nEnd of the Project Gutenberg EBook of X",
        f"The Project Gutenberg Etext of X, by Y\n\nTitle: X\nAuthor: Y\n\nLanguage: English\n\n\n{BODY}",
        f"Language: English\n\n*** START OF THE PROJECT GUTENBERG EBOOK 紅樓夢 ***\n\n{BODY}\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK 紅樓夢 ***",
        f"Header\n\n*** START OF THE PROJECT GUTENBERG ETEXT OF X ***\n\n{BODY}\n\n"
        "This file should be named 12.txt or 12.zip\n\nThe Project Gutenberg Literary Archive Foundation\n",
        f"Header\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{BODY}\n\nEnde dieses Projekt Gutenberg X\n",
        f"Header\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{BODY}\n\nFin du Projet Gutenberg X\n",
        f"Header\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nE-text prepared by A\n\n"
        f"Transcriber's Notes:\n\nSpelling was kept.\n\n\n\n{BODY}\n\nTranscriber's Note:\n\nTypos were mended.\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK X ***",
    ],
    ids=["no header", "lost mark", "chinese", "no end mark", "german", "french", "notes"],
)
def test_headers_and_footers_go_where_one_is_damaged_or_foreign(content: str) -> None:
    assert gutenberg.parse(content).text == BODY


def test_marks_that_a_book_quotes_do_not_cut_it() -> None:
    quoted = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***"
    before, after = (" ".join(prose(seed, 120) for seed in seeds) for seeds in (range(20), range(20, 40)))
    parsed = gutenberg.parse(book(f"{before}\n\n{quoted}\n\n{after}"))
    assert parsed.text.startswith(before[:500])
    assert parsed.text.endswith(after[-500:])
    assert parsed.title == "A Book"


def test_a_start_mark_without_a_header_before_it_is_the_books_own() -> None:
    before, after = prose(1, 300), prose(2, 300)
    text = gutenberg.parse(f"{before}\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{after}").text
    assert text.startswith(before)
    assert text.endswith(after)


def test_a_licence_that_no_mark_announces_goes() -> None:
    licence = "\n\n".join(
        f"{word} of Project Gutenberg are these." for word in ("Rules", "Terms", "Fees", "Tax", "Law")
    )
    body = prose(1, 100)
    assert gutenberg.parse(f"{body}\n\n{licence}").text == body


def test_a_book_on_gutenberg_the_printer_keeps_him() -> None:
    body = "John Gutenberg was born in Mainz.\n\nGutenberg printed a Bible."
    assert gutenberg.parse(book(body)).text == body


def test_a_title_has_its_subtitle_and_an_author_a_second_one() -> None:
    content = (
        "Title: Emma\n       A Novel\n\nAuthor: Jane Austen\n        A. Lady\n\n"
        "Release date: March 1, 1998 [eBook #158]\n                Most recently updated: 2021\n\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\n{BODY}"
    )
    parsed = gutenberg.parse(content)
    assert (parsed.title, parsed.author) == ("Emma: A Novel", "Jane Austen, A. Lady")
    assert (parsed.release_date, parsed.number) == ("March 1, 1998", "158")


def test_the_oldest_headers_state_title_and_author_in_their_first_line() -> None:
    parsed = gutenberg.parse(f"The Project Gutenberg Etext of Emma, by Jane Austen\n\n{OLD_HEADER}{BODY}")
    assert (parsed.title, parsed.author, parsed.text) == ("Emma", "Jane Austen", BODY)


def test_a_mark_inside_the_book_does_not_end_it_before_it_began() -> None:
    content = (
        f"End of Project Gutenberg's last book\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{BODY}"
    )
    assert gutenberg.parse(content).text == BODY


def test_the_header_states_title_author_language_and_date() -> None:
    parsed = gutenberg.parse(book(BODY, "Moby Dick", "Herman Melville"))
    assert (parsed.title, parsed.author, parsed.language) == ("Moby Dick", "Herman Melville", "English")
    assert parsed.release_date == "March 1, 2004"


def test_a_file_without_a_header_states_nothing() -> None:
    parsed = gutenberg.parse("Title: not a header\n\nbut a text")
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
    table = "Name        Height\nBen Nevis     1345\nSnowdon       1085"
    expected[2:2] = [STANZA, table, "CHAPTER II\nThe Return"]
    assert gutenberg.parse(book("\n\n".join(parts))).text == "\n\n".join(expected)


def test_italics_marks_and_illustrations_go() -> None:
    body = (
        "He was _very_ sure of _it\nall_, but snake_case_names stay.\n\n[Illustration: A whale]\n\nThe end."
    )
    text = gutenberg.parse(book(body)).text
    assert "very sure of it" in text
    assert "snake_case_names" in text
    assert "Illustration" not in text
    assert text.endswith("\n\nThe end.")


def test_chinese_text_loses_no_character() -> None:
    lines = [CHINESE.replace("\n", "")[i : i + 35] for i in range(0, 700, 35)]
    text = gutenberg.parse(book("第一回　賈雨村\n\n" + "\n".join(lines))).text
    assert text == "第一回　賈雨村\n\n" + "".join(lines)


def test_a_page_of_blank_lines_takes_no_time() -> None:
    assert gutenberg.parse("a" + "\n" * 300_000 + "b").text == "a\n\nb"
