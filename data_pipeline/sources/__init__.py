"""Where text comes from: input files of several kinds, and one reader for each kind.

A reader is a generator of `Record`s over one file. It never raises for one bad record: it yields the record
with a `reason`. A file that breaks off gives its good records first.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from data_pipeline.config import SourceConfig
from data_pipeline.errors import InputError

PACKINGS = ("", ".gz", ".zst", ".bz2", ".xz")
# File names that a folder is searched for, by kind.
PATTERNS = {
    "web": ("*.warc", "*.warc.*", "*.arc", "*.arc.*", "*.wacz", "*.html", "*.htm", "*.xhtml"),
    "books": ("*.txt", "*.txt.gz", "*.epub", "*.zip", "*.html", "*.htm", "*.xhtml"),
    "wiki": ("*.xml", "*.xml.*", "*.xml-p*", "*.bz2", "*.7z"),
    "files": (
        *(f"*.{name}{packing}" for name in ("jsonl", "ndjson", "json", "csv", "tsv") for packing in PACKINGS),
        *("*.parquet", "*.arrow", "*.feather", "*.txt", "*.txt.gz", "*.md"),
    ),
}
# Lie beside inputs: the index of a wiki dump, what Hugging Face keeps of a dataset on disk.
NOT_INPUTS = ("*-index*.txt*", "dataset_info.json", "dataset_dict.json", "state.json", "cache-*.arrow")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an input file that one task reads: the records that begin at byte `start` or later, before `stop`.

    Where spans are cut never changes which records are read, nor their order.
    """

    start: int = 0
    stop: int | None = None


WHOLE = Span()


@dataclass(frozen=True, slots=True)
class Record:
    """What a reader gives for one document candidate.

    Attributes:
        uri: where the document comes from, or "" where the input does not say.
        title, date: as the input states them; "" where it does not.
        content: HTML, wikitext, Gutenberg text or plain text, by `format`.
        format: html, wikitext, gutenberg or text.
        reason: why the record is no document; "" for a good one.
        metadata: what else the input states, for example {"author": "Jane Austen"}.
    """

    uri: str
    content: str = ""
    format: str = "text"
    title: str = ""
    date: str = ""
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def as_path(place: str) -> Path:
    """A local path, or one behind a URI (http, https, s3, gs, memory ...) with the same methods."""
    if "://" not in place:
        return Path(place).expanduser()
    from data_pipeline.sources import remote  # fsspec costs 0.2 s, which local files need not pay

    return cast(Path, remote.remote_path(place))


def is_local(path: Path) -> bool:
    """Whether a path is of this machine's own files."""
    return isinstance(path, PurePath)


def open_file(path: Path) -> BinaryIO:
    """An input file for reading and seeking; of a remote one, what a broken connection left out is asked for again.

    Raises:
        OSError: it cannot be opened.
    """
    if is_local(path):
        return path.open("rb")
    from data_pipeline.sources import remote

    return remote.open_remote(cast(Any, path))


def fingerprint(path: Path) -> tuple[int, str]:
    """(Bytes of a file, hex sha256 of them); (its size as far as known, "") where it cannot be read to its end."""
    try:
        with open_file(path) as file:
            digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
            return file.tell(), digest
    except OSError:
        try:
            return path.stat().st_size or 0, ""
        except OSError:
            return 0, ""


def list_files(source: SourceConfig) -> list[Path]:
    """The source's input files, sorted by path, each once.

    Raises:
        InputError: a path that does not exist, or a folder or glob with nothing for this kind in it.
    """
    found: dict[str, Path] = {}
    for given in source.paths:
        try:
            files = _listed(source, given) if "://" not in given else _listed_remote(source, given)
        except InputError as error:
            raise InputError(f"source {source.name}: {error}") from None
        except (ImportError, ValueError, OSError) as error:
            raise InputError(f"source {source.name}: {given} cannot be listed ({error})") from None
        found |= {str(file): file for file in files}
    return [found[name] for name in sorted(found)]


def _listed(source: SourceConfig, given: str) -> list[Path]:
    path = as_path(given)
    if path.is_dir():
        files = [file for file in path.rglob("*") if is_input(file.name, source.kind) and file.is_file()]
        if not files:
            patterns = " ".join(PATTERNS[source.kind])
            raise InputError(f"no file for kind {source.kind} in {given} (looked for {patterns})")
    elif path.is_file():
        files = [path]
    elif any(mark in given for mark in "*?["):
        root = as_path(path.anchor) if path.anchor else Path()
        pattern = str(path).removeprefix(str(root)).lstrip("/") if path.anchor else given
        files = [file for file in root.glob(pattern) if file.is_file()]
        if not files:
            raise InputError(f"{given} matches no file")
    else:
        raise InputError(f"{given} does not exist; give a file, a folder or a glob")
    return [file.resolve() for file in files]


def _listed_remote(source: SourceConfig, given: str) -> list[Path]:
    from data_pipeline.sources import remote

    path = remote.remote_path(given)
    try:
        files = remote.find_files(path, partial(is_input, kind=source.kind))
        if not files and (bucket := remote.missing_bucket(path)):
            raise InputError(f"{given}: there is no bucket {bucket}")
    except InputError:
        raise
    except Exception as error:  # each client has its own
        raise InputError(f"{given} cannot be listed ({remote.explain(path, error)})") from None
    if files is None:
        raise InputError(f"{given} does not exist; give a file, a folder or a glob")
    if not files:
        raise InputError(f"{given} holds no file for kind {source.kind}, or matches none")
    return [cast(Path, file) for file in files]


def is_input(name: str, kind: str) -> bool:
    """Whether a file of a folder is an input of a kind, by its name."""
    name = name.lower()
    return (
        not name.startswith(".")
        and not name.endswith(".part")  # a crawl is still writing it
        and any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS[kind])
        and not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_INPUTS)
    )


def split_file(source: SourceConfig, path: Path, span_bytes: int) -> list[Span]:
    """The spans of about `span_bytes` that a file can be read in; one where it cannot be entered midway.

    Raises:
        InputError: a file that no worker could read, for want of a tool.
    """
    try:
        return _split(source, path, span_bytes) if is_local(path) or _gives_parts(path) else [WHOLE]
    except InputError:
        raise
    except Exception:  # it cannot be looked into: who reads it in one go says why, and gives what there is
        return [WHOLE]


def _gives_parts(path: Path) -> bool:
    from data_pipeline.sources import remote

    return remote.gives_parts(cast(Any, path))


def _split(source: SourceConfig, path: Path, span_bytes: int) -> list[Span]:
    if source.kind == "wiki":
        from data_pipeline.sources import mediawiki

        return mediawiki.split(path, span_bytes)
    if path.stat().st_size <= span_bytes:
        return [WHOLE]
    if source.kind == "web":
        from data_pipeline.sources import web

        return web.split(path, span_bytes)
    if source.kind == "files":
        from data_pipeline.sources import files

        return files.split(path, span_bytes)
    return [WHOLE]


def spans_between(cuts: Sequence[int]) -> list[Span]:
    """Spans that meet at the given offsets, the first from the file's begin, the last to its end."""
    starts = [0, *cuts]
    return [Span(start, stop) for start, stop in zip(starts, [*cuts, None], strict=True)]


def read_records(source: SourceConfig, path: Path, span: Span = WHOLE) -> Iterator[Record]:
    """The records of one span of an input file, by the source's kind."""
    # Imported late: each reader brings its own library, and a worker needs the one at hand only.
    if source.kind == "web":
        from data_pipeline.sources import web

        yield from web.read(path, span)
    elif source.kind == "books":
        from data_pipeline.sources import books

        yield from books.read(path)
    elif source.kind == "wiki":
        from data_pipeline.sources import mediawiki

        yield from mediawiki.read(path, span)
    else:
        from data_pipeline.sources import files

        yield from files.read(path, source, span)
