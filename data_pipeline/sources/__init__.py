"""Where text comes from: input files of several kinds, and one reader for each kind.

A reader is a generator of `Record`s over one file. It never raises for one bad record: it yields the record
with a `reason`. A file that breaks off gives its good records first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.config import SourceConfig
from data_pipeline.errors import InputError

# File names that a folder is searched for, by kind.
PATTERNS = {
    "web": ("*.warc", "*.warc.*", "*.arc", "*.arc.*", "*.html", "*.htm", "*.xhtml"),
    "books": ("*.txt",),
    "wiki": ("*.xml", "*.xml.bz2", "*.xml.gz", "*.bz2"),
    "files": (
        *("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.json", "*.json.gz", "*.ndjson"),
        *("*.parquet", "*.arrow", "*.txt", "*.txt.gz", "*.md"),
    ),
}


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


def list_files(source: SourceConfig) -> list[Path]:
    """The source's input files, sorted by path, each once.

    Raises:
        InputError: a path that does not exist, or a folder or glob with nothing for this kind in it.
    """
    found: set[Path] = set()
    for given in source.paths:
        path = Path(given).expanduser()
        if path.is_dir():
            files = [
                file
                for file in path.rglob("*")
                if file.is_file()
                and not file.name.startswith(".")
                and not file.name.endswith(".part")  # a crawl is still writing it
                and any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in PATTERNS[source.kind])
            ]
            if not files:
                patterns = " ".join(PATTERNS[source.kind])
                raise InputError(
                    f"source {source.name}: no file for kind {source.kind} in {path} (looked for {patterns})"
                )
        elif path.is_file():
            files = [path]
        elif any(mark in given for mark in "*?["):
            try:
                matches = list(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
            except ValueError as error:
                raise InputError(f"source {source.name}: {given} is no glob ({error})") from None
            files = [file for file in matches if file.is_file()]
            if not files:
                raise InputError(f"source {source.name}: {given} matches no file")
        else:
            raise InputError(f"source {source.name}: {given} does not exist; give a file, a folder or a glob")
        found.update(file.resolve() for file in files)
    return sorted(found)


def split_file(source: SourceConfig, path: Path, span_bytes: int) -> list[Span]:
    """The spans of about `span_bytes` that a file can be read in; one where its format cannot be entered midway."""
    if path.stat().st_size <= span_bytes:
        return [WHOLE]
    return [WHOLE]


def read_records(source: SourceConfig, path: Path, span: Span = WHOLE) -> Iterator[Record]:
    """The records of one span of an input file, by the source's kind."""
    # Imported late: each reader brings its own library, and a worker needs the one at hand only.
    if source.kind == "web":
        from data_pipeline.sources import web

        yield from web.read(path, span)
    elif source.kind == "books":
        from data_pipeline.sources import gutenberg

        yield from gutenberg.read(path)
    elif source.kind == "wiki":
        from data_pipeline.sources import mediawiki

        yield from mediawiki.read(path, span)
    else:
        from data_pipeline.sources import files

        yield from files.read(path, source, span)
