"""Eight-bit copies compute nearly what the model does, and generate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpt.config import ModelConfig
from gpt.generate import Request, generate_batch
from gpt.model import GPT
from gpt.quantise import FEW_ROWS, Int8Linear, quantised
from gpt.sampling import Sampling

BASE = ModelConfig(vocab_size=100, context_length=64, num_layers=3, num_heads=2, width=64)


@torch.no_grad()
def test_the_layer_is_the_product_with_its_own_rounded_weights():
    torch.manual_seed(0)
    weight, bias = torch.randn(96, 64) * torch.rand(96, 1), torch.randn(96)
    layer = Int8Linear(weight, bias)
    rounded = layer.weight.float() * layer.scale.float()[:, None]
    # Half a step of a row's own scale.
    assert ((rounded - weight).abs() <= 0.51 * layer.scale.float()[:, None]).all()
    for rows in (1, FEW_ROWS, FEW_ROWS + 1, 40):
        x = torch.randn(rows, 64).bfloat16()
        expected = x.float() @ rounded.t() + bias
        assert (layer(x).float() - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize(
    "change", [{}, {"tie_embeddings": False, "positions": "rotary", "norm": "rms", "bias": False}]
)
@torch.no_grad()
def test_a_copy_has_nearly_the_same_logits_and_leaves_the_model_alone(change: dict):
    torch.manual_seed(0)
    model = GPT(replace(BASE, **change)).eval()
    for parameter in model.parameters():
        parameter.mul_(4) if parameter.dim() == 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
    tokens = torch.randint(0, 100, (2, 30))
    expected = model(tokens)
    small = quantised(model)
    # Rows of a batch of prompts, and a few tokens at a time.
    for length in (30, 5):
        error = (small(tokens[:, :length]).float() - expected[:, :length]).abs().mean()
        assert error < 0.05 * expected.std()
    assert torch.equal(model(tokens), expected)
    num_bytes = [
        sum(t.numel() * t.element_size() for t in m.blocks.state_dict().values()) for m in (model, small)
    ]
    assert num_bytes[1] < 0.3 * num_bytes[0]
    requests = [Request(row.tolist(), Sampling(max_new_tokens=50, temperature=0)) for row in tokens]
    assert [len(completion.tokens) for completion in generate_batch(small, requests)] == [50, 50]
