"""Which of the candidates are removed, and for which kept document: by true Jaccard over full shingle sets.

Within a group, documents are taken in the keeper's order (docs/decisions.md): those of earlier versions, then by
priority of the source, then the longest, then by doc_id. Each is compared with the documents kept so far, those whose
signatures agree most first, and removed for the most similar one if that reaches the threshold. So a document is only
ever removed for one that is kept and that it was compared with; membership in a group removes nothing.

Work is bounded: a document is compared with `MAX_COMPARISONS` kept ones by shingles, at most, and a group with more text
than a task should hold is worked off in rounds, each with the documents that the rounds before it kept.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from data_pipeline.config import DedupConfig
from data_pipeline.dedup import components
from data_pipeline.dedup.candidates import Limits, Members, least_agreement, num_equal
from data_pipeline.engine import collect, map_tables, shuffle
from data_pipeline.minhash import as_matrix, num_common, shingle_set
from data_pipeline.schema import replace_column
from data_pipeline.words import utf8

EXACT, NEAR = "exact_dedup", "near_dedup"
REMOVALS = pa.schema(
    [
        ("row_id", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("keeper", pa.int64()),
        ("similarity", pa.float64()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
MAX_COMPARISONS = 16
# Bytes of shingle sets that a task keeps for the next comparison.
SHINGLE_BYTES = 256 << 20
_KEEPER_ROWS = pa.schema(
    [("key", pa.int64()), ("group", pa.int64()), ("doc_id", pa.string()), ("source_rank", pa.int64()),
     ("num_chars", pa.int64()), ("text_hash", pa.string())]
)  # fmt: skip
_ROWS = ["doc_id", "source_rank", "num_chars", "text_hash", "signature", "text"]


def verify(members: Members, pairs: pa.Table, config: DedupConfig, limits: Limits) -> tuple[pa.Table, int]:
    """Removals of new documents.

    Args:
        members: see Members; `load` must also know source_rank and text.
        pairs: table of candidates.PAIRS.
        config: threshold and signature scheme.
        limits: part_chars and round_rows bound what a task holds.

    Returns:
        (table of REMOVALS sorted by row_id, comparisons left out because a group keeps more documents than a round
        can carry).
    """
    pending = _with_rounds(members, _wanted(pairs), limits)
    keys, groups = pending["key"].to_numpy(), pending["group"].to_numpy()
    rounds = pending["round"].to_numpy()
    removals, num_skipped = [], 0
    is_kept = np.zeros(len(keys), np.bool_)
    for number in range(int(rounds.max(initial=0)) + 1):
        now = rounds == number
        # What earlier rounds kept of the groups that go on.
        carried = np.flatnonzero(is_kept & np.isin(groups, np.unique(groups[now])))
        room = _room(pending.take(pa.array(carried)), limits)
        num_skipped += int((~room).sum()) * int(now.sum())
        carried = carried[room]
        chosen = np.sort(np.r_[np.flatnonzero(now), carried])
        wanted = pending.take(pa.array(chosen)).append_column("is_kept", pa.array(np.isin(chosen, carried)))
        removals.append(_round(members, wanted, config, limits.part_chars))
        is_kept |= now & ~np.isin(keys, removals[-1]["row_id"].to_numpy())
    return pa.concat_tables(removals).sort_by("row_id"), num_skipped


def _room(carried: pa.Table, limits: Limits) -> np.ndarray:
    """Which kept documents of each group a further round takes along: the first in the keeper's order that fit."""
    order = np.lexsort((carried["position"].to_numpy(), carried["group"].to_numpy()))
    groups, chars = carried["group"].to_numpy()[order], carried["chars"].to_numpy()[order]
    fits = np.empty(len(order), np.bool_)
    fits[order] = _cut_rounds(groups, np.ones(len(order), np.int64), chars, limits) == 0
    return fits


def _round(members: Members, wanted: pa.Table, config: DedupConfig, part_chars: int) -> pa.Table:
    parts = _parts(wanted, part_chars)
    wanted = wanted.append_column("part", pa.array(parts)).drop_columns(["round", "position", "chars"])
    rows = shuffle(members.load(wanted, _ROWS), "part", int(parts.max(initial=0)) + 1)
    return collect(map_tables(rows, verify_groups, config=config), REMOVALS)


def _wanted(pairs: pa.Table) -> pa.Table:
    """(key, group, chars, needs_text) of every document in a pair, sorted by key.

    Of documents of one text, one is read; of groups of one text, none.
    """
    labels = components.label_in_memory(pairs.select(["left", "right"]))
    keys, groups = labels["key"].to_numpy(), labels["group"].to_numpy()
    chars = np.zeros(len(keys), np.int64)
    for side in ("left", "right"):
        chars[np.searchsorted(keys, pairs[side].to_numpy())] = pairs[f"{side}_chars"].to_numpy()
    exact = pairs["exact"].to_numpy(zero_copy_only=False)
    lefts, rights = pairs["left"].to_numpy(), pairs["right"].to_numpy()
    is_copy = np.isin(keys, rights[exact])
    several = np.isin(groups, groups[np.searchsorted(keys, lefts[~exact])])
    needs_text = several & ~is_copy
    return labels.append_column("chars", pa.array(np.where(needs_text, chars, 0))).append_column(
        "needs_text", pa.array(needs_text)
    )


def _with_rounds(members: Members, wanted: pa.Table, limits: Limits) -> pa.Table:
    """`wanted` with the round of each document, 0 but for groups that are too large for one, and its place in these."""
    groups, chars = wanted["group"].to_numpy(), wanted["chars"].to_numpy()
    needs_text = wanted["needs_text"].to_numpy(zero_copy_only=False).copy()
    _, number = np.unique(groups, return_inverse=True)
    texts, text = np.bincount(number, needs_text), np.bincount(number, chars)
    # Two long documents are compared in one task, whatever their length.
    is_large = ((texts > limits.round_rows) | (text > limits.part_chars)) & (texts > 2)
    rounds, position, chars = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64), chars.copy()
    if is_large.any():
        large = wanted.filter(pa.array(is_large[number])).select(["key", "group"])
        columns = ["doc_id", "source_rank", "num_chars", "text_hash"]
        rows = _in_keeper_order(collect(members.load(large, columns), _KEEPER_ROWS))
        place = np.searchsorted(wanted["key"].to_numpy(), rows["key"].to_numpy())
        first = _first_of_text(rows)
        is_first = first == np.arange(len(first))
        # The first of a text stands for it, and its copies are decided with it.
        needs_text[place], position[place] = is_first, np.arange(rows.num_rows)
        chars[place] = np.where(is_first, rows["num_chars"].to_numpy(), 0)
        rounds[place] = _cut_rounds(rows["group"].to_numpy(), is_first, chars[place], limits)[first]
    added = {"chars": chars, "needs_text": needs_text, "round": rounds, "position": position}
    for name, values in added.items():
        wanted = replace_column(wanted, name, pa.array(values))
    return wanted


def _first_of_text(rows: pa.Table) -> np.ndarray:
    """For each row the first row of its group and text."""
    codes = rows["text_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = np.stack([rows["group"].to_numpy(), codes], axis=1)
    _, first, number = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    return first[number.ravel()]


def _cut_rounds(groups: np.ndarray, counts: np.ndarray, chars: np.ndarray, limits: Limits) -> np.ndarray:
    """Round of each row of groups that lie one after the other.

    A round takes `round_rows` texts and half a task's text, which leaves room for what earlier rounds kept.
    """
    if not len(groups):
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.r_[first, len(groups)])

    def within(values: np.ndarray) -> np.ndarray:
        before = np.cumsum(values) - values
        return before - np.repeat(before[first], sizes)

    return np.maximum(
        within(counts.astype(np.int64)) // limits.round_rows, within(chars) // max(1, limits.part_chars // 2)
    )


def _parts(wanted: pa.Table, part_chars: int) -> np.ndarray:
    """Part of each row: whole groups, in parts of about `part_chars`; a row without text counts a little, too."""
    groups = wanted["group"].to_numpy()
    _, number = np.unique(groups, return_inverse=True)
    weights = np.bincount(number, wanted["chars"].to_numpy() + 1024)
    return (np.cumsum(weights) - weights).astype(np.int64)[number] // part_chars


def _in_keeper_order(table: pa.Table) -> pa.Table:
    """Rows sorted by group, and by the keeper's order within it."""
    table = table.append_column("is_new", pc.greater_equal(table["key"], 0))
    order = [("group", "ascending"), ("is_new", "ascending"), ("source_rank", "ascending"),
             ("num_chars", "descending"), ("doc_id", "ascending"), ("key", "ascending")]  # fmt: skip
    return table.sort_by(order)


# ---------------------------------------------------------------------------------------------------- in a task


def verify_groups(table: pa.Table, config: DedupConfig) -> pa.Table:
    """Removals among whole groups.

    Args:
        table: key, group, is_kept (decided in an earlier round), needs_text, and the columns of _ROWS.

    Returns:
        Table of REMOVALS.
    """
    if not table.num_rows:
        return REMOVALS.empty_table()
    table = _in_keeper_order(table).combine_chunks()
    bounds = np.flatnonzero(np.r_[True, np.diff(table["group"].to_numpy()) != 0, True])
    documents = _Documents(table, config)
    removals: list[dict[str, Any]] = []
    for start, stop in pairwise(bounds.tolist()):
        removals += _verify_group(documents, start, stop, config)
    return pa.Table.from_pylist(removals, schema=REMOVALS)


class _Documents:
    """A sorted table's columns, and the shingle sets of its rows as they are asked for."""

    def __init__(self, table: pa.Table, config: DedupConfig) -> None:
        self.keys = table["key"].to_pylist()
        self.ids = table["doc_id"].to_pylist()
        self.text_hashes = table["text_hash"].to_pylist()
        # Documents of earlier versions and of earlier rounds stay whatever they meet.
        self.stays = [
            key < 0 or is_kept for key, is_kept in zip(self.keys, table["is_kept"].to_pylist(), strict=True)
        ]
        self.has_text = table["needs_text"].to_pylist()
        self.signatures = as_matrix(table["signature"], config.num_permutations)
        texts = table["text"]
        self._data, self._offsets = utf8(
            texts.chunk(0) if texts.num_chunks == 1 else pa.concat_arrays(texts.chunks)
        )
        self._size = config.shingle_size
        self._sets: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def shingles(self, row: int) -> np.ndarray:
        """The row's shingle set; the least used sets are forgotten beyond SHINGLE_BYTES."""
        if row in self._sets:
            self._sets.move_to_end(row)
            return self._sets[row]
        found = shingle_set(self._data[self._offsets[row] : self._offsets[row + 1]], self._size)
        self._sets[row] = found
        self._bytes += found.nbytes
        while self._bytes > SHINGLE_BYTES and len(self._sets) > 1:
            self._bytes -= self._sets.popitem(last=False)[1].nbytes
        return found


class _Match(NamedTuple):
    """The kept row that a document is most like.

    Attributes:
        row: of the kept document.
        similarity: Jaccard.
        value: what was held against the threshold: the similarity, or the share of the document in the kept one.
    """

    row: int
    similarity: float
    value: float


def _verify_group(documents: _Documents, start: int, stop: int, config: DedupConfig) -> list[dict[str, Any]]:
    removals = []
    kept = np.empty(stop - start, np.int64)
    num_kept = 0
    # What became of a text: its documents share its fate. In one group a text hash has one row with a text.
    text_rows = {documents.text_hashes[row]: row for row in range(start, stop) if documents.has_text[row]}
    kept_by_hash: dict[str, int] = {}
    fates: dict[str, _Match | None] = {}
    for row in range(start, stop):
        text_hash = documents.text_hashes[row]
        twin = kept_by_hash.get(text_hash)
        if documents.stays[row]:
            match = None
        elif twin is not None:
            removals.append(_removal(documents, row, EXACT, "exact_duplicate", _Match(twin, 1.0, 1.0), None))
            continue
        else:
            if text_hash not in fates:
                fates[text_hash] = _best_match(documents, text_rows.get(text_hash), kept[:num_kept], config)
            match = fates[text_hash]
        if match is not None:
            reason, bound = "near_duplicate", config.threshold
            if match.similarity < config.threshold:
                reason, bound = "excerpt", config.containment
            removals.append(_removal(documents, row, NEAR, reason, match, bound))
            continue
        kept_by_hash.setdefault(text_hash, row)
        if text_hash in text_rows:
            # The row that has the text stands for the kept one in comparisons.
            kept[num_kept] = text_rows[text_hash]
            num_kept += 1
    by_text = {text_rows[text_hash]: row for text_hash, row in kept_by_hash.items() if text_hash in text_rows}
    for removal in removals:
        row = removal["keeper"] if removal["stage"] == EXACT else by_text[removal["keeper"]]
        removal["keeper"], removal["duplicate_of"] = documents.keys[row], documents.ids[row]
    return removals


def _best_match(
    documents: _Documents, row: int | None, kept: np.ndarray, config: DedupConfig
) -> _Match | None:
    """The kept document that a text counts as a copy of, if any."""
    if row is None or not len(kept):
        return None
    agreement = _agreements(documents.signatures, row, kept)
    # Stable: of equally agreeing ones the first by the keeper's order.
    order = np.argsort(-agreement, kind="stable")[:MAX_COMPARISONS]
    order = order[agreement[order] >= least_agreement(config)]
    if not len(order):
        return None
    shingles = documents.shingles(row)
    best: _Match | None = None
    for other in kept[order]:
        others = documents.shingles(int(other))
        # The bounds by size alone cost nothing.
        fewer, more = sorted((len(shingles), len(others)))
        if not fewer or (fewer < config.threshold * more and not config.containment):
            continue
        common = num_common(shingles, others)
        similarity = common / (len(shingles) + len(others) - common)
        value = similarity
        if similarity < config.threshold:
            contained = common / len(shingles)
            if not config.containment or contained < config.containment:
                continue
            value = contained
        if best is None or (similarity, value) > (best.similarity, best.value):
            best = _Match(int(other), similarity, value)
    return best


@njit(cache=True, nogil=True)
def _agreements(signatures: np.ndarray, row: int, others: np.ndarray) -> np.ndarray:
    out = np.empty(len(others), np.int64)
    for index in range(len(others)):
        out[index] = num_equal(signatures[row], signatures[others[index]])
    return out


def _removal(
    documents: _Documents, row: int, stage: str, reason: str, match: _Match, threshold: float | None
) -> dict[str, Any]:
    return {
        "row_id": documents.keys[row],
        "stage": stage,
        "reason": reason,
        "keeper": match.row,
        "similarity": match.similarity,
        "value": match.value if threshold is not None else None,
        "threshold": threshold,
    }
