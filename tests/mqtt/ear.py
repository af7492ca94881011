"""Listens to everything on a broker, and says things to it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.real.broker import Mosquitto

_PATIENCE = 60


@dataclass(frozen=True)
class Heard:
    """A message as it came."""

    topic: str
    payload: bytes
    retained: bool
    properties: Any

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Ear:
    """A client that hears ``#``: ``heard`` in order, ``held`` what a topic said last."""

    def __init__(
        self,
        broker: Mosquitto,
        protocol: ProtocolVersion = ProtocolVersion.V5,
        *,
        listens_to: str = "#",
    ) -> None:
        self.broker = broker
        self.listens_to = listens_to
        self.protocol = protocol
        self.heard: list[Heard] = []
        self.held: dict[str, bytes] = {}
        self._news = asyncio.Condition()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.client = await stack.enter_async_context(self.broker.client(self.protocol))
            await self.client.subscribe(self.listens_to)
            task = asyncio.create_task(self._listen(), name="ear")
            stack.push_async_callback(_ended, task)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _listen(self) -> None:
        async for message in self.client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            heard = Heard(str(message.topic), payload, message.retain, message.properties)
            async with self._news:
                self.heard.append(heard)
                self.held[heard.topic] = payload
                self._news.notify_all()

    async def until(self, condition: Callable[[], Any], seconds: float = _PATIENCE) -> Any:
        """Wait until what was heard fulfils a condition, and return what that returned."""
        async with asyncio.timeout(seconds), self._news:
            while not (found := condition()):
                await self._news.wait()
        return found

    async def message(self, topic: str, seconds: float = _PATIENCE) -> Heard:
        """Return the last message of a topic, waiting for the first."""

        def last() -> Heard | None:
            return next((each for each in reversed(self.heard) if each.topic == topic), None)

        found: Heard = await self.until(last, seconds)
        return found

    async def state(self, topic: str, seconds: float = _PATIENCE, **expected: Any) -> Any:
        """Wait until a topic's last payload is JSON with these values, and return all of it."""

        def fits() -> Any:
            payload = self.held.get(topic)
            found = json.loads(payload) if payload else {}
            return expected.items() <= found.items() and found

        return await self.until(fits, seconds)

    async def say(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Publish."""
        await self.client.publish(topic, payload, qos=1, retain=retain)

    async def ask(
        self,
        topic: str,
        payload: str | bytes | dict[str, Any],
        *,
        qos: int = 1,
        retain: bool = False,
    ) -> Any:
        """Publish with a response topic of its own (MQTT 5) and return the reply."""
        number = next(self._numbers)
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        topic_of_reply = f"ear/{id(self)}/{number}"
        properties.ResponseTopic = topic_of_reply
        properties.CorrelationData = str(number).encode()
        text = json.dumps(payload) if isinstance(payload, dict) else payload
        await self.client.publish(topic, text, qos=qos, retain=retain, properties=properties)
        reply = await self.message(topic_of_reply)
        assert reply.properties.CorrelationData == str(number).encode()
        assert not reply.retained
        return reply.json


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and not isinstance(task.exception(), aiomqtt.MqttError | None):
        task.result()
