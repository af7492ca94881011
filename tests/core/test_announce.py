"""Events: in order, at least once, not before anybody hears them. Notifications: beside them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from otsd.core.announce import Announcer
from otsd.core.changes import Changes, Subject
from otsd.core.errors import NoAnswer, NotAsked, Refused
from otsd.core.events import announcer, event_data, notification
from otsd.core.ports import Announcement, Queue
from otsd.core.tokens import SubmissionState, Token
from otsd.store import store as stores
from tests.conftest import Clock
from tests.core.homes import FillingStore, MemoryHome, hastily, until
from tests.store import making


@dataclass
class World:
    """An announcer at work."""

    store: FillingStore
    home: MemoryHome
    announcer: Announcer
    clock: Clock
    changes: Changes
    token: Token
    tasks: asyncio.TaskGroup
    working: asyncio.Task[None] | None = None

    def work(self) -> None:
        """Begin to deliver."""
        self.working = self.tasks.create_task(self.announcer.run())

    async def rest(self) -> None:
        """Stop delivering, as a kill would."""
        assert self.working is not None
        self.working.cancel()
        await asyncio.wait((self.working,))

    async def submit(self, count: int = 1) -> list[int]:
        """Have some submissions end; return their ids."""
        numbers = []
        for _ in range(count):
            attempt = f"attempt-{(await self.store.counts(self.clock.now)).submissions}"
            claim = await self.store.claim(self.token.id, attempt, making.VISITOR, self.clock.now)
            announce = announcer(notify=True)
            settled = await self.store.settle(claim, making.EXECUTED, self.clock.now, announce)
            self.changes.tell(Subject.FINISHED, settled.id)
            numbers.append(settled.id)
        return numbers

    def waiting(self, queue: Queue = Queue.EVENT) -> int:
        """Return how many wait."""
        return len(self.store.announcements(queue, 0, 1000))


@asynccontextmanager
async def a_world(
    directory: Path, clock: Clock, target: str | None = "notify.notify"
) -> AsyncIterator[World]:
    """Open a store with one unlimited token; nothing is delivered before `World.work`."""
    async with stores.opened(directory) as (plain, _), asyncio.TaskGroup() as tasks:
        store = FillingStore(plain._reader, plain._listing, plain._lister, plain._writer)
        if store.action("open-door") is None:
            await store.save_action(making.action(), create=True, now=clock.now)
        made = making.token(clock.now, max_uses=None, comment="Plumber")
        token = await store.add_token(made, None, clock.now)
        home, changes = MemoryHome(), Changes()
        announce = Announcer(store=store, home=home, now=clock, changes=changes, target=target)
        world = World(store, home, announce, clock, changes, token, tasks)
        try:
            yield world
        finally:
            if world.working is not None:
                world.working.cancel()


@pytest.fixture
async def world(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    async with a_world(tmp_path / "data", clock) as world:
        yield world


async def test_events_are_fired_in_order_and_then_forgotten(world: World) -> None:
    before = await world.submit(60)  # more than a batch
    world.work()
    after = await world.submit(5)
    await until(lambda: not world.waiting())
    assert world.home.numbers == [*before, *after]
    assert len(world.home.notified) == 65


async def test_an_event_has_the_data_of_the_contract(world: World) -> None:
    world.work()
    (number,) = await world.submit()
    await until(lambda: world.home.fired)
    assert world.home.fired == [
        {
            "submission_id": number,
            "token_id": world.token.id,
            "comment": "Plumber",
            "action": "open-door",
            "title": "Open the front door",
            "outcome": "executed",
            "error": None,
            "uses_left": None,
            "max_uses": None,
            "submitted_at": "2026-11-21T20:15:00+00:00",
            "delivered_late": False,
            "remote_ip": "203.0.113.9",
            "user_agent": "Mozilla/5.0",
        }
    ]


async def test_nothing_is_fired_before_home_assistant_is_running(world: World) -> None:
    world.home.is_running.clear()
    world.work()
    await world.submit(3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.home.fired == []
    assert world.home.notified == []
    assert world.waiting() == 3
    world.home.is_running.set()
    await until(lambda: not world.waiting())
    assert len(world.home.fired) == 3


@pytest.mark.parametrize("error", [NotAsked("away"), NoAnswer("gone")])
async def test_an_event_that_was_not_confirmed_is_fired_again_before_those_behind_it(
    world: World, error: Exception
) -> None:
    answers: list[BaseException | None] = [None, error, error]
    world.home.on_fire = lambda _: answers.pop(0) if answers else None
    first, second, third = await world.submit(3)
    world.work()
    await until(lambda: not world.waiting())
    assert world.home.numbers == [first, second, second, second, third]
    assert world.announcer.event_error is None


async def test_events_survive_a_restart_until_they_are_confirmed(
    tmp_path: Path, clock: Clock
) -> None:
    async with a_world(tmp_path, clock) as world:
        world.home.on_fire = lambda _: NotAsked("away")
        numbers = await world.submit(3)
        world.work()
        await until(lambda: world.home.fired)
        assert set(world.home.numbers) == {numbers[0]}
        await world.rest()
    async with a_world(tmp_path, clock) as world:
        world.work()
        await until(lambda: not world.waiting())
        assert world.home.numbers == numbers


@pytest.mark.parametrize(
    ("seconds", "late"), [(0, False), (59, False), (60, False), (60.001, True), (61, True)]
)
async def test_what_is_delivered_more_than_60_s_after_the_fact_is_late(
    world: World, seconds: float, late: bool
) -> None:
    await world.submit()
    world.clock.move(seconds=seconds)
    world.work()
    await until(lambda: world.home.fired)
    assert world.home.fired[0]["delivered_late"] is late


def test_a_refused_event_is_kept_reported_once_and_fired_when_the_owner_mended_it(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with a_world(tmp_path, clock) as world:
            world.home.on_fire = lambda _: Refused("Unauthorized")
            numbers = await world.submit(2)
            world.work()
            await until(lambda: len(world.home.fired) == 3)
            assert set(world.home.numbers) == {numbers[0]}
            assert world.announcer.event_error == "Unauthorized"
            assert world.waiting() == 2
            # notifications are a queue of their own
            await until(lambda: not world.waiting(Queue.NOTIFICATION))
            assert len(world.home.notified) == 2

            world.home.on_fire = lambda _: None
            await until(lambda: not world.waiting())
            assert world.home.numbers[-2:] == numbers
            assert world.announcer.event_error is None

    hastily(scenario())
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "refuses events, which are kept: Unauthorized" in error


def test_events_that_cannot_be_forgotten_on_a_full_disk_are_not_fired_again(
    tmp_path: Path, clock: Clock
) -> None:
    async def scenario() -> None:
        async with a_world(tmp_path, clock) as world:
            world.store.full_for = frozenset({"delivered"})
            numbers = await world.submit(3)
            world.work()
            await until(lambda: world.store.tries > 4)
            assert world.home.numbers == numbers
            world.store.full_for = frozenset()
            await until(lambda: not world.waiting())
            more = await world.submit()
            await until(lambda: not world.waiting())
            assert world.home.numbers == [*numbers, *more]

    hastily(scenario())


# -- notifications


@pytest.mark.parametrize("error", [Refused("no such action"), NoAnswer("gone")])
async def test_a_notification_that_fails_is_final_and_holds_up_nothing(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    world.home.on_notify = lambda _: error
    numbers = await world.submit(3)
    world.work()
    await until(lambda: not world.waiting() and not world.waiting(Queue.NOTIFICATION))
    assert world.home.numbers == numbers
    assert len(world.home.notified) == 3  # each was tried once
    assert world.announcer.notification_error == str(error)
    assert world.announcer.event_error is None
    assert caplog.text.count("the notification to notify.notify failed") == 1

    world.home.on_notify = lambda _: None
    await world.submit()
    await until(lambda: not world.waiting(Queue.NOTIFICATION))
    assert world.announcer.notification_error is None


async def test_a_notification_that_never_left_is_sent_again(world: World) -> None:
    answers: list[BaseException | None] = [NotAsked("away")]
    world.home.on_notify = lambda _: answers.pop(0) if answers else None
    world.work()
    await world.submit()
    await until(lambda: not world.waiting(Queue.NOTIFICATION))
    assert len(world.home.notified) == 2


async def test_a_stuck_notification_holds_up_no_event(world: World) -> None:
    world.home.on_notify = lambda _: NotAsked("away")
    world.work()
    await world.submit(3)
    await until(lambda: not world.waiting())
    assert len(world.home.fired) == 3


async def test_notifications_that_were_queued_before_they_were_turned_off_are_forgotten(
    tmp_path: Path, clock: Clock
) -> None:
    async with a_world(tmp_path, clock, target=None) as world:
        await world.submit(2)
        world.work()
        await until(lambda: not world.waiting(Queue.NOTIFICATION))
        assert world.home.notified == []


async def test_a_notification_says_what_happened_in_the_owners_zone(world: World) -> None:
    world.work()
    await world.submit()
    await until(lambda: world.home.notified)
    assert world.home.notified == [
        (
            "notify.notify",
            "Open the front door",
            "Plumber\nDone, 2026-11-21 21:15\nUses left: without limit",
        )
    ]


# -- the words


def payload(**more: Any) -> Mapping[str, object]:
    return {
        "comment": "",
        "title": "Open",
        "outcome": "executed",
        "error": None,
        "uses_left": 0,
        "submitted_at": "2026-07-01T20:15:00+00:00",
        "user_agent": "EVIL",
        "remote_ip": "203.0.113.9",
        **more,
    }


def test_each_outcome_has_words_and_the_time_is_local_in_summer_too() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    messages = {
        state: notification(payload(outcome=state.value, error="jammed", uses_left=2), berlin)[1]
        for state in set(SubmissionState) - {SubmissionState.RUNNING}
    }
    assert messages == {
        SubmissionState.EXECUTED: "Done, 2026-07-01 22:15\nUses left: 2",
        SubmissionState.FAILED: "It failed, 2026-07-01 22:15\nUses left: 2",
        SubmissionState.UNCONFIRMED: (
            "Home Assistant did not confirm it, 2026-07-01 22:15\nUses left: 2"
        ),
    }


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://evil/pixel.png)",
        "[x](http://evil)",
        "<img src=http://evil>",
        "**bold** _it_ `code` ~~no~~",
        "# head",
        "- item",
        "> quote",
        "| a | b |",
        "http://evil/",
        "a&amp;b",
        "user@evil",
        "\\",
        "1. one",
        "![a\n](b)",
        "x\n# head",
    ],
)
@pytest.mark.parametrize("place", ["comment", "title"])
def test_whatever_somebody_wrote_is_no_markdown(place: str, text: str) -> None:
    title, message = notification(payload(**{place: text}), UTC)
    shown = title if place == "title" else "\n".join(message.split("\n")[:None])
    escaped = "".join(
        f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|~&:@" else letter
        for letter in " ".join(text.split())
    )
    assert escaped in shown
    lines = message.split("\n")
    assert len(lines) == (2 if place == "title" else 3)  # nobody adds a line


def test_a_notification_never_has_the_user_agent_or_the_address() -> None:
    assert not [text for text in notification(payload(), UTC) if "EVIL" in text or "203" in text]


def test_the_event_of_a_submission_is_unchanged_but_for_its_lateness(clock: Clock) -> None:
    announcement = Announcement(Queue.EVENT, {"submission_id": 1}, clock.now)
    late = event_data(announcement, clock.now + timedelta(minutes=2))
    assert late == {"submission_id": 1, "delivered_late": True}
    assert announcement.payload == {"submission_id": 1}
    early = event_data(announcement, datetime(2020, 1, 1, tzinfo=UTC))
    assert early["delivered_late"] is False
