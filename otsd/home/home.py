"""Home Assistant: one websocket, kept for ever.

    connect ─► who are we, is it RUNNING ─► catalogue ─► usable ─► ping until it is lost

What can be asked is asked over the one connection, pipelined. What it means when an answer does
not come is in ``commands``; what Home Assistant has, in ``catalogue``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn
from zoneinfo import ZoneInfo

import aiohttp
from hass_client import HomeAssistantClient
from hass_client.exceptions import AuthenticationFailed, BaseHassClientError

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
from otsd.home.commands import command, subscribe
from otsd.supervise import CredentialRefused, Keeper, Lost

if TYPE_CHECKING:
    from datetime import tzinfo

    from yarl import URL

    from otsd.core.actions import Plan

_CONNECT_DEADLINE: Final = timedelta(seconds=10)
_TCP_DEADLINE: Final = timedelta(seconds=3)
_DEADLINE: Final = timedelta(seconds=30)
# a frozen peer is noticed within the two together
_PING_EVERY: Final = timedelta(seconds=7)
_PING_DEADLINE: Final = timedelta(seconds=8)
_STARTING_POLL: Final = timedelta(seconds=0.5)
_RUNNING: Final = "RUNNING"
_NOT_ADMIN: Final = (
    "The access token is not an administrator's: Home Assistant takes no events and no sequences "
    "from it. Create the token as an administrator."
)
_NO_TOKEN: Final = "no access token is configured (home_assistant.token)"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where Home Assistant is and what otsd shows it."""

    websocket_url: URL
    token: str | None
    ssl: ssl.SSLContext | bool = True

    def __repr__(self) -> str:
        """Show the address alone."""
        return f"Address({self.websocket_url})"


def websocket_url(url: URL) -> URL:
    """Return the websocket of the Home Assistant at an ``http(s)`` address."""
    return (url / "api/websocket").with_scheme("wss" if url.scheme == "https" else "ws")


class HomeAssistant:
    """The one adapter of the port `otsd.core.ports.Home`, where its methods are described."""

    # ruff: noqa: D102 - the port describes each method once

    def __init__(
        self,
        address: Address,
        *,
        now: Clock,
        zone: tzinfo,
        action_timeout: timedelta,
        plans: Callable[[], Iterable[Plan]],
    ) -> None:
        """Take where it is, the zone to use until it tells its own, and the actions' plans."""
        self._address = address
        self._zone = zone
        self._action_timeout = action_timeout
        self._plans = plans
        self._keeper = Keeper("Home Assistant", now, off=None if address.token else _NO_TOKEN)
        self._client: HomeAssistantClient | None = None
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
        """Try to connect now, even after a refusal."""
        self._keeper.retry()

    def actions_changed(self) -> None:
        """Hear that the actions name other things now."""
        if self._catalogue is not None:
            self._catalogue.actions_changed()

    # -- asking ----------------------------------------------------------------------------

    def check(self, plan: Plan) -> None:
        if self._catalogue is None:
            raise HomeUnavailable
        if missing := self._catalogue.missing(plan):
            raise TargetUnavailable(missing)

    async def missing(self, plan: Plan) -> Sequence[str]:
        if self._catalogue is None:
            return []
        try:
            await self._catalogue.refresh(also=plan)
        except HomeError:
            return []
        return self._catalogue.missing(plan)

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

    async def running(self) -> None:
        await self._is_running.wait()

    async def fire(self, event_type: str, data: Mapping[str, object]) -> None:
        await self._command("fire_event", _DEADLINE, event_type=event_type, event_data=dict(data))
        if not self._is_running.is_set():
            # it began to stop before it answered, and perhaps no automation listened any more
            msg = "Home Assistant was stopping"
            raise NoAnswer(msg)

    async def notify(self, target: str, title: str, message: str) -> None:
        domain, _, name = target.partition(".")
        data = {"title": title, "message": message}
        if self._catalogue is not None and self._catalogue.service(target):
            await self._command(
                "call_service", _DEADLINE, domain=domain, service=name, service_data=data
            )
        else:
            await self._command(
                "call_service",
                _DEADLINE,
                domain="notify",
                service="send_message",
                service_data=data,
                target={"entity_id": target},
            )

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
        try:
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(sock_connect=_TCP_DEADLINE.total_seconds()),
            ) as http:
                client = await self._connect(http)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_listen(client), name="Home Assistant: listen")
                    tasks.create_task(self._use(client, http, tasks), name="Home Assistant: use")
        except BaseExceptionGroup as group:
            raise _first(group) from group
        except (HomeError, TimeoutError) as error:
            msg = str(error) or "it does not answer"
            raise Lost(msg) from error
        finally:
            self._forget()
        msg = "the connection ended"
        raise Lost(msg)

    def _forget(self) -> None:
        self._client = None
        self._catalogue = None
        self._is_running.clear()

    async def _connect(self, http: aiohttp.ClientSession) -> HomeAssistantClient:
        # with a URL of its own hass_client never asks the environment for a token
        client = HomeAssistantClient(str(self._address.websocket_url), self._address.token, http)
        try:
            async with asyncio.timeout(_CONNECT_DEADLINE.total_seconds()):
                await client.connect(ssl=self._address.ssl)
        except AuthenticationFailed as error:
            msg = (
                f"{error}. Give otsd a new long-lived access token (home_assistant.token), "
                "made by an administrator on the profile page, under Security"
            )
            raise CredentialRefused(msg) from error
        except TimeoutError as error:
            msg = f"{self._address.websocket_url} does not answer"
            raise Lost(msg) from error
        # The handshake of something that is not Home Assistant fails in many ways: a frame that
        # is no text is aiohttp's WSMessageTypeError, which is a TypeError.
        except (
            BaseHassClientError,
            aiohttp.ClientError,
            OSError,
            TypeError,
            ValueError,
            KeyError,
        ) as error:
            raise Lost(_why(self._address.websocket_url, error)) from error
        return client

    async def _use(
        self, client: HomeAssistantClient, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> NoReturn:
        try:
            await self._use_until_lost(client, tasks)
        except HomeError as error:
            # Now, not after the closing handshake, which a frozen peer takes 10 s to miss: closing
            # the session drops the socket.
            self._forget()
            await http.close()
            raise Lost(str(error)) from error

    async def _use_until_lost(
        self, client: HomeAssistantClient, tasks: asyncio.TaskGroup
    ) -> NoReturn:
        error = await self._who_are_we(client)
        await self._subscribe_to_stop(client)
        is_running = await self._read_config(client)
        catalogue = Catalogue(client, self._plans)
        await catalogue.begin()
        self._client, self._catalogue = client, catalogue
        self._keeper.connected(client.version, error)
        tasks.create_task(catalogue.follow(), name="Home Assistant: catalogue")
        while not is_running:
            await asyncio.sleep(_STARTING_POLL.total_seconds())
            is_running = await self._read_config(client)
        self._is_running.set()
        while True:
            await asyncio.sleep(_PING_EVERY.total_seconds())
            # hass_client drops the pong of Home Assistant's own ping; this one also tells when
            # the user of the token is no administrator any more
            self._keeper.limited(await self._who_are_we(client))

    async def _who_are_we(self, client: HomeAssistantClient) -> str | None:
        user = await command(client, "auth/current_user", _PING_DEADLINE)
        if user.get("is_admin"):
            return None
        if self.status.error != _NOT_ADMIN:
            _log.warning(_NOT_ADMIN)
        return _NOT_ADMIN

    async def _subscribe_to_stop(self, client: HomeAssistantClient) -> None:
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

    async def _read_config(self, client: HomeAssistantClient) -> bool:
        """Learn the time zone, and return whether automations hear events."""
        config = await command(client, "get_config", _DEADLINE)
        name = config.get("time_zone")
        if name and name != getattr(self._zone, "key", None):
            try:
                self._zone = ZoneInfo(name)
                self.on_zone(name)
            except (OSError, ValueError) as error:
                _log.warning("Home Assistant's time zone %r is not known here: %s", name, error)
        # very old releases tell no state; they are running once they answer
        return bool(config.get("state", _RUNNING) == _RUNNING)


async def _listen(client: HomeAssistantClient) -> NoReturn:
    try:
        await client.start_listening()
    except (BaseHassClientError, aiohttp.ClientError, OSError) as error:
        msg = f"the connection broke: {error or type(error).__name__}"
        raise Lost(msg) from error
    msg = "Home Assistant closed the connection"
    raise Lost(msg)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended a session; what the others raised followed from it."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    first = leaves[0]
    return Lost(str(first)) if isinstance(first, HomeError) else first


def _why(url: URL, error: Exception) -> str:
    """Say in plain words why a connection could not be made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            return (
                f"the certificate of {url.host} is not trusted ({cause.certificate_error}); "
                "see home_assistant.ca_file and home_assistant.verify_tls"
            )
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return f"the name {url.host} is not known; see home_assistant.url"
        if isinstance(cause, aiohttp.ClientConnectorError):
            return f"nothing answers at {url.host}:{url.port} ({cause.strerror or cause.os_error})"
        if isinstance(cause, aiohttp.WSServerHandshakeError):
            return f"{url} answers with HTTP {cause.status}; is it Home Assistant?"
        cause = cause.__cause__
    return f"{url} does not speak as Home Assistant does ({type(error).__name__})"
