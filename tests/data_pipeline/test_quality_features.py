"""What the quality model sees of a text, what it learns from that, and how its worth is measured."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.quality.classifier import NUM_BINS, evaluate, fit, logits, sigmoid
from data_pipeline.quality.features import MAX_WINDOWS, WINDOW_CHARS, Windows, windows
from data_pipeline.quality.model import QualityModel
from data_pipeline.words import word_hashes

LOG2 = 12
MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """splitmix64's finaliser on Python's integers."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def plain_windows(text: str) -> list[list[int]]:
    """The words of each window, by its definition."""
    count = max(1, min(MAX_WINDOWS, math.ceil(len(text) / WINDOW_CHARS)))
    if count == 1:
        return [word_hashes(text).tolist()]
    starts = [index * (len(text) - WINDOW_CHARS) // (count - 1) for index in range(count)]
    assert (starts[0], starts[-1] + WINDOW_CHARS) == (0, len(text))
    found = [word_hashes(text[start : start + WINDOW_CHARS]).tolist() for start in starts]
    return [
        words[(1 if index else 0) : (-1 if index < count - 1 else None)] for index, words in enumerate(found)
    ]


def plain_buckets(words: list[int], log2_buckets: int) -> list[int]:
    """The buckets of the distinct n-grams of a window in the order of their first places."""
    found: dict[int, None] = {}
    for index, word in enumerate(words):
        found[word >> (64 - log2_buckets)] = None
        if index:
            pair = mix((words[index - 1] * 0xD1342543DE82EF95 + word) & MASK)
            found[pair >> (64 - log2_buckets)] = None
    return list(found)


def plain_score(text: str, weights: list[float], bias: float, log2_buckets: int) -> float:
    window_logits = []
    for words in plain_windows(text):
        buckets = plain_buckets(words, log2_buckets)
        total = sum(weights[bucket] for bucket in buckets)
        window_logits.append(bias + total / math.sqrt(max(1, len(buckets))))
    return 1 / (1 + math.exp(-sum(window_logits) / len(window_logits)))


TEXTS = [
    "",
    " \n—!? ",
    "one",
    "the cat sat on the mat; the cat sat",
    "春天来了，万物复苏。Python语言3",
    "Привет, мир! 안녕 세계 สวัสดี 𠀀𠀁",
    "word " * 40_000,
    "x" * 100_000,
    " ".join(f"word{number}" for number in range(WINDOW_CHARS)),
    "水" * (WINDOW_CHARS - 1),
    "山" * WINDOW_CHARS,
    "河 " * WINDOW_CHARS,
    "a" * WINDOW_CHARS + " b",
]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.text("ab 春\n", max_size=30), max_size=5))
def test_windows_of_short_texts_are_those_of_the_definition(texts: list[str]) -> None:
    _compare(texts)


def test_windows_of_long_and_odd_texts_are_those_of_the_definition() -> None:
    _compare(TEXTS)


def _compare(texts: list[str]) -> None:
    found = Windows.of_texts(texts, LOG2)
    wanted = [
        (number, plain_buckets(words, LOG2))
        for number, text in enumerate(texts)
        for words in plain_windows(text)
    ]
    assert found.document.tolist() == [number for number, _ in wanted]
    assert [found.row(index).tolist() for index in range(len(wanted))] == [row for _, row in wanted]


def test_scores_are_those_of_plain_python() -> None:
    rng = np.random.default_rng(5)
    model = QualityModel(rng.normal(size=1 << LOG2).astype(np.float32), -0.25, {})
    wanted = [plain_score(text, model.weights.tolist(), model.bias, LOG2) for text in TEXTS]
    scores = model.score(TEXTS)
    assert scores.tolist() == pytest.approx(wanted, abs=1e-12)
    assert len({round(score, 6) for score in scores.tolist()}) > 8
    # A text's score has nothing to do with the texts beside it.
    assert [model.score([text])[0] for text in TEXTS] == scores.tolist()


def test_a_stored_weight_still_means_the_same_n_gram() -> None:
    """Buckets that a change of words or of hashing would move: then SCHEME must change, too."""
    found = Windows.of_texts(["The quick fox, 春天 ÉTÉ"], 18)
    assert found.row(0).tolist() == GOLDEN


GOLDEN = [147557, 97863, 66490, 94899, 189461, 9149, 108693, 73416, 32121, 259815, 208697]


HOSTILE = {
    "addresses": "a@" * 500_000,
    "spaces": " " * 1_000_000,
    "brackets": "[(" * 500_000,
    "one word": "x" * 10_000_000,
    "characters that are words": "山" * 1_000_000,
    "all different": " ".join(str(number) for number in range(300_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_work_on_a_text_is_bounded_however_long_it_is(name: str) -> None:
    found = Windows.of_texts([HOSTILE[name]], 18)
    assert len(found.document) == MAX_WINDOWS
    assert np.diff(found.starts).max() <= 2 * WINDOW_CHARS


def test_the_windows_of_a_long_text_reach_from_its_beginning_to_its_end() -> None:
    parts = windows(" ".join(f"w{number:07d}" for number in range(200_000)))
    ends = [int(word_hashes(f"w{number:07d}")[0]) for number in (0, 199_999)]
    assert [parts[0][0], parts[-1][-1]] == ends
    for part, number in zip(parts, (500, 66_800, 133_100, 199_500), strict=True):
        assert int(word_hashes(f"w{number:07d}")[0]) in part.tolist()


# ---------------------------------------------------------------------------------------------------- learning


def made_windows(num_documents: int, seed: int = 0) -> tuple[Windows, np.ndarray]:
    """Documents of one to three windows of random buckets, some of which say a little about their class."""
    rng = random.Random(seed)
    rows, document, labels = [], [], []
    for number in range(num_documents):
        is_good = rng.random() < 0.3
        labels.append(is_good)
        for _ in range(rng.randint(1, 3)):
            telling = range(40) if is_good else range(20, 60)
            row = {rng.choice(telling) for _ in range(4)} | {rng.randrange(60, 1 << 10) for _ in range(20)}
            rows.append(np.array(sorted(row), np.uint32))
            document.append(number)
    rows[7] = np.zeros(0, np.uint32)
    return Windows.of_rows(rows, np.array(document)), np.array(labels)


@pytest.mark.parametrize("cost", [0.1, 10.0, 1000.0])
def test_the_weights_are_where_the_gradient_vanishes(cost: float) -> None:
    examples, is_good = made_windows(300)
    weights, bias = fit(examples, is_good, 10, cost)
    # |w|^2 / 2 + sum of cost_i * log(1 + exp(-y_i * (w x_i + b))), the bias being a weight like the others.
    share = np.where(is_good, 0.5 / is_good.sum(), 0.5 / (~is_good).sum()) * len(is_good)
    costs = cost * (share / np.bincount(examples.document))[examples.document]
    signs = np.where(is_good, 1.0, -1.0)[examples.document]
    gradient, bias_gradient = weights.astype(np.float64), bias
    for index, (sign, its_cost) in enumerate(zip(signs, costs, strict=True)):
        row = examples.row(index)
        scale = 1 / math.sqrt(max(1, len(row)))
        margin = sign * (bias + scale * weights[row].sum(dtype=np.float64))
        pull = its_cost * sign / (1 + math.exp(margin))
        gradient[row] -= pull * scale
        bias_gradient -= pull
    tolerance = 2e-4 * costs.sum()  # at w = 0 the terms add up to half of all costs
    assert np.linalg.norm(gradient) < tolerance
    assert abs(bias_gradient) < tolerance
    assert np.linalg.norm(weights) > 0.1


def test_both_classes_count_the_same_however_many_documents_they_have() -> None:
    examples, is_good = made_windows(400, seed=3)
    weights, bias = fit(examples, is_good, 10, 1.0)
    scores = sigmoid(logits(examples, weights, bias))
    assert 0.15 < is_good.mean() < 0.45
    assert scores[is_good].mean() + scores[~is_good].mean() == pytest.approx(1, abs=0.02)


def test_logits_of_chosen_documents_are_those_of_all() -> None:
    examples, is_good = made_windows(50)
    weights, bias = fit(examples, is_good, 10, 1.0)
    chosen = np.arange(50) % 3 == 1
    some = logits(examples.of_documents(chosen), weights, bias)
    assert some.tolist() == logits(examples, weights, bias)[chosen].tolist()


# ------------------------------------------------------------------------------------------------- measuring it


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.5001, 0.75, 0.999, 1.0]), st.booleans()),
        min_size=2,
    )
)
def test_auc_accuracy_and_histogram_are_those_of_their_definitions(rows: list[tuple[float, bool]]) -> None:
    good = [score for score, is_good in rows if is_good]
    bad = [score for score, is_good in rows if not is_good]
    if not good or not bad:
        return
    measured = evaluate(np.array([score for score, _ in rows]), np.array([is_good for _, is_good in rows]))
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    assert measured["auc"] == pytest.approx(wins / (len(good) * len(bad)))
    right = sum(g >= 0.5 for g in good) / len(good), sum(b < 0.5 for b in bad) / len(bad)
    assert measured["accuracy"] == pytest.approx(sum(right) / 2)
    assert math.isfinite(measured["log_loss"])
    assert len(measured["histogram"]) == NUM_BINS
    for index, row in enumerate(measured["histogram"]):
        inside = [
            [s for s in side if index / 10 <= s < (index + 1) / 10 or (s == 1 and index == 9)]
            for side in (good, bad)
        ]
        assert [row["good"], row["bad"]] == [len(side) for side in inside]
        both = inside[0] + inside[1]
        assert row["mean_score"] == (pytest.approx(sum(both) / len(both)) if both else None)
