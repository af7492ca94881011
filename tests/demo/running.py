"""`otsd demo` as a process, what it says, and what is left of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
from yarl import URL

PATIENCE = 90.0


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something that has no event of its own, and return it."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


def running(words: str) -> dict[int, str]:
    """Return the processes, zombies not counted, whose command line has these words."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if entry.name.isdigit() and words in line and state != "Z":
            found[int(entry.name)] = line
    return found


def _control() -> None:
    """Make standard input the terminal that this session belongs to."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Demo:
    """One call of `otsd demo`; its temporary folders are in ``temporary``."""

    def __init__(
        self,
        *options: str,
        environment: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> None:
        self._options = options
        self._environment = dict(environment or {})
        self._terminal = terminal
        self.process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        # short, because a socket's path must be
        self._folder = tempfile.TemporaryDirectory(prefix="demo-")
        folder = Path(self._folder.name)
        self.temporary = folder / "tmp"
        self.here = folder / "here"
        for each in (self.temporary, self.here):
            each.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "otsd", "demo", *self._options],
                stdin=subprocess.DEVNULL if self._terminal is None else self._terminal,
                stdout=out if self._terminal is None else self._terminal,
                stderr=err if self._terminal is None else self._terminal,
                cwd=self.here,
                env={**os.environ, "TMPDIR": str(self.temporary), **self._environment},
                start_new_session=True,
                preexec_fn=None if self._terminal is None else _control,  # noqa: PLW1509
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._folder.cleanup()

    @property
    def out(self) -> str:
        """What it has said on standard output."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._err.read_text()

    async def said(self, words: str) -> None:
        """Wait until it has said something."""
        assert self.process
        while words not in self.out + self.err:
            assert self.process.poll() is None, self.err
            await asyncio.sleep(0.02)

    async def ready(self) -> Self:
        """Wait until it has said what to do."""
        async with asyncio.timeout(PATIENCE):
            await self.said("Ctrl-C ends everything.\n")
        return self

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal, and return its exit status."""
        assert self.process
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 20)

    async def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        assert self.process
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def left(self) -> dict[str, str]:
        """Return what is there of it: processes, and temporary folders."""
        folders = {each.name: "a folder" for each in self.temporary.iterdir()}
        return running_of(self.temporary) | folders

    async def gone(self) -> None:
        """Wait until nothing is left, but not for long: only the guards of its parts may linger."""
        try:
            await until(lambda: not self.left(), 5)
        except TimeoutError:
            raise AssertionError(self.left()) from None

    # What it has said

    def _read(self, pattern: str) -> str:
        found = re.search(pattern, self.out)
        assert found, self.out
        return found[1]

    @property
    def link(self) -> str:
        """The visitor's link."""
        return self._read(r"visitor's link +(http\S+)")

    @property
    def site(self) -> str:
        """Where the link leads, without the code."""
        return self.link.partition("/?")[0]

    @property
    def code(self) -> str:
        """The link's code."""
        return self.link.partition("token=")[2]

    @property
    def home(self) -> str:
        """The address of Home Assistant, without a path."""
        return self._read(r"Home Assistant +(http://[^/\s]+)/demo-door\n")

    @property
    def admin(self) -> str:
        """The address of the admin page."""
        return self._read(r"The admin page +(http://\S+)\n")

    @property
    def login(self) -> tuple[str, str]:
        """The user and the password."""
        user, password = self._read(r"User, password +(.+)").split(", ")
        return user, password

    @property
    def next_command(self) -> list[str]:
        """The command that makes another link."""
        return shlex.split(self._read(r"another terminal:\n +(.+)"))

    # What a browser does

    async def press(self) -> int:
        """Press the link's button, and return the status of the answer."""
        form = {"token": self.code, "attempt": "the-first-press"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.site}/", data=form, allow_redirects=False) as answer,
        ):
            return answer.status

    async def log_in(self) -> str:
        """Log in to Home Assistant as it says, and return an access token."""
        client = f"{self.home}/"
        code = await self._authorize(client, client)
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        async with (
            aiohttp.ClientSession(self.home) as http,
            http.post("/auth/token", data=form) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["access_token"])

    async def _authorize(self, client: str, redirect: str) -> str:
        """Do what Home Assistant's own page does with the user and the password, and return the code."""
        user, password = self.login
        flow = {
            "client_id": client,
            "handler": ["homeassistant", None],
            "redirect_uri": redirect,
        }
        async with aiohttp.ClientSession(self.home) as http:
            async with http.post("/auth/login_flow", json=flow) as answer:
                step = f"/auth/login_flow/{(await answer.json())['flow_id']}"
            entries = {"client_id": client, "username": user, "password": password}
            async with http.post(step, json=entries) as answer:
                return str((await answer.json())["result"])

    async def enter(self) -> list[str]:
        """Log in to the admin page as it says, and return the comments of the links there."""
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as http:
            async with http.get(f"{self.admin}/login", allow_redirects=False) as answer:
                there = URL(answer.headers["Location"])
            assert str(there).startswith(f"{self.home}/auth/authorize?"), there
            redirect = there.query["redirect_uri"]
            code = await self._authorize(there.query["client_id"], redirect)
            back = URL(redirect).update_query(code=code, state=there.query["state"])
            async with http.get(back) as answer:
                assert answer.status == 200, await answer.text()
            async with http.get(f"{self.admin}/api/v1/tokens") as answer:
                assert answer.status == 200, await answer.text()
                return [each["comment"] for each in (await answer.json())["items"]]

    async def state(self, token: str, entity_id: str) -> str:
        """Ask Home Assistant for the state of an entity."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(self.home, headers=headers) as http,
            http.get(f"/api/states/{entity_id}") as answer,
        ):
            return str((await answer.json())["state"])


def running_of(folder: Path) -> dict[str, str]:
    """Return the processes that a folder belongs to."""
    return {str(pid): line for pid, line in running(f"{folder}/").items()}
