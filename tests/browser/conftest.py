"""One browser, one gallery of pages and one daemon for all tests of the browser, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.browsing import browsing
from tests.browser.gallery import Place, Wording, gallery
from tests.browser.street import Street
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant

EVIL = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>"


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Return the site of an owner who writes markup into everything."""
    wording = Wording(
        site=f"Rain {EVIL}",
        contact=f"Call {EVIL}",
        title=f"Open {EVIL}",
        comment=f"Plumber {EVIL}",
    )
    async with gallery(tmp_path_factory.mktemp("gallery"), wording) as place:
        yield place


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    settings: Any = {"public.contact": '"Call Anna"'}
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked")
        folder = tmp_path_factory.mktemp("street")
        async with (
            Daemon(folder, url=home.url, token=home.token, settings=settings) as daemon,
            Street(home, daemon) as street,
        ):
            await daemon.connected()
            await daemon.action()
            yield street
            assert "Traceback" not in daemon.log


@pytest_asyncio.fixture(loop_scope="package")
async def street(_street: Street) -> Street:
    """Return a daemon at the end of a line that a test may cut."""
    _street.home.on_call = lambda _: None
    _street.home.calls.clear()
    _street.mend()
    await _street.daemon.connected()
    return _street
