"""The whole journey, with a real Home Assistant: from its login to a link that somebody has used.

Nobody gives otsd a long-lived token here: all that it has, an administrator gives it in a browser.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from tests.browser.admin.owner import DESK, PHONE
from tests.browser.browsing import visiting
from tests.daemon import OPEN_DOOR
from tests.real.home_assistant import HomeAssistant
from tests.server.owner import daemon_with_admin
from tests.server.test_real_login import Person, person

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="package")]

DOOR = "lock.front_door"
TITLE = "Unlock Front door"


class Surfer:
    """Somebody with a browser, whose fingers or mouse are used; what goes wrong in it is kept."""

    def __init__(self, page: Page, *, fingers: bool, may_ask: list[str]) -> None:
        self.page = page
        self.loads = 0
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self._fingers = fingers
        self._may_ask = may_ask
        page.on("request", self._see)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("console", self._hear)

    def _see(self, request: Request) -> None:
        self.loads += request.is_navigation_request()
        if not any(request.url.startswith(f"{each}/") for each in self._may_ask):
            self.elsewhere.append(request.url)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    async def press(self, what: Locator) -> None:
        await (what.tap() if self._fingers else what.click())

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def row(self, text: str) -> Locator:
        return self.page.locator("otsd-token-list li", has_text=text)

    def step(self, title: str) -> Locator:
        return self.page.locator("otsd-welcome li", has_text=title)

    async def log_in(self, who: Person) -> None:
        """Fill the form of Home Assistant's own page, as people do."""
        await self.page.wait_for_url(f"{who.home.url}/auth/authorize?**")
        await self.page.get_by_label("Username").fill(who.name)
        await self.page.get_by_role("textbox", name="Password").fill(who.password)
        await self.press(self.button("Log in"))

    async def define_by_hand(self) -> None:
        """Write the action in Home Assistant's YAML."""
        await self.press(self.page.get_by_role("link", name="Something else"))
        await self.page.get_by_label("Title").fill(TITLE)
        await self.press(self.page.get_by_role("textbox", name="What Home Assistant does, in YAML"))
        await self.page.keyboard.insert_text(OPEN_DOOR)

    async def define_by_example(self) -> None:
        """Take what is proposed for the house."""
        await self.press(self.page.get_by_role("button", name=TITLE))

    async def make_link(self, comment: str, uses: str) -> str:
        """Make a link with a few choices, and return it."""
        await self.press(self.button(f"More choices for {TITLE}"))
        await self.page.get_by_label("Who is it for?").fill(comment)
        await self.press(self.page.get_by_text("Several times", exact=True))
        await self.page.get_by_label("How many times?").fill(uses)
        await self.press(self.button("Make the link"))
        link = await self.page.get_by_role("textbox", name="Link", exact=True).inner_text()
        await self.press(self.button("Done"))
        await expect(self.page.locator("wa-dialog")).to_have_count(0)
        return link


@asynccontextmanager
async def surfing(browser: Browser, device: dict[str, Any], *may_ask: str) -> AsyncIterator[Surfer]:
    """Open a browser without a past."""
    async with visiting(browser, **device) as context:
        fingers = device.get("has_touch", True)
        yield Surfer(await context.new_page(), fingers=fingers, may_ask=list(may_ask))


@pytest.fixture
async def door(real_home: HomeAssistant) -> AsyncIterator[HomeAssistant]:
    """Return the real Home Assistant with its door locked, and leave it as it was."""
    before = await real_home.state(DOOR)
    await real_home.call("lock", "lock", target={"entity_id": DOOR})
    yield real_home
    back = "unlock" if before == "unlocked" else "lock"
    await real_home.call("lock", back, target={"entity_id": DOOR})


@pytest.mark.parametrize(
    ("device", "define"),
    [
        pytest.param(DESK, Surfer.define_by_hand, id="desk"),
        pytest.param(PHONE, Surfer.define_by_example, id="phone"),
    ],
)
async def test_an_owner_comes_in_hands_over_a_link_sees_it_used_and_ends_it(
    browser: Browser, tmp_path: Path, door: HomeAssistant, device: dict[str, Any], define: Any
) -> None:
    async with (
        person(door) as anna,
        daemon_with_admin(tmp_path, door.url, token=None) as daemon,
        surfing(browser, device, daemon.admin_url, door.url) as owner,
        surfing(browser, PHONE, f"http://localhost:{daemon.port}") as visitor,
    ):
        # in, by Home Assistant's own page
        await owner.page.goto(f"{daemon.admin_url}/")
        await owner.log_in(anna)
        await owner.page.wait_for_url(f"{daemon.admin_url}/**")
        await expect(owner.page.locator("h1")).to_have_text("Welcome")
        await expect(owner.page.get_by_role("button", name="Log out")).to_be_visible()

        # the first steps: connect, say what a link does, make one
        connect = owner.step("Connect otsd")
        await owner.press(connect.get_by_role("link", name="Connect"))
        await owner.log_in(anna)
        await expect(connect.get_by_label("Done")).to_be_visible()
        loads = owner.loads
        await define(owner)
        verdict = owner.page.locator(".verdict")
        await expect(verdict).to_contain_text("Home Assistant accepts it.")
        touched = owner.page.get_by_role("list", name="What it touches")
        await expect(touched).to_have_text("Front door locked")
        await owner.press(owner.button("Save"))
        await expect(owner.step("Say what a link does").get_by_label("Done")).to_be_visible()
        await owner.press(owner.button("Make a link"))
        link = await owner.make_link("Cleaner", "3")
        row = owner.row("Cleaner")
        await expect(row).to_contain_text("3 of 3 left")
        await expect(row).to_contain_text("not used yet")

        # somebody else opens it and presses the button, and the owner's list says so by itself
        await visitor.page.goto(link)
        assert await door.state(DOOR) == "locked"
        await visitor.press(visitor.button(TITLE))
        await visitor.page.locator("[data-code=executed]").wait_for()
        assert await door.state(DOOR) == "unlocked"
        await expect(row).to_contain_text("2 of 3 left")
        await expect(row).to_contain_text("used just now")

        # two taps end it, and whoever has it is told
        await owner.press(row.get_by_role("link"))
        await owner.press(owner.button("Revoke"))
        await owner.press(owner.page.locator("wa-dialog").get_by_role("button", name="Revoke"))
        await expect(owner.page.locator("otsd-token .head otsd-state")).to_have_text("Revoked")
        assert owner.loads == loads  # since otsd was connected
        assert visitor.complaints == []
        await visitor.page.goto(link)
        await visitor.page.locator("[data-code=revoked]").wait_for()
        await expect(visitor.page.locator(".act")).to_have_count(0)
        visitor.complaints = [each for each in visitor.complaints if "410 (Gone)" not in each]

        # out, and out it is
        await owner.press(owner.button("Log out"))
        await expect(owner.page.get_by_role("heading")).to_have_text("You are logged out")
        await owner.page.goto(f"{daemon.admin_url}/")
        await owner.page.wait_for_url(f"{door.url}/auth/authorize?**")
        closed = await owner.page.request.get(f"{daemon.admin_url}/api/v1/session")
        assert (closed.status, (await closed.json())["code"]) == (401, "login_required")

        for surfer in (owner, visitor):
            assert surfer.complaints == []
            assert surfer.elsewhere == []
        assert "Traceback" not in daemon.log
