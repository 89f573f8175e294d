"""Phone numbers in running text: international, North American, Chinese, and national ones in the forms people write.

Digits alone prove nothing, so a number counts by its form (a plus and a country's code, brackets and dashes where
phone numbers have them) or by the word before it ("Tel.", "电话"). Numbers in rows of numbers are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipeline.privacy.identifiers import NO_DIGITS, Span, in_url

_DASH = "[-\u2010-\u2015\uff0d]"
# No digit or letter next to it, and no sign of a path, of a price or of a decimal.
_START = r"(?<![0-9A-Za-z_/=&?#@$\u20ac\u00a3\u00a5\uffe5])(?<![0-9][.,\-])(?<![-+])"
_STOP = r"(?![0-9A-Za-z_%]|[.,\-/][0-9])"
# Nor a number in a row of numbers, one space apart.
_ROW_START, _ROW_STOP = rf"{_START}(?<![0-9] )", rf"{_STOP}(?![ .\-/] ?[0-9])"
_EXTENSION = r"(?:(?: ?(?:ext|x|extension|转|分机)[.:]? ?|-)[0-9]{1,5})?"
# Forms that say enough by themselves.
COMPLETE = (
    # China, mobile: 11 digits, also in 3-4-4, also with the country's code.
    r"(?:86[ \-]?)?1[3-9][0-9](?:[0-9]{8}|[ \-][0-9]{4}[ \-][0-9]{4})",
    # China, landline: area code apart from the number.
    rf"(?:86[ \-]?)?(?:0(?:10|2[0-9]|[3-9][0-9]{{2}}) ?{_DASH} ?|[(（]0(?:10|2[0-9]|[3-9][0-9]{{2}})[)）] ?{_DASH}?)"
    r"[2-8][0-9]{2,3}[ \-]?[0-9]{4}",
)
# Forms that tables of numbers may have too.
IN_GROUPS = (
    # North America (NANP): area code and exchange begin with 2 to 9.
    r"(?:\+?1[ .\-]{1,2})?(?:\([2-9][0-9]{2}\) ?[\-.]?|[2-9][0-9]{2}[.\-/])[2-9][0-9]{2}[ .\-][0-9]{4}",
    # With the zero of national calls: France in pairs; Britain, Australia, Japan, Korea; Germany and its neighbours.
    r"\(?0[1-9]\)?(?:[ .\-][0-9]{2}){4}",
    r"(?:\(0[1-9][0-9]{0,3}\) ?|0[1-9][0-9]{0,3}[ \-])[0-9]{3,4}[ \-][0-9]{3,4}",
    r"0[1-9][0-9]{2,4} [0-9]{6,8}",
    r"0[1-9][0-9]{1,4}(?: ?/ ?[0-9]{5,9}(?:-[0-9]{1,4})?| [0-9]{4,8}-[0-9]{1,4}| [0-9]{3} [0-9]{2} [0-9]{2})",
)
FORMS = re.compile(
    f"{_START}(?:{'|'.join(COMPLETE)}){_EXTENSION}{_STOP}|{_ROW_START}(?:{'|'.join(IN_GROUPS)}){_EXTENSION}{_ROW_STOP}"
)
# What may stand between two groups of one number.
_GROUPS = r"[0-9]+(?:(?:[ .\-/()\u2010-\u2015]|\(0\)){1,4}[0-9]+){0,7}"
PLUS = re.compile(rf"(?<![0-9A-Za-z+])\+ ?\(?({_GROUPS})(?![0-9]|[A-Za-z_%])")
ZERO_ZERO = re.compile(rf"{_ROW_START}00([1-9][0-9]{{0,2}}[ .\-/(]{{1,2}}{_GROUPS}){_ROW_STOP}")
LABELLED = re.compile(rf"\(?({_GROUPS}){_EXTENSION}(?![0-9A-Za-z_%]|[.,][0-9])")
_STRONG = (
    r"(?:tele?fon|telefax|hotline|helpline)(?:nummer)?|(?<![a-z])(?:tel(?:e(?:phone|fono|fone))?|phone|fax|"
    r"t\u00e9l(?:\u00e9phone|\u00e9copie)?|tel\u00e9fono|whats ?app)|电\s?话|手\s?机|传\s?真|热\s?线|電話|手機|携帯|傳真|专线"
    r"|тел(?:ефон)?|факс|전화"
)
_WEAK = (
    r"(?<![a-z])(?:ph(?=[.: ])|mobile?|mob|cell(?:ular)?|handy|fon|portable|m[o\u00f3]vil|celular|dial|text|sms|"
    r"contact|call(?: us| me)?(?: now| today| toll[ -]free)?)"
)
LABEL = re.compile(
    rf"(?i)(?:(?P<strong>{_STRONG})|{_WEAK})(?: ?(?:no|nr|number|num\u00e9ro|n\u00b0|号码|号|番号)\b)?"
    r"(?: ?/ ?fax)?(?: (?:at|on|is|unter(?: der (?:telefon)?nummer)?))?[ .:：=()（#|-]{0,5}$"
)
DATE = re.compile(
    r"(?:19|20)[0-9]{2}[-./ ][0-9]{1,2}[-./ ][0-9]{1,2}|[0-9]{1,2}[-./ ][0-9]{1,2}[-./ ](?:19|20)[0-9]{2}"
)
MAX_DIGITS_IN_A_ROW = 13
# E.164: country calling codes; those of three digits are given as they were handed out, in tens.
_CODES = frozenset(
    map(
        str,
        (1, 7, 20, 27, *range(30, 35), 36, 39, 40, 41, *range(43, 50), *range(51, 59), *range(60, 67), 81, 82, 84, 86,
         *range(90, 96), 98, *range(210, 270), *range(290, 300), *range(350, 360), *range(370, 390), *range(420, 424),
         *range(500, 510), *range(590, 600), *range(670, 693), 800, 808, *range(850, 860), 870, *range(878, 890),
         *range(960, 970), *range(970, 980), *range(992, 999)),
    )
)  # fmt: skip


def phones_in(text: str, start: int, end: int, num_digits: int) -> Iterator[Span]:
    """Phone numbers that have their digits between two places.

    Args:
        num_digits: digits between them.
    """
    first = max(0, start - 3)
    last = min(len(text), end + 12)
    plus = text.rfind("+", first, start)
    if plus >= 0:
        match = PLUS.match(text, plus, last)
        if match and _is_international(match[1]) and not _is_sum(text, plus, match[1]):
            yield match.span()
            return
    if text.startswith("00", start):
        match = ZERO_ZERO.match(text, start, last)
        if match and _is_international(match[1]):
            yield match.span()
            return
    if num_digits <= 15:
        begin = start - (text[start - 1 : start] == "(")
        label = LABEL.search(text, max(0, begin - 40), begin)
        match = LABELLED.match(text, begin, last) if label else None
        if label and match and _is_labelled(match[1], is_sure=label["strong"] is not None):
            yield match.start() + (match[0][0] == "(" and ")" not in match[0]), match.end()
            return
    for match in FORMS.finditer(text, max(0, start - 2), last):
        if not in_url(text, match.start()):
            yield match.span()


def _is_sum(text: str, plus: int, written: str) -> bool:
    """Whether a plus stands between two terms, or before more digits in a row than are dialled."""
    words = text[max(0, plus - 40) : plus].rsplit("\n", 1)[-1].split()
    before = words[-1] if words else ""
    if text[plus + 1] == " ":  # as few write it: after a word, and in groups
        return (
            not (before.endswith((":", "：")) or (len(before) > 1 and before.isalpha())) or written.isdigit()
        )
    return written.isdigit() and (
        before.endswith(tuple("0123456789)]}=")) or len(written) > MAX_DIGITS_IN_A_ROW
    )


def _is_labelled(written: str, is_sure: bool) -> bool:
    """Whether what stands after a label is a number to call."""
    digits = written.translate(NO_DIGITS)
    has_form = is_sure or digits != written or digits.startswith("0") or len(digits) in (10, 11)
    return 7 <= len(digits) <= 15 and has_form and not DATE.match(written)


def _is_international(written: str) -> bool:
    """Whether digits, with whatever stands between them, are a calling code and as many digits as E.164 allows."""
    digits = written.translate(NO_DIGITS)
    return 8 <= len(digits) <= 15 and any(digits[:length] in _CODES for length in (1, 2, 3))
