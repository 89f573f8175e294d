"""The structure of wikitext in one pass over its brackets, before anything is parsed.

Most of a page's markup says nothing to a reader: citations, infoboxes, navigation, files. Taking it out first leaves
the parser a fifth of the work, and only balanced brackets of bounded depth: on unbalanced ones its time is
exponential in the worst case (20 kB of `<b ` take two minutes), and text from the web may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from data_pipeline.wikitext.words import link_kind

BRACKET = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:*#]{0,20}\{\||^[ \t]{0,20}\|\}(?!\})|^==", re.MULTILINE)
CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}
# Deeper ones are left out: MediaWiki allows 40, readable text needs a few.
MAX_DEPTH = 20


@dataclass
class _Open:
    bracket: str
    parts: list[str] = field(default_factory=list)


class Reducer:
    """Wikitext with its tables and those templates and links replaced that `template` and `table` say.

    Args:
        template: from what is between "{{" and "}}" to its replacement.
        table: from what is between "{|" and "|}" to its replacement; a table within a table is left out.
    """

    def __init__(self, template: Callable[[str], str], table: Callable[[str], str]) -> None:
        self._template, self._table = template, table
        self._stack = [_Open("")]

    def reduce(self, source: str) -> str:
        """Replace every bracket pair of `source`; what opens and never closes costs its own line at most."""
        position = 0
        for match in BRACKET.finditer(source):
            if match.start() < position:
                continue
            self._stack[-1].parts.append(source[position : match.start()])
            position = match.end()
            bracket = match.group().strip(" \t:*#") or match.group()
            if bracket == "==":  # brackets do not reach from one section into the next
                self._abandon(1)
                self._stack[-1].parts.append(bracket)
            elif bracket in CLOSES:
                self._close(bracket)
            elif len(self._stack) <= MAX_DEPTH:
                self._stack.append(_Open(bracket))
        self._stack[-1].parts.append(source[position:])
        self._abandon(1)
        return "".join(self._stack[0].parts)

    def _close(self, bracket: str) -> None:
        wanted = CLOSES[bracket]
        depths = [depth for depth, item in enumerate(self._stack) if item.bracket == wanted]
        if not depths:
            return  # a stray one
        self._abandon(depths[-1] + 1)
        content = "".join(self._stack.pop().parts)
        self._stack[-1].parts.append(self._replacement(wanted, content))

    def _replacement(self, bracket: str, content: str) -> str:
        if bracket == "{{":
            return self._template(content)
        if bracket == "[[":
            return "" if link_kind(content.partition("|")[0].strip()) else f"[[{content}]]"
        nested = any(item.bracket == "{|" for item in self._stack)
        return "" if nested else self._table(content)

    def _abandon(self, depth: int) -> None:
        """Close what opened at `depth` or deeper and has no end: its text without what was its first line."""
        while len(self._stack) > depth:
            item = self._stack.pop()
            content = "".join(item.parts)
            if item.bracket == "{{" or link_kind(content[:300].partition("|")[0].strip()):
                content = content[content.find("\n") :] if "\n" in content else ""
            elif item.bracket == "{|":
                content = re.sub(r"^[|!{][^\n]*", "", content, flags=re.MULTILINE)
            self._stack[-1].parts.append(content)


def split_cells(content: str, separator: re.Pattern[str]) -> list[str]:
    """Parts of `content` between separators that are in no link and no template."""
    cells, depth, start = [], 0, 0
    for match in re.finditer(rf"\{{\{{|\}}\}}|\[\[|\]\]|{separator.pattern}", content):
        if match.group() in ("{{", "[["):
            depth += 1
        elif match.group() in ("}}", "]]"):
            depth = max(0, depth - 1)
        elif depth == 0:
            cells.append(content[start : match.start()])
            start = match.end()
    return [*cells, content[start:]]
