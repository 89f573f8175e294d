"""Every rule's value for one document beside its bound, passed or not: for those who want to see how near it was."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from data_pipeline.config import Treatment
from data_pipeline.filter_presets import FilterOptions
from data_pipeline.filters import RULES, document_of


@dataclass(frozen=True)
class RuleValue:
    """What a rule measured.

    Attributes:
        reason: the rule's code.
        value: what it measured; None where it measures nothing.
        bound: as configured; None where it has none.
        is_least: whether the bound is the least that passes, instead of the greatest.
        fails: whether the document misses it.
    """

    reason: str
    value: float | None
    bound: float | None
    is_least: bool
    fails: bool


# The option that bounds each rule, in the order of the rules.
BOUNDS = {
    "too_few_words": "min_words",
    "too_many_words": "max_words",
    "undecodable_characters": "max_replacement_ratio",
    "too_few_letters": "min_letter_ratio",
    "too_many_symbols": "max_symbol_ratio",
    "too_many_bullets": "max_bullet_ratio",
    "too_many_ellipsis_lines": "max_ellipsis_ratio",
    "duplicate_lines": "max_duplicate_line_ratio",
    "lorem_ipsum": "",
}
# No document passes these, so that each rule says what it measured.
_IMPOSSIBLE = FilterOptions(
    min_words=1 << 60, max_words=-1, max_symbol_ratio=-1, max_bullet_ratio=-1, max_ellipsis_ratio=-1,
    min_letter_ratio=2, max_duplicate_line_ratio=-1, max_replacement_ratio=-1,
)  # fmt: skip


def rule_values(row: pa.Table, treatment: Treatment) -> list[RuleValue]:
    """What each rule measures in a document, in the order in which the rules are asked.

    Args:
        row: a table of one row, as the filter step gets it.
    """
    document = document_of(row["text"][0].as_py())
    values = []
    for rule, (reason, option) in zip(RULES, BOUNDS.items(), strict=True):
        measured, verdict = rule(document, _IMPOSSIBLE), rule(document, treatment.filters)
        bound = getattr(treatment.filters, option) if option else None
        value = measured.value if measured is not None else None
        values.append(RuleValue(reason, value, bound, option.startswith("min_"), verdict is not None))
    return values
