"""Words as integers: what a word is, and what makes two of them equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.words import count_words, word_hashes


def words(text: str) -> list[int]:
    return word_hashes(text).tolist()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n—!? ", 0),
        ("one", 1),
        ("one, two;three\nfour", 4),
        ("abc123 4.5", 3),
        ("cafe\u0301 naïve", 2),
        ("Привет мир", 2),
        ("안녕 세계", 2),
        ("春天来了", 4),
        ("カタカナとかな", 7),
        ("Python语言3", 4),
        ("𠀀𠀁", 2),
        ("สวัสดี", 6),
    ],
)
def test_words_are_counted_and_a_character_is_a_word_where_none_are_spaced(text: str, count: int) -> None:
    assert count_words(text) == count


def test_case_does_not_matter_and_order_does() -> None:
    assert words("The QUICK Fox ÉTÉ ПРИВЕТ") == words("the quick fox été привет")
    assert words("one two") != words("two one")
    assert words("one two") == words("two one")[::-1]


def test_punctuation_and_spaces_only_part_words() -> None:
    assert words("one, two!") == words(" one\n\ntwo ")
    assert words("春，天") == words("春天")
    assert words("onetwo") != words("one two")


@given(st.lists(st.text("abcxyz", min_size=1, max_size=5), max_size=20))
def test_equal_words_have_equal_hashes_and_different_ones_do_not(parts: list[str]) -> None:
    hashes = words(" ".join(parts))
    assert len(hashes) == len(parts)
    assert len(set(hashes)) == len(set(parts))


@given(st.text(max_size=60))
def test_punctuation_around_a_text_changes_no_word(text: str) -> None:
    assert words(f"({text})") == words(text)
    assert count_words(text) == len(words(text))


@given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["L", "N", "M", "Cs"]), max_size=60))
def test_a_text_without_letters_and_digits_has_no_words(text: str) -> None:
    assert count_words(text) == 0
