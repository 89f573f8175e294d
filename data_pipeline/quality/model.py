"""A quality model on disk: a folder that is complete, proves itself by hashes, and holds nothing that can run.

model.safetensors    `weights` float32 [2^log2_buckets], `bias` float32 [1]
metadata.json        how it was made, of what, how good it is, the sha256 of the weights, and `model_hash`, the
                     sha256 of the canonical JSON of everything else
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_pipeline.atomic import write_json
from data_pipeline.errors import InputError
from data_pipeline.quality.classifier import logits, sigmoid
from data_pipeline.quality.features import SCHEME, Windows
from data_pipeline.shards import canonical_json

FORMAT_VERSION = 1
WEIGHTS_NAME, METADATA_NAME = "model.safetensors", "metadata.json"


@dataclass(frozen=True)
class QualityModel:
    """What scores a text.

    Attributes:
        weights: float32 [2^log2_buckets].
        bias: of the logit.
        metadata: content of metadata.json.
    """

    weights: np.ndarray
    bias: float
    metadata: dict[str, Any]

    @property
    def model_hash(self) -> str:
        """What the scores depend on, and all that is known of the model."""
        return self.metadata["model_hash"]

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """float64 scores from 0 (like the bad examples) to 1 (like the good ones), a text each."""
        windows = Windows.of_texts(texts, len(self.weights).bit_length() - 1)
        return sigmoid(logits(windows, self.weights, self.bias))


def make_model(weights: np.ndarray, bias: float, about: dict[str, Any]) -> QualityModel:
    """The model of these weights, its hashes filled in.

    Args:
        about: name, settings, data and metrics: plain values.
    """
    content = {
        "format": FORMAT_VERSION,
        "scheme": SCHEME,
        **about,
        "weights_sha256": hashlib.sha256(_tensors(weights, bias)).hexdigest(),
    }
    return QualityModel(weights, bias, {**content, "model_hash": _hash(content)})


def save_model(model: QualityModel, folder: Path) -> None:
    """Write a model to a folder that is not there yet: beside it first, then renamed."""
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / WEIGHTS_NAME).write_bytes(_tensors(model.weights, model.bias))
    write_json(temporary / METADATA_NAME, model.metadata)
    temporary.rename(folder)


def load_model(folder: Path) -> QualityModel:
    """Read and check a model.

    Raises:
        InputError: missing, damaged, edited, or of another format or feature scheme.
    """
    metadata = read_metadata(folder)
    path = folder / WEIGHTS_NAME
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != metadata["weights_sha256"]:
            raise InputError(f"quality.model: {path} is damaged, its sha256 is not that of {METADATA_NAME}")
        tensors = load(content)
        weights, bias = tensors["weights"], float(tensors["bias"][0])
        if weights.dtype != np.float32 or weights.shape != (1 << metadata["settings"]["log2_buckets"],):
            raise ValueError(f"weights are {weights.dtype} {list(weights.shape)}")
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"quality.model: {path} cannot be read as a quality model ({error})") from None
    return QualityModel(weights, bias, metadata)


def read_metadata(folder: Path) -> dict[str, Any]:
    """A model's metadata, checked.

    Raises:
        InputError: as load_model.
    """
    path = folder / METADATA_NAME
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        content = {key: value for key, value in metadata.items() if key != "model_hash"}
        stated = (metadata["format"], metadata["scheme"], metadata["model_hash"])
    except FileNotFoundError:
        known = sorted(entry.parent.name for entry in folder.parent.glob(f"[!.]*/{METADATA_NAME}"))
        raise InputError(
            f"quality.model: there is no quality model {folder} (there: {', '.join(known) or 'none'}); train one with "
            "python -m workflows.refresh --train_quality.name NAME"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"quality.model: {path} cannot be read ({type(error).__name__}: {error})") from None
    if stated[:2] != (FORMAT_VERSION, SCHEME):
        raise InputError(
            f"quality.model: {folder} was made with format {stated[0]} and features '{stated[1]}', this gptmill has "
            f"{FORMAT_VERSION} and '{SCHEME}'; train it again under another name"
        )
    if _hash(content) != stated[2]:
        raise InputError(f"quality.model: {path} does not match its model_hash; it was edited or damaged")
    return metadata


@lru_cache(maxsize=2)
def cached_model(folder: str, model_hash: str) -> QualityModel:
    """A model, read once a process.

    Raises:
        InputError: as load_model, or the model is not the one of this hash.
    """
    model = load_model(Path(folder))
    if model.model_hash != model_hash:
        raise InputError(
            f"quality.model_hash: {folder} has {model.model_hash}, {model_hash} was asked for; name the other model"
        )
    return model


def _tensors(weights: np.ndarray, bias: float) -> bytes:
    return save({"weights": weights.astype("<f4"), "bias": np.array([bias], "<f4")})


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
