"""The language head and its loss, a chunk of tokens at a time, so that the logits never exist whole.

Shapes: N tokens, D width, V rows of the head (padded), v tokens of the vocabulary, C tokens of a chunk.

At 50,257 tokens the float32 logits of a micro-batch of 16 sequences of 1,024 take 3.3 GB, and their gradient as much
again. Here each chunk's logits are turned into their own gradient in place as soon as the loss is read off them, and
with it into gradients of the hidden states and of the head (the idea is that of Liger Kernel and of Wijmans 2024,
"Cut Your Losses", in plain torch operations). The backward pass then only scales.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from gpt.model import IGNORE_INDEX


def chunked_losses(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    targets_BT: Tensor,
    *,
    vocab_size: int,
    soft_cap: float = 0.0,
    z_loss: float = 0.0,
    chunk: int = 1024,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Next-token losses from final hidden states.

    Args:
        hidden_BTD: final hidden states.
        head_VD: matrix of the head; rows from vocab_size on are padding and never get probability.
        targets_BT: token to predict at each place, IGNORE_INDEX for none.
        vocab_size: real tokens.
        soft_cap: logits become soft_cap * tanh(logits / soft_cap) (Gemma 2); 0 = as they are.
        z_loss: weight of the squared log-normaliser (Chowdhery 2022, section 5); 0 = none.
        chunk: tokens whose logits exist at a time; 0 = all.
        compiled: fuse what follows the matrix product with torch.compile.

    Returns:
        (sum of loss and z-loss over the targets, to call backward() on; the loss alone of each target in nats,
        float32 [B, T], without gradient, 0 where there is none). Matrix products run in autocast's type, if any;
        the rest in float32. Gradients exist only where autograd is on; second derivatives do not.
    """
    num_tokens = targets_BT.numel()
    options = _Options(vocab_size, soft_cap, z_loss, min(chunk or num_tokens, num_tokens), compiled)
    total, losses_N = _ChunkedLosses.apply(
        hidden_BTD.flatten(0, 1), head_VD, targets_BT.flatten(), options, torch.is_grad_enabled()
    )
    return total, losses_N.view_as(targets_BT)


class _Options(tuple):
    """What stays the same over the chunks; a tuple, so that autograd takes it as it is."""

    __slots__ = ()

    def __new__(cls, *values: object) -> _Options:
        return super().__new__(cls, values)


class _ChunkedLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        options: _Options,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        vocab_size, soft_cap, z_loss, chunk, compiled = options
        kernel = _compiled_kernel() if compiled else _loss_and_gradient
        dtype = _product_dtype(hidden_ND)
        x_ND, w_VD = hidden_ND.to(dtype), head_VD.to(dtype)
        losses_N = torch.empty(len(x_ND), dtype=torch.float32, device=x_ND.device)
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        # Nothing in them where no gradient is asked for.
        dx_ND = torch.empty_like(x_ND[: len(x_ND) if with_gradient else 0])
        dw_VD = torch.zeros_like(head_VD[: len(head_VD) if with_gradient else 0], dtype=torch.float32)
        for start in range(0, len(x_ND), chunk):
            here = slice(start, start + chunk)
            logits_CV = x_ND[here] @ w_VD.T
            losses_N[here], squares_C, gradient_CV, weight_C1 = kernel(
                logits_CV, targets_N[here], vocab_size, soft_cap, z_loss, with_gradient
            )
            total += losses_N[here].sum() + z_loss * squares_C.sum()
            if with_gradient:
                dx_ND[here] = (gradient_CV @ w_VD) * weight_C1
                dw_VD += gradient_CV.T @ (x_ND[here] * weight_C1).to(dtype)
        context.save_for_backward(dx_ND, dw_VD)
        context.types = hidden_ND.dtype, head_VD.dtype  # type: ignore[attr-defined]
        context.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(context, scale: Tensor, _: Tensor) -> tuple:  # type: ignore[no-untyped-def]
        dx_ND, dw_VD = context.saved_tensors
        x_type, w_type = context.types
        return (dx_ND.to(x_type) * scale).to(x_type), (dw_VD * scale).to(w_type), None, None, None


def _loss_and_gradient(
    logits_CV: Tensor, targets_C: Tensor, vocab_size: int, soft_cap: float, z_loss: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a chunk's logits come to; they may be overwritten.

    Returns:
        (losses [C]; squared log-normalisers [C]; G [C, V] in the logits' type; w [C, 1]). The gradient of loss and
        z-loss by the logits is w * G: rows are weighed where they are D wide instead of V.
    """
    counts_C = targets_C != IGNORE_INDEX
    targets_C1 = targets_C.where(counts_C, 0)[:, None]
    x_CV = logits_CV.float()
    if soft_cap:
        slope_CV = torch.tanh(x_CV / soft_cap)
        x_CV = soft_cap * slope_CV
        slope_CV = 1 - slope_CV.square_()
    x_CV[:, vocab_size:] = -math.inf
    log_p_CV = torch.log_softmax(x_CV, 1)
    log_p_C1 = log_p_CV.gather(1, targets_C1)
    losses_C = -log_p_C1[:, 0].where(counts_C, 0.0)
    # log p = x - log-normaliser, so that no second pass over the row is needed for it.
    normaliser_C1 = x_CV.gather(1, targets_C1) - log_p_C1
    squares_C = normaliser_C1[:, 0].where(counts_C, 0.0).square()
    # d loss / d x = p - one_hot(target), and the z-loss adds 2 z log-normaliser p.
    scale_C1 = 1 + 2 * z_loss * normaliser_C1
    weight_C1 = scale_C1 * counts_C[:, None]
    if not with_gradient:
        return losses_C, squares_C, logits_CV, weight_C1
    gradient_CV = log_p_CV.exp_().scatter_add_(1, targets_C1, -1 / scale_C1)
    if soft_cap:
        gradient_CV *= slope_CV
    return losses_C, squares_C, gradient_CV.to(logits_CV.dtype), weight_C1


@functools.cache
def _compiled_kernel():  # type: ignore[no-untyped-def]
    return torch.compile(_loss_and_gradient, dynamic=False)


def _product_dtype(x: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
