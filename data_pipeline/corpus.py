"""The corpus: Delta tables, and the commit point that ties one version of each together.

Only the last row of `corpus/versions` makes a version real: it names the Delta version of each table.
Whatever a killed refresh left behind lies beyond that point, is seen by nobody, and is rolled back by the
next refresh. Every write is a conditional one on the state that `prepare` found: of two processes that write, because
one of them has lost its lock, the second fails, and nothing of it is visible.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import SubTreeFileSystem

from data_pipeline import schema
from data_pipeline.errors import InputError, Overtaken
from data_pipeline.locks import locked
from data_pipeline.sources import as_path
from data_pipeline.storage import client_options, make_folder, new_file, open_parquet, place_of, size_of

TABLES = {
    "documents": schema.DOCUMENTS,
    "removed": schema.REMOVED,
    "signatures": schema.SIGNATURES,
    "inputs": schema.INPUTS,
}
VERSIONS = "versions"
# A table's log is kept: without its old entries an old version could not be read. With frequent checkpoints opening a
# table takes as long after many nights as after few.
SETTINGS: dict[str, str | None] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "10",
}
# Where another commit has come first, ours fails instead of being tried again behind it.
ONCE = CommitProperties(max_commit_retries=0)
# The columns that say what became of a document, by the table that holds it.
COUNTED = {"documents": ("source",), "removed": ("source", "stage", "reason")}
# Stages of what was kept once: its file has another content now; somebody had it taken out.
SUPERSEDED, TAKEDOWN = "superseded", "takedown"
ROW_GROUP = 4096
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

    @property
    def name(self) -> str:
        """The file's name in its table's folder."""
        return self.path.rsplit("/", 1)[-1]


class Corpus:
    """The tables below `<workspace>/corpus`.

    Args:
        root: the folder, on a disk or in an object store; it need not exist before the first refresh.
        as_of: read it as it was at this version, as if there were no later ones; 0 for the newest.
    """

    def __init__(self, root: Path | str, as_of: int = 0) -> None:
        self.root = as_path(root) if isinstance(root, str) else root
        self.as_of = as_of
        self._held: dict[str, DeltaTable] = {}

    def path(self, table: str) -> Path:
        """A table's folder."""
        return self.root / table

    def dedup_report(self, version: int) -> Path:
        """JSON file of what deduplication found in the refresh that made a version (see duplicates.describe)."""
        return self.root / "reports" / f"dedup-{version:06d}.json"

    def locked(
        self, wait: float = 0.0, told: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """The right to write, for the time of a `with` block (see locks.locked)."""
        return locked(self.root / ".lock", f"workspace: the corpus in {self.root}", wait, told)

    def delta(self, table: str, version: int | None = None) -> DeltaTable:
        """A Delta table, at one of its own versions."""
        return DeltaTable(str(self.path(table)), version=version, storage_options=client_options())

    def has_table(self, table: str) -> bool:
        """Whether a Delta table is there."""
        return DeltaTable.is_deltatable(str(self.path(table)), storage_options=client_options())

    def versions(self) -> list[dict[str, Any]]:
        """All committed versions (up to `as_of`), oldest first; empty before the first refresh.

        Raises:
            InputError: there is no version `as_of`.
        """
        if not self.has_table(VERSIONS):
            return []
        # Of an older gptmill they lack some columns.
        empty = dict.fromkeys(schema.VERSIONS.names)
        rows = [empty | row for row in self.whole(VERSIONS).to_table().to_pylist()]
        rows.sort(key=lambda row: row["version"])
        if self.as_of and self.as_of not in {row["version"] for row in rows}:
            raise InputError(f"as_of: {self.root} has no version {self.as_of}; refresh history lists them")
        return [row for row in rows if row["version"] <= (self.as_of or row["version"])]

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
                if row["vacuumed_at"]:
                    raise InputError(
                        f"{self.root}: the files of version {version} were removed on {row['vacuumed_at']} (refresh vacuum)"
                    )
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
        return sorted(self.delta(table, version[f"{table}_version"]).file_uris())

    def data_files(self, table: str, version: dict[str, Any]) -> list[DataFile]:
        """The same with sizes and numbers of rows."""
        actions = pa.table(self.delta(table, version[f"{table}_version"]).get_add_actions())
        columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
        return sorted(
            (DataFile(table, path, size, rows or 0) for path, size, rows in zip(*columns, strict=True)),
            key=lambda file: file.path,
        )

    def uri(self, file: DataFile) -> str:
        """Where a data file lies."""
        return str(self.path(file.table) / file.path)

    def scan(self, table: str, version: dict[str, Any]) -> pads.Dataset:
        """One table at one version as a dataset, columns and filters pushed down.

        Columns that came later than the version are null.
        """
        return self.whole(table, version[f"{table}_version"], TABLES[table])

    def whole(self, table: str, version: int | None = None, columns: pa.Schema | None = None) -> pads.Dataset:
        """A Delta table, at one of its own versions, as a dataset."""
        filesystem = None
        if "://" in str(self.path(table)):
            # deltalake's own file system is Python code in Arrow's threads, which may outlive the interpreter.
            filesystem = SubTreeFileSystem(*reversed(place_of(self.path(table))))
        return self.delta(table, version).to_pyarrow_dataset(filesystem=filesystem, schema=columns)

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
            with open_parquet(path) as file:
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
        for name, columns in ((VERSIONS, schema.VERSIONS), *TABLES.items()):
            self.create_table(name, columns)
        latest = self.latest()
        for name in TABLES:
            table = self.delta(name)
            committed = latest[f"{name}_version"] if latest is not None else 0
            if table.version() != committed and _differs(table, self.delta(name, committed)):
                table.restore(committed)
        self._hold()
        return latest

    def create_table(self, name: str, columns: pa.Schema) -> None:
        """Make a Delta table where it is missing."""
        if not self.has_table(name):
            make_folder(self.path(name))
            DeltaTable.create(
                str(self.path(name)),
                columns,
                mode="ignore",
                name=name,
                configuration=SETTINGS,
                storage_options=client_options(),
            )

    def restore(self, version: dict[str, Any]) -> None:
        """Give the tables the content that they had at a version; a step on the way to the next one."""
        for name in TABLES:
            table, committed = self._held[name], version[f"{name}_version"]
            if table.version() != committed:
                with _conditional(name):
                    table.restore(committed, commit_properties=ONCE)
        self._hold()

    def _hold(self) -> None:
        """Take the tables as they are now for what the next commit builds upon, with all columns of this gptmill."""
        for name, columns in ((VERSIONS, schema.VERSIONS), *TABLES.items()):
            _modernise(self.delta(name), columns)
            self._held[name] = self.delta(name)

    def commit(
        self,
        files: Sequence[DataFile],
        inputs: pa.Table,
        version_row: dict[str, Any],
        replace: bool = False,
        dropped: Sequence[DataFile] = (),
        again: Mapping[str, int] | None = None,
        all_inputs: pa.Table | None = None,
    ) -> dict[str, Any]:
        """Make one version real: files into their tables, inputs, and the version's row last.

        Args:
            files: what the tasks wrote, any order.
            inputs: rows of schema.INPUTS of the files that were read for the version.
            version_row: fields of schema.VERSIONS but the tables' Delta versions, which are filled in here.
            replace: the version holds these files and inputs only, not those of the version before it.
            dropped: files of the version before it that it does not have.
            again: documents by source that were read and are in the tables already.
            all_inputs: the table of inputs, where it is more than new rows behind the old ones.

        Returns:
            The row as it was written.

        Raises:
            LostDocuments: what was read is not what is kept and removed; nothing is committed.
            Overtaken: another process has written since `prepare`; nothing is committed.
        """
        self._check(files, dropped, inputs, again or {})
        for name in ("documents", "removed", "signatures"):
            own = sorted((file for file in files if file.table == name), key=lambda file: file.path)
            gone = [file for file in dropped if file.table == name]
            self._write(name, own, "overwrite" if replace else "append", gone)
        if all_inputs is not None or inputs.num_rows:
            rows = inputs if all_inputs is None else all_inputs
            is_whole = replace or all_inputs is not None
            self.put("inputs", schema.conform(rows, schema.INPUTS), "overwrite" if is_whole else "append")
        row = dict.fromkeys(schema.VERSIONS.names) | version_row
        for name in TABLES:
            row[f"{name}_version"] = self._table(name).version()
        self.put(VERSIONS, pa.Table.from_pylist([row], schema=schema.VERSIONS), "append")
        return row

    def _check(
        self,
        files: Sequence[DataFile],
        dropped: Sequence[DataFile],
        inputs: pa.Table,
        again: Mapping[str, int],
    ) -> None:
        """Count, in the very files that wait for the commit, what became of the documents that were read."""
        read: Counter[str] = Counter()
        for row in inputs.to_pylist():
            read[row["source"]] += row["num_documents"]
        counts = {table: self._count_files(table, files) for table in COUNTED}
        before = {table: self._count_files(table, dropped) for table in COUNTED}
        kept, removed = (Counter(_by_source(counts[table])) for table in COUNTED)
        kept.subtract(_by_source(before["documents"]))
        removed.subtract(_by_source(before["removed"]))
        for source in sorted({*read, *kept, *removed, *again}):
            if read[source] != kept[source] + removed[source] + again.get(source, 0):
                raise LostDocuments(
                    f"source {source}: {read[source]:,} documents were read, but {kept[source]:,} are kept and "
                    f"{removed[source]:,} removed{f', {again[source]:,} known' if source in again else ''}; "
                    "nothing was committed"
                )
        for source, stage, reason in counts["removed"]:
            if not stage or not reason:
                raise LostDocuments(
                    f"source {source}: documents are removed without a reason; nothing was committed"
                )

    def _count_files(self, table: str, files: Sequence[DataFile]) -> Groups:
        places = [place_of(self.path(table) / file.path) for file in files if file.table == table]
        if not places:
            return Counter()
        paths = [path for _, path in places]
        return _count(pads.dataset(paths, schema=TABLES[table], filesystem=places[0][0]), COUNTED[table])

    def _table(self, name: str) -> DeltaTable:
        """The table as this process knows it, which is what it builds upon."""
        if name not in self._held:
            self._held[name] = self.delta(name)
        return self._held[name]

    def _write(
        self,
        name: str,
        files: Sequence[DataFile],
        mode: Literal["append", "overwrite"],
        dropped: Sequence[DataFile] = (),
    ) -> None:
        if not files and not dropped and mode == "append":
            return
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, {}, now, True, f'{{"numRecords": {file.num_rows}}}')
            for file in files
        ]
        actions += [RemoveAction(file.path, True, now, size=file.size) for file in dropped]
        table = self._table(name)
        with _conditional(name):
            table.create_write_transaction(
                actions, mode, Schema.from_arrow(TABLES[name]), commit_properties=ONCE
            )
        self._held[name] = self.delta(name, table.version() + 1)

    def put(self, name: str, rows: pa.Table, mode: Literal["append", "overwrite"]) -> None:
        """Write rows of a small table, if it is still what `prepare` found.

        Raises:
            Overtaken: it is not.
        """
        if name == VERSIONS:
            self.create_table(name, schema.VERSIONS)
        table = self._table(name)
        before = table.version()
        with _conditional(name):
            write_deltalake(table, rows, mode=mode, commit_properties=ONCE)
        self._held[name] = self.delta(name, before + 1)

    def write_file(self, table: str, rows: pa.Table, name: str) -> DataFile:
        """Write rows as a Parquet file of a table; it stays invisible until `commit`."""
        path = self.path(table) / name
        rows = schema.conform(rows, TABLES[table])
        with new_file(path) as file:
            pq.write_table(rows, file, compression="zstd", row_group_size=ROW_GROUP)
        return DataFile(table, name, size_of(path), rows.num_rows)

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
    *("exact_dedup", "near_dedup", SUPERSEDED, TAKEDOWN, "kept"),
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


def _modernise(table: DeltaTable, columns: pa.Schema) -> None:
    """Give a table of an older gptmill the columns that it lacks, null in its rows, and the settings."""
    known = {field.name for field in table.schema().fields}
    missing = [field for field in columns if field.name not in known]
    if missing:
        table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
    if any(table.metadata().configuration.get(name) != value for name, value in SETTINGS.items()):
        table.alter.set_table_properties({name: str(value) for name, value in SETTINGS.items()})


def _differs(table: DeltaTable, committed: DeltaTable) -> bool:
    """Whether a table's newest state holds other files than the committed one (a restore is a version too)."""
    return sorted(table.file_uris()) != sorted(committed.file_uris())


@contextmanager
def _conditional(name: str) -> Iterator[None]:
    try:
        yield
    except CommitFailedError as error:
        raise Overtaken(
            f"another process has written corpus/{name} since this one began: it took the corpus for abandoned, for this "
            f"one had not renewed its lock; nothing of this refresh was committed ({error})"
        ) from error
