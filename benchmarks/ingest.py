"""Pages a second from WARC to extracted text on two cores: ours in Ray tasks beside datatrove's own pipeline.

Both read the same WARC files, made of the pages of two public extraction benchmarks, each page --copies times (a crawl's
files are a hundred times as large still), and write what they extract.
datatrove needs an older trafilatura than the one we measure against, so it runs in an environment of its own, made on
the first call (or named with --peer-python). Starting processes is not what is asked: the time for one page is taken
off the time for all. Median of five rounds in turn.

    python -m benchmarks.ingest [--gold ../shared/data/web/html_gold]
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported
from benchmarks.extraction import load_gold
from benchmarks.peers import peer_environment

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, CORES, FILES = 5, 2, 4
PEER = """
import sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import WarcReader
from datatrove.pipeline.writers import JsonlWriter

source, out, cores = sys.argv[1], sys.argv[2], int(sys.argv[3])
began = time.perf_counter()
LocalPipelineExecutor(
    pipeline=[WarcReader(source, glob_pattern="*.warc.gz"), Trafilatura(), JsonlWriter(out + "/text")],
    tasks=cores, workers=cores, logging_dir=out + "/log",
).run()
print(time.perf_counter() - began)
"""


def write_warcs(folder: Path, pages: list[str]) -> None:
    """The pages as responses in WARC files of like size."""
    folder.mkdir(parents=True)
    files = [(folder / f"{index}.warc.gz").open("wb") for index in range(min(FILES, len(pages)))]
    writers = [WARCWriter(file, gzip=True) for file in files]
    for index, page in enumerate(pages):
        headers = StatusAndHeaders(
            "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
        )
        writer = writers[index % len(writers)]
        payload = io.BytesIO(page.encode("utf-8", "replace"))
        uri = f"http://pages.test/{index}"
        writer.write_record(writer.create_warc_record(uri, "response", payload=payload, http_headers=headers))
    for file in files:
        file.close()


def extract_unit(unit: pa.Table, mode: str, out: str) -> pa.Table:
    """Read spans of archives, extract, write Parquet; runs in a Ray task."""
    from data_pipeline import extract, staging
    from data_pipeline.config import ExtractConfig, SourceConfig
    from data_pipeline.schema import split
    from data_pipeline.sources import Span, read_records

    source = SourceConfig(name="web", kind="web", paths=["x"])
    count = 0
    for row in unit.to_pylist():
        records = list(read_records(source, Path(row["path"]), Span(row["start"], row["stop"])))
        table = staging.raw_table(records, 0, source, row["path"])
        alive, _ = split(table.drop_columns(["reason"]), "read", [None] * table.num_rows)
        kept, _ = extract.extract(alive, ExtractConfig(mode))
        pq.write_table(kept, f"{out}/{Path(row['path']).stem}-{row['start']}.parquet")
        count += kept.num_rows
    return pa.table({"pages": [count]})


def ours(source: Path, out: Path, mode: str) -> float:
    """Seconds under a running Ray."""
    from data_pipeline.config import RefreshConfig, SourceConfig
    from data_pipeline.engine import from_tables, map_tables, stream
    from data_pipeline.staging import InputFile, plan_units

    out.mkdir(parents=True)
    began = time.perf_counter()
    config = RefreshConfig(sources=[SourceConfig(name="web", kind="web", paths=[str(source)])])
    inputs = [
        InputFile(path, path.name, 0, path.stat().st_size, "") for path in sorted(source.glob("*.warc.gz"))
    ]
    units = from_tables(plan_units(inputs, config))
    pages = sum(row["pages"] for row in stream(map_tables(units, extract_unit, mode=mode, out=str(out))))
    assert pages > 0
    return time.perf_counter() - began


def peer(python: str, source: Path, out: Path) -> float:
    """Seconds of datatrove's pipeline, its imports left out."""
    command = [python, "-c", PEER, str(source), str(out), str(CORES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Run all in turn, print pages a second and the ratios, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gold", type=Path, default=ROOT.parent / "shared" / "data" / "web" / "html_gold")
    parser.add_argument("--copies", type=int, default=4, help="times that each page is in the files")
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "ingest.json")
    arguments = parser.parse_args()
    python = arguments.peer_python or peer_environment()
    pages = [page.html for group in load_gold(arguments.gold).values() for page in group] * arguments.copies

    import ray

    folder = Path(tempfile.mkdtemp(prefix="gm-ingest-", dir="/tmp"))
    ray.init(
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(folder / "ray"),
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    write_warcs(folder / "all", pages)
    write_warcs(folder / "one", pages[:1])
    contenders: dict[str, Callable[[Path, Path], float]] = {
        "gptmill quality": lambda source, out: ours(source, out, "quality"),
        "gptmill fast": lambda source, out: ours(source, out, "fast"),
        "datatrove": lambda source, out: peer(python, source, out),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, run in contenders.items():
            seconds = [run(folder / size, folder / f"out-{name}-{size}-{number}") for size in ("all", "one")]
            if number:  # the first round starts Ray's workers
                rates[name].append((len(pages) - 1) / (seconds[0] - seconds[1]))
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    report = {}
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates["datatrove"], strict=True))
        report[name] = {"pages_per_second": found, "ratio_to_datatrove": ratio}
        print(f"{name:18s}{statistics.median(found):8.0f} pages/s{ratio:8.2f}x")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
