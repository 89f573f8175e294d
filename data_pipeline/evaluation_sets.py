"""Texts of evaluation sets, from whatever files they come in: JSON, JSON lines, CSV, TSV, Parquet, text, zip of these.

Every string of a record counts as a text of its own: question, passage, options. A set that cannot be read, or has no
text long enough to be recognised, is an error: protection that does nothing must not pass for protection.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.config import set_name
from data_pipeline.errors import InputError

ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".lst", ".parquet")
# Fields longer than csv's default of 128 KiB are passages.
csv.field_size_limit(1 << 30)


def find_sets(given: list[str], folder: Path | None = None) -> dict[str, list[Path]]:
    """{name of a set: its files}.

    Args:
        given: NAME=PATH or PATH, which names the set after itself; a folder is one set of all files in it.
        folder: each file and folder in it is a set, too; it need not exist.

    Raises:
        InputError: a path that does not exist or holds no file of a known kind, or a name given twice.
    """
    places = [
        (set_name(place), Path(place.removeprefix(f"{set_name(place)}=")).expanduser()) for place in given
    ]
    if folder is not None and folder.is_dir():
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        places += [(set_name(str(path)), path) for path in entries]
    sets: dict[str, list[Path]] = {}
    for name, path in places:
        if not path.exists():
            raise InputError(
                f"decontamination.sets: {path} does not exist; give a file or folder of evaluation data"
            )
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_known(file.name))
        if not files or not all(_is_known(file.name) for file in files):
            raise InputError(
                f"decontamination.sets: {path} is no evaluation set; known are {', '.join(ENDINGS)}, zip, gz"
            )
        if sets.get(name, files) != files:
            raise InputError(f"decontamination.sets: two sets are called {name}; name them with NAME=PATH")
        sets[name] = files
    return sets


def _is_known(name: str) -> bool:
    return name.lower().removesuffix(".gz").endswith((*ENDINGS, ".zip"))


def read_texts(path: Path) -> Iterator[str]:
    """All strings of an evaluation file.

    Raises:
        InputError: it cannot be read to its end.
    """
    try:
        content = path.read_bytes()
        yield from _texts(path.name.lower(), content)
    except (OSError, EOFError, ValueError, csv.Error, zipfile.BadZipFile, pa.ArrowException) as error:
        line = " ".join(str(error).split())[:150]
        raise InputError(f"decontamination.sets: {path} cannot be read ({line}); mend or leave out") from None


def _texts(name: str, content: bytes) -> Iterator[str]:
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in sorted(archive.namelist()):
                # Of what a Mac adds, and of licences and readmes in other formats, nothing is asked.
                if _is_known(member) and not member.startswith("__MACOSX"):
                    yield from _texts(member.lower(), archive.read(member))
    elif name.endswith(".gz"):
        yield from _texts(name.removesuffix(".gz"), gzip.decompress(content))
    elif name.endswith(".parquet"):
        for row in pq.read_table(io.BytesIO(content)).to_pylist():
            yield from _strings(row)
    else:
        yield from _plain_texts(name, content.decode("utf-8-sig"))


def _plain_texts(name: str, text: str) -> Iterator[str]:
    if name.endswith(".jsonl"):
        for line in text.splitlines():
            if line.strip():
                yield from _strings(json.loads(line))
    elif name.endswith(".json"):
        yield from _json(text)
    elif name.endswith(".csv"):
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            yield from row
    elif name.endswith(".tsv"):
        # Quotes mean nothing in these.
        yield from (field for line in text.splitlines() for field in line.split("\t"))
    else:
        yield from text.splitlines()


def _json(text: str) -> Iterator[str]:
    try:
        yield from _strings(json.loads(text))
    except json.JSONDecodeError:
        # Many a .json is JSON lines.
        for line in text.splitlines():
            if line.strip():
                yield from _strings(json.loads(line))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in value:
            yield from _strings(value[key])
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
