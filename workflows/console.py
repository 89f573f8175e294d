"""What a person sees while work goes on: one line a step in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Without a terminal, a step that takes long says so this often.
PLAIN_SECONDS = 15.0

# Where there is no terminal there is no width either: tables must not be folded into 80 columns.
console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200
)


def printable(text: str) -> str:
    """Text from outside without the control characters that could drive a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


class Step:
    """A step under way; `update` says how far, `summary` what came of it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.summary = ""
        self.began = time.monotonic()
        self.began_at = time.time()
        self._said = self.began
        self._status = console.status(Text(f"{title} ...")) if console.is_terminal else None

    def update(self, line: str) -> None:
        """Show one short line about the progress."""
        line = printable(line)
        if self._status is not None:
            self._status.update(Text(f"{self.title}: {line} ({time.monotonic() - self.began:.0f} s)"))
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            say(f"  {self.title}: {line}")

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show a step: a live line while it runs, one line with its summary and time when it is done."""
    current = Step(title)
    if current._status is not None:
        current._status.start()
    try:
        yield current
    finally:
        if current._status is not None:
            current._status.stop()
    # Not after an error: what went wrong is said elsewhere.
    say(f"{title:<12}{current.summary}  [{current.seconds:.1f} s]")


def say(line: str = "") -> None:
    """Print one line."""
    console.print(Text(printable(line)))
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table; the first column reads from the left, numbers from the right."""
    shown = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = index > 0 and all(not row[index] or row[index][:1] in "0123456789.-+" for row in rows)
        shown.add_column(column, justify="right" if numeric else "left", no_wrap=index > 0 and numeric)
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    console.print(shown)
