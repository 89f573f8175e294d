"""Input files through every per-document step into staged Parquet files, in one Ray Data map.

    read -> extract -> clean -> identify the language -> filter -> sign

A unit of files is one task and one staged file of schema.STAGED: every record that was read is a row of it, kept
ones with a null `reason`, removed ones with theirs. `row_id` is (file index << 32 | place in the file).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import xxhash

from data_pipeline import clean, extract, filters, language, minhash, schema
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.engine import from_tables, map_tables, stream
from data_pipeline.filter_presets import preset_of
from data_pipeline.sources import Record, read_records

Progress = Callable[[str], None]
BATCH_ROWS, BATCH_CHARS = 512, 16 << 20


@dataclass(frozen=True)
class InputFile:
    """One file to read: where it is, and what identifies its content."""

    path: Path
    name: str
    source: int
    size: int
    sha256: str


def _units(inputs: Sequence[InputFile], unit_bytes: int) -> list[pa.Table]:
    """Input files in tables of about `unit_bytes`, one table a task."""
    units: list[list[int]] = [[]]
    filled = 0
    for index, file in enumerate(inputs):
        if units[-1] and filled + file.size > unit_bytes:
            units.append([])
            filled = 0
        units[-1].append(index)
        filled += file.size
    return [
        pa.table({"unit": [number] * len(unit), "file": unit, "source": [inputs[i].source for i in unit],
                  "path": [str(inputs[i].path) for i in unit], "name": [inputs[i].name for i in unit]})
        for number, unit in enumerate(units)
    ]  # fmt: skip


def stage_files(
    inputs: Sequence[InputFile], config: RefreshConfig, staging: Path, progress: Progress
) -> dict[int, tuple[int, str]]:
    """Run every per-document step; return {file index: (documents read, error or "")}."""
    # At least a few units a core, so that a handful of files still keeps the cluster busy.
    cores = int(ray.cluster_resources().get("CPU", 1))
    total = sum(file.size for file in inputs)
    units = _units(inputs, max(1, min(config.unit_bytes, total // (4 * cores))))
    done = map_tables(from_tables(units), _stage_unit, config=config, staging=str(staging))
    read: dict[int, tuple[int, str]] = {}
    documents = 0
    for row in stream(done):
        read[row["file"]] = (row["num_documents"], row["error"])
        documents += row["num_documents"]
        progress(f"read {len(read)}/{len(inputs)} files, {documents:,} documents")
    return read


def _stage_unit(unit: pa.Table, config: RefreshConfig, staging: str) -> pa.Table:
    """Read one unit's files through all per-document steps into a staged Parquet file; count per file."""
    counts = []
    number = unit["unit"][0].as_py()
    path = Path(staging) / f"unit-{number:06d}.parquet"
    with pq.ParquetWriter(path.with_suffix(".tmp"), schema.STAGED, compression="zstd") as writer:
        for row in unit.to_pylist():
            source = config.sources[row["source"]]
            errors: list[str] = []
            records = numbered(read_records(source, Path(row["path"])), row["file"], errors)
            num_documents = 0
            for batch in _batches(records):
                table = _raw_table(batch, source, row["name"])
                num_documents += table.num_rows
                writer.write_table(process(table, config))
            counts.append({"file": row["file"], "num_documents": num_documents, "error": "; ".join(errors)})
    path.with_suffix(".tmp").rename(path)
    return pa.Table.from_pylist(counts)


def numbered(records: Iterator[Record], file: int, errors: list[str]) -> Iterator[tuple[int, Record]]:
    """Records with their row_id; what breaks a file off becomes a last record and an error."""
    ordinal = 0
    while True:
        try:
            record = next(records, None)
        except Exception as error:  # any library may trip over a damaged file; the good records stand
            errors.append(_printable(f"{type(error).__name__}: {error}"))
            record = Record("", reason="damaged_file")
        if record is None:
            return
        yield (file << 32) | ordinal, record
        if errors:
            return
        ordinal += 1


def _printable(message: str) -> str:
    """A message of a library about hostile bytes, safe for a terminal and short."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(message.split()))[:200]


def _batches(records: Iterator[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Groups of records, bounded in number and in characters."""
    batch: list[tuple[int, Record]] = []
    chars = 0
    for item in records:
        batch.append(item)
        chars += len(item[1].content)
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _raw_table(batch: Sequence[tuple[int, Record]], source: SourceConfig, input_file: str) -> pa.Table:
    preset = preset_of(source.kind, source.preset)
    columns = {
        "row_id": [row_id for row_id, _ in batch],
        "source": [source.name] * len(batch),
        "preset": [preset] * len(batch),
        "input_file": [input_file] * len(batch),
        "uri": [clean.storable(record.uri) or input_file for _, record in batch],
        "title": [clean.storable(record.title) for _, record in batch],
        "text": [clean.storable(record.content) for _, record in batch],
        "format": [record.format for _, record in batch],
        "date": [clean.storable(record.date) for _, record in batch],
        "license": [source.license] * len(batch),
        "reason": [record.reason for _, record in batch],
    }
    return pa.table(columns, schema=schema.RAW.append(pa.field("reason", pa.string())))


def process(table: pa.Table, config: RefreshConfig) -> pa.Table:
    """All per-document steps over one batch.

    Args:
        table: rows of schema.RAW and a column `reason` ("" where the reader gave a document).

    Returns:
        As many rows of schema.STAGED: kept ones with a null `reason`, removed ones with theirs.
    """
    reasons = [schema.Verdict(reason) if reason else None for reason in table["reason"].to_pylist()]
    alive, unread = schema.split(table.drop_columns(["reason"]), "read", reasons)
    alive, empty = extract.extract(alive)
    alive = clean.clean(alive, config.clean)
    alive, foreign = language.identify(alive, config.language)
    alive, poor = filters.filter_documents(alive)
    alive = schema.replace_column(
        alive, "signature", minhash.signatures(alive["text"].to_pylist(), config.dedup)
    )
    rows = pa.concat_tables(
        [schema.conform(_identified(part), schema.STAGED) for part in (alive, unread, empty, foreign, poor)]
    )
    return rows.sort_by("row_id")


def _identified(table: pa.Table) -> pa.Table:
    """With doc_id, text_hash and num_chars."""
    texts = table["text"].to_pylist()
    doc_ids = [
        doc_id(source, uri, text)
        for source, uri, text in zip(
            table["source"].to_pylist(), table["uri"].to_pylist(), texts, strict=True
        )
    ]
    table = schema.replace_column(table, "doc_id", pa.array(doc_ids, pa.string()))
    table = schema.replace_column(
        table, "text_hash", pa.array([text_hash(text) for text in texts], pa.string())
    )
    return schema.replace_column(table, "num_chars", pa.array([len(text) for text in texts], pa.int64()))


def doc_id(source: str, uri: str, text: str) -> str:
    """xxh3-128 hex of source, uri and text (lengths first, so that no two triples run together)."""
    parts = [part.encode("utf-8") for part in (source, uri, text)]
    return xxhash.xxh3_128_hexdigest(b"".join(len(part).to_bytes(8, "little") + part for part in parts))


def text_hash(text: str) -> str:
    """xxh3-128 hex of the text, case-folded and with its spaces levelled: equal for exact copies."""
    return xxhash.xxh3_128_hexdigest(" ".join(text.casefold().split()).encode("utf-8"))


def staged_files(staging: Path) -> list[Path]:
    """The staged files, in the order of their units."""
    return sorted(staging.glob("unit-*.parquet"))
