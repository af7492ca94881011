"""Each recipe of docs/reverse-proxy.md does what the page promises, with the real Caddy and nginx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp
import pytest
import yaml
from playwright.async_api import expect

from tests.browser.browsing import browsing, visiting
from tests.daemon import Answer, Daemon, free_port
from tests.fakes.home_assistant import After, FakeHomeAssistant, Succeed
from tests.proxies import recipes
from tests.proxies.recipes import Place, caddy, nginx
from tests.server.owner import SESSION, Browser, Events
from tests.test_docs import ROOT

PROXIES = {"Caddy": caddy, "nginx": nginx}
SITES = {
    f"{proxy}, {where}": path
    for proxy in PROXIES
    for where, path in {
        "a name of its own": "",
        "below a path": "/door",
        "below a path that it takes off": "/door",
    }.items()
}
VISITOR = "127.0.0.2"
FORGED = {
    "X-Forwarded-For": "198.51.100.7",
    "Forwarded": "for=198.51.100.7",
    "X-Real-IP": "198.51.100.7",
}
PATIENCE = 15_000


@asynccontextmanager
async def site(
    heading: str, folder: Path, home: FakeHomeAssistant
) -> AsyncIterator[tuple[Daemon, Place]]:
    """Run otsd as the page says, behind the proxy of a recipe."""
    path, said = SITES[heading], recipes.settings()
    port = free_port()
    wanted = {
        "public.host": f'"{said["host"]}"',
        "public.base_url": f'"https://127.0.0.1:{port}{path}"',
        "public.trusted_proxies": str(said["trusted_proxies"]),
    }
    run = PROXIES[heading.partition(",")[0]]
    (recipe,) = (text for found in recipes.section(heading).values() for text in found)
    own = folder / "proxy"
    own.mkdir()
    async with Daemon(folder, url=home.url, token=home.token, settings=wanted) as otsd:
        await otsd.connected()
        await otsd.action()
        place = Place(own, port, otsd.port)
        async with run(recipe, place):
            yield otsd, place


async def visit(otsd: Daemon, method: str, url: str, **more: object) -> Answer:
    """Send what a visitor at another address sends, who says that he is somebody else."""
    connector = aiohttp.TCPConnector(local_addr=(VISITOR, 0), ssl=False)
    return await otsd.request(method, url, connector=connector, headers=FORGED, **more)


@pytest.mark.parametrize("heading", SITES)
async def test_everything_works_behind_a_recipe_the_address_is_the_visitors_and_no_code_is_logged(
    heading: str, tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    path = SITES[heading]
    async with site(heading, tmp_path, fake_home) as (otsd, place):
        token = await otsd.mint(max_uses=3)
        link, code = token["url"], token["code"]
        assert link == f"{place.url}{path}/?token={code}"
        await the_page_is_shown_and_submits(otsd, place, path, link)
        await programs_are_answered(otsd, f"{place.url}{path}/api/public", code)
        await the_page_follows_a_running_action(fake_home, link)
        gone = await visit(otsd, "GET", link)
        assert gone.status == 410

        await otsd.announced()
        addresses = [event.data["remote_ip"] for event in fake_home.events]
        assert addresses == [VISITOR, VISITOR, "127.0.0.1"]  # the last was Chromium's

        await otsd.stop()
        assert (await visit(otsd, "GET", link)).status == 502
    assert code not in place.log


async def the_page_is_shown_and_submits(otsd: Daemon, place: Place, path: str, link: str) -> None:
    code = link.rpartition("=")[2]
    page = await visit(otsd, "GET", link)
    assert page.status == 200
    assert f'action="{path}/"' in page.text
    straight = await otsd.get(f"/?token={code}")
    for name in ("Content-Security-Policy", "Cache-Control", "Referrer-Policy", "X-Robots-Tag"):
        assert page.headers.getall(name) == straight.headers.getall(name)
    form = {"token": code, "attempt": "attempt-1"}
    sent = await visit(otsd, "POST", f"{place.url}{path}/", data=form)
    assert sent.status == 303
    assert sent.headers["Location"] == f"{path}/?token={code}&attempt=attempt-1"
    done = await visit(otsd, "GET", place.url + sent.headers["Location"])
    assert (done.status, "Done" in done.text) == (200, True)
    large = await visit(otsd, "POST", f"{place.url}{path}/", data={"token": "x" * 20_000})
    assert large.status == 413


async def programs_are_answered(otsd: Daemon, api: str, code: str) -> None:
    details = await visit(otsd, "GET", f"{api}/token/details?token={code}")
    assert details.json["response"]["uses_left"] == 2
    submit = await visit(otsd, "POST", f"{api}/token/submit?token={code}")
    assert submit.json["response"]["state"] == "executed"
    unknown = await visit(otsd, "GET", f"{api}/token/details?token=unknown")
    assert (unknown.status, unknown.json["code"]) == (404, "unknown_token")
    assert (await visit(otsd, "GET", f"{api}/ping")).json == {"response": "pong"}


async def the_page_follows_a_running_action(home: FakeHomeAssistant, link: str) -> None:
    go = asyncio.Event()
    home.on_call = lambda _: After(go, Succeed())
    async with (
        browsing() as browser,
        visiting(browser, ignore_https_errors=True) as context,
        aiohttp.ClientSession() as http,
    ):
        complaints: list[str] = []
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        await page.goto(link)
        await page.get_by_role("button").tap(no_wait_after=True)
        await expect(page.locator("h1")).to_have_text("It is being done", timeout=PATIENCE)
        assert page.url.startswith(f"{link}&attempt=")
        # without JavaScript a header does the same
        async with http.get(page.url, ssl=False) as waiting:
            assert "Refresh" in waiting.headers
        go.set()
        await expect(page.locator("h1")).to_have_text("Done", timeout=PATIENCE)
        assert complaints == []  # the policy let the styles and the script in


class Apart(Browser):
    """A browser that takes the certificates of these proxies."""

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            connector=aiohttp.TCPConnector(ssl=False),
            timeout=aiohttp.ClientTimeout(total=PATIENCE / 1000),
        )
        return self


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_admin_page_works_and_its_events_come_at_once(
    proxy: str, tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    if proxy == "Caddy":
        recipe = recipes.section("Behind a reverse proxy", ROOT / "docs" / "admin.md")[""][0]
    else:
        (recipe,) = recipes.section("The admin page, with nginx")["conf"]
    own = tmp_path / "proxy"
    own.mkdir()
    admin, port = free_port(), free_port()
    wanted = {"admin.port": str(admin), "admin.base_url": f'"https://127.0.0.1:{port}"'}
    async with Daemon(tmp_path, url=fake_home.url, token=fake_home.token, settings=wanted) as otsd:
        await otsd.connected()
        await otsd.action()
        place = Place(own, port, otsd.port, admin)
        async with PROXIES[proxy](recipe, place), Apart(place.url) as owner:
            back = await owner.log_in(fake_home)
            assert (back.status, back.headers["Location"]) == (303, "./")
            (session,) = (each for each in back.headers.getall("Set-Cookie") if SESSION in each)
            assert "Secure" in session
            assert (await owner.get("/")).status == 200
            made = await owner.api("POST", "/tokens", json={"action": "open-door"})
            assert made.status == 201

            async with owner.http.get(f"{place.url}/api/v1/events") as stream:
                assert stream.status == 200
                events = Events(stream)
                # a proxy that held it back would go on until otsd's next sign of life, in 15 s
                async with asyncio.timeout(8):
                    while await stream.content.readline() != b": here\n":
                        pass
                    token = await otsd.mint()
                    assert (await events.next("token"))["id"] == token["id"]


def test_the_file_for_cloudflare_tunnel_can_be_read_and_ends_with_a_rule_for_the_rest() -> None:
    (text,) = recipes.section("Cloudflare Tunnel")["yml"]
    tunnel = yaml.safe_load(text)
    first, last = tunnel["ingress"]
    assert first["service"] == "http://127.0.0.1:1337"
    assert set(last) == {"service"}
