"""Training speed of one GPU, over micro-batches, compilation and ways to compute the loss; needs torch, numpy, pyarrow.

Every setting runs the trainer's own step (forward, chunked loss, backward, clip, fused AdamW) on random token shards
that are written first, and so through the loader, with bf16 products. MFU is (6 N + 12 L d T) tokens/s over the device's
bf16 peak (gpt/throughput.py has the table); N counts the parameters in matrix products.

    python -m benchmarks.gpu_training [--models gpt2 gpt2-medium gpt2-xl] [--micro 8 16 32 64] [--out gpu_training.json]
    python -m benchmarks.gpu_training --tiny          the same on any machine, in a minute: does it run?

`loss` is chunked (some thousand tokens' logits at a time) or whole (those of the micro-batch at once, as most trainers
have it); compile fuses the network and the loss.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from data_pipeline.shards import MANIFEST_NAME, Manifest, ShardInfo, TokenDataset, file_sha256, token_dtype
from gpt.config import ModelConfig, TrainConfig
from gpt.distributed import default_device
from gpt.heap import keep_freed_memory
from gpt.loader import BatchLoader
from gpt.meter import StepMeter
from gpt.model import GPT
from gpt.objectives import CAUSAL, TrainingLoss
from gpt.parallel import prepare
from gpt.schedule import DataSchedule
from gpt.throughput import utilisation
from gpt.updates import Updates

# Radford 2019, table 2: layers, heads, width.
MODELS = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
VOCAB_SIZE, CONTEXT, BATCH_TOKENS = 50_257, 1024, 2**19
WARM_STEPS, STEPS = 3, 7


def write_tokens(folder: Path, vocab_size: int, num_tokens: int) -> None:
    """A dataset of random documents of about 700 tokens."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, vocab_size, num_tokens).astype(token_dtype(vocab_size))
    offsets = np.unique(np.append(generator.integers(0, num_tokens, num_tokens // 700), [0, num_tokens]))
    tokens[offsets[:-1]] = 0
    rows = len(offsets) - 1
    columns = [
        pa.array([str(i) for i in range(rows)]),
        pa.LargeListArray.from_arrays(offsets, tokens),
        pa.array([1] * rows, pa.int32()),
    ]
    batch = pa.record_batch(columns, names=["doc_id", "tokens", "num_bytes"])
    path = folder / "random.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    shard = ShardInfo(
        path.name, "random", "train", num_tokens, rows, rows, path.stat().st_size, file_sha256(path)
    )
    manifest = Manifest("random", 1, "none", "0" * 64, vocab_size, 0, "0" * 64, (shard,))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def measure(
    folder: Path, model_config: ModelConfig, train: TrainConfig, device: torch.device
) -> dict[str, Any]:
    """Median speed of a few steps in one setting."""
    torch.manual_seed(0)
    model = GPT(model_config).to(device)
    prepare(model, train, device)
    updates = Updates(model, train, device, 0, 1)
    loss_of = TrainingLoss(model, train)
    data = DataSchedule.of(TokenDataset(folder, "train"), train, model_config.context_length)
    meter = StepMeter([CAUSAL], 1, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, waits, curve = [], [], []
    dtype = token_dtype(model_config.vocab_size)
    with BatchLoader(
        data.windows,
        data.order,
        data.batches,
        dtype,
        micro_batch_size=train.micro_batch_size,
        device=device,
    ) as loader:
        for step in range(WARM_STEPS + STEPS):
            began = time.perf_counter()
            batch = next(loader)
            for micro in batch.micro_batches:
                with torch.autocast(device.type, torch.bfloat16):
                    losses = loss_of(micro)
                (losses[CAUSAL].total / batch.num_valid_tokens).backward()
                meter.add_losses(losses, micro)
            updates.apply(step)
            meter.add_step(batch.num_valid_tokens, batch.wait_seconds)
            interval = meter.reduce(False, 1)  # waits for the device
            seconds.append(time.perf_counter() - began)
            waits.append(interval.data_wait)
            curve.append(interval.loss_by_objective[CAUSAL])
    tokens_per_second = batch.num_valid_tokens / statistics.median(seconds[WARM_STEPS:])
    return {
        "tokens_per_second": tokens_per_second,
        "mfu": utilisation(model_config, tokens_per_second, device),
        "first_step_seconds": seconds[0],
        "data_wait": statistics.mean(waits[WARM_STEPS:]),
        "losses": curve,
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
    }


def main() -> None:
    """Measure every combination, print a line each and write them all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="*", default=["gpt2", "gpt2-medium", "gpt2-xl"], choices=list(MODELS)
    )
    parser.add_argument("--micro", nargs="*", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--compile", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--loss", nargs="*", default=["chunked", "whole"])
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("gpu_training.json"))
    options = parser.parse_args()
    device = default_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"torch {torch.__version__} on {name}")
    context, vocab_size, batch_tokens, num_tokens = CONTEXT, VOCAB_SIZE, BATCH_TOKENS, 20_000_000
    shapes = {model: MODELS[model] for model in options.models}
    micros, compiles = options.micro, options.compile
    if options.tiny:
        context, vocab_size, batch_tokens, num_tokens = 64, 500, 512, 50_000
        shapes, micros, compiles = {"tiny": (2, 2, 64)}, [4, 8], [0]
    if device.type == "cpu":
        keep_freed_memory()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write_tokens(Path(folder), vocab_size, num_tokens)
        for (model, shape), micro, compiled, loss in itertools.product(
            shapes.items(), micros, compiles, options.loss
        ):
            layers, heads, width = shape
            config = ModelConfig(vocab_size, context, layers, heads, width=width)
            train = TrainConfig(
                num_steps=1000,
                batch_size=batch_tokens // context,
                micro_batch_size=micro,
                lr=6e-4,
                compile=bool(compiled),
                loss_chunk=0 if loss == "whole" else min(options.chunk, micro * context),
            )
            setting = {"model": model, "micro_batch": micro, "compile": bool(compiled), "loss": loss}
            try:
                outcome = measure(Path(folder), config, train, device)
            except torch.cuda.OutOfMemoryError:
                outcome = {"out_of_memory": True}
            # Here, where the error no longer holds on to what it was raised over.
            torch.cuda.empty_cache()
            torch.compiler.reset()
            results.append(setting | outcome)
            speed = outcome.get("tokens_per_second")
            mfu = outcome.get("mfu")
            print(
                f"{model} micro {micro:>3} compile {compiled} loss {loss:<9}"
                + ("out of memory" if speed is None else f"{speed:>12,.0f} tokens/s")
                + (f"  MFU {mfu:.1%}" if mfu else ""),
                flush=True,
            )
            options.out.parent.mkdir(parents=True, exist_ok=True)
            content = {"device": name, "torch": torch.__version__, "results": results}
            options.out.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
