"""What a run writes down about itself, and whether another run may go on from there."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.order import SampleOrder

# A training setting outside these may change between parts of a run; a warning says which did.
MUST_STAY = (
    "batch_size",
    "batch_ramp_start",
    "batch_ramp_samples",
    "optimizer",
    "objectives",
    "ema_decay",
    "seed",
)
# These never change what is learned, or only by rounding.
MAY_CHANGE_SILENTLY = (
    "micro_batch_size",
    "eval_every",
    "eval_tokens",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "async_checkpoints",
    "log_every",
    "max_epochs",
    "verify_shards",
    "compile",
    "recompute",
    "parallel",
    "loss_chunk",
)
# Compared as part of the order, normalised.
IN_THE_ORDER = ("source_weights", "mixture_stages", "packing")

logger = logging.getLogger(__name__)


def fingerprints(
    model_config: ModelConfig,
    train_config: TrainConfig,
    order: SampleOrder,
    manifest_hash: str,
    tokenizer_sha256: str,
) -> dict[str, Any]:
    """What a run is made of, for state.json."""
    return {
        "manifest_hash": manifest_hash,
        "tokenizer_sha256": tokenizer_sha256,
        "model_config": dataclasses.asdict(model_config),
        "train_config": dataclasses.asdict(train_config),
        "order": order.state(),
        "order_hash": order.fingerprint(),
    }


def check_resumable(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Compare a checkpoint's fingerprints with those of this run.

    Raises:
        ConfigError: the run would not be the same one; names everything that differs.
    """
    differences = []
    if saved["manifest_hash"] != now["manifest_hash"]:
        differences.append(
            f"dataset (manifest {saved['manifest_hash'][:12]}, now {now['manifest_hash'][:12]})"
        )
    saved_model = dataclasses.asdict(ModelConfig()) | saved["model_config"]
    differences += _differences("model", saved_model, now["model_config"])
    # A setting that did not exist when the checkpoint was written had its default's effect.
    saved_train = dataclasses.asdict(TrainConfig()) | saved["train_config"]
    now_train = now["train_config"]
    differences += _differences("train", saved_train, now_train, only=MUST_STAY)
    if saved["order_hash"] != now["order_hash"]:
        differences += _differences("order", saved["order"], now["order"]) or ["order"]
    if differences:
        raise ConfigError(
            f"{path} cannot be resumed, these differ: {'; '.join(differences)}. Restore them, or start a new run "
            "under another name"
        )
    others = [name for name in now_train if name not in MUST_STAY + MAY_CHANGE_SILENTLY + IN_THE_ORDER]
    for difference in _differences("train", saved_train, now_train, only=others):
        logger.warning("resuming with another setting: %s", difference)


def _differences(
    prefix: str, saved: Mapping[str, Any], now: Mapping[str, Any], only: Any = None
) -> list[str]:
    names = sorted({*saved, *now}) if only is None else only
    return [
        f"{prefix}.{name} (was {saved.get(name)}, now {now.get(name)})"
        for name in names
        if saved.get(name) != now.get(name)
    ]
