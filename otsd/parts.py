"""Builds every part of the daemon once: the only file that knows them all.

``otsd.app`` runs what is built here.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import ssl
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from otsd import __version__
from otsd.core.access import AccountsUnavailable
from otsd.core.announce import Announcer
from otsd.core.changes import Changes, Subject
from otsd.core.codes import Codes, ImportedCodes
from otsd.core.errors import StartError
from otsd.core.events import announcer
from otsd.core.imports import Imports
from otsd.core.keys import Keys
from otsd.core.manage import Actions, Tokens
from otsd.core.ports import ConnectionState, ConnectionStatus
from otsd.core.submit import Submissions
from otsd.home.accounts import Accounts
from otsd.home.credential import OwnCredential
from otsd.home.home import Address, HomeAssistant, websocket_url
from otsd.home.supervisor import WEBSOCKET, Supervisor
from otsd.one_time_service import WHERE
from otsd.server.admin import AdminParts, AdminSite
from otsd.server.api import AdminApi
from otsd.server.entrance import Entrance, House
from otsd.server.handling import Parts
from otsd.server.live import Live
from otsd.server.login import Logins
from otsd.server.metrics import Measured, Metrics
from otsd.server.throttle import Throttle
from otsd.server.visitor import Site, VisitorSite
from otsd.store.archive import Backups
from otsd.store.store import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otsd.core.ports import Store
    from otsd.mqtt.broker import Broker, Find
    from otsd.settings import Mqtt, Settings
    from otsd.store.key import InstanceKey
    from otsd.store.store import SqliteStore

ZONE: Final = "zone"
"""Under which name the store remembers Home Assistant's time zone."""
NO_BROKER: Final = "mqtt.host is not set"
_OF_MQTT_HOST: Final = {"port", "tls", "username", "password"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Core:
    """The rules, with the store and the home that they work on."""

    store: SqliteStore
    key: InstanceKey
    changes: Changes
    home: HomeAssistant
    imported: ImportedCodes
    submissions: Submissions
    tokens: Tokens
    announcer: Announcer


@dataclass(frozen=True, slots=True)
class Daemon:
    """Everything that runs."""

    core: Core
    accounts: Accounts
    broker: Broker | None
    live: Live
    api: AdminApi
    visitors: VisitorSite
    admin: AdminSite


def clock() -> datetime:
    """Return the present, in UTC."""
    return datetime.now(UTC)


async def built(settings: Settings, stack: AsyncExitStack) -> Daemon:
    """Build the daemon; what must be closed is closed by the stack.

    Raises:
        StartError: it cannot start here, and what to do about it.

    """
    core = await _core(settings, stack)
    broker = _broker(settings, core)
    without_broker = ConnectionStatus(ConnectionState.OFF, clock(), NO_BROKER)
    connections: Mapping[str, Callable[[], ConnectionStatus]] = {
        "home_assistant": lambda: core.home.status,
        "mqtt": lambda: broker.status if broker else without_broker,
    }
    live = Live(store=core.store, changes=core.changes, now=clock, connections=connections)
    accounts = await stack.enter_async_context(accounts_of(settings, core.home))
    credential = OwnCredential(
        core.home,
        accounts,
        core.store,
        secret=credential_key(core.key),
        configured=_configured(settings),
    )
    backups = stack.enter_context(Backups(settings.storage.directory, clock))
    api = AdminApi(
        Parts(
            store=core.store,
            home=core.home,
            submissions=core.submissions,
            announcer=core.announcer,
            actions=Actions(store=core.store, home=core.home, now=clock, changes=core.changes),
            tokens=core.tokens,
            imports=Imports(
                store=core.store,
                home=core.home,
                codes=core.imported,
                now=clock,
                changes=core.changes,
                random=secrets.token_bytes,
            ),
            offered=WHERE if settings.supervised else None,
            backups=backups,
            now=clock,
            mqtt=connections["mqtt"],
            keys=Keys(
                access=core.store.access, store=core.store, now=clock, random=secrets.token_bytes
            ),
            live=live,
            title=settings.public.title,
            base_url=str(settings.public.base_url),
            browser_url=str(settings.home_assistant.browser_url),
            configured=credential.source,
            disconnect=credential.give_up,
            retry_broker=broker.retry if broker else lambda: None,
        )
    )
    visitors = VisitorSite(
        _site(settings),
        submissions=core.submissions,
        home=core.home,
        now=clock,
        throttle=Throttle(time.monotonic),
    )
    admin = AdminSite(
        AdminParts(
            title=settings.public.title,
            base_url=settings.admin.base_url,
            api=api,
            entrance=_entrance(settings, core, accounts),
            accounts=accounts,
            logins=Logins(secret=_fernet_key(core.key, "logins"), now=clock),
            live=live,
            metrics=Metrics(
                Measured(core.store, core.submissions, core.store.writes, connections, clock)
            ),
            can_connect=credential.can_be_granted,
            grant=credential.grant,
        )
    )
    return Daemon(core, accounts, broker, live, api, visitors, admin)


async def _core(settings: Settings, stack: AsyncExitStack) -> Core:
    store, key = await stack.enter_async_context(opened(settings.storage.directory))
    changes = Changes()
    home = _home(settings, store, changes)
    codes = Codes(key.derive("codes"))
    imported = ImportedCodes(key.derive("imported codes"))
    target = _target(settings)
    return Core(
        store=store,
        key=key,
        changes=changes,
        home=home,
        imported=imported,
        submissions=Submissions(
            store=store,
            home=home,
            codes=codes,
            imported=imported,
            now=clock,
            changes=changes,
            announce=announcer(notify=target is not None),
        ),
        tokens=Tokens(
            store=store,
            codes=codes,
            now=clock,
            changes=changes,
            random=secrets.token_bytes,
            base_url=str(settings.public.base_url),
        ),
        announcer=Announcer(store=store, home=home, now=clock, changes=changes, target=target),
    )


def _entrance(settings: Settings, core: Core, accounts: Accounts) -> Entrance:
    return Entrance(
        House(
            base_url=settings.admin.base_url,
            supervised=settings.supervised,
            accept_tokens=settings.admin.accept_home_assistant_tokens,
            administrators=core.home.administrators,
        ),
        access=core.store.access,
        accounts=accounts,
        secret=_fernet_key(core.key, "sessions"),
        now=clock,
    )


def address(settings: Settings) -> Address:
    """Return where Home Assistant is: the Supervisor's websocket under it, else as configured.

    Raises:
        StartError: its certificates cannot be read.

    """
    ours = settings.home_assistant
    if settings.supervisor_token is not None:
        return Address(WEBSOCKET, settings.supervisor_token.get_secret_value())
    return Address(
        websocket_url(ours.url),
        None if ours.token is None else ours.token.get_secret_value(),
        _tls(verify=ours.verify_tls, ca_file=ours.ca_file),
    )


def _home(settings: Settings, store: Store, changes: Changes) -> HomeAssistant:
    return HomeAssistant(
        address(settings),
        now=clock,
        zone=_zone(store.recall(ZONE)),
        action_timeout=settings.home_assistant.action_timeout,
        plans=lambda: [action.plan for action in store.actions()],
        changed=lambda: changes.tell(Subject.CONNECTION, "home_assistant"),
    )


def broker_found(settings: Settings) -> Find | None:
    """Return how the broker is found: where the settings name it, else by asking the Supervisor.

    Returns None when there is neither.

    Raises:
        StartError: its certificates cannot be read.

    """
    if settings.mqtt.host is not None:
        return _named(settings.mqtt, settings.mqtt.host)
    if settings.supervisor_token is not None:
        return _asked(settings.mqtt, Supervisor(settings.supervisor_token))
    return None


def _named(mqtt: Mqtt, host: str) -> Find:
    from otsd.mqtt.broker import always  # noqa: PLC0415 - 10 MB, without a use
    from otsd.mqtt.line import Address as BrokerAddress  # noqa: PLC0415

    return always(
        BrokerAddress(
            host=host,
            port=mqtt.port,
            username=mqtt.username,
            password=None if mqtt.password is None else mqtt.password.get_secret_value(),
            tls=_trusting(mqtt.ca_file, "mqtt.ca_file") if mqtt.tls else None,
            protocol=mqtt.protocol,
        )
    )


def _asked(mqtt: Mqtt, supervisor: Supervisor) -> Find:
    from otsd.mqtt.line import Address as BrokerAddress  # noqa: PLC0415 - 10 MB, without a use

    # one for all answers, so that equal ones are equal
    tls = _trusting(mqtt.ca_file, "mqtt.ca_file")

    async def find() -> BrokerAddress:
        told = await supervisor.mqtt()
        return BrokerAddress(
            host=told.host,
            port=told.port,
            username=told.username,
            password=None if told.password is None else told.password.get_secret_value(),
            tls=tls if told.ssl else None,
            protocol=mqtt.protocol,
        )

    return find


def _tell_unused(mqtt: Mqtt) -> None:
    """Tell of settings that are of no use where the Supervisor names the broker."""
    given = mqtt.model_dump(include=_OF_MQTT_HOST, exclude_unset=True, exclude_defaults=True)
    if given:
        _log.warning(
            "not used, since mqtt.host is not set: %s; the Supervisor says where the broker is, "
            "and how to log in there",
            ", ".join(f"mqtt.{name}" for name in given),
        )


def _broker(settings: Settings, core: Core) -> Broker | None:
    mqtt, find = settings.mqtt, broker_found(settings)
    if find is None:
        return None
    if mqtt.host is None:
        _tell_unused(mqtt)
    from otsd.mqtt.broker import Broker  # noqa: PLC0415 - 10 MB, without a use
    from otsd.mqtt.commands import Commands  # noqa: PLC0415
    from otsd.mqtt.discovery import About  # noqa: PLC0415
    from otsd.mqtt.projection import Projection  # noqa: PLC0415
    from otsd.mqtt.topics import Topics  # noqa: PLC0415

    topics = Topics(mqtt.base_topic, mqtt.discovery_prefix)
    token = settings.supervisor_token
    return Broker(
        find,
        topics=topics,
        store=core.store,
        projection=Projection(
            store=core.store,
            home=core.home,
            link=core.tokens.link,
            changes=core.changes,
            now=clock,
            about=About(
                topics=topics,
                title=settings.public.title,
                version=__version__,
                configuration_url=str(settings.admin.base_url) if token is None else None,
                commands=mqtt.commands,
                links=mqtt.publish_links,
            ),
            devices=mqtt.token_devices,
        ),
        commands=Commands(tokens=core.tokens, home=core.home, now=clock, topics=topics)
        if mqtt.commands
        else None,
        now=clock,
        changed=lambda: core.changes.tell(Subject.CONNECTION, "mqtt"),
        page=None if token is None else Supervisor(token).page,
    )


def accounts_of(settings: Settings, home: HomeAssistant) -> Accounts:
    """Build what asks Home Assistant about its users."""
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


def credential_key(key: InstanceKey) -> bytes:
    """Return the key that the credential of otsd's own connection is kept with."""
    return _fernet_key(key, "credentials")


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
