"""One browser for all tests of the admin page, and a house and a daemon for those of each view."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.admin.owner import DEVICES, EVIL, Estate, Owner
from tests.browser.browsing import browsing
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import daemon_with_admin


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def estate(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Estate]:
    """Return a house with a link and two actions, the second of which has markup for its title."""
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked")
        folder = tmp_path_factory.mktemp("estate")
        async with daemon_with_admin(folder, home, token=home.token) as daemon:
            await daemon.connected()
            await daemon.action(defaults={"max_uses": 1, "expires_in": "7d"})
            await daemon.action("evil", title=f"Evil {EVIL}")
            await daemon.mint(comment="Neighbour")
            estate = Estate(home, daemon, browser)
            await estate.log_in()
            yield estate
            assert "Traceback" not in daemon.log


@pytest_asyncio.fixture(loop_scope="package", params=DEVICES)
async def owner(estate: Estate, request: pytest.FixtureRequest) -> AsyncIterator[Owner]:
    """Return an owner with a phone, and one at a desk."""
    async with estate.owner(**DEVICES[request.param]) as owner:
        yield owner


@pytest_asyncio.fixture(loop_scope="package")
async def phone(estate: Estate) -> AsyncIterator[Owner]:
    """Return an owner with a phone."""
    async with estate.owner() as owner:
        yield owner
