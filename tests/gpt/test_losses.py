"""The loss in chunks is the plain loss, and so are its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gpt.losses import chunked_losses
from gpt.model import IGNORE_INDEX

VOCAB_SIZE, PADDED, WIDTH = 50, 64, 16


def plain_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, soft_cap: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """The formulas written out, over whole logits."""
    logits = (hidden @ head.T)[..., :VOCAB_SIZE]
    if soft_cap:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    squares = logits.logsumexp(-1).square().flatten() * (targets.flatten() != IGNORE_INDEX)
    return losses.sum() + z_loss * squares.sum(), losses.view_as(targets)


def drawn(batch: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, length, WIDTH, generator=generator).requires_grad_()
    head = torch.randn(PADDED, WIDTH, generator=generator).requires_grad_()
    targets = torch.randint(0, VOCAB_SIZE, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) < 0.3] = IGNORE_INDEX
    return hidden, head, targets


@given(
    st.integers(1, 3), st.integers(1, 9), st.sampled_from([0, 1, 4, 1024]), st.sampled_from([0.0, 3.0]),
    st.sampled_from([0.0, 1e-2]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_loss_and_gradients_are_those_of_whole_logits(
    batch: int, length: int, chunk: int, soft_cap: float, z_loss: float, seed: int
):
    hidden, head, targets = drawn(batch, length, seed)
    expected, expected_losses = plain_loss(hidden, head, targets, soft_cap, z_loss)
    expected_gradients = torch.autograd.grad(expected * 0.7, (hidden, head))
    total, losses = chunked_losses(
        hidden, head, targets, vocab_size=VOCAB_SIZE, soft_cap=soft_cap, z_loss=z_loss, chunk=chunk
    )
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-5)
    for got, wanted in zip(torch.autograd.grad(total * 0.7, (hidden, head)), expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_bf16_products_stay_close_and_padding_gets_nothing(soft_cap: float):
    hidden, head, targets = drawn(4, 32, 1)
    with torch.autocast("cpu", torch.bfloat16):
        total, losses = chunked_losses(
            hidden, head, targets, vocab_size=VOCAB_SIZE, soft_cap=soft_cap, chunk=16
        )
    assert (total.dtype, losses.dtype) == (torch.float32, torch.float32)
    expected, _ = plain_loss(hidden, head, targets, soft_cap, 0.0)
    torch.testing.assert_close(total, expected, rtol=5e-3, atol=0)
    gradient, wanted = (torch.autograd.grad(loss, head)[0] for loss in (total, expected))
    assert (gradient[VOCAB_SIZE:] == 0).all()
    assert (gradient - wanted).norm() < 0.02 * wanted.norm()


def test_without_autograd_only_losses_are_computed():
    hidden, head, targets = drawn(2, 8, 2)
    with torch.no_grad():
        total, losses = chunked_losses(hidden, head, targets, vocab_size=VOCAB_SIZE)
    assert not total.requires_grad
    torch.testing.assert_close(total, losses.sum())
    assert (losses[targets == IGNORE_INDEX] == 0).all()
