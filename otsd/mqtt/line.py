"""One connection to a broker: made, spoken over, and what its failures mean. Speaks aiomqtt.

It refuses to guess: what cannot be said in MQTT 3.1.1 (where to answer, for how long a message is
good) is left out there. It does not connect as aiomqtt does, in a thread: nobody can end that, so a
broker that says nothing would hold up the end of otsd.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import asynccontextmanager
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
    from collections.abc import AsyncIterator, Awaitable, Sequence

_VERSIONS: Final = {
    MqttProtocol.AUTO: (ProtocolVersion.V5, ProtocolVersion.V311),
    MqttProtocol.V5: (ProtocolVersion.V5,),
    MqttProtocol.V311: (ProtocolVersion.V311,),
}
_NAMES: Final = {ProtocolVersion.V5: "5", ProtocolVersion.V311: "3.1.1"}

# reason codes of MQTT 5 (section 2.4), which paho makes of those of 3.1.1 too
_FAILURE: Final = 128
_PROTOCOL_ERROR: Final = 130
_UNSUPPORTED_VERSION: Final = 132
_BAD_ID: Final = 133
_CREDENTIALS: Final = (134, 135)
_BANNED: Final = 138
_SHUTTING_DOWN: Final = 139
_SILENT: Final = 141
_TAKEN_OVER: Final = 142

# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL
_OTHER_NAME: Final = (62, 64)

_LARGEST_PACKET: Final = 1024 * 1024
_MOST_INCOMING: Final = 10_000
_AT_A_TIME: Final = 100

_log = logging.getLogger(__name__)
_logger = logging.getLogger(f"{__name__}.aiomqtt")
_logger.setLevel(logging.CRITICAL)  # what it says at every try is told in otsd's words, and once


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and who otsd is to it; ``tls`` is the context to trust it by."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    protocol: MqttProtocol = MqttProtocol.AUTO

    def __str__(self) -> str:
        """Name the place."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for the broker."""

    # whoever takes a connection and says nothing is tried anew as often as whoever takes none
    connect_deadline: timedelta = timedelta(seconds=4)
    # a frozen peer is noticed within twice this, and a frozen otsd is offline after 1.5 times
    keep_alive: timedelta = timedelta(seconds=10)
    deadline: timedelta = timedelta(seconds=10)
    goodbye: timedelta = timedelta(seconds=1)
    # how long the broker is given to say what it retains
    sweep: timedelta = timedelta(seconds=5)
    # who ends a connection sooner than this will do so again
    brief: timedelta = timedelta(seconds=10)
    refusal_pauses: tuple[timedelta, timedelta] = REFUSAL_PAUSES
    # how often it is looked whether a credential that was refused is another by now
    look_again: timedelta = timedelta(seconds=4)


class _NoVersion(Exception):
    """The broker refuses this version of the protocol, or hangs up at it."""


class _Client(aiomqtt.Client):
    """aiomqtt's client, on a socket that is connected, and closed when otsd says so."""

    _is_flooded = False

    async def incoming(self) -> AsyncIterator[aiomqtt.Message]:
        """Yield what comes in, for ever; raises when the connection ends.

        aiomqtt's own iterator takes several turns of the loop for a message, and in every turn
        another can be read: under a flood of large ones the memory would be full of them.
        """
        async for message in self.messages:
            yield message
            for _ in range(min(self._queue.qsize(), _AT_A_TIME)):
                yield self._queue.get_nowait()

    async def begin(self, sock: socket.socket) -> None:
        """Say who otsd is, and wait until the broker lets it in or does not.

        Raises:
            MqttConnectError: the broker says no.
            MqttError: it hangs up, or is none.

        """
        self._client._create_socket = lambda: sock  # type: ignore[method-assign] # noqa: SLF001
        try:
            self._client_connect()
        except BaseException:
            # aiomqtt begins to read from the socket a moment later: not after it is closed
            await asyncio.sleep(0)
            raise
        either = (self._connected, self._disconnected)
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._connected.done():
            msg = "the answer is not to be understood"
            raise MqttError(msg) from self._disconnected.exception()
        self._connected.result()

    def close(self) -> None:
        """Close the socket without a word: so the broker publishes the will."""
        self._client._sock_close()  # noqa: SLF001
        for each in (self._connected, self._disconnected):
            if each.done() and not each.cancelled():
                each.exception()  # asyncio reports those that nobody has looked at

    async def _wait_for(
        self,
        fut: Awaitable[Any],
        timeout: float | None,  # noqa: ASYNC109
    ) -> Any:  # noqa: ANN401 - the signature is aiomqtt's
        # aiomqtt's own uses asyncio.wait_for, which in Python 3.11 forgets that its task was
        # cancelled when the answer comes at that moment: the task would go on for ever
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            msg = "Operation timed out"
            raise MqttError(msg) from None

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

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:  # noqa: ANN401
        if self._queue.full() and not self._is_flooded:
            self._is_flooded = True
            _log.error("MQTT messages come faster than they can be read; some are not heard")
        super()._on_message(client, userdata, message)

    def _on_socket_register_write(
        self,
        client: Any,  # noqa: ANN401 - the signature is aiomqtt's
        userdata: Any,  # noqa: ANN401, ARG002
        sock: Any,  # noqa: ANN401
    ) -> None:
        # aiomqtt does it a moment later, when the number may be that of another socket
        self._loop.add_writer(sock.fileno(), client.loop_write)


class Line:
    """A connection that stands."""

    def __init__(self, client: _Client, protocol: ProtocolVersion) -> None:
        """Take the client, connected."""
        self._client = client
        self._is_5 = protocol is ProtocolVersion.V5
        self.version = _NAMES[protocol]
        """The version of MQTT that is spoken: ``5`` or ``3.1.1``."""
        self.messages = client.incoming()
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

    async def subscribe(
        self, filters: Sequence[str], *, as_published: bool = False
    ) -> Sequence[str]:
        """Subscribe, and return the filters that the broker does not grant.

        In MQTT 5 otsd does not hear itself. A message that is retained is an old one or, with
        ``as_published`` in MQTT 5, one that was published so, however new it is.
        """
        qos: Any = 1
        if self._is_5:
            qos = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=as_published)
        granted = await self._client.subscribe([(each, qos) for each in filters])
        codes = [code.value if isinstance(code, ReasonCode) else code for code in granted]
        return [each for each, code in zip(filters, codes, strict=False) if code >= _FAILURE]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Hear no more of these."""
        await self._client.unsubscribe(list(filters))

    async def part(self) -> None:
        """Take leave of the broker, which then does not publish the will."""
        await self._client.__aexit__(None, None, None)


@asynccontextmanager
async def connected(
    address: Address, pace: Pace, identifier: str, *, will: aiomqtt.Will | None
) -> AsyncIterator[Line]:
    """Connect; the broker publishes the ``will`` when the line breaks, or is left without parting.

    Raises:
        Lost: it could not be made, or broke; why, in plain words.
        CredentialRefused: the broker does not let otsd in.

    """
    versions = list(_VERSIONS[address.protocol])
    while True:
        version = versions.pop(0)
        client = _client(address, pace, identifier, will, version)
        try:
            async with asyncio.timeout(pace.connect_deadline.total_seconds()):
                await _enter(client, address, pace)
            break
        except TimeoutError as error:
            raise Lost(f"{address} does not answer") from error
        except _NoVersion as error:
            if not versions:
                raise Lost(str(error)) from error
    try:
        yield Line(client, version)
    except MqttError as error:
        raise ended(error) from error
    finally:
        client.close()


def ended(error: MqttError) -> Lost:
    """Say in plain words why a line broke."""
    code = _code(error.__cause__) or _code(error)
    if code == _TAKEN_OVER:
        return Lost("another client has come with the id of this one; see mqtt.base_topic")
    if code == _SHUTTING_DOWN:
        return Lost("it is shutting down")
    if code == _SILENT or "timed out" in str(error):
        return Lost("it does not answer any more")
    return Lost("the connection broke")


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
    )


async def _enter(client: _Client, address: Address, pace: Pace) -> None:
    sock = await _reached(address, pace)
    try:
        if address.tls is not None:
            sock = address.tls.wrap_socket(
                sock, server_hostname=address.host, do_handshake_on_connect=False
            )
            await _shake_hands(sock, address)
        await client.begin(sock)
    except BaseException as error:
        client.close()
        sock.close()
        if isinstance(error, MqttConnectError):
            raise _verdict(address, error) from error
        if isinstance(error, MqttError):
            raise _no_version(address, error) from error
        raise


async def _reached(address: Address, pace: Pace) -> socket.socket:
    """Return a socket that is connected to the broker, and does not block."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Lost(f"the name {address.host} is not known; see mqtt.host") from error
    fault: OSError | None = None
    for family, kind, number, _, place in found:
        sock = socket.socket(family, kind, number)
        try:
            sock.settimeout(0)
            # paho writes a message in two parts: without it the second waits 40 ms for the first
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # a name has several addresses where only one of IPv4 and IPv6 works
            async with asyncio.timeout(pace.connect_deadline.total_seconds() / len(found)):
                await loop.sock_connect(sock, place)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            fault = error
        else:
            return sock
    if isinstance(fault, TimeoutError):
        raise Lost(f"{address} does not answer") from fault
    why = f" ({os.strerror(fault.errno)})" if fault and fault.errno else ""
    raise Lost(f"nothing answers at {address}{why}") from fault


async def _shake_hands(sock: ssl.SSLSocket, address: Address) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        while True:
            ready.clear()
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                loop.add_reader(sock, ready.set)
            except ssl.SSLWantWriteError:
                loop.add_writer(sock, ready.set)
            else:
                return
            await ready.wait()
            loop.remove_reader(sock)
            loop.remove_writer(sock)
    except ssl.SSLCertVerificationError as error:
        key = "mqtt.host" if error.verify_code in _OTHER_NAME else "mqtt.ca_file"
        why = error.verify_message.rstrip(".")
        raise Lost(f"the certificate of {address} is not trusted ({why}); see {key}") from error
    except OSError as error:  # an SSLError is one
        raise Lost(f"{address} does not speak TLS; see mqtt.tls and mqtt.port") from error
    finally:
        loop.remove_reader(sock)
        loop.remove_writer(sock)


def _verdict(address: Address, error: MqttConnectError) -> Exception:
    code = _code(error)
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


def _no_version(address: Address, error: MqttError) -> _NoVersion:
    """Say what became of the first word; paho hides that a broker refuses 3.1.1 in so many."""
    see = "mqtt.port and mqtt.tls"
    if address.protocol is not MqttProtocol.AUTO:
        see = "mqtt.protocol, mqtt.port and mqtt.tls"
    if _code(error) in (None, _PROTOCOL_ERROR):
        words = _words(address.protocol)
        return _NoVersion(f"what answers at {address} does not speak MQTT {words}; see {see}")
    return _NoVersion(f"{address} closes the connection without an answer; see {see}")


def _words(protocol: MqttProtocol) -> str:
    return " or ".join(_NAMES[version] for version in _VERSIONS[protocol])


def _code(error: BaseException | None) -> int | None:
    rc = error.rc if isinstance(error, MqttCodeError) else None
    return rc.value if isinstance(rc, ReasonCode) else None
