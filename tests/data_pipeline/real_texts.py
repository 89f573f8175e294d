"""Texts of the real data as they come before cleaning, the longest cut: for comparisons over all of it."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.extraction import load_gold
from data_pipeline.clean import storable
from data_pipeline.config import SourceConfig
from data_pipeline.sources import list_files, read_records
from data_pipeline.staging import guarded

MAX_CHARS = 8_000


@cache
def real_texts(shared_data: Path) -> tuple[str, ...]:
    """Web pages with their markup, web texts, wikitext, books, Chinese news and classics; read once a session."""
    return tuple(storable(text[:MAX_CHARS]) for text in _texts(shared_data) if text)


def _texts(shared_data: Path) -> Iterator[str]:
    for group in load_gold(shared_data / "web" / "html_gold").values():
        for page in group:
            yield page.html
    for kind, place in (("web", "web/warc"), ("wiki", "wiki")):
        source = SourceConfig(name=kind, kind=kind, paths=[str(shared_data / place)])
        for path in list_files(source):
            yield from (record.content for record in guarded(read_records(source, path), []))
    for path in sorted((shared_data / "web" / "text").iterdir()):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            yield from (json.loads(line)["text"] for line in lines)
    for path in sorted((shared_data / "books").glob("*/*.txt")):
        yield path.read_text(encoding="utf-8", errors="replace")
    for place in ("web/html/gne-chinese-news.tar.gz", "books/niutrans-guwen-A.tar.gz"):
        with tarfile.open(shared_data / place) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and member.name.endswith((".html", ".txt")):
                    yield file.read().decode("utf-8", "replace")
