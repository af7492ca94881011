"""What many tests share: a clock that they set, a daemon, a fake and a real Home Assistant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.real.home_assistant import HomeAssistant

# so that its assertions say what was seen, as those of a test do
pytest.register_assert_rewrite("tests.walk")

# a busy machine is no fault of the code
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **length: float) -> None:
        """Move it on: ``clock.move(seconds=1)``."""
        self.now += timedelta(**length)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands at 20:15 UTC on a Saturday."""
    return Clock()


@pytest.fixture
async def fake_home() -> AsyncIterator[FakeHomeAssistant]:
    """Run a fake Home Assistant with a front door."""
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked")
        yield home


@pytest.fixture(scope="session")
def real_home_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeAssistant]:
    """Run one real Home Assistant for the whole run; see `real_home`."""
    home = HomeAssistant(tmp_path_factory.mktemp("home"))
    asyncio.run(home.start())
    yield home
    asyncio.run(home.close())


@pytest.fixture
async def real_home(real_home_session: HomeAssistant) -> HomeAssistant:
    """Return the real Home Assistant, running, whatever the test before did to it."""
    real_home_session.thaw()
    if real_home_session.pid is None:
        await real_home_session.start()
    return real_home_session


@pytest.fixture
async def daemon(tmp_path: Path, fake_home: FakeHomeAssistant) -> AsyncIterator[Daemon]:
    """Run otsd as a process of its own, connected to the fake Home Assistant."""
    async with Daemon(tmp_path, url=fake_home.url, token=fake_home.token) as daemon:
        await daemon.connected()
        yield daemon


@pytest.fixture(autouse=True)
def _quiet_asyncio() -> None:
    logging.getLogger("asyncio").setLevel(logging.WARNING)
