"""Read the files that people have: JSON lines, JSON arrays, CSV, Parquet, Arrow and plain text, packed or not."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.books.encoding import decode
from data_pipeline.config import SourceConfig
from data_pipeline.sources import WHOLE, Record, Span, open_file, spans_between
from data_pipeline.sources.packed import codec_of, entered, member_starts

# A JSON array has to be read as a whole; beyond this it should be JSON lines.
MAX_ARRAY_BYTES = 1 << 30
# One row of JSON or CSV; what is longer is no text that people write.
MAX_LINE_BYTES = 256 << 20
ARROW_FILE_MAGIC = b"ARROW1"


def read(path: Path, source: SourceConfig, span: Span = WHOLE) -> Iterator[Record]:
    """Records of one span of a file, by its ending.

    A row without a uri of its own gets the file's name and its place: the number of the row in Parquet, Arrow and
    CSV, the byte where its line begins in JSON lines. In packed ones that byte is told from the begin of the gzip
    member, bz2 stream or zstd frame it is in, behind the offset of that.
    """
    name = path.name.lower()
    with open_file(path) as file:
        if name.endswith(".parquet"):
            yield from _parquet(file, path.name, source, span)
        elif name.endswith((".arrow", ".feather")):
            yield from _rows(path.name, source, _arrow_batches(file))
        elif any(ending in name for ending in (".jsonl", ".ndjson", ".json")):
            yield from _json(file, path.name, source, span)
        elif any(ending in name for ending in (".csv", ".tsv")):
            yield from _csv(_unpacked(file, name), path.name, source)
        else:
            text = decode(_unpacked(file, name).read())
            yield Record(path.name, reason="not_text") if text is None else Record(path.name, text)


def split(path: Path, span_bytes: int) -> list[Span]:
    """Spans of Parquet, entered at a row group, and of JSON lines, at any byte or, packed, where a member begins."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        with open_file(path) as file:
            try:
                groups = _group_offsets(pq.ParquetFile(file).metadata)
            except pa.ArrowException:
                return [WHOLE]
        cuts: list[int] = []
        for offset in groups[1:]:
            if offset >= (cuts[-1] if cuts else 0) + span_bytes:
                cuts.append(offset)
        return spans_between(cuts)
    codec = codec_of(name)
    if not name.removesuffix(codec).endswith((".jsonl", ".ndjson")) or codec == ".xz":
        return [WHOLE]
    with open_file(path) as file:
        if _is_array(file, name):
            return [WHOLE]
        wanted = range(span_bytes, file.seek(0, io.SEEK_END), span_bytes)
        return spans_between(list(member_starts(file, codec, wanted)) if codec else wanted)


def _unpacked(file: BinaryIO, name: str) -> IO[bytes]:
    return entered(file, codec_of(name), WHOLE)[0]


def _json(file: BinaryIO, name: str, source: SourceConfig, span: Span) -> Iterator[Record]:
    if span == WHOLE and _is_array(file, name):
        yield from _json_array(_unpacked(file, name).read(MAX_ARRAY_BYTES + 1), name, source)
    else:
        yield from _json_lines(file, name, source, span)


def _is_array(file: BinaryIO, name: str) -> bool:
    """Whether a JSON file is one array of rows instead of lines; the file is at its begin before and after."""
    head = _unpacked(file, name).read(64)
    file.seek(0)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _json_lines(file: BinaryIO, name: str, source: SourceConfig, span: Span) -> Iterator[Record]:
    """The rows of a span.

    Where a span begins, one cannot see whether a line does, too. So each leaves its first line, or what of it lies
    there, to the span before, and goes on to the end of the line that begins at its own end at the latest.
    """
    stream, where = entered(file, codec_of(name), span)
    position = 0
    if span.start:
        _, position = _next_line(stream, position)
    while not where.is_beyond(position):
        begin = position
        line, position = _next_line(stream, position)
        if position == begin:
            return
        offset, number = where.place(begin)
        place = f"{name}@{offset}+{number}" if offset else f"{name}@{number}"
        if line is None:
            yield Record(place, reason="too_large")
        elif line.strip():
            yield _row(line, place, source)


def _next_line(stream: IO[bytes], position: int) -> tuple[bytes | None, int]:
    """(A line, or None where it is too long to be one that anybody wrote; the position behind it)."""
    line = stream.readline(MAX_LINE_BYTES)
    position += len(line)
    if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line, position
    while rest := stream.readline(1 << 20):
        position += len(rest)
        if rest.endswith(b"\n"):
            break
    return None, position


def _row(line: bytes, place: str, source: SourceConfig) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Record(place, reason="bad_json")
    return _record(row if isinstance(row, dict) else {}, place, source)


def _json_array(content: bytes, name: str, source: SourceConfig) -> Iterator[Record]:
    if len(content) > MAX_ARRAY_BYTES:
        yield Record(name, reason="too_large")
        return
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        yield Record(name, reason="bad_json")
        return
    for number, row in enumerate(rows, start=1):
        yield _record(row if isinstance(row, dict) else {}, f"{name}#{number}", source)


def _csv(file: IO[bytes], name: str, source: SourceConfig) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    rows = csv.DictReader(lines, delimiter="\t" if ".tsv" in name.lower() else ",")
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error:
            yield Record(f"{name}#{number}", reason="bad_csv")
            continue
        if row is None:
            return
        yield _record(row, f"{name}#{number}", source)


def _parquet(file: BinaryIO, name: str, source: SourceConfig, span: Span) -> Iterator[Record]:
    parquet = pq.ParquetFile(file)
    number = 0
    for group, offset in enumerate(_group_offsets(parquet.metadata)):
        is_in_span = (group == 0 or offset >= span.start) and (span.stop is None or offset < span.stop)
        if is_in_span and not (group == 0 and span.start):
            batches = parquet.iter_batches(
                batch_size=256, row_groups=[group], columns=_columns(parquet.schema_arrow.names, source)
            )
            yield from _rows(name, source, batches, number)
        number += parquet.metadata.row_group(group).num_rows


def _group_offsets(metadata: Any) -> list[int]:
    """Where each row group's first column begins."""
    return [metadata.row_group(group).column(0).data_page_offset for group in range(metadata.num_row_groups)]


def _arrow_batches(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    """Batches of an Arrow file, or of the stream format that Hugging Face's datasets keep on disk."""
    magic = file.read(len(ARROW_FILE_MAGIC))
    file.seek(0)
    if magic == ARROW_FILE_MAGIC:
        reader = pa.ipc.open_file(file)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from pa.ipc.open_stream(file)


def _columns(names: list[str], source: SourceConfig) -> list[str]:
    wanted = {
        source.text_column,
        source.uri_column,
        source.title_column,
        source.date_column,
        *source.metadata_columns,
    }
    first = {column.partition(".")[0] for column in wanted}
    return [name for name in names if name in wanted or name in first]


def _rows(
    name: str, source: SourceConfig, batches: Iterator[pa.RecordBatch], number: int = 0
) -> Iterator[Record]:
    for batch in batches:
        for row in batch.select(_columns(batch.schema.names, source)).to_pylist():
            number += 1
            yield _record(row, f"{name}#{number}", source)


def _record(row: Mapping[str, Any], place: str, source: SourceConfig) -> Record:
    text = _value(row, source.text_column)
    if not isinstance(text, str):
        return Record(place, reason="no_text_field")
    uri, title, date = (
        _value(row, column) if column else None
        for column in (source.uri_column, source.title_column, source.date_column)
    )
    found = {column: _value(row, column) for column in source.metadata_columns}
    return Record(
        str(uri or place),
        text,
        title=str(title or ""),
        date=str(date or ""),
        metadata={column: str(value) for column, value in found.items() if value is not None},
    )


def _value(row: Mapping[str, Any], column: str) -> Any:
    """A column's value; `meta.url` looks into the object `meta`."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
