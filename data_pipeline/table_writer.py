"""Staged files into the files of the corpus tables: documents, removed, signatures; one map, text stays in its task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from data_pipeline import evidence, schema
from data_pipeline.atomic import write_json
from data_pipeline.changes import SAMPLE_CHARS, UNCHANGED
from data_pipeline.corpus import Corpus, DataFile
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.sources import as_path
from data_pipeline.storage import read_parquet, size_of

# Staged bytes that go into one file of a table, at least: nightly refreshes would leave a heap of crumbs.
BYTES_A_FILE = 16 << 20


def write_tables(
    corpus: Corpus, version: int, attempt: str, staged: Sequence[Path], removals: pa.Table, pairs: pa.Table
) -> tuple[list[DataFile], dict[tuple[str, str], tuple[int, int]]]:
    """Write a version's new files; return them and {(source, input file): (documents kept, removed)}.

    Args:
        attempt: part of the files' names, so that no two tries ever write the same one.
        removals: table of verify.REMOVALS, what deduplication decided.
        pairs: as evidence.least_similar gives them.
    """
    units = [
        pa.table(
            {
                "path": [str(path) for path in group],
                "name": [f"part-v{version:06d}-{attempt}-{group[0].stem}.parquet"] * len(group),
            }
        )
        for group in _groups(staged)
    ]
    written = map_tables(
        from_tables(units),
        _write_unit,
        root=str(corpus.root),
        version=version,
        removals=ray.put(removals),
        pairs=pairs,
    )
    rows = collect(written, WRITTEN).to_pylist()
    files = [
        DataFile(row["table"], row["path"], row["size"], row["num_rows"]) for row in rows if row["table"]
    ]
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        if not row["table"]:
            key = (row["source"], row["input_file"])
            kept, removed = counts.get(key, (0, 0))
            counts[key] = (kept + row["kept"], removed + row["removed"])
    return files, counts


WRITTEN = pa.schema(
    [("table", pa.string()), ("path", pa.string()), ("size", pa.int64()), ("num_rows", pa.int64()),
     ("source", pa.string()), ("input_file", pa.string()), ("kept", pa.int64()), ("removed", pa.int64())]
)  # fmt: skip


def _groups(staged: Sequence[Path]) -> list[list[Path]]:
    groups: list[list[Path]] = []
    filled = BYTES_A_FILE
    for path in staged:
        if filled >= BYTES_A_FILE:
            groups.append([])
            filled = 0
        groups[-1].append(path)
        filled += size_of(path)
    return groups


def _write_unit(
    unit: pa.Table, root: str, version: int, removals: ray.ObjectRef, pairs: pa.Table
) -> pa.Table:
    """Part staged files into documents, removed and signatures, with a file of examples beside each; a Ray task."""
    corpus = Corpus(root)
    decided: pa.Table = ray.get(removals)
    parts = []
    for path in unit["path"].to_pylist():
        staged = read_parquet(path)
        parts.append(_part(staged, decided, version))
        write_json(evidence.side_file(as_path(path)), evidence.collect(staged, pairs))
    kept, removed = (pa.concat_tables(tables) for tables in zip(*parts, strict=True))
    rows: list[dict[str, Any]] = []
    for table, content in (("documents", kept), ("removed", removed), ("signatures", kept)):
        if content.num_rows:
            rows.append(asdict(corpus.write_file(table, content, unit["name"][0].as_py())))
    return pa.Table.from_pylist(rows + _count_by_file(kept, removed), schema=WRITTEN)


def _part(staged: pa.Table, removals: pa.Table, version: int) -> tuple[pa.Table, pa.Table]:
    place = pc.index_in(staged["row_id"], value_set=removals["row_id"].combine_chunks())
    found = pc.is_valid(place)
    for name in ("stage", "reason", "value", "threshold"):
        staged = schema.replace_column(
            staged, name, pc.if_else(found, pc.take(removals[name], place), staged[name])
        )
    for name in ("duplicate_of", "similarity"):
        staged = schema.replace_column(staged, name, pc.take(removals[name], place))
    staged = schema.replace_column(staged, "version", pa.array([version] * staged.num_rows, pa.int64()))
    samples = pc.utf8_slice_codeunits(staged["text"], 0, SAMPLE_CHARS)
    staged = schema.replace_column(staged, "text_sample", samples)
    # What was removed before it came to a text of its own has no length.
    has_text = pc.invert(pc.is_in(staged["stage"], pa.array(schema.BEFORE_TEXT)))
    lengths = pc.if_else(has_text, staged["num_chars"], pa.scalar(None, pa.int64()))
    staged = schema.replace_column(staged, "num_chars", lengths)
    kept = staged.filter(pc.is_null(staged["reason"]))
    is_new = pc.not_equal(pc.fill_null(staged["stage"], ""), UNCHANGED)
    removed = staged.filter(pc.and_(pc.is_valid(staged["reason"]), is_new))
    return (
        kept.select([name for name in (*schema.DOCUMENTS.names, "signature") if name in kept.column_names]),
        schema.conform(removed, schema.REMOVED),
    )


def _count_by_file(kept: pa.Table, removed: pa.Table) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str], dict[str, Any]] = {}
    for table, name in ((kept, "kept"), (removed, "removed")):
        groups = table.group_by(["source", "input_file"]).aggregate([([], "count_all")])
        for row in groups.to_pylist():
            key = (row["source"], row["input_file"])
            empty = {"source": key[0], "input_file": key[1], "kept": 0, "removed": 0}
            counts.setdefault(key, empty)[name] = row["count_all"]
    return [counts[key] for key in sorted(counts)]
