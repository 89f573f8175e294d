"""Input files through every per-document step into staged Parquet files, a Ray task a unit of files.

    read -> STEPS (extract, clean, identify the language, filter, score the quality) -> sign

A unit of files is one task and one staged file of schema.STAGED: every record that was read is a row of it, kept
ones with a null `reason`, removed ones with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import xxhash

from data_pipeline import clean, decontaminate, extract, filters, language, minhash, privacy, schema
from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig, Treatment
from data_pipeline.engine import from_tables, map_tables, stream
from data_pipeline.quality import scoring
from data_pipeline.repairs import before_repairs
from data_pipeline.sources import WHOLE, Record, Span, as_path, read_records, split_file
from data_pipeline.storage import find, new_file
from data_pipeline.text_hash import text_hashes
from data_pipeline.words import count_words

Progress = Callable[[str], None]
BATCH_ROWS, BATCH_CHARS = 512, 16 << 20
# A smaller part of a file is not worth a task.
MIN_SPAN_BYTES = 256 << 10
# At least, so that a handful of files still keeps the cluster busy to the end.
UNITS_A_CORE = 8


@dataclass(frozen=True)
class InputFile:
    """One file to read: where it is, and what identifies its content.

    Attributes:
        name: how the corpus calls it.
        source: index of its source in the configuration.
        modified: ns of the store's time stamp; None where it does not tell one content from the next.
    """

    path: Path
    name: str
    source: int
    size: int
    sha256: str
    modified: int | None = None

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from the others: two sources may name one file."""
        return self.source, self.name


def _units(
    pieces: Sequence[tuple[int, InputFile, Span]], unit_bytes: int, first_unit: int = 0
) -> list[pa.Table]:
    """Spans of files in tables of about `unit_bytes`, one table a task.

    Args:
        pieces: (index of the file, the file, a span of it), in order.
        first_unit: the first table's number.
    """
    units: list[list[dict[str, Any]]] = [[]]
    filled = 0
    for index, file, span in pieces:
        size = (file.size if span.stop is None else span.stop) - span.start
        if units[-1] and filled + size > unit_bytes:
            units.append([])
            filled = 0
        units[-1].append(
            {"unit": first_unit + len(units) - 1, "file": index, "source": file.source, "path": str(file.path),
             "name": file.name, "start": span.start, "stop": span.stop}
        )  # fmt: skip
        filled += size
    return [pa.Table.from_pylist(unit, schema=UNIT) for unit in units]


UNIT = pa.schema(
    [("unit", pa.int64()), ("file", pa.int64()), ("source", pa.int64()), ("path", pa.string()),
     ("name", pa.string()), ("start", pa.int64()), ("stop", pa.int64())]
)  # fmt: skip
SPANS = pa.schema([("file", pa.int64()), ("start", pa.int64()), ("stop", pa.int64())])


def stage_files(
    inputs: Sequence[InputFile],
    config: RefreshConfig,
    staging: Path,
    progress: Progress,
    first_unit: int = 0,
) -> dict[int, tuple[int, str]]:
    """Run every per-document step; return {file index: (documents read, error or "")}.

    Args:
        first_unit: number of the first staged file, behind those that are in the folder already.
    """
    units = plan_units(inputs, config, first_unit)
    read: dict[int, tuple[int, str]] = {}
    documents = 0
    staged = map_tables(from_tables(units), _stage_unit, config=config, staging=str(staging))
    for row in stream(staged):
        count, error = read.get(row["file"], (0, ""))
        read[row["file"]] = (count + row["num_documents"], error or row["error"])
        documents += row["num_documents"]
        progress(f"read {len(read)}/{len(inputs)} files, {documents:,} documents")
    return read


def plan_units(inputs: Sequence[InputFile], config: RefreshConfig, first_unit: int = 0) -> list[pa.Table]:
    """The files, large ones in spans, in tables of UNIT, one table a task.

    Raises:
        InputError: a file that no worker could read, for want of a tool.
    """
    cores = int(ray.cluster_resources().get("CPU", 1))
    share = sum(file.size for file in inputs) // (UNITS_A_CORE * cores)
    unit_bytes = max(1, min(config.unit_bytes, share))
    # To find the places where a file can be entered, it may have to be read: that is work for tasks as well.
    whole = _units([(index, file, WHOLE) for index, file in enumerate(inputs)], max(1, share))
    found = map_tables(
        from_tables(whole), _split_unit, config=config, span_bytes=max(unit_bytes, MIN_SPAN_BYTES)
    )
    spans = sorted(stream(found), key=lambda row: (row["file"], row["start"]))
    pieces = [(row["file"], inputs[row["file"]], Span(row["start"], row["stop"])) for row in spans]
    return _units(pieces, unit_bytes, first_unit)


def _split_unit(unit: pa.Table, config: RefreshConfig, span_bytes: int) -> pa.Table:
    """The spans of a unit's files."""
    spans = [
        {"file": row["file"], "start": span.start, "stop": span.stop}
        for row in unit.to_pylist()
        for span in split_file(config.sources[row["source"]], as_path(row["path"]), span_bytes)
    ]
    return pa.Table.from_pylist(spans, schema=SPANS)


def _stage_unit(unit: pa.Table, config: RefreshConfig, staging: str) -> pa.Table:
    """Read one unit's files through all per-document steps into a staged Parquet file; count per file."""
    counts = []
    number = unit["unit"][0].as_py()
    ordinal = 0
    path = as_path(staging) / f"unit-{number:06d}.parquet"
    with new_file(path) as file, pq.ParquetWriter(file, schema.STAGED, compression="zstd") as writer:
        for row in unit.to_pylist():
            source = config.sources[row["source"]]
            treatment = config.of(source)
            errors: list[str] = []
            span = Span(row["start"], row["stop"])
            records = guarded(read_records(source, as_path(row["path"]), span), errors)
            num_documents = 0
            for batch in _batches(records):
                first_row_id = (number << 36) + ordinal + num_documents
                writer.write_table(process(raw_table(batch, first_row_id, source, row["name"]), treatment))
                num_documents += len(batch)
            ordinal += num_documents
            counts.append({"file": row["file"], "num_documents": num_documents, "error": "; ".join(errors)})
    return pa.Table.from_pylist(counts)


def guarded(records: Iterator[Record], errors: list[str]) -> Iterator[Record]:
    """The records; what breaks a file off becomes a last record and an error."""
    while True:
        try:
            record = next(records, None)
        except Exception as error:  # any library may trip over a damaged file; the good records stand
            errors.append(_printable(f"{type(error).__name__}: {error}"))
            record = Record("", reason="damaged_file")
        if record is None:
            return
        yield record
        if errors:
            return


def _printable(message: str) -> str:
    """A message of a library about hostile bytes, safe for a terminal and short."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(message.split()))[:200]


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Groups of records, bounded in number and in characters."""
    batch: list[Record] = []
    chars = 0
    for record in records:
        batch.append(record)
        chars += len(record.content)
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def raw_table(batch: Sequence[Record], first_row_id: int, source: SourceConfig, input_file: str) -> pa.Table:
    """Records as rows of schema.RAW and a column `reason`, numbered from `first_row_id` on."""
    columns = {
        "row_id": list(range(first_row_id, first_row_id + len(batch))),
        "source": [source.name] * len(batch),
        "input_file": [input_file] * len(batch),
        "uri": clean.storable_column([record.uri or input_file for record in batch]),
        "title": clean.storable_column([record.title for record in batch]),
        "text": clean.storable_column([record.content for record in batch]),
        "format": [record.format for record in batch],
        "date": clean.storable_column([record.date for record in batch]),
        "license": [source.license] * len(batch),
        "metadata": [clean.storable_json(record.metadata) for record in batch],
        "reason": [record.reason for record in batch],
    }
    return pa.table(columns, schema=schema.RAW.append(pa.field("reason", pa.string())))


def process(table: pa.Table, treatment: Treatment) -> pa.Table:
    """All per-document steps over one batch.

    Args:
        table: rows of schema.RAW and a column `reason` ("" where the reader gave a document), of one source.
        treatment: that source's options.

    Returns:
        As many rows of schema.STAGED: kept ones with a null `reason`, removed ones with theirs.
    """
    reasons = [schema.Verdict(reason) if reason else None for reason in table["reason"].to_pylist()]
    alive, unread = schema.split(table.drop_columns(["reason"]), "read", reasons)
    parts = [unread]
    for _, step in STEPS:
        alive, removed = step(alive, treatment)
        parts.append(removed)
    # Of what was removed before it was masked, a sample of the text is kept, too.
    parts = [part if "pii" in part.column_names else privacy.mask(part, treatment.privacy) for part in parts]
    alive = schema.replace_column(alive, "signature", minhash.signatures(alive["text"], treatment.dedup))
    rows = [schema.conform(_identified(part), schema.STAGED) for part in (alive, *parts)]
    return pa.concat_tables(rows).sort_by("row_id")


# Takes the living rows; gives back those it keeps and those it removes.
Step = Callable[[pa.Table, Treatment], tuple[pa.Table, pa.Table]]


def _extract(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return extract.extract(table, treatment.extraction)


def _clean(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    cleaned = clean.clean(table, treatment.clean)
    if not treatment.clean.fix_encoding:
        return schema.keep_all(cleaned)
    unrepaired = before_repairs(table["text"].to_pylist(), cleaned["text"].to_pylist())
    return schema.keep_all(schema.replace_column(cleaned, "unrepaired", pa.array(unrepaired, pa.string())))


def _mask(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return schema.keep_all(privacy.mask(table, treatment.privacy))


def _identify(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return language.identify(table, treatment.language)


def _filter(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return filters.filter_documents(table, treatment.filters, treatment.block)


def _score(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return scoring.score_documents(table, treatment.quality)


def _decontaminate(table: pa.Table, treatment: Treatment) -> tuple[pa.Table, pa.Table]:
    return decontaminate.decontaminate(table, treatment.decontamination)


# What every document goes through between reading and signing, in this order; a refresh and an explanation both
# walk it. A step that only changes rows ends in schema.keep_all.
STEPS: tuple[tuple[str, Step], ...] = (
    (extract.STAGE, _extract),
    ("clean", _clean),
    ("privacy", _mask),
    (language.STAGE, _identify),
    (filters.STAGE, _filter),
    (scoring.STAGE, _score),
    (decontaminate.STAGE, _decontaminate),
)


def sign(table: pa.Table, config: DedupConfig) -> pa.Table:
    """The table with what follows from its texts: num_words, signature, doc_id, text_hash, num_chars."""
    words = [count_words(text) for text in table["text"].to_pylist()]
    table = schema.replace_column(table, "num_words", pa.array(words, pa.int64()))
    return _identified(schema.replace_column(table, "signature", minhash.signatures(table["text"], config)))


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
    table = schema.replace_column(table, "text_hash", pa.array(text_hashes(table["text"]), pa.string()))
    return schema.replace_column(table, "num_chars", pa.array([len(text) for text in texts], pa.int64()))


def doc_id(source: str, uri: str, text: str) -> str:
    """xxh3-128 hex of source, uri and text (lengths first, so that no two triples run together)."""
    parts = [part.encode("utf-8") for part in (source, uri, text)]
    return xxhash.xxh3_128_hexdigest(b"".join(len(part).to_bytes(8, "little") + part for part in parts))


def staged_files(staging: Path) -> list[Path]:
    """The staged files, in the order of their units."""
    return find(staging, "unit-*.parquet")
