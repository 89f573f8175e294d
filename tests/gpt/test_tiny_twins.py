"""Every family's recipe, on its tiny twin, trains, generates and learns in seconds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gpt.generate import Request, generate_batch
from gpt.presets import PRESETS
from gpt.sampling import Sampling
from gpt.trainer import Trainer


@pytest.mark.parametrize("name", ["gpt1-tiny", "gpt2-tiny", "gpt3-tiny", "modern-tiny"])
def test_a_tiny_twin_learns_in_seconds(
    dataset_folder: Path, token_bytes: np.ndarray, tmp_path: Path, name: str
):
    recipe = PRESETS[name]
    trainer = Trainer(recipe.model, recipe.train, dataset_folder, tmp_path, token_bytes)
    result = trainer.fit()
    first, last = result.first_evaluation["all"].loss, result.last_evaluation["all"].loss
    assert first == pytest.approx(math.log(50), abs=0.1), "it begins with a uniform guess"
    assert last < first - 0.1
    assert result.seconds < 30
    completion = generate_batch(trainer.model, [Request([0], Sampling(max_new_tokens=40))])[0]
    assert len(completion.tokens) == 40
