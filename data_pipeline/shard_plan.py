"""Which document goes into which shard: a pure function of what a corpus version keeps.

Documents stand by source, split and the refresh that added them. Refreshes of one source and split are joined into
*runs*, as a log-structured merge tree joins its levels: a run grows until it fills a shard, then it is never touched
again. So a new version adds shards and leaves the large ones as they are, nightly refreshes leave no heap of small
files, and a version tokenised on its own gets the shards that it gets after all versions before it.

A run is cut into shards of like size at *cells*, which are ranges of the documents' ids. A cell is small beside a shard,
so a document that is taken out changes its own shard and, nearly always, no cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.shards import FORMAT_VERSION, canonical_json
from data_pipeline.storage import open_parquet
from data_pipeline.tokenizer import Tokenizer
from data_pipeline.tokenizer_config import ShardConfig
from data_pipeline.words import utf8

CELL_BITS = 14
# Cells of a shard, at least, as long as there are so many: shards differ by 1 in 64 of their size.
CELLS_A_SHARD = 64
BATCH_ROWS = 65_536
# Rows of sums that wait until they are added up.
PENDING_ROWS = 4 << 20
COLUMNS = ["source", "version", "text_hash", "doc_id", "num_chars"]
Key = tuple[str, str, int]
"""(source, split, version that added the documents)."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard before it is written.

    Attributes:
        path: its file name, which ends in a hash of what it holds: equal names, equal bytes.
        source, split: of its documents.
        num_docs, num_chars: of its documents.
    """

    path: str
    source: str
    split: str
    num_docs: int
    num_chars: int

    @property
    def key(self) -> str:
        """The hash in the name."""
        return content_key(self.path)


@dataclass(frozen=True)
class Plan:
    """The shards of a corpus version.

    Attributes:
        shards: in the order of their names.
        cuts: of each (source, split, version), the cells that its shards begin with and their indexes in `shards`.
        files: of each document file, the (source, split, version) that it holds documents of.
    """

    shards: tuple[PlannedShard, ...]
    cuts: dict[Key, tuple[np.ndarray, np.ndarray]]
    files: dict[str, set[Key]]

    def shard_of(self, table: pa.Table, val_share: float) -> np.ndarray:
        """int64 [rows]: index of each document's shard; the table has COLUMNS."""
        found = np.empty(table.num_rows, np.int64)
        for key, rows in _groups(table, val_share):
            starts, shards = self.cuts[key]
            cells = _cells(table["doc_id"].combine_chunks().take(pa.array(rows)))
            found[rows] = shards[np.searchsorted(starts, cells, side="right") - 1]
        return found


def content_key(path: str) -> str:
    """The part of a shard's name that is a hash of its content."""
    return path.removesuffix(".arrow").rsplit("-", 1)[-1]


def plan_shards(corpus: Corpus, version: dict[str, Any], config: ShardConfig, tokenizer: Tokenizer) -> Plan:
    """Look at the ids and sizes of all documents, a little at a time, and cut them into shards.

    Raises:
        InputError: the version keeps no document.
    """
    sums, files = _sum_cells(corpus, version, config.val_share)
    if not sums.num_rows:
        raise InputError(
            f"{corpus.root}: version {version['version']} keeps no document; nothing to tokenise"
        )
    by_key: dict[Key, pa.Table] = {}
    sums = sums.sort_by([(name, "ascending") for name in ("source", "split", "version", "cell")])
    names = sums.select(["source", "split", "version"]).to_pylist()
    keys = [(row["source"], row["split"], row["version"]) for row in names]
    start = 0
    for index in range(1, len(keys) + 1):
        if index == len(keys) or keys[index] != keys[start]:
            by_key[keys[start]] = sums.slice(start, index - start)
            start = index
    shards: list[PlannedShard] = []
    pieces: dict[Key, tuple[np.ndarray, list[str]]] = {}
    for run in _runs(by_key, config.shard_chars):
        cells = _add_up([by_key[key] for key in run])
        starts, planned = _cut(run[0], cells, config.shard_chars, tokenizer)
        shards += planned
        pieces |= {key: (starts, [shard.path for shard in planned]) for key in run}
    shards.sort(key=lambda shard: shard.path)
    index_of = {shard.path: index for index, shard in enumerate(shards)}
    cuts = {
        key: (starts, np.array([index_of[path] for path in paths])) for key, (starts, paths) in pieces.items()
    }
    return Plan(tuple(shards), cuts, files)


def _sum_cells(
    corpus: Corpus, version: dict[str, Any], val_share: float
) -> tuple[pa.Table, dict[str, set[Key]]]:
    """(documents, characters and sums of ids by key and cell; the keys of each document file)."""
    parts: list[pa.Table] = []
    files: dict[str, set[Key]] = {}
    for path in corpus.files("documents", version):
        keys = files.setdefault(path, set())
        with open_parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=COLUMNS):
                table = pa.table(batch).select(COLUMNS)
                for key, rows in _groups(table, val_share):
                    keys.add(key)
                    parts.append(_sum_rows(table.take(pa.array(rows)), key))
        if sum(part.num_rows for part in parts) > PENDING_ROWS:
            parts = [_added(parts)]
    return (_added(parts) if parts else SUMS.empty_table()), files


SUMS = pa.schema(
    [("source", pa.string()), ("split", pa.string()), ("version", pa.int64()), ("cell", pa.int64()),
     ("docs", pa.int64()), ("chars", pa.int64()), ("high", pa.uint64()), ("low", pa.uint64())]
)  # fmt: skip
_AMOUNTS = ("docs", "chars", "high", "low")


def _groups(table: pa.Table, val_share: float) -> Iterator[tuple[Key, np.ndarray]]:
    """The rows of each (source, split, version) of a table."""
    prefix = _hex(table["text_hash"], 8)
    held_out = prefix < np.uint64(min(int(np.ceil(val_share * (1 << 32))), 1 << 32))
    sources = table["source"].combine_chunks().dictionary_encode()
    codes = sources.indices.to_numpy().astype(np.int64)
    versions = table["version"].to_numpy().astype(np.int64)
    for code, is_val, version in np.unique(np.stack([codes, held_out, versions], axis=1), axis=0):
        rows = np.flatnonzero((codes == code) & (held_out == is_val) & (versions == version))
        yield (sources.dictionary[int(code)].as_py(), "val" if is_val else "train", int(version)), rows


def _sum_rows(table: pa.Table, key: Key) -> pa.Table:
    high, low = _hex(table["doc_id"], 16), _hex(table["doc_id"], 16, 16)
    cells = (high >> np.uint64(64 - CELL_BITS)).astype(np.int64)
    order = np.argsort(cells, kind="stable")
    found, starts = np.unique(cells[order], return_index=True)
    chars = table["num_chars"].to_numpy().astype(np.int64)
    sums = [np.add.reduceat(values[order], starts) for values in (np.ones_like(chars), chars, high, low)]
    source, split, version = key
    constants = [
        pa.array([value] * len(found), kind)
        for value, kind in ((source, pa.string()), (split, pa.string()), (version, pa.int64()))
    ]
    return pa.Table.from_arrays([*constants, pa.array(found), *map(pa.array, sums)], schema=SUMS)


def _added(parts: list[pa.Table]) -> pa.Table:
    names = ["source", "split", "version", "cell"]
    table = pa.concat_tables(parts).group_by(names).aggregate([(name, "sum") for name in _AMOUNTS])
    return table.rename_columns([name.removesuffix("_sum") for name in table.column_names]).select(SUMS.names)


def _hex(column: pa.ChunkedArray, length: int, start: int = 0) -> np.ndarray:
    """uint64 value of some hexadecimal digits of each row; ids and hashes are 32 digits."""
    data, offsets = utf8(column.combine_chunks())
    digits = data[offsets[0] : offsets[-1]].reshape(len(column), 32)[:, start : start + length]
    # 0-9 are 0x30 to 0x39, a-f 0x61 to 0x66.
    values = ((digits & 0xF) + 9 * (digits >> 6)).astype(np.uint64)
    result = np.zeros(len(column), np.uint64)
    for place in range(length):
        result = (result << np.uint64(4)) | values[:, place]
    return result


def _cells(doc_ids: pa.Array) -> np.ndarray:
    return (_hex(pa.chunked_array([doc_ids]), 16) >> np.uint64(64 - CELL_BITS)).astype(np.int64)


def _runs(by_key: dict[Key, pa.Table], target: int) -> Iterator[list[Key]]:
    """The keys whose documents are cut into shards together, in order.

    The last two runs of a source and split are joined while the older is neither a full shard nor larger than the newer.
    """
    sizes: dict[tuple[str, str], list[tuple[int, list[Key]]]] = {}
    for key in sorted(by_key):
        runs = sizes.setdefault(key[:2], [])
        runs.append((pc.sum(by_key[key]["chars"]).as_py(), [key]))
        while len(runs) > 1 and runs[-2][0] < target and runs[-2][0] <= runs[-1][0]:
            chars, keys = runs.pop()
            runs[-1] = (runs[-1][0] + chars, runs[-1][1] + keys)
    for _, runs in sorted(sizes.items()):
        yield from (keys for _, keys in runs)


def _add_up(tables: list[pa.Table]) -> dict[str, np.ndarray]:
    """Sums of each cell, [1 << CELL_BITS], over some tables."""
    sums = {
        name: np.zeros(1 << CELL_BITS, np.uint64 if name in ("high", "low") else np.int64)
        for name in _AMOUNTS
    }
    for table in tables:
        cells = table["cell"].to_numpy()
        for name, values in sums.items():
            values[cells] += table[name].to_numpy()
    return sums


def _cut(
    first: Key, cells: dict[str, np.ndarray], shard_chars: int, tokenizer: Tokenizer
) -> tuple[np.ndarray, list[PlannedShard]]:
    """(first cell of each shard, the shards) of one run."""
    total = int(cells["chars"].sum())
    num_shards = max(1, -(-total // shard_chars))
    bits = min(CELL_BITS, (CELLS_A_SHARD * num_shards - 1).bit_length())
    ends = cells["chars"].cumsum()[(1 << (CELL_BITS - bits)) - 1 :: 1 << (CELL_BITS - bits)]
    behind = np.concatenate([[0], ends])
    wanted = np.arange(num_shards) * total // num_shards
    right = np.clip(np.searchsorted(behind, wanted), 1, len(behind) - 1)
    nearest = np.where(wanted - behind[right - 1] < behind[right] - wanted, right - 1, right)
    nearest[0] = 0
    starts = np.unique(nearest) << (CELL_BITS - bits)
    starts = starts[starts < 1 << CELL_BITS]
    sums = {name: np.add.reduceat(values, starts) for name, values in cells.items()}
    filled = sums["docs"] > 0
    source, split, version = first
    shards: list[PlannedShard] = []
    for index in np.flatnonzero(filled):
        docs, chars, high, low = (int(sums[name][index]) for name in _AMOUNTS)
        content = {
            "tokenizer": [tokenizer.name, tokenizer.sha256],
            "format": FORMAT_VERSION,
            "source": source,
            "split": split,
            "docs": docs,
            # A set of ids, which are hashes, by its sum: the same in whatever order they come.
            "ids": f"{high:016x}{low:016x}",
        }
        key = hashlib.sha256(canonical_json(content)).hexdigest()[:16]
        path = f"{source}-{split}-{version:06d}-{len(shards):05d}-{key}.arrow"
        shards.append(PlannedShard(path, source, split, docs, chars))
    return starts[filled], shards
