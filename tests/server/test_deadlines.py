"""A request is complete in time or its connection closes; connections are bounded."""

import asyncio
import resource
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd.server.listener import Limits
from tests.daemon import Daemon
from tests.server import wire
from tests.server.conftest import Place

pytestmark = pytest.mark.asyncio(loop_scope="package")

SHORT = Limits(timedelta(seconds=0.4), timedelta(seconds=0.4))
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"


async def drip(port: int, first: bytes, every: float) -> bytes:
    """Send something, then a byte every now and then, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)

    async def more() -> None:
        while True:
            await asyncio.sleep(every)
            writer.write(b"a")

    dripping = asyncio.create_task(more())
    try:
        async with asyncio.timeout(wire.PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        dripping.cancel()
        writer.close()


async def silent(port: int, *parts: bytes) -> bytes:
    """Send parts and wait, without a word more, until the server closes."""
    try:
        return await wire.talk(port, *parts)
    except ConnectionError:
        return b""


async def closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the server has closed, whichever way, having said nothing."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


SLOW: dict[str, tuple[Callable[[int, float], Any], list[int]]] = {
    "nothing": (lambda port, _: silent(port), []),
    "half a head": (lambda port, _: silent(port, HEAD), []),
    "a head byte by byte": (lambda port, every: drip(port, HEAD + b"X-A: ", every), []),
    "half a body": (lambda port, _: silent(port, POST + b"Content-Length: 50\r\n\r\ntoken"), []),
    "a body byte by byte": (
        lambda port, every: drip(port, POST + b"Content-Length: 5000\r\n\r\ntoken=", every),
        [],
    ),
    "half a chunk": (
        lambda port, _: silent(port, POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\ntoken"),
        [],
    ),
    "no second request": (lambda port, _: silent(port, HEAD + b"\r\n"), [200]),
    "half a second request": (lambda port, _: silent(port, HEAD + b"\r\n", HEAD), [200]),
    "half a second request at once": (lambda port, _: silent(port, HEAD + b"\r\n" + HEAD), [200]),
    "a second head byte by byte": (
        lambda port, every: drip(port, HEAD + b"\r\n" + HEAD + b"X-A: ", every),
        [200],
    ),
    "half a second body at once": (
        lambda port, _: silent(port, HEAD + b"\r\n" + POST + b"Content-Length: 50\r\n\r\nto"),
        [200],
    ),
    "a body that is answered before it ends": (
        lambda port, _: silent(port, HEAD + b"Content-Length: 50\r\n\r\nhalf"),
        [200],
    ),
    "silence after a body that was answered before it ended": (
        lambda port, _: silent(port, HEAD + b"Content-Length: 8\r\n\r\nhalf", b"half"),
        [200],
    ),
    "silence after a request that is none": (lambda port, _: silent(port, b"x" * 30000), [400]),
}


def check(case: str, stream: bytes) -> None:
    expected = SLOW[case][1]
    replies = wire.read(stream)
    assert [reply.status for reply in replies] == expected, (case, stream)
    for reply in replies:
        wire.check_headers(reply)


@pytest.mark.parametrize("case", SLOW)
async def test_a_connection_closes_when_its_request_is_not_complete_in_time(
    case: str, open_place: Callable[..., Any]
) -> None:
    place: Place = await open_place(limits=SHORT)
    before = time.monotonic()
    check(case, await SLOW[case][0](place.port, 0.05))
    assert time.monotonic() - before < 5


async def test_all_of_them_close_after_the_ten_seconds_of_a_real_daemon(tmp_path: Path) -> None:
    async with Daemon(tmp_path, settings={"public.trusted_proxies": '["127.0.0.1"]'}) as daemon:
        before = time.monotonic()

        async def one(case: str) -> float:
            check(case, await SLOW[case][0](daemon.port, 1))
            return time.monotonic() - before

        async with asyncio.TaskGroup() as tasks:
            ended = {case: tasks.create_task(one(case)) for case in SLOW}
            # and meanwhile it goes on serving
            assert (await daemon.get("/healthz")).status == 200
        for case, task in ended.items():
            if "is none" not in case:
                assert 9.9 < task.result() < 14, case


async def test_a_client_that_never_reads_is_cut_off(
    open_place: Callable[..., Any],
) -> None:
    place: Place = await open_place(limits=SHORT)
    _, writer = await asyncio.open_connection("127.0.0.1", place.port, limit=1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.transport.set_write_buffer_limits(0)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50

    async def send_for_ever() -> None:
        while not writer.transport.is_closing():
            writer.write(request)
            await writer.drain()
        raise ConnectionResetError

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_for_ever(), wire.PATIENCE)
    writer.close()
    assert (await place.ask("GET", "/healthz")).status == 200


async def test_a_running_action_takes_as_long_as_it_takes(open_place: Callable[..., Any]) -> None:
    place: Place = await open_place(limits=SHORT)
    _, code = await place.token()

    async def slow() -> Any:
        await asyncio.sleep(1)
        raise RuntimeError

    place.home.answer = slow
    reply = await place.ask("POST", f"/api/public/token/submit?token={code}")
    assert reply.status == 504


async def test_pipelined_requests_are_answered_in_order(open_place: Callable[..., Any]) -> None:
    place: Place = await open_place()
    paths = ["/healthz", "/nowhere", "/api/public/ping", "/"] * 20
    stream = b"".join(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths[:-1]
    ) + wire.request("GET", paths[-1])
    replies = wire.read(await wire.talk(place.port, stream))
    assert [reply.status for reply in replies] == [200, 404, 200, 200] * 20
    for reply in replies:
        wire.check_headers(reply)


async def test_one_connection_too_many_costs_the_one_that_waited_longest(
    open_place: Callable[..., Any],
) -> None:
    place: Place = await open_place(limits=Limits(connections=20))
    idle = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(25)]
    async with asyncio.timeout(5):  # long before their time is over
        for reader, _ in idle[:5]:
            assert await closed(reader)
        for reader, writer in idle[5:]:
            writer.write(HEAD + b"Connection: close\r\n\r\n")
            assert wire.read(await reader.read())[0].status == 200
    for _, writer in idle:
        writer.close()


async def test_connections_that_are_being_answered_are_not_cut_off_for_newer_ones(
    open_place: Callable[..., Any],
) -> None:
    place: Place = await open_place(limits=Limits(connections=10))
    _, code = await place.token(max_uses=None)
    go = asyncio.Event()

    async def wait() -> Any:
        await go.wait()
        raise RuntimeError

    place.home.answer = wait
    busy = [
        asyncio.create_task(place.ask("POST", f"/api/public/token/submit?token={code}"))
        for _ in range(10)
    ]
    async with asyncio.timeout(wire.PATIENCE):
        while place.submissions.running < 10:
            await asyncio.sleep(0.01)
    assert await silent(place.port, HEAD + b"\r\n") == b""
    go.set()
    assert [(await task).status for task in busy] == [504] * 10
    assert (await place.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("files", [256, 400])
async def test_a_daemon_with_few_files_goes_on_serving_among_hundreds_of_idle_connections(
    tmp_path: Path, files: int
) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    daemon = Daemon(tmp_path)
    try:
        await daemon.start(few)
        idle = []
        async with asyncio.timeout(wire.PATIENCE):
            for number in range(600):
                idle.append(await asyncio.open_connection("127.0.0.1", daemon.port))
                if number % 100 == 99:
                    assert (await daemon.get("/healthz")).status == 200
                    assert (await daemon.admin("GET", "/status")).status == 200
        assert "out of system resource" not in daemon.log
        assert "Too many open files" not in daemon.log
        for _, writer in idle:
            writer.close()
    finally:
        await daemon.stop()


async def test_a_thousand_connections_are_the_most(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    async with Daemon(tmp_path) as daemon:
        async with asyncio.timeout(wire.PATIENCE):
            idle = [await asyncio.open_connection("127.0.0.1", daemon.port) for _ in range(1_010)]
            # the first ones went for the last ones
            for reader, _ in idle[:10]:
                assert await closed(reader)
            _, writer = idle[-1]
            writer.write(HEAD + b"Connection: close\r\n\r\n")
            assert wire.read(await idle[-1][0].read())[0].status == 200
        assert daemon.log.count("1000 connections are open") == 1
        for _, writer in idle:
            writer.close()
