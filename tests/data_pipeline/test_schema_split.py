"""Rows are never lost between two steps."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import schema
from data_pipeline.schema import Verdict, conform, split

VERDICTS = st.one_of(
    st.none(),
    st.builds(
        Verdict,
        st.sampled_from(["too_short", "odd"]),
        st.one_of(st.none(), st.floats(0, 1)),
        st.one_of(st.none(), st.floats(0, 1)),
    ),
)


@given(st.lists(VERDICTS, max_size=30), st.integers(0, 30))
def test_kept_and_removed_rows_are_the_input_in_its_order(verdicts: list[Verdict | None], cut: int) -> None:
    numbers = list(range(len(verdicts)))
    chunks = [pa.array(part, pa.int64()) for part in (numbers[:cut], numbers[cut:])]
    table = pa.table({"n": pa.chunked_array(chunks)})
    kept, removed = split(table, "a_step", verdicts)
    assert kept.column_names == ["n"]
    assert kept["n"].to_pylist() == [n for n in numbers if verdicts[n] is None]
    assert sorted(kept["n"].to_pylist() + removed["n"].to_pylist()) == numbers
    expected = [(n, verdict) for n, verdict in enumerate(verdicts) if verdict is not None]
    assert removed.to_pylist() == [
        {"n": n, "stage": "a_step", "reason": v.reason, "value": v.value, "threshold": v.threshold}
        for n, v in expected
    ]
    assert removed.schema.field("value").type == pa.float64()


@given(st.permutations(schema.REMOVED.names), st.integers(0, len(schema.REMOVED)))
def test_conform_gives_exactly_the_schemas_columns(names: list[str], num_given: int) -> None:
    given_names = names[:num_given]
    table = pa.table(
        {name: pa.array([None, None], schema.REMOVED.field(name).type) for name in given_names}
        | {"extra": pa.array([1, 2])}
    )
    conformed = conform(table, schema.REMOVED)
    assert conformed.schema == schema.REMOVED
    assert conformed.num_rows == 2


def test_conform_keeps_values_and_casts_text() -> None:
    table = pa.table({"doc_id": pa.array(["a"], pa.large_string()), "num_kept": [3]})
    assert conform(
        table, pa.schema([("num_kept", pa.int64()), ("doc_id", pa.string()), ("uri", pa.string())])
    ).to_pylist() == [{"num_kept": 3, "doc_id": "a", "uri": None}]


def test_replace_column_keeps_the_place_of_a_column() -> None:
    table = pa.table({"a": [1], "b": [2]})
    assert schema.replace_column(table, "a", pa.array([9])).to_pydict() == {"a": [9], "b": [2]}
    assert schema.replace_column(table, "c", pa.array([9])).column_names == ["a", "b", "c"]


def test_a_wrong_number_of_verdicts_is_an_error() -> None:
    with pytest.raises(pa.ArrowInvalid):
        split(pa.table({"n": [1, 2]}), "a_step", [None])
