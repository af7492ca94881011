"""A broker that misbehaves as it is told: mosquitto cannot refuse MQTT 5, hang up or fall silent.

It speaks just enough MQTT to be connected to, and passes no message on.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

_PATIENCE = 15.0

# what is done at a CONNECT of a version, other than refusing it with a code
ACCEPT = "accept"
HANG_UP = "hang up"
SAY_NOTHING = "say nothing"

_CONNECT, _PUBLISH, _SUBSCRIBE, _UNSUBSCRIBE, _PING, _DISCONNECT = 1, 3, 8, 10, 12, 14


@dataclass(frozen=True)
class Connect:
    """A CONNECT as it came; ``version`` is 5 or 4, which is 3.1.1."""

    version: int
    identifier: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Published:
    """A message as it came."""

    topic: str
    payload: bytes
    retain: bool


class FakeBroker:
    """Answers each version's CONNECT as ``answers`` says; see what came in ``connects``."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[int, str | int] = {4: ACCEPT, 5: ACCEPT}
        # a broker that does not know MQTT 5 answers it in the form of 3.1.1
        self.knows_5 = True
        self.denied: set[str] = set()
        self.silent = False  # about everything that comes after CONNECT
        self.deaf = False  # takes connections, and understands nothing
        self.connects: list[Connect] = []
        self.subscribed: list[str] = []
        self.published: list[Published] = []
        self.parted = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, int] = {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and hang up."""
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self.until(lambda: not self._open)

    @property
    def settings(self) -> dict[str, str]:
        """What otsd is told of it, as TOML values by key."""
        return {"mqtt.host": '"127.0.0.1"', "mqtt.port": str(self.port)}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def until(self, condition: Callable[[], Any], seconds: float = _PATIENCE) -> None:
        """Wait until what came fulfils a condition."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(condition)

    def hang_up(self) -> None:
        """Close every connection without a word."""
        for writer in self._open:
            writer.close()

    def send(self, packet: bytes, *, and_hang_up: bool = False) -> None:
        """Send bytes over every connection."""
        for writer in self._open:
            writer.write(packet)
        if and_hang_up:
            self.hang_up()

    def end(self, reason: int) -> None:
        """End every connection with a reason, as MQTT 5 can."""
        self.send(bytes([_DISCONNECT << 4, 2, reason, 0]), and_hang_up=True)

    def say(self, topic: str, payload: bytes) -> None:
        """Publish to every connection, of either version."""
        for writer, version in self._open.items():
            body = _text(topic.encode()) + (b"\0" if version == 5 else b"") + payload
            writer.write(bytes([_PUBLISH << 4]) + _length(len(body)) + body)

    # -- what it does ------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = 0
        await self._notify()
        try:
            while True:
                header, body = await _packet(reader)
                self._take(writer, header, body)
                await self._notify()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            del self._open[writer]
            await self._notify()

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _take(self, writer: asyncio.StreamWriter, header: int, body: bytes) -> None:
        if self.deaf:
            return
        kind, version = header >> 4, self._open[writer]
        if kind == _CONNECT:
            connect = _connect(body)
            self.connects.append(connect)
            self._open[writer] = connect.version
            self._answer(writer, connect.version)
        elif kind == _DISCONNECT:
            self.parted += 1
        elif self.silent:
            return
        elif kind == _PUBLISH:
            self._published(writer, header, body)
        elif kind == _SUBSCRIBE:
            filters = _filters(body[2:], version)
            self.subscribed += filters
            denial = 135 if version == 5 else 128
            codes = bytes(denial if each in self.denied else 1 for each in filters)
            self._acknowledge(writer, 0x90, body[:2], codes)
        elif kind == _UNSUBSCRIBE:
            codes = bytes(len(_filters(body[2:], version, options=0))) if version == 5 else b""
            self._acknowledge(writer, 0xB0, body[:2], codes)
        elif kind == _PING:
            writer.write(b"\xd0\0")

    def _answer(self, writer: asyncio.StreamWriter, version: int) -> None:
        answer = self.answers[version]
        if answer == HANG_UP:
            writer.close()
        elif answer != SAY_NOTHING:
            code = answer if isinstance(answer, int) else 0
            has_properties = version == 5 and self.knows_5
            writer.write(bytes([0x20, 3, 0, code, 0] if has_properties else [0x20, 2, 0, code]))
            if code:
                writer.close()

    def _published(self, writer: asyncio.StreamWriter, header: int, body: bytes) -> None:
        topic, rest = _string(body)
        number = b""
        if header >> 1 & 3:
            number, rest = rest[:2], rest[2:]
        if self._open[writer] == 5:
            rest = _without_properties(rest)
        self.published.append(Published(topic, rest, bool(header & 1)))
        if number:
            writer.write(b"\x40\2" + number)

    def _acknowledge(
        self, writer: asyncio.StreamWriter, kind: int, number: bytes, codes: bytes
    ) -> None:
        body = number + (b"\0" if self._open[writer] == 5 else b"") + codes
        writer.write(bytes([kind, len(body)]) + body)


def publish(topic: str, payload: bytes, *, number: int | None = None) -> bytes:
    """Return a PUBLISH of 3.1.1, to be acknowledged if it has a number."""
    body = _text(topic.encode()) + (b"" if number is None else struct.pack("!H", number)) + payload
    return bytes([_PUBLISH << 4 | (0 if number is None else 2)]) + _length(len(body)) + body


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    header = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return header, await reader.readexactly(length)


def _connect(body: bytes) -> Connect:
    _, rest = _string(body)
    version, flags, rest = rest[0], rest[1], rest[4:]
    if version == 5:
        rest = _without_properties(rest)
    identifier, rest = _string(rest)
    if flags & 4:  # a will
        if version == 5:
            rest = _without_properties(rest)
        _, rest = _string(rest)
        _, rest = _string(rest)
    username = password = None
    if flags & 128:
        username, rest = _string(rest)
    if flags & 64:
        password, rest = _string(rest)
    return Connect(version, identifier, username, password)


def _filters(body: bytes, version: int, options: int = 1) -> list[str]:
    rest, found = _without_properties(body) if version == 5 else body, []
    while rest:
        name, rest = _string(rest)
        rest = rest[options:]
        found.append(name)
    return found


def _string(data: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack("!H", data[:2])
    return data[2 : 2 + length].decode(), data[2 + length :]


def _without_properties(data: bytes) -> bytes:
    length, shift = 0, 0
    for number, byte in enumerate(data, 1):
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return data[number + length :]
    raise AssertionError("the properties have no length")


def _text(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _length(length: int) -> bytes:
    encoded = b""
    while True:
        length, byte = length >> 7, length & 127
        if not length:
            return encoded + bytes([byte])
        encoded += bytes([byte | 128])
