"""Versions of the corpus: python -m workflows.refresh history, diff, rollback, vacuum, remove."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from workflows import cli
from workflows.summary import ReportOptions, Summary, summarised

if TYPE_CHECKING:
    from data_pipeline.corpus import Corpus
    from data_pipeline.history import Difference
    from data_pipeline.token_documents import Holding
    from workflows.console import Step
    from workflows.workspace import Workspace

MAX_SHOWN = 20


@dataclass(frozen=True)
class Place:
    """Where the corpus is."""

    workspace: str = "workspace"
    """Folder that everything is kept in. An s3:// or gs:// URI will do as well."""


@dataclass(frozen=True)
class Waiting(Place):
    """Where the corpus is, and what to do while another process writes it."""

    wait: bool | float = False
    """Wait for another process that writes this corpus: seconds, or as long as it takes (--wait will do)."""


@dataclass(frozen=True)
class HistoryOptions(ReportOptions, Place):
    """Options of refresh history."""


@dataclass(frozen=True)
class DiffOptions(ReportOptions, Place):
    """Options of refresh diff."""

    old: int = 0
    """The version to compare with; 0 for the one before the other. May stand without its name: diff 3 5."""
    new: int = 0
    """The version that is compared; 0 for the newest."""


@dataclass(frozen=True)
class RollbackOptions(ReportOptions, Waiting):
    """Options of refresh rollback."""

    to: int = 0
    """The version whose content the next one has. May stand without its name: rollback 3."""


@dataclass(frozen=True)
class VacuumOptions(ReportOptions, Waiting):
    """Options of refresh vacuum."""

    keep: int = 30
    """Newest versions that stay readable; those that token datasets were made of do as well."""
    dry_run: bool = False
    """Say what would be removed (--dry-run will do)."""


@dataclass(frozen=True)
class RemoveOptions(ReportOptions, Waiting):
    """Options of refresh remove."""

    uri: list[str] | str = field(default_factory=list)
    """Address of a document, as the corpus has it; one, or a list: '[a, b]'."""
    domain: list[str] | str = field(default_factory=list)
    """A domain, with all its subdomains."""
    doc_id: list[str] | str = field(default_factory=list)
    """Id of a document."""
    file: str = ""
    """A list, one entry a line: an address, an id, or `domain NAME`."""
    note: str = ""
    """Why, for the ledger in corpus/takedowns."""
    purge: bool = False
    """Also delete every file that holds the documents: all older versions of the corpus become unreadable, their reports, the token datasets with the documents and those that cannot be read are deleted (--purge will do)."""
    dry_run: bool = False
    """List the documents and change nothing (--dry-run will do)."""


def seconds_to_wait(wait: bool | float) -> float:
    """Seconds that --wait means.

    Raises:
        InputError: a negative number.
    """
    if wait is True:
        return math.inf
    if wait < 0:
        raise InputError(f"wait: {wait} must not be negative")
    return float(wait)


@contextmanager
def _writing(options: Waiting, told: Callable[[str], None]) -> Iterator[tuple[Workspace, Corpus]]:
    """The workspace and its corpus, locked, under a running Ray."""
    from data_pipeline.cluster import ray_session
    from workflows.refresh import _check_tracking
    from workflows.workspace import Workspace

    seconds = seconds_to_wait(options.wait)
    workspace = Workspace.existing(options.workspace)
    _check_tracking(workspace)
    corpus = workspace.corpus
    corpus.at()
    with corpus.locked(seconds, told), ray_session(workspace.logs / "refresh.log"):
        yield workspace, corpus


def _new_version(workspace: Workspace, row: dict[str, Any], shown: Step, summary: Summary) -> None:
    from workflows.refresh import _record, counts_of

    _record(workspace, row, shown, shown.began_at)
    summary |= {"status": "committed", "version": row["version"], **counts_of([row])}


# ---------------------------------------------------------------------------------------------------- history, diff


def history(options: HistoryOptions) -> None:
    """List the versions of the corpus."""
    from workflows.console import say, table
    from workflows.workspace import Workspace

    with summarised("refresh history", options) as summary:
        workspace = Workspace.existing(options.workspace)
        workspace.corpus.at()
        rows = workspace.corpus.versions()
        datasets: dict[int, list[str]] = {}
        for folder, manifest in _manifests(workspace):
            datasets.setdefault(manifest.corpus_version, []).append(f"{manifest.name}/{folder.name}")
        summary["versions"] = [
            {name: row[name] for name in SHOWN} | {"tokens": datasets.get(row["version"], [])} for row in rows
        ]
        table(
            [
                "version",
                "made at",
                "how",
                "files",
                "read",
                "kept",
                "removed",
                "superseded",
                "taken down",
                "tokens",
            ],
            [
                [
                    str(row["version"]),
                    row["created_at"],
                    _how(row),
                    *(f"{row[name] or 0:,}" for name in SHOWN[4:10]),
                    ", ".join(datasets.get(row["version"], [])),
                ]
                for row in rows
            ],
            title=f"Versions of the corpus in {workspace.root}",
        )
        say(f"the newest is {rows[-1]['version']}")


SHOWN = [
    *("version", "created_at", "kind", "restored_version"),
    *("num_inputs", "num_documents", "num_kept", "num_removed", "num_superseded", "num_taken_down"),
    *("config_hash", "vacuumed_at"),
]


def _how(row: dict[str, Any]) -> str:
    kind = row["kind"] or "refresh"
    how = f"{kind} to {row['restored_version']}" if row["restored_version"] else kind
    return f"{how} (vacuumed)" if row["vacuumed_at"] else how


def _manifests(workspace: Workspace) -> list[tuple[Path, Any]]:
    from data_pipeline.token_documents import manifests

    return list(manifests(workspace.tokens))


def diff(options: DiffOptions) -> None:
    """Show what a version has otherwise than another."""
    from data_pipeline import history as versions
    from workflows.workspace import Workspace

    with summarised("refresh diff", options) as summary:
        workspace = Workspace.existing(options.workspace)
        corpus = workspace.corpus
        new = corpus.at(options.new or None)
        if not options.old and new["version"] == 1:
            raise InputError("old: version 1 has none before it")
        old = corpus.at(options.old or new["version"] - 1)
        found = versions.diff(corpus, old, new, MAX_SHOWN)
        tokens = _tokens(workspace, old["version"], new["version"])
        summary |= {
            "old": old["version"],
            "new": new["version"],
            "num_documents": list(found.num_documents),
            "documents": found.documents,
            "removed": [
                {"source": source, "stage": stage, "reason": reason, "change": count}
                for (source, stage, reason), count in found.removed.items()
            ],
            "inputs": found.inputs,
            "tokens": tokens,
            "examples": [list(example) for example in found.examples],
        }
        _show_difference(found, tokens, old["version"], new["version"])


def _tokens(workspace: Workspace, old: int, new: int) -> dict[str, dict[str, int | None]]:
    """{name of a token dataset: tokens of the newest dataset made of each version}."""
    found: dict[str, dict[str, int | None]] = {}
    for _, manifest in _manifests(workspace):
        for name, version in (("old", old), ("new", new)):
            if manifest.corpus_version == version:
                cell = found.setdefault(manifest.name, {"old": None, "new": None})
                cell[name] = sum(shard.num_tokens for shard in manifest.shards)
    return found


def _show_difference(found: Difference, tokens: dict[str, Any], old: int, new: int) -> None:
    from workflows.console import say, table

    before, after = found.num_documents
    say(f"version {old} -> {new}: {before:,} -> {after:,} documents")
    names = ("added", "gone", "num_words_added", "num_words_gone")
    sources = sorted({*found.documents, *found.inputs})
    table(
        ["source", "files +", "files -", "documents +", "documents -", "words +", "words -"],
        [
            [
                source,
                *(f"{found.inputs.get(source, {}).get(name, 0):,}" for name in ("added", "gone")),
                *(f"{found.documents.get(source, {}).get(name, 0):,}" for name in names),
            ]
            for source in sources
        ],
    )
    if found.removed:
        table(
            ["source", "removed for", "more or fewer"],
            [
                [source, f"{stage}: {reason}", f"{count:+,}"]
                for (source, stage, reason), count in found.removed.items()
            ],
        )
    for name, cell in sorted(tokens.items()):
        counts = ["none" if cell[side] is None else f"{cell[side]:,}" for side in ("old", "new")]
        say(f"tokens of {name}: {counts[0]} -> {counts[1]}")
    for sign, source, uri in found.examples:
        say(f"  {sign} {source}: {uri}")


# --------------------------------------------------------------------------------------------------------- rollback


def rollback(options: RollbackOptions) -> None:
    """Make the next version with the content of an older one."""
    from data_pipeline import history as versions
    from workflows.console import step

    with summarised("refresh rollback", options) as summary:
        if options.to <= 0:
            raise InputError("to: name the version to go back to, as in refresh rollback 3")
        with step("rollback") as shown, _writing(options, shown.update) as (workspace, corpus):
            row = versions.rollback(corpus, options.to, shown.update)
            _new_version(workspace, row, shown, summary)
            shown.summary = f"corpus version {row['version']} has the content of version {options.to}" + (
                f", but for {row['num_taken_down']:,} documents that were taken down since"
                if row["num_taken_down"]
                else ""
            )
            summary["message"] = shown.summary


def vacuum(options: VacuumOptions) -> None:
    """Remove files that only old versions have, and what killed refreshes left."""
    from data_pipeline import history as versions
    from workflows.console import step
    from workflows.workspace import Workspace

    with summarised("refresh vacuum", options) as summary:
        if options.keep < 1:
            raise InputError(f"keep: {options.keep}; at least the newest version stays")
        workspace = Workspace.existing(options.workspace)
        with step("vacuum") as shown:
            with workspace.corpus.locked(seconds_to_wait(options.wait), shown.update):
                used = {manifest.corpus_version for _, manifest in _manifests(workspace)}
                gone = versions.vacuum(workspace.corpus, options.keep, used, options.dry_run)
            size = sum(size for _, size in gone.files)
            shown.summary = (
                f"{'would remove' if options.dry_run else 'removed'} {len(gone.files):,} files, {size / 1e6:,.1f} MB; "
                f"versions given up: {', '.join(map(str, gone.versions)) or 'none'}"
            )
            summary |= {
                "status": "dry_run" if options.dry_run else "done",
                "message": shown.summary,
                "versions": gone.versions,
                "num_files": len(gone.files),
                "num_bytes": size,
            }


# --------------------------------------------------------------------------------------------------------- takedowns


def remove(options: RemoveOptions) -> None:
    """Take documents out of the corpus, and keep them out."""
    from data_pipeline import history as versions
    from data_pipeline.takedowns import Rules, parse_rules
    from workflows.console import say, step
    from workflows.workspace import Workspace

    with summarised("refresh remove", options) as summary:
        rules = parse_rules(
            _listed(options.uri),
            _listed(options.domain),
            _listed(options.doc_id),
            Path(options.file).expanduser() if options.file else None,
        )
        if options.dry_run:
            corpus = Workspace.existing(options.workspace).corpus
            found = versions.find_taken_down(corpus, corpus.at(), Rules.of(rules))
            rows = found.select(["doc_id", "source", "uri"]).to_pylist()
            summary |= {"status": "dry_run", "documents": rows}
            _show_documents(rows)
            say(f"{len(rows):,} documents would be taken out")
            return
        with step("remove") as shown, _writing(options, shown.update) as (workspace, corpus):
            done = versions.remove(corpus, rules, options.note, shown.update)
            if done.changed:
                _new_version(workspace, done.version, shown, summary)
            shown.summary = (
                f"{len(done.documents):,} documents taken out, corpus version {done.version['version']}; "
                f"{done.num_rules:,} new lines in the ledger"
            )
            summary["message"] = shown.summary
            summary["documents"] = done.documents.select(["doc_id", "source", "uri"]).to_pylist()
            with _held_still(workspace, options, shown) if options.purge else nullcontext():
                shown.update("looking for the documents in token datasets")
                holdings = _holdings(workspace, done.doc_ids)
                runs = _runs(workspace, [holding.manifest.manifest_hash for holding in holdings])
                summary |= {
                    "token_datasets": [_as_json(holding) for holding in holdings],
                    "mlflow_runs": runs,
                }
                if options.purge:
                    summary["purged"] = _purge(workspace, corpus, holdings, done.version, shown)
        _show_documents(summary["documents"])
        _show_holdings(holdings, runs, options.purge)


def _listed(given: list[str] | str) -> list[str]:
    return [given] if isinstance(given, str) else given


def _show_documents(rows: Sequence[dict[str, Any]]) -> None:
    from workflows.console import say

    for row in rows[:MAX_SHOWN]:
        say(f"  {row['doc_id']} {row['source']}: {row['uri']}")
    if len(rows) > MAX_SHOWN:
        say(f"  and {len(rows) - MAX_SHOWN:,} more")


def _holdings(workspace: Workspace, doc_ids: Sequence[str]) -> list[Holding]:
    from data_pipeline.token_documents import datasets_with

    return datasets_with(workspace.tokens, doc_ids) if doc_ids else []


def _as_json(holding: Holding) -> dict[str, Any]:
    return {
        "folder": str(holding.folder),
        "manifest_hash": holding.manifest.manifest_hash,
        "corpus_version": holding.manifest.corpus_version,
        "num_documents": holding.num_documents,
        "shards": sorted(holding.shards),
    }


def _runs(workspace: Workspace, hashes: Sequence[str]) -> list[dict[str, str]]:
    """MLflow runs that made these datasets, trained on them, or began from such a training."""
    from workflows import tracking

    return tracking.runs_with(workspace, hashes) if hashes else []


def _held_still(workspace: Workspace, options: Waiting, shown: Step) -> AbstractContextManager[None]:
    """Nobody tokenises: what would be finished after the search and before the deletion would be missed by both."""
    from data_pipeline.token_documents import held_still

    return held_still(workspace.tokens, seconds_to_wait(options.wait), shown.update)


def _purge(
    workspace: Workspace, corpus: Corpus, holdings: Sequence[Holding], row: dict[str, Any], shown: Step
) -> dict[str, Any]:
    from data_pipeline import history as versions
    from data_pipeline.report import write_report
    from data_pipeline.storage import remove_tree
    from data_pipeline.token_documents import unreadable

    shown.update("deleting the files of older versions")
    gone = versions.purge(corpus)
    # Other datasets have files, or links to them, of their own.
    for folder in (*(holding.folder for holding in holdings), *unreadable(workspace.tokens)):
        remove_tree(folder)
    if not workspace.report(row["version"]).exists():
        write_report(corpus, row, workspace.report(row["version"]), workspace.tokens)
    return {
        "versions": gone.versions,
        "num_files": len(gone.files),
        "shards": sum(len(holding.shards) for holding in holdings),
    }


def _show_holdings(holdings: Sequence[Holding], runs: Sequence[dict[str, str]], is_purged: bool) -> None:
    from workflows.console import say, table

    if not holdings:
        say("no token dataset holds any of the documents")
        return
    table(
        ["token dataset", "corpus version", "documents", "manifest"],
        [
            [
                str(holding.folder),
                str(holding.manifest.corpus_version),
                f"{holding.num_documents:,}",
                holding.manifest.manifest_hash[:12],
            ]
            for holding in holdings
        ],
        title="Token datasets that hold documents" + (", now deleted" if is_purged else ""),
    )
    if runs:
        table(
            ["run", "workflow", "name", "status"],
            [[run["run_id"], run["workflow"], run["name"], run["status"]] for run in runs],
            title="MLflow runs that come from them",
        )
    say("tokenise again for a dataset without them: python -m workflows.tokenize")


# ------------------------------------------------------------------------------------------------------------ commands

COMMANDS: dict[str, tuple[type, Callable[[Any], None], tuple[str, ...]]] = {
    "history": (HistoryOptions, history, ()),
    "diff": (DiffOptions, diff, ("old", "new")),
    "rollback": (RollbackOptions, rollback, ("to",)),
    "vacuum": (VacuumOptions, vacuum, ()),
    "remove": (RemoveOptions, remove, ()),
}


def run(argv: Sequence[str]) -> int:
    """Run `refresh COMMAND ...`; its exit code."""
    options_class, main, positional = COMMANDS[argv[0]]
    arguments = list(argv[1:])
    for index, name in enumerate(positional):
        if index >= len(arguments) or not arguments[index].isdigit():
            break
        arguments[index] = f"--{name}={arguments[index]}"
    return cli.run(options_class, main, f"refresh {argv[0]}", main.__doc__ or "", arguments)
