"""Templates that carry text, and what a reader sees of them. Every other template is left out.

Names are those of the large Wikipedias (en, de, fr, es, ja, ko, zh, bg, ru, it, pt); they do not collide in what
their parameters mean. What would need the wiki's data or today's date (ages, inflation, flags) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data_pipeline.wikitext.units import convert


@dataclass(frozen=True)
class Parameters:
    """A template's parameters, rendered.

    Attributes:
        name: the template's name, folded as by `folded`.
        values: positional ones, in order.
        named: the others.
    """

    name: str
    values: Sequence[str]
    named: Mapping[str, str]

    def at(self, index: int, *names: str) -> str:
        """The first of the named ones that is there, or the positional one (from 0), or ""."""
        for name in names:
            if self.named.get(name):
                return self.named[name]
        return self.values[index] if 0 <= index < len(self.values) else ""


Rendering = Callable[[Parameters], str]

SUPERSCRIPTS = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
SUBSCRIPTS = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
NUMBER = re.compile(r"[-−]?[0-9]{1,15}(?:\.[0-9]{1,15})?")
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]{2,8})*")


def superscript(text: str) -> str:
    """Digits and signs raised: 10<sup>6</sup> is not 106. Other text as it is."""
    return text.translate(SUPERSCRIPTS) if text and all(ord(c) in SUPERSCRIPTS for c in text) else text


def subscript(text: str) -> str:
    """Digits and signs lowered; other text as it is."""
    return text.translate(SUBSCRIPTS) if text and all(ord(c) in SUBSCRIPTS for c in text) else text


def _day(year: str, month: str, day: str, day_first: bool) -> str:
    if month.isdecimal() and 1 <= int(month[:3]) <= 12:
        month = MONTHS[int(month) - 1]
    day = day.lstrip("0") if day.isdecimal() else day
    if not day_first and month and day:
        return f"{month} {day}, {year}"
    return " ".join(filter(None, (day, month, year)))


def _date(given: Parameters) -> str:
    return _day(given.at(0), given.at(1), given.at(2), given.named.get("df", "")[:1].lower() in ("y", "1"))


def _as_of(given: Parameters) -> str:
    if given.named.get("alt"):
        return given.named["alt"]
    start = "since" if given.named.get("since") else "as of"
    start = start if given.named.get("lc") else start.capitalize()
    return f"{start} {_day(given.at(0), given.at(1), given.at(2), given.named.get('df') != 'US')}"


def _fraction(given: Parameters) -> str:
    parts = [part for part in given.values if part]
    if len(parts) == 1:
        return f"1/{parts[0]}"
    return parts[0] + f" {parts[1]}/{parts[2]}" if len(parts) > 2 else "/".join(parts)


def _val(given: Parameters) -> str:
    number = given.at(0)
    if len(given.values) > 2:
        number += f" +{given.at(1).lstrip('+')} −{given.at(2).lstrip('-−')}"
    elif given.at(1):
        number += given.at(1) if given.at(1).startswith("(") else f"±{given.at(1)}"
    if given.at(-1, "e"):
        number += f"×10{superscript(given.at(-1, 'e'))}"
    unit = given.at(-1, "u", "ul")
    return given.at(-1, "p") + (f"{number}{'' if unit[:1] in '%°' else ' '}{unit}" if unit else number)


def _chinese(given: Parameters) -> str:
    """`{{zh|s=...|t=...|p=...}}`: the words, then how they are read."""
    words = [given.named[key] for key in ("c", "s", "t") if given.named.get(key)] or list(given.values[:1])
    read = [given.named[key] for key in ("p", "hp", "w", "j") if given.named.get(key)][:1]
    return "; ".join(dict.fromkeys(words + read))


def _nihongo(given: Parameters) -> str:
    first, *inside = given.values[:4] or [""]
    if given.name == "nihongo3":
        first, inside = given.at(2), [given.at(1), given.at(0), given.at(3)]
    inner = ", ".join(filter(None, inside))
    return f"{first} ({inner})" if first and inner else first or inner


def _lang(given: Parameters) -> str:
    return given.at(1, "text") or ("" if LANGUAGE_CODE.fullmatch(given.at(0)) else given.at(0))


def _ipa(given: Parameters) -> str:
    text = given.at(1) if LANGUAGE_CODE.fullmatch(given.at(0)) and given.at(1) else given.at(0)
    return text if text[:1] in ("/", "[", "⟨") or given.name == "ipa" else f"[{text}]" if text else ""


IPA_WORDS = frozenset(
    ("lang", "pron", "local", "us", "uk", "also", "audio", "us+", "label", "usalso", "ukalso")
)


def _ipac(given: Parameters) -> str:
    sound = "".join(value for value in given.values if value.lower() not in IPA_WORDS)
    return f"/{sound}/" if sound and "." not in sound[-5:-2] else ""


def _currency(given: Parameters) -> str:
    sign = CURRENCIES[given.name]
    amount = given.at(0)
    return f"{amount} €" if given.name == "euro" else f"{sign}{amount}" if amount else sign


CURRENCIES = {
    "us$": "US$",
    "usd": "US$",
    "a$": "A$",
    "aud": "A$",
    "ca$": "CA$",
    "cad": "CA$",
    "nz$": "NZ$",
    "£": "£",
    "gbp": "£",
    "€": "€",
    "eur": "€",
    "euro": "€",
    "¥": "¥",
    "jpy": "¥",
    "cny": "CN¥",
    "inr": "₹",
    "rub": "₽",
    "₹": "₹",
    "indian rupee": "₹",
    "krw": "₩",
    "hk$": "HK$",
    "pound sterling": "£",
}


def _century(given: Parameters) -> str:
    """`{{s|XIX|e}}` (fr), `{{siglo|XIX||s}}` (es)."""
    if given.name == "siglo":
        return f"{'Siglo' if given.at(2).startswith('S') else 'siglo'} {given.at(0)} {given.at(1)}".strip()
    parts = list(given.values)
    if given.name in ("sp", "sp-", "-sp", "-sp-") and len(parts) >= 4:
        first = f"{parts[0]}{parts[1]} {parts[2]} {parts[3]}{parts[4] if len(parts) > 4 else 'e'}"
        return f"{first} {'siècles' if given.name in ('sp', '-sp') else ''}".strip()
    word = " siècle" if given.name in ("s", "-s", "s mini", "mini s") else ""
    era = " av. J.-C." if given.name.startswith("-") or (given.name.startswith("av")) else ""
    return f"{given.at(0)}{given.at(1) or 'e'}{word}{era}" if given.at(0) else ""


def _quote(given: Parameters) -> str:
    # An English {{citation}} is a reference: all its parameters are named.
    return given.at(0, "text", "quote", "texte", "Text") if given.values or given.name != "citation" else ""


def _unit(given: Parameters) -> str:
    """`{{unité|5|km|2}}`, `{{nombre|5|habitants}}` (fr), `{{unidad|5|km}}` (es): number, unit, power."""
    number, unit, power = given.at(0), given.at(1), given.at(2)
    if given.at(-1, "e"):
        number += f"×10{superscript(given.at(-1, 'e'))}"
    return (
        f"{number} {unit}{superscript(power)}".strip()
        if given.name != "nombre"
        else f"{number} {unit}".strip()
    )


def _temperature(given: Parameters) -> str:
    return f"{given.at(0)} {given.at(1) or '°C'}" if given.at(0) else ""


def _coordinates(given: Parameters) -> str:
    """`{{coord|13|19|N|169|9|W|...}}`, `{{coord|52.5|-13.4}}`: in the text, unless for the page's title only."""
    if given.named.get("display", "inline").strip().startswith("t"):
        return ""
    parts: list[str] = []
    angles: list[str] = []
    for value in given.values:
        if value in ("N", "S", "E", "W", "O"):
            parts.append("".join(map("{}{}".format, angles, "°′″")) + value)
            angles = []
        elif NUMBER.fullmatch(value):
            angles.append(value)
    if not parts and len(angles) == 2:
        signs = (("N", "S"), ("E", "W"))
        parts = [
            f"{angle.lstrip('-−')}°{pair[angle[0] in '-−']}"
            for angle, pair in zip(angles, signs, strict=True)
        ]
    return " ".join(parts) if len(parts) == 2 else ""


def _density(given: Parameters) -> str:
    """`{{pop density|3645257|640081.87|km2|sqmi|prec=1}}`: by the unit of the area that is given."""
    people, area = (value.replace(",", "") for value in (given.at(0), given.at(1)))
    if not (NUMBER.fullmatch(people) and NUMBER.fullmatch(area)) or not float(area):
        return ""
    digits = given.named.get("prec", "0")
    unit = {"km2": "km²", "sqmi": "sq mi"}.get(given.at(2), given.at(2))
    return f"{float(people) / float(area):,.{int(digits) if digits in ('1', '2', '3') else 0}f}/{unit}"


def _money(given: Parameters) -> str:
    """`{{currency|13 billion|USD}}`."""
    return f"{CURRENCIES.get(given.at(1).lower(), given.at(1) and given.at(1) + ' ')}{given.at(0)}"


def _old_style(given: Parameters) -> str:
    """`{{OldStyleDate|February 2|1905|January 20}}`."""
    old = f" [O.S. {given.at(2)}]" if given.at(2) else ""
    return f"{given.at(0)}{old} {given.at(1)}".strip()


def _verse(given: Parameters) -> str:
    """`{{bibleref|Mark|3:25|9}}`, `{{bibleverse|1|John|4:8}}`, `{{cite quran|29|46}}`."""
    if "quran" in given.name:
        return f"Quran {':'.join(filter(None, given.values[:2]))}"
    place = next((index for index, value in enumerate(given.values) if ":" in value), 1)
    return " ".join(filter(None, given.values[: place + 1]))  # what follows is the edition


def _ship(given: Parameters) -> str:
    number = given.at(1)
    return f"{given.name.upper()} {given.at(0)}" + (f" ({number})" if number and given.at(2) != "2" else "")


def _first(given: Parameters) -> str:
    return given.at(0, "1", "text", "content")


def _last(given: Parameters) -> str:
    return given.named.get("text") or next((value for value in reversed(given.values) if value), "")


def _second(given: Parameters) -> str:
    return given.at(1, "2", "text") or given.at(0)


def _list(given: Parameters) -> str:
    return ", ".join(filter(None, (value.strip() for value in given.values)))


def _lines(given: Parameters) -> str:
    return "\n" + given.at(0) + "\n" if given.at(0).startswith("- ") else _list(given)


def _joined(given: Parameters) -> str:
    return "".join(given.values)


def _words(given: Parameters) -> str:
    return " ".join(filter(None, given.values))


def _constant(text: str) -> Rendering:
    return lambda given: text


def _around(before: str, after: str) -> Rendering:
    return lambda given: f"{before}{given.at(0)}{after}" if given.at(0) else ""


def _named(names: str, rendering: Rendering) -> dict[str, Rendering]:
    return dict.fromkeys(names.split("|"), rendering)


TEMPLATES: dict[str, Rendering] = {
    # Text in a dress.
    **_named(
        "nowrap|nobr|nobreak|j|small|smaller|larger|big|large|abbr|abbreviation|tooltip|abréviation|nobold|noitalic|"
        "normal|em|strong|bold|b|i|it|u|underline|code|mono|samp|kbd|keyboard|var|mvar|math|smallcaps|"
        "sc|sc2|smallcaps all|aut|not a typo|proper name|as written|typo|sic|visible anchor|vanchor|ill-wd|"
        "center|centre|block indent|indented|indent|longitem|columns-list|colonnes|mehrspaltige liste|"
        "poem|petit|pc|corr|日本語|小|太字|補助漢字フォント|jis2004フォント|jis90フォント|拡張漢字|"
        "한자|작게|굵게|esd|versalita|versalitas|пр|nobr2|kapitälchen|sperrschrift|formnum|"
        "cjk|nihongo core|plain text|native phrase|screen reader-only|font|polytonic",
        _first,
    ),
    **_named("nowrap begin|nowrap end|nowraplinks|nobr end|0|clear", _constant("")),
    **_named("resize|align|color|colour|font color|fontcolor|script|textcolor|fc|bg|couleur", _last),
    **_named("sort|tri|sorting", _second),
    **_named("transl|transliteration|translit|rtl-lang|tlit", _last),
    **_named("gloss", _around("‘", "’")),
    **_named("angbr|angle bracket|angbr ipa|vr", _around("⟨", "⟩")),
    **_named("bracket|interp|interpolation", _around("[", "]")),
    **_named("incise", _around("– ", " –")),
    **_named("sup|superscript|exp|exposant|pow", lambda given: superscript(given.at(0))),
    **_named("sub|subscript|ind|indice", lambda given: subscript(given.at(0))),
    **_named("chem|chem2|chemf|formule chimique|fchim", lambda g: "".join(map(subscript, g.values))),
    **_named("linktext|gaps", _joined),
    **_named("keypress|key press|key|touche", lambda given: "+".join(given.values)),
    **_named("hlist|ubl|unbulleted list|plain list|unbulleted|liste horizontale", _list),
    **_named("plainlist|flatlist|bulleted list|unordered list", _lines),
    **_named("sortname", lambda given: f"{given.at(0)} {given.at(1)}".strip()),
    **_named(
        "ill|interlanguage link|link-interwiki|interlanguage link multi", lambda g: g.at(0, "lt", "display")
    ),
    **_named("lien", lambda given: given.at(0, "texte", "fr", "trad")),
    **_named("仮リンク", lambda given: given.at(0, "label")),
    **_named("tsl|translink", lambda given: given.at(3) or given.at(2)),
    **_named("le|link-en|link-de|link-fr|link-ja|link-ru|link-es|link-it", lambda g: g.at(2) or g.at(0)),
    **_named("flag|flagu|flagcountry|flaglist|국기나라|flag2|旗|国旗", _first),
    **_named("url|website", lambda given: given.at(1) or given.at(0)),
    **_named(
        "native name|native name list|lang-rus|lang-ukr", lambda g: g.at(1) if g.name[0] == "n" else g.at(0)
    ),
    # Languages and how words sound.
    **_named("lang|langue|langx|llang|idioma|lengua|foreign|lang2|en langue", _lang),
    **_named("latin|nq|nastaliq|souverain|souverain2|souverain-", lambda g: g.at(0).partition(" (")[0]),
    **_named("zh|lang-zh|zh-cpl|zh-cp|zh-tp|zh-sp|zh-tsp|zh-full", _chinese),
    **_named("nihongo|nihongo2|nihongo3|nihongo4|nihongo title|nihongo krt", _nihongo),
    **_named("読み仮名|読み|読み仮名 ruby不使用|ruby|ルビ|ruby-ja", lambda g: f"{g.at(0)}（{g.at(1)}）"),
    **_named("ipa|api|afi|ipa-all", _ipa),
    **_named("ipac-en", _ipac),
    **_named("msapi", lambda given: f"[{''.join(given.values)}]"),
    **_named("ipaslink", _around("/", "/")),
    **_named("ipablink", _around("[", "]")),
    **_named("ipalink", _first),
    **_named("respell", lambda given: "-".join(filter(None, given.values))),
    # Quotations.
    **_named("quote|blockquote|quotation|cquote|bquote|poemquote|poem quote|citation|cita", _quote),
    **_named("zitat|citation bloc|verse translation|引用|인용문|cytat|цитата", _quote),
    **_named('"|“', _around("„", "“")),
    **_named("bibleref|bibleref2|bibleverse|bibleverse-nb|sourcetext|cite quran|quran-usc", _verse),
    # Measures and numbers.
    **_named("convert|conv|convertir", lambda given: convert(given.values, given.named, "long")),
    **_named("cvt", lambda given: convert(given.values, given.named, "short")),
    **_named("frac|sfrac|fraction|sfraction|½", _fraction),
    **_named("val|number|nts", _val),
    **_named("tmp", _temperature),
    **_named("coord", _coordinates),
    **_named("pop density|popdens", _density),
    **_named("currency", _money),
    **_named("unité|unite|nombre|unidad|num|nb", _unit),
    **_named("höhe", lambda given: f"{given.at(0)} m" if given.at(0) else ""),
    **_named(
        "heure", lambda given: " h ".join(filter(None, given.values[:2])) + ("" if given.at(1) else " h")
    ),
    **_named("|".join(CURRENCIES), _currency),
    **_named(
        "us patent",
        lambda g: f"U.S. Patent {int(g.at(0)):,}" if g.at(0).isascii() and g.at(0).isdecimal() else "",
    ),
    **_named(
        "height", lambda g: " ".join(f"{g.named[k]} {k}" for k in ("m", "cm", "ft", "in") if k in g.named)
    ),
    **_named("railgauge|rail gauge|track gauge", _first),
    **_named("simplenuclide|simplenuclide2|nuclide|nuclide2", lambda g: "-".join(filter(None, g.values[:2]))),
    **_named("e", lambda given: f"×10{superscript(given.at(0))}" if given.at(0) else "e"),
    **_named("esp|10^", lambda given: f"10{superscript(given.at(0))}"),
    **_named("formatnum|lc|uc|ucfirst|lcfirst", _first),
    # Dates.
    **_named(
        "birth date|birth date and age|birth-date|bda|dob|death date|death date and age|death-date|start date|"
        "start date and age|end date|end date and age|film date|birth year and age|birth date and age2|dts|"
        "launch date|release date|opening date|death year and age|published date",
        _date,
    ),
    **_named("as of|asof", _as_of),
    **_named("oldstyledate", _old_style),
    **_named("oldstyledatedy|oldstyledateny", _old_style),
    **_named("date|date-|date de naissance|date de décès|fecha|date sport|date de naissance-", _words),
    **_named("circa|c.|ca.|ca|approx", lambda given: f"c. {given.at(0)}".strip()),
    **_named("floruit|fl.", lambda given: f"fl. {'–'.join(filter(None, given.values))}".strip()),
    **_named("reign|r.", lambda given: f"r. {'–'.join(filter(None, given.values))}"),
    **_named("s|-s|s-|-s-|s mini|sp|sp-|-sp|-sp-|siglo|siècle|av s", _century),
    **_named("smn", _words),
    **_named("ac", _constant("a. C.")),
    **_named("dc", _constant("d. C.")),
    # Single signs.
    **_named("!|pipe", _constant("|")),
    **_named("=", _constant("=")),
    **_named("'|'-", _constant("'")),
    **_named("'s", _constant("'s")),
    **_named("·|•|dot|middot|bullet|bull|sdot", _constant(" · ")),
    **_named("nbsp|space|spaces|thinsp|thin space|hair space|hairsp|nnbsp|espace", _constant(" ")),
    **_named("snd|spnd|spaced ndash|spaced en dash|sndash|dash|en dash spaced|–", _constant(" – ")),
    **_named("ndash|en dash|nsndns|endash", _constant("–")),
    **_named("mdash|em dash|emdash|---|—", _constant("—")),
    **_named("mdashb|spaced mdash|spaced em dash|smdash", _constant(" — ")),
    **_named("etc.|etc", _constant("etc.")),
    **_named("...|ellipsis|points de suspension|[...]", _constant("...")),
    **_named(",", _constant(",")),
    **_named("p.|pp.|vol.", lambda given: f"{given.name} {given.at(0)}".strip()),
    **_named("er|ier", _constant("er")),
    **_named("ère|ière|re", _constant("re")),
    **_named("ème|ième", _constant("e")),
    **_named("n°|n|numéro", _constant("n° ")),
    **_named("uss|hms|ss|hmas|hmcs|rms|sms|mv|ms|usns|uscgc", _ship),
    **_named(
        "music",
        lambda g: {"flat": "♭", "sharp": "♯", "natural": "♮", "b": "♭", "#": "♯"}.get(g.at(0), g.at(0)),
    ),
}
# "{{lang-fr|Bonjour}}", "{{IPA-de|...}}": one rendering for many names.
FAMILIES: tuple[tuple[re.Pattern[str], Rendering], ...] = (
    (re.compile(r"lang-[a-z-]{2,15}"), _first),
    (re.compile(r"(?:ipa|api|afi)-[a-z-]{2,8}"), _ipa),
    (re.compile(r"script/[a-z ]{2,30}"), _first),
    (re.compile(r"link-[a-z]{2,3}"), lambda given: given.at(2) or given.at(0)),
    # French ordinals and centuries that are templates by their own name: {{1er janvier}}, {{XXe siècle}}, {{84e}}.
    (
        re.compile(r"(?:1er|1re|\d{1,3}e|[ivxlc]{1,8}e)(?: [a-zéèû]{2,10})?"),
        lambda given: _own_name(given.name),
    ),
)
PREFIXES = ("template:", "vorlage:", "modèle:", "plantilla:", "шаблон:", "subst:", "safesubst:")
# Parser functions take their first parameter after a colon: {{formatnum:1000}}.
FUNCTIONS = frozenset(("formatnum", "lc", "uc", "lcfirst", "ucfirst"))


def _own_name(name: str) -> str:
    roman = re.match(r"[ivxlc]{1,8}(?=e\b)", name)
    return name[: roman.end()].upper() + name[roman.end() :] if roman else name


def folded(name: str) -> str:
    """A template's name as the tables here have it."""
    name = " ".join(name[:100].replace("_", " ").split()).lower()
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def rendering_of(name: str) -> Rendering | None:
    """What renders the template of this folded name; None for one that carries no text."""
    if found := TEMPLATES.get(name):
        return found
    return next((rendering for pattern, rendering in FAMILIES if pattern.fullmatch(name)), None)


def carries_text(content: str) -> bool:
    """Whether what is between "{{" and "}}" is a template that is kept."""
    name = folded(content[:200].partition("|")[0])
    return name.partition(":")[0] in FUNCTIONS or rendering_of(name) is not None


def render(name: str, values: Sequence[str], named: Mapping[str, str]) -> str:
    """A template's text, "" where it carries none.

    Args:
        values, named: its parameters, rendered.
    """
    name = folded(name)
    function, colon, first = name.partition(":")
    if colon and function in FUNCTIONS:
        name, values = function, [first.strip(), *values]
    rendering = rendering_of(name)
    # {{lang|1=fr|2=Bonjour}}: positional parameters may be given by number.
    numbered = [named[key] for key in map(str, range(1, 6)) if key in named]
    return rendering(Parameters(name, [*values, *numbered], named)) if rendering else ""
