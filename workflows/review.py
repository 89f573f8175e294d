"""List and compare the runs of a workspace, from MLflow, in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from workflows import cli

if TYPE_CHECKING:
    from workflows.workspace import Workspace

# What stands for a run in the list, by workflow: (metric, how it is shown).
HEADLINES = {
    "refresh": (("documents/all/kept", "{:,.0f} documents kept"),),
    "quality": (("auc", "AUC {:.3f}"),),
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
    """Show the runs of one workflow only: refresh, quality, tokenize, pretrain, finetune or evaluate."""
    # Text first: beginnings of ids such as 1234e5 or 0012 must not be read as numbers.
    compare: str | list[str] = ""
    """Compare these runs (names, of which the newest run is taken, or beginnings of ids; a,b): what differs in settings and scores."""
    limit: int = 30
    """Runs to list, at most, the newest first."""

    def validate(self) -> None:
        """Raise InputError, naming the option, for values that cannot work."""
        if self.limit < 1:
            raise InputError(f"limit: {self.limit} must be at least 1")


def main(options: Options) -> None:
    """List the runs, or compare some."""
    options.validate()

    from workflows.tracking import runs_of
    from workflows.workspace import Workspace

    workspace = Workspace.existing(options.workspace)
    runs = runs_of(workspace, options.workflow)
    wanted = _wanted(options.compare)
    if wanted:
        compare([find(runs, name) for name in wanted])
    else:
        show_runs(workspace, runs[: options.limit])


def _wanted(given: str | list[str]) -> list[str]:
    """The runs named as `a,b`, as `[a, b]` on a command line, or as a list in a file."""
    names = given.strip("[] ").split(",") if isinstance(given, str) else given
    return [name.strip(" '\"") for name in names if name.strip()]


def find(runs: list[Any], wanted: str) -> Any:
    """The newest run of a name, else the one whose id begins so.

    Args:
        runs: of MLflow, newest first.

    Raises:
        InputError: there is none, or ids of several begin so.
    """
    named = [run for run in runs if run.info.run_name == wanted]
    if named:
        return named[0]
    found = [run for run in runs if run.info.run_id.startswith(wanted)]
    if not found:
        raise InputError(f"compare: no run {wanted!r}; python -m workflows.review lists them")
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise InputError(f"compare: {wanted!r} is the beginning of several runs ({ids}); give more of the id")
    return found[0]


def show_runs(workspace: Workspace, runs: list[Any]) -> None:
    """Print one line a run."""
    import datetime

    from workflows.console import say, table
    from workflows.tracking import how_to_look

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
    say(f"more: {how_to_look(workspace)}")


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
