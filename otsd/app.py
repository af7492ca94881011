"""Runs the daemon, from its start to its orderly end.

What must be closed is a context manager, entered in the order in which the parts need each other
and left in the opposite one; every task belongs to a group and has a name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from aiohttp import web

from otsd import __version__
from otsd.core.access import AccountsUnavailable
from otsd.core.changes import Change, Subject
from otsd.core.errors import StartError, StorageUnavailable
from otsd.core.history import forget
from otsd.core.ports import ConnectionState
from otsd.core.times import isoformat
from otsd.notify import ServiceManager
from otsd.parts import ZONE, Daemon, built, clock
from otsd.server.listener import SHUTDOWN, Limits, ListenAddress, listening, taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from otsd.core.ports import Store
    from otsd.core.submit import Submissions
    from otsd.home.accounts import Accounts
    from otsd.home.home import HomeAssistant
    from otsd.mqtt.broker import Broker
    from otsd.server.live import Live
    from otsd.settings import Settings

SOCKET: Final = "otsd.sock"
_LONGEST_SOCKET_PATH: Final = 107  # sun_path of unix(7) without its closing NUL
_BACKLOG: Final = 1_024  # connect(2) on a unix socket fails, rather than waits, beyond it
# the time in which an answer is taken; that of a handler, such as an action that runs, has no end
_ADMIN_LIMITS: Final = Limits(response=timedelta(minutes=2), connections=200)
# docker kills 10 s after the signal: what follows is short (SHUTDOWN, and MQTT's goodbye beside it)
_GRACE: Final = timedelta(seconds=8)
_HOME_CHANGED: Final = Change(Subject.CONNECTION, "home_assistant")

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The daemon was asked to stop."""


async def run(settings: Settings) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises:
        StartError: it cannot start here, and what to do about it.

    """
    refused: list[StartError] = []
    try:
        await _run(settings)
    except* StartError as group:  # the task groups that were begun wrap what ends them
        refused += _leaves(group)
    if refused:
        raise refused[0]


def _leaves(group: BaseExceptionGroup[StartError]) -> Iterator[StartError]:
    for error in group.exceptions:
        if isinstance(error, StartError):
            yield error
        else:
            yield from _leaves(error)


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    _on_signal(stop.set)
    os.umask(0o077)  # every file that otsd makes is its user's alone
    manager = ServiceManager(os.environ, os.getpid())
    async with AsyncExitStack() as stack:
        daemon = await built(settings, stack)
        core = daemon.core
        _check_clock(core.store.newest())
        stack.enter_context(core.changes.heard_by(_ear(core.home, daemon.broker)))
        tasks = await stack.enter_async_context(_background())
        core.home.on_zone = lambda name: _remember_zone(tasks, core.store, name)
        keeping = [tasks.create_task(core.home.keep(), name="Home Assistant")]
        if daemon.broker is not None:
            keeping.append(tasks.create_task(daemon.broker.keep(), name="MQTT"))
        stack.push_async_callback(_parted, keeping)
        await stack.enter_async_context(core.submissions)
        tasks.create_task(core.announcer.run(), name="announcer")
        history = settings.history
        tasks.create_task(
            forget(core.store, clock, keep=history.keep, keep_addresses=history.keep_addresses),
            name="history",
        )
        port, admin_port = await _listen(settings, daemon, stack)
        manager.say("READY=1", f"STATUS=Serving on port {port}; the admin page on {admin_port}")
        tasks.create_task(manager.watchdog(), name="watchdog")
        tasks.create_task(_look_for(core.home, daemon.accounts), name="look for Home Assistant")
        await stop.wait()
        await _finish(core.submissions, daemon.live, keeping, manager)


async def _listen(settings: Settings, daemon: Daemon, stack: AsyncExitStack) -> tuple[int, int]:
    """Open the three ways in; return the ports of the visitors' and the owner's."""
    public, admin = settings.public, settings.admin
    await stack.enter_async_context(
        _control_socket(settings.storage.directory / SOCKET, daemon.api.application())
    )
    visitors, owner = daemon.visitors, daemon.admin
    front = ListenAddress("public", public.host, public.port)
    back = ListenAddress("admin", admin.host, admin.port)
    try:
        port = await stack.enter_async_context(
            listening(visitors.application(), front, visitors.fallback)
        )
    except StartError as error:
        raise await _with(error, back) from error
    _log.info(
        "otsd %s serves visitors on %s port %d; links begin with %s",
        __version__,
        public.host,
        port,
        public.base_url,
    )
    admin_port = await stack.enter_async_context(
        listening(owner.application(), back, owner.fallback, _ADMIN_LIMITS)
    )
    _log.info(
        "the admin page is on %s port %d; your browser finds it %s",
        admin.host,
        admin_port,
        "in Home Assistant" if settings.supervised else f"at {admin.base_url}",
    )
    return port, admin_port


async def _with(error: StartError, other: ListenAddress) -> StartError:
    """Add what is wrong with the other address, so that both can be mended at once."""
    try:
        async with taken(other):
            return error
    except StartError as more:
        return StartError(f"{error}\n{more}")


def _ear(home: HomeAssistant, broker: Broker | None) -> Callable[[Change], None]:
    """Return what hears of changes for those two."""
    was_connected = False

    def hear(change: Change) -> None:
        nonlocal was_connected
        if change.subject is Subject.ACTION:
            home.actions_changed()
        if change == _HOME_CHANGED:
            is_connected = home.status.state is ConnectionState.CONNECTED
            if is_connected and not was_connected and broker is not None:
                broker.retry()
            was_connected = is_connected

    return hear


def _on_signal(callback: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, callback)


async def _finish(
    submissions: Submissions,
    live: Live,
    keeping: Sequence[asyncio.Task[NoReturn]],
    manager: ServiceManager,
) -> None:
    """Give what runs its time, until a second signal; begin to end the connections."""
    running = f"{submissions.running} submissions are running"
    _log.info("stopping; %s", running)
    manager.say("STOPPING=1", f"STATUS=Stopping; {running}")
    _on_signal(submissions.give_up)
    live.close()
    await submissions.finish(_GRACE)
    _part(keeping)  # they say goodbye while the listeners close


def _part(keeping: Sequence[asyncio.Task[NoReturn]]) -> None:
    for task in keeping:
        if not task.cancelling():  # twice would cut its goodbye short
            task.cancel()


async def _parted(keeping: Sequence[asyncio.Task[NoReturn]]) -> None:
    _part(keeping)
    await asyncio.wait(keeping)


def _remember_zone(tasks: asyncio.TaskGroup, store: Store, name: str) -> None:
    async def remember() -> None:
        with suppress(StorageUnavailable):
            await store.remember(ZONE, name)

    tasks.create_task(remember(), name="remember the time zone")


async def _look_for(home: HomeAssistant, accounts: Accounts) -> None:
    """Tell whoever installs otsd when nobody could log in yet; one that is connected tells more."""
    if home.status.state is ConnectionState.OFF:
        try:
            await accounts.knock()
        except AccountsUnavailable as error:
            _log.warning(
                "Home Assistant (home_assistant.url) cannot be reached, and nobody can log in to "
                "the admin page until it can be: %s",
                error.reason,
            )
        except Exception:  # noqa: BLE001 - it is no more than a word to whoever installs otsd
            _log.exception("nobody could look for Home Assistant, for an unexpected reason")


def _check_clock(newest: datetime | None) -> None:
    if newest is not None and newest > clock() + timedelta(minutes=1):
        _log.error(
            "The clock of this machine is wrong: it says %s, but the newest entry was made %s. "
            "Until it is set, expired links may be usable again.",
            isoformat(clock()),
            isoformat(newest),
        )


@asynccontextmanager
async def _background() -> AsyncIterator[asyncio.TaskGroup]:
    """Own the tasks that run as long as the daemon; its end ends them."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            raise _Stopped  # noqa: TRY301 - the group is what it is raised for
    except* _Stopped:
        pass


@asynccontextmanager
async def _control_socket(path: Path, application: web.Application) -> AsyncIterator[None]:
    """Serve the admin API to the daemon's user alone; a socket left behind is replaced."""
    length = len(os.fsencode(path.absolute()))
    if length > _LONGEST_SOCKET_PATH:
        msg = (
            f"The control socket {path} would have a path of {length} bytes, and the system takes "
            f"{_LONGEST_SOCKET_PATH}: choose a shorter storage.directory."
        )
        raise StartError(msg)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    try:
        try:
            path.unlink(missing_ok=True)  # the lock on the directory is ours: nobody listens on it
            await web.UnixSite(runner, path.absolute(), backlog=_BACKLOG).start()
            path.chmod(0o600)
        except OSError as error:
            msg = f"The control socket {path} cannot be made: {error.strerror}."
            raise StartError(msg) from error
        yield
    finally:
        await runner.cleanup()
        with suppress(OSError):
            path.unlink()
