"""Keeps what the broker holds as the store says: nothing is queued, nothing is replayed.

    something changed ─► look at the store ─► what is wanted ─► send what differs ─► a short rest

Every pass compares what is wanted with what was sent before, so it does not matter how many
changes came in between, or whether one was missed. What the broker was found to hold and nobody
wants is removed by the same comparison, however it came there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from dataclasses import replace
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from otsd.core.changes import Change, Subject
from otsd.core.errors import StorageUnavailable
from otsd.core.tokens import TokenState
from otsd.mqtt import discovery, states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from otsd.core.changes import Changes
    from otsd.core.ports import Claim, Clock, Home, Overview, Store
    from otsd.core.tokens import Token
    from otsd.mqtt.discovery import About
    from otsd.mqtt.topics import Topics

Rendering = tuple[Any, ...]
"""A function of `discovery` or `states` and what it is called with: equal ones say the same."""

_Message = tuple[str, Rendering | None, bool]  # topic, what it says or nothing, retained

# a thousand submissions a second are a few messages a second
_REST: Final = 0.2
# a pass that costs much, with a thousand devices, may take this share of the time, within bounds
_SHARE: Final = 0.1
_LONGEST_REST: Final = 2.0
# a thousand devices hold up no visitor: others have their turn after so many messages, about 1 ms
_AT_A_TIME: Final = 10
_STORAGE_PAUSE: Final = 1.0
# clocks are set, so a time to come is looked at again before it comes
_LONGEST_WAIT: Final = 60.0
# submissions that wait to be told, and how many are told in one pass
_MOST_WAITING: Final = 200
_MOST_TOLD: Final = 40
# Home Assistant loses a value that is not retained right after the device it belongs to is new
_SETTLING: Final = 1.0
_ENDED: Final = (TokenState.REVOKED, TokenState.EXPIRED, TokenState.USED_UP)

_log = logging.getLogger(__name__)


class Outlet(Protocol):
    """Where messages go."""

    async def publish(
        self, topic: str, payload: str | bytes, *, retain: bool = False, confirmed: bool = False
    ) -> None:
        """Send a message; ``confirmed`` waits until the broker has it and all before it."""


class Projection:
    """What is to be seen by MQTT, read from the store and sent to an outlet."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        *,
        store: Store,
        home: Home,
        link: Callable[[Token], str],
        changes: Changes,
        now: Clock,
        about: About,
        devices: int,
    ) -> None:
        """Take the parts; at most so many tokens get ``devices`` of their own."""
        self._store = store
        self._home = home
        self._link = link
        self._changes = changes
        self._now = now
        self._about = about
        self._devices = devices
        self._something = asyncio.Event()
        self._retained: dict[str, Rendering | None] = {}
        self._passing: dict[str, Rendering] = {}
        self._ready_at: dict[str, float] = {}
        self._finished: deque[int] = deque(maxlen=_MOST_WAITING)
        self.strays = 0
        """How many topics were found on the broker that nobody wanted."""

    # -- what it hears -------------------------------------------------------------------------

    def following(self) -> AbstractContextManager[None]:
        """Hear of changes while the block runs, connected or not."""
        return self._changes.heard_by(self._hear)

    def _hear(self, change: Change) -> None:
        if change.subject is Subject.FINISHED:
            self._finished.append(int(change.id))
        self._something.set()

    def again(self) -> None:
        """Publish everything once more: Home Assistant has started, or somebody interfered."""
        # what the topics say is as unknown now as what the broker is found to hold
        self._retained = dict.fromkeys(self._retained)
        self._something.set()

    def lead_to(self, page: str) -> None:
        """Hear where the admin page is, which the devices lead to from now on."""
        self._about = replace(self._about, configuration_url=page)
        self._something.set()

    def begin(self) -> None:
        """Forget what was sent: the connection is new."""
        self._retained.clear()
        self._ready_at.clear()
        self._something.set()

    def found(self, of: Sequence[Topics], topic: str, payload: bytes) -> None:
        """Hear what the broker retains; what is of these topics and unwanted will be removed."""
        if topic not in self._retained and any(_is_of(each, topic, payload) for each in of):
            self._retained[topic] = None
            self._something.set()

    # -- what it does --------------------------------------------------------------------------

    async def run(self, outlet: Outlet) -> NoReturn:
        """Publish until cancelled, or until the outlet raises."""
        while True:
            self._something.clear()
            try:
                rest, wait = await self.publish(outlet)
            except StorageUnavailable as error:
                # nothing was sent and nothing forgotten
                _log.debug("the store cannot be read for MQTT now: %s", error)
                rest, wait = _STORAGE_PAUSE, 0.0
            await asyncio.sleep(rest)
            try:
                async with asyncio.timeout(wait):
                    await self._something.wait()
            except TimeoutError:
                continue

    async def publish(self, outlet: Outlet) -> tuple[float, float]:
        """Send what differs from before; return how long to rest, then to wait, in seconds.

        What changes while it rests is looked at after the rest; what changes while it waits, at
        once.
        """
        loop = asyncio.get_running_loop()
        begun, now = loop.time(), self._now()
        overview = await self._store.overview(now, devices=self._devices, newest=self._about.links)
        claims = {each: self._store.claimed(each) for each in islice(self._finished, _MOST_TOLD)}
        # from here on only the outlet can fail, which ends the session
        wanted = dict(self._wanted(overview, now))
        gone = [topic for topic in reversed(self._retained) if topic not in wanted]
        # Home Assistant takes an empty state for a fault as long as it knows the device
        gone.sort(key=lambda topic: not topic.endswith("/config"))
        differs = [topic for topic in wanted if self._retained.get(topic) != wanted[topic]]
        for topic in gone:
            self.strays += self._retained[topic] is None
            self._ready_at.pop(topic, None)
        for topic in differs:
            if topic.endswith("/config") and self._retained.get(topic) is None:
                self._ready_at[topic] = inf  # until it is sent
        links, held = self._links(overview, now)
        told, held_up = self._told(claims)
        messages: list[_Message] = [(topic, None, True) for topic in gone]
        messages += [(topic, wanted[topic], True) for topic in differs]
        messages += [(topic, rendering, False) for topic, rendering in links.items()]
        for claim in told.values():
            if claim is not None:  # else it was deleted
                said = (states.submission, claim, now)
                messages += [(topic, said, False) for topic in self._hearing(claim)]
        for number, message in enumerate(messages[:-1]):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            await self._send(outlet, message)
        took = loop.time() - begun
        # the last one waits for the broker, so that one which stalls is not sent ever more
        for message in messages[-1:]:
            await self._send(outlet, message, confirmed=True)
        self._passing |= links
        self._finished = deque((each for each in self._finished if each not in told), _MOST_WAITING)
        rest = min(max(_REST, took / _SHARE - took), _LONGEST_REST)
        return rest, self._wait(overview, now, [*held, *held_up], more=len(claims) == _MOST_TOLD)

    async def _send(self, outlet: Outlet, message: _Message, *, confirmed: bool = False) -> None:
        """Send a message and remember what is retained, once it is sent."""
        topic, rendering, retain = message
        payload = b"" if rendering is None else _render(rendering)
        await outlet.publish(topic, payload, retain=retain, confirmed=confirmed)
        if not retain:
            return
        if rendering is None:
            self._retained.pop(topic, None)
            return
        self._retained[topic] = rendering
        if topic in self._ready_at:
            ready = asyncio.get_running_loop().time() + _SETTLING
            self._ready_at[topic] = min(self._ready_at[topic], ready)

    def _wanted(self, overview: Overview, now: datetime) -> Iterator[tuple[str, Rendering]]:
        """Yield everything retained, devices before those that are reached via them.

        That otsd is online comes last: Home Assistant shows nothing before all is there.
        """
        about, counts = self._about, overview.counts
        topics = about.topics
        yield topics.discovery(topics.service_device), (discovery.service, about)
        home = self._home.status.state
        yield topics.state, (states.service, counts.total, overview.last, home)
        for name, tally in counts.by_action.items():
            action = self._store.action(name)
            title = name if action is None else action.title
            device = topics.action_device(name)
            yield topics.discovery(device), (discovery.action, about, name, title)
            yield topics.action(name, "state"), (states.action, tally)
        for token in overview.devices:
            if token.action not in counts.by_action:  # it was made since; the next pass has both
                continue
            device = topics.token_device(token.id)
            limited = token.max_uses is not None
            described = (discovery.token, about, token.id, token.comment, token.action, limited)
            yield topics.discovery(device), described
            yield topics.token(token.id, "state"), (states.token, token, token.state(now))
        yield topics.status, (states.online,)

    def _links(
        self, overview: Overview, now: datetime
    ) -> tuple[dict[str, Rendering], Sequence[str]]:
        """Return what is new of each action's newest link, and the devices that are too new."""
        topics, links, held = self._about.topics, dict[str, Rendering](), list[str]()
        for name in overview.counts.by_action if self._about.links else ():
            token = overview.newest.get(name)
            if token is not None and (token.weak or token.state(now) in _ENDED):
                token = None
            url = None if token is None else self._link(token)
            created_at = None if token is None else token.created_at
            both = {
                topics.action(name, "link"): (states.link, created_at, url),
                topics.action(name, "qr"): (states.qr, url),
            }
            if self._is_new(device := topics.action_device(name)):
                held.append(device)
                for topic in both:  # a new device has heard nothing yet
                    self._passing.pop(topic, None)
                continue
            links |= {
                topic: rendering
                for topic, rendering in both.items()
                if self._passing.get(topic) != rendering
            }
        return links, held

    def _told(
        self, claims: Mapping[int, Claim | None]
    ) -> tuple[Mapping[int, Claim | None], Sequence[str]]:
        """Return the submissions that can be told, and the devices that are too new for others."""
        topics, told, held = self._about.topics, dict[int, "Claim | None"](), list[str]()
        for submission_id, claim in claims.items():
            devices = [topics.service_device]
            if claim is not None:
                devices.append(topics.action_device(claim.submission.action))
                devices.append(topics.token_device(claim.token.id))
            if new := [device for device in devices if self._is_new(device)]:
                held += new
            else:
                told[submission_id] = claim
        return told, held

    def _hearing(self, claim: Claim) -> Sequence[str]:
        """Return the topics that a submission is told on."""
        topics = self._about.topics
        return (
            topics.submission,
            topics.action(claim.submission.action, "submission"),
            topics.token(claim.token.id, "submission"),
        )

    def _is_new(self, device: str) -> bool:
        """Return whether a device is so new that what is not retained would be lost."""
        ready = self._ready_at.get(self._about.topics.discovery(device), -inf)
        return ready > asyncio.get_running_loop().time()

    def _wait(self, overview: Overview, now: datetime, held: Sequence[str], *, more: bool) -> float:
        """Return the seconds until something changes by itself."""
        if more:
            return 0.0
        moments = [] if overview.next_change is None else [overview.next_change]
        for token in (*overview.devices, *overview.newest.values()):
            own = (token.valid_from, token.expires_at, token.device_until)
            moments += [moment for moment in own if moment is not None and moment > now]
        waits = [(moment - now).total_seconds() for moment in moments]
        at = asyncio.get_running_loop().time()
        ready_at = (self._ready_at[self._about.topics.discovery(device)] for device in held)
        waits += [max(ready - at, 0.0) for ready in ready_at]
        return min([*waits, _LONGEST_WAIT])


def _render(rendering: Rendering) -> str | bytes:
    function, *arguments = rendering
    payload = function(*arguments)
    return payload if isinstance(payload, bytes) else json.dumps(payload)


def _is_of(topics: Topics, topic: str, payload: bytes) -> bool:
    """Return whether a retained message is of these topics, by its name and, of a device, by sight.

    ``otsd_2_service`` begins with ``otsd_`` and may be another daemon's.
    """
    beginning, _, end = topics.discovery("+").partition("+")
    if not (topic.startswith(beginning) and topic.endswith(end)):
        return topic.startswith(f"{topics.base}/")
    device = topic.removeprefix(beginning).removesuffix(end)
    if device != topics.service_device and not device.startswith(
        (topics.action_device(""), topics.token_device(""))
    ):
        return False
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return True
    return not isinstance(said, dict) or said.get("avty_t", topics.status) == topics.status
