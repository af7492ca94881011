"""Keeping a connection: when to try again, what is final, and what its owner is told.

One short loop for every connection of otsd. A session connects, calls `Keeper.connected` when it
is usable, and runs until it raises `Lost` (try again soon) or `CredentialRefused` (hardly ever
again: after a few wrong tokens Home Assistant can ban an address for ever).
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otsd.core.ports import ConnectionState, ConnectionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from otsd.core.ports import Clock

_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 4.0
REFUSAL_PAUSES: Final = (timedelta(seconds=60), timedelta(days=1))
"""How long nothing is tried after a refusal, and after every further one."""

_log = logging.getLogger(__name__)


class Lost(Exception):
    """The connection could not be made, or ended; ``str()`` says why in plain words."""


class Absent(Lost):
    """There is nothing to connect to yet; ``str()`` says what to do. It is looked for again."""


class CredentialRefused(Exception):
    """The other side knows who we claim to be and says no; ``str()`` says what to do."""


class _Restarted(Exception):
    """The session was ended to begin another."""


def delays() -> Iterator[float]:
    """Yield the seconds between the beginnings of two tries: doubling, jittered, 4 s at most."""
    delay = _FIRST_DELAY
    while True:
        # jitter keeps two daemons from knocking in step; never more than the promised 4 s
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreading, not secrecy
        delay = min(delay * 2, _LONGEST_DELAY)


def what_ended(
    group: BaseExceptionGroup[BaseException], unexpected: Callable[[Exception], Exception]
) -> BaseException:
    """Return what ended a session; what the other tasks of its group raised followed from it.

    ``unexpected`` says what an error means that is neither `Lost` nor `CredentialRefused`.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # the group forgets that it was cancelled when one of its tasks failed as well
        return asyncio.CancelledError()
    errors = group.exceptions
    first = next((each for each in errors if isinstance(each, Lost | CredentialRefused)), errors[0])
    if isinstance(first, Lost | CredentialRefused) or not isinstance(first, Exception):
        return first
    return unexpected(first)


class Keeper:
    """Keeps one connection for ever and knows how it stands."""

    def __init__(
        self,
        name: str,
        now: Clock,
        *,
        off: str | None = None,
        refusal_pauses: tuple[timedelta, timedelta] = REFUSAL_PAUSES,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the name for the log; ``off`` says why there is nothing to connect with.

        ``changed`` is called at once when the connection stands otherwise than before.
        """
        self._name = name
        self._now = now
        self._refusal_pauses = refusal_pauses
        self._changed = changed
        self._again = asyncio.Event()
        self._delays = delays()
        self._refusals = 0
        state = ConnectionState.OFF if off else ConnectionState.CONNECTING
        self._status = ConnectionStatus(state, now(), off)
        self._session: asyncio.Task[NoReturn] | None = None
        self._restarting = False
        self._told: set[ConnectionState] = set()  # since it was connected
        self._was_connected = False

    @property
    def status(self) -> ConnectionStatus:
        """How the connection stands, since when, and the last fault."""
        return self._status

    @property
    def is_connected(self) -> bool:
        """Whether the other side can be asked."""
        return self._status.state is ConnectionState.CONNECTED

    def retry(self) -> None:
        """Try again at once: the owner asks, or the credential is another."""
        self._again.set()

    def restart(self, off: str | None) -> None:
        """End the session there is, and begin anew; ``off`` says why there shall be none."""
        self._refusals = 0
        self._delays = delays()
        if self._session is not None:
            self._restarting = True
            self._session.cancel()
        state = ConnectionState.OFF if off else ConnectionState.CONNECTING
        self._status = ConnectionStatus(state, self._now(), off)
        self._changed()
        self._again.set()

    def connected(self, version: str | None = None, error: str | None = None) -> None:
        """Note that the connection is usable; ``error`` is what limits it, if anything does."""
        if self._told & {ConnectionState.CONNECTING, ConnectionState.REFUSED}:
            # whoever read that it was away is told at the same level
            _log.warning("%s is %s", self._name, "back" if self._was_connected else "there now")
        else:
            _log.info("connected to %s%s", self._name, f", version {version}" if version else "")
        self._was_connected = True
        self._told.clear()
        self._delays = delays()
        self._refusals = 0
        self._status = ConnectionStatus(ConnectionState.CONNECTED, self._now(), error, version)
        self._changed()

    def limited(self, error: str | None) -> None:
        """Note what limits a connection that is otherwise usable."""
        status = self._status
        self._status = ConnectionStatus(status.state, status.since, error, status.version)
        self._changed()

    async def run(self, session: Callable[[], Coroutine[Any, Any, NoReturn]]) -> NoReturn:
        """Run one session after another, for ever."""
        loop = asyncio.get_running_loop()
        is_absent = False
        while True:
            self._again.clear()
            if self._status.state is ConnectionState.OFF and not is_absent:
                await self._again.wait()
            is_absent = False
            begun = loop.time()
            try:
                await self._run_one(session)
            except _Restarted:
                continue
            except Lost as lost:
                is_absent = isinstance(lost, Absent)
                state = ConnectionState.OFF if is_absent else ConnectionState.CONNECTING
                self._note(state, str(lost))
                # counted from the beginning of the try, so that a slow failure adds nothing
                pause = max(next(self._delays) - (loop.time() - begun), 0.05)
            except CredentialRefused as refused:
                self._refusals += 1
                self._told.discard(ConnectionState.REFUSED)
                self._note(ConnectionState.REFUSED, str(refused))
                first, further = self._refusal_pauses
                pause = (first if self._refusals == 1 else further).total_seconds()
            try:
                async with asyncio.timeout(pause):
                    await self._again.wait()
            except TimeoutError:
                continue

    async def _run_one(self, session: Callable[[], Coroutine[Any, Any, NoReturn]]) -> NoReturn:
        """Run a session in a task of its own, which `restart` can end."""
        task = asyncio.create_task(session(), name=f"{self._name}: session")
        self._session = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._session = None
        restarting, self._restarting = self._restarting, False
        if restarting:
            raise _Restarted
        if task.cancelled():
            raise Lost("the session ended")
        await task  # raises what ended it
        raise AssertionError("a session never returns")

    def _note(self, state: ConnectionState, error: str) -> None:
        was_connected = self.is_connected
        since = self._now() if state is not self._status.state else self._status.since
        self._status = ConnectionStatus(state, since, error, self._status.version)
        self._changed()
        if state in self._told:
            return
        self._told.add(state)
        if state is ConnectionState.OFF:
            _log.info("%s: %s", self._name, error)
        elif state is ConnectionState.REFUSED:
            _log.error("%s refuses otsd: %s", self._name, error)
        elif was_connected:
            _log.warning("%s is lost: %s; trying again", self._name, error)
        else:
            _log.warning("%s cannot be reached: %s; trying again", self._name, error)
