"""Each quality rule on a text that just misses it, and good texts that pass them all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.books import gutenberg
from data_pipeline.errors import InputError
from data_pipeline.filter_presets import PRESETS, FilterOptions, bounds_of, preset_of
from data_pipeline.filters import RULES, filter_documents, judge
from data_pipeline.schema import Verdict
from data_pipeline.sources import books
from tests.data_pipeline.made_inputs import prose

ANY = FilterOptions(min_words=1)
LINES = [prose(seed, 9) for seed in range(10)]

CASES = {
    "too_few_words": ("one two three four", FilterOptions(min_words=5), 4, 5),
    "too_many_words": ("one two three four", FilterOptions(min_words=1, max_words=3), 4, 3),
    "undecodable_characters": ("a" * 98 + "\ufffd" * 2, FilterOptions(min_words=1), 0.02, 0.001),
    "too_few_letters": ("ab 123456", ANY, 0.25, 0.5),
    "too_many_symbols": ("one two # three ... four", ANY, 0.5, 0.1),
    "too_many_bullets": ("- one\n• two\n* three", ANY, 1.0, 0.9),
    "too_many_ellipsis_lines": ("\n".join([*LINES[:3], LINES[3] + "...", LINES[4] + "…"]), ANY, 0.4, 0.3),
    "duplicate_lines": ("same line\nsame line\nelse line", ANY, 9 / 27, 0.3),
    "lorem_ipsum": ("Lorem Ipsum dolor sit amet", ANY, None, None),
}


@pytest.mark.parametrize("reason", CASES)
def test_a_rule_names_its_reason_what_it_measured_and_its_bound(reason: str) -> None:
    text, options, value, threshold = CASES[reason]
    verdict = judge(text, options)
    assert verdict is not None
    assert verdict.reason == reason
    assert verdict.value == (value if value is None else pytest.approx(value))
    assert verdict.threshold == threshold


def test_every_rule_has_a_case() -> None:
    assert len(CASES) == len(RULES)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("one two three four five", FilterOptions(min_words=5)),
        ("one two three", FilterOptions(min_words=1, max_words=3)),
        ("a" * 999 + "\ufffd", ANY),
        ("ab 12", ANY),
        ("one two three four five six seven eight nine ten #", ANY),
        ("\n".join(["- bullet"] * 0 + [f"- {line}" for line in LINES[:9]] + [LINES[9]]), ANY),
        (
            "\n".join([*LINES[:7], *(f"{line}..." for line in LINES[7:])]),
            FilterOptions(min_words=1, max_symbol_ratio=1),
        ),
        ("aaaaaaa\naaaaaaa\n" + "b" * 10, ANY),
        ("lorem ipsum", FilterOptions(min_words=1, drop_lorem_ipsum=False)),
    ],
)
def test_a_text_on_the_bound_passes(text: str, options: FilterOptions) -> None:
    assert judge(text, options) is None


def test_short_lines_may_repeat() -> None:
    assert judge("\n".join(["* *", LINES[0], "* *", LINES[1], "* *"]), ANY) is None


GOOD = {
    "web": prose(1, 200),
    "books": "\n\n".join(prose(seed, 80) for seed in range(5)),
    "wiki": prose(2, 60),
    "permissive": "ok",
}
CHINESE = (
    "盼望着，盼望着，东风来了，春天的脚步近了。一切都像刚睡醒的样子，欣欣然张开了眼。山朗润起来了，水涨起来了，太阳的脸红起来了。\n"
    "小草偷偷地从土里钻出来，嫩嫩的，绿绿的。园子里，田野里，瞧去，一大片一大片满是的。坐着，躺着，打两个滚，踢几脚球，赛几趟跑。\n"
)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_good_text_passes_its_preset(preset: str) -> None:
    assert judge(GOOD[preset], PRESETS[preset]) is None
    assert judge(CHINESE, PRESETS[preset]) is None


def test_an_empty_text_never_passes() -> None:
    for options in PRESETS.values():
        verdict = judge("", options)
        assert verdict == Verdict("too_few_words", 0, options.min_words)


def test_rows_are_judged_and_counted() -> None:
    table = pa.table({"text": ["too short", "春天来了", "three words here"]})
    kept, removed = filter_documents(table, bounds_of("files", "", {"min_words": 3}))
    assert kept.select(["text", "num_words"]).to_pylist() == [
        {"text": "春天来了", "num_words": 4},
        {"text": "three words here", "num_words": 3},
    ]
    (row,) = removed.to_pylist()
    assert (row["stage"], row["reason"], row["num_words"], row["value"], row["threshold"]) == (
        *("filter", "too_few_words", 2, 2.0, 3.0),
    )


def test_a_bound_of_its_own_is_laid_over_the_preset() -> None:
    bounds = bounds_of("web", "", {"min_words": 5, "drop_lorem_ipsum": 0})
    assert judge("Lorem ipsum dolor sit amet.", bounds) is None
    assert (bounds.min_words, bounds.max_words) == (5, PRESETS["web"].max_words)
    assert bounds_of("wiki", "books", {}) == PRESETS["books"]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"min_word": 5.0}, r"sources\.filters: 'min_word' is no bound; there are min_words, "),
        ({"min_words": -1.0}, r"sources\.filters\.min_words: -1\.0"),
        ({"max_symbol_ratio": float("nan")}, r"sources\.filters\.max_symbol_ratio: nan"),
    ],
)
def test_a_bound_that_is_none_is_one_line(own: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bounds_of("web", "", own)


def test_a_kind_has_a_preset_and_a_wrong_name_is_one_line() -> None:
    assert [preset_of(kind, "") for kind in ("web", "books", "wiki", "files")] == [
        *("web", "books", "wiki", "permissive"),
    ]
    assert preset_of("files", "web") == "web"
    with pytest.raises(InputError, match=r"sources\.preset: 'wbe' is none of web, books"):
        preset_of("web", "wbe")


def test_real_books_pass(shared_data: Path) -> None:
    for path in [
        *sorted((shared_data / "books" / "pg-en").glob("*.txt"))[:8],
        *(shared_data / "books" / "pg-zh").iterdir(),
    ]:
        (record,) = books.read(path)
        assert judge(gutenberg.parse(record.content).text, PRESETS["books"]) is None, path.name
