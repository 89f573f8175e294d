"""Tokens a second that one thread reads from Arrow shards in the order of training: the loader's own reading.

Order, memory-mapped reading and the count of targets, up to the host's tensors; 40 M random tokens, batches
of 512 sequences, median of five rounds of 50 batches. Torch and numpy run on one thread.

    python -m benchmarks.loader
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu_training import write_tokens
from benchmarks.token_data import write_result
from data_pipeline.shards import TokenDataset
from gpt.config import TrainConfig
from gpt.loader import BatchLoader
from gpt.schedule import DataSchedule

ROUNDS, BATCHES, BATCH = 5, 50, 512


def main() -> None:
    """Measure each way to cut sequences at two lengths."""
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tokens(Path(folder), 50_257, 40_000_000)
        data = TokenDataset(folder, "train")
        for packing in ("contiguous", "best_fit"):
            for context in (256, 1024):
                for with_documents in (False, True):
                    config = TrainConfig(num_steps=1, batch_size=BATCH, warmup_steps=0, packing=packing)  # type: ignore[arg-type]
                    schedule = DataSchedule.of(data, config, context)
                    loader = BatchLoader(
                        schedule.windows,
                        schedule.order,
                        schedule.batches,
                        data.streams["random"].dtype,
                        with_documents=with_documents,
                    )
                    loader.close()  # its thread: this one reads
                    speeds = []
                    for number in range(ROUNDS):
                        began = time.perf_counter()
                        for step in range(BATCHES):
                            loader._read(number * BATCHES + step)
                        speeds.append(BATCHES * BATCH * context / (time.perf_counter() - began))
                    name = f"{packing} {context}{' with documents' if with_documents else ''}"
                    rows[name] = statistics.median(speeds)
                    print(f"{name:<35} {rows[name] / 1e6:8,.0f} M tokens/s", flush=True)
    print(write_result("loader", rows))


if __name__ == "__main__":
    main()
