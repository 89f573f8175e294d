"""How far a tokenizer compresses: bytes a token by source and language, beside other vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.corpus import Corpus
from data_pipeline.tokenizer import Tokenizer, is_validation

BATCH_ROWS = 256


@dataclass(frozen=True)
class Compression:
    """What held-out text of one source and language comes to.

    Attributes:
        num_docs, num_bytes: looked at.
        num_tokens: by tokenizer.
    """

    source: str
    lang: str
    num_docs: int
    num_bytes: int
    num_tokens: dict[str, int]

    def bytes_per_token(self, name: str) -> float:
        """Of one tokenizer."""
        return self.num_bytes / max(1, self.num_tokens[name])


def compression(
    corpus: Corpus,
    version: dict[str, Any],
    tokenizers: Sequence[Tokenizer],
    val_share: float,
    max_bytes: int = 16 << 20,
) -> list[Compression]:
    """Encode documents that no tokenizer was trained on, by source and language, the largest first.

    Args:
        val_share: validation share of the token dataset: what is held out was not in the tokenizer's sample.
        max_bytes: text of a source and language that is looked at, at most.
    """
    encoders = {tokenizer.name: tokenizer.column_encoder() for tokenizer in tokenizers}
    cells: dict[tuple[str, str], list[Any]] = {}
    batches = corpus.scan("documents", version).to_batches(
        columns=["source", "lang", "text_hash", "text"], batch_size=BATCH_ROWS
    )
    for batch in batches:
        keys = list(zip(*(batch[name].to_pylist() for name in ("source", "lang", "text_hash")), strict=True))
        rows: dict[tuple[str, str], list[int]] = {}
        for index, (source, lang, text_hash) in enumerate(keys):
            if is_validation(text_hash, val_share):
                rows.setdefault((source, lang or ""), []).append(index)
        for key, chosen in rows.items():
            cell = cells.setdefault(key, [0, 0, dict.fromkeys(encoders, 0)])
            if cell[1] >= max_bytes:
                continue
            texts = batch["text"].take(pa.array(chosen))
            cell[0] += len(chosen)
            cell[1] += sum(len(text.encode("utf-8")) for text in texts.to_pylist())
            for name, encoder in encoders.items():
                ids, _ = encoder.encode(texts)
                cell[2][name] += len(ids) - len(chosen)  # without the end-of-text tokens
    found = [Compression(*key, *cell) for key, cell in cells.items()]
    return sorted(found, key=lambda row: (-row.num_bytes, row.source, row.lang))


def as_json(rows: Sequence[Compression]) -> list[dict[str, Any]]:
    """The report as plain values."""
    return [
        {
            "source": row.source,
            "lang": row.lang,
            "num_docs": row.num_docs,
            "num_bytes": row.num_bytes,
            "bytes_per_token": {name: round(row.bytes_per_token(name), 4) for name in row.num_tokens},
        }
        for row in rows
    ]


def total(rows: Sequence[Compression]) -> Compression:
    """All rows as one."""
    names = rows[0].num_tokens if rows else {}
    tokens = {name: int(np.sum([row.num_tokens[name] for row in rows])) for name in names}
    return Compression(
        "all", "", sum(row.num_docs for row in rows), sum(row.num_bytes for row in rows), tokens
    )
