"""A home in memory, a disk that can be full, and an event loop on which time passes quickly."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from otsd.core.actions import Plan
from otsd.core.errors import StorageUnavailable
from otsd.core.ports import Announce, Claim, ConnectionState, ConnectionStatus, Ran
from otsd.core.tokens import Outcome, Submission, Visitor
from otsd.store.store import SqliteStore

T = TypeVar("T")

Answer = Ran | BaseException
"""What a home does with a request: it succeeds, or raises."""


class MemoryHome:
    """The port `otsd.core.ports.Home` without a network: everything asked of it is kept."""

    def __init__(self) -> None:
        self.zone: tzinfo = ZoneInfo("Europe/Berlin")
        self.runs: list[tuple[Plan, Mapping[str, Any]]] = []
        self.fired: list[Mapping[str, Any]] = []
        self.notified: list[tuple[str, str, str]] = []
        self.refusal: BaseException | None = None
        """What `check` raises."""
        self.answer: Answer = Ran("01J")
        self.on_fire: Callable[[Mapping[str, Any]], BaseException | None] = lambda _: None
        self.on_notify: Callable[[str], BaseException | None] = lambda _: None
        self.answering = asyncio.Event()
        self.answering.set()
        self.is_running = asyncio.Event()
        self.is_running.set()

    @property
    def status(self) -> ConnectionStatus:
        return ConnectionStatus(ConnectionState.CONNECTED, datetime(2026, 11, 21, tzinfo=UTC))

    def check(self, plan: Plan) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def run(self, plan: Plan, variables: Mapping[str, object]) -> Ran:
        self.runs.append((plan, variables))
        await self.answering.wait()
        if isinstance(self.answer, Ran):
            return self.answer
        raise self.answer

    async def validate(self, plan: Plan) -> str | None:
        return None

    async def missing(self, plan: Plan) -> Sequence[str]:
        return []

    async def running(self) -> None:
        await self.is_running.wait()

    async def fire(self, event_type: str, data: Mapping[str, object]) -> None:
        assert event_type == "one_time_token_submitted"
        self.fired.append(data)
        if error := self.on_fire(data):
            raise error

    async def notify(self, target: str, title: str, message: str) -> None:
        self.notified.append((target, title, message))
        if error := self.on_notify(message):
            raise error

    @property
    def numbers(self) -> list[int]:
        """The ids of the submissions whose events were fired, in order."""
        return [event["submission_id"] for event in self.fired]


class FillingStore(SqliteStore):
    """The real store, whose disk can be full for claims, for settling or for the outbox."""

    full_for: frozenset[str] = frozenset()
    unwritable: frozenset[int] = frozenset()
    """Submissions that settling fails for, whatever their outcome."""
    tries: int = 0
    claiming: int = 0
    """How many claims were asked for; they are taken once the writer is ``free``."""
    settling: int = 0
    """How many outcomes were asked to be written; they are once the writer is ``free``."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.free = asyncio.Event()
        self.free.set()

    async def claim(
        self,
        token_id: str,
        attempt: str,
        visitor: Visitor,
        now: datetime,
        *,
        lookup: int | None = None,
    ) -> Claim:
        self._fail_if_full("claim")
        self.claiming += 1
        await self.free.wait()
        return await super().claim(token_id, attempt, visitor, now, lookup=lookup)

    async def settle(
        self, claim: Claim, outcome: Outcome, now: datetime, announce: Announce
    ) -> Submission:
        self._fail_if_full("settle")
        if claim.submission.id in self.unwritable:
            raise ValueError("a value that cannot be written")
        self.settling += 1
        await self.free.wait()
        return await super().settle(claim, outcome, now, announce)

    async def delivered(self, queue: Any, upto: int) -> None:
        self._fail_if_full("delivered")
        await super().delivered(queue, upto)

    def _fail_if_full(self, what: str) -> None:
        if what in self.full_for:
            self.tries += 1
            raise StorageUnavailable("database or disk is full")


class _HastySelector(selectors.DefaultSelector):
    """Waits a fraction of the time that it is asked to wait."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / self.times if timeout and timeout > 0 else timeout)


class _HastyLoop(asyncio.SelectorEventLoop):
    """An event loop on which time passes so many times as fast."""

    def __init__(self, times: float) -> None:
        self.times = times
        super().__init__(_HastySelector(times))

    def time(self) -> float:
        return super().time() * self.times


def hastily(work: Coroutine[Any, Any, T], times: float = 100) -> T:
    """Run a coroutine while time passes so many times as fast."""
    with asyncio.Runner(loop_factory=lambda: _HastyLoop(times)) as runner:
        return runner.run(work)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; gives up after 15 seconds of real time."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
