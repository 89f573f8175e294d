"""Fixtures shared by the tests of data_pipeline/: one Ray for all of them, and the real data beside the checkout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on two cores, for as long as the tests of this package run."""
    import ray
    from ray.data import DataContext

    # Sockets have short names only, so Ray's folder cannot lie below pytest's.
    folder = tempfile.mkdtemp(prefix="gm", dir="/tmp")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=folder,
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real texts beside the checkout, where they are."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the checks against real web, book and wiki files need it")
    return folder
