"""What a gradient becomes: clipped, checked, applied; or skipped, without asking the device in the middle of a step.

Whether a gradient is finite is known on the device long after the step was queued. So the decision stays there: the
optimizers get it as a tensor and change nothing where it says so, counters count it, and the host reads them when it
writes a step record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.experimental import implicit_replication

from gpt.config import TrainConfig
from gpt.model import GPT
from gpt.optim import build_optimizers, schedule_factor, set_learning_rates

# fp16 reaches 65,504: losses are scaled up so that small gradients do not vanish, less where they overflow.
FIRST_LOSS_SCALE, GROW_AFTER = 2.0**16, 2000


_COUNTERS = ("loss_scale", "good_in_a_row", "skipped_updates", "skipped_in_a_row")


class UpdateCounts(NamedTuple):
    """What the device counted."""

    grad_norm: float
    """Norm of the last gradient before clipping."""
    skipped: int
    """Updates skipped since the start of the run."""
    skipped_in_a_row: int
    """The longest row of skipped updates since the last reading, that which went on before included."""


class Updates:
    """Optimizers, loss scale (fp16) and average of the weights of one model.

    Attributes:
        optimizers: as `gpt.optim.build_optimizers` makes them.
        loss_scale: what the loss is multiplied with before backward(), a tensor on the device.
        average: moving average of each parameter, by name; empty without ema_decay.
    """

    def __init__(
        self, model: GPT, config: TrainConfig, device: torch.device, rank: int, world_size: int
    ) -> None:
        self.config = config
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = build_optimizers(model, model.parameter_roles(), config, rank, world_size)
        self.average: dict[str, Tensor] = (
            {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            if config.ema_decay
            else {}
        )
        self._averaged: list[Tensor] = [
            parameter for name, parameter in model.named_parameters() if name in self.average
        ]
        is_half = config.precision == "fp16"
        self.loss_scale = torch.tensor(FIRST_LOSS_SCALE if is_half else 1.0, device=device)
        self._good_in_a_row = torch.zeros((), device=device)
        self._grad_norm = torch.zeros((), device=device)
        self._skipped, self._in_a_row, self._most_in_a_row = (
            torch.zeros((), device=device) for _ in range(3)
        )
        self._sharded = any(isinstance(parameter, DTensor) for parameter in self._parameters)

    def apply(self, step: int) -> None:
        """Update the weights with the gradients that are there, and clear these; `step` 0 is the first."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.config.precision == "fp16":
            torch._foreach_mul_(gradients, 1 / self.loss_scale)
        # The norm is that of the summed gradient, so all workers decide alike.
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.grad_clip or math.inf)
        self._grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        is_bad = (~torch.isfinite(self._grad_norm)).float()
        set_learning_rates(self.optimizers, schedule_factor(step, self.config))
        with implicit_replication() if self._sharded else nullcontext():
            for optimizer in self.optimizers:
                # The protocol of torch's GradScaler: a fused kernel that finds this set changes nothing.
                optimizer.found_inf = is_bad  # type: ignore[attr-defined]
                optimizer.step()
            if self.average:
                # A skipped update moves the average, too: weights that stood still are weights all the same.
                torch._foreach_lerp_(list(self.average.values()), self._averaged, 1 - self.config.ema_decay)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self._count(is_bad)

    def read(self) -> UpdateCounts:
        """What was counted; waits for the device."""
        values = torch.stack([self._grad_norm.float(), self._skipped, self._most_in_a_row]).tolist()
        self._most_in_a_row = self._in_a_row.clone()
        return UpdateCounts(values[0], int(values[1]), int(values[2]))

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within the block the model has its average weights, where an average is kept."""
        with torch.no_grad():
            self._swap()
        try:
            yield
        finally:
            with torch.no_grad():
                self._swap()

    def counters(self) -> dict[str, float]:
        """What a resumed run must know besides weights, moments and average, for state.json; waits for the device."""
        tensors = [self.loss_scale, self._good_in_a_row, self._skipped, self._in_a_row]
        values = torch.stack(tensors).tolist()
        return dict(zip(_COUNTERS, values, strict=True))

    def load_counters(self, state: Mapping[str, Any]) -> None:
        """Undo `counters`; what a checkpoint of before does not have stays as it is."""
        if "loss_scale" not in state:
            return
        values = torch.tensor([state[name] for name in _COUNTERS], device=self.loss_scale.device)
        self.loss_scale, self._good_in_a_row, self._skipped, self._in_a_row = values.unbind()
        self._most_in_a_row = self._in_a_row.clone()

    def _swap(self) -> None:
        for parameter, average in zip(self._averaged, self.average.values(), strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def _count(self, is_bad: Tensor) -> None:
        self._skipped = self._skipped + is_bad
        counts = is_bad
        if self.config.precision == "fp16":
            # Overflow is how the right scale is found: only at the lowest one it is the gradient's fault.
            counts = is_bad * (self.loss_scale <= 1)
            good = (self._good_in_a_row + 1) * (1 - is_bad)
            grows = good >= GROW_AFTER
            self._good_in_a_row = good * ~grows
            scale = torch.where(is_bad > 0, self.loss_scale / 2, self.loss_scale)
            self.loss_scale = torch.where(grows, scale * 2, scale).clamp(min=1)
        self._in_a_row = (self._in_a_row + counts) * counts
        self._most_in_a_row = torch.maximum(self._most_in_a_row, self._in_a_row)
