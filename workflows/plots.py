"""Pictures of a refresh and of a training, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from workflows.journal import TRAIN, VALIDATION, curve


def funnel_figure(funnel: Sequence[dict[str, Any]], title: str) -> Figure:
    """What became of the documents: a bar a source, cut into kept and removed by step.

    Args:
        funnel: rows of Corpus.funnel.
    """
    from data_pipeline.corpus import STAGES
    from data_pipeline.report import colour

    sources = sorted({row["source"] for row in funnel}, reverse=True)
    totals = [sum(row["count"] for row in funnel if row["source"] == source) for source in sources]
    names = [f"{source} ({total:,})" for source, total in zip(sources, totals, strict=True)]
    figure = Figure(figsize=(10, 1.2 + 0.6 * len(sources)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(sources)
    for stage in ("kept", *STAGES[:-1]):
        counts = [
            sum(row["count"] for row in funnel if (row["source"], row["stage"]) == (source, stage))
            for source in sources
        ]
        if any(counts):
            shares = [100 * count / total for count, total in zip(counts, totals, strict=True)]
            bars = axes.barh(names, shares, left=left, color=colour(stage), label=stage, height=0.6)
            labels = [f"{count:,}" if share > 2 else "" for count, share in zip(counts, shares, strict=True)]
            axes.bar_label(bars, labels, label_type="center", color="white")
            left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set(xlabel="% of the documents read", title=title, xlim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=7, loc="upper center", bbox_to_anchor=(0.5, -0.35), frameon=False)
    return figure


def loss_figure(journal: Path, title: str) -> Figure:
    """Training and validation loss on the left, validation bits per byte by source on the right."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, losses = curve(journal, TRAIN, "loss")
    left.plot(steps, losses, linewidth=0.8, alpha=0.5, color="tab:blue", label="training, each step")
    left.plot(steps, _smooth(losses), linewidth=1.8, color="tab:blue", label="training, smoothed")
    left.plot(*curve(journal, VALIDATION, "loss"), "o-", color="tab:orange", label="validation")
    left.set(xlabel="step", ylabel="loss, nats a token", title=title)
    left.legend()
    names = _validation_names(journal)
    for name in names:
        label = name.partition("/")[2] or "all"
        right.plot(
            *curve(journal, VALIDATION, name), "o-", label=label, linewidth=2.5 if label == "all" else 1.2
        )
    right.set(xlabel="step", ylabel="bits a byte", title="validation by source")
    if names:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _smooth(values: list[float], weight: float = 0.95) -> list[float]:
    """Exponential moving average, corrected for its start."""
    smoothed: list[float] = []
    total = norm = 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(total / norm)
    return smoothed


def _validation_names(journal: Path) -> list[str]:
    from workflows.journal import read_journal

    names = {
        name
        for entry in read_journal(journal)
        if entry["kind"] == VALIDATION
        for name in entry["values"]
        if name.startswith("bits_per_byte")
    }
    return sorted(names)
