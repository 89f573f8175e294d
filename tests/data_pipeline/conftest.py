"""One Ray for all tests of data_pipeline/."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pytest

import workflows  # noqa: F401  it sets Ray's environment, which Ray reads when it is imported


@pytest.fixture(scope="session")
def real_documents(shared_data: Path) -> Callable[[str], pa.Table]:
    """The documents of a collection of benchmarks.documents by its name; each is read once."""
    from benchmarks.documents import load

    return cache(partial(load, shared_data))


@pytest.fixture(scope="package")
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
        # Ray Data's shuffle has an environment, and so workers, of its own. Beyond as many workers as cores Ray
        # ends the idle ones, and each shuffle would start them anew, which takes seconds.
        _system_config={"num_workers_soft_limit": 8},
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False
    context.raise_original_map_exception = True
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
