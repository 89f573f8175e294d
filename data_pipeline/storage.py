"""The files of a workspace, on a disk or in an object store: read by parts, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from data_pipeline.sources import as_path, is_local

# Object stores that a workspace may be in: those whose conditional writes deltalake and obstore know.
SCHEMES = ("s3", "gs")


def place_of(path: Path | str) -> tuple[pyarrow.fs.FileSystem, str]:
    """(pyarrow's filesystem, the path in it)."""
    path = as_path(path) if isinstance(path, str) else path
    if is_local(path):
        return pyarrow.fs.LocalFileSystem(), str(path)
    remote = cast(Any, path)
    return remote.fs.fs, remote.path


def client_options() -> dict[str, str]:
    """What deltalake and obstore must be told beside the environment, which both read themselves."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {"allow_http": "true"} if endpoint.startswith("http://") else {}


# ----------------------------------------------------------------------------------------------------- reading


def open_parquet(path: Path | str) -> pq.ParquetFile:
    """A Parquet file for reading by row groups; use it as a context manager."""
    files, place = place_of(path)
    return pq.ParquetFile(place, filesystem=files)


def read_parquet(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Chosen columns of a Parquet file, or all."""
    files, place = place_of(path)
    return pq.read_table(
        place, columns=None if columns is None else list(columns), filesystem=files, partitioning=None
    )


def find(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names match, sorted; none where there is no such folder."""
    files, place = place_of(folder)
    found = files.get_file_info(pyarrow.fs.FileSelector(place, allow_not_found=True))
    names = [entry.base_name for entry in found if entry.type == pyarrow.fs.FileType.File]
    return [folder / name for name in sorted(names) if fnmatch(name, pattern)]


def size_of(path: Path) -> int:
    """Bytes of a file."""
    files, place = place_of(path)
    return int(files.get_file_info(place).size)


# ----------------------------------------------------------------------------------------------------- writing


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A local file to write in a `with` block; behind it, it is at `path`, whole. Nothing is, where the block raises."""
    if is_local(path):
        beside = path.with_name(path.name + ".tmp")
        try:
            yield beside
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        beside.replace(path)
        return
    with tempfile.TemporaryDirectory(prefix="gptmill-") as folder:
        local = Path(folder) / "upload"
        yield local
        files, place = place_of(path)
        # An object is there once all of it has arrived: what breaks off leaves none.
        pyarrow.fs.copy_files(str(local), place, pyarrow.fs.LocalFileSystem(), files)


def make_folder(path: Path) -> None:
    """Make a folder; object stores have none."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, where it is there."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    files, place = place_of(path)
    with suppress(FileNotFoundError):
        files.delete_dir(place)


def remove_file(path: Path) -> None:
    """Remove a file, where it is there."""
    files, place = place_of(path)
    with suppress(FileNotFoundError):
        files.delete_file(place)
