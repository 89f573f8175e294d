"""The main text of a web page: its frame found by name, furniture and link lists out, paragraphs and lists kept.

The order of what is tried, and the bounds on lists of links, follow trafilatura (Barbaresi 2021,
https://aclanthology.org/2021.acl-demo.15): a frame with a telling name, then any paragraph of the page, then what the
page says of itself in JSON-LD, then all text.
Everything works on the flat blocks of html.blocks, so a page is walked once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from data_pipeline.html.blocks import Blocks, parse_page, read_blocks
from data_pipeline.html.hints import (
    CAPTION,
    COMMENTS,
    FORM,
    FURNITURE,
    LINKS,
    NOSCRIPT,
    TEASER,
    UNREADABLE,
)

ALL_MARKS = FURNITURE | TEASER | CAPTION | LINKS | COMMENTS | FORM | NOSCRIPT
# A mark is doubted for the whole frame where no more than this share of its text is free of it.
LEAST_UNMARKED = {FURNITURE: 1 / 7, FORM: 1 / 2, NOSCRIPT: 1 / 2}
# One element with more than this share of a frame's text is no furniture of it.
MOST_MARKED = 0.7
# Below this a result is too short to trust, and the next way is tried.
ENOUGH_CHARS = 250
SKIPPED_WHEN_FAST = FURNITURE | COMMENTS | TEASER | CAPTION
# With less text in paragraphs the page has its text in plain <div>s.
PARAGRAPH_PAGE_CHARS = 750
PARAGRAPH_KINDS = frozenset(("p", "blockquote", "pre", "td", "row", "br", "li", "more"))
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
TEXT_KINDS = PARAGRAPH_KINDS | HEADINGS
SENTENCE_ENDS = '.!?:"”»)…。！？：」』）'
ARTICLE_BODY = re.compile(r'"articleBody"\s*:\s*("(?:[^"\\]|\\.)*")')
JSON_LD = re.compile(r"<script[^>]{0,200}application/ld\+json[^>]{0,200}>", re.IGNORECASE)
TAG = re.compile(r"<[^>]{0,500}>")
# Short lines that lead away from the text.
LEADS_AWAY = re.compile(
    r"\W*(?:"
    # English
    r"related|more (?:on|from|stories|news|about)|read (?:more|also|next)|also read|see also|you (?:may|might) (?:also )?"
    r"(?:like|be interested)|recommended|trending|most (?:read|popular)|latest (?:news|stories)|don.t miss|"
    r"follow (?:us|me)\b|share (?:this|on|via)|subscribe|sign up|advertis(?:ement|ing)|sponsored|comments?\b|"
    r"leave a (?:reply|comment)|tags?:|filed under|posted (?:in|on|by)|(?:photo|image)s?(?: credit)?:|source:|print this|"
    r"e-?mail this|click here|"
    # German
    r"mehr (?:zum|aus)|auch interessant|das könnte (?:sie|dich|dir|ihnen)|ähnliche|lesen sie|lies auch|"
    r"weitere (?:artikel|beiträge|infos|informationen|themen|meldungen|nachrichten)|weiterführende|anzeige\b|werbung\b|"
    r"(?:artikel )?teilen|kommentare?\b|zum thema|quelle:|fotos?:|bild:|bildquelle|schlagw[oö]rt|stichworte|"
    # French, Spanish, Italian, Portuguese, Polish, Dutch
    r"lire aussi|[aà] lire|sur le même sujet|articles? (?:liés|similaires)|publicité|partager|"
    r"ver también|también te|l[eé][ea] también|te puede interesar|más (?:noticias|información|en)|relacionad|publicidad|"
    r"compartir|leggi anche|potrebbe|pubblicità|condividi|leia também|veja também|publicidade|czytaj|zobacz|reklama|"
    r"polecane|lees ook|deel dit|"
    # Chinese
    r"相关|延伸阅读|推荐阅读|责任编辑|版权|猜你喜欢|分享)",
    re.IGNORECASE,
)
RIGHTS = re.compile(
    r"©|\(c\) ?(?:19|20)\d\d|all rights reserved|alle rechte vorbehalten|tous droits réservés|"
    r"todos los derechos reservados|wszelkie prawa|版权所有",
    re.IGNORECASE,
)


def main_text(html: str, fast: bool = False) -> str:
    """Main text of a decoded page: paragraphs parted by blank lines, list items and table rows a line each.

    Args:
        html: the page.
        fast: leave out at once what its names call furniture; where little is left, look again with care.

    Raises:
        PageTooComplex: a page of more blocks than people read.
    """
    body = parse_page(html)
    if fast:
        blocks = read_blocks(body, skipped_marks=SKIPPED_WHEN_FAST)
        chosen = _framed(blocks)
        if blocks.chars_of(chosen) >= ENOUGH_CHARS:
            return _rendered(blocks, chosen)
    blocks = read_blocks(body)
    chosen = _framed(blocks)
    if blocks.chars_of(chosen) < ENOUGH_CHARS:
        # Teasers count here: they may be all that an index page has.
        everywhere = _kept(blocks, 0, 0, len(blocks.text), ALL_MARKS & ~TEASER, PARAGRAPH_KINDS)
        both = sorted({*chosen, *everywhere})
        chosen = max(chosen, both, key=blocks.chars_of)
    if blocks.chars_of(chosen) < ENOUGH_CHARS:
        stated = _article_body(html)
        if len(stated) > blocks.chars_of(chosen):
            return stated
        anything = _kept(blocks, 0, 0, len(blocks.text), LINKS | CAPTION | FORM | NOSCRIPT)
        if blocks.chars_of(anything) > 2 * blocks.chars_of(chosen):
            chosen = anything
    if not chosen:
        # An unclosed <nav> may hold the page.
        blocks = read_blocks(parse_page(html, with_asides=True), skipped=UNREADABLE)
        chosen = _kept(blocks, 0, 0, len(blocks.text), LINKS | CAPTION)
    return _rendered(blocks, chosen)


def _framed(blocks: Blocks) -> list[int]:
    """Blocks of the likeliest frame that holds text."""
    paragraph_chars = sum(size for size, kind in zip(blocks.size, blocks.kind, strict=True) if kind == "p")
    kinds = TEXT_KINDS | {"div"} if paragraph_chars < PARAGRAPH_PAGE_CHARS else TEXT_KINDS
    frames = sorted(blocks.frames)
    tried = set()
    for place, (rank, order, start, stop, class_) in enumerate(frames):
        if rank in tried:
            continue
        tried.add(rank)
        chosen = _kept(blocks, order, start, stop, ALL_MARKS, kinds)
        if len(chosen) < 2 and blocks.chars_of(chosen) < ENOUGH_CHARS:
            continue
        if rank == 1 and class_:
            return chosen + _further_bodies(blocks, frames[place:], kinds)
        if rank == 2:
            # The first <article> may be the teaser of another one.
            others = (_kept(blocks, *frame[1:4], ALL_MARKS, kinds) for frame in frames if frame[0] == 2)
            largest = max(others, key=blocks.chars_of)
            return largest if blocks.chars_of(largest) > 5 * blocks.chars_of(chosen) else chosen
        return chosen
    return []


def _further_bodies(
    blocks: Blocks, frames: Sequence[tuple[int, int, int, int, str]], kinds: frozenset[str]
) -> list[int]:
    """Blocks of the frames behind the first that are named as it is: an article in several bodies."""
    rank, _, _, last_stop, class_ = frames[0]
    chosen = []
    for other_rank, order, start, stop, other_class in frames:
        if (other_rank, other_class) == (rank, class_) and start >= last_stop:
            chosen += _kept(blocks, order, start, stop, ALL_MARKS, kinds)
            last_stop = stop
    return chosen


def _kept(
    blocks: Blocks, order: int, start: int, stop: int, dropped: int, kinds: Iterable[str] = ()
) -> list[int]:
    """The blocks of a range without those under a mark in `dropped`.

    Args:
        order: of the element whose range it is; marks of itself and of what is around it do not count.
        kinds: of block; a long sentence in a div counts as well. Empty for all.
    """
    total = blocks.chars_in(start, stop)
    marks = [0] * (stop - start)
    for first, last, found in blocks.marks_in(order, start, stop):
        if found & (FURNITURE | TEASER) and blocks.chars_in(first, last) > MOST_MARKED * total:
            found &= ~(FURNITURE | TEASER)
        for index in range(first - start, last - start):
            marks[index] |= found
    for mark, share in LEAST_UNMARKED.items():
        free = sum(
            size for size, found in zip(blocks.size[start:stop], marks, strict=True) if not found & mark
        )
        if free <= share * total:
            dropped &= ~mark
    chosen = [
        start + place
        for place, found in enumerate(marks)
        if not found & dropped
        and (not kinds or blocks.kind[start + place] in kinds or _is_sentence(blocks, start + place))
    ]
    return _tidied(blocks, chosen)


def _is_sentence(blocks: Blocks, index: int) -> bool:
    text = blocks.text[index]
    return (
        blocks.kind[index] == "div"
        and len(text) > 100
        and blocks.link_chars[index] < 0.3 * len(text)
        and text[-1] in SENTENCE_ENDS
    )


def _tidied(blocks: Blocks, chosen: Sequence[int]) -> list[int]:
    """Without lines that lead away, headings that are links, and headings over nothing."""
    kept: list[int] = []
    below = "h0"  # the kind of the block that follows; nothing follows the last
    for index in reversed(chosen):
        kind = blocks.kind[index]
        if index != chosen[0]:
            is_heading = kind in HEADINGS
            if is_heading and (
                (below[0] == "h" and kind >= below) or blocks.link_chars[index] > 0.8 * blocks.size[index]
            ):
                continue
            if _leads_away(blocks.text[index], is_heading):
                continue
        kept.append(index)
        below = kind
    return kept[::-1]


def _leads_away(text: str, is_heading: bool) -> bool:
    if len(text) <= (60 if is_heading else 70) and LEADS_AWAY.match(text):
        return True
    return len(text) < 160 and RIGHTS.search(text) is not None


def _article_body(html: str) -> str:
    """The article that a page states in JSON-LD, or ""."""
    for script in JSON_LD.finditer(html):
        end = html.find("</script", script.end())
        found = ARTICLE_BODY.search(html, script.end(), len(html) if end < 0 else end)
        if found:
            try:
                body = json.loads(found.group(1), strict=False)
            except ValueError:
                continue
            return TAG.sub(" ", body) if "<" in body else body
    return ""


def _rendered(blocks: Blocks, chosen: Sequence[int]) -> str:
    pieces: list[str] = []
    before = ""
    for index in chosen:
        kind = blocks.kind[index]
        if pieces:
            is_run = (kind in ("li", "more") and before in ("li", "more")) or kind == before == "row"
            pieces.append("\n" if is_run else "\n\n")
        pieces.append(f"- {blocks.text[index]}" if kind == "li" else blocks.text[index])
        before = kind
    return "".join(pieces)
