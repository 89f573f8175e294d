"""Lines of books: wrapped prose is joined, everything else stands; a transcriber's apparatus goes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from data_pipeline.books import apparatus, gutenberg
from data_pipeline.books.lines import join_lines

WRAPPED = (
    "It is a truth universally acknowledged, that a single man in possession\n"
    "of a good fortune, must be in want of a wife. However little known the\n"
    "feelings or views of such a man may be on his first entering a neighbour-\n"
    "hood, this truth is so well fixed in the minds of the surrounding families."
)
JOINED = WRAPPED.replace("neighbour-\nhood", "neighbour-hood").replace("\n", " ")


def between_prose(block: str) -> str:
    """What becomes of a block in a book of wrapped prose."""
    text = join_lines("\n\n".join([WRAPPED, WRAPPED, block, WRAPPED]))
    assert text.startswith(f"{JOINED}\n\n{JOINED}\n\n")
    assert text.endswith(f"\n\n{JOINED}")
    return text[2 * len(JOINED) + 4 : -len(JOINED) - 2]


@pytest.mark.parametrize(
    "block",
    [
        "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"
        "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;",
        "One's-self I sing, a simple separate person,\nYet utter the word Democratic, the word En-Masse.",
        "CHAPTER I. Loomings.\nCHAPTER II. The Carpet-Bag.\nCHAPTER III. The Spouter-Inn.",
        "Paper  .....................................44.00\nBinding .................................. 90.00",
        "Dear Sir,\nYours of the 4th came to hand.\nYour servant,\nT. Paine",
        "HAMLET\nTo be, or not to be.",
        "Abbas Effendi, an interview with, i. 23\nAbd, tribe of, 12\nAbdullah, son of Sa'ud, and others, 33",
    ],
    ids=["sonnet", "free verse", "contents", "leaders", "letter", "play", "index"],
)
def test_what_is_no_wrapped_prose_keeps_its_lines(block: str) -> None:
    assert between_prose(block) == block


@pytest.mark.parametrize(
    ("block", "joined"),
    [
        (
            "     Populous are the plains, and the people who live in them\n"
            "     are of many tongues, and none of them can say whence he\n     came, nor why.",
            "Populous are the plains, and the people who live in them are of many tongues, and none of them can "
            "say whence he came, nor why.",
        ),
        (
            "46 Few people have reflected how great a knowledge of things is needed\n"
            "   to enable a man to affirm that any given argument turns wholly upon\n   words, and on them only.",
            "46 Few people have reflected how great a knowledge of things is needed to enable a man to affirm that "
            "any given argument turns wholly upon words, and on them only.",
        ),
        (
            "   The first of them went out early in the morning, when the others\n"
            "were asleep, and came back at night with a sack upon his shoulders.\n"
            "   The second one stayed in bed for the whole of the day, for which\n"
            "he was blamed by nobody, since nobody but he was ever in the house.",
            "The first of them went out early in the morning, when the others were asleep, and came back at night "
            "with a sack upon his shoulders.\n\nThe second one stayed in bed for the whole of the day, for which he "
            "was blamed by nobody, since nobody but he was ever in the house.",
        ),
        (
            "There was a man of many pre- and post-war\nhabits whom the neighbours knew--though not by name or\n"
            "sight--as the one who came at a quarter past the hour, and the pre-\nand the post-war folk knew him.",
            "There was a man of many pre- and post-war habits whom the neighbours knew--though not by name or "
            "sight--as the one who came at a quarter past the hour, and the pre- and the post-war folk knew him.",
        ),
    ],
    ids=["set in", "hanging", "indented first lines", "hyphens"],
)
def test_prose_is_joined_however_it_is_set(block: str, joined: str) -> None:
    assert between_prose(block) == joined


def test_a_centred_title_page_loses_its_indents_and_keeps_its_lines() -> None:
    block = "             THE\n       SCARLET LETTER.\n              BY\n      NATHANIEL HAWTHORNE."
    assert between_prose(block) == "THE\nSCARLET LETTER.\nBY\nNATHANIEL HAWTHORNE."


def test_a_book_whose_paragraphs_are_not_wrapped_stays_as_it_is() -> None:
    body = "\n".join(f"Paragraph {number} " + "word " * (60 + number) + "end." for number in range(20))
    assert join_lines(body) == body


def test_han_prose_is_joined_without_spaces_and_verse_is_not() -> None:
    line = "話說天下大勢，分久必合，合久必分：周末七國分爭，并入於秦。及秦滅之後，楚"
    verse = "　　　　混沌未分天地亂，茫茫渺渺無人見。\n　　　　自從盤古破鴻濛，開闢從茲清濁辨。"
    body = f"　　{line[2:]}\n{line}\n{line[:9]}\n　　{line[2:]}\n{line}\n{line[:5]}\n\n{verse}"
    joined = f"{line[2:]}{line}{line[:9]}\n\n{line[2:]}{line}{line[:5]}\n\n{verse.strip(chr(10))}"
    assert join_lines(body) == joined


def test_a_short_line_of_han_text_ends_its_paragraph_and_sentences_on_lines_of_their_own_stay() -> None:
    line = "話說天下大勢，分久必合，合久必分：周末七國分爭，并入於秦。及秦滅之後，楚"
    assert (
        join_lines(f"{line}\n{line}\n{line[:9]}\n第二回\n{line}")
        == f"{line}{line}{line[:9]}\n\n第二回\n{line}"
    )
    sentences = "\n".join(
        "子曰學而時習之不亦說乎有朋自遠方來不亦樂乎人不知而不慍不亦君子乎"[: 4 + 3 * n] for n in range(11)
    )
    assert join_lines(sentences) == sentences


def test_verse_that_fills_the_page_is_verse_by_its_capitals() -> None:
    verse = "\n".join(
        f"{word} many a wandering soul beneath the slow and turning stars of heaven"
        for word in ("Then", "And then", "So", "Yet now", "Once more", "O", "Still")
    )
    verse = verse.replace("So many a wandering", "So a").replace("O many a wandering", "O a")
    assert between_prose(verse) == verse


@pytest.mark.parametrize(
    "body", [f"[Illustration: {'x ' * 3000}] end", "a\n\n" + "".join(f"[{n}]\n\nb\n\n" for n in range(9))]
)
def test_what_only_looks_like_apparatus_stays(body: str) -> None:
    assert apparatus.strip_apparatus(body) == body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("A [Illustration: a whale\n\nwith [Greek: logos] and\n\na caption] tail.", "A  tail."),
        (
            "[Illustration: never closed\n\nThe book goes on.",
            "[Illustration: never closed\n\nThe book goes on.",
        ),
        ("He said [Pg 12]that he\n[Page xii] knew.", "He said that he\nknew."),
        ("who,\n\n[p.2]according to some", "who,\naccording to some"),
        ("The end.\n\n[Pg 3]\n\nNext.", "The end.\n\n\n\nNext."),
        ("A note.[12]\n\n[12] The note.", "A note.[12]\n\n[12] The note."),
        ("".join(f"word {{{number}}} word " for number in range(10, 20)), "word word " * 10),
        ("the set {1} and {3}", "the set {1} and {3}"),
        ("[ 1 ]\n\nStately\n\n[ 2 ]\n\nplump", "[ 1 ]\n\nStately\n\n[ 2 ]\n\nplump"),
        ("so [Transcriber's note: sic] it was", "so  it was"),
    ],
)
def test_page_marks_and_illustrations_go_and_footnotes_stay(body: str, text: str) -> None:
    assert apparatus.strip_apparatus(body) == text


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("_very_ sure of _it all_.", "very sure of it all."),
        ("a snake_case_name and __init__", "a snake_case_name and __init__"),
        ("=21=. =Bold words= here", "21. Bold words here"),
        ("a = b = c, x=y=z", "a = b = c, x=y=z"),
        ("_First\nline_", "First\nline"),
        ("_open\n\nand_ apart", "_open\n\nand_ apart"),
    ],
)
def test_emphasis_marks_go_without_joining_words(marked: str, text: str) -> None:
    assert apparatus.strip_emphasis(marked) == text


@pytest.mark.parametrize(
    "unit",
    [
        *(
            ".",
            "*",
            "[",
            "]",
            "_",
            "=",
            "{1}",
            "\n",
            " \n",
            "-",
            "[Illustration ",
            "[Pg 1",
            "*** START OF ",
            "\n* ",
        ),
        *("End of Project Gutenberg\n", "a_ ", "Transcriber's note\n", "　", "Title: x\n", "=a"),
    ],
)
def test_hostile_text_takes_seconds(unit: str) -> None:
    content = (unit * (2_000_000 // len(unit) + 1))[:2_000_000]
    start = time.process_time()
    gutenberg.parse(content)
    gutenberg.parse_unwrapped(content)
    assert time.process_time() - start < 10


def test_every_han_character_of_real_books_survives_in_order(shared_data: Path) -> None:
    han = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
    for path in sorted((shared_data / "books" / "pg-zh").glob("*.txt")):
        content = path.read_text("utf-8")
        text = gutenberg.parse(content).text
        assert han.findall(text) == han.findall(content), path.name
        # Nothing is added: but for white space, the text is a part of the file.
        assert "".join(text.split()) in "".join(content.split()), path.name
        assert text.count("\n") < 0.5 * content.count("\n"), path.name
