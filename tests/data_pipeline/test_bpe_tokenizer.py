"""The tokenizer: one file, two libraries, the same ids; nothing in a text is ever more than text."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.books import gutenberg
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.sources import books
from data_pipeline.tokenizer import PATTERN, Tokenizer, _sample, is_validation, train_tokenizer
from data_pipeline.tokenizer_config import SPECIAL_TOKENS, TokenizerConfig
from tests.data_pipeline.made_inputs import make_corpus, prose

MULTILINGUAL = [
    "The quick brown fox, it's 3.14159 and don't; WE'LL see.",
    "for i in range(10):\n    print(f'{i:03d}')\t# tab\r\n\r\n",
    "床前明月光，疑是地上霜。举头望明月 and English mixed 混在一起123",
    "吾輩は猫である。カタカナ、ひらがな。ｶﾀｶﾅ",
    "안녕하세요 세계! Привет, мир! مرحبا بالعالم שלום नमस्ते สวัสดี",
    "emoji 👩\u200d👧\u200d👦 🏳️\u200d🌈 e\u0301 \u00a0\u2003\u3000 \ufeff",
    "   leading and trailing   \n\n\n   ",
    "ſ's ſ'S 'ſ 'S 'll 'LL ’s",
    "\x00\x01\x1c\x1d\x1e\x1f\x85\u180e\u200b\u2028\u2029",
    "",
]
CORPUS_TEXTS = [prose(seed) for seed in range(40)] + [f"{MULTILINGUAL[n % 5]} {n} " * 5 for n in range(100)]


def train(corpus: Corpus, folder: Path, **options: object) -> Path:
    config = TokenizerConfig(**{"name": "small", "vocab_size": 420, **options})  # type: ignore[arg-type]
    return train_tokenizer(corpus, corpus.at(), config, folder, 0.1, lambda line: None)


def rows_of(corpus: Corpus) -> list[dict]:
    return corpus.read("documents", corpus.at(), ["text", "source"]).to_pylist()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), CORPUS_TEXTS, num_files=3)


@pytest.fixture(scope="module")
def path(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def reference(path: Path) -> tokenizers.Tokenizer:
    """The same file in the library that anybody else would read it with."""
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.encode_special_tokens = True  # what looks like a special token is text
    return loaded


PIECES = st.sampled_from([*"aB19 '\n\r\t.,中かア한й\u0301\u3000", "'s", "'LL", "  ", "the", " and"])
TEXT = st.text(max_size=80) | st.lists(PIECES, max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_both_libraries_give_the_same_ids_for_any_text(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_any_text_comes_back_and_its_bytes_add_up(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_lengths()[ids].sum()) == len(text.encode())


@pytest.mark.parametrize("text", MULTILINGUAL)
def test_many_scripts_round_trip_alike_in_both_libraries(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text == reference.decode(ids, skip_special_tokens=False)


def test_both_libraries_part_every_assigned_character_alike(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer
) -> None:
    # Each in front of a letter, a digit, a space and a sign: the classes that the pattern tells apart.
    chars = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(char) not in ("Cn", "Cs", "Co")
        # Thousands of one kind: the first ones of them will do.
        and not any(
            first <= char <= last for first, last in ("\u4e10\u9ff0", "\uac10\ud7a0", "\U00017010\U000323a0")
        )
    ]
    differing = []
    for start in range(0, len(chars), 64):
        part = chars[start : start + 64]
        text = "".join(f"a{c}b {c}1{c} {c}.{c}\n" for c in part)
        if tokenizer.encode(text) != reference.encode(text, add_special_tokens=False).ids:
            differing += [
                f"U+{ord(c):04X}"
                for c in part
                if tokenizer.encode(f"a{c}b {c}1{c} {c}.{c}\n")
                != reference.encode(f"a{c}b {c}1{c} {c}.{c}\n", add_special_tokens=False).ids
            ]
    assert differing == []


def test_real_books_give_the_same_ids_in_both_libraries(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, shared_data: Path
) -> None:
    for name in ("pg-en", "pg-fr", "pg-zh"):
        path = sorted((shared_data / "books" / name).glob("*.txt"))[0]
        (record,) = books.read(path)
        text = gutenberg.parse(record.content).text[:300_000]
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert int(tokenizer.byte_lengths()[ids].sum()) == len(text.encode())


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_what_looks_like_a_special_token_is_plain_text(tokenizer: Tokenizer, token: str) -> None:
    ids = tokenizer.encode(f"before{token}after {token}")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == f"before{token}after {token}"


def test_a_corpus_full_of_look_alikes_teaches_no_special_token(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "c", [f"<|endoftext|> {prose(seed)} <|endoftext|>" for seed in range(30)])
    tokenizer = Tokenizer.load(train(corpus, tmp_path / "small", vocab_size=400))
    assert tokenizer.eot_id == 0
    assert 0 not in tokenizer.encode("<|endoftext|>")


def test_special_tokens_come_first_and_have_no_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.special == {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    assert tokenizer.eot_id == 0
    assert tokenizer.byte_lengths()[: len(SPECIAL_TOKENS)].tolist() == [0] * len(SPECIAL_TOKENS)
    assert (tokenizer.byte_lengths()[len(SPECIAL_TOKENS) :] > 0).all()
    assert len(tokenizer.byte_lengths()) == tokenizer.vocab_size == 420


@given(st.text("0123456789", min_size=1, max_size=20))
def test_digits_stand_in_groups_of_at_most_three(tokenizer: Tokenizer, digits: str) -> None:
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(digits)]
    assert all(len(piece) <= 3 for piece in pieces)
    # Groups are counted from the left, and no token reaches over their ends.
    position = 0
    for piece in pieces:
        assert position // 3 == (position + len(piece) - 1) // 3
        position += len(piece)


def test_han_and_latin_never_share_a_token(tokenizer: Tokenizer) -> None:
    vocabulary = [tokenizer.decode([index]) for index in range(len(SPECIAL_TOKENS), tokenizer.vocab_size)]
    assert any(re.fullmatch(r"[\u4e00-\u9fff]{2,}", token) for token in vocabulary)
    assert not any(
        re.search(r"[\u4e00-\u9fff][A-Za-z]|[A-Za-z][\u4e00-\u9fff]", token) for token in vocabulary
    )


# ---------------------------------------------------------------------------------------------------- training


def test_training_twice_gives_the_same_file(corpus: Corpus, path: Path, tmp_path: Path) -> None:
    again = train(corpus, tmp_path / "small")
    assert again.read_bytes() == path.read_bytes()
    assert (again.parent / "metadata.json").read_bytes() == (path.parent / "metadata.json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small"]


def test_the_number_of_files_of_the_corpus_does_not_matter(
    corpus: Corpus, path: Path, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path / "corpus", CORPUS_TEXTS, num_files=1)
    assert train(other, tmp_path / "small").read_bytes() == path.read_bytes()


def test_a_tokenizer_that_is_there_is_taken(corpus: Corpus, tmp_path: Path) -> None:
    lines: list[str] = []
    path = train(corpus, tmp_path / "small")
    changed = path.stat().st_mtime_ns
    config = TokenizerConfig(name="small", vocab_size=420)
    train_tokenizer(corpus, corpus.at(), config, tmp_path / "small", 0.1, lines.append)
    assert path.stat().st_mtime_ns == changed
    assert lines == ["tokenizer small is there already (corpus version 1)"]


def test_a_tokenizer_made_with_other_settings_is_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    content = train(corpus, tmp_path / "small").read_bytes()
    with pytest.raises(
        InputError, match=r"tokenizer\.name: .*small holds a tokenizer made with other settings"
    ):
        train(corpus, tmp_path / "small", vocab_size=300)
    assert (tmp_path / "small" / "tokenizer.json").read_bytes() == content


def test_a_corpus_too_small_for_the_vocabulary_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"tokenizer\.vocab_size: the corpus gives \d+ tokens only, 50000 are"
    ) as error:
        train(corpus, tmp_path / "small", vocab_size=50_000)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "small").exists()


def test_validation_texts_are_never_learnt_from(tmp_path: Path) -> None:
    # One marker a document, seen often enough to be merged whole where it is seen at all.
    markers = ["".join(chr(0x4E00 + 3 * n + i) for i in range(2)) for n in range(60)]
    texts = [f"{marker} " * 60 for marker in markers]
    corpus = make_corpus(tmp_path / "c", texts)
    rows = corpus.read("documents", corpus.at(), ["text", "text_hash"]).to_pylist()
    held_out = {row["text"].split()[0] for row in rows if is_validation(row["text_hash"], 0.4)}
    assert 10 < len(held_out) < 40
    config = TokenizerConfig(name="t", vocab_size=340)
    tokenizer = Tokenizer.load(
        train_tokenizer(corpus, corpus.at(), config, tmp_path / "t", 0.4, lambda line: None)
    )
    learnt = {tokenizer.decode([index]).strip() for index in range(10, tokenizer.vocab_size)}
    assert not learnt & held_out
    assert learnt & (set(markers) - held_out)


def test_a_source_of_more_weight_is_learnt_from_more(tmp_path: Path) -> None:
    texts = [f"{chr(0x4E00 + number)} {prose(number, 20)}" for number in range(900)]

    def share_of_books(name: str, weights: dict[str, float]) -> float:
        corpus = make_corpus(tmp_path / name, texts, weights=weights)
        config = TokenizerConfig(sample_bytes=sum(map(len, texts)) // 6)
        sources = {row["text"]: row["source"] for row in rows_of(corpus)}
        sample = [sources[text] for text in _sample(corpus, corpus.at(), config, 0.1)]
        return sample.count("book") / len(sample)

    # A third of the documents are books, so with weight 4 they are 4 in 6.
    assert share_of_books("even", {}) == pytest.approx(1 / 3, abs=0.1)
    assert share_of_books("heavy", {"book": 4.0}) == pytest.approx(2 / 3, abs=0.1)
    assert share_of_books("light", {"web": 0.0}) == 1
    assert share_of_books("same", {"book": 1.0, "web": 1.0}) == share_of_books("even", {})


def test_the_share_of_validation_is_about_what_is_asked_and_grows_with_it() -> None:
    hashes = [f"{(index * 2654435761) % (1 << 32):08x}" + "0" * 24 for index in range(10_000)]
    for share in (0.01, 0.05, 0.3):
        assert sum(is_validation(value, share) for value in hashes) == pytest.approx(share * 10_000, rel=0.02)
    assert {value for value in hashes if is_validation(value, 0.05)} < {
        value for value in hashes if is_validation(value, 0.1)
    }


# ----------------------------------------------------------------------------------------------------- loading


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"does not exist; make a tokenizer with python -m workflows\.tokenize"
    ):
        Tokenizer.load(tmp_path / "none" / "tokenizer.json")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"added_tokens": [], "model": {"vocab": {}}}', "\u0000"]
)
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="is no BPE that gptmill can read"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_the_file_says_what_the_code_says(path: Path, tokenizer: Tokenizer) -> None:
    raw = json.loads(path.read_text())
    assert raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == PATTERN
    metadata = json.loads((path.parent / "metadata.json").read_text())
    assert metadata["sha256"] == tokenizer.sha256
    assert metadata["corpus_version"] == 1


def test_sentences_end_with_marks_quotes_behind_them_and_empty_lines(tokenizer: Tokenizer) -> None:
    ends = tokenizer.sentence_ends()
    assert ends.shape == (tokenizer.vocab_size,)
    assert not ends[: len(SPECIAL_TOKENS)].any()
    for text in (".", "!", "?"):
        [token] = tokenizer.encode(text)
        assert ends[token], text
    for text in (",", "a", " ", "'", "\n"):
        [token] = tokenizer.encode(text)
        assert not ends[token], text
    # A vocabulary in which marks have grown together with what stands around them.
    grown = Tokenizer("grown", tokenizer.text)
    values = [
        b".\n",
        b'."',
        b"?)",
        b"...",
        "。".encode(),
        "。」".encode(),
        b"\n\n",
        b",\n",
        b'"',
        b"\n",
        b"a.b",
    ]
    grown.token_bytes = dict(enumerate(values, start=len(SPECIAL_TOKENS)))
    found = grown.sentence_ends()[len(SPECIAL_TOKENS) :][: len(values)]
    assert found.tolist() == [True] * 7 + [False] * 4
