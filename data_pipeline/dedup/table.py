"""Deduplicate any table with a column of texts: read, sign, compare, and write what is kept and what goes.

    input -> signatures of each unit (below OUTPUT/.work)
          -> find duplicates, texts of candidates read from the input
          -> OUTPUT/kept/part-*.parquet, OUTPUT/removed.parquet

Results are complete before they get their names; what a killed run left is cleared away by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from data_pipeline.config import DedupConfig
from data_pipeline.dedup.candidates import MEMBER_COLUMNS, Members
from data_pipeline.dedup.duplicates import Duplicates, cluster_sizes, find_duplicates
from data_pipeline.dedup.member_files import PLACE, PLACE_BITS, read_rows, rows_at
from data_pipeline.dedup.table_files import TableInput, Unit, as_text, batches, open_parquet, open_table
from data_pipeline.engine import collect, from_tables, map_tables, stream
from data_pipeline.errors import InputError
from data_pipeline.minhash import signatures
from data_pipeline.schema import replace_column
from data_pipeline.text_hash import text_hashes

ROWS_A_PARTITION = 20_000
_SIGNED = pa.schema(
    [
        ("doc_id", pa.string()),
        ("num_chars", pa.int64()),
        ("text_hash", pa.string()),
        ("signature", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What became of a table.

    Attributes:
        num_documents, num_kept, num_exact, num_near: documents read, kept, removed as exact and as near copies.
        num_clusters: kept documents that others were removed for.
        num_skipped: comparisons left out (see duplicates.Duplicates).
    """

    num_documents: int
    num_kept: int
    num_exact: int
    num_near: int
    num_clusters: int
    num_skipped: int


def dedup_table(
    places: Sequence[str],
    output: Path,
    id_column: str,
    text_column: str,
    config: DedupConfig,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Write the table without its duplicates, and the list of these; under a running Ray.

    Args:
        places: Parquet or JSON-lines files, folders or globs of them, Delta tables; local or URIs.
        output: folder for kept/*.parquet (all columns of the input) and removed.parquet.
        id_column: a document's name in removed.parquet; "" for its file and place.
        text_column: what is compared.
        config: threshold and signature scheme.
        progress: told what is going on, one short line at a time.

    Raises:
        InputError: nothing to read, columns that are not there, or results that are there already.
    """
    config.validate()
    check_output(output)
    work = output / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        progress("listing the input")
        table = open_table(places, work)
        _check_columns(table, id_column, text_column)
        num_documents = _sign(table, work, id_column, text_column, config, progress)
        progress("finding duplicates")
        members = _members(table, work, text_column)
        found = find_duplicates(members, config, num_documents // ROWS_A_PARTITION)
        progress("writing what is kept")
        _write_kept(table, work, found.removals)
        _write_removed(table, work, id_column, found)
        (work / "kept").rename(output / "kept")
        # Last: where it is, all is.
        (work / "removed.parquet").rename(output / "removed.parquet")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not any(output.iterdir()):
            output.rmdir()
    stages = found.removals["stage"].to_pylist()
    return Outcome(
        num_documents=num_documents,
        num_kept=num_documents - len(stages),
        num_exact=stages.count("exact_dedup"),
        num_near=stages.count("near_dedup"),
        num_clusters=len(cluster_sizes(found.removals)[0]),
        num_skipped=found.num_skipped,
    )


def check_output(output: Path) -> None:
    """Raise InputError where results would be overwritten."""
    for name in ("kept", "removed.parquet"):
        if (output / name).exists():
            raise InputError(f"--output: {output / name} is there already; name another folder or delete it")


def _check_columns(table: TableInput, id_column: str, text_column: str) -> None:
    for option, name in (("--id-column", id_column), ("--text-column", text_column)):
        if name and name not in table.schema.names:
            known = ", ".join(table.schema.names)
            raise InputError(f"{option}: the input has no column {name!r}; it has {known}")
    if not table.units:
        raise InputError("--input: the files hold no documents")


def _units_tables(units: Sequence[Unit], **more: Any) -> list[pa.Table]:
    return [pa.Table.from_pylist([_row(unit) | more]) for unit in units]


def _row(unit: Unit) -> dict[str, Any]:
    return asdict(unit) | {"constants": [list(pair) for pair in unit.constants]}


def _unit(row: dict[str, Any]) -> Unit:
    names = Unit.__dataclass_fields__
    values = {name: row[name] for name in names if name != "constants"}
    return Unit(**values, constants=tuple((name, value) for name, value in row["constants"]))


# ---------------------------------------------------------------------------------------------------- signatures


def _sign(
    table: TableInput,
    work: Path,
    id_column: str,
    text_column: str,
    config: DedupConfig,
    progress: Callable[[str], None],
) -> int:
    (work / "signatures").mkdir()
    options = {"work": str(work), "id_column": id_column, "text_column": text_column, "config": config}
    num_documents = 0
    signed = stream(map_tables(from_tables(_units_tables(table.units)), _sign_unit, **options))
    for done, row in enumerate(signed, start=1):
        num_documents += row["num_documents"]
        progress(f"signed {done} of {len(table.units)} parts, {num_documents:,} documents")
    return num_documents


def _sign_unit(rows: pa.Table, work: str, id_column: str, text_column: str, config: DedupConfig) -> pa.Table:
    """Signatures of units as a Parquet file each, rows in the input's order; runs in a Ray task."""
    counts = []
    for row in rows.to_pylist():
        unit, place = _unit(row), 0
        with pq.ParquetWriter(_signature_file(work, unit.number), _SIGNED) as writer:
            for batch in batches(unit, [name for name in (id_column, text_column) if name]):
                texts = as_text(_column(batch, text_column), unit, text_column)
                ids = _ids(batch, unit, id_column, place)
                num_chars = pc.utf8_length(texts).cast(pa.int64())
                columns = [ids, num_chars, text_hashes(texts), signatures(texts, config)]
                writer.write_table(pa.table(columns, schema=_SIGNED))
                place += batch.num_rows
        counts.append({"num_documents": place})
    return pa.Table.from_pylist(counts)


def _column(batch: pa.Table, name: str) -> pa.ChunkedArray:
    return batch[name] if name in batch.column_names else pa.chunked_array([pa.nulls(batch.num_rows)])


def _ids(batch: pa.Table, unit: Unit, id_column: str, place: int) -> pa.ChunkedArray | list[str]:
    first = unit.start + place
    if not id_column:
        return [f"{unit.name}#{number}" for number in range(first, first + batch.num_rows)]
    ids = _column(batch, id_column)
    if ids.null_count:
        missing = int(np.argmax(pc.is_null(ids).to_numpy()))
        raise InputError(f"--id-column: row {first + missing} of {unit.name} has no {id_column}")
    try:
        return ids.cast(pa.string())
    except pa.ArrowException:
        raise InputError(f"--id-column: {id_column} of {unit.name} holds {ids.type}, no ids") from None


def _signature_file(work: str, number: int) -> str:
    return f"{work}/signatures/unit-{number:06d}.parquet"


# -------------------------------------------------------------------------------------------------------- members


def _members(table: TableInput, work: Path, text_column: str) -> Members:
    """The table's documents as deduplication takes them."""

    def load(wanted: pa.Table, columns: list[str]) -> ray.data.Dataset:
        numbers = wanted["key"].to_numpy() >> PLACE_BITS
        units = []
        for number in np.unique(numbers).tolist():
            part = wanted.filter(pa.array(numbers == number))
            units.append(part.append_column("unit", pa.array([number] * part.num_rows, pa.int64())))
        by_number = ray.put({unit.number: unit for unit in table.units})
        return map_tables(
            from_tables(units),
            _load,
            columns=columns,
            units=by_number,
            work=str(work),
            text_column=text_column,
        )

    files = [
        pa.table({"path": [_signature_file(str(work), unit.number)], "number": [unit.number]})
        for unit in table.units
    ]
    return Members(
        new=map_tables(from_tables(files), _signed),
        stored=None,
        num_new=sum(unit.num_rows for unit in table.units),
        load=load,
    )


def _signed(units: pa.Table) -> pa.Table:
    """MEMBER_COLUMNS of signed units; runs in a Ray task."""
    tables = []
    for row in units.to_pylist():
        table = pq.read_table(row["path"], columns=MEMBER_COLUMNS[1:], partitioning=None)
        keys = (row["number"] << PLACE_BITS) | np.arange(table.num_rows)
        tables.append(table.append_column("key", pa.array(keys, pa.int64())).select(MEMBER_COLUMNS))
    return pa.concat_tables(tables)


def _load(
    wanted: pa.Table, columns: list[str], units: ray.ObjectRef, work: str, text_column: str
) -> pa.Table:
    """The wanted documents of one unit with the columns asked for; runs in a Ray task."""
    if not wanted.num_rows:
        return wanted
    unit: Unit = ray.get(units)[wanted["unit"][0].as_py()]
    places = wanted["key"].to_numpy() & PLACE
    rows = read_rows(
        _signature_file(work, unit.number), places, [name for name in _SIGNED.names if name in columns]
    )
    out = wanted.drop_columns(["unit"])
    for name in columns:
        if name == "source_rank":
            values: Any = pa.array(np.zeros(len(places), np.int64))
        elif name == "text":
            values = _texts(unit, places, wanted, text_column)
        else:
            values = rows[name]
        out = replace_column(out, name, values)
    return out


def _texts(unit: Unit, places: np.ndarray, wanted: pa.Table, text_column: str) -> pa.Array:
    chosen = wanted["needs_text"].to_numpy(zero_copy_only=False)
    texts = pa.chunked_array([pa.array([], pa.large_string())])
    if chosen.any():
        with open_parquet(unit.path, unit.name) as file:
            rows = rows_at(file, unit.start + places[chosen], [text_column])
        texts = as_text(rows[text_column], unit, text_column)
    place = np.cumsum(chosen) - 1
    return pc.fill_null(pc.take(texts, pa.array(place, mask=~chosen)), "")


# -------------------------------------------------------------------------------------------------------- results


def _write_kept(table: TableInput, work: Path, removals: pa.Table) -> None:
    (work / "kept").mkdir()
    gone = ray.put(removals["row_id"].to_numpy())
    written = map_tables(
        from_tables(_units_tables(table.units)), _write_unit, work=str(work), gone=gone, schema=table.schema
    )
    assert sum(row["num_kept"] for row in stream(written)) + removals.num_rows == sum(
        unit.num_rows for unit in table.units
    )


def _write_unit(rows: pa.Table, work: str, gone: ray.ObjectRef, schema: pa.Schema) -> pa.Table:
    """The rows of units that stay, as a Parquet file each; runs in a Ray task."""
    removed: np.ndarray = ray.get(gone)
    counts = []
    for row in rows.to_pylist():
        unit, place, num_kept = _unit(row), row["number"] << PLACE_BITS, 0
        with pq.ParquetWriter(
            f"{work}/kept/part-{unit.number:06d}.parquet", schema, compression="zstd"
        ) as writer:
            for batch in batches(unit, None, schema):
                first, last = np.searchsorted(removed, (place, place + batch.num_rows))
                stays = np.ones(batch.num_rows, np.bool_)
                stays[removed[first:last] - place] = False
                kept = batch.filter(pa.array(stays))
                writer.write_table(kept)
                place, num_kept = place + batch.num_rows, num_kept + kept.num_rows
        counts.append({"num_kept": num_kept})
    return pa.Table.from_pylist(counts)


def _write_removed(table: TableInput, work: Path, id_column: str, found: Duplicates) -> None:
    """removed.parquet: id, duplicate_of, similarity, cluster (1 for the largest), reason."""
    removals = found.removals
    wanted = pa.table({"key": removals["row_id"]})
    members = _members(table, work, "")
    ids = collect(members.load(wanted, ["doc_id"]), pa.schema([("key", pa.int64()), ("doc_id", pa.string())]))
    keepers, _ = cluster_sizes(removals)
    number_of = {keeper: number for number, keeper in enumerate(keepers.tolist(), start=1)}
    kind = table.schema.field(id_column).type if id_column else pa.string()
    columns = {
        "id": ids.sort_by("key")["doc_id"].cast(kind),
        "duplicate_of": removals["duplicate_of"].cast(kind),
        "similarity": removals["similarity"],
        "cluster": pa.array([number_of[keeper] for keeper in removals["keeper"].to_pylist()], pa.int64()),
        "reason": removals["reason"],
    }
    pq.write_table(pa.table(columns), work / "removed.parquet", compression="zstd")
