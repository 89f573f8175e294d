"""A corpus or its tokens in the forms that other people's tools read.

Documents: Parquet or JSON lines in the layout of a Hugging Face dataset (`data/train-00000-of-00004.parquet`, and a
README.md whose front matter `datasets` and the hub read, with a card: sources, licences, counts, filters, versions).
Tokens: `train.bin` and `val.bin` of nanoGPT, and Megatron's `.bin` and `.idx`. Both of these expect the end-of-text token
behind a document, where our shards have it before; here each document ends with it.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline import schema
from data_pipeline.atomic import write_json, write_text
from data_pipeline.corpus import Corpus
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.shards import Manifest, TokenDataset, TokenStream
from data_pipeline.sources import as_path
from data_pipeline.storage import make_folder, new_file, open_parquet
from data_pipeline.tokenizer import is_validation

SPLITS = {"train": "train", "val": "validation"}
FORMATS = ("parquet", "jsonl")
BATCH_ROWS = 4096
EXPORTED = pa.schema(
    [("split", pa.string()), ("source", pa.string()), ("lang", pa.string()), ("license", pa.string()),
     ("docs", pa.int64()), ("chars", pa.int64()), ("words", pa.int64()), ("bytes", pa.int64())]
)  # fmt: skip
COUNTED = ("docs", "chars", "words", "bytes")
# Of Megatron-LM's indexed_dataset.py.
MEGATRON_MAGIC, MEGATRON_VERSION = b"MMIDIDX\x00\x00", 1
MEGATRON_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}
# Tokens copied at a time.
PIECE_TOKENS = 16 << 20


# ------------------------------------------------------------------------------------------------- documents


def export_documents(
    corpus: Corpus,
    version: dict[str, Any],
    folder: Path,
    file_format: str,
    val_share: float,
    name: str,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Write a corpus version as a dataset that `datasets.load_dataset(folder)` reads; {split: documents}.

    One task a document file of the corpus, which gives a file a split. The card comes last.

    Args:
        folder: an empty or new one, on a disk or in an object store.
        file_format: parquet or jsonl.
        val_share: share of the documents in the validation split, the same ones as in a token dataset of that share.
        name: the dataset's, for its card.

    Raises:
        InputError: the format does not exist, the folder holds something, or the version keeps no document.
    """
    if file_format not in FORMATS:
        raise InputError(f"format: {file_format!r} is none of {', '.join(FORMATS)}")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"to: {folder} holds files already; give a new folder")
    files = corpus.files("documents", version)
    units = [
        pa.table({"path": [path], "number": [number], "of": [len(files)]})
        for number, path in enumerate(files)
    ]
    progress(f"writing the documents of {len(files)} files")
    make_folder(folder / "data")
    written = map_tables(
        from_tables(units), _export_file, folder=str(folder), file_format=file_format, val_share=val_share
    )
    names = [name for name in EXPORTED.names if name not in COUNTED]
    counts = collect(written, EXPORTED).group_by(names).aggregate([(name, "sum") for name in COUNTED])
    counts = counts.rename_columns([name.removesuffix("_sum") for name in counts.column_names])
    if not counts.num_rows:
        raise InputError(f"{corpus.root}: version {version['version']} keeps no document; nothing to export")
    counts = counts.sort_by([(name, "ascending") for name in names])
    write_text(folder / "README.md", data_card(corpus, version, counts, file_format, name))
    totals: Counter[str] = Counter()
    for row in counts.to_pylist():
        totals[row["split"]] += row["docs"]
    return dict(totals)


def _export_file(unit: pa.Table, folder: str, file_format: str, val_share: float) -> pa.Table:
    """One document file of the corpus as a file a split; counts of EXPORTED."""
    row = unit.to_pylist()[0]
    counts: list[pa.Table] = []
    for split, named in SPLITS.items():
        path = as_path(folder) / "data" / f"{named}-{row['number']:05d}-of-{row['of']:05d}.{file_format}"
        with new_file(path) as local:
            writer = _ParquetFile(local) if file_format == "parquet" else _JsonLines(local)
            with open_parquet(row["path"]) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    table = schema.conform(pa.table(batch), schema.DOCUMENTS)
                    held_out = [is_validation(value, val_share) for value in table["text_hash"].to_pylist()]
                    table = table.filter(pa.array([value == (split == "val") for value in held_out]))
                    writer.write(table)
                    counts.append(_counted(table, split))
            writer.close()
    return pa.concat_tables(counts) if counts else EXPORTED.empty_table()


def _counted(table: pa.Table, split: str) -> pa.Table:
    names = ["source", "lang", "license"]
    sized = pa.table(
        {name: pc.fill_null(table[name], "") for name in names}
        | {
            "chars": pc.fill_null(table["num_chars"], 0).cast(pa.int64()),
            "words": pc.fill_null(table["num_words"], 0).cast(pa.int64()),
            "bytes": pc.binary_length(table["text"]).cast(pa.int64()),
        }
    )
    sums = sized.group_by(names).aggregate(
        [([], "count_all"), ("chars", "sum"), ("words", "sum"), ("bytes", "sum")]
    )
    sums = sums.rename_columns(
        [{"count_all": "docs"}.get(n, n.removesuffix("_sum")) for n in sums.column_names]
    )
    sums = sums.append_column("split", pa.array([split] * len(sums), pa.string()))
    return sums.select(EXPORTED.names).cast(EXPORTED)


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, schema.DOCUMENTS, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if table.num_rows:
            self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")

    def write(self, table: pa.Table) -> None:
        """Add a line a row; the metadata is an object, what is null is left out."""
        for row in table.to_pylist():
            values = {key: value for key, value in row.items() if value is not None}
            if values.get("metadata"):
                values["metadata"] = json.loads(values["metadata"])
            line = json.dumps(values, ensure_ascii=False, default=str)
            self._file.write(line.encode("utf-8") + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


# ------------------------------------------------------------------------------------------------------ card


def data_card(corpus: Corpus, version: dict[str, Any], counts: pa.Table, file_format: str, name: str) -> str:
    """README.md of an exported dataset.

    Args:
        counts: table of EXPORTED, added up.
    """
    rows = counts.to_pylist()
    front = {
        "pretty_name": name,
        "language": sorted({row["lang"] for row in rows if row["lang"]}),
        "license": "other",
        "task_categories": ["text-generation"],
        "size_categories": [_size_category(sum(row["docs"] for row in rows))],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": named, "path": f"data/{named}-*.{file_format}"}
                    for split, named in SPLITS.items()
                    if any(row["split"] == split for row in rows)
                ],
            }
        ],
    }
    parts = [
        # JSON is YAML; what comes from a web page stays within its quotes.
        "---\n" + "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()) + "\n---",
        f"# {_inline(name)}",
        f"Corpus version {version['version']}, made {version['created_at']} by gptmill "
        f"{version.get('gptmill_version') or ''}. Configuration `{version['config_hash']}`.",
        "## What it holds",
        _table(
            ["split", "source", "language", "licence", "documents", "words", "characters", "bytes"],
            [
                [row["split"], row["source"], row["lang"], row["license"] or "not stated",
                 *(f"{row[key]:,}" for key in ("docs", "words", "chars", "bytes"))]
                for row in rows
            ],
        ),
        "Licences are what the sources were declared to have, document by document in the column `license`; the data as a "
        "whole has no licence of its own. The split goes by a hash of the text, so that equal texts are on one side.",
        "## How it came about",
        _table(
            ["source", "stage", "reason", "documents"],
            [
                [row["source"], row["stage"], row["reason"] or "", f"{row['count']:,}"]
                for row in corpus.funnel(version)
            ],
        ),
        "Every document that was read is in one row: kept, or removed at that stage for that reason.",
    ]  # fmt: skip
    masked = corpus.masked(version)
    if masked:
        parts += [
            "## Personal data that was masked",
            _table(
                ["source", "kind", "times", "documents"],
                [
                    [row["source"], row["kind"], f"{row['count']:,}", f"{row['num_documents']:,}"]
                    for row in masked
                ],
            ),
        ]
    parts += [
        "## Versions",
        _table(
            ["version", "made at", "read", "kept", "removed", "configuration"],
            [
                [str(row["version"]), row["created_at"],
                 *(f"{row[key] or 0:,}" for key in ("num_documents", "num_kept", "num_removed")),
                 f"`{row['config_hash'][:12]}`"]
                for row in corpus.versions()
                if row["version"] <= version["version"]
            ],
        ),
        "## Configuration of the version",
        "```json\n" + json.dumps(json.loads(version["config"] or "{}"), indent=2, ensure_ascii=False) + "\n```",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)


def _inline(text: str) -> str:
    """Text that stays within a cell and is no HTML."""
    return (
        " ".join(text.split())
        .replace("\\", "\\\\")
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace("|", "\\|")
    )


def _size_category(count: int) -> str:
    for bound, low, high in ((3, "0", "1K"), (4, "1K", "10K"), (5, "10K", "100K"), (6, "100K", "1M"),
                             (7, "1M", "10M"), (8, "10M", "100M"), (9, "100M", "1B")):  # fmt: skip
        if count < 10**bound:
            return "n<1K" if low == "0" else f"{low}<n<{high}"
    return "n>1B"


# ----------------------------------------------------------------------------------------------------- tokens


def export_nanogpt(dataset: Path | str, folder: Path) -> dict[str, int]:
    """`train.bin` and `val.bin`: all tokens end to end, uint16 (uint32 for larger vocabularies); {split: tokens}.

    `meta.json` says the rest; nanoGPT itself reads no uint32.
    """
    make_folder(folder)
    totals = {}
    for split in SPLITS:
        source = TokenDataset(dataset, split)
        with new_file(folder / f"{split}.bin") as path, path.open("wb") as out:
            for stream in source.streams.values():
                for tokens in _shifted(stream, source.manifest.eot_id):
                    out.write(tokens.tobytes())
        totals[split] = source.num_tokens
    write_json(folder / "meta.json", _described(source.manifest, totals))
    return totals


def export_megatron(dataset: Path | str, folder: Path) -> dict[str, int]:
    """`SOURCE-SPLIT.bin` and `.idx` of Megatron-LM, one sequence a document; {SOURCE-SPLIT: documents}."""
    make_folder(folder)
    totals = {}
    for split in SPLITS:
        source = TokenDataset(dataset, split)
        for name, stream in source.streams.items():
            dtype = np.dtype(np.uint16 if stream.dtype == np.uint16 else np.int32)
            with new_file(folder / f"{name}-{split}.bin") as path, path.open("wb") as out:
                for tokens in _shifted(stream, source.manifest.eot_id):
                    out.write(tokens.astype(dtype, copy=False).tobytes())
            lengths = np.diff(np.append(stream.doc_starts, stream.num_tokens))
            with new_file(folder / f"{name}-{split}.idx") as path, path.open("wb") as out:
                out.write(MEGATRON_MAGIC)
                out.write(
                    struct.pack(
                        "<QBQQ", MEGATRON_VERSION, MEGATRON_CODES[dtype], len(lengths), len(lengths) + 1
                    )
                )
                out.write(lengths.astype("<i4").tobytes())
                out.write((stream.doc_starts * dtype.itemsize).astype("<i8").tobytes())
                out.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
            totals[f"{name}-{split}"] = len(lengths)
    write_json(folder / "meta.json", _described(source.manifest, totals))
    return totals


def _shifted(stream: TokenStream, eot_id: int) -> Iterator[np.ndarray]:
    """A stream without its first token, which is that of end of text, and with one at its end."""
    for start in range(1, stream.num_tokens, PIECE_TOKENS):
        yield stream.read(start, min(PIECE_TOKENS, stream.num_tokens - start))
    if stream.num_tokens:
        yield np.array([eot_id], stream.dtype)


def _described(manifest: Manifest, totals: dict[str, int]) -> dict[str, Any]:
    return {
        "vocab_size": manifest.vocab_size,
        "eot_id": manifest.eot_id,
        "dtype": "uint16" if manifest.vocab_size <= 1 << 16 else "uint32 (nanoGPT), int32 (Megatron)",
        "tokenizer": manifest.tokenizer,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "corpus_version": manifest.corpus_version,
        "manifest_hash": manifest.manifest_hash,
        "totals": totals,
    }
