"""The corpus: five Delta tables, and the commit point that ties one version of each together.

Only the last row of `corpus/versions` makes a version real: it names the Delta version of each table.
Whatever a killed refresh left behind lies beyond that point, is seen by nobody, and is rolled back by the
next refresh.
"""

from __future__ import annotations

import json
import time
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
        return self.root / "dedup" / f"v{version:06d}.json"

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
        """One table at one version as a dataset, columns and filters pushed down."""
        return DeltaTable(str(self.path(table)), version=version[f"{table}_version"]).to_pyarrow_dataset()

    def read(self, table: str, version: dict[str, Any] | None, columns: Sequence[str]) -> pa.Table:
        """Chosen columns of one table at one version; an empty table where there is no version yet."""
        if version is None:
            wanted = pa.schema([TABLES[table].field(name) for name in columns])
            return wanted.empty_table()
        return self.scan(table, version).to_table(columns=list(columns))

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
        """
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
        kept = self.scan("documents", version).to_table(columns=["source"], filter=condition)
        removed = self.scan("removed", version).to_table(
            columns=["source", "stage", "reason"], filter=condition
        )
        counted = [
            *kept.group_by("source").aggregate([([], "count_all")]).to_pylist(),
            *removed.group_by(["source", "stage", "reason"]).aggregate([([], "count_all")]).to_pylist(),
        ]
        rows = [
            {
                "source": row["source"],
                "stage": row.get("stage", "kept"),
                "reason": row.get("reason", ""),
                "count": row["count_all"],
            }
            for row in counted
        ]
        order = {stage: index for index, stage in enumerate(STAGES)}
        return sorted(
            rows, key=lambda row: (row["source"], order.get(row["stage"], 99), -row["count"], row["reason"])
        )


STAGES = ("read", "extract", "language", "filter", "exact_dedup", "near_dedup", "kept")


def _differs(table: DeltaTable, path: Path, committed: int) -> bool:
    """Whether a table's newest state holds other files than the committed one (a restore is a version too)."""
    return sorted(table.file_uris()) != sorted(DeltaTable(str(path), version=committed).file_uris())
