"""A run is one sequence of batches and losses, however often it is killed and however many workers share it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_run import MODEL, TRAIN, documents, write_dataset

import gpt.trainer
from gpt.checkpoint import checkpoint_path
from gpt.config import ModelConfig, TrainConfig
from gpt.events import Callback, StepRecord
from gpt.loader import BatchLoader, StepBatch
from gpt.trainer import Trainer

NUM_STEPS = 20
# Packed windows have padding, so that micro-batches and workers differ in their valid tokens.
PACKED = replace(TRAIN, num_steps=NUM_STEPS, packing="best_fit", checkpoint_every=1, keep_checkpoints=99)
MASKED = replace(MODEL, mask_documents=True)
ADAMW = (replace(MODEL, dropout=0.2), replace(PACKED, mixture_stages=[]))
MUON = (
    replace(MASKED, positions="rotary", norm="rms", qk_norm=True, tie_embeddings=False, logit_soft_cap=15.0),
    replace(
        PACKED,
        optimizer="muon",
        ema_decay=0.9,
        z_loss=1e-3,
        schedule="wsd",
        precision="bf16",
        batch_ramp_start=2,
        batch_ramp_samples=40,
        micro_batch_size=2,
        log_every=1,
    ),
)


class Seen(Callback):
    """Keeps the losses; dies after a step where asked to."""

    def __init__(self, die_after: int = 0, stop_after: int = 0) -> None:
        self.die_after, self.stop_after = die_after, stop_after
        self.losses: list[float] = []
        self.grad_norms: list[float] = []

    def on_train_start(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_step(self, record: StepRecord) -> None:
        self.losses.append(record.loss)
        self.grad_norms.append(record.grad_norm)
        if record.step == self.stop_after:
            self.trainer.request_stop()

    def on_checkpoint(self, step: int, path: Path, final: bool) -> None:
        if step == self.die_after:
            raise KeyboardInterrupt


class HashingLoader(BatchLoader):
    """Keeps the rows of this worker, by step."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        HashingLoader.rows = self.rows = {}

    def __next__(self) -> StepBatch:
        batch = super().__next__()
        self.rows[batch.start_sample] = [
            (tokens.tolist(), targets.tolist())
            for micro in batch.micro_batches
            for tokens, targets in zip(micro.tokens_BT, micro.targets_BT, strict=True)
        ]
        return batch


def fit(
    folder: Path, run_dir: Path, model: ModelConfig, train: TrainConfig, *, rank: int = 0, world_size: int = 1,
    seen: Seen | None = None,
) -> tuple[Seen, dict, Trainer]:  # fmt: skip
    seen = seen or Seen()
    lengths = np.full(50, 2, np.int64)
    gpt.trainer.BatchLoader = HashingLoader
    try:
        trainer = Trainer(
            model, train, folder, run_dir, lengths, callbacks=[seen], rank=rank, world_size=world_size
        )
        trainer.fit()
    finally:
        gpt.trainer.BatchLoader = BatchLoader
    return seen, HashingLoader.rows, trainer


def hashes(rows_of_ranks: list[dict], batch_sizes: dict[int, int]) -> dict[int, str]:
    """Hash of each global batch, put together from the workers' rows; by first sample."""
    return {
        start: hashlib.sha256(
            repr([rows_of_ranks[i % len(rows_of_ranks)][start][i // len(rows_of_ranks)] for i in range(size)]).encode()
        ).hexdigest()
        for start, size in batch_sizes.items()
        if start in rows_of_ranks[0]
    }  # fmt: skip


def sizes_of(trainer: Trainer) -> dict[int, int]:
    return {trainer.batches.start(step): trainer.batches.size(step) for step in range(NUM_STEPS)}


@pytest.fixture(scope="module")
def short_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents shorter than a window, so that packed windows have padding."""
    rows = {
        (source, split): [d[: 9 + i % 6] for i, d in enumerate(documents(count, seed))]
        for seed, (source, split, count) in enumerate(
            [("web", "train", 300), ("book", "train", 120), ("web", "val", 10), ("book", "val", 5)]
        )
    }
    return write_dataset(tmp_path_factory.mktemp("short"), rows)


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
def test_killed_after_every_step_and_resumed_is_equal_to_the_bit(
    short_documents: Path, tmp_path: Path, settings: tuple[ModelConfig, TrainConfig]
):
    whole, rows, uninterrupted = fit(short_documents, tmp_path / "whole", *settings)
    expected = hashes([rows], sizes_of(uninterrupted))
    assert len(expected) == NUM_STEPS
    for k in range(1, NUM_STEPS):
        run_dir = tmp_path / str(k)
        with pytest.raises(KeyboardInterrupt):
            fit(short_documents, run_dir, *settings, seen=Seen(die_after=k))
        # A checkpoint is told of when the next step is over: what came later is lost in a real kill.
        for step in range(k + 1, NUM_STEPS + 1):
            if checkpoint_path(run_dir, step).exists():
                checkpoint_path(run_dir, step).rename(run_dir / f"lost-{step}")
        rest, rows, resumed = fit(short_documents, run_dir, *settings)
        assert resumed.resumed_from == k
        assert rest.losses == whole.losses[k:]
        found = hashes([rows], sizes_of(resumed))
        assert found.items() <= expected.items()
        assert len(found) == NUM_STEPS - k
        for mine, other in zip(uninterrupted.trained.parameters(), resumed.trained.parameters(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("micro_batch_size", [1, 4, 8])
def test_micro_batches_with_unequal_tokens_change_nothing(
    short_documents: Path, tmp_path: Path, micro_batch_size: int
):
    model, train = MASKED, PACKED
    whole, _, _ = fit(short_documents, tmp_path / "0", model, train)
    train = replace(train, micro_batch_size=micro_batch_size)
    split, rows, _ = fit(short_documents, tmp_path / "1", model, train)
    assert len({sum(target != -100 for target in targets) for _, targets in rows[0]}) > 1
    np.testing.assert_allclose(split.losses, whole.losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(split.grad_norms, whole.grad_norms, rtol=1e-5)


def _worker(rank: int, world_size: int, folder: Path, dataset: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    seen, rows, _ = fit(dataset, folder / "run", MASKED, PACKED, rank=rank, world_size=world_size)
    stop = Seen(stop_after=6 if rank == 0 else 0)  # the others learn of it a record later
    part, _, _ = fit(dataset, folder / "part", MASKED, PACKED, rank=rank, world_size=world_size, seen=stop)
    torch.save((seen.losses, rows, part.losses), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_any_number_of_workers_sees_the_same_batches_and_losses_and_one_can_go_on(
    short_documents: Path, tmp_path: Path, world_size: int
):
    whole, rows, alone = fit(short_documents, tmp_path / "alone", MASKED, PACKED)
    mp.spawn(_worker, (world_size, tmp_path, short_documents), nprocs=world_size)
    workers = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world_size)]
    assert hashes([w[1] for w in workers], sizes_of(alone)) == hashes([rows], sizes_of(alone))
    for losses, _, _ in workers:
        np.testing.assert_allclose(losses, whole.losses, rtol=0, atol=1e-6)
    assert len(workers[0][2]) == 7
    rest, rest_rows, _ = fit(short_documents, tmp_path / "part", MASKED, PACKED)
    np.testing.assert_allclose(workers[0][2] + rest.losses, whole.losses, rtol=0, atol=1e-6)
    assert {start: rest_rows[start] for start in rest_rows} == {start: rows[start] for start in rest_rows}


# --- Shards of the model on two workers ---

# In this order, in one pair of processes: (run, changes of PACKED, step to stop after).
SHARDED_JOBS: dict[str, tuple[str, dict, int]] = {
    "adamw": ("adamw", {}, 0),
    "muon": ("muon", {"optimizer": "muon", "ema_decay": 0.9}, 0),
    "stopped": ("parts", {"micro_batch_size": 2}, 6),
    "resumed": ("parts", {"micro_batch_size": 2}, 0),
    "left to one": ("one", {}, 6),
    "recomputed": ("recomputed", {"recompute": True, "precision": "bf16"}, 0),
}


def _sharded_worker(rank: int, folder: Path, dataset: Path) -> None:
    torch.set_num_threads(1)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    outcome = {}
    for name, (run, changes, stop_after) in SHARDED_JOBS.items():
        train = replace(PACKED, parallel="fsdp", checkpoint_every=0, **changes)
        seen = Seen(stop_after=stop_after if rank == 0 else 0)
        _, _, trainer = fit(dataset, folder / run, MASKED, train, rank=rank, world_size=2, seen=seen)
        weights = None if trainer.trained is None else trainer.trained.state_dict()
        score = trainer.last_evaluation["all"].loss
        outcome[name] = (seen.losses, seen.grad_norms, score, weights)
    torch.save(outcome, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, short_documents: Path) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("sharded")
    mp.spawn(_sharded_worker, (folder, short_documents), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_sharded_model_trains_as_a_whole_one(
    short_documents: Path, tmp_path: Path, sharded: tuple[Path, list[dict]], name: str
):
    _, changes, _ = SHARDED_JOBS[name]
    whole, _, alone = fit(short_documents, tmp_path, MASKED, replace(PACKED, **changes))
    (losses, norms, score, weights), (other_losses, *_, other_weights) = (
        outcome[name] for outcome in sharded[1]
    )
    assert losses == other_losses
    assert other_weights is None  # only rank 0 gathers it
    np.testing.assert_allclose(losses, whole.losses, rtol=0, atol=1e-5 if name == "adamw" else 2e-3)
    np.testing.assert_allclose(norms[0], whole.grad_norms[0], rtol=1e-4)
    assert score == pytest.approx(alone.last_evaluation["all"].loss, abs=1e-5 if name == "adamw" else 2e-3)
    assert weights.keys() == alone.trained.state_dict().keys()
    if name == "adamw":
        for key, value in alone.trained.state_dict().items():
            torch.testing.assert_close(weights[key], value, atol=1e-4, rtol=1e-3)


def test_a_sharded_checkpoint_holds_no_pickle_and_resumes(
    short_documents: Path, tmp_path: Path, sharded: tuple[Path, list[dict]]
):
    folder, (outcome, _) = sharded
    files = {path.suffix for path in (folder / "parts" / "checkpoints").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}
    assert len(outcome["stopped"][0]) == 7
    np.testing.assert_allclose(
        outcome["stopped"][0] + outcome["resumed"][0], outcome["adamw"][0], rtol=0, atol=1e-6
    )
    assert np.isfinite(outcome["recomputed"][0]).all()
    assert outcome["recomputed"][0][-1] == pytest.approx(outcome["adamw"][0][-1], abs=0.1)


def test_one_worker_goes_on_from_shards(short_documents: Path, sharded: tuple[Path, list[dict]]):
    folder, (outcome, _) = sharded
    rest, _, trainer = fit(short_documents, folder / "one", MASKED, PACKED)
    assert trainer.resumed_from == 7
    np.testing.assert_allclose(
        outcome["left to one"][0] + rest.losses, outcome["adamw"][0], rtol=0, atol=1e-5
    )
