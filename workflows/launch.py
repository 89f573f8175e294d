"""Run gpt's trainer under Ray Train: the worker's side, and the driver's.

Checkpoints are the trainer's own, in the run's folder, which every worker must see. A worker that dies takes
its group with it; Ray Train starts a new group, and the trainer goes on from the newest checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.atomic import write_json
from data_pipeline.errors import InputError
from data_pipeline.shards import is_remote
from gpt.config import ModelConfig, TrainConfig
from workflows.journal import TRAIN, VALIDATION, Journal, read_journal_from
from workflows.mirror import pull, push
from workflows.workers import WorkerGroup, choose_workers
from workflows.workspace import Workspace

if TYPE_CHECKING:
    from gpt.events import EvaluationRecord, StepRecord
    from gpt.trainer import Trainer, TrainResult

JOURNAL, RESULT = "metrics.jsonl", "result.json"
SAMPLE_TOKENS = 96
# Ray Train waits a minute for its workers each time; a cloud's new GPU node takes several.
START_ATTEMPTS = 15


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs to know; plain values, because it travels to other machines.

    Attributes:
        run_dir: <workspace>/runs/<run>, on the worker's node where the workspace is in an object store.
        dataset: path or URI that every worker can read.
        tokenizer_json: of the dataset; as near as run_dir.
        model_dir: where rank 0 exports the trained model.
        workspace: where all of it belongs.
        tracking_uri, mlflow_run_id: where the metrics go.
        provenance: written into the exported model's config.json.
        device: what the workers compute on: "cpu", or "" for the GPU that Ray gave each.
    """

    run_dir: str
    dataset: str
    tokenizer_json: str
    model_dir: str
    model: ModelConfig
    train: TrainConfig
    tracking_uri: str
    mlflow_run_id: str
    provenance: dict[str, Any]
    device: str = ""
    workspace: str = ""


def run_training(
    job: TrainingJob, workers: int, device: str, max_restarts: int, update: Callable[[str], None]
) -> None:
    """Train to the end under a running Ray.

    Args:
        workers, device: as `workflows.workers.choose_workers` takes them.
        max_restarts: worker failures that are survived.
        update: told the step and the loss while it trains.

    Raises:
        InputError: the cluster has no room for the workers, or gave them none in time.
        KeyboardInterrupt: Ctrl-C.
    """
    run_dir = Path(job.run_dir)
    group = choose_workers(workers, device)
    trainer = _ray_trainer(replace(job, device="" if group.use_gpu else "cpu"), group, max_restarts)
    stop = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(run_dir / JOURNAL, job.train.num_steps, update, stop), daemon=True
    )
    watcher.start()
    try:
        with _interruptible(), _start_explained(group):
            trainer.fit()
    finally:
        stop.set()
        watcher.join()


def _ray_trainer(job: TrainingJob, group: WorkerGroup, max_restarts: int) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    run_dir = Path(job.run_dir)
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if group.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=group.num_workers, use_gpu=group.use_gpu, resources_per_worker=group.resources
        ),
        run_config=RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.parent),
            failure_config=FailureConfig(
                max_failures=max_restarts,
                controller_failure_limit=START_ATTEMPTS - 1,  # type: ignore[call-arg]  # typed as Train v1's
            ),
        ),
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C inside the block ends with KeyboardInterrupt, and works as before after it.

    Ray Train's fit() puts a handler of its own in place, leaves it there, and ends an interrupted run with
    SystemExit(0).
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if error.code:  # SIGTERM, as Ray hands it on
            raise
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _start_explained(group: WorkerGroup) -> Iterator[None]:
    """One line for the user where Ray Train gave up waiting for the workers' resources."""
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    try:
        yield
    except ControllerError as error:
        if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            raise
        raise InputError(
            f"workers: the cluster did not give {group.num_workers} workers with {group.described} each within "
            f"{START_ATTEMPTS} attempts of a minute; ask for fewer, or wait until others are done"
        ) from None


def train_worker(config: dict[str, Any]) -> None:
    """One worker of the group; Ray Train has set up torch.distributed."""
    import ray.train

    from data_pipeline.tokenizer import Tokenizer
    from gpt.trainer import Trainer

    job: TrainingJob = config["job"]
    context = ray.train.get_context()
    _bring_near(job)
    tokenizer = Tokenizer.load(Path(job.tokenizer_json))
    recorder = _recorder(job, tokenizer) if context.get_world_rank() == 0 else None
    trainer = Trainer(
        job.model,
        job.train,
        job.dataset,
        job.run_dir,
        tokenizer.byte_lengths(),
        sentence_ends=tokenizer.sentence_ends() if "sentence" in job.train.objectives.names else None,
        tokenizer_sha256=tokenizer.sha256,
        callbacks=[callback for callback in (recorder, _ray_reporter(job)) if callback is not None],
        device=job.device or None,
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
    )
    trainer.fit()


def _bring_near(job: TrainingJob) -> None:
    """Have the run and its tokenizer on this node, where they are in an object store; one worker a node fetches them."""
    import ray.train
    from torch import distributed

    if not is_remote(job.workspace):
        return
    context = ray.train.get_context()
    if context.get_local_rank() == 0:
        tokenizer = Path(job.tokenizer_json).parent.name
        pull(Workspace.open(job.workspace), f"runs/{Path(job.run_dir).name}", f"tokenizer/{tokenizer}")
    if context.get_world_size() > 1:
        distributed.barrier()


def _ray_reporter(job: TrainingJob) -> Any:
    import ray.train

    from gpt.events import Callback

    class RayReporter(Callback):
        """Tells Ray Train about each checkpoint; `report` is a barrier, so it is called at those only."""

        def on_checkpoint(self, step: int, path: Path, final: bool) -> None:
            if ray.train.get_context().get_world_rank() == 0:
                push(Workspace.open(job.workspace), f"runs/{Path(job.run_dir).name}")
            ray.train.report({"step": step, "checkpoint": str(path), "final": final})

    return RayReporter()


def _recorder(job: TrainingJob, tokenizer: Any) -> Any:
    from gpt.checkpoint import export_model
    from gpt.events import Callback
    from gpt.generate import generate
    from workflows.metric_sender import MetricSender

    class Recorder(Callback):
        """Rank 0: metrics into the journal and on to MLflow, samples, the exported model, the result."""

        def on_train_start(self, trainer: Trainer) -> None:
            """Open the journal; what an earlier process could not send goes first."""
            run_dir = Path(job.run_dir)
            self.trainer = trainer
            self.sender = MetricSender(job.tracking_uri, job.mlflow_run_id, run_dir / JOURNAL)
            self.journal = Journal(run_dir / JOURNAL)

        def on_step(self, record: StepRecord) -> None:
            """Record the step under the names that MLflow shows."""
            values = {
                "loss": record.loss,
                "learning_rate": record.learning_rate,
                "grad_norm": record.grad_norm,
                "tokens": record.tokens,
                "tokens_per_second": record.tokens_per_second,
                "seconds_per_step": record.seconds_per_step,
                "data_wait": record.data_wait,
                "skipped_updates": record.skipped_updates,
            }
            if record.mfu is not None:
                values["mfu"] = record.mfu
            values |= {f"loss/{source}": loss for source, loss in record.loss_by_source.items()}
            if len(record.loss_by_objective) > 1:
                values |= {f"loss_{name}": loss for name, loss in record.loss_by_objective.items()}
            self._record(TRAIN, record.step, values)

        def on_evaluation(self, record: EvaluationRecord) -> None:
            """Record the scores, and write a sample of what the model says now."""
            values = {"seconds": record.seconds}
            for source, score in record.scores.items():
                suffix = "" if source == "all" else f"/{source}"
                values |= {f"loss{suffix}": score.loss, f"bits_per_byte{suffix}": score.bits_per_byte}
            self._record(VALIDATION, record.step, values)
            self._sample(record.step)

        def on_train_end(self, result: TrainResult) -> None:
            """Export the model and write the result, where the training came to its end."""
            self.sender.close()
            self.journal.close()
            model = self.trainer.trained
            if result.stopped or model is None:
                return
            export_model(
                Path(job.model_dir),
                model,
                self.trainer.model_config,
                Path(job.tokenizer_json),
                {**job.provenance, "step": result.step},
            )
            content = {**asdict(result), "checkpoint": str(result.checkpoint)}
            write_json(Path(job.run_dir) / RESULT, content)
            name = Path(job.run_dir).name
            push(Workspace.open(job.workspace), f"models/{name}", f"runs/{name}")

        def _record(self, kind: str, step: int, values: dict[str, float]) -> None:
            entry = self.journal.add(kind, step, values)
            if entry is not None:
                self.sender.send(entry)

        def _sample(self, step: int) -> None:
            if job.train.parallel == "fsdp":
                return  # a forward of a sharded model takes all workers
            tokens = generate(
                self.trainer.model,
                [tokenizer.eot_id],
                SAMPLE_TOKENS,
                temperature=0.8,
                top_k=50,
                seed=step,
            )
            folder = Path(job.run_dir) / "samples"
            folder.mkdir(exist_ok=True)
            (folder / f"step-{step:08d}.txt").write_text(tokenizer.decode(tokens), encoding="utf-8")

    return Recorder()


def _watch(journal: Path, num_steps: int, update: Callable[[str], None], stop: threading.Event) -> None:
    """Turn the journal's newest lines into progress."""
    last: dict[str, dict[str, Any]] = {}
    offset = 0
    while not stop.wait(1.0):
        for entry, end in read_journal_from(journal, offset):
            last[entry["kind"]], offset = entry, end
        if TRAIN not in last:
            continue
        values = last[TRAIN]["values"]
        line = f"step {last[TRAIN]['step']}/{num_steps}, loss {values['loss']:.3f}"
        line += f", {values['tokens_per_second']:,.0f} tokens/s"
        if VALIDATION in last and "bits_per_byte" in last[VALIDATION]["values"]:
            line += f", validation {last[VALIDATION]['values']['bits_per_byte']:.3f} bits/byte"
        update(line)
