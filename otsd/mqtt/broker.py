"""The MQTT broker: one connection, kept for ever.

    connect ─► hear commands ─► publish everything ─► follow the store until it is lost

A last will says ``offline`` when otsd dies; going down in order says it, too. What the broker
retains of otsd from before is looked at once after connecting, see `Projection.found`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from aiomqtt import MqttError, Will

from otsd.core.errors import StorageUnavailable
from otsd.core.ports import ConnectionState, ConnectionStatus
from otsd.mqtt.commands import Message
from otsd.mqtt.line import Address, Line, Pace, connected, ended
from otsd.mqtt.topics import Topics
from otsd.supervise import CredentialRefused, Keeper, Lost, delays, what_ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiomqtt

    from otsd.core.ports import Clock, Store
    from otsd.mqtt.commands import Commands
    from otsd.mqtt.projection import Projection

_ONLINE: Final = b"online"
_OFFLINE: Final = "offline"
_MOST_AT_ONCE: Final = 100
# after so many brief connections in a row it is more than an accident
_SUSPICIOUS: Final = 3
_REPLY_EXPIRY: Final = timedelta(seconds=60)
_KNOWN: Final = "mqtt topics"

_log = logging.getLogger(__name__)

Find: TypeAlias = "Callable[[], Awaitable[Address]]"
"""Returns where the broker is; raises `Absent` when there is none, `Lost` when nobody can say."""
AskPage: TypeAlias = "Callable[[], Awaitable[str | None]]"
"""Returns the address of the admin page, or None while nobody can say."""


def always(address: Address) -> Find:
    """Find the broker where the settings name it."""

    async def find() -> Address:
        return address

    return find


class Broker:
    """Keeps the connection to the broker, and everything that goes over it."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        find: Find,
        *,
        topics: Topics,
        store: Store,
        projection: Projection,
        commands: Commands | None,
        now: Clock,
        changed: Callable[[], None] = lambda: None,
        page: AskPage | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Take the parts; without ``commands`` none are subscribed to.

        The broker is looked for before each attempt to connect, and what is found then is used.
        ``page`` is asked until it says where the admin page is; nothing waits for that.
        """
        self._find = find
        self._page = page
        self._topics = topics
        self._store = store
        self._projection = projection
        self._commands = commands
        self._pace = pace or Pace()
        self._keeper = Keeper(
            "the MQTT broker", now, refusal_pauses=self._pace.refusal_pauses, changed=changed
        )
        self._denied: str | None = None
        self._hoping: asyncio.Task[None] | None = None
        self._brief = 0
        self._pauses = delays()
        self._pause = 0.0

    @property
    def status(self) -> ConnectionStatus:
        """How the connection stands; its version is that of the protocol."""
        return self._keeper.status

    def retry(self) -> None:
        """Try again now if the broker refused otsd.

        Home Assistant's own broker asks Home Assistant who may enter, and refuses everybody
        while that is away.
        """
        if self.status.state is ConnectionState.REFUSED:
            self._keeper.retry()

    async def keep(self) -> NoReturn:
        """Keep the connection for ever."""
        # a command that was begun is done also when the connection is lost
        with self._projection.following():
            async with asyncio.TaskGroup() as obeying:
                if self._page is not None:
                    obeying.create_task(self._learn(self._page), name="MQTT: page")
                await self._keeper.run(lambda: self._session(obeying))
        raise AssertionError("the keeper never returns")

    async def _session(self, obeying: asyncio.TaskGroup) -> NoReturn:
        if self._hoping is not None:
            self._hoping.cancel()
        pause, self._pause = self._pause, 0.0
        await asyncio.sleep(pause)
        loop = asyncio.get_running_loop()
        will = Will(self._topics.status, _OFFLINE, qos=1, retain=True)
        address = await self._found()
        try:
            async with connected(address, self._pace, self._topics.id, will=will) as line:
                begun = loop.time()
                try:
                    await self._talk(line, obeying)
                except Lost as lost:
                    if loop.time() - begun < self._pace.brief.total_seconds():
                        raise self._suspected(lost) from lost
                    self._brief, self._pauses = 0, delays()
                    raise
        except CredentialRefused:
            self._hoping = obeying.create_task(self._hope(address), name="MQTT: hope")
            raise
        except Lost:
            raise
        except Exception as error:
            raise _unexpected(error) from error

    async def _found(self) -> Address:
        try:
            return await self._find()
        except Lost:
            raise
        except Exception as error:
            raise _unexpected(error) from error

    async def _learn(self, page: AskPage) -> None:
        try:
            for pause in delays():
                if (url := await page()) is not None:
                    self._projection.lead_to(url)
                    return
                await asyncio.sleep(pause)
        except Exception:  # noqa: BLE001 - the broker can be used without
            _log.exception("where the admin page is cannot be asked, for an unexpected reason")

    async def _hope(self, refused: Address) -> None:
        """Begin anew as soon as the broker is another, or the credential, than what was refused."""
        while True:
            await asyncio.sleep(self._pace.look_again.total_seconds())
            with suppress(Lost):
                if await self._found() != refused:
                    break
        self._keeper.restart(None)

    def _suspected(self, lost: Lost) -> Lost:
        """Return why a connection ended as soon as it was made; the next is not made at once.

        Two daemons of one name end each other's connections, several times a second otherwise.
        """
        self._brief += 1
        self._pause = next(self._pauses)
        if self._brief < _SUSPICIOUS:
            return lost
        return Lost(f"{lost}; is another client called {self._topics.id}? see mqtt.base_topic")

    async def _talk(self, line: Line, obeying: asyncio.TaskGroup) -> NoReturn:
        known = await self._remember()
        self._projection.begin()
        try:
            async with asyncio.TaskGroup() as tasks:
                # first of all: it is what notices that the connection ends
                tasks.create_task(self._listen(line, known, obeying), name="MQTT: listen")
                denied = await subscribe(line, self._topics, commands=self._commands is not None)
                self._keeper.connected(line.version, denied)
                if denied is not None and denied != self._denied:
                    _log.warning("%s", denied)
                self._denied = denied
                tasks.create_task(self._sweep(line, known), name="MQTT: sweep")
                # not a task: a group that has nothing left to do but wait for its tasks cancels
                # its owner when one of them fails, and in Python 3.11 does not take that back
                await self._projection.run(line)
        except asyncio.CancelledError:
            await self._say_goodbye(line)
            raise
        except BaseExceptionGroup as group:
            raise what_ended(group, _unexpected) from group
        msg = "the connection ended"
        raise Lost(msg)

    # -- what is heard -------------------------------------------------------------------------

    async def _listen(self, line: Line, known: list[Topics], obeying: asyncio.TaskGroup) -> None:
        free = asyncio.Semaphore(_MOST_AT_ONCE)
        async for message in line.messages:
            topic, payload = str(message.topic), _bytes(message)
            if topic == self._topics.birth:
                # an old one comes when everything is published anyhow
                if payload == _ONLINE and not message.retain:
                    self._projection.again()
            elif topic == self._topics.status:
                # somebody says offline in our name: an earlier connection, or another daemon that
                # was called like this one
                if payload != _ONLINE and not message.retain:
                    self._projection.again()
            elif self._commands is not None and self._is_command(topic):
                await free.acquire()
                obeying.create_task(
                    self._obey(self._commands, line, _command(message, topic, payload), free),
                    name="MQTT: command",
                )
            elif message.retain and payload == _ONLINE and topic in {each.status for each in known}:
                # another daemon is called as this one was: what is there is not otsd's any more
                known[:] = [each for each in known if each.status != topic]
            elif message.retain and payload:
                self._projection.found(known, topic, payload)

    def _is_command(self, topic: str) -> bool:
        return self._topics.verb(topic) is not None or self._topics.switched(topic) is not None

    async def _obey(
        self, commands: Commands, line: Line, message: Message, free: asyncio.Semaphore
    ) -> None:
        try:
            if (reply := await commands.obey(message)) is None:
                return
            if message.retained:
                await line.publish(message.topic, b"", retain=True)
            await line.answer(reply.topic, json.dumps(reply.body), reply.correlation, _REPLY_EXPIRY)
        except (MqttError, ValueError) as error:
            # who asked with a request_id asks again; a ValueError is a topic that paho refuses
            _log.info("the reply to a command could not be sent: %s", type(error).__name__)
        finally:
            free.release()

    # -- what was there before -----------------------------------------------------------------

    async def _remember(self) -> list[Topics]:
        """Return the topics that otsd uses and used, after writing down that it uses these."""
        try:
            known = [Topics(*each) for each in json.loads(self._store.recall(_KNOWN) or "[]")]
            if self._topics not in known:
                known.append(self._topics)
                await self._write_down(known)
        except StorageUnavailable as error:
            raise Lost("the store cannot be read") from error
        return known

    async def _write_down(self, known: Sequence[Topics]) -> None:
        await self._store.remember(_KNOWN, json.dumps([[each.base, each.prefix] for each in known]))

    async def _sweep(self, line: Line, known: list[Topics]) -> None:
        """Find what is retained and hear no more of it; forget topics that were used once."""
        before = list(known)
        if former := {each.status for each in known} - {self._topics.status}:
            # whoever is online there is heard of first, and keeps what he has
            await self._look(line, [*former])
        filters = dict.fromkeys({each.status for each in known} - {self._topics.status})
        filters |= {each: None for topics in known for each in topics.retained}
        # again while there is less than before: what comes faster than it is read is dropped on the
        # way, and what the broker does not let otsd remove is there each time
        found = last = None
        while found != 0 and (last is None or found is None or found < last):
            last, strays = found, self._projection.strays
            await self._look(line, [*filters])
            found = self._projection.strays - strays
        if found:
            _log.warning("%d retained messages of otsd cannot be removed from the broker", found)
            return  # it may let otsd do so another time
        kept = [each for each in before if each == self._topics or each not in known]
        if kept != before:
            try:
                await self._write_down(kept)
            except StorageUnavailable as error:
                _log.debug("earlier topics are looked at again next time: %s", error)

    async def _look(self, line: Line, filters: Sequence[str]) -> None:
        await line.subscribe(filters)
        await asyncio.sleep(self._pace.sweep.total_seconds())
        await line.unsubscribe(filters)

    # -- the end -------------------------------------------------------------------------------

    async def _say_goodbye(self, line: Line) -> None:
        try:
            async with asyncio.timeout(self._pace.goodbye.total_seconds()):
                await self._projection.publish(line)
                await line.publish(self._topics.status, _OFFLINE, retain=True, confirmed=True)
                await line.part()
        except (MqttError, StorageUnavailable, TimeoutError) as error:
            # then the will says it
            _log.debug("the end could not be told by MQTT: %s", error)


async def subscribe(line: Line, topics: Topics, *, commands: bool) -> str | None:
    """Subscribe to all that otsd hears; return, in words, what the broker does not allow."""
    denied = [*await line.subscribe([topics.birth, topics.status])]
    if commands:
        heard = [topics.command("+"), topics.token("+", "set")]
        denied += await line.subscribe(heard, as_published=True)
    if not denied:
        return None
    return f"the broker does not let otsd subscribe to {' and '.join(denied)}; see its access rules"


def _bytes(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else b""


def _command(message: aiomqtt.Message, topic: str, payload: bytes) -> Message:
    return Message(
        topic,
        payload,
        retained=message.retain,
        response_topic=getattr(message.properties, "ResponseTopic", None),
        correlation=getattr(message.properties, "CorrelationData", None),
    )


def _unexpected(error: Exception) -> Exception:
    if isinstance(error, MqttError):
        return ended(error)
    # whatever it was, otsd stays up
    _log.error("MQTT stopped at an error that nobody expected", exc_info=error)
    return Lost(f"otsd failed ({type(error).__name__})")
