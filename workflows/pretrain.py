"""Pretrain a GPT on a token dataset: DDP under Ray Train, exact resume, one MLflow run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.atomic import write_json
from data_pipeline.errors import InputError
from data_pipeline.shards import Manifest, canonical_json
from gpt.config import ModelConfig, TrainConfig
from gpt.presets import preset
from workflows import cli
from workflows.mirror import pull, push
from workflows.models import check_name, read_config, read_json
from workflows.workers import Device

if TYPE_CHECKING:
    from workflows.launch import TrainingJob
    from workflows.tracking import Run
    from workflows.workspace import Workspace

# In a run's folder: who it is, and that nothing of it remains to be done.
RUN, DONE = "run.json", "done.json"


@dataclass(frozen=True)
class Options:
    """Options of workflows.pretrain."""

    workspace: str = "workspace"
    """Folder that everything is kept in. An s3:// or gs:// URI will do as well."""
    preset: str = "demo"
    """Recipe to start from (demo, tiny, gpt1, gpt2, gpt3-small, modern-d12 ...; python -m gpt.presets lists them); the
    options under model and train override it."""
    dataset: str = "bpe"
    """Name of the token dataset; its newest version is used."""
    name: str = ""
    """Name of the run and of the model; empty makes one from preset, settings and data."""
    workers: int = 0
    """Training processes; 0 takes one a GPU, else at most two on the CPUs there are."""
    device: Device = "auto"
    """What they compute on: auto (GPUs where there are any), cpu, or gpu (a cluster that grows is asked for them)."""
    max_restarts: int = 3
    """Worker failures that the run survives."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the network."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training schedule."""

    def validate(self) -> None:
        """Raise InputError or ConfigError, naming the option, for values that cannot work."""
        for name in ("workers", "max_restarts"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)} must not be negative")
        self.model.validate()
        self.train.validate()
        self.train.objectives.validate(self.model)
        check_name("name", self.name)
        check_name("dataset", self.dataset)


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
    options.validate()

    from data_pipeline.cluster import ray_session
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    folder = workspace.dataset(options.dataset)
    # A name that is taken, or a source that would be read too often, is said at once; starting Ray takes seconds.
    plan = _Plan.of(options, folder)
    _stored_run(workspace, plan)
    if not (workspace.runs / plan.name / DONE).exists():
        _print_reading(plan)
    with ray_session(workspace.logs / "pretrain.log"):
        pretrain(workspace, options, folder)


def pretrain(workspace: Workspace, options: Options, folder: Path) -> dict[str, Any]:
    """Train under a running Ray; the content of the run's result.json, with `name` and `mlflow_run_id`.

    The same options on the same data name the same run: a run that was killed goes on in its MLflow run, a
    run that is complete is left as it is.

    Raises:
        InputError: the name belongs to a run or a model of other settings or data, or another process trains it.
    """
    from data_pipeline.locks import locked
    from workflows.console import step
    from workflows.launch import RESULT

    plan = _Plan.of(options, folder)
    run_dir, lock = workspace.near.runs / plan.name, workspace.runs / plan.name / ".lock"
    with step("pretrain") as shown, locked(lock, f"name: run {plan.name}"):
        stored = _stored_run(workspace, plan)
        tokenizer = f"tokenizer/{plan.manifest.tokenizer}"
        pull(workspace, f"runs/{plan.name}", f"models/{plan.name}", tokenizer)
        if (run_dir / DONE).exists():
            result = _read(run_dir / RESULT) | _read(run_dir / DONE) | {"name": plan.name}
            shown.summary = f"run {plan.name} is complete already, {_scores(result)}"
            return result
        shown.update(f"starting {plan.name}, {plan.model.num_parameters() / 1e6:.1f} M parameters")
        result = _train(workspace, plan, stored, shown.update)
        shown.summary = f"{plan.name}: {result['step']} steps, {result['tokens']:,} tokens, {_scores(result)}"
    return result


def _print_reading(plan: _Plan) -> None:
    """A table of what training will take from each source; refuses a mixture that cannot be."""
    from data_pipeline.shards import TokenDataset
    from gpt.order import plan_table
    from gpt.schedule import DataSchedule
    from workflows.console import say

    data = TokenDataset(plan.folder, "train")
    schedule = DataSchedule.of(data, plan.options.train, plan.model.context_length)
    say(plan_table(schedule.plan, plan.model.context_length))


def _stored_run(workspace: Workspace, plan: _Plan) -> dict[str, Any]:
    """What the run's folder says of it, {} before it began; refused where the name is another training's."""
    run_dir = workspace.runs / plan.name
    stored = _read(run_dir / RUN)
    _check_same_run(plan, stored)
    if not (run_dir / DONE).exists():
        _check_model_is_ours(workspace, plan.name, stored)
    return stored


@dataclass(frozen=True)
class _Plan:
    """A training as it was decided on: the options, the data they met, and what follows from both."""

    options: Options
    folder: Path
    manifest: Manifest
    model: ModelConfig
    name: str

    @classmethod
    def of(cls, options: Options, folder: Path) -> _Plan:
        manifest = Manifest.load(folder)
        model = replace(options.model, vocab_size=options.model.vocab_size or manifest.vocab_size)
        model.validate()
        name = options.name or _run_name(options.preset, model, options.train, manifest)
        return cls(options, folder, manifest, model, name)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes a run this run, and no other."""
        return {
            "manifest_hash": self.manifest.manifest_hash,
            "model": asdict(self.model),
            "train": asdict(self.options.train),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What MLflow gets as parameters."""
        chosen = {name: getattr(self.options, name) for name in ("preset", "workers", "device")}
        return chosen | {"model": asdict(self.model), "train": asdict(self.options.train)}

    @property
    def tags(self) -> dict[str, object]:
        """What the MLflow run is found by."""
        return {
            "gptmill.manifest_hash": self.manifest.manifest_hash,
            "gptmill.corpus_version": self.manifest.corpus_version,
            "gptmill.model": self.name,
            "gptmill.preset": self.options.preset,
        }


def _train(
    workspace: Workspace, plan: _Plan, stored: dict[str, Any], update: Callable[[str], None]
) -> dict[str, Any]:
    """Whatever of a run is not done yet: the training, its outcome in MLflow, the mark that it is complete."""
    from workflows import tracking
    from workflows.launch import RESULT, run_training

    run_dir, options = workspace.near.runs / plan.name, plan.options
    known = tracking.known_run(workspace, stored.get("mlflow_run_id"))
    parent = tracking.find_tokenize_run(workspace, plan.manifest)
    with tracking.start_run(
        workspace, "pretrain", plan.name, plan.settings, tags=plan.tags, parent=parent, run_id=known
    ) as run:
        if known is None:
            run.dataset(plan.manifest, plan.folder)
            # The store may have lost an earlier MLflow run; the exported model still names it.
            entry = {"mlflow_run_id": run.run_id, "earlier_run_ids": _run_ids(stored), **plan.identity}
            write_json(run_dir / RUN, entry)
            push(workspace, f"runs/{plan.name}")
        if not (run_dir / RESULT).exists():
            job = _job(workspace, plan, run.run_id)
            with tracking.system_metrics(workspace, run):
                run_training(job, options.workers, options.device, options.max_restarts, update)
            pull(workspace, f"runs/{plan.name}", f"models/{plan.name}")
        update("logging plots, samples and the model")
        result = _read(run_dir / RESULT)
        _log_outcome(workspace, run, plan, result)
    write_json(run_dir / DONE, {"mlflow_run_id": run.run_id})
    push(workspace, f"runs/{plan.name}")
    return result | {"name": plan.name, "mlflow_run_id": run.run_id}


def _job(workspace: Workspace, plan: _Plan, run_id: str) -> TrainingJob:
    from workflows.launch import TrainingJob
    from workflows.tracking import tracking_uri

    return TrainingJob(
        run_dir=str(workspace.near.runs / plan.name),
        dataset=str(plan.folder),
        tokenizer_json=str(workspace.near.tokenizer(plan.manifest.tokenizer) / "tokenizer.json"),
        model_dir=str(workspace.near.model(plan.name)),
        workspace=str(workspace.root),
        model=plan.model,
        train=plan.options.train,
        tracking_uri=tracking_uri(workspace),
        mlflow_run_id=run_id,
        provenance={
            "mlflow_run_id": run_id,
            "manifest_hash": plan.manifest.manifest_hash,
            "corpus_version": plan.manifest.corpus_version,
        },
    )


def _check_same_run(plan: _Plan, stored: dict[str, Any]) -> None:
    """Refuse to go on with a run under other settings or on other data."""
    from gpt.resume import MAY_CHANGE_SILENTLY

    if not stored:
        return
    identity = plan.identity
    differences = []
    before, now = stored.get("manifest_hash", ""), identity["manifest_hash"]
    if before != now:
        differences.append(f"data (manifest {before[:12]}, now {now[:12]})")
    for group in ("model", "train"):
        # A setting that did not exist when the run began had its default's effect.
        known = asdict(ModelConfig() if group == "model" else TrainConfig()) | stored.get(group, {})
        for key in sorted({*known, *identity[group]}):
            before, now = known.get(key), identity[group].get(key)
            if before != now and not (group == "train" and key in MAY_CHANGE_SILENTLY):
                differences.append(f"{group}.{key} (was {before}, now {now})")
    if differences:
        raise InputError(
            f"name: run {plan.name} is another one, these differ: {'; '.join(differences)}; restore them, or give another "
            "--name"
        )


def _check_model_is_ours(workspace: Workspace, name: str, stored: dict[str, Any]) -> None:
    """Refuse a name whose model is no earlier export of this run: it would be replaced."""
    known = read_config(workspace.model(name))
    ours = known is not None and known["extra"].get("mlflow_run_id") in _run_ids(stored)
    if known is None or (known["kind"] == "gpt" and ours):
        return
    raise InputError(
        f"name: {workspace.model(name)} holds a {known['kind']} of another run; give another --name, or remove it"
    )


def _run_ids(stored: dict[str, Any]) -> list[str]:
    """MLflow runs that a training has had, from its run.json."""
    return [*stored.get("earlier_run_ids", []), stored["mlflow_run_id"]] if stored else []


def _run_name(preset_name: str, model: ModelConfig, train: TrainConfig, manifest: Manifest) -> str:
    content = {"model": asdict(model), "train": asdict(train), "manifest": manifest.manifest_hash}
    return f"{preset_name}-{hashlib.sha256(canonical_json(content)).hexdigest()[:8]}"


def _scores(result: dict[str, Any]) -> str:
    first, last = result["first_evaluation"].get("all"), result["last_evaluation"].get("all")
    if not first or not last:
        return "no validation data"
    return f"validation {first['bits_per_byte']:.3f} -> {last['bits_per_byte']:.3f} bits/byte"


def _description(plan: _Plan, result: dict[str, Any]) -> str:
    """What the run's MLflow page says first."""
    manifest = plan.manifest
    rows = [
        f"| {source} | {result['first_evaluation'][source]['bits_per_byte']:.3f} | {score['bits_per_byte']:.3f} |"
        for source, score in result["last_evaluation"].items()
    ]
    return "\n".join(
        [
            f"**{plan.name}**: {plan.model.num_parameters() / 1e6:.1f} M parameters, {result['tokens']:,} tokens in "
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


def _log_outcome(workspace: Workspace, run: Run, plan: _Plan, result: dict[str, Any]) -> None:
    """Everything that MLflow gets after the training; again changes nothing."""
    from workflows import tracking
    from workflows.launch import JOURNAL
    from workflows.metric_sender import MetricSender
    from workflows.plots import loss_figure

    run_dir = workspace.near.runs / plan.name
    # What the worker could not send: it was killed, or MLflow was away.
    sender = MetricSender(tracking.tracking_uri(workspace), run.run_id, run_dir / JOURNAL)
    if not sender.close(timeout=600):
        raise RuntimeError("MLflow does not take the metrics; the same command sends them when it does again")
    run.figure(loss_figure(run_dir / JOURNAL, plan.name), "plots/loss.png")
    run.artifact(run_dir / JOURNAL)
    for sample in sorted((run_dir / "samples").glob("*.txt")):
        run.artifact(sample, "samples")
    last = {
        f"val/{measure}/{source}": score[measure]
        for source, score in result["last_evaluation"].items()
        for measure in ("loss", "bits_per_byte")
    }
    tracking.log_model(workspace, run, workspace.near.model(plan.name), last)
    run.describe(_description(plan, result))


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "pretrain", __doc__, preset_defaults=preset_defaults))
