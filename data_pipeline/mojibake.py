"""Repair of text that was decoded wrongly, with ftfy, looking closely only at lines that can need it.

ftfy reads a text line by line and changes a line only where it finds an entity, a C1 control, or characters side by
side that good text does not put there. SUSPECT finds at least all of those, in a fraction of the time; tests compare
the result with plain ftfy on all real data. ANSI escapes, C0 controls and unpaired surrogates, which ftfy also takes
out, are data_pipeline.clean's.
"""

from __future__ import annotations

import re

import ftfy
from ftfy.badness import MOJIBAKE_CATEGORIES
from ftfy.fixes import unescape_html

from data_pipeline.patterns import linear

ENTITY = "&#?[0-9A-Za-z]{1,24};"


def _suspect() -> str:
    """A regular expression, for `re` and RE2 alike, that matches wherever ftfy.badness.BADNESS_RE does, and seldom else.

    Of each of its alternatives one pair of neighbours is looked for, or a letter that is suspect by itself.
    """
    kinds = dict(MOJIBAKE_CATEGORIES)
    lower, upper, box, bad = (kinds[name] for name in ("lower_accented", "upper_accented", "box", "bad"))
    start, end, currency = kinds["start_punctuation"], kinds["end_punctuation"], kinds["currency"]
    numeric, law = kinds["numeric"], kinds["law"]
    greek_cyrillic = kinds["lower_common"] + kinds["upper_common"]
    signs = lower + upper + box + bad + start + end + currency + numeric + law
    pairs = [
        (signs + greek_cyrillic, bad), (bad, signs), (signs, box), (box, signs + kinds["kaomoji"]),
        (lower + greek_cyrillic + end + currency + numeric, upper), (end + currency + numeric, lower),
        (lower + upper + end, currency), (lower + upper, numeric + law), (start, numeric), (end, start),
        (upper + currency + numeric, start), ("\u0392\u0393\u039e\u039f\u0412\u0413\u0420\u0421", start + end + currency + "\xb0\xb5"),
        ("\u03b2\u0101", "\u20ac"), ("\u0412\u0432", "\u0402"), (upper, "\xb0"),
    ]  # fmt: skip
    return "|".join(
        [
            ENTITY,
            "[\x80-\x9f\u0152\u0153\u00c2\u00c3]",
            "[\u00ce\u00d0\u00d8\u00d9][^A-Za-z]",
            "[\u00d7\u201a\u221a\u2248][^\x00-\x7f]",
            rf"[{lower}{upper}][{start}{end}][^ \n.,;:!?)]",
            *(f"[{left}][{right}]" for left, right in pairs),
        ]
    )


SUSPECT = _suspect()
_SUSPECT = linear(SUSPECT)
# Code that handles entities, as in replace("&lt;", ...): there, and only there, we leave what ftfy would decode.
QUOTED_ENTITY = re.compile(rf"[\"'`]{ENTITY}[\"'`]")
# Entities within entities: hostile text nests them by the thousand, and each level costs a pass.
MAX_LEVELS = 16
# Quotes, ligatures, widths and the normal form are left alone.
SETTINGS = ftfy.TextFixerConfig(
    uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, normalization=None
)
# Entities are decoded here, level by level.
_WITHOUT_ENTITIES = SETTINGS._replace(unescape_html=False, explain=False)


def repair(text: str) -> str:
    """The text as ftfy.fix_text leaves it with SETTINGS, but for QUOTED_ENTITY.

    Args:
        text: lines apart by line feeds, no other control character but tabs in it.
    """
    if (text.isascii() and "&" not in text) or not _SUSPECT.search(text):
        return text
    # As in ftfy: from the first line with a tag on the text is source code, whose entities stay.
    tag = text.find("<")
    lines = text.split("\n")
    place = 0
    for number, line in enumerate(lines):
        place += len(line) + 1
        # With its line end: it is evidence too, for some letters are suspect before anything but a letter.
        if not (line.isascii() and "&" not in line) and _SUSPECT.search(line + "\n"):
            keeps_entities = 0 <= tag < place or QUOTED_ENTITY.search(line) is not None
            lines[number] = _repair_line(line, keeps_entities)
    return "\n".join(lines)


def _repair_line(line: str, keeps_entities: bool) -> str:
    for _ in range(MAX_LEVELS):
        before = line
        line = ftfy.fix_text((line if keeps_entities else unescape_html(line)) + "\n", _WITHOUT_ENTITIES)[:-1]
        if line == before:
            break
    return line
