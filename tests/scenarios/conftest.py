"""The houses that scenarios run in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.real.home_assistant import HomeAssistant
from tests.scenarios.house import FakeHouse, House, RealHouse

Make: TypeAlias = Callable[..., Daemon]


@pytest.fixture
async def fake_house() -> AsyncIterator[FakeHouse]:
    """Run a house of the fake kind."""
    async with FakeHomeAssistant() as home:
        yield FakeHouse(home)


@pytest.fixture
async def real_house(real_home: HomeAssistant) -> AsyncIterator[RealHouse]:
    """Lend the real house, which is found running and left running."""
    yield RealHouse(real_home)
    real_home.thaw()
    await real_home.start()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def house(request: pytest.FixtureRequest) -> House:
    """Run a scenario twice: in the fake house, and in the real one."""
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return how to make an otsd that belongs to a house, in a folder of its own."""
    made = 0

    def make(house: House, **more: Any) -> Daemon:
        nonlocal made
        made += 1
        folder = tmp_path / f"otsd-{made}"
        folder.mkdir()
        return Daemon(folder, **{"url": house.url, "token": house.token, **more})

    return make


@pytest.fixture
async def otsd(house: House, make: Make) -> AsyncIterator[Daemon]:
    """Run an otsd that is connected to the house."""
    async with make(house) as daemon:
        await daemon.connected()
        yield daemon
