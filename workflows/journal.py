"""Metrics of a training as lines in a file of the run: written before they are sent anywhere.

A worker that is killed loses nothing that it measured, a tracking server that is down loses nothing either,
and steps that are trained again after a restart are not recorded twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAIN, VALIDATION = "train", "val"


class Journal:
    """The file `metrics.jsonl` of a run; one process writes it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = {TRAIN: -1, VALIDATION: -1}
        path.parent.mkdir(parents=True, exist_ok=True)
        good = 0
        if path.exists():
            content = path.read_bytes()
            good = content.rfind(b"\n") + 1
            if good != len(content):  # a kill in the middle of a line
                with path.open("r+b") as file:
                    file.truncate(good)
        for entry in read_journal(path):
            self._last[entry["kind"]] = max(self._last[entry["kind"]], entry["step"])
        self._file = path.open("ab", buffering=0)

    def add(self, kind: str, step: int, values: dict[str, float]) -> dict[str, Any] | None:
        """Record values of a step; None when that step was recorded before."""
        if step <= self._last[kind]:
            return None
        self._last[kind] = step
        entry = {"kind": kind, "step": step, "time": time.time(), "values": values}
        self._file.write(json.dumps(entry).encode("utf-8") + b"\n")
        return entry

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a journal, oldest first; a line that is still being written is left out."""
    for entry, _ in read_journal_from(path, 0):
        yield entry


def read_journal_from(path: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """(entry, offset behind it) of each whole line from an offset on; nothing where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                offset += len(line)
                yield json.loads(line), offset


def curve(path: Path, kind: str, name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one metric."""
    points = [
        (entry["step"], entry["values"][name])
        for entry in read_journal(path)
        if entry["kind"] == kind and name in entry["values"]
    ]
    return [step for step, _ in points], [value for _, value in points]
