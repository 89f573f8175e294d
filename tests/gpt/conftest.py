"""Fixtures shared by the tests of gpt/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import MODEL, VOCAB_SIZE, documents, write_dataset

from gpt.config import ModelConfig


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
    return MODEL


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tiny products: more threads only wait for each other.
    torch.set_num_threads(1)
