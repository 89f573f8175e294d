"""The fast counts equal the plain reference's, on made and on real text, and take time in proportion to its length."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.documents import COLLECTIONS
from data_pipeline.filter_presets import PRESETS, FilterOptions
from data_pipeline.filters.characters import table
from data_pipeline.filters.statistics import STATISTICS, measure
from data_pipeline.filters.tokens import ABBREVIATION_HASHES, tokenize
from tests.data_pipeline import reference_filters as reference

OPTIONS = {
    "web": PRESETS["web"],
    "as datatrove": dataclasses.replace(
        PRESETS["web"], needs_end_mark=True, min_line_words=3, min_gram_count=1
    ),
}


def disagreements(texts: list[str], languages: list[str], options: FilterOptions) -> list[tuple]:
    """(text, count, fast, reference) wherever they differ."""
    statistics = measure(pa.array(texts, pa.large_string()), languages, options)
    found = []
    for text, language, record in zip(texts, languages, statistics, strict=True):
        expected = reference.measure(text, language, options)
        assert set(expected) == set(STATISTICS.names)
        found += [
            (text[:100], name, int(record[name]), expected[name])
            for name in STATISTICS.names
            if record[name] != expected[name]
        ]
    return found


# Few enough that words, lines and paragraphs repeat, and all that the tokeniser asks for stands beside all else.
PIECES = [
    *(
        "the ",
        "and ",
        "of ",
        "word",
        "Word",
        "U.S.",
        "e.g. ",
        "Mr. ",
        "A. ",
        "NASA.",
        "don't ",
        "John’s ",
        "we'll ",
    ),
    *(
        "x",
        "9",
        "10%",
        "$5",
        "+1",
        "a+b",
        "1-2",
        "well-known ",
        "either/or ",
        "--",
        "—",
        "...",
        "…",
        "……",
        ". ",
    ),
    *(
        ".",
        ",",
        "! ",
        "?",
        "(",
        ")",
        "[",
        "]",
        "[1]",
        "[edit] ",
        "{",
        '"',
        "'",
        "”",
        "“",
        "「",
        "」",
        "#",
        "@",
    ),
    *(
        "http://",
        "www.a.org",
        "a@b.com ",
        "/x?y",
        "1.2.3.4",
        ":8080",
        "_",
        "-",
        "•",
        "\n",
        "\n\n",
        " \n",
        "\t",
        "\u3000",
    ),
    *(
        "中文",
        "。",
        "，",
        "の",
        "ねこ",
        "ไทย",
        "한국",
        "ü",
        "É",
        "\u0301",
        "\u200d",
        "☃",
        "🎉",
        "\ufffd",
        "\x00",
        "\U00030000",
    ),
    *(
        "lorem ipsum ",
        "JavaScript ",
        "privacy policy",
        "use of cookies",
        "cookie policy ",
        "\U000f0000",
        "٣",
        "²",
    ),
]


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_the_counts_equal_the_reference(options: str, pieces: list[str]) -> None:
    assert disagreements(["".join(pieces)], ["en"], OPTIONS[options]) == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_the_counts_of_any_text_equal_the_reference(text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8")
    assert disagreements([text, text * 3], ["de", "zh"], OPTIONS["web"]) == []


def test_tokens_are_cut_as_spacy_cuts_them() -> None:
    text = (
        "(Mr. O'Neil's well-known U.S. e-mail, a@b.com!) don't pay $5 or 10% at https://x.org/a-b... "
        "He said: “No—never.” either/or 3-4 and/or café's A. B. Smith, i.e. NASA.\n中文字"
    )
    tokens = (
        "( Mr. O'Neil 's well - known U.S. e - mail , a@b.com ! ) do n't pay $ 5 or 10 % at https://x.org/a-b ... "
        "He said : “ No — never . ” either / or 3 - 4 and / or café 's A. B. Smith , i.e. NASA . 中 文 字"
    )
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    starts, ends = tokenize(codes, table()[codes], 0, len(codes), ABBREVIATION_HASHES)
    assert [text[start:end] for start, end in zip(starts, ends, strict=True)] == tokens.split()
    assert reference.tokens(text) == tokens.split()


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_counts_of_the_real_documents_equal_the_reference(
    real_documents: Callable[[str], pa.Table], name: str
) -> None:
    documents = real_documents(name)
    # Whole books take the reference minutes: `python -m benchmarks.filters --reference` compares those.
    texts = [text[:4000] for text in documents["text"].to_pylist()]
    assert disagreements(texts, documents["lang"].to_pylist(), OPTIONS["web"]) == []


# ------------------------------------------------------------------------------------------------ linear time

HOSTILE = {
    "addresses": "a@",
    "hosts": "a.",
    "schemes": "http://",
    "spaces": " ",
    "ideographic spaces": "\u3000",
    "line feeds": "\n",
    "short lines": "a\n",
    "full stops": ".",
    "ellipses": "…",
    "open brackets": "(",
    "curly brackets": "{",
    "citations": "[1",
    "quotes": '"',
    "apostrophes": "'s",
    "hyphens": "a-",
    "one word": "x",
    "the same word": "a ",
    "bullets": "- ",
    "hash signs": "#",
    "Chinese": "中",
    "marks": "\u0301",
    "phrases": "use of cookie",
    "initials": "A.B ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_the_length_of_a_hostile_text(name: str) -> None:
    def seconds(size: int) -> float:
        texts = pa.array([HOSTILE[name] * (size // len(HOSTILE[name]))])
        took = []
        for _ in range(2):
            began = time.process_time()
            measure(texts, ["en"], PRESETS["web"])
            took.append(time.process_time() - began)
        return min(took)

    seconds(1000)
    # Four times the text; sixteen times the time would be quadratic.
    assert seconds(2_000_000) < 10 * max(0.005, seconds(500_000))


def test_distinct_words_and_lines_take_linear_time() -> None:
    words = [f"{number:x}" for number in range(400_000)]
    texts = [" ".join(words[:100_000]), "\n".join(words[:100_000]), " ".join(words), "\n".join(words)]
    took = []
    for text in texts:
        began = time.process_time()
        measure(pa.array([text]), ["en"], PRESETS["web"])
        took.append(time.process_time() - began)
    assert took[2] < 10 * took[0]
    assert took[3] < 10 * took[1]
