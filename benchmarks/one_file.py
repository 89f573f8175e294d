"""Whether one large file keeps all cores busy: each packing that can be entered midway, beside one that cannot.

The same rows (or pages) in one file each: packed by pieces, and as a single member. Each file goes through all
per-document steps on two cores; from Ray's own record of the tasks come the share of the time in which two ran at once,
and the time from the first task's begin to the last one's end. Median of five rounds in turn.

    python -m benchmarks.one_file [--megabytes 24]
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import logging
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.sources.packed import zstd

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, CORES = 5, 2
PIECE_ROWS = 500
WORDS = [
    f"{start}{end}" for start in "bcdfghklmnprst" for end in ("an", "el", "ing", "o", "ure", "ist", "ed")
]


def rows(megabytes: int) -> list[bytes]:
    """JSON lines of made English-like text."""
    chance = random.Random(1)
    found, size = [], 0
    while size < megabytes << 20:
        text = " ".join(chance.choices(WORDS, k=400))
        found.append(json.dumps({"text": f"{text}."}).encode() + b"\n")
        size += len(found[-1])
    return found


def captures(lines: list[bytes]) -> list[bytes]:
    """WARC records of pages with the same text."""
    found = []
    for number, line in enumerate(lines):
        text = json.loads(line)["text"]
        page = f"<html><body><main><p>{text}</p></main></body></html>".encode()
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\n"
            f"WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Target-URI: http://pages.test/{number}\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body + b"\r\n\r\n")
    return found


def pieces(lines: list[bytes]) -> list[bytes]:
    """Several lines each."""
    return [b"".join(lines[start : start + PIECE_ROWS]) for start in range(0, len(lines), PIECE_ROWS)]


def write_files(folder: Path, megabytes: int) -> dict[str, tuple[str, Path]]:
    """{what it is: (kind of source, file)}."""
    lines = rows(megabytes)
    records = captures(lines)
    packed: dict[str, tuple[str, str, list[bytes], Callable[[bytes], bytes]]] = {
        "jsonl.gz, one member": ("files", "a.jsonl.gz", [b"".join(lines)], gzip.compress),
        "jsonl.gz, many members": ("files", "b.jsonl.gz", pieces(lines), gzip.compress),
        "jsonl.bz2, many streams": ("files", "c.jsonl.bz2", pieces(lines), bz2.compress),
        "jsonl.zst, many frames": ("files", "d.jsonl.zst", pieces(lines), zstd.compress),
        "warc.gz, by record": ("web", "e.warc.gz", records, gzip.compress),
        "warc.zst, by record": ("web", "f.warc.zst", records, zstd.compress),
    }
    found = {}
    for name, (kind, file, parts, pack) in packed.items():
        (folder / file).write_bytes(b"".join(map(pack, parts)))
        found[name] = (kind, folder / file)
    return found


def measure(kind: str, path: Path, staging: Path) -> dict[str, float]:
    """Seconds for all, seconds between the first task's begin and the last one's end, share of these with two at work."""
    from data_pipeline.staging import InputFile, stage_files

    source = SourceConfig(name="one", kind=kind, paths=[str(path)])
    began = time.time()
    stage_files(
        [InputFile(path, path.name, 0, path.stat().st_size, "")],
        RefreshConfig(sources=[source]),
        staging,
        lambda line: None,
    )
    seconds = time.time() - began
    spans = task_spans(began)
    edges = sorted([(start, 1) for start, _ in spans] + [(stop, -1) for _, stop in spans])
    running, last, shared = 0, edges[0][0], 0.0
    for at, change in edges:
        shared += (at - last) if running >= CORES else 0.0
        running, last = running + change, at
    whole = edges[-1][0] - edges[0][0]
    return {"seconds": seconds, "tasks": len(spans), "task_seconds": whole, "both_share": shared / whole}


def task_spans(since: float) -> list[tuple[float, float]]:
    """(Begin, end) of the tasks that read, from Ray's record of what ran."""
    import ray

    deadline = time.time() + 30
    while True:
        events: list[dict[str, Any]] = ray.timeline()
        found = [
            (event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
            for event in events
            if event["cat"].startswith("task::MapBatches(_stage_unit)") and event["ts"] / 1e6 > since
        ]
        if found or time.time() > deadline:
            return found
        time.sleep(0.5)


def main() -> None:
    """Measure all in turn, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "one_file.json")
    arguments = parser.parse_args()
    import ray.data

    folder = Path(tempfile.mkdtemp(prefix="one-file-"))
    results: dict[str, list[dict[str, float]]] = {}
    try:
        files = write_files(folder, arguments.megabytes)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        for round_number in range(ROUNDS + 1):
            for name, (kind, path) in files.items():
                staging = folder / "staging"
                staging.mkdir()
                found = measure(kind, path, staging)
                shutil.rmtree(staging)
                if round_number:  # the first one warms up
                    results.setdefault(name, []).append(found)
    finally:
        ray.shutdown()
        shutil.rmtree(folder)
    table = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in results.items()
    }
    print(f"load {os.getloadavg()[0]:.1f}; {arguments.megabytes} MB of rows in one file; median of {ROUNDS}")
    for name, row in table.items():
        print(
            f"{name:26} {row['tasks']:4.0f} tasks {row['task_seconds']:6.1f} s, two at work {row['both_share']:6.1%} of it"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
