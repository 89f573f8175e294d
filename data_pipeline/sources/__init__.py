"""Where text comes from: input files of several kinds, and one reader for each kind.

A reader is a generator of `Record`s over one file. It never raises for one bad record: it yields the record
with a `reason`. A file that breaks off gives its good records first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.errors import InputError

KINDS = ("web", "books", "wiki", "files")

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


@dataclass(frozen=True)
class SourceConfig:
    """One place that documents come from."""

    name: str = ""
    """The source's name in every table and report: web, book, wiki, or one of your own."""
    kind: str = "files"
    """How to read it: web (WARC, ARC, WET, HTML), books (Gutenberg text), wiki (MediaWiki XML) or files (JSONL, Parquet, Arrow, text)."""
    paths: list[str] = field(default_factory=list)
    """Files, folders (searched to the bottom) or globs."""
    license: str = ""
    """Licence that is recorded with each document."""
    preset: str = ""
    """Filter preset: web, books, wiki or permissive; empty takes the kind's own."""
    text_column: str = "text"
    """Column that holds the text (JSONL, Parquet, Arrow)."""
    uri_column: str = ""
    """Column that identifies a document (JSONL, Parquet, Arrow); empty: the file's path and the row number."""
    title_column: str = ""
    """Column that holds the title (JSONL, Parquet, Arrow)."""

    def validate(self, where: str = "sources") -> None:
        """Raise InputError, naming the field, when the source cannot be read as configured."""
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise InputError(
                f"{where}.name: {self.name!r} must be letters, digits, - and _; it names columns and files"
            )
        if self.kind not in KINDS:
            raise InputError(f"{where}.kind: {self.kind!r} is none of {', '.join(KINDS)} (source {self.name})")
        if not self.paths:
            raise InputError(f"{where}.paths: source {self.name} names no path; give files, folders or globs")


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
                and any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in PATTERNS[source.kind])
            ]
            if not files:
                patterns = " ".join(PATTERNS[source.kind])
                raise InputError(f"source {source.name}: no file for kind {source.kind} in {path} (looked for {patterns})")
        elif path.is_file():
            files = [path]
        elif any(mark in given for mark in "*?["):
            files = sorted(file for file in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))) if file.is_file())
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
