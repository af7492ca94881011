"""Debian's Chromium as a phone: with and without JavaScript, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, async_playwright

WIDTH: Final = 390
HEIGHT: Final = 844
# --no-sandbox: the tests may run as root, and all that is opened here is ours
ARGUMENTS: Final = ["--no-sandbox", "--disable-dev-shm-usage"]
_PATIENCE: Final = 15_000


def executable() -> str:
    """Return the path of Chromium; scripts/setup installs it."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("there is no chromium; try: apt-get install chromium")
    return path


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """Run one browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visiting(browser: Browser, **more: Any) -> AsyncIterator[BrowserContext]:
    """Open a phone's browser without a past; ``more`` are playwright's options for a context."""
    phone: dict[str, Any] = {
        "viewport": {"width": WIDTH, "height": HEIGHT},
        "has_touch": True,
        "is_mobile": True,
        "locale": "en-GB",
        "reduced_motion": "reduce",
        **more,
    }
    context = await browser.new_context(**phone)
    context.set_default_timeout(_PATIENCE)
    try:
        yield context
    finally:
        await context.close()
