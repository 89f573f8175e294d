"""Training is one function of its configuration: however it is split, killed or resumed, the numbers are the same."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tiny_run import MODEL, TRAIN, documents, write_dataset

from gpt.checkpoint import checkpoint_path
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.events import Callback, EvaluationRecord, StepRecord, TrainResult
from gpt.trainer import Trainer, TrainingDiverged


class Recorder(Callback):
    """Keeps what it is told, and can break off training, or ask for its end, after a step."""

    def __init__(self, die_after: int | None = None, stop_after: int | None = None) -> None:
        self.die_after, self.stop_after = die_after, stop_after
        self.steps: list[StepRecord] = []
        self.evaluations: list[EvaluationRecord] = []
        self.checkpoints: list[tuple[int, bool]] = []

    def on_train_start(self, trainer: Trainer) -> None:
        self.request_stop = trainer.request_stop

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)
        if record.step == self.die_after:
            raise KeyboardInterrupt
        if record.step == self.stop_after:
            self.request_stop()

    def __getstate__(self) -> dict:
        return {"steps": self.steps}

    def on_evaluation(self, record: EvaluationRecord) -> None:
        self.evaluations.append(record)

    def on_checkpoint(self, step: int, path: Path, final: bool) -> None:
        assert (path / "state.json").is_file()
        self.checkpoints.append((step, final))

    @property
    def losses(self) -> list[float]:
        return [record.loss for record in self.steps]

    @property
    def grad_norms(self) -> list[float]:
        return [record.grad_norm for record in self.steps]


class Bench:
    """Builds trainers over one dataset."""

    def __init__(
        self, dataset: Path, token_bytes: np.ndarray, model: ModelConfig, train: TrainConfig
    ) -> None:
        self.dataset, self.token_bytes, self.model, self.train = dataset, token_bytes, model, train

    def trainer(self, run_dir: Path, *callbacks: Callback, dropout: float = 0.0, **changes) -> Trainer:
        return Trainer(
            replace(self.model, dropout=dropout),
            replace(self.train, **changes),
            self.dataset,
            run_dir,
            self.token_bytes,
            callbacks=callbacks,
        )

    def fit(self, run_dir: Path, dropout: float = 0.0, **changes) -> tuple[Recorder, Trainer, TrainResult]:
        recorder = Recorder()
        trainer = self.trainer(run_dir, recorder, dropout=dropout, **changes)
        return recorder, trainer, trainer.fit()


@pytest.fixture
def bench(dataset_folder: Path, token_bytes: np.ndarray) -> Bench:
    return Bench(dataset_folder, token_bytes, MODEL, TRAIN)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_loss_falls_on_data_with_a_pattern(bench: Bench, tmp_path: Path):
    recorder, _, result = bench.fit(tmp_path, num_steps=150, lr=1e-2, checkpoint_every=0, eval_every=50)
    assert recorder.losses[0] == pytest.approx(np.log(50), abs=0.1)
    assert recorder.losses[-1] < 0.6 * recorder.losses[0]
    assert [record.step for record in recorder.evaluations] == [0, 50, 100, 150]
    assert recorder.checkpoints == [(150, True)]
    first, last = result.first_evaluation["all"], result.last_evaluation["all"]
    assert last.bits_per_byte < 0.6 * first.bits_per_byte
    assert set(result.last_evaluation) == {"web", "book", "all"}
    assert result.checkpoint == checkpoint_path(tmp_path, 150)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_run_twice_is_equal_to_the_bit(bench: Bench, tmp_path: Path, precision: str):
    one, trainer, _ = bench.fit(tmp_path / "1", dropout=0.1, precision=precision)
    two, other, _ = bench.fit(tmp_path / "2", dropout=0.1, precision=precision)
    assert one.losses == two.losses
    assert same(weights(trainer), weights(other))


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_accumulating_micro_batches_changes_nothing(bench: Bench, tmp_path: Path, micro_batch_size: int):
    whole, _, _ = bench.fit(tmp_path / "1")
    split, _, _ = bench.fit(tmp_path / "2", micro_batch_size=micro_batch_size)
    np.testing.assert_allclose(split.losses, whole.losses, atol=1e-6)
    # AdamW hardly sees a wrong scale of the gradient, its norm does.
    np.testing.assert_allclose(split.grad_norms, whole.grad_norms, rtol=1e-5)


@pytest.mark.parametrize("die_after", [1, 2, 3, 5])
def test_killed_and_resumed_is_equal_to_the_bit(bench: Bench, tmp_path: Path, die_after: int):
    whole, uninterrupted, result = bench.fit(tmp_path / "whole", dropout=0.2, eval_every=3)
    with pytest.raises(KeyboardInterrupt):
        bench.trainer(tmp_path / "killed", Recorder(die_after), dropout=0.2, eval_every=3).fit()
    assert not any(thread.name == "batch-loader" for thread in threading.enumerate())
    rest, resumed, resumed_result = bench.fit(tmp_path / "killed", dropout=0.2, eval_every=3)
    begun = die_after // 2 * 2 if die_after % 2 else die_after - 2  # the record comes before the checkpoint
    assert resumed_result.resumed_from == (begun or None)
    assert rest.losses == whole.losses[begun:]
    assert same(weights(uninterrupted), weights(resumed))
    assert resumed_result.first_evaluation == result.first_evaluation
    assert resumed_result.last_evaluation == result.last_evaluation
    moments, resumed_moments = (
        load_file(r.checkpoint / "optimizer.safetensors") for r in (result, resumed_result)
    )
    assert all(torch.equal(moments[name], resumed_moments[name]) for name in moments)


def test_resuming_a_finished_run_returns_its_result(bench: Bench, tmp_path: Path):
    _, _, first = bench.fit(tmp_path)
    recorder, _, again = bench.fit(tmp_path)
    assert recorder.steps == []
    assert (again.step, again.last_evaluation, again.checkpoint) == (
        6,
        first.last_evaluation,
        first.checkpoint,
    )
    with pytest.raises(ConfigError, match=r"num_steps is 4, but .* at step 6"):
        bench.trainer(tmp_path, num_steps=4)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    whole, _, _ = bench.fit(tmp_path)
    (checkpoint_path(tmp_path, 6) / "model.safetensors").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        rest, _, result = bench.fit(tmp_path)
    assert "step_00000006 is damaged" in caplog.text
    assert result.resumed_from == 4
    assert rest.losses == whole.losses[4:]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "train.seed"),
        ({"batch_size": 4}, "train.batch_size"),
        ({"source_weights": {"web": 1.0, "book": 3.0}}, "order.weights"),
        ({"dropout": 0.3}, "model.dropout"),
    ],
)
def test_resuming_another_run_is_refused_and_says_what_differs(
    bench: Bench, tmp_path: Path, changes: dict, named: str
):
    bench.fit(tmp_path, num_steps=2)
    with pytest.raises(ConfigError, match=f"cannot be resumed, these differ: .*{named}"):
        bench.trainer(tmp_path, **{"num_steps": 2, **changes})


def test_resuming_on_other_data_is_refused(bench: Bench, tmp_path: Path):
    bench.fit(tmp_path / "run", num_steps=2)
    bench.dataset = write_dataset(tmp_path / "other", {("web", "train"): [[0, *range(1, 40)]] * 9})
    with pytest.raises(ConfigError, match=r"these differ: dataset \(manifest"):
        bench.trainer(tmp_path / "run", num_steps=2)


def test_a_longer_schedule_goes_on_with_a_warning(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    bench.fit(tmp_path, num_steps=4)
    with caplog.at_level(logging.WARNING):
        recorder, _, _ = bench.fit(tmp_path, num_steps=6)
    assert "train.num_steps (was 4, now 6)" in caplog.text
    assert [record.step for record in recorder.steps] == [5, 6]


def test_sigterm_ends_the_step_and_leaves_a_checkpoint(bench: Bench, tmp_path: Path):
    class Terminator(Recorder):
        def on_step(self, record: StepRecord) -> None:
            super().on_step(record)
            if record.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    recorder = Terminator()
    result = bench.trainer(tmp_path, recorder, checkpoint_every=0).fit()
    assert (result.stopped, result.step, recorder.checkpoints) == (True, 3, [(3, True)])
    assert signal.getsignal(signal.SIGTERM) == before
    _, _, rest = bench.fit(tmp_path, checkpoint_every=0)
    assert (rest.resumed_from, rest.step, rest.stopped) == (3, 6, False)


def test_a_bad_gradient_is_skipped_and_five_in_a_row_end_training(bench: Bench, tmp_path: Path):
    class Poison(Recorder):
        """Makes the next gradient infinite, `times` times."""

        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times

        def on_train_start(self, trainer: Trainer) -> None:
            def poison(gradient: torch.Tensor) -> torch.Tensor:
                self.times -= 1
                return gradient * float("inf") if self.times >= 0 else gradient

            trainer.model.final_norm.weight.register_hook(poison)

    recorder = Poison(2)
    trainer = bench.trainer(tmp_path / "1", recorder)
    result = trainer.fit()
    assert [record.skipped_updates for record in recorder.steps] == [1, 2, 2, 2, 2, 2]
    assert not np.isfinite(recorder.steps[0].grad_norm)
    assert recorder.steps[0].loss == pytest.approx(np.log(50), abs=0.1)
    assert result.skipped_updates == 2
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    with pytest.raises(TrainingDiverged, match="5 steps in a row, up to step 5; lower lr"):
        bench.trainer(tmp_path / "2", Poison(99)).fit()


def test_records_add_up(bench: Bench, tmp_path: Path):
    recorder, trainer, result = bench.fit(tmp_path, num_steps=7, log_every=3)
    assert [record.step for record in recorder.steps] == [3, 6, 7]
    for record in recorder.steps:
        assert record.tokens == sum(record.tokens_by_source.values()) == record.step * 8 * 16
        assert min(record.loss_by_source.values()) <= record.loss <= max(record.loss_by_source.values())
        assert 0 <= record.data_wait <= 1
        assert record.mfu is None
    assert {row.source: row.num_samples * 16 for row in trainer.schedule.plan} == recorder.steps[
        -1
    ].tokens_by_source
    assert result.samples_consumed == 56


def test_the_mixture_follows_the_weights_of_the_corpus_unless_the_training_has_its_own(
    bench: Bench, tmp_path: Path
):
    rows = {
        ("web", "train"): documents(20, 1),
        ("book", "train"): documents(20, 1),
        ("web", "val"): documents(4, 2),
    }
    shares = {}
    for name, of_corpus, own in (
        ("even", None, None),
        ("corpus", {"book": 3.0}, None),
        ("own", {"book": 3.0}, {"book": 1.0, "web": 4.0}),
    ):
        bench.dataset = write_dataset(tmp_path / name, rows, of_corpus)
        trainer = bench.trainer(tmp_path / f"{name}-run", source_weights=own)
        shares[name] = {plan.source: plan.weight for plan in trainer.schedule.plan}
    assert shares == {
        "even": {"book": 0.5, "web": 0.5},
        "corpus": {"book": 0.75, "web": 0.25},
        "own": {"book": 0.2, "web": 0.8},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_epochs": 0.1}, "would be read"),
        ({"warmup_steps": 99}, "warmup_steps 99 is longer"),
        ({"source_weights": {"wbe": 1.0}}, "the dataset has book, web"),
    ],
)
def test_impossible_settings_end_before_training(bench: Bench, tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        bench.trainer(tmp_path, **changes)


def test_a_model_or_tokenizer_of_another_vocabulary_is_refused(bench: Bench, tmp_path: Path):
    with pytest.raises(ConfigError, match="tokenizer's sha256 is ffff"):
        Trainer(
            bench.model, bench.train, bench.dataset, tmp_path, bench.token_bytes, tokenizer_sha256="f" * 64
        )
    bench.model = replace(bench.model, vocab_size=64)
    with pytest.raises(ConfigError, match="vocab_size is 64, the dataset's tokenizer has 50"):
        bench.trainer(tmp_path)


# Six seconds to start a process: all trainings on two workers run in one pair, in this order.
JOBS: dict[str, tuple[str, dict]] = {
    "batch of 8": ("batch of 8", {}),
    "batch of 7": ("batch of 7", {"batch_size": 7}),
    "whole": ("whole", {"dropout": 0.2, "micro_batch_size": 2}),
    "stopped": ("parts", {"dropout": 0.2, "micro_batch_size": 2, "stop_after": 3}),
    "resumed": ("parts", {"dropout": 0.2, "micro_batch_size": 2}),
    "left to one": ("left to one", {"stop_after": 3}),
}


def _work(rank: int, folder: Path, bench: Bench) -> None:
    """One of two worker processes; writes what it saw of each job."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    seen = {}
    for name, (run, changes) in JOBS.items():
        options = dict(changes)
        stop_after, dropout = options.pop("stop_after", None), options.pop("dropout", 0.0)
        recorder = Recorder(stop_after=stop_after if rank == 0 else None)
        trainer = Trainer(
            replace(bench.model, dropout=dropout),
            replace(bench.train, checkpoint_every=0, **options),
            bench.dataset,
            folder / run,
            bench.token_bytes,
            callbacks=[recorder],
            rank=rank,
            world_size=2,
        )
        seen[name] = (recorder, trainer.fit(), weights(trainer))
    torch.save(seen, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(
    tmp_path_factory: pytest.TempPathFactory, dataset_folder: Path, token_bytes: np.ndarray
) -> tuple[Path, list[dict]]:
    """The folder of the runs, and what each of two real worker processes saw of each job."""
    folder = tmp_path_factory.mktemp("two-workers")
    mp.spawn(_work, (folder, Bench(dataset_folder, token_bytes, MODEL, TRAIN)), nprocs=2)
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("batch_size", [8, 7])
def test_two_workers_equal_one(bench: Bench, tmp_path: Path, two_workers: tuple, batch_size: int):
    # A batch of 7 leaves one worker a padding row.
    alone, _, result = bench.fit(tmp_path, batch_size=batch_size)
    (first, first_result, first_weights), (second, _, second_weights) = (
        seen[f"batch of {batch_size}"] for seen in two_workers[1]
    )
    assert first.losses == second.losses
    assert same(first_weights, second_weights)
    np.testing.assert_allclose(first.losses, alone.losses, atol=1e-5)
    np.testing.assert_allclose(first.grad_norms, alone.grad_norms, rtol=1e-4)
    np.testing.assert_allclose(
        [r.loss_by_source["book"] for r in first.steps],
        [r.loss_by_source["book"] for r in alone.steps],
        atol=1e-5,
    )
    score, expected = first_result.last_evaluation["all"], result.last_evaluation["all"]
    assert score.bits_per_byte == pytest.approx(expected.bits_per_byte, abs=1e-5)
    assert (score.num_tokens, score.num_bytes) == (expected.num_tokens, expected.num_bytes)


def test_two_workers_stop_together_and_resume_equal_to_the_bit(two_workers: tuple):
    first, second = two_workers[1]
    whole, _, whole_weights = first["whole"]
    stopped, stopped_result, _ = first["stopped"]
    resumed, _, resumed_weights = first["resumed"]
    # Only worker 0 was asked to stop.
    assert stopped_result.stopped
    assert second["stopped"][1].stopped
    assert stopped_result.step == second["stopped"][1].step < 6
    assert stopped.losses + resumed.losses == whole.losses
    assert same(resumed_weights, whole_weights)


def test_one_worker_goes_on_where_two_stopped(bench: Bench, tmp_path: Path, two_workers: tuple):
    folder, (first, _) = two_workers
    alone, _, _ = bench.fit(tmp_path)
    part = first["left to one"][0]
    rest, _, result = bench.fit(folder / "left to one")
    assert result.resumed_from == len(part.losses)
    np.testing.assert_allclose(part.losses + rest.losses, alone.losses, atol=1e-5)
