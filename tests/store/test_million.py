"""What stays cheap with a million tokens: counting, finding, claiming, starting."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from otsd.core.ports import Queue
from otsd.core.tokens import SubmissionState, TokenState
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making, million

SCALE = 1_000_000


@pytest.fixture(scope="module")
def filled(a_million: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a million tokens."""
    directory = tmp_path_factory.mktemp("filled") / "data"
    shutil.copytree(a_million, directory)
    return directory


async def test_a_million_tokens_are_what_the_helper_says(filled: Path, clock: Clock) -> None:
    async with opened(filled) as (store, _):
        for number in (0, 4, 5, 6, 7, 8, 9, 123_456, SCALE - 1):
            token = store.token(million.token_id(number))
            assert token is not None
            assert token.lookup == million.lookup(number)
            assert token.state(clock.now) is million.state(number)
            assert token.max_uses == million.max_uses(number)
        counts = await store.counts(clock.now)
        assert counts.tokens == SCALE
        assert counts.total.active_tokens == SCALE // 2
        assert counts.total.remaining_uses == SCALE // 10 * 9


async def test_counting_and_claiming_cost_nothing_though_there_are_a_million(
    filled: Path, clock: Clock
) -> None:
    began = time.monotonic()
    async with opened(filled) as (store, _):
        opening = time.monotonic() - began
        spans: list[float] = []
        for number in range(20, 120, 10):
            began = time.monotonic()
            await store.counts(clock.now)
            spans.append(time.monotonic() - began)
            token_id = million.token_id(number)
            claim = await store.claim(token_id, "attempt-1", making.VISITOR, clock.now)
            await store.settle(claim, making.EXECUTED, clock.now, making.ANNOUNCE)
            clock.move(minutes=1)
        assert (await store.counts(clock.now)).total.active_tokens == SCALE // 2 - 10
    assert median(spans) < 0.05
    assert opening < 1


class Watched(sqlite3.Connection):
    """A connection that explains each statement before it runs."""

    plans: dict[str, list[str]]

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        if sql.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            explained = super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters)  # type: ignore[arg-type]
            self.plans[sql] = [row[3] for row in explained]
        return super().execute(sql, parameters)  # type: ignore[arg-type]


@pytest.fixture
def watched(directory: Path) -> Iterator[Watched]:
    """Return a connection that explains what it runs; a plan does not depend on the size."""
    million.fill(directory, 1000)
    with closing(
        sqlite3.connect(
            directory / "otsd.db", isolation_level=None, check_same_thread=False, factory=Watched
        )
    ) as connection:
        connection.plans = {}
        yield connection


async def test_no_statement_of_a_submission_scans_a_table(watched: Watched, clock: Clock) -> None:
    class Inline:
        """A writer that works at once, on the watched connection."""

        durations = None

        async def write(self, work: Callable[[sqlite3.Connection], object], *_: object) -> object:
            return work(watched)

    watched.execute("BEGIN")
    with ThreadPoolExecutor(1) as lister:
        store = SqliteStore(watched, watched, lister, Inline())  # type: ignore[arg-type]
        watched.plans.clear()
        token_id = million.token_id(200)
        store.find(million.lookup(200))
        store.find(7)
        store.token(token_id)
        store.attempt(token_id, "attempt-1")
        claim = await store.claim(token_id, "attempt-1", making.VISITOR, clock.now)
        await store.settle(claim, making.REFUSED, clock.now, making.ANNOUNCE)
        store.announcements(Queue.EVENT, 0, 50)
        await store.delivered(Queue.EVENT, 1)
        await store.recover(making.UNCONFIRMED, clock.now, making.ANNOUNCE)
        store.newest()
        # with submissions as many as tokens these would be as slow
        for state in set(SubmissionState) - {SubmissionState.EXECUTED}:
            await store.submissions(state=state)
        await store.submissions(token=token_id)
        await store.prune(clock.now, clock.now)
    watched.execute("ROLLBACK")
    assert len(watched.plans) > 10
    for sql, steps in watched.plans.items():
        scans = {step.split()[1] for step in steps if step.startswith("SCAN")}
        # the oldest and newest of a table are read in its own order, and stop at a limit
        if "LIMIT" in sql and "WHERE" not in sql:
            scans -= {"submissions", "tokens"}
        assert scans <= {"CONSTANT", "(subquery-1)", "(subquery-2)", "horizon", "outbox"}, sql


async def test_lists_of_few_among_a_million_come_at_once(filled: Path, clock: Clock) -> None:
    async with opened(filled) as (store, _):
        began = time.monotonic()
        for state in TokenState:
            assert len((await store.tokens(clock.now, state=state)).items) == 100
        assert len((await store.tokens(clock.now, action="open-door")).items) == 100
        assert (await store.tokens(clock.now, action="none")).items == []
        for outcome in SubmissionState:
            await store.submissions(state=outcome)
        assert time.monotonic() - began < 0.5
