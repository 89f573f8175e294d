"""Readable text from MediaWiki source, as a reader of the page has it: headings, paragraphs, lists, short tables.

    opaque tags and references -> brackets (templates, tables, files) -> HTML -> lines -> mwparserfromhell -> tidy

mwparserfromhell reads the links and the templates that carry text; what it is slow on, or exponential, is gone by then.
Every step before and after takes time linear in the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import HTMLEntity, Template, Text, Wikilink

from data_pipeline.wikitext import tables, templates
from data_pipeline.wikitext.markup import Reducer
from data_pipeline.wikitext.words import END_SECTIONS, is_disambiguation, link_kind

__all__ = ["is_disambiguation", "to_text"]

# Noncharacters, which no text interchanges: literal text that is put aside while markup is read.
LITERAL_OPEN, LITERAL_CLOSE = "\ufdd0", "\ufdd1"
LITERAL = re.compile(f"{LITERAL_OPEN}(\\d{{1,9}}){LITERAL_CLOSE}")
OWN_MARKS = re.compile("[\ufdd0-\ufdd4]")
MAX_CHARS = 2 << 20
# mwparserfromhell reads a page in pieces of this size, cut between lines.
PIECE_CHARS = 8_000

DROPPED_TAGS = (
    "ref|gallery|timeline|imagemap|score|hiero|style|templatestyles|graph|mapframe|maplink|table|indicator"
)
LITERAL_TAGS = "math|chem|ce|nowiki|pre|syntaxhighlight|source"
OPAQUE = re.compile(
    rf"<(/?)({DROPPED_TAGS}|{LITERAL_TAGS}|references)\b([^<>]{{0,1000}})>|<!--", re.IGNORECASE
)
RAISED = re.compile(r"<(sup|sub)\b[^<>]{0,100}>([^<>]{0,40})</\1\s{0,5}>", re.IGNORECASE)
BREAK = re.compile(r"<br\b[^<>]{0,100}>", re.IGNORECASE)
HTML_TAG = re.compile(
    r"</?(?:ref|references|div|span|small|big|center|font|b|i|u|s|em|strong|code|tt|var|kbd|samp|cite|abbr|dfn|del|ins|q|"
    r"blockquote|p|li|ul|ol|dl|dt|dd|table|tr|td|th|tbody|thead|caption|hr|h[1-6]|sup|sub|poem|section|onlyinclude|"
    r"includeonly|noinclude|nowiki|ruby|rb|rt|rp|bdi|bdo|wbr|mark|time|data|strike|pre|gallery|math|chem|ce|img|a|"
    r"templatestyles|indicator|languages|translate|tvar|categorytree|inputbox|timeline|score|source|syntaxhighlight)"
    r"\b[^<>\n]{0,1000}(?:>|(?=[<\n])|\Z)",
    re.IGNORECASE,
)
EXTERNAL = re.compile(
    r"\[(?:(?:https?|ftps?|irc|news|gopher):)?//[^\s\[\]<>]{1,2000}[ \t]{0,20}([^\[\]\n]{0,1000})\]?", re.I
)
MAILTO = re.compile(r"\[mailto:[^\s\[\]<>]{1,300}[ \t]{0,20}([^\[\]\n]{0,300})\]", re.I)
BARE_ADDRESS = re.compile(r"\b(?:https?|ftp)://[^\s\[\]<>|{}]{0,2000}[^\s\[\]<>|{}.,;:)]", re.I)
HEADING = re.compile(r"(={1,6})[ \t]*([^\n]{1,500}?)[ \t]*\1[ \t]*")
LIST_MARKS = re.compile(r"[*#:;]+")
VARIANTS = re.compile(r"-\{(?!\{)([^{}]{0,2000})\}-")
QUOTES = re.compile(r"'{2,}")


def to_text(source: str) -> str:
    """Headings, paragraphs, lists and short tables of words as plain text; references, media and navigation left out.

    Formulas stay as their LaTeX between dollar signs: the sentences around them need them, and so does a model that
    shall read mathematics.
    """
    literals: list[str] = []
    source = _without_opaque(OWN_MARKS.sub("", source[:MAX_CHARS]), literals)
    source = Reducer(_kept_template, tables.to_rows).reduce(source)
    source = _without_html(source)
    text = "\n".join(_sections(source.split("\n")))
    text = QUOTES.sub(_apostrophes, VARIANTS.sub(_variant, text))
    text = _tidy(tables.finish(text))
    return LITERAL.sub(lambda match: literals[int(match.group(1))], text).strip()


def _without_opaque(source: str, literals: list[str]) -> str:
    """Without comments, references and media tags; formulas and code put aside into `literals`."""
    parts: list[str] = []
    position = 0
    missing: set[str] = set()  # ends that do not occur any more: each is looked for once
    lowered = source.lower() if len(source.lower()) == len(source) else source
    for match in OPAQUE.finditer(source):
        if match.start() < position:
            continue
        parts.append(source[position : match.start()])
        position = match.end()
        name = (match.group(2) or "!--").lower()
        if match.group(1) or (match.group(3) or "").endswith("/"):
            continue
        end_mark = "-->" if name == "!--" else f"</{name}"
        start = lowered.find(end_mark, position) if end_mark not in missing else -1
        if start < 0:
            missing.add(end_mark)
            continue
        if name == "ref" and "<ref" in lowered[position:start].replace("<references", ""):
            continue  # this one was never closed
        if name in LITERAL_TAGS.split("|"):
            parts.append(_put_aside(name, source[position:start], match.group(3), literals))
        end = source.find(">", start)
        position = end + 1 if end >= 0 else len(source)
    parts.append(source[position:])
    return "".join(parts)


def _put_aside(name: str, content: str, attributes: str, literals: list[str]) -> str:
    content = content.strip("\n") if name in ("pre", "source", "syntaxhighlight") else content.strip()
    if name in ("math", "chem", "ce"):
        # "{{" is the same to LaTeX with a space, and no sign of a template left over.
        content = " ".join(content.split()).replace("{{", "{ {").replace("[[", "[ [")
        content = f"${content}$" if name == "math" else f"$\\ce{{{content}}}$"
    elif name == "nowiki":
        content = re.sub(r"\{\{|\}\}|\[\[|\]\]|<ref\b", "", content)
    literals.append(content)
    return f"{LITERAL_OPEN}{len(literals) - 1}{LITERAL_CLOSE}"


def _kept_template(content: str) -> str:
    return f"{{{{{content}}}}}" if templates.carries_text(content) else ""


def _without_html(source: str) -> str:
    source = RAISED.sub(_raised, source)
    source = HTML_TAG.sub("", BREAK.sub("\n", source))
    source = MAILTO.sub(r"\1", EXTERNAL.sub(r"\1", source))
    source = BARE_ADDRESS.sub("", source)
    # What is left of "<" is a sign of comparison: the parser must not look for a tag's end behind it.
    return source.replace("<", "&lt;")


def _raised(match: re.Match[str]) -> str:
    raise_ = templates.superscript if match.group(1).lower() == "sup" else templates.subscript
    return raise_(match.group(2).strip())


def _sections(lines: list[str]) -> Iterator[str]:
    """Rendered lines, without the sections of links and sources and without headings that head nothing."""
    skipped_level = 0
    headings: list[tuple[int, str]] = []  # of no text yet
    body: list[str] = []
    for line in [*lines, None]:
        heading = HEADING.fullmatch(line.rstrip()) if line is not None and line.startswith("=") else None
        if line is not None and not heading:
            if not skipped_level:
                body.append(line)
            continue
        text = _rendered_lines(body)
        body = []
        if text.strip():
            yield from (title for _, title in headings)
            headings = []
            yield text
        if heading:
            level, title = len(heading.group(1)), _inline(heading.group(2)).strip()
            if not skipped_level or level <= skipped_level:  # a subsection goes with its section
                skipped_level = level if title.lower().rstrip(":") in END_SECTIONS else 0
            headings = [item for item in headings if item[0] < level]
            if title and not skipped_level:
                headings.append((level, title))


def _rendered_lines(lines: list[str]) -> str:
    """A section's lines with their list marks, links and templates as text."""
    marked: list[str] = []
    number = 0
    for line in lines:
        line = line.strip(" \t")
        marks = LIST_MARKS.match(line)
        number = number + 1 if line.startswith("#") and marks and len(marks.group()) == 1 else 0
        if marks:
            sign = marks.group()[-1]
            item = line[marks.end() :].strip()
            line = f"{number}. {item}" if number else f"- {item}" if sign in "*#" and item else item
        marked.append("" if line.startswith("----") else line)
    pieces: list[list[str]] = [[]]
    size = depth = 0
    for line in marked:
        pieces[-1].append(line)
        size += len(line)
        depth += line.count("{{") + line.count("[[") - line.count("}}") - line.count("]]")
        if size > PIECE_CHARS and depth <= 0:
            pieces.append([])
            size = 0
    return "\n".join(_inline("\n".join(piece)) for piece in pieces)


def _inline(source: str) -> str:
    if "{{" not in source and "[[" not in source and "&" not in source:
        return source
    return _render(mwparserfromhell.parse(source, skip_style_tags=True))


def _render(code: Any) -> str:
    return "".join(_node(node) for node in code.nodes)


def _node(node: Any) -> str:
    if isinstance(node, Wikilink):
        return _wikilink(node)
    if isinstance(node, Template):
        return _template(node)
    if isinstance(node, HTMLEntity):
        try:
            return OWN_MARKS.sub("", node.normalize())
        except (ValueError, OverflowError):  # no code point
            return ""
    return str(node) if isinstance(node, Text) else str(node).lstrip("[").rstrip("]")


def _wikilink(node: Wikilink) -> str:
    target = str(node.title).strip()
    if link_kind(target):
        return ""
    if node.text is not None:
        text = _render(node.text)
        return text or target.partition(":")[2].partition("(")[0].strip() or target.partition("(")[0].strip()
    return target.removeprefix(":").replace("_", " ")


def _template(node: Template) -> str:
    values = [_render(item.value).strip() for item in node.params if not item.showkey]
    named = {str(item.name).strip(): _render(item.value).strip() for item in node.params if item.showkey}
    return templates.render(str(node.name), values, named)


def _variant(match: re.Match[str]) -> str:
    """One of the Chinese variants of a phrase: `-{zh-hans:...; zh-hant:...}-`; rules and titles are no text."""
    flags, bar, rules = match.group(1).partition("|")
    if not bar:
        flags, rules = "", match.group(1)
    if flags.strip().upper()[:1] in ("H", "T", "-") and flags.strip():
        return ""
    variants = {
        name.strip(): text.strip()
        for name, colon, text in (rule.partition(":") for rule in rules.split(";"))
        if colon and re.fullmatch(r"\s*zh(?:-[a-z]{2,4})?\s*", name)
    }
    if not variants:
        return rules
    preferred = (variants.get(name) for name in ("zh-hans", "zh-cn", "zh"))
    return next(filter(None, preferred), next(iter(variants.values())))


def _apostrophes(match: re.Match[str]) -> str:
    # Two are italic, three bold, five both; of four and of more than five the rest are themselves.
    return "'" * {2: 0, 3: 0, 4: 1, 5: 0}.get(len(match.group()), len(match.group()) - 5)


TIDY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\{\{[^{}\n]{0,300}|\}\}|\[\[|\]\]|__[A-Z]{3,30}__|</?ref\b[^<>\n]{0,300}>?", re.I), ""),
    # Rows of a broken table, and what a broken link to a file leaves.
    (re.compile(r"^[ \t]*(?:\{\||\|\}|\|-|\||!)[^\n]*$", re.MULTILINE), ""),
    (re.compile(r"^[^\n|]{0,200}\|?(?:thumb|thumbnail|mini|vignette|\d{1,4}px)\|[^\n]*$", re.MULTILINE), ""),
    (re.compile(r"[ \t\xa0\u2009]{2,}"), " "),
    # Parentheses of which templates were the content.
    (re.compile(r"[ \t]?(?:\((?:[\s,;:/·]|\xa0){0,20}\)|（[\s,;:、，；]{0,20}）|\[\s{0,5}\])"), ""),
    (re.compile(r"(?<=[(（])[ \t,;:、，；]{1,20}"), ""),
    (re.compile(r"(?:[ \t]|[,;、，；](?=[ \t,;、，；)）])){1,20}(?=[)）])"), ""),
    (re.compile(r"(?<=[\w/\]])[ \t]{1,5}(?=[,.](?:\s|\Z))"), ""),
    # Commas between which templates stood.
    (re.compile(r",(?:[ \t]{0,3},){1,20}"), ","),
    (re.compile(r",[ \t]{0,3}(?=\.(?:\s|\Z))"), ""),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
    (re.compile(r"^(?:[-–—*#:;,.|=!/·]|\d{1,3}\.)[ \t]*$", re.MULTILINE), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def _tidy(text: str) -> str:
    for pattern, replacement in TIDY:
        text = pattern.sub(replacement, text)
    return text
