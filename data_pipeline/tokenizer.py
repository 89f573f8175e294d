"""Train a byte-level BPE with `tokenizers`, encode with `tiktoken` built from the same merges.

The file `tokenizer.json` (Hugging Face format) is the only truth. Special tokens have the first ids, so that
they are the same for every vocabulary size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.atomic import write_text
from data_pipeline.errors import InputError
from data_pipeline.shards import canonical_json, token_dtype
from data_pipeline.storage import remove_file
from data_pipeline.tokenizer_config import SPECIAL_TOKENS, TokenizerConfig

if TYPE_CHECKING:  # a logged model reads tokenizers without deltalake
    from data_pipeline.corpus import Corpus

EOT = SPECIAL_TOKENS[0]
# GPT-4's pre-tokenisation (contractions, words with one leading space, digits in threes, punctuation, line
# ends), with Han and Kana runs as pieces of their own so that they never glue to Latin words.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[\p{Han}\p{Hiragana}\p{Katakana}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}\p{Hiragana}\p{Katakana}]]+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# Of Latin, Greek, Arabic, Devanagari, Armenian, Ethiopic, Chinese and Japanese.
SENTENCE_ENDS = tuple(".!?\u2026\u037e\u061f\u06d4\u0964\u0965\u0589\u1362\u3002\uff01\uff0e\uff1f")
CLOSING = "\"')]}*_\u2019\u201d\u00bb\u203a\u300d\u300f\uff09"


def train_tokenizer(
    corpus: Corpus,
    version: dict,
    config: TokenizerConfig,
    folder: Path,
    val_share: float,
    progress: Callable[[str], None],
) -> Path:
    """Train on the training split of a corpus version, or take what an earlier call made from the same.

    Args:
        folder: <workspace>/tokenizer/<name>; gets tokenizer.json and metadata.json.
        val_share: validation share of the token dataset; its documents are left out.

    Returns:
        Path of tokenizer.json.

    Raises:
        InputError: the folder holds a tokenizer made with other settings, or the corpus is too small.
    """
    settings = {
        "config": asdict(config),
        "pattern": PATTERN,
        "special_tokens": list(SPECIAL_TOKENS),
        # With another share it would have seen documents that are now for validation.
        "val_share": val_share,
    }
    path, metadata_path = folder / "tokenizer.json", folder / "metadata.json"
    if path.exists() and metadata_path.exists():
        known = json.loads(metadata_path.read_text(encoding="utf-8"))
        if known["settings"].get("imported"):
            progress(f"tokenizer {config.name} was imported")
            return path
        if known["settings"] == settings:
            progress(f"tokenizer {config.name} is there already (corpus version {known['corpus_version']})")
            return path
        raise InputError(
            f"tokenizer.name: {folder} holds a tokenizer made with other settings; give this one another name, "
            "or delete the folder"
        )
    progress(f"training a BPE of {config.vocab_size:,} tokens")
    text = train_text(_sample(corpus, version, config, val_share), config)
    num_tokens = len(json.loads(text)["model"]["vocab"])
    if num_tokens < config.vocab_size:
        raise InputError(
            f"tokenizer.vocab_size: the corpus gives {num_tokens} tokens only, {config.vocab_size} are asked for; "
            "lower it or add text"
        )
    _store(folder, text, {"settings": settings, "corpus_version": version["version"]})
    return path


def store_import(tokenizer: Tokenizer, folder: Path) -> Path:
    """Put a tokenizer that was made elsewhere into a folder; the path of tokenizer.json.

    Raises:
        InputError: another tokenizer is there.
    """
    path = folder / "tokenizer.json"
    if path.exists() and path.read_text(encoding="utf-8") != tokenizer.text:
        raise InputError(f"name: {folder} holds another tokenizer; give this one another name")
    _store(folder, tokenizer.text, {"settings": {"imported": True}})
    return path


def _store(folder: Path, text: str, metadata: dict[str, Any]) -> None:
    """Write tokenizer.json and, last, metadata.json: without it nothing is there."""
    remove_file(folder / "metadata.json")
    write_text(folder / "tokenizer.json", text)
    content = metadata | {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}
    write_text(folder / "metadata.json", canonical_json(content).decode("utf-8"))


def train_text(texts: Iterator[str], config: TokenizerConfig) -> str:
    """The tokenizer.json of a BPE trained on some texts; their order decides nothing."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str(pretty=True)


def _sample(corpus: Corpus, version: dict, config: TokenizerConfig, val_share: float) -> Iterator[str]:
    """Texts of the training split, up to the configured size: the lowest ids, more of them where a source weighs more."""
    documents = corpus.scan("documents", version)
    weights = corpus.source_weights(version)
    index = documents.to_table(columns=["doc_id", "source", "text_hash", "num_chars"])
    candidates = []
    for doc_id, source, text_hash, num_chars in zip(
        *(column.to_pylist() for column in index.columns), strict=True
    ):
        weight = weights.get(source, 1.0)
        if weight > 0 and not is_validation(text_hash, val_share):
            # The id is a hash: below any bound there are twice as many halves of ids as there are ids.
            candidates.append((int(doc_id[:16], 16) / weight, doc_id, num_chars))
    wanted: list[str] = []
    size = 0
    for _, doc_id, num_chars in sorted(candidates):
        if size >= config.sample_bytes:
            break
        wanted.append(doc_id)
        size += num_chars
    for start in range(0, len(wanted), 4096):
        part = wanted[start : start + 4096]
        yield from (
            documents.to_table(columns=["text", "doc_id"], filter=pc.field("doc_id").isin(part))
            .sort_by("doc_id")["text"]
            .to_pylist()
        )


def is_validation(text_hash: str, val_share: float) -> bool:
    """Whether a text belongs to the validation split: by its hash alone, so it never changes sides."""
    return int(text_hash[:8], 16) < val_share * (1 << 32)


class Tokenizer:
    """A `tokenizer.json` ready to encode and decode.

    Attributes:
        name: the tokenizer's name, for messages and metadata.
        text: the file's content.
        vocab_size: number of tokens, special ones included.
        special: id of each special token.
        pattern: regular expression that parts a text before it is merged.
        token_bytes: bytes of each other token.
    """

    def __init__(self, name: str, text: str) -> None:
        import tiktoken

        self.name, self.text = name, text
        raw = json.loads(text)
        self.special: dict[str, int] = {token["content"]: token["id"] for token in raw["added_tokens"]}
        self.vocab_size = len(raw["model"]["vocab"])
        characters = _byte_of_char()
        self.token_bytes = {
            index: bytes(characters[char] for char in token)
            for token, index in raw["model"]["vocab"].items()
            if token not in self.special
        }
        # tiktoken merges in the order of ids, which is the order in which `tokenizers` learnt the merges.
        self.pattern: str = raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        self._encoding = tiktoken.Encoding(
            name,
            pat_str=self.pattern,
            mergeable_ranks={value: index for index, value in self.token_bytes.items()},
            special_tokens=self.special,
        )

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Read a tokenizer.json.

        Raises:
            InputError: missing, or no BPE that can be read here.
        """
        try:
            return open_tokenizer(path.parent.name, path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{path} does not exist; make a tokenizer with python -m workflows.tokenize"
            ) from None
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path} is no BPE that gptmill can read ({error})") from None

    @property
    def sha256(self) -> str:
        """Hex sha256 of the file."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @property
    def eot_id(self) -> int:
        """Id of the end-of-text token."""
        return self.special[EOT]

    def encode(self, text: str) -> list[int]:
        """Token ids; what looks like a special token in the text is plain text."""
        return self._encoding.encode_ordinary(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self._encoding.decode(list(tokens))

    def byte_lengths(self) -> np.ndarray:
        """int32 [vocab_size]: bytes of each token, 0 for special ones; what bits per byte divides by."""
        lengths = np.zeros(self.vocab_size, np.int32)
        for index, value in self.token_bytes.items():
            lengths[index] = len(value)
        return lengths

    def sentence_ends(self) -> np.ndarray:
        """bool [vocab_size]: tokens behind which a sentence is over, as far as a token tells.

        They end with a mark of SENTENCE_ENDS, quotes and brackets behind it allowed, or with an empty line. "Mr." and
        3.14 are taken for ends; a mark whose bytes are in two tokens is not.
        """
        ends = np.zeros(self.vocab_size, bool)
        for index, value in self.token_bytes.items():
            text = value.decode("utf-8", "replace").rstrip(" ")
            closed = text.rstrip().rstrip(CLOSING)
            ends[index] = text.endswith(("\n\n", "\r\n\r\n")) or closed.endswith(SENTENCE_ENDS)
        return ends

    def column_encoder(self) -> ColumnEncoder:
        """What encodes whole columns of text in a task."""
        raw = json.loads(self.text)
        dtype = token_dtype(self.vocab_size)
        if self.pattern == PATTERN:
            from data_pipeline.encoder import build_encoder  # numba costs a second

            ids = raw["model"]["vocab"]
            merges = [(ids[left], ids[right]) for left, right in _pairs(raw["model"]["merges"])]
            encoder = build_encoder(self.token_bytes, merges, self.vocab_size, self.eot_id, dtype)
            if encoder is not None:
                return encoder
        return TextEncoder(self.name, self.text, dtype)


class ColumnEncoder(Protocol):
    """Encodes a column of text."""

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(ids of all rows, each row's behind an end-of-text token; int64 offsets [rows + 1])."""


@dataclass(frozen=True)
class TextEncoder:
    """Encodes columns a text at a time: for vocabularies that were made elsewhere."""

    name: str
    text: str
    dtype: np.dtype

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """As ColumnEncoder."""
        tokenizer = cached_tokenizer(self.name, self.text)
        rows = [
            np.array([tokenizer.eot_id, *tokenizer.encode(text or "")], self.dtype)
            for text in texts.to_pylist()
        ]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return np.concatenate(rows) if rows else np.zeros(0, self.dtype), offsets


@lru_cache(maxsize=2)
def cached_tokenizer(name: str, text: str) -> Tokenizer:
    """The tokenizer of a JSON text, built once a process."""
    return open_tokenizer(name, text)


def open_tokenizer(name: str, text: str) -> Tokenizer:
    """The tokenizer of a JSON text: a byte-level BPE, or one of words, as GPT-1's."""
    if json.loads(text)["model"].get("end_of_word_suffix"):
        from data_pipeline.foreign_tokenizer import WordTokenizer

        return WordTokenizer(name, text)
    return Tokenizer(name, text)


def _pairs(merges: list[str] | list[list[str]]) -> list[list[str]]:
    """Merges of a tokenizer.json, which older `tokenizers` wrote as "left right"."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


@cache
def _byte_of_char() -> dict[str, int]:
    """GPT-2's byte-to-character table, inverted: printable bytes stand for themselves, others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}
