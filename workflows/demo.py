"""Raw text to a trained GPT in one command, on this machine, in a few minutes.

Scrapes Python's own documentation server over HTTP, adds a few original books and a small wiki, and runs
every workflow on them: refresh, tokenize, pretrain, finetune, evaluate. A second call does only what is new.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.config import (
    CleanConfig,
    CrawlConfig,
    DedupConfig,
    LanguageConfig,
    RefreshConfig,
    ShardConfig,
    SourceConfig,
    TokenizerConfig,
)
from gpt.config import ModelConfig, TrainConfig
from gpt.presets import preset
from workflows import cli
from workflows.finetune import FinetuneConfig
from workflows.passages import PassageConfig

if TYPE_CHECKING:
    from workflows.workspace import Workspace

DATA = Path(__file__).resolve().parent / "demo_data"
PYDOC_HOST = "pydoc.localhost"
# Modules whose pages are prose rather than lists of constants; none of them does anything when it is imported.
PYDOC_MODULES = [
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bdb",
    "binascii",
    "bisect",
    "bz2",
    "calendar",
    "cgi",
    "cmath",
    "cmd",
    "code",
    "codecs",
    "collections",
    "colorsys",
    "compileall",
    "concurrent",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "copyreg",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "dbm",
    "decimal",
    "difflib",
    "dis",
    "doctest",
    "email",
    "enum",
    "fileinput",
    "filecmp",
    "fnmatch",
    "fractions",
    "ftplib",
    "functools",
    "gc",
    "getopt",
    "getpass",
    "gettext",
    "glob",
    "graphlib",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http",
    "imaplib",
    "imghdr",
    "importlib",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "linecache",
    "locale",
    "logging",
    "lzma",
    "mailbox",
    "mailcap",
    "marshal",
    "math",
    "mimetypes",
    "mmap",
    "multiprocessing",
    "netrc",
    "nntplib",
    "ntpath",
    "numbers",
    "operator",
    "optparse",
    "pathlib",
    "pdb",
    "pickle",
    "pickletools",
    "pipes",
    "pkgutil",
    "plistlib",
    "poplib",
    "posixpath",
    "pprint",
    "profile",
    "pstats",
    "pty",
    "pyclbr",
    "queue",
    "quopri",
    "random",
    "re",
    "reprlib",
    "rlcompleter",
    "runpy",
    "sched",
    "secrets",
    "shelve",
    "shlex",
    "shutil",
    "smtplib",
    "sndhdr",
    "socketserver",
    "sqlite3",
    "statistics",
    "string",
    "stringprep",
    "struct",
    "subprocess",
    "sunau",
    "symtable",
    "tabnanny",
    "tarfile",
    "telnetlib",
    "tempfile",
    "textwrap",
    "threading",
    "timeit",
    "trace",
    "traceback",
    "tracemalloc",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "urllib",
    "uu",
    "uuid",
    "venv",
    "warnings",
    "wave",
    "weakref",
    "webbrowser",
    "wsgiref",
    "xml",
    "xmlrpc",
    "zipapp",
    "zipfile",
    "zipimport",
    "zlib",
    "zoneinfo",
]


@dataclass(frozen=True)
class Options:
    """Options of workflows.demo."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    web: str = ""
    """Your own WARC or HTML files (file, folder or glob) instead of the scrape."""
    books: str = ""
    """Your own Project Gutenberg text files instead of the demo's."""
    wiki: str = ""
    """Your own MediaWiki XML export instead of the demo's."""
    workers: int = 0
    """Training processes; 0 takes one a GPU, else at most two on the CPUs there are."""
    crawl: CrawlConfig = field(
        default_factory=lambda: CrawlConfig(
            name="pydoc",
            seeds=[f"http://{PYDOC_HOST}/"],
            include=[rf"/({'|'.join(PYDOC_MODULES)})\.html$"],
            max_pages=250,
            delay=0.0,
        )
    )
    """What to scrape."""
    clean: CleanConfig = field(default_factory=lambda: CleanConfig(strip_addresses=True))
    """How text is normalised."""
    language: LanguageConfig = field(default_factory=LanguageConfig)
    """Which languages are kept."""
    # The planted second edition changes a word in 35, which leaves 77 % of its five-word shingles.
    dedup: DedupConfig = field(default_factory=lambda: DedupConfig(threshold=0.7))
    """How duplicates are found."""
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(name="demo", vocab_size=4096))
    """How the tokenizer is trained."""
    shards: ShardConfig = field(default_factory=lambda: ShardConfig(val_share=0.1))
    """How token shards are cut."""
    model: ModelConfig = field(default_factory=lambda: preset("demo").model)
    """Shape of the network."""
    train: TrainConfig = field(default_factory=lambda: preset("demo").train)
    """The training schedule."""
    passages: PassageConfig = field(
        default_factory=lambda: PassageConfig(chars=400, per_document=16, per_class=120)
    )
    """How the classifier's labelled passages are cut from the corpus."""
    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(epochs=2, max_length=96))
    """How the classifier is fine-tuned."""


def main(options: Options) -> None:
    """Run every workflow and print what came of it."""
    for part in (options.dedup, options.tokenizer, options.shards, options.model, options.train):
        part.validate()

    from workflows.cluster import ray_session
    from workflows.console import say
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    say(f"gptmill demo in {workspace.root}; what the libraries say goes to {workspace.logs / 'demo.log'}")
    times: dict[str, float] = {}
    with _timed(times, "scrape"):
        web = options.web or str(scrape(workspace, options.crawl))
    began = time.monotonic()
    with ray_session(workspace.logs / "demo.log"):
        times["start Ray"] = time.monotonic() - began
        outcome = _run(workspace, options, web, times)
    show_outcome(workspace, outcome, times)


def _run(workspace: Workspace, options: Options, web: str, times: dict[str, float]) -> dict[str, Any]:
    """The workflows one after the other, under a running Ray."""
    from workflows import evaluate, finetune, pretrain, refresh, tokenize

    sources = [
        SourceConfig("web", "web", [web], license="PSF-2.0" if not options.web else ""),
        SourceConfig("book", "books", [options.books or str(DATA / "books")]),
        SourceConfig("wiki", "wiki", [options.wiki or str(DATA / "wiki")]),
    ]
    config = RefreshConfig(sources, options.clean, options.language, options.dedup)
    with _timed(times, "refresh"):
        version = refresh.refresh_corpus(workspace, config).version
    with _timed(times, "tokenise"):
        folder, manifest = tokenize.tokenize_corpus(workspace, version, options.tokenizer, options.shards)
    training = pretrain.Options(
        workspace=options.workspace,
        dataset=options.tokenizer.name,
        workers=options.workers,
        model=options.model,
        train=options.train,
    )
    with _timed(times, "pretrain"):
        trained = pretrain.pretrain(workspace, training, folder)
    with _timed(times, "finetune"):
        tuning = finetune.Options(
            model=trained["name"],
            passages=options.passages,
            finetune=options.finetune,
            workspace=options.workspace,
        )
        tuned = finetune.finetune(workspace, tuning)
    with _timed(times, "evaluate"):
        grading = evaluate.Options(
            model=trained["name"],
            classifier=tuned["name"],
            dataset=options.tokenizer.name,
            workspace=options.workspace,
        )
        graded = evaluate.evaluate(workspace, grading)
    return {"version": version, "manifest": manifest, "trained": trained, "graded": graded}


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    times[name] = time.monotonic() - began


def scrape(workspace: Workspace, config: CrawlConfig) -> Path:
    """Scrape Python's documentation server, started for it on the loopback address; the WARC folder."""
    from data_pipeline.crawl import crawl, finished_crawl
    from workflows.console import step

    folder = workspace.raw / config.name
    with step("scrape") as shown:
        earlier = finished_crawl(config, folder)
        if earlier is not None:
            shown.summary = f"nothing to fetch, {earlier.known} pages are there from before"
            return folder
        shown.update("starting python -m pydoc")
        with pydoc_server() as address:
            result = crawl(replace(config, connect_to={PYDOC_HOST: address}), folder, shown.update)
        shown.summary = f"{result.fetched} pages of python -m pydoc into {folder.relative_to(workspace.root)}"
    return folder


@contextmanager
def pydoc_server() -> Iterator[str]:
    """Python's documentation server on a free loopback port; its address."""
    import socket
    import subprocess
    import sysconfig

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        # No site-packages, no user site: the standard library only. pydoc lists the folder that it runs in, so
        # it runs in the library's own, and writes no bytecode there.
        [sys.executable, "-s", "-S", "-P", "-B", "-m", "pydoc", "-n", "127.0.0.1", "-p", str(port)],
        cwd=sysconfig.get_path("stdlib"),
        # A fixed hash seed keeps the order of sets on the pages; a bare environment keeps secrets out of them.
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: Any) -> None:
    import socket

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("python -m pydoc did not start within 30 s")


def show_outcome(workspace: Workspace, outcome: dict[str, Any], times: dict[str, float]) -> None:
    """Print the funnel, tokens, scores, a sample and how to go on."""
    from workflows.console import say, table
    from workflows.evaluate import show_scores
    from workflows.refresh import show_funnel
    from workflows.tokenize import show_tokens
    from workflows.tracking import tracking_uri

    trained = outcome["trained"]
    say()
    show_funnel(workspace, outcome["version"])
    say()
    show_tokens(outcome["manifest"])
    say()
    show_scores(outcome["graded"])
    say()
    first, last = (trained[name]["all"]["bits_per_byte"] for name in ("first_evaluation", "last_evaluation"))
    say(f"Pretraining: validation {first:.3f} -> {last:.3f} bits/byte ({1 - last / first:.0%} lower)")
    samples = sorted((workspace.runs / trained["name"] / "samples").glob("*.txt"))
    say(f"What it writes: {samples[-1].read_text(encoding='utf-8').strip()!r}" if samples else "")
    say()
    rows = [[name, f"{seconds:.1f} s"] for name, seconds in times.items()]
    table(["", "time"], [*rows, ["all", f"{sum(times.values()):.1f} s"]], title="Where the time went")
    say()
    say(f"manifest_hash {outcome['manifest'].manifest_hash}")
    mlflow = Path(sys.executable).with_name("mlflow")
    say(f"Look at the runs:        {mlflow} ui --backend-store-uri {tracking_uri(workspace)}")
    say(f"Look at the data report: {workspace.report(outcome['version']['version'])}")


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "demo", __doc__))
