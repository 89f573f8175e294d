"""What training tells the outside: a few named points, and records of plain Python values.

Every callback runs on every worker with the same record (sums are taken over all workers first; only
`tokens_per_second` is each worker's own clock), because a launcher's report may need all of them. A callback that
writes or prints asks `trainer.is_main` in `on_train_start` and keeps the answer. An exception in a callback stops
training: a callback that must not catches its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt.evaluate import Score

if TYPE_CHECKING:
    from gpt.trainer import Trainer


@dataclass(frozen=True)
class StepRecord:
    """One line of the training log; losses cover the steps since the record before."""

    step: int
    """Updates made, this one included: 1 is the first."""
    loss: float
    """Mean negative log-likelihood in nats a token; without next-token prediction, that of the first other objective."""
    loss_by_source: Mapping[str, float]
    """The same for each source that had tokens in these steps."""
    loss_by_objective: Mapping[str, float]
    """Mean loss in nats a target of each objective (causal, masked, sentence), unweighted; nan where none was asked."""
    learning_rate: float
    """Learning rate of this update."""
    grad_norm: float
    """Norm of the gradient before clipping; not finite where the update was skipped."""
    tokens: int
    """Tokens trained on since the start of the run."""
    tokens_by_source: Mapping[str, int]
    """The same by source."""
    samples_consumed: int
    """Sequences trained on since the start of the run."""
    tokens_per_second: float
    """Over all workers, without evaluations and checkpoints."""
    seconds_per_step: float
    """Wall-clock time of a step, the wait for data included."""
    data_wait: float
    """Share of the step time spent waiting for data, mean over the workers."""
    mfu: float | None
    """Model FLOPs utilisation; None where the device's peak is unknown."""
    skipped_updates: int
    """Updates skipped since the start of the run because the gradient was not finite."""


@dataclass(frozen=True)
class EvaluationRecord:
    """Validation scores at a step."""

    step: int
    """Updates made before."""
    scores: Mapping[str, Score]
    """By source, and "all"."""
    seconds: float
    """How long the evaluation took."""


@dataclass(frozen=True)
class TrainResult:
    """How training ended; plain values."""

    step: int
    """Updates made."""
    samples_consumed: int
    """Sequences trained on."""
    tokens: int
    """Tokens trained on."""
    first_evaluation: dict[str, Score]
    """Validation scores before the first update of the run, by source and "all"; empty without validation data."""
    last_evaluation: dict[str, Score]
    """The newest validation scores."""
    checkpoint: Path
    """The last checkpoint."""
    seconds: float
    """Wall time of fit(), evaluations and checkpoints included; of this part alone when resumed."""
    resumed_from: int | None
    """Step of the checkpoint this part began with, None at the start."""
    skipped_updates: int
    """Updates skipped because the gradient was not finite."""
    stopped: bool
    """Ended early by SIGTERM or request_stop; the same call goes on from the checkpoint."""


class Callback:
    """Does nothing at each point; override those of interest."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Everything is built and the checkpoint, if any, is loaded; `trainer.step` says where training begins."""

    def on_step(self, record: StepRecord) -> None:
        """Every log_every steps, and after the last."""

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """After each evaluation, the one at step 0 included."""

    def on_checkpoint(self, step: int, path: Path, final: bool) -> None:
        """A checkpoint is complete on disk; `final` for the last of this run or of a stopped part of it.

        One that is written in the background is told of when the next begins or training ends.
        """

    def on_train_end(self, result: TrainResult) -> None:
        """Training is over or was stopped; not called after an error."""
