"""What a transcriber adds to a book goes: credits, notes, illustrations, page marks, emphasis marks."""

from __future__ import annotations

import itertools
import re

# Only among the first blocks of a file, since a book may say "Produced by" as well.
NUM_FRONT_BLOCKS = 16
CREDIT = re.compile(
    r"\s*(?:\(?Produced by|E-?text (?:was )?(?:prepared|produced|scanned|created)"
    r"|(?:This|The) (?:Project Gutenberg )?(?:E-?text|e-?book)"
    r" (?:was (?:originally )?(?:first )?|has been )?(?:produced|prepared|created|transcribed|typed|scanned|made)"
    r"|Transcribed (?:from|by)|Scanned (?:and|by)|Digiti[sz]ed by|HTML version by|Proofread by|Prepared by"
    r"|An Anonymous Volunteer|\(?This (?:file|book) was produced from"
    r"|We thank the Biblioth|Nous remercions la Biblioth|Note: (?:Please see )?Project Gutenberg|Note: Images of"
    r"|Special thanks are due|Updated? editions? will replace|\[Editor[’'`]s Note: .{0,40}Gutenberg"
    r"|Note from the original file|Images? of the original|\(?(?:cover|\[Cover\])\s*\Z)",
    re.I,
)
NOTE_WORD = (
    r"(?:Original )?Transcriber(?:[’'`´\x92]?s?|s[’'`´\x92])(?: and Editor[’'`]s)?[ \t]+(?:end[- ]?)?notes?\b"
)
NOTE_HEAD = re.compile(rf"[\s|*_=+~-]{{0,80}}{NOTE_WORD}", re.I)
NOTE_LINE = re.compile(
    rf"^[ \t|*_=+~-]{{0,60}}(?:{NOTE_WORD}|Typographical errors corrected[^\n]{{0,60}})[ \t:.|*_=+~-]{{0,60}}$",
    re.I | re.M,
)
# A note among the first pages: it ends where a wide gap begins, and is no longer than this.
FRONT_NOTE_CHARS, FRONT_CHARS = 4_000, 20_000
ADDED = re.compile(
    r"\[[ \t_*]{0,3}(?:Illustration|Frontispiece|Ornament|Decoration|Image:|Abbildung|Illustrazione|"
    rf"{NOTE_WORD}|Project Gutenberg Editor)",
    re.I,
)
BRACKETED = re.compile(rf"{ADDED.pattern}|\[|\]", re.I)
# A caption may have several paragraphs; a bracket that nobody closed must not take the book.
LONGEST_BRACKETED = 4_000
PAGE = re.compile(r"\[(?:Pg|Page|p\.|Pag\.|Seite|S\.)[ \t]{0,2}(?:\d{1,4}|[ivxlc]{1,9})[a-d]?\][ \t]?", re.I)
# A page mark that stands between two blank lines in the middle of a sentence: the paragraph goes on.
PAGE_BREAK = re.compile(
    r"([\w,;])\n{2,4}\[(?:Pg|Page|p\.)[ \t]{0,2}(?:\d{1,4}|[ivxlc]{1,9})\][ \t]?\n{0,4}(?=(?-i:[a-z]))", re.I
)
BRACED_PAGE = re.compile(r"\{(\d{1,4})[a-d]?\}")
LONE_PAGE = re.compile(r"^[ \t]{0,80}\[(\d{1,4})\][ \t]*$", re.M)
IMAGE_NUMBER = re.compile(r"^[ \t]*\d{4,5}m[ \t]*$", re.M)
# The mark comes before the look behind it, or the search would look behind every character.
UNDERSCORES = re.compile(r"_(?<!\w_)(?=[^\s_])([^_]{1,5000}?)(?<=[^\s_])_(?!\w)")
EQUALS = re.compile(r"=(?<![\w=]=)(?=[^\s=])([^=\n]{1,300})(?<=[^\s=])=(?![\w=])")


def strip_front_matter(body: str) -> str:
    """The body without the credits and transcriber's notes at its two ends."""
    body = _without_closing_note(_without_opening_note(body.lstrip("\n")))
    blocks = re.split(r"(\n{2,})", body, maxsplit=NUM_FRONT_BLOCKS)
    kept: list[str] = []
    for text, gap in zip(blocks[:-1:2], blocks[1::2], strict=True):
        about_the_file = CREDIT.match(text) or NOTE_HEAD.match(text) or "project gutenberg" in text.lower()
        if not about_the_file or len(text) > 2_000:
            kept += [text, gap]
    return "".join(kept) + blocks[-1]


def _without_opening_note(body: str) -> str:
    """Drop a transcriber's note of several paragraphs: from its heading to the next wide gap."""
    match = NOTE_LINE.search(body, 0, FRONT_CHARS)
    if match is None:
        return body
    stop = body.find("\n\n\n", match.end() + 4)
    if stop < 0 or stop - match.start() > FRONT_NOTE_CHARS:
        return body
    return body[: match.start()] + body[stop:].lstrip("\n")


def _without_closing_note(body: str) -> str:
    """Drop a transcriber's note that the file ends with: its heading stands alone in the last part."""
    zone_starts = max(0, len(body) - 20_000, min(int(0.8 * len(body)), len(body) - 2_000))
    for match in NOTE_LINE.finditer(body, zone_starts):
        before = body[: match.start()].rstrip()
        # The upper border of a box belongs to it.
        lines = before.rsplit("\n", 1)
        return lines[0].rstrip() if len(lines) == 2 and not lines[1].strip(" +-=*_|~") else before
    return body


def strip_apparatus(body: str) -> str:
    """The body without illustrations, bracketed transcriber's notes and page marks."""
    body = IMAGE_NUMBER.sub("", _without_bracketed(body))
    body = PAGE.sub("", PAGE_BREAK.sub(r"\1\n", body))
    if _is_page_sequence(BRACED_PAGE.findall(body), at_least=5):
        body = re.sub(r"[ \t]?\{\d{1,4}[a-d]?\}", "", body)
    # Chapters and footnotes are numbered so as well, but there are fewer of them, or text follows.
    if _is_page_sequence(LONE_PAGE.findall(body), at_least=40):
        body = LONE_PAGE.sub("", body)
    return body


def _is_page_sequence(numbers: list[str], at_least: int) -> bool:
    """Whether the numbers mostly rise by one, as those of pages do."""
    values = [int(number) for number in numbers]
    rises = sum(0 < after - before <= 3 for before, after in itertools.pairwise(values))
    return len(values) >= at_least and rises >= 0.9 * (len(values) - 1)


def _without_bracketed(body: str) -> str:
    """Drop "[Illustration: ...]" and its like, over several lines and with brackets inside."""
    if ADDED.search(body) is None:
        return body
    open_brackets: list[tuple[int, bool]] = []
    spans: list[tuple[int, int]] = []
    for match in BRACKETED.finditer(body):
        token = match.group()
        if token != "]":
            open_brackets.append((match.start(), len(token) > 1))
        elif open_brackets:
            start, drop = open_brackets.pop()
            if drop and match.end() - start <= LONGEST_BRACKETED:
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, match.end()))
    pieces, after = [], 0
    for start, stop in spans:
        pieces.append(body[after:start])
        after = stop
    return "".join([*pieces, body[after:]])


def strip_emphasis(text: str) -> str:
    """The text without the marks of `_italics_` and `=bold=`; snake_case and equations stay."""
    text = UNDERSCORES.sub(lambda match: match[0] if "\n\n" in match[1] else match[1], text)
    return EQUALS.sub(r"\1", text)
