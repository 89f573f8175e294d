"""Connected components of an edge list: by scipy where the edges fit, by label propagation beyond.

The propagation is alternating large-star and small-star (Kiveris et al., Connected Components in MapReduce and Beyond,
SoCC 2014): each round is two group-bys, and the number of rounds grows with the logarithm of the longest path.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import ray
import ray.data
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_pipeline.engine import collect, map_tables, shuffle

EDGES = pa.schema([("left", pa.int64()), ("right", pa.int64())])
LABELS = pa.schema([("key", pa.int64()), ("group", pa.int64())])
# 16 bytes an edge, and as much again while scipy works.
MAX_EDGES_IN_MEMORY = 100_000_000
_ARCS = pa.schema([("node", pa.int64()), ("neighbour", pa.int64())])
_CHECKSUM = pa.schema([("count", pa.int64()), ("sum", pa.uint64())])


def label(edges: ray.data.Dataset, num_partitions: int, limit: int = MAX_EDGES_IN_MEMORY) -> pa.Table:
    """The component of each node.

    Args:
        edges: dataset of EDGES; repeated edges and loops do no harm.
        num_partitions: of the shuffles.
        limit: edges that are taken into this process; more are labelled by group-bys.

    Returns:
        Table of LABELS, sorted by key; a group is named after its smallest key.
    """
    edges = edges.materialize()
    if edges.count() <= limit:
        return label_in_memory(collect(edges, EDGES))
    return label_distributed(edges, num_partitions)


def label_in_memory(edges: pa.Table) -> pa.Table:
    """`label` of edges in memory."""
    pairs = np.stack([edges["left"].to_numpy(), edges["right"].to_numpy()], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return LABELS.empty_table()
    keys, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(pairs.shape)
    graph = coo_matrix((np.ones(len(pairs), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(keys), len(keys)))
    number = connected_components(graph, directed=False)[1]
    # Keys are sorted, so the first of a component is its smallest.
    _, first = np.unique(number, return_index=True)
    return pa.table({"key": keys, "group": keys[first][number]}, schema=LABELS)


def label_distributed(edges: ray.data.Dataset, num_partitions: int) -> pa.Table:
    """`label` by group-bys; only the labels, 16 bytes a node, come to this process."""
    before = None
    while True:
        arcs = map_tables(edges, _both_ways)
        edges = map_tables(shuffle(arcs, "node", num_partitions), _large_star)
        arcs = map_tables(edges, _downwards)
        edges = map_tables(shuffle(arcs, "node", num_partitions), _small_star).materialize()
        parts = collect(map_tables(edges, _checksum), _CHECKSUM)
        # Edges of a partition are unique; equal counts and sums of mixed edges are equal edges.
        now = (sum(parts["count"].to_pylist()), sum(parts["sum"].to_pylist()) % 2**64)
        if now == before:
            break
        before = now
    stars = collect(edges, EDGES)
    # Every edge now leads from a component's smallest key to another of its keys.
    keys = np.concatenate([stars["right"].to_numpy(), np.unique(stars["left"].to_numpy())])
    groups = np.concatenate([stars["left"].to_numpy(), np.unique(stars["left"].to_numpy())])
    order = np.argsort(keys)
    return pa.table({"key": keys[order], "group": groups[order]}, schema=LABELS)


def _both_ways(edges: pa.Table) -> pa.Table:
    left, right = edges["left"].to_numpy(), edges["right"].to_numpy()
    return pa.table([np.r_[left, right], np.r_[right, left]], schema=_ARCS)


def _downwards(edges: pa.Table) -> pa.Table:
    left, right = edges["left"].to_numpy(), edges["right"].to_numpy()
    return pa.table([np.maximum(left, right), np.minimum(left, right)], schema=_ARCS)


def _large_star(arcs: pa.Table) -> pa.Table:
    """Each node hands its larger neighbours to its smallest one (or itself)."""
    nodes, neighbours, smallest = _neighbourhoods(arcs)
    larger = neighbours > nodes
    return _unique_edges(np.minimum(smallest, nodes)[larger], neighbours[larger])


def _small_star(arcs: pa.Table) -> pa.Table:
    """Each node hands itself and its smaller neighbours to the smallest of them."""
    nodes, neighbours, smallest = _neighbourhoods(arcs)
    left, right = np.r_[smallest, smallest], np.r_[neighbours, nodes]
    apart = left != right
    return _unique_edges(left[apart], right[apart])


def _neighbourhoods(arcs: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node, neighbour, the node's smallest neighbour) of each arc, sorted."""
    nodes, neighbours = arcs["node"].to_numpy(), arcs["neighbour"].to_numpy()
    order = np.lexsort((neighbours, nodes))
    nodes, neighbours = nodes[order], neighbours[order]
    first = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]]) if len(nodes) else np.zeros(0, np.int64)
    return nodes, neighbours, np.repeat(neighbours[first], np.diff(np.r_[first, len(nodes)]))


def _unique_edges(left: np.ndarray, right: np.ndarray) -> pa.Table:
    pairs = np.unique(np.stack([left, right], axis=1), axis=0)
    return pa.table([pairs[:, 0], pairs[:, 1]], schema=EDGES)


def _checksum(edges: pa.Table) -> pa.Table:
    left, right = (edges[name].to_numpy().view(np.uint64) for name in ("left", "right"))
    mixed = (left * np.uint64(0x9E3779B97F4A7C15)) ^ (right + np.uint64(0x632BE59BD9B4E019))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return pa.table([[len(mixed)], [int(mixed.sum(dtype=np.uint64))]], schema=_CHECKSUM)
