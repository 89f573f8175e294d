"""Take new web, book and wiki files into the corpus: read, extract, clean, filter, deduplicate, commit.

Another use: with --train_quality.name it trains a model that tells good documents from bad ones, and refreshes
nothing. Later refreshes score every document with it (quality_score) and may remove those below a bound:

    python -m workflows.refresh --train_quality.name curated --train_quality.good wiki,book --train_quality.bad web
    python -m workflows.refresh --web crawl/ --quality.model curated --quality.min_scores '{web: 0.2}'

Commands on the versions that refreshes made, each with a --help of its own:

    python -m workflows.refresh history
    python -m workflows.refresh diff [OLD NEW]
    python -m workflows.refresh rollback VERSION
    python -m workflows.refresh vacuum [--keep N]
    python -m workflows.refresh remove --uri URI | --domain DOMAIN | --doc-id ID | --file LIST [--purge]
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.errors import InputError
from data_pipeline.quality_config import QualityTraining
from workflows import cli, versions
from workflows.summary import ReportOptions, Summary, summarised

if TYPE_CHECKING:
    from data_pipeline.refresh import RefreshResult
    from workflows.console import Step
    from workflows.workspace import Workspace

SHORT_WAYS = {"web": "web", "books": "book", "wiki": "wiki", "files": "files"}
# A refresh that was killed behind its commit left no report or no run: the next ones look back so far.
LOOK_BACK = 5
COUNTS = ("num_inputs", "num_documents", "num_kept", "num_removed", "num_superseded", "num_taken_down")


@dataclass(frozen=True)
class Options(ReportOptions, RefreshConfig):
    """Options of workflows.refresh."""

    workspace: str = "workspace"
    """Folder that everything is kept in. An s3:// or gs:// URI will do as well."""
    wait: bool | float = False
    """Wait for another process that writes this corpus: seconds, or as long as it takes (--wait will do)."""
    as_of: int = 0
    """Corpus version that --explain and --train_quality.name look at; 0 is the newest. A refresh always builds on the newest."""
    web: list[str] | str = field(default_factory=list)
    """Short way to a web source: WARC, ARC, WET, WACZ or HTML files, folders or globs."""
    books: list[str] | str = field(default_factory=list)
    """Short way to a book source: Project Gutenberg and other text, EPUB, HTML, zip; folders or globs."""
    wiki: list[str] | str = field(default_factory=list)
    """Short way to a wiki source: MediaWiki XML dumps, plain, bz2, gz or 7z."""
    files: list[str] | str = field(default_factory=list)
    """Short way to a source of JSON, CSV, Parquet, Arrow or text files."""
    train_quality: QualityTraining = field(default_factory=QualityTraining)
    """Train a quality model instead of refreshing."""
    dry_run: bool = False
    """List what would be read, with sizes and what is done already; read and write nothing (--dry-run will do)."""

    rebuild: bool = False
    """Make the next version from the sources alone, as if it were the first: read all their files again, compare documents with each other only (--rebuild will do)."""
    explain: str = ""
    """Say what each step does to one document and why, and do nothing else: FILE, FILE#URI for one record of it, the
    uri or doc_id of a document of the corpus, or the URL of a page."""
    explain_contact: str = ""
    """Your e-mail address or web page, sent along when --explain fetches a page; needed for any host but this machine."""
    explain_private: list[str] = field(default_factory=list)
    """Hosts with private addresses that --explain may fetch a page from."""

    def pipeline(self) -> RefreshConfig:
        """The pipeline's own configuration, the short ways turned into sources."""
        sources = list(self.sources)
        for option, name in SHORT_WAYS.items():
            given = getattr(self, option)
            paths = [given] if isinstance(given, str) else given
            if not all(path.strip() for path in paths):
                raise InputError(
                    f"{option}: an empty path; give files, folders or globs, or leave --{option} out"
                )
            if paths:
                sources.append(SourceConfig(name=name, kind=option, paths=paths))
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(RefreshConfig)}
        return RefreshConfig(**{**values, "sources": sources})


def main(options: Options) -> None:
    """One refresh, its report and its MLflow run."""
    if not (options.dry_run or options.explain or options.train_quality != QualityTraining()):
        with summarised("refresh", options) as summary:
            _refresh(options, summary)
        return
    config = options.pipeline()
    config.validate()
    if options.train_quality != QualityTraining():
        options.train_quality.validate()
    if options.dry_run:
        show_inputs(options.workspace, config)
    elif options.explain:
        from workflows.explain import show

        show(
            options.explain,
            options.workspace,
            config,
            options.explain_contact,
            options.explain_private,
            options.as_of,
        )
    else:
        _train(options, config)


def _train(options: Options, config: RefreshConfig) -> None:
    from data_pipeline.cluster import ray_session
    from workflows.quality import show_model, train_quality
    from workflows.workspace import Workspace

    workspace = replace(Workspace.open(options.workspace), as_of=options.as_of)
    with ray_session(workspace.logs / "quality.log"):
        model = train_quality(workspace, config, options.train_quality)
    show_model(model)


def _refresh(options: Options, summary: Summary) -> None:
    from data_pipeline.dedup.bands import describe_bands
    from workflows.console import say
    from workflows.workspace import Workspace

    config = options.pipeline()
    config.validate()
    if options.as_of:
        raise InputError(
            "as_of: a refresh builds on the newest version; to go on from an older one: refresh rollback VERSION"
        )
    wait = versions.seconds_to_wait(options.wait)
    workspace = Workspace.open(options.workspace)
    say(describe_bands(config.dedup))
    result = refresh_corpus(workspace, config, options.rebuild, wait, summary)
    if result.changed:
        show_funnel(workspace, result.version)


def counts_of(rows: list[dict[str, Any]]) -> dict[str, int]:
    """What versions counted, added up."""
    return {name: sum(row[name] or 0 for row in rows) for name in COUNTS}


def show_inputs(location: str, config: RefreshConfig) -> None:
    """Print what a refresh would read, and what it knows already."""
    from data_pipeline.inputs import find_inputs
    from workflows.console import say, table
    from workflows.workspace import Workspace, exists

    workspace = (
        Workspace.existing(location) if exists(location) else Workspace(Path(location).expanduser().resolve())
    )
    found = find_inputs(workspace.corpus, config, workspace.root, workspace.corpus.latest())
    table(
        ["source", "file", "MB", ""],
        [
            [
                config.sources[file.source].name,
                file.name,
                f"{file.size / 1e6:,.1f}",
                "done already" if is_known else "to read",
            ]
            for file, is_known in found
        ],
        title="What a refresh would read",
    )
    new = [file for file, is_known in found if not is_known]
    say(
        f"{len(new)} files to read, {sum(file.size for file in new) / 1e6:,.1f} MB; {len(found) - len(new)} done already"
    )


def _check_tracking(workspace: Workspace) -> None:
    """Before any work, raise InputError where its runs could not be logged."""
    if "://" in str(workspace.root):
        from workflows.tracking import tracking_uri

        tracking_uri(workspace)


def refresh_corpus(
    workspace: Workspace,
    config: RefreshConfig,
    rebuild: bool = False,
    wait: float = 0.0,
    summary: Summary | None = None,
) -> RefreshResult:
    """Run the refresh; reports and MLflow runs of its versions come with it. Ray is started where there is work for it.

    Args:
        wait: seconds to wait for another process that writes the corpus.
        summary: gets what was done.
    """
    from data_pipeline.cluster import ray_session
    from data_pipeline.refresh import open_refresh
    from workflows.console import step

    _check_tracking(workspace)
    corpus = workspace.corpus
    with (
        step("refresh") as shown,
        open_refresh(corpus, config, workspace.root, shown.update, rebuild, wait) as work,
    ):
        with ray_session(workspace.logs / "refresh.log") if work.is_needed else nullcontext():
            result = work.run()
        row = result.version
        if result.changed:
            shown.summary = _in_words(result)
        else:
            shown.summary = f"nothing new: all {result.known_inputs} input files are in corpus version {row['version']} already"
        if result.damaged:
            shown.summary += f", {len(result.damaged)} damaged files"
        if summary is not None:
            summary |= _as_json(result, shown.summary)
        for version in corpus.versions()[-max(LOOK_BACK, len(result.versions)) :]:
            is_new = result.changed and version["version"] == row["version"]
            if not version["vacuumed_at"]:
                _record(workspace, version, shown, shown.began_at if is_new else None)
    return result


def _in_words(result: RefreshResult) -> str:
    """What a refresh that made a version did, in a line."""
    counts = counts_of(result.versions)
    first, last = result.versions[0]["version"], result.versions[-1]["version"]
    number = f"version {last}" if first == last else f"versions {first} to {last}"
    line = (
        f"corpus {number}: {result.new_inputs} files, {counts['num_documents']:,} documents read, "
        f"{counts['num_kept']:,} kept, {counts['num_removed']:,} removed"
    )
    for name, word in (("num_superseded", "superseded"), ("num_taken_down", "taken down")):
        line += f", {counts[name]:,} {word}" if counts[name] else ""
    return line


def _as_json(result: RefreshResult, message: str) -> Summary:
    return {
        "status": "committed" if result.changed else "nothing_new",
        "message": message,
        "version": result.version["version"],
        "versions": [row["version"] for row in result.versions],
        "new_inputs": result.new_inputs,
        "known_inputs": result.known_inputs,
        "damaged": [{"path": path, "error": error} for path, error in result.damaged],
        **counts_of(result.versions),
    }


def _record(workspace: Workspace, row: dict[str, Any], shown: Step, began: float | None) -> None:
    """Write the report and the MLflow run of a corpus version, each where it is missing."""
    from data_pipeline.report import write_report
    from workflows import tracking
    from workflows.plots import funnel_figure

    report = workspace.report(row["version"])
    if not report.exists():
        shown.update("writing the data report")
        write_report(workspace.corpus, row, report, workspace.tokens)
    tags = tracking.corpus_tags(workspace, row["version"])
    if tracking.find_run(workspace, "refresh", tags) is not None:
        return
    with tracking.start_run(
        workspace,
        "refresh",
        f"corpus-v{row['version']}",
        json.loads(row["config"]),
        tags=tags,
        run_id=tracking.find_run(workspace, "refresh", tags, finished=False),
        began=began,
    ) as run:
        run.metrics(_counts(workspace, row), step=row["version"])
        run.artifact(report)
        title = f"What became of the documents, corpus version {row['version']}"
        run.figure(funnel_figure(workspace.corpus.funnel(row), title), "plots/funnel.png")


def _counts(workspace: Workspace, version: dict[str, Any]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for row in workspace.corpus.funnel(version, only=True):
        name = f"documents/{row['source']}/{row['stage']}"
        counts[name] = counts.get(name, 0) + row["count"]
    totals = {name: version[f"num_{name}"] for name in ("documents", "kept", "removed")}
    return counts | {f"documents/all/{name}": float(value) for name, value in totals.items()}


def show_funnel(workspace: Workspace, version: dict[str, Any]) -> None:
    """Print what became of every document up to a version, by source and reason."""
    from workflows.console import table

    rows = workspace.corpus.funnel(version)
    sources = sorted({row["source"] for row in rows})
    lines: list[list[str]] = []
    total = {source: sum(row["count"] for row in rows if row["source"] == source) for source in sources}
    lines.append(
        ["documents read", *(f"{total[source]:,}" for source in sources), f"{sum(total.values()):,}"]
    )
    reasons = sorted(
        {(row["stage"], row["reason"]) for row in rows if row["stage"] != "kept"}, key=_stage_order
    )
    for stage, reason in reasons:
        lines.append(_funnel_line(f"  - {stage}: {reason}", rows, sources, stage, reason))
    lines.append(_funnel_line("kept", rows, sources, "kept", ""))
    table(
        ["", *sources, "all"],
        lines,
        title=f"What became of the documents (corpus version {version['version']})",
    )
    masked = workspace.corpus.masked(version)
    if masked:
        table(
            ["source", "kind", "masked", "documents"],
            [
                [row["source"], row["kind"], f"{row['count']:,}", f"{row['num_documents']:,}"]
                for row in masked
            ],
            title="Personal data masked in the documents kept",
        )


def _stage_order(stage_and_reason: tuple[str, str]) -> tuple[int, str]:
    from data_pipeline.corpus import STAGES

    stage, reason = stage_and_reason
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), reason)


def _funnel_line(
    label: str, rows: list[dict[str, Any]], sources: list[str], stage: str, reason: str
) -> list[str]:
    counts = [
        sum(
            row["count"]
            for row in rows
            if (row["source"], row["stage"], row["reason"]) == (source, stage, reason)
        )
        for source in sources
    ]
    return [label, *(f"{count:,}" if count else "" for count in counts), f"{sum(counts):,}"]


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in versions.COMMANDS:
        sys.exit(versions.run(sys.argv[1:]))
    sys.exit(cli.run(Options, main, "refresh", __doc__))
