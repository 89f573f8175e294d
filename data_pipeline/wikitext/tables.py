"""Wiki tables: short ones of words stay, as rows "a | b | c"; figures, layout and navigation go."""

from __future__ import annotations

import re

from data_pipeline.wikitext.markup import split_cells

# Noncharacters, which no text interchanges: the marks of a table's rows between reading and rendering.
TABLE_OPEN, TABLE_CLOSE, CELL = "\ufdd2", "\ufdd3", "\ufdd4"
TABLE = re.compile(f"{TABLE_OPEN}([^{TABLE_OPEN}{TABLE_CLOSE}]*){TABLE_CLOSE}")

DATA_CLASS = re.compile(r"\b(?:wiki|pretty|sort)\w{0,10}\b|\bbordered\b", re.IGNORECASE)
LAYOUT_CLASS = re.compile(
    r"infobox|navbox|metadata|toccolours|sidebar|collaps|plainlinks|mbox", re.IGNORECASE
)
CELL_BREAK = re.compile(r"\|\||!!")
ATTRIBUTES = re.compile(
    r"(?:[a-z-]{2,12} ?= ?(?:\"[^\"]{0,200}\"|[^\s\"=]{1,60})\s{0,5}){1,9}", re.IGNORECASE
)
PIPE = re.compile(r"\|")
# What people read as a text; longer or wider tables are data, and mostly figures.
MAX_SOURCE_CHARS, MAX_ROWS, MAX_COLUMNS, MAX_CELL_CHARS = 20_000, 40, 8, 200
MIN_LETTERS_RATIO, MIN_FILLED_RATIO = 0.6, 0.7


def to_rows(content: str) -> str:
    """The source of a table as marked rows of cells, or "" for a table of layout.

    Args:
        content: what is between "{|" and "|}".
    """
    attributes, _, body = content.partition("\n")
    if (
        len(content) > MAX_SOURCE_CHARS
        or not DATA_CLASS.search(attributes)
        or LAYOUT_CLASS.search(attributes)
    ):
        return ""
    rows: list[list[str]] = [[]]
    caption = False
    for line in body.split("\n"):
        stripped = line.strip()
        caption = stripped.startswith("|+") or (caption and not stripped.startswith(("|", "!")))
        if stripped.startswith("|-"):
            rows.append([])
        elif stripped.startswith(("|", "!")) and not caption:
            rows[-1].extend(map(_cell, split_cells(stripped[1:], CELL_BREAK)))
        elif rows[-1] and not caption:
            rows[-1][-1] += " " + stripped.lstrip("*#:; ")
    lines = [CELL.join(row) for row in rows if row]
    return f"\n{TABLE_OPEN}{chr(10).join(lines)}{TABLE_CLOSE}\n"


def _cell(source: str) -> str:
    """A cell without its attributes: `style="x" | text`."""
    parts = split_cells(source, PIPE)
    if len(parts) == 1 and ATTRIBUTES.fullmatch(source.strip()):  # the template behind them is gone
        return ""
    return (parts[-1] if len(parts) > 1 and "=" in parts[0] else "|".join(parts)).strip()


def _finished(match: re.Match[str]) -> str:
    rows = [
        [" ".join(cell.split()) for cell in line.split(CELL)]
        for line in match.group(1).replace("\n" + CELL, CELL).split("\n")
    ]
    rows = [row for row in rows if any(row)]
    cells = [cell for row in rows for cell in row]
    text = "".join("".join(cells).split())
    readable = (
        2 <= len(rows) <= MAX_ROWS
        and 2 <= max(map(len, rows)) <= MAX_COLUMNS
        and max(map(len, cells)) <= MAX_CELL_CHARS
        and sum(map(bool, cells)) >= MIN_FILLED_RATIO * len(cells)
        and sum(map(str.isalpha, text)) >= MIN_LETTERS_RATIO * len(text)
    )
    return "\n".join(" | ".join(filter(None, row)) for row in rows) if readable else ""


def finish(text: str) -> str:
    """Text with its marked rows as readable lines, or without those of tables that are no text."""
    return TABLE.sub(_finished, text)
