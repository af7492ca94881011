"""A daemon at the end of a line that loses answers, or requests, as a phone's network does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant


class Street:
    """The fake house, its daemon, and the line to it, whose address the visitor's links have."""

    def __init__(self, home: FakeHomeAssistant, daemon: Daemon) -> None:
        self.home = home
        self.daemon = daemon
        self.lost_answers = 0
        self._losing_answers = 0
        self._is_cut = False
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.wait(self._open) if self._open else None

    @property
    def url(self) -> str:
        assert self._server is not None
        return "http://{}:{}".format(*self._server.sockets[0].getsockname())

    async def link(self, **body: Any) -> str:
        """Mint a link that leads over the line."""
        return f"{self.url}/?token={(await self.daemon.mint(**body))['code']}"

    def mend(self) -> None:
        """Lose nothing any more."""
        self._is_cut, self._losing_answers, self.lost_answers = False, 0, 0

    def cut(self) -> None:
        """Let no request through."""
        self._is_cut = True

    def lose_answers(self, count: int) -> None:
        """Let the next presses through, and lose what is answered to them."""
        self._losing_answers = count

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.daemon.port)
        losing = False

        async def back() -> None:
            while data := await far_reader.read(65536):
                if losing:
                    self.lost_answers += 1
                    break
                writer.write(data)
                await writer.drain()

        answers = asyncio.create_task(back())
        try:
            while not answers.done():
                asked = asyncio.create_task(reader.read(65536))
                await asyncio.wait((asked, answers), return_when=asyncio.FIRST_COMPLETED)
                if not asked.done():
                    asked.cancel()
                    break
                data = asked.result()
                if not data or self._is_cut:
                    break
                if data.startswith(b"POST") and self._losing_answers:
                    self._losing_answers -= 1
                    losing = True
                far_writer.write(data)
                await far_writer.drain()
        finally:
            answers.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await answers
            far_writer.close()
