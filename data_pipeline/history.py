"""Versions of a corpus: what differs between two, going back to one, taking documents out, and giving up old ones.

Each of these is a version of its own, committed like a refresh, or changes none. All but `diff` want the corpus's lock
and, where documents leave, a running Ray.
"""

from __future__ import annotations

import datetime
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from data_pipeline import changes, evidence, schema, takedowns
from data_pipeline.corpus import COUNTED, SUPERSEDED, TABLES, TAKEDOWN, VERSIONS, Corpus
from data_pipeline.errors import InputError
from data_pipeline.inputs import inputs_after
from data_pipeline.storage import place_of, read_parquet, remove_file, remove_tree
from data_pipeline.takedowns import Rule, Rules

Row = dict[str, Any]
Progress = Callable[[str], None]


def comply(
    corpus: Corpus, before: Row, latest: Row, kind: str, progress: Progress = lambda line: None
) -> Row:
    """Commit the next version: the content of one, without what the ledger of takedowns names.

    Args:
        before: the version whose content it has; the tables are in its state.
        latest: the newest version.
        kind: what the new version is called: remove or rollback.
    """
    rules, ledger = takedowns.ledger(corpus)
    version, attempt = latest["version"] + 1, uuid.uuid4().hex[:12]
    leaving = changes.taken_down(corpus, before, rules).sort_by("doc_id")
    progress(f"taking {leaving.num_rows:,} documents out")
    is_pending = before["takedowns_version"] != ledger
    rewritten = changes.rewrite_tables(
        corpus, before, version, attempt, leaving, (), rules if is_pending else Rules()
    )
    found = evidence.load(corpus.evidence(before["version"]))
    found = evidence.without(found, set(leaving["doc_id"].to_pylist()), rules)
    evidence.save(found, corpus.evidence(version))
    read = schema.INPUTS.empty_table()
    row = {
        **{name: before[name] for name in ("config_hash", "config", "signature_scheme", "gptmill_version")},
        "version": version,
        "created_at": _now(),
        **dict.fromkeys(("num_inputs", "num_documents", "num_kept", "num_removed", "num_superseded"), 0),
        "kind": kind,
        "restored_version": before["version"] if kind == "rollback" else None,
        "num_taken_down": leaving.num_rows,
        "takedowns_version": ledger,
    }
    inputs = inputs_after(corpus.read("inputs", before, schema.INPUTS.names), read, leaving)
    return corpus.commit(rewritten.added, read, row, dropped=rewritten.dropped, all_inputs=inputs)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# ------------------------------------------------------------------------------------------------------- takedowns


@dataclass(frozen=True)
class Removal:
    """What a takedown did.

    Attributes:
        version: the version without the documents; the newest one where none was left to take out.
        documents: rows of changes.LEAVING, what was taken out now.
        doc_ids: these, and all that had left the corpus before or that an older readable version has.
        num_rules: lines that the ledger gained.
        changed: whether a version was added.
    """

    version: Row
    documents: pa.Table
    doc_ids: list[str]
    num_rules: int
    changed: bool


def find_taken_down(corpus: Corpus, version: Row, rules: Rules) -> pa.Table:
    """The documents of a version that rules name: rows of changes.LEAVING, sorted by source and uri."""
    return changes.taken_down(corpus, version, rules).sort_by(
        [("source", "ascending"), ("uri", "ascending"), ("doc_id", "ascending")]
    )


def remove(
    corpus: Corpus, rules: Sequence[Rule], note: str = "", progress: Progress = lambda line: None
) -> Removal:
    """Take documents out of the corpus, from the next version on and for good; the caller holds the lock.

    A call that is killed is finished by the next refresh, or by the same call.

    Raises:
        InputError: there is no corpus yet.
    """
    corpus.prepare()
    latest = corpus.at()
    named = Rules.of(rules)
    found = find_taken_down(corpus, latest, named)
    # The same text under another address is kept out as well.
    texts = [("text_hash", value) for value in sorted(set(found["text_hash"].to_pylist()) - {None})]
    num_rules = takedowns.enter(corpus, [*rules, *texts], note)
    _, ledger = takedowns.ledger(corpus)
    is_pending = latest["takedowns_version"] != ledger
    row = comply(corpus, latest, latest, "remove", progress) if is_pending else latest
    return Removal(row, found, _all_ids(corpus, row, Rules.of([*rules, *texts])), num_rules, is_pending)


def _all_ids(corpus: Corpus, version: Row, rules: Rules) -> list[str]:
    """Documents that rules name and that a readable version has, or that left; token datasets may hold them."""
    columns = ["doc_id", "uri", "text_hash"]
    left = corpus.scan("removed", version).to_table(
        columns=columns[:2], filter=pc.field("stage").isin([SUPERSEDED, TAKEDOWN])
    )
    files = {
        corpus.uri(file)
        for row in corpus.versions()
        if not row["vacuumed_at"]
        for file in corpus.data_files("documents", row)
    }
    ids: set[str] = set()
    for table in (left, *(read_parquet(path, columns) for path in sorted(files))):
        ids |= set(table.filter(pa.array(rules.match(table)))["doc_id"].to_pylist())
    return sorted(ids)


# -------------------------------------------------------------------------------------------------------- going back


def rollback(corpus: Corpus, version: int, progress: Progress = lambda line: None) -> Row:
    """Commit the next version with the content of an older one; the caller holds the lock.

    What was taken down stays out, also if the older version had it. Files that were read since are new again.

    Raises:
        InputError: no such version, or it is the newest one.
    """
    corpus.prepare()
    latest, wanted = corpus.at(), corpus.at(version)
    if wanted["version"] == latest["version"]:
        raise InputError(f"rollback: version {version} is the newest one already")
    corpus.restore(wanted)
    return comply(corpus, wanted, latest, "rollback", progress)


# ---------------------------------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Difference:
    """What differs between two versions.

    Attributes:
        documents: {source: {added, gone, num_chars_added, num_chars_gone, num_words_added, num_words_gone}}.
        removed: {(source, stage, reason): documents more in the table of what was removed (fewer: negative)}.
        inputs: {source: {added, gone}}: files whose content is in one of the two only.
        num_documents: of both versions.
        examples: (+ or -, source, uri) of the first documents by id.
    """

    documents: dict[str, dict[str, int]]
    removed: dict[tuple[str, str, str], int]
    inputs: dict[str, dict[str, int]]
    num_documents: tuple[int, int]
    examples: list[tuple[str, str, str]]


def diff(corpus: Corpus, left: Row, right: Row, num_examples: int = 20) -> Difference:
    """What the right version has otherwise than the left one; only files that one of them lacks are read."""
    columns = ["doc_id", "source", "uri", "num_chars", "num_words"]
    old, new = _own_rows(corpus, "documents", left, right, columns)
    added = new.filter(pc.invert(pc.is_in(new["doc_id"], old["doc_id"].combine_chunks())))
    gone = old.filter(pc.invert(pc.is_in(old["doc_id"], new["doc_id"].combine_chunks())))
    documents: dict[str, dict[str, int]] = {}
    for name, table in (("added", added), ("gone", gone)):
        sums = [([], "count_all"), ("num_chars", "sum"), ("num_words", "sum")]
        for row in table.group_by("source").aggregate(sums).to_pylist():
            cell = documents.setdefault(row["source"], Counter())
            cell[name] += row["count_all"]
            cell[f"num_chars_{name}"] += row["num_chars_sum"] or 0
            cell[f"num_words_{name}"] += row["num_words_sum"] or 0
    examples = [
        (sign, row["source"], row["uri"])
        for sign, table in (("+", added), ("-", gone))
        for row in table.sort_by("doc_id").slice(0, num_examples).select(["source", "uri"]).to_pylist()
    ]
    sizes = [sum(file.num_rows for file in corpus.data_files("documents", row)) for row in (left, right)]
    return Difference(
        {source: dict(cell) for source, cell in sorted(documents.items())},
        _removed(corpus, left, right),
        _inputs(corpus, left, right),
        (sizes[0], sizes[1]),
        examples,
    )


def _own_rows(
    corpus: Corpus, table: str, left: Row, right: Row, columns: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Rows of the files that only the left version has, and of those that only the right one has."""
    files = [{file.path: file for file in corpus.data_files(table, row)} for row in (left, right)]
    fields = pa.schema([TABLES[table].field(name) for name in columns])
    sides = []
    for own, others in (files, files[::-1]):
        parts = [
            schema.conform(read_parquet(corpus.uri(file), columns), fields)
            for path, file in own.items()
            if path not in others
        ]
        sides.append(pa.concat_tables([fields.empty_table(), *parts]))
    return sides[0], sides[1]


def _removed(corpus: Corpus, left: Row, right: Row) -> dict[tuple[str, str, str], int]:
    totals: Counter[tuple[str, str, str]] = Counter()
    columns = COUNTED["removed"]
    for sign, table in zip((-1, 1), _own_rows(corpus, "removed", left, right, columns), strict=True):
        for row in table.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist():
            totals[row["source"], row["stage"], row["reason"]] += sign * row["count_all"]
    return {key: count for key, count in sorted(totals.items()) if count}


def _inputs(corpus: Corpus, left: Row, right: Row) -> dict[str, dict[str, int]]:
    sides = []
    for row in (left, right):
        table = corpus.read("inputs", row, ["source", "path", "size", "sha256", "status"])
        table = table.filter(pc.not_equal(table["status"], SUPERSEDED))
        sides.append({(row["source"], row["path"], row["size"], row["sha256"]) for row in table.to_pylist()})
    found: dict[str, dict[str, int]] = {}
    for name, files in (("added", sides[1] - sides[0]), ("gone", sides[0] - sides[1])):
        for source, *_ in files:
            cell = found.setdefault(source, {"added": 0, "gone": 0})
            cell[name] += 1
    return dict(sorted(found.items()))


# ---------------------------------------------------------------------------------------------------------- vacuum


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum removed, or would remove.

    Attributes:
        versions: that cannot be read any more.
        files: (path, bytes).
    """

    versions: list[int]
    files: list[tuple[str, int]]


def vacuum(corpus: Corpus, keep: int, protected: Collection[int] = (), dry_run: bool = False) -> Vacuumed:
    """Remove the files that only old versions have, and what killed refreshes left; the caller holds the lock.

    Args:
        keep: newest versions that stay readable, at least 1.
        protected: further versions that stay.
        dry_run: say what would be removed.

    Raises:
        InputError: there is no corpus.
    """
    corpus.prepare()
    corpus.at()
    rows = corpus.versions()
    readable = [row for row in rows if not row["vacuumed_at"]]
    kept = [row for row in readable if row in readable[-keep:] or row["version"] in protected]
    dropped = [row["version"] for row in readable if row not in kept]
    if not dry_run and dropped:
        # Marked before their files go: nobody is told that a version is there and then misses a file of it.
        marked = [row | ({"vacuumed_at": _now()} if row["version"] in dropped else {}) for row in rows]
        table = pa.Table.from_pylist(marked, schema=schema.VERSIONS)
        corpus.put(VERSIONS, table, "overwrite")
    files: list[tuple[str, int]] = []
    for name in (*TABLES, VERSIONS, takedowns.TABLE):
        if corpus.has_table(name):
            versions = [row[f"{name}_version"] for row in kept] if name in TABLES else None
            files += _vacuum_table(corpus, name, versions, dry_run)
    files += _leftovers(corpus, {row["version"] for row in rows}, dry_run)
    return Vacuumed(dropped, sorted(files))


def _vacuum_table(
    corpus: Corpus, name: str, versions: list[int] | None, dry_run: bool
) -> list[tuple[str, int]]:
    sizes = dict(_listed(corpus, name))
    gone = corpus.delta(name).vacuum(
        retention_hours=0,
        dry_run=dry_run,
        enforce_retention_duration=False,
        full=True,
        keep_versions=versions,
    )
    return [(f"{name}/{path}", sizes.get(path, 0)) for path in gone]


def _listed(corpus: Corpus, folder: str) -> list[tuple[str, int]]:
    """(Name, bytes) of the files of a folder and the folders in it."""
    files, place = place_of(corpus.root / folder)
    selector = pyarrow.fs.FileSelector(place, allow_not_found=True, recursive=True)
    found = [entry for entry in files.get_file_info(selector) if entry.type == pyarrow.fs.FileType.File]
    return [(entry.path[len(place) :].lstrip("/"), entry.size) for entry in found]


def _leftovers(corpus: Corpus, versions: Collection[int], dry_run: bool) -> list[tuple[str, int]]:
    """What killed refreshes left beside the tables."""
    gone = [(f".staging/{name}", size) for name, size in _listed(corpus, ".staging")]
    known = {f"{number:06d}" for number in versions}
    reports = [
        (f"reports/{name}", size)
        for name, size in _listed(corpus, "reports")
        if name.split(".")[0].split("-")[-1] not in known or name.endswith(".tmp")
    ]
    if not dry_run:
        remove_tree(corpus.root / ".staging")
        for name, _ in reports:
            remove_file(corpus.root / name)
    return gone + reports


def purge(corpus: Corpus) -> Vacuumed:
    """Give up all versions but the newest, and their reports, so that no file holds what was taken down."""
    gone = vacuum(corpus, keep=1)
    newest = corpus.at()["version"]
    for name, size in _listed(corpus, "reports"):
        if f"{newest:06d}" not in name:
            remove_file(corpus.root / "reports" / name)
            gone.files.append((f"reports/{name}", size))
    return gone
