"""Write token shards: the corpus encoded, grouped by source and split, one Arrow IPC file a shard.

Which documents are in a shard follows from the corpus version alone (data_pipeline.shard_plan), and a shard's rows are
sorted by id, so the files' bytes are the same for any number of workers and blocks. Two passes of Ray Data tasks:
the first reads document files and writes each one's tokens, parted by shard; the second brings a shard's parts
together. Shards that an earlier version has already are taken from there.

A dataset is there once its manifest is, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs

from data_pipeline.atomic import write_json, write_text
from data_pipeline.corpus import Corpus
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.locks import locked
from data_pipeline.shard_plan import COLUMNS, Plan, PlannedShard, content_key, plan_shards
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
)
from data_pipeline.sources import as_path, is_local
from data_pipeline.storage import (
    find,
    make_folder,
    new_file,
    open_parquet,
    place_of,
    remove_file,
    remove_tree,
)
from data_pipeline.tokenizer import ColumnEncoder, Tokenizer
from data_pipeline.tokenizer_config import ShardConfig

Progress = Callable[[str], None]
# Rows of a record batch: reading is zero-copy within one, so they are large.
BATCH_DOCS = 8192
# Text that a task encodes, about, and that it holds at a time.
UNIT_BYTES, BATCH_BYTES = 32 << 20, 16 << 20
# How documents are cut into shards; part of what names a dataset, so that another way makes another one.
PLAN_VERSION = 2
PARTS_FOLDER = ".parts-"
PARTS = pa.schema(
    [("shard", pa.int64()), ("part", pa.string()), ("batch", pa.int64())]
)  # record batch `batch` of the file `part` holds documents of a shard
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
    wait: float = 0.0,
) -> tuple[Path, Manifest, bool]:
    """Encode a corpus version into `<root>/<name>/<version folder>`, or find it there.

    Args:
        version: row of corpus/versions.
        tokenizer: what encodes the text.
        name: name of the token dataset.
        root: <workspace>/tokens, on a disk or in an object store.
        wait: seconds to wait for another process that writes tokens of the name.

    Returns:
        (folder of the dataset, its manifest, whether it was made now).

    Raises:
        InputError: the corpus version holds no document.
        Busy: another process writes tokens of the name.
    """
    config.validate()
    with locked(root / name / ".lock", f"tokenizer.name: token dataset {name}", wait, progress):
        return _write_locked(corpus, version, tokenizer, name, config, root, progress)


def _write_locked(
    corpus: Corpus,
    version: dict[str, Any],
    tokenizer: Tokenizer,
    name: str,
    config: ShardConfig,
    root: Path,
    progress: Progress,
) -> tuple[Path, Manifest, bool]:
    folder, empty = _described(corpus, version, tokenizer, name, config, root)
    is_new = not (folder / MANIFEST_NAME).exists()
    if not is_new:
        progress(f"tokens of corpus version {version['version']} are there already")
        manifest = Manifest.load(folder)
    else:
        make_folder(folder)
        plan = plan_shards(corpus, version, config, tokenizer)
        known = _reuse(plan, root / name, folder)
        missing = [index for index, shard in enumerate(plan.shards) if shard.path not in known]
        progress(f"encoding documents into {len(missing)} shards, {len(known)} are known")
        if missing:
            known |= _write_missing(plan, missing, tokenizer, config, folder, empty)
        manifest = replace(empty, shards=tuple(known[shard.path] for shard in plan.shards))
        _remove_others(folder, {*known})
        write_text(folder / MANIFEST_NAME, manifest.to_json())
    _name_latest(root / name, folder, manifest)
    return folder, manifest, is_new


def _described(
    corpus: Corpus, version: dict[str, Any], tokenizer: Tokenizer, name: str, config: ShardConfig, root: Path
) -> tuple[Path, Manifest]:
    """(folder of a dataset, its manifest but for the shards)."""
    config_hash = config_hash_of(version, config)
    manifest = Manifest(
        name=name,
        corpus_version=version["version"],
        tokenizer=tokenizer.name,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        config_hash=config_hash,
        shards=(),
        source_weights=corpus.source_weights(version),
    )
    folder = f"v{version['version']:06d}-{manifest.tokenizer_sha256[:8]}-{config_hash[:8]}"
    return root / name / folder, manifest


def config_hash_of(version: dict[str, Any], config: ShardConfig) -> str:
    """sha256 of what a dataset's content follows from, beside the tokenizer and the documents."""
    settings = {"shards": asdict(config), "corpus": version["config_hash"]}
    return hashlib.sha256(
        canonical_json(settings | {"format": FORMAT_VERSION, "plan": PLAN_VERSION})
    ).hexdigest()


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


# ----------------------------------------------------------------------------------------------- taking over


def datasets(root: Path) -> Iterator[tuple[Path, Manifest]]:
    """The token datasets of one name that can be read, the newest first.

    Args:
        root: <workspace>/tokens/<name>.
    """
    for path in sorted(root.glob(f"v*/{MANIFEST_NAME}"), reverse=True):
        try:
            yield path.parent, Manifest.load(path.parent)
        except InputError:  # damaged, or of another format: its own readers say so
            continue


def _reuse(plan: Plan, root: Path, folder: Path) -> dict[str, ShardInfo]:
    """Take over the shards that other versions hold already; {path: shard}."""
    wanted = {shard.key: shard.path for shard in plan.shards}
    known: dict[str, ShardInfo] = {}
    for other, manifest in datasets(root):
        for shard in manifest.shards:
            path = wanted.get(content_key(shard.path))
            if (
                path is not None
                and path not in known
                and _take(other / shard.path, folder / path, shard.size)
            ):
                known[path] = replace(shard, path=path)
        if len(known) == len(wanted):
            break
    return known


def _take(path: Path, target: Path, size: int) -> bool:
    """A shard of one dataset in the folder of another, without its bytes passing through here where that can be."""
    files, place = place_of(path)
    if files.get_file_info(place).size != size:
        return False
    if not is_local(path):
        files.copy_file(place, place_of(target)[1])
        return True
    beside = target.with_name(target.name + ".tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, beside)
    beside.replace(target)
    return True


def _remove_others(folder: Path, known: set[str]) -> None:
    """Remove what calls that were killed have left in a dataset's folder."""
    if is_local(folder):
        for path in folder.iterdir():
            if path.is_dir():
                remove_tree(path)
    for path in find(folder, "*"):
        if path.name not in known:
            remove_file(path)


# --------------------------------------------------------------------------------------------------- writing


def _write_missing(
    plan: Plan,
    missing: Sequence[int],
    tokenizer: Tokenizer,
    config: ShardConfig,
    folder: Path,
    manifest: Manifest,
) -> dict[str, ShardInfo]:
    """Write the shards of some indexes; {path: shard}."""
    keys = {key for key, (_, shards) in plan.cuts.items() if not {*shards.tolist()}.isdisjoint(missing)}
    units = _units([path for path, found in plan.files.items() if found & keys])
    parts_folder = folder / f"{PARTS_FOLDER}{uuid.uuid4().hex[:8]}"
    make_folder(parts_folder)
    try:
        encoded = map_tables(
            from_tables(units),
            _encode_unit,
            plan=replace(plan, files={}),
            missing=np.array(missing),
            encoder=tokenizer.column_encoder(),
            val_share=config.val_share,
            folder=str(parts_folder),
        )
        parts = collect(encoded, PARTS).sort_by(
            [("shard", "ascending"), ("part", "ascending"), ("batch", "ascending")]
        )
        numbers = parts["shard"].to_numpy()
        ends = [*np.searchsorted(numbers, missing, side="right")]
        groups = [parts.slice(start, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        written = map_tables(
            from_tables(groups),
            _write_shard,
            shards=plan.shards,
            manifest=manifest,
            parts_folder=str(parts_folder),
            folder=str(folder),
        )
        rows = collect(written, SHARD_ROWS).to_pylist()
    finally:
        remove_tree(parts_folder)
    found = {row["path"]: ShardInfo(**row) for row in rows}
    for index in missing:
        shard = plan.shards[index]
        assert found[shard.path].num_docs == shard.num_docs, f"{shard.path}: documents are missing"
    return found


def _units(files: Sequence[str]) -> list[pa.Table]:
    """Row groups of document files, as much text a task as UNIT_BYTES; small files together."""
    units: list[list[dict[str, Any]]] = [[]]
    size = 0
    for path in files:
        with open_parquet(path) as file:
            metadata = file.metadata
            text = file.schema_arrow.names.index("text")
            for group in range(metadata.num_row_groups):
                row_group = metadata.row_group(group)
                num_bytes = row_group.column(text).total_uncompressed_size
                if units[-1] and size + num_bytes > UNIT_BYTES:
                    units.append([])
                    size = 0
                size += num_bytes
                rows = max(1, row_group.num_rows * BATCH_BYTES // max(BATCH_BYTES, num_bytes))
                units[-1].append({"path": path, "group": group, "rows": rows})
    return [
        pa.Table.from_pylist([{"unit": number, **row} for row in unit])
        for number, unit in enumerate(units)
        if unit
    ]


def _encode_unit(
    unit: pa.Table, plan: Plan, missing: np.ndarray, encoder: ColumnEncoder, val_share: float, folder: str
) -> pa.Table:
    """Encode row groups into one file whose record batches hold documents of one shard each; rows of PARTS."""
    rows: list[dict[str, Any]] = []
    name = f"{unit['unit'][0].as_py():06d}.arrow"
    writer: Any = None
    with new_file(as_path(folder) / name) as path:
        try:
            for documents in _read_unit(unit):
                shards = plan.shard_of(documents, val_share)
                chosen = np.flatnonzero(np.isin(shards, missing))
                order = chosen[np.argsort(shards[chosen], kind="stable")]
                table = _encoded(documents.take(pa.array(order)), encoder)
                if writer is None:
                    writer = pa.ipc.new_file(str(path), table.schema)
                numbers, starts = np.unique(shards[order], return_index=True)
                for number, start, end in zip(numbers, starts, [*starts[1:], len(order)], strict=True):
                    rows.append({"shard": int(number), "part": name, "batch": len(rows)})
                    writer.write_table(table.slice(start, end - start))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            path.touch()
    return pa.Table.from_pylist(rows, schema=PARTS)


def _read_unit(unit: pa.Table) -> Iterator[pa.Table]:
    for row in unit.to_pylist():
        with open_parquet(row["path"]) as file:
            for batch in file.iter_batches(row["rows"], [row["group"]], [*COLUMNS, "text"]):
                yield pa.table(batch)


def _encoded(documents: pa.Table, encoder: ColumnEncoder) -> pa.Table:
    """The rows of a shard for some documents."""
    texts = documents["text"].combine_chunks()
    if isinstance(texts, pa.ChunkedArray):  # what combining no chunks gives
        texts = pa.array([], texts.type)
    tokens, offsets = encoder.encode(texts)
    return pa.table(
        {
            DOC_ID: documents[DOC_ID].combine_chunks().cast(pa.string()),
            TOKENS: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(tokens)),
            NUM_BYTES: pa.compute.fill_null(pa.compute.binary_length(texts), 0).cast(pa.int32()),
        }
    )


def _write_shard(
    parts: pa.Table, shards: tuple[PlannedShard, ...], manifest: Manifest, parts_folder: str, folder: str
) -> pa.Table:
    """Bring the parts of one shard together; a row of SHARD_ROWS."""
    shard = shards[parts["shard"][0].as_py()]
    readers = {name: _open_part(f"{parts_folder}/{name}") for name in parts["part"].unique().to_pylist()}
    batches = [readers[row["part"]].get_batch(row["batch"]) for row in parts.to_pylist()]
    table = pa.Table.from_batches(batches)
    num_tokens = sum(len(chunk.flatten()) for chunk in table[TOKENS].chunks)
    order = pa.compute.sort_indices(table[DOC_ID])
    # One copy in one piece, from which batches are taken: taking from chunks would join them each time.
    table = table.combine_chunks()
    metadata = {
        "tokenizer": manifest.tokenizer,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "vocab_size": str(manifest.vocab_size),
        "eot_id": str(manifest.eot_id),
        "source": shard.source,
        "split": shard.split,
        "num_tokens": str(num_tokens),
        "num_docs": str(table.num_rows),
        "format_version": str(FORMAT_VERSION),
    }
    table = table.replace_schema_metadata(metadata)
    with new_file(as_path(folder) / shard.path) as path:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            for start in range(0, len(order), BATCH_DOCS):
                writer.write_table(table.take(order.slice(start, BATCH_DOCS)).combine_chunks())
        info = ShardInfo(
            path=shard.path,
            source=shard.source,
            split=shard.split,
            num_tokens=num_tokens,
            num_docs=table.num_rows,
            num_bytes=int(np.sum(table[NUM_BYTES].to_numpy(), dtype=np.int64)),
            size=path.stat().st_size,
            sha256=file_sha256(path),
        )
    return pa.Table.from_pylist([asdict(info)], schema=SHARD_ROWS)


def _open_part(place: str) -> pa.ipc.RecordBatchFileReader:
    """A file of the first pass; read by parts, mapped where it is local."""
    path = as_path(place)
    if is_local(path):
        return pa.ipc.open_file(pa.memory_map(place))
    files, key = place_of(path)
    return pa.ipc.open_file(files.open_input_file(key))
