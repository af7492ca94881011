"""A store in a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making, million


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the storage directory of the test; it does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
async def store(directory: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    """Open a new store that has the action ``open-door``."""
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        yield store


@pytest.fixture(scope="session")
def a_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage directory with a million tokens, to be copied."""
    directory = tmp_path_factory.mktemp("million") / "data"
    million.fill(directory)
    return directory
