"""The bytes of a book become text: what it states, what its bytes are, and which of two Chinese encodings fits."""

from __future__ import annotations

import codecs
import re
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
    lines state, where that decodes; then the Chinese encoding in which the text is made of common characters;
    then a guess by charset_normalizer for other texts of many high bytes; then Western.
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
        # A Chinese statement may name the other Chinese encoding.
        return [
            *((_chinese(sample),) if stated in (*CHINESE, "gbk", "gb2312", "big5") else ()),
            stated,
            *western,
        ]
    if high <= 0.25:
        return western
    best = _chinese(sample)
    if common_ratio(sample, best) >= 0.85:
        return [best, *western]
    if high * len(sample) < FEWEST_TO_GUESS:
        return western
    guess = charset_normalizer.from_bytes(sample[:SAMPLE]).best()
    return [*((guess.encoding,) if guess else ()), *western]


def _chinese(sample: bytes) -> str:
    return max(CHINESE, key=lambda encoding: common_ratio(sample, encoding))


def common_ratio(sample: bytes, encoding: str) -> float:
    """The share of common characters in what is no ASCII, once decoded; read in the wrong encoding, few are."""
    text = [char for char in sample.decode(encoding, "replace") if char >= "\x80"]
    common = _common_characters()
    return sum(char in common for char in text) / max(1, len(text))


@cache
def _common_characters() -> frozenset[str]:
    """The common halves of the two standards (GB 2312 level 1, Big5 level 1) and their punctuation."""
    rows = [
        *(bytes((lead, trail)).decode("gb2312", "ignore") for lead in (0xA1, 0xA3, *range(0xB0, 0xD8)) for trail in range(0xA1, 0xFF)),
        *(bytes((lead, trail)).decode("big5", "ignore") for lead in (0xA1, *range(0xA4, 0xC7)) for trail in range(0x40, 0xFF)),
    ]  # fmt: skip
    return frozenset("".join(rows)) - frozenset("\ufffd")
