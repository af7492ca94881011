"""A signal ends otsd in order: what runs may finish, nobody is lied to, and it is over in 10 s.

Ten seconds is what systemd's and Docker's users wait, until what is left is killed.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.fakes.home_assistant import After, FakeHomeAssistant, Proceed, Stall
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.scenarios.house import until
from tests.scenarios.steps import form
from tests.server.owner import daemon_with_admin, events, key

KILLED_AFTER = 10.0


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """Run a mosquitto."""
    async with Mosquitto(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
async def otsd(
    tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant
) -> AsyncIterator[Daemon]:
    """Run an otsd with an admin page, connected to both."""
    settings = broker.settings
    daemon = daemon_with_admin(tmp_path, fake_home, token=fake_home.token, settings=settings)
    async with daemon:
        await daemon.connected()
        await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")
        await daemon.action()
        yield daemon


async def running(otsd: Daemon, home: FakeHomeAssistant, code: str, attempt: str) -> None:
    """Submit as a page does, and wait until Home Assistant was asked."""
    asked = len(home.calls)
    assert (await form(otsd, code, attempt)).status == 303
    await until(lambda: len(home.calls) > asked)


async def signalled(otsd: Daemon, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal, and wait until otsd has heard it."""
    assert otsd.process is not None
    otsd.process.send_signal(number)
    await until(lambda: "stopping" in otsd.log)


async def ended(otsd: Daemon) -> int:
    """Wait for the end, and return the exit status."""
    assert otsd.process is not None
    return await asyncio.to_thread(otsd.process.wait, 15)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_while_it_ends_what_is_new_is_refused_and_what_is_known_is_answered(
    otsd: Daemon, fake_home: FakeHomeAssistant, broker: Mosquitto, number: signal.Signals
) -> None:
    answered = asyncio.Event()
    fake_home.on_call = lambda _: After(answered, Proceed())
    token = await otsd.mint(max_uses=5)
    async with Ear(broker) as ear:
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        await running(otsd, fake_home, token["code"], "the-attempt")
        await signalled(otsd, number)

        refused = await otsd.submit(token["code"], "another-one")
        assert (refused.status, refused.json["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        page = await form(otsd, token["code"], "one-more-page")
        assert page.status == 503
        assert int(page.headers["Retry-After"]) > 0
        assert "your link is still good" in page.text
        minted = await otsd.mint()
        assert (await otsd.submit(minted["code"])).json["code"] == "busy"
        assert (await otsd.get("/healthz")).status == 200

        joined = asyncio.create_task(otsd.submit(token["code"], "the-attempt"))
        assert ear.held["otsd/status"] == b"online"
        answered.set()
        answer = await joined
        assert (answer.status, answer.json["response"]["state"]) == (200, "executed")
        assert await ended(otsd) == 0
        await ear.until(lambda: ear.held["otsd/status"] == b"offline")
    assert len(fake_home.calls) == 1
    assert "Traceback" not in otsd.log


async def test_the_end_comes_in_time_whatever_does_not_answer(
    otsd: Daemon, fake_home: FakeHomeAssistant
) -> None:
    fake_home.on_call = lambda _: Stall()
    token = await otsd.mint(max_uses=5)
    await running(otsd, fake_home, token["code"], "the-attempt")
    made = await key(otsd, "listener", "admin")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(events(otsd, **made["bearer"]))
        for port in (otsd.port, int(otsd.admin_url.rpartition(":")[2])):
            _, half = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(half.close)
            half.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\ntoken")
            _, idle = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(idle.close)
        _, half = await asyncio.open_unix_connection(otsd.directory / "otsd.sock")
        stack.callback(half.close)
        half.write(b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        running_it = asyncio.create_task(otsd.admin("POST", "/actions/open-door/run"))
        await until(lambda: len(fake_home.calls) == 2)
        await fake_home.stall()

        begun = time.monotonic()
        await signalled(otsd)
        answers = []
        while otsd.process is not None and otsd.process.poll() is None:
            # each is answered after 2 s, the last one at the end
            answers.append(await otsd.submit(token["code"], "the-attempt"))
            if time.monotonic() - begun > 7:
                break
        assert await ended(otsd) == 0
        took = time.monotonic() - begun
        await asyncio.gather(running_it, return_exceptions=True)
    told = {(answer.status, answer.json["response"]["state"]) for answer in answers}
    assert told == {(202, "running")}
    assert 7.5 < took < KILLED_AFTER
    assert "Traceback" not in otsd.log
    await fake_home.resume()

    await otsd.start()
    answer = await otsd.submit(token["code"], "the-attempt")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")


async def test_a_second_signal_ends_it_at_once_and_in_order(
    otsd: Daemon, fake_home: FakeHomeAssistant, broker: Mosquitto
) -> None:
    fake_home.on_call = lambda _: Stall()
    token = await otsd.mint()
    await running(otsd, fake_home, token["code"], "the-attempt")
    async with Ear(broker) as ear:
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        await signalled(otsd, signal.SIGINT)
        waiting = asyncio.create_task(otsd.submit(token["code"], "the-attempt"))
        assert (await otsd.get("/healthz")).status == 200
        begun = time.monotonic()
        assert otsd.process is not None
        otsd.process.send_signal(signal.SIGINT)
        assert await ended(otsd) == 0
        assert time.monotonic() - begun < 4
        await ear.until(lambda: ear.held["otsd/status"] == b"offline")
    answer = await waiting
    assert (answer.status, answer.json["response"]["state"]) == (202, "running")
    assert "Traceback" not in otsd.log


async def test_what_waits_for_the_disk_at_a_second_signal_is_not_asked_and_costs_nothing(
    otsd: Daemon, fake_home: FakeHomeAssistant
) -> None:
    token = await otsd.mint()
    with closing(sqlite3.connect(otsd.directory / "otsd.db", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")  # the daemon's writer waits for it
        waiting = asyncio.create_task(otsd.submit(token["code"], "the-attempt"))
        await otsd.until_status(lambda status: status["counts"]["running_submissions"] == 1)
        await signalled(otsd, signal.SIGINT)
        assert otsd.process is not None
        otsd.process.send_signal(signal.SIGINT)
        assert (await otsd.get("/healthz")).status == 200
        another.execute("ROLLBACK")
    answer = await waiting
    assert (answer.status, answer.json["code"]) == (503, "home_unavailable")
    assert await ended(otsd) == 0
    assert fake_home.calls == []
    assert "Traceback" not in otsd.log

    await otsd.start()
    await otsd.connected()
    assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 1
    assert (await otsd.submit(token["code"], "another-one")).status == 200
    assert len(fake_home.calls) == 1


async def test_streams_end_with_the_signal_and_do_not_begin_again(
    otsd: Daemon, fake_home: FakeHomeAssistant
) -> None:
    answered = asyncio.Event()
    fake_home.on_call = lambda _: After(answered, Proceed())
    token = await otsd.mint()
    made = await key(otsd, "listener", "read")
    async with events(otsd, **made["bearer"]) as stream:
        await running(otsd, fake_home, token["code"], "the-attempt")
        await signalled(otsd)
        assert await stream.ended(5)
    async with events(otsd, **made["bearer"]) as again:
        assert await again.ended(5)
    # otsd was there all the time
    assert (await otsd.get("/healthz")).status == 200
    answered.set()
    assert await ended(otsd) == 0
