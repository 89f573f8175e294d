"""What a person sets: the shape of the network and the training schedule. Imports no torch, so --help is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Rows of the embedding are padded to a multiple of this, so that the head's matrix product runs on full tiles.
VOCAB_MULTIPLE = 64

Precision = Literal["bf16", "fp32"]


class ConfigError(ValueError):
    """The user's configuration is wrong: one line that names the field, its value and the mend."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a GPT-2 style network (Radford 2019): pre-norm, learned positions, GELU."""

    vocab_size: int = 0
    """Number of tokens the model knows; 0 takes it from the dataset."""
    context_length: int = 256
    """Tokens the model sees at once, and the length of a training sequence."""
    num_layers: int = 4
    """Number of transformer blocks."""
    num_heads: int = 4
    """Attention heads a block; must divide width."""
    width: int = 256
    """Width of the residual stream (d_model)."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP as a multiple of width."""
    dropout: float = 0.0
    """Share of activations dropped in embeddings, attention and residual branches while training."""
    bias: bool = True
    """Bias terms in linear layers and norms, as GPT-2 has them."""
    tie_embeddings: bool = True
    """Use the token embedding as the output head too."""

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token embedding: vocab_size rounded up to a multiple of 64."""
        return math.ceil(self.vocab_size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def mlp_width(self) -> int:
        """Hidden units of a block's MLP."""
        return round(self.mlp_ratio * self.width)

    def num_parameters(self) -> int:
        """Parameters the model holds, the padded rows of the vocabulary included; closed form."""
        bias = int(self.bias)
        norm = self.width * (1 + bias)
        attention = self.width * 4 * self.width + bias * 4 * self.width
        mlp = 2 * self.width * self.mlp_width + bias * (self.mlp_width + self.width)
        embeddings = (self.padded_vocab_size + self.context_length) * self.width
        head = 0 if self.tie_embeddings else self.padded_vocab_size * self.width
        return embeddings + self.num_layers * (2 * norm + attention + mlp) + norm + head

    def validate(self) -> None:
        """Refuse shapes that cannot be built.

        Raises:
            ConfigError: names the field and its value.
        """
        _require(
            self.vocab_size >= 0,
            f"vocab_size is {self.vocab_size}; use 0 to take it from the dataset, or its real size",
        )
        for name in ("context_length", "num_layers", "num_heads", "width"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        if self.width % self.num_heads:
            below = self.width // self.num_heads * self.num_heads
            near = f"{below} or {below + self.num_heads}" if below else str(self.num_heads)
            raise ConfigError(
                f"num_heads {self.num_heads} does not divide width {self.width}; the nearest widths that work are {near}"
            )
        _require(self.mlp_width >= 1, f"mlp_ratio is {self.mlp_ratio}; it must be positive, GPT-2 uses 4")
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """The training schedule. A step is one update on one global batch, however many workers share it."""

    num_steps: int = 1000
    """Updates to train for."""
    batch_size: int = 32
    """Sequences in a global batch, over all workers and micro-batches."""
    micro_batch_size: int = 0
    """Sequences in one forward of one worker; 0 = the worker's whole share. Lower it to save memory."""
    lr: float = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    min_lr_ratio: float = 0.1
    """Learning rate at the end of the cosine, as a share of lr."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """AdamW weight decay of the matrices; biases and norm gains do not decay."""
    beta1: float = 0.9
    """AdamW decay of the first moment."""
    beta2: float = 0.95
    """AdamW decay of the second moment."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 = no clipping."""
    eval_every: int = 250
    """Steps between evaluations; 0 = only before and after training."""
    eval_tokens: int = 100_000
    """Most validation tokens a source in one evaluation."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0 = only at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    log_every: int = 1
    """Steps between step records; the loss of a record covers all steps since the last one."""
    seed: int = 1337
    """Seed of the weights, the data order and dropout."""
    precision: Precision = "bf16"
    """Type of the matrix products: bf16 (autocast over fp32 weights) or fp32."""
    max_epochs: float | None = None
    """Most passes over any one source, checked before training; empty or 0 = no cap."""
    source_weights: dict[str, float] | None = None
    """Share of each source in the training mixture, by name; empty = its tokens times its weight in the corpus."""
    verify_shards: bool = False
    """Hash every shard before training and compare with the manifest (sizes are always compared)."""

    def validate(self) -> None:
        """Refuse schedules that cannot run.

        Raises:
            ConfigError: names the field and its value.
        """
        for name in ("num_steps", "batch_size", "keep_checkpoints", "log_every", "eval_tokens"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        for name in (
            "micro_batch_size",
            "warmup_steps",
            "weight_decay",
            "grad_clip",
            "eval_every",
            "checkpoint_every",
        ):
            value = getattr(self, name)
            _require(value >= 0, f"{name} is {value}; it must not be negative")
        _require(
            self.micro_batch_size == 0 or self.batch_size % self.micro_batch_size == 0,
            f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}; use a divisor, "
            "or 0 for the worker's whole share",
        )
        _require(self.lr > 0, f"lr is {self.lr}; it must be positive")
        _require(0 <= self.min_lr_ratio <= 1, f"min_lr_ratio is {self.min_lr_ratio}; it must lie in [0, 1]")
        _require(
            self.warmup_steps <= self.num_steps,
            f"warmup_steps {self.warmup_steps} is longer than num_steps {self.num_steps}; lower it to about "
            f"{max(1, self.num_steps // 20)}",
        )
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} is {value}; it must lie in [0, 1)")
        _require(self.precision in ("bf16", "fp32"), f"precision is {self.precision!r}; use bf16 or fp32")
        _require(
            self.max_epochs is None or self.max_epochs >= 0,
            f"max_epochs is {self.max_epochs}; it must not be negative (leave it empty for no cap)",
        )
        for source, weight in (self.source_weights or {}).items():
            _require(
                weight >= 0 and math.isfinite(weight),
                f"source_weights.{source} is {weight}; it must be a finite number, 0 or more",
            )
