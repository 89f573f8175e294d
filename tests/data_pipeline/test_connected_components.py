"""Components of an edge list: by label propagation on a real Ray the same as by scipy, and as by hand."""

from __future__ import annotations

import random
from itertools import pairwise

import pyarrow as pa
import pytest

from data_pipeline.dedup.components import EDGES, LABELS, label, label_distributed, label_in_memory
from data_pipeline.engine import from_tables

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _edges(pairs: list[tuple[int, int]]) -> pa.Table:
    return pa.Table.from_pylist([{"left": left, "right": right} for left, right in pairs], schema=EDGES)


def _by_hand(pairs: list[tuple[int, int]]) -> dict[int, int]:
    groups = {key: {key} for pair in pairs for key in pair if pair[0] != pair[1]}
    for left, right in pairs:
        if left != right and groups[left] is not groups[right]:
            both = groups[left] | groups[right]
            for key in both:
                groups[key] = both
    return {key: min(group) for key, group in groups.items()}


def _path(length: int) -> list[tuple[int, int]]:
    places = list(range(length))
    random.Random(1).shuffle(places)
    return list(pairwise(places))


def _random(seed: int) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    return [(rng.randint(-40, 40), rng.randint(-40, 40)) for _ in range(45)]


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(3, 3)],
        [(1, 2)],
        [(5, 2), (2, 5), (2, 5), (-7, 9), (9, 5)],
        [(-1, key) for key in range(30)],
        _path(60),
        _random(1),
        _random(2),
    ],
)
def test_propagated_labels_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    edges = _edges(pairs)
    expected = label_in_memory(edges)
    assert expected.schema == LABELS
    assert dict(zip(*(column.to_pylist() for column in expected.columns), strict=True)) == _by_hand(pairs)
    dataset = from_tables([edges.slice(0, 7), edges.slice(7)])
    assert label_distributed(dataset, 3).equals(expected)
    assert label(dataset, 2, limit=10_000).equals(expected)
