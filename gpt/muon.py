"""Muon: momentum whose steps are orthogonal matrices (Jordan 2024, https://kellerjordan.github.io/posts/muon).

A matrix's update is the closest (semi-)orthogonal matrix to its Nesterov momentum, found by Newton-Schulz iteration:
every direction of the gradient moves the weights by the same length, where AdamW and SGD mostly move a few.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

# Of the quintic p(s) = a s + b s^3 + c s^5: steep at 0, and after five rounds singular values lie in [0.7, 1.2].
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NUM_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Muon over matrices of any shape; a rank computes every world_size-th update and all exchange them.

    Args:
        groups: param groups with "lr", "weight_decay" (decoupled) and 2-D parameters.
        momentum: decay of the momentum, the same for all.
        rank, world_size: this worker, and how many hold the same gradients.
    """

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, rank: int = 0, world_size: int = 1
    ) -> None:
        assert all(parameter.dim() == 2 for group in groups for parameter in group["params"])
        super().__init__(groups, {"lr": 0.02, "weight_decay": 0.0})
        self.momentum, self.rank, self.world_size = momentum, rank, world_size
        # 1 where the gradients are not finite: then nothing changes. Set before step(), as torch's GradScaler does.
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._updates([self._direction(parameter) for parameter in parameters])
            for parameter, update in zip(parameters, updates, strict=True):
                # A taller matrix has more outputs to move: the size of what leaves it stays that of a square one.
                scale = max(1.0, parameter.size(0) / parameter.size(1)) ** 0.5
                change = _like(update, parameter).to(parameter.dtype) * (-group["lr"] * scale)
                change.add_(parameter, alpha=-group["lr"] * group["weight_decay"])
                if self.found_inf is not None:
                    change.masked_fill_(self.found_inf > 0, 0.0)
                parameter.add_(change)

    def _direction(self, parameter: Tensor) -> Tensor:
        """The Nesterov momentum of a parameter's gradient."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        if self.found_inf is not None:
            gradient = gradient.where(
                self.found_inf == 0, momentum
            )  # a step of the momentum to itself is none
        momentum.lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(momentum, self.momentum)

    def _updates(self, directions: list[Tensor]) -> list[Tensor]:
        """All directions made orthogonal; where there are several workers, each does its share."""
        # Under FSDP a worker holds some rows of each; the product of the whole needs the whole.
        directions = [_whole(direction.bfloat16()) for direction in directions]
        if self.world_size == 1:
            return [orthogonal(direction) for direction in directions]
        updates = [torch.empty_like(direction) for direction in directions]
        # Dealt from the largest down, so that the shares are alike.
        by_size = sorted(range(len(directions)), key=lambda i: (-directions[i].numel(), i))
        for number, i in enumerate(by_size):
            if number % self.world_size == self.rank:
                updates[i] = orthogonal(directions[i])
        handles = [
            dist.broadcast(updates[i], src=number % self.world_size, async_op=True)
            for number, i in enumerate(by_size)
        ]
        for handle in handles:
            handle.wait()
        return updates


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This worker's rows of a tensor that every worker has, where the parameter is sharded."""
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of the matrix's singular value decomposition U S V^T, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(NUM_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).contiguous()
