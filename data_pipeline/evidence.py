"""Examples that a refresh keeps for its report and that no table holds: texts that ftfy repaired, near-duplicates.

    staged file -> side file, in the task that writes the tables -> <corpus>/reports/version-N.json, before the commit

All bounded, and the same however the work was cut: of the repaired texts those with the smallest ids, which are
hashes, so a fair sample; of the near-duplicates the least similar, which are the ones that a person should look at. A
version takes over the examples of the one before, as far as they still belong to these.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import engine
from data_pipeline.atomic import write_json
from data_pipeline.dedup.candidates import Members
from data_pipeline.differences import windows
from data_pipeline.privacy import mask_text
from data_pipeline.repairs import Repair, repairs
from data_pipeline.takedowns import Rules

NEAR = "near_dedup"
NUM_REPAIRS = 8  # of a source
NUM_PAIRS = 40
LINES_OF_A_TEXT = 3
# Characters of a repaired line that are shown, and those before its first change.
LINE_CHARS, LINE_CONTEXT = 160, 40
# Two texts that begin with so many equal characters are shown without their difference.
PAIR_CHARS = 1 << 20

Row = dict[str, Any]
STORED = pa.schema(
    [("key", pa.int64()), ("doc_id", pa.string()), ("source", pa.string()), ("uri", pa.string()),
     ("text", pa.string())]
)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What a version's report shows beside the tables.

    Attributes:
        num_repaired: documents that ftfy changed, by source.
        repairs: {source, uri, doc_id, lines: [{before, after, steps}]}.
        pairs: {doc_id, source, uri, similarity, keeper, keeper_source, keeper_uri, left, right}: a near-duplicate, the
            document it was removed for, and the parts of both around their first difference.
    """

    num_repaired: dict[str, int] = field(default_factory=dict)
    repairs: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)


def load(path: Path) -> Evidence:
    """The evidence in a file; none where it is missing or damaged, as a report must not fail over an example."""
    try:
        return Evidence(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Evidence()


def least_similar(removals: pa.Table) -> pa.Table:
    """The removals (row_id, stage, duplicate_of, similarity ...) that are looked at side by side."""
    near = removals.filter(pc.equal(removals["stage"], NEAR))
    order = [("similarity", "ascending"), ("row_id", "ascending")]
    return near.sort_by(order).slice(0, NUM_PAIRS).select(["row_id", "duplicate_of", "keeper", "similarity"])


def collect(staged: pa.Table, pairs: pa.Table) -> Row:
    """What one staged file gives: its repaired texts, and the texts of the pairs.

    Args:
        staged: rows of schema.STAGED.
        pairs: as `least_similar` gives them.
    """
    repaired = staged.filter(pc.is_valid(staged["unrepaired"]))
    repaired = repaired.select(["source", "uri", "doc_id", "unrepaired", "pii"]).sort_by("doc_id")
    keepers = pc.and_(pc.is_in(staged["doc_id"], pairs["duplicate_of"]), pc.is_null(staged["reason"]))
    wanted = staged.filter(pc.or_(keepers, pc.is_in(staged["row_id"], pairs["row_id"])))
    columns = ["row_id", "doc_id", "source", "uri", "text"]
    return {
        "num_repaired": Counter(repaired["source"].to_pylist()),
        "repairs": [_repair(row) for row in _first_of_each_source(repaired)],
        "texts": [{**row, "text": row["text"][:PAIR_CHARS]} for row in wanted.select(columns).to_pylist()],
    }


def _first_of_each_source(repaired: pa.Table) -> Iterable[Row]:
    for source in pc.unique(repaired["source"]).to_pylist():
        yield from repaired.filter(pc.equal(repaired["source"], source)).slice(0, NUM_REPAIRS).to_pylist()


def _repair(row: Row) -> Row:
    found: Iterable[Repair] = islice(repairs(row["unrepaired"]), LINES_OF_A_TEXT)
    if row["pii"] is not None:  # the line is from before masking
        found = (
            replace(line, before=mask_text(line.before)[0], after=mask_text(line.after)[0]) for line in found
        )
    lines = [_around_the_change(line) for line in found]
    return {**{name: row[name] for name in ("source", "uri", "doc_id")}, "lines": lines}


def _around_the_change(line: Repair) -> Row:
    pairs = enumerate(zip(line.before, line.after, strict=False))
    change = next((index for index, pair in pairs if pair[0] != pair[1]), 0)
    part = slice(max(0, change - LINE_CONTEXT), max(0, change - LINE_CONTEXT) + LINE_CHARS)
    return {"before": line.before[part], "after": line.after[part], "steps": line.steps}


def side_file(staged_file: Path) -> Path:
    """Where `collect`'s result for a staged file waits for the others."""
    return staged_file.with_suffix(".evidence.json")


def gather(
    staged_files: Sequence[Path],
    pairs: pa.Table,
    members: Members,
    before: Evidence,
) -> Evidence:
    """The evidence of the next version, from what `collect` found in all staged files.

    Args:
        members: where the documents kept before are found.
        before: that of the version before it, without what leaves (`without`).
    """
    parts = [json.loads(side_file(path).read_text(encoding="utf-8")) for path in staged_files]
    num_repaired = Counter(before.num_repaired)
    examples = list(before.repairs)
    for part in parts:
        num_repaired.update(part["num_repaired"])
        examples += part["repairs"]
    texts = [row for part in parts for row in part["texts"]]
    shown = sorted(
        [*before.pairs, *_side_by_side(texts, pairs, members)],
        key=lambda pair: (pair["similarity"], pair["doc_id"], pair["keeper"]),
    )
    return Evidence(dict(sorted(num_repaired.items())), _smallest_ids(examples), shown[:NUM_PAIRS])


def without(found: Evidence, leaving: Collection[str], rules: Rules) -> Evidence:
    """The evidence without what shows documents that leave the corpus, or that rules name.

    Args:
        leaving: ids of documents.
    """

    def stays(rows: Sequence[Row], names: Sequence[tuple[str, str]]) -> list[Row]:
        kept = [row for row in rows if not any(row[doc_id] in leaving for doc_id, _ in names)]
        for doc_id, uri in names if kept else []:
            columns = {"doc_id": [row[doc_id] for row in kept], "uri": [row[uri] for row in kept]}
            named = rules.match(
                pa.table(columns, schema=pa.schema({"doc_id": pa.string(), "uri": pa.string()}))
            )
            kept = [row for row, is_named in zip(kept, named, strict=True) if not is_named]
        return kept

    pairs = stays(found.pairs, [("doc_id", "uri"), ("keeper", "keeper_uri")])
    return Evidence(found.num_repaired, stays(found.repairs, [("doc_id", "uri")]), pairs)


def _smallest_ids(rows: Iterable[Row]) -> list[Row]:
    taken: Counter[str] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: (row["source"], row["doc_id"])):
        taken[row["source"]] += 1
        if taken[row["source"]] <= NUM_REPAIRS:
            chosen.append(row)
    return chosen


def _side_by_side(texts: Sequence[Row], pairs: pa.Table, members: Members) -> Iterable[Row]:
    by_row = {row["row_id"]: row for row in texts}
    by_id = {row["doc_id"]: row for row in texts}
    keepers = np.unique(pairs["keeper"].to_numpy())
    stored = members.load(pa.table({"key": keepers[keepers < 0]}), STORED.names[1:])
    by_id |= {row["doc_id"]: row for row in engine.collect(stored, STORED).to_pylist()}
    for pair in pairs.to_pylist():
        row, keeper = by_row[pair["row_id"]], by_id[pair["duplicate_of"]]
        left, right = windows(row["text"], keeper["text"][:PAIR_CHARS])
        yield {
            **{name: row[name] for name in ("doc_id", "source", "uri")},
            "similarity": pair["similarity"],
            "keeper": keeper["doc_id"],
            "keeper_source": keeper["source"],
            "keeper_uri": keeper["uri"],
            "left": left,
            "right": right,
        }


def save(evidence: Evidence, path: Path) -> None:
    """Write the evidence where a report finds it."""
    write_json(path, asdict(evidence))
