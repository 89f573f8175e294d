"""tokenize verify finds what is wrong with a dataset; GPT-2's and GPT-1's vocabularies; bytes a token."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.foreign_tokenizer import import_vocabulary
from data_pipeline.shard_checks import verify_dataset, verify_documents
from data_pipeline.shard_writer import write_shards
from data_pipeline.shards import MANIFEST_NAME, Manifest, file_sha256
from data_pipeline.tokenizer import Tokenizer, open_tokenizer, store_import, train_text, train_tokenizer
from data_pipeline.tokenizer_config import SPECIAL_TOKENS, ShardConfig, TokenizerConfig
from data_pipeline.tokenizer_report import compression, total
from tests.data_pipeline.made_inputs import make_corpus, prose
from tests.data_pipeline.test_bpe_tokenizer import MULTILINGUAL

CONFIG = ShardConfig(val_share=0.2, shard_chars=4000)
Written = tuple[Path, Manifest]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("c"), [prose(seed, 40) for seed in range(60)])


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("t") / "bpe"
    return Tokenizer.load(
        train_tokenizer(corpus, corpus.at(), TokenizerConfig(vocab_size=400), folder, 0.2, lambda line: None)
    )


@pytest.fixture(scope="module")
def written(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> Written:
    return write_shards(corpus, corpus.at(), tokenizer, "bpe", CONFIG, tmp_path_factory.mktemp("tokens"))[:2]


@pytest.fixture
def copy(written: Written, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "copy"))


def test_a_good_dataset_has_no_problems(corpus: Corpus, written: Written, tokenizer: Tokenizer) -> None:
    folder, manifest = written
    found = verify_dataset(folder, manifest, tokenizer)
    assert found.problems == ()
    assert (found.num_docs, found.num_shards) == (60, len(manifest.shards))
    assert verify_documents(corpus, manifest, tokenizer, CONFIG) == []


def test_a_flipped_bit_a_lost_file_and_a_stranger_are_named(copy: Path, tokenizer: Tokenizer) -> None:
    manifest = Manifest.load(copy)
    flipped, lost = (copy / shard.path for shard in manifest.shards[:2])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 4
    flipped.write_bytes(content)
    lost.unlink()
    (copy / "stranger.arrow").write_bytes(b"x")
    problems = verify_dataset(copy, manifest, tokenizer).problems
    assert len(problems) == 3
    assert re.search(r"stranger\.arrow: the manifest does not name it", problems[0])
    assert f"{flipped}: sha256 differs" in problems[1]
    assert f"{lost} is missing" in problems[2]


Change = Callable[[pa.Table], pa.Table]


def _tokens(table: pa.Table, change: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    column = table["tokens"].combine_chunks()
    values = pa.array(change(column.flatten().to_numpy().copy()), pa.uint16())
    return table.set_column(1, "tokens", pa.LargeListArray.from_arrays(column.offsets, values))


def _at(index: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.take(list(range(len(table)))[::-1]), "not in the order of their ids"),
        (lambda table: _tokens(table, _at(0, 77)), "does not begin with the end-of-text token"),
        (lambda table: _tokens(table, _at(3, 500)), "token 500 is outside the vocabulary"),
        (lambda table: _tokens(table, _at(3, 1)), "have not as many bytes as its text"),
        (lambda table: table.slice(1), "the manifest says otherwise"),
        (lambda table: table.replace_schema_metadata({b"source": b"web"}), "its tokenizer_sha256 is None"),
        (lambda table: table.rename_columns(["doc_id", "tokens", "bytes"]), "columns are not those"),
    ],
)
def test_what_only_the_content_shows_is_found(
    copy: Path, tokenizer: Tokenizer, change: Change, problem: str
) -> None:
    # Files that somebody wrote anew, with a manifest to match.
    manifest = Manifest.load(copy)
    path = copy / manifest.shards[0].path
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all().combine_chunks()
    table = change(table)
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    forged = replace(manifest.shards[0], size=path.stat().st_size, sha256=file_sha256(path))
    manifest = replace(manifest, shards=(forged, *manifest.shards[1:]))
    problems = verify_dataset(copy, manifest, tokenizer).problems
    assert any(problem in line and str(path) in line for line in problems), problems


def test_documents_of_another_version_are_noticed(
    written: Written, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path, [prose(seed, 40) for seed in range(1, 61)])
    (problem,) = verify_documents(other, written[1], tokenizer, CONFIG)
    assert "the documents are not those of corpus version 1" in problem


def test_the_manifest_itself_is_never_a_stranger(written: Written, tokenizer: Tokenizer) -> None:
    assert (written[0] / MANIFEST_NAME).exists()
    assert not verify_dataset(*written, None).problems


# ------------------------------------------------------------------------------------------------ vocabularies


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> Tokenizer:
    folder = shared_data / "tokenizer"
    return open_tokenizer("gpt2", import_vocabulary(folder / "gpt2-encoder.json", folder / "gpt2-vocab.bpe"))


def test_gpt2_gives_the_ids_that_others_state(gpt2: Tokenizer, shared_data: Path) -> None:
    assert (gpt2.vocab_size, gpt2.eot_id) == (50_257, 50_256)
    # From the tests of a port in another language.
    source = (shared_data / "tokenizer" / "gpt3-encoder-Encoder.test.js").read_text()
    cases = re.findall(r'const str = "(.*?)";\s*expect\(encode\(str\)\)\.toEqual\((\[.*?\])\)', source, re.S)
    assert len(cases) >= 3
    for text, ids in cases:
        assert gpt2.encode(json.loads(f'"{text}"')) == json.loads(ids)
    assert gpt2.encode("Hello world") == [15496, 995]


@pytest.mark.parametrize("text", MULTILINGUAL)
def test_gpt2_gives_any_text_back(gpt2: Tokenizer, text: str) -> None:
    assert gpt2.decode(gpt2.encode(text)) == text
    assert int(gpt2.byte_lengths()[gpt2.encode(text)].sum()) == len(text.encode())
    ids, ends = gpt2.column_encoder().encode(pa.array([text]))
    assert ids.tolist() == [gpt2.eot_id, *gpt2.encode(text)]
    assert ends.tolist() == [0, len(ids)]


def test_gpt1_folds_case_and_has_our_special_tokens_behind_its_own(shared_data: Path) -> None:
    folder = shared_data / "tokenizer"
    text = import_vocabulary(folder / "gpt1-encoder_bpe_40000.json", folder / "gpt1-vocab_40000.bpe")
    gpt1 = open_tokenizer("gpt1", text)
    assert gpt1.vocab_size == 40_478 + len(SPECIAL_TOKENS)
    assert list(gpt1.special.values()) == list(range(40_478, 40_488))
    raw = json.loads((folder / "gpt1-encoder_bpe_40000.json").read_text())
    assert gpt1.encode("Hello, World!") == [raw[token + "</w>"] for token in ("hello", ",", "world", "!")]
    assert gpt1.decode(gpt1.encode("Hello World")) == "hello world"
    assert not set(gpt1.encode("<|endoftext|>")) & set(gpt1.special.values())
    ids, _ = gpt1.column_encoder().encode(pa.array(["hello"]))
    assert ids.tolist() == [gpt1.eot_id, raw["hello</w>"]]


def test_files_that_are_no_vocabulary_are_one_line(tmp_path: Path, shared_data: Path) -> None:
    encoder, merges = tmp_path / "e.json", tmp_path / "m.bpe"
    with pytest.raises(InputError, match=r"e\.json: cannot be read"):
        import_vocabulary(encoder, merges)
    merges.write_text("#version\na b\n")
    for content, words in (
        ("[]", "are no vocabulary and its merges"),
        ("{", "are no vocabulary and its merges"),
        ('{"a": 0, "b": 2}', "ids are not 0 to 1"),
        ('{"a": 0, "b": 1}', "'ab' is not in"),
        ('{"a": 0, "b": 1, "ab": 2}', r"no <\|endoftext\|>"),
    ):
        encoder.write_text(content)
        with pytest.raises(InputError, match=words):
            import_vocabulary(encoder, merges)


def test_an_imported_tokenizer_encodes_a_corpus_and_is_never_replaced(
    gpt2: Tokenizer, corpus: Corpus, tmp_path: Path, ray_cluster: None
) -> None:
    folder = tmp_path / "gpt2"
    path = store_import(gpt2, folder)
    assert store_import(gpt2, folder) == path
    config = TokenizerConfig(name="gpt2")
    assert train_tokenizer(corpus, corpus.at(), config, folder, 0.2, lambda line: None) == path
    place, manifest, _ = write_shards(
        corpus, corpus.at(), Tokenizer.load(path), "gpt2", CONFIG, tmp_path / "x"
    )
    assert verify_dataset(place, manifest, gpt2).problems == ()
    other = open_tokenizer("gpt2", train_text(iter([prose(1)]), TokenizerConfig(vocab_size=280)))
    with pytest.raises(InputError, match="holds another tokenizer"):
        store_import(other, folder)


def test_compression_is_that_of_held_out_documents_by_source(
    corpus: Corpus, gpt2: Tokenizer, tokenizer: Tokenizer
) -> None:
    rows = compression(corpus, corpus.at(), [tokenizer, gpt2], 0.2)
    assert {row.source for row in rows} == {"web", "book"}
    everything = total(rows)
    assert 0 < everything.num_docs < 30
    assert everything.num_tokens.keys() == {"bpe", "gpt2"}
    texts = corpus.read("documents", corpus.at(), ["text", "text_hash"]).to_pylist()
    held_out = [row["text"] for row in texts if int(row["text_hash"][:8], 16) < 0.2 * 2**32]
    assert everything.num_bytes == sum(len(text.encode()) for text in held_out)
    assert everything.num_tokens["gpt2"] == sum(len(gpt2.encode(text)) for text in held_out)


def test_tokens_of_our_own_beat_gpt2_on_held_out_text(
    gpt2: Tokenizer, real_documents: Callable[[str], pa.Table]
) -> None:
    # benchmarks/vocabulary.py measures 32,768 tokens learnt from all of it.
    def bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
        ids, _ = tokenizer.column_encoder().encode(pa.array(texts, pa.large_string()))
        return sum(len(text.encode()) for text in texts) / (len(ids) - len(texts))

    for lang, name, least in (("en", "books", 1.0), ("zh", "chinese classics", 2.0)):
        rows = real_documents(name).select(["lang", "text"]).to_pylist()
        texts = [row["text"] for row in rows if row["lang"] == lang]
        seen = [text for number, text in enumerate(texts) if number % 10 == 1]
        ours = open_tokenizer("ours", train_text(iter(seen), TokenizerConfig(vocab_size=16_384)))
        assert bytes_per_token(ours, texts[::10]) >= least * bytes_per_token(gpt2, texts[::10])
