"""Which optimizer updates which parameter, at what rate, when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from gpt.config import TrainConfig
from gpt.muon import Muon

# What a parameter is for: see GPT.parameter_roles.
EMBEDDING, HEAD, VECTOR, MATRIX = "embedding", "head", "vector", "matrix"


def build_optimizers(
    model: nn.Module, roles: Mapping[str, str], config: TrainConfig, rank: int = 0, world_size: int = 1
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model; each group holds its highest learning rate as "peak_lr".

    AdamW (Loshchilov 2019) is fused into one kernel a step; matrices and embeddings decay, vectors do not. With
    optimizer muon, Muon takes the matrices, each rank updating its part of them.

    Args:
        model: the model itself.
        roles: embedding, head, vector or matrix, by parameter name; a tied embedding is an embedding.
        config: rates, decays and momenta.
        rank, world_size: this worker, and how many share Muon's work.
    """
    by_role: dict[str, list[nn.Parameter]] = {role: [] for role in (EMBEDDING, HEAD, VECTOR, MATRIX)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_role[roles[name]].append(parameter)
    muon = config.optimizer == "muon"
    groups = [
        _group(by_role[EMBEDDING], config.embedding_lr or config.lr, config.weight_decay),
        _group(by_role[HEAD], config.head_lr or config.lr, config.weight_decay),
        _group(by_role[VECTOR], config.vector_lr or config.lr, 0.0),
    ]
    if not muon:
        groups.append(_group(by_role[MATRIX], config.lr, config.weight_decay))
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=1e-8 if not muon else 1e-10,
            fused=True,
        )
    ]
    if muon and by_role[MATRIX]:
        group = _group(by_role[MATRIX], config.muon_lr, config.muon_weight_decay)
        optimizers.append(Muon([group], config.muon_momentum, rank, world_size))
    assert_each_once(
        (parameter for parameter in model.parameters() if parameter.requires_grad),
        [group for optimizer in optimizers for group in optimizer.param_groups],
    )
    return optimizers


def _group(parameters: list[nn.Parameter], peak_lr: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": peak_lr, "peak_lr": peak_lr, "weight_decay": weight_decay}


def fresh_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """The state an optimizer gives a parameter at its first update."""
    if isinstance(optimizer, Muon):
        return {"momentum": torch.zeros_like(parameter)}
    # A fused AdamW counts its steps on the device.
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}


def assert_each_once(parameters: Iterable[nn.Parameter], groups: list[dict[str, Any]]) -> None:
    """Every parameter is in exactly one group: a forgotten one would silently stay as it was drawn."""
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)), "a parameter is in two groups"
    assert set(grouped) == {id(parameter) for parameter in parameters}, "a parameter is in no group"


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Each group at `factor` times its highest rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


def schedule_factor(step: int, config: TrainConfig) -> float:
    """Learning rate of update `step` (0 the first) as a share of the highest: linear warm-up, then the schedule.

    cosine and linear fall to min_lr_ratio at decay_steps and stay there; wsd (warm-up, stable, decay; Hu 2024) falls
    linearly over the last decay_ratio of the steps; inverse_sqrt falls with the root of the step (Vaswani 2017), never
    below min_lr_ratio.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "inverse_sqrt":
        return max(config.min_lr_ratio, math.sqrt(max(1, config.warmup_steps) / (step + 1)))
    end = (config.decay_steps or config.num_steps) if config.schedule != "wsd" else config.num_steps
    begin = config.warmup_steps
    if config.schedule == "wsd":
        begin = max(begin, end - round(config.decay_ratio * config.num_steps))
    progress = min(1.0, max(0, step - begin) / max(1, end - begin))
    fallen = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * fallen
