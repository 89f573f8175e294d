"""Fourteen nights of a data team: what comes in each night, and the work of a night as a process that can be killed."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

from data_pipeline import history
from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from data_pipeline.takedowns import parse_rules
from tests.data_pipeline.made_inputs import prose, reworded

NIGHTS = 14
NEW_ROWS = 12
# {night: what is taken down before its refresh}
TAKEDOWNS = {
    5: {"uris": ["http://site0.test/3/0", "http://site2.test/3/2"]},
    9: {"domains": ["site4.test"]},
    12: {"uris": ["http://www.site1.test/11/1"], "domains": ["site3.test"]},
}


def rows_of(night: int) -> list[dict[str, str]]:
    """What a night brings: new texts, near and exact copies of earlier nights', and texts too short to keep."""
    rows = []
    for number in range(NEW_ROWS):
        seed = 1000 * night + number
        text = prose(seed, 120)
        if number % 4 == 3 and night > 1:
            text = (
                reworded(prose(1000 * (night - 1), 120), 1, seed)
                if number % 8 == 3
                else prose(seed - 1000, 120)
            )
        rows.append(
            {"id": f"http://{'www.' * (number % 2)}site{number % 5}.test/{night}/{number}", "text": text}
        )
    return [*rows, {"id": f"short-{night}", "text": "too short"}]


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def bring(folder: Path, night: int) -> None:
    """Put a night's inputs into a folder: a new file always, and by turns one that has changed, was only touched, is damaged or mended."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(night)
    (folder / f"night-{night:02d}.jsonl").write_bytes(_lines(rows))
    if night % 3 == 0:  # a file of two nights ago lost two documents, changed two, and got a new one
        old = rows_of(night - 2)[2:]
        for row in old[:2]:
            row["text"] = reworded(row["text"], 2, night)
        new = {"id": f"http://added.test/{night}", "text": prose(1000 * night + 500, 120)}
        (folder / f"night-{night - 2:02d}.jsonl").write_bytes(_lines([*old, new]))
    if night % 4 == 1 and night > 1:
        os.utime(folder / f"night-{night - 1:02d}.jsonl")
    extra = [
        {"id": f"packed-{night}-{number}", "text": prose(1000 * night + 700 + number, 120)}
        for number in range(4)
    ]
    packed = b"".join(gzip.compress(_lines([row])) for row in extra)
    if night % 4 == 2:  # cut off within its last member
        (folder / f"packed-{night:02d}.jsonl.gz").write_bytes(packed[:-60])
    if night % 4 == 0:  # the whole of it came two nights later
        extra = [
            {"id": f"packed-{night - 2}-{number}", "text": prose(1000 * (night - 2) + 700 + number, 120)}
            for number in range(4)
        ]
        packed = b"".join(gzip.compress(_lines([row])) for row in extra)
        (folder / f"packed-{night - 2:02d}.jsonl.gz").write_bytes(packed)


def work(base: Path, corpus: Corpus, night: int) -> None:
    """A night's work: the takedowns that were asked for, then the refresh."""
    if night in TAKEDOWNS:
        with corpus.locked(60):
            history.remove(corpus, parse_rules(**TAKEDOWNS[night]), f"night {night}")
    source = SourceConfig(name="rows", paths=[str(base / "in")], uri_column="id")
    # Two groups on most nights.
    config = RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0), group_bytes=9000)
    refresh(corpus, config, base, wait=60)


def main() -> None:
    """Join a running Ray, say so, and do a night's work as soon as told: ADDRESS BASE CORPUS NIGHT."""
    address, base, corpus, night = sys.argv[1:]
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    print("ready", flush=True)
    sys.stdin.readline()
    work(Path(base), Corpus(corpus), int(night))
    print("done", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
