"""The corpus: five Delta tables, and the commit point that ties one version of each together.

Only the last row of `corpus/versions` makes a version real: it names the Delta version of each table.
Whatever a killed refresh left behind lies beyond that point, is seen by nobody, and is rolled back by the
next refresh.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

from data_pipeline import schema
from data_pipeline.errors import InputError

TABLES = {
    "documents": schema.DOCUMENTS,
    "removed": schema.REMOVED,
    "signatures": schema.SIGNATURES,
    "inputs": schema.INPUTS,
}
VERSIONS = "versions"
# The columns that say what became of a document, by the table that holds it.
COUNTED = {"documents": ("source",), "removed": ("source", "stage", "reason")}
# {(source, stage, reason): documents}
Groups = Counter[tuple[str, str, str]]


class LostDocuments(RuntimeError):
    """A version would not account for every document that was read: a mistake of ours, never of the user's."""


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that a task wrote into a table's folder and that waits for its commit."""

    table: str
    path: str
    size: int
    num_rows: int


class Corpus:
    """The tables below `<workspace>/corpus`.

    Args:
        root: the folder; it need not exist before the first refresh.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, table: str) -> Path:
        """A table's folder."""
        return self.root / table

    def dedup_report(self, version: int) -> Path:
        """JSON file of what deduplication found in the refresh that made a version (see duplicates.describe)."""
        return self.root / "reports" / f"dedup-{version:06d}.json"

    def versions(self) -> list[dict[str, Any]]:
        """All committed versions, oldest first; empty before the first refresh."""
        path = self.path(VERSIONS)
        if not DeltaTable.is_deltatable(str(path)):
            return []
        rows = DeltaTable(str(path)).to_pyarrow_table().to_pylist()
        return sorted(rows, key=lambda row: row["version"])

    def latest(self) -> dict[str, Any] | None:
        """The newest committed version's row, or None."""
        versions = self.versions()
        return versions[-1] if versions else None

    def at(self, version: int | None = None) -> dict[str, Any]:
        """The row of one version (the newest for None).

        Raises:
            InputError: no corpus here, or no such version.
        """
        versions = self.versions()
        if not versions:
            raise InputError(f"{self.root} holds no corpus yet; make one with python -m workflows.refresh")
        if version is None:
            return versions[-1]
        for row in versions:
            if row["version"] == version:
                return row
        raise InputError(
            f"{self.root} has no version {version}; it has {versions[0]['version']} to {versions[-1]['version']}"
        )

    def source_weights(self, version: dict[str, Any]) -> dict[str, float]:
        """Weight of each source that has another than 1: what the newest refresh that named it said, up to a version."""
        weights: dict[str, float] = {}
        for row in self.versions():
            if row["version"] <= version["version"]:
                sources = json.loads(row["config"] or "{}").get("sources", [])
                weights |= {source["name"]: source.get("weight", 1.0) for source in sources}
        return {source: weight for source, weight in sorted(weights.items()) if weight != 1}

    def files(self, table: str, version: dict[str, Any]) -> list[str]:
        """Parquet files of one table at one version, sorted."""
        return sorted(DeltaTable(str(self.path(table)), version=version[f"{table}_version"]).file_uris())

    def scan(self, table: str, version: dict[str, Any]) -> pads.Dataset:
        """One table at one version as a dataset, columns and filters pushed down.

        Columns that came later than the version are null.
        """
        delta = DeltaTable(str(self.path(table)), version=version[f"{table}_version"])
        return delta.to_pyarrow_dataset(schema=TABLES[table])

    def read(self, table: str, version: dict[str, Any] | None, columns: Sequence[str]) -> pa.Table:
        """Chosen columns of one table at one version; an empty table where there is no version yet."""
        if version is None:
            return pa.schema([TABLES[table].field(name) for name in columns]).empty_table()
        return self.scan(table, version).to_table(columns=list(columns))

    def find(
        self, table: str, version: dict[str, Any], column: str, values: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The rows in which a column has one of some values, in the order of the files.

        Only that column is read as a whole: of the others, the row groups where it was found, a little at a time.
        """
        wanted = pa.array(values, pa.string())
        fields = pa.schema([TABLES[table].field(name) for name in columns])
        rows: list[dict[str, Any]] = []
        for path in self.files(table, version):
            with pq.ParquetFile(path) as file:
                known = [name for name in columns if name in file.schema_arrow.names]
                for group in range(file.num_row_groups):
                    keys = file.read_row_group(group, columns=[column])[column]
                    if not pc.any(pc.is_in(keys, wanted)).as_py():
                        continue
                    for batch in file.iter_batches(64, [group], list({column, *known})):
                        found = pa.table(batch.filter(pc.is_in(batch[column], wanted)))
                        rows += schema.conform(found, fields).to_pylist()
        return rows

    def evidence(self, version: int) -> Path:
        """What a version's report shows beside the tables (data_pipeline.evidence)."""
        return self.root / "reports" / f"version-{version:06d}.json"

    def prepare(self) -> dict[str, Any] | None:
        """Make the tables where they are missing, undo what a killed refresh left; return the newest version."""
        latest = self.latest()
        for name, columns in TABLES.items():
            path = self.path(name)
            if not DeltaTable.is_deltatable(str(path)):
                path.mkdir(parents=True, exist_ok=True)
                DeltaTable.create(str(path), columns, mode="ignore", name=name)
            if latest is not None:
                table = DeltaTable(str(path))
                committed = latest[f"{name}_version"]
                if table.version() != committed and _differs(table, path, committed):
                    table.restore(committed)
            else:
                table = DeltaTable(str(path))
                if table.version() > 0:
                    table.restore(0)
            _add_columns(path, columns)
        return latest

    def commit(
        self,
        files: Sequence[DataFile],
        inputs: pa.Table,
        version_row: dict[str, Any],
        replace: bool = False,
    ) -> dict[str, Any]:
        """Make one version real: files into their tables, inputs, and the version's row last.

        Args:
            files: what the tasks wrote, any order.
            inputs: rows of schema.INPUTS.
            version_row: fields of schema.VERSIONS but the tables' Delta versions, which are filled in here.
            replace: the version holds these files and inputs only, not those of the version before it.

        Returns:
            The row as it was written.

        Raises:
            LostDocuments: what was read is not what is kept and removed; nothing is committed.
        """
        self._check(files, inputs)
        for name in ("documents", "removed", "signatures"):
            own = sorted((file for file in files if file.table == name), key=lambda file: file.path)
            self._write(name, own, "overwrite" if replace else "append")
        if inputs.num_rows:
            write_deltalake(
                str(self.path("inputs")),
                schema.conform(inputs, schema.INPUTS),
                mode="overwrite" if replace else "append",
            )
        row = dict(version_row)
        for name in TABLES:
            row[f"{name}_version"] = DeltaTable(str(self.path(name))).version()
        write_deltalake(
            str(self.path(VERSIONS)),
            pa.Table.from_pylist([row], schema=schema.VERSIONS),
            mode="append",
            name=VERSIONS,
        )
        return row

    def _check(self, files: Sequence[DataFile], inputs: pa.Table) -> None:
        """Count, in the very files that wait for the commit, what became of the documents that were read."""
        read: Counter[str] = Counter()
        for row in inputs.to_pylist():
            read[row["source"]] += row["num_documents"]
        counts = {table: self._count_files(table, files) for table in COUNTED}
        kept, removed = (_by_source(counts[table]) for table in COUNTED)
        for source in sorted({*read, *kept, *removed}):
            if read[source] != kept[source] + removed[source]:
                raise LostDocuments(
                    f"source {source}: {read[source]:,} documents were read, but {kept[source]:,} are kept and "
                    f"{removed[source]:,} removed; nothing was committed"
                )
        for source, stage, reason in counts["removed"]:
            if not stage or not reason:
                raise LostDocuments(
                    f"source {source}: documents are removed without a reason; nothing was committed"
                )

    def _count_files(self, table: str, files: Sequence[DataFile]) -> Groups:
        paths = [str(self.path(table) / file.path) for file in files if file.table == table]
        return _count(pads.dataset(paths, schema=TABLES[table]), COUNTED[table]) if paths else Counter()

    def _write(self, name: str, files: Sequence[DataFile], mode: Literal["append", "overwrite"]) -> None:
        if not files and mode == "append":
            return
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, {}, now, True, f'{{"numRecords": {file.num_rows}}}')
            for file in files
        ]
        DeltaTable(str(self.path(name))).create_write_transaction(
            actions, mode, Schema.from_arrow(TABLES[name])
        )

    def write_file(self, table: str, rows: pa.Table, name: str) -> DataFile:
        """Write rows as a Parquet file of a table; it stays invisible until `commit`."""
        path = self.path(table) / name
        rows = schema.conform(rows, TABLES[table])
        pq.write_table(rows, path, compression="zstd", row_group_size=4096)
        return DataFile(table, name, path.stat().st_size, rows.num_rows)

    def funnel(self, version: dict[str, Any], only: bool = False) -> list[dict[str, Any]]:
        """What became of every document read, by source.

        Args:
            version: the version to look at.
            only: count what this refresh added, instead of everything up to it.

        Returns:
            Rows of {source, stage, reason, count}, kept ones under stage "kept"; sorted by source and stage.
        """
        condition = pc.field("version") == version["version"] if only else None
        kept, removed = (
            _count(self.scan(table, version), columns, condition) for table, columns in COUNTED.items()
        )
        rows = [
            {"source": source, "stage": stage, "reason": reason, "count": count}
            for (source, stage, reason), count in (kept + removed).items()
        ]
        order = {stage: index for index, stage in enumerate(STAGES)}
        return sorted(
            rows, key=lambda row: (row["source"], order.get(row["stage"], 99), -row["count"], row["reason"])
        )

    def masked(self, version: dict[str, Any], only: bool = False) -> list[dict[str, Any]]:
        """The personal data that was masked in the documents kept, by source and kind.

        Args:
            version: the version to look at.
            only: count what this refresh added, instead of everything up to it.

        Returns:
            Rows of {source, kind, count, num_documents}, the most frequent of a source first.
        """
        condition = pc.is_valid(pc.field("pii")) & (pc.field("pii") != "{}")
        if only:
            condition &= pc.field("version") == version["version"]
        totals: dict[tuple[str, str], list[int]] = {}
        for batch in self.scan("documents", version).to_batches(columns=["source", "pii"], filter=condition):
            # Few of the many documents have counts of their own: the same few strings come again and again.
            groups = pa.table(batch).group_by(["source", "pii"]).aggregate([([], "count_all")])
            for row in groups.to_pylist():
                for kind, count in json.loads(row["pii"]).items():
                    cell = totals.setdefault((row["source"], kind), [0, 0])
                    cell[0] += count * row["count_all"]
                    cell[1] += row["count_all"]
        rows = [
            {"source": source, "kind": kind, "count": count, "num_documents": num_documents}
            for (source, kind), (count, num_documents) in totals.items()
        ]
        return sorted(rows, key=lambda row: (row["source"], -row["count"], row["kind"]))


STAGES = (
    *("read", "extract", "language", "filter", "quality", "decontaminate"),
    *("exact_dedup", "near_dedup", "kept"),
)


def _count(rows: pads.Dataset, columns: Sequence[str], condition: pc.Expression | None = None) -> Groups:
    """Rows by source, stage and reason, a batch at a time."""
    counts: Groups = Counter()
    for batch in rows.to_batches(columns=list(columns), filter=condition):
        groups = pa.table(batch).group_by(list(columns)).aggregate([([], "count_all")])
        for row in groups.to_pylist():
            counts[row["source"], row.get("stage", "kept"), row.get("reason", "")] += row["count_all"]
    return counts


def _by_source(counts: Groups) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (source, _, _), count in counts.items():
        totals[source] += count
    return totals


def _add_columns(path: Path, columns: pa.Schema) -> None:
    """Give a table of an older gptmill the columns that it lacks; they are null in its rows."""
    table = DeltaTable(str(path))
    known = {field.name for field in table.schema().fields}
    missing = [field for field in columns if field.name not in known]
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)


def _differs(table: DeltaTable, path: Path, committed: int) -> bool:
    """Whether a table's newest state holds other files than the committed one (a restore is a version too)."""
    return sorted(table.file_uris()) != sorted(DeltaTable(str(path), version=committed).file_uris())
