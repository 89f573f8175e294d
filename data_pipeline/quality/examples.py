"""Choose the documents that a quality model learns from, and bring their windows together.

The choice goes by the hash of the text, so it does not depend on files, their order or the number of workers. The
hash's end decides which documents are taken, its beginning which of them are held out (as for token shards).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray

from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.quality.features import Windows
from data_pipeline.storage import open_parquet, place_of
from data_pipeline.tokenizer import is_validation

MIN_TRAINING, MIN_HELD_OUT = 20, 5
# A Parquet file of documents, kept ones or staged ones, and the sources in it that are examples: {source: is good}.
Place = tuple[str, Mapping[str, bool]]
CHOSEN = pa.schema(
    [("doc_id", pa.string()), ("text_hash", pa.string()), ("source", pa.string()), ("uri", pa.string()),
     ("input_file", pa.string()), ("is_good", pa.bool_())]
)  # fmt: skip
WINDOWS = pa.schema(
    [("text_hash", pa.string()), ("window", pa.int64()), ("buckets", pa.large_list(pa.uint32()))]
)


@dataclass(frozen=True)
class Examples:
    """Documents to learn from and to test with, in the order of their text hashes.

    Attributes:
        documents: rows of CHOSEN, one a text.
        windows: of these documents.
        is_held_out: bool [documents].
    """

    documents: pa.Table
    windows: Windows
    is_held_out: np.ndarray

    @property
    def is_good(self) -> np.ndarray:
        """bool [documents]."""
        return self.documents["is_good"].to_numpy()


def read_examples(
    places: Sequence[Place], max_documents: int, held_out: float, log2_buckets: int
) -> Examples:
    """Choose documents and read their windows, in one Ray Data map.

    Args:
        places: files and what of them counts.
        max_documents: documents of a class, at most.
        held_out: share of the documents to test with.

    Raises:
        InputError: too few documents of a class, or a text that is in both.
    """
    chosen = choose(places, max_documents).sort_by([("text_hash", "ascending"), ("is_good", "ascending")])
    is_held_out = np.array([is_validation(text, held_out) for text in chosen["text_hash"].to_pylist()], bool)
    _check(chosen, is_held_out)
    units = from_tables([pa.table({"path": [path]}) for path, _ in places])
    ids = ray.put(chosen["doc_id"].combine_chunks())
    rows = collect(map_tables(units, _windows_of_files, ids=ids, log2_buckets=log2_buckets), WINDOWS)
    return Examples(chosen, _in_order(rows, chosen["text_hash"]), is_held_out)


def choose(places: Sequence[Place], max_documents: int) -> pa.Table:
    """Rows of CHOSEN: of each class the `max_documents` texts with the smallest hash ends, each text once."""
    chosen = CHOSEN.empty_table()
    for path, sides in places:
        with open_parquet(path) as file:
            names = file.schema_arrow.names
        columns = [name for name in (*CHOSEN.names, "reason") if name in names]
        condition = pc.field("source").isin(list(sides))
        if "reason" in names:
            condition &= pc.field("reason").is_null()
        table = _scan(path, columns, condition)
        is_good = [sides[source] for source in table["source"].to_pylist()]
        table = table.append_column("is_good", pa.array(is_good, pa.bool_())).select(CHOSEN.names)
        chosen = _first(pa.concat_tables([chosen, table.cast(CHOSEN)]), max_documents)
    return chosen


def _scan(path: str, columns: Sequence[str], condition: pc.Expression) -> pa.Table:
    files, place = place_of(path)
    return pads.dataset(place, format="parquet", partitioning=None, filesystem=files).to_table(
        list(columns), filter=condition
    )


def _first(table: pa.Table, max_documents: int) -> pa.Table:
    ends = pc.utf8_slice_codeunits(table["text_hash"], 16)
    table = table.append_column("end", ends).sort_by(
        [("end", "ascending"), ("text_hash", "ascending"), ("doc_id", "ascending")]
    )
    parts = []
    for side in (False, True):
        part = table.filter(pc.equal(table["is_good"], side)).drop_columns(["end"])
        hashes = part["text_hash"].to_numpy()
        is_first = np.ones(len(hashes), bool)
        is_first[1:] = hashes[1:] != hashes[:-1]
        parts.append(part.filter(pa.array(is_first)).slice(0, max_documents))
    return pa.concat_tables(parts).combine_chunks()


def _check(chosen: pa.Table, is_held_out: np.ndarray) -> None:
    """Stop where nothing could be learnt, or where what was learnt would mean nothing."""
    is_good = chosen["is_good"].to_numpy()
    hashes = chosen["text_hash"].to_numpy()
    shared = np.flatnonzero(hashes[1:] == hashes[:-1])
    if len(shared):
        bad, good = chosen.slice(int(shared[0]), 2).to_pylist()
        raise InputError(
            f"train_quality: {len(shared)} texts are both good and bad examples, for instance {_name(good)} and "
            f"{_name(bad)}; take them out of one side, or refresh all sources into one corpus first, which keeps "
            "each text once"
        )
    for option, side in (("good", is_good), ("bad", ~is_good)):
        training, testing = int((side & ~is_held_out).sum()), int((side & is_held_out).sum())
        if training < MIN_TRAINING or testing < MIN_HELD_OUT:
            raise InputError(
                f"train_quality.{option}: its sources give {training} documents to train on and {testing} to test "
                f"with, at least {MIN_TRAINING} and {MIN_HELD_OUT} are needed; name more sources or files, or raise "
                "train_quality.held_out"
            )


def _name(row: dict[str, Any]) -> str:
    """A document, so that it can be found."""
    return f"{row['uri']} (source {row['source']}, file {row['input_file']})"


def _windows_of_files(units: pa.Table, ids: ray.ObjectRef, log2_buckets: int) -> pa.Table:
    """The windows of the chosen documents in Parquet files; runs in a Ray task."""
    chosen: pa.Array = ray.get(ids)
    tables = []
    for path in units["path"].to_pylist():
        table = _scan(path, ["text_hash", "text"], pc.field("doc_id").isin(chosen))
        windows = Windows.of_texts(table["text"].to_pylist(), log2_buckets)
        columns = {
            "text_hash": table["text_hash"].combine_chunks().take(pa.array(windows.document)),
            # Number in its document: distance from the document's first window.
            "window": pa.array(
                np.arange(len(windows.document)) - np.searchsorted(windows.document, windows.document)
            ),
            "buckets": pa.LargeListArray.from_arrays(
                pa.array(windows.starts, pa.int64()), pa.array(windows.indices, pa.uint32())
            ),
        }
        tables.append(pa.table(columns, schema=WINDOWS))
    return pa.concat_tables(tables)


def _in_order(rows: pa.Table, text_hashes: pa.ChunkedArray) -> Windows:
    """Rows of WINDOWS in any order as the windows of the documents of these hashes."""
    rows = rows.sort_by([("text_hash", "ascending"), ("window", "ascending")])
    document = pc.index_in(rows["text_hash"], value_set=text_hashes.combine_chunks()).to_numpy()
    number = rows["window"].to_numpy()
    # The same record in two files is the same document, and the same windows, twice.
    is_first = np.ones(len(document), bool)
    is_first[1:] = (document[1:] != document[:-1]) | (number[1:] != number[:-1])
    buckets = rows["buckets"].filter(pa.array(is_first)).combine_chunks()
    starts = buckets.offsets.to_numpy() - buckets.offsets[0].as_py()
    return Windows(starts, buckets.flatten().to_numpy(), document[is_first].astype(np.int64))
