"""Shared by all tests: Ray's files go to a folder of the test session, and nothing is left behind."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Ray's sockets live below it, whose paths may have 107 characters: pytest's own folders are too deep. Set before
# anything imports Ray.
RAY_TMPDIR = tempfile.mkdtemp(prefix="gm-", dir="/tmp")
os.environ["RAY_TMPDIR"] = RAY_TMPDIR


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove Ray's files."""
    shutil.rmtree(RAY_TMPDIR, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it are skipped where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data at ../shared/data beside the checkout")
    return path
