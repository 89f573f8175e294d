"""The fast repair does what plain ftfy does, looking at few lines; hostile text costs it no more than its length."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import ftfy
import pytest
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mojibake import MAX_LEVELS, QUOTED_ENTITY, SETTINGS, SUSPECT, repair
from data_pipeline.patterns import linear
from tests.data_pipeline.real_texts import real_texts

# Line ends and control characters that data_pipeline.clean takes out before the repair.
NOT_OURS = re.compile("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u206a-\u206f\ufeff\ufff9-\ufffc]")


def plain(text: str) -> str:
    """ftfy as it is."""
    return ftfy.fix_text(text, SETTINGS)


@pytest.mark.slow
def test_all_real_texts_are_repaired_as_by_plain_ftfy(shared_data: Path) -> None:
    num_texts = num_repaired = 0
    for text in real_texts(shared_data):
        text = NOT_OURS.sub("", text)
        if QUOTED_ENTITY.search(text):
            continue  # the one place where we do otherwise, shown below
        repaired = repair(text)
        assert repaired == plain(text)
        num_texts += 1
        num_repaired += repaired != text
    assert num_texts > 3500
    assert num_repaired > 30, "with nothing to repair, nothing is compared"


def _characters() -> list[str]:
    """Every character that ftfy knows of in mojibake, and ordinary ones beside them."""
    found: set[str] = set()
    for written in MOJIBAKE_CATEGORIES.values():
        for first, last, single in re.findall(r"(.)-(.)|(.)", written, re.DOTALL):
            found |= {chr(code) for code in range(ord(first), ord(last) + 1)} if first else {single}
    return (
        sorted(found)
        + list("abzAZ 09.,?!\n·ЂвВГРСўβΒΓΞΟāà®°µ»×²³√±∂†≠™´≤≥¥µø≈¢‚ÄìîïòôúùûπâóäêÂÃÎÐ€œŠšŸž\xa0\xad©ØÙ中あ")
        * 4
    )


def test_wherever_ftfy_sees_bad_text_the_screen_sees_it_too() -> None:
    characters, chance, suspect = _characters(), random.Random(0), linear(SUSPECT)
    num_bad = 0
    for _ in range(30_000):
        text = "".join(chance.choice(characters) for _ in range(chance.randint(1, 5)))
        if BADNESS_RE.search(text):
            num_bad += 1
            assert suspect.search(text + "\n"), repr(text)
    assert num_bad > 5000


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.lists(st.sampled_from([*_characters(), "&", "<", ";", "&amp;", "â€™"]), max_size=8), max_size=4
    )
)
def test_whatever_the_lines_they_are_repaired_as_by_plain_ftfy(lines: list[list[str]]) -> None:
    text = "\n".join("".join(line) for line in lines)
    assert repair(text) == plain(text)


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("cafÃ© â€” itâ€™s", "café — it’s"),
        ("AT&amp;T, &eacute;t&eacute;", "AT&T, été"),
        ("&amp;amp;lt;", "<"),
        ("<p>AT&amp;T</p>\nB&amp;B", "<p>AT&amp;T</p>\nB&amp;B"),
        ("B&amp;B\n<p>AT&amp;T</p>", "B&B\n<p>AT&amp;T</p>"),
        ("l’humanitÃ© et voilÃ le travail", "l’humanité et voilà le travail"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
    ],
)
def test_what_ftfy_repairs_is_repaired(text: str, repaired: str) -> None:
    assert repair(text) == plain(text) == repaired


@pytest.mark.parametrize("code", ['text.replace("&lt;", "[")', "s = s.split('&amp;')", "use `&nbsp;` here"])
def test_code_that_handles_entities_keeps_them(code: str) -> None:
    assert plain(code) != code
    assert repair(code) == code


def test_entities_nested_deeper_than_anyone_writes_are_left() -> None:
    nested = "&" + "amp;" * (MAX_LEVELS + 3)
    assert repair(nested) == "&" + "amp;" * 3


@pytest.mark.parametrize(
    "piece",
    [
        "amp;",
        "&amp;",
        "&#38;",
        "&am&#1;p;",
        "Ã©",
        "â€™",
        "Ã\x83",
        "œ ",
        "Ã\xa0 ",
        "вЂ«",
        "\x80",
        "¤Ã",
        "Ã\ufffd",
        "Ã à",
    ],
)
def test_hostile_text_takes_time_in_proportion(piece: str) -> None:
    seconds = []
    for size in (50_000, 200_000):
        text = ("&" + piece * size)[:size]
        began = time.process_time()
        repair(text)
        seconds.append(time.process_time() - began)
    # Quadratic time would be sixteen-fold.
    assert seconds[1] < 10 * seconds[0] + 0.5
