"""The quality step of a refresh: a score for each document, and a reason for those below the bound."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa

from data_pipeline.config import RefreshConfig
from data_pipeline.quality.model import cached_model, read_metadata
from data_pipeline.quality_config import QualityConfig
from data_pipeline.schema import Verdict, keep_all, replace_column, split

STAGE = "quality"
REASON = "low_quality_score"


def model_folder(corpus_root: Path, model: str) -> Path:
    """The folder of a model: one of the corpus by its name, or any by its path."""
    return corpus_root / "quality" / model if "/" not in model else Path(model).expanduser().absolute()


def with_model(config: RefreshConfig, corpus_root: Path) -> RefreshConfig:
    """The configuration with its quality model found: by path, and by hash.

    Raises:
        InputError: there is no such model, it cannot be used, or it has not the hash that the configuration names.
    """
    quality = config.quality
    if not quality.model:
        return config
    folder = model_folder(corpus_root, quality.model)
    model_hash = quality.model_hash or str(read_metadata(folder)["model_hash"])
    cached_model(str(folder), model_hash)
    return dataclasses.replace(
        config, quality=dataclasses.replace(quality, model=str(folder), model_hash=model_hash)
    )


def score_documents(table: pa.Table, config: QualityConfig) -> tuple[pa.Table, pa.Table]:
    """Set `quality_score`; remove rows below the least score of their source. Does neither without a model.

    Args:
        table: rows with `text` and `source`.
        config: with the path and the hash of its model (with_model).

    Raises:
        InputError: the model is gone or another.
    """
    if not config.model:
        return keep_all(table)
    scores = cached_model(config.model, config.model_hash).score(table["text"].to_pylist())
    table = replace_column(table, "quality_score", pa.array(scores, pa.float64()))
    bounds = [config.min_scores.get(source, config.min_score) for source in table["source"].to_pylist()]
    return split(
        table,
        STAGE,
        [
            Verdict(REASON, score, bound) if score < bound else None
            for score, bound in zip(scores.tolist(), bounds, strict=True)
        ],
    )
