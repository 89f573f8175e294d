"""Named recipes. A preset is a starting point: any field can be overridden beside it."""

from __future__ import annotations

from dataclasses import dataclass

from gpt.config import ConfigError, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Preset:
    """A network and the schedule it trains with."""

    model: ModelConfig
    """Shape of the network."""
    train: TrainConfig
    """The training schedule."""


PRESETS: dict[str, Preset] = {
    # Seconds on one core: for tests, and for a first look at a new dataset.
    "tiny": Preset(
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
    ),
    # About 4 M parameters with 4,096 tokens, about two minutes on two CPU cores.
    "demo": Preset(
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
    ),
    # GPT-2 124M (Radford 2019, Table 2, first row). The paper prints no learning rate: schedule, betas and
    # clipping are GPT-3 Small's (Brown 2020, Table 2.1 and appendix B), 0.5 M tokens a batch, 10 B tokens.
    "gpt2": Preset(
        ModelConfig(context_length=1024, num_layers=12, num_heads=12, width=768),
        TrainConfig(
            num_steps=19_073,
            batch_size=512,
            micro_batch_size=16,
            lr=6e-4,
            warmup_steps=715,
            eval_every=500,
            eval_tokens=10_000_000,
            checkpoint_every=1000,
            log_every=10,
        ),
    ),
}


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; the presets are {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
