"""Shared by all tests: temporary files go to a folder of the test session, and nothing is left behind."""

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests.browser import BROWSERS

# Ray's sockets live below it, whose paths may have 107 characters: pytest's own folders are too deep. Set before
# anything imports Ray. What a killed process or a library leaves in its temporary folder is there, too.
SESSION_FOLDER = tempfile.mkdtemp(prefix="gm-", dir="/tmp")
os.environ["RAY_TMPDIR"] = os.environ["TMPDIR"] = tempfile.tempdir = SESSION_FOLDER
# Except what tests wrote themselves: pytest keeps that of the last runs, to be looked at.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/tmp")


# A busy machine makes any example slow.
hypothesis.settings.register_profile("gptmill", deadline=None)
hypothesis.settings.load_profile("gptmill")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The workflows first: they take longest, and the two processes that share the files should end together."""
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


@pytest.fixture(scope="session")
def browser() -> str:
    """A Chromium; tests that need it are skipped where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser; looked for {', '.join(BROWSERS)}")
    return found
