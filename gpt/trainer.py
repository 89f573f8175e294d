"""The training loop: data in order, one update a step, evaluations and checkpoints on the way.

Shapes: B sequences of a micro-batch, T context_length.

The global batch is fixed; workers and micro-batches only decide who computes which part. The loss of a step is the
sum over its tokens divided by their global count, so it is the same function on one worker or many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from data_pipeline.shards import TokenDataset, token_dtype
from gpt.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    checkpoint_path,
    latest_checkpoint,
    optimizer_tensors,
    read_checkpoint,
)
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.distributed import default_device, from_main_worker, sigterm_sets, wait_for_all
from gpt.evaluate import Score, evaluate_bits_per_byte
from gpt.events import Callback, EvaluationRecord, StepRecord, TrainResult
from gpt.heap import garbage_frozen, keep_freed_memory
from gpt.loader import BatchLoader, StepBatch, reads_ahead
from gpt.meter import StepMeter
from gpt.model import GPT
from gpt.objectives import TrainingLoss, freeze_idle, target_counts, weighted_sum
from gpt.optim import schedule_factor
from gpt.order import hash_key, plan_table
from gpt.parallel import distributed, gradients_synced, prepare, whole_state
from gpt.resume import check_resumable, fingerprints
from gpt.schedule import DataSchedule
from gpt.throughput import utilisation
from gpt.updates import Updates

MAX_SKIPPED_IN_A_ROW = 5
# Fixed, so that an evaluation is the same whatever the micro-batch and the number of workers.
EVALUATION_BATCH_TOKENS = 8192

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The gradient was not finite several steps in a row."""


class Trainer:
    """Pretrains a GPT on a token dataset, and goes on from the newest checkpoint of `run_dir` if there is one.

    With world_size over 1, torch.distributed must be initialised (`gpt.distributed.init_from_env`, Ray Train) and
    `run_dir` visible to every worker; rank 0 writes.

    Args:
        model_config: vocab_size 0 is filled in from the dataset.
        train_config: the schedule.
        dataset_folder: folder with manifest.json.
        run_dir: checkpoints go under it.
        token_bytes: UTF-8 bytes of each token, 0 for special ones, [vocab_size].
        sentence_ends: bool [vocab_size], tokens that end a sentence; needed for sentence prediction only.
        tokenizer_sha256: compared with the dataset's, None = not compared.
        callbacks: told what happens, on every worker (see `gpt.events`).
        device: None = this worker's GPU, else the CPU.
        rank, world_size: this worker, and how many there are.

    Raises:
        ConfigError: settings that are impossible, or differ from those of the checkpoint.
        InputError: a missing or damaged dataset.

    Attributes:
        model: the model itself (not its DDP wrapper).
        model_config: with vocab_size filled in.
        schedule: which tokens each step sees, and how much of each source that is.
        trained: after fit(), the model to keep: whole, with the average of the weights where one is kept; None on
            all workers but rank 0 where it is sharded.
        step: updates made so far.
        is_main: whether this worker is rank 0.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        train_config: TrainConfig,
        dataset_folder: Path | str,
        run_dir: Path | str,
        token_bytes: np.ndarray,
        *,
        sentence_ends: np.ndarray | None = None,
        tokenizer_sha256: str | None = None,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert world_size == 1 or (dist.get_world_size(), dist.get_rank()) == (world_size, rank)
        train_config.validate()
        self.config = train_config
        self.run_dir = Path(run_dir)
        self.callbacks = tuple(callbacks)
        self.rank, self.world_size, self.is_main = rank, world_size, rank == 0
        self.device = torch.device(device) if device is not None else default_device()

        verify = train_config.verify_shards and self.is_main
        self.train_data = TokenDataset(dataset_folder, "train", verify=verify)
        self.val_data = TokenDataset(dataset_folder, "val", verify=verify)
        self.manifest = self.train_data.manifest
        self.model_config = _fill_vocab_size(model_config, self.manifest.vocab_size)
        self.model_config.validate()
        train_config.objectives.validate(self.model_config)
        _check_tokenizer(
            token_bytes, tokenizer_sha256, self.manifest.vocab_size, self.manifest.tokenizer_sha256
        )
        self.token_bytes = token_bytes

        self.schedule = DataSchedule.of(self.train_data, train_config, self.model_config.context_length)
        self.order, self.batches = self.schedule.order, self.schedule.batches

        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(hash_key("weights", train_config.seed))
        self.model = GPT(self.model_config).to(self.device)
        freeze_idle(self.model, train_config.objectives)
        prepare(self.model, train_config, self.device)
        self.updates = Updates(self.model, train_config, self.device, rank, world_size)
        self.step = 0
        self.skipped_updates = 0
        self.trained: GPT | None = None
        self.first_evaluation: dict[str, Score] = {}
        self.last_evaluation: dict[str, Score] = {}
        self.resumed_from: int | None = None
        self._resume()
        # After the weights are loaded: DDP copies rank 0's to all workers as it is built.
        loss = TrainingLoss(
            self.model, train_config, end_token=self.manifest.eot_id, sentence_ends=sentence_ends
        )
        self._loss = distributed(loss, self.device, world_size)
        self._meter = StepMeter(train_config.objectives.names, len(self.order.sources), self.device)
        self._stop = threading.Event()
        self._untold: tuple[int, bool] | None = None  # a checkpoint that callbacks have not been told of

    @property
    def samples_consumed(self) -> int:
        """Sequences trained on: with the seed and the data, the whole state of the data order."""
        return self.batches.start(self.step)

    def request_stop(self) -> None:
        """Ask for an end with a checkpoint; any worker, thread or callback may.

        The workers agree on it when they next make a step record, every log_every steps.
        """
        self._stop.set()

    def fit(self) -> TrainResult:
        """Train up to num_steps, or until SIGTERM or request_stop on any worker.

        Raises:
            TrainingDiverged: the gradient was not finite several steps in a row.
        """
        began = time.perf_counter()
        config = self.config
        self._tell("on_train_start", self)
        if self.is_main:
            logger.info("training draws\n%s", plan_table(self.schedule.plan, self.order.context_length))
        if self.step == 0:
            self._evaluate()
        stopped = False
        with (
            sigterm_sets(self._stop),
            garbage_frozen(),
            self._checkpoint_writer() as writer,
            self._loader() as batches,
        ):
            self._meter.reset()
            while self.step < config.num_steps and not stopped:
                self._train_step(next(batches))
                is_last = self.step == config.num_steps
                # Alone, a worker need not wait for a record to ask the others.
                stopped = self.world_size == 1 and self._stop.is_set() and not is_last
                if is_last or stopped or self.step % config.log_every == 0:
                    stopped = (self._log() or stopped) and not is_last
                with self._meter.elsewhere():
                    if is_last or _is_due(self.step, config.eval_every):
                        self._evaluate()
                    if is_last or stopped or _is_due(self.step, config.checkpoint_every):
                        self._checkpoint(writer, final=is_last or stopped)
            self._settle_checkpoint(writer)
        self.trained = self._trained_model()
        result = self._result(time.perf_counter() - began, stopped)
        self._tell("on_train_end", result)
        return result

    def _train_step(self, batch: StepBatch) -> None:
        """One update: forward and backward over the micro-batches, then whatever their gradient leads to."""
        self.model.train()
        scales = self._scales(batch)
        for number, micro in enumerate(batch.micro_batches):
            self._seed_dropout(number)
            with gradients_synced(self._loss, number == len(batch.micro_batches) - 1):
                with self._autocast():
                    losses = self._loss(micro)
                weighted_sum(losses, scales).backward()
            self._meter.add_losses(losses, micro)
        self.updates.apply(self.step)
        self.step += 1
        self._meter.add_step(self.batches.size(self.step - 1) * self.order.context_length, batch.wait_seconds)

    def _scales(self, batch: StepBatch) -> dict[str, torch.Tensor]:
        """What each objective's sum of losses is multiplied with: its weight / its global count of targets.

        The workers' gradients are averaged: times their number it is the sum.
        """
        config, num_sequences = self.config.objectives, self.batches.size(self.step)
        counts = target_counts(
            config, batch.num_valid_tokens, num_sequences, self.model_config.context_length
        )
        weights = config.weights(self.step / self.config.num_steps)
        factor = self.updates.loss_scale
        return {name: factor * (self.world_size * weight / counts[name]) for name, weight in weights.items()}

    def _log(self) -> bool:
        """Tell of the steps since the last record; True if any worker was asked to stop."""
        interval = self._meter.reduce(self._stop.is_set(), self.world_size)
        counts = self.updates.read()
        self._check_skipped(counts.skipped, counts.skipped_in_a_row, counts.grad_norm)
        context_length = self.model_config.context_length
        drawn = self.order.counts(self.samples_consumed) * context_length
        record = StepRecord(
            step=self.step,
            loss=next(iter(interval.loss_by_objective.values())),
            loss_by_source={self.order.sources[i]: loss for i, loss in interval.loss_by_source.items()},
            loss_by_objective=interval.loss_by_objective,
            learning_rate=self.config.lr * schedule_factor(self.step - 1, self.config),
            grad_norm=counts.grad_norm,
            tokens=self.samples_consumed * context_length,
            tokens_by_source=dict(zip(self.order.sources, drawn.tolist(), strict=True)),
            samples_consumed=self.samples_consumed,
            tokens_per_second=interval.tokens_per_second,
            seconds_per_step=interval.seconds_per_step,
            data_wait=interval.data_wait,
            mfu=utilisation(self.model_config, interval.tokens_per_second / self.world_size, self.device),
            skipped_updates=self.skipped_updates,
        )
        with self._meter.elsewhere():
            self._tell("on_step", record)
        return interval.num_stops > 0

    def _check_skipped(self, skipped: int, in_a_row: int, grad_norm: float) -> None:
        """Warn of updates that were skipped since the last record.

        Raises:
            TrainingDiverged: there were too many in a row.
        """
        if skipped > self.skipped_updates:
            logger.warning(
                "up to step %d: %d updates skipped, their gradients were not finite (the last norm is %s)",
                self.step,
                skipped - self.skipped_updates,
                grad_norm,
            )
        self.skipped_updates = skipped
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingDiverged(
                f"the gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, up to step {self.step}; "
                f"lower lr ({self.config.lr:g}), lengthen warmup_steps "
                f"({self.config.warmup_steps}) or lower grad_clip ({self.config.grad_clip:g}), then start again"
            )

    def _evaluate(self) -> None:
        began = time.perf_counter()
        with self.updates.averaged_weights():
            scores = evaluate_bits_per_byte(
                self.model,
                self.val_data,
                self.token_bytes,
                max_tokens=self.config.eval_tokens,
                batch_size=max(1, EVALUATION_BATCH_TOKENS // self.model_config.context_length),
                autocast=self.config.precision == "bf16",
                rank=self.rank,
                world_size=self.world_size,
                in_lockstep=self.config.parallel == "fsdp",
            )
        if self.step == 0:
            self.first_evaluation = scores
        self.last_evaluation = scores
        self._tell("on_evaluation", EvaluationRecord(self.step, scores, time.perf_counter() - began))

    def _checkpoint_writer(self) -> CheckpointWriter:
        config = self.config
        return CheckpointWriter(
            self.run_dir,
            keep=config.keep_checkpoints,
            keep_every=config.keep_every,
            in_background=config.async_checkpoints,
            is_main=self.is_main,
        )

    def _checkpoint(self, writer: CheckpointWriter, *, final: bool) -> None:
        self._settle_checkpoint(writer)
        state = {
            "step": self.step,
            "samples_consumed": self.samples_consumed,
            **self.updates.counters(),
            "first_evaluation": {name: asdict(score) for name, score in self.first_evaluation.items()},
            "last_evaluation": {name: asdict(score) for name, score in self.last_evaluation.items()},
            "world_size": self.world_size,
            "torch": torch.__version__,
            **self._fingerprints(),
        }
        writer.save(self._tensors(), state)
        self._untold = self.step, final
        if not self.config.async_checkpoints:
            self._settle_checkpoint(writer)

    def _settle_checkpoint(self, writer: CheckpointWriter) -> None:
        """Wait for the checkpoint that is being written, if any, on all workers, and tell of it."""
        if self._untold is None:
            return
        writer.wait()
        wait_for_all(self.world_size)
        (step, final), self._untold = self._untold, None
        self._tell("on_checkpoint", step, checkpoint_path(self.run_dir, step), final)

    def _tensors(self, *, create: bool = False) -> dict[str, dict[str, torch.Tensor]]:
        """Everything on the device that a checkpoint holds."""
        tensors = {
            "model": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.model, self.updates.optimizers, create=create),
        }
        return tensors | ({"average": self.updates.average} if self.updates.average else {})

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, as rank 0 sees it."""
        newest = latest_checkpoint(self.run_dir) if self.is_main else None
        path = from_main_worker(str(newest.path) if newest else None, self.world_size)
        if path is None:
            return
        checkpoint = newest or read_checkpoint(Path(path))
        state = checkpoint.state
        check_resumable(state, self._fingerprints(), checkpoint.path)
        if state["step"] > self.config.num_steps:
            raise ConfigError(
                f"num_steps is {self.config.num_steps}, but {checkpoint.path} is already at step {state['step']}; "
                "raise num_steps, or start a new run under another name"
            )
        self._load(checkpoint)
        assert self.samples_consumed == state["samples_consumed"]

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        checkpoint.load_into(self._tensors(create=True))
        self.updates.load_counters(state)
        self.step = self.resumed_from = state["step"]
        self.skipped_updates = int(state["skipped_updates"])
        self.first_evaluation = {name: Score(**score) for name, score in state["first_evaluation"].items()}
        self.last_evaluation = {name: Score(**score) for name, score in state["last_evaluation"].items()}

    def _trained_model(self) -> GPT | None:
        """The model to keep; on all workers, for a sharded one is gathered."""
        with self.updates.averaged_weights():
            if not self.updates.average and self.config.parallel == "ddp":
                return self.model
            state = whole_state(self.model)
            if not state:
                return None
            model = GPT(self.model_config)
            model.load_state_dict(state)
            return model.to(self.device)

    def _result(self, seconds: float, stopped: bool) -> TrainResult:
        return TrainResult(
            step=self.step,
            samples_consumed=self.samples_consumed,
            tokens=self.samples_consumed * self.model_config.context_length,
            first_evaluation=self.first_evaluation,
            last_evaluation=self.last_evaluation,
            checkpoint=checkpoint_path(self.run_dir, self.step),
            seconds=seconds,
            resumed_from=self.resumed_from,
            skipped_updates=self.skipped_updates,
            stopped=stopped,
        )

    def _fingerprints(self) -> dict:
        manifest = self.manifest
        return fingerprints(
            self.model_config, self.config, self.order, manifest.manifest_hash, manifest.tokenizer_sha256
        )

    def _loader(self) -> BatchLoader:
        reads = reads_ahead(self.schedule.windows, self.order, self.batches, self.step)
        self.train_data.fetch_ahead(reads, self.order.context_length + 1)
        return BatchLoader(
            self.schedule.windows,
            self.order,
            self.batches,
            token_dtype(self.manifest.vocab_size),
            rank=self.rank,
            world_size=self.world_size,
            micro_batch_size=self.config.micro_batch_size,
            device=self.device,
            start_step=self.step,
            with_documents=self.model_config.mask_documents,
        )

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.config.precision != "fp32")

    def _seed_dropout(self, micro_step: int) -> None:
        """Dropout as a function of where training is, so that a resumed run draws what the first would have."""
        if self.model_config.dropout:
            torch.manual_seed(hash_key("dropout", self.config.seed, self.step, self.rank, micro_step))

    def _tell(self, point: str, *arguments: object) -> None:
        for callback in self.callbacks:
            getattr(callback, point)(*arguments)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _fill_vocab_size(config: ModelConfig, vocab_size: int) -> ModelConfig:
    if config.vocab_size not in (0, vocab_size):
        raise ConfigError(
            f"vocab_size is {config.vocab_size}, the dataset's tokenizer has {vocab_size}; leave it at 0 to take it "
            "from the dataset"
        )
    return replace(config, vocab_size=vocab_size)


def _check_tokenizer(
    token_bytes: np.ndarray, sha256: str | None, vocab_size: int, dataset_sha256: str
) -> None:
    if sha256 is not None and sha256 != dataset_sha256:
        raise ConfigError(
            f"the tokenizer's sha256 is {sha256[:12]}..., the dataset was made with {dataset_sha256[:12]}...; name "
            "the tokenizer that made the dataset, or tokenise again"
        )
    assert len(token_bytes) == vocab_size, (
        f"token_bytes has {len(token_bytes)} entries, the vocabulary {vocab_size}"
    )
