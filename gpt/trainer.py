"""The training loop: data in order, one update a step, evaluations and checkpoints on the way.

Shapes: B sequences of a micro-batch, T context_length.

The global batch is fixed; workers and micro-batches only decide who computes which part. The loss of a step is the
sum over its tokens divided by their global count, so it is the same function on one worker or many.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from data_pipeline.shards import TokenDataset
from gpt.checkpoint import checkpoint_path, latest_checkpoint, read_checkpoint, save_checkpoint
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.distributed import default_device, from_main_worker, sigterm_sets, wait_for_all
from gpt.evaluate import Score, evaluate_bits_per_byte
from gpt.events import Callback, EvaluationRecord, StepRecord, TrainResult
from gpt.loader import BatchLoader, StepBatch
from gpt.meter import StepMeter
from gpt.model import GPT
from gpt.optim import build_optimizer, learning_rate
from gpt.order import SampleOrder, SourcePlan, count_windows, hash_key
from gpt.resume import check_resumable, fingerprints
from gpt.throughput import utilisation

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
        plan: what training takes from each source.
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
        _check_tokenizer(
            token_bytes, tokenizer_sha256, self.manifest.vocab_size, self.manifest.tokenizer_sha256
        )
        self.token_bytes = token_bytes

        context_length = self.model_config.context_length
        windows = {
            name: count_windows(stream.num_tokens, context_length)
            for name, stream in self.train_data.streams.items()
        }
        weights = train_config.source_weights
        if weights is None and self.manifest.source_weights:
            weights = {
                name: count * self.manifest.source_weights.get(name, 1.0) for name, count in windows.items()
            }
        self.order = SampleOrder(windows, weights, train_config.seed, context_length)
        self.plan: list[SourcePlan] = self.order.plan(
            train_config.num_steps * train_config.batch_size, train_config.max_epochs
        )

        torch.manual_seed(hash_key("weights", train_config.seed))
        self.model = GPT(self.model_config).to(self.device)
        self.optimizer = build_optimizer(
            self.model,
            learning_rate=train_config.lr,
            weight_decay=train_config.weight_decay,
            betas=(train_config.beta1, train_config.beta2),
        )
        self.step = 0
        self.learning_rate = 0.0
        self.grad_norm = 0.0
        self.skipped_updates = self._skipped_in_a_row = 0
        self.first_evaluation: dict[str, Score] = {}
        self.last_evaluation: dict[str, Score] = {}
        self.resumed_from: int | None = None
        self._resume()
        # After the weights are loaded: DDP copies rank 0's to all workers as it is built.
        self._parallel_model = self._wrap_ddp()
        self._meter = StepMeter(len(self.order.sources), self.device)
        self._stop = threading.Event()

    @property
    def samples_consumed(self) -> int:
        """Sequences trained on: with the seed and the data, the whole state of the data order."""
        return self.step * self.config.batch_size

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
        if self.step == 0:
            self._evaluate()
        stopped = False
        with sigterm_sets(self._stop), self._loader() as batches:
            while self.step < config.num_steps and not stopped:
                step_began = time.perf_counter()
                batch = next(batches)
                self._train_step(batch)
                self._meter.add_step(time.perf_counter() - step_began, batch.wait_seconds)
                is_last = self.step == config.num_steps
                if is_last or self.step % config.log_every == 0:
                    stopped = self._log() and not is_last
                if is_last or _is_due(self.step, config.eval_every):
                    self._evaluate()
                if is_last or stopped or _is_due(self.step, config.checkpoint_every):
                    self._checkpoint(final=is_last or stopped)
        result = self._result(time.perf_counter() - began, stopped)
        self._tell("on_train_end", result)
        return result

    def _train_step(self, batch: StepBatch) -> None:
        """One update: forward and backward over the micro-batches, clip, AdamW."""
        self.model.train()
        for number, micro in enumerate(batch.micro_batches):
            is_last = number == len(batch.micro_batches) - 1
            self._seed_dropout(number)
            with self._gradients_synced(is_last):
                with self._autocast():
                    nll_BT = self._parallel_model(micro.tokens_BT, micro.targets_BT)
                # The sum over this worker's tokens / the global count of tokens. DDP then takes the mean of the
                # workers' gradients: times their number it is the sum.
                loss = nll_BT.sum() / batch.num_valid_tokens * self.world_size
                loss.backward()
            self._meter.add_losses(nll_BT, micro)

        max_norm = self.config.grad_clip or math.inf
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm))
        self.learning_rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        # The norm is that of the summed gradient, so all workers decide alike.
        if math.isfinite(self.grad_norm):
            self.optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self._count_skipped()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _count_skipped(self) -> None:
        self.skipped_updates += 1
        self._skipped_in_a_row += 1
        logger.warning("step %d: gradient norm is %s, update skipped", self.step + 1, self.grad_norm)
        if self._skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise TrainingDiverged(
                f"the gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, up to step {self.step + 1}; "
                f"lower lr ({self.config.lr:g}), lengthen warmup_steps "
                f"({self.config.warmup_steps}) or lower grad_clip ({self.config.grad_clip:g}), then start again"
            )

    def _log(self) -> bool:
        """Tell of the steps since the last record; True if any worker was asked to stop."""
        losses, data_wait, num_stops = self._meter.reduce(self._stop.is_set(), self.world_size)
        num_tokens = self.config.batch_size * self.model_config.context_length
        tokens_per_second = self._meter.num_steps * num_tokens / self._meter.seconds
        self._meter.reset()
        drawn = self.order.counts(self.samples_consumed) * self.model_config.context_length
        record = StepRecord(
            step=self.step,
            loss=losses.mean,
            loss_by_source={self.order.sources[i]: loss for i, loss in losses.by_source.items()},
            learning_rate=self.learning_rate,
            grad_norm=self.grad_norm,
            tokens=self.step * num_tokens,
            tokens_by_source=dict(zip(self.order.sources, drawn.tolist(), strict=True)),
            samples_consumed=self.samples_consumed,
            tokens_per_second=tokens_per_second,
            data_wait=data_wait,
            mfu=utilisation(self.model_config, tokens_per_second / self.world_size, self.device),
            skipped_updates=self.skipped_updates,
        )
        self._tell("on_step", record)
        return num_stops > 0

    def _evaluate(self) -> None:
        began = time.perf_counter()
        scores = evaluate_bits_per_byte(
            self.model,
            self.val_data,
            self.token_bytes,
            max_tokens=self.config.eval_tokens,
            batch_size=max(1, EVALUATION_BATCH_TOKENS // self.model_config.context_length),
            autocast=self.config.precision == "bf16",
            rank=self.rank,
            world_size=self.world_size,
        )
        if self.step == 0:
            self.first_evaluation = scores
        self.last_evaluation = scores
        self._tell("on_evaluation", EvaluationRecord(self.step, scores, time.perf_counter() - began))

    def _checkpoint(self, *, final: bool) -> None:
        if self.is_main:
            state = {
                "step": self.step,
                "samples_consumed": self.samples_consumed,
                "skipped_updates": self.skipped_updates,
                "first_evaluation": {name: asdict(score) for name, score in self.first_evaluation.items()},
                "last_evaluation": {name: asdict(score) for name, score in self.last_evaluation.items()},
                "world_size": self.world_size,
                "torch": torch.__version__,
                **self._fingerprints(),
            }
            save_checkpoint(
                self.run_dir, self.model, self.optimizer, state, keep=self.config.keep_checkpoints
            )
        wait_for_all(self.world_size)
        self._tell("on_checkpoint", self.step, checkpoint_path(self.run_dir, self.step), final)

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
        checkpoint.restore(self.model, self.optimizer)
        self.step = self.resumed_from = state["step"]
        self.skipped_updates = state["skipped_updates"]
        self.first_evaluation = {name: Score(**score) for name, score in state["first_evaluation"].items()}
        self.last_evaluation = {name: Score(**score) for name, score in state["last_evaluation"].items()}
        assert self.samples_consumed == state["samples_consumed"]

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
        return BatchLoader(
            self.train_data,
            self.order,
            batch_size=self.config.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            micro_batch_size=self.config.micro_batch_size,
            device=self.device,
            start_sample=self.samples_consumed,
        )

    def _wrap_ddp(self) -> torch.nn.Module:
        if self.world_size == 1:
            return self.model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.model, device_ids=devices, gradient_as_bucket_view=True)

    def _gradients_synced(self, synced: bool) -> AbstractContextManager:
        """Workers exchange gradients once a step: DDP waits for the last micro-batch."""
        if synced or not isinstance(self._parallel_model, DistributedDataParallel):
            return nullcontext()
        return self._parallel_model.no_sync()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

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
