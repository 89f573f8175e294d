"""Exact and near-duplicate removal: candidates by signature, verified by their texts, and what was found in figures.

candidates (data_pipeline.dedup.candidates)  which documents are worth comparing; signatures only
  -> verify (data_pipeline.dedup.verify)     which of them go, and for which kept document; texts of candidates only
  -> clusters                          a kept document with all that were removed for it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.config import DedupConfig
from data_pipeline.dedup.bands import bands_of, probability_curve
from data_pipeline.dedup.candidates import LIMITS, Limits, Members, find_candidates
from data_pipeline.dedup.verify import REMOVALS, verify
from data_pipeline.engine import collect

NUM_CLUSTERS, NUM_EXAMPLES, SAMPLE_CHARS = 10, 2, 200
_SHOWN = pa.schema(
    [("key", pa.int64()), ("doc_id", pa.string()), ("source", pa.string()), ("uri", pa.string()),
     ("text", pa.string())]
)  # fmt: skip


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        removals: table of verify.REMOVALS, sorted by row_id.
        num_met: documents that shared a bucket with another.
        num_read: documents whose signatures agreed, or whose text hashes did.
        num_skipped: comparisons left out, because too many documents share a bucket or a group keeps too many.
    """

    removals: pa.Table
    num_met: int = 0
    num_read: int = 0
    num_skipped: int = 0


def find_duplicates(
    members: Members, config: DedupConfig, num_partitions: int, limits: Limits = LIMITS
) -> Duplicates:
    """Which new documents are copies, and of which kept document.

    Args:
        members: the documents to compare.
        config: threshold and signature scheme.
        num_partitions: of the shuffles of buckets; one partition must fit in a worker's memory.
        limits: bounds of the work.

    Returns:
        The same for any number of partitions, blocks and workers, and for any order of the documents.
    """
    found = find_candidates(members, config, num_partitions, limits)
    if not found.pairs.num_rows:
        return Duplicates(REMOVALS.empty_table(), found.num_met, 0, found.num_skipped)
    removals, num_skipped = verify(members, found.pairs, config, limits)
    ends = pa.concat_arrays([*found.pairs["left"].chunks, *found.pairs["right"].chunks])
    return Duplicates(
        removals, found.num_met, pc.count_distinct(ends).as_py(), found.num_skipped + num_skipped
    )


def cluster_sizes(removals: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(keys of the kept documents, documents in their clusters), the largest first.

    A cluster is a kept document and all that were removed for it.
    """
    counts = removals.group_by(["keeper", "duplicate_of"]).aggregate([([], "count_all")])
    counts = counts.sort_by([("count_all", "descending"), ("duplicate_of", "ascending")])
    return counts["keeper"].to_numpy(), counts["count_all"].to_numpy() + 1


def describe(found: Duplicates, members: Members, config: DedupConfig) -> dict[str, Any]:
    """The figures of a deduplication for people: settings, histogram of clusters, the largest of them.

    Returns:
        `threshold`, `bands`, `rows`, `probability` (pairs of similarity and probability of being compared), `num_met`,
        `num_read`, `num_skipped`, `num_exact`, `num_near`, `histogram` (rows of {least, most, clusters, removed}) and
        `largest` (see largest_clusters).
    """
    bands, rows = bands_of(config)
    _, sizes = cluster_sizes(found.removals)
    histogram = []
    least = 2
    while least <= sizes.max(initial=0):
        chosen = sizes[(sizes >= least) & (sizes < 2 * least)]
        histogram.append(
            {
                "least": least,
                "most": 2 * least - 1,
                "clusters": len(chosen),
                "removed": int((chosen - 1).sum()),
            }
        )
        least *= 2
    stages = found.removals["stage"].to_pylist()
    return {
        "threshold": config.threshold,
        "containment": config.containment,
        "bands": bands,
        "rows": rows,
        "probability": probability_curve(config),
        "num_met": found.num_met,
        "num_read": found.num_read,
        "num_skipped": found.num_skipped,
        "num_exact": stages.count("exact_dedup"),
        "num_near": stages.count("near_dedup"),
        "histogram": histogram,
        "largest": largest_clusters(found.removals, members),
    }


def largest_clusters(removals: pa.Table, members: Members) -> list[dict[str, Any]]:
    """The ten largest clusters: {size, kept, examples}; kept and examples are {doc_id, source, uri, text}.

    Examples are those of least similarity, which is theirs in `similarity`: they are the ones to look at.
    """
    keepers, sizes = (values[:NUM_CLUSTERS] for values in cluster_sizes(removals))
    examples: dict[int, list[tuple[int, float]]] = {}
    few = removals.filter(pc.is_in(removals["keeper"], pa.array(keepers)))
    for row in few.select(["keeper", "row_id", "similarity"]).sort_by("similarity").to_pylist():
        chosen = examples.setdefault(row["keeper"], [])
        if len(chosen) < NUM_EXAMPLES:
            chosen.append((row["row_id"], row["similarity"]))
    wanted = sorted({*keepers.tolist(), *(key for chosen in examples.values() for key, _ in chosen)})
    loaded = collect(members.load(pa.table({"key": pa.array(wanted, pa.int64())}), _SHOWN.names[1:]), _SHOWN)
    shown = {row.pop("key"): {**row, "text": row["text"][:SAMPLE_CHARS]} for row in loaded.to_pylist()}
    return [
        {
            "size": int(size),
            "kept": shown[key],
            "examples": [{**shown[row], "similarity": similarity} for row, similarity in examples[key]],
        }
        for key, size in zip(keepers.tolist(), sizes.tolist(), strict=True)
    ]
