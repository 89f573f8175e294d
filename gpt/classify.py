"""Fine-tune a pretrained GPT to classify text, as GPT-1 did (Radford 2018, sections 3.2 and 3.3).

Shapes: B examples of a batch, T longest input of the batch, D width, C classes, V vocab_size.

The input is [start; text; extract]. A linear layer reads the last hidden state at the extract token, and the
training loss is L3 = L2 (classes) + lm_coefficient * L1 (the language model on the same input; equation 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.checkpoint import read_model_folder, write_model_folder
from gpt.config import ConfigError, ModelConfig, Precision, TrainConfig
from gpt.model import GPT, IGNORE_INDEX, token_losses
from gpt.optim import build_optimizers
from gpt.order import hash_key, permute


class Example(NamedTuple):
    """A text and its class."""

    tokens: Sequence[int]
    """Token ids of the text alone."""
    label: int
    """Class, 0 the first."""


@dataclass(frozen=True)
class ClassifierConfig:
    """How to fine-tune; the defaults are GPT-1's (Radford 2018, section 4.1)."""

    num_classes: int = 0
    """Number of classes; 0 = one more than the highest label."""
    epochs: int = 3
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples an update."""
    lr: float = 6.25e-5
    """Highest learning rate; models far smaller than GPT-1's 117M want more."""
    warmup_ratio: float = 0.002
    """Share of all updates spent in linear warm-up; a linear decay to 0 follows."""
    weight_decay: float = 0.01
    """AdamW weight decay of the matrices."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 = no clipping."""
    dropout: float = 0.1
    """Share of activations dropped, in the pretrained blocks and before the classifier."""
    lm_coefficient: float = 0.5
    """Weight of the auxiliary language-model loss (lambda in equation 5); 0 = none."""
    max_length: int = 0
    """Longest input in tokens, start and extract included; longer texts lose their end. 0 = the model's context."""
    precision: Precision = "fp32"
    """Type of the matrix products: bf16 (autocast over fp32 weights) or fp32."""
    seed: int = 1337
    """Seed of the classifier's weights, the order of examples and dropout."""

    def validate(self) -> None:
        """Refuse settings that cannot run.

        Raises:
            ConfigError: names the field and its value.
        """
        for name, least in (("epochs", 1), ("batch_size", 1), ("num_classes", 0), ("lm_coefficient", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}; it must be positive")
        for name in ("warmup_ratio", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if self.max_length and self.max_length < 3:
            raise ConfigError(f"max_length is {self.max_length}; start, one token and extract need 3")


@dataclass(frozen=True)
class FineTuneRecord:
    """One update, and after the last of an epoch the validation too."""

    step: int
    """Updates made, this one included."""
    epoch: float
    """Passes over the training examples so far."""
    loss: float
    """Classification loss, nats an example."""
    lm_loss: float
    """Auxiliary language-model loss, nats a token; 0 where it is off."""
    learning_rate: float
    """Learning rate of this update."""
    val_accuracy: float | None = None
    """Share of validation examples classified right, after the last update of an epoch."""
    val_loss: float | None = None
    """Classification loss on the validation examples, likewise."""


@dataclass(frozen=True)
class ClassifierResult:
    """How fine-tuning ended; plain values."""

    accuracy: float
    """Share of validation examples classified right."""
    majority_accuracy: float
    """What always naming the commonest class of the training examples would reach."""
    confusion: list[list[int]]
    """Validation examples by [true class][predicted class]."""
    history: list[FineTuneRecord]
    """Every update, in order: the loss curves."""


class _Batch(NamedTuple):
    tokens_BT: Tensor  # int64, right-padded with the extract token, which causal attention keeps unseen
    targets_BT: Tensor  # next tokens, IGNORE_INDEX in the padding
    last_B: Tensor  # position of the extract token
    labels_B: Tensor


class Classifier(nn.Module):
    """A GPT and a linear layer over its last hidden state at the extract token.

    Args:
        gpt: trained further in place.
        num_classes: outputs.
        start_token, extract_token: token ids around the text; one id may serve as both.
        dropout: before the linear layer.
        max_length: longest input, 0 = the model's context length.
    """

    def __init__(
        self,
        gpt: GPT,
        num_classes: int,
        *,
        start_token: int,
        extract_token: int,
        dropout: float = 0.0,
        max_length: int = 0,
    ) -> None:
        super().__init__()
        self.gpt = gpt
        self.num_classes = num_classes
        self.start_token = start_token
        self.extract_token = extract_token
        self.max_length = min(max_length or gpt.config.context_length, gpt.config.context_length)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(gpt.config.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.to(gpt.device)

    def forward(self, tokens_BT: Tensor, last_B: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, C] and the hidden states [B, T, D] they come from."""
        x_BTD = self.gpt.hidden(tokens_BT)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        return self.head(self.dropout(x_BTD[rows_B, last_B])), x_BTD

    @torch.inference_mode()
    def predict(self, texts: Sequence[Sequence[int]], batch_size: int = 32) -> np.ndarray:
        """Class probabilities [len(texts), C], float32, in evaluation mode."""
        was_training = self.training
        self.eval()
        parts = [np.zeros((0, self.num_classes), np.float32)]
        for first in range(0, len(texts), batch_size):
            batch = self.collate([Example(tokens, 0) for tokens in texts[first : first + batch_size]])
            logits_BC, _ = self(batch.tokens_BT, batch.last_B)
            parts.append(logits_BC.float().softmax(-1).cpu().numpy())
        self.train(was_training)
        return np.concatenate(parts)

    def collate(self, examples: Sequence[Example]) -> _Batch:
        """[start; text; extract] of each example as one padded batch on the model's device."""
        inputs = [
            [self.start_token, *example.tokens[: self.max_length - 2], self.extract_token]
            for example in examples
        ]
        lengths = torch.tensor([len(tokens) for tokens in inputs])
        tokens_BT = torch.full((len(inputs), int(lengths.max())), self.extract_token)
        targets_BT = torch.full_like(tokens_BT, IGNORE_INDEX)
        for row, tokens in enumerate(inputs):
            tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
            targets_BT[row, : len(tokens) - 1] = tokens_BT[row, 1 : len(tokens)]
        labels = torch.tensor([example.label for example in examples])
        return _Batch(*(part.to(self.gpt.device) for part in (tokens_BT, targets_BT, lengths - 1, labels)))


def fine_tune(
    gpt: GPT,
    train: Sequence[Example],
    val: Sequence[Example],
    config: ClassifierConfig,
    *,
    start_token: int,
    extract_token: int,
    callback: Callable[[FineTuneRecord], None] | None = None,
) -> tuple[Classifier, ClassifierResult]:
    """Train a classifier on top of a pretrained model.

    Args:
        gpt: trained further in place.
        train, val: examples; labels in [0, num_classes).
        config: how.
        start_token, extract_token: token ids around the text.
        callback: called after every update.

    Raises:
        ConfigError: impossible settings, or examples that do not fit them.
    """
    config.validate()
    num_classes = _count_classes(train, val, config)
    torch.manual_seed(hash_key("classifier", config.seed))
    gpt.set_dropout(config.dropout)
    classifier = Classifier(
        gpt,
        num_classes,
        start_token=start_token,
        extract_token=extract_token,
        dropout=config.dropout,
        max_length=config.max_length,
    )
    roles = {f"gpt.{name}": role for name, role in gpt.parameter_roles().items()}
    settings = TrainConfig(lr=config.lr, weight_decay=config.weight_decay, beta1=0.9, beta2=0.999)
    (optimizer,) = build_optimizers(
        classifier, roles | {"head.weight": "head", "head.bias": "vector"}, settings
    )
    steps_per_epoch = -(-len(train) // config.batch_size)
    num_steps = config.epochs * steps_per_epoch
    history: list[FineTuneRecord] = []
    for step in range(num_steps):
        epoch, number = divmod(step, steps_per_epoch)
        rate = _learning_rate(step, num_steps, config)
        examples = _batch_examples(train, epoch, number, config)
        loss, lm_loss = _update(classifier, optimizer, classifier.collate(examples), rate, config)
        record = FineTuneRecord(step + 1, (step + 1) / steps_per_epoch, loss, lm_loss, rate)
        if number == steps_per_epoch - 1:
            accuracy, val_loss, confusion = evaluate_classifier(classifier, val, config.batch_size)
            record = dataclasses.replace(record, val_accuracy=accuracy, val_loss=val_loss)
        history.append(record)
        if callback:
            callback(record)
    majority = np.bincount([example.label for example in train]).argmax()
    majority_accuracy = float(np.mean([example.label == majority for example in val]))
    classifier.eval()
    return classifier, ClassifierResult(accuracy, majority_accuracy, confusion.tolist(), history)


def evaluate_classifier(
    classifier: Classifier, examples: Sequence[Example], batch_size: int = 32
) -> tuple[float, float, np.ndarray]:
    """Accuracy, mean loss in nats, and confusion matrix [true, predicted]."""
    probabilities = classifier.predict([example.tokens for example in examples], batch_size)
    labels = np.array([example.label for example in examples])
    predicted = probabilities.argmax(1)
    confusion = np.zeros((classifier.num_classes, classifier.num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    of_label = probabilities[np.arange(len(labels)), labels]
    return float((predicted == labels).mean()), float(-np.log(np.maximum(of_label, 1e-12)).mean()), confusion


def save_classifier(
    folder: Path, classifier: Classifier, tokenizer_json: Path, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a classifier that stands alone: config.json, model.safetensors, tokenizer.json."""
    content = {
        "kind": "classifier",
        "model": dataclasses.asdict(classifier.gpt.config),
        "num_classes": classifier.num_classes,
        "start_token": classifier.start_token,
        "extract_token": classifier.extract_token,
        "max_length": classifier.max_length,
        "extra": dict(extra or {}),
    }
    write_model_folder(folder, classifier.state_dict(), tokenizer_json, content)
    return folder


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> tuple[Classifier, dict[str, Any]]:
    """Read a saved classifier, in evaluation mode, and its config.json.

    Raises:
        ConfigError: no classifier there, or a damaged file.
    """
    tensors, content = read_model_folder(folder, "classifier")
    classifier = Classifier(
        GPT(ModelConfig(**content["model"])),
        content["num_classes"],
        start_token=content["start_token"],
        extract_token=content["extract_token"],
        max_length=content["max_length"],
    )
    classifier.load_state_dict(tensors)
    return classifier.to(device).eval(), content


def _update(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    batch: _Batch,
    rate: float,
    config: ClassifierConfig,
) -> tuple[float, float]:
    """One update on L3 = L2 + lm_coefficient * L1; returns L2 and L1."""
    classifier.train()
    with torch.autocast(classifier.gpt.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits_BC, x_BTD = classifier(batch.tokens_BT, batch.last_B)
        loss = F.cross_entropy(logits_BC.float(), batch.labels_B)
        lm_loss = torch.zeros_like(loss)
        if config.lm_coefficient:
            nll_BT = token_losses(classifier.gpt.logits(x_BTD), batch.targets_BT)
            # The mean over each input, then over the batch, as in the authors' code. last_B is its target count.
            lm_loss = (nll_BT.sum(1) / batch.last_B).mean()
    (loss + config.lm_coefficient * lm_loss).backward()
    if config.grad_clip:
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), config.grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), lm_loss.item()


def _batch_examples(
    train: Sequence[Example], epoch: int, number: int, config: ClassifierConfig
) -> list[Example]:
    """Batch `number` of an epoch: each example once, in an order of its own for each epoch."""
    first = number * config.batch_size
    places = np.arange(first, min(first + config.batch_size, len(train)))
    chosen = permute(places, len(train), hash_key("fine-tune", config.seed, epoch))
    return [train[i] for i in chosen]


def _learning_rate(step: int, num_steps: int, config: ClassifierConfig) -> float:
    """Linear warm-up, then linear decay to 0."""
    warmup_steps = round(config.warmup_ratio * num_steps)
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    return config.lr * (num_steps - step) / (num_steps - warmup_steps)


def _count_classes(train: Sequence[Example], val: Sequence[Example], config: ClassifierConfig) -> int:
    if not train or not val:
        raise ConfigError(
            f"{len(train)} training and {len(val)} validation examples; fine-tuning needs some of both"
        )
    labels = {example.label for example in (*train, *val)}
    num_classes = config.num_classes or max(labels) + 1
    if min(labels) < 0 or max(labels) >= num_classes:
        raise ConfigError(
            f"labels run from {min(labels)} to {max(labels)}, num_classes is {num_classes}; use 0 to {num_classes - 1}"
        )
    return num_classes
