"""Exact and near-duplicate removal: candidates by band, verified by true Jaccard, keeper by rule.

    members (new documents and stored signatures)
      -> buckets   one row a (document, band); the text hash is a band of its own, so exact copies meet too
      -> edges     hash-shuffled by bucket; a star from each bucket's smallest member
      -> groups    connected components
      -> removals  within a group, each document is compared with the documents already kept, and removed
                   only for one that it is verified against

Membership in a group removes nothing by itself: chains of look-alikes must not delete distinct documents.

Glossary: `key` is a member's number: row_id (>= 0) of a new document, -1 - i for the i-th stored one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import xxhash
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_pipeline.config import DedupConfig
from data_pipeline.engine import collect, from_tables, map_tables, shuffle
from data_pipeline.minhash import as_matrix, choose_bands, jaccard, shingle_hashes

EXACT, NEAR = "exact_dedup", "near_dedup"
REMOVALS = pa.schema(
    [
        ("row_id", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
MEMBER_COLUMNS = ["key", "text_hash", "signature"]
TEXT_COLUMNS = ["key", "doc_id", "source_rank", "num_chars", "text_hash", "text"]


@dataclass(frozen=True)
class Members:
    """Where the documents to compare are.

    Attributes:
        new: dataset of new documents: MEMBER_COLUMNS and TEXT_COLUMNS.
        stored: narrow table of the documents kept before (doc_id, text_hash, signature), sorted by doc_id.
        stored_texts: dataset of (doc_id, source_rank, num_chars, text_hash, text) of the documents kept
            before; only read for those that meet a new document.
    """

    new: ray.data.Dataset
    stored: pa.Table
    stored_texts: ray.data.Dataset | None


def find_duplicates(members: Members, config: DedupConfig, num_partitions: int) -> pa.Table:
    """Which new documents are copies, and of which kept document.

    Args:
        members: see Members.
        config: threshold and signature scheme.
        num_partitions: of the shuffles; one partition must fit in a worker's memory.

    Returns:
        Table of REMOVALS, sorted by row_id; the same for any number of partitions, blocks and workers.
    """
    edges = _candidate_edges(members, config, num_partitions)
    if not len(edges):
        return REMOVALS.empty_table()
    groups = _groups(edges)
    texts = map_tables(members.new, _attach_group, groups=ray.put(groups))
    stored = _stored_in_groups(members, groups)
    if stored is not None:
        texts = texts.union(stored)
    removals = map_tables(shuffle(texts, "group", num_partitions), _verify_groups, config=config)
    return collect(removals, REMOVALS).sort_by("row_id")


def _candidate_edges(members: Members, config: DedupConfig, num_partitions: int) -> np.ndarray:
    bands, rows = choose_bands(config.threshold, config.num_permutations)
    narrow = members.new.select_columns(MEMBER_COLUMNS)
    if members.stored.num_rows:
        keys = pa.array(-1 - np.arange(members.stored.num_rows), pa.int64())
        stored = members.stored.append_column("key", keys).select(MEMBER_COLUMNS)
        narrow = narrow.union(from_tables([stored]))
    buckets = map_tables(narrow, _buckets, bands=bands, rows=rows, num_permutations=config.num_permutations)
    table = collect(map_tables(shuffle(buckets, "bucket", num_partitions), _star_edges), EDGES)
    pairs = np.stack([table["left"].to_numpy(), table["right"].to_numpy()], axis=1)
    return np.unique(pairs, axis=0)


EDGES = pa.schema([("left", pa.int64()), ("right", pa.int64())])


def _buckets(table: pa.Table, bands: int, rows: int, num_permutations: int) -> pa.Table:
    """(bucket, key): one row a band and document, and one for its text hash."""
    if not table.num_rows:
        return pa.table({"bucket": pa.array([], pa.int64()), "key": pa.array([], pa.int64())})
    matrix = as_matrix(table["signature"], num_permutations)[:, : bands * rows]
    keys = table["key"].to_numpy()
    buckets = [
        np.fromiter(
            # The band's number is the hash's seed: equal values in different bands must not meet.
            (
                xxhash.xxh3_64_intdigest(part.tobytes(), seed=band + 1)
                for part in matrix[:, band * rows : (band + 1) * rows]
            ),
            np.uint64,
            len(keys),
        )
        for band in range(bands)
    ]
    text_hashes = (
        xxhash.xxh3_64_intdigest(value.encode(), seed=0) for value in table["text_hash"].to_pylist()
    )
    buckets.append(np.fromiter(text_hashes, np.uint64, len(keys)))
    return pa.table({"bucket": np.concatenate(buckets).view(np.int64), "key": np.tile(keys, bands + 1)})


def _star_edges(table: pa.Table) -> pa.Table:
    """Edges from each bucket's smallest member to its others; buckets of stored documents only give none."""
    if not table.num_rows:
        return EDGES.empty_table()
    buckets, keys = table["bucket"].to_numpy(), table["key"].to_numpy()
    order = np.lexsort((keys, buckets))
    buckets, keys = buckets[order], keys[order]
    first = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]])
    sizes = np.diff(np.r_[first, len(buckets)])
    smallest = np.repeat(keys[first], sizes)
    # Keys are sorted within a bucket, so its last one is new exactly when it holds a new document.
    has_new = np.repeat(keys[first + sizes - 1] >= 0, sizes)
    wanted = has_new & (keys != smallest)
    return pa.table({"left": smallest[wanted], "right": keys[wanted]}, schema=EDGES)


def _groups(edges: np.ndarray) -> pa.Table:
    """(key, group) of every member with an edge, sorted by key."""
    keys, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(edges.shape)
    graph = coo_matrix((np.ones(len(edges), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(keys), len(keys)))
    return pa.table({"key": keys, "group": connected_components(graph, directed=False)[1].astype(np.int64)})


def _attach_group(table: pa.Table, groups: ray.ObjectRef) -> pa.Table:
    """The members that have a group, with it."""
    found_groups: pa.Table = ray.get(groups)
    all_keys = found_groups["key"].to_numpy()
    keys = table["key"].to_numpy()
    place = np.minimum(np.searchsorted(all_keys, keys), len(all_keys) - 1)
    found = all_keys[place] == keys
    group = pa.array(found_groups["group"].to_numpy()[place[found]], pa.int64())
    return table.select(TEXT_COLUMNS).filter(pa.array(found)).append_column("group", group)


def _stored_in_groups(members: Members, groups: pa.Table) -> ray.data.Dataset | None:
    keys = groups["key"].to_numpy()
    wanted = -1 - keys[keys < 0]
    if members.stored_texts is None or not len(wanted):
        return None
    key_of = (
        members.stored.select(["doc_id"])
        .append_column("key", pa.array(-1 - np.arange(members.stored.num_rows), pa.int64()))
        .take(pa.array(wanted))
    )
    rows = map_tables(members.stored_texts, _stored_rows, key_of_ref=ray.put(key_of))
    return map_tables(rows, _attach_group, groups=ray.put(groups))


def _stored_rows(table: pa.Table, key_of_ref: ray.ObjectRef) -> pa.Table:
    key_of: pa.Table = ray.get(key_of_ref)
    place = pc.index_in(table["doc_id"], value_set=key_of["doc_id"].combine_chunks())
    table = table.append_column("key", pc.take(key_of["key"], place))
    return table.filter(pc.is_valid(place)).select(TEXT_COLUMNS)


def _verify_groups(table: pa.Table, config: DedupConfig) -> pa.Table:
    """Removals of a partition that holds whole groups."""
    rows = table.to_pylist()
    groups: dict[int, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    removals = [removal for group in sorted(groups) for removal in _verify_group(groups[group], config)]
    return pa.Table.from_pylist(removals, schema=REMOVALS)


def _keeper_order(row: dict) -> tuple:
    """Stored documents first, then source priority, then the longest, then doc_id."""
    return (row["key"] >= 0, row["source_rank"], -row["num_chars"], row["doc_id"], row["key"])


def _verify_group(rows: list[dict], config: DedupConfig) -> list[dict]:
    kept: list[tuple[str, np.ndarray]] = []
    kept_by_hash: dict[str, str] = {}
    removals = []
    for row in sorted(rows, key=_keeper_order):
        twin = kept_by_hash.get(row["text_hash"])
        if twin is not None and row["key"] >= 0:
            removals.append(_removal(row, EXACT, "exact_duplicate", twin, 1.0, None))
            continue
        shingles = shingle_hashes(row["text"], config.shingle_size)
        if row["key"] >= 0:
            similarity, match = _most_similar(shingles, kept, config.threshold)
            if similarity >= config.threshold:
                removals.append(_removal(row, NEAR, "near_duplicate", match, similarity, config.threshold))
                continue
        kept.append((row["doc_id"], shingles))
        kept_by_hash.setdefault(row["text_hash"], row["doc_id"])
    return removals


def _most_similar(
    shingles: np.ndarray, kept: list[tuple[str, np.ndarray]], threshold: float
) -> tuple[float, str]:
    best, match = 0.0, ""
    for doc_id, other in kept:
        # Jaccard is at most the ratio of the set sizes, which costs nothing to look at.
        if min(len(shingles), len(other)) < threshold * max(len(shingles), len(other)):
            continue
        similarity = jaccard(shingles, other)
        if similarity > best:
            best, match = similarity, doc_id
    return best, match


def _removal(
    row: dict, stage: str, reason: str, keeper: str, similarity: float, threshold: float | None
) -> dict:
    return {
        "row_id": row["key"],
        "stage": stage,
        "reason": reason,
        "duplicate_of": keeper,
        "similarity": similarity,
        "value": similarity if threshold is not None else None,
        "threshold": threshold,
    }
