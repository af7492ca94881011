"""Take the pictures of the admin page that the documentation shows.

``scripts/screenshots`` writes them to ``docs/pictures``: each view on a phone and on a desk, light
and dark. The house and the broker are fakes, the daemon is a real one, whose tokens were used over
four weeks; dates and QR codes change from one time to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, FilePayload, Page, StorageState

from tests import importing
from tests.browser.admin.owner import DESK, PHONE
from tests.browser.browsing import browsing, visiting
from tests.browser.screenshots import PICTURES
from tests.daemon import Daemon
from tests.fakes.broker import FakeBroker
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import daemon_with_admin, key

_DEVICES: Final = {"phone": PHONE, "desktop": DESK}
_THEMES: Final = ("light", "dark")
# as like Roboto as anything that every machine has which can take them
_FONTS: Final = ':root { --wa-font-family-body: "Liberation Sans", sans-serif; }'
_ARRIVE: Final = """\
- action: lock.unlock
  target:
    entity_id: lock.front_door
- action: light.turn_on
  target:
    entity_id: light.hall
  data:
    brightness_pct: 60
"""
_GARAGE: Final = "action: cover.open_cover\ntarget:\n  entity_id: cover.garage\n"
# what One Time Service keeps
_OLD: Final = {
    "service_calls": {
        "Let me in": importing.DOOR,
    },
    "tokens": {
        code * 32: importing.token(
            service_call_name="Let me in",
            expires=expires,
            uses_max=most,
            uses_left=left,
            comment=comment,
        )
        for code, expires, most, left, comment in (
            ("a", None, 1, 1, "Chimney sweep"),
            ("b", None, 12, 7, "Heating engineer"),
            ("c", "2031-03-01T18:00:00Z", 6, 6, "Band practice"),
            ("d", None, 20, -1, "Meter reader"),
        )
    },
}
_BROWSERS: Final = (
    (
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/142.0.0.0 Mobile Safari/537.36"
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
        "Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
    ),
)


class House:
    """A daemon that has been in use for weeks."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.ids: dict[str, str] = {}
        self.now = datetime.now(UTC)
        self._chance = random.Random(28)

    async def _mint(self, action: str, comment: str, **more: Any) -> str:
        token = await self.daemon.mint(action, comment=comment, **more)
        self.ids[comment] = token["id"]
        return str(token["id"])

    async def furnish(self) -> None:
        """Mint what there is, and give it a past while the daemon is down."""
        daemon, now = self.daemon, self.now
        day = timedelta(days=1)
        await daemon.action("garage", _GARAGE, title="Open the garage", defaults={"max_uses": 1})
        await daemon.action(
            "arrive",
            _ARRIVE,
            title="Let me in and switch on the light",
            defaults={"max_uses": 3, "expires_in": "1d"},
        )
        await daemon.action(defaults={"max_uses": 1, "expires_in": "7d"})
        gone = await self._mint("open-door", "Electrician", max_uses=2, expires_in="30d")
        await self._mint("garage", "Parcels", max_uses=1)
        await self._mint("open-door", "House sitter", max_uses=10, expires_in="1h")
        held = await self._mint("garage", "Neighbour", max_uses=None)
        await self._mint("open-door", "Dog walker", max_uses=40, expires_in="52d")
        await self._mint("open-door", "Cleaner", max_uses=20, expires_in="95d")
        await self._mint(
            "arrive",
            "Guests in the attic room",
            max_uses=6,
            valid_from=(now + 2 * day).isoformat(),
            expires_at=(now + 9 * day).isoformat(),
        )
        await self._mint("open-door", "Plumber", max_uses=1, expires_in="7d")
        await daemon.admin("POST", f"/tokens/{gone}/revoke")
        await daemon.admin("POST", f"/tokens/{held}/pause")
        await key(daemon, "Booking system", "mint", "arrive", "open-door", expires_in="365d")
        await key(daemon, "Wall display", "read")
        await daemon.stop()
        with closing(sqlite3.connect(daemon.directory / "otsd.db")) as db, db:
            self._remember(db)
        await daemon.start()
        await daemon.connected()
        await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")

    def _remember(self, db: sqlite3.Connection) -> None:
        # what each was made, and when it was used, in days before now
        for comment, made, begin, end in [
            ("Electrician", 26, 25, 24),
            ("Parcels", 9, 2.1, 2),
            ("House sitter", 24, 21, 12),
            ("Neighbour", 23, 22, 5),
            ("Dog walker", 22, 21, 0.1),
            ("Cleaner", 20, 19, 1.2),
            ("Guests in the attic room", 3, 0, 0),
            ("Plumber", 0.02, 0, 0),
        ]:
            self._age(db, comment, made)
            every = {"Dog walker": 1.0, "Cleaner": 3.4, "House sitter": 1.3}.get(comment, 3.0)
            ago = begin
            while ago > end:
                self._use(db, comment, ago)
                ago -= every * self._chance.uniform(0.7, 1.2)
        expired = int((self.now - timedelta(days=11)).timestamp() * 1000)
        db.execute("UPDATE tokens SET expires_at = ? WHERE comment = 'House sitter'", (expired,))
        self._use(
            db, "Cleaner", 0.31, "unconfirmed", "outcome_unknown", "No answer in 300 seconds."
        )
        self._use(db, "Dog walker", 0.13, "failed", "action_failed", "The lock is jammed.")
        self._use(db, "Dog walker", 0.128)

    def _age(self, db: sqlite3.Connection, comment: str, days: float) -> None:
        made = int((self.now - timedelta(days=days)).timestamp() * 1000)
        db.execute(
            "UPDATE tokens SET created_at = ?, created_by = 'user:Owner' WHERE id = ?",
            (made, self.ids[comment]),
        )

    def _use(  # noqa: PLR0917 - a row of a table
        self,
        db: sqlite3.Connection,
        comment: str,
        days_ago: float,
        state: str = "executed",
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        at = self.now - timedelta(days=days_ago)
        if days_ago > 1:
            wake = time(8 + self._chance.randrange(11), self._chance.randrange(60))
            at = datetime.combine(at, wake, UTC)
        begun = int(at.timestamp() * 1000)
        row = db.execute(
            "SELECT seq, action, max_uses, uses_taken, round FROM tokens WHERE id = ?",
            (self.ids[comment],),
        ).fetchone()
        token, action, most, taken, turn = row
        spent = state != "failed"
        taken += spent
        left = None if most is None else most - taken
        took = 300_000 if state == "unconfirmed" else self._chance.randrange(200, 900)
        db.execute(
            "INSERT INTO submissions (token, action, attempt, state, reason, started_at,"
            " finished_at, uses_left, spent, round, error, remote_ip, user_agent)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(token, action, f"picture-{days_ago:.5f}", state, reason, begun, begun + took),
                *(left, spent, turn, error, f"203.0.113.{token * 7}"),
                _BROWSERS[token % 2],
            ),
        )
        db.execute(
            "UPDATE tokens SET uses_taken = ?, last_used_at = max(coalesce(last_used_at, 0), ?)"
            " WHERE seq = ?",
            (taken, begun, token),
        )


@asynccontextmanager
async def furnished(folder: Path) -> AsyncIterator[tuple[House, FakeHomeAssistant]]:
    """Run everything."""
    async with FakeHomeAssistant() as home, FakeBroker() as broker:
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        home.set_state("light.hall", "off", friendly_name="Hall")
        home.set_state("cover.garage", "closed", friendly_name="Garage")
        settings = {
            **broker.settings,
            "home_assistant.browser_url": '"http://homeassistant.local:8123"',
            "public.base_url": '"https://door.example.org"',
            "public.title": '"Rose Cottage"',
        }
        daemon = daemon_with_admin(folder, home, token=home.token, settings=settings)
        async with daemon:
            await daemon.connected()
            house = House(daemon)
            await house.furnish()
            yield house, home


async def _tokens(page: Page, _: House) -> None:
    await page.get_by_text("Plumber").wait_for()


async def _mint(page: Page, house: House) -> None:
    await _tokens(page, house)
    await page.get_by_role("button", name="New link").click()
    await page.get_by_role("button", name="More choices for Open the front door").click()
    await page.get_by_label("Who is it for?").fill("Cleaner")
    await page.get_by_role("radio", name="Several times").check(force=True)


async def _hand_over(page: Page, _: House) -> None:
    await page.get_by_role("button", name="Link and QR code").click()
    await page.get_by_role("textbox", name="Link", exact=True).wait_for()


async def _token(page: Page, _: House) -> None:
    await page.locator("otsd-token-history li").first.wait_for()


async def _actions(page: Page, _: House) -> None:
    await page.get_by_text("Open the garage").wait_for()
    await page.get_by_text("Front door").first.wait_for()


async def _editor(page: Page, _: House) -> None:
    await page.get_by_text("Home Assistant accepts it.").wait_for()


async def _activity(page: Page, _: House) -> None:
    await page.get_by_text("The lock is jammed.").first.wait_for(state="attached")
    await page.locator("summary", has_text="Cleaner").first.wait_for()


async def _connections(page: Page, _: House) -> None:
    await page.get_by_text("Booking system").first.wait_for()


async def _import(page: Page, _: House) -> None:
    file = FilePayload(
        name="db.json", mimeType="application/json", buffer=json.dumps(_OLD).encode()
    )
    await page.locator("input[type=file]").set_input_files([file])
    await page.get_by_text("Chimney sweep").wait_for()
    await page.get_by_text("Front door").first.wait_for()


_VIEWS: Final[dict[str, tuple[str, Callable[[Page, House], Awaitable[None]]]]] = {
    "tokens": ("#/tokens", _tokens),
    "mint": ("#/tokens", _mint),
    "hand-over": ("#/tokens/{Plumber}", _hand_over),
    "token": ("#/tokens/{Cleaner}", _token),
    "actions": ("#/actions", _actions),
    "editor": ("#/actions/arrive", _editor),
    "activity": ("#/activity", _activity),
    "connections": ("#/connections", _connections),
    "import": ("#/import", _import),
}


async def _log_in(browser: Browser, house: House, home: FakeHomeAssistant) -> StorageState:
    admin = house.daemon.admin_url
    async with visiting(browser) as context:
        sent = await context.request.get(f"{admin}/login", max_redirects=0)
        back = home.authorize(sent.headers["location"], home.add_user("Owner", admin=True))
        await context.request.get(back)
        return await context.storage_state()


async def picture(context: BrowserContext, house: House, name: str) -> bytes:
    """Take one of them, in a page of its own."""
    route, arrange = _VIEWS[name]
    page = await context.new_page()
    try:
        await page.goto(f"{house.daemon.admin_url}/{route.format(**house.ids)}")
        await page.add_style_tag(content=_FONTS)
        await arrange(page, house)
        await page.wait_for_load_state("networkidle")
        await page.evaluate("document.activeElement?.blur()")
        return await page.screenshot(animations="disabled", caret="hide")
    finally:
        await page.close()


async def take(folder: Path) -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as place:
        async with furnished(Path(place)) as (house, home), browsing() as browser:
            session = await _log_in(browser, house, home)
            for device, options in _DEVICES.items():
                for theme in _THEMES:
                    as_this = {**options, "color_scheme": theme, "storage_state": session}
                    async with visiting(browser, **as_this) as context:
                        for name in _VIEWS:
                            taken = await picture(context, house, name)
                            (folder / f"admin-{name}-{device}-{theme}.png").write_bytes(taken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pictures of the admin page.")
    parser.add_argument("folder", nargs="?", type=Path, default=PICTURES, help="where to")
    asyncio.run(take(parser.parse_args().folder))
