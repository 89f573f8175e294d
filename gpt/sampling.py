"""How the next token is chosen from its logits, and how tokens become text.

Shapes: V vocabulary of the model, N tokens that are left to draw from.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt.config import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt."""

    max_new_tokens: int = 128
    """Most tokens to add."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0 = from all."""
    top_p: float = 1.0
    """Draw from the fewest tokens that together are this likely (Holtzman 2020)."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest (Nguyen 2024)."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens that were seen, multiplies negative ones (Keskar 2019, section 4.1)."""
    stop: tuple[str, ...] = ()
    """Texts that end the output, and are not part of it."""
    stop_token: int | None = None
    """Token that ends the output, and is not part of it."""
    seed: int = 0
    """Of this request's own random numbers: what else is in the batch changes nothing."""

    def validate(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: names the field and its value.
        """
        for name, is_fine, rule in (
            ("max_new_tokens", self.max_new_tokens >= 0, "0 or more"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "1 or more, or 0 for all tokens"),
            ("top_p", 0 < self.top_p <= 1, "over 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "in [0, 1]"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "positive, 1 for none"),
            ("stop", all(self.stop), "texts that are not empty"),
        ):
            if not is_fine:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {rule}")


class Sampler:
    """Draws the tokens of one request, one after another.

    Args:
        sampling: how.
        prompt: tokens that count as seen for the repetition penalty.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self.sampling = sampling
        # On the CPU, so that a GPU draws alike.
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._seen = set(prompt)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token of the logits as they are is taken."""
        return self.sampling.temperature == 0 and self.sampling.repetition_penalty == 1

    def choose(self, logits_V: Tensor) -> int:
        """The next token.

        Args:
            logits_V: float32 on the CPU; left as they are.
        """
        logits_V = penalise(logits_V, self._seen, self.sampling.repetition_penalty)
        if self.sampling.temperature == 0:
            token = int(logits_V.argmax())
        else:
            probabilities_N, tokens_N = candidates(logits_V, self.sampling)
            # Inverse of the distribution function, in float64: one uniform number a token, whatever the settings.
            sums_N = probabilities_N.double().cumsum(0)
            drawn = torch.rand(1, generator=self._generator, dtype=torch.float64) * sums_N[-1]
            place = min(int(torch.searchsorted(sums_N, drawn, right=True)), len(sums_N) - 1)
            token = int(tokens_N[place])
        self._seen.add(token)
        return token


def penalise(logits_V: Tensor, seen: set[int], penalty: float) -> Tensor:
    """Logits with those of seen tokens made less likely."""
    if penalty == 1 or not seen:
        return logits_V
    index = torch.tensor(sorted(seen))
    values = logits_V[index]
    return logits_V.index_copy(0, index, torch.where(values > 0, values / penalty, values * penalty))


def candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens to draw from and how likely they are: (probabilities [N], not normalised, tokens [N]).

    Temperature first, then top-k, top-p of what it left, then min-p, as `transformers` orders them.
    """
    logits_V = logits_V / sampling.temperature
    size = logits_V.numel()
    if 0 < sampling.top_k < size:
        # Exactly k, in case of ties too.
        logits_N, tokens_N = logits_V.topk(sampling.top_k)
        probabilities_N = logits_N.softmax(0)
    elif sampling.top_p < 1:
        probabilities_N, tokens_N = _likeliest(logits_V.softmax(0), sampling.top_p)
    else:
        probabilities_N, tokens_N = logits_V.softmax(0), torch.arange(size)
    if sampling.top_p < 1:
        # A token stays while those before it are not enough.
        before_N = probabilities_N.cumsum(0) - probabilities_N
        num_kept = max(1, int((before_N < sampling.top_p).sum()))
        probabilities_N, tokens_N = probabilities_N[:num_kept], tokens_N[:num_kept]
    if sampling.min_p > 0:
        is_kept_N = probabilities_N >= sampling.min_p * probabilities_N.max()
        probabilities_N, tokens_N = probabilities_N[is_kept_N], tokens_N[is_kept_N]
    return probabilities_N, tokens_N


def _likeliest(probabilities_V: Tensor, total: float) -> tuple[Tensor, Tensor]:
    """Tokens by falling probability, enough of them to be `total` likely: sorting them all costs milliseconds."""
    size, num_taken = probabilities_V.numel(), 64
    while True:
        probabilities_N, tokens_N = probabilities_V.topk(min(num_taken, size))
        if num_taken >= size or float(probabilities_N.sum()) > total:
            return probabilities_N, tokens_N
        num_taken *= 8


class TextStream:
    """Text of tokens as they come: only whole characters, and nothing that a stop text may take back.

    Args:
        token_bytes: bytes of each token by id; empty for special ones.
        stop: texts that end the stream.

    Attributes:
        text: all that was given out.
        is_stopped: whether a stop text came; what follows is ignored.
    """

    def __init__(self, token_bytes: Sequence[bytes], stop: Sequence[str] = ()) -> None:
        self.text, self.is_stopped = "", False
        self._token_bytes, self._stop = token_bytes, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def add(self, token: int) -> str:
        """Take a token; the text that is now certain, maybe none."""
        return self._give(self._decoder.decode(self._token_bytes[token]))

    def finish(self) -> str:
        """The rest; a character that was cut off becomes U+FFFD."""
        given = self._give(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        self.text += rest
        return given + rest

    def _give(self, new: str) -> str:
        if self.is_stopped:
            return ""
        pending = self._held + new
        found = [place for place in (pending.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.is_stopped = True
            certain, self._held = pending[: min(found)], ""
        else:
            num_held = max((_overlap(pending, stop) for stop in self._stop), default=0)
            certain, self._held = pending[: len(pending) - num_held], pending[len(pending) - num_held :]
        self.text += certain
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text with which the stop text begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
