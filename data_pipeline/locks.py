"""One process at a time where two would spoil each other's files."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.errors import InputError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the time of a `with` block; the system frees it when the process dies, however.

    Args:
        path: the lock file; made with its folder where it is missing, never removed.
        what: the option and the thing that is locked, for the message.

    Raises:
        InputError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{what} is worked on by another process, which holds {path}; wait for it, or give another name"
            ) from None
        yield
