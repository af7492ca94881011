"""Home Assistant: one websocket, kept for ever.

    connect ─► who are we, is it RUNNING ─► catalogue ─► usable ─► ping until it is lost

What can be asked is asked over the one connection, pipelined. What it means when an answer does
not come is in ``commands``; what Home Assistant has, in ``catalogue``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias
from zoneinfo import ZoneInfo

import aiohttp
from hass_client.exceptions import AuthenticationFailed

from otsd.core.access import AccountsUnavailable
from otsd.core.actions import plan as plan_of
from otsd.core.errors import (
    HomeError,
    HomeUnavailable,
    NoAnswer,
    NotAsked,
    Refused,
    TargetUnavailable,
)
from otsd.core.ports import Clock, ConnectionStatus, Ran
from otsd.home.catalogue import Catalogue
from otsd.home.commands import Client, command, subscribe
from otsd.home.reasons import why
from otsd.supervise import REFUSAL_PAUSES, CredentialRefused, Keeper, Lost, what_ended

if TYPE_CHECKING:
    from datetime import tzinfo

    from yarl import URL

    from otsd.core.actions import Plan

_DEADLINE: Final = timedelta(seconds=30)
_STARTING_POLL: Final = timedelta(seconds=0.5)
_RUNNING: Final = "RUNNING"
_ADMINISTRATORS: Final = "system-admin"
_NOT_ADMIN: Final = (
    "The access token is not an administrator's: Home Assistant takes no events and no sequences "
    "from it. Create the token as an administrator."
)
_MEND: Final = (
    "Give otsd a new long-lived access token (home_assistant.token), made by an administrator on "
    "the profile page, under Security"
)
_OFF: Final = (
    "no access token is configured (home_assistant.token), and nobody has connected otsd yet: "
    "log in to the admin page and do so"
)

_log = logging.getLogger(__name__)


Credential: TypeAlias = "Callable[[], Awaitable[str]]"
"""Returns an access token; raises `Lost`, or `CredentialRefused` when there will be none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Home Assistant is and what otsd shows it."""

    websocket_url: URL
    token: str | None
    ssl: ssl.SSLContext | bool = True

    def __repr__(self) -> str:
        """Show the address alone."""
        return f"Address({self.websocket_url})"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for Home Assistant, and how often to see that it is there."""

    # whoever takes a connection and says nothing is tried anew as often as whoever takes none
    connect_deadline: timedelta = timedelta(seconds=4)
    # a frozen peer is noticed within these two together
    ping_every: timedelta = timedelta(seconds=7)
    ping_deadline: timedelta = timedelta(seconds=8)
    # Home Assistant forgets a login that was not used for 90 days
    renew_every: timedelta = timedelta(days=1)
    refusal_pauses: tuple[timedelta, timedelta] = REFUSAL_PAUSES


_PACE: Final = Pace()


@dataclass(slots=True)
class _Line:
    """The socket of one connection, which can be cut without waiting for anybody."""

    sockets: list[socket.socket] = field(default_factory=list)

    def socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Make a socket, as aiohttp asks for it."""
        family, kind, protocol, *_ = address
        self.sockets.append(socket.socket(family, kind, protocol))
        return self.sockets[-1]

    def cut(self) -> None:
        """End the connection now: a closing handshake with a frozen peer takes 10 s to fail."""
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _fixed(token: str) -> Credential:
    async def credential() -> str:
        return token

    return credential


def websocket_url(url: URL) -> URL:
    """Return the websocket of the Home Assistant at an ``http(s)`` address."""
    return (url / "api/websocket").with_scheme("wss" if url.scheme == "https" else "ws")


class HomeAssistant:
    """The one adapter of the port `otsd.core.ports.Home`, where its methods are described."""

    # ruff: noqa: D102 - the port describes each method once

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        address: Address,
        *,
        now: Clock,
        zone: tzinfo,
        action_timeout: timedelta,
        plans: Callable[[], Iterable[Plan]],
        pace: Pace = _PACE,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take where it is, the zone to use until it tells its own, and the actions' plans.

        ``changed`` is called when the connection stands otherwise than before.
        """
        self._address = address
        self._credential = None if address.token is None else _fixed(address.token)
        self._zone = zone
        self._action_timeout = action_timeout
        self._plans = plans
        self._pace = pace
        self._keeper = Keeper(
            "Home Assistant",
            now,
            off=None if self._credential else _OFF,
            refusal_pauses=pace.refusal_pauses,
            changed=changed,
        )
        self._client: Client | None = None
        self._catalogue: Catalogue | None = None
        self._is_running = asyncio.Event()
        self.on_zone: Callable[[str], None] = lambda _: None
        """Called with the name of Home Assistant's time zone when it is known."""

    @property
    def status(self) -> ConnectionStatus:
        return self._keeper.status

    @property
    def zone(self) -> tzinfo:
        return self._zone

    def retry(self) -> None:
        """Try to connect now, even after a refusal; without a token there is nothing to try."""
        if self._credential is not None:
            self._keeper.retry()

    def use(self, credential: Credential | None) -> None:
        """Connect with another credential from now on; with none, not at all."""
        self._credential = credential
        self._keeper.restart(None if credential else _OFF)

    def actions_changed(self) -> None:
        """Hear that the actions name other things now."""
        if self._catalogue is not None:
            self._catalogue.actions_changed()

    async def own_token(self) -> str:
        """Return an access token of otsd's own that is good; raises `AccountsUnavailable`."""
        try:
            # one that Home Assistant has refused would be one refusal more
            if self._credential is not None and self._keeper.is_connected:
                return await self._credential()
        except (Lost, CredentialRefused) as error:
            raise AccountsUnavailable(str(error)) from error
        raise AccountsUnavailable("otsd is not connected to Home Assistant.")

    # -- asking ----------------------------------------------------------------------------

    def check(self, plan: Plan) -> None:
        if self._catalogue is None:
            raise HomeUnavailable
        if missing := self._missing(self._catalogue, plan):
            raise TargetUnavailable(missing)

    async def missing(self, plan: Plan) -> Sequence[str]:
        catalogue = self._catalogue
        if catalogue is None:
            return []
        try:
            await catalogue.refresh(also=plan)
        except HomeError:
            return []
        return self._missing(catalogue, plan)

    def _missing(self, catalogue: Catalogue, plan: Plan) -> Sequence[str]:
        if plan.call is None and plan.steps and self.status.error == _NOT_ADMIN:
            return [_NOT_ADMIN]  # it would be refused, and the use be spent for nothing
        return catalogue.missing(plan)

    async def run(self, plan: Plan, variables: Mapping[str, object]) -> Ran:
        call = plan.call
        if call is None:
            result = await self._command(
                "execute_script",
                self._action_timeout,
                sequence=list(plan.steps),
                variables=dict(variables),
            )
        else:
            fields: dict[str, object] = {"domain": call.domain, "service": call.service}
            if call.data:
                fields["service_data"] = call.data
            if call.target:
                fields["target"] = call.target
            service = self._catalogue and self._catalogue.service(f"{call.domain}.{call.service}")
            if service and service.must_respond:
                fields["return_response"] = True
            result = await self._command("call_service", self._action_timeout, **fields)
        answer = result if isinstance(result, dict) else {}
        return Ran((answer.get("context") or {}).get("id"), answer.get("response"))

    async def validate(self, plan: Plan) -> str | None:
        try:
            result = await self._command("validate_config", _DEADLINE, actions=list(plan.steps))
        except Refused as error:
            return str(error)
        except NoAnswer as error:
            raise NotAsked(str(error)) from error
        verdict = result["actions"]
        return None if verdict["valid"] else str(verdict["error"])

    async def services(self) -> Mapping[str, Mapping[str, object]]:
        services: Mapping[str, Mapping[str, object]] = await self._command(
            "get_services", _DEADLINE
        )
        return services

    async def states(self) -> Sequence[Mapping[str, object]]:
        states: Sequence[Mapping[str, object]] = await self._command("get_states", _DEADLINE)
        return states

    async def administrators(self) -> Mapping[str, str]:
        users = await self._command("config/auth/list", _DEADLINE)
        return {
            str(user["id"]): str(user.get("name") or "")
            for user in users
            if user.get("is_active")
            and (user.get("is_owner") or _ADMINISTRATORS in user.get("group_ids", ()))
        }

    async def running(self) -> None:
        await self._is_running.wait()

    async def fire(self, event_type: str, data: Mapping[str, object]) -> None:
        if not self._is_running.is_set():
            msg = "Home Assistant is not running"
            raise NotAsked(msg)
        await self._command("fire_event", _DEADLINE, event_type=event_type, event_data=dict(data))
        if not self._is_running.is_set():
            # it began to stop before it answered, and perhaps no automation listened any more
            msg = "Home Assistant was stopping"
            raise NoAnswer(msg)

    async def notify(self, target: str, title: str, message: str) -> None:
        fields: dict[str, object] = {"service_data": {"title": title, "message": message}}
        if self._catalogue is not None and await self._catalogue.find(target):
            domain, _, service = target.partition(".")
        else:
            # for an entity that is not there Home Assistant would report success
            domain, service = "notify", "send_message"
            fields["target"] = {"entity_id": target}
            step = {"action": f"{domain}.{service}", "target": fields["target"]}
            if faults := await self.missing(plan_of(step)):
                raise Refused("; ".join(faults))
        await self._command("call_service", _DEADLINE, domain=domain, service=service, **fields)

    async def _command(self, kind: str, deadline: timedelta, **fields: object) -> Any:  # noqa: ANN401
        if self._client is None:
            msg = "Home Assistant is not connected"
            raise NotAsked(msg)
        return await command(self._client, kind, deadline, **fields)

    # -- staying connected -----------------------------------------------------------------

    async def keep(self) -> NoReturn:
        """Stay connected until cancelled."""
        await self._keeper.run(self._session)

    async def _session(self) -> NoReturn:
        line = _Line()
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(socket_factory=line.socket),
                    timeout=aiohttp.ClientTimeout(),  # the deadlines are ours
                ) as http,
                asyncio.TaskGroup() as tasks,
            ):
                client = await self._connect(http)
                try:
                    tasks.create_task(_listen(client), name="Home Assistant: listen")
                    tasks.create_task(self._ping(client), name="Home Assistant: ping")
                    tasks.create_task(self._renew(), name="Home Assistant: credential")
                    await self._use(client, tasks)
                finally:
                    self._client = self._catalogue = None
                    self._is_running.clear()
                    line.cut()
        except BaseExceptionGroup as group:
            raise what_ended(group, _unexpected) from group
        msg = "the connection ended"
        raise Lost(msg)

    async def _connect(self, http: aiohttp.ClientSession) -> Client:
        if self._credential is None:
            raise Lost(_OFF)
        client: Client | None = None
        try:
            async with asyncio.timeout(self._pace.connect_deadline.total_seconds()):
                token = await self._credential()
                client = Client(str(self._address.websocket_url), token, http)
                await client.connect(ssl=self._address.ssl)
        except (Lost, CredentialRefused):
            raise
        except AuthenticationFailed as error:
            raise CredentialRefused(f"{error}. {_MEND}") from error
        except TimeoutError as error:
            if client is not None and client.version is not None and not client.connected:
                # Refused as well: hass_client closes the connection then, and Home Assistant, which
                # first looks up our name, may take long to take part. Trying again soon would get
                # us banned.
                msg = f"The access token is not accepted. {_MEND}"
                raise CredentialRefused(msg) from error
            raise Lost(why(self._address.websocket_url, error)) from error
        # The handshake of something that is not Home Assistant fails in many ways: a frame that
        # is no text is aiohttp's WSMessageTypeError, which is a TypeError.
        except Exception as error:
            raise Lost(why(self._address.websocket_url, error)) from error
        return client

    async def _use(self, client: Client, tasks: asyncio.TaskGroup) -> None:
        error = await self._who_are_we(client)
        await self._subscribe_to_stop(client)
        catalogue = Catalogue(client, self._plans)
        await catalogue.begin()
        is_running = await self._read_config(client)
        self._client, self._catalogue = client, catalogue
        self._keeper.connected(client.version, error)
        tasks.create_task(catalogue.follow(), name="Home Assistant: catalogue")
        while not is_running:
            await asyncio.sleep(_STARTING_POLL.total_seconds())
            is_running = await self._read_config(client)
        # nothing may come between the answer and this: a stop that follows it is heard later
        self._is_running.set()
        await asyncio.Event().wait()  # until one of the tasks fails

    async def _ping(self, client: Client) -> NoReturn:
        while True:
            await asyncio.sleep(self._pace.ping_every.total_seconds())
            # hass_client drops the pong of Home Assistant's own ping; this one also tells when
            # the user of the token is no administrator any more
            error = await self._who_are_we(client)
            if self._client is not None:
                self._keeper.limited(error)

    async def _renew(self) -> NoReturn:
        """Use the credential now and then, so that Home Assistant goes on knowing it."""
        while True:
            await asyncio.sleep(self._pace.renew_every.total_seconds())
            if self._credential is not None:
                with suppress(Lost):
                    await self._credential()

    async def _who_are_we(self, client: Client) -> str | None:
        user = await command(client, "auth/current_user", self._pace.ping_deadline)
        if user.get("is_admin"):
            return None
        if self.status.error != _NOT_ADMIN:
            _log.warning(_NOT_ADMIN)
        return _NOT_ADMIN

    async def _subscribe_to_stop(self, client: Client) -> None:
        try:
            await subscribe(
                client,
                lambda _: self._is_running.clear(),
                "subscribe_events",
                _DEADLINE,
                event_type="homeassistant_stop",
            )
        except Refused as error:  # not an administrator, who could not fire events either
            _log.debug("no subscription to homeassistant_stop: %s", error)

    async def _read_config(self, client: Client) -> bool:
        """Learn the time zone, and return whether automations hear events."""
        config = await command(client, "get_config", _DEADLINE)
        name = config.get("time_zone")
        if name and name != getattr(self._zone, "key", None):
            try:
                self._zone = ZoneInfo(name)
            except (KeyError, OSError, ValueError) as error:
                _log.warning("Home Assistant's time zone %r is not known here: %s", name, error)
            else:
                self.on_zone(name)
        # very old releases tell no state; they are running once they answer
        return bool(config.get("state", _RUNNING) == _RUNNING)


async def _listen(client: Client) -> NoReturn:
    try:
        await client.start_listening()
    # a message of another form than Home Assistant's raises whatever comes first
    except Exception as error:
        msg = f"the connection broke: {str(error) or type(error).__name__}"
        raise Lost(msg) from error
    msg = "Home Assistant closed the connection"
    raise Lost(msg)


def _unexpected(error: Exception) -> Lost:
    if isinstance(error, HomeError):
        return Lost(str(error))
    # whatever it was, otsd stays up
    _log.debug("the session with Home Assistant ended unexpectedly", exc_info=error)
    return Lost(f"it says something unexpected ({type(error).__name__}: {error})")
