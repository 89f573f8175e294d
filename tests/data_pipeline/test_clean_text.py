"""Normalisation repairs what is broken and touches nothing else."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.clean import INVISIBLE, LATE_INVISIBLE, clean_text, storable
from data_pipeline.config import CleanConfig

CONFIG = CleanConfig()
PLAIN = CleanConfig(fix_encoding=False)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafÃ© â€” itâ€™s", "café — it’s"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff and\u2060 soft\u00adhyphen", "zerowidth and softhyphen"),
        ("one\r\ntwo\rthree\u2028four\u2029five", "one\ntwo\nthree\nfour\n\nfive"),
        ("bell\x07 and\x00 escape\x1b[0m", "bell and escape"),
        ("trailing  \t\nspaces\u3000\xa0", "trailing\nspaces"),
        ("\n\n\none\n\n\n\n\ntwo\n\n", "one\n\ntwo"),
        ("right-to-left \u202emark\u202c", "right-to-left mark"),
        ("a stray\u200d joiner", "a stray joiner"),
    ],
)
def test_noise_is_repaired_or_removed(text: str, cleaned: str) -> None:
    assert clean_text(text, CONFIG) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    if x:\n\treturn x  # tab\n    return None",
        "Shall I compare thee\n    to a summer's day?\n\nThou art more lovely",
        "Name    Height\nBen     1345\n        --",
        "“Curly” quotes, ‘these’ too, and ﬁ ligatures…",
        "全角，标点。「引号」　空格",
        "می\u200cخواهم",  # a zero-width non-joiner that belongs there
        "👩\u200d👧 family",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 and 日本語 and emoji 🎉",
    ],
)
def test_code_verse_tables_and_scripts_stay_as_they_are(text: str) -> None:
    assert clean_text(text, CONFIG) == text


def test_full_width_forms_fold_only_where_asked() -> None:
    assert clean_text("ＡＢＣ１", CONFIG) == "ＡＢＣ１"
    assert clean_text("ＡＢＣ１", CleanConfig(normalization="NFKC")) == "ABC1"


def test_a_mark_that_comes_to_stand_beside_its_letter_is_composed() -> None:
    assert clean_text("e\u200b\u0301", CONFIG) == "é"


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_a_lone_surrogate_becomes_a_replacement_character(config: CleanConfig) -> None:
    assert clean_text("a\ud800b", config) == "a\ufffdb"


@given(st.text(st.characters(), max_size=40))
def test_any_text_can_be_stored_and_good_text_is_not_changed(text: str) -> None:
    stored = storable(text)
    stored.encode("utf-8")
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert stored == text


@settings(deadline=None)
@given(st.text(st.characters(), max_size=60), st.sampled_from([CONFIG, PLAIN]))
def test_cleaned_text_is_normal_visible_and_storable(text: str, config: CleanConfig) -> None:
    cleaned = clean_text(text, config)
    cleaned.encode("utf-8")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not re.search(f"[{INVISIBLE}{LATE_INVISIBLE}]", cleaned)
    assert "\n\n\n" not in cleaned
    assert not any(line.endswith((" ", "\t", "\u3000", "\xa0")) for line in cleaned.split("\n"))


@settings(deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text, PLAIN)
    assert clean_text(once, PLAIN) == once


@pytest.mark.parametrize(
    "line", [" " * 400_000, "a" * 400_000, "a " * 200_000, "\u200d" * 400_000, "\n" * 40_000]
)
def test_a_very_long_line_is_cleaned_like_any_other(line: str) -> None:
    # Quadratic time here would run into the suite's time limit.
    assert clean_text(f"x{line}y", CONFIG).startswith("x")


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        ("<function f at 0x7f3a12345678>", "<function f>"),
        ("[<weakref at 0x7f3a12345678; to 'Handler'>]", "[<weakref; to 'Handler'>]"),
        ("parser=&lt;Parser object at 0x7f3a12345678&gt;, x", "parser=<Parser object>, x"),
        ("jump at 0x7f3a12345678 and on", "jump at 0x7f3a12345678 and on"),
    ],
)
def test_addresses_of_printed_objects_go_where_that_is_asked_for(printed: str, left: str) -> None:
    found = clean_text(printed, CleanConfig(strip_addresses=True))
    assert found.replace("&lt;", "<").replace("&gt;", ">") == left
    assert "0x7f3a12345678" in clean_text(printed, CleanConfig())
