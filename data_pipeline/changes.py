"""What a new version changes among the documents of the one before it: some leave, and some were read again.

staged files of changed inputs -> documents that both the old and the new content hold: they stay as they are
                               -> documents that only the old content held: superseded
the ledger of takedowns        -> taken down, among the stored and among the staged documents
copies of what is superseded   -> their files are read again, so that no text is lost with the document
                                  that it was once removed for
the tables' files that hold any of these -> other files without them
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from data_pipeline import schema, takedowns
from data_pipeline.corpus import ROW_GROUP, SUPERSEDED, TAKEDOWN, Corpus, DataFile
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.schema import replace_column
from data_pipeline.sources import as_path
from data_pipeline.storage import new_file, open_parquet, read_parquet, size_of
from data_pipeline.takedowns import Rules

CHANGED_INPUT = "changed_input"
# Stage of a staged document that the tables hold already.
UNCHANGED = "unchanged"
SAMPLE_CHARS = 300
Row = dict[str, Any]

# A document that leaves: why, and `file`, the name of the table's file that holds it.
LEAVING = pa.schema(
    [("doc_id", pa.string()), ("source", pa.string()), ("input_file", pa.string()), ("uri", pa.string()),
     ("text_hash", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("file", pa.string())]
)  # fmt: skip
STORED = LEAVING.names[:5]


@dataclass
class Settled:
    """What the staged documents are held against, besides the tables.

    Attributes:
        leaving: rows of LEAVING, sorted by doc_id.
        unchanged: {(source, input file): documents that were read again and stay as they are}.
    """

    leaving: pa.Table = field(default_factory=LEAVING.empty_table)
    unchanged: Counter[tuple[str, str]] = field(default_factory=Counter)


# ------------------------------------------------------------------------------------------------ stored documents


def documents_of(corpus: Corpus, version: Row | None, input_files: Collection[str]) -> pa.Table:
    """The kept documents from some input files: STORED and `file`."""
    if version is None or not input_files:
        return LEAVING.empty_table().select([*STORED, "file"])
    names = pa.array(sorted(input_files), pa.string())
    return _scan(corpus, version, pc.field("input_file").isin(names))


def taken_down(corpus: Corpus, version: Row | None, rules: Rules) -> pa.Table:
    """The kept documents that rules name, as rows of LEAVING."""
    found = [LEAVING.empty_table()]
    if version is not None and rules:
        dataset = corpus.scan("documents", version)
        for batch in dataset.to_batches(columns=[*STORED, "__filename"]):
            table = pa.table(batch).rename_columns([*STORED, "file"])
            found.append(_leaving(table.filter(pa.array(rules.match(table))), TAKEDOWN, takedowns.REASON))
    return pa.concat_tables(found)


def _scan(corpus: Corpus, version: Row, condition: pc.Expression) -> pa.Table:
    found = corpus.scan("documents", version).to_table(columns=[*STORED, "__filename"], filter=condition)
    return found.rename_columns([*STORED, "file"])


def _leaving(table: pa.Table, stage: str, reason: str) -> pa.Table:
    for name, value in (("stage", stage), ("reason", reason)):
        table = replace_column(table, name, pa.array([value] * table.num_rows, pa.string()))
    files = [path.rsplit("/", 1)[-1] for path in table["file"].to_pylist()]
    return replace_column(table, "file", pa.array(files, pa.string())).select(LEAVING.names).cast(LEAVING)


# ------------------------------------------------------------------------------------------------ staged documents


def settle(old: pa.Table, down: pa.Table, rules: Rules, staged: Sequence[Path]) -> Settled:
    """Hold staged documents against what their files held before, and against the rules.

    In the staged files what stays as it is becomes UNCHANGED, and what is taken down is removed.

    Args:
        old: the kept documents of the input files that were staged (`documents_of`).
        down: stored documents that leave by the rules.
        staged: the staged files to look into.
    """
    old = old.filter(pc.invert(pc.is_in(old["doc_id"], down["doc_id"].combine_chunks())))
    if not old.num_rows and not rules:
        return Settled(down)
    known = old.select(["doc_id", "input_file"]).combine_chunks()
    units = [pa.table({"path": [str(path)]}) for path in staged]
    found = collect(map_tables(from_tables(units), _meet, known=ray.put(known), rules=rules), MET)
    found = found.sort_by("row_id")
    again = _first_of_each(found.filter(found["is_known"]))
    taken = found.filter(pc.invert(found["is_known"]))
    _rewrite_staged(again, taken)
    stays = pc.is_in(old["doc_id"], again["doc_id"].combine_chunks())
    superseded = _leaving(old.filter(pc.invert(stays)), SUPERSEDED, CHANGED_INPUT)
    files = zip(again["source"].to_pylist(), again["input_file"].to_pylist(), strict=True)
    return Settled(pa.concat_tables([down, superseded]).sort_by("doc_id"), Counter(files))


MET = pa.schema(
    [("path", pa.string()), ("row_id", pa.int64()), ("doc_id", pa.string()), ("source", pa.string()),
     ("input_file", pa.string()), ("is_known", pa.bool_())]
)  # fmt: skip


def _meet(units: pa.Table, known: ray.ObjectRef, rules: Rules) -> pa.Table:
    """Rows of staged files that the old content of their file holds, too, or that rules name; runs in a Ray task."""
    stored: pa.Table = ray.get(known)
    parts = []
    for path in units["path"].to_pylist():
        table = read_parquet(path, [*MET.names[1:5], "uri", "text_hash", "reason"])
        is_down = rules.match(table)
        place = pc.index_in(table["doc_id"], value_set=stored["doc_id"].combine_chunks())
        is_same_file = pc.equal(pc.take(stored["input_file"], place), table["input_file"])
        is_known = pc.and_(pc.fill_null(is_same_file, False), pc.is_null(table["reason"]))
        wanted = is_down | is_known.to_numpy(zero_copy_only=False)
        table = table.append_column("path", pa.array([path] * table.num_rows, pa.string()))
        table = table.append_column("is_known", pa.array(~is_down))
        parts.append(table.filter(pa.array(wanted)).select(MET.names))
    return pa.concat_tables(parts)


def _first_of_each(table: pa.Table) -> pa.Table:
    """The first row of each document: further ones in its file are copies of it."""
    _, first = np.unique(table["doc_id"].to_numpy(zero_copy_only=False), return_index=True)
    return table.take(pa.array(np.sort(first)))


def _rewrite_staged(again: pa.Table, taken: pa.Table) -> None:
    paths = sorted({*again["path"].to_pylist(), *taken["path"].to_pylist()})
    if not paths:
        return
    rows = {"again": np.sort(again["row_id"].to_numpy()), "taken": np.sort(taken["row_id"].to_numpy())}
    units = from_tables([pa.table({"path": [path]}) for path in paths])
    collect(map_tables(units, _without, rows=ray.put(rows)), pa.schema([("path", pa.string())]))


def _without(units: pa.Table, rows: ray.ObjectRef) -> pa.Table:
    """Write staged files anew with some rows as unchanged, and others as taken down; runs in a Ray task.

    All stay where they are, for a row's number says so.
    """
    chosen: dict[str, np.ndarray] = ray.get(rows)
    for path in map(as_path, units["path"].to_pylist()):
        table = read_parquet(path)
        is_again, is_down = (pa.array(np.isin(table["row_id"].to_numpy(), chosen[name])) for name in chosen)
        # Nothing of a text is kept, not even of one that another rule removed.
        for name, value in (("text", ""), ("title", ""), ("unrepaired", None)):
            blank = pc.if_else(pc.or_(is_again, is_down), pa.scalar(value, pa.string()), table[name])
            table = replace_column(table, name, blank)
        is_alive = pc.is_null(table["reason"])
        for condition, stage, reason in (
            (is_again, UNCHANGED, UNCHANGED),
            (pc.and_(is_down, is_alive), TAKEDOWN, takedowns.REASON),
        ):
            for name, value in (("stage", stage), ("reason", reason)):
                decided = pc.if_else(condition, pa.scalar(value, pa.string()), table[name])
                table = replace_column(table, name, decided)
        with new_file(path) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=512)
    return units


def files_of_copies(
    corpus: Corpus, version: Row | None, superseded: pa.Table, but_not: Collection[str]
) -> set[str]:
    """Input files with documents that were removed as copies of superseded ones, and so are lost with them."""
    gone = superseded.filter(pc.equal(superseded["stage"], SUPERSEDED))["doc_id"]
    if version is None or not len(gone):
        return set()
    condition = pc.field("duplicate_of").isin(gone.combine_chunks())
    copies = corpus.scan("removed", version).to_table(columns=["input_file"], filter=condition)
    return set(copies["input_file"].to_pylist()) - set(but_not)


# ------------------------------------------------------------------------------------------------- the tables' files


@dataclass(frozen=True)
class Rewritten:
    """Files in place of others.

    Attributes:
        added, dropped: the new ones and those that they replace.
        removed_before: documents by (source, input file) that were removed when an input file was read before.
    """

    added: list[DataFile]
    dropped: list[DataFile]
    removed_before: Counter[str]


def rewrite_tables(
    corpus: Corpus,
    before: Row,
    version: int,
    attempt: str,
    leaving: pa.Table,
    read_again: Collection[str],
    rules: Rules,
) -> Rewritten:
    """Write the files of the version before anew that hold documents that leave, or what was removed of files that were read again.

    Args:
        version: the new version's number.
        attempt: part of the names of the new files.
        leaving: rows of LEAVING.
        read_again: input files whose documents are all decided anew.
        rules: of what they name, no sample of a text is kept; all of corpus/removed is looked through for it.
    """
    units = []
    holders = set(leaving["file"].to_pylist())
    for table in ("documents", "signatures"):
        files = corpus.data_files(table, before)
        # A signature lies in the file of its document's name, unless somebody has compacted the tables.
        known = {file.name for file in files}
        wanted = holders if holders <= known else known
        units += [file for file in files if file.name in wanted]
    decided = _holders_of_removed(corpus, before, read_again)
    units += [file for file in corpus.data_files("removed", before) if rules or file.name in decided]
    if not units:
        return Rewritten([], [], Counter())
    tables = [pa.Table.from_pylist([asdict(file) for file in [unit]], schema=FILES) for unit in units]
    written = map_tables(
        from_tables(tables),
        _rewrite_file,
        root=str(corpus.root),
        version=version,
        attempt=attempt,
        leaving=ray.put(leaving.combine_chunks()),
        read_again=ray.put(pa.array(sorted(read_again), pa.string())),
        rules=rules,
    )
    rows = collect(written, REWRITTEN).to_pylist()
    added = [DataFile(row["table"], row["path"], row["size"], row["num_rows"]) for row in rows if row["path"]]
    changed = {(row["table"], row["old"]) for row in rows}
    before_counts: Counter[str] = Counter()
    for row in rows:
        if row["source"]:
            before_counts[row["source"]] += row["count"]
    dropped = [unit for unit in units if (unit.table, unit.path) in changed]
    return Rewritten(added, dropped, before_counts)


FILES = pa.schema(
    [("table", pa.string()), ("path", pa.string()), ("size", pa.int64()), ("num_rows", pa.int64())]
)
# A new file for an `old` one, or none; or documents of a source that are removed no more, by `count`.
REWRITTEN = pa.schema([*FILES, ("old", pa.string()), ("source", pa.string()), ("count", pa.int64())])
_SUFFIX = re.compile(r"-x\d{6}-[0-9a-f]{12}$")


def _holders_of_removed(corpus: Corpus, version: Row, input_files: Collection[str]) -> set[str]:
    """Names of the files of corpus/removed with documents of some input files."""
    if not input_files:
        return set()
    condition = pc.field("input_file").isin(pa.array(sorted(input_files), pa.string()))
    condition &= pc.field("stage") != SUPERSEDED
    found = corpus.scan("removed", version).to_table(columns=["__filename"], filter=condition)
    return {path.rsplit("/", 1)[-1] for path in pc.unique(found["__filename"]).to_pylist()}


def _blanked(removed: pa.Table, rules: Rules, leaving: pa.Array) -> np.ndarray:
    """Rows of corpus/removed that no sample of a text is kept of: what rules name, and copies of it."""
    of_copies = pc.is_in(removed["duplicate_of"], pa.array(sorted(rules.doc_id), pa.string()))
    of_leaving = pc.is_in(removed["duplicate_of"], leaving)
    return rules.match(removed) | pc.or_(of_copies, of_leaving).to_numpy(zero_copy_only=False)


def _rewrite_file(
    unit: pa.Table,
    root: str,
    version: int,
    attempt: str,
    leaving: ray.ObjectRef,
    read_again: ray.ObjectRef,
    rules: Rules,
) -> pa.Table:
    """Write one table's file anew, a row group at a time; runs in a Ray task."""
    corpus = Corpus(root)
    going: pa.Table = ray.get(leaving)
    names: pa.Array = ray.get(read_again)
    (entry,) = unit.to_pylist()
    old = DataFile(**entry)
    path = corpus.path(old.table) / old.path
    new_name = f"{_SUFFIX.sub('', old.name.removesuffix('.parquet'))}-x{version:06d}-{attempt}.parquet"
    moved: list[pa.Table] = []
    num_rows, is_changed, dropped = 0, False, Counter[str]()
    target = corpus.path(old.table) / new_name
    with new_file(target) as file, open_parquet(path) as source:
        columns = _columns_of(old.table)
        with pq.ParquetWriter(file, columns, compression="zstd") as writer:
            for group in range(source.num_row_groups):
                table = schema.conform(_read_group(source, group, columns), columns)
                if old.table == "removed":
                    kept, gone, is_other = _of_removed(table, names, rules, going)
                    dropped.update(gone["source"].to_pylist())
                else:
                    kept, gone = _apart(table, going["doc_id"])
                    is_other = bool(gone.num_rows)
                    if old.table == "documents" and gone.num_rows:
                        moved.append(_as_removed(gone, going, version))
                is_changed |= is_other
                num_rows += kept.num_rows
                writer.write_table(kept, row_group_size=ROW_GROUP)
    return _report(corpus, old, target, num_rows, is_changed, moved, dropped, version, attempt)


def _columns_of(table: str) -> pa.Schema:
    from data_pipeline.corpus import TABLES

    return TABLES[table]


def _read_group(file: pq.ParquetFile, group: int, columns: pa.Schema) -> pa.Table:
    """A row group's known columns: a file of an older gptmill may lack some."""
    return file.read_row_group(
        group, columns=[name for name in columns.names if name in file.schema_arrow.names]
    )


def _apart(table: pa.Table, ids: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    goes = pc.is_in(table["doc_id"], ids.combine_chunks())
    return table.filter(pc.invert(goes)), table.filter(goes)


def _of_removed(
    table: pa.Table, read_again: pa.Array, rules: Rules, leaving: pa.Table
) -> tuple[pa.Table, pa.Table, bool]:
    """(Rows that stay, rows that are decided anew, whether anything is other than before)."""
    is_decided = pc.and_(pc.is_in(table["input_file"], read_again), pc.not_equal(table["stage"], SUPERSEDED))
    kept, gone = table.filter(pc.invert(is_decided)), table.filter(is_decided)
    down = leaving.filter(pc.equal(leaving["stage"], TAKEDOWN))["doc_id"].combine_chunks()
    blank = pa.array(_blanked(kept, rules, down)) if rules else pa.array([False] * kept.num_rows, pa.bool_())
    blank = pc.and_(blank, pc.not_equal(pc.fill_null(kept["text_sample"], ""), ""))
    is_other = bool(gone.num_rows) or bool(pc.any(blank).as_py())
    samples = pc.if_else(blank, pa.scalar("", pa.string()), kept["text_sample"])
    return replace_column(kept, "text_sample", samples), gone, is_other


def _as_removed(documents: pa.Table, leaving: pa.Table, version: int) -> pa.Table:
    """Rows of corpus/removed for documents that leave; of what is taken down no text is kept."""
    place = pc.index_in(documents["doc_id"], value_set=leaving["doc_id"].combine_chunks())
    for name in ("stage", "reason"):
        documents = replace_column(documents, name, pc.take(leaving[name], place))
    samples = pc.utf8_slice_codeunits(documents["text"], 0, SAMPLE_CHARS)
    samples = pc.if_else(pc.equal(documents["stage"], TAKEDOWN), pa.scalar("", pa.string()), samples)
    documents = replace_column(documents, "text_sample", samples)
    versions = pa.array([version] * documents.num_rows, pa.int64())
    return schema.conform(replace_column(documents, "version", versions), schema.REMOVED)


def _report(
    corpus: Corpus,
    old: DataFile,
    target: Path,
    num_rows: int,
    is_changed: bool,
    moved: Sequence[pa.Table],
    dropped: Counter[str],
    version: int,
    attempt: str,
) -> pa.Table:
    """Rows of REWRITTEN; a file that came out empty, or the same, is not taken."""
    from data_pipeline.storage import remove_file

    rows: list[Row] = []
    if is_changed:
        written = DataFile(old.table, target.name, size_of(target), num_rows) if num_rows else None
        entry = asdict(written) if written else {"table": old.table, "path": "", "size": 0, "num_rows": 0}
        rows.append({**entry, "old": old.path, "source": "", "count": 0})
    if not is_changed or not num_rows:
        remove_file(target)
    if moved:
        name = f"part-v{version:06d}-{attempt}-left-{old.name.removesuffix('.parquet')}.parquet"
        file = corpus.write_file("removed", pa.concat_tables(moved), name)
        rows.append({**asdict(file), "old": "", "source": "", "count": 0})
    rows += [
        {
            "table": "removed",
            "path": "",
            "size": 0,
            "num_rows": 0,
            "old": "",
            "source": source,
            "count": count,
        }
        for source, count in sorted(dropped.items())
    ]
    return pa.Table.from_pylist(rows, schema=REWRITTEN)


def by_source(counts: Iterable[tuple[tuple[str, str], int]]) -> Counter[str]:
    """Counts of (source, input file) added up by source."""
    totals: Counter[str] = Counter()
    for (source, _), count in counts:
        totals[source] += count
    return totals
