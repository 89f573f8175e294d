"""Ten thousand damaged inputs of every kind: no hang, no crash, and every record a document or a reason."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline import staging
from data_pipeline.config import ExtractConfig, SourceConfig
from data_pipeline.extract import extract
from data_pipeline.schema import Verdict, split
from data_pipeline.sources import Record, read_records, split_file
from data_pipeline.sources.packed import zstd
from tests.data_pipeline.made_inputs import HTML, book, dump, page, prose, warc_records, write_warc
from tests.data_pipeline.test_book_archives import make_epub, xhtml

pytestmark = pytest.mark.slow

INPUTS_A_KIND = 1250
# Pieces of each format, put where they do not belong.
PIECES = [
    *(
        b"\x00",
        b"\xff\xfe",
        b"\r\n\r\n",
        b"WARC/1.0\r\n",
        b"Content-Length: 99999999999\r\n",
        b"\x1f\x8b\x08",
        b"PK\x03\x04",
    ),
    *(
        b"<page>",
        b"</page>",
        b"<text>",
        b"&lol;",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"{{",
        b"}}",
        b"[[",
        b"<ref",
        b"-{",
    ),
    *(
        b"<div>",
        b"</",
        b"<table><tr><td>",
        b"<script>",
        b"<!--",
        b"]]>",
        b'{"text": "',
        b'"}\n',
        b"[" * 50,
        b"BZh9",
    ),
    *(
        b"*** END OF THE PROJECT GUTENBERG EBOOK",
        b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n",
        b"\xc3",
        b"\xed\xa0\x80",
    ),
]


def samples(folder: Path) -> dict[str, tuple[SourceConfig, str, bytes]]:
    """A good input of each kind: (how it is read, its file name, its bytes)."""
    web, books, wiki, files = (
        SourceConfig(name=kind, kind=kind, paths=["x"]) for kind in ("web", "books", "wiki", "files")
    )
    responses = [(f"http://a.test/{i}", "200 OK", HTML, page(prose(i, 60))) for i in range(4)]
    plain = write_warc(folder / "a.warc", responses, gzip=False).read_bytes()
    packed = write_warc(folder / "b.warc.gz", responses).read_bytes()
    xml = dump(
        [(f"P{i}", f"'''P{i}''' {{{{convert|{i}|m|ft}}}} [[a|b]] {prose(i, 40)}") for i in range(4)]
    ).encode()
    epub = make_epub(folder / "a.epub", {"a.xhtml": xhtml(f"<h1>One</h1><p>{prose(1, 80)}</p>")}).read_bytes()
    lines = "\n".join(json.dumps({"text": prose(i, 30)}) for i in range(5)).encode()
    return {
        "warc": (web, "x.warc", plain),
        "warc.gz": (web, "x.warc.gz", packed),
        "html": (web, "x.html", page(prose(3, 80))),
        "xml": (wiki, "x.xml", xml),
        "xml.bz2": (
            wiki,
            "x.xml.bz2",
            bz2.compress(xml[: len(xml) // 2]) + bz2.compress(xml[len(xml) // 2 :]),
        ),
        "epub": (books, "x.epub", epub),
        "txt": (books, "x.txt", book("\n\n".join(prose(i, 60) for i in range(4))).encode()),
        "jsonl": (files, "x.jsonl", lines),
        "warc.zst": (web, "x.warc.zst", b"".join(map(zstd.compress, warc_records(folder / "a.warc")))),
        "jsonl.gz": (files, "x.jsonl.gz", b"".join(map(gzip.compress, lines.splitlines(True)))),
        "jsonl.zst": (files, "x.jsonl.zst", b"".join(map(zstd.compress, lines.splitlines(True)))),
        "jsonl.bz2": (files, "x.jsonl.bz2", b"".join(map(bz2.compress, lines.splitlines(True)))),
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes flipped, cut out, doubled, moved or put in."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(data) + 1)
        stop = min(len(data), start + chance.randint(1, 200))
        what = chance.randrange(6)
        if what == 0 and data:
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif what == 1:
            del data[start:stop]
        elif what == 2:
            data[start:start] = data[start:stop] * chance.randint(1, 4)
        elif what == 3:
            data[start:start] = chance.choice(PIECES) * chance.randint(1, 3)
        elif what == 4:
            data[start:] = b""
        else:
            piece = bytes(data[start:stop])
            del data[start:stop]
            place = chance.randrange(len(data) + 1)
            data[place:place] = piece
    return bytes(data)


def inputs(content: bytes, kind: str) -> Iterator[bytes]:
    chance = random.Random(kind)
    # Packed ones hold what the others do: fewer will do for the packing.
    for _ in range(INPUTS_A_KIND // (5 if kind in PACKED else 1)):
        yield mutated(content, chance)


KINDS = ["warc", "warc.gz", "html", "xml", "xml.bz2", "epub", "txt", "jsonl"]
PACKED = ["warc.zst", "jsonl.gz", "jsonl.zst", "jsonl.bz2"]


@pytest.mark.parametrize("kind", KINDS + PACKED)
def test_a_damaged_input_is_read_in_time_and_accounted_for(tmp_path: Path, kind: str) -> None:
    source, name, content = samples(tmp_path)[kind]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    num_documents = 0
    for number, damaged in enumerate(inputs(content, kind)):
        if kind == "epub" and number % 2:
            # A zip checks its members, so damage to the package as a whole goes no deeper.
            markup = mutated(xhtml(f"<h1>One</h1><p>{prose(1, 80)}</p>").encode(), random.Random(number))
            make_epub(path, {"a.xhtml": markup.decode("latin-1")})
        else:
            path.write_bytes(damaged)
        began = time.process_time()
        errors: list[str] = []
        records: list[Record] = []
        for span in split_file(source, path, 300 if number % 2 else 1 << 30):
            broken: list[str] = []
            records += staging.guarded(read_records(source, path, span), broken)
            errors += broken
        table = staging.raw_table(records, 0, source, name)
        verdicts = [Verdict(record.reason) if record.reason else None for record in records]
        alive, unread = split(table.drop_columns(["reason"]), "read", verdicts)
        kept, empty = extract(alive, ExtractConfig())
        assert time.process_time() - began < 10, number
        assert kept.num_rows + empty.num_rows + unread.num_rows == len(records), number
        assert all(reason for reason in (*unread["reason"].to_pylist(), *empty["reason"].to_pylist())), number
        assert bool(errors) == any(record.reason == "damaged_file" for record in records), number
        assert records or "jsonl" in kind or not errors, number
        num_documents += kept.num_rows
    # The damage leaves the rest readable; of so small a packed file little is left.
    assert num_documents > (number + 1) // (20 if kind == "xml.bz2" else 4)
