"""Read token shards: the half of the format that training needs (pyarrow and numpy, nothing heavier).

A dataset is a folder of uncompressed Arrow IPC files and a `manifest.json`. One row is a document:
`doc_id` string, `tokens` large_list<uint16 or uint32> that begins with the end-of-text token, `num_bytes`
int32. Shards are memory-mapped and never copied as a whole; a window of tokens is a view where it lies
within one record batch and a small copy where it crosses two.

Glossary: a *stream* is all tokens of one source and split, its shards laid end to end in manifest order;
a *position* is a token's index in its stream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.errors import InputError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKENS, DOC_ID, NUM_BYTES = "tokens", "doc_id", "num_bytes"


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
        path = Path(folder) / MANIFEST_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
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

    Attributes:
        name: the source.
        num_tokens: length of the stream.
        num_docs: number of documents.
        num_bytes: UTF-8 bytes of the documents' text.
    """

    def __init__(self, name: str, folder: Path, shards: Iterable[ShardInfo], dtype: np.dtype) -> None:
        self.name = name
        self.dtype = dtype
        self._chunks: list[np.ndarray] = []
        doc_starts: list[np.ndarray] = []
        self.num_docs = self.num_bytes = position = 0
        for shard in shards:
            chunks = list(_map_shard(folder, shard, dtype))
            num_tokens = sum(len(tokens) for tokens, _ in chunks)
            if num_tokens != shard.num_tokens:
                raise InputError(
                    f"{folder / shard.path}: holds {num_tokens} tokens, the manifest says {shard.num_tokens}; "
                    "the shard is damaged, tokenise again"
                )
            for tokens, offsets in chunks:
                self._chunks.append(tokens)
                doc_starts.append(offsets + position)
                position += len(tokens)
            self.num_docs += shard.num_docs
            self.num_bytes += shard.num_bytes
        self.num_tokens = position
        self._chunk_starts = np.cumsum([0] + [len(chunk) for chunk in self._chunks])
        self.doc_starts = np.concatenate(doc_starts) if doc_starts else np.zeros(0, np.int64)

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) as a read-only view, or a copy where record batches meet."""
        if start < 0 or start + length > self.num_tokens:
            raise IndexError(f"[{start}, {start + length}) of a stream of {self.num_tokens} tokens")
        if length == 0:
            return np.zeros(0, self.dtype)
        first = int(np.searchsorted(self._chunk_starts, start, side="right")) - 1
        offset = start - int(self._chunk_starts[first])
        view = self._chunks[first][offset : offset + length]
        if len(view) == length:
            return view
        out = np.empty(length, self.dtype)
        filled = 0
        while filled < length:
            piece = self._chunks[first][offset : offset + length - filled]
            out[filled : filled + len(piece)] = piece
            filled, first, offset = filled + len(piece), first + 1, 0
        return out

    def read_rows(self, starts: np.ndarray, rows: np.ndarray) -> None:
        """Fill row i, [len(starts), length], with the tokens from starts[i] on; faster than `read` for many."""
        length = rows.shape[1]
        if len(starts) and (starts.min() < 0 or starts.max() + length > self.num_tokens):
            raise IndexError(f"rows of {length} tokens beyond a stream of {self.num_tokens}")
        chunks = np.searchsorted(self._chunk_starts, starts, side="right") - 1
        offsets = starts - self._chunk_starts[chunks]
        for i, (chunk, offset) in enumerate(zip(chunks.tolist(), offsets.tolist(), strict=True)):
            view = self._chunks[chunk][offset : offset + length]
            rows[i] = view if len(view) == length else self.read(int(starts[i]), length)


class TokenDataset:
    """The streams of one split, by source name.

    Args:
        folder: the dataset's folder, with `manifest.json`.
        split: "train" or "val".
        verify: also hash every shard and compare with the manifest (sizes are always compared).

    Raises:
        InputError: a missing, damaged or changed shard, named.
    """

    def __init__(self, folder: Path | str, split: str, *, verify: bool = False) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = Manifest.load(self.folder)
        dtype = token_dtype(self.manifest.vocab_size)
        by_source: dict[str, list[ShardInfo]] = {}
        for shard in self.manifest.shards:
            if shard.split == split:
                by_source.setdefault(shard.source, []).append(shard)
        for shards in by_source.values():
            for shard in shards:
                check_shard(self.folder, shard, verify=verify)
        self.streams: Mapping[str, TokenStream] = {
            source: TokenStream(source, self.folder, shards, dtype)
            for source, shards in sorted(by_source.items())
        }

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, over all sources."""
        return sum(stream.num_tokens for stream in self.streams.values())


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


def _map_shard(folder: Path, shard: ShardInfo, dtype: np.dtype) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield (tokens, document offsets) of each record batch, without copying the tokens."""
    path = folder / shard.path
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
