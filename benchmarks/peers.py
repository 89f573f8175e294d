"""Peers live in environments of their own below build/, made on the first call: their needs are not ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(name: str, packages: Sequence[str]) -> str | None:
    """The python of an environment with the newest of the packages; None where it cannot be made."""
    folder = ROOT / "build" / name
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    wanted = "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"setting up {name} (once)")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} cannot be installed: {done.stderr.splitlines()[-1]}")
            return None
        ready.write_text(wanted)
    return str(python)


def peer_environment() -> str:
    """The python of an environment with the newest datatrove and the tokeniser that it counts English words with."""
    packages = ["datatrove[io,processing]", "spacy>=3.8", "lxml_html_clean", "fastwarc", "warcio"]
    python = environment("datatrove", packages)
    if python is None:
        raise SystemExit("datatrove cannot be installed; is the package index in reach?")
    return python
