"""Server-sent events: what changed, as it changes, for pages that stay open.

A change only says what to look at, so a stream sends each thing as it is now, once, however often
it changed in between. Streams never carry a code, and end with the session or the key.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from otsd.core.access import TooManyStreams
from otsd.core.changes import Subject
from otsd.core.errors import StorageUnavailable
from otsd.payloads import action_json, connection_json, submission_json, token_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from otsd.core.access import Caller
    from otsd.core.changes import Change, Changes
    from otsd.core.ports import Clock, ConnectionStatus, Store

MOST: Final = 8
_REST: Final = 0.1
_HEARTBEAT: Final = 15.0
# whoever takes nothing for so long is gone, or does not want to be told
_PATIENCE: Final = 15.0
_MOST_WAITING: Final = 1_000


class _Stream:
    """What one page has to be told."""

    def __init__(self) -> None:
        self.something = asyncio.Event()
        self.ended = False
        self._waiting: dict[Change, None] = {}

    def hear(self, change: Change) -> None:
        if change.subject is Subject.FINISHED:
            return  # told as a submission that changed
        if change.subject is Subject.MANY or len(self._waiting) >= _MOST_WAITING:
            self.end()  # the page comes back, and reads everything anew
            return
        self._waiting.pop(change, None)
        self._waiting[change] = None
        self.something.set()

    def end(self) -> None:
        self.ended = True
        self.something.set()

    def take(self) -> list[Change]:
        self.something.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Live:
    """The streams that are open."""

    def __init__(
        self,
        *,
        store: Store,
        changes: Changes,
        now: Clock,
        connections: Mapping[str, Callable[[], ConnectionStatus]],
    ) -> None:
        """Take the parts; ``connections`` say how each stands, by name."""
        self._store = store
        self._changes = changes
        self._now = now
        self._connections = connections
        self._open: defaultdict[str, set[_Stream]] = defaultdict(set)
        self._closed = False

    def end(self, holder: str) -> None:
        """End the streams of a session or a key now."""
        for stream in self._open.get(holder, ()):
            stream.end()

    def close(self) -> None:
        """End every stream, and what would be one: the daemon stops."""
        self._closed = True
        for holder in self._open:
            self.end(holder)

    async def stream(
        self,
        request: web.Request,
        caller: Caller,
        still: Callable[[web.BaseRequest], Awaitable[bool]],
    ) -> web.StreamResponse:
        """Send events until somebody ends it; ``still`` says whether the caller may listen on."""
        if len(self._open[caller.holder]) >= MOST:
            raise TooManyStreams(MOST)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
            }
        )
        stream = _Stream()
        stream.ended = self._closed
        self._open[caller.holder].add(stream)
        try:
            with self._changes.heard_by(stream.hear):
                await response.prepare(request)
                await _send(response, "retry: 2000\n\n: here\n\n")
                while not stream.ended and await still(request):
                    await self._tell(stream, response)
        except ConnectionError:
            pass  # the page was closed
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # an end in good order would wait for him as well
        finally:
            self._open[caller.holder].discard(stream)
            if not self._open[caller.holder]:
                del self._open[caller.holder]
        return response

    async def _tell(self, stream: _Stream, response: web.StreamResponse) -> None:
        """Send what changed as soon as something does, or that nothing did."""
        try:
            async with asyncio.timeout(_HEARTBEAT):
                await stream.something.wait()
        except TimeoutError:
            await _send(response, ": still here\n\n")
            return
        await asyncio.sleep(_REST)
        if stream.ended:
            return  # what changed since is no longer for him
        changes = stream.take()
        try:
            await _send(response, "".join(map(self._told, changes)))
        except StorageUnavailable:
            stream.end()  # the page comes back, and reads everything anew

    def _told(self, change: Change) -> str:
        data = json.dumps({"id": change.id, "item": self._item(change)})
        return f"event: {change.subject.value}\ndata: {data}\n\n"

    def _item(self, change: Change) -> dict[str, Any] | None:
        name = str(change.id)
        match change.subject:
            case Subject.TOKEN:
                token = self._store.token(name)
                return None if token is None else token_json(token, self._now())
            case Subject.ACTION:
                action = self._store.action(name)
                return None if action is None else action_json(action, with_yaml=False)
            case Subject.SUBMISSION:
                claim = self._store.claimed(int(change.id))
                return None if claim is None else submission_json(claim.submission)
            case Subject.CONNECTION:
                status = self._connections.get(name)
                return None if status is None else connection_json(status())
            case Subject.FINISHED | Subject.MANY:
                return None


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(_PATIENCE):
        await response.write(text.encode())
