"""One connection to a broker: made, spoken over, and what its failures mean. Speaks aiomqtt.

It refuses to guess: what cannot be said in MQTT 3.1.1 (where to answer, for how long a message is
good) is left out there.
"""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import aiomqtt
from aiomqtt import MqttCodeError, MqttError, ProtocolVersion
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from otsd.settings import MqttProtocol
from otsd.supervise import REFUSAL_PAUSES, CredentialRefused, Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_VERSIONS: Final = {
    MqttProtocol.AUTO: (ProtocolVersion.V5, ProtocolVersion.V311),
    MqttProtocol.V5: (ProtocolVersion.V5,),
    MqttProtocol.V311: (ProtocolVersion.V311,),
}
_NAMES: Final = {ProtocolVersion.V5: "5", ProtocolVersion.V311: "3.1.1"}

# reason codes of MQTT 5 (section 2.4), which paho makes of those of 3.1.1 too
_FAILURE: Final = 128
_UNSUPPORTED_VERSION: Final = 132
_BAD_ID: Final = 133
_CREDENTIALS: Final = (134, 135)
_BANNED: Final = 138

_LARGEST_PACKET: Final = 1024 * 1024
_MOST_INCOMING: Final = 2_000

_logger = logging.getLogger(f"{__name__}.aiomqtt")
_logger.setLevel(logging.ERROR)  # what it warns of is reported here, in otsd's words


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and who otsd is to it; ``tls`` is the context to trust it by."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    protocol: MqttProtocol = MqttProtocol.AUTO


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for the broker."""

    connect_deadline: timedelta = timedelta(seconds=5)
    # a frozen peer is noticed within twice this, and a frozen otsd is offline after 1.5 times
    keep_alive: timedelta = timedelta(seconds=10)
    deadline: timedelta = timedelta(seconds=10)
    goodbye: timedelta = timedelta(seconds=2)
    # how long the broker is given to say what it retains
    sweep: timedelta = timedelta(seconds=5)
    refusal_pauses: tuple[timedelta, timedelta] = REFUSAL_PAUSES


class _NoVersion(Exception):
    """The broker refuses this version of the protocol, or hangs up at it."""


class _Client(aiomqtt.Client):
    """aiomqtt's client, which hears of a connection that ends before the broker has answered."""

    def _on_disconnect(
        self,
        client: Any,  # noqa: ANN401 - the signature is aiomqtt's
        userdata: Any,  # noqa: ANN401
        flags: Any,  # noqa: ANN401
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        # aiomqtt would go on waiting, as long as for a broker that thinks
        if not self._connected.done():
            self._connected.set_exception(MqttCodeError(reason_code))
        else:
            super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def discard(self) -> None:
        """Close a socket that aiomqtt leaves open when a connection does not come about."""
        self._client.disconnect()


class Line:
    """A connection that stands."""

    def __init__(self, client: aiomqtt.Client, protocol: ProtocolVersion) -> None:
        """Take the client, connected."""
        self._client = client
        self._is_5 = protocol is ProtocolVersion.V5
        self.version = _NAMES[protocol]
        """The version of MQTT that is spoken: ``5`` or ``3.1.1``."""
        self.messages = client.messages
        """What comes in, for ever; raises when the connection ends."""

    async def publish(
        self, topic: str, payload: str | bytes, *, retain: bool = False, confirmed: bool = False
    ) -> None:
        """Send a message; ``confirmed`` waits until the broker has it and all before it."""
        await self._client.publish(topic, payload, qos=int(confirmed), retain=retain)

    async def answer(
        self, topic: str, payload: str, correlation: bytes | None, expiry: timedelta
    ) -> None:
        """Send a reply, which is worthless after its ``expiry``."""
        properties = None
        if self._is_5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = int(expiry.total_seconds())
            if correlation is not None:
                properties.CorrelationData = correlation
        await self._client.publish(topic, payload, properties=properties)

    async def subscribe(self, filters: Sequence[str]) -> Sequence[str]:
        """Subscribe, and return the filters that the broker does not grant.

        In MQTT 5 otsd does not hear itself, and hears of each message whether it was retained.
        """
        qos: Any = 1
        if self._is_5:
            qos = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True)
        granted = await self._client.subscribe([(each, qos) for each in filters])
        codes = [code.value if isinstance(code, ReasonCode) else code for code in granted]
        return [each for each, code in zip(filters, codes, strict=False) if code >= _FAILURE]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Hear no more of these."""
        await self._client.unsubscribe(list(filters))


@asynccontextmanager
async def connected(
    address: Address, pace: Pace, identifier: str, *, will: aiomqtt.Will | None
) -> AsyncIterator[Line]:
    """Connect; the broker publishes the ``will`` when the line breaks.

    Raises:
        Lost: it could not be made, or broke; why, in plain words.
        CredentialRefused: the broker does not let otsd in.

    """
    versions = list(_VERSIONS[address.protocol])
    while True:
        version = versions.pop(0)
        client = _client(address, pace, identifier, will, version)
        try:
            await _enter(client, address)
        except _NoVersion as error:
            if not versions:
                raise Lost(str(error)) from error
        else:
            break
    try:
        try:
            yield Line(client, version)
        except MqttError as error:
            raise Lost(_why(address, error)) from error
    finally:
        with suppress(MqttError):
            await client.__aexit__(None, None, None)


def _client(
    address: Address,
    pace: Pace,
    identifier: str,
    will: aiomqtt.Will | None,
    version: ProtocolVersion,
) -> _Client:
    properties = None
    if version is ProtocolVersion.V5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = _LARGEST_PACKET
    return _Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        logger=_logger,
        identifier=identifier,
        protocol=version,
        will=will,
        timeout=pace.deadline.total_seconds(),
        keepalive=int(pace.keep_alive.total_seconds()),
        max_queued_incoming_messages=_MOST_INCOMING,
        properties=properties,
        tls_context=address.tls,
        # paho writes a message in two parts: without it the second waits 40 ms for the first
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


async def _enter(client: _Client, address: Address) -> None:
    try:
        await client.__aenter__()
    except MqttConnectError as error:
        client.discard()
        raise _verdict(address, error) from error
    except MqttCodeError as error:
        client.discard()
        where = f"{address.host}:{address.port}"
        msg = f"{where} closes the connection without an answer; see mqtt.port and mqtt.tls"
        raise _NoVersion(msg) from error
    except MqttError as error:
        client.discard()
        raise Lost(_why(address, error)) from error
    except BaseException:
        client.discard()
        raise


def _verdict(address: Address, error: MqttConnectError) -> Exception:
    code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
    if code == _UNSUPPORTED_VERSION:
        return _NoVersion(
            f"the broker does not speak MQTT {_words(address.protocol)}; see mqtt.protocol"
        )
    if code in _CREDENTIALS and address.username is None:
        return CredentialRefused(
            "the broker lets nobody in without a name and a password; "
            "see mqtt.username and mqtt.password"
        )
    if code in _CREDENTIALS:
        return CredentialRefused(
            "the broker does not accept this name and password; see mqtt.username and mqtt.password"
        )
    if code == _BANNED:
        return CredentialRefused("the broker has banned otsd; see its configuration")
    if code == _BAD_ID:
        return CredentialRefused("the broker does not accept the client id; see mqtt.base_topic")
    return Lost(f"the broker refuses connections at the moment ({error.rc})")


def _words(protocol: MqttProtocol) -> str:
    return " or ".join(_NAMES[version] for version in _VERSIONS[protocol])


def _why(address: Address, error: MqttError) -> str:  # noqa: PLR0911 - a sentence each
    """Say in plain words why there is no connection."""
    where = f"{address.host}:{address.port}"
    cause = error.__cause__ or error.__context__  # aiomqtt hides what it translates
    match cause:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {where} is not trusted ({cause.verify_message}); "
                "see mqtt.ca_file"
            )
        case ssl.SSLError():
            return f"{where} does not speak TLS; see mqtt.tls and mqtt.port"
        case socket.gaierror():
            return f"the name {address.host} is not known; see mqtt.host"
        case TimeoutError():
            return f"{where} does not answer"
        case OSError():
            return f"nothing answers at {where} ({cause.strerror or cause})"
    if "timed out" in str(error):
        return f"{where} does not answer"
    return f"the connection to {where} broke"
