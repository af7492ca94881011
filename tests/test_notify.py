"""What a service manager hears of a daemon: `sd_notify(3)`, played with a socket of ours."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from otsd.notify import ServiceManager
from tests.daemon import Daemon
from tests.fakes.home_assistant import After, FakeHomeAssistant, Proceed
from tests.scenarios.house import until
from tests.scenarios.steps import form
from tests.server.owner import daemon_with_admin

BEAT = 0.2


class Manager:
    """A service manager's ear."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What it starts a daemon with; nobody knows the number of the process before."""
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(2 * BEAT * 1_000_000))}

    async def hear(self) -> list[str]:
        """Return the next message, by line."""
        async with asyncio.timeout(15):
            heard = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return heard.decode().split("\n")

    def heard(self) -> list[list[str]]:
        """Return what has come until now."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Listen as systemd does, and as containers do."""
    is_path = request.param == "path"
    with Manager(str(tmp_path / "notify") if is_path else f"@otsd-{secrets.token_hex(8)}") as made:
        yield made


async def test_it_says_when_it_serves_that_it_lives_and_when_it_stops(
    tmp_path: Path, fake_home: FakeHomeAssistant, manager: Manager
) -> None:
    answered = asyncio.Event()
    fake_home.on_call = lambda _: After(answered, Proceed())
    otsd = daemon_with_admin(
        tmp_path, fake_home, token=fake_home.token, environment=manager.environment
    )
    process = otsd.spawn()
    try:
        ready, words = await manager.hear()
        assert ready == "READY=1"
        # at this moment, not a little later
        for url in (f"{otsd.url}/healthz", f"{otsd.admin_url}/healthz"):
            assert (await otsd.request("GET", url)).status == 200
        await otsd.status()
        assert words == (
            f"STATUS=Serving on port {otsd.port}; "
            f"the admin page on {otsd.admin_url.rpartition(':')[2]}"
        )
        for _ in range(3):
            assert await manager.hear() == ["WATCHDOG=1"]

        await otsd.connected()
        await otsd.action()
        token = await otsd.mint()
        assert (await form(otsd, token["code"], "the-attempt")).status == 303
        await until(lambda: fake_home.calls)
        process.send_signal(signal.SIGTERM)
        while (heard := await manager.hear()) == ["WATCHDOG=1"]:
            pass
        assert heard == ["STOPPING=1", "STATUS=Stopping; 1 submissions are running"]
        # a manager that goes on watching does not kill it while it waits
        assert await manager.hear() == ["WATCHDOG=1"]
        answered.set()
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        otsd.kill()
    assert all(each == ["WATCHDOG=1"] for each in manager.heard())


async def test_a_daemon_that_hangs_is_silent_and_one_that_goes_on_is_heard_again(
    tmp_path: Path,
) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        async with Daemon(tmp_path, environment=manager.environment) as otsd:
            assert (await manager.hear())[0] == "READY=1"
            assert await manager.hear() == ["WATCHDOG=1"]
            assert otsd.process is not None
            otsd.process.send_signal(signal.SIGSTOP)
            await until(lambda: not manager.heard() and is_stopped(otsd))
            manager.heard()
            await asyncio.sleep(3 * BEAT)
            assert manager.heard() == []
            otsd.process.send_signal(signal.SIGCONT)
            assert await manager.hear() == ["WATCHDOG=1"]


def is_stopped(otsd: Daemon) -> bool:
    """Tell whether the system has stopped the process."""
    assert otsd.process is not None
    return Path(f"/proc/{otsd.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("kind", ["nowhere", "too long", "a stream", "of another machine", "deaf"])
async def test_what_cannot_be_said_ends_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notify"
    address = {"too long": f"/{'x' * 200}", "of another machine": "vsock:2:1234"}.get(kind)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with stream, deaf:
        if kind == "a stream":
            stream.bind(str(path))
        elif kind == "deaf":
            deaf.bind(str(path))
        process = ServiceManager({"NOTIFY_SOCKET": address or str(path)}, os.getpid())
        begun = time.monotonic()
        for _ in range(15 if kind == "deaf" else 1):  # more than a socket holds, unless told so
            process.say("STATUS=nobody hears this")
        assert time.monotonic() - begun < 10


async def test_a_manager_that_is_gone_does_not_keep_it_from_serving(tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "20000"}
    async with Daemon(tmp_path, environment=environment) as otsd:
        assert (await otsd.get("/healthz")).status == 200
        assert await otsd.stop() == 0
    assert "Traceback" not in otsd.log


@pytest.mark.parametrize(
    ("environment", "beats"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "20000"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "42"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "43"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
    ],
)
async def test_the_watchdog_is_fed_if_it_is_meant_for_this_process(
    tmp_path: Path, environment: dict[str, str], beats: bool
) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        process = ServiceManager({"NOTIFY_SOCKET": manager.address, **environment}, 42)
        fed = asyncio.create_task(process.watchdog())
        if beats:
            for _ in range(3):
                assert await manager.hear() == ["WATCHDOG=1"]
            fed.cancel()
        else:
            await asyncio.wait_for(fed, 5)
            assert manager.heard() == []


async def test_without_a_manager_nothing_is_said(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        process = ServiceManager({}, os.getpid())
        process.say("READY=1")
        assert manager.heard() == []
