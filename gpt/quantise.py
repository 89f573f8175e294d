"""A copy of a model for fast generation on CPUs: weights in eight bits, activations in bf16.

Generating a token reads every weight once and does little with it, so bytes are time: this is about a quarter of float32's.
Each output has a scale of its own (symmetric, to the nearest of 255 steps); embeddings, norms and biases stay bf16. Logits
differ from the float32 model's by about a percent of their size, so near-ties may fall the other way.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.config import ConfigError
from gpt.model import GPT

# The kernel is for few rows; for more (prompts), weights are widened first and multiplied as bf16.
FEW_ROWS = 16


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8 with a scale a row; its inputs and outputs are bf16.

    Args:
        weight: float, [outputs, inputs].
        bias: [outputs], or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # Rounded before it is used, so that the steps are those of the stored scale.
        scale = (weight.float().abs().amax(1).clamp(min=1e-12) / 127).bfloat16()
        steps = (weight.float() / scale.float()[:, None]).round().clamp(-127, 127)
        self.register_buffer("weight", steps.to(torch.int8).contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] bf16 to [..., outputs] bf16."""
        rows = x.reshape(-1, x.size(-1))
        if len(rows) <= FEW_ROWS:
            # The one public kernel for it is torch's own private operator; the version of torch is pinned.
            y = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.bfloat16()) * self.scale
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], -1)


@torch.no_grad()
def quantised(model: GPT) -> GPT:
    """A copy for `gpt.generate` on a CPU, in evaluation mode; it cannot be trained.

    Raises:
        ConfigError: the model is not on the CPU.
    """
    if model.device.type != "cpu":
        raise ConfigError(f"the model is on {model.device}; eight-bit weights are for CPUs, use bf16 there")
    head_weight = model.head_weight
    small = copy.deepcopy(model).bfloat16().eval()
    # From the weights as they are, not from their bf16 copies.
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("blocks."):
            parent, _, own_name = name.rpartition(".")
            setattr(small.get_submodule(parent), own_name, Int8Linear(module.weight, module.bias))
    small.head = Int8Linear(head_weight, None)  # type: ignore[assignment]
    return small
