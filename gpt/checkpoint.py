"""Checkpoints and exported models: folders that are either complete or not there.

    run/checkpoints/step_00000100/
        model.safetensors       weights, by parameter name
        optimizer.safetensors   moments, as `parameter name.moment`
        average.safetensors     moving average of the weights, where one is kept
        state.json              step, samples_consumed, configurations, fingerprints, sha256 of the files above

A folder is written under a `.tmp-` name, flushed to disk, then renamed. Nothing is pickled. No random state is saved:
dropout is seeded from (seed, step, worker, micro-batch) and the order of the data is a function of samples_consumed.
A sharded model (FSDP) writes `sharded/*.safetensors` instead, a file a worker, through torch.distributed.checkpoint;
any number of workers, sharded or not, can go on from either form.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, distribute_tensor

from data_pipeline.shards import canonical_json, file_sha256
from gpt.config import ConfigError, ModelConfig
from gpt.model import GPT
from gpt.optim import fresh_state

CHECKPOINT_FORMAT = 1
MODEL_FORMAT = 1
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
SHARDED_FOLDER = "sharded"
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"

logger = logging.getLogger(__name__)

# Tensors of a training by part ("model", "optimizer", "average") and name; each part is a file.
TrainingTensors = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were verified."""

    path: Path
    """Its folder."""
    state: dict[str, Any]
    """Content of state.json."""

    def load_into(self, tensors: TrainingTensors) -> None:
        """Copy the stored values into these tensors; whole or sharded, whatever they were when they were stored.

        Raises:
            ValueError: a part or a tensor that the checkpoint lacks, or of another shape.
        """
        if (self.path / SHARDED_FOLDER).is_dir():
            flat = {
                f"{part}/{name}": tensor.detach()
                for part, named in tensors.items()
                for name, tensor in named.items()
            }
            reader = HuggingFaceStorageReader(str(self.path / SHARDED_FOLDER))
            with warnings.catch_warnings():
                # That it loads in one process is meant so, where there is one.
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                dcp.load(flat, storage_reader=reader, no_dist=not dist.is_initialized())
            return
        for part, named in tensors.items():
            stored = load_file(self.path / f"{part}.safetensors")
            if stored.keys() != named.keys():
                names = ", ".join(sorted(stored.keys() ^ named.keys())[:3])
                raise ValueError(f"{self.path}: {part} holds other tensors than this training: {names}")
            with torch.no_grad():
                for name, tensor in named.items():
                    _copy(stored[name], tensor)


def _copy(stored: Tensor, tensor: Tensor) -> None:
    if stored.shape != tensor.shape:
        raise ValueError(
            f"a stored tensor is {tuple(stored.shape)}, this training's is {tuple(tensor.shape)}"
        )
    if isinstance(tensor, DTensor):
        stored = distribute_tensor(
            stored.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
        )
    tensor.copy_(stored)


def checkpoints_folder(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return checkpoints_folder(run_dir) / f"step_{step:08d}"


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time; in the background where asked and possible.

    Every worker has one and calls the same methods at the same steps; rank 0 writes, of a sharded model each worker
    its part. What is written in the background was copied before (pinned memory on a GPU), so training goes on.

    Args:
        run_dir: folder of the run.
        keep: newest checkpoints to keep.
        keep_every: those of steps that this divides are kept, too; 0 = none.
        in_background: write in a thread. Sharded checkpoints are written by all workers together, at once.
        is_main: whether this worker is rank 0.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        keep: int,
        keep_every: int = 0,
        in_background: bool = True,
        is_main: bool = True,
    ) -> None:
        self.run_dir, self.keep, self.keep_every, self.is_main = run_dir, keep, keep_every, is_main
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer") if in_background and is_main else None
        self._writing: Future[None] | None = None

    def save(self, tensors: TrainingTensors, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `state["step"]`, once the one before is written.

        Args:
            tensors: of the training.
            state: plain JSON values; must hold "step".
        """
        self.wait()
        if any(isinstance(tensor, DTensor) for named in tensors.values() for tensor in named.values()):
            self._write_sharded(tensors, state)
        elif self.is_main:
            copies = {part: _copied(named) for part, named in tensors.items()}
            if self._thread is None:
                self._write(copies, state)
            else:
                self._writing = self._thread.submit(self._write, copies, state)

    def wait(self) -> None:
        """Return when what was saved is on disk.

        Raises:
            OSError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being written, whether it succeeds or not."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def _write(self, tensors: TrainingTensors, state: Mapping[str, Any]) -> None:
        with _partial_checkpoint(self.run_dir, state["step"]) as partial:
            for part, named in tensors.items():
                save_file(dict(named), partial / f"{part}.safetensors")
            _write_state(partial, state)
        self._drop_old(state["step"])

    def _write_sharded(self, tensors: TrainingTensors, state: Mapping[str, Any]) -> None:
        """All workers together: each writes its shards, rank 0 the rest."""
        flat = {f"{part}/{name}": tensor for part, named in tensors.items() for name, tensor in named.items()}
        # One name for all workers, which have other process ids.
        folder = checkpoints_folder(self.run_dir) / f".tmp-sharded-{state['step']}"
        if self.is_main:
            _remove(folder.parent, ".tmp-sharded-*")
            folder.mkdir(parents=True)
        dist.barrier()
        dcp.save(flat, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
        dist.barrier()
        if self.is_main:
            with _partial_checkpoint(self.run_dir, state["step"]) as partial:
                folder.rename(partial / SHARDED_FOLDER)
                _write_state(partial, state)
            self._drop_old(state["step"])
        dist.barrier()

    def _drop_old(self, newest: int) -> None:
        # Later ones than the one just written are damaged: training went on from before them.
        by_step = {
            int(path.name.removeprefix("step_")): path for path in _by_step(checkpoints_folder(self.run_dir))
        }
        for step in [step for step in by_step if step <= newest][self.keep :]:
            if not self.keep_every or step % self.keep_every:
                shutil.rmtree(by_step[step])


def _remove(folder: Path, *patterns: str) -> None:
    """Remove what a kill left half written."""
    for pattern in patterns:
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _partial_checkpoint(run_dir: Path, step: int) -> Iterator[Path]:
    """A folder that becomes the checkpoint of the step; what a kill left of others is removed."""
    folder = checkpoints_folder(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _remove(folder, ".tmp-step*", ".tmp-old-*")
    with atomic_folder(checkpoint_path(run_dir, step)) as partial:
        yield partial


def _write_state(partial: Path, state: Mapping[str, Any]) -> None:
    """state.json, with the hashes of the files that are there."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    hashes = {path.relative_to(partial).as_posix(): file_sha256(path) for path in files}
    content = {"format_version": CHECKPOINT_FORMAT, **state, "files": hashes}
    content["state_hash"] = hashlib.sha256(canonical_json(content)).hexdigest()
    (partial / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the host's memory, pinned where they come from a GPU, that later steps do not change."""
    copies = {}
    for name, tensor in tensors.items():
        pinned = tensor.device.type == "cuda"
        copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        copies[name].copy_(tensor.detach(), non_blocking=pinned)
    if any(tensor.device.type == "cuda" for tensor in tensors.values()):
        torch.cuda.synchronize()
    return copies


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
        for file in partial.rglob("*"):
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


def optimizer_tensors(
    model: GPT, optimizers: Iterable[torch.optim.Optimizer], *, create: bool = False
) -> dict[str, Tensor]:
    """State of the optimizers by `parameter name.key`; names, unlike torch's indices, survive regrouping.

    Args:
        model: whose parameters they update.
        optimizers: each parameter is in one.
        create: first bring state to life that has not been needed yet, so that there is something to load into.
    """
    state_of = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if create and not optimizer.state[parameter]:
                    optimizer.state[parameter].update(fresh_state(optimizer, parameter))
                state_of[id(parameter)] = optimizer.state[parameter]
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in state_of.get(id(parameter), {}).items()
    }
