"""Turn a pretrained model into a classifier, as GPT-1 did: L_task + 0.5 L_LM over a linear head."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from gpt.config import Precision
from workflows import cli
from workflows.models import check_name
from workflows.passages import PassageConfig

if TYPE_CHECKING:
    from gpt.classify import FineTuneRecord
    from workflows.tracking import Run
    from workflows.workspace import Workspace


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune; the defaults suit models of a few million parameters."""

    epochs: int = 3
    """Passes over the training passages (GPT-1: 3)."""
    batch_size: int = 32
    """Passages an update (GPT-1: 32)."""
    lr: float = 3e-4
    """Highest learning rate (GPT-1, with 117 M parameters: 6.25e-5)."""
    lm_coefficient: float = 0.5
    """Weight of the auxiliary language-model loss (GPT-1: 0.5)."""
    max_length: int = 128
    """Longest input in tokens; longer passages lose their end."""
    precision: Precision = "bf16"
    """Type of the matrix products: bf16 or fp32."""
    seed: int = 1337
    """Seed of the head's weights, the order of passages and dropout."""

    def validate(self) -> None:
        """Raise ConfigError, naming the field, for values that cannot work."""
        from gpt.classify import ClassifierConfig

        ClassifierConfig(**asdict(self)).validate()


@dataclass(frozen=True)
class Options:
    """Options of workflows.finetune."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    model: str = ""
    """Pretrained model in models/ to start from; empty takes the newest."""
    name: str = ""
    """Name of the classifier; empty is the model's name with -source behind it."""
    passages: PassageConfig = field(default_factory=PassageConfig)
    """How labelled passages are cut from the corpus."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """How to fine-tune."""

    def validate(self) -> None:
        """Raise InputError or ConfigError, naming the option, for values that cannot work."""
        check_name("model", self.model)
        check_name("name", self.name)
        self.passages.validate()
        self.finetune.validate()


def main(options: Options) -> None:
    """Fine-tune on: which source does a passage come from?"""
    options.validate()

    from workflows.workspace import Workspace

    finetune(Workspace.open(options.workspace), options)


def finetune(workspace: Workspace, options: Options) -> dict[str, Any]:
    """Fine-tune, or find it done; the classifier's config.json and its `name`.

    Raises:
        InputError: the name belongs to a model of another kind, or to a classifier made in another way.
    """
    from data_pipeline.locks import locked
    from workflows.console import step
    from workflows.models import newest_model, read_config

    base = options.model or newest_model(workspace, "gpt")
    name = options.name or f"{base}-source"
    settings = {"model": base, "passages": asdict(options.passages), "finetune": asdict(options.finetune)}
    with step("finetune") as shown, locked(workspace.runs / f"{name}.lock", f"name: classifier {name}"):
        # A model that is trained again under its name is another one.
        base_sha256 = (read_config(workspace.model(base)) or {}).get("files", {}).get("model.safetensors")
        known = read_config(workspace.model(name))
        if known:
            _check_same_classifier(name, known, settings, base_sha256)
            _finish_run(workspace, name, known)
            shown.summary = f"classifier {name} is there already, accuracy {known['extra']['accuracy']:.1%}"
            return known | {"name": name}
        result = _train(workspace, options, base, name, settings, shown.update)
        shown.summary = (
            f"{name}: accuracy {result['extra']['accuracy']:.1%} on {result['extra']['num_val']} passages, "
            f"majority {result['extra']['majority_accuracy']:.1%}"
        )
    return result | {"name": name}


def _check_same_classifier(
    name: str, known: dict[str, Any], settings: dict[str, Any], base_sha256: str | None
) -> None:
    """Refuse a name whose model is not what these options would make: it would be replaced."""
    problem = ""
    if known["kind"] != "classifier":
        problem = f"a {known['kind']}"
    elif known["extra"].get("settings") != settings:
        problem = "a classifier made with other settings"
    elif known["extra"].get("base_sha256") != base_sha256:
        problem = f"a classifier made from an earlier model {settings['model']}"
    if problem:
        raise InputError(f"name: models/{name} holds {problem}; give another --name, or remove it")


def _train(
    workspace: Workspace, options: Options, base: str, name: str, settings: dict[str, Any], update: Any
) -> dict[str, Any]:
    from data_pipeline.tokenizer import Tokenizer
    from gpt.checkpoint import load_model
    from gpt.classify import ClassifierConfig, fine_tune, save_classifier
    from gpt.distributed import default_device
    from workflows import tracking
    from workflows.models import read_config
    from workflows.passages import build_task, encode_passages

    gpt, content = load_model(workspace.model(base), default_device())
    provenance = content["extra"]
    version = workspace.corpus.at(provenance.get("corpus_version"))
    task = build_task(workspace.corpus, version, options.passages)
    tokenizer_json = workspace.model(base) / "tokenizer.json"
    tokenizer = Tokenizer.load(tokenizer_json)
    train, val = (encode_passages(passages, tokenizer) for passages in (task.train, task.val))
    parent = provenance.get("mlflow_run_id")
    tags = {key: provenance.get(key, "") for key in ("manifest_hash", "corpus_version")}
    tags |= {"base_model": base, "model": name}
    with tracking.start_run(
        workspace,
        "finetune",
        name,
        settings,
        tags={f"gptmill.{key}": value for key, value in tags.items()},
        parent=parent,
    ) as run:
        with _recorder(workspace, run.run_id, options.finetune.epochs, update) as on_update:
            classifier, result = fine_tune(
                gpt,
                train,
                val,
                ClassifierConfig(num_classes=len(task.labels), **asdict(options.finetune)),
                start_token=tokenizer.special["<|start|>"],
                extract_token=tokenizer.special["<|classify|>"],
                callback=on_update,
            )
        extra = {
            "labels": task.labels,
            "settings": settings,
            "accuracy": result.accuracy,
            "majority_accuracy": result.majority_accuracy,
            "confusion": result.confusion,
            "num_train": len(train),
            "num_val": len(val),
            "base_model": base,
            "base_sha256": content["files"]["model.safetensors"],
            "base_run_id": parent,
            "mlflow_run_id": run.run_id,
            "corpus_version": version["version"],
        }
        save_classifier(workspace.model(name), classifier, tokenizer_json, extra)
        _log_outcome(workspace, run, name, extra)
    saved = read_config(workspace.model(name))
    assert saved is not None
    return saved


def _log_outcome(workspace: Workspace, run: Run, name: str, extra: dict[str, Any]) -> None:
    run.metrics({key: extra[key] for key in ("accuracy", "majority_accuracy")})
    run.artifact(workspace.model(name) / "config.json")


def _finish_run(workspace: Workspace, name: str, known: dict[str, Any]) -> None:
    """End the MLflow run of a process that was killed between saving its classifier and logging it."""
    from workflows import tracking

    run_id = tracking.known_run(workspace, known["extra"]["mlflow_run_id"])
    if run_id is None or tracking.find_run(workspace, "finetune", {"gptmill.model": name}) == run_id:
        return
    with tracking.start_run(workspace, "finetune", name, known["extra"]["settings"], run_id=run_id) as run:
        _log_outcome(workspace, run, name, known["extra"])


@contextmanager
def _recorder(
    workspace: Workspace, run_id: str, epochs: int, update: Callable[[str], None]
) -> Iterator[Callable[[FineTuneRecord], None]]:
    """A callback that shows each update and sends it to MLflow in the background."""
    from workflows.journal import TRAIN, VALIDATION
    from workflows.metric_sender import MetricSender
    from workflows.tracking import tracking_uri

    sender = MetricSender(tracking_uri(workspace), run_id)

    def send(kind: str, step: int, **values: float) -> None:
        sender.send({"kind": kind, "step": step, "time": time.time(), "values": values})

    def on_update(record: FineTuneRecord) -> None:
        send(
            TRAIN,
            record.step,
            loss=record.loss,
            lm_loss=record.lm_loss,
            learning_rate=record.learning_rate,
        )
        if record.val_accuracy is not None and record.val_loss is not None:
            send(VALIDATION, record.step, accuracy=record.val_accuracy, loss=record.val_loss)
        update(f"epoch {record.epoch:.1f}/{epochs}, loss {record.loss:.3f}")

    try:
        yield on_update
    finally:
        sender.close()


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "finetune", __doc__))
