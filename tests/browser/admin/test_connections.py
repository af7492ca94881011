"""The connections: how they stand, in words, and what to do; and the keys of programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from tests.browser.admin.owner import EVIL, Estate, Owner
from tests.fakes.home_assistant import Fail, FakeHomeAssistant
from tests.server.owner import daemon_with_admin

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def home(estate: Estate) -> AsyncIterator[FakeHomeAssistant]:
    """Return the house, which is there and lets otsd in again after a test."""
    yield estate.home
    estate.home.refuse_token(refuse=False)
    await estate.daemon.admin("POST", "/home-assistant/retry")
    await estate.daemon.connected()


def card(owner: Owner, name: str) -> Locator:
    return owner.page.get_by_role("region", name=name)


async def test_links_that_nobody_else_can_open_are_told_of_until_otsd_has_another_address(
    phone: Owner,
) -> None:
    await phone.go("#/connections")
    warning = phone.page.locator("otsd-connections .notice")
    await expect(warning).to_contain_text("Links begin with http://localhost")
    await phone.check_access()
    await phone.check_width()

    async def answer(route: Route) -> None:
        response = await route.fetch()
        session = {**await response.json(), "base_url": "https://door.example.org"}
        await route.fulfill(response=response, json=session)

    await phone.page.route("**/api/v1/session", answer)
    await phone.page.evaluate("dispatchEvent(new Event('online'))")  # as after a restart
    await expect(warning).to_have_count(0)


def key_named(owner: Owner, name: str) -> Locator:
    return owner.page.locator("otsd-api-keys li", has_text=name)


async def until_key_exists(owner: Owner, name: str, *, exists: bool) -> None:
    listed = (await owner.daemon.admin("GET", "/api-keys")).json["items"]
    assert any(each["name"] == name for each in listed) == exists


async def test_both_connections_are_told_in_words(owner: Owner, home: FakeHomeAssistant) -> None:
    await owner.go("#/connections")
    await expect(card(owner, "Home Assistant")).to_contain_text("Connected")
    await expect(card(owner, "Home Assistant")).to_contain_text(home.version)
    await expect(card(owner, "Home Assistant")).to_contain_text(
        "with the access token of the configuration"
    )
    await expect(card(owner, "MQTT")).to_contain_text("MQTT is optional")
    await expect(owner.button("Disconnect")).to_have_count(0)
    await owner.check_access()
    await owner.check_width()


async def test_a_house_that_goes_away_and_comes_back_is_told_as_it_happens(
    owner: Owner, home: FakeHomeAssistant
) -> None:
    await owner.go("#/connections")
    it = card(owner, "Home Assistant")
    await expect(it).to_contain_text("Connected")
    await home.stop()
    try:
        await expect(it).to_contain_text("Nothing answers at 127.0.0.1", ignore_case=True)
        await expect(it).to_contain_text("does Home Assistant run")
        await expect(it.get_by_role("button", name="Try again now")).to_be_visible()
        await owner.check_access()
    finally:
        await home.start()
    await expect(it.get_by_role("button", name="Try again now")).to_have_count(0)
    await expect(it).to_contain_text("Connected")
    await expect(it).not_to_contain_text("answers at")


async def test_a_refusal_says_what_to_do_and_is_tried_again_when_asked(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await phone.go("#/connections")
    it = card(phone, "Home Assistant")
    home.refuse_token()
    await home.hang_up()
    await expect(it).to_contain_text("make a new long-lived access token")
    await phone.check_access()
    home.refuse_token(refuse=False)
    await it.get_by_role("button", name="Try again now").click()
    await expect(it).not_to_contain_text("make a new long-lived")
    await expect(it).to_contain_text("Since")


async def test_events_that_wait_are_told(phone: Owner, home: FakeHomeAssistant) -> None:
    home.on_fire = lambda _: Fail("unauthorized", f"Not an administrator {EVIL}")
    try:
        token = await phone.daemon.mint()
        await phone.daemon.submit(token["code"])
        await phone.daemon.until_status(lambda status: status["event_error"])
        await phone.go("#/connections")
        it = card(phone, "Events and notifications")
        await expect(it).to_contain_text("1 event waits for Home Assistant, and none is lost.")
        await expect(it).to_contain_text(f"Not an administrator {EVIL}")
    finally:
        home.on_fire = lambda _: None


async def test_a_key_is_made_shown_once_and_revoked(owner: Owner, home: FakeHomeAssistant) -> None:
    await owner.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    name = f"<img src=x onerror=alert(1)> {datetime.now(UTC).timestamp()}"
    await owner.go("#/connections")
    await owner.button("New key").click()
    await owner.page.get_by_label("Name").fill(name)
    await owner.page.get_by_text("Sees links and what became of them").click()
    await owner.check_access()
    await owner.button("Make the key").click()
    shown = owner.page.get_by_label("The key", exact=True)
    key = await shown.inner_text()
    assert key.startswith("otsd_")
    await owner.button("Copy the key").click()
    await expect(owner.page.locator("otsd-copy")).to_contain_text("Copied")
    assert await owner.page.evaluate("navigator.clipboard.readText()") == key
    session = await owner.daemon.request(
        "GET",
        f"{owner.daemon.admin_url}/api/v1/session",
        headers={"Authorization": f"Bearer {key}"},
    )
    assert (session.status, session.json["scope"]) == (200, "read")
    await owner.button("Done").click()
    await expect(shown).to_have_count(0)
    assert key not in await owner.page.content()
    it = key_named(owner, name)
    await expect(it).to_contain_text("may read")
    await expect(it).to_contain_text("expires")
    await it.get_by_role("button", name="Revoke").click()
    await owner.page.locator("wa-dialog").get_by_role("button", name="Revoke").click()
    await expect(it).to_have_count(0)
    await until_key_exists(owner, name, exists=False)


async def test_a_key_for_links_names_its_actions(phone: Owner, home: FakeHomeAssistant) -> None:
    name = f"Booking {datetime.now(UTC).timestamp()}"
    await phone.daemon.action("book", title="Let guests in")
    await phone.go("#/connections")
    await phone.button("New key").click()
    await phone.page.get_by_label("Name").fill(name)
    await phone.page.get_by_text("Makes links of the actions").click()
    await phone.button("Make the key").click()
    await expect(phone.page.get_by_role("alert")).to_contain_text("names its actions")
    await phone.page.get_by_role("checkbox", name="Let guests in").check()
    await phone.button("Make the key").click()
    await phone.button("Done").click()
    await expect(key_named(phone, name)).to_contain_text("may make links: Let guests in")


async def test_the_name_of_a_key_that_is_taken_is_said_at_the_field(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    name = f"Twice {datetime.now(UTC).timestamp()}"
    await phone.daemon.admin("POST", "/api-keys", json={"name": name, "scope": "read"})
    await phone.go("#/connections")
    await phone.button("New key").click()
    field = phone.page.get_by_label("Name")
    await field.fill(name)
    await phone.button("Make the key").click()
    await expect(field).to_have_accessible_description(f"There is a key '{name}' already.")


async def test_otsd_is_connected_by_a_login_and_disconnected(
    browser: Browser, home: FakeHomeAssistant, tmp_path: Path
) -> None:
    async with daemon_with_admin(tmp_path, home, token=None) as daemon:
        estate = Estate(home, daemon, browser)
        await estate.log_in()
        async with estate.owner() as owner:
            await owner.go("#/connections")
            it = card(owner, "Home Assistant")
            await expect(it).to_contain_text("Connect otsd to Home Assistant")
            await owner.check_access()
            await it.get_by_role("link", name="Connect").click()
            await daemon.connected()
            await owner.go("#/connections")
            await expect(it).to_contain_text("by the login of an administrator")
            await it.get_by_role("button", name="Disconnect").click()
            await owner.page.locator("wa-dialog").get_by_role("button", name="Disconnect").click()
            await expect(it.get_by_role("link", name="Connect")).to_be_visible()
            status = await daemon.status()
            assert status["home_assistant"]["state"] == "off"
            owner.requests = [each for each in owner.requests if home.url not in each.url]
