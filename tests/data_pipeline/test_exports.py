"""Exports are read back by other libraries, and hold what the corpus and the shards hold."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.exports import export_documents, export_megatron, export_nanogpt
from data_pipeline.shard_writer import write_shards
from data_pipeline.shards import TokenDataset
from data_pipeline.tokenizer import Tokenizer, is_validation, train_tokenizer
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from tests.data_pipeline.made_inputs import make_corpus, prose

TEXTS = [prose(seed, 30 + seed) for seed in range(50)] + ["", "短い\n文", "<script>|x|</script>"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("c"), TEXTS, num_files=3)


@pytest.fixture(scope="module")
def dataset(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    folder = tmp_path_factory.mktemp("t")
    path = train_tokenizer(
        corpus, corpus.at(), TokenizerConfig(vocab_size=400), folder / "bpe", 0.2, lambda line: None
    )
    config = ShardConfig(val_share=0.2, shard_chars=3000)
    return write_shards(corpus, corpus.at(), Tokenizer.load(path), "bpe", config, folder / "tokens")[0]


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_documents_come_back_by_split(
    corpus: Corpus, tmp_path: Path, ray_cluster: None, file_format: str
) -> None:
    totals = export_documents(corpus, corpus.at(), tmp_path / "out", file_format, 0.2, "a | name")
    expected = {"train": {}, "validation": {}}
    for row in corpus.scan("documents", corpus.at()).to_table().to_pylist():
        side = "validation" if is_validation(row["text_hash"], 0.2) else "train"
        expected[side][row["doc_id"]] = row["text"]
    for split, documents in expected.items():
        files = sorted((tmp_path / "out" / "data").glob(f"{split}-*-of-00003.{file_format}"))
        assert len(files) == 3
        rows = [
            row
            for file in files
            for row in (
                pq.read_table(file).to_pylist()
                if file_format == "parquet"
                else map(json.loads, file.read_text().splitlines())
            )
        ]
        assert {row["doc_id"]: row["text"] for row in rows} == documents
        assert len(rows) == totals["val" if split == "validation" else split]


def test_the_card_says_what_is_there_and_is_read_as_front_matter(
    corpus: Corpus, tmp_path: Path, ray_cluster: None
) -> None:
    export_documents(corpus, corpus.at(), tmp_path, "parquet", 0.2, '<b>|name|</b>: "it"')
    _, front, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["pretty_name"] == '<b>|name|</b>: "it"'
    assert {entry["split"] for entry in metadata["configs"][0]["data_files"]} == {"train", "validation"}
    for entry in metadata["configs"][0]["data_files"]:
        assert list(tmp_path.glob(entry["path"]))
    assert "# &lt;b>\\|name\\|&lt;/b>" in body
    for heading in ("What it holds", "How it came about", "Versions", "Configuration of the version"):
        assert f"## {heading}" in body
    counts = [line.split(" | ") for line in body.splitlines() if line.startswith(("| train |", "| val |"))]
    assert sum(int(line[4].replace(",", "")) for line in counts) == len(TEXTS)
    assert sum(int(line[7].rstrip(" |").replace(",", "")) for line in counts) == sum(
        len(t.encode()) for t in TEXTS
    )


def test_an_export_never_writes_over_something(corpus: Corpus, tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="holds files already"):
        export_documents(corpus, corpus.at(), tmp_path, "parquet", 0.2, "x")
    with pytest.raises(InputError, match="none of parquet, jsonl"):
        export_documents(corpus, corpus.at(), tmp_path / "y", "csv", 0.2, "x")


def documents_of(dataset: Path, split: str) -> dict[str, list[list[int]]]:
    """Tokens of each document without the end-of-text token, by source."""
    found = {}
    for name, stream in TokenDataset(dataset, split).streams.items():
        ends = [*stream.doc_starts[1:].tolist(), stream.num_tokens]
        found[name] = [
            stream.read(start + 1, end - start - 1).tolist()
            for start, end in zip(stream.doc_starts.tolist(), ends, strict=True)
        ]
    return found


def test_nanogpt_reads_the_documents_each_with_an_end_of_text_behind_it(
    dataset: Path, tmp_path: Path
) -> None:
    totals = export_nanogpt(dataset, tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    for split in ("train", "val"):
        data = np.memmap(tmp_path / f"{split}.bin", dtype=np.uint16, mode="r")
        expected = [
            token
            for documents in documents_of(dataset, split).values()
            for document in documents
            for token in (*document, meta["eot_id"])
        ]
        assert data.tolist() == expected
        assert totals[split] == len(expected)


def test_megatron_finds_each_document_by_its_index(dataset: Path, tmp_path: Path) -> None:
    export_megatron(dataset, tmp_path)
    for split in ("train", "val"):
        for name, documents in documents_of(dataset, split).items():
            raw = (tmp_path / f"{name}-{split}.idx").read_bytes()
            # As megatron/core/datasets/indexed_dataset.py reads it.
            assert raw[:9] == b"MMIDIDX\x00\x00"
            assert struct.unpack("<Q", raw[9:17]) == (1,)
            assert struct.unpack("<B", raw[17:18]) == (8,)  # uint16
            num_sequences, num_documents = struct.unpack("<QQ", raw[18:34])
            lengths = np.frombuffer(raw, np.int32, num_sequences, 34)
            pointers = np.frombuffer(raw, np.int64, num_sequences, 34 + lengths.nbytes)
            boundaries = np.frombuffer(raw, np.int64, num_documents, 34 + lengths.nbytes + pointers.nbytes)
            assert len(raw) == 34 + lengths.nbytes + pointers.nbytes + boundaries.nbytes
            assert boundaries.tolist() == list(range(len(documents) + 1))
            data = (tmp_path / f"{name}-{split}.bin").read_bytes()
            for index, document in enumerate(documents):
                found = np.frombuffer(data, np.uint16, lengths[index], pointers[index])
                assert found.tolist() == [*document, 0]
            assert pointers[-1] + 2 * lengths[-1] == len(data)
