"""List and compare the runs of a workspace, from MLflow, in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workflows import cli

if TYPE_CHECKING:
    from workflows.workspace import Workspace

# What stands for a run in the list, by workflow: (metric, how it is shown).
HEADLINES = {
    "refresh": (("documents/all/kept", "{:,.0f} documents kept"),),
    "tokenize": (),
    "pretrain": (("val/bits_per_byte", "{:.3f} bits/byte"), ("train/tokens_per_second", "{:,.0f} tokens/s")),
    "finetune": (("accuracy", "accuracy {:.1%}"),),
    "evaluate": (("bits_per_byte/all", "{:.3f} bits/byte"), ("accuracy/gpt", "accuracy {:.1%}")),
}


@dataclass(frozen=True)
class Options:
    """Options of workflows.review."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    workflow: str = ""
    """Show the runs of one workflow only: refresh, tokenize, pretrain, finetune or evaluate."""
    compare: list[str] = field(default_factory=list)
    """Compare these runs (names or beginnings of ids): what differs in settings and scores."""
    limit: int = 30
    """Runs to list, at most, the newest first."""


def main(options: Options) -> None:
    """List the runs, or compare some."""
    from workflows.tracking import runs_of
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    runs = runs_of(workspace, options.workflow)
    if options.compare:
        compare([_find(runs, wanted) for wanted in options.compare])
    else:
        show_runs(workspace, runs[: options.limit])


def _find(runs: list[Any], wanted: str) -> Any:
    from data_pipeline.errors import InputError

    found = [run for run in runs if run.info.run_id.startswith(wanted) or run.info.run_name == wanted]
    if not found:
        raise InputError(f"compare: no run {wanted!r}; python -m workflows.review lists them")
    return found[0]


def show_runs(workspace: Workspace, runs: list[Any]) -> None:
    """Print one line a run."""
    import datetime

    from workflows.console import say, table
    from workflows.tracking import tracking_uri

    names = {run.info.run_id: run.info.run_name for run in runs}
    rows = []
    for run in runs:
        kind = run.data.tags.get("gptmill.workflow", "")
        parent = run.data.tags.get("gptmill.parent_run", "")
        began = datetime.datetime.fromtimestamp(run.info.start_time / 1000)
        seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None
        scores = [
            form.format(run.data.metrics[metric])
            for metric, form in HEADLINES.get(kind, ())
            if metric in run.data.metrics
        ]
        rows.append(
            [
                run.info.run_id[:8],
                kind,
                run.info.run_name or "",
                run.info.status.lower(),
                f"{began:%Y-%m-%d %H:%M}",
                f"{seconds:.0f} s" if seconds is not None else "",
                ", ".join(scores),
                names.get(parent, parent[:8]) or "",
            ]
        )
    table(["run", "workflow", "name", "status", "started", "took", "scores", "from"], rows)
    if not rows:
        say("no runs yet")
    say(f"more: mlflow ui --backend-store-uri {tracking_uri(workspace)}")


def compare(runs: list[Any]) -> None:
    """Print the settings and the last metrics in which runs differ, side by side."""
    from workflows.console import table

    def rows(values: list[dict[str, Any]], form: str) -> list[list[str]]:
        keys = sorted({key for value in values for key in value if not key.startswith("system/")})
        return [
            [key, *(form.format(value[key]) if key in value else "" for value in values)]
            for key in keys
            if len({str(value.get(key)) for value in values}) > 1
        ]

    columns = ["", *(f"{run.info.run_name} ({run.info.run_id[:8]})" for run in runs)]
    table(columns, rows([run.data.params for run in runs], "{}"), title="Settings that differ")
    table(
        columns, rows([run.data.metrics for run in runs], "{:.5g}"), title="Metrics that differ (last value)"
    )


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "review", __doc__))
