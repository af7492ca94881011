"""What the page shows while the daemon is asked, and when it does not say."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Route, expect

from tests.browser.admin.owner import Owner

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_status_that_is_refused_is_told_until_it_comes_again(phone: Owner) -> None:
    said = "The database cannot be written."
    problem = {"status": 503, "detail": said, "code": "storage_unavailable", "errors": []}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json=problem)

    await phone.page.route("**/api/v1/status", refuse)
    await phone.page.evaluate("dispatchEvent(new Event('online'))")  # it asks anew
    banner = phone.page.locator("otsd-app .banner")
    await expect(banner).to_contain_text(said)
    await expect(banner).to_contain_text("What you see may be old")
    await phone.page.unroute("**/api/v1/status")
    await expect(banner).to_have_count(0)


async def test_what_changes_while_an_older_list_is_on_its_way_is_not_lost(phone: Owner) -> None:
    daemon = phone.daemon
    await daemon.mint(comment="Stays")
    gone = await daemon.mint(comment="Goes")
    await expect(phone.row("Goes")).to_be_visible()
    is_read, may_arrive = asyncio.Event(), asyncio.Event()

    async def delay(route: Route) -> None:
        answer = await route.fetch()
        listed = await answer.json()
        for each in listed["items"]:
            each["comment"] = f"Late {each['comment']}"
        is_read.set()
        await may_arrive.wait()
        await route.fulfill(response=answer, json=listed)

    await phone.page.route("**/api/v1/tokens?state=active*", delay)
    await phone.choose("Active")
    await is_read.wait()
    await daemon.admin("DELETE", f"/tokens/{gone['id']}")
    await expect(phone.row("Goes")).to_have_count(0)
    await daemon.mint(comment="Comes")
    await expect(phone.row("Comes")).to_be_visible()
    may_arrive.set()
    await expect(phone.row("Late Stays")).to_be_visible()
    await expect(phone.row("Comes")).to_be_visible()
    await expect(phone.row("Goes")).to_have_count(0)
