"""Which documents are worth comparing: those that share a bucket, then those whose signatures agree.

    signatures -> buckets     one row a (document, band), and one for the text hash: exact copies meet, too
               -> stars       hash-shuffled by bucket; an edge from each bucket's smallest key to its others
               -> groups      connected components: loose, for one shared band proves little
               -> pairs       within a group, documents of a bucket whose signatures agree about as much as those
                              of true duplicates do
               -> groups      connected components again: these are few and small, and only their texts are read

A template that a million pages share makes one huge loose group, and no pair: no text of it is touched.

Glossary: `key` is a document's number, negative for documents of earlier versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from numba import njit

from data_pipeline.config import DedupConfig
from data_pipeline.dedup import components
from data_pipeline.dedup.bands import band_buckets, bands_of, text_buckets
from data_pipeline.dedup.components import EDGES
from data_pipeline.engine import collect, map_tables, shuffle
from data_pipeline.minhash import as_matrix
from data_pipeline.schema import replace_column

MEMBER_COLUMNS = ["key", "text_hash", "signature"]
# Bytes that a bucket's row takes in a shuffle, with what the sort of it takes.
BUCKET_ROW_BYTES = 48
# Standard deviations by which the signatures of a true duplicate may agree less than they should.
MARGIN = 4.0


class Limits(NamedTuple):
    """Bounds of the work; beyond them it is cut, and what that may lose is counted.

    Attributes:
        window: documents of a bucket that each one is compared with, at most (the nearest by signature).
        group_rows: a loose group of more documents is compared bucket by bucket, over all workers.
        partition_rows: documents that a task holds signatures of, about.
        edges: edges that are labelled in one process; more by group-bys.
        part_chars: text that a task holds at a time, about.
        round_rows: texts of one group that a task compares in a round.
    """

    window: int = 1000
    group_rows: int = 200_000
    partition_rows: int = 20_000
    edges: int = components.MAX_EDGES_IN_MEMORY
    part_chars: int = 16 << 20
    round_rows: int = 10_000


LIMITS = Limits()


@dataclass(frozen=True)
class Members:
    """The documents to compare.

    Attributes:
        new: dataset of MEMBER_COLUMNS, keys >= 0.
        stored: the same of the documents kept before, keys < 0; None where there are none.
        num_new: documents in `new`, about.
        load: rows of chosen documents. Takes a table of wanted keys (sorted, with any further columns) and names
            of columns (doc_id, source_rank, num_chars, text_hash, signature, text and what else a document has);
            gives a dataset of both, one row a wanted key. A text is only read where a column `needs_text`, if there
            is one, says so, and else empty.
    """

    new: ray.data.Dataset
    stored: ray.data.Dataset | None
    num_new: int
    load: Callable[[pa.Table, list[str]], ray.data.Dataset]


# A pair that is worth reading; `exact`: by equal text hashes. `num_chars` is the right one's, and the left one's.
PAIRS = pa.schema([*EDGES, ("exact", pa.bool_()), ("left_chars", pa.int64()), ("right_chars", pa.int64())])
# `_Pairs` with the number of comparisons that the window left out, in a row of its own.
_PAIRS = PAIRS.append(pa.field("num_skipped", pa.int64()))


class Candidates(NamedTuple):
    """What the signatures say.

    Attributes:
        pairs: table of PAIRS that connect each group of likely duplicates (not all pairs of it).
        num_met: documents that share a bucket with another.
        num_skipped: comparisons of signatures that `Limits.window` left out.
    """

    pairs: pa.Table
    num_met: int
    num_skipped: int


def find_candidates(
    members: Members, config: DedupConfig, num_partitions: int, limits: Limits = LIMITS
) -> Candidates:
    """Pairs whose texts are to be compared, the same for any blocks, partitions and order of the documents."""
    bands, rows = bands_of(config)
    edges = _stars(members, config, num_partitions, bands, rows)
    groups = components.label(edges, num_partitions, limits.edges)
    if not groups.num_rows:
        return Candidates(PAIRS.empty_table(), 0, 0)
    wanted = _in_parts(groups, limits)
    signed = members.load(wanted, ["doc_id", "text_hash", "num_chars", "signature"])
    signed = map_tables(signed, _spread, bands=bands, rows=rows, num_permutations=config.num_permutations)
    parts = groups.num_rows // limits.partition_rows
    found = map_tables(shuffle(signed, "part", parts), _agreeing, config=config, window=limits.window)
    pairs = collect(found, _PAIRS)
    num_skipped = pc.sum(pairs["num_skipped"]).as_py() or 0
    pairs = pairs.filter(pc.not_equal(pairs["left"], pairs["right"])).select(PAIRS.names)
    return Candidates(pairs, groups.num_rows, num_skipped)


def least_agreement(config: DedupConfig) -> int:
    """Equal values of two signatures below which a pair is no duplicate, but for one in 30,000.

    The number of equal values at similarity s is binomial; with `containment` a shared band is enough.
    """
    if config.containment:
        return 1
    s, n = config.threshold, config.num_permutations
    return max(1, int(n * s - MARGIN * sqrt(n * s * (1 - s))))


# ----------------------------------------------------------------------------------------------- buckets and stars


def _stars(
    members: Members, config: DedupConfig, num_partitions: int, bands: int, rows: int
) -> ray.data.Dataset:
    """Dataset of EDGES; as many bands at a time as the memory allows."""
    at_once = max(1, config.memory_bytes // (BUCKET_ROW_BYTES * max(1, members.num_new)))
    edges = None
    # Band -1 is the text hash.
    for first in range(-1, bands, at_once):
        span = {"first": first, "last": min(bands, first + at_once), "rows": rows}
        span["num_permutations"] = config.num_permutations
        buckets = map_tables(members.new, _buckets, **span)
        if members.stored is not None:
            buckets = buckets.materialize()
            # Of the stored documents only those go into the shuffle that meet a new one.
            known = ray.put(_distinct_buckets(buckets))
            buckets = buckets.union(map_tables(members.stored, _buckets, known=known, **span))
        # Passes are worked off one after the other: that is what they are for.
        found = map_tables(shuffle(buckets, "bucket", num_partitions), _star_edges).materialize()
        edges = found if edges is None else edges.union(found)
    assert edges is not None
    return edges


_BUCKETS = pa.schema([("bucket", pa.int64()), ("key", pa.int64())])


def _buckets(
    table: pa.Table,
    first: int,
    last: int,
    rows: int,
    num_permutations: int,
    known: ray.ObjectRef | None = None,
) -> pa.Table:
    """(bucket, key): one row a document and band from `first` to `last` - 1."""
    if not table.num_rows:
        return _BUCKETS.empty_table()
    keys = table["key"].to_numpy()
    matrix = as_matrix(table["signature"], num_permutations)
    found, has_shingles = band_buckets(matrix, rows, max(0, first), last)
    buckets = found[has_shingles].T.ravel()
    owners = np.tile(keys[has_shingles], found.shape[1])
    if first < 0:
        buckets = np.r_[buckets, text_buckets(table["text_hash"].to_pylist())]
        owners = np.r_[owners, keys]
    if known is not None:
        wanted = _is_in(buckets, ray.get(known))
        buckets, owners = buckets[wanted], owners[wanted]
    return pa.table([buckets, owners], schema=_BUCKETS)


def _distinct_buckets(buckets: ray.data.Dataset) -> np.ndarray:
    values = [block["bucket"].to_numpy() for block in ray.get(buckets.to_arrow_refs()) if block.num_rows]
    return np.unique(np.concatenate(values)) if values else np.zeros(0, np.int64)


def _is_in(values: np.ndarray, sorted_set: np.ndarray) -> np.ndarray:
    if not len(sorted_set):
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(sorted_set, values), len(sorted_set) - 1)
    return sorted_set[place] == values


def _star_edges(table: pa.Table) -> pa.Table:
    """Edges from each bucket's smallest key to its others, whatever their number; a linear number of them."""
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
    if not wanted.any():
        return EDGES.empty_table()
    # Two documents meet in many buckets.
    pairs = np.unique(np.stack([smallest[wanted], keys[wanted]], axis=1), axis=0)
    return pa.table([pairs[:, 0], pairs[:, 1]], schema=EDGES)


# ---------------------------------------------------------------------------------------------- pairs of signatures


def _in_parts(groups: pa.Table, limits: Limits) -> pa.Table:
    """(key, part, is_large), sorted by key: whole groups in parts of like size; a large group has part -1."""
    keys, labels = groups["key"].to_numpy(), groups["group"].to_numpy()
    _, number, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    is_large = sizes > limits.group_rows
    part = np.cumsum(np.where(is_large, 0, sizes)) // limits.partition_rows
    part[is_large] = -1
    return pa.table({"key": keys, "part": part[number].astype(np.int64)})


def _spread(table: pa.Table, bands: int, rows: int, num_permutations: int) -> pa.Table:
    """Rows of large groups once for each of their buckets, which then is their part; others as they are."""
    parts = table["part"].to_numpy()
    if not len(parts) or parts.min(initial=0) >= 0:
        return table
    small = table.filter(pa.array(parts >= 0))
    large = table.filter(pa.array(parts < 0))
    buckets, has_shingles = band_buckets(as_matrix(large["signature"], num_permutations), rows, 0, bands)
    texts = text_buckets(large["text_hash"].to_pylist())
    copies = [replace_column(large, "part", pa.array(texts))]
    shingled = large.filter(pa.array(has_shingles))
    copies += [
        replace_column(shingled, "part", pa.array(buckets[has_shingles, band])) for band in range(bands)
    ]
    return pa.concat_tables([small, *copies])


def _agreeing(table: pa.Table, config: DedupConfig, window: int) -> pa.Table:
    """Pairs of _PAIRS that connect the documents of a partition whose signatures agree."""
    if not table.num_rows:
        return _PAIRS.empty_table()
    # In an order that the inputs' does not change; earlier versions first.
    table = table.append_column("is_new", pc.greater_equal(table["key"], 0))
    table = table.sort_by([("is_new", "ascending"), ("doc_id", "ascending"), ("key", "ascending")])
    keys = table["key"].to_numpy()
    _, firsts = np.unique(keys, return_index=True)
    if len(firsts) < len(keys):
        # A document of a large group comes here once for each bucket that fell into this partition.
        table = table.take(pa.array(np.sort(firsts)))
        keys = table["key"].to_numpy()
    twins = _twins(table["text_hash"])
    bands, rows = bands_of(config)
    matrix = np.ascontiguousarray(as_matrix(table["signature"], config.num_permutations))
    buckets, has_shingles = band_buckets(matrix, rows, 0, bands)
    # Of equal texts one stands for all.
    alone = np.flatnonzero((twins == np.arange(len(keys))) & has_shingles)
    left, right, num_skipped = _connect(
        matrix[alone], buckets[alone], keys[alone] < 0, least_agreement(config), window
    )
    copies = np.flatnonzero(twins != np.arange(len(keys)))
    # Two stored documents of one text say nothing new.
    copies = copies[(keys[copies] >= 0) | (keys[twins[copies]] >= 0)]
    lefts, rights = np.r_[alone[left], twins[copies]], np.r_[alone[right], copies]
    chars = table["num_chars"].to_numpy()
    exact = np.r_[np.zeros(len(left), np.bool_), np.ones(len(copies), np.bool_)]
    pairs = pa.table([keys[lefts], keys[rights], exact, chars[lefts], chars[rights], np.zeros(len(lefts), np.int64)],
                     schema=_PAIRS)  # fmt: skip
    skipped = pa.table([keys[:1], keys[:1], [False], chars[:1], chars[:1], [num_skipped]], schema=_PAIRS)
    return pa.concat_tables([pairs, skipped])


def _twins(text_hashes: pa.ChunkedArray) -> np.ndarray:
    """For each row the first row of its text hash."""
    codes = text_hashes.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return first[codes]


def _connect(
    matrix: np.ndarray, buckets: np.ndarray, is_stored: np.ndarray, least: int, window: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """A spanning forest of the pairs that share a bucket and at least `least` values of their signatures.

    Args:
        matrix: uint32 [documents, permutations].
        buckets: int64 [documents, bands].
        is_stored: pairs of two stored documents are left out.

    Returns:
        (left, right, comparisons that the window left out).
    """
    count, bands = buckets.shape
    parents = np.arange(count)
    lefts, rights, num_skipped = [], [], 0
    for band in range(bands):
        # Within a bucket by the next bands: documents that share those, too, come to lie beside each other.
        following = [buckets[:, (band + step) % bands] for step in (2, 1, 0)]
        order = np.lexsort((np.arange(count), *following))
        left, right, skipped = _scan_buckets(
            matrix, buckets[order, band], order, is_stored, parents, least, window
        )
        lefts.append(left)
        rights.append(right)
        num_skipped += skipped
    return np.concatenate(lefts), np.concatenate(rights), num_skipped


@njit(cache=True, nogil=True)
def _root(parents: np.ndarray, node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True, nogil=True)
def num_equal(left: np.ndarray, right: np.ndarray) -> int:
    """Places at which two signatures have the same value."""
    count = 0
    for index in range(len(left)):
        count += left[index] == right[index]
    return count


@njit(cache=True, nogil=True)
def _scan_buckets(
    matrix: np.ndarray,
    buckets: np.ndarray,
    order: np.ndarray,
    is_stored: np.ndarray,
    parents: np.ndarray,
    least: int,
    window: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """One band: `buckets` sorted, `order` the document of each place; `parents` (a union-find) is updated."""
    # Each edge joins two trees.
    left, right = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    count, skipped, start = 0, 0, 0
    for place in range(len(order)):
        if buckets[place] != buckets[start]:
            start = place
        document = order[place]
        nearest = max(start, place - window)
        skipped += nearest - start
        for other_place in range(place - 1, nearest - 1, -1):
            other = order[other_place]
            if is_stored[document] and is_stored[other]:
                continue
            a, b = _root(parents, document), _root(parents, other)
            if a == b or num_equal(matrix[document], matrix[other]) < least:
                continue
            parents[max(a, b)] = min(a, b)
            left[count], right[count] = min(document, other), max(document, other)
            count += 1
    return left[:count], right[:count], skipped
