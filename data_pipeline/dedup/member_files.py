"""The documents of a refresh as deduplication wants them: signatures all, anything else only of chosen documents.

Keys: a new document's is its row_id (number of the staged file << 36 | place in it); a kept document's is
-1 - (number of its signature file << 36 | place in it). So a key says where a document lies, and a text is read from the
files, and the row groups of them, that hold a wanted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from data_pipeline import schema
from data_pipeline.dedup.candidates import MEMBER_COLUMNS, Members
from data_pipeline.engine import from_tables, map_tables
from data_pipeline.storage import open_parquet, read_parquet

PLACE_BITS = 36
PLACE = (1 << PLACE_BITS) - 1
# Bytes of signature files that one task reads, about, and files, at most.
BYTES_A_TASK, FILES_A_TASK = 8 << 20, 64


def members_of(
    staged: Sequence[Path],
    signature_files: Sequence[str],
    document_files: Sequence[str],
    ranks: dict[str, int],
    leaving: pa.Array | None = None,
    signature_sizes: Sequence[int] = (),
) -> Members:
    """The documents of a refresh.

    Args:
        staged: staged files (schema.STAGED), one a unit, named unit-NUMBER.parquet.
        signature_files, document_files: Parquet files of the kept documents' tables.
        ranks: {source: priority}, 0 first.
        leaving: ids of kept documents that nothing is compared with, for they leave.
        signature_sizes: bytes of the signature files; small ones share a task.
    """
    paths = {int(path.stem.split("-")[1]): str(path) for path in staged}

    def load(wanted: pa.Table, columns: list[str]) -> ray.data.Dataset:
        keys = wanted["key"].to_numpy()
        files = np.where(keys >= 0, keys, -1 - keys) >> PLACE_BITS
        units = []
        for is_stored in (True, False):
            side = (keys < 0) == is_stored
            for number in np.unique(files[side]).tolist():
                path = signature_files[number] if is_stored else paths[number]
                here = np.flatnonzero(side & (files == number))
                # In the order of their places in the file.
                unit = wanted.take(pa.array(here[::-1] if is_stored else here))
                units.append(unit.append_column("path", pa.array([path] * unit.num_rows, pa.string())))
        return map_tables(
            from_tables(units), _load, columns=columns, ranks=ranks, document_files=list(document_files)
        )

    units = [pa.table({"path": [path], "number": [number]}) for number, path in sorted(paths.items())]
    kept = _in_parts(signature_files, signature_sizes or [BYTES_A_TASK] * len(signature_files))
    gone = ray.put(leaving) if leaving is not None and len(leaving) else None
    return Members(
        new=map_tables(from_tables(units), _new_members),
        stored=map_tables(from_tables(kept), _stored_members, leaving=gone) if kept else None,
        num_new=sum(_num_rows(path) for path in staged),
        load=load,
    )


def _in_parts(files: Sequence[str], sizes: Sequence[int]) -> list[pa.Table]:
    """Numbered files, one table a task: nightly refreshes leave many small ones."""
    parts: list[list[tuple[str, int]]] = []
    filled = BYTES_A_TASK
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if filled + size > BYTES_A_TASK or len(parts[-1]) == FILES_A_TASK:
            parts.append([])
            filled = 0
        parts[-1].append((path, number))
        filled += size
    return [
        pa.table({"path": [path for path, _ in part], "number": [number for _, number in part]})
        for part in parts
    ]


def _num_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _new_members(unit: pa.Table) -> pa.Table:
    """MEMBER_COLUMNS of the staged documents that are alive; runs in a Ray task."""
    tables = []
    for path in unit["path"].to_pylist():
        table = read_parquet(path, ["row_id", "reason", *MEMBER_COLUMNS[1:]]).rename_columns(
            {"row_id": "key"}
        )
        tables.append(table.filter(pc.is_null(table["reason"])).select(MEMBER_COLUMNS))
    return pa.concat_tables(tables)


def _stored_members(unit: pa.Table, leaving: ray.ObjectRef | None = None) -> pa.Table:
    """MEMBER_COLUMNS of kept documents; runs in a Ray task."""
    gone: pa.Array | None = None if leaving is None else ray.get(leaving)
    tables = []
    for path, number in zip(unit["path"].to_pylist(), unit["number"].to_pylist(), strict=True):
        table = read_parquet(path, [*MEMBER_COLUMNS[1:], *(["doc_id"] if gone is not None else [])])
        keys = -1 - ((number << PLACE_BITS) | np.arange(table.num_rows))
        table = table.append_column("key", pa.array(keys, pa.int64()))
        if gone is not None:
            table = table.filter(pc.invert(pc.is_in(table["doc_id"], gone)))
        tables.append(table.select(MEMBER_COLUMNS))
    return pa.concat_tables(tables)


def _load(wanted: pa.Table, columns: list[str], ranks: dict[str, int], document_files: list[str]) -> pa.Table:
    """The wanted documents of one file with the columns asked for; runs in a Ray task."""
    if not wanted.num_rows:
        return wanted
    path = wanted["path"][0].as_py()
    keys = wanted["key"].to_numpy()
    rows = (_read_stored if keys[0] < 0 else _read_staged)(path, wanted, columns, document_files)
    if "source_rank" in columns:
        rank = [ranks.get(source, len(ranks)) for source in rows["source"].to_pylist()]
        rows = rows.append_column("source_rank", pa.array(rank, pa.int64()))
    out = wanted.drop_columns(["path"])
    for name in columns:
        out = schema.replace_column(out, name, rows[name])
    return out


def _read_staged(path: str, wanted: pa.Table, columns: list[str], _: list[str]) -> pa.Table:
    places = wanted["key"].to_numpy() & PLACE
    names = [name for name in schema.STAGED.names if name in columns and name != "text"]
    rows = read_rows(path, places, [*names, *(["source"] if "source" not in names else [])])
    if "text" not in columns:
        return rows
    chosen = _needs_text(wanted)
    return rows.append_column("text", _spread(read_rows(path, places[chosen], ["text"])["text"], chosen))


def _read_stored(path: str, wanted: pa.Table, columns: list[str], document_files: list[str]) -> pa.Table:
    places = (-1 - wanted["key"].to_numpy()) & PLACE
    names = [name for name in schema.SIGNATURES.names if name in {*columns, "doc_id", "source"}]
    rows = read_rows(path, places, names)
    others = [name for name in schema.DOCUMENTS.names if name in columns and name not in names]
    if not others:
        return rows
    chosen = _needs_text(wanted)
    ids = rows["doc_id"].filter(pa.array(chosen))
    found = _find_documents(ids, places[chosen], path.rsplit("/", 1)[-1], others, document_files)
    for name in others:
        rows = rows.append_column(name, _spread(found[name], chosen))
    return rows


def _find_documents(
    ids: pa.ChunkedArray, places: np.ndarray, name: str, columns: list[str], document_files: list[str]
) -> pa.Table:
    """Columns of the documents of these ids, in their order.

    A signature lies where its document does: in the file of the same name, at the same place. Tables that somebody has
    compacted since are searched, by the column of ids.
    """
    ids = ids.combine_chunks()
    parts, missing = [], np.ones(len(ids), np.bool_)
    for path in sorted(document_files, key=lambda path: (path.rsplit("/", 1)[-1] != name, path)):
        if not missing.any():
            break
        here = read_parquet(path, ["doc_id"])["doc_id"]
        place = pc.index_in(ids, value_set=here.combine_chunks()).to_numpy(zero_copy_only=False)
        hits = np.flatnonzero(missing & ~np.isnan(place.astype(np.float64)))
        if len(hits):
            at = place[hits].astype(np.int64)
            order = np.argsort(at)
            rows = read_rows(path, at[order], columns)
            parts.append(rows.append_column("_", pa.array(hits[order])))
            missing[hits] = False
    if missing.any():
        raise RuntimeError(
            f"corpus/documents lacks {ids[int(np.argmax(missing))]}, whose signature {name} has"
        )
    empty = pa.schema([schema.DOCUMENTS.field(column) for column in columns]).empty_table()
    return pa.concat_tables(parts).sort_by("_").select(columns) if parts else empty


def _needs_text(wanted: pa.Table) -> np.ndarray:
    if "needs_text" not in wanted.column_names:
        return np.ones(wanted.num_rows, np.bool_)
    return wanted["needs_text"].to_numpy(zero_copy_only=False)


def _spread(values: pa.ChunkedArray, chosen: np.ndarray) -> pa.ChunkedArray:
    """Values of the chosen rows where they belong, an empty string elsewhere."""
    if not len(values):
        return pa.chunked_array([pa.array([""] * len(chosen), pa.string())])
    place = np.cumsum(chosen) - 1
    return pc.fill_null(pc.take(values, pa.array(place, mask=~chosen)), "")


def read_rows(path: str, places: np.ndarray, columns: list[str]) -> pa.Table:
    """`rows_at` of a file."""
    with open_parquet(path) as file:
        return rows_at(file, places, columns)


def rows_at(file: pq.ParquetFile, places: np.ndarray, columns: list[str]) -> pa.Table:
    """Rows of a Parquet file by their sorted places; only the row groups that hold them are read."""
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    group = np.searchsorted(ends, places, side="right")
    parts = [
        file.read_row_group(index, columns=columns).take(
            pa.array(places[group == index] - (ends[index] - sizes[index]))
        )
        for index in np.unique(group).tolist()
    ]
    empty = pa.schema([file.schema_arrow.field(name) for name in columns]).empty_table()
    return pa.concat_tables(parts).select(columns) if parts else empty
