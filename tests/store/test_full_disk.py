"""A disk that fills and has room again, under a running daemon."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.fakes.home_assistant import After, FakeHomeAssistant, Proceed


@pytest.fixture
async def daemon(tmp_path: Path, fake_home: FakeHomeAssistant) -> AsyncIterator[Daemon]:
    """Run otsd so that it says little: the limit holds for its log, too."""
    settings = {"log.level": '"warning"'}
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as daemon:
        await daemon.connected()
        await daemon.action()
        for _ in range(15):  # so that the write-ahead log is far longer than the daemon's own
            await daemon.mint()
        yield daemon


@contextmanager
def full(daemon: Daemon) -> Iterator[None]:
    """Let no file of the daemon grow, except its log by a little."""
    assert daemon.process is not None
    room = len(daemon.log) + 8192
    assert (daemon.directory / "otsd.db-wal").stat().st_size > room
    was = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (room, was[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, was)


async def test_a_full_disk_refuses_visitors_spends_nothing_and_is_told_once(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    token = await daemon.mint()
    with full(daemon):
        for _ in range(5):
            answer = await daemon.submit(token["code"])
            assert answer.status == 503
            assert answer.json["code"] == "storage_unavailable"
            assert int(answer.headers["Retry-After"]) > 0
        assert (await daemon.admin("POST", "/tokens", json={"action": "open-door"})).status == 503
        # what is only read goes on
        assert (await daemon.get(f"/?token={token['code']}")).status == 200
        assert (await daemon.status())["home_assistant"]["state"] == "connected"
    assert (await daemon.submit(token["code"])).status == 200
    assert (await daemon.submit(token["code"])).status == 410
    await daemon.announced()
    assert daemon.log.count("the store cannot write") == 1
    assert daemon.log.count("the store can write again") == 1
    assert "Traceback" not in daemon.log


async def test_what_was_done_while_the_disk_filled_is_told_and_written_down_later(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    token = await daemon.mint()
    released = asyncio.Event()
    fake_home.on_call = lambda _: After(released, Proceed())
    submitting = asyncio.create_task(daemon.submit(token["code"], "attempt-1"))
    await fake_home.until(lambda: fake_home.calls)
    with full(daemon):
        released.set()
        assert (await submitting).status == 200
        assert (await daemon.submit(token["code"], "attempt-1")).status == 200
    await daemon.announced()
    (run,) = (await daemon.admin("GET", f"/submissions?token={token['id']}")).json["items"]
    assert run["state"] == "executed"
    assert run["uses_left"] == 0
