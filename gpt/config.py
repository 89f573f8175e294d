"""What a person sets: the shape of the network and the training schedule. Imports no torch, so --help is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

# Rows of the embedding are padded to a multiple of this, so that the head's matrix product runs on full tiles.
VOCAB_MULTIPLE = 64

Precision = Literal["bf16", "fp32"]


class ConfigError(ValueError):
    """The user's configuration is wrong: one line that names the field, its value and the mend."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


Positions = Literal["learned", "rotary"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["pre", "post"]
Activation = Literal["gelu", "relu2", "swiglu"]
Init = Literal["gpt1", "gpt2", "modern"]


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network; the defaults are GPT-2's (Radford 2019), `gpt/presets.py` has the papers' tables."""

    vocab_size: int = 0
    """Number of tokens the model knows; 0 takes it from the dataset."""
    context_length: int = 256
    """Tokens the model sees at once, and the length of a training sequence."""
    num_layers: int = 4
    """Number of transformer blocks."""
    num_heads: int = 4
    """Attention heads a block; must divide width."""
    num_kv_heads: int = 0
    """Heads of keys and values, shared by groups of query heads (grouped-query attention); 0 = num_heads."""
    width: int = 256
    """Width of the residual stream (d_model)."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP as a multiple of width; swiglu has three matrices, so 8/3 costs what 4 costs others."""
    positions: Positions = "learned"
    """Where a token stands: learned (an embedding a position) or rotary (RoPE: queries and keys are turned)."""
    rotary_base: float = 10_000.0
    """Wavelength of the slowest rotary pair is about 2 pi times this."""
    norm: Norm = "layer"
    """layer (LayerNorm) or rms (RMSNorm)."""
    norm_place: NormPlace = "pre"
    """pre: each branch reads a normalised copy of the stream (GPT-2); post: the sum is normalised (GPT-1)."""
    norm_gain: bool = True
    """Whether norms have a learned gain."""
    norm_eps: float = 1e-5
    """Added to the variance under the root of every norm."""
    embedding_norm: bool = False
    """Normalise the token embeddings before the first block."""
    qk_norm: bool = False
    """RMSNorm of each head's queries and keys before their product."""
    activation: Activation = "gelu"
    """Of the MLP: gelu (the tanh form of GPT-1 and GPT-2), relu2 (squared ReLU) or swiglu (gated)."""
    window: int = 0
    """Tokens that the windowed layers see, their own included; 0 = all layers see the whole context."""
    window_pattern: str = "F"
    """One letter a layer, repeated: F sees the full context, W the window. GPT-3's alternation is FW."""
    logit_soft_cap: float = 0.0
    """Logits x become c * tanh(x / c); 0 = no cap."""
    dropout: float = 0.0
    """Share of activations dropped in embeddings, attention and residual branches while training."""
    bias: bool = True
    """Bias terms in linear layers and in LayerNorm, as GPT-2 has them."""
    tie_embeddings: bool = True
    """Use the token embedding as the output head too."""
    mask_documents: bool = False
    """No attention across the documents of a packed sequence, and positions that begin anew in each."""
    init: Init = "gpt2"
    """First weights: gpt1, gpt2 (residual projections start smaller), modern (they start at zero)."""
    multitask: bool = False
    """Carry what masked-token and next-sentence prediction need: a mask embedding, a next-sentence head."""

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token embedding: vocab_size, and the mask if there is one, rounded up to a multiple of 64."""
        return math.ceil((self.vocab_size + self.multitask) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def mask_token(self) -> int:
        """Id of the mask: the first padded row, so that no text has it and no head chooses it."""
        assert self.multitask, "a model without multitask has no mask"
        return self.vocab_size

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Hidden units of a block's MLP."""
        return round(self.mlp_ratio * self.width)

    @property
    def windows(self) -> tuple[int, ...]:
        """Window of each layer, 0 where it sees the full context."""
        letters = (self.window_pattern[i % len(self.window_pattern)] for i in range(self.num_layers))
        # A window as long as the context hides nothing.
        bounded = self.window if self.window < self.context_length else 0
        return tuple(bounded if letter == "W" else 0 for letter in letters)

    def num_parameters(self) -> int:
        """Parameters the model holds, the padded rows of the vocabulary included; closed form."""
        has_bias = self.norm == "layer" and self.bias
        norm = self.width * (self.norm_gain + has_bias)
        num_norms = 2 * self.num_layers + (self.norm_place == "pre") + self.embedding_norm
        qk_norm = 2 * self.head_width * self.norm_gain if self.qk_norm else 0
        vectors = num_norms * norm + self.num_layers * qk_norm
        if self.bias:
            kv_width = self.kv_heads * self.head_width
            up_width = self.mlp_width * (2 if self.activation == "swiglu" else 1)
            vectors += self.num_layers * (self.width + 2 * kv_width + up_width + 2 * self.width)
        positions = self.context_length * self.width if self.positions == "learned" else 0
        looked_up = positions + (0 if self.tie_embeddings else self.padded_vocab_size * self.width)
        sentence_head = 2 * self.width + 2 if self.multitask else 0
        return self.num_product_parameters() + vectors + looked_up + sentence_head

    def num_product_parameters(self) -> int:
        """Parameters that each token is multiplied with: the blocks' matrices and the language head."""
        kv_width = self.kv_heads * self.head_width
        attention = self.width * (2 * self.width + 2 * kv_width)
        mlp = self.width * self.mlp_width * (3 if self.activation == "swiglu" else 2)
        return self.num_layers * (attention + mlp) + self.padded_vocab_size * self.width

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
        for name in ("num_kv_heads", "window", "logit_soft_cap"):
            value = getattr(self, name)
            _require(value >= 0, f"{name} is {value}; it must not be negative")
        for name, choices in _MODEL_CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{name} is {value!r}; use {' or '.join(choices)}")
        if self.width % self.num_heads:
            below = self.width // self.num_heads * self.num_heads
            near = f"{below} or {below + self.num_heads}" if below else str(self.num_heads)
            raise ConfigError(
                f"num_heads {self.num_heads} does not divide width {self.width}; the nearest widths that work are {near}"
            )
        _require(
            self.num_heads % self.kv_heads == 0,
            f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}; use a divisor, or 0 for as many",
        )
        _require(
            self.positions == "learned" or self.head_width % 2 == 0,
            f"num_heads {self.num_heads} of width {self.width} are {self.head_width} wide; rotary positions turn pairs, so "
            "a head must have an even width",
        )
        _require(
            self.rotary_base > 1, f"rotary_base is {self.rotary_base}; it must be over 1, usual is 10000"
        )
        _require(self.norm_eps > 0, f"norm_eps is {self.norm_eps}; it must be positive, usual is 1e-5")
        _require(self.mlp_width >= 1, f"mlp_ratio is {self.mlp_ratio}; it must be positive, GPT-2 uses 4")
        _require(
            bool(self.window_pattern) and set(self.window_pattern) <= set("FW"),
            f"window_pattern is {self.window_pattern!r}; use letters F (full) and W (window), one a layer, repeated",
        )
        _require(
            self.window > 0 or "W" not in self.window_pattern,
            f"window_pattern is {self.window_pattern!r}, but window is 0; set how many tokens a windowed layer sees",
        )
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must lie in [0, 1)")


_MODEL_CHOICES = {
    "positions": get_args(Positions),
    "norm": get_args(Norm),
    "norm_place": get_args(NormPlace),
    "activation": get_args(Activation),
    "init": get_args(Init),
}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the network is asked to predict, each with a weight; a weight of 0 costs nothing and changes nothing.

    The loss of a step is the weighted sum of the objectives' losses, each divided by its targets in the global batch: for
    masked tokens and pairs of texts by as many as there can be (gpt.objectives.target_counts).
    """

    causal: float = 1.0
    """Weight of next-token prediction at the beginning of training."""
    masked: float = 0.0
    """Weight of masked-token prediction (BERT's, with attention both ways); model.multitask must be on."""
    sentence: float = 0.0
    """Weight of next-sentence prediction: does the second text follow the first?; model.multitask must be on."""
    causal_end: float | None = None
    """The same at the end, weights move linearly in between; empty = as at the beginning."""
    masked_end: float | None = None
    """The same for masked-token prediction."""
    sentence_end: float | None = None
    """The same for next-sentence prediction."""
    mask_ratio: float = 0.15
    """Share of the tokens that masked-token prediction asks for."""

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that have a weight at the beginning or at the end; the others are never computed."""
        return tuple(
            name
            for name in ("causal", "masked", "sentence")
            if getattr(self, name) or getattr(self, f"{name}_end")
        )

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each of `names` after a share of the training."""
        weights = {}
        for name in self.names:
            first, last = getattr(self, name), getattr(self, f"{name}_end")
            weights[name] = first if last is None else first + (last - first) * progress
        return weights

    @property
    def needs_multitask(self) -> bool:
        """Whether a model without mask and sentence head cannot be trained by this."""
        return any((self.masked, self.masked_end, self.sentence, self.sentence_end))

    def validate(self, model: ModelConfig) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigError: names the field and its value.
        """
        for name in ("causal", "masked", "sentence", "causal_end", "masked_end", "sentence_end"):
            value = getattr(self, name)
            _require(
                value is None or (value >= 0 and math.isfinite(value)),
                f"objectives.{name} is {value}; it must be 0 or more",
            )
        _require(bool(self.names), "objectives has no weight over 0; leave causal at 1")
        _require(
            0 < self.mask_ratio < 1, f"objectives.mask_ratio is {self.mask_ratio}; it must lie in (0, 1)"
        )
        _require(
            model.multitask or not self.needs_multitask,
            "objectives has masked or sentence prediction, but model.multitask is off; turn it on, the model needs a mask "
            "and a sentence head",
        )
        _require(
            "sentence" not in self.names or model.context_length >= 16,
            f"objectives has sentence prediction, but context_length is {model.context_length}; pairs of texts need 16",
        )


@dataclass(frozen=True)
class MixtureStage:
    """Another mixture of the sources, from a step on."""

    from_step: int
    """First step (0 the first of training) that draws by these weights."""
    weights: dict[str, float]
    """Share of each source, by name; any positive scale, 0 leaves a source out."""


@dataclass(frozen=True)
class TrainConfig:
    """The training schedule. A step is one update on one global batch, however many workers share it."""

    num_steps: int = 1000
    """Updates to train for."""
    batch_size: int = 32
    """Sequences in a global batch, over all workers and micro-batches."""
    batch_ramp_start: int = 0
    """Sequences in the first global batch of a ramp up to batch_size (GPT-3); 0 = no ramp."""
    batch_ramp_samples: int = 0
    """Sequences over which the global batch grows from batch_ramp_start, in steps of its size, to batch_size."""
    micro_batch_size: int = 0
    """Sequences in one forward of one worker; 0 = the worker's whole share. Lower it to save memory."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for everything, or muon for the matrices of the blocks and adamw for the rest."""
    lr: float = 1e-3
    """Highest learning rate of AdamW, reached at the end of the warm-up."""
    embedding_lr: float = 0.0
    """The same for embeddings; 0 = lr."""
    head_lr: float = 0.0
    """The same for an untied output head; 0 = lr."""
    vector_lr: float = 0.0
    """The same for norm gains, biases and other vectors; 0 = lr."""
    muon_lr: float = 0.02
    """The same for the matrices that Muon updates: the step is of this size times sqrt(max(1, rows / columns))."""
    muon_momentum: float = 0.95
    """Nesterov momentum of Muon."""
    muon_weight_decay: float = 0.0
    """Decoupled weight decay of the matrices that Muon updates."""
    schedule: Literal["cosine", "linear", "wsd", "inverse_sqrt"] = "cosine"
    """How learning rates fall after the warm-up; wsd stays at the top until the last decay_ratio of the steps."""
    min_lr_ratio: float = 0.1
    """Learning rate at the end of the schedule, as a share of the highest."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    decay_steps: int = 0
    """Step at which cosine and linear reach their end and stay there; 0 = num_steps."""
    decay_ratio: float = 0.4
    """Share of the steps in which wsd falls, linearly."""
    weight_decay: float = 0.1
    """AdamW weight decay of the matrices; biases and norm gains do not decay."""
    beta1: float = 0.9
    """AdamW decay of the first moment."""
    beta2: float = 0.95
    """AdamW decay of the second moment."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 = no clipping."""
    z_loss: float = 0.0
    """Weight of the square of the logits' log-normaliser beside the loss (PaLM: 1e-4); keeps logits from drifting."""
    ema_decay: float = 0.0
    """Decay a step of an average of the weights that is evaluated and exported instead of them; 0 = none."""
    eval_every: int = 250
    """Steps between evaluations; 0 = only before and after training."""
    eval_tokens: int = 100_000
    """Most validation tokens a source in one evaluation."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0 = only at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    keep_every: int = 0
    """Checkpoints of steps that this divides are kept for good; 0 = none."""
    async_checkpoints: bool = True
    """Write checkpoints in the background, from a copy of weights and moments, while training goes on."""
    log_every: int = 1
    """Steps between step records; the loss of a record covers all steps since the last one."""
    seed: int = 1337
    """Seed of the weights, the data order and dropout."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of the matrix products: bf16 or fp16 (autocast over fp32 weights; fp16 with a loss scaler) or fp32."""
    compile: bool = False
    """Fuse the network's operations with torch.compile; takes a minute first, and on CPUs a C++ compiler."""
    recompute: bool = False
    """Keep only the inputs of the blocks and compute them again in the backward pass: less memory, a third slower."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Workers hold whole copies of the model (ddp), or shards of weights and moments (fsdp: what does not fit)."""
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is predicted: next tokens, masked tokens, whether a text follows another."""
    loss_chunk: int = 1024
    """Tokens whose logits exist at a time; 0 = those of the whole micro-batch."""
    packing: Literal["contiguous", "best_fit"] = "contiguous"
    """Sequences cut from the stream of documents, or whole documents fitted into sequences (the rest is padding)."""
    max_epochs: float | None = None
    """Most passes over any one source, checked before training; empty or 0 = no cap."""
    source_weights: dict[str, float] | None = None
    """Share of each source in the training mixture, by name; empty = its tokens times its weight in the corpus."""
    mixture_stages: list[MixtureStage] = field(default_factory=list)
    """Other mixtures later in training, by step; the first is source_weights."""
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
            "batch_ramp_start",
            "batch_ramp_samples",
            "micro_batch_size",
            "embedding_lr",
            "head_lr",
            "vector_lr",
            "warmup_steps",
            "decay_steps",
            "weight_decay",
            "muon_weight_decay",
            "grad_clip",
            "z_loss",
            "eval_every",
            "checkpoint_every",
            "keep_every",
            "loss_chunk",
        ):
            value = getattr(self, name)
            _require(value >= 0, f"{name} is {value}; it must not be negative")
        self._check_batches()
        for name in ("lr", "muon_lr"):
            value = getattr(self, name)
            _require(value > 0, f"{name} is {value}; it must be positive")
        for name in ("min_lr_ratio", "decay_ratio"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} is {value}; it must lie in [0, 1]")
        _require(
            self.warmup_steps <= self.num_steps,
            f"warmup_steps {self.warmup_steps} is longer than num_steps {self.num_steps}; lower it to about "
            f"{max(1, self.num_steps // 20)}",
        )
        _require(
            self.decay_steps == 0 or self.decay_steps > self.warmup_steps,
            f"decay_steps {self.decay_steps} is not after warmup_steps {self.warmup_steps}; raise it, or leave it at 0",
        )
        for name in ("beta1", "beta2", "muon_momentum", "ema_decay"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} is {value}; it must lie in [0, 1)")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{name} is {value!r}; use {' or '.join(choices)}")
        _require(
            not (self.parallel == "fsdp" and self.precision == "fp16"),
            "precision fp16 does not go with parallel fsdp; use bf16",
        )
        _require(
            self.max_epochs is None or self.max_epochs >= 0,
            f"max_epochs is {self.max_epochs}; it must not be negative (leave it empty for no cap)",
        )
        _check_weights("source_weights", self.source_weights or {})
        before = 0
        for number, stage in enumerate(self.mixture_stages):
            where = f"mixture_stages[{number}]"
            _require(
                stage.from_step > before,
                f"{where}.from_step is {stage.from_step}; it must be after {before}: stages go by step",
            )
            before = stage.from_step
            _check_weights(f"{where}.weights", stage.weights)

    def _check_batches(self) -> None:
        _require(
            self.micro_batch_size == 0 or self.batch_size % self.micro_batch_size == 0,
            f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}; use a divisor, "
            "or 0 for the worker's whole share",
        )
        _require(
            self.batch_ramp_start == 0
            or (self.batch_ramp_start < self.batch_size and self.batch_size % self.batch_ramp_start == 0),
            f"batch_ramp_start {self.batch_ramp_start} is no proper divisor of batch_size {self.batch_size}; use one, "
            "or 0 for no ramp",
        )
        _require(
            bool(self.batch_ramp_start) == bool(self.batch_ramp_samples),
            f"batch_ramp_start {self.batch_ramp_start} and batch_ramp_samples {self.batch_ramp_samples} go together; "
            "set both, or neither",
        )


_CHOICES = {
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "linear", "wsd", "inverse_sqrt"),
    "precision": ("bf16", "fp16", "fp32"),
    "parallel": ("ddp", "fsdp"),
    "packing": ("contiguous", "best_fit"),
}


def _check_weights(name: str, weights: dict[str, float]) -> None:
    for source, weight in weights.items():
        _require(
            weight >= 0 and math.isfinite(weight),
            f"{name}.{source} is {weight}; it must be a finite number, 0 or more",
        )
