"""Shards of an object store as files of this node: fetched once, checked, kept up to a budget of disk.

The folder is shared by all processes of a node and by all trainings: a file is named by its sha256, is written beside
and renamed once that is right, and a lock lets one process fetch what several want. GPTMILL_SHARD_CACHE names the
folder, GPTMILL_SHARD_CACHE_BYTES its budget; the files used longest ago go first. A process that still maps a file
which is removed reads on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pyarrow.fs import FileSystem

from data_pipeline.errors import InputError
from data_pipeline.object_stores import store_of

BUDGET_BYTES = 64 << 30
FETCHES_AT_ONCE = 4
PIECE_BYTES = 8 << 20
ATTEMPTS, PAUSE_SECONDS = 4, 0.5


class ShardCache:
    """Local files for the shards of one dataset.

    Args:
        uri: folder of the dataset in an object store.
        folder: where the files are kept; by default GPTMILL_SHARD_CACHE, or a folder of this user's for temporary files.
        budget: bytes that the folder may hold; by default GPTMILL_SHARD_CACHE_BYTES, or 64 GiB.

    Attributes:
        fetched: shards that this process has fetched, by sha256, in their order.
    """

    def __init__(self, uri: str, folder: Path | None = None, budget: int | None = None) -> None:
        self.uri = uri
        named = os.environ.get("GPTMILL_SHARD_CACHE")
        self.folder = folder or Path(named or f"{tempfile.gettempdir()}/gptmill-{os.getuid()}/shards")
        self.budget = budget or int(os.environ.get("GPTMILL_SHARD_CACHE_BYTES") or BUDGET_BYTES)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fetched: list[str] = []
        self._files, self._place = store_of(uri)
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Path]] = {}
        self._evicted: Callable[[str], None] = lambda sha256: None
        self._pool = ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="shard-cache")

    def on_eviction(self, call: Callable[[str], None]) -> None:
        """Let somebody know the sha256 of each file that is removed, so that it is not kept open."""
        self._evicted = call

    def path(self, name: str, size: int, sha256: str) -> Path:
        """The local file of a shard, fetched now if it is not there.

        Raises:
            InputError: the shard is missing, or not what the manifest says.
        """
        path = self.start(name, size, sha256).result()
        if not path.exists():  # removed by another process since
            with self._lock:
                self._pending.pop(sha256, None)
            path = self.start(name, size, sha256).result()
        with suppress(FileNotFoundError):
            os.utime(path)
        return path

    def start(self, name: str, size: int, sha256: str) -> Future[Path]:
        """Begin to fetch a shard."""
        with self._lock:
            if sha256 not in self._pending:
                self._pending[sha256] = self._pool.submit(self._fetch, name, size, sha256)
            return self._pending[sha256]

    def fetch_ahead(self, shards: Iterable[tuple[str, int, str]]) -> None:
        """Begin to fetch shards (name, size, sha256) in the order in which they are wanted, as far as the budget reaches."""
        total, left_out = 0, 0
        for name, size, sha256 in shards:
            total += size
            if total <= self.budget:
                self.start(name, size, sha256)
            else:
                left_out += size
        if left_out:
            warnings.warn(
                f"{self.uri}: {total / 1e9:.1f} GB of shards are read in random order, and "
                f"GPTMILL_SHARD_CACHE_BYTES keeps {self.budget / 1e9:.1f} GB of them: shards will be fetched again and again"
            )

    def close(self) -> None:
        """Begin no more fetches."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, name: str, size: int, sha256: str) -> Path:
        path = self.folder / f"{sha256}.arrow"
        with (self.folder / f"{sha256}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_size == size:
                return path
            self._make_room(size)
            beside = path.with_suffix(".tmp")
            try:
                for attempt in range(ATTEMPTS):
                    try:
                        found = _download(self._files, f"{self._place}/{name}", beside)
                        break
                    except FileNotFoundError:
                        raise InputError(
                            f"{self.uri}/{name} is missing, the manifest names it; restore it or tokenise again"
                        ) from None
                    except OSError:
                        if attempt + 1 == ATTEMPTS:
                            raise
                        time.sleep(PAUSE_SECONDS * 2**attempt)
                if found != sha256:
                    raise InputError(
                        f"{self.uri}/{name}: sha256 differs from the manifest; the shard is damaged, tokenise again"
                    )
                beside.replace(path)
            except BaseException:
                # Who asks again asks the store again.
                with self._lock:
                    self._pending.pop(sha256, None)
                raise
            finally:
                beside.unlink(missing_ok=True)
            self.fetched.append(sha256)
            return path

    def _make_room(self, size: int) -> None:
        """Remove the files used longest ago until another one fits."""
        with self._lock:
            entries = []
            for path in self.folder.glob("*.arrow"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                entries.append((status.st_mtime_ns, status.st_size, path))
            total = sum(entry[1] for entry in entries)
            for _, held, path in sorted(entries):
                if total + size <= self.budget:
                    break
                path.unlink(missing_ok=True)
                total -= held
                self._pending.pop(path.stem, None)
                self._evicted(path.stem)


def _download(files: FileSystem, place: str, target: Path) -> str:
    """Copy an object into a file; its sha256."""
    digest = hashlib.sha256()
    with files.open_input_stream(place) as source, target.open("wb") as out:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()
