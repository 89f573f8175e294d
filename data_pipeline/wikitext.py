"""Readable text from MediaWiki source: mwparserfromhell, with the templates that carry text kept."""

from __future__ import annotations

import re
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink

DISAMBIGUATION = re.compile(r"\{\{\s*(?:[\w -]*disambig\w*|dab|hndis|geodis|消歧义|消歧義)\s*[|}]", re.I)
# Section titles that hold lists of links and sources, no prose.
END_SECTIONS = {
    *("references", "external links", "see also", "further reading", "notes", "sources", "bibliography"),
    *("footnotes", "citations", "参考文献", "外部链接", "外部連結", "参见", "參見", "注释", "參考文獻"),
}
DROPPED_TAGS = {
    "ref",
    "gallery",
    "math",
    "timeline",
    "table",
    "references",
    "imagemap",
    "score",
    "style",
    "hiero",
}
MEDIA_PREFIXES = (
    "file",
    "image",
    "category",
    "datei",
    "fichier",
    "archivo",
    "kategorie",
    "文件",
    "分类",
    "分類",
)
UNITS = {
    "m": "metres",
    "ft": "feet",
    "km": "kilometres",
    "mi": "miles",
    "kg": "kilograms",
    "lb": "pounds",
    "C": "°C",
    "F": "°F",
}


def is_disambiguation(source: str) -> bool:
    """Whether a page only tells apart pages of like name."""
    return bool(DISAMBIGUATION.search(source[:20_000]))


def to_text(source: str) -> str:
    """Headings, paragraphs and lists of a page as plain text; tables, references and media left out."""
    lines = _render(mwparserfromhell.parse(source)).split("\n")
    text = "\n".join(line.rstrip() for line in _without_end_sections(lines))
    # What an unclosed template or link left behind.
    text = re.sub(r"\{\{[^{}\n]{0,300}|\}\}|\[\[|\]\]|'{2,5}|__[A-Z]{3,30}__", "", text)
    text = re.sub(r"</?ref\b[^<>\n]{0,300}>?", "", text, flags=re.I)
    text = re.sub(r"[ \t]{2,}", " ", text)
    text = re.sub(r"\(\s*[,;]?\s*\)", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _without_end_sections(lines: list[str]) -> list[str]:
    kept: list[str] = []
    skipped_level = 0
    for line in lines:
        heading = re.fullmatch(r"(=+) (.*?) =+", line.strip())
        if heading:
            level = len(heading.group(1))
            line = heading.group(2).strip()
            if not skipped_level or level <= skipped_level:  # a subsection goes with its section
                skipped_level = level if line.lower() in END_SECTIONS else 0
        if not skipped_level:
            kept.append(line)
    return kept


def _render(code: Any) -> str:
    return "".join(_node(node) for node in code.nodes)


def _node(node: Any) -> str:
    if isinstance(node, Text):
        return str(node)
    if isinstance(node, Wikilink):
        return _wikilink(node)
    if isinstance(node, Template):
        return _template(node)
    if isinstance(node, Heading):
        return f"{'=' * node.level} {_render(node.title).strip()} {'=' * node.level}"
    if isinstance(node, ExternalLink):
        return _render(node.title) if node.title is not None else ""
    if isinstance(node, HTMLEntity):
        try:
            return node.normalize()
        except (ValueError, OverflowError):  # no code point
            return ""
    if isinstance(node, Tag):
        return _tag(node)
    return ""


def _wikilink(node: Wikilink) -> str:
    target = str(node.title).strip()
    prefix = target.lstrip(":").partition(":")[0].strip().lower()
    if ":" in target and prefix in MEDIA_PREFIXES:
        return ""
    return _render(node.text) if node.text is not None else target.lstrip(":")


def _tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in DROPPED_TAGS:
        return ""
    if name == "br":
        return "\n"
    if name == "li":
        return "- "
    if name in ("dd", "dt", "hr"):
        return ""
    return _render(node.contents) if node.contents is not None else ""


def _template(node: Template) -> str:
    name = str(node.name).strip().lower().replace("_", " ")
    values = [_render(parameter.value).strip() for parameter in node.params if not parameter.showkey]
    if name in ("convert", "cvt") and len(values) >= 2:
        return f"{values[0]} {UNITS.get(values[1], values[1])}"
    if (name == "lang" or name.startswith("lang-")) and values:
        return values[-1] if name != "lang" else values[1] if len(values) > 1 else ""
    if name in ("nihongo", "transl", "translit", "as of", "nowrap", "small", "abbr", "zh") and values:
        return values[-1] if name in ("transl", "translit") else values[0]
    if name in ("spaced ndash", "snd", "dash", "ndash"):
        return " – "
    return ""
