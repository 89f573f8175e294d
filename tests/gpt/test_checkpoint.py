"""Checkpoints are whole or absent; damage is noticed and the one before is used."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from gpt.checkpoint import (
    CheckpointWriter,
    atomic_folder,
    checkpoint_path,
    checkpoints_folder,
    export_model,
    latest_checkpoint,
    load_model,
    optimizer_tensors,
)
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.optim import build_optimizers


def trained_model(config: ModelConfig, seed: int = 0) -> tuple[GPT, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = GPT(config)
    (optimizer,) = build_optimizers(model, model.parameter_roles(), TrainConfig())
    tokens = torch.randint(0, 50, (2, 8))
    model(tokens, tokens).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def tensors_of(
    model: GPT, optimizer: torch.optim.Optimizer, *, create: bool = False
) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer_tensors(model, [optimizer], create=create),
    }


def save_checkpoint(
    run_dir: Path, model: GPT, optimizer: torch.optim.Optimizer, state: dict, keep: int, keep_every: int = 0
) -> None:
    with CheckpointWriter(run_dir, keep=keep, keep_every=keep_every) as writer:
        writer.save(tensors_of(model, optimizer), state)
        writer.wait()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_restoring_gives_equal_weights_and_moments(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    save_checkpoint(tmp_path, model, optimizer, {"step": 7, "note": "x"}, keep=2)
    other, other_optimizer = trained_model(model_config, seed=1)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.state["step"], checkpoint.state["note"]) == (7, "x")
    checkpoint.load_into(tensors_of(other, other_optimizer))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for key, value in optimizer.state[one].items():
            assert torch.equal(value, other_optimizer.state[two][key])


def test_only_the_newest_are_kept_and_nothing_half_written(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    (checkpoints_folder(tmp_path) / ".tmp-step_00000001-99").mkdir(parents=True)
    for step in (1, 2, 3, 12):
        save_checkpoint(tmp_path, model, optimizer, {"step": step}, keep=2)
    assert sorted(path.name for path in checkpoints_folder(tmp_path).iterdir()) == [
        "step_00000003",
        "step_00000012",
    ]


def test_every_nth_is_kept_for_good(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    for step in range(1, 8):
        save_checkpoint(tmp_path, model, optimizer, {"step": step}, keep=1, keep_every=3)
    kept = [path.name for path in sorted(checkpoints_folder(tmp_path).iterdir())]
    assert kept == ["step_00000003", "step_00000006", "step_00000007"]


def test_training_goes_on_while_a_copy_is_written(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(tensors_of(model, optimizer), {"step": 1})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    other, other_optimizer = trained_model(model_config, seed=1)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    checkpoint.load_into(tensors_of(other, other_optimizer))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_checkpoint_that_cannot_be_written_ends_training(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    (tmp_path / "checkpoints").write_text("in the way")
    with CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(tensors_of(model, optimizer), {"step": 1})
        with pytest.raises(OSError, match="checkpoints"):
            writer.wait()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, model_config: ModelConfig, name: str, damage: str, caplog: pytest.LogCaptureFixture
):
    model, optimizer = trained_model(model_config)
    for step in (1, 2):
        save_checkpoint(tmp_path, model, optimizer, {"step": step}, keep=2)
    path = checkpoint_path(tmp_path, 2) / name
    if damage == "flip":
        flip_a_byte(path)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state["step"] == 1
    assert "step_00000002 is damaged" in caplog.text


def test_a_changed_number_in_the_state_is_noticed(tmp_path: Path, model_config: ModelConfig):
    save_checkpoint(tmp_path, *trained_model(model_config), {"step": 5}, keep=1)
    path = checkpoint_path(tmp_path, 5) / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "step": 6}))
    assert latest_checkpoint(tmp_path) is None


def test_a_damaged_step_is_written_anew(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    save_checkpoint(tmp_path, model, optimizer, {"step": 5}, keep=1)
    flip_a_byte(checkpoint_path(tmp_path, 5) / "model.safetensors")
    save_checkpoint(tmp_path, model, optimizer, {"step": 5}, keep=1)
    assert latest_checkpoint(tmp_path) is not None
    assert [path.name for path in checkpoints_folder(tmp_path).iterdir()] == ["step_00000005"]


def test_a_damaged_later_step_does_not_push_out_the_good_one(tmp_path: Path, model_config: ModelConfig):
    model, optimizer = trained_model(model_config)
    save_checkpoint(tmp_path, model, optimizer, {"step": 10}, keep=2)
    save_checkpoint(tmp_path, model, optimizer, {"step": 20}, keep=2)
    flip_a_byte(checkpoint_path(tmp_path, 20) / "model.safetensors")
    # Training went on from 10.
    save_checkpoint(tmp_path, model, optimizer, {"step": 15}, keep=1)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.path == checkpoint_path(tmp_path, 15)


def test_an_interrupted_write_leaves_the_old_folder(tmp_path: Path):
    target = tmp_path / "model"

    def write(text: str, error: Exception | None = None) -> None:
        with atomic_folder(target) as partial:
            (partial / "a").write_text(text)
            if error:
                raise error

    write("old")
    with pytest.raises(RuntimeError, match="power cut"):
        write("new", RuntimeError("power cut"))
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_exported_model_computes_the_same(tmp_path: Path, model_config: ModelConfig):
    model, _ = trained_model(model_config)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    folder = export_model(tmp_path / "models" / "m", model, model_config, tokenizer, {"run": "r1"})
    export_model(folder, model, model_config, tokenizer, {"run": "r2"})
    loaded, content = load_model(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert content["extra"] == {"run": "r2"}
    assert loaded.config == model_config
    tokens = torch.randint(0, 50, (1, 9))
    assert torch.equal(loaded(tokens), model.eval()(tokens))


def test_a_damaged_or_missing_export_says_so(tmp_path: Path, model_config: ModelConfig):
    with pytest.raises(ConfigError, match=r"nowhere/config\.json is missing"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    folder = export_model(
        tmp_path / "m", trained_model(model_config)[0], model_config, tmp_path / "tokenizer.json"
    )
    flip_a_byte(folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors does not match"):
        load_model(folder)
