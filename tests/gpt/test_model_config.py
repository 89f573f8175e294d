"""Configurations and presets refuse what cannot run, in one line that names the field and the mend."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import subprocess
import sys

import pytest

from gpt.batches import BatchSchedule
from gpt.classify import ClassifierConfig
from gpt.config import ConfigError, ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.presets import PRESETS, preset


def test_heads_that_do_not_divide_width_name_the_nearest_widths():
    with pytest.raises(ConfigError, match=r"num_heads 6 does not divide width 256; .* 252 or 258"):
        ModelConfig(num_heads=6, width=256).validate()


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 1.0},
        {"num_layers": 0},
        {"context_length": -1},
        {"vocab_size": -5},
        {"mlp_ratio": 0.0},
        {"num_kv_heads": 3},
        {"positions": "sinus"},
        {"norm": "batch"},
        {"activation": "relu"},
        {"window_pattern": "FX", "window": 8},
        {"window_pattern": "FW"},
        {"logit_soft_cap": -1.0},
        {"num_heads": 4, "width": 12, "positions": "rotary"},
    ],
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
    with pytest.raises(ConfigError, match=r"'gtp2'.*demo, gpt1, .*modern-d12.*, tiny, and modern-dN"):
        preset("gtp2")
    with pytest.raises(ConfigError, match="modern-d0"):
        preset("modern-d0")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid(name: str):
    PRESETS[name].model.validate()
    PRESETS[name].train.validate()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"bias": False},
        {"tie_embeddings": False},
        {"mlp_ratio": 2.5},
        {"vocab_size": 64, "num_layers": 1},
        {"vocab_size": 64, "multitask": True},
        {"positions": "rotary", "norm": "rms", "activation": "swiglu", "num_kv_heads": 1},
        {"positions": "rotary", "norm": "rms", "qk_norm": True, "bias": False, "embedding_norm": True},
        {"norm": "rms", "norm_gain": False, "qk_norm": True, "activation": "relu2"},
        {"norm_place": "post", "init": "gpt1"},
        {"norm_gain": False},
    ],
)
def test_parameter_count_matches_the_model(model_config: ModelConfig, change: dict):
    config = dataclasses.replace(model_config, **change)
    assert config.num_parameters() == sum(parameter.numel() for parameter in GPT(config).parameters())


# Radford 2018: "117M" in later papers; Radford 2019 with the corrected counts of its README; Brown 2020, Table 2.1.
@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("gpt1", 116_534_784),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_presets_have_the_published_models_number_of_parameters(name: str, stated: int):
    assert PRESETS[name].num_parameters == stated


@pytest.mark.parametrize(
    ("name", "stated", "batch_tokens", "lr"),
    [
        ("gpt3-small", 125e6, 0.5e6, 6.0e-4),
        ("gpt3-medium", 350e6, 0.5e6, 3.0e-4),
        ("gpt3-large", 760e6, 0.5e6, 2.5e-4),
        ("gpt3-xl", 1.3e9, 1e6, 2.0e-4),
        ("gpt3-2.7b", 2.7e9, 1e6, 1.6e-4),
        ("gpt3-6.7b", 6.7e9, 2e6, 1.2e-4),
        ("gpt3-13b", 13.0e9, 2e6, 1.0e-4),
        ("gpt3-175b", 175.0e9, 3.2e6, 0.6e-4),
    ],
)
def test_gpt3_presets_are_the_rows_of_the_papers_table(
    name: str, stated: float, batch_tokens: float, lr: float
):
    recipe = PRESETS[name]
    assert recipe.num_parameters == pytest.approx(stated, rel=0.02)
    assert recipe.train.batch_size * 2048 == pytest.approx(batch_tokens, rel=0.05)
    assert recipe.train.lr == lr
    assert recipe.model.windows[:2] == (0, 256)
    # 300 G tokens, to the step; warm-up over 375 M, cosine over 260 G, batches from 32 k tokens.
    assert recipe.num_tokens == pytest.approx(300e9, rel=1e-4)
    batches = BatchSchedule(
        recipe.train.batch_size, recipe.train.batch_ramp_start, recipe.train.batch_ramp_samples
    )
    assert batches.start(recipe.train.warmup_steps) * 2048 == pytest.approx(375e6, rel=1e-3)
    assert batches.start(recipe.train.decay_steps) * 2048 == pytest.approx(260e9, rel=1e-4)
    assert batches.size(0) * 2048 == 32_768


def test_the_dial_is_there_for_every_depth_and_grows_with_it():
    depths = [preset(f"modern-d{depth}") for depth in range(1, 33)]
    for recipe in depths:
        recipe.model.validate()
        recipe.train.validate()
        assert recipe.train.batch_size * recipe.model.context_length == 2 ** round(
            math.log2(recipe.train.batch_size * recipe.model.context_length)
        )
        products = dataclasses.replace(recipe.model, vocab_size=recipe.vocab_size).num_product_parameters()
        assert recipe.num_tokens == pytest.approx(10 * products, rel=0.05)
    assert preset("modern-d12") == PRESETS["modern-d12"]
    assert (PRESETS["modern-d12"].train.lr, PRESETS["modern-d12"].train.muon_lr) == (0.3, 0.02)
    sizes = [recipe.num_parameters for recipe in depths]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("family", ["gpt1", "gpt2", "gpt3-small", "modern-d12"])
def test_a_tiny_twin_has_the_recipe_of_its_family(family: str):
    name = re.match("gpt.|modern", family)[0] + "-tiny"
    big, twin = PRESETS[family], PRESETS[name]
    for field in dataclasses.fields(ModelConfig):
        if field.name not in ("context_length", "num_layers", "num_heads", "width", "window"):
            assert getattr(twin.model, field.name) == getattr(big.model, field.name), field.name
    for field in ("optimizer", "schedule", "min_lr_ratio", "weight_decay", "beta1", "beta2", "grad_clip"):
        assert getattr(twin.train, field) == getattr(big.train, field), field
    assert bool(twin.train.batch_ramp_start) == bool(big.train.batch_ramp_start)
    assert twin.num_parameters < 100_000
    assert twin.num_tokens < 10_000


def test_the_table_names_every_preset_and_words_tell_a_dials_numbers():
    code = [sys.executable, "-m", "gpt.presets"]
    shown = subprocess.run(code, capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in PRESETS)
    words = subprocess.run([*code, "modern-d10"], capture_output=True, text=True, check=True).stdout
    assert re.search("10 layers of width 640, 5 heads of 128, context 2,048", words)
    assert "by horizon^0.383" in words
    wrong = subprocess.run([*code, "modern"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
