"""Every document of the real data, as a refresh would see it before the filters: read, extracted, cleaned."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from benchmarks.extraction import SCRAPINGHUB, TRAFILATURA, load_gold
from data_pipeline import clean, extract, language, staging
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.sources import Record, list_files, read_records

BATCH = 256
COLUMNS = ["uri", "lang", "text"]


def load(shared_data: Path, name: str) -> pa.Table:
    """The documents of one of COLLECTIONS: uri, lang, text; the ones that earlier steps remove are left out."""
    kind, records = COLLECTIONS[name]
    treatment = RefreshConfig().of(SourceConfig(name=name, kind=kind))
    found = list(records(shared_data))
    tables = []
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        table = staging.raw_table(batch, 0, SourceConfig(name=name, kind=kind), name)
        alive = table.filter(pa.array([not record.reason for record in batch])).drop_columns(["reason"])
        alive, _ = extract.extract(alive, treatment.extraction)
        alive = clean.clean(alive, treatment.clean)
        alive, _ = language.identify(alive, treatment.language)
        tables.append(alive.select(COLUMNS))
    return pa.concat_tables(tables)


def _files(kind: str, *places: str, shared_data: Path) -> Iterator[Record]:
    for place in places:
        source = SourceConfig(name="real", kind=kind, paths=[str(shared_data / place)])
        for path in list_files(source):
            yield from _readable(read_records(source, path))


def _readable(records: Iterable[Record]) -> Iterator[Record]:
    """The records of a file up to where it is damaged, as the real archives are here and there."""
    errors: list[str] = []
    yield from staging.guarded(iter(records), errors)


def _gold(name: str, shared_data: Path) -> Iterator[Record]:
    for page in load_gold(shared_data / "web" / "html_gold")[name]:
        yield Record(page.name, page.html, "html")


def _news(shared_data: Path) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(shared_data / "web" / "html" / "gne-chinese-news.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        yield from _files("web", ".", shared_data=Path(folder))


def _classics(shared_data: Path) -> Iterator[Record]:
    with tarfile.open(shared_data / "books" / "niutrans-guwen-A.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".txt"):
                file = archive.extractfile(member)
                assert file is not None
                yield Record(member.name, file.read().decode("utf-8"))


def _rows(*places: str, shared_data: Path) -> Iterator[Record]:
    for place in places:
        path = shared_data / "web" / "text" / place
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for number, line in enumerate(lines, start=1):
                yield Record(f"{place}:{number}", json.loads(line)["text"])


# {collection: (kind of source, records of it)}.
COLLECTIONS: dict[str, tuple[str, Callable[[Path], Iterator[Record]]]] = {
    "web archives": ("web", lambda data: _files("web", "web/warc", shared_data=data)),
    "scrapinghub": ("web", partial(_gold, SCRAPINGHUB)),
    "trafilatura": ("web", partial(_gold, TRAFILATURA)),
    "c4": ("files", lambda data: _rows("c4_demo.jsonl", shared_data=data)),
    "dolma": (
        "files",
        lambda data: _rows(
            "dolma-cc_en_head-0091.jsonl.gz", "dolma-cc_en_head-0174.jsonl.gz", shared_data=data
        ),
    ),
    "wiki": ("wiki", lambda data: _files("wiki", "wiki", shared_data=data)),
    "books": (
        "books",
        lambda data: _files(
            "books", "books/pg-en", "books/pg-en-b", "books/pg-fr", "books/pg-zh", shared_data=data
        ),
    ),
    "chinese news": ("web", _news),
    "chinese classics": ("files", _classics),
}
