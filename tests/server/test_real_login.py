"""The login and otsd's own connection with a real Home Assistant."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.daemon import Daemon
from tests.real.home_assistant import HomeAssistant
from tests.server.owner import SESSION, Browser, daemon_with_admin, events

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Person:
    """Somebody who has an account in Home Assistant."""

    home: HomeAssistant
    id: str
    name: str
    password: str

    async def authorize(self, url: str) -> str:
        """Log in where an application sent the browser; return where it is sent then."""
        asked = URL(url).query
        flow = {
            "client_id": asked["client_id"],
            "redirect_uri": asked["redirect_uri"],
            "handler": ["homeassistant", None],
        }
        entries = {
            "client_id": asked["client_id"],
            "username": self.name,
            "password": self.password,
        }
        # newer releases bind the code to the challenge
        challenge = {name: value for name, value in asked.items() if name.startswith("code_")}
        async with aiohttp.ClientSession() as http:
            steps = f"{self.home.url}/auth/login_flow"
            async with http.post(steps, json={**flow, **challenge}) as response:
                begun = await response.json()
            if "flow_id" not in begun:
                async with http.post(steps, json=flow) as response:
                    begun = await response.json()
            async with http.post(f"{steps}/{begun['flow_id']}", json=entries) as response:
                code = (await response.json())["result"]
        back = URL(asked["redirect_uri"]).with_query(code=code, state=asked["state"])
        return str(back)

    async def log_in(self, browser: Browser) -> Any:
        return await browser.get(await self.authorize(await browser.begin()))

    async def connect(self, browser: Browser) -> None:
        back = await browser.get(await self.authorize(await browser.begin("/connect")))
        assert (back.status, back.headers["Location"]) == (303, "./"), back.text

    async def change(self, **what: Any) -> None:
        await self.home.command("config/auth/update", user_id=self.id, **what)


@asynccontextmanager
async def person(home: HomeAssistant, group: str = "system-admin") -> AsyncIterator[Person]:
    """Make an account in Home Assistant, and remove it with all its tokens."""
    name, password = f"person_{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    made = await home.command("config/auth/create", name=name, group_ids=[group])
    found = Person(home, made["user"]["id"], name, password)
    try:
        await home.command(
            "config/auth_provider/homeassistant/create",
            user_id=found.id,
            username=name,
            password=password,
        )
        yield found
    finally:
        await home.command("config/auth/delete", user_id=found.id)


@pytest.fixture
async def daemon(tmp_path: Path, real_home: HomeAssistant) -> AsyncIterator[Daemon]:
    """Run otsd with the real Home Assistant, which it has no token of."""
    async with daemon_with_admin(tmp_path, real_home.url, token=None) as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


@pytest.fixture
async def browser(daemon: Daemon) -> AsyncIterator[Browser]:
    async with Browser(daemon.admin_url) as browser:
        yield browser


def _half_an_hour_later(daemon: Daemon) -> None:
    with closing(sqlite3.connect(daemon.directory / "otsd.db")) as db:
        db.execute("UPDATE sessions SET asked_at = asked_at - 1800000")
        db.commit()


async def test_an_administrator_logs_in_connects_otsd_and_it_stays_connected(
    real_home: HomeAssistant, daemon: Daemon, browser: Browser
) -> None:
    assert (await daemon.status())["home_assistant"]["state"] == "off"
    wrong = _wrong_logins(real_home)
    async with person(real_home) as anna:
        back = await anna.log_in(browser)
        assert (back.status, back.headers["Location"]) == (303, "./"), back.text
        session = (await browser.api("GET", "/session")).json
        assert session["user"] == {"id": anna.id, "name": anna.name}
        assert session["home_assistant"]["configured"] == "none"
        async with events(daemon, browser) as stream:
            await anna.connect(browser)
            while (told := await stream.next("connection"))["item"]["state"] != "connected":
                assert told["id"] == "home_assistant"
        status = await daemon.until_status(
            lambda status: status["home_assistant"]["state"] == "connected"
        )
        assert status["home_assistant"]["error"] is None
        assert status["home_assistant"]["version"] == real_home.version

        await daemon.stop()
        await daemon.start()
        await daemon.connected()
        assert await browser.is_in()
        await daemon.action()
        token = await daemon.mint()
        opened = len(real_home.witnessed(entity="lock.front_door", action="unlock"))
        assert (await daemon.submit(token["code"])).json["response"]["state"] == "executed"
        await real_home.wait_witnessed(opened + 1, entity="lock.front_door", action="unlock")
        await daemon.announced()  # fired, as only an administrator's token may

        _half_an_hour_later(daemon)
        assert await browser.is_in()
        gone = await browser.api("POST", "/home-assistant/disconnect")
        assert gone.status == 204
        await daemon.until_status(lambda status: status["home_assistant"]["state"] == "off")
        assert (await browser.post("/logout")).status == 200
    assert _wrong_logins(real_home) == wrong


def _wrong_logins(home: HomeAssistant) -> int:
    return home.log().count("Login attempt or request with invalid authentication")


async def test_a_connection_that_is_revoked_in_home_assistant_says_so_and_recovers(
    real_home: HomeAssistant, daemon: Daemon, browser: Browser
) -> None:
    async with person(real_home) as anna:
        await anna.log_in(browser)
        await anna.connect(browser)
        await daemon.connected()
        await _revoke(real_home, anna, daemon)
        status = await daemon.until_status(
            lambda status: status["home_assistant"]["state"] == "refused"
        )
        assert "Connect again on the admin page" in status["home_assistant"]["error"]
        assert (await anna.log_in(browser)).status == 303
        await anna.connect(browser)
        await daemon.connected()


async def _revoke(home: HomeAssistant, whose: Person, daemon: Daemon) -> None:
    """Remove every refresh token that a person gave this otsd, as on the profile page."""
    client = f"{home.url}/"
    asked = URL(client).with_query(client_id=client, redirect_uri=client, state="s")
    code = URL(await whose.authorize(str(asked))).query["code"]
    form = {"grant_type": "authorization_code", "code": code, "client_id": client}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{home.url}/auth/token", data=form) as response,
    ):
        access = (await response.json())["access_token"]
    revoked = 0
    async with home.connection(access) as connection:
        for token in await connection.command("auth/refresh_tokens"):
            if token["client_id"] == f"{daemon.admin_url}/":
                await connection.command("auth/delete_refresh_token", refresh_token_id=token["id"])
                revoked += 1
    assert revoked


async def test_a_session_that_is_revoked_in_home_assistant_is_over(
    real_home: HomeAssistant, daemon: Daemon, browser: Browser
) -> None:
    async with person(real_home) as anna:
        await anna.log_in(browser)
        await _revoke(real_home, anna, daemon)
        assert await browser.is_in()
        _half_an_hour_later(daemon)
        assert not await browser.is_in()


async def test_who_is_no_administrator_does_not_get_in(
    real_home: HomeAssistant, browser: Browser
) -> None:
    async with person(real_home, "system-users") as guest:
        answer = await guest.log_in(browser)
        assert answer.status == 403
        assert f"{guest.name} is not an administrator of Home Assistant" in answer.text
        assert SESSION not in browser.cookies
        assert await _tokens_of(real_home, guest) == 0


async def test_who_was_demoted_is_out_although_his_tokens_go_on_working(
    real_home: HomeAssistant, daemon: Daemon, browser: Browser
) -> None:
    async with person(real_home) as anna:
        await anna.log_in(browser)
        assert await _tokens_of(real_home, anna) == 1
        await anna.change(group_ids=["system-users"])
        assert await browser.is_in()
        _half_an_hour_later(daemon)
        answer = await browser.api("GET", "/session")
        assert answer.status == 401
        assert "You are not one any more" in answer.text
        assert await _tokens_of(real_home, anna) == 0


async def _tokens_of(home: HomeAssistant, whose: Person) -> int:
    """Return how many refresh tokens somebody has, as Home Assistant has them on disk."""
    async with person(home) as latest, asyncio.timeout(30):
        while True:
            data = json.loads((home.folder / ".storage" / "auth").read_text())["data"]
            if any(user["id"] == latest.id for user in data["users"]):
                # written after all that came before him
                return sum(token["user_id"] == whose.id for token in data["refresh_tokens"])
            await asyncio.sleep(0.1)


async def test_who_was_deactivated_is_out(
    real_home: HomeAssistant, daemon: Daemon, browser: Browser
) -> None:
    async with person(real_home) as anna:
        await anna.log_in(browser)
        await anna.change(is_active=False)
        _half_an_hour_later(daemon)
        assert not await browser.is_in()


async def test_a_code_works_once(real_home: HomeAssistant, browser: Browser) -> None:
    async with person(real_home) as anna:
        back = URL(await anna.authorize(await browser.begin()))
        assert (await browser.get(str(back))).status == 303
        again = URL(await browser.begin()).query["state"]
        answer = await browser.get(str(back.update_query(state=again)))
        assert answer.status == 400
        assert "Home Assistant does not accept this login" in answer.text
