"""Vocabularies of GPT-1 and GPT-2 from the files that OpenAI published, as a tokenizer.json.

GPT-2: `encoder.json` and `vocab.bpe`, byte-level, exact for any text. GPT-1: `encoder_bpe_40000.json` and
`vocab_40000.bpe`; it folds case and parts words as BERT does (as `transformers` does where spaCy and ftfy are missing),
so a text does not come back as it was, and its special tokens are added behind its vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.tokenizer import Tokenizer
from data_pipeline.tokenizer_config import SPECIAL_TOKENS

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UNKNOWN, WORD_END = "<unk>", "</w>"


def import_vocabulary(encoder: Path, merges: Path) -> str:
    """The text of a tokenizer.json.

    Args:
        encoder: JSON object of ids by token.
        merges: a line of its own, then a pair a line, the first merged first.

    Raises:
        InputError: a file is missing or is no such thing, or the two do not belong together.
    """
    try:
        vocabulary: dict[str, int] = json.loads(encoder.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").split("\n")[1:]
        pairs = [(left, right) for left, right in (line.split(" ") for line in lines if line.strip())]
        ids = sorted(vocabulary.values())
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{encoder} and {merges} are no vocabulary and its merges ({error})") from None
    if ids != list(range(len(ids))):
        raise InputError(f"{encoder}: ids are not 0 to {len(ids) - 1}, each once")
    is_gpt1 = any(token.endswith(WORD_END) for token in vocabulary)
    unknown = next((a + b for a, b in pairs if not {a, b, a + b} <= vocabulary.keys()), None)
    if unknown is not None:
        raise InputError(f"{merges}: {unknown!r} is not in {encoder}; the two files do not belong together")
    built = _gpt1(vocabulary, pairs) if is_gpt1 else _gpt2(vocabulary, pairs)
    return str(built.to_str(pretty=True))


def _gpt2(vocabulary: dict[str, int], pairs: list[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if SPECIAL_TOKENS[0] not in vocabulary:
        raise InputError(f"the vocabulary has no {SPECIAL_TOKENS[0]}")
    tokenizer.add_special_tokens([AddedToken(SPECIAL_TOKENS[0], special=True, normalized=False)])
    return tokenizer


def _gpt1(vocabulary: dict[str, int], pairs: list[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    # Unknown characters are <unk>; a file without it gets it.
    known = vocabulary if UNKNOWN in vocabulary else {**vocabulary, UNKNOWN: len(vocabulary)}
    tokenizer = Tokenizer(
        models.BPE(vocab=known, merges=pairs, unk_token=UNKNOWN, end_of_word_suffix=WORD_END, fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix=WORD_END)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


class WordTokenizer(Tokenizer):
    """GPT-1's kind of tokenizer.json, encoded by `tokenizers`; a text comes back in lower case, its spaces levelled."""

    def __init__(self, name: str, text: str) -> None:
        import tokenizers

        self.name, self.text, self.pattern = name, text, ""
        raw = json.loads(text)
        self.special = {token["content"]: token["id"] for token in raw["added_tokens"]}
        self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        # The end of a word stands for the space behind it.
        self.token_bytes = {
            index: token.replace(WORD_END, " ").encode()
            for token, index in raw["model"]["vocab"].items()
            if token != UNKNOWN
        }

    def encode(self, text: str) -> list[int]:
        """Token ids; what looks like a special token in the text is plain text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))
