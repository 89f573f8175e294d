"""Duplicates that are known are found and nothing else goes: real pairs, made ones of known similarity, hard cases."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import DedupConfig, SourceConfig
from data_pipeline.sources import read_records
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.test_near_duplicates import Doc, removed, similarity

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("size", [100, 1000, 2500])
def test_planted_pairs_of_a_real_collection_are_found_and_nothing_else(shared_data: Path, size: int) -> None:
    path = shared_data / "dup" / f"mccormick-articles_{size}.train"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    docs = [Doc(*line.split(" ", 1)) for line in lines]
    truth = [line.split() for line in path.with_suffix(".truth").read_text().splitlines() if line.strip()]
    # The planted articles are reworded: their similarities begin at 0.65.
    rows = removed(docs, blocks=2, config=DedupConfig(threshold=0.6))
    assert {frozenset((doc_id, row["duplicate_of"])) for doc_id, row in rows.items()} == {
        frozenset(pair) for pair in truth
    }


def test_of_real_books_only_other_editions_of_one_work_go(shared_data: Path) -> None:
    books = shared_data / "books"
    lines = (books / "near_dup_pairs.tsv").read_text().splitlines()[1:]
    truth = {frozenset(line.split("\t")) for line in lines}
    source = SourceConfig(name="book", kind="books", paths=["x"])
    docs = []
    for path in sorted(books.glob("pg-*/*.txt")):
        text = "\n\n".join(record.content for record in read_records(source, path))
        docs.append(Doc(str(path.relative_to(books)), text))
    assert len(docs) > 50
    rows = removed(docs, blocks=4)
    assert {frozenset((doc_id, row["duplicate_of"])) for doc_id, row in rows.items()} == truth


def _pairs(count: int, words: int) -> tuple[list[Doc], dict[str, float]]:
    """Pairs of documents with similarities from 0.1 to 1, and {the second's id: similarity}."""
    rng = np.random.default_rng(5)
    docs, truth = [], {}
    for number in range(count):
        wanted = rng.uniform(0.1, 1.0)
        # Of n words in each, c common: (c - 4) / (2 (n - 4) - (c - 4)) shingles are common.
        common = round(2 * wanted * (words - 4) / (1 + wanted)) + 4
        tokens = rng.integers(0, 1 << 40, 2 * words)
        start = int(rng.integers(0, words - common + 1))
        left = [f"{token:x}" for token in tokens[:words]]
        right = left.copy()
        right[:start] = [f"{token:x}" for token in tokens[words : words + start]]
        right[start + common :] = [f"{token:x}" for token in tokens[words + start + common :]]
        docs += [Doc(f"a{number}", " ".join(left)), Doc(f"b{number}", " ".join(right))]
        truth[f"{number}"] = similarity(docs[-2].text, docs[-1].text)
    return docs, truth


def test_of_pairs_of_known_similarity_all_close_ones_go_and_no_other() -> None:
    docs, truth = _pairs(10_000, 100)
    rows = removed(docs, blocks=4, partitions=3)
    found = set()
    for doc_id, row in rows.items():
        number = doc_id[1:]
        assert row["duplicate_of"][1:] == number
        assert row["similarity"] == pytest.approx(truth[number])
        assert truth[number] >= 0.8
        found.add(number)
    close = {number for number, value in truth.items() if value >= 0.9}
    near = {number for number, value in truth.items() if 0.8 <= value < 0.9}
    assert len(close) > 800
    assert len(found & close) / len(close) > 0.995
    assert len(found & near) / len(near) > 0.97


def test_pages_of_one_template_are_all_kept() -> None:
    # Three fifths of each of the 10,000 pages is the template.
    rng = random.Random(1)
    template = prose(9999, 240)
    own = [" ".join(f"{rng.getrandbits(30):x}" for _ in range(160)) for _ in range(10_000)]
    docs = [Doc(f"page{number}", f"{template} {text}") for number, text in enumerate(own)]
    assert similarity(docs[0].text, docs[1].text) > 0.4
    docs.append(Doc("copy", docs[7].text))
    rows = removed(docs, blocks=4)
    assert {frozenset((doc_id, row["duplicate_of"])) for doc_id, row in rows.items()} == {
        frozenset(("copy", "page7"))
    }


def test_long_unrelated_texts_with_a_common_licence_are_all_kept() -> None:
    licence = prose(9999, 3000)
    rng = np.random.default_rng(1)
    vocabulary = np.array([f"{word:x}" for word in rng.integers(0, 1 << 24, 5000)])
    docs = []
    for number in range(12):
        # Words as frequent as in a language: a few make most of the text.
        ranks = np.minimum(rng.zipf(1.3, 200_000), len(vocabulary)) - 1
        docs.append(Doc(f"book{number}", f"{licence}\n\n{' '.join(vocabulary[ranks])}\n\n{licence}"))
    assert all(len(doc.text) > 600_000 for doc in docs)
    assert removed(docs, blocks=3) == {}


def test_texts_of_few_shingles_go_only_where_they_are_alike() -> None:
    docs = [Doc(f"poor{number}", f"buy cheap tickets now {number}") for number in range(300)]
    docs += [Doc(f"more{number}", "very " * 200 + f"good {number}") for number in range(300)]
    docs += [Doc(f"word{number}", f"word{number}") for number in range(100)]
    docs += [Doc(f"empty{number}", text) for number, text in enumerate(["", "!", "?!", "...", "—"])]
    texts = {doc.id: doc.text for doc in docs}
    for doc_id, row in removed(docs, blocks=3).items():
        assert similarity(texts[doc_id], texts[row["duplicate_of"]]) >= 0.8
        assert not doc_id.startswith(("poor", "word", "empty"))
