"""A listener that strangers may reach: requests are complete in time, connections bounded.

aiohttp waits for ever for the rest of a request, accepts connections until the process has no
files left, answers what it cannot parse without our headers, and logs the raw line of it, which
may carry a code. This subclass of its connection does the four differently; everything else is
aiohttp's.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from otsd.core.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

MOST_CONNECTIONS: Final = 1_000
_REQUEST_DEADLINE: Final = 10.0
_RESPONSE_DEADLINE: Final = 30.0
_IDLE: Final = 10.0
# the database, the other listeners, Home Assistant, a broker, and some to spare
_FILES_FOR_OTHERS: Final = 100

_log = logging.getLogger(__name__)


class Connections:
    """Counts the connections of a listener and refuses one too many."""

    def __init__(self, most: int) -> None:
        """Take the bound."""
        self._most = most
        self._open = 0
        self._reported = False

    def admit(self) -> bool:
        """Count one more; ``False`` when it must be closed."""
        self._open += 1
        if self._open > self._most and not self._reported:
            self._reported = True
            _log.warning("%d connections are open; more are refused", self._most)
        return self._open <= self._most

    def leave(self) -> None:
        """Count one less."""
        self._open -= 1
        if self._open < self._most // 2:
            self._reported = False


class Connection(web.RequestHandler):
    """aiohttp's side of one connection, with deadlines."""

    def __init__(
        self, server: web.Server, connections: Connections, fallback: Callable[[int], web.Response]
    ) -> None:
        """Take aiohttp's server, the bound, and what makes an answer from a bare status."""
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_IDLE,
            lingering_time=_REQUEST_DEADLINE,
            access_log=cast("Any", None),
            logger=_log,
            auto_decompress=False,
        )
        self._connections = connections
        self._fallback = fallback
        self._clock = loop
        self._timer: asyncio.TimerHandle | None = None
        self._is_answering = False

    # -- deadlines ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first request's time, or refuse the connection."""
        super().connection_made(transport)
        self._start_timer()
        if not self._connections.admit():
            self._abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._stop_timer()
        self._connections.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Begin a request's time with its first byte."""
        if self._timer is None and not self._is_answering:
            self._start_timer()
        super().data_received(data)

    def request_begins(self, payload: StreamReader) -> None:
        """Hear that the head is complete; the time runs until the body is, too."""
        self._is_answering = True
        if payload.is_eof():
            self._stop_timer()
        else:
            payload.on_eof(self._stop_timer)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; one that aiohttp made by itself is replaced by one of ours."""
        if not getattr(resp, "is_ours", False):
            keep_alive = resp.keep_alive
            resp = self._fallback(resp.status)
            if keep_alive is False:
                resp.force_close()
        try:
            async with asyncio.timeout(_RESPONSE_DEADLINE):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:  # a client that does not read
            self._abort()
            return resp, True
        finally:
            self._is_answering = False

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self._clock.call_later(_REQUEST_DEADLINE, self._abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # -- errors ------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; it may quote the request
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot parse, or what failed beneath our own handlers."""
        if status >= web.HTTPInternalServerError.status_code:
            log_unexpected(exc)
        if request.writer.output_size > 0:
            msg = "an answer was begun already"
            raise ConnectionError(msg)
        answer = self._fallback(status)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's
        """Log no message of aiohttp's, which may quote the request."""
        error = kw.get("exc_info")
        log_unexpected(error if isinstance(error, BaseException) else None)

    def log_debug(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401
        """Log nothing of what aiohttp says of single connections."""


def log_unexpected(error: BaseException | None) -> None:
    """Log where an error was raised and its type, but not its text, which may quote a request."""
    frames = traceback.format_tb(error.__traceback__) if error is not None else []
    _log.error("an error that nobody expected: %s\n%s", type(error).__name__, "".join(frames))


@asynccontextmanager
async def listening(
    application: web.Application,
    host: str,
    port: int,
    fallback: Callable[[int], web.Response],
) -> AsyncIterator[int]:
    """Serve an application on an address while the block runs; yields the port.

    Raises:
        StartError: the address cannot be listened on.

    """
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - setup made it
    make_request = server.request_factory

    def begin_request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, Connection):
            protocol.request_begins(payload)
        return make_request(message, payload, protocol, writer, task)

    server.request_factory = begin_request
    connections = Connections(_bound())
    try:
        sockets = await asyncio.get_running_loop().create_server(
            lambda: Connection(server, connections, fallback),
            host,
            port,
            backlog=512,
            reuse_address=True,
        )
    except OSError as error:
        await runner.cleanup()
        msg = f"Cannot listen on {host} port {port}: {error.strerror or error}."
        raise StartError(msg) from error
    try:
        yield sockets.sockets[0].getsockname()[1]
    finally:
        sockets.close()
        await runner.cleanup()


def _bound() -> int:
    """Raise the limit of open files as far as it goes, and stay below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _FILES_FOR_OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(MOST_CONNECTIONS, soft - _FILES_FOR_OTHERS), 10)
