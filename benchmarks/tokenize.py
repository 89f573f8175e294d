"""Megabytes of text a second into token shards on two cores: ours beside tokenizers, datatrove and a nanoGPT-style prepare.

All use one vocabulary of 32,768 tokens, trained on the very text, and read the same documents: books, wiki and web
pages, cut at paragraphs into pieces of about a page's length, which suits the peers. Ours is a whole call under a
running Ray: plan, encode, write, hash, manifest. `tokenizers.encode_batch` only encodes. datatrove writes its token
files, without shuffling. The prepare is nanoGPT's: tiktoken in `datasets.map` with two processes, then a memmap. Imports
and process starts that a peer makes before its first document are left out of its time. Median of five rounds in turn;
the ids are compared once.

    python -m benchmarks.tokenize [--data ../shared/data] [--megabytes 100] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported
from benchmarks.documents import load
from benchmarks.peers import environment

ROOT = Path(__file__).resolve().parents[1]
CORES, FILES, PIECE_CHARS = 2, 8, 5000
LANGUAGES = {
    "english": ("en", ("books", "wiki", "c4", "dolma", "trafilatura", "scrapinghub")),
    "chinese": ("zh", ("chinese classics", "books", "chinese news")),
}
PACKAGES = ["datatrove[io,processing]", "tokenizers", "tiktoken", "datasets", "transformers"]
ENCODE_BATCH = """
import sys, time
import pyarrow.parquet as pq
from pathlib import Path
from tokenizers import Tokenizer
texts = [t for f in sorted(Path(sys.argv[1]).glob("*.parquet")) for t in pq.read_table(f, columns=["text"])["text"].to_pylist()]
tokenizer = Tokenizer.from_file(sys.argv[2])
tokenizer.encode_special_tokens = True
tokenizer.encode_batch(texts[:10], add_special_tokens=False)
began = time.perf_counter()
for start in range(0, len(texts), 1000):
    tokenizer.encode_batch(texts[start:start + 1000], add_special_tokens=False)
print(time.perf_counter() - began)
"""
DATATROVE = """
import sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
source, vocabulary, out, cores = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
began = time.perf_counter()
LocalPipelineExecutor(
    pipeline=[
        ParquetReader(source, glob_pattern="*.parquet", read_metadata=False),
        DocumentTokenizer(out + "/tokens", tokenizer_name_or_path=vocabulary, eos_token="<|endoftext|>",
                          shuffle_documents=False, batch_size=1000),
    ],
    tasks=cores, workers=cores, logging_dir=out + "/log",
).run()
print(time.perf_counter() - began)
"""
NANOGPT = """
import json, sys, time
import numpy as np
import tiktoken
import datasets
from pathlib import Path
source, ranks, out, cores = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
raw = json.loads(Path(ranks).read_text())
enc = tiktoken.Encoding("ours", pat_str=raw["pattern"], special_tokens=raw["special"],
                        mergeable_ranks={bytes.fromhex(key): value for key, value in raw["ranks"].items()})
datasets.disable_progress_bars()
documents = datasets.load_dataset("parquet", data_files=sorted(map(str, Path(source).glob("*.parquet"))),
                                  split="train", columns=["text"], cache_dir=out + "/cache")

def process(example):
    ids = enc.encode_ordinary(example["text"])
    ids.append(raw["special"]["<|endoftext|>"])
    return {"ids": ids, "len": len(ids)}

began = time.perf_counter()
tokenized = documents.map(process, remove_columns=["text"], num_proc=cores)
arr_len = np.sum(tokenized["len"], dtype=np.uint64)
arr = np.memmap(out + "/train.bin", dtype=np.uint16, mode="w+", shape=(int(arr_len),))
idx, total_batches = 0, 1024
for batch_idx in range(total_batches):
    batch = tokenized.shard(num_shards=total_batches, index=batch_idx, contiguous=True).with_format("numpy")
    arr_batch = np.concatenate(batch["ids"])
    arr[idx : idx + len(arr_batch)] = arr_batch
    idx += len(arr_batch)
arr.flush()
print(time.perf_counter() - began)
"""


def pieces(data: Path, language: str) -> Iterator[str]:
    """Real documents of a language, cut at paragraphs into pieces of about PIECE_CHARS."""
    code, collections = LANGUAGES[language]
    for name in collections:
        table = load(data, name)
        for row in table.select(["lang", "text"]).to_pylist():
            if row["lang"] != code:
                continue
            piece: list[str] = []
            for line in row["text"].splitlines(keepends=True):
                piece.append(line)
                if sum(map(len, piece)) >= PIECE_CHARS:
                    yield "".join(piece)
                    piece = []
            if piece:
                yield "".join(piece)


def write_corpus(folder: Path, texts: list[str], num_bytes: int) -> tuple[Any, int]:
    """(a corpus of the texts, repeated up to a size; its bytes), in FILES files of like size."""
    from data_pipeline import schema
    from data_pipeline.corpus import Corpus
    from data_pipeline.staging import doc_id
    from data_pipeline.text_hash import text_hashes

    chosen, size = [], 0
    while size < num_bytes:
        for text in texts:
            chosen.append(text)
            size += len(text.encode())
            if size >= num_bytes:
                break
    corpus = Corpus(folder)
    corpus.prepare()
    hashes = text_hashes(pa.array(chosen))
    rows = [
        {
            "doc_id": doc_id("web", str(number), text),
            "source": "web",
            "uri": str(number),
            "text": text,
            "num_chars": len(text),
            "text_hash": hashes[number],
            "version": 1,
        }
        for number, text in enumerate(chosen)
    ]
    files = [
        corpus.write_file(
            "documents", pa.Table.from_pylist(rows[n::FILES], schema=schema.DOCUMENTS), f"part-{n}.parquet"
        )
        for n in range(FILES)
    ]
    inputs = [{"path": "x", "source": "web", "num_documents": len(rows)}]
    corpus.commit(
        files,
        pa.Table.from_pylist(inputs, schema=schema.INPUTS),
        {"version": 1, "config_hash": "0" * 64, "config": "{}"},
    )
    return corpus, size


class Memory:
    """Peak memory that Ray's workers have to themselves and by which this process grew, in the time of a `with` block."""

    def __enter__(self) -> Memory:
        self._before = psutil.Process().memory_full_info().uss
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            total = psutil.Process().memory_full_info().uss - self._before
            for process in psutil.Process().children(recursive=True):
                try:
                    if "ray::" in " ".join(process.cmdline()):
                        total += process.memory_full_info().uss
                except psutil.Error:
                    pass
            self.peak = max(self.peak, total)


def ours(corpus: Any, tokenizer: Any, out: Path, **options: int) -> float:
    """Seconds of a whole call under a running Ray."""
    from data_pipeline.shard_writer import write_shards
    from data_pipeline.tokenizer_config import ShardConfig

    began = time.perf_counter()
    write_shards(corpus, corpus.at(), tokenizer, "bench", ShardConfig(**options), out)
    return time.perf_counter() - began


def peer(python: str, program: str, *arguments: object) -> float:
    """Seconds that a peer says it took."""
    # Bare encode_batch gets both cores; datatrove sets its own.
    settings = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(CORES)}
    command = [python, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def compare_ids(tokenizer: Any, texts: list[str]) -> None:
    """Stop where any text's ids differ between tokenizers and the encoder."""
    import tokenizers

    reference = tokenizers.Tokenizer.from_str(tokenizer.text)
    reference.encode_special_tokens = True
    encoder = tokenizer.column_encoder()
    for start in range(0, len(texts), 1000):
        part = texts[start : start + 1000]
        ids, ends = encoder.encode(pa.array(part))
        for row, found in enumerate(reference.encode_batch_fast(part, add_special_tokens=False)):
            if ids[ends[row] + 1 : ends[row + 1]].tolist() != found.ids:
                raise SystemExit(f"other ids than tokenizers for {part[row][:80]!r}")


def run_language(language: str, arguments: argparse.Namespace, folder: Path, python: str) -> dict[str, Any]:
    """Rates of all contenders on one language."""
    from data_pipeline.tokenizer import Tokenizer, train_text
    from data_pipeline.tokenizer_config import TokenizerConfig

    texts = list(pieces(arguments.data, language))
    vocabulary = ROOT / "build" / "benchmarks" / f"{language}-32k" / "tokenizer.json"
    if not vocabulary.exists():
        vocabulary.parent.mkdir(parents=True, exist_ok=True)
        config = TokenizerConfig(vocab_size=32_768)
        vocabulary.write_text(train_text(iter(texts), config), encoding="utf-8")
    tokenizer = Tokenizer.load(vocabulary)
    if not arguments.skip_ids:
        compare_ids(tokenizer, texts)
    ranks = folder / f"{language}.json"
    content = {"pattern": tokenizer.pattern, "special": tokenizer.special}
    ranks.write_text(
        json.dumps(
            content | {"ranks": {value.hex(): index for index, value in tokenizer.token_bytes.items()}}
        )
    )
    corpus, size = write_corpus(folder / language, texts, arguments.megabytes * 10**6)
    source = folder / language / "documents"
    # The slow ones get a part of the files: what they start with is not in their time.
    part = folder / f"{language}-part"
    part.mkdir()
    for path in sorted(source.glob("*.parquet"))[:2]:
        shutil.copy(path, part)
    part_size = sum(
        len(text.encode()) for path in part.iterdir() for text in pq.read_table(path)["text"].to_pylist()
    )
    contenders: dict[str, tuple[int, Callable[[Path], float]]] = {
        "gptmill": (size, lambda out: ours(corpus, tokenizer, out)),
        "nanoGPT": (size, lambda out: peer(python, NANOGPT, source, ranks, out, CORES)),
        "encode_batch": (part_size, lambda out: peer(python, ENCODE_BATCH, part, vocabulary)),
        "datatrove": (part_size, lambda out: peer(python, DATATROVE, part, vocabulary, out, CORES)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = []
    for number in range(arguments.rounds + 1):
        for name, (num_bytes, run) in contenders.items():
            if not number and name != "gptmill":
                continue
            out = folder / f"out-{name}"
            out.mkdir()
            seconds = run(out)
            if number:  # the first round starts Ray's workers
                rates[name].append(num_bytes / 1e6 / seconds)
            shutil.rmtree(out)
    for times in (1, 4):
        larger, _ = write_corpus(folder / f"{language}-{times}", texts, times * arguments.megabytes * 10**6)
        with Memory() as memory:
            # A shard is held as a whole where it is written: of the same size in both.
            ours(larger, tokenizer, folder / f"memory-{times}", shard_chars=8 << 20)
        peaks.append(memory.peak / 1e6)
        shutil.rmtree(folder / f"{language}-{times}")
    report: dict[str, Any] = {"memory_mb": {"1x": peaks[0], "4x": peaks[1]}}
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["gptmill"], found, strict=True))
        report[name] = {"mb_per_second": found, "gptmill_is_faster_by": ratio}
        print(f"{language:9s}{name:14s}{statistics.median(found):8.1f} MB/s{ratio:8.2f}x")
    print(f"{language:9s}peak memory {peaks[0]:.0f} MB, of four times the text {peaks[1]:.0f} MB")
    return report


def main() -> None:
    """Run all in turn, print rates and ratios, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--skip-ids", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "tokenize.json")
    arguments = parser.parse_args()
    python = environment("tokenizers-peers", PACKAGES)
    if python is None:
        raise SystemExit("the peers cannot be installed; is the package index in reach?")

    from data_pipeline.cluster import ray_session

    folder = Path(tempfile.mkdtemp(prefix="gm-tokenize-", dir="/tmp"))
    os.environ["RAY_TMPDIR"] = str(folder)
    try:
        with ray_session(folder / "ray.log"):
            report = {
                language: run_language(language, arguments, folder, python)
                for language in arguments.languages.split(",")
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
