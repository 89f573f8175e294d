"""Tokens a second of training on a CPU: our trainer beside a minimal plain loop and transformers' Trainer.

All train GPT-2's network (6 layers of 384, context 256, 50,257 tokens of vocabulary) on the same sequences of real text
in the same order, 2,048 tokens a step, with the same schedule (transformers' warm-up begins at 0, a step behind the others), on the same two threads; each run in a process of its
own, in turn. `plain` is nanoGPT's model and loop, written out below, float32 as they are by default; `transformers` is
its Trainer on GPT2LMHeadModel with its defaults (float32), `transformers-bf16` the same with bf16=True. Speed is the
median over the steps of all seeds but the first two of each run; the loss is that on the same held-out text, in
float32, after the last step.

    python -m benchmarks.training [--seeds 3] [--steps 30] [--data ../shared/data]

transformers and accelerate must be installed (accelerate goes below build/ by itself).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.token_data import ROOT, dataset, write_result
from data_pipeline.shards import TokenDataset
from gpt.config import ModelConfig, TrainConfig
from gpt.schedule import DataSchedule

VOCAB_SIZE, CONTEXT, LAYERS, HEADS, WIDTH, BATCH, CORES = 50_257, 256, 6, 6, 384, 8, 2
RATE, BETAS, DECAY, WARMUP, CLIP = 1e-3, (0.9, 0.95), 0.1, 5, 1.0
SKIPPED_STEPS, VALIDATION_ROWS = 2, 64
CONTESTANTS = ("ours", "plain", "transformers", "transformers-bf16")


def train_config(steps: int, seed: int) -> TrainConfig:
    """Ours; the others follow it."""
    return TrainConfig(
        num_steps=steps,
        batch_size=BATCH,
        lr=RATE,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        warmup_steps=WARMUP,
        min_lr_ratio=0.0,
        grad_clip=CLIP,
        eval_every=0,
        eval_tokens=CONTEXT,
        checkpoint_every=0,
        seed=seed,
    )


def sequences(folder: Path, steps: int, seed: int) -> Tensor:
    """What ours trains on, [steps, BATCH, CONTEXT + 1], for the others."""
    schedule = DataSchedule.of(TokenDataset(folder, "train"), train_config(steps, seed), CONTEXT)
    sources, windows = schedule.order.samples(0, steps * BATCH)
    rows = np.empty((steps * BATCH, CONTEXT + 1), np.uint16)
    for i, source in enumerate(schedule.order.sources):
        part = np.empty((int((sources == i).sum()), CONTEXT + 1), np.uint16)
        schedule.windows[source].read(windows[sources == i], part, None)
        rows[sources == i] = part
    return torch.from_numpy(rows.astype(np.int64)).view(steps, BATCH, CONTEXT + 1)


@torch.no_grad()
def validation_loss(folder: Path, logits_of: Any) -> float:
    """Mean loss of the first rows of the held-out books, float32."""
    stream = TokenDataset(folder, "val").streams["book"]
    rows = torch.from_numpy(stream.read(0, VALIDATION_ROWS * (CONTEXT + 1)).astype(np.int64))
    losses = []
    for part in rows.view(-1, CONTEXT + 1).split(8):
        logits = logits_of(part[:, :-1])[..., :VOCAB_SIZE]
        losses.append(F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten()).item())
    return statistics.mean(losses)


# --- Ours ---


def ours(folder: Path, steps: int, seed: int) -> tuple[list[float], Any]:
    """Seconds of each step, and the trained model."""
    from gpt.events import Callback, StepRecord
    from gpt.trainer import Trainer

    seconds, waits = [], []

    class Clock(Callback):
        def on_step(self, record: StepRecord) -> None:
            seconds.append(record.seconds_per_step)
            waits.append(record.data_wait)

    model = ModelConfig(VOCAB_SIZE, CONTEXT, LAYERS, HEADS, width=WIDTH)
    run_dir = Path(tempfile.mkdtemp(prefix="training-"))
    token_bytes = np.ones(VOCAB_SIZE, np.int64)
    try:
        trainer = Trainer(model, train_config(steps, seed), folder, run_dir, token_bytes, callbacks=[Clock()])
        trainer.fit()
    finally:
        shutil.rmtree(run_dir)
    print(f"  waited for data {statistics.mean(waits[SKIPPED_STEPS:]):.3%} of the time", file=sys.stderr)
    return seconds, trainer.model.eval()


# --- nanoGPT's model and loop (github.com/karpathy/nanoGPT, model.py and train.py), written out ---


class PlainBlock(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.mlp_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, HEADS, c // HEADS).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(WIDTH, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class PlainGPT(nn.Module):
    """GPT-2 with a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB_SIZE, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(PlainBlock() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                scale = 1 / math.sqrt(2 * LAYERS) if name.endswith("proj.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


def plain(folder: Path, steps: int, seed: int) -> tuple[list[float], Any]:
    """Seconds of each step, and the trained model."""
    torch.manual_seed(seed)
    model = PlainGPT()
    decaying = [p for p in model.parameters() if p.dim() >= 2]
    still = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decaying, "weight_decay": DECAY}, {"params": still, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    seconds = []
    for step, rows in enumerate(sequences(folder, steps, seed)):
        began = time.perf_counter()
        ratio = (step - WARMUP) / (steps - WARMUP)
        rate = RATE * (step + 1) / WARMUP if step < WARMUP else RATE * 0.5 * (1 + math.cos(math.pi * ratio))
        for group in optimizer.param_groups:
            group["lr"] = rate
        _, loss = model(rows[:, :-1], rows[:, 1:])
        assert loss is not None
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
    return seconds, lambda tokens: model(tokens)[0]


# --- transformers ---


def with_transformers(folder: Path, steps: int, seed: int, bf16: bool) -> tuple[list[float], Any]:
    """Seconds of each step, and the trained model."""
    import transformers
    from torch.utils.data import SequentialSampler

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config)
    rows = [
        {"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]}
        for row in sequences(folder, steps, seed).flatten(0, 1)
    ]
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(rows)

    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=WARMUP,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            seed=seed,
            bf16=bf16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = InOrder(model, arguments, train_dataset=rows, callbacks=[Clock()])
        trainer.train()
    # Without the wrapper that casts to bf16.
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()
    return np.diff(ends).tolist(), lambda tokens: model(tokens).logits


def run(name: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """One contestant in this process."""
    torch.set_num_threads(CORES)
    if name == "ours":
        seconds, logits_of = ours(folder, steps, seed)
    elif name == "plain":
        seconds, logits_of = plain(folder, steps, seed)
    else:
        seconds, logits_of = with_transformers(folder, steps, seed, bf16=name.endswith("bf16"))
    return {"name": name, "seed": seed, "seconds": seconds, "loss": validation_loss(folder, logits_of)}


def accelerate_folder() -> str:
    """Folder that holds accelerate, which transformers' Trainer needs and nothing of ours does."""
    folder = ROOT / "build" / "accelerate"
    if not (folder / "accelerate" / "__init__.py").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, "accelerate"], check=True)
    return str(folder)


def main() -> None:
    """Run all contestants in turn and print speeds, ratios and losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder, _ = dataset(options.data, VOCAB_SIZE)
    if options.one:
        name, seed = options.one.split(":")
        print(json.dumps(run(name, int(seed), options.steps, folder)))
        return
    environment = dict(os.environ)
    places = [str(ROOT), accelerate_folder(), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(places)
    runs: list[dict[str, Any]] = []
    for seed in range(1, options.seeds + 1):
        for name in options.only:
            command = [sys.executable, "-m", "benchmarks.training", "--one", f"{name}:{seed}"]
            command += ["--steps", str(options.steps), "--data", str(options.data)]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            tokens_per_second = speed([runs[-1]])
            print(
                f"seed {seed} {name:<18} {tokens_per_second:8,.0f} tokens/s  loss {runs[-1]['loss']:.4f}",
                flush=True,
            )
    report(runs, options.only)


def speed(runs: list[dict[str, Any]]) -> float:
    """Median tokens a second over the steps of these runs."""
    return BATCH * CONTEXT / statistics.median(s for run in runs for s in run["seconds"][SKIPPED_STEPS:])


def report(runs: list[dict[str, Any]], names: list[str]) -> None:
    """Print and keep what came of it."""
    by_name = {name: [run for run in runs if run["name"] == name] for name in names}
    rows = {}
    for name, own in by_name.items():
        losses = [run["loss"] for run in own]
        spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
        rows[name] = {"tokens_per_second": speed(own), "loss": statistics.mean(losses), "spread": spread}
        ratio = rows["ours"]["tokens_per_second"] / speed(own) if "ours" in rows else math.nan
        print(
            f"{name:<18} {speed(own):8,.0f} tokens/s  ours is {ratio:.2f} times that  "
            f"loss {rows[name]['loss']:.4f} +- {spread:.4f}"
        )
    print(write_result("training", {"summary": rows, "runs": runs, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
