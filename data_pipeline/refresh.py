"""One refresh: unseen input files become the next version of the corpus, whole or not at all.

    list inputs -> read, extract, clean, identify, filter, sign (a Ray task a unit of files; rows staged as Parquet)
      -> find duplicates among the staged rows and against the stored signatures (Ray Data shuffles)
      -> write the tables' files (one map) -> commit

Staged rows live in <corpus>/.staging and are gone after the commit. A refresh that is killed anywhere leaves
nothing that a reader can see; the next one starts over from the last committed version.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from data_pipeline import evidence, schema
from data_pipeline.atomic import write_json
from data_pipeline.config import RefreshConfig
from data_pipeline.corpus import Corpus, DataFile
from data_pipeline.decontaminate import protected
from data_pipeline.dedup.boilerplate import remove_boilerplate
from data_pipeline.dedup.candidates import Members
from data_pipeline.dedup.duplicates import describe, find_duplicates
from data_pipeline.dedup.losses import guard_losses
from data_pipeline.dedup.member_files import members_of
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.quality.scoring import with_model
from data_pipeline.shards import canonical_json
from data_pipeline.sources import fingerprint, is_local, list_files
from data_pipeline.staging import InputFile, Progress, stage_files, staged_files

SAMPLE_CHARS = 300
# Documents that one partition of the deduplication shuffles holds, about.
ROWS_A_PARTITION = 20_000
# Compressed text whose lines one partition of the boilerplate shuffle counts, about.
BYTES_A_PARTITION = 64 << 20

# {(source, input file): (documents kept, removed)}
FileCounts = dict[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh did.

    Attributes:
        version: the newest committed version after it.
        new_inputs, known_inputs: files read now, and skipped because an earlier version has them.
        damaged: (file, what was wrong) of inputs that could not be read to their end.
        changed: whether a version was added.
    """

    version: dict[str, Any]
    new_inputs: int
    known_inputs: int
    damaged: list[tuple[str, str]]
    changed: bool


def refresh(
    corpus: Corpus,
    config: RefreshConfig,
    base: Path,
    progress: Progress = lambda line: None,
    rebuild: bool = False,
) -> RefreshResult:
    """Take what is new in the sources into the corpus.

    Args:
        corpus: where to; made when it does not exist.
        config: validated configuration.
        base: input files below this folder are recorded by their path relative to it (the workspace).
        progress: told what is going on, one short line at a time.
        rebuild: make the next version from the sources alone, as if it were the first: all their files are read,
            documents are compared with each other only, and the version replaces what the tables hold. Documents
            of files that the sources no longer name are not in it; earlier versions stay readable.

    Raises:
        InputError: nothing to read, signatures of another scheme, or a source that would lose too much.
    """
    config.validate()
    config = with_model(config, corpus.root)
    # Before any work: a set that protects nothing is an error.
    config = replace(config, decontamination=protected(config.decontamination, base / "evaluation"))
    latest = corpus.prepare()
    # What new files and documents are held against.
    known_version = None if rebuild else latest
    if known_version is not None and known_version["signature_scheme"] != config.dedup.scheme:
        raise InputError(
            f"dedup: the corpus was built with signatures '{known_version['signature_scheme']}', this configuration "
            f"makes '{config.dedup.scheme}'; use the old settings, --rebuild, or a new workspace"
        )
    found = find_inputs(corpus, config, base, known_version, progress)
    inputs = [file for file, is_known in found if not is_known]
    known = len(found) - len(inputs)
    if not inputs:
        if known_version is None:
            raise InputError("sources: there is nothing to read; name at least one source with files in it")
        return RefreshResult(known_version, 0, known, [], changed=False)
    version = (latest["version"] if latest else 0) + 1
    staging = corpus.root / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        read = stage_files(inputs, config, staging, progress)
        paths = staged_files(staging)
        remove_boilerplate(paths, config, sum(path.stat().st_size for path in paths) // BYTES_A_PARTITION)
        progress("finding duplicates")
        members = _members(corpus, config, known_version, staging)
        removals = _find_duplicates(corpus, config, members, version, staging)
        progress("writing tables")
        pairs = evidence.least_similar(removals)
        files, counts = _write_tables(corpus, version, staging, removals, pairs)
        examples = evidence.gather(staged_files(staging), pairs, members, corpus, known_version)
        evidence.save(examples, corpus.evidence(version))
        row = corpus.commit(
            files,
            _input_rows(inputs, config, read, counts, version),
            _version_row(config, version, inputs, counts),
            replace=rebuild,
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    damaged = [(inputs[index].name, error) for index, (_, error) in sorted(read.items()) if error]
    return RefreshResult(row, len(inputs), known, damaged, changed=True)


# ---------------------------------------------------------------------------------------------------- inputs


def find_inputs(
    corpus: Corpus,
    config: RefreshConfig,
    base: Path,
    latest: dict[str, Any] | None,
    progress: Progress = lambda line: None,
) -> list[tuple[InputFile, bool]]:
    """The sources' files, sorted by source and name, each with whether a version has it; nothing is written.

    Args:
        latest: the newest version's row, or None before the first.

    Raises:
        InputError: a path that does not exist or cannot be listed.
    """
    listed = [(index, path) for index, source in enumerate(config.sources) for path in list_files(source)]
    progress(f"checking {len(listed)} input files")
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(fingerprint, [path for _, path in listed]))
    seen_table = corpus.read("inputs", latest, ["path", "size", "sha256"])
    seen = set(zip(*(seen_table[name].to_pylist() for name in ("path", "size", "sha256")), strict=True))
    base = base.resolve()
    found = []
    for (index, path), (size, digest) in zip(listed, contents, strict=True):
        is_below = is_local(path) and path.is_relative_to(base)
        name = str(path.relative_to(base)) if is_below else str(path)
        found.append(InputFile(path, name, index, size, digest))
    found.sort(key=lambda file: (file.source, file.name))
    # What could not be read to its end has no sha256, and is tried again by each refresh.
    return [(file, file.sha256 != "" and (file.name, file.size, file.sha256) in seen) for file in found]


# ------------------------------------------------------------------------------------------- deduplication


def _members(corpus: Corpus, config: RefreshConfig, known: dict[str, Any] | None, staging: Path) -> Members:
    """The staged documents, and those of the version that they are held against."""
    return members_of(
        staged_files(staging),
        corpus.files("signatures", known) if known else [],
        corpus.files("documents", known) if known else [],
        {source.name: index for index, source in enumerate(config.sources)},
    )


def _find_duplicates(
    corpus: Corpus, config: RefreshConfig, members: Members, version: int, staging: Path
) -> pa.Table:
    """Removals among the staged documents; the figures go to `dedup_report`."""
    found = find_duplicates(members, config.dedup, members.num_new // ROWS_A_PARTITION)
    guard_losses(config, staging, found.removals, members)
    # Before the commit: a version that is real has it; one that never was is overwritten by the next try.
    write_json(corpus.dedup_report(version), {"version": version, **describe(found, members, config.dedup)})
    return found.removals


# --------------------------------------------------------------------------------------------- tables, commit


def _write_tables(
    corpus: Corpus, version: int, staging: Path, removals: pa.Table, pairs: pa.Table
) -> tuple[list[DataFile], FileCounts]:
    """Write the version's files; return them and what became of each file's documents."""
    attempt = uuid.uuid4().hex[:12]
    units = [
        pa.table({"path": [str(path)], "name": [f"part-v{version:06d}-{attempt}-{path.stem}.parquet"]})
        for path in staged_files(staging)
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
    counts: FileCounts = {}
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


def _write_unit(
    unit: pa.Table, root: str, version: int, removals: ray.ObjectRef, pairs: pa.Table
) -> pa.Table:
    """Part one staged file into documents, removed and signatures, with a file of examples beside it; a Ray task."""
    corpus = Corpus(Path(root))
    decided: pa.Table = ray.get(removals)
    rows: list[dict[str, Any]] = []
    for path, name in zip(unit["path"].to_pylist(), unit["name"].to_pylist(), strict=True):
        staged = pq.read_table(path, partitioning=None)
        kept, removed = _part(staged, decided, version)
        for table, content in (("documents", kept), ("removed", removed), ("signatures", kept)):
            if content.num_rows:
                rows.append(asdict(corpus.write_file(table, content, name)))
        rows.extend(_count_by_file(kept, removed))
        write_json(evidence.side_file(Path(path)), evidence.collect(staged, pairs))
    return pa.Table.from_pylist(rows, schema=WRITTEN)


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
    return staged.filter(pc.is_null(staged["reason"])), staged.filter(pc.is_valid(staged["reason"]))


def _count_by_file(kept: pa.Table, removed: pa.Table) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str], dict[str, Any]] = {}
    for table, name in ((kept, "kept"), (removed, "removed")):
        groups = table.group_by(["source", "input_file"]).aggregate([([], "count_all")])
        for row in groups.to_pylist():
            key = (row["source"], row["input_file"])
            empty = {"source": key[0], "input_file": key[1], "kept": 0, "removed": 0}
            counts.setdefault(key, empty)[name] = row["count_all"]
    return [counts[key] for key in sorted(counts)]


def _input_rows(
    inputs: Sequence[InputFile],
    config: RefreshConfig,
    read: dict[int, tuple[int, str]],
    counts: FileCounts,
    version: int,
) -> pa.Table:
    rows = []
    for index, file in enumerate(inputs):
        num_documents, error = read[index]
        kept, removed = counts.get((config.sources[file.source].name, file.name), (0, 0))
        assert kept + removed == num_documents, f"{file.name}: {kept} + {removed} != {num_documents}"
        rows.append(
            {
                "path": file.name,
                "source": config.sources[file.source].name,
                "kind": config.sources[file.source].kind,
                "size": file.size,
                "sha256": file.sha256,
                "status": "damaged" if error else "ok",
                "error": error or None,
                "num_documents": num_documents,
                "num_kept": kept,
                "num_removed": removed,
                "version": version,
            }
        )
    return pa.Table.from_pylist(rows, schema=schema.INPUTS)


def _version_row(
    config: RefreshConfig,
    version: int,
    inputs: Sequence[InputFile],
    counts: FileCounts,
) -> dict[str, Any]:
    kept = sum(pair[0] for pair in counts.values())
    removed = sum(pair[1] for pair in counts.values())
    return {
        "version": version,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config_hash": config.config_hash,
        "config": canonical_json(config.content()).decode(),
        "signature_scheme": config.dedup.scheme,
        "num_inputs": len(inputs),
        "num_documents": kept + removed,
        "num_kept": kept,
        "num_removed": removed,
        "gptmill_version": importlib.metadata.version("gptmill"),
    }
