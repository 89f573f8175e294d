"""Token datasets of the real books and WikiText, for the benchmarks of training; made once below build/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.atomic import write_json
from data_pipeline.shards import MANIFEST_NAME, Manifest, ShardInfo, file_sha256, token_dtype
from data_pipeline.tokenizer import Tokenizer, train_text
from data_pipeline.tokenizer_config import TokenizerConfig

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_CHARS = 20_000_000
# Each that this divides is held out for validation, of the sorted books.
HELD_OUT_BOOK = 20
# Before and after the text proper of a Gutenberg book.
_MARKS = re.compile(r"^\*\*\* ?(?:START|END) OF .*$", re.MULTILINE)


def texts(shared_data: Path) -> dict[tuple[str, str], list[str]]:
    """Documents by (source, split): the English books without Gutenberg's header; WikiText-2 by article, its validation
    file for training and its test file for validation."""
    parts: dict[tuple[str, str], list[str]] = {("book", "train"): [], ("book", "val"): []}
    for number, path in enumerate(sorted((shared_data / "books" / "pg-en").iterdir())):
        split = "train" if (number + 1) % HELD_OUT_BOOK else "val"
        book = path.read_text(encoding="utf-8", errors="replace")
        parts["book", split].append(_MARKS.split(book)[1] if _MARKS.search(book) else book)
    for split, name in (("train", "wikitext2-valid.txt"), ("val", "wikitext2-test.txt")):
        parts["wiki", split] = list(_articles((shared_data / "lm" / name).read_text(encoding="utf-8")))
    return parts


def _articles(text: str) -> Iterator[str]:
    """WikiText begins each article with ' = Title = '."""
    for part in re.split(r"^(?= = [^=\n]+ = $)", text, flags=re.MULTILINE):
        if part.strip():
            yield part


def dataset(shared_data: Path, vocab_size: int) -> tuple[Path, Tokenizer]:
    """Folder of the dataset with a BPE of `vocab_size` trained on its training split, and its tokenizer."""
    folder = ROOT / "build" / "benchmarks" / f"tokens-{vocab_size}"
    if (folder / MANIFEST_NAME).exists():
        return folder, Tokenizer.load(folder / "tokenizer.json")
    print(f"making the token dataset of {vocab_size:,} tokens (once)")
    folder.mkdir(parents=True, exist_ok=True)
    parts = texts(shared_data)
    training = [text for (_, split), rows in parts.items() if split == "train" for text in rows]
    share = SAMPLE_CHARS / sum(map(len, training))
    sample = (text[: int(len(text) * share)] for text in training)
    (folder / "tokenizer.json").write_text(
        train_text(sample, TokenizerConfig(vocab_size=vocab_size)), "utf-8"
    )
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    shards = [_write_shard(folder, source, split, rows, tokenizer) for (source, split), rows in parts.items()]
    manifest = Manifest(
        "real", 1, "real", tokenizer.sha256, tokenizer.vocab_size, tokenizer.eot_id, "0" * 64, tuple(shards)
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return folder, tokenizer


def _write_shard(
    folder: Path, source: str, split: str, documents: list[str], tokenizer: Tokenizer
) -> ShardInfo:
    dtype = token_dtype(tokenizer.vocab_size)
    rows = [np.array([tokenizer.eot_id, *tokenizer.encode(text)], dtype) for text in documents]
    tokens_type = pa.large_list(pa.from_numpy_dtype(dtype))
    offsets = np.cumsum([0, *map(len, rows)])
    num_bytes = [len(text.encode("utf-8")) for text in documents]
    columns = [
        pa.array([f"{source}-{split}-{i}" for i in range(len(rows))]),
        pa.LargeListArray.from_arrays(offsets, np.concatenate(rows)).cast(tokens_type),
        pa.array(num_bytes, pa.int32()),
    ]
    batch = pa.record_batch(columns, names=["doc_id", "tokens", "num_bytes"])
    path = folder / f"{source}-{split}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    size = path.stat().st_size
    return ShardInfo(
        path.name, source, split, int(offsets[-1]), len(rows), sum(num_bytes), size, file_sha256(path)
    )


def write_result(name: str, content: dict) -> Path:
    """Keep a benchmark's figures in build/benchmarks/NAME.json."""
    path = ROOT / "build" / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return path
