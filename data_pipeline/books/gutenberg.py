"""A Gutenberg file's text: header, footer and transcriber's apparatus off, hard-wrapped lines joined."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_pipeline.books.apparatus import strip_apparatus, strip_emphasis, strip_front_matter
from data_pipeline.books.header import Stated, read_stated, split_parts
from data_pipeline.books.lines import join_lines

BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Book:
    """What a Gutenberg file holds; fields that the header does not state are empty."""

    text: str
    title: str = ""
    author: str = ""
    language: str = ""
    release_date: str = ""
    number: str = ""


def parse(content: str) -> Book:
    """Part header, body and footer of a file; a file without the marks is all body.

    Args:
        content: a text with line feeds as line ends, its lines wrapped or not.
    """
    return _parsed(content, wrapped=True)


def parse_unwrapped(content: str) -> Book:
    """The same for a text whose paragraphs are already one line each, such as that of an EPUB."""
    return _parsed(content, wrapped=False)


def _parsed(content: str, *, wrapped: bool) -> Book:
    parts = split_parts(content)
    stated = read_stated(parts.header) if parts.header else Stated()
    body = strip_apparatus(strip_front_matter(parts.body))
    text = strip_emphasis(join_lines(body) if wrapped else BLANK_LINES.sub("\n\n", body).strip("\n"))
    return Book(text, stated.title, stated.author, stated.language, stated.release_date, stated.number)
