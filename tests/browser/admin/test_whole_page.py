"""The page as a whole: what it weighs, the pages around it, and that what people wrote is text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Response, Route, expect

from tests.browser.admin.owner import DEVICES, EVIL, Estate, Owner
from tests.browser.browsing import visiting
from tests.fakes.home_assistant import Fail, FakeHomeAssistant
from tests.server.owner import daemon_with_admin, key

pytestmark = pytest.mark.asyncio(loop_scope="package")

HEAVIEST = 300_000
# what the browser was sent, with its headers, for each thing that it loaded
LOADED = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(each => [new URL(each.name).pathname, each.transferSize, each.decodedBodySize])"""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def estate(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Estate]:
    """Return a house where everybody writes markup into everything."""
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked", friendly_name=EVIL)
        folder = tmp_path_factory.mktemp("evil")
        settings = {"public.title": f"'''{EVIL}'''"}
        async with daemon_with_admin(folder, home, token=home.token, settings=settings) as daemon:
            await daemon.connected()
            await daemon.action(title=f"Open {EVIL}")
            estate = Estate(home, daemon, browser)
            await estate.log_in()
            yield estate
            assert "Traceback" not in daemon.log


@asynccontextmanager
async def person(estate: Estate, browser: Browser, **more: Any) -> AsyncIterator[Owner]:
    """Come back from Home Assistant's login as somebody whose name is markup."""
    user = estate.home.add_user(EVIL, **more)
    async with visiting(browser) as context:
        owner = Owner(await context.new_page(), estate.daemon)
        sent = await context.request.get(f"{estate.daemon.admin_url}/login", max_redirects=0)
        await owner.page.goto(estate.home.authorize(sent.headers["location"], user))
        yield owner
        assert owner.complaints == []
        assert owner.elsewhere == []


async def check_message(owner: Owner, heading: str) -> None:
    await expect(owner.heading()).to_have_text(heading)
    await owner.check_access()
    await owner.check_width()
    await expect(owner.page.locator("header")).to_have_text(EVIL)  # the site's title
    await expect(owner.page.locator("img")).to_have_count(0)


async def test_the_page_is_there_after_less_than_300_kilobytes(estate: Estate) -> None:
    """Measured in the browser; the editor comes on top, when it is opened."""
    async with estate.owner() as owner:
        await owner.row("").first.or_(owner.page.locator("otsd-welcome")).wait_for()
        loaded = {path: sizes for path, *sizes in await owner.page.evaluate(LOADED)}
    page = {path: loaded[path] for path in loaded if path == "/" or path.startswith("/assets/")}
    assert {path.rpartition(".")[2] for path in page} >= {"/", "js", "css"}
    assert all(sent for sent, _ in page.values())  # nothing came from a cache
    assert sum(sent for sent, _ in loaded.values()) < HEAVIEST
    packed = [path for path, (sent, whole) in page.items() if sent < whole / 2]
    assert {path.rpartition(".")[2] for path in packed} == {"js", "css"}


async def test_what_people_wrote_is_text_on_every_view(estate: Estate, browser: Browser) -> None:
    daemon, home = estate.daemon, estate.home
    program = await key(daemon, f"<img src=x onerror=alert(2)> {len(EVIL)}", "admin")
    minted = await daemon.request(
        "POST",
        f"{daemon.admin_url}/api/v1/tokens",
        headers=program["bearer"],
        json={"action": "open-door", "comment": f"Comment {EVIL}", "max_uses": 5},
    )
    assert minted.status == 201, minted.text
    code, token = minted.json["url"].rpartition("=")[2], minted.json["id"]
    home.on_call = lambda _: Fail("home_assistant_error", f"Jammed {EVIL}")
    submit = f"/api/public/token/submit?token={code}"
    assert (await daemon.post(submit, headers={"User-Agent": f"Agent {EVIL}"})).status == 502

    async with person(estate, browser, admin=True) as owner:
        await owner.go("#/tokens")
        await expect(owner.page.locator("header .brand")).to_have_text(EVIL)
        await expect(owner.page.locator("header .who .strong")).to_have_text(EVIL)
        await expect(owner.page).to_have_title(f"Links · {EVIL}")
        await expect(owner.row("Comment")).to_contain_text(f"Comment {EVIL}")
        await expect(owner.row("Comment")).to_contain_text(f"Open {EVIL}")

        await owner.go(f"#/tokens/{token}")
        await expect(owner.heading()).to_have_text(f"Comment {EVIL}")
        await expect(owner.page.locator("dl.facts")).to_contain_text(program["name"])
        history = owner.page.locator("otsd-token-history li")
        await expect(history).to_contain_text(f"Jammed {EVIL}")

        await owner.go("#/activity")
        it = owner.page.locator("otsd-activity details")
        await it.locator("summary").click()
        for text in (f"Comment {EVIL}", f"Jammed {EVIL}", f"Agent {EVIL}"):
            await expect(it).to_contain_text(text)

        await owner.go("#/actions")
        await expect(owner.page.locator("main li")).to_contain_text(f"Open {EVIL}")
        await owner.go("#/actions/open-door")
        await expect(owner.heading()).to_have_text(f"Open {EVIL}")
        touched = owner.page.get_by_role("list", name="What it touches")
        await expect(touched).to_contain_text(EVIL)

        await owner.go("#/connections")
        await expect(owner.page.locator("otsd-api-keys li")).to_contain_text(program["name"])
        await expect(owner.page.locator("img")).to_have_count(0)


@pytest.mark.parametrize("device", DEVICES)
async def test_the_pages_around_it_can_be_read_by_everybody(
    estate: Estate, browser: Browser, device: str
) -> None:
    async with person(estate, browser) as stranger:
        await check_message(stranger, "You may not enter here")
        await expect(stranger.page.get_by_role("main")).to_contain_text(
            f"{EVIL} is not an administrator"
        )
        await stranger.page.goto(f"{stranger.daemon.admin_url}/callback?code=x&state={EVIL}")
        await check_message(stranger, "This login cannot be finished")
    async with estate.owner(**DEVICES[device]) as owner:
        await owner.page.goto(f"{owner.daemon.admin_url}/connect")
        await check_message(owner, "otsd is connected otherwise")
        await owner.page.get_by_role("link", name="Back").click()
        await owner.page.get_by_role("button", name="Log out").click()
        await check_message(owner, "You are logged out")
    await estate.log_in()


async def test_no_page_is_wider_than_the_narrowest_window(estate: Estate) -> None:
    narrow = {"width": 320, "height": 640}
    async with estate.owner(viewport=narrow) as owner:
        daemon = owner.daemon
        await daemon.action("switch", title="Another one")
        token = await daemon.mint("switch", comment="Guests in the attic room", max_uses=3)
        await daemon.submit(token["code"])
        await key(daemon, "Booking system", "mint", "switch", expires_in="365d")
        for route, there in {
            "tokens": "otsd-token-list li",
            f"tokens/{token['id']}": "otsd-token-history li",
            "actions": "otsd-actions li",
            "actions/new": ".cm-editor",
            "actions/switch": ".verdict .good",
            "activity": "otsd-activity details",
            "connections": "otsd-api-keys li",
            "import": "otsd-import code",
        }.items():
            await owner.go(f"#/{route}")
            await owner.page.locator(there).first.wait_for()
            await owner.check_width()
        await owner.go("#/tokens")
        search = owner.page.get_by_role("searchbox", name="Search")
        box = await search.bounding_box()
        assert box is not None
        assert box["width"] > narrow["width"] / 2


async def test_who_logs_out_stays_out_whatever_the_page_still_asks(estate: Estate) -> None:
    async with estate.owner() as owner:

        def is_refused(answer: Response) -> bool:
            return answer.status == 401 and answer.url.endswith("/status")

        async def delay(route: Route) -> None:
            async with owner.page.expect_response(is_refused):
                answer = await route.fetch(max_redirects=0)
            await route.fulfill(response=answer)

        await owner.page.route("**/logout", delay)
        await owner.page.get_by_role("button", name="Log out").click()
        await expect(owner.heading()).to_have_text("You are logged out")
    await estate.log_in()


@pytest.mark.parametrize("back", ["by itself", "by the browser"])
async def test_a_page_that_is_still_there_after_logging_out_leads_to_the_login_again(
    estate: Estate, back: str
) -> None:
    async with estate.owner() as owner:

        async def nowhere(route: Route) -> None:
            await route.fulfill(status=204)

        async def refuse(route: Route) -> None:
            problem = {"status": 401, "code": "login_required", "detail": "", "errors": []}
            await route.fulfill(status=401, json=problem)

        await owner.page.clock.install()
        await owner.page.reload()
        await owner.row("").first.or_(owner.page.locator("otsd-welcome")).wait_for()
        await owner.page.route("**/logout", nowhere)
        async with owner.page.expect_response("**/logout"):
            await owner.page.get_by_role("button", name="Log out").click()
        if back == "by itself":
            await owner.page.clock.fast_forward("01:01")
        else:
            await owner.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")
        await owner.page.route("**/api/v1/status", refuse)
        await owner.page.route("**/login", lambda route: route.fulfill(body="The login"))
        await owner.page.evaluate("dispatchEvent(new Event('online'))")  # it asks anew
        await expect(owner.page.get_by_text("The login")).to_be_visible()
