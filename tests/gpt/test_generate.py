"""Generation is a function of prompt and seed: batches, caches and streams change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpt.config import ConfigError, ModelConfig
from gpt.generate import Chunk, Completion, Request, generate, generate_batch, stream
from gpt.model import GPT
from gpt.presets import PRESETS
from gpt.sampling import Sampling, TextStream, candidates, penalise


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
    [
        ([], {}, "no tokens"),
        ([50], {}, "outside 0 to 49"),
        ([0], {"temperature": -1.0}, "temperature"),
        ([0], {"top_k": 0}, "top_k"),
    ],
)
def test_impossible_requests_are_refused(model: GPT, prompt: list, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        generate(model, prompt, 1, **options)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(min_p=1.5), "min_p"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(max_new_tokens=-1), "max_new_tokens"),
        (Sampling(stop=("",)), "stop"),
        (Sampling(stop=("a",)), "token_bytes"),
    ],
)
def test_impossible_settings_are_refused(model: GPT, sampling: Sampling, message: str):
    with pytest.raises(ConfigError, match=message):
        generate_batch(model, [Request([0], sampling)])


# Every shape that reads its cache in a way of its own.
SHAPES = {
    "gpt2": {},
    "gpt1": {"norm_place": "post"},
    "windows": {"window": 5, "window_pattern": "FW"},
    "modern": {"positions": "rotary", "norm": "rms", "qk_norm": True, "num_kv_heads": 1, "bias": False},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_of_different_lengths_together_give_what_each_gives_alone_by_full_forwards(
    model_config: ModelConfig, shape: str
):
    torch.manual_seed(0)
    model = GPT(replace(model_config, tie_embeddings=False, **SHAPES[shape])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8) if parameter.dim() == 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    prompts = [[0, 3], [5], list(range(20)), [1, 2, 3, 4, 5, 6, 7], [9, 9], [4, 8]]
    # Some end early, some outgrow the context of 16, one is longer from the first.
    counts = [25, 3, 5, 12, 0, 6]
    requests = [
        Request(prompt, Sampling(max_new_tokens=count, temperature=0))
        for prompt, count in zip(prompts, counts, strict=True)
    ]
    for request, completion in zip(requests, generate_batch(model, requests), strict=True):
        tokens = list(request.prompt)
        for _ in range(request.sampling.max_new_tokens):
            tokens.append(int(model(torch.tensor([tokens[-16:]]))[0, -1].argmax()))
        assert completion == Completion(tokens[len(request.prompt) :], None, "length")


def test_a_request_draws_the_same_whatever_else_is_in_the_batch(model: GPT):
    mine = Request([0, 3], Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9, seed=5))
    alone = generate_batch(model, [mine])[0]
    others = [Request([n], Sampling(max_new_tokens=n, seed=n)) for n in range(1, 9)]
    assert generate_batch(model, [*others[:4], mine, *others[4:]])[4] == alone
    assert generate_batch(model, [mine, mine]) == [alone, alone]
    assert alone.tokens == generate_batch(model, [replace(mine, prompt=(0, 3))])[0].tokens


def test_the_kept_tokens_are_those_of_transformers():
    logits_processors = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(0)
    for trial in range(60):
        logits = torch.randn(300, generator=generator) * 3
        temperature, top_k = [0.7, 1.0, 1.6][trial % 3], [0, 5, 40][trial % 4 % 3]
        top_p, min_p = [1.0, 0.9, 0.3, 0.01][trial % 4], [0.0, 0.05, 0.5][trial % 5 % 3]
        seen = torch.randint(0, 300, (1, 30), generator=generator)
        theirs = logits_processors.RepetitionPenaltyLogitsProcessor(1.3)(seen, logits[None])
        ours = penalise(logits, set(seen[0].tolist()), 1.3)
        torch.testing.assert_close(ours, theirs[0])
        theirs = logits_processors.TemperatureLogitsWarper(temperature)(seen, theirs)
        if top_k:
            theirs = logits_processors.TopKLogitsWarper(top_k)(seen, theirs)
        if top_p < 1:
            theirs = logits_processors.TopPLogitsWarper(top_p)(seen, theirs)
        if min_p:
            theirs = logits_processors.MinPLogitsWarper(min_p)(seen, theirs)
        expected = theirs[0].softmax(0)
        probabilities, tokens = candidates(
            ours, Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        )
        assert set(tokens.tolist()) == set(expected.nonzero()[:, 0].tolist())
        torch.testing.assert_close(probabilities / probabilities.sum(), expected[tokens])


def test_a_flat_distribution_needs_more_than_the_likeliest_few():
    # 5,000 equally likely tokens: half of them for top_p 0.5.
    _, tokens = candidates(torch.zeros(5000), Sampling(top_p=0.5))
    assert abs(len(tokens) - 2500) <= 2


def test_draws_follow_the_probabilities(model: GPT):
    expected = model.eval()(torch.tensor([[0, 7]]))[0, -1].softmax(0)
    requests = [Request([0, 7], Sampling(max_new_tokens=1, seed=seed)) for seed in range(3000)]
    drawn = torch.tensor([completion.tokens[0] for completion in generate_batch(model, requests)])
    counts = torch.bincount(drawn, minlength=50)
    chi_squared = ((counts - 3000 * expected) ** 2 / (3000 * expected))[expected > 1e-3].sum().item()
    num_classes = int((expected > 1e-3).sum())
    assert chi_squared < num_classes + 5 * (2 * num_classes) ** 0.5


def test_a_repetition_penalty_of_much_repeats_nothing(model: GPT):
    tokens = generate_batch(model, [Request([0], Sampling(15, temperature=0, repetition_penalty=1e9))])[
        0
    ].tokens
    assert len({0, *tokens}) == 16


# A byte a token, but for 0, the end of text, and two that hold parts of characters.
BYTES = [b""] + [bytes([97 + n % 26]) for n in range(1, 48)] + ["\u20ac".encode()[:2], "\u20ac".encode()[2:]]


def test_streamed_chunks_are_whole_characters_and_add_up(model: GPT):
    requests = [Request([0, n], Sampling(max_new_tokens=30, seed=n)) for n in range(1, 12)]
    whole = generate_batch(model, requests, BYTES)
    texts, tokens = [""] * 11, [[] for _ in range(11)]
    for chunk in stream(model, requests, BYTES):
        assert isinstance(chunk, Chunk)
        texts[chunk.request] += chunk.text
        tokens[chunk.request].append(chunk.token)
    for completion, text, request_tokens in zip(whole, texts, tokens, strict=True):
        assert completion.text == text
        assert completion.tokens == request_tokens
        assert text == b"".join(BYTES[token] for token in request_tokens).decode("utf-8", "replace")


def test_a_character_in_parts_waits_for_its_last_one():
    writer = TextStream(BYTES)
    assert [writer.add(token) for token in (1, 48, 49, 2, 48)] == ["b", "", "\u20ac", "c", ""]
    assert writer.finish() == "\ufffd"
    assert writer.text == "b\u20acc\ufffd"


def test_a_stop_text_ends_the_output_and_none_of_it_is_given_out():
    writer = TextStream(BYTES, ["def", "xyz"])
    # "c", then "d", "e" that might be its beginning, then "c": they were not; then all of it.
    given = [writer.add(BYTES.index(bytes([byte]))) for byte in b"cdecdefgh"]
    assert given == ["c", "", "", "dec", "", "", "", "", ""]
    assert writer.is_stopped
    assert writer.finish() == ""
    assert writer.text == "cdec"


def test_a_stop_text_ends_its_request_only(model: GPT):
    sampling = Sampling(max_new_tokens=40, seed=1)
    free = generate_batch(model, [Request([0], sampling)], BYTES)[0]
    stop = free.text[10:12]
    place = free.text.index(stop)
    stopped = Request([0], replace(sampling, stop=(stop,)))
    ended, other = generate_batch(model, [stopped, Request([0], sampling)], BYTES)
    assert (ended.ending, ended.text) == ("stop", free.text[:place])
    assert ended.tokens == free.tokens[: len(ended.tokens)]
    assert other == free
    eot = Request([0], replace(sampling, stop_token=free.tokens[4]))
    ended = generate_batch(model, [eot], BYTES)[0]
    assert ended.ending == "stop_token"
    assert ended.tokens == free.tokens[: free.tokens.index(free.tokens[4])]


def test_whoever_stops_listening_leaves_the_model_as_it_was(model: GPT):
    model.train()
    chunks = stream(model, [Request([0], Sampling(max_new_tokens=9))])
    next(chunks)
    chunks.close()
    assert model.training


def test_a_copy_in_half_the_bytes_generates(model: GPT):
    half = GPT(replace(PRESETS["modern-tiny"].model, vocab_size=50)).bfloat16()
    assert len(generate(half, [0, 3], 40, seed=5)) == 40
