"""Workflows are run as a person runs them: as commands, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
# The demo, small: a few pages, a tiny model.
SMALL = [
    *(
        "--crawl.include",
        r"[/(json|textwrap|argparse|posixpath|decimal|shutil|string|heapq|bisect|copy|glob)\.html$]",
    ),
    # Of so few pages some of each source must be held out.
    *("--shards.val_share", "0.3"),
    *("--tokenizer.vocab_size", "1024", "--model.num_layers", "2", "--model.width", "64"),
    *("--model.context_length", "128", "--train.num_steps", "20", "--train.warmup_steps", "2"),
    *("--train.checkpoint_every", "10", "--train.eval_every", "10", "--train.eval_tokens", "4000"),
    *("--train.precision", "fp32", "--finetune.epochs", "1", "--finetune.precision", "fp32"),
    *("--passages.per_class", "40", "--passages.val_share", "0.3"),
]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a new command: nothing of a Ray or a store that this process may have set up."""
    dropped = ("RAY_AUTH", "RAY_ADDRESS", "MLFLOW_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


def run_workflow(name: str, *arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run `python -m workflows.NAME` to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"workflows.{name}", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def outlive(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those of `processes` that still run when the time is over.

    Not psutil.wait_procs: the kernel may answer its pidfd_open of a process that is just ending with ENOENT, which
    psutil does not expect.
    """
    end = time.monotonic() + timeout_s
    while (alive := [process for process in processes if _runs(process)]) and time.monotonic() < end:
        time.sleep(0.2)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def no_store_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without a tracking store of its user's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def should_vanish() -> Iterator[list[psutil.Process]]:
    """Processes that must be gone when the tests are: Ray's agents notice within minutes that their node is."""
    processes: list[psutil.Process] = []
    yield processes
    assert not outlive(processes, timeout_s=150), "Ray's processes outlive the driver"


@pytest.fixture(scope="session")
def tokenised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small corpus and its token dataset `bpe`, made from the demo's books and wiki."""
    workspace = tmp_path_factory.mktemp("tokenised") / "ws"
    data = ROOT / "workflows" / "demo_data"
    refresh = run_workflow(
        "refresh", "--workspace", str(workspace), "--books", str(data / "books"), "--wiki", str(data / "wiki")
    )
    assert refresh.returncode == 0, refresh.stderr
    tokenize = run_workflow(
        "tokenize",
        "--workspace",
        str(workspace),
        "--tokenizer.vocab_size",
        "1024",
        "--shards.val_share",
        "0.2",
    )
    assert tokenize.returncode == 0, tokenize.stderr
    return workspace


def run_demo(workspace: Path) -> str:
    done = run_workflow("demo", "--workspace", str(workspace), *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manifest_hash(output: str) -> str:
    found = re.search(r"^manifest_hash ([0-9a-f]{64})$", output, re.MULTILINE)
    assert found, output
    return found.group(1)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace in which the small demo ran, and what it printed."""
    workspace = tmp_path_factory.mktemp("demo") / "ws"
    return workspace, run_demo(workspace)
