"""Fixtures shared by the tests of gpt/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from token_files import VOCAB_SIZE, documents, write_dataset

from gpt.config import ModelConfig, TrainConfig


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of unequal size, about 5,000 training tokens."""
    return write_dataset(
        tmp_path_factory.mktemp("tokens"),
        {
            ("web", "train"): documents(90, 1),
            ("web", "val"): documents(12, 2),
            ("book", "train"): documents(35, 3),
            ("book", "val"): documents(6, 4),
        },
    )


@pytest.fixture(scope="session")
def token_bytes() -> np.ndarray:
    """Two bytes a token, none for end of text."""
    lengths = np.full(VOCAB_SIZE, 2, np.int64)
    lengths[0] = 0
    return lengths


@pytest.fixture
def model_config() -> ModelConfig:
    return ModelConfig(vocab_size=VOCAB_SIZE, context_length=16, num_layers=2, num_heads=2, width=32)


@pytest.fixture
def train_config() -> TrainConfig:
    return TrainConfig(
        num_steps=6,
        batch_size=8,
        learning_rate=3e-3,
        warmup_steps=2,
        eval_every=0,
        checkpoint_every=2,
        keep_checkpoints=10,
        precision="fp32",
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tiny products: more threads only wait for each other.
    torch.set_num_threads(1)
