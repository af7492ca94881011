"""Debian's Chromium as a phone: with and without JavaScript, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

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


@asynccontextmanager
async def opened(browser: Browser, address: str, **more: Any) -> AsyncIterator[Page]:
    """Open a page in such a browser; ``more`` as for `visiting`."""
    async with visiting(browser, **more) as context:
        page = await context.new_page()
        await page.goto(address)
        yield page


def complaints_of(page: Page) -> list[str]:
    """Return the list that what a page complains of will be added to."""
    found: list[str] = []

    def hear(text: str) -> None:
        # that an answer has the status 404 is no fault of the page
        if "the server responded with a status of" not in text:
            found.append(text)

    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: found.append(dialog.message))
    page.on("console", lambda message: hear(message.text))
    return found
