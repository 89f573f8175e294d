"""Workflows are run as a person runs them: as commands, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a new command: nothing of a Ray that a test of this process may have set up."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_ADDRESS"))
    }
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
