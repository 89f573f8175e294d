"""Labelled passages cut from the corpus itself: which source does a text come from?

The task needs no labelling by hand, so every workspace can fine-tune and grade a classifier. Training and
validation passages come from different documents, parted by the hash of their text as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from data_pipeline.corpus import Corpus
    from data_pipeline.tokenizer import Tokenizer
    from gpt.classify import Example


@dataclass(frozen=True)
class PassageConfig:
    """How labelled passages are cut from the corpus."""

    chars: int = 600
    """Characters of a passage, about: it ends at a space or line end where there is one."""
    per_document: int = 8
    """Passages taken from one document, at most, spread over it."""
    per_class: int = 400
    """Passages a class, at most: so many for training, and so many for validation."""
    val_share: float = 0.25
    """Share of the documents, by hash of their text, whose passages are for validation."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        from data_pipeline.errors import InputError

        for name in ("chars", "per_document", "per_class"):
            if getattr(self, name) < 1:
                raise InputError(f"passages.{name}: {getattr(self, name)} must be at least 1")
        if not 0 < self.val_share < 1:
            raise InputError(f"passages.val_share: {self.val_share} is outside 0 to 1")


class Passage(NamedTuple):
    """A text and the index of its class."""

    text: str
    label: int


class PassageTask(NamedTuple):
    """A classification task: class names, training and validation passages."""

    labels: list[str]
    train: list[Passage]
    val: list[Passage]


def build_task(corpus: Corpus, version: dict[str, Any], config: PassageConfig) -> PassageTask:
    """Cut the task from a corpus version; the same passages each time.

    Raises:
        InputError: fewer than two sources have passages on both sides.
    """
    from data_pipeline.errors import InputError
    from data_pipeline.tokenizer import is_validation

    table = corpus.read("documents", version, ["source", "doc_id", "text_hash", "text"])
    table = table.sort_by([("source", "ascending"), ("doc_id", "ascending")])
    cut: dict[str, tuple[list[str], list[str]]] = {}
    for source, _, text_hash, text in zip(*(column.to_pylist() for column in table.columns), strict=True):
        train, val = cut.setdefault(source, ([], []))
        side = val if is_validation(text_hash, config.val_share) else train
        if len(side) < config.per_class:
            side.extend(_cut(text, config)[: config.per_class - len(side)])
    labels = sorted(source for source, (train, val) in cut.items() if train and val)
    if len(labels) < 2:
        raise InputError(
            f"passages.val_share: {len(labels)} source has passages for training and validation, a task needs two; "
            "add documents of another source, or change the share"
        )
    return PassageTask(
        labels,
        [Passage(text, index) for index, label in enumerate(labels) for text in cut[label][0]],
        [Passage(text, index) for index, label in enumerate(labels) for text in cut[label][1]],
    )


def encode_passages(passages: Sequence[Passage], tokenizer: Tokenizer) -> list[Example]:
    """The passages as a classifier takes them."""
    from gpt.classify import Example

    return [Example(tokenizer.encode(passage.text), passage.label) for passage in passages]


def _cut(text: str, config: PassageConfig) -> list[str]:
    count = max(1, min(config.per_document, len(text) // config.chars))
    stride = len(text) // count
    passages = []
    for index in range(count):
        piece = text[index * stride : index * stride + config.chars]
        end = max(piece.rfind(" "), piece.rfind("\n"))
        passages.append(piece[:end].strip() if end > config.chars // 2 else piece.strip())
    return [passage for passage in passages if passage]
