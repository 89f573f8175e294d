"""One process at a time where two would spoil each other's files.

On a disk the system's own file lock, which is free the moment its holder dies. In an object store a lease: a small
object that only one can create (a conditional write), that its holder renews as long as it lives, and that another may
take over once it has not been renewed for LEASE_SECONDS by the store's own clock.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.errors import Busy
from data_pipeline.sources import is_local
from data_pipeline.storage import client_options

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LEASE_SECONDS = 60.0
# A waiting process looks again after so long.
POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)


@contextmanager
def locked(
    path: Path, what: str, wait: float = 0.0, told: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock for the time of a `with` block.

    Args:
        path: the lock file; made with its folder where it is missing.
        what: the option and the thing that is locked, for the message.
        wait: seconds to wait for another process to let go of it; infinity for as long as it takes.
        told: told once that another process is waited for.

    Raises:
        Busy: another process holds it.
    """
    if is_local(path):
        with _file_lock(path, what, wait, told):
            yield
    else:
        with _lease(path, what, wait, told):
            yield


def _holder() -> str:
    return json.dumps(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "id": uuid.uuid4().hex,
        }
    )


def _describe(content: bytes) -> str:
    """Who holds a lock, as far as the lock says it."""
    try:
        holder = json.loads(content)
        return f"process {int(holder['process'])} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


class _Patience:
    """How long to wait yet; raises Busy at the end of it."""

    def __init__(self, path: Path, what: str, wait: float, told: Callable[[str], None] | None) -> None:
        self._path, self._what, self._told = path, what, told
        self._wait, self._deadline = wait, time.monotonic() + wait

    def wait(self, holder: bytes) -> None:
        """Sleep a little.

        Raises:
            Busy: the time is over.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            waited = f" after {self._wait:.0f} s" if self._wait else ""
            raise Busy(
                f"{self._what} is worked on by another process{waited}: {_describe(holder)} holds {self._path}; "
                "wait for it (refresh: --wait), or give another name"
            )
        if self._told is not None:
            self._told(f"waiting for {_describe(holder)}")
            self._told = None
        time.sleep(min(left, POLL_SECONDS))


# -------------------------------------------------------------------------------------------------------- on a disk


@contextmanager
def _file_lock(path: Path, what: str, wait: float, told: Callable[[str], None] | None) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    patience = _Patience(path, what, wait, told)
    with path.open("a+b") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                patience.wait(file.read(1000))
        # The file is never removed: who waits for it would hold a lock on a file that is gone.
        file.truncate(0)
        file.write(_holder().encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


# -------------------------------------------------------------------------------------------------- in an object store


@contextmanager
def _lease(path: Path, what: str, wait: float, told: Callable[[str], None] | None) -> Iterator[None]:
    from obstore.store import from_url

    store = from_url(str(path.parent), client_options=client_options())  # type: ignore[call-overload]
    patience = _Patience(path, what, wait, told)
    while (tag := _take(store, path.name)) is None:
        patience.wait(_read(store, path.name))
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, path.name, tag, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _give_back(store, path.name, tag)


class _Tag:
    """The version of the lock's object that is this process's own; None once another has taken it over."""

    def __init__(self, value: str | None) -> None:
        self.value = value


def _take(store: ObjectStore, name: str) -> _Tag | None:
    """The lock, where it is free or its holder has not renewed it in time."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

    with suppress(AlreadyExistsError, PreconditionError):
        return _Tag(obstore.put(store, name, _holder().encode(), mode="create")["e_tag"])
    try:
        found = obstore.head(store, name)
        if (_now(store, name) - found["last_modified"]).total_seconds() < LEASE_SECONDS:
            return None
        # Of several that saw it expire, one replaces this very version of it.
        stale = {key: found[key] for key in ("e_tag", "version") if found[key] is not None}
        return _Tag(obstore.put(store, name, _holder().encode(), mode=stale)["e_tag"])  # type: ignore[arg-type]
    except (NotFoundError, PreconditionError, FileNotFoundError):
        return None


def _now(store: ObjectStore, name: str) -> datetime:
    """The store's clock: machines' own may differ by more than a lease."""
    import obstore

    probe = f"{name}.{uuid.uuid4().hex}"
    obstore.put(store, probe, b"")
    try:
        return obstore.head(store, probe)["last_modified"]
    finally:
        obstore.delete(store, probe)


def _read(store: ObjectStore, name: str) -> bytes:
    import obstore

    with suppress(FileNotFoundError):
        return bytes(obstore.get(store, name).bytes())
    return b""


def _renew(store: ObjectStore, name: str, tag: _Tag, ended: threading.Event) -> None:
    """Write the lock anew until the end, or until another process has it."""
    import obstore
    from obstore.exceptions import PreconditionError

    while not ended.wait(LEASE_SECONDS / 4):
        try:
            written = obstore.put(store, name, _holder().encode(), mode={"e_tag": tag.value})
            tag.value = written["e_tag"]
        except (PreconditionError, FileNotFoundError):
            logger.warning("the lock %s was taken over by another process: it was not renewed in time", name)
            tag.value = None
            return
        except Exception as error:  # a store that does not answer now may do so the next time
            logger.warning("the lock %s could not be renewed: %s", name, error)


def _give_back(store: ObjectStore, name: str, tag: _Tag) -> None:
    import obstore

    # Not under the feet of who has taken it over.
    with suppress(Exception):
        if tag.value is not None and obstore.head(store, name)["e_tag"] == tag.value:
            obstore.delete(store, name)
