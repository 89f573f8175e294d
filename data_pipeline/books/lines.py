"""Hard-wrapped lines of a book become paragraphs; verse, tables, lists and headings keep their lines.

A line break of wrapped prose was forced: the first word of the next line had no room left. The breaks of verse,
tables and headings were chosen: it had. Han text breaks anywhere, so there a forced break ends a full line.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

BLANK = re.compile(r"\n[ \t\u3000]*(?=\n)")
BLOCKS = re.compile(r"\n{2,}")
CHAPTER = re.compile(r"^(?:CHAPTER|BOOK|PART|VOLUME|ACT|SCENE|LETTER|STAVE|CANTO|SECTION)\b", re.I)
HAN = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
# Between the columns of a table or before the page number of a contents list.
COLUMN_SIGNS = ("   ", "\t", "|", ".....", ". . . .", "=====", "-----")
# Widths between which books were wrapped by hand or machine.
NARROWEST, WIDEST = 40, 120
# Those who wrapped by hand left a few columns, and one line in a block may be too long.
SLACK = 5
# A line of Han text is full from here on: quotation marks count as one column or two, and may not begin a line.
FULL_RATIO = 0.85
CONJUNCTIONS = frozenset(("and", "or", "to", "und", "oder", "et", "ou"))
INDENT = " \t\u3000"
OPENING = "\"'_([\u201c\u2018\u2014- "
HYPHENS = "-\u2010\u2014"


def join_lines(body: str) -> str:
    """Paragraphs of a book, one line each, a blank line between; other blocks keep their lines.

    Args:
        body: a text with line feeds as line ends.
    """
    # Most books have no Han text, and counting its columns takes time.
    measure = columns if HAN.search(body) else len
    blocks = [
        [line.rstrip() for line in block.split("\n") if line.strip()]
        for block in BLOCKS.split(BLANK.sub("\n", body.strip("\n")))
    ]
    blocks = [lines for lines in blocks if lines]
    full = wrap_width(blocks, measure)
    han = [measure is columns and _is_han(lines) for lines in blocks]
    han_full = full if _are_full(itertools.compress(blocks, han), full) else 0
    joined = (
        _joined_han(lines, han_full) if is_han else _joined(lines, full)
        for lines, is_han in zip(blocks, han, strict=True)
    )
    return "\n\n".join(joined).strip("\n")


def columns(line: str) -> int:
    """Columns on a screen: a Han character takes two."""
    return len(line) if line.isascii() else len(line) + len(HAN.findall(line))


def wrap_width(blocks: Sequence[Sequence[str]], measure: Callable[[str], int] = columns) -> int:
    """The width that the book's prose was wrapped at, in columns; 0 for a book that was not."""
    widths = Counter(measure(line) for lines in blocks if len(lines) > 2 for line in lines[:-1])
    # The widest few per cent are tables and slips.
    seen, total = 0, widths.total()
    for width in sorted(widths, reverse=True):
        seen += widths[width]
        if seen >= 0.05 * total:
            return width if NARROWEST <= width <= WIDEST else 0
    return 0


def _are_full(blocks: Iterable[Sequence[str]], full: int) -> bool:
    """Whether enough lines end near the wrap width; in a text with one sentence a line they do not."""
    widths = [columns(line) for lines in blocks for line in lines[:-1]]
    return full > 0 and sum(width >= FULL_RATIO * full for width in widths) > 0.3 * len(widths)


def _is_han(lines: Sequence[str]) -> bool:
    return 2 * sum(len(HAN.findall(line)) for line in lines) > sum(len(line.strip(INDENT)) for line in lines)


def _joined(lines: list[str], full: int) -> str:
    if len(lines) == 1:
        return lines[0].strip(INDENT)
    indent, lines = _dedented(lines)
    if _is_centred(lines):
        return "\n".join(line.strip() for line in lines)
    if full == 0 or _is_table(lines) or (CHAPTER.match(lines[0]) and 2 * len(lines[0]) < full):
        return "\n".join(lines)
    # A quotation is often set in from both sides.
    room = full - 2 * indent if 4 * indent < full else full
    parts = _indented_paragraphs(lines)
    if _few_are_single(parts) and all(_is_prose(part, room) for part in parts if len(part) > 1):
        return "\n\n".join(_as_one([line.strip() for line in part], full) for part in parts)
    return "\n".join(lines)


def _is_table(lines: list[str]) -> bool:
    block = "\n".join(line.strip() for line in lines)
    signs = [sign for sign in COLUMN_SIGNS if sign in block]
    return (
        bool(signs)
        and sum(any(sign in line for sign in signs) for line in block.split("\n")) > len(lines) // 2
    )


def _dedented(lines: list[str]) -> tuple[int, list[str]]:
    """The columns that all lines are set in by, and the lines without them; a hanging indent goes as well."""
    lines = [line.expandtabs(8) if "\t" in line else line for line in lines]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    least = min(indents)
    hangs = len(lines) > 2 and indents[0] == least and len(set(indents[1:])) == 1
    rest = indents[1] if hangs else least
    return least, [lines[0][least:], *(line[rest:] for line in lines[1:])]


def _is_centred(lines: list[str]) -> bool:
    """Whether the lines have one middle, and their ends none: a title page, a heading, an inscription."""
    if all(line[0] != " " for line in lines):
        return False
    middles = [len(line) + len(line) - len(line.lstrip()) for line in lines]
    return max(middles) - min(middles) <= 4 and len({len(line) for line in lines}) > 1


def _indented_paragraphs(lines: list[str]) -> list[list[str]]:
    """The block's paragraphs where only the first line of each is indented; else the block as one."""
    starts = [number for number, line in enumerate(lines) if line.startswith("  ")]
    if not starts or 2 * len(starts) > len(lines) or _are_capitals(lines):
        return [lines]
    bounds = sorted({0, *starts, len(lines)})
    return [lines[start:stop] for start, stop in itertools.pairwise(bounds)]


def _are_capitals(lines: list[str]) -> bool:
    """Whether the lines that are not indented begin with capitals: verse, its long lines continued."""
    flush = [line for line in lines[1:] if not line.startswith("  ")]
    return 2 * _count_capitals(flush) > len(flush)


def _count_capitals(lines: list[str]) -> int:
    return sum(line.lstrip(OPENING)[:1].isupper() for line in lines)


def _few_are_single(parts: list[list[str]]) -> bool:
    return len(parts) == 1 or sum(len(part) == 1 for part in parts) <= len(parts) // 2


def _is_prose(lines: list[str], room: int) -> bool:
    """Whether the breaks between the lines were forced, or the lines nearly full and no verse.

    Args:
        room: columns that a line of this block may have.
    """
    breaks = len(lines) - 1
    if 2 * sum(line.startswith("  ") for line in lines[1:]) > breaks:
        return False
    width = max(max(map(len, lines)), int(0.8 * room)) - SLACK
    forced = sum(
        len(line) + 1 + len(after.split(maxsplit=1)[0]) > width for line, after in itertools.pairwise(lines)
    )
    # Verse begins its lines with capitals, and a long line of it may fill the page by chance.
    capitals = _count_capitals(lines[1:])
    if breaks >= 2 and capitals >= 0.8 * breaks:
        return forced == breaks and (breaks <= 3 or min(map(len, lines[:-1])) >= 0.85 * room)
    if capitals < 0.5 * breaks and sum(len(line) >= 0.72 * room for line in lines[:-1]) >= 0.8 * breaks:
        return True
    return forced >= 0.6 * breaks


def _as_one(lines: list[str], full: int) -> str:
    """The lines as one, a space between, but none after a hyphen or a dash that holds two words together.

    A line of half the width or less ends as it does: a heading, a salutation, a rule.
    """
    pieces = [lines[0]]
    for before, line in itertools.pairwise(lines):
        if 2 * len(before) <= full or (not line[0].isalnum() and not any(map(str.isalnum, line))):
            pieces.append(f"\n{line}")
        elif before[-1] in HYPHENS and _is_held(before, line):
            pieces.append(line)
        else:
            pieces.append(f" {line}")
    return "".join(pieces)


def _is_held(before: str, line: str) -> bool:
    word = line.split(maxsplit=1)[0]
    return before[-2:-1].strip() != "" and word[0].isalnum() and word.lower() not in CONJUNCTIONS


def _joined_han(lines: list[str], full: int) -> str:
    """Han paragraphs: a new one begins at an indented line, or after a line that is not full."""
    if full == 0:
        return "\n".join(lines)
    paragraphs: list[list[str]] = []
    before = 0
    for line in lines:
        continues = paragraphs and before >= FULL_RATIO * full and line[0] not in INDENT
        if continues:
            paragraphs[-1].append(line.strip(INDENT))
        else:
            paragraphs.append([line])
        before = columns(line)
    text = ""
    for number, paragraph in enumerate(paragraphs):
        if number:
            # Verse and lists stay together; paragraphs of prose stand apart.
            short = len(paragraph) == 1 and len(paragraphs[number - 1]) == 1
            text += "\n" if short else "\n\n"
        text += _as_one_han(paragraph)
    return text


def _as_one_han(lines: list[str]) -> str:
    if len(lines) == 1:
        return lines[0].rstrip()
    text = lines[0].strip(INDENT)
    pieces = [text]
    for line in lines[1:]:
        # Only two words of a script with spaces need one.
        spaced = pieces[-1][-1:].isascii() and line[:1].isascii() and line[:1].isalnum()
        pieces.append(f" {line}" if spaced else line)
    return "".join(pieces)
