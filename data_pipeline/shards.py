"""Read token shards: the half of the format that training needs (pyarrow and numpy, nothing heavier).

A dataset is a folder of uncompressed Arrow IPC files and a `manifest.json`. One row is a document:
`doc_id` string, `tokens` large_list<uint16 or uint32> that begins with the end-of-text token, `num_bytes`
int32. Shards are memory-mapped and never copied as a whole; a window of tokens is a view where it lies
within one record batch and a small copy where it crosses two. A dataset in an object store is read through files that
`shard_cache` fetches, each before it is first wanted.

Glossary: a *stream* is all tokens of one source and split, its shards laid end to end in manifest order;
a *position* is a token's index in its stream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view

from data_pipeline.errors import InputError
from data_pipeline.object_stores import store_of
from data_pipeline.shard_cache import ShardCache

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKENS, DOC_ID, NUM_BYTES = "tokens", "doc_id", "num_bytes"
# So many rows of one record batch are gathered at once; fewer are copied one by one, which costs less than the set-up.
MANY_ROWS = 4


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for a JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in bounded pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class ShardInfo:
    """One line of the manifest. `path` is relative to the manifest's folder."""

    path: str
    source: str
    split: str
    num_tokens: int
    num_docs: int
    num_bytes: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a token dataset holds and what it was made from; equal content gives an equal `manifest_hash`."""

    name: str
    corpus_version: int
    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    eot_id: int
    config_hash: str
    shards: tuple[ShardInfo, ...]
    source_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """How often training draws from a source, against its size, where it is not 1."""
    format_version: int = FORMAT_VERSION

    @property
    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """{source: {split: {num_tokens, num_docs, num_bytes, num_shards}}}."""
        totals: dict[str, dict[str, dict[str, int]]] = {}
        for shard in self.shards:
            cell = totals.setdefault(shard.source, {}).setdefault(
                shard.split, {"num_tokens": 0, "num_docs": 0, "num_bytes": 0, "num_shards": 0}
            )
            cell["num_tokens"] += shard.num_tokens
            cell["num_docs"] += shard.num_docs
            cell["num_bytes"] += shard.num_bytes
            cell["num_shards"] += 1
        return totals

    def _content(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        content["shards"] = [dataclasses.asdict(shard) for shard in self.shards]
        content["totals"] = self.totals
        if not self.source_weights:  # as manifests were before there were weights
            del content["source_weights"]
        return content

    @property
    def manifest_hash(self) -> str:
        """sha256 of the canonical JSON of everything else in the manifest."""
        return hashlib.sha256(canonical_json(self._content())).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(
            {**self._content(), "manifest_hash": self.manifest_hash}, indent=2, ensure_ascii=False
        )

    @classmethod
    def load(cls, folder: Path | str) -> Manifest:
        """Read and check `manifest.json` of a dataset folder.

        Raises:
            InputError: missing, unreadable, of another format version, or changed after it was written.
        """
        path = f"{folder}/{MANIFEST_NAME}"
        try:
            raw = json.loads(_read_text(path))
            stated = raw.pop("manifest_hash")
            raw.pop("totals")
            version = raw["format_version"]
            if version != FORMAT_VERSION:
                raise InputError(
                    f"{path}: token format {version}, this gptmill reads {FORMAT_VERSION}; tokenise again with it"
                )
            manifest = cls(**{**raw, "shards": tuple(ShardInfo(**shard) for shard in raw["shards"])})
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: no token dataset there; make one with python -m workflows.tokenize"
            ) from None
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read as a token manifest ({error}); tokenise again") from None
        if manifest.manifest_hash != stated:
            raise InputError(
                f"{path}: content does not match its manifest_hash ({stated[:12]}...); it was edited or damaged, "
                "tokenise again"
            )
        return manifest


class TokenStream:
    """All tokens of one source and split as one sequence, memory-mapped.

    Args:
        folder: the dataset's folder; without a cache its shards are opened and checked at once.
        cache: where the shards of a dataset in an object store become files.

    Attributes:
        name: the source.
        num_tokens: length of the stream.
        num_docs: number of documents.
        num_bytes: UTF-8 bytes of the documents' text.
        starts: position of each shard's first token, and the stream's end.
    """

    def __init__(
        self,
        name: str,
        folder: Path | str,
        shards: Iterable[ShardInfo],
        dtype: np.dtype,
        cache: ShardCache | None = None,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.shards = list(shards)
        self._folder, self._cache = folder, cache
        self.starts = np.cumsum([0, *(shard.num_tokens for shard in self.shards)])
        self.num_tokens = int(self.starts[-1])
        self.num_docs = sum(shard.num_docs for shard in self.shards)
        self.num_bytes = sum(shard.num_bytes for shard in self.shards)
        self._mapped: dict[int, _Mapped] = {}
        if cache is None:
            for index in range(len(self.shards)):
                self._map(index)

    @cached_property
    def doc_starts(self) -> np.ndarray:
        """int64 positions at which the documents begin."""
        starts = [self._map(index).doc_starts + self.starts[index] for index in range(len(self.shards))]
        return np.concatenate(starts) if starts else np.zeros(0, np.int64)

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) as a read-only view, or a copy where record batches meet."""
        if start < 0 or start + length > self.num_tokens:
            raise IndexError(f"[{start}, {start + length}) of a stream of {self.num_tokens} tokens")
        if length == 0:
            return np.zeros(0, self.dtype)
        index = int(np.searchsorted(self.starts, start, side="right")) - 1
        view = self._map(index).read(start - int(self.starts[index]), length)
        if len(view) == length:
            return view
        out = np.empty(length, self.dtype)
        filled = 0
        while filled < length:
            place = start + filled
            if place >= self.starts[index + 1]:
                index += 1
                continue
            piece = self._map(index).read(place - int(self.starts[index]), length - filled)
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        return out

    def read_rows(self, starts: np.ndarray, rows: np.ndarray) -> None:
        """Fill row i, [len(starts), length], with the tokens from starts[i] on; faster than `read` for many."""
        length = rows.shape[1]
        if len(starts) and (starts.min() < 0 or starts.max() + length > self.num_tokens):
            raise IndexError(f"rows of {length} tokens beyond a stream of {self.num_tokens}")
        shards = np.searchsorted(self.starts, starts, side="right") - 1
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            for place in self._map(shard).fill(starts[places] - self.starts[shard], rows, places):
                rows[place] = self.read(int(starts[place]), length)

    def shards_at(self, start: np.ndarray, length: int) -> np.ndarray:
        """Indexes of the shards that windows of a length touch, in the order of the windows, each once."""
        first = np.searchsorted(self.starts, start, side="right") - 1
        end = np.minimum(start + length, self.num_tokens) - 1
        last = np.searchsorted(self.starts, end, side="right") - 1
        touched = np.stack([first, last], axis=1).ravel()
        _, places = np.unique(touched, return_index=True)
        return touched[np.sort(places)]

    def forget(self, sha256: str) -> None:
        """Close the shard of a file that is gone."""
        for index in list(self._mapped):  # training may open a shard meanwhile
            if self.shards[index].sha256 == sha256:
                self._mapped.pop(index, None)

    def _map(self, index: int) -> _Mapped:
        mapped = self._mapped.get(index)
        if mapped is None:
            shard = self.shards[index]
            path = Path(self._folder) / shard.path if self._cache is None else None
            if self._cache is not None:
                path = self._cache.path(shard.path, shard.size, shard.sha256)
            assert path is not None
            mapped = self._mapped[index] = _Mapped(path, shard, self.dtype)
        return mapped


class _Mapped:
    """One open shard."""

    def __init__(self, path: Path, shard: ShardInfo, dtype: np.dtype) -> None:
        chunks = list(_map_shard(path, dtype))
        self._chunks = [tokens for tokens, _ in chunks]
        self._starts = np.cumsum([0, *map(len, self._chunks)])
        if self._starts[-1] != shard.num_tokens:
            raise InputError(
                f"{path}: holds {self._starts[-1]} tokens, the manifest says {shard.num_tokens}; "
                "the shard is damaged, tokenise again"
            )
        starts = [offsets + start for (_, offsets), start in zip(chunks, self._starts, strict=False)]
        self.doc_starts = np.concatenate(starts) if starts else np.zeros(0, np.int64)

    def fill(self, starts: np.ndarray, rows: np.ndarray, places: np.ndarray) -> Iterator[int]:
        """Fill rows[places[i]] with the tokens from starts[i] on; gives those places whose row is not within one record batch."""
        length = rows.shape[1]
        chunks = np.searchsorted(self._starts, starts, side="right") - 1
        offsets = starts - self._starts[chunks]
        for chunk in np.unique(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            tokens = self._chunks[chunk]
            is_whole = offsets[here] + length <= len(tokens)
            whole = here[is_whole]
            if len(whole) > MANY_ROWS:
                rows[places[whole]] = sliding_window_view(tokens, length)[offsets[whole]]
            else:
                for place, offset in zip(places[whole].tolist(), offsets[whole].tolist(), strict=True):
                    rows[place] = tokens[offset : offset + length]
            yield from places[here[~is_whole]].tolist()

    def read(self, start: int, length: int) -> np.ndarray:
        """A view of the tokens from `start`, as far as their record batch reaches."""
        chunk = int(np.searchsorted(self._starts, start, side="right")) - 1
        offset = start - int(self._starts[chunk])
        return self._chunks[chunk][offset : offset + length]


class TokenDataset:
    """The streams of one split, by source name.

    Args:
        folder: the dataset's folder, with `manifest.json`; a path or a URI (s3, gs).
        split: "train" or "val".
        verify: also hash every shard and compare with the manifest (sizes are always compared, and what is fetched from an
            object store is always hashed).

    Raises:
        InputError: a missing, damaged or changed shard, named.
    """

    def __init__(self, folder: Path | str, split: str, *, verify: bool = False) -> None:
        self.folder = folder
        self.split = split
        self.manifest = Manifest.load(folder)
        self.cache = ShardCache(str(folder)) if is_remote(folder) else None
        dtype = token_dtype(self.manifest.vocab_size)
        by_source: dict[str, list[ShardInfo]] = {}
        for shard in self.manifest.shards:
            if shard.split == split:
                by_source.setdefault(shard.source, []).append(shard)
        if self.cache is None:
            for shards in by_source.values():
                for shard in shards:
                    check_shard(Path(folder), shard, verify=verify)
        self.streams: Mapping[str, TokenStream] = {
            source: TokenStream(source, folder, shards, dtype, self.cache)
            for source, shards in sorted(by_source.items())
        }
        if self.cache is not None:
            self.cache.on_eviction(self._forget)

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, over all sources."""
        return sum(stream.num_tokens for stream in self.streams.values())

    def fetch_ahead(self, reads: Iterable[tuple[str, np.ndarray]], length: int) -> None:
        """Have shards of an object store fetched in the order in which windows will be read; nothing where they are local.

        Args:
            reads: (source, positions of its windows), the first that will be read, in their order. The other shards of
                these sources follow in the order of the manifest.
            length: tokens of a window.
        """
        if self.cache is None:
            return
        first: dict[ShardInfo, None] = {}
        sources: dict[str, None] = {}
        for source, starts in reads:
            stream = self.streams[source]
            sources[source] = None
            first |= dict.fromkeys(stream.shards[index] for index in stream.shards_at(starts, length))
        others = (shard for source in sources for shard in self.streams[source].shards)
        order = [*first, *(shard for shard in others if shard not in first)]
        self.cache.fetch_ahead([(shard.path, shard.size, shard.sha256) for shard in order])

    def _forget(self, sha256: str) -> None:
        for stream in self.streams.values():
            stream.forget(sha256)


def is_remote(folder: Path | str) -> bool:
    """Whether a place is in an object store."""
    return "://" in str(folder)


def _read_text(path: str) -> str:
    if not is_remote(path):
        return Path(path).read_text(encoding="utf-8")
    files, place = store_of(path)
    with files.open_input_stream(place) as file:
        return bytes(file.read()).decode("utf-8")


def check_shard(folder: Path, shard: ShardInfo, *, verify: bool) -> None:
    """Compare a shard's size, and with `verify` its sha256, with the manifest.

    Raises:
        InputError: names the shard and what differs.
    """
    path = folder / shard.path
    if not path.is_file():
        raise InputError(f"{path} is missing, the manifest names it; restore it or tokenise again")
    size = path.stat().st_size
    if size != shard.size:
        raise InputError(
            f"{path}: {size} bytes, the manifest says {shard.size}; the shard is damaged, tokenise again"
        )
    if verify and file_sha256(path) != shard.sha256:
        raise InputError(f"{path}: sha256 differs from the manifest; the shard is damaged, tokenise again")


def _map_shard(path: Path, dtype: np.dtype) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield (tokens, document offsets) of each record batch, without copying the tokens."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        for index in range(reader.num_record_batches):
            column = reader.get_batch(index).column(TOKENS)
            offsets = column.offsets.to_numpy()
            # `.values` ignores a slice's offset, so cut by the first and last list offset.
            tokens = column.values.to_numpy()[offsets[0] : offsets[-1]]
            if tokens.dtype != dtype:
                raise InputError(
                    f"{path}: tokens are {tokens.dtype}, the manifest's vocabulary needs {dtype}"
                )
            yield tokens, (offsets[:-1] - offsets[0]).astype(np.int64)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read as an Arrow IPC file ({error}); tokenise again") from None
