"""Lists come at once, however many tokens there are and however few of them are wanted."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd.core.times import to_millis
from otsd.core.tokens import SubmissionState, Token, TokenState
from otsd.store import database
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.daemon import Daemon
from tests.store import making, million

SCALE = 1_000_000
AT_ONCE = 0.1  # seconds, to the end of the answer; about 0.005 on a machine that does nothing else
TRIES = 3
LATER = 4_102_444_800_000  # the year 2100

# three of each state, at the end, in the middle and at the beginning of a million
RARE = {
    state: [10 + place, 500_010 + place, 900_010 + place] for place, state in enumerate(TokenState)
}


# -- which tokens are in a list ------------------------------------------------------------------


async def everything(store: SqliteStore, now: datetime, limit: int, **wanted: Any) -> list[Token]:
    """Read a list page by page to its end."""
    found: list[Token] = []
    cursor = None
    while True:
        page = await store.tokens(now, limit=limit, cursor=cursor, **wanted)
        found += page.items
        if page.next is None:
            return found
        assert len(page.items) == limit
        cursor = page.next


@pytest.mark.parametrize("size", [200, 30_000])
async def test_a_list_has_what_the_rules_say_whether_it_is_few_or_many(
    directory: Path, clock: Clock, size: int
) -> None:
    million.fill(directory, size)
    async with opened(directory) as (store, _):
        for action in (None, "open-door"):
            for state in TokenState:
                found = await everything(store, clock.now, 500, state=state, action=action)
                assert [token.id for token in found] == [
                    million.token_id(number)
                    for number in range(size - 1, -1, -1)
                    if million.state(number) is state
                ]
                assert {token.state(clock.now) for token in found} == {state}
        assert await everything(store, clock.now, 500, state=state, action="none") == []


async def test_a_search_finds_parts_of_comments_and_ids_as_they_are_written(
    store: SqliteStore, clock: Clock
) -> None:
    comments = ["50% off", "500 off", "a_b", "axb", "Plumber", "PLUMBER!", "", "Käse 🧀"]
    for comment in comments:
        await store.add_token(making.token(clock.now, comment=comment), None, clock.now)

    async def found(words: str) -> list[str]:
        return [token.comment for token in await everything(store, clock.now, 1, words=words)][::-1]

    assert await found("50%") == ["50% off"]
    assert await found("a_b") == ["a_b"]
    assert await found("plumber") == ["Plumber", "PLUMBER!"]
    assert await found("R!") == ["PLUMBER!"]
    assert await found("🧀") == ["Käse 🧀"]
    assert await found("nobody") == []
    token = (await everything(store, clock.now, 100))[0]
    assert await found(token.id[1:]) == [token.comment]


async def test_a_search_goes_on_over_pages_though_it_looks_at_parts(
    directory: Path, clock: Clock
) -> None:
    million.fill(directory, 120_000)
    async with opened(directory) as (store, _):
        found = await everything(store, clock.now, 2, words="plumber 1000")
        numbers = [int(token.comment.removeprefix("Plumber ")) for token in found]
        wanted = [number for number in range(120_000) if str(number).startswith("1000")]
        assert numbers == wanted[::-1]
        narrow = await everything(
            store, clock.now, 500, words="Plumber 1000", state=TokenState.PAUSED
        )
        assert [token.id for token in narrow] == [
            million.token_id(number)
            for number in wanted[::-1]
            if million.state(number) is TokenState.PAUSED
        ]


# -- how they are found --------------------------------------------------------------------------


class Explained:
    """A connection that explains what it is asked; a plan does not depend on the size."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: list[tuple[str, list[str]]] = []

    def execute(self, sql: str, arguments: Any) -> sqlite3.Cursor:
        explained = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", arguments)
        self.plans.append((sql, [row[3] for row in explained]))
        return self._connection.execute(sql, arguments)


@contextmanager
def explained(store: SqliteStore) -> Iterator[Explained]:
    """Explain what the block reads in lists."""
    before = store._listing
    watched = Explained(before)
    store._listing = watched  # type: ignore[assignment]
    try:
        yield watched
    finally:
        store._listing = before


@pytest.mark.parametrize(
    ("state", "index"),
    [
        (TokenState.REVOKED, "tokens_revoked"),
        (TokenState.USED_UP, "tokens_used_up"),
        (TokenState.PAUSED, "tokens_paused"),
        (TokenState.SCHEDULED, "tokens_live"),
        (TokenState.ACTIVE, "tokens_live"),
    ],
)
@pytest.mark.parametrize("cursor", [None, 15_000])
async def test_many_of_a_state_are_read_in_order_from_an_index_of_theirs(
    directory: Path, clock: Clock, state: TokenState, index: str, cursor: int | None
) -> None:
    million.fill(directory, 30_000)
    async with opened(directory) as (store, _):
        with explained(store) as asked:
            await store.tokens(clock.now, state=state, action="open-door", cursor=cursor)
    (step,) = asked.plans[-1][1]
    assert f"USING INDEX {index}" in step.removesuffix(" (seq<?)")


async def test_the_tokens_of_a_key_are_found_by_its_index(store: SqliteStore, clock: Clock) -> None:
    for maker in ("key:calendar", "key:other", "cli"):
        await store.add_token(making.token(clock.now, created_by=maker), None, clock.now)
    for state in (None, *TokenState):
        for action in (None, "open-door"):
            with explained(store) as asked:
                page = await store.tokens(
                    clock.now, maker="key:calendar", since=clock.now, state=state, action=action
                )
            assert len(page.items) == (state in (None, TokenState.ACTIVE))
            ((_, steps),) = asked.plans
            assert steps == ["SEARCH tokens USING INDEX tokens_of_key (created_by=?)"]


async def test_the_chart_reads_each_day_from_an_index_alone(
    store: SqliteStore, clock: Clock
) -> None:
    token = await store.add_token(making.token(clock.now, max_uses=9), None, clock.now)
    for number, outcome in enumerate((making.EXECUTED, making.REFUSED, making.EXECUTED)):
        claim = await store.claim(token.id, f"attempt-{number}", making.VISITOR, clock.now)
        await store.settle(claim, outcome, clock.now, making.ANNOUNCE)
    day = timedelta(days=1)
    with explained(store) as asked:
        counted = await store.daily([clock.now - day, clock.now, clock.now + day])
    assert counted == [{}, {SubmissionState.EXECUTED: 2, SubmissionState.FAILED: 1}]
    for _, steps in asked.plans:
        assert "USING COVERING INDEX submissions_begun (started_at>? AND started_at<?)" in steps[0]


# -- a million of them, at the API ---------------------------------------------------------------


@asynccontextmanager
async def serving(directory: Path, folder: Path, *statements: str) -> AsyncIterator[Daemon]:
    """Run a daemon on a copy of a directory that these statements changed."""
    daemon = Daemon(folder)
    await asyncio.to_thread(shutil.copytree, directory, daemon.directory)
    await asyncio.to_thread(_change, daemon.directory, statements)
    async with daemon:
        yield daemon


def _change(directory: Path, statements: tuple[str, ...]) -> None:
    with closing(database.connect(directory / database.NAME, write=True)) as db:
        db.execute("PRAGMA synchronous = OFF")
        # what it counts is of no interest here, and takes longer than the change
        db.execute("DROP TRIGGER token_changed")
        for statement in statements:
            db.execute(statement)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def timed(daemon: Daemon, path: str) -> tuple[Any, float]:
    """Return an answer, and how many seconds the quickest of some took."""
    spans = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        answer = await daemon.admin("GET", path)
        spans.append(time.perf_counter() - begun)
        assert answer.status == 200, answer.text
    return answer.json, min(spans)


async def test_the_first_middle_and_last_page_of_a_million_come_at_once(
    a_million: Path, tmp_path: Path
) -> None:
    async with serving(a_million, tmp_path) as daemon:
        for state in ("", *(f"&state={state.value}" for state in TokenState)):
            for cursor in ("", f"&cursor={SCALE // 2}", "&cursor=101"):
                page, span = await timed(daemon, f"/tokens?limit=100{state}{cursor}")
                assert page["items"]
                assert (page["next"] is None) is (cursor == "&cursor=101")
                assert span < AT_ONCE, (state, cursor)
        page, _ = await timed(daemon, f"/tokens?limit=500&cursor={SCALE // 2}")
        assert [item["id"] for item in page["items"]] == [
            million.token_id(number) for number in range(SCALE // 2 - 2, SCALE // 2 - 502, -1)
        ]
        assert page["next"] == str(SCALE // 2 - 500)


def furnish(rest: str) -> tuple[str, str]:
    """Return what puts three tokens into each state, and all others into one (or two) of them."""
    chosen = {state: f"seq IN ({', '.join(map(str, RARE[state]))})" for state in RARE}
    some = ", ".join(str(each) for numbers in RARE.values() for each in numbers)
    return (
        f"UPDATE tokens SET {rest}, revoked_at = NULL, paused = 0, valid_from = NULL",
        (
            f"UPDATE tokens SET revoked_at = iif({chosen[TokenState.REVOKED]}, 1, NULL), "
            f"paused = {chosen[TokenState.PAUSED]}, "
            f"uses_taken = iif({chosen[TokenState.USED_UP]}, max_uses, 0), "
            f"valid_from = iif({chosen[TokenState.SCHEDULED]}, {LATER}, NULL), "
            f"expires_at = iif({chosen[TokenState.EXPIRED]}, 1, {LATER}) WHERE seq IN ({some})"
        ),
    )


@pytest.mark.parametrize(
    ("rest", "many"),
    [
        ("expires_at = NULL, uses_taken = 0", {TokenState.ACTIVE}),
        ("expires_at = 1, uses_taken = iif(seq % 2, max_uses, 0)", {TokenState.EXPIRED}),
        ("expires_at = NULL, uses_taken = max_uses", {TokenState.USED_UP}),
    ],
)
async def test_three_of_any_state_among_a_million_come_at_once(
    a_million: Path, tmp_path: Path, rest: str, many: set[TokenState]
) -> None:
    async with serving(a_million, tmp_path, *furnish(rest)) as daemon:
        for state in TokenState:
            for more in ("", "&action=open-door"):
                page, span = await timed(daemon, f"/tokens?state={state.value}{more}")
                assert span < AT_ONCE, (state, more)
                if state in many:
                    assert len(page["items"]) == 100
                else:
                    ids = [million.token_id(number - 1) for number in reversed(RARE[state])]
                    assert [item["id"] for item in page["items"]] == ids


async def test_a_search_through_a_million_holds_up_nobody(a_million: Path, tmp_path: Path) -> None:
    async with serving(a_million, tmp_path) as daemon:
        page, span = await timed(daemon, "/tokens?q=umber%20777777")
        assert [item["comment"] for item in page["items"]] == ["Plumber 777777"]
        assert span < 10 * AT_ONCE
        searches = [
            asyncio.create_task(daemon.admin("GET", f"/tokens?q=nothing-{number}"))
            for number in range(8)
        ]
        await asyncio.sleep(0)
        looks = 0
        while not any(search.done() for search in searches):
            await daemon.status()
            await daemon.admin("GET", "/tokens?state=paused&limit=5")
            looks += 1
        assert {(await search).json["next"] for search in searches} == {None}
        assert looks >= TRIES


async def test_a_table_is_sent_a_part_at_a_time_and_holds_up_nobody(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    million.fill(daemon.directory, 1_000)
    rows = 20_000
    begun = to_millis(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    with closing(database.connect(daemon.directory / database.NAME, write=True)) as db:
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO submissions (token, action, attempt, state, started_at, finished_at, "
            "uses_left, spent, round) VALUES (?, 'open-door', ?, 'executed', ?, ?, 0, 1, 0)",
            ((each % 1_000 + 1, f"attempt-{each}", begun + each, begun) for each in range(rows)),
        )
        db.execute("COMMIT")
    async with daemon:
        table = asyncio.create_task(daemon.admin("GET", "/submissions.csv"))
        looks = 0
        while not table.done():
            await daemon.status()
            looks += 1
        lines = (await table).text.splitlines()
        assert [line.partition(",")[0] for line in lines] == [
            "id",
            *(str(each) for each in range(rows, 0, -1)),
        ]
        assert looks >= 2 * TRIES
