"""Continue prompts, many at once, each as if it were alone.

Keys and values of what was read are kept (`gpt.attention.KVCache`), so a new token costs one token's work, and gives the
same logits as reading everything again; tests compare them. Where a text outgrows the context, its last context_length
tokens are read anew for every token: there, positions move with the window, and so does every key.

On a CPU nearly all of the time goes into reading the weights once a step, so a batch costs little more than one prompt,
and a copy in fewer bytes is faster: `copy.deepcopy(model).bfloat16()`, or eight bits (`gpt.quantise`), at their accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gpt.attention import KVCache
from gpt.config import ConfigError
from gpt.model import GPT
from gpt.sampling import Sampler, Sampling, TextStream

Ending = Literal["length", "stop_token", "stop"]


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it."""

    prompt: Sequence[int]
    """At least one token; the end-of-text token begins a document."""
    sampling: Sampling = field(default_factory=Sampling)
    """How."""


@dataclass(frozen=True)
class Completion:
    """What came of a request."""

    tokens: list[int]
    """New tokens, without the prompt; those of a stop text are among them."""
    text: str | None
    """Their text, up to a stop text; None if token_bytes were not given."""
    ending: Ending
    """Why it ended: length (max_new_tokens), stop_token, stop (a stop text)."""


@dataclass(frozen=True)
class Chunk:
    """One step of one request, as `stream` gives it out."""

    request: int
    """Index of the request."""
    token: int | None
    """The new token; None for the stop token, which is not part of the output."""
    text: str
    """Text that is certain now: whole characters, and no beginning of a stop text."""
    ending: Ending | None
    """Why the request ended with this chunk, or None."""


def generate(
    model: GPT,
    prompt_tokens: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    stop_token: int | None = None,
) -> list[int]:
    """Sample tokens that follow one prompt; the new ones, without the prompt. See `Sampling` for the settings.

    Raises:
        ConfigError: an empty prompt or an impossible setting.
    """
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it must be at least 1, or empty for all tokens")
    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k or 0,
        seed=seed,
        stop_token=stop_token,
    )
    return generate_batch(model, [Request(prompt_tokens, sampling)])[0].tokens


def generate_batch(
    model: GPT, requests: Sequence[Request], token_bytes: Sequence[bytes] | None = None
) -> list[Completion]:
    """Continue prompts of any lengths together.

    Args:
        model: in training or evaluation mode; the mode is restored.
        requests: the prompts, each with its own settings.
        token_bytes: bytes of each token by id, empty for special ones; for texts and stop texts.

    Raises:
        ConfigError: an empty prompt, an unknown token, an impossible setting, stop texts without token_bytes.
    """
    tokens: list[list[int]] = [[] for _ in requests]
    texts, endings = [""] * len(requests), ["length"] * len(requests)
    for chunk in stream(model, requests, token_bytes):
        if chunk.token is not None:
            tokens[chunk.request].append(chunk.token)
        texts[chunk.request] += chunk.text
        endings[chunk.request] = chunk.ending or "length"
    return [
        Completion(tokens[i], texts[i] if token_bytes is not None else None, endings[i])  # type: ignore[arg-type]
        for i in range(len(requests))
    ]


def stream(
    model: GPT, requests: Sequence[Request], token_bytes: Sequence[bytes] | None = None
) -> Iterator[Chunk]:
    """The same as they come: a chunk a token of every request that goes on. See `generate_batch`."""
    for number, request in enumerate(requests):
        _check(number, request, model, token_bytes)
    rows = [
        _Row(number, list(request.prompt), request.sampling)
        for number, request in enumerate(requests)
        if request.sampling.max_new_tokens
    ]
    writers = {
        row.number: TextStream(token_bytes or [], row.sampling.stop)
        for row in rows
        if token_bytes is not None
    }
    was_training = model.training
    model.eval()
    try:
        for row, token in _decode(model, rows):
            yield _chunk(row, token, writers.get(row.number))
    finally:
        model.train(was_training)


class _Row:
    """A request on its way."""

    def __init__(self, number: int, tokens: list[int], sampling: Sampling) -> None:
        self.number, self.tokens, self.sampling = number, tokens, sampling
        self.sampler = Sampler(sampling, tokens)
        self.most_tokens = len(tokens) + sampling.max_new_tokens
        self.is_done = False


def _chunk(row: _Row, token: int, writer: TextStream | None) -> Chunk:
    """What a new token of a row gives; marks the row as done where it is."""
    is_stop_token = token == row.sampling.stop_token
    text = writer.add(token) if writer and not is_stop_token else ""
    ending: Ending | None = None
    if is_stop_token:
        ending = "stop_token"
    elif writer and writer.is_stopped:
        ending = "stop"
    elif len(row.tokens) == row.most_tokens:
        ending = "length"
    row.is_done = ending is not None
    if writer and row.is_done:
        text += writer.finish()
    return Chunk(row.number, None if is_stop_token else token, text, ending)


@torch.inference_mode()
def _decode(model: GPT, rows: list[_Row]) -> Iterator[tuple[_Row, int]]:
    """(row, new token), step by step; whoever takes them marks rows as done."""
    reader = _Reader(model, rows)
    while rows:
        logits_RV = reader.next_logits(rows)
        if all(row.sampler.is_greedy for row in rows):
            tokens = logits_RV.argmax(-1).tolist()
        else:
            logits_RV = logits_RV.float().cpu()
            tokens = [row.sampler.choose(logits_V) for row, logits_V in zip(rows, logits_RV, strict=True)]
        for row, token in zip(rows, tokens, strict=True):
            row.tokens.append(token)
            yield row, token
        rows = [row for row in rows if not row.is_done]


class _Reader:
    """Logits of each row's next token: by the cache while the text fits the context, else by reading it anew.

    A row of the cache that is no longer wanted (done, or outgrown) goes on with token 0 until half of the rows are such;
    copying the others costs more than their part of a step.
    """

    def __init__(self, model: GPT, rows: list[_Row]) -> None:
        self.model = model
        self.context_length = model.config.context_length
        self.capacity = min(self.context_length, max((row.most_tokens for row in rows), default=0))
        self.cache: KVCache | None = None
        self.cached: list[_Row] = []

    def next_logits(self, rows: list[_Row]) -> Tensor:
        """[R, V], of the rows that go on."""
        if self.cache is None and not self.cached:
            return self._read_prompts(rows)
        fitting = [row for row in rows if len(row.tokens) <= self.context_length]
        outgrown = [row for row in rows if len(row.tokens) > self.context_length]
        # Rows outgrow the context in any order: logits are put where their row is.
        parts = []
        if fitting:
            parts.append(self._read_last_tokens(fitting))
        if outgrown:
            parts.append(self._read_windows(outgrown))
        if len(parts) == 1:
            return parts[0]
        place = {id(row): index for index, row in enumerate(fitting + outgrown)}
        return torch.cat(parts)[[place[id(row)] for row in rows]]

    def _read_prompts(self, rows: list[_Row]) -> Tensor:
        prompts = [row.tokens[-self.context_length :] for row in rows]
        lengths = [len(prompt) for prompt in prompts]
        # Padded on the right: nobody sees what follows, and the places are written again.
        tokens_RT = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
        for index, prompt in enumerate(prompts):
            tokens_RT[index, : len(prompt)] = torch.tensor(prompt)
        model = self.model
        self.cached = list(rows)
        dtype = model.token_embedding.weight.dtype
        self.cache = KVCache(model.config, len(rows), self.capacity, model.device, dtype)
        x_RTD = model.hidden(tokens_RT.to(model.device), cache=self.cache)
        self.cache.advance(lengths)
        return model.logits(x_RTD[torch.arange(len(rows)), torch.tensor(lengths) - 1])

    def _read_last_tokens(self, rows: list[_Row]) -> Tensor:
        assert self.cache is not None
        wanted = {id(row) for row in rows}
        if 2 * len(rows) <= len(self.cached):
            kept = [index for index, row in enumerate(self.cached) if id(row) in wanted]
            self.cache.keep(kept)
            self.cached = [self.cached[index] for index in kept]
        tokens_R1 = torch.tensor([[row.tokens[-1] if id(row) in wanted else 0] for row in self.cached])
        for index, row in enumerate(self.cached):
            if id(row) not in wanted and self.cache.lengths[index] == self.capacity:
                self.cache.lengths[index] = 0
        x_RD = self.model.hidden(tokens_R1.to(self.model.device), cache=self.cache)[:, -1]
        self.cache.advance(1)
        if len(rows) < len(self.cached):
            x_RD = x_RD[[index for index, row in enumerate(self.cached) if id(row) in wanted]]
        return self.model.logits(x_RD)

    def _read_windows(self, rows: list[_Row]) -> Tensor:
        tokens_RT = torch.tensor([row.tokens[-self.context_length :] for row in rows])
        return self.model.logits(self.model.hidden(tokens_RT.to(self.model.device))[:, -1])


def _check(number: int, request: Request, model: GPT, token_bytes: Sequence[bytes] | None) -> None:
    vocab_size = model.config.vocab_size
    request.sampling.validate()
    if not request.prompt:
        raise ConfigError(f"prompt {number} has no tokens; begin with the end-of-text token")
    if not 0 <= min(request.prompt) <= max(request.prompt) < vocab_size:
        raise ConfigError(
            f"prompt {number} has tokens outside 0 to {vocab_size - 1}; was it made by another tokenizer?"
        )
    if request.sampling.stop and token_bytes is None:
        raise ConfigError("stop texts need token_bytes, the bytes of each token")
    if token_bytes is not None and len(token_bytes) < vocab_size:
        raise ConfigError(f"token_bytes has {len(token_bytes)} tokens, the model {vocab_size}")
