"""Take the pictures of Home Assistant's own pages of the devices of otsd.

``scripts/screenshots`` writes two of them to ``docs/pictures``. With a folder as argument it writes
every device's page, on a phone and on a desk, and the list of entities there, to look at. Home
Assistant, the broker and otsd are real ones, so times and the QR code change from one to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, Page, Route

from tests.browser.browsing import browsing, visiting
from tests.browser.screenshots import PICTURES
from tests.daemon import Daemon
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant

_SCREENS: Final[dict[str, Any]] = {
    "phone": {},
    "desk": {"viewport": {"width": 1280, "height": 1300}, "is_mobile": False, "has_touch": False},
    # just wide enough for two columns
    "docs": {"viewport": {"width": 880, "height": 1300}, "is_mobile": False, "has_touch": False},
}
_SHOWN: Final = {"action": "device-action.png", "link": "device-link.png"}
_MARGIN: Final = 16


@dataclass(frozen=True)
class House:
    """A Home Assistant that knows all of otsd; ``pages`` are addresses by their names."""

    home: HomeAssistant
    pages: dict[str, str]


@asynccontextmanager
async def furnished(folder: Path) -> AsyncIterator[House]:
    """Run everything, with an action and a link that has been used once."""
    settings = {
        "public.base_url": '"https://door.example.org"',
        "admin.base_url": '"http://otsd.lan:8099"',
        "mqtt.publish_links": "true",
    }
    async with HomeAssistant() as home, Mosquitto(folder / "broker") as broker:
        settings |= broker.settings
        await home.add_mqtt(broker.port)
        async with Daemon(folder, url=home.url, token=home.token, settings=settings) as otsd:
            await otsd.connected()
            await otsd.action()
            token = await otsd.mint(comment="Plumber", max_uses=3, expires_in="7d")
            ids = {
                "service": "otsd_service",
                "action": "otsd_action_open-door",
                "link": f"otsd_token_{token['id']}",
            }
            async with asyncio.timeout(30):
                while not (devices := await home.mqtt_devices()).keys() >= {*ids.values()}:
                    await asyncio.sleep(0.1)
                assert (await otsd.submit(token["code"])).status == 200
                while await home.state("event.plumber_submission") in {None, "unknown"}:
                    await asyncio.sleep(0.1)
                while await home.state("image.open_the_front_door_qr_code") in {None, "unknown"}:
                    await asyncio.sleep(0.1)
            pages = {
                name: f"{home.url}/config/devices/device/{devices[each]['id']}"
                for name, each in ids.items()
            }
            yield House(home, {**pages, "entities": f"{home.url}/config/entities?domain=mqtt"})


async def log_in(context: BrowserContext, home: HomeAssistant) -> None:
    """Let the browser know what it would know after logging in to Home Assistant."""
    tokens = {
        "access_token": home.token,
        "token_type": "Bearer",
        "expires_in": 1800,
        "refresh_token": "",
        "hassUrl": home.url,
        "clientId": f"{home.url}/",
        "expires": 9_999_999_999_999,
    }
    stored = {"hassTokens": tokens, "dockedSidebar": "always_hidden"}
    await context.add_init_script(
        "".join(
            f"localStorage.setItem({json.dumps(key)}, {json.dumps(json.dumps(value))});"
            for key, value in stored.items()
        )
    )


@asynccontextmanager
async def owner(browser: Browser, house: House, screen: str) -> AsyncIterator[Page]:
    """Open the browser of an owner who is logged in."""

    async def local_only(route: Route) -> None:
        await (route.continue_() if route.request.url.startswith(house.home.url) else route.abort())

    async with visiting(browser, **_SCREENS[screen]) as context:
        await log_in(context, house.home)
        await context.route("http*://**", local_only)
        yield await context.new_page()


async def visit(page: Page, house: House, name: str) -> None:
    """Go to a page and wait until all of it is there."""
    await page.goto(house.pages[name], wait_until="networkidle")
    if name == "entities":
        await page.get_by_text("Plumber Uses left").first.wait_for()
    else:
        await page.get_by_text("Last used").first.wait_for()
    await page.evaluate("document.fonts.ready")


async def cut_out(page: Page) -> bytes:
    """Take the picture of a device's page, without the empty space around its cards."""
    boxes: list[list[float]] = await page.locator("ha-config-device-page ha-card").evaluate_all(
        "cards => cards.map(each => each.getBoundingClientRect())"
        ".map(box => [box.left, box.right, box.bottom])"
    )
    left = max(min(box[0] for box in boxes) - _MARGIN, 0)
    right = max(box[1] for box in boxes) + _MARGIN
    bottom = max(box[2] for box in boxes) + _MARGIN
    clip: Any = {"x": left, "y": 0, "width": right - left, "height": bottom}
    return await page.screenshot(clip=clip)


async def take(each: Path | None) -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as folder:
        async with furnished(Path(folder)) as house, browsing() as browser:
            if each is None:
                async with owner(browser, house, "docs") as page:
                    for name, file in _SHOWN.items():
                        await visit(page, house, name)
                        (PICTURES / file).write_bytes(await cut_out(page))
                return
            for screen in ("phone", "desk"):
                async with owner(browser, house, screen) as page:
                    for name in house.pages:
                        await visit(page, house, name)
                        await page.screenshot(path=each / f"device-{name}-{screen}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pictures of the devices in Home Assistant.")
    parser.add_argument("folder", nargs="?", type=Path, help="every page as a file of its own")
    asyncio.run(take(parser.parse_args().folder))
