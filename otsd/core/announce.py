"""Delivers what the outbox holds: events in order until confirmed, notifications beside them.

An event counts as delivered once Home Assistant has confirmed it while it was ``RUNNING``; before
that no automation would hear it. One that cannot be delivered stays, and those behind it wait.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from otsd.core.changes import Change, Changes, Subject
from otsd.core.errors import HomeError, NoAnswer, NotAsked, Refused, StorageUnavailable
from otsd.core.events import EVENT_TYPE, event_data, notification
from otsd.core.ports import Queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otsd.core.ports import Announcement, Clock, Home, Store

_BATCH: Final = 50
# an event that Home Assistant refuses waits for the owner, who may be mending the user right now
_REFUSED_PAUSE: Final = 4.0
_STORAGE_PAUSE: Final = 1.0
_FAULT_PAUSE: Final = 60.0
# the connection knows of a loss a moment after the first command that fails
_LOST_PAUSE: Final = 0.2

_log = logging.getLogger(__name__)


class _Undeliverable(Exception):
    """The announcement must wait for so long."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause


class Announcer:
    """Empties the two queues of the outbox into Home Assistant, for ever."""

    def __init__(
        self, *, store: Store, home: Home, now: Clock, changes: Changes, target: str | None
    ) -> None:
        """Take the parts; ``target`` is the notify action or entity, ``None`` for none."""
        self._store = store
        self._home = home
        self._now = now
        self._changes = changes
        self._target = target
        self.event_error: str | None = None
        """Why the first waiting event is not delivered, in Home Assistant's words."""
        self.notification_error: str | None = None
        """Why the last notification was not sent."""

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._empty(Queue.EVENT, self._fire), name="events")
            tasks.create_task(self._empty(Queue.NOTIFICATION, self._notify), name="notifications")

    async def _empty(self, queue: Queue, send: Callable[[Announcement], Awaitable[None]]) -> None:
        something_new = asyncio.Event()

        def hear(change: Change) -> None:
            if change.subject is Subject.FINISHED:
                something_new.set()

        sent = forgotten = 0
        with self._changes.heard_by(hear):
            while True:
                something_new.clear()
                try:
                    if sent > forgotten:
                        await self._store.delivered(queue, sent)
                        forgotten = sent
                    batch = self._store.announcements(queue, sent, _BATCH)
                    if not batch:
                        await something_new.wait()
                        continue
                    for announcement in batch:
                        await self._home.running()
                        await send(announcement)
                        sent = announcement.id
                except _Undeliverable as later:
                    await asyncio.sleep(later.pause)
                except StorageUnavailable as error:
                    # what was sent is remembered here, so that a full disk repeats no event
                    _log.debug("the outbox cannot be read or written: %s", error)
                    await asyncio.sleep(_STORAGE_PAUSE)
                except Exception:  # noqa: BLE001 - both queues go on for ever
                    _log.exception("the %s queue stopped at an error that nobody expected", queue)
                    await asyncio.sleep(_FAULT_PAUSE)

    async def _fire(self, announcement: Announcement) -> None:
        try:
            await self._home.fire(EVENT_TYPE, event_data(announcement, self._now()))
        except Refused as error:
            if self.event_error is None:
                _log.error("Home Assistant refuses events, which are kept: %s", error)
            self.event_error = str(error)
            raise _Undeliverable(_REFUSED_PAUSE) from error
        except (NotAsked, NoAnswer) as error:
            raise _Undeliverable(_LOST_PAUSE) from error
        self.event_error = None

    async def _notify(self, announcement: Announcement) -> None:
        if self._target is None:  # it was switched off after this one was queued
            return
        title, message = notification(announcement.payload, self._home.zone)
        try:
            await self._home.notify(self._target, title, message)
        except NotAsked as error:
            raise _Undeliverable(_LOST_PAUSE) from error
        except HomeError as error:
            # final: the same notification twice is worse than one that is only in the list
            if self.notification_error is None:
                _log.warning("the notification to %s failed: %s", self._target, error)
            self.notification_error = str(error)
        else:
            self.notification_error = None
