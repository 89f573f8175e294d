"""Do the quality rules decide as datatrove's, and how fast are they?

Agreement: datatrove's newest Gopher quality, Gopher repetition, C4 quality and FineWeb quality filters and ours, each
with datatrove's own bounds, over every English document of the real data. Each disagreement is listed; docs/filters.md
explains them. Speed: the four filters together on one core, on English pages of 4.6 KB; ours counts the words for the
corpus in the same pass. Median of five rounds in turn, in seconds of processor time. --reference compares our counts
with the plain reference of the tests on all of every real document, in any language; it takes minutes. --values shows
how what a preset's rules measure is spread over a collection of benchmarks.documents.

    python -m benchmarks.filters [--shared-data ../shared/data] [--reference | --values "chinese news" web]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.documents import COLLECTIONS, load
from benchmarks.peers import ROOT, peer_environment
from data_pipeline.filter_presets import PRESETS, UNBOUNDED, FilterOptions
from data_pipeline.filters import filter_documents
from data_pipeline.filters.rules import RULES
from data_pipeline.filters.statistics import STATISTICS, measure

ROUNDS, PAGE_BYTES, NUM_PAGES = 5, 4600, 200
ENGLISH = ("web archives", "scrapinghub", "trafilatura", "c4", "dolma", "wiki", "books")
# datatrove's defaults (datatrove 0.10, pipeline/filters), and the FineWeb pipeline's C4 filter beside C4's own.
_C4: dict[str, Any] = {
    "drop_lorem_ipsum": True,
    "drop_curly_bracket": True,
    "min_sentences": 5,
    "min_line_words": 3,
    "max_word_chars": 1000,
}
FILTERS: dict[str, FilterOptions] = {
    "GopherQuality": replace(
        UNBOUNDED,
        min_words=50,
        max_words=100_000,
        min_mean_word_letters=3,
        max_mean_word_letters=10,
        max_symbol_ratio=0.1,
        max_bullet_ratio=0.9,
        max_ellipsis_ratio=0.3,
        min_letter_word_ratio=0.8,
        min_stop_words=2,
    ),
    "GopherRepetition": replace(
        UNBOUNDED,
        max_duplicate_paragraph_ratio=0.3,
        max_duplicate_paragraph_char_ratio=0.2,
        max_duplicate_line_ratio=0.3,
        max_duplicate_line_char_ratio=0.2,
        max_top_2gram_ratio=0.20,
        max_top_3gram_ratio=0.18,
        max_top_4gram_ratio=0.16,
        max_duplicate_5gram_ratio=0.15,
        max_duplicate_6gram_ratio=0.14,
        max_duplicate_7gram_ratio=0.13,
        max_duplicate_8gram_ratio=0.12,
        max_duplicate_9gram_ratio=0.11,
        max_duplicate_10gram_ratio=0.10,
        min_gram_count=1,
    ),
    "C4Quality": replace(UNBOUNDED, needs_end_mark=True, **_C4),
    "C4Quality, any line end": replace(UNBOUNDED, needs_end_mark=False, **_C4),
    "FineWebQuality": replace(
        UNBOUNDED,
        min_sentence_line_ratio=0.12,
        max_short_line_ratio=0.67,
        short_line_chars=30,
        max_duplicate_line_char_ratio=0.01,
        max_line_feed_ratio=0.3,
    ),
}
PEER = """
import json, sys, time
import loguru
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter,
)

loguru.logger.remove()
filters = {
    "GopherQuality": GopherQualityFilter(),
    "GopherRepetition": GopherRepetitionFilter(),
    "C4Quality": C4QualityFilter(),
    "C4Quality, any line end": C4QualityFilter(filter_no_terminal_punct=False),
    "FineWebQuality": FineWebQualityFilter(),
}

def decide(filter, text):
    try:
        verdict = filter.filter(Document(text=text, id=""))
    except (ZeroDivisionError, AssertionError) as error:  # a document without a word
        return type(error).__name__
    return "" if verdict is True else verdict[1]

for line in sys.stdin:
    path, names = json.loads(line)
    texts = pq.read_table(path)["text"].to_pylist()
    began = time.process_time()
    found = [{name: decide(filters[name], text) for name in names} for text in texts]
    print(json.dumps([time.process_time() - began, found]), flush=True)
"""


class Peer:
    """datatrove's filters in a process of their own, over files of texts."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def decide(self, path: Path, names: list[str]) -> tuple[float, list[dict[str, str]]]:
        """(seconds, for each text the reason of each filter, "" where it is kept)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(path), names]), file=self._process.stdin, flush=True)
        seconds, found = json.loads(self._process.stdout.readline())
        return seconds, found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def english(shared_data: Path) -> pa.Table:
    """Every English document: collection, uri, lang, text."""
    tables = []
    for name in ENGLISH:
        table = load(shared_data, name)
        table = table.filter(pa.array([lang == "en" for lang in table["lang"].to_pylist()]))
        tables.append(table.add_column(0, "collection", pa.array([name] * table.num_rows)))
    return pa.concat_tables(tables)


def agreement(documents: pa.Table, peer: Peer, folder: Path) -> dict[str, Any]:
    """How often the decisions agree, by filter; each disagreement."""
    pq.write_table(documents, folder / "documents.parquet")
    _, theirs = peer.decide(folder / "documents.parquet", list(FILTERS))
    rows = documents.select(["collection", "uri"]).to_pylist()
    report: dict[str, Any] = {"documents": len(rows)}
    documents = documents.append_column("row", pa.array(range(len(rows))))
    for name, options in FILTERS.items():
        _, removed = filter_documents(documents, options)
        ours = {row["row"]: row for row in removed.drop_columns(["text"]).to_pylist()}
        apart = [
            {**row, "datatrove": reasons[name] or "kept", "gptmill": _verdict(ours.get(number))}
            for number, (row, reasons) in enumerate(zip(rows, theirs, strict=True))
            if (number in ours) != bool(reasons[name])
        ]
        report[name] = {
            "removed by datatrove": sum(bool(reasons[name]) for reasons in theirs),
            "removed by gptmill": len(ours),
            "agreement": 1 - len(apart) / len(rows),
            "disagreements": apart,
        }
        print(f"{name:25s}{report[name]['agreement']:9.2%}  {len(apart)} of {len(rows)} documents apart")
        for row in apart:
            print(
                f"    {row['collection']}: {row['uri'][:90]}\n        datatrove {row['datatrove']}, gptmill {row['gptmill']}"
            )
    return report


def _verdict(row: dict[str, Any] | None) -> str:
    return f"{row['reason']} {row['value']:.4g} ({row['threshold']:g})" if row else "kept"


def speed(documents: pa.Table, peer: Peer, folder: Path) -> dict[str, Any]:
    """Documents a second of the four filters together, and the ratio."""
    texts = [text for text in documents["text"].to_pylist() if len(text) >= PAGE_BYTES]
    pages = pa.table({"text": [text[:PAGE_BYTES] for text in texts[:NUM_PAGES]]})
    pages = pages.append_column("lang", pa.array(["en"] * pages.num_rows))
    pq.write_table(pages, folder / "pages.parquet")
    names = [name for name in FILTERS if name != "C4Quality, any line end"]
    together = _together()
    rates: dict[str, list[float]] = {"gptmill": [], "datatrove": []}
    for number in range(ROUNDS + 1):
        began = time.process_time()
        filter_documents(pages, together)
        ours = time.process_time() - began
        theirs, _ = peer.decide(folder / "pages.parquet", names)
        if number:  # the first round compiles
            rates["gptmill"].append(pages.num_rows / ours)
            rates["datatrove"].append(pages.num_rows / theirs)
    ratio = statistics.median(a / b for a, b in zip(rates["gptmill"], rates["datatrove"], strict=True))
    for name, found in rates.items():
        print(f"{name:25s}{statistics.median(found):9.0f} documents/s on one core")
    print(f"ratio {ratio:.0f}; load {os.getloadavg()[0]:.1f}")
    return {"documents_per_second": rates, "ratio": ratio, "pages": pages.num_rows}


def _together() -> FilterOptions:
    """The bounds of all four filters; where two bound the same, the narrower."""
    options = FILTERS["GopherQuality"]
    for name in ("GopherRepetition", "C4Quality", "FineWebQuality"):
        changed = {
            key: value for key, value in vars(FILTERS[name]).items() if value != getattr(UNBOUNDED, key)
        }
        options = replace(options, **changed)
    return options


def compare_with_reference(shared_data: Path) -> None:
    """Our counts and the reference's, over the whole of every document."""
    from tests.data_pipeline import reference_filters

    options = FilterOptions()
    for name in COLLECTIONS:
        documents = load(shared_data, name)
        texts, languages = documents["text"].to_pylist(), documents["lang"].to_pylist()
        records = measure(documents["text"], languages, options)
        apart = 0
        for text, language, record in zip(texts, languages, records, strict=True):
            expected = reference_filters.measure(text, language, options)
            apart += any(record[count] != expected[count] for count in STATISTICS.names)
        print(f"{name:25s}{apart} of {len(texts)} documents differ from the reference", flush=True)


def show_values(documents: pa.Table, preset: str) -> None:
    """What each rule measures: how many documents fail it, and the percentiles."""
    options = PRESETS[preset]
    records = measure(documents["text"], documents["lang"].to_pylist(), options)
    percents = [0, 1, 5, 25, 50, 75, 95, 99, 100]
    print(f"{'':28s}{'bound':>9s}{'fail':>6s}" + "".join(f"{f'{percent} %':>9s}" for percent in percents))
    for rule in RULES:
        fails, values, bound = rule.judge(records, options)
        values = values[~np.isnan(values)]
        spread = np.percentile(values, percents) if len(values) else []
        print(f"{rule.reason:28s}{bound:9.4g}{fails.sum():6d}" + "".join(f"{value:9.3f}" for value in spread))


def main() -> None:
    """Run all, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--values", nargs=2, metavar=("COLLECTION", "PRESET"))
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "filters.json")
    arguments = parser.parse_args()
    if arguments.reference:
        compare_with_reference(arguments.shared_data)
        return
    if arguments.values:
        show_values(load(arguments.shared_data, arguments.values[0]), arguments.values[1])
        return
    peer = Peer(arguments.peer_python or peer_environment())
    documents = english(arguments.shared_data)
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "speed": speed(documents, peer, Path(folder)),
            "agreement": agreement(documents, peer, Path(folder)),
        }
    peer.close()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
