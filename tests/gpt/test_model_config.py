"""Configurations and presets refuse what cannot run, in one line that names the field and the mend."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import subprocess
import sys

import pytest

from gpt.classify import ClassifierConfig
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.presets import PRESETS, preset


def test_heads_that_do_not_divide_width_name_the_nearest_widths():
    with pytest.raises(ConfigError, match=r"num_heads 6 does not divide width 256; .* 252 or 258"):
        ModelConfig(num_heads=6, width=256).validate()


@pytest.mark.parametrize(
    "change",
    [{"dropout": 1.0}, {"num_layers": 0}, {"context_length": -1}, {"vocab_size": -5}, {"mlp_ratio": 0.0}],
)
def test_impossible_shape_names_its_field(change: dict):
    with pytest.raises(ConfigError, match=next(iter(change))):
        ModelConfig(**change).validate()


@pytest.mark.parametrize(
    "change",
    [
        {"warmup_steps": 2000},
        {"micro_batch_size": 5},
        {"lr": 0.0},
        {"precision": "fp8"},
        {"beta2": 1.0},
        {"min_lr_ratio": 2.0},
        {"num_steps": 0},
        {"eval_every": -1},
        {"source_weights": {"web": -1.0}},
        {"source_weights": {"web": float("nan")}},
    ],
)
def test_impossible_schedule_names_its_field(change: dict):
    with pytest.raises(ConfigError, match=next(iter(change))) as caught:
        TrainConfig(**change).validate()
    assert "\n" not in str(caught.value)


def test_importing_configurations_does_not_import_torch():
    code = "import sys, gpt.config, gpt.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("config", [ModelConfig, TrainConfig, ClassifierConfig])
def test_every_field_has_the_docstring_that_help_shows(config: type):
    body = ast.parse(inspect.getsource(config)).body[0].body
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{field.target.id} has no docstring"
            assert isinstance(after.value.value, str)


def test_unknown_preset_lists_the_names():
    with pytest.raises(ConfigError, match=r"'gtp2'.*demo, gpt2, tiny"):
        preset("gtp2")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid(name: str):
    PRESETS[name].model.validate()
    PRESETS[name].train.validate()


@pytest.mark.parametrize(
    "change",
    [{}, {"bias": False}, {"tie_embeddings": False}, {"mlp_ratio": 2.5}, {"vocab_size": 64, "num_layers": 1}],
)
def test_parameter_count_matches_the_model(model_config: ModelConfig, change: dict):
    config = dataclasses.replace(model_config, **change)
    assert config.num_parameters() == sum(parameter.numel() for parameter in GPT(config).parameters())


def test_gpt2_preset_has_the_published_number_of_parameters():
    config = dataclasses.replace(PRESETS["gpt2"].model, vocab_size=50257)
    padding = (config.padded_vocab_size - config.vocab_size) * config.width
    assert config.num_parameters() - padding == 124_439_808
