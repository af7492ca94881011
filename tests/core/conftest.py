"""A folder for the store that the rules run over."""

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the storage directory of the test; it does not exist yet."""
    return tmp_path / "data"
