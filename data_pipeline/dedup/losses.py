"""A source that near-duplicate removal all but empties ends the refresh before anything is committed.

Unrelated books that share a licence, pages that share a template: what removes them is a mistake of the settings, and it
has cost other projects most of a library.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from data_pipeline.changes import UNCHANGED
from data_pipeline.config import RefreshConfig
from data_pipeline.dedup.candidates import Members
from data_pipeline.dedup.duplicates import largest_clusters
from data_pipeline.dedup.verify import NEAR
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.staging import staged_files
from data_pipeline.storage import read_parquet


def guard_losses(config: RefreshConfig, staging: Path, removals: pa.Table, members: Members) -> None:
    """Stop when near-duplicate removal takes more of a source than is believable.

    Args:
        config: bounds by kind of source, and the sources whose loss the user accepts.
        staging: folder of the staged files.
        removals: table of verify.REMOVALS; exact copies are no loss.
        members: where the documents of the message are found.

    Raises:
        InputError: names the first such source, and the largest clusters with examples.
    """
    near = removals.filter(pc.equal(removals["stage"], NEAR))
    units = [pa.table({"path": [str(path)]}) for path in staged_files(staging)]
    keys = ray.put(np.sort(near["row_id"].to_numpy()))
    counted = collect(map_tables(from_tables(units), _count_losses, near=keys), LOSSES)
    totals = counted.group_by("source").aggregate([("total", "sum"), ("lost", "sum")]).sort_by("source")
    accepted = [config.accept_loss] if isinstance(config.accept_loss, str) else config.accept_loss
    kinds = {source.name: source.kind for source in config.sources}
    for row in totals.to_pylist():
        source, total, lost = row["source"], row["total_sum"], row["lost_sum"]
        bound = config.dedup.loss_bound(kinds[source])
        # A handful of documents proves nothing about a source.
        if total >= 10 and lost > bound * total and source not in accepted:
            raise InputError(
                f"dedup.max_source_loss: source {source} would lose {lost} of {total} documents "
                f"({lost / total:.0%}) as near-duplicates, more than {bound:.0%}; {_in_words(near, members, source)}; "
                "nothing was committed; if these are not copies, raise dedup.threshold; if they are, go on with "
                f"--accept-loss {source}"
            )


LOSSES = pa.schema([("source", pa.string()), ("total", pa.int64()), ("lost", pa.int64())])


def _count_losses(unit: pa.Table, near: ray.ObjectRef) -> pa.Table:
    """Living documents of staged files and how many of them are near-duplicates, by source; runs in a Ray task."""
    lost: np.ndarray = ray.get(near)
    rows = []
    for path in unit["path"].to_pylist():
        table = read_parquet(path, ["row_id", "source", "stage", "reason"])
        # What a changed file held before is no loss, and is a part of what was read.
        is_unchanged = pc.equal(pc.fill_null(table["stage"], ""), UNCHANGED)
        table = table.filter(pc.or_(pc.is_null(table["reason"]), is_unchanged))
        is_lost = np.isin(table["row_id"].to_numpy(), lost).astype(np.int64)
        table = table.append_column("lost", pa.array(is_lost))
        counts = table.group_by("source").aggregate([([], "count_all"), ("lost", "sum")])
        rows += [
            {"source": row["source"], "total": row["count_all"], "lost": row["lost_sum"]}
            for row in counts.to_pylist()
        ]
    return pa.Table.from_pylist(rows, schema=LOSSES)


def _in_words(near: pa.Table, members: Members, source: str) -> str:
    """The largest clusters that a source has a part in, in a line."""
    shown: list[str] = []
    for cluster in largest_clusters(near, members):
        examples = [row for row in cluster["examples"] if row["source"] == source]
        if examples and len(shown) < 3:
            row = examples[0]
            shown.append(
                f"{cluster['size']} like {cluster['kept']['uri']} ({_sample(cluster['kept']['text'])}), for example "
                f"{row['uri']} ({_sample(row['text'])}) at {row['similarity']:.2f}"
            )
    return "the largest clusters: " + ("; ".join(shown) if shown else "small ones")


def _sample(text: str) -> str:
    """The first words of a text, fit for a terminal."""
    words = " ".join(text.split())[:60]
    return "".join(char if char.isprintable() else "?" for char in words)
