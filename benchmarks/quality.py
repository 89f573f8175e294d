"""Which quality model tells books and wiki pages from raw web pages better, and which scores faster?

Ours beside scikit-learn's HashingVectorizer (word 1- and 2-grams, as many buckets) with a balanced LogisticRegression,
at its own cost and at ours, and beside fastText's supervised classifier with word bigrams, which gets an environment of
its own on the first call (or --peer-python; --peer-python none leaves it out). Documents are those of
../shared/data beside the checkout, each text once, in five parts by the hash of the text: each document is scored by
the model that was trained on the four parts it is not in. Speed is documents a second of CPU time, from texts to
scores, on English texts of 4.6 KB cut from the books, median of five rounds in turn.

    python -m benchmarks.quality [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import load_gold

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, PARTS, LOG2_BUCKETS, COST = 5, 5, 18, 100.0
PIECE_CHARS, NUM_PIECES, MIN_CHARS = 4600, 2000, 200
# fastText reads one line a document; its labels are first. Reads texts.json, writes scores.json, then answers each line
# on its input with the rate of one more round.
FASTTEXT = """
import json, sys, time
import fasttext
folder = sys.argv[1]
given = json.load(open(folder + "/texts.json"))
lines = [" ".join(text.lower().split()) for text in given["texts"]]
scores, model = [0.0] * len(lines), None
def score(line):
    labels, values = model.predict(line, k=2)
    return float(dict(zip(labels, values))["__label__good"])
for part in range(given["parts"]):
    with open(folder + "/train.txt", "w") as file:
        for line, good, its in zip(lines, given["good"], given["part"]):
            if its != part:
                # As many lines of each class: fastText knows no weights.
                for _ in range(given["repeat"] if good else 1):
                    file.write(f"__label__{'good' if good else 'bad'} {line}\\n")
    model = fasttext.train_supervised(
        folder + "/train.txt", wordNgrams=2, bucket=1 << given["log2_buckets"], thread=1, verbose=0, **given["options"]
    )
    for index, its in enumerate(given["part"]):
        if its == part:
            scores[index] = score(lines[index])
json.dump(scores, open(folder + "/scores.json", "w"))
print("ready", flush=True)
for _ in sys.stdin:
    began = time.process_time()
    for piece in given["pieces"]:
        score(" ".join(piece.lower().split()))
    print(len(given["pieces"]) / (time.process_time() - began), flush=True)
"""
# Its default of 5 passes gave an AUC of 0.892; rates of 0.2 and more end in "Encountered NaN".
FASTTEXT_OPTIONS = {"epoch": 25, "lr": 0.1, "dim": 16}
# Whole books, 25 times over, would take it hours; scikit-learn gets them whole.
FASTTEXT_CHARS = 10_000


@dataclass(frozen=True)
class Document:
    """A text, where it is from, and the part that it is tested in."""

    text: str
    source: str
    part: int

    @property
    def is_good(self) -> bool:
        """Whether it is curated."""
        return self.source in ("book", "wiki")


def load_documents(data: Path) -> list[Document]:
    """Web pages, C4, books and wiki articles: main text only, each text once, none too short to judge."""
    from data_pipeline import extract, staging
    from data_pipeline.config import ExtractConfig, SourceConfig
    from data_pipeline.schema import split
    from data_pipeline.sources import list_files, read_records
    from data_pipeline.text_hash import text_hash

    def paths(*names: str) -> list[str]:
        return [str(data / name) for name in names]

    sources = [
        SourceConfig(name="web", kind="web", paths=paths("web/warc")),
        SourceConfig(name="web", kind="files", paths=paths("web/text")),
        SourceConfig(name="book", kind="books", paths=paths("books/pg-en", "books/pg-fr", "books/pg-zh")),
        SourceConfig(name="wiki", kind="wiki", paths=paths("wiki")),
    ]
    texts: list[tuple[str, str]] = []
    for source in sources:
        for file in list_files(source):
            table = staging.raw_table(list(read_records(source, file)), 0, source, file.name)
            reasons = [
                None if reason == "" else staging.schema.Verdict(reason)
                for reason in table["reason"].to_pylist()
            ]
            alive, _ = split(table.drop_columns(["reason"]), "read", reasons)
            kept, _ = extract.extract(alive, ExtractConfig())
            texts += [(source.name, text) for text in kept["text"].to_pylist()]
    from data_pipeline.html.main_text import main_text

    texts += [
        ("web", main_text(page.html))
        for pages in load_gold(data / "web" / "html_gold").values()
        for page in pages
    ]
    once = {text_hash(text): (source, text) for source, text in texts if len(text) >= MIN_CHARS}
    return [Document(text, source, int(key[:8], 16) % PARTS) for key, (source, text) in sorted(once.items())]


def pieces_of(documents: Sequence[Document]) -> list[str]:
    """English texts of the length of a web page, from the books."""
    pieces: list[str] = []
    for document in documents:
        if document.source == "book" and document.text.isascii() | (" the " in document.text[:20_000]):
            starts = range(0, len(document.text) - PIECE_CHARS, PIECE_CHARS)
            pieces += [document.text[start : start + PIECE_CHARS] for start in starts]
        if len(pieces) >= NUM_PIECES:
            return pieces[:NUM_PIECES]
    return pieces


Scorer = Callable[[list[str]], np.ndarray]


def ours(texts: list[str], good: np.ndarray) -> Scorer:
    """This project's model."""
    from data_pipeline.quality.classifier import fit
    from data_pipeline.quality.features import Windows
    from data_pipeline.quality.model import QualityModel

    weights, bias = fit(Windows.of_texts(texts, LOG2_BUCKETS), good, LOG2_BUCKETS, COST)
    return QualityModel(weights, bias, {}).score


def sklearn_model(cost: float) -> Callable[[list[str], np.ndarray], Scorer]:
    """scikit-learn as its documentation has it for text too large for a vocabulary."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    def train(texts: list[str], good: np.ndarray) -> Scorer:
        vectorizer = HashingVectorizer(ngram_range=(1, 2), n_features=1 << LOG2_BUCKETS)
        model = LogisticRegression(C=cost, class_weight="balanced", max_iter=1000)
        model.fit(vectorizer.transform(texts), good)
        return lambda batch: model.predict_proba(vectorizer.transform(batch))[:, 1]

    return train


def held_out_scores(
    train: Callable[[list[str], np.ndarray], Scorer], documents: Sequence[Document]
) -> tuple[np.ndarray, Scorer, float]:
    """(scores of all documents, each by a model that has not seen it; the last model; seconds to train one)."""
    scores, seconds = np.zeros(len(documents)), []
    part = np.array([document.part for document in documents])
    for number in range(PARTS):
        rest = [document for document in documents if document.part != number]
        began = time.perf_counter()
        scorer = train(
            [document.text for document in rest], np.array([document.is_good for document in rest])
        )
        seconds.append(time.perf_counter() - began)
        scores[part == number] = scorer([document.text for document in documents if document.part == number])
    return scores, scorer, statistics.median(seconds)


class FastText:
    """fastText in a process of its own: `scores` of the held-out documents, `rate` of one round over the pieces."""

    def __init__(self, python: str, documents: Sequence[Document], pieces: list[str], folder: str) -> None:
        good = [document.is_good for document in documents]
        given = {
            "texts": [document.text[:FASTTEXT_CHARS] for document in documents],
            "good": good,
            "part": [document.part for document in documents],
            "parts": PARTS,
            "repeat": round((len(good) - sum(good)) / sum(good)),
            "log2_buckets": LOG2_BUCKETS,
            "options": FASTTEXT_OPTIONS,
            "pieces": pieces,
        }
        Path(folder, "texts.json").write_text(json.dumps(given))
        command = [python, "-c", FASTTEXT, folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        self.scores = np.array(json.loads(Path(folder, "scores.json").read_text()))

    def rate(self) -> float:
        """Documents a second of CPU time."""
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"fastText ended with exit code {self._process.wait()}")
        return answer


def peer_environment() -> str:
    """The python of an environment with fastText, made once."""
    folder = ROOT / "build" / "fasttext"
    python = folder / "bin" / "python"
    if not python.exists():
        print("setting up fastText (once)")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "fasttext-numpy2-wheel"], check=True)
    return str(python)


def main() -> None:
    """Train, score, print a line a model, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peer-python", default="", help="python with fastText; 'none' leaves fastText out")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "quality.json")
    arguments = parser.parse_args()
    from data_pipeline.quality.classifier import evaluate

    documents = load_documents(arguments.data)
    pieces = pieces_of(documents)
    good = np.array([document.is_good for document in documents])
    print(
        f"{len(documents):,} documents, {good.sum():,} of them good; {len(pieces):,} texts of 4.6 KB for speed"
    )
    contenders: dict[str, Callable[[list[str], np.ndarray], Scorer]] = {
        "gptmill": ours,
        "scikit-learn, C=1": sklearn_model(1.0),
        f"scikit-learn, C={COST:.0f}": sklearn_model(COST),
    }
    report: dict[str, dict[str, Any]] = {}
    scorers: dict[str, Scorer] = {}
    for name, train in contenders.items():
        train([document.text for document in documents[:50]], np.arange(50) % 2 == 0)  # compiles
        scores, scorers[name], seconds = held_out_scores(train, documents)
        report[name] = {**evaluate(scores, good), "train_seconds": seconds, "rates": []}
    with tempfile.TemporaryDirectory(prefix="gm-quality-") as folder:
        peer = None
        if arguments.peer_python != "none":
            peer = FastText(arguments.peer_python or peer_environment(), documents, pieces, folder)
            report["fastText"] = {**evaluate(peer.scores, good), "rates": []}
        for _ in range(ROUNDS):
            for name, scorer in scorers.items():
                began = time.process_time()
                scorer(pieces)
                report[name]["rates"].append(len(pieces) / (time.process_time() - began))
            if peer is not None:
                report["fastText"]["rates"].append(peer.rate())
        if peer is not None:
            peer.close()
    for name, row in report.items():
        ratio = statistics.median(
            a / b for a, b in zip(report["gptmill"]["rates"], row["rates"], strict=True)
        )
        row["times_slower_than_gptmill"] = ratio
        print(
            f"{name:20s} AUC {row['auc']:.4f}  accuracy {row['accuracy']:.4f}  log loss {row['log_loss']:.3f}"
            f"{statistics.median(row['rates']):10,.0f} documents/s  gptmill is {ratio:.1f}x"
        )
    print(f"load {os.getloadavg()[0]:.1f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
