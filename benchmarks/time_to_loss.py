"""Wall time to the same validation loss: the modern recipe beside plain GPT-2 with AdamW, same trainer and cores.

Both train on real books and WikiText with about the same number of parameters (the difference is printed), the same
tokens a step, bf16 matrix products and two threads. The plain recipe (GPT-2's network, AdamW, warm-up and cosine; its
learning rate is the best of those tried, see the results log) trains to its end; the modern one (rotary positions,
RMSNorm, normalised queries and keys, squared ReLU, projections that start at zero, untied head, Muon, trapezoid) must
reach the loss that the plain one has at its end. Time is that of the training steps, without evaluations.

    python -m benchmarks.time_to_loss [--seeds 3] [--recipe plain|modern|both] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.token_data import ROOT, dataset, write_result
from gpt.config import ModelConfig, TrainConfig

VOCAB_SIZE, CORES = 4096, 2
PLAIN_MODEL = ModelConfig(
    vocab_size=VOCAB_SIZE, context_length=256, num_layers=4, num_heads=4, width=256, bias=True
)
PLAIN_TRAIN = TrainConfig(
    num_steps=300,
    batch_size=16,
    lr=1e-3,
    beta2=0.99,
    warmup_steps=30,
    min_lr_ratio=0.1,
    eval_every=100,
    eval_tokens=20_000,
    checkpoint_every=0,
    log_every=10,
)
# The untied head takes the room of a layer.
MODERN_MODEL = replace(
    PLAIN_MODEL,
    num_layers=3,
    mlp_ratio=3.5,
    positions="rotary",
    norm="rms",
    norm_gain=False,
    embedding_norm=True,
    qk_norm=True,
    activation="relu2",
    bias=False,
    tie_embeddings=False,
    init="modern",
    logit_soft_cap=15.0,
)
MODERN_TRAIN = replace(
    PLAIN_TRAIN,
    num_steps=140,
    optimizer="muon",
    muon_lr=0.03,
    lr=0.01,
    embedding_lr=0.3,
    head_lr=0.005,
    beta1=0.8,
    beta2=0.95,
    weight_decay=0.0,
    warmup_steps=0,
    schedule="wsd",
    decay_ratio=0.6,
    min_lr_ratio=0.0,
    grad_clip=0.0,
    eval_every=20,
)
RECIPES = {"plain": (PLAIN_MODEL, PLAIN_TRAIN), "modern": (MODERN_MODEL, MODERN_TRAIN)}


def train(
    recipe: str, seed: int, folder: Path, token_bytes: list[int], changes: dict[str, Any]
) -> dict[str, Any]:
    """One run in this process: (step, seconds of training, validation loss) at each evaluation."""
    import numpy as np
    import torch

    from gpt.events import Callback, EvaluationRecord, StepRecord
    from gpt.trainer import Trainer

    torch.set_num_threads(CORES)
    model, schedule = RECIPES[recipe]
    shape = {name: value for name, value in changes.items() if hasattr(model, name)}
    model = replace(model, **shape)
    schedule = replace(schedule, seed=seed, **{k: v for k, v in changes.items() if k not in shape})
    curve = []

    class Clock(Callback):
        """Adds up the time of the steps."""

        def __init__(self) -> None:
            self.seconds, self.step = 0.0, 0

        def on_step(self, record: StepRecord) -> None:
            self.seconds += (record.step - self.step) * record.seconds_per_step
            self.step = record.step

        def on_evaluation(self, record: EvaluationRecord) -> None:
            curve.append((record.step, self.seconds, record.scores["all"].loss))

    run_dir = Path(tempfile.mkdtemp(prefix="time-to-loss-"))
    try:
        trainer = Trainer(model, schedule, folder, run_dir, np.array(token_bytes), callbacks=[Clock()])
        trainer.fit()
    finally:
        shutil.rmtree(run_dir)
    return {
        "recipe": recipe,
        "seed": seed,
        "num_parameters": model.num_parameters(),
        "curve": curve,
        "model": asdict(model),
        "train": asdict(schedule),
    }


def main() -> None:
    """Run the recipes, each in a process of its own, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", choices=["plain", "modern", "both"], default="both")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--changes", default="{}", help="JSON of settings to change, for a look at one recipe"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder, tokenizer = dataset(options.data, VOCAB_SIZE)
    if options.one:
        recipe, seed = options.one.split(":")
        token_bytes = tokenizer.byte_lengths().tolist()
        run = train(recipe, int(seed), folder, token_bytes, json.loads(options.changes))
        print(json.dumps(run))
        return
    recipes = ["plain", "modern"] if options.recipe == "both" else [options.recipe]
    runs: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in recipes}
    for seed in range(1, options.seeds + 1):
        for recipe in recipes:
            command = [sys.executable, "-m", "benchmarks.time_to_loss", "--one", f"{recipe}:{seed}"]
            command += ["--data", str(options.data), "--changes", options.changes]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
            run = json.loads(done.stdout.splitlines()[-1])
            runs[recipe].append(run)
            step, seconds, loss = run["curve"][-1]
            print(f"seed {seed} {recipe}: loss {loss:.4f} after {step} steps, {seconds:.1f} s", flush=True)
            if options.recipe != "both":
                print("  " + " ".join(f"{s}:{v:.3f}" for s, _, v in run["curve"]))
    if options.recipe == "both":
        report(runs)


def report(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print and keep the ratio of the times."""
    sizes = {recipe: of[0]["num_parameters"] for recipe, of in runs.items()}
    print(f"parameters: {sizes}, modern {sizes['modern'] / sizes['plain'] - 1:+.1%}")
    ratios = []
    for plain, modern in zip(runs["plain"], runs["modern"], strict=True):
        _, plain_seconds, wanted = plain["curve"][-1]
        reached = next((seconds for _, seconds, loss in modern["curve"] if loss <= wanted), None)
        ratio = reached / plain_seconds if reached is not None else float("inf")
        ratios.append(ratio)
        when = "never" if reached is None else f"after {reached:.1f} s"
        print(
            f"seed {plain['seed']}: {wanted:.4f} after {plain_seconds:.1f} s; modern {when}, ratio {ratio:.2f}"
        )
    print(f"time to loss, modern / plain: median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}")
    print(write_result("time_to_loss", {"ratios": ratios, "runs": runs}))


if __name__ == "__main__":
    main()
