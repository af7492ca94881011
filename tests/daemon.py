"""otsd as its users have it: a process, its two ways in, and its end by its process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy

OPEN_DOOR = "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"
_PATIENCE = 60.0  # that a machine is busy is no fault
_GOODBYE = 15.0
_GIVEN_OUT: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that no call before this one has returned.

    It is one below those that the system gives out, so that it stays free while otsd is down, and
    chosen by chance, so that two runs of the tests at a time hardly ever choose the same. The
    workers of one run (pytest-xdist) have a part of them each.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    share = 10_000 // workers
    while True:
        port = 10_000 + worker * share + random.randrange(share)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _GIVEN_OUT:
                _GIVEN_OUT.add(port)
                return port


def _is_open(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


class Answer:
    """An HTTP answer that was read."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes, json: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.json = json

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @classmethod
    async def of(cls, response: aiohttp.ClientResponse) -> Self:
        """Read a response."""
        body = await response.read()
        is_json = response.content_type.endswith("json")
        json = await response.json(content_type=None) if is_json and body else None
        return cls(response.status, response.headers, body, json)


class Daemon:
    """One storage directory and the daemon that runs on it; `kill` and `start` as you like."""

    def __init__(
        self,
        folder: Path,
        *,
        url: str = "http://127.0.0.1:1",
        token: str | None = "none",
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Write the configuration; ``settings`` are TOML values by key: {"public.title": '"x"'}.

        ``arguments`` are more of ``otsd run``.
        """
        self.folder = folder
        self.port = free_port()
        self.directory = folder / "data"
        self.config = folder / "config.toml"
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = dict(environment or {})
        self._arguments = arguments
        values = {
            "home_assistant.url": f'"{url}"',
            "public.host": '"127.0.0.1"',
            "public.port": str(self.port),
            "admin.port": "0",
            "log.level": '"debug"',
        }
        if token is not None:
            values["home_assistant.token"] = f'"{token}"'
        values.update(settings or {})
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
        self.api = "http://otsd/api/v1"
        self.admin_url = ""  # where the admin page is, for those who know its port

    @property
    def url(self) -> str:
        """The public site."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Everything that was logged so far, by every run."""
        return self.log_file.read_text()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            self.kill()

    def spawn(self, preexec: Any = None) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for it."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "otsd", "run", "--config", str(self.config)),
                    *self._arguments,
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._environment},
                preexec_fn=preexec,  # noqa: PLW1509 - it only sets limits
            )
        return self.process

    async def start(self, preexec: Any = None) -> None:
        """Start the process and wait until it serves."""
        process = self.spawn(preexec)
        async with asyncio.timeout(_PATIENCE):
            while True:
                if process.poll() is not None:
                    raise RuntimeError(f"otsd ended with {process.returncode}: {self.log}")
                with contextlib.suppress(aiohttp.ClientError):
                    # to ask in vain would take more of the machine's time than the start does
                    if _is_open(self.port) and (await self.get("/healthz")).status == 200:
                        return
                await asyncio.sleep(0.01)

    async def stop(self) -> int | None:
        """Ask it to end, and wait until it has; return its exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, _GOODBYE)
        return self.process.returncode

    def kill(self) -> None:
        """End it as a power loss would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(_PATIENCE)

    # -- the two ways in ---------------------------------------------------------------------

    async def request(
        self, method: str, url: str, *, connector: aiohttp.BaseConnector | None = None, **kw: Any
    ) -> Answer:
        """Send one request over a connection of its own."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            http.request(method, url, allow_redirects=False, **kw) as response,
        ):
            return await Answer.of(response)

    async def visit(self, method: str, path: str, **kw: Any) -> Answer:
        """Ask the public site."""
        return await self.request(method, f"{self.url}{path}", **kw)

    async def get(self, path: str, **kw: Any) -> Answer:
        """GET of the public site."""
        return await self.visit("GET", path, **kw)

    async def post(self, path: str, **kw: Any) -> Answer:
        """POST to the public site."""
        return await self.visit("POST", path, **kw)

    async def admin(self, method: str, path: str, **kw: Any) -> Answer:
        """Ask the admin API on the control socket: ``admin("GET", "/status")``."""
        connector = aiohttp.UnixConnector(path=str(self.directory / "otsd.sock"))
        return await self.request(method, f"{self.api}{path}", connector=connector, **kw)

    # -- what tests do often -----------------------------------------------------------------

    async def action(self, name: str = "open-door", yaml: str = OPEN_DOOR, **more: Any) -> Any:
        """Save an action."""
        body = {"title": "Open the front door", "yaml": yaml, **more}
        answer = await self.admin("PUT", f"/actions/{name}", json=body)
        assert answer.status in (200, 201), answer.text
        return answer.json

    async def mint(self, action: str = "open-door", **body: Any) -> Any:
        """Mint a token; the answer has its ``url`` and, here, its ``code``."""
        answer = await self.admin("POST", "/tokens", json={"action": action, **body})
        assert answer.status == 201, answer.text
        return {**answer.json, "code": answer.json["url"].rpartition("=")[2]}

    async def submit(self, code: str, attempt: str | None = None) -> Answer:
        """Submit by the JSON API."""
        headers = {} if attempt is None else {"Idempotency-Key": attempt}
        return await self.post(f"/api/public/token/submit?token={code}", headers=headers)

    async def status(self) -> Any:
        """Return the status."""
        return (await self.admin("GET", "/status")).json

    async def until_status(self, condition: Any, seconds: float = _PATIENCE) -> Any:
        """Wait until the status fulfils a condition, and return it."""
        async with asyncio.timeout(seconds):
            while not condition(status := await self.status()):
                await asyncio.sleep(0.02)
        return status

    async def connected(self, seconds: float = _PATIENCE) -> None:
        """Wait until Home Assistant is connected."""
        await self.until_status(
            lambda status: status["home_assistant"]["state"] == "connected", seconds
        )

    async def announced(self, seconds: float = _PATIENCE) -> None:
        """Wait until no event waits and nothing runs."""
        await self.until_status(
            lambda status: (
                status["counts"]["waiting_events"] == 0
                and status["counts"]["running_submissions"] == 0
            ),
            seconds,
        )

    async def command(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``otsd`` with these arguments and this daemon's configuration."""
        line: Sequence[str] = [sys.executable, "-m", "otsd", *arguments]
        return await asyncio.to_thread(
            subprocess.run,
            line,
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
            timeout=60,
            cwd=self.folder,
            env={**os.environ, **self._environment, "OTSD_CONFIG": str(self.config)},
        )
