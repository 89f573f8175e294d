"""Every rule's value for one document beside its bound, passed or not: for those who want to see how near it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_pipeline.config import Treatment
from data_pipeline.filters import statistics_of
from data_pipeline.filters.rules import RULES


@dataclass(frozen=True)
class RuleValue:
    """What a rule measured.

    Attributes:
        reason: the rule's code.
        value: what it measured; None where it does not apply to the text.
        bound: as configured; None where the rule is turned off.
        is_least: whether the bound is the least that passes, instead of the greatest.
        fails: whether the document misses it.
    """

    reason: str
    value: float | None
    bound: float | None
    is_least: bool
    fails: bool


def rule_values(row: pa.Table, treatment: Treatment) -> list[RuleValue]:
    """What each rule measures in a document, in the order in which the rules are asked.

    Args:
        row: a table of one row, as the filter step gets it.
    """
    statistics = statistics_of(row, treatment.filters, treatment.block)
    values = []
    for rule in RULES:
        fails, measured, bound = rule.judge(statistics, treatment.filters)
        value = None if np.isnan(measured[0]) else float(measured[0])
        is_least = rule.bound.startswith("min_")
        values.append(
            RuleValue(
                rule.reason,
                value,
                None if rule.is_off(treatment.filters) else float(bound),
                is_least,
                bool(fails[0]),
            )
        )
    return values
