"""What the owner does with actions, how history is forgotten, and who hears of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd.core.actions import Plan
from otsd.core.changes import Change, Changes, Subject
from otsd.core.errors import (
    HomeUnavailable,
    Invalid,
    NotAsked,
    NotFound,
    StorageUnavailable,
    TargetUnavailable,
)
from otsd.core.history import forget
from otsd.core.manage import Actions
from otsd.core.ports import Ran
from otsd.store.store import opened
from tests.conftest import Clock
from tests.core.homes import MemoryHome, hastily
from tests.store import making


class DoubtingHome(MemoryHome):
    """A home that has an opinion of actions."""

    fault: str | BaseException | None = None
    lacking: Sequence[str] = ()

    async def validate(self, plan: Plan) -> str | None:
        if isinstance(self.fault, BaseException):
            raise self.fault
        return self.fault

    async def missing(self, plan: Plan) -> Sequence[str]:
        return self.lacking


async def test_what_home_assistant_refuses_is_not_saved(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        home, changes = DoubtingHome(), Changes()
        owner = Actions(store=store, home=home, now=clock, changes=changes)
        heard: list[Change] = []
        with changes.heard_by(heard.append):
            home.fault = "extra keys not allowed"
            with pytest.raises(Invalid) as refused:
                await owner.save(making.action(), create=True)
            assert refused.value.code == "invalid_action"
            assert [fault.loc for fault in refused.value.faults] == [("yaml",)]
            assert owner.list() == []

            # what is only missing now, or cannot be asked, is a warning
            home.fault, home.lacking = None, ["lock.front_door is missing"]
            _, warnings = await owner.save(making.action(), create=True)
            assert warnings == ["lock.front_door is missing"]
            home.fault = NotAsked("away")
            _, warnings = await owner.save(making.action(), create=False)
            assert "not connected" in warnings[0]
        assert heard == [Change(Subject.ACTION, "open-door")] * 2
        assert [action.name for action in owner.list()] == ["open-door"]


async def test_an_action_runs_for_its_owner_if_it_can(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        home = MemoryHome()
        owner = Actions(store=store, home=home, now=clock, changes=Changes())
        with pytest.raises(NotFound):
            await owner.run("open-door")
        saved, _ = await owner.save(making.action(), create=True)
        assert await owner.run("open-door") == Ran("01J")
        assert home.runs == [(saved.plan, {"token": None, "submission": None})]
        for refusal in (HomeUnavailable(), TargetUnavailable(["x"])):
            home.refusal = refusal
            with pytest.raises(type(refusal)):
                await owner.run("open-door")
        assert len(home.runs) == 1
        await owner.delete("open-door", force=False)
        with pytest.raises(NotFound):
            owner.get("open-door")


def test_history_is_forgotten_part_by_part_and_through_a_full_disk(clock: Clock) -> None:
    class Parts:
        """A store that has something to prune twice, and a disk that is full at first."""

        def __init__(self) -> None:
            self.asked: list[tuple[Any, Any]] = []
            self.times: list[float] = []
            self.answers: list[Exception | bool] = [StorageUnavailable("full"), True, True, False]
            self.done = asyncio.Event()

        async def prune(self, keep_from: Any, addresses_from: Any) -> bool:
            self.asked.append((keep_from, addresses_from))
            self.times.append(asyncio.get_running_loop().time())
            answer = self.answers.pop(0) if self.answers else False
            if not self.answers:
                self.done.set()
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def scenario() -> None:
        store = Parts()
        keep, addresses = timedelta(days=365), timedelta(days=30)
        task = asyncio.ensure_future(
            forget(store, clock, keep=keep, keep_addresses=addresses)  # type: ignore[arg-type]
        )
        await store.done.wait()
        task.cancel()
        assert store.asked[:4] == [(clock.now - keep, clock.now - addresses)] * 4
        # an hour after the full disk, but then one part follows the other
        assert store.times[1] - store.times[0] >= 3600
        assert store.times[3] - store.times[1] < 3600

    hastily(scenario(), 2_000)


def test_listeners_hear_in_order_until_they_leave() -> None:
    changes = Changes()
    first: list[Change] = []
    second: list[Change] = []
    with changes.heard_by(first.append):
        changes.tell(Subject.TOKEN, "a")
        with changes.heard_by(second.append):
            changes.tell(Subject.SUBMISSION, 7)
        changes.tell(Subject.ACTION, "b")
    changes.tell(Subject.TOKEN, "c")
    assert first == [
        Change(Subject.TOKEN, "a"),
        Change(Subject.SUBMISSION, 7),
        Change(Subject.ACTION, "b"),
    ]
    assert second == [Change(Subject.SUBMISSION, 7)]
