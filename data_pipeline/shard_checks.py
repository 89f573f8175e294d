"""Whether a token dataset is what its manifest and its corpus say: every file, every row, every document."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.shard_cache import ShardCache
from data_pipeline.shard_plan import plan_shards
from data_pipeline.shards import (
    DOC_ID,
    MANIFEST_NAME,
    NUM_BYTES,
    TOKENS,
    Manifest,
    ShardInfo,
    check_shard,
    is_remote,
    token_dtype,
)
from data_pipeline.storage import find
from data_pipeline.tokenizer import Tokenizer
from data_pipeline.tokenizer_config import ShardConfig


@dataclass(frozen=True)
class Verification:
    """What verifying a dataset found.

    Attributes:
        num_shards, num_docs, num_tokens, num_bytes: looked at; bytes are those of the files.
        problems: a line each.
    """

    num_shards: int
    num_docs: int
    num_tokens: int
    num_bytes: int
    problems: tuple[str, ...]


def verify_dataset(
    folder: Path,
    manifest: Manifest,
    tokenizer: Tokenizer | None,
    progress: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Read every byte of a dataset.

    Hashes and sizes against the manifest; of each shard the schema, its metadata, the order of the ids, the token before
    each document, ids within the vocabulary, and the counts; with the tokenizer also that the tokens of each document
    have as many bytes as its text.

    Args:
        tokenizer: the one that made the dataset, None if it is gone.
    """
    problems: list[str] = []
    if tokenizer is not None and tokenizer.sha256 != manifest.tokenizer_sha256:
        problems.append(f"{folder}: the tokenizer {tokenizer.name} is not the one that made it")
        tokenizer = None
    lengths = None if tokenizer is None else tokenizer.byte_lengths().astype(np.int64)
    known = {shard.path for shard in manifest.shards}
    problems += [
        f"{path}: the manifest does not name it"
        for path in find(folder, "*")
        if path.name not in known and path.name != MANIFEST_NAME
    ]
    done = 0

    def check(shard: ShardInfo) -> list[str]:
        nonlocal done
        found = list(_check(folder, shard, manifest, lengths, cache))
        done += 1
        progress(f"verified {done} of {len(manifest.shards)} shards")
        return found

    # A folder of its own: what the node's cache holds says nothing of the store.
    with TemporaryDirectory() as fetched, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        cache = ShardCache(str(folder), Path(fetched)) if is_remote(folder) else None
        for found in pool.map(check, manifest.shards):
            problems += found
    return Verification(
        len(manifest.shards),
        sum(shard.num_docs for shard in manifest.shards),
        sum(shard.num_tokens for shard in manifest.shards),
        sum(shard.size for shard in manifest.shards),
        tuple(problems),
    )


def verify_documents(
    corpus: Corpus, manifest: Manifest, tokenizer: Tokenizer, config: ShardConfig
) -> list[str]:
    """Problems where the dataset does not hold exactly the documents of its corpus version.

    The names of shards are hashes of the ids that they hold, so no text is read.
    """
    version = corpus.at(manifest.corpus_version)
    planned = {shard.path: shard.num_docs for shard in plan_shards(corpus, version, config, tokenizer).shards}
    found = {shard.path: shard.num_docs for shard in manifest.shards}
    if planned == found:
        return []
    return [
        f"the documents are not those of corpus version {manifest.corpus_version}: {len(planned.keys() - found.keys())} "
        f"shards are missing, {len(found.keys() - planned.keys())} are others; tokenise again"
    ]


def _check(
    folder: Path, shard: ShardInfo, manifest: Manifest, lengths: np.ndarray | None, cache: ShardCache | None
) -> Iterator[str]:
    place = f"{folder}/{shard.path}"
    try:
        if cache is None:
            check_shard(folder, shard, verify=True)
            path = folder / shard.path
        else:
            path = cache.path(shard.path, shard.size, shard.sha256)
    except InputError as error:
        yield str(error)
        return
    try:
        with _opened(path) as reader:
            yield from _check_schema(reader.schema, place, shard, manifest)
            counts = [0, 0, 0]
            last = ""
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                yield from _check_batch(batch, place, last, manifest, lengths)
                last = batch[DOC_ID][-1].as_py() if len(batch) else last
                added = (len(batch), len(batch[TOKENS].flatten()), pc.sum(batch[NUM_BYTES]).as_py() or 0)
                counts = [total + more for total, more in zip(counts, added, strict=True)]
            if counts != [shard.num_docs, shard.num_tokens, shard.num_bytes]:
                yield f"{place}: holds {counts} documents, tokens and bytes; the manifest says otherwise"
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        yield f"{place} cannot be read as an Arrow IPC file ({error})"


@contextmanager
def _opened(path: Path) -> Iterator[pa.ipc.RecordBatchFileReader]:
    with pa.memory_map(str(path)) as file:
        yield pa.ipc.open_file(file)


def _check_schema(schema: pa.Schema, place: str, shard: ShardInfo, manifest: Manifest) -> Iterator[str]:
    dtype = token_dtype(manifest.vocab_size)
    expected = {DOC_ID: pa.string(), TOKENS: pa.large_list(pa.from_numpy_dtype(dtype)), NUM_BYTES: pa.int32()}
    if dict(zip(schema.names, schema.types, strict=True)) != expected:
        yield f"{place}: its columns are not those of token shards"
    stated = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    for key, value in (
        ("tokenizer_sha256", manifest.tokenizer_sha256),
        ("source", shard.source),
        ("split", shard.split),
    ):
        if stated.get(key) != value:
            yield f"{place}: its {key} is {stated.get(key)!r}, the manifest says {value!r}"


def _check_batch(
    batch: pa.RecordBatch, place: str, last: str, manifest: Manifest, lengths: np.ndarray | None
) -> Iterator[str]:
    if not len(batch):
        return
    ids = pa.concat_arrays([pa.array([last], pa.string()), batch[DOC_ID]])
    if not pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        yield f"{place}: its documents are not in the order of their ids, each once"
    tokens = batch[TOKENS].flatten().to_numpy()
    offsets = batch[TOKENS].offsets.to_numpy()
    offsets = offsets - offsets[0]
    if len(tokens) and int(tokens.max()) >= manifest.vocab_size:
        yield f"{place}: token {tokens.max()} is outside the vocabulary of {manifest.vocab_size}"
        return
    if (np.diff(offsets) < 1).any() or (tokens[offsets[:-1]] != manifest.eot_id).any():
        yield f"{place}: a document does not begin with the end-of-text token"
        return
    if lengths is not None:
        sizes = np.add.reduceat(lengths[tokens], offsets[:-1])
        if (sizes != batch[NUM_BYTES].to_numpy()).any():
            yield f"{place}: the tokens of a document have not as many bytes as its text had"
