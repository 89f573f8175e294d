"""Every shape of the network holds what GPT-2's does: causality, windows, documents, caches, the same by each kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gpt.attention import KVCache, attend, pattern
from gpt.config import ModelConfig
from gpt.model import GPT
from gpt.presets import PRESETS, preset

BASE = ModelConfig(vocab_size=50, context_length=24, num_layers=3, num_heads=4, width=32)
ROTARY = replace(BASE, positions="rotary", norm="rms", bias=False, qk_norm=True, num_kv_heads=2)
CONFIGS = {
    "gpt1": replace(BASE, norm_place="post", init="gpt1"),
    "gpt2": BASE,
    "gpt3": replace(BASE, window=5, window_pattern="FW"),
    "swiglu": replace(ROTARY, activation="swiglu", window=4, window_pattern="WWF"),
    "modern": replace(PRESETS["modern-tiny"].model, vocab_size=50, context_length=24, num_layers=3),
    "bare": replace(BASE, norm_gain=False, bias=False, activation="relu2", tie_embeddings=False),
}
TOKENS = torch.randint(0, 50, (3, 24), generator=torch.Generator().manual_seed(1))
DOCUMENTS = torch.tensor([[0] * 9 + [1] * 15, [0] * 24, [3] * 5 + [4] * 6 + [7] * 13])


def scattered(config: ModelConfig) -> GPT:
    """Every parameter away from its first value: projections that begin at zero hide what attention does."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_nothing_of_the_future_shows_and_all_of_the_past_does(name: str):
    model = scattered(CONFIGS[name])
    changed = TOKENS.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 50
    before, after = model(TOKENS), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    differs = (before - after).abs().amax((0, 2)) > 1e-6
    assert differs[9:].all()


@torch.no_grad()
def test_a_window_hides_what_is_further_back():
    # Three layers of windows of 5 reach 3 * 4 tokens back, and no further.
    model = scattered(replace(BASE, window=5, window_pattern="W"))
    changed = TOKENS.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 50
    differs = (model(TOKENS) - model(changed)).abs().amax((0, 2)) > 1e-6
    assert differs.tolist() == [False] * 3 + [True] * 13 + [False] * 8


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_packed_documents_are_what_each_is_alone(name: str):
    model = scattered(CONFIGS[name])
    packed = model(TOKENS, documents_BT=DOCUMENTS)
    for row, numbers in enumerate(DOCUMENTS):
        for number in numbers.unique():
            places = (numbers == number).nonzero()[:, 0]
            alone = model(TOKENS[row, places][None])[0]
            assert close(packed[row, places], alone)
    assert not close(packed[0], model(TOKENS)[0]), "without their numbers, documents see each other"


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_cache_gives_what_a_full_forward_does(name: str):
    model = scattered(CONFIGS[name])
    full = model.hidden(TOKENS)
    # Rows of different lengths, read in pieces of 1, 3 and 2 tokens, one row padded.
    cache = KVCache(model.config, 3, 24, torch.device("cpu"), torch.float32)
    lengths = [4, 7, 2]
    first = model.hidden(TOKENS[:, :7], cache=cache)
    for row, length in enumerate(lengths):
        assert close(first[row, :length], full[row, :length])
    cache.advance(lengths)
    for count in (1, 3, 1, 2, 1):
        starts = cache.lengths
        more = torch.stack([TOKENS[row, start : start + count] for row, start in enumerate(starts)])
        read = model.hidden(more, cache=cache)
        for row, start in enumerate(starts):
            assert close(read[row], full[row, start : start + count])
        cache.advance(count)
    cache.keep([2, 0])
    starts = cache.lengths
    more = torch.stack([TOKENS[row, start : start + 1] for row, start in zip((2, 0), starts, strict=True)])
    read = model.hidden(more, cache=cache)
    assert all(close(read[i, 0], full[row, starts[i]]) for i, row in enumerate((2, 0)))


@torch.no_grad()
def test_rows_of_one_length_are_read_on_without_a_mask():
    model = scattered(CONFIGS["swiglu"])
    full = model.hidden(TOKENS)
    cache = KVCache(model.config, 3, 24, torch.device("cpu"), torch.float32)
    for start, stop in ((0, 6), (6, 7), (7, 8), (8, 12), (12, 13), (13, 24)):
        assert close(model.hidden(TOKENS[:, start:stop], cache=cache), full[:, start:stop])
        cache.advance(stop - start)


@torch.no_grad()
def test_without_causality_each_token_sees_all_others():
    model = scattered(BASE)
    changed = TOKENS.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 50
    differs = (model.hidden(TOKENS, causal=False) - model.hidden(changed, causal=False)).abs().amax(
        (0, 2)
    ) > 1e-6
    assert differs.all()
    # Documents and windows bound it on both sides.
    packed = [model.hidden(tokens, DOCUMENTS, causal=False) for tokens in (TOKENS, changed)]
    differs = (packed[0] - packed[1]).abs().amax(2) > 1e-6
    assert torch.equal(differs, DOCUMENTS[:, 20:21] == DOCUMENTS)
    near = scattered(replace(BASE, num_layers=1, window=3, window_pattern="W"))
    differs = (near.hidden(TOKENS, causal=False) - near.hidden(changed, causal=False)).abs().amax(
        (0, 2)
    ) > 1e-6
    assert differs.nonzero()[:, 0].tolist() == [18, 19, 20, 21, 22]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("documents", [None, DOCUMENTS])
@torch.no_grad()
def test_each_kernel_gives_the_numbers_of_the_written_out_formula(
    causal: bool, window: int, documents: torch.Tensor | None
):
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(3, 4, 24, 16, generator=generator)
    k, v = (torch.randn(3, 2, 24, 16, generator=generator) for _ in range(2))
    expected = torch.empty_like(q)
    for row in range(3):
        for head in range(4):
            for place in range(24):
                seen = [
                    other
                    for other in range(24)
                    if (not causal or other <= place)
                    and (not window or abs(place - other) < window)
                    and (documents is None or documents[row, place] == documents[row, other])
                ]
                scores = k[row, head // 2, seen] @ q[row, head, place] / 4
                expected[row, head, place] = scores.softmax(0) @ v[row, head // 2, seen]
    for kernel in ("sdpa", "flex"):
        seen = pattern(
            24, torch.device("cpu"), causal=causal, window=window, documents_BT=documents, kernel=kernel
        )
        if window or documents is not None:
            assert (seen.blocks is not None) == (kernel == "flex")
        # Uncompiled: that flex_attention compiles is torch's to test, and takes a minute.
        with torch.compiler.set_stance("force_eager"):
            torch.testing.assert_close(attend(q, k, v, seen), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_a_role_and_learns(name: str):
    model = scattered(CONFIGS[name])
    model(TOKENS, TOKENS.roll(-1, 1)).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    roles = model.parameter_roles()
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert roles["token_embedding.weight"] == "embedding"
    assert roles["blocks.0.attention.qkv.weight"] == "matrix"
    assert ("head.weight" in roles) == (not model.config.tie_embeddings)
    assert all((roles[name] == "vector") == (p.dim() == 1) for name, p in model.named_parameters())


@torch.no_grad()
def test_normalised_queries_and_keys_bound_the_scores():
    model = scattered(CONFIGS["modern"])
    before = model(TOKENS)
    for block in model.blocks:
        rows = block.attention.rows
        block.attention.qkv.weight[: rows[0] + rows[1]] *= 100
    assert torch.allclose(model(TOKENS), before, atol=1e-3)


@torch.no_grad()
def test_a_soft_cap_bounds_logits_and_keeps_their_order():
    model = scattered(BASE)
    capped = GPT(replace(BASE, logit_soft_cap=2.0)).eval()
    capped.load_state_dict(model.state_dict())
    plain, bounded = model(TOKENS), capped(TOKENS)
    torch.testing.assert_close(bounded, 2 * torch.tanh(plain / 2))
    assert bounded.abs().max() < 2 < plain.abs().max()


@torch.no_grad()
def test_rotary_positions_are_relative():
    model = scattered(replace(ROTARY, num_layers=1))
    block, x = model.blocks[0], torch.randn(1, 6, 32)
    causal = pattern(6, torch.device("cpu"))
    here, there = ((model.rotary_cos[at : at + 6], model.rotary_sin[at : at + 6]) for at in (0, 13))
    assert close(block(x, causal, here), block(x, causal, there))
    assert not close(
        block(x, causal, here), block(x, causal, (model.rotary_cos[:6] * 0 + 1, model.rotary_sin[:6] * 0))
    )


def test_modern_blocks_begin_as_the_identity_and_guess_uniformly():
    torch.manual_seed(0)
    model = GPT(replace(preset("modern-d2").model, vocab_size=50)).eval()
    embedded = F.rms_norm(model.token_embedding(TOKENS), (128,), eps=1e-5)
    assert close(model.hidden(TOKENS), F.rms_norm(embedded, (128,), eps=1e-5))
    losses = model(TOKENS, TOKENS.roll(-1, 1))
    assert abs(losses.mean().item() - torch.log(torch.tensor(50.0)).item()) < 0.01


def test_the_mask_is_no_token_and_other_weights_do_not_know_of_it():
    torch.manual_seed(0)
    plain = GPT(BASE)
    torch.manual_seed(0)
    multitask = GPT(replace(BASE, multitask=True))
    assert multitask.config.mask_token == 50
    assert torch.equal(plain(TOKENS), multitask(TOKENS))
    assert GPT(replace(BASE, vocab_size=64, multitask=True)).token_embedding.num_embeddings == 128


@pytest.mark.parametrize("name", ["gpt3", "modern"])
def test_the_network_compiles_whole(name: str):
    # Traced to one graph, without a C++ compiler: what torch.compile would break up is found.
    model = scattered(CONFIGS[name])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert close(compiled(TOKENS, TOKENS), model(TOKENS, TOKENS))
    assert close(compiled(TOKENS, TOKENS, DOCUMENTS), model(TOKENS, TOKENS, DOCUMENTS))


def test_rotary_tables_stay_exact_in_a_bf16_copy_and_after_the_meta_device():
    model = scattered(ROTARY)
    cos = model.rotary_cos.clone()
    assert torch.equal(scattered(ROTARY).bfloat16().rotary_cos, cos)
    with torch.device("meta"):
        empty = GPT(ROTARY)
    assert empty.rotary_cos.is_meta
    filled = empty.to_empty(device="cpu").eval()
    filled.load_state_dict(model.state_dict())
    assert torch.equal(filled(TOKENS), model(TOKENS))
