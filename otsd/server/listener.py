"""A listener that strangers may reach: requests are complete in time, connections bounded.

aiohttp waits for ever for the rest of a request, accepts connections until the process has no
files left, answers what it cannot parse without our headers, and logs the raw line of it, which
may carry a code. This subclass of its connection does the four differently; everything else is
aiohttp's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import resource
import socket
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from aiohttp import web

from otsd.core.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

_DEADLINE: Final = timedelta(seconds=10)
_RESPONSE_DEADLINE: Final = timedelta(seconds=30)
SHUTDOWN: Final = 0.2
"""The seconds that requests have left when a listener is closed."""
_MOST_CONNECTIONS: Final = 1_000
# as many as asyncio accepts at once, before it tells us of the first
_BACKLOG: Final = 128
# the database, the other listeners, Home Assistant, a broker, and some to spare
_FILES_FOR_OTHERS: Final = 72

_log = logging.getLogger(__name__)

Fallback: TypeAlias = "Callable[[web.BaseRequest, web.StreamResponse], web.Response]"
"""What answers in place of aiohttp's own answer, of which the status and the headers count."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take; ``connections`` is how many of them there may be."""

    request: timedelta = _DEADLINE
    """From the connection, or the answer before, until a request is complete."""
    response: timedelta = _RESPONSE_DEADLINE
    """Until the client has taken an answer."""
    connections: int = _MOST_CONNECTIONS


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener is, and the section of the settings that says so."""

    section: str
    host: str
    port: int

    def why_not(self, error: OSError | UnicodeError) -> str:
        """Say why it cannot be listened on, which setting says so, and what to do."""
        port = f"{self.section}.port (OTSD_{self.section.upper()}__PORT)"
        host = f"{self.section}.host (OTSD_{self.section.upper()}__HOST)"
        if isinstance(error, socket.gaierror | UnicodeError):
            return f"{host}: the name {self.host} is not known here. Choose an address."
        match error.errno:
            case errno.EADDRINUSE:
                return (
                    f"{port}: port {self.port} of {self.host} is in use, by another program or by "
                    "another site of otsd. End that, or choose another port."
                )
            case errno.EACCES | errno.EPERM:
                return (
                    f"{port}: this user may not listen on port {self.port}. "
                    "Choose a port from 1024 on."
                )
            case errno.EADDRNOTAVAIL | None:  # asyncio gives no number from Python 3.13 on
                return f"{host}: {self.host} is no address of this machine. Choose one that is."
        return f"{port}: cannot listen on {self.host} port {self.port}: {error.strerror}."


class Connections:
    """Bounds the connections of a listener: one too many costs the one that waited longest.

    To refuse the newest would let anybody who holds the bound open keep everybody else out; a
    visitor's request is complete within a moment, and then its connection waits no more.
    """

    def __init__(self, most: int) -> None:
        """Take the bound."""
        self._most = most
        self._open = 0
        self._waiting: dict[Connection, None] = {}
        self._reported = False

    def enter(self, connection: Connection) -> None:
        """Count one more, which waits for its request."""
        self._open += 1
        self._waiting[connection] = None
        if self._open <= self._most:
            return
        if not self._reported:
            self._reported = True
            _log.warning("%d connections are open; those that wait longest are closed", self._most)
        longest = next(iter(self._waiting))
        del self._waiting[longest]
        longest.abort()

    def leave(self, connection: Connection) -> None:
        """Count one less."""
        self._open -= 1
        self._waiting.pop(connection, None)
        if self._open < self._most // 2:
            self._reported = False

    def answering(self, connection: Connection) -> None:
        """Hear that one has a request."""
        self._waiting.pop(connection, None)

    def waiting(self, connection: Connection) -> None:
        """Hear that one waits for its next request."""
        self._waiting[connection] = None


class Connection(web.RequestHandler):
    """aiohttp's side of one connection, with deadlines.

    The request's deadline runs whenever there is no complete request, also while the connection
    is idle; the response's, while the client takes the answer.
    """

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        limits: Limits,
        fallback: Fallback,
    ) -> None:
        """Take aiohttp's server, the bounds, and what answers in place of aiohttp."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            # ours comes first
            keepalive_timeout=2 * limits.request.total_seconds(),
            lingering_time=limits.request.total_seconds(),
            access_log=cast("Any", None),
            logger=_log,
            auto_decompress=False,
        )
        self._connections = connections
        self._request_time = limits.request.total_seconds()
        self._response_time = limits.response.total_seconds()
        self._fallback = fallback
        self._clock = asyncio.get_running_loop()
        # One timer looks again and again whether the time is over: a timer for each request would
        # cost more than the rest of this class.
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._is_answering = False
        self._body: StreamReader | None = None

    # -- deadlines ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first request's time."""
        # an answer counts as sent when nothing of it is left here, so that closing never waits
        cast("asyncio.Transport", transport).set_write_buffer_limits(0)
        super().connection_made(transport)
        self._due = self._clock.time() + self._request_time
        self._look()
        self._connections.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        if self._timer is not None:
            self._timer.cancel()
        self._connections.leave(self)
        super().connection_lost(exc)

    def request_begins(self, payload: StreamReader) -> None:
        """Hear that the head is complete; the time runs until the body is, too."""
        self._is_answering = True
        self._connections.answering(self)
        self._body = payload
        payload.on_eof(self._body_ended)
        self._notice_broken_body()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._notice_broken_body()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; one that aiohttp made by itself is replaced by one of ours."""
        if not getattr(resp, "is_ours", False):
            keep_alive = resp.keep_alive
            resp = self._fallback(request, resp)
            if keep_alive is False:
                resp.force_close()
        body_due = self._due
        self._due = self._clock.time() + self._response_time
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._is_answering = False
            # either the rest of the body is still to come, or the next request
            self._due = min(body_due, self._clock.time() + self._request_time)
            if self.transport is not None:
                self._connections.waiting(self)

    def _body_ended(self) -> None:
        self._body = None
        # it may have been answered before it ended
        self._due = math.inf if self._is_answering else self._clock.time() + self._request_time

    def _notice_broken_body(self) -> None:
        # Something after a body that has not ended is aiohttp's note that it cannot be parsed on;
        # whoever waits for the rest of the body is not told.
        if self._body is not None and self._messages:
            self._body.set_exception(web.RequestPayloadError("the body is not in order"))
            self._body = None

    def _look(self) -> None:
        now = self._clock.time()
        if now >= self._due:
            self.abort()
        else:
            again = min(self._due, now + min(self._request_time, self._response_time))
            self._timer = self._clock.call_at(again, self._look)

    def abort(self) -> None:
        """Close the connection at once, whatever is still to be read or sent."""
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
            _log_fault(exc)
        if request.writer.output_size > 0:
            msg = "an answer was begun already"
            raise ConnectionError(msg)
        answer = self._fallback(request, web.Response(status=status))
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's
        """Log no message of aiohttp's, which may quote the request."""
        error = kw.get("exc_info")
        _log_fault(error if isinstance(error, BaseException) else None)

    def log_debug(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401
        """Log nothing of what aiohttp says of single connections."""


def _log_fault(error: BaseException | None) -> None:
    if not isinstance(error, (ConnectionError, web.RequestPayloadError)):  # the client went away
        log_unexpected(error)


def log_unexpected(error: BaseException | None) -> None:
    """Log where an error was raised and its type, but not its text, which may quote a request."""
    frames = traceback.format_tb(error.__traceback__) if error is not None else []
    _log.error("an error that nobody expected: %s\n%s", type(error).__name__, "".join(frames))


@asynccontextmanager
async def listening(
    application: web.Application,
    address: ListenAddress,
    fallback: Fallback,
    limits: Limits = Limits(),
) -> AsyncIterator[int]:
    """Serve an application on an address while the block runs; yields the port.

    Raises:
        StartError: the address cannot be listened on.

    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN)
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
    connections = Connections(_bound(limits.connections))
    try:
        sockets = await _server(
            address, lambda: Connection(server, connections, limits, fallback), serve=True
        )
    except StartError:
        await runner.cleanup()
        raise
    try:
        yield sockets.sockets[0].getsockname()[1]
    finally:
        sockets.close()
        await runner.cleanup()


@asynccontextmanager
async def taken(address: ListenAddress) -> AsyncIterator[set[tuple[str, int]]]:
    """Take an address, without a connection being accepted, and give it back; hosts and ports.

    Raises:
        StartError: it cannot be listened on.

    """
    server = await _server(address, asyncio.Protocol, serve=False)
    try:
        yield {each.getsockname()[:2] for each in server.sockets}
    finally:
        server.close()


async def _server(
    address: ListenAddress, connect: Callable[[], asyncio.Protocol], *, serve: bool
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            connect,
            address.host,
            address.port,
            backlog=_BACKLOG,
            reuse_address=True,
            start_serving=serve,
        )
    except (OSError, UnicodeError) as error:
        raise StartError(address.why_not(error)) from error


def _bound(wanted: int) -> int:
    """Raise the limit of open files as far as it goes, and stay below it."""
    others = _BACKLOG + _FILES_FOR_OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + others:
        soft = wanted + others if hard == resource.RLIM_INFINITY else min(wanted + others, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, soft - others), 10)
