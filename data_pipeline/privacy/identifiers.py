"""Where a text names a person, a machine or an account: e-mail and IP addresses, cards, accounts, identity numbers.

A finder looks for a cheap anchor (an at sign, a run of digits) and reads a bounded stretch around it, so that its
time is linear in the text whatever stands in it. What has a checksum must pass it.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator

from tld import is_tld

from data_pipeline.patterns import linear

# Start and end of a find in its text.
Span = tuple[int, int]

# Runs of digits and what people put between them: where cards, identity, IPv4 and phone numbers are looked for.
NUMBER = re.compile(r"[0-9][0-9 .()/\-\u2010-\u2015\uff08\uff09\uff0d]{5,}+")
NO_DIGITS = {ord(char): None for char in " .()/-\u2010\u2011\u2012\u2013\u2014\u2015\uff08\uff09\uff0d"}


def numbers(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, number of digits) of stretches with seven digits or more."""
    for match in NUMBER.finditer(text):
        num_digits = len(match[0].translate(NO_DIGITS))
        if num_digits >= 7 or match[0].count(".") >= 3:
            yield match.start(), match.end(), num_digits


def in_url(text: str, start: int) -> bool:
    """Whether a place lies within a URL: numbers there name pages, not people."""
    before = text[max(0, start - 200) : start]
    scheme = max(before.rfind("://"), before.rfind("www."))
    return scheme >= 0 and before[scheme:].isascii() and not any(char.isspace() for char in before[scheme:])


# ----------------------------------------------------------------------------------------------- e-mail addresses

LOCAL_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
# RFC 5321 allows 64 characters before the at sign.
MAX_LOCAL_CHARS = 64
_LABEL = r"[0-9A-Za-z\u00c0-\u024f](?:[0-9A-Za-z\u00c0-\u024f-]{0,61}[0-9A-Za-z\u00c0-\u024f])?"
DOMAIN = re.compile(rf"(?:{_LABEL}\.){{1,8}}([A-Za-z]{{2,24}}|xn--[0-9A-Za-z-]{{2,59}})(?![0-9A-Za-z_-])")
# "name [at] example [dot] org", "name at example dot org": written so that machines do not find it.
_AT, _DOT = r" ?(?:[\[({<] ?(?:at|@) ?[\])}>]) ?", r"(?: ?[\[({<] ?(?:dot|\.) ?[\])}>] ?| dot |\.)"
SPELLED_ANCHOR = r"(?i)[\[({<] ?(?:at|@) ?[\])}>]| at [0-9a-z-]{1,63} dot (?:com|org|net|edu|gov)\b"
SPELLED = re.compile(
    rf"(?i)(?:{_AT}[0-9a-z-]{{1,63}}(?:{_DOT}[0-9a-z-]{{1,63}}){{0,3}}{_DOT}([a-z]{{2,24}})"
    r"| at [0-9a-z-]{1,63} dot (com|org|net|edu|gov))(?![0-9a-z_-])"
)
_SPELLED_ANCHOR = linear(SPELLED_ANCHOR)


def find_emails(text: str) -> Iterator[Span]:
    """E-mail addresses whose top-level domain exists."""
    at = text.find("@")
    while at >= 0:
        start = _local_part(text, at)
        domain = DOMAIN.match(text, at + 1) if start < at else None
        if domain is not None and is_tld(domain[1].lower()) and not _is_no_address(text, start, domain.end()):
            yield start, domain.end()
        at = text.find("@", at + 1)


def find_spelled_emails(text: str) -> Iterator[Span]:
    """E-mail addresses with words in the place of their signs."""
    for match in _SPELLED_ANCHOR.finditer(text):
        at = match.start() - (text[match.start() - 1 : match.start()] == " ")
        start = _local_part(text, at)
        domain = SPELLED.match(text, at) if start < at else None
        if domain is not None and is_tld((domain[1] or domain[2]).lower()):
            yield start, domain.end()


def _local_part(text: str, at: int) -> int:
    """Where the address begins; `at` itself where there is none."""
    start = at
    while start > 0 and at - start <= MAX_LOCAL_CHARS and text[start - 1] in LOCAL_CHARS:
        start -= 1
    if at - start > MAX_LOCAL_CHARS:
        return at
    while start < at and text[start] in ".%+-'":
        start += 1
    return start if start < at and text[at - 1] not in ".'" else at


def _is_no_address(text: str, start: int, end: int) -> bool:
    """@user@instance (a public handle), git@host (no person's), and a.b@c.call() in code."""
    return text[start - 1 : start] == "@" or text[end : end + 1] == "(" or text.startswith("git@", start)


# -------------------------------------------------------------------------------------------------- IP addresses

IPV4 = re.compile(r"(?<![0-9A-Za-z_.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_]|\.[0-9A-Za-z])")
# What stands before four numbers that are no address: "version", "Section", "Chrome/", "openssl-".
BEFORE_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|versions?|release|rel|revision|rev|build|firmware|fw|update|patch|kernel|driver|section|sec|"
    r"chapter|fig|figure|table|clause|appendix|article|paragraph|item|rule|oid)"
    r"|\u7248\u672c\u53f7?|\u00a7)[ .:#=\uff1avV]{0,3}$|[0-9A-Za-z_)][-/]$"
)
AROUND_ADDRESS = re.compile(
    r"(?i)\b(?:ip|ipv4|addr|address|host|hostname|server|client|dns|proxy|ping|gateway|peer|node|src|dst)"
)
# Outlines and versions count up from small numbers to not much larger ones.
OUTLINE_START, OUTLINE_END = 4, 50
IPV6_ANCHOR = r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]"
IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![0-9A-Za-z])")
DOCUMENTATION_V6 = ipaddress.ip_network("2001:db8::/32")


def ipv4_in(text: str, start: int, end: int) -> Iterator[Span]:
    """Public IPv4 addresses between two places; versions, outline numbers and documentation ranges are none."""
    for match in IPV4.finditer(text, start, min(len(text), end + 2)):
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:
            continue
        before = text[max(0, match.start() - 24) : match.start()]
        is_outline = min(address.packed) <= OUTLINE_START and max(address.packed) <= OUTLINE_END
        if (
            address.is_global
            and not address.is_multicast
            and not (is_outline and not AROUND_ADDRESS.search(before))
            and not (BEFORE_VERSION.search(before) and not before.endswith("//"))
        ):
            yield match.span()


def find_ipv6(text: str) -> Iterator[Span]:
    """Global unicast IPv6 addresses (2000::/3) outside the documentation range."""
    for match in IPV6.finditer(text):
        written = match[0]
        if written.endswith(":") and not written.endswith("::"):
            written = written[:-1]
        try:
            address = ipaddress.IPv6Address(written)
        except ValueError:
            continue
        if address.is_global and address not in DOCUMENTATION_V6:
            yield match.start(), match.start() + len(written)


# --------------------------------------------------------------------------------------------------------- cards

# Whole, in fours (with up to three more digits), or as on American Express and Diners cards; one kind of separator.
CARD = re.compile(
    r"(?<![0-9A-Za-z_.,/=-])(?<![0-9] )(?:[0-9]{13,19}(?![0-9A-Za-z_]|[.,-][0-9])|(?:"
    r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}|[0-9]{6}([ -])[0-9]{10,13}"
    r")(?![0-9A-Za-z_]|[ -][0-9]{4}|[.,][0-9]))"
)
TAIL = re.compile(r"[ -][0-9]{1,3}(?![0-9A-Za-z_])")
# (first digits, lengths): ISO/IEC 7812 prefixes of the networks in use.
_NETWORKS = (
    (("4",), (16, 19)),  # Visa
    (tuple(map(str, (*range(51, 56), *range(2221, 2721)))), (16,)),  # Mastercard
    (("34", "37"), (15,)),  # American Express
    (("6011", "65", *map(str, range(644, 650))), (16, 19)),  # Discover
    (tuple(map(str, range(3528, 3590))), (16, 17, 18, 19)),  # JCB
    (("36", "38", "39", *map(str, range(300, 306))), (14, 16)),  # Diners Club
    (("62", "81"), (16, 17, 18, 19)),  # UnionPay
    (("5018", "5020", "5038", "5893", "6304", "6759", "6761", "6762", "6763"), (16, 18, 19)),  # Maestro
    (tuple(map(str, range(2200, 2205))), (16, 19)),  # Mir
)


def cards_in(text: str, start: int, end: int) -> Iterator[Span]:
    """Numbers of payment cards: a network's first digits and length, and the check digit of Luhn."""
    for match in CARD.finditer(text, start, min(len(text), end + 2)):
        digits = match[0].translate(NO_DIGITS)
        stop = match.end()
        if not _is_card(digits) and (tail := TAIL.match(text, stop)):  # 19 digits: four fours and the rest
            digits, stop = digits + tail[0][1:], tail.end()
        if _is_card(digits) and not in_url(text, match.start()):
            yield match.start(), stop


def _is_card(digits: str) -> bool:
    return any(
        len(digits) in lengths and digits.startswith(prefixes) for prefixes, lengths in _NETWORKS
    ) and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# ---------------------------------------------------------------------------------- Chinese resident identity numbers

CN_ID = re.compile(r"(?<![0-9A-Za-z])[1-8][0-9]{16}[0-9Xx](?![0-9A-Za-z])")
_CN_REGIONS = frozenset(
    [
        *range(11, 16),
        *range(21, 24),
        *range(31, 38),
        *range(41, 47),
        *range(50, 55),
        *range(61, 66),
        71,
        81,
        82,
        83,
    ]
)
_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def cn_ids_in(text: str, start: int, end: int) -> Iterator[Span]:
    """Chinese resident identity numbers of 18 characters (GB 11643-1999): region, date of birth and checksum."""
    for match in CN_ID.finditer(text, start, min(len(text), end + 2)):
        if is_cn_id(match[0]):
            yield match.span()


def is_cn_id(number: str) -> bool:
    """Whether 18 characters are such a number (ISO 7064, MOD 11-2)."""
    if int(number[:2]) not in _CN_REGIONS:
        return False
    try:
        born = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _CN_WEIGHTS, strict=False))
    return 1880 <= born.year <= 2100 and "10X98765432"[total % 11] == number[17].upper()


# --------------------------------------------------------------------------------------------------------- IBAN

IBAN_ANCHOR = r"\b[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}"
_IBAN_START = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?=[ -]?[0-9A-Z]{4})")
# Characters of an IBAN by country (SWIFT's IBAN registry).
_IBAN_LENGTHS = {
    name: length
    for length, names in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
        32: "LC", 33: "RU",
    }.items()
    for name in names.split()
}  # fmt: skip


_IBAN_SEPARATORS = {ord(" "): None, ord("-"): None}


def find_ibans(text: str) -> Iterator[Span]:
    """International bank account numbers: the country's length and the checksum (ISO 13616, MOD 97-10)."""
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        # In fours, so that at most every fifth character is a separator.
        written = text[match.start() : match.start() + length + length // 4 + 1]
        number = written.translate(_IBAN_SEPARATORS)[:length]
        if (
            0 < length == len(number)
            and number.isalnum()
            and number.isupper()
            and number.isascii()
            and is_iban(number)
        ):
            end, seen = match.start(), 0
            while seen < length:
                seen += text[end] not in " -"
                end += 1
            follows = text[end : end + 1]
            if not (follows.isascii() and follows.isalnum()):
                yield match.start(), end


def is_iban(number: str) -> bool:
    """Whether the check digits are right; the length is not looked at."""
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1
