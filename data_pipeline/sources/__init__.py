"""Where text comes from: input files of several kinds, and one reader for each kind.

A reader is a generator of `Record`s over one file. It never raises for one bad record: it yields the record
with a `reason`. A file that breaks off gives its good records first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import cast

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
    from upath import UPath  # fsspec costs 0.2 s, which local files need not pay

    return cast(Path, UPath(place))


def list_files(source: SourceConfig) -> list[Path]:
    """The source's input files, sorted by path, each once.

    Raises:
        InputError: a path that does not exist, or a folder or glob with nothing for this kind in it.
    """
    found: dict[str, Path] = {}
    for given in source.paths:
        try:
            files = _listed(source, given)
        except InputError:
            raise
        except (ImportError, ValueError, OSError) as error:
            raise InputError(f"source {source.name}: {given} cannot be listed ({error})") from None
        found |= {str(file): file for file in files}
    return [found[name] for name in sorted(found)]


def _listed(source: SourceConfig, given: str) -> list[Path]:
    path = as_path(given)
    if path.is_dir():
        files = [file for file in path.rglob("*") if _is_input(file, source.kind)]
        if not files:
            patterns = " ".join(PATTERNS[source.kind])
            raise InputError(
                f"source {source.name}: no file for kind {source.kind} in {given} (looked for {patterns})"
            )
    elif path.is_file():
        files = [path]
    elif any(mark in given for mark in "*?["):
        root = as_path(path.anchor) if path.anchor else Path()
        pattern = str(path).removeprefix(str(root)).lstrip("/") if path.anchor else given
        files = [file for file in root.glob(pattern) if file.is_file()]
        if not files:
            raise InputError(f"source {source.name}: {given} matches no file")
    else:
        raise InputError(f"source {source.name}: {given} does not exist; give a file, a folder or a glob")
    return [file.resolve() if isinstance(file, PosixPath) else file for file in files]


def _is_input(file: Path, kind: str) -> bool:
    name = file.name.lower()
    return (
        not name.startswith(".")
        and not name.endswith(".part")  # a crawl is still writing it
        and any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS[kind])
        and not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_INPUTS)
        and file.is_file()
    )


def split_file(source: SourceConfig, path: Path, span_bytes: int) -> list[Span]:
    """The spans of about `span_bytes` that a file can be read in; one where its format cannot be entered midway.

    Raises:
        InputError: a file that no worker could read, for want of a tool.
    """
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
