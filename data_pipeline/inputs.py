"""The input files of a refresh: which are new, which groups they are read in, and what the corpus notes of them.

A file is known by path, size and sha256. A path with another content is a new input that takes the place of the old
one: what both hold stays as it is, and documents that are gone from the file leave the corpus (data_pipeline.changes).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import schema
from data_pipeline.config import RefreshConfig
from data_pipeline.corpus import SUPERSEDED, Corpus
from data_pipeline.sources import fingerprint, is_local, list_files
from data_pipeline.staging import InputFile

Row = dict[str, Any]
# {(source, input file): (documents kept, removed)}
FileCounts = Mapping[tuple[str, str], tuple[int, int]]
# Of a file that was written so shortly ago the time does not prove that it is not written to again within the clock's
# step: ns, on disks and in object stores (whose clock is another's).
RECENT, RECENT_REMOTE = 2 * 10**9, 60 * 10**9


def current_inputs(corpus: Corpus, version: Row | None) -> pa.Table:
    """The rows of the files that a version's documents are from."""
    table = corpus.read("inputs", version, schema.INPUTS.names)
    return table.filter(pc.not_equal(table["status"], SUPERSEDED))


def find_inputs(
    corpus: Corpus,
    config: RefreshConfig,
    base: Path,
    latest: Row | None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[tuple[InputFile, bool]]:
    """The sources' files, sorted by source and name, each with whether a version has it; nothing is written.

    Args:
        latest: the newest version's row, or None before the first.

    Raises:
        InputError: a path that does not exist or cannot be listed.
    """
    listed = [(index, path) for index, source in enumerate(config.sources) for path in list_files(source)]
    progress(f"checking {len(listed)} input files")
    known: dict[str, list[Row]] = {}
    for row in current_inputs(corpus, latest).to_pylist():
        known.setdefault(row["path"], []).append(row)

    def look(entry: tuple[int, Path]) -> tuple[InputFile, bool]:
        index, path = entry
        name = _name(path, base)
        rows = known.get(name, [])
        modified, size = _stamp(path)
        if config.trust_times and modified is not None:
            for row in rows:
                if row["sha256"] and (row["modified"], row["size"]) == (modified, size):
                    return InputFile(path, name, index, row["size"], row["sha256"], modified), True
        size, digest = fingerprint(path)
        # What could not be read to its end has no sha256, and is tried again by each refresh.
        is_known = digest != "" and any((row["size"], row["sha256"]) == (size, digest) for row in rows)
        return InputFile(path, name, index, size, digest, modified), is_known

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, listed))
    return sorted(found, key=lambda entry: (entry[0].source, entry[0].name))


def _name(path: Path, base: Path) -> str:
    """What the corpus calls a file: below the workspace its path in it, so that both can be moved together."""
    base = base.resolve() if is_local(base) else base
    is_below = is_local(path) == is_local(base) and path.is_relative_to(base)
    return str(path.relative_to(base)) if is_below else str(path)


def _stamp(path: Path) -> tuple[int | None, int]:
    """(Time of the last change in ns, size); None where the time does not tell one content from the next."""
    try:
        if is_local(path):
            found = path.stat()
            return (found.st_mtime_ns if _is_past(found.st_mtime_ns, RECENT) else None), found.st_size
        if not str(path).startswith(("s3:", "gs:")):
            return None, 0
        info: Row = path.stat().info  # type: ignore[attr-defined]
        modified = int(info["mtime"].timestamp() * 10**9)
        return (modified if _is_past(modified, RECENT_REMOTE) else None), info["size"]
    except (OSError, KeyError, AttributeError):
        return None, 0


def _is_past(modified: int, recent: int) -> bool:
    return time.time_ns() - modified > recent


def in_groups(files: Sequence[InputFile], group_bytes: int) -> list[list[InputFile]]:
    """The files in groups of about `group_bytes`, in order; what is left of them after a kill falls into the same ones."""
    groups: list[list[InputFile]] = []
    filled = 0
    for file in files:
        if not groups or filled + file.size > group_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += file.size
    return groups


# ------------------------------------------------------------------------------------------- what is noted of them


def input_rows(
    files: Sequence[InputFile],
    config: RefreshConfig,
    read: Mapping[tuple[int, str], tuple[int, str]],
    counts: FileCounts,
    version: int,
) -> pa.Table:
    """Rows of schema.INPUTS for the files that were read.

    Args:
        read: {InputFile.key: (documents read, error or "")}.
        counts: what became of them.
    """
    rows = []
    for file in files:
        source = config.sources[file.source]
        num_documents, error = read[file.key]
        kept, removed = counts.get((source.name, file.name), (0, 0))
        assert kept + removed == num_documents, f"{file.name}: {kept} + {removed} != {num_documents}"
        rows.append(
            {
                "path": file.name,
                "source": source.name,
                "kind": source.kind,
                "size": file.size,
                "sha256": file.sha256,
                "status": "damaged" if error else "ok",
                "error": error or None,
                "num_documents": num_documents,
                "num_kept": kept,
                "num_removed": removed,
                "version": version,
                "modified": file.modified,
            }
        )
    return pa.Table.from_pylist(rows, schema=schema.INPUTS)


def inputs_after(before: pa.Table, new: pa.Table, leaving: pa.Table) -> pa.Table | None:
    """The table of inputs of the next version; None where the new rows go behind the old ones.

    Args:
        before: the table of the version before.
        new: rows of the files that were read now.
        leaving: rows of changes.LEAVING, the documents that leave the version before.
    """
    read_again = set(new["path"].to_pylist())
    lost = Counter(zip(leaving["source"].to_pylist(), leaving["input_file"].to_pylist(), strict=True))
    rows, is_changed = [], False
    for row in before.to_pylist():
        count = lost[row["source"], row["path"]] if row["status"] != SUPERSEDED else 0
        if row["status"] != SUPERSEDED and row["path"] in read_again:
            is_changed = True
            row |= {"status": SUPERSEDED, "num_documents": count, "num_kept": 0, "num_removed": count}
        elif count:
            is_changed = True
            row |= {"num_kept": row["num_kept"] - count, "num_removed": row["num_removed"] + count}
        rows.append(row)
    if not is_changed:
        return None
    return pa.concat_tables([pa.Table.from_pylist(rows, schema=schema.INPUTS), new])
