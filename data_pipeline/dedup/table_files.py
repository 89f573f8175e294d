"""Any table of documents, in units that a task can hold: Parquet files, JSON lines, or a Delta table.

JSON lines are turned into Parquet first, in a folder of the job's own, so that everything after reads one format.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.config import SourceConfig
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.schema import replace_column
from data_pipeline.sources import as_path, list_files

UNIT_BYTES = 32 << 20
BATCH_ROWS = 2048
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".json")


@dataclass(frozen=True)
class Unit:
    """Some row groups of a Parquet file.

    Attributes:
        number: of the unit; its rows have the keys number << 36 | place.
        name: of the input file, for messages.
        path: of the Parquet file, local or a URI.
        first, last: its row groups, the last not included.
        start: rows of the file before them.
        num_rows: rows in them.
        constants: values of partition columns, which a Delta table's files lack.
    """

    number: int
    name: str
    path: str
    first: int
    last: int
    start: int
    num_rows: int
    constants: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class TableInput:
    """A table to read.

    Attributes:
        units: in the order of their files' names.
        schema: that every file fits: columns that a file lacks are null there.
    """

    units: list[Unit]
    schema: pa.Schema


def open_table(places: Sequence[str], work: Path) -> TableInput:
    """Find a table's files; JSON lines become Parquet below `work` (under a running Ray).

    Raises:
        InputError: nothing there, or files that are neither Parquet nor JSON lines, or that do not fit together.
    """
    files: list[tuple[str, str, tuple[tuple[str, str | None], ...]]] = []
    fields: list[pa.Schema] = []
    for place in places:
        if (as_path(place) / "_delta_log").is_dir():
            partitioned, schema = _delta_files(place)
            files += partitioned
            fields.append(schema)
        else:
            files += [(name, name, ()) for name in _listed(place)]
    lines = [name for name, _, _ in files if name.lower().endswith(JSON_LINES)]
    files = [file for file in files if file[0] not in lines] + _as_parquet(lines, work)
    units: list[Unit] = []
    for name, path, constants in sorted(files):
        with open_parquet(path, name) as file:
            fields.append(file.schema_arrow.remove_metadata())
            units += _units(file.metadata, len(units), name, path, constants)
    try:
        schema = pa.unify_schemas(fields, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"--input: the files' columns do not fit together ({_line(error)})") from None
    return TableInput(units, schema)


def open_parquet(path: str, name: str = "") -> pq.ParquetFile:
    """A Parquet file, local or behind a URI.

    Raises:
        InputError: it is none.
    """
    try:
        return pq.ParquetFile(as_path(path).open("rb") if "://" in path else path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"--input: {name or path} is no Parquet file that can be read ({_line(error)})"
        ) from None


def batches(unit: Unit, columns: list[str] | None, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """The unit's rows, some thousands at a time.

    Args:
        columns: to read; None for all.
        schema: that the batches are brought to.

    Raises:
        InputError: the file breaks off or is damaged.
    """
    with open_parquet(unit.path, unit.name) as file:
        known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        groups = list(range(unit.first, unit.last))
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=known):
                table = pa.table(batch)
                for name, value in unit.constants:
                    if columns is None or name in columns:
                        table = replace_column(table, name, pa.array([value] * table.num_rows, pa.string()))
                yield table if schema is None else _fitted(table, schema)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"--input: {unit.name} is damaged ({_line(error)})") from None


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _listed(place: str) -> list[str]:
    source = SourceConfig(name="input", kind="files", paths=[place])
    names = [str(path) for path in list_files(source)]
    for name in names:
        if not name.lower().endswith((".parquet", *JSON_LINES)):
            raise InputError(f"--input: {name} is neither Parquet nor JSON lines nor a Delta table")
    return names


def _delta_files(place: str) -> tuple[list[tuple[str, str, tuple[tuple[str, str | None], ...]]], pa.Schema]:
    from deltalake import DeltaTable

    table = DeltaTable(place)
    partitions = table.metadata().partition_columns
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    root = place.rstrip("/")
    files = []
    for action in actions:
        constants = tuple((name, _plain(action[f"partition.{name}"])) for name in partitions)
        path = action["path"] if "://" in action["path"] else f"{root}/{action['path']}"
        files.append((path, path, constants))
    return files, pa.schema(table.schema().to_arrow())


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)


def _units(
    metadata: pq.FileMetaData,
    number: int,
    name: str,
    path: str,
    constants: tuple[tuple[str, str | None], ...],
) -> list[Unit]:
    units: list[Unit] = []
    first = start = rows = size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if size and size + group.total_byte_size > UNIT_BYTES:
            units.append(Unit(number + len(units), name, path, first, index, start, rows, constants))
            first, start, rows, size = index, start + rows, 0, 0
        rows, size = rows + group.num_rows, size + group.total_byte_size
    if rows:
        units.append(
            Unit(number + len(units), name, path, first, metadata.num_row_groups, start, rows, constants)
        )
    return units


# ---------------------------------------------------------------------------------------------------- JSON lines

_PIECES = pa.schema([("name", pa.string()), ("path", pa.string())])


def _as_parquet(names: list[str], work: Path) -> list[tuple[str, str, tuple[tuple[str, str | None], ...]]]:
    """Parquet files with the lines' rows, in a folder below `work`."""
    if not names:
        return []
    folder = work / "rows"
    folder.mkdir(parents=True)
    tables = []
    for index, name in enumerate(names):
        size = as_path(name).stat().st_size
        step = max(1, size) if name.lower().endswith(".gz") else UNIT_BYTES
        tables += [
            pa.table({"name": [name], "start": [start], "stop": [start + step],
                      "out": [f"{folder}/{index:06d}-{start:015d}"]})
            for start in range(0, max(1, size), step)
        ]  # fmt: skip
    pieces = collect(map_tables(from_tables(tables), _convert), _PIECES).sort_by("path")
    return [(row["name"], row["path"], ()) for row in pieces.to_pylist()]


def _convert(units: pa.Table) -> pa.Table:
    """JSON lines that begin within a span of bytes, as Parquet; runs in a Ray task."""
    rows = []
    for unit in units.to_pylist():
        for number, lines in enumerate(_pieces(unit["name"], unit["start"], unit["stop"])):
            path = f"{unit['out']}-{number:06d}.parquet"
            pq.write_table(_parsed(lines, unit["name"]), path, compression="zstd", row_group_size=BATCH_ROWS)
            rows.append({"name": unit["name"], "path": path})
    return pa.Table.from_pylist(rows, schema=_PIECES)


def _pieces(name: str, start: int, stop: int) -> Iterator[list[bytes]]:
    """The lines that begin in a span, about UNIT_BYTES of them at a time."""
    packed = name.lower().endswith(".gz")
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(as_path(name).open("rb"))
        if packed:
            file, stop = cast(IO[bytes], stack.enter_context(gzip.open(file))), 1 << 62
        elif start:
            # A line that begins at `start` is this span's; one that began before is not.
            file.seek(start - 1)
            file.readline()
        lines: list[bytes] = []
        size = 0
        for line in _lines_until(file, stop):
            if line.strip():
                lines.append(line)
                size += len(line)
            if size >= UNIT_BYTES:
                yield lines
                lines, size = [], 0
        if lines:
            yield lines


def _lines_until(file: IO[bytes], stop: int) -> Iterator[bytes]:
    while file.tell() < stop and (line := file.readline()):
        yield line


def _parsed(lines: list[bytes], name: str) -> pa.Table:
    try:
        rows = [_object(line) for line in lines]
        # Of all rows: from_pylist takes the first one's for the columns.
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"--input: {name} holds a line that does not fit in ({_line(error)})") from None


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"no JSON object: {line[:60]!r}")
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def as_text(column: pa.ChunkedArray, unit: Unit, name: str) -> pa.ChunkedArray:
    """A column of texts, nulls as empty ones.

    Raises:
        InputError: it holds something else.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not (is_text or pa.types.is_string_view(column.type) or pa.types.is_null(column.type)):
        raise InputError(f"--text-column: {name} of {unit.name} holds {kind}, not text")
    return pc.fill_null(column.cast(pa.large_string()), "")
