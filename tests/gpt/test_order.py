"""The training order: a bijection without visible structure, exact mixtures, one pass over everything an epoch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.config import ConfigError
from gpt.order import BLOCK, SampleOrder, apportion, count_windows, hash_key, permute, plan_table

# sha256 of samples [0, 1000) and [100000, 101000) of the order in `test_the_order_never_changes_by_accident`.
GOLDEN = "e41cdcd74893461ab54f251ec44c82549ffcdb4b7d73eb3373d3e810ba926231"
GOLDEN_LATER = "4f11fec88265c64edef8a03398b4bd55e0befa5bc420222f4559519d3351a898"


def weak_permutation(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """A Feistel network whose round function multiplies and masks, so that low bits see low bits only."""
    num_bits = max(2, (n - 1).bit_length())
    half = (num_bits + 1) // 2
    mask = np.uint64((1 << half) - 1)
    keys = np.random.default_rng(key % 2**32).integers(0, 2**half, 5, dtype=np.uint64)

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & mask
        for round_key in keys:
            left, right = right, left ^ ((right * np.uint64(2654435761) + round_key) & mask)
        return (left << np.uint64(half)) | right

    x = once(index.astype(np.uint64))
    while (outside := x >= n).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


def repetition(values: np.ndarray, modulus: int) -> float:
    """How often value mod m is the same m places later, above what chance gives."""
    residues = values % modulus
    return float((residues[:-modulus] == residues[modulus:]).mean() - 1 / modulus)


def chi_squared(values: np.ndarray, n: int, num_bins: int) -> float:
    """Chi-squared a degree of freedom of where values fall in range(n)."""
    counts = np.bincount(values * num_bins // n, minlength=num_bins)
    expected = len(values) / num_bins
    return float(((counts - expected) ** 2 / expected).sum() / (num_bins - 1))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection(n: int, key: int):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


def test_permutation_of_one_index_is_that_of_many():
    n, key = 1_000_003, 42
    index = np.array([0, 5, 999_999, 1_000_002])
    assert permute(index, n, key).tolist() == [int(permute(np.array([i]), n, key)[0]) for i in index]


@pytest.mark.parametrize("n", [1 << 18, 300_007])
def test_consecutive_samples_have_no_pattern(n: int):
    shuffled = permute(np.arange(n), n, hash_key("test", n))
    assert abs(repetition(shuffled, 2)) < 0.01
    assert abs(repetition(shuffled, 8)) < 0.01
    assert abs(repetition(shuffled // 8, 8)) < 0.01
    # Position of a batch's windows in the corpus: mean 1, standard deviation 0.18 a batch of 16 bins' 63 degrees.
    batches = shuffled[: 200 * 512].reshape(200, 512)
    assert 0.9 < np.mean([chi_squared(batch, n, 64) for batch in batches]) < 1.1


def test_the_pattern_tests_catch_a_weak_round_function():
    n = 1 << 18
    shuffled = weak_permutation(np.arange(n), n, 7)
    assert np.array_equal(np.sort(shuffled), np.arange(n))
    assert repetition(shuffled, 2) > 0.4
    assert repetition(shuffled, 8) > 0.5


@pytest.mark.parametrize("n", [3, 5, 12])
def test_small_sources_are_shuffled_evenly_too(n: int):
    num_keys = 2000
    places = np.array([permute(np.arange(n), n, hash_key("small", n, i)) for i in range(num_keys)])
    for column in places.T:
        counts = np.bincount(column, minlength=n)
        assert abs(counts / num_keys - 1 / n).max() < 0.05


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8), st.integers(0, 10**7), st.integers(0, 5000))
@settings(max_examples=200, deadline=None)
def test_shares_are_exact_and_never_shrink_as_training_grows(raw: list[float], total: int, more: int):
    weights = np.array(raw) / np.sum(raw)
    counts, later = apportion(weights, total), apportion(weights, total + more)
    assert counts.sum() == total
    assert (counts >= 0).all()
    assert (later >= counts).all()
    assert abs(counts - total * weights).max() < (1.001 if len(raw) <= 3 else 2)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 400), st.floats(0.01, 1)), min_size=1),
    st.integers(0, 2**32),
    st.integers(0, 3 * BLOCK),
)
@settings(max_examples=15, deadline=None)
def test_counts_are_those_of_the_samples(sources: dict, seed: int, num_samples: int):
    windows = {name: n for name, (n, _) in sources.items()}
    order = SampleOrder(windows, {name: w for name, (_, w) in sources.items()}, seed, 8)
    drawn, _ = order.samples(0, num_samples)
    assert np.array_equal(np.bincount(drawn, minlength=len(windows)), order.counts(num_samples))


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 150), st.floats(0.05, 1)), min_size=1),
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(8, 40),
)
@settings(max_examples=15, deadline=None)
def test_an_epoch_over_all_workers_has_every_window_once(
    sources: dict, seed: int, world_size: int, batch_size: int
):
    order = SampleOrder(
        {name: n for name, (n, _) in sources.items()}, {name: w for name, (_, w) in sources.items()}, seed, 8
    )
    num_batches = -(-800 // batch_size)
    pairs = []
    for start in range(0, num_batches * batch_size, batch_size):
        source, window = order.samples(start, batch_size)
        # What the workers take, put back in the order of the batch.
        batch = np.empty((batch_size, 2), np.int64)
        for rank in range(world_size):
            batch[rank::world_size] = np.stack([source[rank::world_size], window[rank::world_size]], axis=1)
        pairs.append(batch)
    rows = np.concatenate(pairs)
    for i, n in enumerate(order.num_windows.tolist()):
        drawn = rows[rows[:, 0] == i, 1]
        for epoch in range(len(drawn) // n):
            assert np.array_equal(np.sort(drawn[epoch * n : (epoch + 1) * n]), np.arange(n))


def test_epochs_and_sources_have_orders_of_their_own():
    order = SampleOrder({"a": 100, "b": 100}, None, 1, 8)
    source, window = order.samples(0, 400)
    a, b = window[source == 0], window[source == 1]
    assert not np.array_equal(a[:100], a[100:200])
    assert not np.array_equal(a[:100], b[:100])


def test_any_stretch_of_the_order_is_the_same_stretch():
    order = SampleOrder({"a": 700, "b": 90}, {"a": 1, "b": 2}, 3, 8)
    whole = np.stack(order.samples(0, 3 * BLOCK))
    pieces = [np.stack(order.samples(start, 37)) for start in range(0, 3 * BLOCK - 37, 37)]
    joined = np.concatenate(pieces, axis=1)
    assert np.array_equal(joined, whole[:, : joined.shape[1]])


def test_the_order_never_changes_by_accident():
    # If this fails, the order changed: resumed runs would silently read other data. Raise ORDER_VERSION.
    order = SampleOrder(
        {"web": 5000, "book": 700, "wiki": 123}, {"web": 0.6, "book": 0.3, "wiki": 0.1}, 1337, 256
    )
    source, window = order.samples(0, 1000)
    rows = np.stack([source, window], axis=1).astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest() == GOLDEN
    source, window = order.samples(100_000, 1000)
    rows = np.stack([source, window], axis=1).astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest() == GOLDEN_LATER


def test_fingerprint_changes_with_everything_the_order_depends_on():
    base = SampleOrder({"a": 10, "b": 20}, {"a": 1, "b": 1}, 1, 8)
    same = SampleOrder({"b": 20, "a": 10}, {"b": 2, "a": 2}, 1, 8)
    others = [
        SampleOrder({"a": 11, "b": 20}, {"a": 1, "b": 1}, 1, 8),
        SampleOrder({"a": 10, "b": 20}, {"a": 1, "b": 2}, 1, 8),
        SampleOrder({"a": 10, "b": 20}, {"a": 1, "b": 1}, 2, 8),
        SampleOrder({"a": 10, "b": 20}, {"a": 1, "b": 1}, 1, 9),
    ]
    assert base.fingerprint() == same.fingerprint()
    assert len({order.fingerprint() for order in (base, *others)}) == 5


def test_plan_says_what_each_source_gives_and_refuses_too_many_epochs():
    order = SampleOrder({"web": 900, "wiki": 100}, {"web": 0.5, "wiki": 0.5}, 1, 8)
    web, wiki = order.plan(1000)
    assert abs(wiki.num_samples - 500) < 40
    assert wiki.epochs == wiki.num_samples / 100
    assert web.num_samples + wiki.num_samples == 1000
    with pytest.raises(ConfigError, match=r"source wiki would be read .* max_epochs is 4"):
        order.plan(1000, max_epochs=4)


@pytest.mark.parametrize(
    ("windows", "weights", "message"),
    [
        ({"web": 5, "wiki": 5}, {"web": 1.0}, "the dataset has web, wiki"),
        ({"web": 5}, {"web": 0.0}, "all 0"),
        ({"web": 5, "wiki": 0}, {"web": 1.0, "wiki": 1.0}, "wiki has no full sequence"),
        ({"web": 0}, None, "lower context_length"),
    ],
)
def test_weights_that_do_not_fit_the_dataset_are_refused(windows: dict, weights: dict | None, message: str):
    with pytest.raises(ConfigError, match=message):
        SampleOrder(windows, weights, 1, 8)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(20, 200), st.floats(0.05, 1)), min_size=1),
    st.lists(st.tuples(st.integers(1, 1500), st.integers(0, 3)), max_size=3),
    st.integers(0, 2**32),
)
@settings(max_examples=25)
def test_stages_change_the_shares_and_still_draw_every_window_once_an_epoch(
    sources: dict, changes: list, seed: int
):
    names = sorted(sources)
    starts = np.cumsum([length for length, _ in changes]).tolist()
    # Each stage leaves a source out, if there is another.
    later = [
        (start, {name: float(len(names) == 1 or i != left_out % len(names)) for i, name in enumerate(names)})
        for start, (_, left_out) in zip(starts, changes, strict=True)
    ]
    windows = {name: n for name, (n, _) in sources.items()}
    order = SampleOrder(windows, {name: w for name, (_, w) in sources.items()}, seed, 8, later)
    drawn, window = order.samples(0, 5000)
    pieces = [np.stack(order.samples(start, 250)) for start in range(0, 5000, 250)]
    assert np.array_equal(np.concatenate(pieces, axis=1), np.stack([drawn, window]))
    for i, n in enumerate(order.num_windows.tolist()):
        own = window[drawn == i]
        for epoch in range(len(own) // n):
            assert np.array_equal(np.sort(own[epoch * n : (epoch + 1) * n]), np.arange(n))
    for (start, weights), stop in zip(later, [*starts, 5000][1:], strict=True):
        counts = np.bincount(drawn[start:stop], minlength=len(names))
        assert set(np.flatnonzero(counts)) <= {i for i, name in enumerate(names) if weights[name]}
    for num_samples in (0, 1, *starts, 4999):
        counted = np.bincount(drawn[:num_samples], minlength=len(names))
        assert np.array_equal(order.counts(num_samples), counted)


def test_the_plan_is_a_table_of_what_each_source_gives():
    order = SampleOrder(
        {"web": 900, "wiki": 100}, {"web": 1, "wiki": 1}, 1, 8, [(500, {"web": 1, "wiki": 0})]
    )
    web, wiki = order.counts(1000).tolist()
    assert wiki < 300
    lines = plan_table(order.plan(1000), 8).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["web", "50.0%", "900", str(web), f"{8 * web:,}", f"{web / 900:.2f}"],
        ["wiki", "50.0%", "100", str(wiki), f"{8 * wiki:,}", f"{wiki / 100:.2f}"],
    ]


def test_windows_share_one_token():
    assert [count_windows(n, 4) for n in (0, 1, 4, 5, 8, 9, 10)] == [0, 0, 0, 1, 1, 2, 2]
