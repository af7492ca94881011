"""The activity: what became of each submission, as it happens, and its use given back."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Route, expect

from tests.browser.admin.owner import EVIL, Estate, Owner
from tests.fakes.home_assistant import Fail, FakeHomeAssistant, HangUp

pytestmark = pytest.mark.asyncio(loop_scope="package")

STEPS = "- action: lock.unlock\n  target: {entity_id: lock.front_door}\n- action: light.turn_on\n"


@pytest_asyncio.fixture(loop_scope="package")
async def home(estate: Estate) -> AsyncIterator[FakeHomeAssistant]:
    """Return the house, which does what it is asked again after a test."""
    await estate.daemon.connected()
    yield estate.home
    estate.home.on_call = lambda _: None
    await estate.daemon.connected()


async def submitted(owner: Owner, action: str = "open-door", **body: Any) -> Any:
    """Make a token with a comment of its own, and submit it."""
    comment = f"{body.pop('comment', 'Plumber')} {datetime.now(UTC).timestamp()}"
    token = await owner.daemon.mint(action, comment=comment, **body)
    await owner.daemon.submit(token["code"])
    await owner.daemon.until_status(lambda s: s["counts"]["running_submissions"] == 0)
    return token


async def failed_partway(owner: Owner, home: FakeHomeAssistant, **body: Any) -> Any:
    home.on_call = lambda _: Fail("home_assistant_error", f"The lamp is broken {EVIL}")
    await owner.daemon.action("arrive", STEPS, title="Let me in")
    return await submitted(owner, "arrive", **body)


def row(owner: Owner, token: Any) -> Locator:
    return owner.page.locator("otsd-activity li:has(summary)", has_text=token["comment"])


async def uses_left(owner: Owner, token: Any) -> Any:
    return (await owner.daemon.admin("GET", f"/tokens/{token['id']}")).json["uses_left"]


async def test_a_submission_appears_as_it_happens_and_tells_who_it_was(
    owner: Owner, home: FakeHomeAssistant
) -> None:
    await submitted(owner)
    await owner.go("#/activity")
    token = await submitted(owner, comment=f"Anna {EVIL}")
    it = row(owner, token)
    await expect(it).to_contain_text("Done · just now")
    await expect(it).to_contain_text("Open the front door")
    await it.locator("summary").click()
    await expect(it.get_by_role("link", name=token["comment"])).to_have_attribute(
        "href", f"#/tokens/{token['id']}"
    )
    await expect(it.locator("dl")).to_contain_text("127.0.0.1")
    await expect(it.locator("dl")).to_contain_text("aiohttp")
    await expect(it.get_by_role("button", name="Give back the use")).to_have_count(0)
    await owner.check_access()
    await owner.check_width()


async def test_how_long_it_took_is_told_as_far_as_it_is_known(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await submitted(phone)
    begun = datetime(2026, 11, 21, 10, tzinfo=UTC)
    took = timedelta()

    async def answer(route: Route) -> None:
        response = await route.fetch()
        listed = await response.json()
        (first, *_) = listed["items"]
        first["started_at"] = begun.isoformat()
        first["finished_at"] = (begun + took).isoformat()
        await route.fulfill(response=response, json=listed)

    await phone.page.route("**/api/v1/submissions?*", answer)
    it = phone.page.locator("otsd-activity li:has(summary)").first
    for seconds, told in [
        (0.04, "less than 0.1 s"),
        (0.4, "0.4 s"),
        (42.3, "42 s"),
        (299, "5 min"),
    ]:
        took = timedelta(seconds=seconds)
        await phone.go("#/activity")
        await it.locator("summary").click()
        await expect(it.locator("dl")).to_contain_text(told)
        await phone.go("#/actions")


async def test_a_refusal_is_told_with_its_reason_and_that_the_use_came_back(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    home.on_call = lambda _: Fail("home_assistant_error", f"The lock is jammed {EVIL}")
    token = await submitted(phone)
    await phone.go("#/activity")
    it = row(phone, token)
    await expect(it).to_contain_text("It failed: nothing happened, and the use came back")
    await it.locator("summary").click()
    await expect(it.locator("dl")).to_contain_text(f"The lock is jammed {EVIL}")
    await expect(it.get_by_role("button", name="Give back the use")).to_have_count(0)


async def test_a_use_that_stayed_spent_is_given_back_when_the_owner_says_so(
    owner: Owner, home: FakeHomeAssistant
) -> None:
    token = await failed_partway(owner, home)
    await owner.go("#/activity")
    it = row(owner, token)
    await expect(it).to_contain_text("It failed part-way")
    await it.locator("summary").click()
    await it.get_by_role("button", name="Give back the use").click()
    await owner.page.locator("wa-dialog").get_by_role("button", name="Cancel").click()
    await expect(owner.page.locator("wa-dialog")).to_have_count(0)
    assert await uses_left(owner, token) == 0
    await it.get_by_role("button", name="Give back the use").click()
    await owner.page.locator("wa-dialog").get_by_role("button", name="Give it back").click()
    await expect(it).to_contain_text("It failed part-way; the use was given back")
    assert await uses_left(owner, token) == 1
    await expect(it.get_by_role("button", name="Give back the use")).to_have_count(0)


async def test_why_a_use_cannot_be_given_back_is_said(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    token = await failed_partway(phone, home)
    await phone.go("#/activity")
    it = row(phone, token)
    await it.locator("summary").click()
    await phone.daemon.admin("POST", f"/tokens/{token['id']}/replenish")
    await it.get_by_role("button", name="Give back the use").click()
    await phone.page.locator("wa-dialog").get_by_role("button", name="Give it back").click()
    await expect(phone.page.locator("otsd-toaster")).to_contain_text("The token was replenished")


async def test_what_home_assistant_did_not_confirm_is_told_so(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    home.on_call = lambda _: HangUp()
    token = await submitted(phone)
    await phone.go("#/activity")
    await expect(row(phone, token)).to_contain_text("Home Assistant did not confirm it")


async def test_the_list_shows_one_outcome_alone(phone: Owner, home: FakeHomeAssistant) -> None:
    done = await submitted(phone)
    broken = await failed_partway(phone, home)
    await phone.go("#/activity")
    await expect(row(phone, done)).to_be_visible()
    await phone.page.get_by_role("combobox", name="What became of it").click()
    await phone.page.get_by_role("option", name="Failed").click()
    await expect(row(phone, done)).to_have_count(0)
    await expect(row(phone, broken)).to_be_visible()
    home.on_call = lambda _: None
    another = await submitted(phone)
    again = await failed_partway(phone, home)
    await expect(row(phone, again)).to_be_visible()
    await expect(row(phone, another)).to_have_count(0)


async def test_with_its_token_a_history_goes_away(phone: Owner, home: FakeHomeAssistant) -> None:
    token = await submitted(phone)
    await phone.go("#/activity")
    await expect(row(phone, token)).to_be_visible()
    await phone.daemon.admin("DELETE", f"/tokens/{token['id']}")
    await expect(row(phone, token)).to_have_count(0)


async def test_the_chart_says_the_same_in_words_and_follows(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await submitted(phone)
    await phone.go("#/activity")
    chart = phone.page.get_by_role("figure", name="The last four weeks")
    today = chart.get_by_role("row").last
    items = (await phone.daemon.admin("GET", "/submissions/daily?days=28")).json["items"]
    counts = [str(items[-1][each]) for each in ("executed", "unconfirmed", "failed")]
    await expect(today.get_by_role("cell")).to_have_text(counts)
    total = sum(item["executed"] for item in items)
    await expect(chart.get_by_role("list")).to_contain_text(f"{total} done")
    assert await chart.locator("svg g").count() == 28
    await submitted(phone)
    await expect(chart.get_by_role("list")).to_contain_text(f"{total + 1} done")


async def test_everything_is_exported_as_csv(owner: Owner, home: FakeHomeAssistant) -> None:
    token = await submitted(owner)
    await owner.go("#/activity")
    link = owner.page.get_by_role("link", name="Export as CSV")
    assert await link.get_attribute("href") == "api/v1/submissions.csv"
    async with owner.page.expect_download() as download:
        await link.click()
    found = await download.value
    assert found.suggested_filename == "submissions.csv"
    rows = list(csv.DictReader(io.StringIO((await found.path()).read_text())))
    assert rows[0]["token_id"] == token["id"]
    assert rows[0]["state"] == "executed"
