"""The benchmark that is run where there is a GPU runs here, too, so that it does not fail there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_training


def test_the_gpu_benchmark_runs_on_a_cpu_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu_training", "--tiny", "--chunk", "100", "--out", str(out)])
    gpu_training.main()
    results = json.loads(out.read_text())["results"]
    assert len(results) == 4
    assert all(result["tokens_per_second"] > 0 for result in results)
    # The loss in chunks or whole, in micro-batches of 4 or 8: the same training.
    losses = np.array([result["losses"] for result in results])
    np.testing.assert_allclose(losses, losses[:1].repeat(4, 0), atol=2e-2)
    assert abs(losses[0, 0] - np.log(500)) < 0.1
