"""Write token shards: the corpus encoded, grouped by source and split, one Arrow IPC file a shard.

A document's shard follows from its id alone, and a shard's rows are sorted by id, so the files' bytes are
the same for any number of workers and blocks.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.atomic import write_json
from data_pipeline.config import ShardConfig
from data_pipeline.corpus import Corpus
from data_pipeline.engine import collect, from_tables, map_tables, shuffle
from data_pipeline.errors import InputError
from data_pipeline.shards import (
    DOC_ID,
    FORMAT_VERSION,
    MANIFEST_NAME,
    NUM_BYTES,
    TOKENS,
    Manifest,
    ShardInfo,
    canonical_json,
    file_sha256,
    token_dtype,
)
from data_pipeline.tokenizer import Tokenizer, cached_tokenizer, is_validation

Progress = Callable[[str], None]
# Rows of a record batch: reading is zero-copy within one, so they are large.
BATCH_DOCS = 8192
# Text that one partition of the shuffle holds, about; a partition writes whole shards.
CHARS_A_PARTITION = 64 << 20
SHARD_ROWS = pa.schema(
    [("path", pa.string()), ("source", pa.string()), ("split", pa.string()), ("num_tokens", pa.int64()),
     ("num_docs", pa.int64()), ("num_bytes", pa.int64()), ("size", pa.int64()), ("sha256", pa.string())]
)  # fmt: skip


def write_shards(
    corpus: Corpus,
    version: dict[str, Any],
    tokenizer: Tokenizer,
    name: str,
    config: ShardConfig,
    root: Path,
    progress: Progress = lambda line: None,
) -> tuple[Path, Manifest, bool]:
    """Encode a corpus version into `<root>/<name>/<version folder>`, or find it there.

    Args:
        version: row of corpus/versions.
        tokenizer: what encodes the text.
        name: name of the token dataset.
        root: <workspace>/tokens.

    Returns:
        (folder of the dataset, its manifest, whether it was made now).

    Raises:
        InputError: the corpus version holds no document.
    """
    config.validate()
    sha256 = tokenizer.sha256
    config_hash = hashlib.sha256(
        canonical_json({"shards": asdict(config), "corpus": version["config_hash"], "format": FORMAT_VERSION})
    ).hexdigest()
    folder = root / name / f"v{version['version']:06d}-{sha256[:8]}-{config_hash[:8]}"
    is_new = not (folder / MANIFEST_NAME).exists()
    if not is_new:
        progress(f"tokens of corpus version {version['version']} are there already")
        manifest = Manifest.load(folder)
    else:
        temporary = folder.with_name(f".tmp-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        common: dict[str, Any] = {
            "tokenizer": tokenizer.name,
            "tokenizer_sha256": sha256,
            "vocab_size": tokenizer.vocab_size,
            "eot_id": tokenizer.eot_id,
        }
        shards = _write_all(corpus, version, tokenizer, config, temporary, common, progress)
        manifest = Manifest(
            name=name,
            corpus_version=version["version"],
            config_hash=config_hash,
            shards=shards,
            source_weights=corpus.source_weights(version),
            **common,
        )
        (temporary / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    _name_latest(root / name, folder, manifest)
    return folder, manifest, is_new


def _name_latest(root: Path, folder: Path, manifest: Manifest) -> None:
    """Point latest.json at a dataset, unless it names one of a newer corpus version."""
    latest = root / "latest.json"
    if latest.exists():
        known = root / json.loads(latest.read_text(encoding="utf-8"))["version"]
        if (known / MANIFEST_NAME).exists() and Manifest.load(known).corpus_version > manifest.corpus_version:
            return
    write_json(latest, {"version": folder.name, "manifest_hash": manifest.manifest_hash})


def latest_dataset(root: Path, name: str) -> Path:
    """Folder of the newest token dataset of a name.

    Raises:
        InputError: there is none.
    """
    path = root / name / "latest.json"
    try:
        return root / name / json.loads(path.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        known = sorted(entry.parent.name for entry in root.glob("*/latest.json"))
        raise InputError(
            f"no token dataset {name!r} in {root} (there: {', '.join(known) or 'none'}); "
            "make one with python -m workflows.tokenize"
        ) from None


def _write_all(
    corpus: Corpus,
    version: dict[str, Any],
    tokenizer: Tokenizer,
    config: ShardConfig,
    folder: Path,
    common: dict[str, Any],
    progress: Progress,
) -> tuple[ShardInfo, ...]:
    num_shards, num_partitions = _plan(corpus, version, config)
    files = corpus.files("documents", version)
    units = [pa.table({"path": [path]}) for path in files]
    progress(f"encoding the documents into {sum(num_shards.values())} shards")
    encoded = map_tables(
        from_tables(units),
        _encode_file,
        name=tokenizer.name,
        text=tokenizer.text,
        num_shards=num_shards,
        val_share=config.val_share,
    )
    written = map_tables(
        shuffle(encoded, "shard", num_partitions), _write_partition, folder=str(folder), common=common
    )
    shards = (ShardInfo(**row) for row in collect(written, SHARD_ROWS).to_pylist())
    return tuple(sorted(shards, key=lambda shard: shard.path))


def _plan(corpus: Corpus, version: dict[str, Any], config: ShardConfig) -> tuple[dict[str, int], int]:
    """({source/split: number of shards}, partitions of the shuffle), from the characters each holds."""
    table = corpus.read("documents", version, ["source", "text_hash", "num_chars"])
    if not table.num_rows:
        raise InputError(
            f"{corpus.root}: version {version['version']} keeps no document; nothing to tokenise"
        )
    chars: dict[str, int] = {}
    for source, text_hash, num_chars in zip(*(column.to_pylist() for column in table.columns), strict=True):
        key = f"{source}/{_split(text_hash, config.val_share)}"
        chars[key] = chars.get(key, 0) + num_chars
    num_shards = {key: -(-count // config.shard_chars) or 1 for key, count in sorted(chars.items())}
    return num_shards, min(sum(num_shards.values()), 1 + sum(chars.values()) // CHARS_A_PARTITION)


def _split(text_hash: str, val_share: float) -> str:
    return "val" if is_validation(text_hash, val_share) else "train"


def _encode_file(
    units: pa.Table, name: str, text: str, num_shards: dict[str, int], val_share: float
) -> pa.Table:
    """Encode the documents of Parquet files; a row is (shard, doc_id, tokens, num_bytes)."""
    tokenizer = cached_tokenizer(name, text)
    dtype = token_dtype(tokenizer.vocab_size)
    shards: list[str] = []
    doc_ids: list[str] = []
    num_bytes: list[int] = []
    pieces: list[np.ndarray] = []
    for path in units["path"].to_pylist():
        table = pq.read_table(path, columns=["doc_id", "source", "text_hash", "text"], partitioning=None)
        for doc_id, source, text_hash, document in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        ):
            key = f"{source}/{_split(text_hash, val_share)}"
            # The id is a hash: its leading bits spread documents evenly over the shards.
            index = int(doc_id[:8], 16) * num_shards[key] >> 32
            shards.append(f"{key}/{index:05d}")
            doc_ids.append(doc_id)
            num_bytes.append(len(document.encode("utf-8")))
            pieces.append(np.array([tokenizer.eot_id, *tokenizer.encode(document)], dtype))
    offsets = np.cumsum([0] + [len(piece) for piece in pieces]).astype(np.int64)
    values = pa.array(np.concatenate(pieces) if pieces else np.zeros(0, dtype))
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)
    return pa.table(
        {
            "shard": pa.array(shards, pa.string()),
            DOC_ID: pa.array(doc_ids, pa.string()),
            TOKENS: tokens,
            NUM_BYTES: pa.array(num_bytes, pa.int32()),
        }
    )


def _write_partition(table: pa.Table, folder: str, common: dict[str, Any]) -> pa.Table:
    """Write the whole shards that a partition holds; a row of ShardInfo each."""
    rows = []
    table = table.sort_by([("shard", "ascending"), (DOC_ID, "ascending")])
    names = table["shard"].to_pylist()
    start = 0
    for shard, group in itertools.groupby(names):
        length = len(list(group))
        rows.append(
            asdict(
                _write_shard(table.slice(start, length).drop_columns(["shard"]), shard, Path(folder), common)
            )
        )
        start += length
    return pa.Table.from_pylist(rows, schema=SHARD_ROWS)


def _write_shard(table: pa.Table, shard: str, folder: Path, common: dict[str, Any]) -> ShardInfo:
    source, split, index = shard.split("/")
    num_tokens = int(sum(len(chunk.flatten()) for chunk in table[TOKENS].chunks))
    metadata = {
        "tokenizer": common["tokenizer"],
        "tokenizer_sha256": common["tokenizer_sha256"],
        "vocab_size": str(common["vocab_size"]),
        "eot_id": str(common["eot_id"]),
        "source": source,
        "split": split,
        "num_tokens": str(num_tokens),
        "num_docs": str(table.num_rows),
        "format_version": str(FORMAT_VERSION),
    }
    path = folder / f"{source}-{split}-{index}.arrow"
    temporary = path.with_suffix(".tmp")
    table = table.replace_schema_metadata(metadata).combine_chunks()
    with pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table, max_chunksize=BATCH_DOCS)
    temporary.replace(path)
    return ShardInfo(
        path=path.name,
        source=source,
        split=split,
        num_tokens=num_tokens,
        num_docs=table.num_rows,
        num_bytes=int(np.sum(table[NUM_BYTES].to_numpy(), dtype=np.int64)),
        size=path.stat().st_size,
        sha256=file_sha256(path),
    )
