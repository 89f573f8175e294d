"""Read the files that people have: JSON lines, Parquet, Arrow IPC and plain text."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.config import SourceConfig
from data_pipeline.sources import WHOLE, Record, Span
from data_pipeline.sources.gutenberg import decode


def read(path: Path, source: SourceConfig, span: Span = WHOLE) -> Iterator[Record]:
    """Records of one span of a file, by its ending."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _rows(path, source, pq.ParquetFile(path).iter_batches(batch_size=256))
    elif name.endswith(".arrow"):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        yield from _rows(path, source, batches)
    elif any(ending in name for ending in (".json", ".ndjson")):
        yield from _json_lines(path, source)
    else:
        yield from _text(path)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        # Arrow's own streams know no lines.
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _text(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        text = decode(file.read())
    yield Record(path.name, text, "text") if text is not None else Record(path.name, reason="not_text")


def _json_lines(path: Path, source: SourceConfig) -> Iterator[Record]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield Record(f"{path.name}#{number}", reason="bad_json")
                continue
            yield _record(row if isinstance(row, dict) else {}, f"{path.name}#{number}", source)


def _rows(path: Path, source: SourceConfig, batches: Iterator[pa.RecordBatch]) -> Iterator[Record]:
    number = 0
    wanted = {source.text_column, source.uri_column, source.title_column} - {""}
    for batch in batches:
        columns = [name for name in batch.schema.names if name in wanted]
        for row in batch.select(columns).to_pylist():
            number += 1
            yield _record(row, f"{path.name}#{number}", source)


def _record(row: dict[str, Any], place: str, source: SourceConfig) -> Record:
    text = row.get(source.text_column)
    if not isinstance(text, str):
        return Record(place, reason="no_text_field")
    uri = row.get(source.uri_column) if source.uri_column else None
    title = row.get(source.title_column) if source.title_column else None
    return Record(str(uri or place), text, "text", title=str(title or ""))
