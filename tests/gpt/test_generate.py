"""Generation is a function of prompt and seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpt.config import ConfigError, ModelConfig
from gpt.generate import generate
from gpt.model import GPT


@pytest.fixture
def model(model_config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    model = GPT(replace(model_config, tie_embeddings=False))
    with torch.no_grad():
        # Far from uniform and sensitive to the whole context, so that there is something to tell apart.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return model


def test_the_same_seed_gives_the_same_tokens_whatever_the_global_generator(model: GPT):
    one = generate(model, [0, 3], 40, seed=5)
    torch.manual_seed(99)
    assert generate(model, [0, 3], 40, seed=5) == one
    assert generate(model, [0, 3], 40, seed=6) != one
    assert len(one) == 40, "longer than the context of 16: the window slides"


def test_temperature_zero_takes_the_likeliest_token(model: GPT):
    tokens = [0, 7]
    # 24 tokens, of which the model sees the last 16.
    for token in generate(model, tokens, 24, temperature=0):
        assert token == int(model.eval()(torch.tensor([tokens[-16:]]))[0, -1].argmax())
        tokens.append(token)
    assert generate(model, [0, 7], 24, top_k=1, seed=3) == tokens[2:]


def test_top_k_keeps_to_the_k_likeliest(model: GPT):
    likeliest = set(model.eval()(torch.tensor([[0, 7]]))[0, -1].topk(3).indices.tolist())
    drawn = {generate(model, [0, 7], 1, top_k=3, temperature=100, seed=seed)[0] for seed in range(60)}
    assert drawn == likeliest


def test_the_stop_token_ends_the_output_and_is_left_out(model: GPT):
    free = generate(model, [0], 20, seed=1)
    stop = free[6]
    assert generate(model, [0], 20, seed=1, stop_token=stop) == free[: free.index(stop)]


def test_the_mode_is_restored(model: GPT):
    model.train()
    generate(model, [0], 1)
    assert model.training


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [([], {}, "no tokens"), ([0], {"temperature": -1.0}, "temperature"), ([0], {"top_k": 0}, "top_k")],
)
def test_impossible_requests_are_refused(model: GPT, prompt: list, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        generate(model, prompt, 1, **options)
