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
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from otsd.core.changes import Change, Subject
from otsd.core.errors import StorageUnavailable
from otsd.core.tokens import TokenState
from otsd.mqtt import discovery, states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from otsd.core.changes import Changes
    from otsd.core.ports import Claim, Clock, Home, Overview, Store
    from otsd.core.tokens import Token
    from otsd.mqtt.discovery import About
    from otsd.mqtt.topics import Topics

Rendering = tuple[Any, ...]
"""A function of `discovery` or `states` and what it is called with: equal ones say the same."""

_Message = tuple[str, str | bytes, bool]  # topic, payload, retained

# a thousand submissions a second are a few messages a second
_REST: Final = 0.2
# a pass that takes long, with a thousand devices, may take this share of the time
_SHARE: Final = 0.1
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
        self._anew = True
        self._retained: dict[str, Rendering | None] = {}
        self._passing: dict[str, Rendering] = {}
        self._ready_at: dict[str, float] = {}
        self._finished: deque[int] = deque(maxlen=_MOST_WAITING)

    # -- what it hears -------------------------------------------------------------------------

    def following(self) -> AbstractContextManager[None]:
        """Hear of changes while the block runs, connected or not."""
        return self._changes.heard_by(self._hear)

    def _hear(self, change: Change) -> None:
        if change.subject is Subject.SUBMISSION:
            self._finished.append(int(change.id))
        self._something.set()

    def again(self) -> None:
        """Publish everything once more: Home Assistant has started, or somebody interfered."""
        self._anew = True
        self._something.set()

    def begin(self) -> None:
        """Forget what was sent: the connection is new."""
        self._retained.clear()
        self._ready_at.clear()
        self.again()

    def found(self, of: Sequence[Topics], topic: str, payload: bytes) -> None:
        """Hear what the broker retains; what is of these topics and unwanted will be removed."""
        if topic not in self._retained and any(_is_of(each, topic, payload) for each in of):
            self._retained[topic] = None
            self._something.set()

    # -- what it does --------------------------------------------------------------------------

    async def run(self, outlet: Outlet) -> NoReturn:
        """Publish until cancelled, or until the outlet raises."""
        loop = asyncio.get_running_loop()
        while True:
            self._something.clear()
            begun = loop.time()
            try:
                wait = await self.publish(outlet)
            except StorageUnavailable as error:
                _log.debug("the store cannot be read for MQTT now: %s", error)
                self.again()
                wait = 0.0
                await asyncio.sleep(_STORAGE_PAUSE)
            took = loop.time() - begun
            await asyncio.sleep(max(_REST, took / _SHARE - took))
            try:
                async with asyncio.timeout(wait):
                    await self._something.wait()
            except TimeoutError:
                continue

    async def publish(self, outlet: Outlet) -> float:
        """Send what differs from before; return the seconds after which to look again."""
        now = self._now()
        overview = await self._store.overview(now, devices=self._devices, newest=self._about.links)
        finished = list(islice(self._finished, _MOST_TOLD))
        claims = [(each, self._store.claimed(each)) for each in finished]
        # nothing below fails before it is sent, and what is sent in vain ends the session
        wanted = dict(self._wanted(overview, now))
        anew, self._anew = self._anew, False
        gone = [topic for topic in reversed(self._retained) if topic not in wanted]
        messages: list[_Message] = [(topic, b"", True) for topic in gone]
        for topic in gone:
            del self._retained[topic]
            self._ready_at.pop(topic, None)
        ready_at = asyncio.get_running_loop().time() + _SETTLING
        for topic, rendering in wanted.items():
            before = self._retained.get(topic)
            if anew or before != rendering:
                if topic.endswith("/config") and (anew or before is None):
                    self._ready_at[topic] = ready_at
                self._retained[topic] = rendering
                messages.append((topic, _render(rendering), True))
        if anew:
            self._passing.clear()
        held = [*self._links(overview, now, messages), *self._told(claims, now, messages)]
        if anew:
            messages.append((self._about.topics.status, "online", True))
        for topic, payload, retain in messages[:-1]:
            await outlet.publish(topic, payload, retain=retain)
        # the last one waits for the broker, so that one which stalls is not sent ever more
        for topic, payload, retain in messages[-1:]:
            await outlet.publish(topic, payload, retain=retain, confirmed=True)
        return self._wait(overview, now, held)

    def _wanted(self, overview: Overview, now: datetime) -> Iterator[tuple[str, Rendering]]:
        """Yield everything retained, devices before those that are reached via them."""
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
            device = topics.token_device(token.id)
            limited = token.max_uses is not None
            described = (discovery.token, about, token.id, token.comment, token.action, limited)
            yield topics.discovery(device), described
            yield topics.token(token.id, "state"), (states.token, token, token.state(now))

    def _links(
        self, overview: Overview, now: datetime, messages: list[_Message]
    ) -> Iterator[float]:
        """Add each action's newest link; yield when those of new devices can be sent."""
        if not self._about.links:
            return
        topics = self._about.topics
        for name in overview.counts.by_action:
            if ready := self._not_before(topics.action_device(name)):
                yield ready
                continue
            token = overview.newest.get(name)
            if token is not None and token.state(now) in _ENDED:
                token = None
            url = None if token is None else self._link(token)
            created_at = None if token is None else token.created_at
            for topic, rendering in (
                (topics.action(name, "link"), (states.link, created_at, url)),
                (topics.action(name, "qr"), (states.qr, url)),
            ):
                if self._passing.get(topic) != rendering:
                    self._passing[topic] = rendering
                    messages.append((topic, _render(rendering), False))

    def _told(
        self, claims: Sequence[tuple[int, Claim | None]], now: datetime, messages: list[_Message]
    ) -> Iterator[float]:
        """Add what finished; yield when those of new devices, and the others, can be sent."""
        topics = self._about.topics
        for submission_id, claim in claims:
            self._finished.remove(submission_id)
            if claim is None:  # it was deleted
                continue
            action, token_id = claim.submission.action, claim.token.id
            devices = topics.action_device(action), topics.token_device(token_id)
            ready = max(map(self._not_before, (topics.service_device, *devices)))
            if ready:
                self._finished.append(submission_id)
                yield ready
                continue
            payload = json.dumps(states.submission(claim, now))
            messages += [
                (topics.submission, payload, False),
                (topics.action(action, "submission"), payload, False),
                (topics.token(token_id, "submission"), payload, False),
            ]
        if len(claims) == _MOST_TOLD:
            yield 0.0

    def _not_before(self, device: str) -> float:
        """Return when what is not retained can be sent to a device that is new, 0 for others."""
        ready = self._ready_at.get(self._about.topics.discovery(device), 0.0)
        return ready if ready > asyncio.get_running_loop().time() else 0.0

    def _wait(self, overview: Overview, now: datetime, held: Sequence[float]) -> float:
        """Return the seconds until something changes by itself."""
        moments = [] if overview.next_change is None else [overview.next_change]
        for token in overview.devices:
            own = (token.valid_from, token.expires_at, token.device_until)
            moments += [moment for moment in own if moment is not None and moment > now]
        waits = [(moment - now).total_seconds() for moment in moments]
        at = asyncio.get_running_loop().time()
        waits += [max(ready - at, 0.0) for ready in held]
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
