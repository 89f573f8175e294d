"""Normalisation repairs what is broken and touches nothing else."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.clean import INVISIBLE, LATE_INVISIBLE, MAX_MARKS, _normalise, clean_text, storable
from data_pipeline.config import CleanConfig
from tests.data_pipeline.real_texts import real_texts

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
        ("\n\n\none\n\n\n\n\ntwo\n\n", "one\n\n\ntwo"),
        ("a page\x0cbreak", "a page\nbreak"),
        ("isolated \u2066marks\u2069, object \ufffc", "isolated marks, object"),
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


PYTHON = '''\
#!/usr/bin/env python
"""Read more about it in the docs. Accept all cookies."""

import re


ENTITIES = {"&lt;": "<", "&amp;": "&"}


class Reader(Base):
    share = {"facebook": 1, "twitter": 2}  # share this

    def read(self, more: bool = False) -> str | None:
        if more and self.menu:
\t    return f"{self.text!r:>10}…"
        return re.sub(r"(?<=\\d),(?=\\d{3})", "", self.text) or None


print(Reader().read(more=True))
>>> print("email")
email
'''
C = """\
#include <stdio.h>
/* All rights reserved. */
int main(int argc, char **argv) {
\tfor (int i = 0; i < argc && argv[i]; i++)
\t\tprintf("%s\\n", argv[i]);   // more
\treturn 0;
}"""
YAML = """\
share:
  twitter: true
  email: print
menu:
- more
- "read": yes
cookies:
  accept: all"""
VERSE = """\
    Advertise no more, my heart:
        the reader reads, the sharer shares,
    and more, and more, and more…


                II

  Tweet, tweet, tweet — the sparrow’s part
      is all the morning bears."""
MATHS = """\
\\begin{align}
  \\nabla \\times \\mathbf{E} &= -\\frac{\\partial \\mathbf{B}}{\\partial t} \\\\
  e^{i\\pi} + 1 &= 0
\\end{align}
x² + y² ≤ r², √2 ≈ 1.414, ∑ᵢ aᵢ ≠ ∏ᵢ bᵢ, ∀ε>0 ∃δ: |x−a|<δ ⇒ |f(x)−L|<ε, 5 × 10⁻³, α → β"""
TABLE = """\
| Network  | Facebook | Twitter | Share |
|----------|---------:|--------:|------:|
| Email    |    1,234 |     567 |  12 % |
| Print    |       89 |      10 |       |

┌───────┬──────┐
│ Größe │ 10 ° │
├───────┼──────┤
│ été   │ 3 £  │
└───────┴──────┘
name\tvalue\tunit
more\t12.5\tkg
Facebook,Twitter,Email"""
CHINESE = """\
　　话说天下大势，分久必合，合久必分。「更多」者，“多”也……
　　第一章　总则（ＡＢＣ）
1．全部内容：见附件；2．分享与关注。"""
PROSE = """\
“Read more,” she said. “Show me more – share it with us on the way.”

The law says that websites that use cookies must ask. If you continue, you agree.
Please enable us to go on; JavaScript is a language, and your browser runs it."""


@pytest.mark.parametrize(
    "text", [PYTHON, C, YAML, VERSE, MATHS, TABLE, CHINESE, PROSE], ids=lambda text: text[:12]
)
def test_code_verse_maths_and_tables_come_out_as_they_went_in(text: str) -> None:
    config = CleanConfig(stock_lines=True)
    assert clean_text(text, config) == text.rstrip("\n")


def test_full_width_forms_fold_only_where_asked() -> None:
    text = "ＡＢＣ１２，。「引号」ｶﾞｷﾞ　完"
    assert clean_text(text, CONFIG) == text
    assert clean_text(text, CleanConfig(width="letters")) == "ABC12，。「引号」ｶﾞｷﾞ　完"
    assert clean_text(text, CleanConfig(width="all")) == "ABC12,。「引号」ガギ　完"
    assert clean_text(text, CleanConfig(normalization="NFKC")) == "ABC12,。「引号」ガギ 完"


def test_a_pile_of_combining_marks_is_cut_and_words_of_any_language_are_not() -> None:
    pile = "a" + "\u0316\u0301" * 100_000
    began = time.process_time()
    cleaned = clean_text(f"{pile}b", CONFIG)
    # Putting them all in order would take minutes.
    assert time.process_time() - began < 5
    assert len(cleaned) <= MAX_MARKS + 2
    words = "בְּרֵאשִׁ֖ית בָּרָ֣א हिन्दी ภาษาไทยที่ Tiếng Việt ཨོཾ་མ་ཎི"
    assert clean_text(words, CONFIG) == unicodedata.normalize("NFC", words)


@pytest.mark.slow
def test_all_real_texts_are_cleaned_as_without_the_screen_and_cleaning_twice_is_cleaning_once(
    shared_data: Path,
) -> None:
    config = CleanConfig(stock_lines=True)
    num_changed = 0
    for text in real_texts(shared_data):
        cleaned = clean_text(text, config)
        assert cleaned == _normalise(_normalise(text, config), config)
        assert clean_text(cleaned, config) == cleaned
        num_changed += cleaned != text
    assert num_changed > 1000


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
    assert "\n\n\n\n" not in cleaned
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
