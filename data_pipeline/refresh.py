"""A refresh: unseen input files become the next versions of the corpus, each whole or not at all.

    list inputs -> groups of bounded size; of each group
      -> read, extract, clean, identify, filter, sign (a Ray task a unit of files; rows staged as Parquet)
      -> hold against what changed files held before, and against takedowns
      -> find duplicates among the staged rows and against the stored signatures (Ray Data shuffles)
      -> write the tables' files (maps) -> commit

Staged rows live in <corpus>/.staging and are gone after the commit. A refresh that is killed anywhere leaves
nothing that a reader can see but whole groups; the next one starts over from the last committed version.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import changes, evidence, schema, takedowns
from data_pipeline.atomic import write_json
from data_pipeline.changes import Settled
from data_pipeline.config import RefreshConfig
from data_pipeline.corpus import SUPERSEDED, TAKEDOWN, Corpus, DataFile
from data_pipeline.decontaminate import protected
from data_pipeline.dedup.boilerplate import remove_boilerplate
from data_pipeline.dedup.candidates import Members
from data_pipeline.dedup.duplicates import describe, find_duplicates
from data_pipeline.dedup.losses import guard_losses
from data_pipeline.dedup.member_files import members_of
from data_pipeline.errors import InputError
from data_pipeline.history import comply
from data_pipeline.inputs import current_inputs, find_inputs, in_groups, input_rows, inputs_after
from data_pipeline.quality.scoring import with_model
from data_pipeline.shards import canonical_json
from data_pipeline.staging import InputFile, Progress, stage_files, staged_files
from data_pipeline.storage import make_folder, remove_tree, size_of
from data_pipeline.table_writer import write_tables
from data_pipeline.takedowns import Rules

# Documents that one partition of the deduplication shuffles holds, about.
ROWS_A_PARTITION = 20_000
# Compressed text whose lines one partition of the boilerplate shuffle counts, about.
BYTES_A_PARTITION = 64 << 20

Row = dict[str, Any]
# {InputFile.key: (documents read, error or "")}
Read = dict[tuple[int, str], tuple[int, str]]


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh did.

    Attributes:
        version: the newest committed version after it.
        new_inputs, known_inputs: files read now, and skipped because an earlier version has them.
        damaged: (file, what was wrong) of inputs that could not be read to their end.
        changed: whether a version was added.
        versions: those that were added, one a group of files.
    """

    version: Row
    new_inputs: int
    known_inputs: int
    damaged: list[tuple[str, str]]
    changed: bool
    versions: list[Row] = field(default_factory=list)


def refresh(
    corpus: Corpus,
    config: RefreshConfig,
    base: Path,
    progress: Progress = lambda line: None,
    rebuild: bool = False,
    wait: float = 0.0,
) -> RefreshResult:
    """Take what is new in the sources into the corpus, under a running Ray.

    Args:
        corpus: where to; made when it does not exist.
        config: validated configuration.
        base: input files below this folder are recorded by their path relative to it (the workspace).
        progress: told what is going on, one short line at a time.
        rebuild: make the next version from the sources alone, as if it were the first: all their files are read,
            documents are compared with each other only, and the version replaces what the tables hold. Documents
            of files that the sources no longer name are not in it; earlier versions stay readable.
        wait: seconds to wait for another process that writes the corpus.

    Raises:
        InputError: nothing to read, signatures of another scheme, or a source that would lose too much.
        Busy: another process writes the corpus.
        Overtaken: another process took the corpus over meanwhile.
    """
    with open_refresh(corpus, config, base, progress, rebuild, wait) as work:
        return work.run()


@contextmanager
def open_refresh(
    corpus: Corpus,
    config: RefreshConfig,
    base: Path,
    progress: Progress = lambda line: None,
    rebuild: bool = False,
    wait: float = 0.0,
) -> Iterator[Refresh]:
    """A refresh that knows what is to be done, and has the corpus for itself until the `with` block ends; needs no Ray yet.

    Arguments and errors are those of `refresh`.
    """
    config.validate()
    config = with_model(config, corpus.root)
    # Before any work: a set that protects nothing is an error.
    config = replace(config, decontamination=protected(config.decontamination, base / "evaluation"))
    with corpus.locked(wait, progress):
        latest = corpus.prepare()
        # What new files and documents are held against.
        known = None if rebuild else latest
        if known is not None and known["signature_scheme"] != config.dedup.scheme:
            raise InputError(
                f"dedup: the corpus was built with signatures '{known['signature_scheme']}', this configuration "
                f"makes '{config.dedup.scheme}'; use the old settings, --rebuild, or a new workspace"
            )
        found = find_inputs(corpus, config, base, known, progress)
        if known is None and not found:
            raise InputError("sources: there is nothing to read; name at least one source with files in it")
        rules, ledger = takedowns.ledger(corpus)
        yield Refresh(corpus, config, progress, latest, known, found, rules, ledger)


@dataclass
class Refresh:
    """A refresh under way.

    Attributes:
        latest: the newest version, or None.
        known: the version that new files and documents are held against; None where there is none, or for a rebuild.
        found: the sources' files, and whether `known` has them.
        rules, ledger: what is taken down, and the ledger's Delta version.
    """

    corpus: Corpus
    config: RefreshConfig
    progress: Progress
    latest: Row | None
    known: Row | None
    found: list[tuple[InputFile, bool]]
    rules: Rules
    ledger: int | None

    @property
    def new(self) -> list[InputFile]:
        """The files to read."""
        return [file for file, is_known in self.found if not is_known]

    @property
    def is_pending(self) -> bool:
        """Whether documents of the newest version are taken down since."""
        return self.known is not None and self.known["takedowns_version"] != self.ledger

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.new) or self.is_pending

    def run(self) -> RefreshResult:
        """Commit a version a group of files; one without files where only takedowns wait."""
        new, num_known = self.new, len(self.found) - len(self.new)
        versions: list[Row] = []
        damaged: list[tuple[str, str]] = []
        if not new and self.is_pending:
            assert self.known is not None
            versions.append(comply(self.corpus, self.known, self.known, "remove", self.progress))
        # A rebuilt corpus takes the place of the old one at once, or not at all.
        is_rebuild = self.known is None and self.latest is not None
        groups = [new] if is_rebuild else in_groups(new, self.config.group_bytes)
        for group in groups:
            row, errors = self._make_version(group)
            versions.append(row)
            damaged += errors
            self.latest = self.known = row
        assert versions or self.latest is not None
        newest = versions[-1] if versions else self.latest
        return RefreshResult(newest or {}, len(new), num_known, damaged, bool(versions), versions)

    def _make_version(self, inputs: Sequence[InputFile]) -> tuple[Row, list[tuple[str, str]]]:
        """One group of files as a version; (its row, damaged files)."""
        corpus = self.corpus
        version = (self.latest["version"] if self.latest else 0) + 1
        attempt = uuid.uuid4().hex[:12]
        everything = corpus.root / ".staging"
        remove_tree(everything)
        staging = everything / attempt
        make_folder(staging)
        try:
            settled, files, read = self._stage(inputs, staging)
            self.progress("finding duplicates")
            members = self._members(settled, staging)
            removals = self._find_duplicates(members, version, staging)
            self.progress("writing tables")
            pairs = evidence.least_similar(removals)
            added, counts = write_tables(corpus, version, attempt, staged_files(staging), removals, pairs)
            self._gather_evidence(version, staging, pairs, members, settled)
            row = self._commit(version, attempt, files, read, added, counts, settled)
        finally:
            remove_tree(everything)
        self.progress(f"committed version {version}")
        return row, [(file.name, read[file.key][1]) for file in files if read[file.key][1]]

    # ------------------------------------------------------------------------------------------------- staging

    def _stage(self, inputs: Sequence[InputFile], staging: Path) -> tuple[Settled, list[InputFile], Read]:
        """Read files, and those with copies of what goes because others have changed.

        Returns:
            (what the staged documents are held against, the files that were read, what was read of them).
        """
        before = self.known
        current = set(current_inputs(self.corpus, before)["path"].to_pylist())
        down = changes.taken_down(self.corpus, before, self.rules if self.is_pending else Rules())
        settled = Settled(down)
        files: list[InputFile] = []
        read: Read = {}
        pending = list(inputs)
        while pending:
            have = staged_files(staging)
            known = set(have)
            first_unit = 1 + int(have[-1].stem.split("-")[1]) if have else 0
            counts = stage_files(pending, self.config, staging, self.progress, first_unit)
            read |= {file.key: counts[index] for index, file in enumerate(pending)}
            files += pending
            fresh = [path for path in staged_files(staging) if path not in known]
            remove_boilerplate(fresh, self.config, sum(map(size_of, fresh)) // BYTES_A_PARTITION)
            old = changes.documents_of(
                self.corpus, before, {file.name for file in pending if file.name in current}
            )
            found = changes.settle(old, down, self.rules, fresh)
            settled.leaving = _joined(settled.leaving, found.leaving)
            settled.unchanged += found.unchanged
            pending = self._to_read_again(found.leaving, read)
        return settled, files, read

    def _to_read_again(self, superseded: pa.Table, read: Read) -> list[InputFile]:
        """Known files with copies of what is superseded. Lines are counted over what one refresh reads, so not with boilerplate."""
        if self.config.dedup.boilerplate_share:
            return []
        names = changes.files_of_copies(self.corpus, self.known, superseded, _names(read))
        files = [file for file, is_known in self.found if is_known and file.name in names]
        if files:
            self.progress(f"reading {len(files)} files again that hold copies of what is superseded")
        return files

    # ------------------------------------------------------------------------------------------- deduplication

    def _members(self, settled: Settled, staging: Path) -> Members:
        """The staged documents, and those of the version that they are held against."""
        known = self.known
        return members_of(
            staged_files(staging),
            self.corpus.files("signatures", known) if known else [],
            self.corpus.files("documents", known) if known else [],
            {source.name: index for index, source in enumerate(self.config.sources)},
            settled.leaving["doc_id"].combine_chunks(),
            [file.size for file in self.corpus.data_files("signatures", known)] if known else [],
        )

    def _find_duplicates(self, members: Members, version: int, staging: Path) -> pa.Table:
        """Removals among the staged documents; the figures go to `dedup_report`."""
        config = self.config
        found = find_duplicates(members, config.dedup, members.num_new // ROWS_A_PARTITION)
        guard_losses(config, staging, found.removals, members)
        # Before the commit: a version that is real has it; one that never was is overwritten by the next try.
        report = {"version": version, **describe(found, members, config.dedup)}
        write_json(self.corpus.dedup_report(version), report)
        return found.removals

    def _gather_evidence(
        self, version: int, staging: Path, pairs: pa.Table, members: Members, settled: Settled
    ) -> None:
        before = evidence.Evidence()
        if self.known is not None:
            before = evidence.load(self.corpus.evidence(self.known["version"]))
        before = evidence.without(before, set(settled.leaving["doc_id"].to_pylist()), self.rules)
        examples = evidence.gather(staged_files(staging), pairs, members, before)
        evidence.save(examples, self.corpus.evidence(version))

    # -------------------------------------------------------------------------------------------------- commit

    def _commit(
        self,
        version: int,
        attempt: str,
        files: Sequence[InputFile],
        read: Read,
        added: list[DataFile],
        counts: dict[tuple[str, str], tuple[int, int]],
        settled: Settled,
    ) -> Row:
        corpus, before = self.corpus, self.known
        for key, count in settled.unchanged.items():
            kept, removed = counts.get(key, (0, 0))
            counts[key] = (kept + count, removed)
        inputs = input_rows(files, self.config, read, counts, version)
        again = changes.by_source(settled.unchanged.items())
        dropped: list[DataFile] = []
        all_inputs = None
        if before is not None:
            table = corpus.read("inputs", before, schema.INPUTS.names)
            rewritten = changes.rewrite_tables(
                corpus,
                before,
                version,
                attempt,
                settled.leaving,
                _names(read) & set(table["path"].to_pylist()),
                self.rules if self.is_pending else Rules(),
            )
            added, dropped = [*added, *rewritten.added], rewritten.dropped
            again += rewritten.removed_before
            all_inputs = inputs_after(table, inputs, settled.leaving)
        stages = Counter(settled.leaving["stage"].to_pylist())
        row = {
            "version": version,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "config_hash": self.config.config_hash,
            "config": canonical_json(self.config.content()).decode(),
            "signature_scheme": self.config.dedup.scheme,
            "num_inputs": len(files),
            "num_documents": sum(sum(pair) for pair in counts.values()),
            "num_kept": sum(kept for kept, _ in counts.values()),
            "num_removed": sum(removed for _, removed in counts.values()),
            "gptmill_version": importlib.metadata.version("gptmill"),
            "kind": "refresh" if before is not None or self.latest is None else "rebuild",
            "num_superseded": stages[SUPERSEDED],
            "num_taken_down": stages[TAKEDOWN],
            "takedowns_version": self.ledger,
        }
        is_rebuild = before is None
        return corpus.commit(
            added, inputs, row, replace=is_rebuild, dropped=dropped, again=again, all_inputs=all_inputs
        )


def _names(read: Read) -> set[str]:
    return {name for _, name in read}


def _joined(left: pa.Table, right: pa.Table) -> pa.Table:
    """Rows of LEAVING of both, each document once."""
    is_new = pc.invert(pc.is_in(right["doc_id"], left["doc_id"].combine_chunks()))
    return pa.concat_tables([left, right.filter(is_new)]).sort_by("doc_id")
