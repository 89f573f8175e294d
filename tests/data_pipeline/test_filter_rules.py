"""Each quality rule on a text that just misses its bound and on one that just keeps it; presets; bounds of a source."""

from __future__ import annotations

import dataclasses
import math

import pyarrow as pa
import pytest

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.errors import InputError
from data_pipeline.filter_presets import PRESETS, UNBOUNDED, FilterOptions, bounds_of, preset_of
from data_pipeline.filters import filter_documents
from data_pipeline.filters.rules import RULES
from data_pipeline.schema import Verdict
from tests.data_pipeline.made_inputs import prose

LINES = [prose(seed, 9) for seed in range(10)]


def judge(text: str, options: FilterOptions, lang: str = "en") -> Verdict | None:
    """What becomes of one text."""
    kept, removed = filter_documents(pa.table({"text": [text], "lang": [lang]}), options)
    assert kept.num_rows + removed.num_rows == 1
    rows = removed.select(["reason", "value", "threshold"]).to_pylist()
    return Verdict(**rows[0]) if rows else None


def twice(size: int) -> str:
    """A run of words that stands twice, in ten words that do not."""
    words = [f"w{index}" for index in range(size)]
    return " ".join([*words, *(f"x{index}" for index in range(10)), *words])


# {reason: (text, bound, a value that the text misses, what is measured)}; the text keeps a bound of just that.
CASES: dict[str, tuple[str, str, float, float]] = {
    "too_few_words": ("one two, three four.", "min_words", 5, 4),
    "too_many_words": ("one two, three four.", "max_words", 3, 4),
    "undecodable_characters": ("a" * 98 + "\ufffd" * 2, "max_replacement_ratio", 0.01, 0.02),
    "too_few_letters": ("ab 123456", "min_letter_ratio", 0.5, 0.25),
    "too_many_digits": ("ab 123456", "max_digit_ratio", 0.5, 0.75),
    "words_too_short": ("a, bc", "min_mean_word_letters", 2, 1.5),
    "words_too_long": ("abcdef ab", "max_mean_word_letters", 3, 4),
    "too_many_hash_signs": ("one two # three four", "max_symbol_ratio", 0.1, 0.2),
    "too_many_ellipses": ("one two ... three…", "max_symbol_ratio", 0.1, 0.4),
    "too_many_bullets": ("- one\n• two\n\n* three\nfour", "max_bullet_ratio", 0.5, 0.75),
    "too_many_ellipsis_lines": (
        "\n".join([*LINES[:3], LINES[3] + "...", LINES[4] + "…"]),
        "max_ellipsis_ratio",
        0.3,
        0.4,
    ),
    "too_few_letter_words": ("one two 3 4, -", "min_letter_word_ratio", 0.8, 1 / 3),
    "too_few_stop_words": ("The cat and the dog, and THE bird", "min_stop_words", 3, 2),
    "duplicate_paragraphs": ("one\ntwo\n\none\n two\n\nfour", "max_duplicate_paragraph_ratio", 0.3, 1 / 3),
    "duplicate_paragraph_chars": (
        "one\ntwo\n\none\ntwo\n\nfour",
        "max_duplicate_paragraph_char_ratio",
        0.3,
        7 / 22,
    ),
    "duplicate_lines": ("same line\n\n  same line\nelse line", "max_duplicate_line_ratio", 0.3, 1 / 3),
    "duplicate_line_chars": ("same line\nsame line\nelse", "max_duplicate_line_char_ratio", 0.2, 9 / 24),
    "top_2gram": ("a b c a b d", "max_top_2gram_ratio", 0.5, 6 / 11),
    "top_3gram": ("a b c d a b c", "max_top_3gram_ratio", 0.5, 10 / 13),
    "top_4gram": ("a b c d e a b c d", "max_top_4gram_ratio", 0.5, 14 / 17),
    **{
        f"duplicate_{size}grams": (
            twice(size),
            f"max_duplicate_{size}gram_ratio",
            0.05,
            len("".join(f"w{index}" for index in range(size))) / len(twice(size)),
        )
        for size in range(5, 11)
    },
    "lorem_ipsum": ("Here Lorem Ipsum dolor sit amet", "drop_lorem_ipsum", True, 1),
    "curly_bracket": ("A line with { five words", "drop_curly_bracket", True, 1),
    "too_few_sentences": (
        "One line ends here. Dr. No has another one!\nToo short. It is.",
        "min_sentences",
        3,
        2,
    ),
    "too_few_sentence_lines": (
        "It ends.\nIt says (it ends.)\nIt does not\n“Ends?”",
        "min_sentence_line_ratio",
        0.8,
        0.75,
    ),
    "too_many_short_lines": (f"{LINES[0]}\nshort\n\nshort", "max_short_line_ratio", 0.5, 2 / 3),
    "too_many_line_breaks": ("one\ntwo\n\nthree", "max_line_feed_ratio", 0.3, 1),
}
LISTED = {"blocked_url", "blocked_words"}  # tests/data_pipeline/test_block_lists.py


@pytest.mark.parametrize("reason", CASES)
def test_a_rule_names_its_reason_what_it_measured_and_its_bound(reason: str) -> None:
    text, bound, missed, value = CASES[reason]
    verdict = judge(text, dataclasses.replace(UNBOUNDED, **{bound: missed}))
    is_switch = bound.startswith("drop_")
    assert verdict == Verdict(reason, pytest.approx(value), 0 if is_switch else missed)


@pytest.mark.parametrize("reason", CASES)
def test_a_text_on_the_bound_passes(reason: str) -> None:
    text, bound, _, value = CASES[reason]
    kept = dataclasses.replace(UNBOUNDED, **{bound: False if bound.startswith("drop_") else value})
    assert judge(text, kept) is None


def test_every_rule_has_a_case_and_names_a_bound() -> None:
    assert {rule.reason for rule in RULES} - LISTED == set(CASES)
    assert {rule.bound for rule in RULES} <= {entry.name for entry in dataclasses.fields(FilterOptions)}
    assert len({rule.reason for rule in RULES}) == len(RULES)


def test_the_first_rule_in_order_names_the_reason() -> None:
    options = dataclasses.replace(UNBOUNDED, min_words=5, min_letter_ratio=0.9)
    assert judge("1 2", options) == Verdict("too_few_words", 2, 5)


def test_nothing_repeats_in_a_short_text() -> None:
    # As datatrove counts, two words of three are half of the text and more.
    options = dataclasses.replace(UNBOUNDED, max_top_2gram_ratio=0.2)
    assert judge("one two three", options) is None
    assert judge("one two three", dataclasses.replace(options, min_gram_count=1)) is not None


def test_the_lines_that_c4_keeps() -> None:
    five = dataclasses.replace(UNBOUNDED, min_sentences=2, needs_end_mark=True, min_line_words=5)
    assert judge("This line has six words in it. And one more.", five) is None
    for other in (
        "This line has six words in it. And no end",
        "This line has six words in it. And one more...",
        "This line has JavaScript and six words. And one more.",
        "This site uses cookies like all the others. And one more.",
        f"This line has a long {'x' * 1001}. And one more.",
        "Two words. Two more.",
    ):
        assert judge(other, five) is not None, other
    assert (
        judge("A citation[1] is no part of the sentence.[12] Nor is[citation needed] another.[edit]", five)
        is None
    )


# ------------------------------------------------------------------------------------- scripts without spaces

CHINESE = (
    "盼望着，盼望着，东风来了，春天的脚步近了。一切都像刚睡醒的样子，欣欣然张开了眼。山朗润起来了，水涨起来了，太阳的脸红起来了。\n"
    "小草偷偷地从土里钻出来，嫩嫩的，绿绿的。园子里，田野里，瞧去，一大片一大片满是的。坐着，躺着，打两个滚，踢几脚球，赛几趟跑。\n"
)
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは"
    "記憶している。吾輩はここで始めて人間というものを見た。しかもあとで聞くとそれは書生という人間中で一番獰悪な種族であったそうだ。"
)
THAI = (
    "วันนี้อากาศดีมากและฉันไปเดินเล่นที่สวนสาธารณะกับเพื่อนของฉัน "
    "หลังจากนั้นเราไปกินข้าวที่ร้านอาหารใกล้บ้าน แล้วกลับมาอ่านหนังสือจนถึงเย็น ตอนกลางคืนฝนตกหนักมากและไฟฟ้าดับไปหลายชั่วโมง "
    "แต่เช้าวันรุ่งขึ้นท้องฟ้าก็แจ่มใส เด็กๆ ออกไปเล่นฟุตบอลในสนามหน้าโรงเรียน ส่วนพ่อแม่ทำงานอยู่ในไร่นาเหมือนทุกวันที่ผ่านมา"
)
KOREAN = (
    "그는 아침 일찍 일어나서 강가를 따라 오래 걸었다. 이 마을에는 오래된 다리와 작은 시장이 있다. "
    "사람들은 저녁이 되면 한 자리에 모여 그 날의 이야기를 나눈다. 아이들은 나무 아래에서 놀고 어른들은 차를 마신다. "
    "겨울에는 눈이 많이 내리지만 봄이 오면 들판에 꽃이 핀다. 그 풍경을 보려고 멀리서 찾아오는 사람도 있다. "
    "그는 그 모든 것을 공책에 적어 두었다. 언젠가 책으로 만들 수 있을 것이라고 생각했다."
)


@pytest.mark.parametrize(("text", "lang"), [(CHINESE, "zh"), (JAPANESE, "ja"), (THAI, "th"), (KOREAN, "ko")])
@pytest.mark.parametrize("preset", PRESETS)
def test_good_prose_of_another_script_passes(preset: str, text: str, lang: str) -> None:
    assert judge(text, PRESETS[preset], lang) is None


def test_as_many_characters_as_make_a_word_count_as_one() -> None:
    assert judge("春" * 17, dataclasses.replace(UNBOUNDED, min_words=11)) == Verdict("too_few_words", 10, 11)
    assert judge("の" * 19, dataclasses.replace(UNBOUNDED, min_words=11)) == Verdict("too_few_words", 10, 11)
    assert judge("ก" * 41, dataclasses.replace(UNBOUNDED, min_words=11)) == Verdict("too_few_words", 10, 11)


def test_repetition_without_spaces_is_found() -> None:
    spam = "点击这里立即购买最便宜的手机，" * 20
    verdict = judge(CHINESE + spam, PRESETS["web"], "zh")
    assert verdict is not None
    assert verdict.reason.startswith(("top_", "duplicate_"))


def test_a_list_of_keywords_without_spaces_is_no_prose() -> None:
    verdict = judge(
        "\n".join(["手机", "电脑", "相机", "电视", "空调", "冰箱", "洗衣机"] * 15), PRESETS["web"], "zh"
    )
    assert verdict is not None


# ------------------------------------------------------------------------------------------- presets and bounds

GOOD = {
    "web": prose(1, 200),
    "books": "\n\n".join(prose(seed, 80) for seed in range(5)),
    "wiki": prose(2, 60),
    "permissive": "ok",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_good_text_passes_its_preset(preset: str) -> None:
    assert judge(GOOD[preset], PRESETS[preset]) is None


def test_a_poem_is_no_bad_book_but_a_bad_web_page() -> None:
    poem = "\n".join(
        [
            "The road was long and the night was cold",
            "And the river ran below",
            "Said the miller's son to the farmer old",
            "It is time for us to go",
            "And the river ran below",
            "And the river ran below",
        ]
    )
    assert judge(poem, PRESETS["books"]) is None
    assert judge(poem, PRESETS["web"]) is not None


def test_an_empty_text_never_passes() -> None:
    for options in PRESETS.values():
        assert judge("", options) == Verdict("too_few_words", 0, options.min_words)


def test_rows_are_judged_and_counted() -> None:
    table = pa.table({"text": pa.chunked_array([["too short", "春天来了"], ["three words here"]])})
    kept, removed = filter_documents(table, bounds_of("files", "", {"min_words": 2.1}))
    assert kept.select(["text", "num_words"]).to_pylist() == [
        {"text": "春天来了", "num_words": 4},
        {"text": "three words here", "num_words": 3},
    ]
    (row,) = removed.to_pylist()
    assert (row["stage"], row["reason"], row["num_words"], row["value"], row["threshold"]) == (
        *("filter", "too_few_words", 2, 2.0, 2.1),
    )


def test_slices_nulls_and_wide_strings_are_read_where_they_lie() -> None:
    texts = ["one", "one two", None, "one two three", ""]
    for kind in (pa.string(), pa.large_string()):
        table = pa.table({"text": pa.array(texts, kind)}).slice(1)
        kept, removed = filter_documents(table, dataclasses.replace(UNBOUNDED, min_words=2))
        assert kept["num_words"].to_pylist() == [2, 3]
        assert removed["num_words"].to_pylist() == [0, 0]
    kept, removed = filter_documents(table.slice(0, 0), UNBOUNDED)
    assert (kept.num_rows, removed.num_rows) == (0, 0)


def test_a_bound_of_its_own_is_laid_over_the_preset() -> None:
    bounds = bounds_of("web", "", {"min_words": 5, "drop_lorem_ipsum": 0, "min_sentences": 1})
    assert judge("Lorem ipsum dolor sit amet, that the other.", bounds) is None
    assert (bounds.min_words, bounds.max_words) == (5, PRESETS["web"].max_words)
    assert bounds_of("wiki", "books", {}) == PRESETS["books"]
    config = RefreshConfig()
    source = SourceConfig(name="web", kind="web", paths=["x"], filters={"min_words": 7})
    assert config.of(source).filters == dataclasses.replace(PRESETS["web"], min_words=7)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"min_word": 5.0}, r"sources\.filters: 'min_word' is no bound; did you mean min_words\?"),
        ({"colour": 5.0}, r"sources\.filters: 'colour' is no bound; there are drop_blocked_urls, "),
        ({"min_words": -1.0}, r"sources\.filters\.min_words: -1\.0 must be"),
        ({"max_symbol_ratio": float("nan")}, r"sources\.filters\.max_symbol_ratio: nan must be"),
        ({"min_letter_ratio": 50.0}, r"sources\.filters\.min_letter_ratio: 50\.0 is more than the whole"),
        ({"drop_lorem_ipsum": 2.0}, r"sources\.filters\.drop_lorem_ipsum: 2\.0 is neither 1 \(yes\) nor 0"),
        (
            {"max_words": 10.0},
            r"sources\.filters\.min_words: 50 is more than max_words, 10\.0 \(preset web\)",
        ),
    ],
)
def test_a_bound_that_cannot_be_is_one_line(own: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        bounds_of("web", "", own)
    assert "\n" not in str(raised.value)


def test_a_kind_has_a_preset_and_a_wrong_name_is_one_line() -> None:
    assert [preset_of(kind, "") for kind in ("web", "books", "wiki", "files")] == [
        *("web", "books", "wiki", "permissive"),
    ]
    assert preset_of("files", "web") == "web"
    with pytest.raises(InputError, match=r"sources\.preset: 'wbe' is none of web, books"):
        preset_of("web", "wbe")


def test_permissive_takes_all_that_is_text() -> None:
    changed = {
        name: value
        for name, value in dataclasses.asdict(PRESETS["permissive"]).items()
        if name.startswith(("min_", "max_")) and value not in (0, math.inf)
    }
    lengths = {
        name: getattr(UNBOUNDED, name) for name in ("min_line_words", "max_word_chars", "min_gram_count")
    }
    assert changed == {"min_words": 1, "max_replacement_ratio": 0.001, **lengths}
