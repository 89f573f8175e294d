"""The optimizer and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from gpt.config import TrainConfig


def build_optimizer(
    model: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW (Loshchilov 2019) with decay on matrices only, fused into one kernel a step.

    Parameters with two or more dimensions decay: linear weights and embeddings (the tied token embedding is the
    head's matrix too). Biases and norm gains do not.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    assert_each_once(parameters, groups)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=True)


def assert_each_once(parameters: list[nn.Parameter], groups: list[dict]) -> None:
    """Every parameter is in exactly one group: a forgotten one would silently stay as it was drawn."""
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == {id(parameter) for parameter in parameters}, "a parameter is in no group"


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of update `step` (0 the first): linear warm-up, then a cosine down to min_lr_ratio."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
