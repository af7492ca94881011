"""Presses as they happen: twice, in a tunnel, before going back; each runs once and is told truly."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from playwright.async_api import Error as BrowserError

from tests.browser.browsing import ARGUMENTS, executable, opened, visiting
from tests.browser.street import Street
from tests.daemon import Daemon
from tests.fakes.home_assistant import After, Fail, Succeed
from tests.real.home_assistant import HomeAssistant

pytestmark = pytest.mark.asyncio(loop_scope="package")

both = pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])
PATIENCE = 15_000


async def says(page: Page, headline: str) -> None:
    await expect(page.locator("h1")).to_have_text(headline, timeout=PATIENCE)


async def notes(page: Page, words: str) -> None:
    await expect(page.locator("#note")).to_have_text(re.compile(words), timeout=PATIENCE)


async def failed(page: Page) -> None:
    """Wait for the browser's own page, which says that nothing came."""
    async with asyncio.timeout(PATIENCE / 1000):
        while not page.url.startswith("chrome-error:"):
            await asyncio.sleep(0.02)


async def reload(page: Page) -> None:
    """Reload the browser's own page, whose address is known before it is there."""
    async with asyncio.timeout(PATIENCE / 1000):
        while True:
            try:
                await page.reload()
            except BrowserError:
                await asyncio.sleep(0.05)
            else:
                break


async def attempt_of(page: Page) -> str:
    return await page.locator("[name=attempt]").input_value()


async def uses_left(street: Street, link: str) -> Any:
    answer = await street.daemon.get(f"/api/public/token/details?{link.partition('?')[2]}")
    return answer.json["response"]["uses_left"]


async def center(page: Page) -> tuple[float, float]:
    box = await page.get_by_role("button").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# -- once, and twice -----------------------------------------------------------------------------


@both
async def test_a_tap_says_at_once_that_it_was_taken_and_then_what_became_of_it(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link()
    go = asyncio.Event()
    street.home.on_call = lambda _: After(go, Succeed())
    async with opened(browser, link, java_script_enabled=script) as page:
        await says(page, "Your link is ready")
        attempt = await attempt_of(page)
        await page.get_by_role("button").tap(no_wait_after=True)
        if script:
            await notes(page, "One moment…")
            await expect(page.get_by_role("button")).to_have_attribute("aria-disabled", "true")
        await says(page, "It is being done")
        assert page.url == f"{link}&attempt={attempt}"
        go.set()
        await says(page, "Done")
        assert page.url == f"{link}&attempt={attempt}"
        if script:
            await expect(page.locator("h1")).to_be_focused()
            await notes(page, "^$")
    assert len(street.home.calls) == 1


@both
async def test_two_clicks_within_a_moment_are_one(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link(max_uses=5)
    street.home.on_call = lambda _: After(0.3, Succeed())
    async with opened(browser, link, java_script_enabled=script) as page:
        await page.get_by_role("button").click(click_count=2, delay=5, no_wait_after=True)
        await says(page, "Done")
    assert len(street.home.calls) == 1
    assert await uses_left(street, link) == 4


@both
async def test_two_touches_within_a_moment_are_one(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link(max_uses=5)
    async with opened(browser, link, java_script_enabled=script) as page:
        spot = await center(page)
        await asyncio.gather(page.touchscreen.tap(*spot), page.touchscreen.tap(*spot))
        await says(page, "Done")
    assert len(street.home.calls) == 1
    assert await uses_left(street, link) == 4


@both
async def test_a_tap_at_the_same_spot_once_it_is_done_uses_nothing(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link(max_uses=5)
    async with opened(browser, link, java_script_enabled=script) as page:
        spot = await center(page)
        await page.touchscreen.tap(*spot)
        await says(page, "Done")
        await page.touchscreen.tap(*spot)
        await page.reload()
        await says(page, "Done")
    assert len(street.home.calls) == 1
    assert await uses_left(street, link) == 4


async def test_a_tap_that_was_meant_for_the_page_before_does_not_try_again(
    browser: Browser, street: Street
) -> None:
    """A refusal offers a button at once, where the finger still is."""
    link = await street.link()
    street.home.on_call = lambda _: Fail("home_assistant_error", "jammed")
    async with opened(browser, link) as page:
        await page.get_by_role("button").tap()
        await says(page, "It did not work")
        await expect(page.get_by_role("button")).to_be_disabled()
        await expect(page.get_by_role("button")).to_be_enabled()
        assert len(street.home.calls) == 1
        street.home.on_call = lambda _: None
        await page.get_by_role("button").tap()
        await says(page, "Done")
    assert len(street.home.calls) == 2


@both
async def test_another_use_is_offered_and_is_another_execution(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link(max_uses=2)
    async with opened(browser, link, java_script_enabled=script) as page:
        await page.get_by_role("button").click()
        await says(page, "Done")
        await expect(page.get_by_text("1 use left")).to_be_visible()
        first = page.url
        await page.get_by_text("Use it once more").click()
        await page.get_by_role("button").click()
        await expect(page.get_by_text("No uses left")).to_be_visible()
        await says(page, "Done")
        assert page.url != first
        if script:
            await expect(page.locator("h1")).to_be_focused()
    assert len(street.home.calls) == 2


# -- back, again, restored -----------------------------------------------------------------------


@both
async def test_reloading_what_became_of_it_runs_nothing(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link(max_uses=3)
    async with opened(browser, link, java_script_enabled=script) as page:
        await page.get_by_role("button").click()
        await says(page, "Done")
        for _ in range(2):
            await page.reload()
            await says(page, "Done")
    assert len(street.home.calls) == 1


@both
async def test_going_back_and_forward_runs_nothing_and_says_what_is(
    browser: Browser, street: Street, script: bool
) -> None:
    link = await street.link()
    async with opened(browser, f"{street.url}/", java_script_enabled=script) as page:
        await page.goto(link)
        await page.get_by_role("button").click()
        await says(page, "Done")
        await page.go_back()
        # with the script, the page that was pressed has become the page of its attempt
        await says(page, "Open a link" if script else "This link was used")
        await page.go_forward()
        await says(page, "Done")
    assert len(street.home.calls) == 1


@both
async def test_an_old_page_pressed_again_shows_what_became_of_its_attempt(
    browser: Browser, street: Street, script: bool
) -> None:
    """As a browser shows it that kept the page in memory, with the attempt that it had."""
    link = await street.link(max_uses=3)
    async with visiting(browser, java_script_enabled=script) as context:
        page, kept = await context.new_page(), await context.new_page()
        await page.goto(link)
        attempt = await attempt_of(page)
        await kept.goto(link)
        await page.get_by_role("button").click()
        await says(page, "Done")
        await kept.locator("[name=attempt]").evaluate(f"field => field.value = '{attempt}'")
        await kept.get_by_role("button").click()
        await says(kept, "Done")
        assert kept.url == page.url
    assert len(street.home.calls) == 1


async def test_a_page_that_comes_back_from_memory_looks_again(
    browser: Browser, street: Street
) -> None:
    token = await street.daemon.mint()
    async with opened(browser, f"{street.url}/?token={token['code']}") as page:
        await says(page, "Your link is ready")
        await street.daemon.admin("POST", f"/tokens/{token['id']}/revoke")
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        await says(page, "This link is no longer valid")


@both
async def test_a_tab_that_the_browser_restores_runs_nothing(
    street: Street, tmp_path: Path, script: bool
) -> None:
    link = await street.link(max_uses=3)
    options: Any = {"executable_path": executable(), "java_script_enabled": script}
    async with async_playwright() as playwright:
        launch = playwright.chromium.launch_persistent_context
        context = await launch(tmp_path, args=ARGUMENTS, **options)
        page = context.pages[0]
        await page.goto(link)
        await page.get_by_role("button").click()
        await says(page, "Done")
        address = page.url
        await context.close()
        arguments = [*ARGUMENTS, "--restore-last-session"]
        context = await launch(tmp_path, args=arguments, **options)
        try:
            async with asyncio.timeout(PATIENCE / 1000):
                while not (tabs := [tab for tab in context.pages if tab.url == address]):
                    await asyncio.sleep(0.05)
            await says(tabs[0], "Done")
        finally:
            await context.close()
    assert len(street.home.calls) == 1


# -- a bad network -------------------------------------------------------------------------------


async def test_an_answer_that_is_lost_is_asked_for_again(browser: Browser, street: Street) -> None:
    link = await street.link(max_uses=5)
    async with opened(browser, link) as page:
        street.lose_answers(3)
        await page.get_by_role("button").tap()
        await notes(page, "No connection")
        await says(page, "Done")
        await notes(page, "^$")
    assert street.lost_answers == 3
    assert len(street.home.calls) == 1
    assert await uses_left(street, link) == 4


async def test_without_a_script_a_reload_asks_for_the_answer_that_was_lost(
    browser: Browser, street: Street
) -> None:
    link = await street.link(max_uses=5)
    async with opened(browser, link, java_script_enabled=False) as page:
        street.lose_answers(9)
        await page.get_by_role("button").tap(no_wait_after=True)
        await street.home.until(lambda: street.lost_answers)
        await failed(page)
        street.mend()
        await reload(page)
        await says(page, "Done")
    assert len(street.home.calls) == 1
    assert await uses_left(street, link) == 4


async def test_a_tap_that_does_not_get_through_is_sent_again(
    browser: Browser, street: Street
) -> None:
    link = await street.link()
    async with opened(browser, link) as page:
        street.cut()
        await page.get_by_role("button").tap()
        await notes(page, "No connection")
        assert street.home.calls == []
        street.mend()
        await says(page, "Done")
    assert len(street.home.calls) == 1


async def test_reloading_while_nothing_is_answered_asks_for_the_attempt(
    browser: Browser, street: Street
) -> None:
    link = await street.link()
    async with opened(browser, link) as page:
        street.lose_answers(9)
        await page.get_by_role("button").tap()
        await notes(page, "No connection")
        street.mend()
        await page.reload()
        await says(page, "Done")
    assert len(street.home.calls) == 1


async def test_a_tap_of_long_ago_opens_nothing_by_itself(browser: Browser, street: Street) -> None:
    """A phone that finds its network again in a pocket, when its owner has left."""
    link = await street.link()
    async with visiting(browser) as context:
        page = await context.new_page()
        await page.clock.install()
        await page.goto(link)
        attempt = await attempt_of(page)
        street.cut()
        await page.get_by_role("button").tap()
        await notes(page, "No connection")
        await page.clock.fast_forward(60_000)
        street.mend()
        await page.clock.run_for(10_000)
        await notes(page, "nothing was done. Please tap again")
        await says(page, "Your link is ready")
        assert street.home.calls == []
        # should the first have been on its way all the same, this is the same attempt
        assert await attempt_of(page) == attempt
        await page.clock.run_for(2_000)
        await page.get_by_role("button").tap()
        await page.clock.run_for(1_000)
        await says(page, "Done")
    assert len(street.home.calls) == 1


# -- pages that follow what happens --------------------------------------------------------------


@both
async def test_a_link_to_come_opens_by_itself(
    browser: Browser, street: Street, script: bool
) -> None:
    from datetime import UTC, datetime, timedelta

    soon = datetime.now(UTC) + timedelta(seconds=3)
    link = await street.link(valid_from=soon.isoformat())
    async with opened(browser, link, java_script_enabled=script) as page:
        await says(page, "This link is not valid yet")
        count = page.get_by_role("timer")
        if script:
            await expect(count).to_have_text(re.compile(r"in 0:0[123]"))
        else:
            await expect(count).to_be_hidden()
        await says(page, "Your link is ready")
        assert datetime.now(UTC) >= soon


async def test_a_countdown_says_days_hours_and_minutes(browser: Browser, street: Street) -> None:
    from datetime import UTC, datetime, timedelta

    cases = [(timedelta(days=3, hours=5, minutes=1), "in 3 days, 5 h")]
    cases += [(timedelta(hours=30, minutes=5), "in 1 day, 6 h")]
    async with visiting(browser) as context:
        page = await context.new_page()
        for length, words in cases:
            begin = datetime.now(UTC) + length
            await page.goto(await street.link(valid_from=begin.isoformat()))
            await expect(page.get_by_role("timer")).to_have_text(words)
        begin = datetime.now(UTC) + timedelta(hours=2, minutes=3)
        await page.goto(await street.link(valid_from=begin.isoformat()))
        await expect(page.get_by_role("timer")).to_have_text(re.compile(r"in 2:0[23]:\d\d"))


async def test_a_page_waits_for_a_house_that_is_away(browser: Browser, street: Street) -> None:
    link = await street.link()
    async with (
        visiting(browser) as scripted,
        visiting(browser, java_script_enabled=False) as plain,
    ):
        pages = [await context.new_page() for context in (scripted, plain)]
        await street.home.stop()
        try:
            await street.daemon.until_status(lambda s: s["home_assistant"]["state"] != "connected")
            for page in pages:
                await page.goto(link)
                await says(page, "The house cannot be reached right now")
        finally:
            await street.home.start()
        await street.daemon.connected()
        for page in pages:
            await says(page, "Your link is ready")


async def test_with_the_script_a_page_that_waits_is_not_loaded_anew(
    browser: Browser, street: Street
) -> None:
    """So that a screen reader does not begin again at every look."""
    link = await street.link()
    go = asyncio.Event()
    street.home.on_call = lambda _: After(go, Succeed())
    form = {"token": link.partition("token=")[2], "attempt": "attempt-1"}
    assert (await street.daemon.post("/", data=form)).status == 303
    async with visiting(browser) as context:
        page = await context.new_page()
        loads: list[str] = []
        page.on("domcontentloaded", lambda page: loads.append(page.url))
        await page.goto(f"{link}&attempt=attempt-1")
        await says(page, "It is being done")
        async with page.expect_request_finished():
            pass
        go.set()
        await says(page, "Done")
        await expect(page.locator("h1")).to_be_focused()
        assert len(loads) == 1
    assert len(street.home.calls) == 1


# -- the form ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", ["{url}/?token={code}", "  {code} ", "Here: {url}/?token={code}."]
)
async def test_the_form_takes_what_a_message_holds(
    browser: Browser, street: Street, written: str
) -> None:
    link = await street.link()
    url, _, code = link.partition("/?token=")
    async with opened(browser, f"{street.url}/") as page:
        await page.get_by_label("The code of your link").fill(written.format(url=url, code=code))
        await page.get_by_role("button").click()
        await says(page, "Your link is ready")
        assert page.url == link


async def test_without_a_script_the_form_takes_a_code_with_spaces_around_it(
    browser: Browser, street: Street
) -> None:
    link = await street.link()
    async with opened(browser, f"{street.url}/", java_script_enabled=False) as page:
        await page.get_by_label("The code of your link").fill(f" {link.partition('=')[2]} ")
        await page.get_by_role("button").click()
        await says(page, "Your link is ready")
        assert page.url == link


# -- all of it -----------------------------------------------------------------------------------


async def test_a_tap_opens_the_door_of_a_real_home_assistant(
    browser: Browser, real_home: HomeAssistant, tmp_path: Path
) -> None:
    before = len(real_home.witnessed(entity="lock.front_door"))
    async with Daemon(tmp_path, url=real_home.url, token=real_home.token) as daemon:
        await daemon.connected()
        await daemon.action()
        code = (await daemon.mint(comment="Plumber"))["code"]
        async with opened(browser, f"{daemon.url}/?token={code}") as page:
            await page.get_by_role("button", name="Open the front door").tap()
            await says(page, "Done")
        await daemon.announced()
    assert len(real_home.witnessed(entity="lock.front_door")) == before + 1
