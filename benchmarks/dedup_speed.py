"""Deduplication beside datasketch, rensa, datatrove and text-dedup: signatures a second, and the whole job.

Documents are made from real ones: sentences of the books and web pages in ../shared/data are drawn anew into documents of
about 4,500 characters; a tenth of these are copies with a few sentences changed, a fiftieth exact ones. All read the
same Parquet files.

  signatures   from text, shingling included, by second of processor time; five rounds in turn, the median ratio
  job          read, sign, find, verify, write; from the start of the command to its end, two cores for those that use them.
               Peers that take hours run on --peer-documents; then documents a second are compared, and the JSON says so.
  long books   ours alone over --long-books unrelated texts of 1 to 4 MB that begin with the same licence
  scaling      ours alone over growing sizes: the exponent of the processor time beyond a start's, and the largest private memory of a worker

Peers live in environments of their own below build/, made on the first call.

    python -m benchmarks.dedup_speed [--documents 10000] [--scaling 10000,100000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers import environment
from data_pipeline.config import DedupConfig
from data_pipeline.minhash import signatures

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FILES, CORES, DOCUMENT_CHARS = 8, 2, 4500
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# The newest text-dedup that pip finds, with the settings of its own README where there are any.
TEXT_DEDUP = ["-m", "text_dedup.minhash", "--path", "parquet", "--split", "train", "--column", "text", "--ngram", "5",
              "--num_perm", "128", "--threshold", "0.8", "--hash_func", "xxh3", "--num_proc", str(CORES)]  # fmt: skip
PEERS = ["datatrove[io,processing]", "spacy", "datasketch", "rensa", "xxhash", "pyarrow"]

# One script for all peers: `sign NAME FOLDER COUNT` prints processor seconds; `job NAME FOLDER OUT` does the whole work.
PEER = r"""
import glob, re, sys, time
import pyarrow as pa, pyarrow.parquet as pq

what, name, folder, last = sys.argv[1:5]
WORD = re.compile(r"\w+")

def shingles(text):
    words = WORD.findall(text.lower())
    return {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

def texts(count):
    found = []
    for path in sorted(glob.glob(folder + "/*.parquet")):
        found += pq.read_table(path, columns=["text"])["text"].to_pylist()
        if len(found) >= count:
            return found[:count]
    return found

def sign_datasketch(documents):
    import datasketch, xxhash
    sets = ([s.encode() for s in shingles(text)] for text in documents)
    datasketch.MinHash.bulk(sets, num_perm=128, scheme="affine32", hashfunc=xxhash.xxh32_intdigest)

def sign_rensa(documents):
    import rensa
    rensa.RMinHash.digests_from_token_sets([list(shingles(text)) for text in documents], num_perm=128, seed=42)

def sign_datatrove(documents):
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    step = MinhashDedupSignature(output_folder="/tmp/unused-dedup", config=MinhashConfig())
    for text in documents:
        found = step.get_shingles(text)
        if found.size:
            step.get_signature(found)

def write_kept(kept, out):
    for path in sorted(glob.glob(folder + "/*.parquet")):
        table = pq.read_table(path)
        mask = pa.array([i in kept for i in table["id"].to_pylist()])
        pq.write_table(table.filter(mask), out + "/" + path.rsplit("/", 1)[1], compression="zstd")

def rows():
    for path in sorted(glob.glob(folder + "/*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        yield from zip(table["id"].to_pylist(), table["text"].to_pylist())

def job_datasketch(out):
    import datasketch, xxhash
    lsh = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    kept = set()
    for key, text in rows():
        sketch = datasketch.MinHash(num_perm=128, scheme="affine32", hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch([s.encode() for s in shingles(text)])
        if not lsh.query(sketch):
            lsh.insert(key, sketch)
            kept.add(key)
    write_kept(kept, out)

def job_rensa(out):
    import rensa
    lsh = rensa.RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True, num_bands=16)
    kept = set()
    for key, text in rows():
        sketch = rensa.RMinHash(num_perm=128, seed=42)
        sketch.update(list(shingles(text)))
        if not lsh.is_duplicate(key, sketch):
            lsh.add(key, sketch)
            kept.add(key)
    write_kept(kept, out)

def job_datatrove(out):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter,
                                          MinhashDedupSignature)
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    config, cores = MinhashConfig(), 2
    reader = ParquetReader(folder, glob_pattern="*.parquet")
    files = len(glob.glob(folder + "/*.parquet"))
    steps = [
        ([reader, MinhashDedupSignature(output_folder=out + "/sig", config=config)], files),
        ([MinhashDedupBuckets(input_folder=out + "/sig", output_folder=out + "/buckets", config=config)],
         config.num_buckets),
        ([MinhashDedupCluster(input_folder=out + "/buckets", output_folder=out + "/remove", config=config)], 1),
        ([reader, MinhashDedupFilter(input_folder=out + "/remove"), ParquetWriter(out + "/kept")], files),
    ]
    for number, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=cores, logging_dir=f"{out}/log{number}").run()

if __name__ == "__main__":
    if what == "sign":
        documents = texts(int(last))
        sign = globals()["sign_" + name]
        sign(documents[:3])
        began = time.process_time()
        sign(documents)
        print(time.process_time() - began)
    else:
        globals()["job_" + name](last)
"""


def sentences() -> list[str]:
    """Sentences of 40 to 400 characters from real books and pages."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted((DATA / "books").glob("pg-en*/*.txt"))
    ]
    pages = DATA / "web" / "text" / "c4_demo.jsonl"
    texts += [
        json.loads(line)["text"] for line in pages.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    found = {" ".join(part.split()) for text in texts for part in SENTENCE_END.split(text)}
    return sorted(sentence for sentence in found if 40 <= len(sentence) <= 400)


def write_documents(folder: Path, count: int, pool: list[str]) -> None:
    """Parquet files with columns id and text."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    mean = sum(map(len, pool)) / len(pool)
    rows: list[dict[str, str]] = []
    earlier: list[list[int]] = []
    per_file = -(-count // max(FILES, count // 25_000))
    for number in range(count):
        kind = rng.random()
        if earlier and kind < 0.1:
            chosen = list(earlier[int(rng.integers(len(earlier)))])
            for _ in range(int(rng.integers(1, 3))):
                chosen[int(rng.integers(len(chosen)))] = int(rng.integers(len(pool)))
        elif earlier and kind < 0.12:
            chosen = earlier[int(rng.integers(len(earlier)))]
        else:
            size = max(3, round(float(rng.lognormal(0, 0.4)) * DOCUMENT_CHARS / mean))
            chosen = rng.integers(0, len(pool), size).tolist()
            if len(earlier) < 20_000:
                earlier.append(chosen)
        rows.append({"id": f"doc-{number:08d}", "text": " ".join(pool[index] for index in chosen)})
        if len(rows) == per_file or number + 1 == count:
            name = f"{number:08d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows), folder / name, compression="zstd", row_group_size=1000)
            rows = []


# ------------------------------------------------------------------------------------------------------ signatures


def signature_rates(folder: Path, python: str, rounds: int) -> dict[str, Any]:
    """Documents a second of each contender, by round, and how many of our rate each one's is."""
    sizes = {"gptmill": 4000, "datasketch": 1500, "rensa": 1500, "datatrove": 200}
    table = pa.concat_tables(
        [pq.read_table(path, columns=["text"]) for path in sorted(folder.glob("*.parquet"))]
    )
    sizes = {name: min(size, table.num_rows) for name, size in sizes.items()}
    texts = table["text"].slice(0, sizes["gptmill"])
    signatures(texts.slice(0, 3), DedupConfig())

    def ours() -> float:
        began = time.process_time()
        signatures(texts, DedupConfig())
        return time.process_time() - began

    def peer(name: str) -> Callable[[], float]:
        command = [python, "-c", PEER, "sign", name, str(folder), str(sizes[name])]
        return lambda: float(_output(command).split()[-1])

    contenders = {name: ours if name == "gptmill" else peer(name) for name in sizes}
    rates: dict[str, list[float]] = {name: [] for name in sizes}
    for _ in range(rounds):
        for name, run in contenders.items():
            rates[name].append(sizes[name] / run())
    report = {}
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["gptmill"], found, strict=True))
        report[name] = {"documents": sizes[name], "documents_per_second": found, "gptmill_is_times": ratio}
        print(
            f"signatures {name:12s}{statistics.median(found):10,.0f} documents/s   gptmill is {ratio:6.1f}x"
        )
    return report


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{command[4:6]} failed: {done.stderr[-2000:]}")
    return done.stdout


# ------------------------------------------------------------------------------------------------------- whole job


@dataclass
class Spent:
    """What a command took.

    Attributes:
        seconds: from its start to its end.
        processor: seconds of processor time of it and all that it started: what a busy machine does not distort.
        worker_mib: largest private memory of one of its Ray workers.
        stdout: what it printed.
    """

    seconds: float
    processor: float
    worker_mib: float
    stdout: str


def measured(command: list[str]) -> Spent:
    """Run a command to its end.

    Raises:
        RuntimeError: it fails.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        processor: dict[int, float] = {}
        memory: dict[int, float] = {}
        watcher = threading.Thread(target=_watch, args=(process, processor, memory))
        watcher.start()
        stdout, _ = process.communicate()
        seconds = time.perf_counter() - began
        watcher.join()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{command[:3]} failed: {errors.read()[-2000:]}")
    return Spent(seconds, sum(processor.values()), max(memory.values(), default=0.0), stdout)


def _watch(process: subprocess.Popen[str], processor: dict[int, float], memory: dict[int, float]) -> None:
    """Keep processor seconds of a command and its descendants, and private memory (MiB) of Ray's workers among them."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for each in [root, *root.children(recursive=True)]:
                times = each.cpu_times()
                processor[each.pid] = times.user + times.system
                if each is not root and "ray::" in " ".join(each.cmdline()[:1]):
                    used = each.memory_info()
                    memory[each.pid] = max((used.rss - used.shared) / 2**20, memory.get(each.pid, 0.0))
        except psutil.Error:
            pass
        time.sleep(0.1)


def our_command(folder: Path, out: Path) -> list[str]:
    """Ours, as a user would run it."""
    command = [sys.executable, "-m", "data_pipeline.dedup", "--input", str(folder), "--id-column", "id"]
    return [*command, "--json", "--output", str(out)]


def job_rates(
    work: Path, documents: int, peer_documents: int, pool: list[str], pythons: dict[str, str], rounds: int
) -> dict[str, Any]:
    """Documents a second of the whole job.

    Args:
        pythons: interpreter of each peer.
    """
    folders = {}
    for size in {documents, peer_documents}:
        folders[size] = work / f"documents-{size}"
        if not folders[size].exists():
            write_documents(folders[size], size, pool)
    sizes = {"gptmill": documents, **dict.fromkeys(pythons, peer_documents)}
    spent: dict[str, list[Spent]] = {name: [] for name in sizes}
    for _ in range(rounds):
        for name, size in sizes.items():
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            if name == "gptmill":
                spent[name].append(measured(our_command(folders[size], out)))
            else:
                out.mkdir()
                spent[name].append(measured(_peer_job(name, pythons[name], folders[size], out)))
            last = spent[name][-1]
            print(
                f"job        {name:12s}{size:10,} documents {last.seconds:8.1f} s, {last.processor:8.1f} s of processor",
                flush=True,
            )
    report: dict[str, Any] = {"summary": json.loads(spent["gptmill"][-1].stdout.splitlines()[-1])}
    for name, found in spent.items():
        scale = sizes["gptmill"] / sizes[name]
        pairs = list(zip(spent["gptmill"], found, strict=True))
        seconds = statistics.median(scale * theirs.seconds / ours.seconds for ours, theirs in pairs)
        processor = statistics.median(scale * theirs.processor / ours.processor for ours, theirs in pairs)
        report[name] = {
            "documents": sizes[name],
            "seconds": [each.seconds for each in found],
            "processor_seconds": [each.processor for each in found],
            "gptmill_is_times": seconds,
            "gptmill_is_times_by_processor": processor,
        }
        print(
            f"job        {name:12s}gptmill is {seconds:6.1f}x by the clock, {processor:6.1f}x by processor time"
        )
    return report


def _peer_job(name: str, python: str, folder: Path, out: Path) -> list[str]:
    if name != "text-dedup":
        return [python, "-c", PEER, "job", name, str(folder), str(out)]
    places = ["--data_files", f"{folder}/*.parquet", "--cache_dir", f"{out}/cache", "--output", f"{out}/kept"]
    return [python, *TEXT_DEDUP, *places]


# --------------------------------------------------------------------------------------------------------- scaling


def scaling(work: Path, sizes: list[int], pool: list[str]) -> dict[str, Any]:
    """Seconds and memory by size, and the exponent of the seconds beyond those of a start."""
    tiny = work / "documents-100"
    if not tiny.exists():
        write_documents(tiny, 100, pool)
    shutil.rmtree(work / "out", ignore_errors=True)
    start = measured(our_command(tiny, work / "out"))
    rows = []
    for size in sizes:
        folder = work / f"documents-{size}"
        if not folder.exists():
            write_documents(folder, size, pool)
        shutil.rmtree(work / "out", ignore_errors=True)
        spent = measured(our_command(folder, work / "out"))
        kept = json.loads(spent.stdout.splitlines()[-1])["num_kept"]
        rows.append(
            {
                "documents": size,
                "seconds": spent.seconds,
                "processor_seconds": spent.processor,
                "worker_mib": spent.worker_mib,
                "removed": size - kept,
            }
        )
        print(
            f"scaling    {size:10,} documents {spent.seconds:8.1f} s, {spent.processor:8.1f} s of processor, "
            f"{spent.worker_mib:6.0f} MiB a worker at most",
            flush=True,
        )
        shutil.rmtree(folder)
    report: dict[str, Any] = {"start": asdict(start), "sizes": rows}
    if len(rows) > 1:
        logs = np.log(
            [[row["documents"], max(0.1, row["processor_seconds"] - start.processor)] for row in rows]
        )
        report["exponent"] = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
        report["memory_growth"] = rows[-1]["worker_mib"] / rows[0]["worker_mib"]
        print(f"scaling    exponent {report['exponent']:.2f}, memory x {report['memory_growth']:.2f}")
    return report


# ------------------------------------------------------------------------------------------------------ long books


def write_long_books(folder: Path, count: int, pool: list[str]) -> None:
    """Unrelated texts of 1 to 4 MB in Parquet, a hundred a file; of each, the first 20 KB are the same licence.

    A word of its own between every four makes all other shingles of a book its own.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    words = " ".join(pool).split()
    marked = " ".join(" ".join([*words[at : at + 4], "\0"]) for at in range(0, len(words), 4))
    licence = " ".join(words)[:20_000]
    for first in range(0, count, 100):
        rows = []
        for number in range(first, min(count, first + 100)):
            size = int(rng.integers(1 << 20, 4 << 20))
            start = int(rng.integers(0, max(1, len(marked) - size)))
            body = marked[start : start + size].replace("\0", f"name{number}")
            rows.append({"id": f"book-{number:06d}", "text": f"{licence} {body}"})
        path = folder / f"{first:06d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd", row_group_size=10)


def long_books(work: Path, count: int, pool: list[str]) -> dict[str, Any]:
    """Seconds and memory over long unrelated texts, none of which may go."""
    folder = work / "long-books"
    write_long_books(folder, count, pool)
    spent = measured(our_command(folder, work / "out-books"))
    summary = json.loads(spent.stdout.splitlines()[-1])
    shutil.rmtree(folder)
    shutil.rmtree(work / "out-books")
    print(
        f"long books {count:10,} documents {spent.seconds:8.1f} s, {spent.processor:8.1f} s of processor, "
        f"{spent.worker_mib:6.0f} MiB a worker at most, {count - summary['num_kept']} removed"
    )
    return {**asdict(spent), "documents": count, "removed": count - summary["num_kept"]}


def main() -> None:
    """Run what is asked for; print and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--peer-documents", type=int, default=0, help="default: as many, 10,000 at most")
    parser.add_argument("--peers", default="datasketch,rensa,datatrove,text-dedup", help="of the whole job")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scaling", default="", help="sizes, for example 10000,100000,1000000")
    parser.add_argument("--only", choices=["signatures", "job", "scaling", "long"])
    parser.add_argument("--long-books", type=int, default=0, help="for example 5000; 12 GB")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "dedup_speed.json")
    arguments = parser.parse_args()
    python = environment("dedup-peers", PEERS)
    text_dedup = environment("text-dedup", ["text-dedup"])
    pool = sentences()
    work = Path(tempfile.mkdtemp(prefix="gm-dedup-", dir="/tmp"))
    report: dict[str, Any] = {"load": os.getloadavg(), "cores": os.cpu_count()}
    try:
        if arguments.only in (None, "signatures") and python:
            write_documents(work / "documents-4000", 4000, pool)
            report["signatures"] = signature_rates(work / "documents-4000", python, arguments.rounds)
        if arguments.only in (None, "job") and python:
            peers = arguments.peer_documents or min(10_000, arguments.documents)
            pythons = dict.fromkeys(("datasketch", "rensa", "datatrove"), python)
            if text_dedup:
                pythons["text-dedup"] = text_dedup
            pythons = {name: pythons[name] for name in arguments.peers.split(",") if name in pythons}
            report["job"] = job_rates(work, arguments.documents, peers, pool, pythons, arguments.rounds)
        if arguments.long_books:
            report["long_books"] = long_books(work, arguments.long_books, pool)
        if arguments.scaling:
            sizes = [int(size) for size in arguments.scaling.split(",")]
            report["scaling"] = scaling(work, sizes, pool)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report["load_after"] = os.getloadavg()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
