"""What ftfy does to a text, line by line, for those who want to see it: the report and the explanation of a document."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ftfy

from data_pipeline.clean import storable
from data_pipeline.mojibake import QUOTED_ENTITY, SETTINGS, SUSPECT
from data_pipeline.patterns import linear

# Every line that ftfy changes has one of these: what is wrongly decoded, a control character, another line end.
_MAY_CHANGE = linear(f"{SUSPECT}|[\x00-\x08\x0b\x0d-\x1f\x7f\u2028\u2029\u206a-\u206f\ufeff\ufff9-\ufffc]")


@dataclass(frozen=True)
class Repair:
    """One line that ftfy changes.

    Attributes:
        before, after: the line, without its line break.
        steps: what ftfy did, for example (("encode", "latin-1"), ("decode", "utf-8")).
    """

    before: str
    after: str
    steps: tuple[tuple[str, str], ...]


def repairs(text: str) -> Iterator[Repair]:
    """The lines of a text that ftfy changes, and how; as ftfy.fix_text goes through a text."""
    if not _MAY_CHANGE.search(text):
        return
    settings = SETTINGS
    for line in io.StringIO(text, newline="\n"):
        if "<" in line:  # ftfy takes the rest for markup, in which entities stay
            settings = settings._replace(unescape_html=False)
        if not _MAY_CHANGE.search(line):
            continue
        if len(line) > settings.max_decode_length:
            continue  # ftfy cuts it into parts, and nobody reads an example of a million characters
        keeps_entities = QUOTED_ENTITY.search(line) is not None
        after, steps = ftfy.fix_and_explain(
            line, settings._replace(unescape_html=False) if keeps_entities else settings
        )
        if after != line:
            taken = tuple((step.action, str(step.parameter)) for step in steps or ())
            end = "\n" if line.endswith("\n") else ""
            yield Repair(storable(line.removesuffix(end)), storable(after.removesuffix(end)), taken)


def before_repairs(before: Sequence[str], after: Sequence[str]) -> list[str | None]:
    """Of texts that cleaning changed, those that ftfy has a part in, as they were; None for the others."""
    return [
        text if text != cleaned and next(repairs(text), None) is not None else None
        for text, cleaned in zip(before, after, strict=True)
    ]
