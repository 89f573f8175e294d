"""Several objectives in one training: each is learned and told of, however the training is split, killed or resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_run import MODEL, TRAIN, VOCAB_SIZE, write_dataset

from gpt.config import ConfigError, ModelConfig, ObjectiveConfig, TrainConfig
from gpt.events import Callback, StepRecord
from gpt.trainer import Trainer

END, DOT = 0, 1
ALL = ObjectiveConfig(masked=0.5, masked_end=0.2, sentence_end=1.0)
MULTITASK = replace(MODEL, multitask=True, context_length=32, mask_documents=True)
# Whole documents in windows with padding; two workers whose shares differ, in micro-batches.
SPLIT = replace(TRAIN, num_steps=5, batch_size=7, packing="best_fit", objectives=ALL)


class Seen(Callback):
    """Keeps the records; breaks off after a step where asked to."""

    def __init__(self, die_after: int = 0) -> None:
        self.die_after = die_after
        self.records: list[StepRecord] = []

    def on_step(self, record: StepRecord) -> None:
        self.records.append(record)

    def on_checkpoint(self, step: int, path: Path, final: bool) -> None:
        if step == self.die_after:
            raise KeyboardInterrupt

    @property
    def losses(self) -> np.ndarray:
        """[steps, objectives]."""
        return np.array([list(record.loss_by_objective.values()) for record in self.records])

    @property
    def grad_norms(self) -> list[float]:
        return [record.grad_norm for record in self.records]


def fit(
    folder: Path, run_dir: Path, model: ModelConfig, train: TrainConfig, *, rank: int = 0, world_size: int = 1,
    die_after: int = 0,
) -> tuple[Seen, Trainer]:  # fmt: skip
    seen = Seen(die_after)
    trainer = Trainer(
        model,
        train,
        folder,
        run_dir,
        np.full(VOCAB_SIZE, 2, np.int64),
        sentence_ends=np.arange(VOCAB_SIZE) == DOT,
        callbacks=[seen],
        rank=rank,
        world_size=world_size,
    )
    trainer.fit()
    return seen, trainer


def stories(num_docs: int, seed: int) -> list[list[int]]:
    """Documents of three to six sentences of one repeated word, out of three words that are the document's own."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_docs):
        words = 2 + 3 * rng.integers(0, 16) + rng.integers(0, 3, rng.integers(3, 7))
        rows.append([END] + [token for word in words for token in (word, word, word, DOT)])
    return [[int(token) for token in row] for row in rows]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = [("web", "train", 400), ("book", "train", 150), ("web", "val", 12), ("book", "val", 6)]
    rows = {(source, split): stories(count, seed) for seed, (source, split, count) in enumerate(parts)}
    return write_dataset(tmp_path_factory.mktemp("stories"), rows)


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_objectives_without_weight_change_no_bit(dataset: Path, tmp_path: Path, precision: str):
    train = replace(TRAIN, micro_batch_size=4, precision=precision, grad_clip=0.1)
    plain, trainer = fit(dataset, tmp_path / "plain", replace(MODEL, dropout=0.1), train)
    off = ObjectiveConfig(masked=0.0, sentence=0.0, masked_end=0.0, mask_ratio=0.4)
    model = replace(MODEL, dropout=0.1, multitask=True)
    other, multitask = fit(dataset, tmp_path / "off", model, replace(train, objectives=off))
    assert [r.loss for r in other.records] == [r.loss for r in plain.records]
    assert [r.loss_by_source for r in other.records] == [r.loss_by_source for r in plain.records]
    assert other.grad_norms == plain.grad_norms
    assert multitask.last_evaluation == trainer.last_evaluation
    weights = state(multitask)
    for name, weight in state(trainer).items():
        assert torch.equal(weights[name], weight), name
    assert all(parameter.grad is None for parameter in multitask.model.sentence_head.parameters())


def test_the_causal_loss_of_the_first_step_is_that_of_the_causal_task_alone(dataset: Path, tmp_path: Path):
    plain, _ = fit(dataset, tmp_path / "plain", MULTITASK, replace(SPLIT, objectives=ObjectiveConfig()))
    together, _ = fit(dataset, tmp_path / "all", MULTITASK, SPLIT)
    assert together.losses[0, 0] == plain.losses[0, 0] == plain.records[0].loss
    assert together.records[0].loss_by_source == plain.records[0].loss_by_source
    assert together.losses[-1, 0] != plain.losses[-1, 0]


def test_all_three_losses_fall(dataset: Path, tmp_path: Path):
    train = replace(TRAIN, num_steps=250, batch_size=16, lr=1e-2, checkpoint_every=0, log_every=10)
    objectives = ObjectiveConfig(masked=0.5, sentence=1.0)
    model = replace(MULTITASK, mask_documents=False, context_length=64)
    seen, _ = fit(dataset, tmp_path, model, replace(train, objectives=objectives))
    first, last = seen.losses[0], seen.losses[-3:].mean(0)
    assert first[2] == pytest.approx(np.log(2), abs=0.05)
    assert last[0] < 0.5 * first[0]
    assert last[1] < 0.7 * first[1]
    assert last[2] < 0.55


def test_a_model_can_be_trained_without_next_tokens(dataset: Path, tmp_path: Path):
    for name, objectives in (
        ("masked", ObjectiveConfig(causal=0.0, masked=1.0)),
        ("sentence", ObjectiveConfig(causal=0.0, sentence=1.0)),
    ):
        model = replace(MULTITASK, tie_embeddings=False)
        seen, trainer = fit(dataset, tmp_path / name, model, replace(SPLIT, objectives=objectives))
        record = seen.records[-1]
        assert list(record.loss_by_objective) == [name]
        assert record.loss == record.loss_by_objective[name]
        assert trainer.model.head.weight.requires_grad == (name == "masked")
        # What is not trained stays as it was drawn, for the optimizer, too, and a resumed run knows so.
        again, _ = fit(dataset, tmp_path / name, model, replace(SPLIT, num_steps=6, objectives=objectives))
        assert [r.step for r in again.records] == [6]


@pytest.mark.parametrize("micro_batch_size", [1, 7])
def test_micro_batches_change_no_objective(dataset: Path, tmp_path: Path, micro_batch_size: int):
    whole, _ = fit(dataset, tmp_path / "whole", MULTITASK, SPLIT)
    parts, _ = fit(dataset, tmp_path / "parts", MULTITASK, replace(SPLIT, micro_batch_size=micro_batch_size))
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts.grad_norms, whole.grad_norms, rtol=1e-5)


@pytest.mark.parametrize("die_after", [1, 3])
def test_killed_and_resumed_is_equal_to_the_bit(dataset: Path, tmp_path: Path, die_after: int):
    model = replace(MULTITASK, dropout=0.1, tie_embeddings=False)
    train = replace(SPLIT, checkpoint_every=1, async_checkpoints=False, micro_batch_size=7, precision="bf16")
    whole, uninterrupted = fit(dataset, tmp_path / "whole", model, train)
    with pytest.raises(KeyboardInterrupt):
        fit(dataset, tmp_path / "killed", model, train, die_after=die_after)
    rest, resumed = fit(dataset, tmp_path / "killed", model, train)
    assert resumed.resumed_from == die_after
    assert rest.losses.tolist() == whole.losses[die_after:].tolist()
    for name, weight in state(uninterrupted).items():
        assert torch.equal(state(resumed)[name], weight), name


def test_other_objectives_are_another_run(dataset: Path, tmp_path: Path):
    fit(dataset, tmp_path, MULTITASK, SPLIT)
    with pytest.raises(
        ConfigError, match=r"cannot be resumed, these differ: train.objectives .*'masked': 0.5"
    ):
        fit(dataset, tmp_path, MULTITASK, replace(SPLIT, objectives=ObjectiveConfig()))


# In this order, in one pair of processes: (run, changes of SPLIT, changes of MULTITASK).
JOBS: dict[str, tuple[dict, dict]] = {
    "ddp": ({"micro_batch_size": 1}, {}),
    "fsdp": ({"parallel": "fsdp", "num_steps": 3}, {}),
    "muon": ({"optimizer": "muon", "precision": "bf16", "batch_size": 8, "recompute": True}, {}),
    "untied": ({}, {"tie_embeddings": False, "positions": "rotary"}),
    "off": ({"objectives": ObjectiveConfig()}, {}),
}


def settings(name: str) -> tuple[ModelConfig, TrainConfig]:
    train, model = JOBS[name]
    return replace(MULTITASK, **model), replace(SPLIT, checkpoint_every=0, **train)


def _work(rank: int, folder: Path, dataset: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    outcome = {}
    for name in JOBS:
        seen, _ = fit(dataset, folder / name, *settings(name), rank=rank, world_size=2)
        outcome[name] = (seen.losses, seen.grad_norms)
    torch.save(outcome, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Sequence[dict]:
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(_work, (folder, dataset), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", list(JOBS))
def test_two_workers_equal_one(dataset: Path, tmp_path: Path, two_workers: Sequence[dict], name: str):
    model, train = settings(name)
    alone, _ = fit(dataset, tmp_path, model, replace(train, parallel="ddp", micro_batch_size=0))
    (losses, norms), (other_losses, _) = (outcome[name] for outcome in two_workers)
    assert losses.tolist() == other_losses.tolist()
    # Muon's products are in bf16: what is equal at first drifts apart.
    np.testing.assert_allclose(losses, alone.losses, rtol=0, atol=5e-3 if name == "muon" else 1e-6)
    np.testing.assert_allclose(norms[0], alone.grad_norms[0], rtol=1e-4 if name != "muon" else 1e-2)
