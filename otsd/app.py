"""Builds the daemon and runs it: the only file that knows every part.

What must be closed is a context manager, entered here in the order in which the parts need each
other and left in the opposite one; every task belongs to a group and has a name.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
import signal
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from aiohttp import web
from yarl import URL

from otsd import __version__
from otsd.core.access import AccountsUnavailable
from otsd.core.announce import Announcer
from otsd.core.changes import Change, Changes, Subject
from otsd.core.codes import Codes
from otsd.core.errors import StartError, StorageUnavailable
from otsd.core.events import announcer
from otsd.core.history import forget
from otsd.core.keys import Keys
from otsd.core.manage import Actions, Tokens
from otsd.core.ports import ConnectionState, ConnectionStatus
from otsd.core.submit import Submissions
from otsd.core.times import isoformat
from otsd.home.accounts import Accounts
from otsd.home.credential import OwnCredential
from otsd.home.home import Address, HomeAssistant, websocket_url
from otsd.server.admin import AdminParts, AdminSite
from otsd.server.api import AdminApi, Parts
from otsd.server.entrance import Entrance, House
from otsd.server.listener import Limits, listening
from otsd.server.live import Live
from otsd.server.login import Logins
from otsd.server.throttle import Throttle
from otsd.server.visitor import Site, VisitorSite
from otsd.store.store import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from otsd.core.ports import Store
    from otsd.mqtt.broker import Broker
    from otsd.mqtt.line import Address as BrokerAddress
    from otsd.settings import Mqtt, Settings
    from otsd.store.key import InstanceKey

SOCKET: Final = "otsd.sock"
_LONGEST_SOCKET_PATH: Final = 107  # sun_path of unix(7) without its closing NUL
_BACKLOG: Final = 1_024  # connect(2) on a unix socket fails, rather than waits, beyond it
_SUPERVISOR: Final = URL("ws://supervisor/core/websocket")
# the time in which an answer is taken; that of a handler, such as an action that runs, has no end
_ADMIN_LIMITS: Final = Limits(response=timedelta(minutes=2), connections=200)
_GRACE: Final = timedelta(seconds=8)
_ZONE: Final = "zone"
_HOME_CHANGED: Final = Change(Subject.CONNECTION, "home_assistant")
NO_BROKER: Final = "mqtt.host is not set"

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The daemon was asked to stop."""


def clock() -> datetime:
    """Return the present, in UTC."""
    return datetime.now(UTC)


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
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    os.umask(0o077)  # every file that otsd makes is its user's alone
    async with AsyncExitStack() as stack:
        store, key = await stack.enter_async_context(opened(settings.storage.directory))
        _check_clock(store.newest())
        changes = Changes()
        codes = Codes(key.derive("codes"))
        home = _home(settings, store, changes)
        owner = await stack.enter_async_context(_accounts(settings, home))
        credential = OwnCredential(
            home,
            owner,
            store,
            secret=_fernet_key(key, "credentials"),
            configured=_configured(settings),
        )
        announce = Announcer(
            store=store,
            home=home,
            now=clock,
            changes=changes,
            target=_target(settings),
        )
        submissions = Submissions(
            store=store,
            home=home,
            codes=codes,
            now=clock,
            changes=changes,
            announce=announcer(notify=_target(settings) is not None),
        )
        site = VisitorSite(
            _site(settings),
            submissions=submissions,
            home=home,
            now=clock,
            throttle=Throttle(time.monotonic),
        )
        tokens = Tokens(
            store=store,
            codes=codes,
            now=clock,
            changes=changes,
            random=secrets.token_bytes,
            base_url=str(settings.public.base_url),
        )
        broker = _broker(settings, store, home, tokens, changes)
        without_broker = ConnectionStatus(ConnectionState.OFF, clock(), NO_BROKER)
        live = Live(
            store=store,
            changes=changes,
            now=clock,
            connections={
                "home_assistant": lambda: home.status,
                "mqtt": lambda: broker.status if broker else without_broker,
            },
        )
        api = AdminApi(
            Parts(
                store=store,
                home=home,
                submissions=submissions,
                announcer=announce,
                actions=Actions(store=store, home=home, now=clock, changes=changes),
                tokens=tokens,
                now=clock,
                mqtt=lambda: broker.status if broker else without_broker,
                keys=Keys(access=store.access, store=store, now=clock, random=secrets.token_bytes),
                live=live,
                title=settings.public.title,
                base_url=str(settings.public.base_url),
                browser_url=str(settings.home_assistant.browser_url),
                configured=credential.source,
                disconnect=credential.give_up,
                retry_broker=broker.retry if broker else lambda: None,
            )
        )
        admin = AdminSite(
            AdminParts(
                title=settings.public.title,
                base_url=settings.admin.base_url,
                api=api,
                entrance=Entrance(
                    House(
                        base_url=settings.admin.base_url,
                        supervised=settings.supervised,
                        accept_tokens=settings.admin.accept_home_assistant_tokens,
                        administrators=home.administrators,
                    ),
                    access=store.access,
                    accounts=owner,
                    secret=_fernet_key(key, "sessions"),
                    now=clock,
                ),
                accounts=owner,
                logins=Logins(secret=_fernet_key(key, "logins"), now=clock),
                live=live,
                can_connect=credential.can_be_granted,
                grant=credential.grant,
            )
        )

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

        stack.enter_context(changes.heard_by(hear))
        tasks = await stack.enter_async_context(_background())
        home.on_zone = lambda name: _remember_zone(tasks, store, name)
        tasks.create_task(home.keep(), name="Home Assistant")
        if broker is not None:
            tasks.create_task(broker.keep(), name="MQTT")
        await stack.enter_async_context(submissions)
        tasks.create_task(announce.run(), name="announcer")
        tasks.create_task(
            forget(
                store,
                clock,
                keep=settings.history.keep,
                keep_addresses=settings.history.keep_addresses,
            ),
            name="history",
        )
        await stack.enter_async_context(
            _control_socket(settings.storage.directory / SOCKET, api.application())
        )
        port = await stack.enter_async_context(
            listening(site.application(), settings.public.host, settings.public.port, site.fallback)
        )
        _log.info(
            "otsd %s serves visitors on %s port %d; links begin with %s",
            __version__,
            settings.public.host,
            port,
            settings.public.base_url,
        )
        admin_port = await stack.enter_async_context(
            listening(
                admin.application(),
                settings.admin.host,
                settings.admin.port,
                admin.fallback,
                _ADMIN_LIMITS,
            )
        )
        _log.info(
            "the admin page is on %s port %d; your browser finds it at %s",
            settings.admin.host,
            admin_port,
            settings.admin.base_url,
        )
        await stop.wait()
        _log.info("stopping")
        live.close()
        await submissions.finish(_GRACE)


def address(settings: Settings) -> Address:
    """Return where Home Assistant is: the Supervisor's websocket under it, else as configured.

    Raises:
        StartError: its certificates cannot be read.

    """
    ours = settings.home_assistant
    if settings.supervisor_token is not None:
        return Address(_SUPERVISOR, settings.supervisor_token.get_secret_value())
    return Address(
        websocket_url(ours.url),
        None if ours.token is None else ours.token.get_secret_value(),
        _tls(verify=ours.verify_tls, ca_file=ours.ca_file),
    )


def _home(settings: Settings, store: Store, changes: Changes) -> HomeAssistant:
    return HomeAssistant(
        address(settings),
        now=clock,
        zone=_zone(store.recall(_ZONE)),
        action_timeout=settings.home_assistant.action_timeout,
        plans=lambda: [action.plan for action in store.actions()],
        changed=lambda: changes.tell(_HOME_CHANGED.subject, _HOME_CHANGED.id),
    )


def broker_address(mqtt: Mqtt) -> BrokerAddress:
    """Return where the broker is that the settings name.

    Raises:
        StartError: its certificates cannot be read.

    """
    from otsd.mqtt.line import Address as BrokerAddress  # noqa: PLC0415 - 10 MB, without a use

    return BrokerAddress(
        host=mqtt.host or "",
        port=mqtt.port,
        username=mqtt.username,
        password=None if mqtt.password is None else mqtt.password.get_secret_value(),
        tls=_trusting(mqtt.ca_file, "mqtt.ca_file") if mqtt.tls else None,
        protocol=mqtt.protocol,
    )


def _broker(
    settings: Settings, store: Store, home: HomeAssistant, tokens: Tokens, changes: Changes
) -> Broker | None:
    mqtt = settings.mqtt
    if mqtt.host is None:
        return None
    from otsd.mqtt.broker import Broker  # noqa: PLC0415 - 10 MB, without a use
    from otsd.mqtt.commands import Commands  # noqa: PLC0415
    from otsd.mqtt.discovery import About  # noqa: PLC0415
    from otsd.mqtt.projection import Projection  # noqa: PLC0415
    from otsd.mqtt.topics import Topics  # noqa: PLC0415

    topics = Topics(mqtt.base_topic, mqtt.discovery_prefix)
    return Broker(
        broker_address(mqtt),
        topics=topics,
        store=store,
        projection=Projection(
            store=store,
            home=home,
            link=tokens.link,
            changes=changes,
            now=clock,
            about=About(
                topics=topics,
                title=settings.public.title,
                version=__version__,
                configuration_url=str(settings.admin.base_url),
                commands=mqtt.commands,
                links=mqtt.publish_links,
            ),
            devices=mqtt.token_devices,
        ),
        commands=Commands(tokens=tokens, home=home, now=clock, topics=topics)
        if mqtt.commands
        else None,
        now=clock,
        changed=lambda: changes.tell(Subject.CONNECTION, "mqtt"),
    )


def _accounts(settings: Settings, home: HomeAssistant) -> Accounts:
    ours, base = settings.home_assistant, settings.admin.base_url
    return Accounts(
        url=ours.url,  # also under the Supervisor, whose way to Home Assistant is for add-ons only
        browser_url=ours.browser_url,
        client_id=f"{str(base).rstrip('/')}/",
        redirect_uri=f"{str(base).rstrip('/')}/callback",
        own_token=_no_token if settings.supervised else home.own_token,
        tls=_tls(verify=ours.verify_tls, ca_file=ours.ca_file),
    )


async def _no_token() -> str:
    raise AccountsUnavailable("The Supervisor's token is good for the Supervisor alone.")


def _configured(settings: Settings) -> str | None:
    if settings.supervised:
        return "supervisor"
    return None if settings.home_assistant.token is None else "token"


def _fernet_key(key: InstanceKey, purpose: str) -> bytes:
    return base64.urlsafe_b64encode(key.derive(purpose))


def _tls(*, verify: bool, ca_file: Path | None) -> ssl.SSLContext | bool:
    if not verify:
        return False
    return True if ca_file is None else _trusting(ca_file, "home_assistant.ca_file")


def _trusting(ca_file: Path | None, key: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        msg = f"{key}: {ca_file} holds no certificates that can be read: {error}."
        raise StartError(msg) from error


def _target(settings: Settings) -> str | None:
    return settings.notifications.target if settings.notifications.on_submission else None


def _site(settings: Settings) -> Site:
    return Site(
        title=settings.public.title,
        contact=settings.public.contact,
        root=settings.public.base_url.raw_path.rstrip("/"),
        trusted_proxies=settings.public.trusted_proxies,
    )


def _zone(remembered: str | None) -> tzinfo:
    """Return Home Assistant's zone as it was last known, else the machine's."""
    for name in (remembered, os.environ.get("TZ", "").lstrip(":")):
        with suppress(KeyError, OSError, ValueError):  # a KeyError is a zone that is not known
            if name:
                return ZoneInfo(name)
    with suppress(OSError, ValueError), Path("/etc/localtime").open("rb") as file:
        return ZoneInfo.from_file(file)
    return UTC


def _remember_zone(tasks: asyncio.TaskGroup, store: Store, name: str) -> None:
    async def remember() -> None:
        with suppress(StorageUnavailable):
            await store.remember(_ZONE, name)

    tasks.create_task(remember(), name="remember the time zone")


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
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
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
