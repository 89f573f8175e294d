"""Files behind URIs: s3 and gs by pyarrow's own clients, http(s) and the rest by fsspec.

Endpoints and credentials come from the environment that each system's own tools read (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST, ~/.netrc, HTTPS_PROXY ...), on the driver and
on every worker; never from the configuration, which is kept with the corpus.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.http import HTTPFileSystem
from upath import UPath

from data_pipeline.errors import InputError
from data_pipeline.object_stores import CONNECT_SECONDS, STALL_SECONDS, google_client, s3_client

Result = TypeVar("Result")

WEB = ("http", "https")
# What a request fetches, at most: many small ones would wait for the network most of their time.
BUFFER_BYTES, LEAST_BYTES = 4 << 20, 1 << 10
# Tries without a byte of progress before a file is given up, and the pause after the first of them.
ATTEMPTS, PAUSE_SECONDS = 4, 0.5
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
REFUSED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY",
    "SIGNATURE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "access token",
)


class _ArrowFiles(ArrowFSWrapper):
    """One of pyarrow's filesystems as UPath wants it."""

    root_marker = ""
    # fsspec would keep instances by their arguments, of which these have none; the clients below are kept instead.
    cachable = False
    # Methods of an instance in fsspec's class; UPath asks the class itself.
    _parent: Any = classmethod(fsspec.AbstractFileSystem._parent.__func__)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return [cls._strip_protocol(one) for one in path] if isinstance(path, list) else path.split("://")[-1]

    def walk(self, path: str, maxdepth: int | None = None, topdown: bool = True, **options: Any) -> Any:
        """All folders below one; what cannot be listed is an error, where fsspec's own passes over it."""
        return super().walk(path, maxdepth, topdown, **{**options, "on_error": "raise"})


class S3Files(_ArrowFiles):
    """Amazon S3 and what speaks like it."""

    protocol = ("s3", "s3a")

    def __init__(self, **options: Any) -> None:
        super().__init__(s3_client(), **options)


class GoogleFiles(_ArrowFiles):
    """Google Cloud Storage."""

    protocol = ("gs", "gcs")

    def __init__(self, **options: Any) -> None:
        super().__init__(google_client(), **options)


class WebFiles(HTTPFileSystem):
    """Web servers; a page of links is a folder."""

    def __init__(self, **options: Any) -> None:
        client = {
            "timeout": aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS
            ),
            # A packed file is wanted as it lies there, also where a server calls that an encoding.
            "headers": {"Accept-Encoding": "identity"},
            "auto_decompress": False,
            "trust_env": True,
        }
        super().__init__(simple_links=False, client_kwargs=client, **options)

    async def _walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, **options: Any
    ) -> Any:
        async for found in super()._walk(path, maxdepth, topdown, **{**options, "on_error": "raise"}):
            yield found


for _files in (S3Files, GoogleFiles, WebFiles):
    for _protocol in _files.protocol:
        fsspec.register_implementation(_protocol, _files, clobber=True)


def remote_path(uri: str) -> UPath:
    """The file or folder behind a URI.

    Raises:
        InputError: the URI holds a password, which would be kept with the corpus.
        ValueError, ImportError: no such scheme, or none that is installed here.
    """
    parts = urlsplit(uri)
    if parts.password or (parts.username and parts.scheme in WEB):
        place = f"{parts.scheme}://...@{parts.hostname}"
        raise InputError(f"{place}: a URI is kept with the corpus; put the password into ~/.netrc instead")
    return UPath(uri)


# ---------------------------------------------------------------------------------------------------- listing


def find_files(path: UPath, is_wanted: Callable[[str], bool]) -> list[UPath] | None:
    """The files of a folder, of a glob, or the one file; None where there is nothing of the name.

    Args:
        path: of `remote_path`. Of http(s), a folder is what ends in "/" and shows its files as links.
        is_wanted: whether a file of a folder is wanted, by its name.

    Raises:
        Exception: of the library's own, where the place cannot be reached or may not be read.
    """
    files, key = path.fs, path.path
    is_web = path.protocol in WEB
    try:
        if any(mark in key for mark in ("*[" if is_web else "*[?")) and (is_web or not files.isfile(key)):
            found = [name for name, entry in files.glob(key, detail=True).items() if entry["type"] == "file"]
        elif key.endswith("/") if is_web else files.isdir(key):
            found = [name for name in files.find(key) if is_wanted(name.rsplit("/", 1)[-1])]
        else:
            files.info(key)
            found = [key]
    except FileNotFoundError as error:
        if _is_missing(path, error):
            return None
        raise error.__cause__ or error from None
    return [remote_path(name if is_web else f"{path.protocol}://{name}") for name in found]


def explain(path: UPath, error: BaseException) -> str:
    """What went wrong with a place, in one line, and what helps where that is known."""
    message = " ".join(str(error).split())[:300] or type(error).__name__
    if any(mark in message for mark in REFUSED) and path.protocol in CREDENTIALS:
        return f"{message}; give credentials by {CREDENTIALS[path.protocol]}"
    if "NO_SUCH_BUCKET" in message:
        return f"there is no bucket {path.path.partition('/')[0]}"
    if path.protocol == "s3" and "NETWORK_CONNECTION" in message:
        return f"{message}; AWS_ENDPOINT_URL and AWS_REGION say where to look"
    return message


def missing_bucket(path: UPath) -> str:
    """The bucket of an s3 or gs path where that is what does not exist, else ""."""
    bucket = path.path.partition("/")[0]
    return bucket if path.protocol in CREDENTIALS and not path.fs.exists(bucket) else ""


# ---------------------------------------------------------------------------------------------------- reading


def open_remote(path: UPath) -> BinaryIO:
    """A remote file for reading and seeking; where a connection breaks, reading goes on behind what came.

    A file of a server that gives no parts of files is fetched whole, into a temporary file.

    Raises:
        OSError: it is not there, or nothing more of it comes after ATTEMPTS tries.
    """
    size = _insist(path, lambda: _size_by_parts(path))
    if size is None:
        return _insist(path, lambda: _fetched(path))
    return cast(BinaryIO, io.BufferedReader(_Resuming(path, size), BUFFER_BYTES))


def gives_parts(path: UPath) -> bool:
    """Whether a part of the file can be had without what lies before it."""
    return _insist(path, lambda: _size_by_parts(path)) is not None


def _size_by_parts(path: UPath) -> int | None:
    """The file's size where parts of it can be had, else None."""
    info = path.fs.info(path.path)
    size = info["size"]
    if path.protocol not in WEB or not size:
        return cast("int | None", size)
    with _opened(path, size) as file:
        try:
            file.seek(size - 1)
            file.read(1)
        except ValueError:  # the answer was the whole file
            return None
    return cast(int, size)


def _opened(path: UPath, size: int) -> Any:
    # Told the size, a web file does not ask for it again; the buffer above is all the cache that is needed.
    options = {"size": size, "cache_type": "none"} if path.protocol in WEB else {}
    return path.fs.open(path.path, **options)


def _fetched(path: UPath) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the reader closes it)
    try:
        path.fs.get_file(path.path, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


class _Resuming(io.RawIOBase):
    """A file of known size, opened again where reading breaks.

    What a broken request had given is lost, so each try asks for less, and what goes well for more again.
    """

    def __init__(self, path: UPath, size: int) -> None:
        self._path, self._size, self._position = path, size, 0
        self._piece = BUFFER_BYTES
        self._file: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        """What is left; Python's own asks for 8 KB at a time."""
        return b"".join(iter(lambda: self.read(BUFFER_BYTES) or b"", b""))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        block = _insist(self._path, lambda: self._read(min(wanted, self._piece)))
        self._piece = min(BUFFER_BYTES, 4 * self._piece)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = _opened(self._path, self._size)
            self._file.seek(self._position)
            block = self._file.read(size)
            if not block:
                raise EOFError(f"it ends {self._size - self._position} bytes early")
            return cast(bytes, block)
        except BaseException:
            self._piece = max(LEAST_BYTES, self._piece // 16)
            self._drop()
            raise

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        super().close()


def _insist(path: UPath, call: Callable[[], Result]) -> Result:
    """The call's result, tried ATTEMPTS times: networks fail for a moment.

    Raises:
        OSError: what the last try ended with; FileNotFoundError at once.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:  # each client has its own
            if _is_missing(path, error):
                raise FileNotFoundError(f"{path} does not exist (any more)") from error
            if attempt + 1 == ATTEMPTS:
                raise OSError(f"{path}: {explain(path, error.__cause__ or error)}") from error
            time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _is_missing(path: UPath, error: Exception) -> bool:
    """Whether nothing of the name is there; fsspec's web client says so of every failure, and gives the true one as cause."""
    cause = error.__cause__
    is_absent = path.protocol not in WEB or cause is None or getattr(cause, "status", 0) in (404, 410)
    return isinstance(error, FileNotFoundError) and is_absent
