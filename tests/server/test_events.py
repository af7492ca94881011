"""Server-sent events: what changed arrives at once, never holds a code, and ends when it must."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server import wire
from tests.server.conftest import Estate
from tests.server.owner import SESSION, Browser, daemon_with_admin, events, key

pytestmark = pytest.mark.asyncio(loop_scope="package")

SOON = 3.0  # promised is 1 s


async def test_a_token_that_is_minted_used_and_deleted_is_told_at_once(estate: Estate) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream, asyncio.timeout(4 * SOON):
        token = await estate.daemon.mint(comment="Plumber")
        told = await stream.next("token")
        shown = (await browser.api("GET", f"/tokens/{token['id']}")).json
        assert told == {"id": token["id"], "item": shown}
        begun = time.monotonic()
        await estate.daemon.submit(token["code"])
        while (told := await stream.next("submission"))["item"]["state"] != "executed":
            assert told["item"]["state"] == "running"
        assert told["item"]["token_id"] == token["id"]
        assert time.monotonic() - begun < SOON
        while (told := await stream.next("token"))["item"]["state"] != "used_up":
            assert told["id"] == token["id"]
        assert (await browser.api("DELETE", f"/tokens/{token['id']}")).status == 204
        while (told := await stream.next("token"))["item"] is not None:
            assert told["id"] == token["id"]


async def test_an_action_that_is_saved_and_deleted_is_told_without_its_yaml(
    estate: Estate,
) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream, asyncio.timeout(2 * SOON):
        await estate.daemon.action("told", title="Told")
        told = await stream.next("action")
        assert (told["id"], told["item"]["title"]) == ("told", "Told")
        assert "yaml" not in told["item"]
        await browser.api("DELETE", "/actions/told")
        assert await stream.next("action") == {"id": "told", "item": None}


async def test_after_so_many_changes_that_a_page_reads_everything_anew_its_stream_ends(
    estate: Estate,
) -> None:
    browser = await estate.owner()
    await estate.daemon.action("many")
    token = await estate.daemon.mint("many")
    async with events(estate.daemon, browser) as stream:
        answer = await browser.api("DELETE", "/actions/many?force=true")
        assert answer.status == 204, answer.text
        assert (await browser.api("GET", f"/tokens/{token['id']}")).json["state"] == "revoked"
        assert await stream.ended(SOON)
    async with events(estate.daemon, browser) as stream, asyncio.timeout(SOON):
        token = await estate.daemon.mint()
        assert (await stream.next("token"))["id"] == token["id"]


async def test_a_connection_that_is_lost_and_comes_back_is_told(tmp_path: Path) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=home.token) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        await daemon.connected()
        await browser.log_in(home)
        async with events(daemon, browser) as stream:
            await home.stop()
            told = await stream.next("connection")
            assert told["id"] == "home_assistant"
            assert told["item"]["state"] == "connecting"
            await home.start()
            while (told := await stream.next("connection"))["item"]["state"] != "connected":
                assert told["id"] == "home_assistant"


async def test_no_event_holds_a_code(estate: Estate) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream:
        token = await estate.daemon.mint(max_uses=3)
        codes = [token["code"]]
        rotated = (await browser.api("POST", f"/tokens/{token['id']}/rotate")).json
        codes.append(rotated["url"].rpartition("=")[2])
        copied = (await browser.api("POST", f"/tokens/{token['id']}/duplicate")).json
        codes.append(copied["url"].rpartition("=")[2])
        await estate.daemon.submit(codes[1])
        seen = ""
        last = await estate.daemon.mint(comment="the last")
        while (told := await stream.next("token"))["id"] != last["id"]:
            seen += str(told)
        assert token["id"] in seen
        assert not any(code in seen or code[:16] in seen for code in codes)
        assert "url" not in seen


async def test_what_changed_often_is_told_as_it_is_now(estate: Estate) -> None:
    browser = await estate.owner()
    token = await estate.daemon.mint()
    async with events(estate.daemon, browser) as stream:
        for number in range(30):
            body = {"comment": f"number {number}"}
            await estate.daemon.admin("PATCH", f"/tokens/{token['id']}", json=body)
        told = 1
        async with asyncio.timeout(SOON):
            while (await stream.next("token"))["item"]["comment"] != "number 29":
                told += 1
        assert told < 30


async def test_there_are_eight_streams_for_one_session_and_others_have_their_own(
    estate: Estate,
) -> None:
    browser, other = await estate.owner(), await estate.owner()
    async with AsyncExitStack() as stack:
        for _ in range(8):
            stream = await stack.enter_async_context(events(estate.daemon, browser))
        refused = await browser.api("GET", "/events")
        assert (refused.status, refused.json["code"]) == (429, "too_many_streams")
        await stack.enter_async_context(events(estate.daemon, other))
        stream.response.close()
        token = await estate.daemon.mint()  # whoever is told learns that nobody listens
        async with asyncio.timeout(10):
            while (await _first_line(browser))[0] != 200:
                await estate.daemon.admin(
                    "PATCH", f"/tokens/{token['id']}", json={"comment": str(time.monotonic())}
                )
                await asyncio.sleep(0.05)


async def _first_line(browser: Browser) -> tuple[int, bytes]:
    async with browser.http.get(f"{browser.base}/api/v1/events") as response:
        return response.status, await response.content.readline()


async def test_streams_end_with_their_session(estate: Estate) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream:
        await browser.post("/logout")
        assert await stream.ended(SOON)


async def test_streams_end_with_the_session_that_a_new_login_replaces(estate: Estate) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream:
        await browser.log_in(estate.home)
        assert await stream.ended(SOON)


async def test_what_changes_after_a_key_was_deleted_is_not_told_to_its_streams(
    estate: Estate,
) -> None:
    made = await key(estate.daemon, "deleted", "read")
    async with events(estate.daemon, **made["bearer"]) as stream:
        assert (await estate.daemon.admin("DELETE", f"/api-keys/{made['id']}")).status == 204
        await estate.daemon.mint()
        with pytest.raises(EOFError):
            await stream.next("token")


async def test_streams_of_another_session_go_on(estate: Estate) -> None:
    browser, other = await estate.owner(), await estate.owner()
    async with events(estate.daemon, other) as stream:
        await browser.post("/logout")
        token = await estate.daemon.mint()
        assert (await stream.next("token"))["id"] == token["id"]


async def test_streams_end_when_otsd_stops_and_do_not_hold_it_up(tmp_path: Path) -> None:
    async with daemon_with_admin(tmp_path, "http://127.0.0.1:1") as daemon:
        made = await key(daemon, "listener", "admin")
        async with (
            events(daemon, **made["bearer"]) as stream,
            events(daemon, **made["bearer"]),
        ):
            begun = time.monotonic()
            ended = asyncio.create_task(stream.ended())
            assert await daemon.stop() == 0
            assert time.monotonic() - begun < 5
            assert await ended


async def test_a_reader_who_takes_nothing_costs_no_memory_and_holds_up_nobody(
    tmp_path: Path,
) -> None:
    async with daemon_with_admin(tmp_path, "http://127.0.0.1:1") as daemon:
        await daemon.action()
        made = await key(daemon, "slow", "read")
        port = URL(daemon.admin_url).port
        assert port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        bearer = made["bearer"]["Authorization"]
        request = wire.request(
            "GET", "/api/v1/events", Connection="keep-alive", Authorization=bearer
        )
        writer.write(request)
        await reader.readuntil(b": here\n")
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        tokens = [await daemon.mint(comment="x" * 500) for _ in range(100)]
        before = _memory(daemon.process.pid) if daemon.process else 0
        assert before
        async with events(daemon, **made["bearer"]) as other:
            for number in range(8):
                for token in tokens:
                    body = {"comment": f"{number} " + "x" * 490}
                    await daemon.admin("PATCH", f"/tokens/{token['id']}", json=body)
            told = await other.next("token")
            assert told["item"]["comment"]
        assert daemon.process is not None
        assert _memory(daemon.process.pid) - before < 8_000
        writer.transport.abort()
        begun = time.monotonic()
        await daemon.stop()
        assert time.monotonic() - begun < 8


def _memory(pid: int) -> int:
    """Return the kilobytes that a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


async def test_a_stream_is_for_who_may_enter(estate: Estate) -> None:
    browser = await estate.browser()
    assert (await browser.api("GET", "/events")).status == 401
    made = await key(estate.daemon, "no listener", "mint", "open-door")
    assert (await browser.api("GET", "/events", headers=made["bearer"])).status == 403


async def test_a_stream_is_passed_on_by_proxies_as_it_comes(estate: Estate) -> None:
    browser = await estate.owner()
    cookies = {SESSION: browser.cookies[SESSION]}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{estate.url}/api/v1/events", cookies=cookies) as response,
    ):
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert await response.content.readline() == b"retry: 2000\n"
