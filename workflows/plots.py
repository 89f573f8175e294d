"""Pictures of a training, drawn without a display."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from workflows.journal import TRAIN, VALIDATION, curve


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
