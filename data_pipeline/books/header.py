"""Where a Project Gutenberg file's own text begins and ends, and what its header states.

Marks changed over thirty years: the small print stood before the book (until about 2002), after it (2002 to
2003), and since then a "*** START OF" and a "*** END OF" line stand around it. A mark counts only where the
text on its outer side is licence text, so that a mark quoted inside a book never cuts the book.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

# A header or a licence has at most about 25,000 characters; marks farther inside are part of the work.
ZONE = 40_000
# Licence text speaks of itself at least this often (the longest silence in the known licences is 1,900).
SILENCE = 2_500

LINE = r"^[ \t]*"
START = re.compile(
    LINE
    + r"\*{2,5}[ \t]*(?:START|BEGINN?|D[EÉ]BUT|COMIENZO|INIZIO|INÍCIO)\b[^*\n]{0,60}GUTENBERG"
    + r"(?:[^*\n]{0,300}(?:\n(?!\s*\n)[^*\n]{0,300}){0,3}\*{2,5})?[^\n]*$",
    re.I | re.M,
)
START_OLD = re.compile(r"^[^\n]{0,30}\bEND\b\*{0,3}[ \t]*THE SMALL PRINT[^\n]*$", re.I | re.M)
# What the new mark is followed by in files that kept their old header.
OLD_TITLE = re.compile(
    r"\A\s*The Project Gutenberg E-?(?:text|book)[^\n]*(?:\n[^\n]+){0,4}\n(?:\s*\*+[ \t]*\n)?", re.I
)
END = re.compile(
    LINE
    + r"(?:\*{2,5}[ \t]*(?:END|ENDE|FIN|FINE|FIM)\b[^*\n]{0,60}GUTENBERG"
    + r"|(?:End of|Ende|Fin|Fine|Fim)\b[^\n]{0,20}\bProje[ck]?[ct]?t?o? Gutenberg"
    + r"|\*{2,5}[ \t]*START: FULL LICENSE"
    + r"|\*{0,3}(?:START)?\*{0,3}[ \t]*THE SMALL PRINT!"
    + r"|\**This file should be named \S+\.(?:txt|zip)"
    + r"|Project Gutenberg (?:eBooks|Etexts) are often created from"
    + r"|The Project Gutenberg E-?(?:text|book) of\b)",
    re.I | re.M,
)
LICENCE = re.compile(
    r"Proje[ck]t Gutenberg|gutenberg\.(?:org|net)|small print|Michael S?\.? ?Hart|501\(c\)\(3\)|pglaf"
    r"|promo\.net|\bE-?texts?\b|\bEBOOKs?\b|public domain|donations?\b|hart@|the Foundation\b|trademark"
    r"|electronic works?\b|refund|warrant(?:y|ies)\b|this agreement|indemnity|copyright (?:laws?|status)",
    re.I,
)
# Words that a licence has and a book has not, so that a footer without a mark is known.
SURE_LICENCE = re.compile(r"Project Gutenberg|gutenberg\.(?:org|net)|small print!|promo\.net/pg", re.I)
HEADERISH = re.compile(
    r"Project Gutenberg|^Title:|^Author:|^Release Date|^Language:|^Character set encoding|gutenberg\.(?:org|net)",
    re.I | re.M,
)
FIELD_NAMES = (
    "Title|Author|Authors|Editor|Translator|Translators|Illustrator|Compiler|Contributor|Commentator|Release date|"
    "Posting date|First posted|Last updated|Most recently updated|Edition|Language|Credits|Original publication|"
    "Character set encoding|Produced by|Subtitle"
)
HEADER_VOICE = re.compile(
    rf"Project Gutenberg|gutenberg\.(?:org|net)|small print!|promo\.net/pg|^(?:{FIELD_NAMES})[ \t]*:",
    re.I | re.M,
)
FIELD = re.compile(rf"^(?:.{{0,60}}\.org)?({FIELD_NAMES})[ \t]*:[ \t]*([^\n]{{0,400}})", re.I)
NUMBER = re.compile(r"\[\s{0,3}E-?(?:text|book)[ \t]{0,3}(?:#|No\.?)[ \t]{0,3}(\d{1,6})\s{0,3}\]", re.I)
NAMED = re.compile(r"should be named (\d{1,6})(?:-\w{1,2})?\.(?:txt|zip|htm)", re.I)
FIRST_LINE = re.compile(
    r"\A[\s*]{0,80}(?:The )?Project Gutenberg(?:[’']s|(?:[’']s)? E-?(?:text|book),?(?: of)?)[ \t]+"
    r"(?P<title>[^\n]{1,200}(?:\n[^\n]{1,200})?),?\s+by[ \t]+(?P<author>[^\n]{1,100})",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A file in three: what stands before the work, the work, what stands after it."""

    header: str
    body: str
    footer: str


@dataclass(frozen=True, slots=True)
class Stated:
    """What a header states; "" for what it does not."""

    title: str = ""
    author: str = ""
    language: str = ""
    release_date: str = ""
    number: str = ""


def split_parts(content: str) -> Parts:
    """Part header, work and footer; a file without the marks is all work.

    Args:
        content: a text with line feeds as line ends.
    """
    start = _work_begins(content)
    end = _work_ends(content, start)
    return Parts(content[:start], content[start:end], content[end:])


def _work_begins(content: str) -> int:
    zone = content[:ZONE]
    begins = 0
    mark = START.search(zone)
    if mark and _is_header(zone[: mark.start()]):
        begins = mark.end()
    # The small print before the book ends after any other mark; after the book it is no start.
    for old in START_OLD.finditer(zone, begins):
        before = zone[begins : old.start()]
        if (not begins and _is_header(before)) or (begins and _speaks_throughout(before)):
            begins = old.end()
    if not begins:
        return _unmarked_header(zone)
    title = OLD_TITLE.match(content[begins : begins + 2_000])
    return begins + (title.end() if title else 0)


def _unmarked_header(zone: str) -> int:
    """Where a header ends whose mark is lost: after the paragraph of its last sure word or field; else 0."""
    voices = list(HEADER_VOICE.finditer(zone))
    if len(voices) < 2 or SURE_LICENCE.search(zone[:120]) is None:
        return 0
    last = 0
    for voice in voices:
        if voice.start() - last > SILENCE // 2:
            break
        last = voice.end()
    paragraph_ends = zone.find("\n\n", last)
    return paragraph_ends if paragraph_ends >= 0 else len(zone)


def _is_header(before: str) -> bool:
    return len(before) < 300 or HEADERISH.search(before[:5_000]) is not None


def _work_ends(content: str, start: int) -> int:
    zone_starts = max(start, len(content) - ZONE)
    zone = content[zone_starts:]
    voices = [match.start() for match in LICENCE.finditer(zone)]
    # `speaks_from`: from there to the end of the file no silence is too long for a licence.
    speaks_from = len(zone)
    for voice in reversed(voices):
        if speaks_from - voice > SILENCE:
            break
        speaks_from = voice
    for mark in END.finditer(zone):
        if mark.end() >= speaks_from or len(zone) - mark.end() < 500:
            return zone_starts + mark.start()
    return zone_starts + _unmarked_licence(zone, speaks_from)


def _speaks_throughout(text: str) -> bool:
    edges = [0, *(match.start() for match in LICENCE.finditer(text)), len(text)]
    return all(after - before <= SILENCE for before, after in itertools.pairwise(edges))


def _unmarked_licence(zone: str, speaks_from: int) -> int:
    """Where a licence begins that no mark announces: at the paragraph of its first sure word; else the end."""
    sure = [match.start() for match in SURE_LICENCE.finditer(zone, speaks_from)]
    if len(sure) < 5:
        return len(zone)
    return max(zone.rfind("\n\n", 0, sure[0]), 0)


def read_stated(header: str) -> Stated:
    """What the header states, from its fields or, where it has none, from its first line."""
    fields = _fields(header)
    number = NUMBER.search(header) or NAMED.search(header)
    first = FIRST_LINE.match(header.lstrip("\ufeff"))
    title = fields.get("title", "") or (_one_line(first["title"]).rstrip(",") if first else "")
    author = fields.get("author", "") or fields.get("authors", "") or (first["author"] if first else "")
    date = fields.get("release date", "") or fields.get("posting date", "")
    return Stated(
        title=title,
        author=author.strip(),
        language=fields.get("language", ""),
        release_date=date.split("[")[0].strip(),
        number=number.group(1) if number else "",
    )


def _fields(header: str) -> dict[str, str]:
    """Fields by lower-case name; the first of a name counts, its indented continuation lines with it."""
    fields: dict[str, str] = {}
    open_field = ""
    for line in header.split("\n"):
        match = FIELD.match(line.lstrip("\ufeff"))
        if match:
            name = match.group(1).lower()
            open_field = "" if name in fields else name
            if open_field:
                fields[name] = match.group(2).strip()
        elif open_field and line[:1] in " \t" and line.strip() and not _is_update(line):
            if len(fields[open_field]) < 1_000:
                fields[open_field] = _continued(open_field, fields[open_field], line.strip())
        else:
            open_field = ""
    return fields


def _is_update(line: str) -> bool:
    return line.strip().lower().startswith("most recently updated")


def _continued(name: str, value: str, line: str) -> str:
    """The value with its next line: one more person of an author, the subtitle of a title, or a wrapped line."""
    if name in ("author", "authors"):
        return f"{value}, {line}"
    subtitle = name == "title" and ": " not in value and value[-1:].isalnum() and line[0].isupper()
    return f"{value}: {line}" if subtitle else f"{value} {line}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
