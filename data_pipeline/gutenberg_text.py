"""A Gutenberg file's text: header and footer off, hard-wrapped lines joined, verse left as it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A long title wraps, so the mark may close on a later line.
START = re.compile(
    r"^[ \t]*\*{3}\s*START OF (?:THE|THIS) PROJECT GUTENBERG(?:[^\n]*|[^*]{0,300})\*{3}[^\n]*$", re.I | re.M
)
START_OLD = re.compile(r"^[^\n]{0,20}\*END\*?\s*THE SMALL PRINT[^\n]*$", re.I | re.M)
END = re.compile(
    r"^[ \t]*(?:\*{3}\s*END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the |this )?Project Gutenberg)[^\n]*$",
    re.I | re.M,
)
FIELD = re.compile(
    r"^(Title|Author|Language|Release date|Posting date)[ \t]*:[ \t]*([^\n]{1,300})$", re.I | re.M
)
PRODUCED = re.compile(
    r"\A\s*(?:Produced by|E-text prepared by|This etext was)[^\n]*(?:\n[^\n]+)*\n\s*\n", re.I
)
ILLUSTRATION = re.compile(r"^[ \t]*\[Illustration[^\]\n]{0,500}\][ \t]*$", re.I | re.M)
ITALICS = re.compile(r"(?<![^\W_])_([^_\n]{1,200}(?:\n[^_\n]{1,200})?)_(?![^\W_])")
CHAPTER = re.compile(r"^(?:CHAPTER|BOOK|PART|VOLUME|ACT|SCENE|LETTER)\b", re.I)


@dataclass(frozen=True)
class Book:
    """What a Gutenberg file holds; fields that the header does not state are empty."""

    text: str
    title: str = ""
    author: str = ""
    language: str = ""
    release_date: str = ""


def parse(content: str) -> Book:
    """Part header, body and footer of a file; a file without the marks is all body."""
    start = START.search(content) or START_OLD.search(content)
    end = next(
        (match for match in END.finditer(content) if start is None or match.start() > start.end()), None
    )
    header = content[: start.start()] if start else content[:3000]
    fields = {name.lower(): value.strip() for name, value in FIELD.findall(header)} if start else {}
    body = content[start.end() if start else 0 : end.start() if end else len(content)]
    return Book(
        text=join_lines(ILLUSTRATION.sub("", PRODUCED.sub("", body))),
        title=fields.get("title", ""),
        author=fields.get("author", ""),
        language=fields.get("language", ""),
        release_date=fields.get("release date", fields.get("posting date", "")).split("[")[0].strip(),
    )


def join_lines(body: str) -> str:
    """Join hard-wrapped lines into paragraphs, one line each, a blank line between.

    A block keeps its lines where they are no wrapped prose: verse and tables (lines indented, or most of
    them far shorter than the longest the book allows), headings and single lines.
    """
    blocks = [block.split("\n") for block in re.split(r"\n[ \t]*\n+", body.strip("\n"))]
    lengths = sorted(len(line) for block in blocks if len(block) > 2 for line in block[:-1])
    full = lengths[int(len(lengths) * 0.9)] if lengths else 0
    paragraphs = []
    for block in blocks:
        lines = [line.rstrip() for line in block if line.strip()]
        if not lines:
            continue
        if len(lines) == 1 or not _is_prose(lines, full):
            paragraphs.append("\n".join(lines))
        else:
            paragraphs.append(_join([line.strip() for line in lines]))
    return ITALICS.sub(r"\1", "\n\n".join(paragraphs)).strip()


def _is_prose(lines: list[str], full: int) -> bool:
    indented = sum(line.startswith("  ") for line in lines[1:])
    if indented > len(lines) // 2 or CHAPTER.match(lines[0]):
        return False
    # In wrapped prose each line but the last is near the wrap width.
    near_full = sum(len(line) >= 0.75 * full for line in lines[:-1])
    return near_full >= 0.6 * (len(lines) - 1)


def _join(lines: list[str]) -> str:
    # Han text is wrapped without spaces; everything else gets one back.
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])", "", " ".join(lines))
