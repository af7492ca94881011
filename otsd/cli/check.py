"""``otsd check``: would it work, and if not, what is wrong.

A running daemon is asked, because it knows best. Without one everything is tried from here, and
nothing is made by it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from otsd.cli import tables
from otsd.cli.output import flush, say, say_json, visible
from otsd.core.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from otsd.cli.client import Client
    from otsd.cli.context import Context
    from otsd.home.accounts import Accounts
    from otsd.mqtt.broker import Find
    from otsd.settings import Mqtt, Settings

_DEADLINE: Final = timedelta(seconds=5)
_LOOK_AGAIN: Final = 0.05

_CONFIGURATION: Final = "configuration"
_STORAGE: Final = "storage"
_HOME: Final = "Home Assistant"
_BROKER: Final = "broker"


class Verdict(StrEnum):
    """What became of a part."""

    OK = "ok"
    OFF = "off"
    FAILED = "failed"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Granted:
    """What an administrator granted to otsd on the admin page, as far as it can be known."""

    refresh: str | None = None
    unknown: str | None = None
    """Why nobody can know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, and in words what there is to know, or to do."""

    part: str
    verdict: Verdict
    words: str

    def __str__(self) -> str:
        """Write it as a line; where the words are more than one, they go on below each other."""
        first, *rest = map(visible, self.words.split("\n"))
        indent = f"{'':27}"
        head = f"{self.part:<16}{self.verdict:<11}"
        return "\n".join([f"{head}{first}", *(f"{indent}{line}" for line in rest)])


def _usable() -> Finding:
    from otsd.settings import mistyped  # noqa: PLC0415 - slow, and loaded by now

    words = "; ".join(["every setting can be used", *mistyped()])
    return Finding(_CONFIGURATION, Verdict.OK, words)


def check(context: Context) -> int:
    """Print a line for each part; 1 if one fails."""
    findings = []
    for finding in _findings(context):
        findings.append(finding)
        if not context.json:
            say(str(finding))
            flush()  # the next may take seconds
    failed = any(finding.verdict is Verdict.FAILED for finding in findings)
    if context.json:
        say_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    return int(failed)


def _findings(context: Context) -> Iterator[Finding]:
    from otsd.settings import ConfigurationError  # noqa: PLC0415 - slow, and loaded by now

    try:
        settings = context.settings
    except ConfigurationError as error:
        yield Finding(_CONFIGURATION, Verdict.FAILED, str(error))
        for part in (_STORAGE, _HOME, _BROKER):
            yield Finding(part, Verdict.UNTRIED, "the configuration comes first")
        return
    yield from _parts(context, settings)


def _parts(context: Context, settings: Settings) -> Iterator[Finding]:
    from otsd.cli.client import NoDaemon, NoReply, Problem  # noqa: PLC0415

    directory = settings.storage.directory.absolute()
    daemon = context.connected(_DEADLINE)
    try:
        status = _settled(daemon)
    except NoDaemon:
        yield asyncio.run(_listeners(settings))
        storage, granted = _storage(directory)
        yield storage
        yield asyncio.run(_home(settings, granted))
        yield asyncio.run(_broker(settings))
    except (NoReply, Problem) as error:
        yield _usable()
        yield Finding(_STORAGE, Verdict.FAILED, str(error))
        for part in (_HOME, _BROKER):
            yield Finding(part, Verdict.UNTRIED, "the daemon comes first")
    else:
        yield _usable()
        yield Finding(_STORAGE, Verdict.OK, f"{directory}, used by the running daemon")
        yield _connection(_HOME, status["home_assistant"], "version {}")
        yield _connection(_BROKER, status["mqtt"], "MQTT {}")


def _settled(daemon: Client) -> Any:  # noqa: ANN401 - JSON
    """Ask the daemon how it is; one that has just been started is given time to connect."""
    end = time.monotonic() + _DEADLINE.total_seconds()
    while True:
        status = daemon.get("/status")
        both = (status["home_assistant"], status["mqtt"])
        if not any(map(_is_undecided, both)) or time.monotonic() > end:
            return status
        time.sleep(_LOOK_AGAIN)


# -- without a daemon ------------------------------------------------------------------------


async def _listeners(settings: Settings) -> Finding:
    """Try the addresses that the daemon will listen on, both at a time."""
    from otsd.server.listener import ListenAddress, taken  # noqa: PLC0415

    faults: list[str] = []
    ours: set[tuple[str, int]] = set()
    async with AsyncExitStack() as stack:
        for section, host, port in (
            ("public", settings.public.host, settings.public.port),
            ("admin", settings.admin.host, settings.admin.port),
        ):
            address = ListenAddress(section, host, port)
            try:
                places = await stack.enter_async_context(taken(address))
            except StartError as error:
                faults.append(str(error))
            else:
                # nothing stops the second as long as nobody listens
                if any(_is_one_place(here, there) for here in places for there in ours):
                    faults.append(address.why_not(OSError(errno.EADDRINUSE, "")))
                ours |= places
    return Finding(_CONFIGURATION, Verdict.FAILED, "\n".join(faults)) if faults else _usable()


def _is_one_place(here: tuple[str, int], there: tuple[str, int]) -> bool:
    hosts = {here[0], there[0]}
    is_every = hosts & {"0.0.0.0", "::"} and len({":" in host for host in hosts}) == 1  # noqa: S104
    return here[1] == there[1] and (len(hosts) == 1 or bool(is_every))


def _storage(directory: Path) -> tuple[Finding, Granted]:
    """Look at the storage, and at what an administrator granted there."""
    from otsd.store import database  # noqa: PLC0415 - only without a daemon

    try:
        if (words := _yet_to_be(directory)) is not None:
            is_restored = (directory / database.RESTORED).exists()
            unknown = "otsd run puts the restored backup into its place first"
            return _to_be_made(directory, words), Granted(unknown=unknown if is_restored else None)
        with database.held(directory):
            steps = database.schemas()
            version, newest = database.look(directory, steps), steps[-1].version
            granted = Granted(_refresh(directory) if version else None)
        words = str(directory)
        if version < newest:
            words += ", of an older otsd; it is upgraded at the start, and a copy kept"
        return Finding(_STORAGE, Verdict.OK, words), granted
    except OSError as error:
        words = f"The storage directory {directory} cannot be used: {error.strerror}."
    except StartError as error:
        words = str(error)
    return Finding(_STORAGE, Verdict.FAILED, words), Granted(unknown="the storage comes first")


def _refresh(directory: Path) -> str | None:
    from otsd.home.credential import GRANT, unsealed  # noqa: PLC0415 - only without a daemon
    from otsd.parts import credential_key  # noqa: PLC0415
    from otsd.store import database, key  # noqa: PLC0415

    if (own := key.load(directory)) is None:
        return None
    return unsealed(database.recall(directory, GRANT), credential_key(own))


def _yet_to_be(directory: Path) -> str | None:
    """Say what the start will do to a directory without a database; ``None`` if it has one."""
    from otsd.store import database, key  # noqa: PLC0415 - only without a daemon

    if not directory.exists():
        return f"{directory} does not exist yet; it will be made"
    if (directory / database.RESTORED).exists():
        return f"{directory} has a restored backup, which the start puts into its place"
    if directory.is_dir() and not (directory / database.NAME).exists():
        key.load(directory)
        return f"{directory} holds no database yet; it will be made"
    return None


def _to_be_made(directory: Path, words: str) -> Finding:
    """Say so, unless it cannot be made here."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding(_STORAGE, Verdict.OK, words)
    words = f"{directory} cannot be made: otsd may not write in {there}."
    return Finding(_STORAGE, Verdict.FAILED, words)


async def _home(settings: Settings, granted: Granted) -> Finding:
    is_granted = settings.home_assistant.token is None and not settings.supervised
    if is_granted and granted.unknown:
        return Finding(_HOME, Verdict.UNTRIED, granted.unknown)
    from otsd.home.credential import credential_of  # noqa: PLC0415 - only without a daemon
    from otsd.home.home import HomeAssistant  # noqa: PLC0415
    from otsd.parts import accounts_of, address  # noqa: PLC0415
    from otsd.payloads import connection_json  # noqa: PLC0415

    try:
        found_at = address(settings)
        home = HomeAssistant(
            found_at,
            now=tables.now,
            zone=UTC,
            action_timeout=settings.home_assistant.action_timeout,
            plans=list,
        )
        asking = accounts_of(settings, home)
    except StartError as error:
        return Finding(_HOME, Verdict.FAILED, str(error))
    end = time.monotonic() + _DEADLINE.total_seconds()
    with _quiet():
        async with asking as accounts, asyncio.TaskGroup() as tasks:
            if is_granted and granted.refresh:
                home.use(credential_of(granted.refresh, accounts))
            keeping = tasks.create_task(home.keep(), name="Home Assistant")
            # it has no event to wait for
            while (  # noqa: ASYNC110
                _is_undecided(connection_json(home.status)) and time.monotonic() < end
            ):
                await asyncio.sleep(_LOOK_AGAIN)
            found = connection_json(home.status)
            keeping.cancel()
            if found["state"] == "off":
                found["error"] += f"; {await _knocked(settings, accounts)}"
    return _connection(_HOME, found, f"version {{}} at {found_at.websocket_url.host}")


async def _knocked(settings: Settings, accounts: Accounts) -> str:
    """Say whether anything answers where Home Assistant is, which nobody has tried yet."""
    from otsd.core.access import AccountsUnavailable  # noqa: PLC0415 - only without a daemon

    try:
        await accounts.knock()
    except AccountsUnavailable as error:
        return f"home_assistant.url: {error.reason}"
    return f"home_assistant.url: something answers at {settings.home_assistant.url}"


async def _broker(settings: Settings) -> Finding:
    from otsd.parts import NO_BROKER, broker_found  # noqa: PLC0415 - only without a daemon
    from otsd.supervise import Absent, CredentialRefused, Lost  # noqa: PLC0415

    try:
        find = broker_found(settings)
        if find is None:
            return Finding(_BROKER, Verdict.OFF, NO_BROKER)
        with _quiet():
            async with asyncio.timeout(_DEADLINE.total_seconds()):
                return await _tried(settings.mqtt, find)
    except Absent as error:
        return Finding(_BROKER, Verdict.OFF, str(error))
    except (StartError, Lost, CredentialRefused) as error:
        return Finding(_BROKER, Verdict.FAILED, str(error))
    except TimeoutError:
        return Finding(_BROKER, Verdict.FAILED, _no_answer())


async def _tried(mqtt: Mqtt, find: Find) -> Finding:
    from otsd.mqtt.broker import subscribe  # noqa: PLC0415 - only without a daemon
    from otsd.mqtt.line import Pace, connected  # noqa: PLC0415
    from otsd.mqtt.topics import Topics  # noqa: PLC0415

    topics = Topics(mqtt.base_topic, mqtt.discovery_prefix)
    name = f"{topics.id}-check"  # a daemon of the same name would be thrown out
    address = await find()
    async with connected(address, Pace(), name, will=None) as line:
        denied = await subscribe(line, topics, commands=mqtt.commands)
        await line.part()
    if denied is not None:
        return Finding(_BROKER, Verdict.FAILED, denied)
    return Finding(_BROKER, Verdict.OK, f"MQTT {line.version} at {address.host}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log silent: what it would say is what the finding says."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# -- verdicts --------------------------------------------------------------------------------


def _is_undecided(status: Mapping[str, Any]) -> bool:
    return status["state"] == "connecting" and status["error"] is None


def _connection(part: str, status: Mapping[str, Any], words: str) -> Finding:
    state, error = status["state"], status["error"]
    if state == "off":
        return Finding(part, Verdict.OFF, error or "")
    if state == "connected" and error is None:
        return Finding(part, Verdict.OK, words.format(status["version"]))
    return Finding(part, Verdict.FAILED, error or _no_answer())


def _no_answer() -> str:
    return f"it has not answered within {_DEADLINE.total_seconds():.0f} s"
