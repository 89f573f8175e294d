"""The bytes of a book become text: what it states, what its bytes are, and which East Asian encoding fits."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import cache

import charset_normalizer

SAMPLE = 1 << 16
STATED = re.compile(
    rb"(?:^Character set encoding:[ \t]*|charset=[\"']?|encoding=[\"'])([\w.:-]{2,30})", re.I | re.M
)
# Python knows "encodings" that are none of text (zlib) or take quadratic time (punycode): only these are trusted.
TRUSTED = re.compile(
    r"ascii|utf-(?:8|16|32)(?:-[lb]e|-sig)?|iso8859-\d+|cp\d{3,4}|koi8-[rut]|mac-(?:roman|latin2|cyrillic)|gb2312|gbk"
    r"|gb18030|hz|big5|big5hkscs|shift_jis(?:_2004)?|euc_(?:jp|kr)|johab|tis-620"
)
# Files that state these are often Windows text.
WESTERN = frozenset(("ascii", "iso8859-1"))
# From fewer bytes that are no ASCII a guess is worth nothing.
FEWEST_TO_GUESS = 256
CHINESE = ("gb18030", "big5hkscs")
JAPANESE = ("euc_jp", "cp932")
# Looked at before Chinese: Korean syllables read as GB 18030 are common characters, too.
NOT_CHINESE = ("cp949", *JAPANESE)
# In fewer bytes than this, Chinese characters may happen to be Korean syllables.
FEWEST_TO_TELL = 80
# What files that state the one may really be in.
WIDER = {
    "euc_kr": ("cp949",),
    "shift_jis": ("cp932",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "big5": ("big5hkscs",),
}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(raw: bytes) -> str | None:
    """Text of a book file, or None for bytes that are no text.

    A byte order mark decides; then UTF-8, even with a few broken bytes, which become U+FFFD; then what the first
    lines state, where that decodes; then the Korean, Japanese or Chinese encoding in which the text is made of common
    characters; then a guess by charset_normalizer for other texts of many high bytes; then Western.
    """
    for mark, encoding in BOMS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace").removeprefix("\ufeff")
    sample = raw[:SAMPLE]
    if b"\0" in sample:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if _is_broken_utf8(raw):
        return raw.decode("utf-8", "replace")
    for encoding in _candidates(sample):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode(_candidates(sample)[0], "replace")


def stated_encoding(sample: bytes) -> str:
    """Python's name of the character set that the first lines state; "" for none, or for one not to be trusted."""
    match = STATED.search(sample[:8_000])
    if match is None:
        return ""
    try:
        name = codecs.lookup(match.group(1).decode("ascii")).name
    except LookupError:
        return ""
    return name if TRUSTED.fullmatch(name.replace("_", "-") if name.startswith("mac") else name) else ""


def _is_broken_utf8(raw: bytes) -> bool:
    """Whether what is no ASCII is UTF-8 but for a few bytes; in any other encoding nearly all of it would break."""
    text = raw.decode("utf-8", "replace")
    broken = text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")
    good = len(raw) - len(raw.decode("ascii", "ignore")) - broken
    return good >= 4 * broken


def _candidates(sample: bytes) -> list[str]:
    """Encodings to try, best first; the last ones accept any bytes."""
    stated = stated_encoding(sample)
    western = ["cp1252", "latin-1"]
    high = sum(byte >= 0x80 for byte in sample) / max(1, len(sample))
    if stated and stated not in WESTERN:
        # A Chinese statement may name the other Chinese encoding; others may mean what Windows made of them.
        is_chinese = stated in (*CHINESE, "gbk", "gb2312", "big5")
        return [
            *((_likeliest(sample, CHINESE),) if is_chinese else ()),
            stated,
            *WIDER.get(stated, ()),
            *western,
        ]
    if high <= 0.25:
        return western
    if high * len(sample) >= FEWEST_TO_TELL:
        for encoding in NOT_CHINESE:
            if common_ratio(sample, encoding) >= 0.85:
                return [encoding, *western]
    best = _likeliest(sample, CHINESE)
    if common_ratio(sample, best) >= 0.85:
        return [best, *western]
    if high * len(sample) < FEWEST_TO_GUESS:
        return western
    guess = charset_normalizer.from_bytes(sample[:SAMPLE]).best()
    return [*((guess.encoding,) if guess else ()), *western]


def _likeliest(sample: bytes, encodings: Sequence[str]) -> str:
    return max(encodings, key=lambda encoding: common_ratio(sample, encoding))


def common_ratio(sample: bytes, encoding: str) -> float:
    """The share of common characters in what is no ASCII, once decoded; read in the wrong encoding, few are.

    Japanese without its syllables is none: they tell it from Chinese.
    """
    text = [char for char in sample.decode(encoding, "replace") if char >= "\x80"]
    if encoding in JAPANESE and sum("\u3041" <= char <= "\u30fe" for char in text) < 0.15 * len(text):
        return 0.0
    common = _common_characters(encoding)
    return sum(char in common for char in text) / max(1, len(text))


def _rows(encoding: str, leads: Iterable[int], trails: Iterable[int] = range(0xA1, 0xFF)) -> str:
    """The characters of some rows of a standard of two bytes."""
    trails = list(trails)
    return "".join(bytes((lead, trail)).decode(encoding, "ignore") for lead in leads for trail in trails)


@cache
def _common_characters(encoding: str) -> frozenset[str]:
    """Punctuation, syllables and the common half of the characters of the language that an encoding is for."""
    if encoding in CHINESE:  # GB 2312 level 1 and Big5 level 1
        rows = _rows("gb2312", (0xA1, 0xA3, *range(0xB0, 0xD8))) + _rows(
            "big5", (0xA1, *range(0xA4, 0xC7)), range(0x40, 0xFF)
        )
    elif encoding in JAPANESE:  # kana, and JIS X 0208 level 1
        rows = _rows("euc_jp", (0xA1, 0xA3, 0xA4, 0xA5, *range(0xB0, 0xD0)))
    else:  # the syllables of KS X 1001
        rows = _rows("euc_kr", (0xA1, 0xA3, *range(0xB0, 0xC9)))
    return frozenset(rows) - frozenset("\ufffd")
