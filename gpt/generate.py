"""Continue a prompt. One sequence, no key-value cache: the whole context is read again for each token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt.config import ConfigError
from gpt.model import GPT


@torch.inference_mode()
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
    """Sample tokens that follow a prompt.

    Args:
        model: in training or evaluation mode; the mode is restored.
        prompt_tokens: at least one token; the end-of-text token begins a document. Only the last context_length
            tokens, prompt and output together, are seen.
        max_new_tokens: most tokens to sample.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample from the k likeliest only, None = from all.
        seed: of this call's own generator, which lives on the CPU, so that a GPU draws alike.
        stop_token: ends the output and is not part of it.

    Returns:
        The new tokens, without the prompt.

    Raises:
        ConfigError: an empty prompt, a negative temperature or a top_k under 1.
    """
    if not prompt_tokens:
        raise ConfigError("the prompt has no tokens; begin with the end-of-text token")
    if temperature < 0:
        raise ConfigError(f"temperature is {temperature}; it must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it must be at least 1, or empty for all tokens")
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    tokens = list(prompt_tokens)
    for _ in range(max_new_tokens):
        context_1T = torch.tensor([tokens[-model.config.context_length :]], device=model.device)
        logits_V = model.logits(model.hidden(context_1T)[0, -1]).float().cpu()
        token = _pick(logits_V, temperature, top_k, generator)
        if token == stop_token:
            break
        tokens.append(token)
    model.train(was_training)
    return tokens[len(prompt_tokens) :]


def _pick(logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V / temperature
    if top_k is not None and top_k < logits_V.numel():
        # Exactly k, in case of ties too.
        kept_K, index_K = logits_V.topk(top_k)
        return int(index_K[torch.multinomial(kept_K.softmax(0), 1, generator=generator)])
    return int(torch.multinomial(logits_V.softmax(0), 1, generator=generator))
