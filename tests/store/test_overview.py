"""What a dashboard is told of the store: the same as the rules say, however much there is."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd.core.times import to_millis
from otsd.core.tokens import SubmissionState, Token
from otsd.store import database
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making, million

ALL = 100_000
DAY = timedelta(days=1)
INSTANT = timedelta(milliseconds=1)


def has_device(token: Token, now: datetime) -> bool:
    """Say by the rules, in words of the contract, whether a token has a device."""
    return (
        token.wants_device
        and token.revoked_at is None
        and (token.device_until is None or now < token.device_until)
    )


def active_changes(token: Token, now: datetime) -> Iterator[datetime]:
    """Yield when a token becomes or ceases to be active by itself."""
    instants = (token.valid_from, token.expires_at)
    for at in (each for each in instants if each is not None and each > now):
        if token.state(at - INSTANT).value != token.state(at).value and "active" in (
            token.state(at - INSTANT),
            token.state(at),
        ):
            yield at


def every_kind(now: datetime) -> Iterator[dict[str, Any]]:
    """Yield tokens of every kind, most of them right before, at and after what matters."""
    edges = [now - DAY + each for each in (-INSTANT, timedelta(), INSTANT)]
    for device, max_uses, used_up, last_used_at, expires_at in itertools.product(
        (None, True, False),
        (1, 2, None),
        (False, True),
        (None, *edges),
        (None, *edges, now - INSTANT, now, now + INSTANT),
    ):
        others: tuple[dict[str, Any], ...] = (
            {},
            {"paused": True},
            {"revoked_at": now},
            {"valid_from": now},
            {"valid_from": now + DAY},
        )
        for more in others:
            if expires_at is None or more.get("valid_from", edges[0]) < expires_at:
                yield {
                    "device": device,
                    "max_uses": max_uses,
                    "uses_taken": max_uses or 7 if used_up else 0,
                    "last_used_at": last_used_at,
                    "expires_at": expires_at,
                    **more,
                }


async def test_the_selection_in_sql_is_what_the_rules_say_for_every_kind_of_token(
    store: SqliteStore, clock: Clock
) -> None:
    kinds = list(every_kind(clock.now))
    random.Random(4).shuffle(kinds)
    async with asyncio.TaskGroup() as group:
        adding = [
            group.create_task(store.add_token(making.token(clock.now, **kind), None, clock.now))
            for kind in kinds
        ]
    tokens = [task.result() for task in adding]
    assert len(tokens) > 1_000

    for offset in (-INSTANT, timedelta(), timedelta(microseconds=500), INSTANT, DAY):
        now = clock.now + offset
        overview = await store.overview(now, devices=ALL, newest=True)
        expected = [token for token in reversed(tokens) if has_device(token, now)]
        assert [token.id for token in overview.devices] == [token.id for token in expected]
        assert overview.devices == expected
        assert overview.newest == {"open-door": tokens[-1]}
        changes = [at for token in tokens for at in active_changes(token, now)]
        assert overview.next_change == min(changes, default=None)
    few = await store.overview(clock.now, devices=3, newest=False)
    assert few.devices == [token for token in reversed(tokens) if has_device(token, clock.now)][:3]
    assert few.newest == {}
    assert (await store.overview(clock.now, devices=0, newest=False)).devices == []


async def test_the_newest_token_is_that_of_each_action_whatever_became_of_it(
    store: SqliteStore, clock: Clock
) -> None:
    for name in ("garage", "unused"):
        await store.save_action(making.action(name), create=True, now=clock.now)
    for action in ("open-door", "garage", "open-door", "garage"):
        facts: dict[str, Any] = {"action": action, "revoked_at": clock.now}
        last = await store.add_token(making.token(clock.now, **facts), None, clock.now)
    overview = await store.overview(clock.now, devices=20, newest=True)
    assert set(overview.newest) == {"open-door", "garage"}
    assert overview.newest["garage"] == last
    assert overview.devices == []


async def test_the_last_submission_is_the_last_to_begin_of_those_that_have_finished(
    store: SqliteStore, clock: Clock
) -> None:
    token = await store.add_token(making.token(clock.now, max_uses=5), None, clock.now)
    assert (await store.overview(clock.now, devices=20, newest=False)).last is None
    claims = []
    for number in range(3):
        clock.move(minutes=1)
        attempt = f"attempt-{number}"
        claims.append(await store.claim(token.id, attempt, making.VISITOR, clock.now))
    assert (await store.overview(clock.now, devices=20, newest=False)).last is None
    for claim in (claims[1], claims[0]):
        clock.move(minutes=1)
        await store.settle(claim, making.REFUSED, clock.now, making.ANNOUNCE)
    overview = await store.overview(clock.now, devices=20, newest=False)
    assert overview.last is not None
    assert overview.last.id == claims[1].submission.id
    assert overview.last.state is SubmissionState.FAILED
    # a use that came back was none
    assert overview.counts.total.last_used_at is None

    await store.settle(claims[2], making.EXECUTED, clock.now, making.ANNOUNCE)
    overview = await store.overview(clock.now, devices=20, newest=False)
    assert overview.last is not None
    assert overview.last.id == claims[2].submission.id
    used_at = claims[2].submission.started_at
    assert overview.counts.total.last_used_at == used_at
    assert overview.counts.by_action["open-door"].last_used_at == used_at


async def test_the_last_use_of_an_action_outlives_its_tokens_and_never_goes_back(
    store: SqliteStore, clock: Clock
) -> None:
    async def last_used() -> datetime | None:
        return (await store.counts(clock.now)).by_action["open-door"].last_used_at

    tokens = [await store.add_token(making.token(clock.now), None, clock.now) for _ in range(2)]
    first = await store.claim(tokens[0].id, "attempt-1", making.VISITOR, clock.now)
    clock.move(minutes=1)
    second = await store.claim(tokens[1].id, "attempt-1", making.VISITOR, clock.now)
    begun = second.submission.started_at
    await store.settle(second, making.EXECUTED, clock.now, making.ANNOUNCE)
    assert await last_used() == begun
    await store.settle(first, making.EXECUTED, clock.now, making.ANNOUNCE)
    assert await last_used() == begun
    await store.delete_token(tokens[1].id)
    assert await last_used() == begun


async def test_a_submission_is_read_with_its_token_as_it_is_now(
    store: SqliteStore, clock: Clock
) -> None:
    token = await store.add_token(making.token(clock.now, max_uses=2), None, clock.now)
    claim = await store.claim(token.id, "attempt-1", making.VISITOR, clock.now)
    number = claim.submission.id
    await store.settle(claim, making.EXECUTED, clock.now, making.ANNOUNCE)
    await store.change_token(token.id, lambda token: replace(token, comment="Plumber"))
    await store.save_action(making.action(title="Door"), create=False, now=clock.now)
    found = store.claimed(number)
    assert found is not None
    assert (found.submission.state, found.submission.uses_left) == (SubmissionState.EXECUTED, 1)
    assert (found.token.comment, found.title) == ("Plumber", "Door")
    await store.delete_token(token.id)
    assert store.claimed(number) is None
    assert store.claimed(number + 1) is None


async def test_a_database_from_before_dashboards_knows_the_last_use_of_each_action(
    directory: Path, clock: Clock
) -> None:
    directory.mkdir(mode=0o700)
    database.prepare(directory, database.schemas()[:1])
    used_at = clock.now - DAY
    with closing(sqlite3.connect(directory / database.NAME)) as db:
        for number, action in enumerate(("open-door", "open-door", "garage", "never")):
            used = None if action == "never" else to_millis(used_at - number * INSTANT)
            db.execute(
                "INSERT INTO tokens (id, lookup, action, comment, max_uses, uses_taken, round, "
                "created_at, created_by, last_used_at, paused) "
                "VALUES (?, ?, ?, '', 2, 1, 0, 0, 'cli', ?, 0)",
                (f"t{number}", number, action, used),
            )
        db.commit()
    async with opened(directory) as (store, _):
        for name in ("open-door", "garage", "never"):
            await store.save_action(making.action(name), create=True, now=clock.now)
        overview = await store.overview(clock.now, devices=20, newest=False)
        tallies = overview.counts.by_action
        assert tallies["open-door"].last_used_at == used_at
        assert tallies["garage"].last_used_at == used_at - 2 * INSTANT
        assert tallies["never"].last_used_at is None
        assert overview.counts.total.last_used_at == used_at
        assert len(overview.devices) == 4


@pytest.mark.parametrize("devices", [20, 1_000])
async def test_looking_reads_no_table_from_end_to_end(
    directory: Path, clock: Clock, devices: int
) -> None:
    million.fill(directory, 20_000)
    plans: dict[str, list[str]] = {}
    async with opened(directory) as (store, _):
        asked = store._listing

        class Explained:
            """A connection that explains what it is asked."""

            def execute(self, sql: str, arguments: Any) -> sqlite3.Cursor:
                explained = asked.execute(f"EXPLAIN QUERY PLAN {sql}", arguments)
                plans[sql] = [row[3] for row in explained]
                return asked.execute(sql, arguments)

        store._listing = Explained()  # type: ignore[assignment]
        overview = await store.overview(clock.now, devices=devices, newest=True)
    assert len(overview.devices) == devices
    assert len(plans) >= 5
    # few rows, or in the order that is wanted: read until there are enough
    cheap = (
        "SCAN CONSTANT ROW",
        "SCAN actions",
        "SCAN horizon",
        "SCAN outbox",
        "SCAN tallies",
        "SCAN submissions",
        "SCAN (subquery",
        "SCAN tokens USING INDEX tokens_with_device",
    )
    for sql, steps in plans.items():
        assert not [
            step
            for step in steps
            if (step.startswith("SCAN") and not step.startswith(cheap)) or "ORDER BY" in step
        ], sql
