"""Columns encoded by the compiled encoder: the ids of `tokenizers`, for any text there is."""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.documents import COLLECTIONS
from data_pipeline.encoder import Encoder, _encode_rows, build_encoder
from data_pipeline.tokenizer import PATTERN, TextEncoder, Tokenizer, train_text
from data_pipeline.tokenizer_config import TokenizerConfig
from data_pipeline.words import utf8
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.test_bpe_tokenizer import MULTILINGUAL, PIECES

TEXT = st.text(max_size=80) | st.lists(PIECES, max_size=40).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [prose(seed) for seed in range(60)] + [text * 30 for text in MULTILINGUAL]
    return Tokenizer("small", train_text(iter(texts), TokenizerConfig(vocab_size=900)))


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    found = tokenizer.column_encoder()
    assert isinstance(found, Encoder)
    return found


@pytest.fixture(scope="module")
def reference(tokenizer: Tokenizer) -> Callable[[list[str]], list[list[int]]]:
    loaded = tokenizers.Tokenizer.from_str(tokenizer.text)
    loaded.encode_special_tokens = True
    return lambda texts: [found.ids for found in loaded.encode_batch_fast(texts, add_special_tokens=False)]


def encode(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    """Ids of each text without the end-of-text token before it."""
    ids, ends = encoder.encode(pa.array(texts, pa.string()))
    assert all(ids[start] == encoder.eot_id for start in ends[:-1])
    return [ids[start + 1 : end].tolist() for start, end in itertools.pairwise(ends)]


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXT, max_size=4))
def test_any_texts_give_the_ids_of_tokenizers(
    encoder: Encoder, reference: Callable[[list[str]], list[list[int]]], texts: list[str]
) -> None:
    assert encode(encoder, texts) == reference(texts)


def test_every_character_is_parted_as_tokenizers_does(
    encoder: Encoder, reference: Callable[[list[str]], list[list[int]]]
) -> None:
    chars = [
        c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cs", "Co", "Cn")
    ]
    texts = [f"a{c}b {c}1{c} {c}.{c}\n'{c} '{c}{c}\r 中{c}文 {c} \n" for c in chars]
    differing = [
        f"U+{ord(c):04X}"
        for c, a, b in zip(chars, encode(encoder, texts), reference(texts), strict=True)
        if a != b
    ]
    assert differing == []


def test_every_pair_of_kinds_of_characters_is_parted_alike(
    encoder: Encoder, reference: Callable[[list[str]], list[list[int]]]
) -> None:
    kinds = [
        "a",
        "S",
        "ſ",
        "é",
        "中",
        "か",
        "〇",
        "⺀",
        "한",
        "1",
        "²",
        "Ⅷ",
        " ",
        "\t",
        "\n",
        "\r",
        "\u3000",
        "'",
        ".",
        "\u0301",
        "\x00",
        "👩",
    ]
    texts = [a + b + c + d for a in kinds for b in kinds for c in kinds for d in ("", "'", " ", "a")]
    assert encode(encoder, texts) == reference(texts)


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000, " " * 100_000, "中" * 50_000, "ab" * 50_000, "1" * 9_999, "\n " * 40_000, "é́" * 30_000],
)
def test_long_runs_take_no_longer_than_other_text(encoder: Encoder, tokenizer: Tokenizer, text: str) -> None:
    # Against tiktoken: tokenizers needs minutes for some of these.
    assert encode(encoder, [text]) == [tokenizer.encode(text)]


def test_slices_nulls_and_large_strings_are_read_in_place(encoder: Encoder, tokenizer: Tokenizer) -> None:
    texts = ["one", None, "", "two three", "四"]
    for kind in (pa.string(), pa.large_string()):
        ids, ends = encoder.encode(pa.array(texts, kind).slice(1))
        expected = [[encoder.eot_id, *tokenizer.encode(text or "")] for text in texts[1:]]
        assert [ids[a:b].tolist() for a, b in itertools.pairwise(ends)] == expected
    ids, ends = encoder.encode(pa.array([], pa.string()))
    assert (len(ids), ends.tolist()) == (0, [0])


def test_bytes_that_are_no_text_end_within_their_buffer(encoder: Encoder, tokenizer: Tokenizer) -> None:
    # What an Arrow file holds is not always what it says; a cut sequence must not be read beyond its end.
    for raw in (b"abc\xe4\xb8", b"\xff\xfe\x80", b"'\xc5", b"\xf0\x9f"):
        column = pa.array([raw], pa.binary()).view(pa.string())
        ids, _ = encoder.encode(column)
        assert b"".join(tokenizer.token_bytes[index] for index in ids[1:].tolist()) == raw


def test_numbers_of_pieces_may_run_over(encoder: Encoder) -> None:
    text = pa.array(["aaab aaab " * 50], pa.string())
    data, offsets = utf8(text)
    arrays = (encoder.flags, encoder.roots, encoder.edges, encoder.merges, encoder.splits, encoder.prefixes)
    out = np.empty(len(data) + 1, encoder.dtype)
    given_up = np.full(len(data) + 1, 7, np.uint32)
    ends = _encode_rows(data, offsets, *arrays, encoder.lengths, encoder.eot_id, given_up, out, 2**32 - 3)
    assert out[: ends[-1]].tolist() == encoder.encode(text)[0].tolist()


def test_a_vocabulary_that_is_no_proper_bpe_is_left_to_tiktoken(tokenizer: Tokenizer) -> None:
    tokens = {index: bytes([index]) for index in range(256)} | {256: b"ab", 257: b"abc", 258: b"bc"}
    dtype = np.dtype(np.uint16)
    a, b, c = b"abc"
    assert build_encoder(tokens, [(a, b), (256, c), (b, c)], 259, 0, dtype) is not None
    # "abc" is never made from "a" and "bc" where "ab" is merged first.
    tokens = {index: bytes([index]) for index in range(256)} | {256: b"ab", 257: b"bc", 258: b"abc"}
    assert build_encoder(tokens, [(a, b), (b, c), (a, 257)], 259, 0, dtype) is None
    assert build_encoder(tokens, [(b, c), (a, b), (a, 257)], 259, 0, dtype) is None  # ids in another order
    other = Tokenizer("other", tokenizer.text.replace(r"\\p{N}{1,3}", r"\\p{N}{1,2}"))
    assert PATTERN not in other.text
    found = other.column_encoder()
    assert isinstance(found, TextEncoder)
    ids, ends = found.encode(pa.array(["in 1234", None]))
    assert ids.tolist() == [0, *other.encode("in 1234"), 0]
    assert ends.tolist() == [0, len(ids) - 1, len(ids)]


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIONS)
def test_real_documents_give_the_ids_of_tokenizers(
    encoder: Encoder,
    reference: Callable[[list[str]], list[list[int]]],
    real_documents: Callable[[str], pa.Table],
    name: str,
) -> None:
    # The whole books are compared by benchmarks/tokenize.py: tokenizers needs half a minute for them.
    texts = [text[:60_000] for text in real_documents(name)["text"].to_pylist()]
    assert encode(encoder, texts) == reference(texts)
