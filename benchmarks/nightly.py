"""What does a refresh cost when there were many before it?

    python -m benchmarks.nightly [--nights 14] [--repeats 5]

Refreshes a new corpus night after night with the same amount of new pages, of which some are near and exact copies of
earlier nights', and compares the last night with the second (the first one also starts workers and compiles). A number
for each night, the median over the corpora, on one Ray; written to build/benchmarks/nightly.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported
from data_pipeline.cluster import ray_session
from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from tests.data_pipeline.made_inputs import prose, reworded


def bring(folder: Path, night: int, rows: int) -> None:
    """A night's file."""
    lines = []
    for number in range(rows):
        text = prose(rows * night + number, 250)
        if night > 1 and number % 10 == 9:
            text = prose(rows * (night - 1) + number - 9, 250)
            text = reworded(text, 2, number) if number % 20 == 9 else text
        lines.append(json.dumps({"id": f"{night}-{number}", "text": text}))
    (folder / f"night-{night:03d}.jsonl").write_text("\n".join(lines))


def series(inputs: Path, nights: int, folder: Path) -> list[float]:
    """Seconds of each night's refresh of a new corpus."""
    from data_pipeline.refresh import refresh

    seconds = []
    corpus = Corpus(folder / "corpus")
    for night in range(1, nights + 1):
        files = [str(path) for path in sorted(inputs.iterdir())[:night]]
        source = SourceConfig(name="rows", paths=files, uri_column="id")
        config = RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0))
        began = time.perf_counter()
        refresh(corpus, config, folder)
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nights", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1500, help="pages a night")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/nightly.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nightly-"))
    try:
        (folder / "in").mkdir()
        for night in range(1, arguments.nights + 1):
            bring(folder / "in", night, arguments.rows)
        with ray_session(folder / "log"):
            series(folder / "in", 2, folder / "warm")
            runs = [
                series(folder / "in", arguments.nights, folder / f"run-{number}")
                for number in range(arguments.repeats)
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = [statistics.median(run[night] for run in runs) for night in range(arguments.nights)]
    ratio = medians[-1] / medians[1]
    for night, seconds in enumerate(medians, start=1):
        print(f"night {night:3d}  {seconds:6.2f} s")
    print(f"night {arguments.nights} / night 2: {ratio:.2f}")
    report = {
        "medians": medians,
        "runs": runs,
        "ratio": ratio,
        "rows": arguments.rows,
        "machine": platform.platform(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
