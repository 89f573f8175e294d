"""Checkpoints and exported models: folders that are either complete or not there.

    run/checkpoints/step_00000100/
        model.safetensors       weights, by parameter name
        optimizer.safetensors   moments, as `parameter name.moment`
        state.json              step, samples_consumed, configurations, fingerprints, sha256 of the two files above

A folder is written under a `.tmp-` name, flushed to disk, then renamed. Nothing is pickled. No random state is saved:
dropout is seeded from (seed, step, worker, micro-batch) and the order of the data is a function of samples_consumed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipeline.shards import canonical_json, file_sha256
from gpt.config import ConfigError, ModelConfig
from gpt.model import GPT

CHECKPOINT_FORMAT = 1
MODEL_FORMAT = 1
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were verified."""

    path: Path
    """Its folder."""
    state: dict[str, Any]
    """Content of state.json."""

    def restore(self, model: GPT, optimizer: torch.optim.Optimizer) -> None:
        """Load weights and moments in place."""
        model.load_state_dict(load_file(self.path / MODEL_FILE))
        _load_optimizer(model, optimizer, load_file(self.path / OPTIMIZER_FILE))


def checkpoints_folder(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return checkpoints_folder(run_dir) / f"step_{step:08d}"


def save_checkpoint(
    run_dir: Path, model: GPT, optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write the checkpoint of `state["step"]` and drop all but the newest `keep`. For one worker to call.

    Args:
        run_dir: folder of the run.
        model: the model itself, not its DDP wrapper.
        optimizer: the optimizer over its parameters.
        state: plain JSON values; must hold "step".
        keep: checkpoints to keep, this one included.
    """
    folder = checkpoints_folder(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    path = checkpoint_path(run_dir, state["step"])
    with atomic_folder(path) as partial:
        save_file(_to_cpu(model.state_dict()), partial / MODEL_FILE)
        save_file(_to_cpu(_optimizer_tensors(model, optimizer)), partial / OPTIMIZER_FILE)
        hashes = {name: file_sha256(partial / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        content = {"format_version": CHECKPOINT_FORMAT, **state, "files": hashes}
        content["state_hash"] = hashlib.sha256(canonical_json(content)).hexdigest()
        (partial / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    for old in _by_step(folder)[keep:]:
        shutil.rmtree(old)
    return path


def latest_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are whole, or None; warns about each damaged one it passes over."""
    for path in _by_step(checkpoints_folder(run_dir)):
        try:
            return read_checkpoint(path)
        except (OSError, ValueError, KeyError) as error:
            logger.warning("checkpoint %s is damaged (%s); falling back to the one before", path, error)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, after the hash of its state and those of its files were compared.

    Raises:
        ValueError, OSError, KeyError: it is damaged or of another format.
    """
    state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    stated = state.pop("state_hash")
    if hashlib.sha256(canonical_json(state)).hexdigest() != stated:
        raise ValueError(f"{STATE_FILE} does not match its state_hash")
    if state["format_version"] != CHECKPOINT_FORMAT:
        raise ValueError(f"format {state['format_version']}, this gptmill reads {CHECKPOINT_FORMAT}")
    _verify_files(path, state["files"])
    return Checkpoint(path, state)


def export_model(
    folder: Path,
    model: GPT,
    config: ModelConfig,
    tokenizer_json: Path,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model that stands alone: config.json, model.safetensors, tokenizer.json.

    Args:
        folder: replaced if it is there.
        model: the model itself, not its DDP wrapper.
        config: its configuration.
        tokenizer_json: copied beside it.
        extra: plain JSON values for the "extra" field of config.json, such as where the model came from.
    """
    content = {"kind": "gpt", "model": dataclasses.asdict(config), "num_parameters": config.num_parameters()}
    write_model_folder(folder, model.state_dict(), tokenizer_json, {**content, "extra": dict(extra or {})})
    return folder


def load_model(folder: Path, device: torch.device | str = "cpu") -> tuple[GPT, dict[str, Any]]:
    """Read an exported model, in evaluation mode, and its config.json.

    Raises:
        ConfigError: no model there, another kind of model, or a damaged file.
    """
    tensors, content = read_model_folder(folder, "gpt")
    model = GPT(ModelConfig(**content["model"]))
    model.load_state_dict(tensors)
    return model.to(device).eval(), content


def write_model_folder(
    folder: Path, tensors: Mapping[str, Tensor], tokenizer_json: Path, content: Mapping[str, Any]
) -> None:
    """The three files of a model folder, atomically; config.json is `content` with a format and hashes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        save_file(_to_cpu(tensors), partial / MODEL_FILE)
        shutil.copyfile(tokenizer_json, partial / TOKENIZER_FILE)
        hashes = {name: file_sha256(partial / name) for name in (MODEL_FILE, TOKENIZER_FILE)}
        config = {"format_version": MODEL_FORMAT, **content, "files": hashes}
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")


def read_model_folder(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config.json of a model folder, verified.

    Raises:
        ConfigError: no model there, another kind of model, or a damaged file.
    """
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if content["kind"] != kind:
            raise ConfigError(
                f"{folder} holds a model of kind {content['kind']!r}, wanted {kind!r}; name another folder"
            )
        _verify_files(folder, content["files"])
        return load_file(folder / MODEL_FILE), content
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename or folder} is missing: {folder} is no exported model; check the name"
        ) from None
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder} cannot be read as an exported model ({error}); export it again"
        ) from None


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that takes its name only when the block ends well; replaces one of that name."""
    partial = path.parent / f".tmp-{path.name}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.iterdir():
            _fsync(file)
        _fsync(partial)
        if path.exists():
            # A folder cannot be renamed over a full one: move the old one aside first.
            aside = path.parent / f".tmp-old-{path.name}-{os.getpid()}"
            path.rename(aside)
            partial.rename(path)
            shutil.rmtree(aside)
        else:
            partial.rename(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _by_step(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step_*"), key=lambda path: path.name, reverse=True)


def _verify_files(folder: Path, hashes: Mapping[str, str]) -> None:
    for name, stated in hashes.items():
        if file_sha256(folder / name) != stated:
            raise ValueError(f"{name} does not match its sha256")


def _to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(model: GPT, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer state flattened to `parameter name.key`; names, unlike torch's indices, survive regrouping."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(model: GPT, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `_optimizer_tensors`; torch's own load_state_dict casts and places the values."""
    index_of = {
        id(parameter): index
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    parameters = dict(model.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(".", 1)
        state.setdefault(index_of[id(parameters[name])], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
