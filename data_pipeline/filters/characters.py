"""What the quality rules ask of a code point, as bits of one table.

The marks that stand apart from the word beside them are spaCy's for English (spacy/lang/punctuation.py and
char_classes.py, version 3.8): datatrove counts with its tokens, so that its thresholds mean the same here.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np

from data_pipeline import words

SPACE = 1 << 0  # str.isspace
LETTER = 1 << 1  # letters and the marks on them
LOWER = 1 << 2  # letters that may end a sentence's last word; scripts without case are lower and upper
UPPER = 1 << 3
DIGIT = 1 << 4  # 0 to 9
DECIMAL = 1 << 5  # digits of any script
SYMBOL = 1 << 6  # punctuation, symbols, controls: a word is more than these
PUNCTUATION = 1 << 7
PREFIX = 1 << 8  # stands apart at the beginning of a word
SUFFIX = 1 << 9  # ... and at its end
ICON = 1 << 10  # stands apart anywhere
CURRENCY = 1 << 11
QUOTE = 1 << 12
BEFORE_STOP = 1 << 13  # a full stop after it stands apart
END_MARK = 1 << 14  # ends a sentence
CLOSER = 1 << 15  # may follow the end of a sentence
CLOSING_QUOTE = 1 << 16
BULLET = 1 << 17
WORD = 1 << 18  # part of a word in the sense of data_pipeline.words
UNSPACED = 1 << 19  # a character of a script without spaces: a word of its own in that sense
PIVOT = 1 << 20  # where c4.py looks for a phrase
SCRIPT_SHIFT = 24
# Scripts without spaces, numbered from 1 on; 0 is every other.
SPACED, HAN, KANA, THAI, LAO, KHMER, BURMESE = range(7)
NUM_SCRIPTS = 7

MARKS = "\u2026,:;!?\xbf\u061f\xa1()[]{}<>_#*&\u3002\uff1f\uff01\uff0c\u3001\uff1b\uff1a\uff5e\xb7\u0964\u060c\u06d4\u061b\u066a"
QUOTES = (
    "'\"\u201d\u201c`\u2018\xb4\u2019\u201a\u201e\xbb\xab\u300c\u300d\u300e\u300f\uff08\uff09\u3014\u3015"
    "\u3010\u3011\u300a\u300b\u3008\u3009\u27e6\u27e7"
)
DASHES = "\u2014\u2013"
HYPHENS = "-~" + DASHES
CLOSING_QUOTES = "\"'\u201d\u2019\xbb\u300d\u300f"
CLOSERS = CLOSING_QUOTES + ")]\uff09\u3011\u300b\u3009"
# U+2022, 2023, 25B6, 25C0, 25E6, 25A0, 25A1, 25AA, 25AB, 25CF, 25C6, 203B, 2013, 00B7, minus and asterisk.
BULLETS = "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u25cf\u25c6\u203b\u2013\xb7-*"
# Unicode's property Sentence_Terminal (PropList.txt) without its rarest scripts.
END_MARKS = (
    ".!?\u203c\u203d\u2047\u2048\u2049\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u0964\u0965\u104a\u104b"
    "\u1362\u1367\u1368\u17d4\u17d5\u1803\u1809\u2e2e\u3002\uff01\uff0e\uff1f\uff61\ufe52\ufe56\ufe57"
)
_SCRIPTS = (
    (0x0E00, 0x0E7F, THAI),
    (0x0E80, 0x0EFF, LAO),
    (0x1000, 0x109F, BURMESE),
    (0x1780, 0x17FF, KHMER),
    (0x3040, 0x30FF, KANA),
    (0x31F0, 0x31FF, KANA),
)


@cache
def table() -> np.ndarray:
    """uint32 flags of every code point, built once a process in 0.4 s."""
    kinds, _ = words.tables()
    flags = np.zeros(sys.maxunicode + 1, np.uint32)
    flags[kinds == words.WORD] |= WORD
    flags[kinds == words.SINGLE] |= UNSPACED | HAN << SCRIPT_SHIFT
    for first, last, script in _SCRIPTS:
        block = flags[first : last + 1]
        block[block & UNSPACED > 0] = UNSPACED | script << SCRIPT_SHIFT
    # What is assigned lies in these ranges or is a Han character, which are alike; the rest counts as marks.
    flags[0x20000:0x40000] |= LETTER | LOWER | UPPER
    flags[0x40000:] |= SYMBOL
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        flags[code] = flags[code] & ~np.uint32(SYMBOL) | _properties(chr(code))
    for characters, flag in (
        (MARKS + QUOTES + DASHES, PREFIX | SUFFIX),
        ("\xa7%=", PREFIX),
        (QUOTES, QUOTE),
        (MARKS + QUOTES + "%\xb2-+", BEFORE_STOP),
        (END_MARKS, END_MARK),
        (CLOSERS, CLOSER),
        (CLOSING_QUOTES, CLOSING_QUOTE),
        (BULLETS, BULLET),
        ("jJpPvVfFkK{", PIVOT),
    ):
        for char in characters:
            flags[ord(char)] |= flag
    return flags


def _properties(char: str) -> int:
    category = unicodedata.category(char)
    flags = SPACE if char.isspace() else 0
    if category[0] in "LM":
        flags |= LETTER
        flags |= LOWER if category not in ("Lu", "Lt") else 0
        flags |= UPPER if category != "Ll" else 0
        flags |= BEFORE_STOP if flags & LOWER else 0
    elif category[0] in "PSC":
        flags |= SYMBOL
        flags |= PUNCTUATION if category[0] == "P" else 0
        flags |= CURRENCY | PREFIX if category == "Sc" else 0
        flags |= ICON | PREFIX | SUFFIX if category == "So" else 0
    elif category == "Nd":
        flags |= DECIMAL
        flags |= DIGIT | BEFORE_STOP if char.isascii() else 0
    return flags
