"""Bytes a token of 32,768 tokens trained on the real data beside GPT-2's 50,257, on documents that were held out.

Of each collection every tenth document is held out, all others are learnt from. GPT-2's files are among the real data.

    python -m benchmarks.vocabulary [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa

from benchmarks.documents import load
from data_pipeline.foreign_tokenizer import import_vocabulary
from data_pipeline.tokenizer import Tokenizer, open_tokenizer, train_text
from data_pipeline.tokenizer_config import TokenizerConfig

ROOT = Path(__file__).resolve().parents[1]
# {language: (collections that are measured, others that are only learnt from)}.
COLLECTIONS = {
    "en": (("books", "wiki"), ("dolma", "c4", "trafilatura")),
    "zh": (("chinese classics", "books", "chinese news"), ()),
}


def count(tokenizer: Tokenizer, texts: list[str]) -> int:
    """Tokens of some texts."""
    ids, _ = tokenizer.column_encoder().encode(pa.array(texts, pa.large_string()))
    return len(ids) - len(texts)


def main() -> None:
    """Train, measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "vocabulary.json")
    arguments = parser.parse_args()
    files = arguments.data / "tokenizer"
    gpt2 = open_tokenizer("gpt2", import_vocabulary(files / "gpt2-encoder.json", files / "gpt2-vocab.bpe"))
    report = {}
    for lang, (measured, others) in COLLECTIONS.items():
        texts = {
            name: [
                row["text"]
                for row in load(arguments.data, name).select(["lang", "text"]).to_pylist()
                if row["lang"] == lang
            ]
            for name in (*measured, *others)
        }
        seen = [
            text
            for name, part in texts.items()
            for number, text in enumerate(part)
            if name in others or number % 10
        ]
        ours = open_tokenizer("ours", train_text(iter(seen), TokenizerConfig(vocab_size=32_768)))
        sums = [0, 0, 0]
        for name in measured:
            held_out = texts[name][::10]
            num_bytes = sum(len(text.encode()) for text in held_out)
            numbers = [num_bytes, count(ours, held_out), count(gpt2, held_out)]
            sums = [total + number for total, number in zip(sums, numbers, strict=True)]
            report[f"{lang} {name}"] = numbers
        report[f"{lang} together"] = sums
    for name, (num_bytes, own, others_) in report.items():
        print(
            f"{name:20s}{num_bytes / 1e6:6.2f} MB{num_bytes / own:8.3f} bytes/token, GPT-2 "
            f"{num_bytes / others_:6.3f}: {others_ / own:6.3f}x"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
