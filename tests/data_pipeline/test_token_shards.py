"""Token shards: what is written is what is read, the same for any number of files, and damage is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.shard_writer import latest_dataset, write_shards
from data_pipeline.shards import (
    MANIFEST_NAME,
    Manifest,
    ShardInfo,
    TokenDataset,
    TokenStream,
    canonical_json,
    file_sha256,
    token_dtype,
)
from data_pipeline.tokenizer import Tokenizer, is_validation, train_tokenizer
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from tests.data_pipeline.made_inputs import make_corpus, prose

TEXTS = [prose(seed, 40 + seed) for seed in range(60)] + ["", "短い 文"]
CONFIG = ShardConfig(val_share=0.2, shard_chars=3000)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), TEXTS)


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / "bpe"
    config = TokenizerConfig(vocab_size=400)
    return Tokenizer.load(train_tokenizer(corpus, corpus.at(), config, folder, 0.2, lambda line: None))


@pytest.fixture(scope="module")
def written(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> tuple[Path, Manifest]:
    folder, manifest, is_new = write_shards(
        corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path_factory.mktemp("tokens")
    )
    assert is_new
    return folder, manifest


Written = tuple[Path, Manifest]


def rows_of(folder: Path, shard: ShardInfo) -> list[dict]:
    with pa.memory_map(str(folder / shard.path)) as file:
        return pa.ipc.open_file(file).read_all().to_pylist()


def test_every_document_is_in_one_shard_of_its_source_and_split(
    written: Written, corpus: Corpus, tokenizer: Tokenizer
) -> None:
    folder, manifest = written
    found = {}
    for shard in manifest.shards:
        rows = rows_of(folder, shard)
        assert [row["doc_id"] for row in rows] == sorted(row["doc_id"] for row in rows)
        for row in rows:
            assert row["doc_id"] not in found
            found[row["doc_id"]] = (shard.source, shard.split, row["tokens"], row["num_bytes"])
    expected = {}
    for row in corpus.scan("documents", corpus.at()).to_table().to_pylist():
        split = "val" if is_validation(row["text_hash"], 0.2) else "train"
        tokens = [tokenizer.eot_id, *tokenizer.encode(row["text"])]
        expected[row["doc_id"]] = (row["source"], split, tokens, len(row["text"].encode()))
    assert found == expected
    assert {split for _, split, _, _ in found.values()} == {"train", "val"}


def test_the_manifest_counts_and_hashes_what_is_there(written: Written) -> None:
    folder, manifest = written
    assert len(manifest.shards) > 6
    for shard in manifest.shards:
        rows = rows_of(folder, shard)
        path = folder / shard.path
        assert shard.num_docs == len(rows)
        assert shard.num_tokens == sum(len(row["tokens"]) for row in rows)
        assert shard.num_bytes == sum(row["num_bytes"] for row in rows)
        assert shard.size == path.stat().st_size
        assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    raw = json.loads((folder / MANIFEST_NAME).read_text())
    stated = raw.pop("manifest_hash")
    assert stated == manifest.manifest_hash == hashlib.sha256(canonical_json(raw)).hexdigest()
    cells = [
        (source, split, cell) for source, splits in raw["totals"].items() for split, cell in splits.items()
    ]
    assert {(source, split) for source, split, _ in cells} == {
        (source, split) for source in ("web", "book") for split in ("train", "val")
    }
    assert sum(cell["num_docs"] for _, _, cell in cells) == len(TEXTS)
    assert sum(cell["num_tokens"] for _, _, cell in cells) == sum(
        shard.num_tokens for shard in manifest.shards
    )
    assert sum(cell["num_shards"] for _, _, cell in cells) == len(manifest.shards)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(shard.path for shard in manifest.shards), MANIFEST_NAME]
    )


def test_a_shard_states_what_made_it(written: Written, tokenizer: Tokenizer) -> None:
    folder, manifest = written
    shard = manifest.shards[0]
    with pa.memory_map(str(folder / shard.path)) as file:
        schema = pa.ipc.open_file(file).schema
    assert schema.field("tokens").type == pa.large_list(pa.uint16())
    assert (schema.field("doc_id").type, schema.field("num_bytes").type) == (pa.string(), pa.int32())
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert metadata["tokenizer_sha256"] == tokenizer.sha256
    assert (metadata["vocab_size"], metadata["eot_id"], metadata["source"]) == ("400", "0", shard.source)
    assert metadata["format_version"] == "1"


@pytest.mark.parametrize("num_files", [1, 5])
def test_the_number_of_input_files_changes_nothing(
    written: Written, tokenizer: Tokenizer, tmp_path: Path, num_files: int, ray_cluster: None
) -> None:
    corpus = make_corpus(tmp_path / "corpus", TEXTS, num_files=num_files)
    folder, manifest, _ = write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    assert manifest.manifest_hash == written[1].manifest_hash
    for shard in manifest.shards:
        assert (folder / shard.path).read_bytes() == (written[0] / shard.path).read_bytes()


def test_a_second_call_uses_what_is_there(
    written: Written, corpus: Corpus, tokenizer: Tokenizer, ray_cluster: None
) -> None:
    folder, manifest = written
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again, known, is_new = write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, folder.parents[1])
    assert (again, known, is_new) == (folder, manifest, False)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert latest_dataset(folder.parents[1], "bpe") == folder


def test_other_settings_make_another_dataset_and_the_newest_is_named(
    written: Written, corpus: Corpus, tokenizer: Tokenizer, ray_cluster: None
) -> None:
    folder, manifest = written
    other, known, is_new = write_shards(
        corpus, corpus.at(), tokenizer, "bpe", ShardConfig(val_share=0.1), folder.parents[1]
    )
    assert is_new
    assert other != folder
    assert known.manifest_hash != manifest.manifest_hash
    assert latest_dataset(folder.parents[1], "bpe") == other
    # A document that was held out before and is not now: the split is by hash, so it can only shrink.
    held_out = [
        {row["doc_id"] for shard in side.shards if shard.split == "val" for row in rows_of(place, shard)}
        for place, side in ((other, known), (folder, manifest))
    ]
    assert held_out[0] < held_out[1]


def test_weights_of_sources_go_into_the_manifest_and_only_other_ones_than_one(
    written: Written, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    weighted = make_corpus(tmp_path / "c", TEXTS, weights={"book": 2.5, "web": 1.0})
    _, manifest, _ = write_shards(weighted, weighted.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")
    assert manifest.source_weights == {"book": 2.5}
    assert manifest.manifest_hash != written[1].manifest_hash
    folder = latest_dataset(tmp_path / "tokens", "bpe")
    assert Manifest.load(folder) == manifest
    # A manifest without weights is the same as one from before there were any.
    assert "source_weights" not in json.loads((written[0] / MANIFEST_NAME).read_text())


def test_the_work_of_a_killed_call_is_done_again(
    written: Written, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    name = written[0].name
    left = tmp_path / "bpe" / name / ".parts-0a1b2c3d"
    left.mkdir(parents=True)
    for path in (left / "000000.arrow", left.parent / "web-train-00000.arrow", left.parent / "x.arrow.tmp"):
        path.write_bytes(b"half")
    folder, manifest, is_new = write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path)
    assert is_new
    assert manifest.manifest_hash == written[1].manifest_hash
    TokenDataset(folder, "train", verify=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(shard.path for shard in manifest.shards), MANIFEST_NAME]
    )


def test_a_corpus_that_keeps_nothing_is_one_line(
    tokenizer: Tokenizer, tmp_path: Path, ray_cluster: None
) -> None:
    corpus = make_corpus(tmp_path / "c", [])
    with pytest.raises(InputError, match="version 1 keeps no document; nothing to tokenise"):
        write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path / "tokens")


def test_a_dataset_that_is_not_there_is_one_line(written: Written, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no token dataset 'none' in .*\(there: bpe\)"):
        latest_dataset(written[0].parents[1], "none")
    with pytest.raises(InputError, match="is missing: no token dataset there"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ShardConfig(val_share=0.0), "val_share"),
        (ShardConfig(val_share=0.5), "val_share"),
        (ShardConfig(shard_chars=0), "shard_chars"),
    ],
)
def test_a_wrong_option_is_named(config: ShardConfig, field: str) -> None:
    with pytest.raises(InputError, match=rf"shards\.{field}"):
        config.validate()


# ----------------------------------------------------------------------------------------------------- reading


def test_a_stream_is_the_documents_end_to_end(written: Written) -> None:
    folder, manifest = written
    dataset = TokenDataset(folder, "train", verify=True)
    assert list(dataset.streams) == ["book", "web"]
    assert dataset.num_tokens == sum(shard.num_tokens for shard in manifest.shards if shard.split == "train")
    for name, stream in dataset.streams.items():
        shards = [shard for shard in manifest.shards if (shard.source, shard.split) == (name, "train")]
        documents = [row["tokens"] for shard in shards for row in rows_of(folder, shard)]
        assert stream.read(0, stream.num_tokens).tolist() == [
            token for tokens in documents for token in tokens
        ]
        assert (stream.num_docs, stream.num_bytes) == (
            len(documents),
            sum(shard.num_bytes for shard in shards),
        )
        starts = np.cumsum([0, *(len(tokens) for tokens in documents)])[:-1]
        assert stream.doc_starts.tolist() == starts.tolist()


def _write_shard(folder: Path, name: str, batches: list[list[list[int]]], dtype: type) -> ShardInfo:
    schema = pa.schema([("doc_id", pa.string()), ("tokens", pa.large_list(pa.from_numpy_dtype(dtype)))])
    path = folder / name
    with pa.ipc.new_file(str(path), schema) as writer:
        for documents in batches:
            writer.write_batch(
                pa.record_batch(
                    [
                        pa.array(["d"] * len(documents), pa.string()),
                        pa.array(documents, schema.field("tokens").type),
                    ],
                    schema=schema,
                )
            )
    num_docs = sum(len(batch) for batch in batches)
    num_tokens = sum(len(document) for batch in batches for document in batch)
    return ShardInfo(name, "s", "train", num_tokens, num_docs, 0, path.stat().st_size, file_sha256(path))


DOCUMENTS = st.lists(st.lists(st.integers(0, 65535), max_size=6), max_size=4)


@settings(deadline=None, max_examples=150)
@given(
    shards=st.lists(st.lists(DOCUMENTS, max_size=3), max_size=3),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    data=st.data(),
)
def test_any_window_equals_the_same_window_of_all_tokens(
    tmp_path_factory: pytest.TempPathFactory,
    shards: list[list[list[list[int]]]],
    dtype: type,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    infos = [_write_shard(folder, f"{i}.arrow", batches, dtype) for i, batches in enumerate(shards)]
    stream = TokenStream("s", folder, infos, np.dtype(dtype))
    documents = [document for batches in shards for batch in batches for document in batch]
    everything = [token for document in documents for token in document]
    assert stream.num_tokens == len(everything)
    assert stream.doc_starts.tolist() == np.cumsum([0, *map(len, documents)])[:-1].tolist()
    start = data.draw(st.integers(0, len(everything)))
    length = data.draw(st.integers(0, len(everything) - start))
    window = stream.read(start, length)
    assert window.dtype == dtype
    assert window.tolist() == everything[start : start + length]
    with pytest.raises(IndexError):
        stream.read(start, len(everything) - start + 1)
    with pytest.raises(IndexError):
        stream.read(-1, 1)


@pytest.fixture
def copy(written: Written, tmp_path: Path) -> Path:
    for path in written[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _train_shard(folder: Path) -> ShardInfo:
    return next(shard for shard in Manifest.load(folder).shards if shard.split == "train")


def test_a_flipped_byte_is_found_by_verification_and_the_shard_named(copy: Path) -> None:
    path = copy / _train_shard(copy).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: sha256 differs from the manifest; the shard is damaged"):
        TokenDataset(copy, "train", verify=True)


def test_a_shard_of_another_size_is_named_without_verification(copy: Path) -> None:
    shard = _train_shard(copy)
    with (copy / shard.path).open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        InputError, match=f"{shard.path}: {shard.size + 1} bytes, the manifest says {shard.size}"
    ):
        TokenDataset(copy, "train")


def test_a_missing_shard_is_named(copy: Path) -> None:
    shard = _train_shard(copy)
    (copy / shard.path).unlink()
    with pytest.raises(InputError, match=f"{shard.path} is missing, the manifest names it"):
        TokenDataset(copy, "train")
    TokenDataset(copy, "val")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("vocab_size", 401, "does not match its manifest_hash"),
        ("format_version", 2, "token format 2, this gptmill reads 1"),
        ("shards", None, "cannot be read as a token manifest"),
        ("surprise", 1, "cannot be read as a token manifest"),
    ],
)
def test_an_edited_manifest_is_refused(copy: Path, field: str, value: object, words: str) -> None:
    path = copy / MANIFEST_NAME
    raw = json.loads(path.read_text())
    raw[field] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=words) as error:
        Manifest.load(copy)
    assert str(path) in str(error.value)


def test_a_manifest_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / MANIFEST_NAME).write_text("{half")
    with pytest.raises(InputError, match="cannot be read as a token manifest"):
        Manifest.load(copy)


def test_the_spelling_of_a_manifest_does_not_matter(written: Written, copy: Path) -> None:
    raw = json.loads((copy / MANIFEST_NAME).read_text())
    (copy / MANIFEST_NAME).write_text(json.dumps(raw, indent=None, sort_keys=True))
    assert Manifest.load(copy) == written[1]


def test_a_file_that_is_no_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.arrow").write_bytes(b"no arrow at all")
    info = ShardInfo("x.arrow", "s", "train", 1, 1, 1, 15, "")
    with pytest.raises(InputError, match=r"x\.arrow cannot be read as an Arrow IPC file"):
        TokenStream("s", tmp_path, [info], np.dtype(np.uint16))


def test_tokens_of_another_width_or_number_than_stated_are_refused(tmp_path: Path) -> None:
    info = _write_shard(tmp_path, "x.arrow", [[[1, 2, 3]]], np.uint32)
    with pytest.raises(InputError, match="tokens are uint32, the manifest's vocabulary needs uint16"):
        TokenStream("s", tmp_path, [info], np.dtype(np.uint16))
    wrong = ShardInfo(**{**info.__dict__, "num_tokens": 4})
    with pytest.raises(InputError, match="holds 3 tokens, the manifest says 4"):
        TokenStream("s", tmp_path, [wrong], np.dtype(np.uint32))


def test_ids_are_as_wide_as_the_vocabulary_needs() -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
