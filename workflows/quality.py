"""The mode of workflows.refresh that trains a quality model: train, show what the model is worth, log it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_pipeline.config import RefreshConfig
from data_pipeline.quality_config import QualityTraining

if TYPE_CHECKING:
    from data_pipeline.quality.model import QualityModel
    from workflows.workspace import Workspace

# Of the good documents, what the bound that is proposed must keep.
KEPT_SHARE = 0.95


def train_quality(workspace: Workspace, config: RefreshConfig, training: QualityTraining) -> QualityModel:
    """Train a model under a running Ray, or find it there; its MLflow run comes with it."""
    from data_pipeline.quality.training import train
    from workflows.console import step

    with step("quality") as shown:
        model, is_new = train(workspace.corpus, config, training, shown.update)
        metrics = model.metadata["metrics"]
        shown.summary = (
            f"model {training.name} {'' if is_new else 'is there already: '}{model.model_hash[:12]}, on held-out "
            f"documents AUC {metrics['auc']:.4f}, accuracy {metrics['accuracy']:.1%}"
        )
        _record(workspace, model, shown.began_at if is_new else None)
    return model


def _record(workspace: Workspace, model: QualityModel, began: float | None) -> None:
    """The MLflow run of a model, where it is missing."""
    from data_pipeline.quality.model import METADATA_NAME
    from workflows import tracking

    tags = {"gptmill.quality_model": model.model_hash}
    if tracking.find_run(workspace, "quality", tags) is not None:
        return
    name, metrics = model.metadata["name"], model.metadata["metrics"]
    run_id = tracking.find_run(workspace, "quality", tags, finished=False)
    with tracking.start_run(
        workspace, "quality", name, model.metadata["settings"], tags=tags, run_id=run_id, began=began
    ) as run:
        run.metrics({key: value for key, value in metrics.items() if isinstance(value, float)})
        run.artifact(workspace.corpus.root / "quality" / name / METADATA_NAME)


def show_model(model: QualityModel) -> None:
    """Print what a model was made of, and what each least score would keep and remove of the held-out documents."""
    from workflows.console import say, table

    sources = model.metadata["data"]["sources"]
    table(
        ["source", "as", "documents", "of them held out"],
        [
            [name, "good" if row["is_good"] else "bad", f"{row['documents']:,}", f"{row['held_out']:,}"]
            for name, row in sources.items()
        ],
        title=f"Quality model {model.metadata['name']}: what it was made of",
    )
    table(
        [
            "min_score",
            "keeps of good",
            "removes of bad",
            "good here",
            "bad here",
            "good among them",
            "mean score",
        ],
        _bounds(model.metadata["metrics"]["histogram"]),
        title="What a quality.min_score would do to the held-out documents; 'here' is up to the next line",
    )
    bound = highest_bound(model.metadata["metrics"]["histogram"], KEPT_SHARE)
    bounds = ", ".join(f"{name}: {bound}" for name, row in sources.items() if not row["is_good"])
    say(
        "'good among them' is for as many good as bad documents; a calibrated model has it near the mean score.\n"
        f"A bound that keeps {KEPT_SHARE:.0%} of the good: python -m workflows.refresh ... --quality.model "
        f"{model.metadata['name']} --quality.min_scores '{{{bounds}}}'"
    )


def highest_bound(histogram: list[dict[str, Any]], share: float) -> float:
    """The highest bound of the histogram that keeps at least this share of the good documents."""
    num_good, kept = sum(row["good"] for row in histogram), 0
    for row in reversed(histogram):
        kept += row["good"]
        if kept >= share * num_good:
            return float(row["from"])
    return 0.0


def _bounds(histogram: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of the table of bounds, from the lowest up."""
    num_good, num_bad = (sum(row[side] for row in histogram) for side in ("good", "bad"))
    good_below = bad_below = 0
    rows = []
    for row in histogram:
        good, bad = row["good"] / num_good, row["bad"] / num_bad
        rows.append(
            [
                f"{row['from']:.1f}",
                f"{1 - good_below / num_good:.1%}",
                f"{bad_below / num_bad:.1%}",
                f"{row['good']:,}",
                f"{row['bad']:,}",
                f"{good / (good + bad):.2f}" if good + bad else "",
                f"{row['mean_score']:.2f}" if row["mean_score"] is not None else "",
            ]
        )
        good_below += row["good"]
        bad_below += row["bad"]
    return rows
