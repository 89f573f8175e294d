"""Input files as the tests need them: web archives, wiki dumps, books, and English that no filter minds."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
from fastwarc.warc import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipeline import schema
from data_pipeline.corpus import Corpus
from data_pipeline.staging import doc_id
from data_pipeline.text_hash import text_hash

VOCABULARY = [
    "the",
    "a",
    "one",
    "this",
    "that",
    "every",
    "some",
    "river",
    "mountain",
    "village",
    "teacher",
    "farmer",
    "ship",
    "harbour",
    "letter",
    "window",
    "garden",
    "evening",
    "morning",
    "winter",
    "summer",
    "story",
    "question",
    "answer",
    "road",
    "bridge",
    "market",
    "kitchen",
    "table",
    "candle",
    "soldier",
    "doctor",
    "child",
    "mother",
    "brother",
    "friend",
    "stranger",
    "island",
    "forest",
    "field",
    "horse",
    "bird",
    "stone",
    "water",
    "bread",
    "silver",
    "paper",
    "music",
    "voice",
    "hand",
    "heart",
    "memory",
    "promise",
    "journey",
    "storm",
    "light",
    "shadow",
    "walked",
    "carried",
    "found",
    "wrote",
    "remembered",
    "watched",
    "opened",
    "crossed",
    "followed",
    "answered",
    "waited",
    "built",
    "painted",
    "asked",
    "gave",
    "kept",
    "lost",
    "heard",
    "told",
    "began",
    "finished",
    "slowly",
    "quietly",
    "early",
    "often",
    "never",
    "always",
    "together",
    "again",
    "almost",
    "under",
    "over",
    "through",
    "beside",
    "between",
    "after",
    "before",
    "with",
    "without",
    "toward",
    "old",
    "young",
    "small",
    "great",
    "cold",
    "warm",
    "bright",
    "dark",
    "empty",
    "narrow",
    "famous",
    "patient",
    "honest",
    "careful",
]


def prose(seed: int, num_words: int = 160) -> str:
    """English-looking text; two seeds share hardly a run of five words."""
    rng = random.Random(seed)
    sentences = []
    while num_words > 0:
        length = min(num_words, rng.randint(7, 14))
        num_words -= length
        words = [rng.choice(VOCABULARY) for _ in range(length)]
        # English has its small words, and the rules for web pages look for them.
        words[2:4] = ["with", "the"][: max(0, length - 2)]
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences)


def reworded(text: str, num_changes: int, seed: int = 0) -> str:
    """The text with single words replaced, evenly spread; each change alters up to five shingles."""
    words = text.split(" ")
    for index in range(num_changes):
        words[(index + 1) * len(words) // (num_changes + 1)] = f"changed{seed}x{index}"
    return " ".join(words)


def page(text: str, title: str = "A page") -> bytes:
    """An HTML page whose main text is the given one."""
    paragraphs = "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{escape(title)}</title></head>"
        f"<body><article><h1>{escape(title)}</h1>{paragraphs}</article></body></html>"
    ).encode()


def write_warc(
    path: Path,
    responses: Iterable[tuple[str, str, Sequence[tuple[str, str]], bytes]],
    gzip: bool = True,
) -> Path:
    """A WARC of (uri, status line, HTTP headers, body as it was sent)."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=gzip)
        writer.write_record(writer.create_warcinfo_record(path.name, {"software": "a test"}))
        for uri, status, headers, body in responses:
            writer.write_record(
                writer.create_warc_record(
                    uri,
                    "response",
                    payload=io.BytesIO(body),
                    http_headers=StatusAndHeaders(status, list(headers), protocol="HTTP/1.1"),
                    warc_headers_dict={"WARC-Date": "2024-05-06T07:08:09Z"},
                )
            )
    return path


HTML = [("Content-Type", "text/html; charset=utf-8")]


def warc_records(plain: Path) -> list[bytes]:
    """The records of an archive that is not packed."""
    content = plain.read_bytes()
    with plain.open("rb") as file:
        starts = [record.stream_pos for record in ArchiveIterator(file, parse_http=False)]
    return [content[start:stop] for start, stop in zip(starts, [*starts[1:], len(content)], strict=True)]


def write_pages(path: Path, texts: Iterable[str], host: str = "pages.test") -> Path:
    """A WARC of good pages, one a text."""
    return write_warc(
        path,
        [
            (f"http://{host}/{number}", "200 OK", HTML, page(text, f"Page {number}"))
            for number, text in enumerate(texts)
        ],
    )


def dump(pages: Iterable[tuple[str, str]]) -> str:
    """A MediaWiki XML export of (title, wikitext)."""
    body = "".join(
        f"<page><title>{escape(title)}</title><ns>0</ns><revision><timestamp>2024-01-02T03:04:05Z</timestamp>"
        f"<text>{escape(text)}</text></revision></page>"
        for title, text in pages
    )
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en">'
        f"<siteinfo><base>https://wiki.test/wiki/Main_Page</base></siteinfo>{body}</mediawiki>"
    )


def book(text: str, title: str = "A Book", author: str = "Some One") -> str:
    """A Project Gutenberg file."""
    mark = f"PROJECT GUTENBERG EBOOK {title.upper()}"
    return (
        f"The Project Gutenberg eBook of {title}\n\nTitle: {title}\n\nAuthor: {author}\n\n"
        f"Release date: March 1, 2004 [eBook #11]\n\nLanguage: English\n\n"
        f"*** START OF THE {mark} ***\n\n\n{text}\n\n\n*** END OF THE {mark} ***\n\nThe licence follows.\n"
    )


def make_corpus(
    root: Path,
    texts: Sequence[str],
    num_files: int = 1,
    source: str = "web",
    weights: Mapping[str, float] | None = None,
) -> Corpus:
    """A corpus of one version that keeps the given texts, its documents spread over a number of files."""
    corpus = Corpus(root)
    corpus.prepare()
    rows = [
        {
            "doc_id": doc_id(source, str(number), text),
            "source": source if number % 3 else "book",
            "uri": str(number),
            "text": text,
            "num_chars": len(text),
            "text_hash": text_hash(text),
            "version": 1,
        }
        for number, text in enumerate(texts)
    ]
    files = []
    for number in range(num_files):
        table = pa.Table.from_pylist(rows[number::num_files], schema=schema.DOCUMENTS)
        files.append(corpus.write_file("documents", table, f"part-{number}.parquet"))
    config = {"sources": [{"name": name, "weight": weight} for name, weight in (weights or {}).items()]}
    version = {
        "version": 1,
        "config_hash": "0" * 64,
        "created_at": "2024-01-01T00:00:00+00:00",
        "config": json.dumps(config),
    }
    corpus.commit(files, inputs_of(rows), version)
    return corpus


def inputs_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of corpus/inputs, one a source, for a commit of the given documents, kept and removed."""
    counts = Counter(row["source"] for row in rows)
    inputs = [{"path": source, "source": source, "num_documents": count} for source, count in counts.items()]
    return pa.Table.from_pylist(inputs, schema=schema.INPUTS)
