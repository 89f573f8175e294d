"""Named recipes: the papers' tables, and one dial for modern models. Any field can be overridden beside a preset.

    python -m gpt.presets              the table
    python -m gpt.presets modern-d12   one of them in words

Every family has a tiny twin that runs the same recipe in seconds on a CPU.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from functools import cache

from gpt.batches import BatchSchedule
from gpt.config import ConfigError, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """A network and the schedule it trains with."""

    model: ModelConfig
    """Shape of the network."""
    train: TrainConfig
    """The training schedule."""
    vocab_size: int = 50257
    """Tokens of the vocabulary it was meant for; the model takes the size of whatever dataset it is given."""
    words: str = ""
    """Where it comes from, in a few words."""

    @property
    def num_parameters(self) -> int:
        """Parameters with its own vocabulary, padding left out, as papers count them."""
        model = replace(self.model, vocab_size=self.vocab_size)
        num_copies = 1 if model.tie_embeddings else 2
        padding = model.padded_vocab_size - model.vocab_size
        return model.num_parameters() - num_copies * padding * model.width

    @property
    def num_tokens(self) -> int:
        """Tokens that the training reads."""
        train = self.train
        batches = BatchSchedule(train.batch_size, train.batch_ramp_start, train.batch_ramp_samples)
        return batches.start(train.num_steps) * self.model.context_length


def preset(name: str) -> Preset:
    """Look a preset up; `modern-dN` is there for every depth N.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    if name in PRESETS:
        return PRESETS[name]
    if dial := re.fullmatch(r"modern-d([1-9]\d{0,2})", name):
        return modern(int(dial[1]))
    raise ConfigError(
        f"preset is {name!r}; the presets are {', '.join(sorted(PRESETS))}, and modern-dN for any depth N"
    )


def _tiny(recipe: Preset, **model: object) -> Preset:
    """The same recipe on a network of some thousand parameters, for a half-minute's training at most."""
    train = recipe.train
    tiny = TrainConfig(num_steps=30, batch_size=8, lr=3e-3, warmup_steps=3, precision="fp32")
    tiny = replace(tiny, eval_every=15, eval_tokens=2_000, checkpoint_every=15)
    for name in (
        "optimizer",
        "schedule",
        "min_lr_ratio",
        "weight_decay",
        "beta1",
        "beta2",
        "grad_clip",
        "decay_ratio",
    ):
        tiny = replace(tiny, **{name: getattr(train, name)})
    if train.batch_ramp_start:
        tiny = replace(tiny, batch_ramp_start=2, batch_ramp_samples=40, decay_steps=26)
    if train.optimizer == "muon":
        tiny = replace(tiny, lr=0.1, head_lr=0.01, muon_lr=train.muon_lr, warmup_steps=1)
    shape = replace(recipe.model, context_length=32, num_layers=2, num_heads=2, width=32)
    return Preset(replace(shape, **model), tiny, 512, "tiny twin")  # type: ignore[arg-type]


# --- GPT-1 (Radford 2018, section 4.1) ---


def _gpt1() -> Preset:
    model = ModelConfig(
        context_length=512,
        num_layers=12,
        num_heads=12,
        width=768,
        norm_place="post",
        dropout=0.1,
        init="gpt1",
    )
    train = TrainConfig(
        # 100 epochs of BooksCorpus: about 1 G tokens, which the paper does not count.
        num_steps=3_050_000,
        batch_size=64,
        micro_batch_size=64,
        lr=2.5e-4,
        min_lr_ratio=0.0,
        warmup_steps=2_000,
        weight_decay=0.01,
        beta2=0.999,
        eval_every=5_000,
        eval_tokens=10_000_000,
        checkpoint_every=5_000,
        log_every=10,
    )
    # 40,000 merges and 478 characters (in a word, and at the end of one).
    return Preset(model, train, 40_478, "Radford 2018")


# --- GPT-2 (Radford 2019, Table 2). Its names count 117, 345, 762 and 1542 M; these are the true numbers ---

# Layers, heads, width. The paper prints no learning rate: schedule, betas and rates are those of GPT-3 at the nearest
# size (Brown 2020, Table 2.1), tokens those with which llm.c reproduces the smallest and the largest.
_GPT2 = {
    "gpt2": (12, 12, 768, 6e-4, 10.0e9, 16),
    "gpt2-medium": (24, 16, 1024, 3e-4, 31.5e9, 16),
    "gpt2-large": (36, 20, 1280, 2.5e-4, 31.5e9, 8),
    "gpt2-xl": (48, 25, 1600, 2e-4, 33.6e9, 8),
}


def _gpt2(
    num_layers: int, num_heads: int, width: int, lr: float, num_tokens: float, micro_batch_size: int
) -> Preset:
    model = ModelConfig(context_length=1024, num_layers=num_layers, num_heads=num_heads, width=width)
    train = TrainConfig(
        # 0.5 M tokens a batch.
        num_steps=int(num_tokens / (512 * 1024)),
        batch_size=512,
        micro_batch_size=micro_batch_size,
        lr=lr,
        warmup_steps=715,
        eval_every=500,
        eval_tokens=10_000_000,
        checkpoint_every=1000,
        log_every=10,
    )
    return Preset(model, train, 50_257, "Radford 2019")


# --- GPT-3 (Brown 2020, Table 2.1 and appendix B) ---

# Layers, heads, width, learning rate, batch in sequences of 2,048, billions of tokens over which the batch grows (the
# paper: 4 to 12 by size). Two misprints are mended: XL has 16 heads (24 of 128 are not 2,048), 13B a width of 5,120
# (40 heads of 128). 3.2 M tokens are 1,562.5 sequences; 1,568 can be divided.
_GPT3 = {
    "gpt3-small": (12, 12, 768, 6.0e-4, 256, 4),
    "gpt3-medium": (24, 16, 1024, 3.0e-4, 256, 4),
    "gpt3-large": (24, 16, 1536, 2.5e-4, 256, 4),
    "gpt3-xl": (24, 16, 2048, 2.0e-4, 512, 6),
    "gpt3-2.7b": (32, 32, 2560, 1.6e-4, 512, 6),
    "gpt3-6.7b": (32, 32, 4096, 1.2e-4, 1024, 8),
    "gpt3-13b": (40, 40, 5120, 1.0e-4, 1024, 10),
    "gpt3-175b": (96, 96, 12288, 0.6e-4, 1568, 12),
}
_GPT3_CONTEXT = 2048
# 32 k tokens.
_GPT3_FIRST_BATCH = 16


def _gpt3(num_layers: int, num_heads: int, width: int, lr: float, batch_size: int, ramp: int) -> Preset:
    model = ModelConfig(
        context_length=_GPT3_CONTEXT,
        num_layers=num_layers,
        num_heads=num_heads,
        width=width,
        # "Alternating dense and locally banded sparse attention"; the band is not printed, 256 is GPT-Neo's.
        window=256,
        window_pattern="FW",
    )
    ramp_samples = round(ramp * 1e9 / _GPT3_CONTEXT)

    def steps(num_tokens: float) -> int:
        return _num_steps(batch_size, ramp_samples, num_tokens)

    train = TrainConfig(
        num_steps=steps(300e9),
        batch_size=batch_size,
        batch_ramp_start=_GPT3_FIRST_BATCH,
        batch_ramp_samples=ramp_samples,
        micro_batch_size=16 if width < 2048 else 8 if width < 4096 else 4,
        lr=lr,
        warmup_steps=steps(375e6),
        decay_steps=steps(260e9),
        recompute=width >= 2048,
        parallel="fsdp" if width >= 4096 else "ddp",
        eval_every=1_000,
        eval_tokens=10_000_000,
        checkpoint_every=1_000,
        log_every=10,
    )
    return Preset(model, train, 50_257, "Brown 2020")


@cache
def _num_steps(batch_size: int, ramp_samples: int, num_tokens: float) -> int:
    """Steps in which a ramp of batches reads that many tokens."""
    batches = BatchSchedule(batch_size, _GPT3_FIRST_BATCH, ramp_samples)
    num_samples = num_tokens / _GPT3_CONTEXT
    # Bisection: samples grow with steps.
    few, many = 0, int(num_samples // _GPT3_FIRST_BATCH) + 1
    while few + 1 < many:
        middle = (few + many) // 2
        few, many = (middle, many) if batches.start(middle) <= num_samples else (few, middle)
    return many


# --- The modern family: one dial ---

_DIAL_VOCAB_SIZE = 32_768
_WIDTH_A_LAYER, _HEAD_WIDTH = 64, 128
_TOKENS_A_PARAMETER = 10
_REFERENCE_DEPTH, _REFERENCE_BATCH_TOKENS = 12, 2**19


def modern(depth: int) -> Preset:
    """The modern recipe at a depth; width, heads, context, learning rates, batch and horizon follow.

    Shape, rates and their scaling are nanochat's (README and dev/LOG.md, 2026-03): what modded-nanogpt's records found,
    without what does not pay at these sizes. The rates were set at depth 12; from there

    - horizon: 10 tokens a parameter in matrix products;
    - batch: by horizon^0.383 (Bergsma 2025), to the nearest power of two;
    - learning rates: by the root of the batch; AdamW's also by 1/sqrt(width);
    - weight decay: by root of the batch / horizon, so that weights forget after the same share of the training.
    """
    shape, num_tokens = _modern_shape(depth)
    _, reference_tokens = _modern_shape(_REFERENCE_DEPTH)
    horizon_ratio = num_tokens / reference_tokens
    batch_tokens = 2 ** round(math.log2(_REFERENCE_BATCH_TOKENS * horizon_ratio**0.383))
    root = math.sqrt(batch_tokens / _REFERENCE_BATCH_TOKENS)
    adam = root * math.sqrt(_WIDTH_A_LAYER * _REFERENCE_DEPTH / shape.width)
    batch_size = batch_tokens // shape.context_length
    num_steps = max(1, round(num_tokens / batch_tokens))
    train = TrainConfig(
        num_steps=num_steps,
        batch_size=batch_size,
        micro_batch_size=min(batch_size, 32 if depth <= 12 else 16 if depth <= 20 else 8),
        optimizer="muon",
        lr=_digits(0.3 * adam),
        head_lr=_digits(0.008 * adam),
        muon_lr=_digits(0.02 * root),
        muon_weight_decay=_digits(0.2 * root / horizon_ratio),
        weight_decay=0.0,
        beta1=0.8,
        schedule="wsd",
        decay_ratio=0.65,
        min_lr_ratio=0.05,
        warmup_steps=min(40, num_steps // 10),
        grad_clip=0.0,
        eval_every=250,
        eval_tokens=10_000_000,
        checkpoint_every=1_000,
        log_every=10,
    )
    return Preset(shape, train, _DIAL_VOCAB_SIZE, "one dial")


def _modern_shape(depth: int) -> tuple[ModelConfig, int]:
    """Network of a depth, and the tokens it is worth."""
    width = math.ceil(depth * _WIDTH_A_LAYER / _HEAD_WIDTH) * _HEAD_WIDTH
    model = ModelConfig(
        context_length=min(2048, 2 ** math.ceil(math.log2(128 * depth))),
        num_layers=depth,
        num_heads=width // _HEAD_WIDTH,
        width=width,
        positions="rotary",
        norm="rms",
        norm_gain=False,
        embedding_norm=True,
        qk_norm=True,
        activation="relu2",
        logit_soft_cap=15.0,
        bias=False,
        tie_embeddings=False,
        init="modern",
    )
    num_products = replace(model, vocab_size=_DIAL_VOCAB_SIZE).num_product_parameters()
    return model, _TOKENS_A_PARAMETER * num_products


def _digits(value: float) -> float:
    """Three digits are enough for a rate, and readable."""
    return float(f"{value:.3g}")


# --- Small ones of our own, and the registry ---

# Seconds on one core: for tests, and for a first look at a new dataset.
_TINY = Preset(
    ModelConfig(context_length=32, num_layers=2, num_heads=2, width=32),
    TrainConfig(
        num_steps=30,
        batch_size=8,
        lr=3e-3,
        warmup_steps=3,
        eval_every=15,
        eval_tokens=2_000,
        checkpoint_every=15,
        precision="fp32",
    ),
    512,
    "for tests",
)
# About 4 M parameters with 4,096 tokens, about two minutes on two CPU cores.
_DEMO = Preset(
    ModelConfig(context_length=256, num_layers=4, num_heads=2, width=256),
    TrainConfig(
        num_steps=360,
        batch_size=8,
        # A higher rate, or a shorter memory of the second moment, learned less in 600 k tokens.
        lr=1e-3,
        beta2=0.99,
        warmup_steps=20,
        eval_every=90,
        eval_tokens=20_000,
        checkpoint_every=90,
    ),
    4096,
    "two minutes on two cores",
)


def _registry() -> dict[str, Preset]:
    presets = {"tiny": _TINY, "demo": _DEMO, "gpt1": _gpt1()}
    presets |= {name: _gpt2(*row) for name, row in _GPT2.items()}
    presets |= {name: _gpt3(*row) for name, row in _GPT3.items()}
    presets |= {f"modern-d{depth}": modern(depth) for depth in (4, 8, 12, 16, 20, 24)}
    presets |= {f"{family}-tiny": _tiny(presets[family]) for family in ("gpt1", "gpt2")}
    presets["gpt3-tiny"] = _tiny(presets["gpt3-small"], window=8)
    presets["modern-tiny"] = _tiny(presets["modern-d4"])
    return presets


PRESETS: dict[str, Preset] = _registry()


def table() -> str:
    """All presets, one a line."""
    lines = [
        f"{'preset':<13}{'parameters':>11}{'layers':>8}{'width':>7}{'heads':>7}{'context':>9}"
        f"{'batch':>9}{'lr':>9}{'steps':>11}{'tokens':>9}  from"
    ]
    for name, recipe in PRESETS.items():
        model, train = recipe.model, recipe.train
        batch = train.batch_size * model.context_length
        lines.append(
            f"{name:<13}{_short(recipe.num_parameters):>11}{model.num_layers:>8}{model.width:>7}{model.num_heads:>7}"
            f"{model.context_length:>9}{_short(batch):>9}{train.lr:>9g}{train.num_steps:>11,}"
            f"{_short(recipe.num_tokens):>9}  {recipe.words}"
        )
    return "\n".join(
        [*lines, "", "batch is in tokens; modern-dN is there for every depth N. In words: add a name."]
    )


def describe(name: str) -> str:
    """A preset in words: what it is, and for the modern family how each number follows from the depth.

    Raises:
        ConfigError: there is none of that name.
    """
    recipe = preset(name)
    model, train = recipe.model, recipe.train
    batch_tokens = train.batch_size * model.context_length
    head = f"{name}: {_short(recipe.num_parameters)} parameters with a vocabulary of {recipe.vocab_size:,} tokens"
    shape = (
        f"{model.num_layers} layers of width {model.width:,}, {model.num_heads} heads of {model.head_width}, context "
        f"{model.context_length:,}"
    )
    batch = f"{batch_tokens:,} tokens a batch ({train.batch_size:,} sequences)"
    if train.batch_ramp_start:
        ramp = _short(train.batch_ramp_samples * model.context_length)
        batch += (
            f", grown from {train.batch_ramp_start * model.context_length:,} over the first {ramp} tokens"
        )
    horizon = f"{train.num_steps:,} steps, {_short(recipe.num_tokens)} tokens"
    rates = f"learning rate {train.lr:g} after {train.warmup_steps:,} steps of warm-up"
    if train.optimizer == "muon":
        rates = (
            f"learning rates {train.lr:g} (embeddings), {train.head_lr:g} (head), {train.muon_lr:g} (Muon, weight decay "
            f"{train.muon_weight_decay:g})"
        )
    if re.fullmatch(r"modern-d\d+", name):
        shape += f" (width is {_WIDTH_A_LAYER} a layer, in whole heads)"
        horizon += f" ({_TOKENS_A_PARAMETER} a parameter in matrix products)"
        batch += f" (2^19 at depth {_REFERENCE_DEPTH}, by horizon^0.383 from there)"
        rates += f" (set at depth {_REFERENCE_DEPTH}; by the root of the batch, AdamW's by 1/sqrt(width) too)"
    return "\n  ".join([head, shape, batch, horizon, rates])


def _short(number: float) -> str:
    """12 k, 124 M, 1.56 B: three digits."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.0f}{unit}" if value >= 99.95 else f"{value:.3g}{unit}"
    return f"{number:g}"


if __name__ == "__main__":
    try:
        print("\n\n".join(describe(name) for name in sys.argv[1:]) or table())
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
