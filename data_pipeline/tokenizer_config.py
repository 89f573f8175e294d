"""The options of tokenizers and token shards. Light: `--help` imports nothing heavier."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_pipeline.errors import InputError

SPECIAL_TOKENS = (
    "<|endoftext|>",
    *("<|pad|>", "<|mask|>", "<|start|>", "<|delimiter|>", "<|classify|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)


@dataclass(frozen=True)
class TokenizerConfig:
    """How the tokenizer is trained."""

    name: str = "bpe"
    """Name of the tokenizer and of the token dataset made with it."""
    vocab_size: int = 16384
    """Tokens in the vocabulary, special ones included (at least 266)."""
    sample_bytes: int = 200 << 20
    """Text that training looks at, at most; documents are taken in the order of their ids, which is random, more of
    them from sources of more weight."""
    min_frequency: int = 2
    """Pairs seen less often are never merged."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        least = 256 + len(SPECIAL_TOKENS)
        if not least <= self.vocab_size <= 1 << 20:
            raise InputError(f"tokenizer.vocab_size: {self.vocab_size} is outside {least} to {1 << 20}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(
                f"tokenizer.name: {self.name!r} must be letters, digits, - and _; it names a folder"
            )
        if self.sample_bytes <= 0:
            raise InputError(f"tokenizer.sample_bytes: {self.sample_bytes} must be positive")


@dataclass(frozen=True)
class ShardConfig:
    """How token shards are cut."""

    val_share: float = 0.05
    """Share of the documents, by hash of their text, that is held out for validation."""
    shard_chars: int = 256 << 20
    """Characters of text that go into one shard, about."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not 0 < self.val_share < 0.5:
            raise InputError(
                f"shards.val_share: {self.val_share} is outside 0 to 0.5; validation is less than the training data"
            )
        if self.shard_chars <= 0:
            raise InputError(f"shards.shard_chars: {self.shard_chars} must be positive")
