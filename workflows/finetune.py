"""Turn a pretrained model into a classifier, as GPT-1 did: L_task + 0.5 L_LM over a linear head."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gpt.config import ConfigError, Precision
from workflows import cli
from workflows.models import check_name
from workflows.passages import PassageConfig

if TYPE_CHECKING:
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


def main(options: Options) -> None:
    """Fine-tune on: which source does a passage come from?"""
    check_name("model", options.model)
    check_name("name", options.name)

    from workflows.workspace import Workspace

    finetune(Workspace.open(options.workspace), options)


def finetune(workspace: Workspace, options: Options) -> dict[str, Any]:
    """Fine-tune, or find it done; the classifier's config.json and its `name`."""
    from workflows.console import step
    from workflows.models import newest_model, read_config

    base = options.model or newest_model(workspace, "gpt")
    name = options.name or f"{base}-source"
    settings = {"model": base, "passages": asdict(options.passages), "finetune": asdict(options.finetune)}
    with step("finetune") as shown:
        known = read_config(workspace.model(name))
        if known and known["extra"].get("settings") == settings:
            shown.summary = f"classifier {name} is there already, accuracy {known['extra']['accuracy']:.1%}"
            return known | {"name": name}
        result = _train(workspace, options, base, name, settings, shown.update)
        shown.summary = (
            f"{name}: accuracy {result['extra']['accuracy']:.1%} on {result['extra']['num_val']} passages, "
            f"majority {result['extra']['majority_accuracy']:.1%}"
        )
    return result | {"name": name}


def _train(
    workspace: Workspace, options: Options, base: str, name: str, settings: dict[str, Any], update: Any
) -> dict[str, Any]:
    from data_pipeline.tokenizer import Tokenizer
    from gpt.checkpoint import load_model
    from gpt.classify import ClassifierConfig, Example, FineTuneRecord, fine_tune, save_classifier
    from workflows import tracking
    from workflows.models import read_config
    from workflows.passages import build_task

    gpt, content = load_model(workspace.model(base))
    provenance = content["extra"]
    version = workspace.corpus.at(provenance.get("corpus_version"))
    task = build_task(workspace.corpus, version, options.passages)
    tokenizer_json = workspace.model(base) / "tokenizer.json"
    tokenizer = Tokenizer.load(tokenizer_json)
    train, val = (
        [Example(tokenizer.encode(passage.text), passage.label) for passage in passages]
        for passages in (task.train, task.val)
    )
    config = ClassifierConfig(num_classes=len(task.labels), **asdict(options.finetune))
    config.validate()
    if not train or not val:
        raise ConfigError("passages: no training or no validation passage; lower passages.chars")
    parent = provenance.get("mlflow_run_id")
    with tracking.start_run(workspace, "finetune", name, settings, parent=parent) as run:
        for key in ("manifest_hash", "corpus_version"):
            run.tag(f"gptmill.{key}", provenance.get(key, ""))
        run.tag("gptmill.base_model", base)
        run.tag("gptmill.model", name)

        def on_update(record: FineTuneRecord) -> None:
            values = {
                "train/loss": record.loss,
                "train/lm_loss": record.lm_loss,
                "learning_rate": record.learning_rate,
            }
            if record.val_accuracy is not None and record.val_loss is not None:
                values |= {"val/accuracy": record.val_accuracy, "val/loss": record.val_loss}
            run.metrics(values, step=record.step)
            update(f"epoch {record.epoch:.1f}/{options.finetune.epochs}, loss {record.loss:.3f}")

        classifier, result = fine_tune(
            gpt,
            train,
            val,
            config,
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
            "base_run_id": parent,
            "mlflow_run_id": run.run_id,
            "corpus_version": version["version"],
        }
        save_classifier(workspace.model(name), classifier, tokenizer_json, extra)
        run.metrics({"accuracy": result.accuracy, "majority_accuracy": result.majority_accuracy})
        run.artifact(workspace.model(name) / "config.json")
    saved = read_config(workspace.model(name))
    assert saved is not None
    return saved


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "finetune", __doc__))
