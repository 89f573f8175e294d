"""Reason-coded quality rules over Arrow batches: counts by statistics.py, bounds by filter_presets, verdicts by rules.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_pipeline.config import BlockConfig
from data_pipeline.filter_presets import FilterOptions
from data_pipeline.filters.blocklists import are_blocked, read_blocked
from data_pipeline.filters.rules import judge
from data_pipeline.filters.statistics import measure
from data_pipeline.schema import replace_column, split

STAGE = "filter"


def filter_documents(
    table: pa.Table, options: FilterOptions, block: BlockConfig | None = None
) -> tuple[pa.Table, pa.Table]:
    """Judge each row by its text, and by its uri where there are addresses to block; set `num_words`.

    Args:
        table: rows with `text`, and `lang` and `uri` where there are any.
        options: bounds of the rules.
        block: the user's lists.

    Returns:
        (rows kept, rows removed, each with the first rule it fails, what was measured and the bound).
    """
    statistics = statistics_of(table, options, block)
    table = replace_column(table, "num_words", pa.array(statistics["num_words"]))
    return split(table, STAGE, judge(statistics, options))


def statistics_of(table: pa.Table, options: FilterOptions, block: BlockConfig | None = None) -> np.ndarray:
    """What the rules measure by, one record of STATISTICS a row; arguments as for `filter_documents`."""
    blocked = read_blocked(block or BlockConfig())
    names = table.column_names
    languages = table["lang"].to_pylist() if "lang" in names else [""] * table.num_rows
    statistics = measure(table["text"], languages, options, blocked)
    if len(blocked.addresses) and "uri" in names:
        statistics["is_blocked_url"] = are_blocked(table["uri"].to_pylist(), blocked)
    return statistics
