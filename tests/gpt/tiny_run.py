"""A tiny model and schedule, and token datasets on disk in the format of data_pipeline/shards.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.shards import Manifest, ShardInfo, file_sha256, token_dtype
from gpt.config import ModelConfig, TrainConfig

VOCAB_SIZE = 50  # not a multiple of 64, so that padded rows exist
MODEL = ModelConfig(vocab_size=VOCAB_SIZE, context_length=16, num_layers=2, num_heads=2, width=32)
TRAIN = TrainConfig(
    num_steps=6,
    batch_size=8,
    lr=3e-3,
    warmup_steps=2,
    eval_every=0,
    checkpoint_every=2,
    keep_checkpoints=10,
    precision="fp32",
)


def write_shard(
    folder: Path, name: str, source: str, split: str, documents: Sequence[Sequence[int]]
) -> ShardInfo:
    """One Arrow IPC file of two record batches, so that windows cross them."""
    half = max(1, len(documents) // 2)
    path = folder / f"{name}.arrow"
    tokens_type = pa.large_list(pa.from_numpy_dtype(token_dtype(VOCAB_SIZE)))
    schema = pa.schema([("doc_id", pa.string()), ("tokens", tokens_type), ("num_bytes", pa.int32())])
    num_bytes = [2 * len(tokens) for tokens in documents]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for rows in (range(half), range(half, len(documents))):
            columns = [
                pa.array([f"{name}-{i}" for i in rows]),
                pa.array([documents[i] for i in rows], tokens_type),
                pa.array([num_bytes[i] for i in rows], pa.int32()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    num_tokens = sum(len(tokens) for tokens in documents)
    size = path.stat().st_size
    return ShardInfo(
        path.name, source, split, num_tokens, len(documents), sum(num_bytes), size, file_sha256(path)
    )


def write_dataset(
    folder: Path,
    documents: Mapping[tuple[str, str], Sequence[Sequence[int]]],
    source_weights: Mapping[str, float] | None = None,
) -> Path:
    """A dataset from {(source, split): documents}, two shards where there are documents for them."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for (source, split), rows in documents.items():
        half = len(rows) // 2
        for i, part in enumerate(part for part in (rows[:half], rows[half:]) if part):
            shards.append(write_shard(folder, f"{source}-{split}-{i}", source, split, part))
    manifest = Manifest(
        "tiny", 1, "tiny", "0" * 64, VOCAB_SIZE, 0, "0" * 64, tuple(shards), source_weights or {}
    )
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def documents(num_docs: int, seed: int) -> list[list[int]]:
    """Documents with something to learn: each token is likely the one before plus a step of its document."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_docs):
        length, start, step = int(rng.integers(20, 60)), int(rng.integers(0, 49)), int(rng.integers(1, 4))
        line = 1 + (start + step * np.arange(length)) % (VOCAB_SIZE - 1)
        noise = rng.random(length) < 0.05
        line[noise] = rng.integers(1, VOCAB_SIZE, noise.sum())
        rows.append([0, *line.tolist()])
    return rows
