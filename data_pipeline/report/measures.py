"""What the data report says in numbers: one pass over the narrow columns of a version's tables, a batch at a time.

Memory is bounded by the number of sources, languages and domains, and by a number for each duplicate; never by the
texts of a corpus.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from data_pipeline import schema
from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.crawl.scope import registered_domain
from data_pipeline.storage import open_parquet

# Eight bins to each power of ten, from 1 character to 100 million; the last holds what is longer.
BINS_A_DECADE, NUM_DECADES, SCORE_BINS = 8, 8, 25
SCORES = tuple(name for name in ("lang_score", "quality_score") if name in TABLES["removed"].names)
EXAMPLES_A_REASON, VALUES_A_REASON, MAX_LARGEST = 4, 200, 10
MAX_HOSTS = 500_000
BATCH_ROWS = 16_384
REASON = ("source", "stage", "reason")
HOST = r"^https?://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"
KEPT, REMOVED = 0, 1


def _arrays(*shape: int) -> defaultdict[Any, np.ndarray]:
    return defaultdict(lambda: np.zeros(shape, np.int64))


@dataclass
class Measures:
    """The numbers of a version; arrays begin with [kept, removed] where they do not say otherwise.

    Attributes:
        lengths: {source: documents with a text of their own by length in characters, [2, bins]}.
        scores: {(column, source): documents by score between 0 and 1, [2, bins]}.
        languages: {(source, language): [documents kept, removed, words kept, characters kept]}.
        domains: {(source, registered domain): documents with a text of their own [2]}, of web pages.
        has_all_domains: False where rare ones had to be dropped, so that counts are lower bounds.
        examples: {(source, stage, reason): removed documents}, chosen by id.
        values: {(source, stage, reason): {value, threshold} of removed documents}, chosen by id.
        cluster_sizes: documents of each group of duplicates, the kept one included.
        largest: {doc_id, source, uri, size} of the kept documents with the most duplicates.
        similarities: near-duplicates by similarity, [bins].
    """

    lengths: dict[str, np.ndarray] = field(default_factory=lambda: _arrays(2, BINS_A_DECADE * NUM_DECADES))
    scores: dict[tuple[str, str], np.ndarray] = field(default_factory=lambda: _arrays(2, SCORE_BINS))
    languages: dict[tuple[str, str], np.ndarray] = field(default_factory=lambda: _arrays(4))
    domains: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    has_all_domains: bool = True
    examples: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)
    values: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)
    cluster_sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    largest: list[dict[str, Any]] = field(default_factory=list)
    similarities: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))


def measure(
    corpus: Corpus,
    version: dict[str, Any],
    shown: Mapping[str, str],
    reasons: Collection[tuple[str, str]],
    inputs: pa.Table,
) -> Measures:
    """Go through removed, then kept documents.

    Args:
        shown: {source: the name it is counted under}.
        reasons: (stage, reason) pairs to choose examples of.
        inputs: rows of corpus/inputs; books and wikis have no domains worth counting.
    """
    found = Measures()
    kinds = inputs.group_by(["source", "kind"]).aggregate([]).to_pylist()
    hosts = _Hosts({row["source"] for row in kinds if row["kind"] not in ("books", "wiki")})
    clusters = _removed(corpus, version, shown, reasons, hosts, found)
    keepers, found.cluster_sizes = np.unique(clusters, return_counts=True)
    found.cluster_sizes += 1
    order = np.lexsort((keepers, -found.cluster_sizes))[:MAX_LARGEST]
    largest = dict(zip(keepers[order].tolist(), found.cluster_sizes[order].tolist(), strict=True))
    _kept(corpus, version, shown, hosts, largest, found)
    found.domains, found.has_all_domains = hosts.domains(), hosts.is_whole
    return found


def _removed(
    corpus: Corpus,
    version: dict[str, Any],
    shown: Mapping[str, str],
    reasons: Collection[tuple[str, str]],
    hosts: _Hosts,
    found: Measures,
) -> np.ndarray:
    """Count removed documents; return a number for the kept document of each duplicate."""
    examples = _Sample(EXAMPLES_A_REASON, ["uri", "value", "threshold", "text_sample"])
    values = _Sample(VALUES_A_REASON, ["value", "threshold"])
    wanted = pa.array(sorted(f"{stage} {reason}" for stage, reason in reasons), pa.string())
    clusters = [np.zeros(0, np.uint64)]
    columns = ["doc_id", *REASON, "uri", "duplicate_of", "similarity", "value", "threshold", "text_sample"]
    for rows in _batches(corpus, "removed", version, [*columns, "num_chars", "num_words", "lang", *SCORES]):
        with_text = rows.filter(pc.invert(pc.is_in(rows["stage"], pa.array(schema.BEFORE_TEXT))))
        hosts.add(with_text, shown, REMOVED)
        _count_texts(_renamed(with_text, shown), REMOVED, found)
        rows = _renamed(rows, shown)
        is_wanted = pc.is_in(pc.binary_join_element_wise(rows["stage"], rows["reason"], " "), wanted)
        examples.add(rows.filter(is_wanted))
        values.add(rows.filter(pc.and_(is_wanted, pc.is_valid(rows["value"]))))
        copies = rows.filter(pc.is_valid(rows["duplicate_of"]))
        clusters.append(_numbers(copies["duplicate_of"]))
        near = copies["similarity"].filter(pc.less(copies["similarity"], 1.0)).to_numpy()
        found.similarities += np.bincount(_score_bins(near), minlength=SCORE_BINS)
    found.examples, found.values = examples.groups(), values.groups()
    return np.concatenate(clusters)


def _kept(
    corpus: Corpus,
    version: dict[str, Any],
    shown: Mapping[str, str],
    hosts: _Hosts,
    largest: Mapping[int, int],
    found: Measures,
) -> None:
    numbers = np.array(sorted(largest), np.uint64)
    columns = ["doc_id", "source", "uri", "num_chars", "num_words", "lang", *SCORES]
    for rows in _batches(corpus, "documents", version, columns):
        hosts.add(rows, shown, KEPT)
        rows = _renamed(rows, shown)
        _count_texts(rows, KEPT, found)
        if largest:
            own = _numbers(rows["doc_id"])
            for row in np.flatnonzero(np.isin(own, numbers)):
                keeper = rows.select(["doc_id", "source", "uri"]).slice(row, 1).to_pylist()[0]
                found.largest.append({**keeper, "size": largest[int(own[row])]})
    found.largest.sort(key=lambda row: (-row["size"], row["doc_id"]))


def _batches(
    corpus: Corpus, table: str, version: dict[str, Any], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """A table's rows, a bounded number at a time; columns that came later than a file are null.

    File by file: a scan of the dataset reads ahead of a slow reader, up to a gigabyte.
    """
    fields = pa.schema([TABLES[table].field(name) for name in columns if name in TABLES[table].names])
    for path in corpus.files(table, version):
        with open_parquet(path) as file:
            known = [name for name in fields.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=known):
                yield schema.conform(pa.table(batch), fields)


def _renamed(rows: pa.Table, shown: Mapping[str, str]) -> pa.Table:
    sources = pc.dictionary_encode(rows["source"]).combine_chunks()
    names = pa.array([shown.get(name, name) for name in sources.dictionary.to_pylist()], pa.string())
    return schema.replace_column(rows, "source", pc.take(names, sources.indices))


def _numbers(ids: pa.ChunkedArray) -> np.ndarray:
    """64 bits for each id: a few bytes where the ids of all duplicates of a large corpus would not fit."""
    return np.fromiter((xxhash.xxh3_64_intdigest(value.encode()) for value in ids.to_pylist()), np.uint64)


# ------------------------------------------------------------------------------------------------ distributions


def _count_texts(rows: pa.Table, side: int, found: Measures) -> None:
    """Lengths, scores and languages of documents that have a text."""
    sources = rows["source"].to_numpy()
    for source in pc.unique(rows["source"]).to_pylist():
        own = rows.filter(pa.array(sources == source))
        lengths = own["num_chars"].drop_null().to_numpy()
        bins = np.clip(np.log10(np.maximum(lengths, 1)) * BINS_A_DECADE, 0, BINS_A_DECADE * NUM_DECADES - 1)
        found.lengths[source][side] += np.bincount(
            bins.astype(np.int64), minlength=BINS_A_DECADE * NUM_DECADES
        )
        for name in SCORES:
            if name in own.column_names:
                scores = _score_bins(own[name].drop_null().to_numpy())
                found.scores[name, source][side] += np.bincount(scores, minlength=SCORE_BINS)
    totals = rows.group_by(["source", "lang"]).aggregate(
        [([], "count_all"), ("num_words", "sum"), ("num_chars", "sum")]
    )
    for row in totals.to_pylist():
        cell = found.languages[row["source"], row["lang"] or ""]
        cell[side] += row["count_all"]
        if side == KEPT:
            cell[2:] += (row["num_words_sum"] or 0, row["num_chars_sum"] or 0)


def _score_bins(scores: np.ndarray) -> np.ndarray:
    return np.clip(scores * SCORE_BINS, 0, SCORE_BINS - 1).astype(np.int64)


# ------------------------------------------------------------------------------------------------------ domains


class _Hosts:
    """Web pages by source and host, kept and removed.

    Args:
        places: the sources whose pages count.
    """

    def __init__(self, places: Collection[str]) -> None:
        self._places = pa.array(sorted(places), pa.string())
        self._counts: tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]] = (Counter(), Counter())
        self.is_whole = True

    def add(self, rows: pa.Table, shown: Mapping[str, str], side: int) -> None:
        """Count the pages among some documents."""
        rows = rows.select(["source", "uri"]).filter(pc.is_in(rows["source"], self._places))
        hosts = pc.struct_field(pc.extract_regex(pc.utf8_lower(rows["uri"]), HOST), "host")
        groups = pa.table({"source": rows["source"], "host": hosts}).group_by(["source", "host"])
        counts = self._counts[side]
        for row in groups.aggregate([([], "count_all")]).to_pylist():
            if row["host"]:
                counts[shown.get(row["source"], row["source"]), row["host"]] += row["count_all"]
        if len(counts) > MAX_HOSTS:
            self.is_whole = False
            most = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[: MAX_HOSTS // 2]
            counts.clear()
            counts.update(dict(most))

    def domains(self) -> dict[tuple[str, str], np.ndarray]:
        """{(source, registered domain): pages [kept, removed]}."""
        found: dict[tuple[str, str], np.ndarray] = _arrays(2)
        for side, counts in enumerate(self._counts):
            for (source, host), count in counts.items():
                found[source, registered_domain(host)][side] += count
        return found


# ------------------------------------------------------------------------------------------------------ samples


class _Sample:
    """Of each reason's documents those with the smallest ids: a fair sample, as ids are hashes, and the same in any order.

    Args:
        size: rows of a group that are kept.
        columns: what is kept of them.
    """

    def __init__(self, size: int, columns: Sequence[str]) -> None:
        self._size, self._columns = size, [*REASON, "doc_id", *columns]
        self._rows: pa.Table | None = None

    def add(self, rows: pa.Table) -> None:
        """Take in a batch of rows."""
        rows = rows.select(self._columns)
        rows = rows if self._rows is None else pa.concat_tables([self._rows, rows])
        rows = rows.sort_by([(name, "ascending") for name in (*REASON, "doc_id")])
        # A page that was stored twice is one example.
        rows = rows.filter(pa.array(_places_in_groups(rows, (*REASON, "doc_id")) == 0))
        self._rows = rows.filter(pa.array(_places_in_groups(rows, REASON) < self._size)).combine_chunks()

    def groups(self) -> dict[tuple[str, ...], list[dict[str, Any]]]:
        """The rows of each group, the smallest id first."""
        found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in self._rows.to_pylist() if self._rows is not None else []:
            found.setdefault(tuple(row[name] for name in REASON), []).append(row)
        return found


def _places_in_groups(rows: pa.Table, group: Sequence[str]) -> np.ndarray:
    """Which row of its group each is, from 0; rows of a group stand together."""
    places = np.arange(rows.num_rows)
    is_first = places == 0
    for name in group:
        codes = pc.dictionary_encode(rows[name].combine_chunks()).indices.to_numpy(zero_copy_only=False)
        is_first[1:] |= codes[1:] != codes[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))
