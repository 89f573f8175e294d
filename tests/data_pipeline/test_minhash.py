"""Signatures, Jaccard similarity and bands, against datasketch and Python's sets."""

from __future__ import annotations

import subprocess
import sys

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import DedupConfig
from data_pipeline.dedup.bands import choose_bands, collision_probability
from data_pipeline.minhash import (
    as_matrix,
    jaccard,
    shingle_hashes,
    signature,
    signatures,
)
from data_pipeline.words import word_hashes
from tests.data_pipeline.made_inputs import prose, reworded

CONFIG = DedupConfig()
TEXTS = [prose(1), prose(2, 5), prose(3, 3), "one", "春眠不觉晓，处处闻啼鸟。夜来风雨声", ""]


@pytest.mark.parametrize("config", [CONFIG, DedupConfig(num_permutations=64, seed=7, shingle_size=3)])
@pytest.mark.parametrize("text", TEXTS)
def test_a_signature_is_datasketchs_value_for_value(text: str, config: DedupConfig) -> None:
    theirs = datasketch.MinHash(
        num_perm=config.num_permutations, seed=config.seed, scheme="affine32", hashfunc=lambda value: value
    )
    for shingle in shingle_hashes(text, config.shingle_size).tolist():
        theirs.update(shingle & 0xFFFFFFFF)
    ours = signature(text, config)
    assert ours.dtype == np.uint32
    assert ours.tolist() == theirs.hashvalues.tolist()


def test_signatures_survive_arrow() -> None:
    column = signatures(pa.array(TEXTS), CONFIG)
    assert column.type == pa.binary()
    matrix = as_matrix(pa.chunked_array([column.slice(0, 2), column.slice(2)]), CONFIG.num_permutations)
    assert matrix.tolist() == [signature(text, CONFIG).tolist() for text in TEXTS]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_batch_is_signed_wherever_it_begins_and_however_it_is_cut(kind: pa.DataType) -> None:
    expected = [signature(text, CONFIG).tolist() for text in TEXTS]
    whole = pa.array(["padding", *TEXTS, "more"], kind)[1:-1]
    cut = pa.chunked_array([whole[:1], whole[1:1], whole[1:4], whole[4:]])
    for column in (whole, cut):
        assert as_matrix(signatures(column, CONFIG), CONFIG.num_permutations).tolist() == expected
    nulls = pa.array(["one", None, ""], kind)
    rows = as_matrix(signatures(nulls, CONFIG), CONFIG.num_permutations).tolist()
    assert rows[1] == rows[2] == [0xFFFFFFFF] * CONFIG.num_permutations
    assert len(signatures(whole[:0], CONFIG)) == 0


@pytest.mark.parametrize("num_words", [1018, 1022, 1023, 1024, 1025, 1029, 2046, 5000])
@pytest.mark.parametrize("unit", ["w%d ", "春%d", "春", "x "])
def test_long_texts_are_signed_block_by_block_as_if_whole(num_words: int, unit: str) -> None:
    text = "".join(unit % number if "%" in unit else unit for number in range(num_words))
    assert signature(text, CONFIG).tolist() == _reference(text, CONFIG).tolist()


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=200), st.integers(1, 7))
def test_any_text_is_signed_as_the_plain_definition_says(text: str, size: int) -> None:
    config = DedupConfig(num_permutations=16, shingle_size=size)
    text = text.encode("utf-8", "ignore").decode("utf-8")
    assert signature(text, config).tolist() == _reference(text, config).tolist()


def _reference(text: str, config: DedupConfig) -> np.ndarray:
    """The signature by datasketch over shingles that Python's integers combine."""
    words = word_hashes(text).tolist()
    size = config.shingle_size
    shingles = set()
    for start in range(max(1, len(words) - size + 1) if words else 0):
        state = 0x9E3779B97F4A7C15
        for word in words[start : start + size]:
            state = (state * 0xD1342543DE82EF95 + word) % 2**64
        shingles.add(_mixed(state))
    assert shingle_hashes(text, size).tolist() == sorted(shingles)
    theirs = datasketch.MinHash(
        num_perm=config.num_permutations, seed=config.seed, scheme="affine32", hashfunc=lambda value: value
    )
    theirs.update_batch([shingle & 0xFFFFFFFF for shingle in shingles])
    return theirs.hashvalues


def _mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def test_memory_does_not_grow_with_a_document() -> None:
    # In a process of its own, whose high-water mark nothing else has raised.
    code = """
import resource, pyarrow as pa
from data_pipeline.dedup.bands import choose_bands, collision_probability
from data_pipeline.config import DedupConfig
from data_pipeline.minhash import signatures
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
text = pa.array(["some words of a long book " * 2_000_000])
signatures(pa.array(["to compile"]), DedupConfig())
before = peak()
signatures(text, DedupConfig())
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2048  # KiB, for a document of 52 MB


def test_a_text_shorter_than_a_shingle_is_one_shingle_and_an_empty_one_is_none() -> None:
    assert len(shingle_hashes("one two", 5)) == 1
    assert len(shingle_hashes("one two", 5)) == len(shingle_hashes("one two three four five", 5))
    assert shingle_hashes("one two", 5).tolist() != shingle_hashes("one three", 5).tolist()
    assert len(shingle_hashes("", 5)) == 0


def _runs(text: str, size: int) -> set[tuple[int, ...]]:
    hashes = word_hashes(text).tolist()
    if not hashes:
        return set()
    return {tuple(hashes[i : i + size]) for i in range(max(1, len(hashes) - size + 1))}


WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "春", "天"]), max_size=25).map(" ".join)


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(1, 6))
def test_jaccard_is_that_of_the_sets_of_word_runs(left: str, right: str, size: int) -> None:
    a, b = _runs(left, size), _runs(right, size)
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(shingle_hashes(left, size), shingle_hashes(right, size)) == pytest.approx(expected)


@given(st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_jaccard_is_that_of_pythons_sets(left: set[int], right: set[int]) -> None:
    as_array = [np.array(sorted(side), np.uint64) for side in (left, right)]
    expected = len(left & right) / len(left | right) if left | right else 1.0
    assert jaccard(as_array[0], as_array[1]) == pytest.approx(expected)


def test_equal_places_of_two_signatures_estimate_their_similarity() -> None:
    config = DedupConfig(num_permutations=1024)
    text = prose(5, 600)
    for num_changes in (0, 5, 20, 60):
        other = reworded(text, num_changes)
        estimate = float(np.mean(signature(text, config) == signature(other, config)))
        truth = jaccard(shingle_hashes(text, 5), shingle_hashes(other, 5))
        # Five standard deviations of a mean of 1,024.
        assert estimate == pytest.approx(truth, abs=5 * (max(0.01, truth * (1 - truth)) / 1024) ** 0.5)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("num_permutations", [16, 64, 128, 256])
def test_bands_fit_the_signature_and_rarely_miss_a_duplicate(threshold: float, num_permutations: int) -> None:
    bands, rows = choose_bands(threshold, num_permutations)
    assert bands >= 1
    assert rows >= 1
    assert bands * rows <= num_permutations
    if num_permutations >= 128 and threshold <= 0.9:
        assert collision_probability(min(1.0, threshold + 0.05), bands, rows) > 0.95
        assert collision_probability(threshold - 0.35, bands, rows) < 0.3


def test_a_higher_threshold_asks_for_more_rows_in_a_band() -> None:
    rows = [choose_bands(threshold, 128)[1] for threshold in (0.5, 0.7, 0.8, 0.9)]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]


def test_the_probability_of_meeting_is_the_s_curve() -> None:
    assert collision_probability(0.8, 1, 1) == pytest.approx(0.8)
    assert collision_probability(0.8, 20, 5) == pytest.approx(1 - (1 - 0.8**5) ** 20)
    assert collision_probability(1.0, 3, 7) == 1.0
