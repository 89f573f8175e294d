"""How many tokens a second do we generate beside `transformers`, with the same GPT-2 124M weights, on this machine's CPU?

transformers' `generate` with its key-value cache, greedy, fp32 as it loads them and in bf16; ours on the same weights,
fp32, a bf16 copy, and one in eight bits. Weights are random, drawn by transformers and imported here: speed does not ask what they say.
Prompts of 32 tokens, 64 new ones, batches of 1 and 8; all in turn, median of the rounds. Greedy tokens are compared: fp32
with fp32 must be equal, of the copies the share of rows that are equal to fp32 is told (rounding breaks near-ties, of which
random weights have many).

    python -m benchmarks.generation [--rounds 5] [--threads 2] [--batches 1 8]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.token_data import write_result
from gpt.generate import Request, generate_batch
from gpt.hf import import_hf
from gpt.model import GPT
from gpt.quantise import quantised
from gpt.sampling import Sampling

PROMPT_TOKENS, NEW_TOKENS, BATCHES = 32, 64, (1, 8)

Tokens = list[list[int]]


def their_generator(model: torch.nn.Module) -> Callable[[torch.Tensor], Tokens]:
    """Greedy decoding by `transformers`."""

    @torch.inference_mode()
    def run(prompts: torch.Tensor) -> Tokens:
        tokens = model.generate(  # type: ignore[operator]
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=50256,
        )
        return tokens[:, prompts.size(1) :].tolist()

    return run


def our_generator(model: GPT) -> Callable[[torch.Tensor], Tokens]:
    """Greedy decoding by us."""
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)

    def run(prompts: torch.Tensor) -> Tokens:
        return [c.tokens for c in generate_batch(model, [Request(row.tolist(), sampling) for row in prompts])]

    return run


def main() -> None:
    """Measure, print, write build/benchmarks/generation.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 = torch's choice")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers import __version__ as version
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = import_hf(Path(folder))
    contestants = {
        "transformers fp32": their_generator(theirs),
        "transformers bf16": their_generator(copy.deepcopy(theirs).bfloat16()),
        "gptmill fp32": our_generator(ours),
        "gptmill bf16": our_generator(copy.deepcopy(ours).bfloat16()),
        "gptmill int8": our_generator(quantised(ours)),
    }
    results: dict[str, object] = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": version,
    }
    for batch in arguments.batches:
        prompts = torch.randint(0, 50257, (batch, PROMPT_TOKENS))
        expected = contestants["transformers fp32"](prompts)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        equal: dict[str, float] = {}
        for name, run in contestants.items():
            # A first call of each, unmeasured, whose tokens are compared.
            tokens = run(prompts)
            equal[name] = sum(a == b for a, b in zip(tokens, expected, strict=True)) / batch
        for _ in range(arguments.rounds):
            for name, run in contestants.items():
                began = time.perf_counter()
                run(prompts)
                seconds[name].append(time.perf_counter() - began)
        rates = {name: batch * NEW_TOKENS / statistics.median(times) for name, times in seconds.items()}
        print(
            f"\nbatch {batch}, {torch.get_num_threads()} threads        tokens/s   rows equal to transformers fp32"
        )
        for name, rate in rates.items():
            print(f"{name:<20}{rate:>15.1f}{equal[name]:>12.0%}")
        ratios = {
            "bf16 copy / transformers as it loads (fp32)": rates["gptmill bf16"] / rates["transformers fp32"],
            "int8 copy / transformers as it loads (fp32)": rates["gptmill int8"] / rates["transformers fp32"],
            "fp32 / transformers fp32": rates["gptmill fp32"] / rates["transformers fp32"],
            "bf16 / transformers bf16": rates["gptmill bf16"] / rates["transformers bf16"],
            "our best / their best": max(rates[name] for name in rates if name.startswith("gptmill"))
            / max(rates["transformers bf16"], rates["transformers fp32"]),
        }
        for name, ratio in ratios.items():
            print(f"  {name}: {ratio:.2f}x")
        if equal["gptmill fp32"] < 1:
            print("  our fp32 tokens are not equal to theirs")
        results[f"batch {batch}"] = {"tokens_per_second": rates, "ratios": ratios, "rows_equal": equal}
    print(write_result("generation", results))


if __name__ == "__main__":
    main()
