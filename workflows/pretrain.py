"""Pretrain a GPT on a token dataset: DDP under Ray Train, exact resume, one MLflow run."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.atomic import write_json
from data_pipeline.shards import Manifest, canonical_json
from gpt.config import ModelConfig, TrainConfig
from gpt.presets import preset
from workflows import cli
from workflows.models import check_name

if TYPE_CHECKING:
    from workflows.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """Options of workflows.pretrain."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    preset: str = "demo"
    """Recipe to start from (demo, tiny, gpt2); the options under model and train override it."""
    dataset: str = "bpe"
    """Name of the token dataset; its newest version is used."""
    name: str = ""
    """Name of the run and of the model; empty makes one from preset, settings and data."""
    workers: int = 0
    """Training processes; 0 takes one a GPU, else at most two on the CPUs there are."""
    max_restarts: int = 3
    """Worker failures that the run survives."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the network."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training schedule."""


def preset_defaults(name: str) -> dict[str, Any]:
    """What a preset sets, as option defaults."""
    recipe = preset(name)
    return {
        f"{group}.{key}": value
        for group, values in (("model", recipe.model), ("train", recipe.train))
        for key, value in asdict(values).items()
    }


def main(options: Options) -> None:
    """Train, or go on, or say that it is done."""
    options.model.validate()
    options.train.validate()
    check_name("name", options.name)
    check_name("dataset", options.dataset)

    from workflows.cluster import ray_session
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    folder = workspace.dataset(options.dataset)
    with ray_session(workspace.logs / "pretrain.log"):
        pretrain(workspace, options, folder)


def pretrain(workspace: Workspace, options: Options, folder: Path) -> dict[str, Any]:
    """Train under a running Ray; the content of the run's result.json, with `name` and `mlflow_run_id`.

    The same options on the same data name the same run: a run that was killed goes on in its MLflow run, a
    run that is complete is left as it is.
    """
    from workflows import tracking
    from workflows.console import step
    from workflows.launch import RESULT, TrainingJob, run_training

    manifest = Manifest.load(folder)
    model = replace(options.model, vocab_size=options.model.vocab_size or manifest.vocab_size)
    model.validate()
    name = options.name or _run_name(options.preset, model, options.train, manifest)
    run_dir = workspace.runs / name
    with step("pretrain") as shown:
        if (run_dir / RESULT).exists():
            result = _read(run_dir / RESULT) | _read(run_dir / "run.json") | {"name": name}
            shown.summary = f"run {name} is complete already, {_scores(result)}"
            return result
        shown.update(f"starting {name}, {model.num_parameters() / 1e6:.1f} M parameters")
        settings = {
            "preset": options.preset,
            "model": asdict(model),
            "train": asdict(options.train),
            "workers": options.workers,
        }
        parent = tracking.find_run(workspace, "tokenize", {"gptmill.manifest_hash": manifest.manifest_hash})
        known = _read(run_dir / "run.json").get("mlflow_run_id")
        with tracking.start_run(workspace, "pretrain", name, settings, parent=parent, run_id=known) as run:
            if known is None:
                run.dataset(manifest, folder)
                run.tag("gptmill.manifest_hash", manifest.manifest_hash)
                run.tag("gptmill.corpus_version", manifest.corpus_version)
                run.tag("gptmill.model", name)
                run.tag("gptmill.preset", options.preset)
                write_json(run_dir / "run.json", {"mlflow_run_id": run.run_id, "settings": settings})
            job = TrainingJob(
                run_dir=str(run_dir),
                dataset=str(folder),
                tokenizer_json=str(workspace.tokenizer(manifest.tokenizer) / "tokenizer.json"),
                model_dir=str(workspace.model(name)),
                model=model,
                train=options.train,
                tracking_uri=tracking.tracking_uri(workspace),
                mlflow_run_id=run.run_id,
                provenance={
                    "mlflow_run_id": run.run_id,
                    "manifest_hash": manifest.manifest_hash,
                    "corpus_version": manifest.corpus_version,
                },
            )
            with tracking.system_metrics(workspace, run):
                result = run_training(job, options.workers, options.max_restarts, shown.update)
            shown.update("logging plots, samples and the model")
            _log_outcome(workspace, run, run_dir, name, result)
            run.describe(_description(name, model, manifest, result))
        result |= {"name": name, "mlflow_run_id": run.run_id}
        shown.summary = f"{name}: {result['step']} steps, {result['tokens']:,} tokens, {_scores(result)}"
    return result


def _run_name(preset_name: str, model: ModelConfig, train: TrainConfig, manifest: Manifest) -> str:
    content = {"model": asdict(model), "train": asdict(train), "manifest": manifest.manifest_hash}
    return f"{preset_name}-{hashlib.sha256(canonical_json(content)).hexdigest()[:8]}"


def _scores(result: dict[str, Any]) -> str:
    first, last = result["first_evaluation"].get("all"), result["last_evaluation"].get("all")
    if not first or not last:
        return "no validation data"
    return f"validation {first['bits_per_byte']:.3f} -> {last['bits_per_byte']:.3f} bits/byte"


def _description(name: str, model: ModelConfig, manifest: Manifest, result: dict[str, Any]) -> str:
    """What the run's MLflow page says first."""
    rows = [
        f"| {source} | {result['first_evaluation'][source]['bits_per_byte']:.3f} | {score['bits_per_byte']:.3f} |"
        for source, score in result["last_evaluation"].items()
    ]
    return "\n".join(
        [
            f"**{name}**: {model.num_parameters() / 1e6:.1f} M parameters, {result['tokens']:,} tokens in "
            f"{result['step']} steps, on `tokens/{manifest.name}` of corpus version {manifest.corpus_version} "
            f"(manifest `{manifest.manifest_hash[:12]}`).",
            "",
            "| validation bits/byte | first | last |",
            "|---|---|---|",
            *rows,
            "",
            "Curves under *Model metrics*; plots, samples, journal and resolved configuration under *Artifacts*.",
        ]
    )


def _log_outcome(workspace: Workspace, run: Any, run_dir: Path, name: str, result: dict[str, Any]) -> None:
    from workflows import tracking
    from workflows.launch import JOURNAL
    from workflows.plots import loss_figure

    run.figure(loss_figure(run_dir / JOURNAL, name), "plots/loss.png")
    run.artifact(run_dir / JOURNAL)
    for sample in sorted((run_dir / "samples").glob("*.txt")):
        run.artifact(sample, "samples")
    scores = {
        f"val/{measure}/{source}": score[measure]
        for source, score in result["last_evaluation"].items()
        for measure in ("loss", "bits_per_byte")
    }
    tracking.log_model(workspace, run, workspace.model(name), scores)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "pretrain", __doc__, preset_defaults=preset_defaults))
