"""The dashboard of the docs: its entities are there, its cards show them, its buttons work."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from playwright.async_api import Page, expect

from tests.blueprints.conftest import ROOT, House, until
from tests.browser.browsing import browsing, visiting
from tests.browser.devices import log_in

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="package")]

DASHBOARD = ROOT / "docs" / "dashboard.yaml"
PATH = "otsd-links"
ENTITY = re.compile(r"\b(?:binary_sensor|button|event|image|sensor|switch)\.(?!press\b)\w+")
FAULTS = "hui-error-card, hui-warning"
PATIENCE = 30_000


@pytest_asyncio.fixture(loop_scope="package")
async def page(house: House) -> AsyncIterator[Page]:
    """Return the page of an owner who is logged in and has a large screen."""
    screen: Any = {"viewport": {"width": 1400, "height": 800}, "is_mobile": False}
    async with browsing() as browser, visiting(browser, **screen) as context:
        context.set_default_timeout(PATIENCE)
        await log_in(context, house.home)
        yield await context.new_page()


@asynccontextmanager
async def dashboard(house: House, config: Any) -> AsyncIterator[str]:
    """Make a dashboard as the front end does, and return the address of its first view."""
    made = await house.home.command(
        "lovelace/dashboards/create", url_path=PATH, title="Links", mode="storage"
    )
    await house.home.command("lovelace/config/save", url_path=PATH, config=config)
    yield f"{house.home.url}/{PATH}/0"
    await house.home.command("lovelace/dashboards/delete", dashboard_id=made["id"])


async def test_a_card_in_error_would_be_noticed(house: House, page: Page) -> None:
    cards = [{"type": "entities", "entities": ["sensor.none"]}, {"type": "nonsense"}]
    async with dashboard(house, {"views": [{"cards": cards}]}) as address:
        await page.goto(address)
        await expect(page.locator(FAULTS)).to_have_count(len(cards), timeout=PATIENCE)


async def test_the_dashboard_shows_and_does_what_it_says(
    house: House, page: Page, tmp_path: Path
) -> None:
    plumber = await house.otsd.mint(comment="Plumber", max_uses=3, expires_in="7d")
    named = set(ENTITY.findall(DASHBOARD.read_text()))
    assert len(named) > 12

    async def missing() -> set[str]:
        return named - {each["entity_id"] for each in await house.home.command("get_states")}

    await until(missing, set())
    async with dashboard(house, yaml.safe_load(DASHBOARD.read_text())) as address:
        await page.goto(address)
        link = page.get_by_role("link", name=re.compile("token="))
        await expect(link).to_have_attribute("href", plumber["url"], timeout=PATIENCE)
        await page.get_by_text("Create a link").click()
        await expect(link).not_to_have_attribute("href", plumber["url"], timeout=PATIENCE)
        url = str(await link.get_attribute("href"))
        assert (await house.otsd.submit(plumber["code"])).status == 200
        tiles = page.locator("hui-tile-card")
        for text in ("Plumber", "executed"):
            await expect(tiles.get_by_text(text)).to_be_visible(timeout=PATIENCE)
        for card in ("hui-picture-entity-card img", "hui-history-graph-card canvas"):
            await expect(page.locator(card).first).to_be_visible(timeout=PATIENCE)
        assert await page.locator(FAULTS).all_inner_texts() == []
        await page.screenshot(path=tmp_path / "dashboard.png", full_page=True)

        await page.locator("ha-switch").click()
        await until(lambda: house.token_state({"token_id": plumber["id"]}), "paused")
        assert (await house.otsd.submit(url.rpartition("=")[2])).status == 200
        none = page.get_by_text("There is no link that can be used")
        await expect(none).to_be_visible(timeout=PATIENCE)
        await expect(link).to_have_count(0)
        await page.locator("ha-switch").click()
        await until(lambda: house.token_state({"token_id": plumber["id"]}), "active")
        await page.get_by_role("button", name="Revoke").click()
        await page.get_by_role("button", name="OK", exact=True).click()
        await until(lambda: house.token_state({"token_id": plumber["id"]}), "revoked")
