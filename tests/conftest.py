"""Shared by all tests: temporary files go to a folder of the test session, and nothing is left behind."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Ray's sockets live below it, whose paths may have 107 characters: pytest's own folders are too deep. Set before
# anything imports Ray. What a killed process or a library leaves in its temporary folder is there, too.
SESSION_FOLDER = tempfile.mkdtemp(prefix="gm-", dir="/tmp")
os.environ["RAY_TMPDIR"] = os.environ["TMPDIR"] = tempfile.tempdir = SESSION_FOLDER
# Except what tests wrote themselves: pytest keeps that of the last runs, to be looked at.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/tmp")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out by file, those of one group (pytest.mark.xdist_group) in one process; the longest first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=lambda item: item.path.parent.name != "workflows")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was left."""
    shutil.rmtree(SESSION_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it are skipped where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data at ../shared/data beside the checkout")
    return path
