"""The network sees no future, never chooses padding, and scores each token on its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from gpt.config import ModelConfig
from gpt.generate import generate
from gpt.model import GPT, IGNORE_INDEX


@pytest.fixture
def model(model_config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(model_config).eval()


def test_a_future_token_does_not_change_past_logits(model: GPT):
    tokens = torch.randint(0, 50, (2, 16))
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_padded_rows_of_the_vocabulary_are_never_chosen(model: GPT):
    # Even when their embeddings are the most attractive by far.
    with torch.no_grad():
        model.token_embedding.weight[50:] = 100 * model.final_norm.weight
        model.token_embedding.weight[:50] *= 0.01
    assert model.config.padded_vocab_size == 64
    assert model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 50)
    for temperature in (0.0, 5.0):
        assert max(generate(model, [0], 60, temperature=temperature)) < 50


def test_token_losses_are_unreduced_float32_and_zero_where_ignored(model: GPT):
    tokens, targets = torch.randint(0, 50, (2, 8)), torch.randint(0, 50, (2, 8))
    targets[1, 5:] = IGNORE_INDEX
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens, targets).dtype == torch.float32
    losses = model(tokens, targets)
    assert (losses[1, 5:] == 0).all()
    expected = -F.log_softmax(model(tokens), -1)[0].gather(1, targets[0, :, None])[:, 0]
    torch.testing.assert_close(losses[0], expected)


def test_initial_loss_is_that_of_a_uniform_guess(model: GPT):
    losses = model(torch.randint(0, 50, (8, 16)), torch.randint(0, 50, (8, 16)))
    assert abs(losses.mean().item() - torch.log(torch.tensor(50.0)).item()) < 0.05


def test_residual_projections_start_smaller(model_config: ModelConfig):
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(model_config, width=128, num_layers=8))
    block = model.blocks[0]
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.position_embedding.weight.std().item() == pytest.approx(0.01, rel=0.1)
