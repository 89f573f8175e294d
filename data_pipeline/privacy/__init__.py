"""Personal data out of the text: each find gives way to a tag that says what stood there, and is counted by kind.

The tags are those of StarCoder's and Presidio's making (`<EMAIL>`): a model sees that something was there, a tokenizer
may keep them whole, and no made-up address takes the place of a real one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import pyarrow as pa

from data_pipeline.config import PII_KINDS, PrivacyConfig
from data_pipeline.patterns import linear
from data_pipeline.privacy import api_keys, identifiers, phone_numbers
from data_pipeline.schema import replace_column

TAGS = {kind: f"<{kind.upper()}>" for kind in PII_KINDS}
# (start, place of its kind in PII_KINDS, end).
Find = tuple[int, int, int]


def mask(table: pa.Table, config: PrivacyConfig) -> pa.Table:
    """The table with the personal data of `text` and `title` masked, and their counts by kind as JSON in `pii`.

    `pii` is "{}" where nothing was found, and null where nothing was looked for.
    """
    if not config.enabled or not config.kinds:
        return replace_column(table, "pii", pa.nulls(table.num_rows, pa.string()))
    texts, titles, counts = [], [], []
    for text, title in zip(table["text"].to_pylist(), table["title"].to_pylist(), strict=True):
        masked, found = mask_text(text, config.kinds)
        texts.append(masked)
        masked, found_in_title = mask_text(title or "", config.kinds)
        titles.append(masked)
        counts.append(json.dumps(dict(sorted((found + found_in_title).items())), separators=(",", ":")))
    for name, values in (("text", texts), ("title", titles), ("pii", counts)):
        table = replace_column(table, name, pa.array(values, pa.string()))
    return table


def mask_text(text: str, kinds: Collection[str] = PII_KINDS) -> tuple[str, Counter[str]]:
    """The text with tags in the place of personal data, and how many of each kind there were."""
    counts: Counter[str] = Counter()
    parts: list[str] = []
    done = 0
    for start, end, kind in find(text, kinds):
        parts += (text[done:start], TAGS[kind])
        counts[kind] += 1
        done = end
    return ("".join(parts) + text[done:] if parts else text), counts


def find(text: str, kinds: Collection[str] = PII_KINDS) -> list[tuple[int, int, str]]:
    """(start, end, kind) of all personal data, in order; finds that overlap are one, of the kind that comes first."""
    kept: list[Find] = []
    for start, place, end in sorted(_finds(text, frozenset(kinds))):
        if not kept or start >= kept[-1][2]:
            kept.append((start, place, end))
        else:
            first, other, last = kept[-1]
            kept[-1] = (first, min(place, other), max(end, last))
    return [(start, end, PII_KINDS[place]) for start, place, end in kept]


def _finds(text: str, kinds: frozenset[str]) -> Iterator[Find]:
    if "email" in kinds and "@" in text:
        yield from _placed("email", identifiers.find_emails(text))
    if (rare := _rare(kinds)) is not None and rare.search(text):
        if "email" in kinds:
            yield from _placed("email", identifiers.find_spelled_emails(text))
        if "api_key" in kinds:
            yield from _placed("api_key", api_keys.find_api_keys(text))
        if "iban" in kinds:
            yield from _placed("iban", identifiers.find_ibans(text))
        if "ip" in kinds:
            yield from _placed("ip", identifiers.find_ipv6(text))
    for start, end, num_digits in (
        identifiers.numbers(text) if kinds & {"card", "cn_id", "ip", "phone"} else ()
    ):
        if "cn_id" in kinds and num_digits >= 17:
            yield from _placed("cn_id", identifiers.cn_ids_in(text, start, end))
        if "card" in kinds and num_digits >= 13:
            yield from _placed("card", identifiers.cards_in(text, start, end))
        if "ip" in kinds and text.count(".", start, end) >= 3:
            yield from _placed("ip", identifiers.ipv4_in(text, start, end))
        if "phone" in kinds and num_digits >= 7:
            yield from _placed("phone", phone_numbers.phones_in(text, start, end, num_digits))


def _placed(kind: str, spans: Iterator[identifiers.Span]) -> Iterator[Find]:
    place = PII_KINDS.index(kind)
    return ((start, place, end) for start, end in spans)


@cache
def _rare(kinds: frozenset[str]) -> Any:
    """One pattern for what few texts have, so that one pass over a text settles all of it; None for none of it."""
    anchors = {
        "email": identifiers.SPELLED_ANCHOR,
        "api_key": api_keys.ANCHORS,
        "iban": identifiers.IBAN_ANCHOR,
        "ip": identifiers.IPV6_ANCHOR,
    }
    wanted = [f"(?:{anchor})" for kind, anchor in anchors.items() if kind in kinds]
    return linear("|".join(wanted)) if wanted else None
