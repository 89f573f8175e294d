"""Where text comes from: input files of several kinds, and one reader for each kind.

A reader is a generator of `Record`s over one file. It never raises for one bad record: it yields the record
with a `reason`. A file that breaks off gives its good records first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
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
class Record:
    """What a reader gives for one document candidate.

    Attributes:
        uri: where the document comes from, or "" where the input does not say.
        title, date: as the input states them; "" where it does not.
        content: HTML, wikitext, Gutenberg text or plain text, by `format`.
        format: html, wikitext, gutenberg or text.
        reason: why the record is no document; "" for a good one.
    """

    uri: str
    content: str = ""
    format: str = "text"
    title: str = ""
    date: str = ""
    reason: str = ""


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


def read_records(source: SourceConfig, path: Path) -> Iterator[Record]:
    """All records of one input file, by the source's kind."""
    # Imported late: each reader brings its own library, and a worker needs the one at hand only.
    if source.kind == "web":
        from data_pipeline.sources import web

        yield from web.read(path)
    elif source.kind == "books":
        from data_pipeline.sources import gutenberg

        yield from gutenberg.read(path)
    elif source.kind == "wiki":
        from data_pipeline.sources import mediawiki

        yield from mediawiki.read(path)
    else:
        from data_pipeline.sources import files

        yield from files.read(path, source)
