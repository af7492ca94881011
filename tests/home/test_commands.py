"""How a command can end, and whether Home Assistant can have acted then."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError
from hass_client.exceptions import (
    CannotConnect,
    ConnectionFailed,
    FailedCommand,
    InvalidMessage,
    NotConnected,
)

from otsd.core.errors import HomeError, NoAnswer, NotAsked, Refused
from otsd.home.commands import command, subscribe

DEADLINE = timedelta(seconds=10)


class Client:
    """Ends each command in one way, as hass_client does."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self._end = end

    async def send_command(self, _kind: str, **_fields: object) -> Any:
        result = self._end()
        return await result if asyncio.isfuture(result) else result

    async def subscribe(self, _handler: object, kind: str, **fields: object) -> Any:
        await self.send_command(kind, **fields)
        return lambda: None


def raising(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


def cancelled() -> asyncio.Future[Any]:
    """Return what a command waits for when the connection ends under it."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


@pytest.mark.parametrize(
    ("end", "expected", "words"),
    [
        (raising(FailedCommand("The lock is jammed")), Refused, "^The lock is jammed$"),
        (raising(NotConnected()), NotAsked, "not connected"),
        (
            raising(ClientConnectionResetError("Cannot write to closing transport")),
            NotAsked,
            "lost",
        ),
        (raising(TypeError("Integer exceeds 64-bit range")), NotAsked, "64-bit"),
        (raising(ClientConnectionResetError("Connection lost")), NoAnswer, "Connection lost"),
        (raising(ConnectionResetError(104, "reset by peer")), NoAnswer, "reset by peer"),
        (raising(BrokenPipeError()), NoAnswer, "BrokenPipeError"),
        (raising(ConnectionFailed()), NoAnswer, "broke"),
        (raising(CannotConnect(OSError("x"))), NoAnswer, "broke"),
        (raising(InvalidMessage("Received invalid JSON.")), NoAnswer, "invalid JSON"),
        (cancelled, NoAnswer, "lost before it answered"),
    ],
)
async def test_each_end_is_named_by_what_can_have_happened(
    end: Callable[[], Any], expected: type[HomeError], words: str
) -> None:
    client: Any = Client(end)
    with pytest.raises(expected, match=words):
        await command(client, "call_service", DEADLINE)
    with pytest.raises(expected, match=words):
        await subscribe(client, lambda _: None, "subscribe_events", DEADLINE)


async def test_an_answer_is_returned() -> None:
    client: Any = Client(lambda: {"context": {"id": "x"}})
    assert await command(client, "call_service", DEADLINE) == {"context": {"id": "x"}}


async def test_no_answer_in_time_is_no_answer() -> None:
    client: Any = Client(asyncio.get_running_loop().create_future)
    with pytest.raises(NoAnswer, match="did not answer within"):
        await command(client, "call_service", timedelta(seconds=0.02))


async def test_a_real_cancellation_passes_through() -> None:
    client: Any = Client(asyncio.get_running_loop().create_future)
    task = asyncio.create_task(command(client, "call_service", DEADLINE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_deadline_of_the_caller_passes_through() -> None:
    client: Any = Client(asyncio.get_running_loop().create_future)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await command(client, "call_service", DEADLINE)
