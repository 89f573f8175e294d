"""What the presets remove of real books, articles and Chinese text, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pytest

from data_pipeline.filter_presets import PRESETS
from data_pipeline.filters import filter_documents

pytestmark = pytest.mark.slow

Documents = Callable[[str], pa.Table]


def removed(real_documents: Documents, name: str, preset: str) -> tuple[int, pa.Table]:
    """(documents of a collection, the ones removed)."""
    kept, gone = filter_documents(real_documents(name), PRESETS[preset])
    return kept.num_rows + gone.num_rows, gone


def test_of_the_books_only_an_index_is_removed(real_documents: Documents) -> None:
    num_books, gone = removed(real_documents, "books", "books")
    assert num_books == 128
    # The index of Jefferson's papers: names and page numbers.
    assert gone.select(["uri", "reason"]).to_pylist() == [
        {"uri": "https://www.gutenberg.org/ebooks/28860", "reason": "too_many_digits"}
    ]


def test_of_the_articles_only_a_line_is_removed(real_documents: Documents) -> None:
    num_articles, gone = removed(real_documents, "wiki", "wiki")
    assert num_articles == 137
    assert gone.select(["uri", "reason"]).to_pylist() == [
        {"uri": "https://en.wikipedia.org/wiki/Dahlak_SC", "reason": "too_few_words"}
    ]


def test_the_chinese_classics_stay(real_documents: Documents) -> None:
    num_chapters, gone = removed(real_documents, "chinese classics", "books")
    assert num_chapters == 1697
    # "Table omitted", and a saying of Mencius of 27 characters, half of them the same seven twice.
    assert dict(zip(gone["text"].to_pylist(), gone["reason"].to_pylist(), strict=True)) == {
        "表略": "too_few_words",
        "孟子曰： 古之为关也，将以御暴。今之为关也，将以为暴。": "top_4gram",
    }


def test_of_the_chinese_news_pages_lists_and_stumps_are_removed(real_documents: Documents) -> None:
    num_pages, gone = removed(real_documents, "chinese news", "web")
    assert num_pages == 64
    assert Counter(gone["reason"].to_pylist()) == {
        "too_few_words": 3,
        "too_few_sentence_lines": 3,
        "undecodable_characters": 2,
        "too_many_short_lines": 1,
        "duplicate_paragraphs": 1,
        "duplicate_lines": 1,
    }
