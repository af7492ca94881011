"""An owner in front of the admin page: logged in with Home Assistant, on a phone or at a desk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, Request, StorageState

from tests.browser.browsing import complaints_of, visiting
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant

PHONE: Final[dict[str, Any]] = {}  # as `visiting` has it
DESK: Final[dict[str, Any]] = {
    "viewport": {"width": 1280, "height": 800},
    "has_touch": False,
    "is_mobile": False,
}
DEVICES: Final = {"phone": PHONE, "desk": DESK}
EVIL: Final = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>"


class Estate:
    """A house, its daemon, and the way in."""

    def __init__(self, home: FakeHomeAssistant, daemon: Daemon, browser: Browser) -> None:
        self.home = home
        self.daemon = daemon
        self._browser = browser
        self._session: StorageState | None = None

    async def log_in(self) -> None:
        """Log in as a browser does; `owner` then comes with the session."""
        async with visiting(self._browser) as context:
            page = await context.new_page()
            await page.goto(f"{self.daemon.admin_url}/")
            await page.locator("otsd-app").wait_for()
            self._session = await context.storage_state()

    @asynccontextmanager
    async def owner(self, **more: Any) -> AsyncIterator[Owner]:
        """Open the admin page; in the end nothing may have gone wrong in the browser."""
        assert self._session is not None
        async with visiting(self._browser, storage_state=self._session, **more) as context:
            owner = Owner(await context.new_page(), self.daemon)
            await owner.go("#/tokens")
            yield owner
            assert owner.complaints == []
            assert owner.elsewhere == []


class Owner:
    """One page of the admin page, and what the browser did and complained of."""

    def __init__(self, page: Page, daemon: Daemon) -> None:
        self.page = page
        self.daemon = daemon
        self.requests: list[Request] = []
        self.complaints = complaints_of(page)
        page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - it must be Python's

    @property
    def elsewhere(self) -> list[str]:
        """What was asked of anybody but the daemon."""
        own = f"{self.daemon.admin_url}/"
        return [each.url for each in self.requests if not each.url.startswith(own)]

    def asked(self, path: str) -> list[str]:
        """Return the requests of the API so far whose path begins like this."""
        begin = f"{self.daemon.admin_url}/api/v1{path}"
        return [each.url for each in self.requests if each.url.startswith(begin)]

    async def go(self, route: str) -> None:
        """Go somewhere and wait until its heading is there."""
        await self.page.goto(f"{self.daemon.admin_url}/{route}")
        await self.heading().wait_for()

    def heading(self) -> Locator:
        return self.page.locator("h1:visible")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def row(self, text: str) -> Locator:
        """Return the row of the list that says this."""
        return self.page.locator("otsd-token-list li", has_text=text)

    def sheet(self) -> Locator:
        """Return what lies over the page: a sheet or a question."""
        return self.page.locator("wa-dialog")

    async def choose(self, name: str) -> None:
        """Take one of a few chips."""
        await self.page.get_by_role("radio", name=name, exact=True).check(force=True)

    async def link(self) -> str:
        """Return the link that is handed over."""
        return await self.page.get_by_role("textbox", name="Link", exact=True).inner_text()

    async def check_access(self) -> None:
        """Hold what is shown to what axe finds, in light and dark."""
        for scheme in ("light", "dark"):
            await self.page.emulate_media(color_scheme=scheme)
            found = await Axe().run(self.page)
            violations = [
                (violation["impact"], violation["id"], violation["nodes"][0]["html"])
                for violation in found.response["violations"]
            ]
            assert violations == [], scheme

    async def check_width(self) -> None:
        """Hold the page to the width of the window."""
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, window = await self.page.evaluate(widths)
        assert wide <= window
