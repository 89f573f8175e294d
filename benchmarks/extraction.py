"""How good and how fast main-text extraction is: ours beside trafilatura and resiliparse, on two public sets.

scrapinghub: 181 pages with their full article; a page's score is the overlap of word 4-grams, the set's the mean
precision and recall (article-extraction-benchmark, evaluate.py). trafilatura: 990 pages with fragments that must and
must not be there (tests/evaluate.py). Rules were tuned on the half of each set whose file names have an even
sha256, and are reported on both halves. Speed is pages a second of CPU time on one core, median of five rounds in turn.

    python -m benchmarks.extraction [--gold ../shared/data/web/html_gold]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import statistics
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from data_pipeline.html.main_text import main_text

ROOT = Path(__file__).resolve().parents[1]
SCRAPINGHUB, TRAFILATURA = "scrapinghub", "trafilatura"
ROUNDS = 5
WORD = re.compile(r"\w+")
Extractor = Callable[[str], str]


@dataclass(frozen=True)
class Page:
    """One page and what is known of its main text: all of it, or fragments that belong and do not."""

    name: str
    html: str
    article: str = ""
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    @property
    def half(self) -> str:
        """The half that rules were tuned on, or the one held out."""
        return "held out" if hashlib.sha256(self.name.encode()).digest()[-1] & 1 else "tuned on"


def load_gold(folder: Path) -> dict[str, list[Page]]:
    """The pages of both sets, decoded."""
    with tarfile.open(folder / "scrapinghub-aeb.tar.gz") as archive:
        files = {member.name: _bytes(archive, member) for member in archive if member.isfile()}
    truth = json.loads(files["ground-truth.json"])
    first = [
        Page(
            name,
            gzip.decompress(files[f"html/{name}.html.gz"]).decode("utf-8"),
            article=truth[name]["articleBody"],
        )
        for name in sorted(truth)
    ]
    with tarfile.open(folder / "trafilatura-eval.tar.gz") as archive:
        files = {member.name: _bytes(archive, member) for member in archive if member.isfile()}
    second = []
    for item in json.loads(files["tests/evaldata.json"]).values():
        raw = files.get(f"tests/cache/{item['file']}", files.get(f"tests/eval/{item['file']}"))
        if raw is not None:
            html = bytes_to_str(raw, detect_encoding(raw, html5_compatible=True) or "utf-8")
            second.append(Page(item["file"], html, "", tuple(item["with"]), tuple(item["without"])))
    return {SCRAPINGHUB: first, TRAFILATURA: second}


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def score(gold: dict[str, list[Page]], extractor: Extractor) -> dict[str, dict[str, dict[str, float]]]:
    """{set: {half or "all": {f1, precision, recall}}}."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, pages in gold.items():
        texts = [(page, extractor(page.html) or "") for page in pages]
        measure = _overlap if name == SCRAPINGHUB else _fragments
        scores[name] = {
            half: measure([(page, text) for page, text in texts if half in ("all", page.half)])
            for half in ("all", "tuned on", "held out")
        }
    return scores


def _scores(precision: float, recall: float) -> dict[str, float]:
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}


def _overlap(results: Iterable[tuple[Page, str]]) -> dict[str, float]:
    """Mean precision and recall of word 4-grams."""
    precisions, recalls = [], []
    for page, text in results:
        true, found = _shingles(page.article), _shingles(text)
        both = sum((true & found).values())
        if found:
            precisions.append(both / sum(found.values()))
        if true:
            recalls.append(both / sum(true.values()))
    return _scores(statistics.mean(precisions), statistics.mean(recalls))


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    words = WORD.findall(text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def _fragments(results: Iterable[tuple[Page, str]]) -> dict[str, float]:
    """Precision and recall of the fragments of all pages together."""
    right = wrong = missed = 0
    for page, text in results:
        level = _levelled(text)
        found = sum(_levelled(fragment) in level for fragment in page.wanted)
        right += found
        missed += len(page.wanted) - found
        wrong += sum(_levelled(fragment) in level for fragment in page.unwanted)
    return _scores(right / (right + wrong), right / (right + missed))


def _levelled(text: str) -> str:
    return " ".join(text.split())


def extractors() -> dict[str, Extractor]:
    """Ours and the peers', each as its documentation has it."""
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    options: dict[str, Any] = {"include_comments": False, "include_tables": True}
    return {
        "gptmill quality": main_text,
        "gptmill fast": lambda html: main_text(html, fast=True),
        "trafilatura fast": lambda html: trafilatura.extract(html, fast=True, **options) or "",
        "trafilatura standard": lambda html: trafilatura.extract(html, **options) or "",
        "resiliparse": lambda html: extract_plain_text(html, main_content=True),
    }


def pages_per_second(gold: dict[str, list[Page]], found: dict[str, Extractor]) -> dict[str, list[float]]:
    """Of each extractor, in each round; every third page of the first set, every tenth of the second."""
    pages = [page.html for page in (*gold[SCRAPINGHUB][::3], *gold[TRAFILATURA][::10])]
    rates: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(ROUNDS):
        for name, extractor in found.items():
            began = time.process_time()
            for page in pages:
                extractor(page)
            rates[name].append(len(pages) / (time.process_time() - began))
    return rates


def main() -> None:
    """Score and time all, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gold", type=Path, default=ROOT.parent / "shared" / "data" / "web" / "html_gold")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "extraction.json")
    arguments = parser.parse_args()
    gold = load_gold(arguments.gold)
    found = extractors()
    rates = pages_per_second(gold, found)
    peer = rates["trafilatura fast"]
    report: dict[str, Any] = {}
    print(
        f"{'F1':22s}{'scrapinghub':>12s}{'tuned on':>10s}{'held out':>10s}{'trafilatura':>14s}{'tuned on':>10s}{'held out':>10s}{'pages/s':>10s}{'ratio':>8s}"
    )
    for name, extractor in found.items():
        scores = score(gold, extractor)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[name], peer, strict=True))
        rate = statistics.median(rates[name])
        report[name] = {"scores": scores, "pages_per_second": rates[name], "ratio_to_trafilatura_fast": ratio}
        cells = [scores[part][half]["f1"] for part in gold for half in ("all", "tuned on", "held out")]
        line = "".join(
            f"{cell:{width}.4f}" for cell, width in zip(cells, (12, 10, 10, 14, 10, 10), strict=True)
        )
        print(f"{name:22s}{line}{rate:10.0f}{ratio:8.2f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
