"""Every parameter is updated by one optimizer at the rate of its role; Muon's steps are orthogonal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.config import ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.muon import Muon, orthogonal
from gpt.optim import assert_each_once, build_optimizers, schedule_factor
from gpt.updates import Updates


@pytest.fixture
def model(model_config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(model_config, tie_embeddings=False))


def backward(model: GPT, factor: float = 1.0) -> None:
    tokens = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(1))
    (model(tokens, tokens).mean() * factor).backward()


def test_groups_have_the_rates_and_decays_of_their_roles(model: GPT):
    config = TrainConfig(optimizer="muon", lr=1e-3, embedding_lr=0.1, head_lr=0.01, weight_decay=0.2)
    adamw, muon = build_optimizers(model, model.parameter_roles(), config)
    rates = [(group["peak_lr"], group["weight_decay"]) for group in adamw.param_groups]
    assert rates == [(0.1, 0.2), (0.01, 0.2), (1e-3, 0.0)]
    embeddings, heads, vectors = (group["params"] for group in adamw.param_groups)
    assert {id(p) for p in embeddings} == {
        id(model.token_embedding.weight),
        id(model.position_embedding.weight),
    }
    assert [id(p) for p in heads] == [id(model.head.weight)]
    assert all(p.dim() == 1 for p in vectors)
    (group,) = muon.param_groups
    assert group["peak_lr"] == config.muon_lr
    assert len(group["params"]) == 4 * model.config.num_layers


def test_with_adamw_matrices_decay_and_vectors_do_not(model: GPT):
    (adamw,) = build_optimizers(model, model.parameter_roles(), TrainConfig(weight_decay=0.1))
    for group in adamw.param_groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_a_forgotten_parameter_is_noticed(model: GPT):
    parameters = list(model.parameters())
    with pytest.raises(AssertionError, match="no group"):
        assert_each_once(parameters, [{"params": parameters[1:]}])
    with pytest.raises(AssertionError, match="two groups"):
        assert_each_once(parameters, [{"params": parameters}, {"params": parameters[:1]}])


def factors(**changes: object) -> list[float]:
    config = TrainConfig(**{"num_steps": 110, "warmup_steps": 10, "min_lr_ratio": 0.1, **changes})
    return [schedule_factor(step, config) for step in range(config.num_steps + 1)]


def test_cosine_warms_up_then_falls():
    rates = factors()
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_cosine_may_end_early_and_stay():
    rates = factors(decay_steps=60)
    assert rates[35] == pytest.approx(0.55)
    assert rates[60:] == pytest.approx([0.1] * 51)


def test_linear_wsd_and_inverse_square_root():
    assert factors(schedule="linear")[60] == pytest.approx(0.55)
    wsd = factors(schedule="wsd", decay_ratio=0.5)
    assert wsd[10:56] == [1.0] * 46
    assert wsd[110] == pytest.approx(0.1)
    assert wsd[55] - wsd[56] == pytest.approx(wsd[108] - wsd[109])
    root = factors(schedule="inverse_sqrt", min_lr_ratio=0.4)
    assert root[9] == 1.0
    assert root[39] == pytest.approx(0.5)
    assert root[110] == 0.4


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 999))
@settings(max_examples=25)
def test_newton_schulz_keeps_directions_and_evens_out_lengths(rows: int, columns: int, seed: int):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    made = u.T @ orthogonal(matrix).float() @ vt.T
    clear = s > 0.05 * s.norm()  # what is nearly no direction at all is not made one in five rounds
    assert ((made.diagonal()[clear] > 0.6) & (made.diagonal()[clear] < 1.3)).all()
    assert (made - torch.diag(made.diagonal())).abs().max() < 0.1


def test_muon_is_momentum_made_orthogonal():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 4))
    before, momentum = weight.detach().clone(), torch.zeros(6, 4)
    muon = Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], 0.9)
    for _ in range(3):
        weight.grad = torch.randn(6, 4)
        momentum = 0.9 * momentum + 0.1 * weight.grad
        update = orthogonal(0.1 * weight.grad + 0.9 * momentum).float()
        before = before * (1 - 0.1 * 0.5) - 0.1 * (6 / 4) ** 0.5 * update
        muon.step()
    torch.testing.assert_close(weight.detach(), before, atol=2e-3, rtol=1e-3)


def _muon_worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
    torch.save(_muon_steps(rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


def _muon_steps(rank: int, world_size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = [
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 4), (4, 4), (4, 9))
    ]
    muon = Muon([{"params": weights, "lr": 0.1, "weight_decay": 0.0}], 0.95, rank, world_size)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        muon.step()
    return [weight.detach() for weight in weights]


def test_workers_share_muons_work_and_end_alike(tmp_path: Path):
    mp.spawn(_muon_worker, (tmp_path,), nprocs=2)
    alone = _muon_steps(0, 1)
    for rank in range(2):
        for mine, other in zip(alone, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_gradient_that_is_not_finite_changes_no_weight_and_no_moment(model: GPT, optimizer: str):
    updates = Updates(model, TrainConfig(optimizer=optimizer, warmup_steps=0), torch.device("cpu"), 0, 1)
    backward(model)
    updates.apply(0)
    weights = [p.detach().clone() for p in model.parameters()]
    moments = [
        value.clone() for o in updates.optimizers for state in o.state.values() for value in state.values()
    ]
    for _ in range(2):
        backward(model, float("nan"))
        updates.apply(1)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    after = [value for o in updates.optimizers for state in o.state.values() for value in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert updates.read()[1:] == (2, 2)
    backward(model)
    updates.apply(2)
    assert updates.read()[1:] == (2, 2)  # the row was seen since the last reading
    assert updates.read()[1:] == (2, 0)
    assert not torch.equal(weights[0], model.token_embedding.weight)


def test_the_scale_of_fp16_falls_where_it_overflows_and_the_gradient_is_unscaled(model: GPT):
    updates = Updates(model, TrainConfig(precision="fp16", grad_clip=0), torch.device("cpu"), 0, 1)
    backward(model)
    expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    model.zero_grad()
    scale = updates.loss_scale.item()
    backward(model, scale)
    updates.apply(0)
    assert updates.read().grad_norm == pytest.approx(expected, rel=1e-5)
    backward(model, float("inf"))
    updates.apply(1)
    assert updates.loss_scale.item() == scale / 2
    # An overflow is no divergence.
    assert updates.read()[1:] == (1, 0)


def test_the_average_of_the_weights_is_lent_and_given_back(model: GPT):
    updates = Updates(model, TrainConfig(ema_decay=0.5, warmup_steps=0), torch.device("cpu"), 0, 1)
    expected = model.token_embedding.weight.detach().clone()
    for step in range(3):
        backward(model)
        updates.apply(step)
        expected = 0.5 * expected + 0.5 * model.token_embedding.weight.detach()
    held = model.token_embedding.weight.detach().clone()
    with updates.averaged_weights():
        torch.testing.assert_close(model.token_embedding.weight.detach(), expected)
    assert torch.equal(model.token_embedding.weight, held)
