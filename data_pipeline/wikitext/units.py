"""`{{convert}}` and its like: the measure as the author gave it, number and unit; never the converted one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Code: (one, many, symbol). From the units of Module:Convert that articles use.
UNITS = {
    "m": ("metre", "metres", "m"),
    "metre": ("metre", "metres", "m"),
    "meter": ("metre", "metres", "m"),
    "km": ("kilometre", "kilometres", "km"),
    "cm": ("centimetre", "centimetres", "cm"),
    "mm": ("millimetre", "millimetres", "mm"),
    "um": ("micrometre", "micrometres", "μm"),
    "nm": ("nanometre", "nanometres", "nm"),
    "mi": ("mile", "miles", "mi"),
    "nmi": ("nautical mile", "nautical miles", "nmi"),
    "yd": ("yard", "yards", "yd"),
    "ft": ("foot", "feet", "ft"),
    "foot": ("foot", "feet", "ft"),
    "in": ("inch", "inches", "in"),
    "inch": ("inch", "inches", "in"),
    "AU": ("astronomical unit", "astronomical units", "AU"),
    "ly": ("light-year", "light-years", "ly"),
    "pc": ("parsec", "parsecs", "pc"),
    "fathom": ("fathom", "fathoms", "fathom"),
    "furlong": ("furlong", "furlongs", "furlong"),
    "kg": ("kilogram", "kilograms", "kg"),
    "g": ("gram", "grams", "g"),
    "mg": ("milligram", "milligrams", "mg"),
    "t": ("tonne", "tonnes", "t"),
    "MT": ("metric ton", "metric tons", "t"),
    "lb": ("pound", "pounds", "lb"),
    "lbs": ("pound", "pounds", "lb"),
    "oz": ("ounce", "ounces", "oz"),
    "st": ("stone", "stone", "st"),
    "ST": ("short ton", "short tons", "short tons"),
    "LT": ("long ton", "long tons", "long tons"),
    "ha": ("hectare", "hectares", "ha"),
    "acre": ("acre", "acres", "acres"),
    "acres": ("acre", "acres", "acres"),
    "L": ("litre", "litres", "L"),
    "l": ("litre", "litres", "l"),
    "mL": ("millilitre", "millilitres", "mL"),
    "cc": ("cubic centimetre", "cubic centimetres", "cc"),
    "USgal": ("US gallon", "US gallons", "US gal"),
    "impgal": ("imperial gallon", "imperial gallons", "imp gal"),
    "oilbbl": ("barrel", "barrels", "bbl"),
    "C": ("°C", "°C", "°C"),
    "F": ("°F", "°F", "°F"),
    "K": ("K", "K", "K"),
    "km/h": ("kilometre per hour", "kilometres per hour", "km/h"),
    "mph": ("mile per hour", "miles per hour", "mph"),
    "m/s": ("metre per second", "metres per second", "m/s"),
    "ft/s": ("foot per second", "feet per second", "ft/s"),
    "kn": ("knot", "knots", "kn"),
    "knot": ("knot", "knots", "kn"),
    "hp": ("horsepower", "horsepower", "hp"),
    "W": ("watt", "watts", "W"),
    "kW": ("kilowatt", "kilowatts", "kW"),
    "MW": ("megawatt", "megawatts", "MW"),
    "kWh": ("kilowatt hour", "kilowatt hours", "kWh"),
    "J": ("joule", "joules", "J"),
    "kJ": ("kilojoule", "kilojoules", "kJ"),
    "cal": ("calorie", "calories", "cal"),
    "kcal": ("kilocalorie", "kilocalories", "kcal"),
    "N": ("newton", "newtons", "N"),
    "kN": ("kilonewton", "kilonewtons", "kN"),
    "lbf": ("pound-force", "pounds-force", "lbf"),
    "Pa": ("pascal", "pascals", "Pa"),
    "kPa": ("kilopascal", "kilopascals", "kPa"),
    "psi": ("pound per square inch", "pounds per square inch", "psi"),
    "bar": ("bar", "bars", "bar"),
    "atm": ("standard atmosphere", "standard atmospheres", "atm"),
    "PD/sqmi": ("inhabitant per square mile", "inhabitants per square mile", "/sq mi"),
    "PD/km2": ("inhabitant per square kilometre", "inhabitants per square kilometre", "/km²"),
    "/sqmi": ("per square mile", "per square mile", "/sq mi"),
    "/km2": ("per square kilometre", "per square kilometre", "/km²"),
    "km/s": ("kilometre per second", "kilometres per second", "km/s"),
    "g/cm3": ("gram per cubic centimetre", "grams per cubic centimetre", "g/cm³"),
    "kg/m3": ("kilogram per cubic metre", "kilograms per cubic metre", "kg/m³"),
    "cuft/s": ("cubic foot per second", "cubic feet per second", "cu ft/s"),
    "m3/s": ("cubic metre per second", "cubic metres per second", "m³/s"),
}
POWERS = (("sq", "", "square"), ("cu", "", "cubic"), ("", "2", "square"), ("", "3", "cubic"))
# What may stand between the two numbers of a range.
RANGES = {
    "-": "–",
    "–": "–",
    "to": " to ",
    "to(-)": " to ",
    "and": " and ",
    "&": " and ",
    "and(-)": " and ",
    "or": " or ",
    "by": " by ",
    "x": " × ",
    "×": " × ",
    "xx": " × ",
    "by(x)": " by ",
    "+/-": " ± ",
    "±": " ± ",
    "+": " + ",
    "to about": " to about ",
}
NUMBER = re.compile(r"[-+\u2212]?[\d.,]+(?:e[-+]?\d+)?(?:[+\u2044/ ]*\d+/+\d+|/+\d+)?", re.IGNORECASE)


def convert(values: Sequence[str], named: Mapping[str, str], default_style: str) -> str:
    """The given measure of `{{convert|values|named}}`: "10 to 20 kilometres", "6 feet 2 inches", "5-mile".

    Args:
        values: positional parameters: number, perhaps range words and numbers, unit, then what is not needed.
        default_style: "long" for names of units, "short" for symbols (`{{cvt}}`).
    """
    style = {"on": "short", "in": "short", "off": "long"}.get(named.get("abbr", ""), default_style)
    adjective = named.get("adj", "") in ("on", "mid", "pre", "1")
    text, index = "", 0
    while index < len(values) and NUMBER.fullmatch(values[index]):
        number, index = values[index].replace("//", "/").replace("+", " ", 1).strip(), index + 1
        while index + 1 < len(values) and values[index] in RANGES:
            number += RANGES[values[index]] + values[index + 1]
            index += 2
        if index >= len(values):
            return text or number  # behind a unit, a last number is how far to round
        unit = unit_name(values[index], number, style, adjective)
        index += 1
        text += f"{' ' if text else ''}{number}{'-' if adjective and style == 'long' else ' '}{unit}"
    text = text or " ".join(values[:2])
    return text.replace("metre", "meter").replace("litre", "liter") if named.get("sp") == "us" else text


def unit_name(code: str, number: str, style: str = "long", adjective: bool = False) -> str:
    """The unit's name or symbol beside `number`; a code that is not known stands for itself."""
    if code not in UNITS:
        for prefix, suffix, word in POWERS:
            base = code.removeprefix(prefix).removesuffix(suffix)
            if code == prefix + base + suffix and base in UNITS and base != code:
                mark = {"square": "²", "cubic": "³"}[word]
                name = unit_name(base, number, style, adjective)
                return f"{word} {name}" if style == "long" else name + mark
        return code
    one, many, symbol = UNITS[code]
    if style == "short":
        return symbol
    return one if adjective or number in ("1", "-1", "1.0") else many
