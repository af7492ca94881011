"""What the broker is told of the store: all of it, in order, in time, and not too often."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import itertools
import json
import secrets
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import segno

from otsd.core.changes import Changes, Subject
from otsd.core.codes import Codes
from otsd.core.errors import StorageUnavailable
from otsd.core.manage import Actions, Edit, Mint, Tokens
from otsd.core.ports import Claim, ConnectionState, ConnectionStatus, Overview
from otsd.core.tokens import Outcome, Submission, Token
from otsd.mqtt.discovery import About
from otsd.mqtt.projection import Projection
from otsd.mqtt.topics import Topics
from otsd.store import store as stores
from otsd.store.store import SqliteStore
from tests.conftest import Clock
from tests.core.homes import MemoryHome, hastily, until
from tests.store import making

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
BASE_URL = "https://links.example"
# the rest between two looks, as it is at least; nothing is told more often
LOOKS_A_SECOND = 5


def leap(seconds: float) -> None:
    """Let so much time pass at once on the event loop of the test."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]


class Home(MemoryHome):
    """A home whose connection comes and goes."""

    state = ConnectionState.CONNECTED

    @property
    def status(self) -> ConnectionStatus:
        return ConnectionStatus(self.state, datetime(2026, 11, 21, tzinfo=UTC))


class UnreadableStore(SqliteStore):
    """The real store, which cannot be read at times."""

    unreadable: str | None = None
    looks = 0

    async def overview(self, now: datetime, *, devices: int, newest: bool) -> Overview:
        self.looks += 1
        self._fail("overview")
        return await super().overview(now, devices=devices, newest=newest)

    def claimed(self, submission_id: int) -> Claim | None:
        self._fail("claimed")
        return super().claimed(submission_id)

    def _fail(self, what: str) -> None:
        if self.unreadable == what:
            raise StorageUnavailable("disk I/O error")


@dataclass(frozen=True)
class Said:
    """A message as it was sent."""

    topic: str
    payload: bytes
    retain: bool
    confirmed: bool
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Gone(Exception):
    """The broker is gone."""


class Board:
    """An outlet that notes what is sent, and can break or stall at a message."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.held: dict[str, bytes] = {}
        self.on_message: Callable[[str], None] = lambda _: None
        self.open = asyncio.Event()
        self.open.set()

    async def publish(
        self, topic: str, payload: str | bytes, *, retain: bool = False, confirmed: bool = False
    ) -> None:
        await self.open.wait()
        self.on_message(topic)
        data = payload.encode() if isinstance(payload, str) else payload
        at = asyncio.get_running_loop().time()
        self.said.append(Said(topic, data, retain, confirmed, at))
        if retain and data:
            self.held[topic] = data
        elif retain:
            self.held.pop(topic, None)

    def state(self, topic: str) -> Any:
        """Return what a topic holds."""
        return json.loads(self.held[topic])

    def topics(self) -> list[str]:
        """Return the topics that were said, and forget what was said."""
        said, self.said = self.said, []
        return [each.topic for each in said]

    def told(self, topic: str = "otsd/submission") -> list[int]:
        """Return the submissions that were told on a topic, in order."""
        return [each.json["submission_id"] for each in self.said if each.topic == topic]


@dataclass
class World:
    """A projection and everything that it looks at."""

    store: UnreadableStore
    home: Home
    tokens: Tokens
    actions: Actions
    changes: Changes
    clock: Clock
    projection: Projection
    board: Board

    async def pass_(self) -> tuple[float, float]:
        """Look once, and send what differs."""
        return await self.projection.publish(self.board)

    async def settle(self) -> None:
        """Look, and let the time pass after which all devices hear what is not retained."""
        await self.pass_()
        leap(1.001)

    async def mint(self, **wish: Any) -> Token:
        return await self.tokens.mint(Mint(wish.pop("action", "open-door"), "cli", **wish))

    async def submit(self, token: Token, outcome: Outcome = making.EXECUTED) -> Submission:
        """Claim, settle and tell, as a submission does."""
        attempt = f"attempt-{next(_numbers)}"
        claim = await self.store.claim(token.id, attempt, making.VISITOR, self.clock())
        self.changes.tell(Subject.TOKEN, token.id)
        settled = await self.store.settle(claim, outcome, self.clock(), making.ANNOUNCE)
        self.changes.tell(Subject.FINISHED, settled.id)
        self.changes.tell(Subject.TOKEN, token.id)
        return settled

    def devices(self) -> list[str]:
        """Return the tokens that have a device, discovery and state, in order of discovery."""
        beginning, end = "homeassistant/device/otsd_token_", "/config"
        found = [
            topic.removeprefix(beginning).removesuffix(end)
            for topic in self.board.held
            if topic.startswith(beginning)
        ]
        states = {topic for topic in self.board.held if topic.startswith("otsd/tokens/")}
        assert states == {f"otsd/tokens/{token}/state" for token in found}
        return found


_numbers = itertools.count(1)


@asynccontextmanager
async def a_world(
    directory: Path,
    clock: Any,
    *,
    devices: int = 20,
    links: bool = False,
    topics: Topics | None = None,
) -> AsyncIterator[World]:
    """Open a store with the action ``open-door`` and what looks at it."""
    async with stores.opened(directory) as (plain, _):
        store = UnreadableStore(plain._reader, plain._listing, plain._lister, plain._writer)
        store._actions = plain._actions
        home, changes = Home(), Changes()
        tokens = Tokens(
            store=store,
            codes=Codes(bytes(32)),
            now=clock,
            changes=changes,
            random=secrets.token_bytes,
            base_url=BASE_URL,
        )
        actions = Actions(store=store, home=home, now=clock, changes=changes)
        about = About(
            topics=topics or Topics("otsd", "homeassistant"),
            title="One Time Service",
            version="1.0",
            configuration_url="http://localhost:8099",
            commands=True,
            links=links,
        )
        projection = Projection(
            store=store,
            home=home,
            link=tokens.link,
            changes=changes,
            now=clock,
            about=about,
            devices=devices,
        )
        if not store.actions():
            await actions.save(making.action(), create=True)
        with projection.following():
            yield World(store, home, tokens, actions, changes, clock, projection, Board())


@pytest.fixture
async def world(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    """Return a world with the action ``open-door`` and no token."""
    async with a_world(tmp_path / "data", clock) as world:
        yield world


@pytest.fixture
async def showing(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    """Return a world whose links are published."""
    async with a_world(tmp_path / "data", clock, links=True) as world:
        yield world


@asynccontextmanager
async def connected(world: World, board: Board | None = None) -> AsyncIterator[Board]:
    """Run the projection as a connection does."""
    board = board or world.board
    world.projection.begin()
    running = asyncio.create_task(world.projection.run(board))
    try:
        yield board
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled() and not isinstance(running.exception(), Gone):
            running.result()


# -- payloads ---------------------------------------------------------------------------------


async def test_with_nothing_to_tell_the_states_are_zero_and_unknown(world: World) -> None:
    await world.pass_()
    assert world.board.state("otsd/state") == {
        "active_tokens": 0,
        "remaining_uses": 0,
        "last_used": None,
        "last_action": None,
        "last_outcome": None,
        "home_assistant": "connected",
    }
    assert world.board.state("otsd/actions/open-door/state") == {
        "active_tokens": 0,
        "remaining_uses": 0,
        "last_used": None,
    }
    assert world.board.held["otsd/status"] == b"online"
    assert all(each.retain for each in world.board.said)
    assert world.devices() == []


async def test_every_state_is_what_the_contract_says(world: World) -> None:
    expires_at = world.clock.now + timedelta(hours=2)
    token = await world.mint(max_uses=3, expires_at=expires_at, comment='Plumber 🔧 "x"')
    await world.mint()
    topic = f"otsd/tokens/{token.id}/state"
    await world.pass_()
    fresh = {
        "state": "active",
        "uses_left": 3,
        "max_uses": 3,
        "last_used": None,
        "expires_at": "2026-11-21T22:15:00+00:00",
        "comment": 'Plumber 🔧 "x"',
        "action": "open-door",
        "enabled": "ON",
    }
    assert world.board.state(topic) == fresh

    world.clock.move(seconds=3, milliseconds=250)
    await world.submit(token)
    await world.pass_()
    used = {**fresh, "uses_left": 2, "last_used": "2026-11-21T20:15:03.250+00:00"}
    assert world.board.state(topic) == used
    assert world.board.state("otsd/actions/open-door/state") == {
        "active_tokens": 2,
        "remaining_uses": 3,
        "last_used": used["last_used"],
    }
    assert world.board.state("otsd/state") == {
        "active_tokens": 2,
        "remaining_uses": 3,
        "last_used": used["last_used"],
        "last_action": "open-door",
        "last_outcome": "executed",
        "home_assistant": "connected",
    }

    await world.tokens.pause(token.id)
    world.home.state = ConnectionState.CONNECTING
    world.changes.tell(Subject.CONNECTION, "home_assistant")
    await world.pass_()
    assert world.board.state(topic) == {**used, "state": "paused", "enabled": "OFF"}
    assert world.board.state("otsd/state")["home_assistant"] == "connecting"
    assert world.board.state("otsd/state")["active_tokens"] == 1
    await world.tokens.resume(token.id)
    await world.tokens.replenish(token.id)
    await world.pass_()
    assert world.board.state(topic) == {**used, "uses_left": 3}


async def test_a_submission_is_told_on_three_topics_without_what_is_for_administrators(
    world: World,
) -> None:
    token = await world.mint(max_uses=2, comment="Plumber")
    await world.settle()
    world.clock.move(seconds=3)
    number = (await world.submit(token, making.INCOMPLETE)).id
    world.clock.move(seconds=60)
    world.board.said.clear()
    await world.pass_()
    told = [each for each in world.board.said if not each.retain]
    assert {each.topic for each in told} == {
        "otsd/submission",
        "otsd/actions/open-door/submission",
        f"otsd/tokens/{token.id}/submission",
    }
    for each in told:
        assert each.json == {
            "event_type": "failed",
            "submission_id": number,
            "token_id": token.id,
            "comment": "Plumber",
            "action": "open-door",
            "title": "Open the front door",
            "outcome": "failed",
            "error": "half",
            "uses_left": 1,
            "max_uses": 2,
            "submitted_at": "2026-11-21T20:15:03+00:00",
            "delivered_late": False,
        }
    await world.pass_()
    assert world.board.told() == [number]


async def test_remaining_uses_are_unknown_while_an_active_token_is_unlimited(world: World) -> None:
    async def remaining() -> list[Any]:
        await world.pass_()
        topics = ("otsd/state", "otsd/actions/open-door/state", "otsd/actions/garage/state")
        return [world.board.state(topic)["remaining_uses"] for topic in topics]

    await world.actions.save(making.action("garage", "Garage"), create=True)
    await world.mint(max_uses=3)
    await world.mint(action="garage", max_uses=2)
    assert await remaining() == [5, 3, 2]
    later = world.clock.now + timedelta(hours=1)
    unlimited = await world.mint(max_uses=None, valid_from=later, expires_at=later + DAY)
    assert await remaining() == [5, 3, 2]
    world.clock.now = later
    assert await remaining() == [None, None, 2]
    await world.tokens.pause(unlimited.id)
    assert await remaining() == [5, 3, 2]
    await world.tokens.resume(unlimited.id)
    assert await remaining() == [None, None, 2]
    world.clock.now = later + DAY
    assert await remaining() == [5, 3, 2]
    assert world.board.state(f"otsd/tokens/{unlimited.id}/state")["uses_left"] is None


async def test_parents_come_before_children_and_that_otsd_is_online_last(world: World) -> None:
    await world.actions.save(making.action("garage", "Garage"), create=True)
    tokens = [await world.mint(action=name, max_uses=5) for name in ("open-door", "garage") * 2]
    await world.pass_()
    ids = [token.id for token in reversed(tokens)]
    assert world.board.topics() == [
        "homeassistant/device/otsd_service/config",
        "otsd/state",
        "homeassistant/device/otsd_action_open-door/config",
        "otsd/actions/open-door/state",
        "homeassistant/device/otsd_action_garage/config",
        "otsd/actions/garage/state",
        *itertools.chain.from_iterable(
            (f"homeassistant/device/otsd_token_{each}/config", f"otsd/tokens/{each}/state")
            for each in ids
        ),
        "otsd/status",
    ]
    await world.pass_()
    assert world.board.topics() == []


async def test_only_the_last_message_of_a_look_waits_for_the_broker(world: World) -> None:
    await world.mint(max_uses=5)
    await world.pass_()
    assert [each.confirmed for each in world.board.said] == [False] * 6 + [True]


async def test_a_device_is_never_told_before_the_action_that_it_is_reached_by(
    world: World,
) -> None:
    class Late(UnreadableStore):
        """An action and its token are made while the overview is being read."""

        async def counts(self, now: datetime) -> Any:
            counts = await super().counts(now)
            if self.action("garage") is None:
                await world.actions.save(making.action("garage"), create=True)
                await world.mint(action="garage", max_uses=5)
            return counts

    world.store.__class__ = Late
    await world.pass_()
    assert world.devices() == []
    await world.pass_()
    (token,) = world.devices()
    topics = world.board.topics()
    assert topics.index("homeassistant/device/otsd_action_garage/config") < topics.index(
        f"homeassistant/device/otsd_token_{token}/config"
    )


# -- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "state", "active"),
    [
        (-SECOND, "scheduled", 0),
        (timedelta(), "active", 1),
        (SECOND, "active", 1),
        (timedelta(hours=1) - SECOND, "active", 1),
        (timedelta(hours=1), "expired", 0),
        (timedelta(hours=1) + SECOND, "expired", 0),
    ],
)
async def test_states_are_right_one_second_before_at_and_after_each_end(
    world: World, offset: timedelta, state: str, active: int
) -> None:
    begin = world.clock.now + timedelta(hours=1)
    token = await world.mint(max_uses=4, valid_from=begin, expires_at=begin + timedelta(hours=1))
    await world.pass_()
    world.clock.now = begin + offset
    await world.pass_()
    assert world.board.state(f"otsd/tokens/{token.id}/state")["state"] == state
    for topic in ("otsd/state", "otsd/actions/open-door/state"):
        assert world.board.state(topic)["active_tokens"] == active
        assert world.board.state(topic)["remaining_uses"] == 4 * active


@pytest.mark.parametrize(
    ("facts", "paused", "links"),
    [
        ({"max_uses": 1, "valid_from": 7}, False, False),
        ({"max_uses": 1, "expires_at": 7}, False, False),
        ({"max_uses": 1, "valid_from": 7, "expires_at": 20}, False, False),
        ({"max_uses": 2, "valid_from": 7}, False, False),
        ({"max_uses": 2, "expires_at": 7}, False, False),
        ({"max_uses": 2, "expires_at": 7}, True, False),
        ({"max_uses": 2, "valid_from": 7, "expires_at": 20}, True, False),
        ({"max_uses": 1, "expires_at": 7}, True, True),
    ],
)
async def test_it_looks_again_at_the_next_instant_that_changes_anything(
    tmp_path: Path, clock: Clock, facts: dict[str, Any], paused: bool, links: bool
) -> None:
    async with a_world(tmp_path / "data", clock, links=links) as world:
        begin = clock.now
        instants = {
            key: begin + value * SECOND for key, value in facts.items() if key != "max_uses"
        }
        token = await world.mint(max_uses=facts["max_uses"], **instants)
        if paused:
            await world.tokens.pause(token.id)
        await world.settle()
        assert (await world.pass_())[1] == 7
        clock.move(seconds=6, milliseconds=999)
        assert (await world.pass_())[1] == pytest.approx(0.001)
        clock.now = begin + 7 * SECOND
        assert (await world.pass_())[1] == (
            13 if "expires_at" in facts and 20 in facts.values() else 60
        )


async def test_a_device_goes_at_its_instant(world: World) -> None:
    token = await world.mint(max_uses=2, expires_at=world.clock.now + SECOND)
    world.clock.move(seconds=1)
    await world.pass_()
    assert world.devices() == [token.id]
    world.clock.now += DAY - 2 * SECOND
    assert (await world.pass_())[1] == 2
    assert world.devices() == [token.id]
    world.clock.move(seconds=2)
    await world.pass_()
    assert world.devices() == []


def test_states_follow_the_clock_with_nobody_doing_anything(tmp_path: Path) -> None:
    async def watch() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        start = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)

        def now() -> datetime:
            return start + timedelta(seconds=loop.time() - begun)

        async with a_world(tmp_path / "data", now) as world:
            # both are right after the instants at which it would look again anyhow
            token = await world.mint(
                max_uses=2, valid_from=start + 65 * SECOND, expires_at=start + 130 * SECOND
            )
            topic = f"otsd/tokens/{token.id}/state"
            async with connected(world) as board:
                await until(
                    lambda: topic in board.held and board.state(topic)["state"] == "expired"
                )
            changed = [
                (each.json["state"], each.at - begun) for each in board.said if each.topic == topic
            ]
            assert [state for state, _ in changed] == ["scheduled", "active", "expired"]
            assert 65 <= changed[1][1] < 105
            assert 130 <= changed[2][1] < 170
            assert board.state("otsd/state")["active_tokens"] == 0
            assert world.store.looks < 20

    hastily(watch(), times=40)


@pytest.mark.parametrize("by", [-timedelta(days=400), timedelta(days=400)])
async def test_a_clock_that_is_set_is_believed_when_it_looks_again(
    world: World, by: timedelta
) -> None:
    begin = world.clock.now
    token = await world.mint(max_uses=2, valid_from=begin - DAY, expires_at=begin + DAY)
    await world.pass_()
    topic = f"otsd/tokens/{token.id}/state"
    assert world.board.state(topic)["state"] == "active"
    world.clock.now = begin + by
    _, wait = await world.pass_()
    assert 0 < wait <= 60
    assert world.board.state("otsd/state")["active_tokens"] == 0
    assert topic not in world.board.held or world.board.state(topic)["state"] == "scheduled"
    world.clock.now = begin
    await world.pass_()
    assert world.board.state(topic)["state"] == "active"
    assert world.board.state("otsd/state")["active_tokens"] == 1
    assert world.devices() == [token.id]


# -- devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_uses", "device", "expected"),
    [
        (1, None, False),
        (1, True, True),
        (1, False, False),
        (2, None, True),
        (2, True, True),
        (2, False, False),
        (None, None, True),
        (None, True, True),
        (None, False, False),
    ],
)
async def test_who_has_a_device(
    world: World, max_uses: int | None, device: bool | None, expected: bool
) -> None:
    token = await world.mint(max_uses=max_uses, device=device)
    await world.pass_()
    assert world.devices() == [token.id] * expected


async def test_a_token_gets_a_device_when_it_is_edited_to_be_used_more_often(world: World) -> None:
    token = await world.mint(max_uses=1)
    await world.pass_()
    assert world.devices() == []
    await world.tokens.edit(token.id, Edit(max_uses=5))
    await world.pass_()
    assert world.devices() == [token.id]
    await world.tokens.edit(token.id, Edit(max_uses=1))
    await world.pass_()
    assert world.devices() == []


async def test_the_newest_have_devices_and_an_older_one_comes_back_when_one_goes(
    tmp_path: Path, clock: Clock
) -> None:
    async with a_world(tmp_path / "data", clock, devices=3) as world:
        first, second, third = [await world.mint(max_uses=5) for _ in range(3)]
        await world.pass_()
        assert world.devices() == [third.id, second.id, first.id]
        world.board.said.clear()
        fourth = await world.mint(max_uses=5)
        await world.mint(max_uses=1)  # without a device it pushes nobody out
        await world.pass_()
        assert sorted(world.devices()) == sorted([fourth.id, third.id, second.id])
        cleared = {each.topic for each in world.board.said if not each.payload}
        assert cleared == {
            f"homeassistant/device/otsd_token_{first.id}/config",
            f"otsd/tokens/{first.id}/state",
        }
        await world.tokens.revoke(third.id)
        await world.pass_()
        assert sorted(world.devices()) == sorted([fourth.id, second.id, first.id])
        assert world.board.state(f"otsd/tokens/{first.id}/state")["uses_left"] == 5


async def test_without_room_for_devices_there_are_none(tmp_path: Path, clock: Clock) -> None:
    async with a_world(tmp_path / "data", clock, devices=0) as world:
        await world.mint(max_uses=None, device=True)
        await world.pass_()
        assert world.devices() == []
        assert world.board.state("otsd/state")["active_tokens"] == 1


async def test_a_device_stays_while_its_token_could_be_used_again(world: World) -> None:
    scheduled = await world.mint(max_uses=2, valid_from=world.clock.now + 400 * DAY)
    active = await world.mint(max_uses=2)
    paused = await world.mint(max_uses=2)
    await world.tokens.pause(paused.id)
    for days in (0, 2, 100):
        world.clock.move(days=days)
        await world.pass_()
        assert world.devices() == [paused.id, active.id, scheduled.id]


async def test_a_device_stays_a_day_after_its_token_is_used_up_or_has_expired(
    world: World,
) -> None:
    begin = world.clock.now
    used = await world.mint(max_uses=2)
    expiring = await world.mint(max_uses=2, expires_at=begin + timedelta(hours=1))
    paused = await world.mint(max_uses=2, expires_at=begin + timedelta(hours=2))
    await world.tokens.pause(paused.id)
    both = await world.mint(max_uses=1, device=True, expires_at=begin + timedelta(hours=3))
    await world.submit(used)
    await world.submit(both)
    world.clock.move(minutes=30)
    await world.submit(used)
    remaining = {used.id: 30, expiring.id: 60, paused.id: 120, both.id: 0}
    for minutes in sorted({*remaining.values()}):
        for offset, gone in ((-SECOND, False), (timedelta(), True), (SECOND, True)):
            world.clock.now = begin + DAY + timedelta(minutes=minutes) + offset
            await world.pass_()
            expected = {
                each
                for each, end in remaining.items()
                if end > minutes or (end == minutes and not gone)
            }
            assert set(world.devices()) == expected


@pytest.mark.parametrize("how", ["revoke", "delete"])
async def test_the_device_of_a_token_that_is_gone_goes_at_once(world: World, how: str) -> None:
    stays, goes = [await world.mint(max_uses=5) for _ in range(2)]
    await world.pass_()
    await getattr(world.tokens, how)(goes.id)
    await world.pass_()
    assert world.devices() == [stays.id]
    assert [each.payload for each in world.board.said[-2:]] != [b"", b""]  # others changed, too
    cleared = [each for each in world.board.said if not each.payload]
    assert len(cleared) == 2
    assert all(each.retain for each in cleared)


async def test_an_action_that_is_deleted_takes_its_devices_along_children_first(
    world: World,
) -> None:
    await world.actions.save(making.action("garage", "Garage"), create=True)
    token = await world.mint(action="garage", max_uses=5)
    other = await world.mint(max_uses=5)
    await world.pass_()
    world.board.said.clear()
    await world.actions.delete("garage", force=True)
    await world.pass_()
    cleared = [each.topic for each in world.board.said if not each.payload]
    assert sorted(cleared) == sorted(
        [
            f"otsd/tokens/{token.id}/state",
            f"homeassistant/device/otsd_token_{token.id}/config",
            "otsd/actions/garage/state",
            "homeassistant/device/otsd_action_garage/config",
        ]
    )
    assert cleared.index(f"homeassistant/device/otsd_token_{token.id}/config") < cleared.index(
        "homeassistant/device/otsd_action_garage/config"
    )
    assert world.devices() == [other.id]


async def test_a_new_title_or_comment_is_told_and_nothing_else(world: World) -> None:
    token = await world.mint(max_uses=5, comment="Plumber")
    await world.pass_()
    world.board.said.clear()
    await world.actions.save(making.action(title="Let me in"), create=False)
    await world.pass_()
    (said,) = world.board.said
    assert said.topic == "homeassistant/device/otsd_action_open-door/config"
    assert said.json["dev"]["name"] == "Let me in"
    world.board.said.clear()
    await world.tokens.edit(token.id, Edit(comment="Gardener"))
    await world.pass_()
    device, state = world.board.said
    assert device.json["dev"]["name"] == state.json["comment"] == "Gardener"


# -- what the broker was found to hold --------------------------------------------------------


async def test_what_nobody_wants_is_removed_and_what_is_wanted_stays(world: World) -> None:
    await world.actions.save(making.action("garage", "Garage"), create=True)
    token = await world.mint(max_uses=5)
    await world.pass_()
    wanted = dict(world.board.held)
    ours = Topics("otsd", "homeassistant")
    device = json.dumps({"avty_t": "otsd/status"}).encode()
    orphans = {
        "homeassistant/device/otsd_action_gone/config": device,
        "homeassistant/device/otsd_token_22222222/config": b"not JSON",
        "homeassistant/device/otsd_token_33333333/config": b"[" * 100_000,
        "otsd/actions/gone/state": b"{}",
        "otsd/tokens/22222222/state": b"",
        "otsd/tokens/x/y/state": b"{}",
    }
    world.board.held |= orphans
    world.board.said.clear()
    # what is wanted may be said before or after otsd has said it
    for topic, payload in {**orphans, **wanted}.items():
        world.projection.found([ours], topic, payload)
    await world.pass_()
    assert world.board.held == wanted
    assert {each.topic for each in world.board.said} == {*orphans}
    assert world.devices() == [token.id]

    world.projection.begin()
    for topic, payload in {**wanted, **orphans}.items():
        world.projection.found([ours], topic, payload)
    await world.pass_()
    assert world.board.held == wanted


@pytest.mark.parametrize(
    ("base", "foreign"),
    [
        ("otsd", "otsd_2"),
        ("otsd_2", "otsd"),
        ("otsd", "otsd2"),
        ("otsd2", "otsd"),
        ("otsd", "otsd_action"),
        ("otsd", "otsd_token"),
        ("otsd_token", "otsd"),
        ("otsd_action", "otsd"),
        ("otsd", "home/otsd"),
        ("home/otsd", "otsd"),
        ("home/otsd", "home"),
        ("otsd", "otsd/2"),
        ("otsd/2", "otsd"),
    ],
)
async def test_what_another_otsd_says_on_the_same_broker_is_not_touched(
    tmp_path: Path, clock: Clock, base: str, foreign: str
) -> None:
    (tmp_path / "foreign").mkdir()
    theirs = Topics(foreign, "homeassistant")
    async with a_world(tmp_path / "foreign" / "data", clock, topics=theirs) as other:
        for name in ("service", "action_x", "token_x"):
            await other.actions.save(making.action(name), create=True)
            await other.mint(action=name, max_uses=5)
        await other.pass_()
        said = {topic: each for topic, each in other.board.held.items() if topic != theirs.status}
    ours = Topics(base, "homeassistant")
    async with a_world(tmp_path / "data", clock, topics=ours) as world:
        await world.pass_()
        world.board.said.clear()
        for topic, payload in said.items():
            # only what the filters let through is heard of
            if any(_matches(each, topic) for each in ours.retained):
                world.projection.found([ours], topic, payload)
        await world.pass_()
        assert world.board.said == []


def _matches(pattern: str, topic: str) -> bool:
    want, have = pattern.split("/"), topic.split("/")
    return len(want) == len(have) and all(
        each in ("+", level) for each, level in zip(want, have, strict=True)
    )


@pytest.mark.parametrize(
    "base", ["home/otsd", "a/b/c", "otsd.1", "otsd küche", "Haus:otsd", "otsd-2_x", "木/otsd"]
)
async def test_ids_are_what_home_assistant_takes_whatever_the_base_topic(
    tmp_path: Path, clock: Clock, base: str
) -> None:
    async with a_world(tmp_path / "data", clock, topics=Topics(base, "ha/disco")) as world:
        token = await world.mint(max_uses=5)
        await world.pass_()
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        configs = [each for each in world.board.said if each.topic.startswith("ha/disco/")]
        assert len(configs) == 3
        for each in configs:
            _, _, kind, device, end = each.topic.split("/")
            assert (kind, end) == ("device", "config")
            assert device
            assert set(device) <= allowed
            assert each.json["dev"]["ids"] == device
        assert f"{base}/tokens/{token.id}/state" in world.board.held
        others = {topic for topic in world.board.held if not topic.startswith("ha/disco/device/")}
        assert all(topic.startswith(f"{base}/") for topic in others)


# -- links ------------------------------------------------------------------------------------

LINK = "otsd/actions/open-door/link"
QR = "otsd/actions/open-door/qr"
NOTHING = {"created_at": None, "url": None}


def last(world: World, topic: str) -> Said:
    """Return the last that was said on a topic, which must not be retained."""
    said = [each for each in world.board.said if each.topic == topic]
    assert not any(each.retain for each in said)
    return said[-1]


def drawn(url: str) -> bytes:
    """Draw a link as it stands on the page."""
    picture = io.BytesIO()
    segno.make(url, error="m").save(picture, kind="png", scale=8, border=4)
    return picture.getvalue()


async def test_the_newest_link_and_its_picture_are_shown_until_it_is_spent(
    showing: World,
) -> None:
    placeholder = (files("otsd.mqtt") / "no-link.png").read_bytes()
    assert placeholder.startswith(b"\x89PNG")
    await showing.settle()
    await showing.pass_()
    assert last(showing, LINK).json == NOTHING
    assert base64.b64decode(last(showing, QR).payload, validate=True) == placeholder

    older = await showing.mint()
    showing.clock.move(seconds=1)
    newest = await showing.mint(expires_at=showing.clock.now + timedelta(hours=1))
    await showing.pass_()
    url = showing.tokens.link(newest)
    assert last(showing, LINK).json == {"created_at": "2026-11-21T20:15:01+00:00", "url": url}
    picture = base64.b64decode(last(showing, QR).payload, validate=True)
    assert picture == drawn(url)

    showing.board.said.clear()
    await showing.pass_()
    await showing.tokens.pause(newest.id)
    await showing.pass_()
    await showing.tokens.resume(newest.id)
    await showing.submit(older)
    await showing.pass_()
    assert not {LINK, QR} & {each.topic for each in showing.board.said}

    await showing.submit(newest)
    await showing.pass_()
    assert last(showing, LINK).json == NOTHING
    assert base64.b64decode(last(showing, QR).payload) == placeholder
    assert {LINK, QR}.isdisjoint(showing.board.held)


async def test_a_link_that_was_imported_is_not_known_until_there_is_a_new_one(
    showing: World,
) -> None:
    imported = await showing.mint()
    await showing.store.change_token(imported.id, lambda token: replace(token, weak=True))
    await showing.settle()
    await showing.pass_()
    assert last(showing, LINK).json == NOTHING
    rotated = await showing.tokens.rotate(imported.id)
    await showing.pass_()
    assert last(showing, LINK).json["url"] == showing.tokens.link(rotated)


@pytest.mark.parametrize("how", ["revoked", "used up", "expired", "expired while paused", "gone"])
async def test_a_link_that_is_spent_is_taken_back_and_no_older_one_comes_instead(
    showing: World, how: str
) -> None:
    older = await showing.mint(max_uses=5)
    token = await showing.mint(expires_at=showing.clock.now + timedelta(hours=1))
    await showing.settle()
    await showing.pass_()
    assert last(showing, LINK).json["url"] == showing.tokens.link(token)
    match how:
        case "revoked":
            await showing.tokens.revoke(token.id)
        case "used up":
            await showing.submit(token)
        case "gone":
            await showing.tokens.delete(token.id)
        case "expired while paused":
            await showing.tokens.pause(token.id)
            showing.clock.move(hours=1)
        case _:
            showing.clock.move(minutes=59, seconds=59)
            await showing.pass_()
            assert last(showing, LINK).json["url"] == showing.tokens.link(token)
            showing.clock.move(seconds=1)
    await showing.pass_()
    if how == "gone":
        assert last(showing, LINK).json["url"] == showing.tokens.link(older)
        return
    assert last(showing, LINK).json == NOTHING
    if how == "used up":
        await showing.tokens.replenish(token.id)
        await showing.pass_()
        assert last(showing, LINK).json["url"] == showing.tokens.link(token)


async def test_a_rotated_link_is_replaced(showing: World) -> None:
    token = await showing.mint()
    await showing.settle()
    await showing.pass_()
    before = last(showing, LINK).json["url"]
    rotated = await showing.tokens.rotate(token.id)
    await showing.pass_()
    assert last(showing, LINK).json["url"] == showing.tokens.link(rotated) != before


async def test_an_action_made_again_gets_its_picture_again(showing: World) -> None:
    await showing.settle()
    await showing.pass_()
    await showing.actions.delete("open-door", force=True)
    await showing.pass_()
    await showing.actions.save(making.action(), create=True)
    showing.board.said.clear()
    await showing.settle()
    assert QR not in [each.topic for each in showing.board.said]
    await showing.pass_()
    assert last(showing, LINK).json == NOTHING
    assert last(showing, QR).payload


async def test_links_are_said_anew_when_home_assistant_starts(showing: World) -> None:
    token = await showing.mint()
    await showing.settle()
    await showing.pass_()
    showing.projection.again()
    showing.board.said.clear()
    await showing.settle()
    assert not {LINK, QR} & {each.topic for each in showing.board.said}
    await showing.pass_()
    assert last(showing, LINK).json["url"] == showing.tokens.link(token)
    assert {LINK, QR} == {each.topic for each in showing.board.said if not each.retain}


@pytest.mark.parametrize("links", [False, True])
async def test_no_code_is_ever_retained(tmp_path: Path, clock: Clock, links: bool) -> None:
    async with a_world(tmp_path / "data", clock, links=links) as world:
        tokens = [
            await world.mint(max_uses=uses, comment="Plumber")
            for uses in (1, 5, None)
            for _ in "ab"
        ]
        await world.settle()
        for token in tokens:
            await world.submit(token)
        await world.pass_()
        tokens.append(await world.tokens.rotate(tokens[-1].id))
        await world.pass_()
        codes = [world.tokens.link(token).rpartition("=")[2].encode() for token in tokens]
        with_code = {
            each.topic for each in world.board.said if any(code in each.payload for code in codes)
        }
        assert with_code == ({LINK} if links else set())
        assert BASE_URL.encode() not in b"".join(world.board.held.values())
        assert not any(each.retain for each in world.board.said if each.topic in (LINK, QR))
        said = {each.topic for each in world.board.said}
        assert (LINK in said) is (QR in said) is links


# -- what is not retained, to what is new -----------------------------------------------------


def test_what_is_not_retained_waits_until_home_assistant_knows_the_device(tmp_path: Path) -> None:
    async def watch() -> None:
        async with a_world(tmp_path / "data", Clock(), links=True) as world:
            early = await world.mint()
            await world.submit(early)
            async with connected(world) as board:
                config = "homeassistant/device/otsd_{}/config".format
                await until(lambda: QR in [each.topic for each in board.said])
                await until(board.told)
                known = {"otsd/submission": config("service"), QR: config("action_open-door")}
                _assert_settled(board, known)

                token = await world.mint(max_uses=2)
                await world.submit(token)
                topic = f"otsd/tokens/{token.id}/submission"
                await until(lambda: board.told(topic))
                _assert_settled(board, {topic: config(f"token_{token.id}")})
                assert len(board.told()) == 2

    hastily(watch(), times=5)


def _assert_settled(board: Board, after: Mapping[str, str]) -> None:
    for topic, config in after.items():
        first = min(each.at for each in board.said if each.topic == topic)
        announced = max(each.at for each in board.said if each.topic == config)
        assert first - announced >= 1.0, topic


async def test_a_new_device_holds_up_no_other(world: World) -> None:
    known = await world.mint(max_uses=2)
    await world.settle()
    held = (await world.submit(await world.mint(max_uses=2))).id
    free = (await world.submit(known)).id
    rest, wait = await world.pass_()
    assert world.board.told() == [free]
    assert 0 < wait <= 1
    leap(rest + wait)
    await world.pass_()
    assert world.board.told() == [free, held]


async def test_many_submissions_of_a_new_device_are_told_in_order(world: World) -> None:
    await world.settle()
    token = await world.mint(max_uses=None)
    numbers = [(await world.submit(token)).id for _ in range(90)]
    await world.pass_()
    await world.pass_()
    assert world.board.told() == []
    leap(0.5)
    await world.pass_()
    assert world.board.told() == []
    leap(0.5)
    while (await world.pass_())[1] == 0.0:
        pass
    assert world.board.told() == numbers
    assert world.board.told(f"otsd/tokens/{token.id}/submission") == numbers


# -- how often --------------------------------------------------------------------------------


async def test_a_thousand_submissions_a_second_are_a_few_messages_an_entity(world: World) -> None:
    token = await world.mint(max_uses=None)
    await world.settle()
    begun = time.monotonic()
    submitted = 0
    async with connected(world) as board:
        await until(lambda: "otsd/status" in board.held)
        while (elapsed := time.monotonic() - begun) < 3:
            while submitted < elapsed * 1_000:
                async with asyncio.TaskGroup() as group:
                    for _ in range(50):
                        group.create_task(world.submit(token))
                submitted += 50
            await asyncio.sleep(0.001)
    counts = Counter(each.topic for each in board.said)
    assert submitted > 500
    for topic in ("otsd/state", "otsd/actions/open-door/state", f"otsd/tokens/{token.id}/state"):
        assert 1 < counts[topic] <= LOOKS_A_SECOND * elapsed + 2
    assert counts["otsd/submission"] <= 40 * (LOOKS_A_SECOND * elapsed + 1)
    assert len(board.told()) == len(set(board.told()))
    assert board.told() == sorted(board.told())


async def test_a_hundred_announcements_of_home_assistant_lead_to_a_few_republications(
    world: World,
) -> None:
    async with connected(world) as board:
        await until(lambda: "otsd/status" in board.held)
        held = dict(board.held)
        board.said.clear()
        world.projection.again()
        await until(lambda: "otsd/status" in [each.topic for each in board.said])
        assert {each.topic for each in board.said} == set(held)
        board.said.clear()
        begun = time.monotonic()
        for _ in range(100):
            world.projection.again()
            await asyncio.sleep(0.005)
        await until(lambda: "otsd/status" in [each.topic for each in board.said])
        elapsed = time.monotonic() - begun
        counts = Counter(each.topic for each in board.said)
        assert 1 <= counts["otsd/status"] <= LOOKS_A_SECOND * elapsed + 1


async def test_what_was_sent_before_home_assistant_announced_itself_is_sent_again(
    world: World,
) -> None:
    await world.mint(max_uses=5)
    await world.pass_()
    everything = set(world.board.held)
    world.projection.again()
    world.board.said.clear()

    def announce(topic: str) -> None:
        if topic == "otsd/actions/open-door/state":
            world.board.on_message = lambda _: None
            world.projection.again()

    world.board.on_message = announce
    await world.pass_()
    before = len(world.board.said)
    await world.pass_()
    again = {each.topic for each in world.board.said[before:]}
    assert "homeassistant/device/otsd_service/config" in again
    assert {each.topic for each in world.board.said[3:]} == everything


async def test_a_look_at_a_thousand_devices_holds_nobody_up(tmp_path: Path, clock: Clock) -> None:
    async with a_world(tmp_path / "data", clock, devices=1_000) as world:
        for number in range(200):
            await world.store.save_action(making.action(f"a{number}"), create=True, now=clock.now)
        async with asyncio.TaskGroup() as group:
            for _ in range(1_000):
                group.create_task(world.mint(max_uses=5))
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        taken: list[int] = []
        world.board.on_message = lambda _: taken.append(turns)
        taking = asyncio.create_task(take_turns())
        await world.pass_()
        taking.cancel()
        said = len(world.board.topics())
        begun = time.monotonic()
        await world.pass_()
        nothing_new = time.monotonic() - begun
        assert said == 2 * (1 + 200 + 1 + 1_000) + 1
        assert world.board.said == []
        assert len(world.devices()) == 1_000
        # a turn after every ten messages, and measured: 20 ms
        assert taken[-1] - taken[0] >= said // 10 - 1
        assert nothing_new < 0.3


# -- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["overview", "claimed"])
def test_a_store_that_cannot_be_read_loses_nothing(tmp_path: Path, what: str) -> None:
    async def watch() -> None:
        async with a_world(tmp_path / "data", Clock()) as world:
            token = await world.mint(max_uses=5)
            async with connected(world) as board:
                await until(lambda: "otsd/status" in board.held)
                await asyncio.sleep(2)
                world.store.unreadable = what
                numbers = [(await world.submit(token)).id for _ in range(3)]
                looks = world.store.looks
                await until(lambda: world.store.looks > looks + 2)
                assert board.told() == []
                world.store.unreadable = None
                loop = asyncio.get_running_loop()
                begun = loop.time()
                await until(lambda: len(board.told()) == 3)
                await until(lambda: board.state(f"otsd/tokens/{token.id}/state")["uses_left"] == 2)
                assert loop.time() - begun < 8
            assert board.told() == numbers

    hastily(watch(), times=5)


async def test_at_most_two_hundred_submissions_wait_for_the_broker_and_are_told_late(
    world: World,
) -> None:
    token = await world.mint(max_uses=None)
    numbers = [(await world.submit(token)).id for _ in range(250)]
    world.clock.move(seconds=30)
    numbers += [(await world.submit(token)).id for _ in range(10)]
    world.clock.move(seconds=31)
    await world.settle()
    while (await world.pass_())[1] == 0.0:
        pass
    assert world.board.told() == numbers[-200:]
    late = [
        each.json["delivered_late"] for each in world.board.said if each.topic == "otsd/submission"
    ]
    assert late == [True] * 190 + [False] * 10


async def test_a_submission_of_a_token_that_is_deleted_meanwhile_holds_up_no_other(
    world: World,
) -> None:
    gone, there = [await world.mint(max_uses=5) for _ in range(2)]
    await world.settle()
    await world.submit(gone)
    number = (await world.submit(there)).id
    await world.tokens.delete(gone.id)
    await world.pass_()
    assert world.board.told() == [number]
    await world.pass_()
    assert world.board.told() == [number]


async def test_what_a_connection_lost_on_its_way_is_told_by_the_next(world: World) -> None:
    token = await world.mint(max_uses=5)
    await world.settle()
    numbers = [(await world.submit(token)).id for _ in range(3)]
    broken = Board()

    def break_at_the_last(topic: str) -> None:
        if topic.endswith("/submission") and len(broken.told()) == 3:
            raise Gone

    broken.on_message = break_at_the_last
    with pytest.raises(Gone):
        await world.projection.publish(broken)
    numbers.append((await world.submit(token)).id)
    world.projection.begin()
    await world.settle()
    await world.pass_()
    assert world.board.told() == numbers
    assert world.board.state(f"otsd/tokens/{token.id}/state")["uses_left"] == 1
    assert world.devices() == [token.id]


async def test_a_look_that_is_broken_off_is_finished_by_the_next(world: World) -> None:
    tokens = [await world.mint(max_uses=5) for _ in range(3)]
    await world.settle()
    for token in tokens[1:]:
        await world.tokens.revoke(token.id)
    number = (await world.submit(tokens[0])).id
    board = world.board
    stalled = asyncio.Event()

    def stall(topic: str) -> None:
        if len(board.said) == before + 1:
            board.open.clear()
            stalled.set()

    before = len(board.said)
    board.on_message = stall
    looking = asyncio.create_task(world.pass_())
    await stalled.wait()
    looking.cancel()
    await asyncio.wait([looking])
    board.on_message = lambda _: None
    board.open.set()
    await world.pass_()
    assert world.devices() == [tokens[0].id]
    assert board.state("otsd/state")["active_tokens"] == 1
    assert board.told() == [number]


async def test_a_broker_that_takes_nothing_holds_up_no_submission_and_takes_no_memory(
    world: World,
) -> None:
    token = await world.mint(max_uses=None)
    stuck = Board()
    stuck.open.clear()
    async with connected(world, stuck):
        await world.submit(token)
        await asyncio.sleep(0.05)
        gc.collect()
        tracemalloc.start()
        begun = time.monotonic()
        for number in range(100_000):
            world.changes.tell(Subject.FINISHED, 1_000_000 + number)
            world.changes.tell(Subject.TOKEN, token.id)
        took = time.monotonic() - begun
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        submission = await world.submit(token)
        assert stuck.said == []
    assert taken < 200_000
    assert took < 10
    # only the newest are told, and those that never were are forgotten
    await world.settle()
    while (await world.pass_())[1] == 0.0:
        pass
    assert world.board.told() == [submission.id]


async def test_a_slow_broker_is_no_reason_to_rest_longer(world: World) -> None:
    class Slow(Board):
        async def publish(self, *args: Any, confirmed: bool = False, **kw: Any) -> None:
            if confirmed:
                await asyncio.sleep(0.3)
            await super().publish(*args, confirmed=confirmed, **kw)

    slow = Slow()
    rest, _ = await world.projection.publish(slow)
    assert slow.said
    assert rest < 1.5


def test_a_look_that_costs_much_is_followed_by_a_rest(tmp_path: Path) -> None:
    class Slow(UnreadableStore):
        async def overview(self, now: datetime, *, devices: int, newest: bool) -> Overview:
            await asyncio.sleep(0.1)
            return await super().overview(now, devices=devices, newest=newest)

    async def watch() -> None:
        async with a_world(tmp_path / "data", Clock()) as world:
            world.store.__class__ = Slow
            rest, _ = await world.pass_()
            assert 0.9 <= rest <= 2.0

    asyncio.run(watch())
