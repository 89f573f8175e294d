"""Lines that recur over a share of a host's pages are taken out of its pages: menus, notices, "read also".

    staged files -> (host, line) with the pages that have it   counted in each task, then hash-shuffled
                 -> lines of at least `boilerplate_pages` pages and `boilerplate_share` of their host's
                 -> staged files without them, signed anew

Counted over the pages of one refresh. A line of a page counts once; lines are compared case-folded, spaces levelled.
A page of nothing else is removed as `only_boilerplate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import xxhash

from data_pipeline import schema
from data_pipeline.config import RefreshConfig
from data_pipeline.engine import collect, from_tables, map_tables, shuffle
from data_pipeline.sources import as_path
from data_pipeline.staging import sign
from data_pipeline.storage import new_file, read_parquet

STAGE, REASON = "filter", "only_boilerplate"
_LINES = pa.schema([("line", pa.int64()), ("host", pa.int64()), ("count", pa.int64())])
# The row of a host's pages has no line.
_NO_LINE = 0


def remove_boilerplate(staged: Sequence[Path], config: RefreshConfig, num_partitions: int) -> None:
    """Rewrite the staged files without what recurs; nothing is done unless dedup.boilerplate_share is set."""
    if not config.dedup.boilerplate_share:
        return
    units = [pa.table({"path": [str(path)]}) for path in staged]
    counted = map_tables(shuffle(map_tables(from_tables(units), _count), "host", num_partitions), _frequent,
                         share=config.dedup.boilerplate_share, least=config.dedup.boilerplate_pages)  # fmt: skip
    lines = collect(counted, pa.schema([("line", pa.int64())]))["line"].to_numpy()
    if len(lines):
        rewritten = map_tables(from_tables(units), _rewrite, lines=ray.put(np.sort(lines)), config=config)
        collect(rewritten, pa.schema([("path", pa.string())]))


def host_of(uri: str) -> str:
    """The host of a web address, or "" for anything else."""
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _line_hash(host: str, line: str) -> int:
    """int64 of a line of a host, never _NO_LINE."""
    value = xxhash.xxh3_64_intdigest(f"{host}\n{' '.join(line.casefold().split())}".encode()) | 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _lines_of(host: str, text: str) -> list[tuple[str, int]]:
    """(line, its hash) of a text; blank lines have _NO_LINE."""
    return [(line, _line_hash(host, line) if line.strip() else _NO_LINE) for line in text.split("\n")]


def _count(units: pa.Table) -> pa.Table:
    """How many pages of the staged files have each line of their host; runs in a Ray task."""
    counts: dict[tuple[int, int], int] = {}
    for path in units["path"].to_pylist():
        table = read_parquet(path, ["uri", "text", "reason"])
        table = table.filter(pc.is_null(table["reason"]))
        for uri, text in zip(table["uri"].to_pylist(), table["text"].to_pylist(), strict=True):
            host = host_of(uri)
            if host:
                host_hash = _line_hash(host, "")
                for line in {line for _, line in _lines_of(host, text)} | {_NO_LINE}:
                    counts[line, host_hash] = counts.get((line, host_hash), 0) + 1
    return pa.Table.from_pylist(
        [{"line": line, "host": host, "count": count} for (line, host), count in counts.items()],
        schema=_LINES,
    )


def _frequent(table: pa.Table, share: float, least: int) -> pa.Table:
    """Lines of whole hosts that enough of their pages have."""
    summed = table.group_by(["host", "line"]).aggregate([("count", "sum")])
    is_total = pc.equal(summed["line"], _NO_LINE)
    totals = dict(
        zip(*(summed.filter(is_total)[name].to_pylist() for name in ("host", "count_sum")), strict=True)
    )
    lines = summed.filter(pc.invert(is_total))
    pages = np.array([totals[host] for host in lines["host"].to_pylist()], np.int64)
    counts = lines["count_sum"].to_numpy()
    wanted = (counts >= least) & (counts >= share * pages)
    return pa.table({"line": lines["line"].to_numpy()[wanted]})


def _rewrite(units: pa.Table, lines: ray.ObjectRef, config: RefreshConfig) -> pa.Table:
    """Replace staged files by ones without the lines; runs in a Ray task."""
    boilerplate = set(ray.get(lines).tolist())
    for path in map(as_path, units["path"].to_pylist()):
        table = read_parquet(path)
        changed = {}
        rows = zip(
            table["uri"].to_pylist(), table["text"].to_pylist(), table["reason"].to_pylist(), strict=True
        )
        for row, (uri, text, reason) in enumerate(rows):
            host = host_of(uri) if reason is None else ""
            if host:
                kept = [line for line, value in _lines_of(host, text) if value not in boilerplate]
                rest = "\n".join(kept).strip("\n")
                if len(kept) < text.count("\n") + 1:
                    changed[row] = rest
        if changed:
            with new_file(path) as file:
                pq.write_table(
                    _with_texts(table, changed, config), file, compression="zstd", row_group_size=512
                )
    return units


def _with_texts(table: pa.Table, changed: dict[int, str], config: RefreshConfig) -> pa.Table:
    texts = table["text"].to_pylist()
    for row, text in changed.items():
        texts[row] = text
    emptied = [row for row, text in changed.items() if not text.strip()]
    for name, value in (("stage", STAGE), ("reason", REASON)):
        values = table[name].to_pylist()
        for row in emptied:
            values[row] = value
        table = schema.replace_column(table, name, pa.array(values, pa.string()))
    table = schema.replace_column(table, "text", pa.array(texts, pa.string()))
    chosen = np.zeros(table.num_rows, np.bool_)
    chosen[list(changed)] = True
    signed = schema.conform(sign(table.filter(pa.array(chosen)), config.dedup), schema.STAGED)
    return pa.concat_tables([table.filter(pa.array(~chosen)), signed]).sort_by("row_id")
