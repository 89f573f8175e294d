"""How many MinHash signatures a second, from text, on one core: ours beside datasketch's own.

Both read the same documents of about 4.5 KB, cut from real books (../shared/data beside the checkout, or --text),
make five-word shingles and 128 permutations of the scheme affine32. Median of five rounds in turn.

    python -m benchmarks.signatures
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import datasketch
import pyarrow as pa
import xxhash

from data_pipeline.config import DedupConfig
from data_pipeline.minhash import signatures

ROOT = Path(__file__).resolve().parents[1]
WORD = re.compile(r"\w+")
DOCUMENT_CHARS, ROUNDS = 4500, 5
CONFIG = DedupConfig()


def documents(folder: Path, count: int) -> list[str]:
    """The first `count` pieces of the folder's texts."""
    pieces: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        pieces += [text[start : start + DOCUMENT_CHARS] for start in range(0, len(text), DOCUMENT_CHARS)]
        if len(pieces) >= count:
            return pieces[:count]
    return pieces


def ours(texts: list[str]) -> None:
    """This project's signatures."""
    signatures(pa.array(texts, pa.string()), CONFIG)


def datasketch_bulk(texts: list[str]) -> None:
    """datasketch as its documentation has it, with a fast hash and its bulk call."""

    def shingles(text: str) -> list[bytes]:
        words = WORD.findall(text.lower())
        return list({" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))})

    datasketch.MinHash.bulk(
        (shingles(text) for text in texts),
        num_perm=CONFIG.num_permutations,
        scheme="affine32",
        hashfunc=xxhash.xxh32_intdigest,
    )


def main() -> None:
    """Run both, print the ratio, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, default=ROOT.parent / "shared" / "data" / "books" / "pg-en")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    texts = documents(arguments.text, arguments.documents)
    if not texts:
        parser.error(f"no *.txt in {arguments.text}; name a folder of texts with --text")
    contenders: dict[str, Callable[[list[str]], None]] = {"gptmill": ours, "datasketch": datasketch_bulk}
    ours(texts[:10])  # compile
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            began = time.perf_counter()
            run(texts)
            rates[name].append(len(texts) / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(
            f"{name:<12}{median:>10,.0f} documents/s (from {min(rates[name]):,.0f} to {max(rates[name]):,.0f})"
        )
    ratio = medians["gptmill"] / medians["datasketch"]
    print(f"gptmill / datasketch {datasketch.__version__}: {ratio:.1f}x on {len(texts):,} documents")
    if arguments.output:
        figures = {"documents": len(texts), "documents_per_second": rates, "median_ratio": ratio}
        arguments.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
