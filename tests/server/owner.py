"""The owner's side as a browser and a program meet it: cookies are kept, redirects are not followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
from yarl import URL

from tests.daemon import Answer, Daemon, free_port
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.wire import PATIENCE

SESSION = "otsd_session"
LOGIN = "otsd_login"


def daemon_with_admin(folder: Path, home: FakeHomeAssistant | str, **more: Any) -> Daemon:
    """Return a daemon whose admin page is known by ``http://127.0.0.1:PORT``; see `admin_url`."""
    port = free_port()
    settings = {
        "admin.port": str(port),
        "admin.base_url": f'"http://127.0.0.1:{port}"',
        **more.pop("settings", {}),
    }
    url = home if isinstance(home, str) else home.url
    daemon = Daemon(folder, url=url, settings=settings, **more)
    daemon.admin_url = f"http://127.0.0.1:{port}"
    return daemon


class Browser:
    """A browser of one person; it sends what browsers send with requests of a page's own."""

    def __init__(self, base: str) -> None:
        self.base = base

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    @property
    def cookies(self) -> dict[str, str]:
        """What it would send."""
        return {cookie.key: cookie.value for cookie in self.http.cookie_jar}

    def set_cookie(self, name: str, value: str) -> None:
        """Change a cookie, as only its owner can."""
        self.http.cookie_jar.update_cookies({name: value}, URL(self.base))

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send one request; ``path`` may be a whole address."""
        url = path if path.startswith("http") else self.base + path
        if method not in ("GET", "HEAD", "OPTIONS"):
            headers = {"Origin": self.base, "Sec-Fetch-Site": "same-origin"}
            more["headers"] = {**headers, **more.get("headers", {})}
        async with self.http.request(method, url, allow_redirects=False, **more) as response:
            body = await response.read()
            is_json = response.content_type.endswith("json")
            found = json.loads(body) if is_json and body else None
            return Answer(response.status, response.headers, body, found)

    async def get(self, path: str, **more: Any) -> Answer:
        """GET."""
        return await self.ask("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        """POST as a page of the site does."""
        return await self.ask("POST", path, **more)

    async def api(self, method: str, path: str, **more: Any) -> Answer:
        """Ask the admin API."""
        return await self.ask(method, f"/api/v1{path}", **more)

    async def begin(self, path: str = "/login") -> str:
        """Begin a login and return where Home Assistant's own is."""
        answer = await self.get(path)
        assert answer.status == 303, answer.text
        return answer.headers["Location"]

    async def log_in(self, home: FakeHomeAssistant, user_id: str | None = None) -> Answer:
        """Log in as somebody."""
        return await self.get(home.authorize(await self.begin(), user_id))

    async def is_in(self) -> bool:
        """Return whether it may enter."""
        return (await self.api("GET", "/session")).status == 200


class Events:
    """A stream of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, name: str | None = None) -> Any:
        """Return the data of the next event, or of the next of a name."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await self._event()
                if name is None or event[0] == name:
                    return event[1]

    async def _event(self) -> tuple[str, Any]:
        name = ""
        while line := await self.response.content.readline():
            word, _, value = line.decode().rstrip("\n").partition(": ")
            if word == "event":
                name = value
            elif word == "data":
                return name, json.loads(value)
        raise EOFError("the stream has ended")

    async def ended(self, seconds: float = PATIENCE) -> bool:
        """Wait until it ends, and return whether it did in time."""
        try:
            async with asyncio.timeout(seconds):
                while await self.response.content.read(65_536):
                    pass
        except TimeoutError:
            return False
        except aiohttp.ClientError:
            pass
        return True


@asynccontextmanager
async def events(
    daemon: Daemon, browser: Browser | None = None, **headers: str
) -> AsyncIterator[Events]:
    """Listen to what changes, as a browser or as a program with a key."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    cookies = browser.cookies if browser else {}
    async with aiohttp.ClientSession(
        timeout=timeout, cookie_jar=aiohttp.CookieJar(unsafe=True), cookies=cookies
    ) as http:
        url = f"{daemon.admin_url}/api/v1/events"
        async with http.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            while await response.content.readline() != b": here\n":
                pass
            yield Events(response)


async def key(daemon: Daemon, name: str, scope: str, *actions: str, **more: Any) -> Any:
    """Make an API key; ``bearer`` is the header that shows it."""
    body = {"name": name, "scope": scope, **({"actions": list(actions)} if actions else {}), **more}
    answer = await daemon.admin("POST", "/api-keys", json=body)
    assert answer.status == 201, answer.text
    return {**answer.json, "bearer": {"Authorization": f"Bearer {answer.json['key']}"}}
