"""The store, through its port: claims, settling, the outbox, requests, lists, forgetting."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from otsd.core.changes import Changes
from otsd.core.codes import Codes
from otsd.core.errors import Conflict, Invalid, NotFound, TokenUnusable, UnknownToken
from otsd.core.manage import Edit, Mint, Tokens
from otsd.core.ports import Announcement, Claim, Queue, Request
from otsd.core.tokens import Outcome, SubmissionState, Token, TokenState, Visitor
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making
from tests.store.making import ANNOUNCE, EXECUTED, REFUSED, UNCONFIRMED, VISITOR


async def add(store: SqliteStore, clock: Clock, **facts: object) -> Token:
    return await store.add_token(making.token(clock.now, **facts), None, clock.now)


async def use(
    store: SqliteStore,
    clock: Clock,
    token: Token,
    attempt: str = "attempt-1",
    outcome: Outcome = EXECUTED,
) -> Claim:
    claim = await store.claim(token.id, attempt, VISITOR, clock.now)
    settled = await store.settle(claim, outcome, clock.now, ANNOUNCE)
    return replace(claim, submission=settled)


def kept(store: SqliteStore, token: Token) -> Token:
    found = store.token(token.id)
    assert found is not None
    return found


# -- claims


@pytest.mark.parametrize("uses", [1, 7])
async def test_of_200_parallel_claims_as_many_win_as_there_are_uses(
    store: SqliteStore, clock: Clock, uses: int
) -> None:
    token = await add(store, clock, max_uses=uses)
    answers = await asyncio.gather(
        *(store.claim(token.id, f"attempt-{n}", VISITOR, clock.now) for n in range(200)),
        return_exceptions=True,
    )
    won = [answer for answer in answers if isinstance(answer, Claim)]
    lost = [answer for answer in answers if isinstance(answer, TokenUnusable)]
    assert (len(won), len(lost)) == (uses, 200 - uses)
    assert {error.state for error in lost} == {TokenState.USED_UP}
    assert sorted(claim.submission.uses_left or 0 for claim in won) == list(range(uses))
    assert kept(store, token).uses_left == 0


async def test_200_parallel_claims_of_one_attempt_are_one_claim(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=5)
    claims = await asyncio.gather(
        *(store.claim(token.id, "attempt-1", VISITOR, clock.now) for _ in range(200))
    )
    assert len({claim.submission.id for claim in claims}) == 1
    assert kept(store, token).uses_taken == 1


async def test_claims_and_changes_of_many_tokens_at_once_do_not_disturb_each_other(
    store: SqliteStore, clock: Clock
) -> None:
    tokens = [await add(store, clock, max_uses=2) for _ in range(20)]

    async def storm(token: Token) -> int:
        claims = await asyncio.gather(
            *(store.claim(token.id, f"attempt-{n}", VISITOR, clock.now) for n in range(5)),
            store.change_token(token.id, lambda token: replace(token, comment="changed")),
            return_exceptions=True,
        )
        return sum(isinstance(claim, Claim) for claim in claims)

    assert await asyncio.gather(*map(storm, tokens)) == [2] * 20
    assert {kept(store, token).comment for token in tokens} == {"changed"}


SECOND = timedelta(seconds=1)
BEGIN = datetime.fromisoformat("2026-11-21T20:15:00+00:00")
END = BEGIN + timedelta(hours=1)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (BEGIN - SECOND, TokenState.SCHEDULED),
        (BEGIN - timedelta(milliseconds=1), TokenState.SCHEDULED),
        (BEGIN, TokenState.ACTIVE),
        (BEGIN + SECOND, TokenState.ACTIVE),
        (END - SECOND, TokenState.ACTIVE),
        (END - timedelta(microseconds=1), TokenState.ACTIVE),
        (END, TokenState.EXPIRED),
        (END + SECOND, TokenState.EXPIRED),
    ],
)
async def test_rule_guard_list_and_count_agree_to_the_instant(
    store: SqliteStore, clock: Clock, now: datetime, state: TokenState
) -> None:
    token = await add(store, clock, valid_from=BEGIN, expires_at=END)
    assert token.state(now) is state
    for other in TokenState:
        page = await store.tokens(now, state=other)
        assert [item.id for item in page.items] == ([token.id] if other is state else [])
    is_active = state is TokenState.ACTIVE
    assert (await store.counts(now)).total.active_tokens == is_active
    if is_active:
        assert await store.claim(token.id, "attempt-1", VISITOR, now)
    else:
        with pytest.raises(TokenUnusable) as refused:
            await store.claim(token.id, "attempt-1", VISITOR, now)
        assert refused.value.state is state
        assert kept(store, token).uses_taken == 0


async def test_a_claim_of_a_deleted_token_is_of_an_unknown_one(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    await store.delete_token(token.id)
    with pytest.raises(UnknownToken):
        await store.claim(token.id, "attempt-1", VISITOR, clock.now)


async def test_attempts_belong_to_their_token(store: SqliteStore, clock: Clock) -> None:
    first, second = await add(store, clock), await add(store, clock)
    await use(store, clock, first)
    assert store.attempt(second.id, "attempt-1") is None
    assert (await use(store, clock, second)).submission.token_id == second.id


async def test_a_claim_keeps_who_came_and_from_where(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock, max_uses=None)
    claim = await store.claim(token.id, "attempt-1", Visitor("2001:db8::1", "x" * 500), clock.now)
    assert claim.title == "Open the front door"
    known = store.attempt(token.id, "attempt-1")
    assert known == claim.submission
    assert (known.remote_ip, known.user_agent) == ("2001:db8::1", "x" * 500)
    assert known.uses_left is None


async def test_a_claim_whose_caller_went_away_is_kept(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock)
    caller = asyncio.ensure_future(store.claim(token.id, "attempt-1", VISITOR, clock.now))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    again = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    assert again.submission.state is SubmissionState.RUNNING
    assert kept(store, token).uses_taken == 1


# -- batches


async def test_jobs_that_fail_take_nothing_of_their_batch_along(
    store: SqliteStore, clock: Clock
) -> None:
    good = [await add(store, clock) for _ in range(10)]
    spent = await add(store, clock)
    await use(store, clock, spent)

    def broken(_: Token) -> Token:
        raise RuntimeError("a change that fails")

    def forbidden(token: Token) -> Token:
        return replace(token, uses_taken=5)  # more than max_uses: the schema refuses it

    work = []
    for number, token in enumerate(good):
        work += [
            store.claim(token.id, "attempt-1", VISITOR, clock.now),
            store.change_token(token.id, broken),
            store.claim(spent.id, f"attempt-{number + 2}", VISITOR, clock.now),
            store.delete_token("missing"),
            store.change_token(token.id, forbidden),
        ]
    answers = await asyncio.gather(*work, return_exceptions=True)
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == [
        *("Claim", "RuntimeError", "TokenUnusable", "NotFound", "StorageUnavailable")
    ] * len(good)
    assert [kept(store, token).uses_taken for token in good] == [1] * 10


async def test_a_change_that_fails_halfway_is_undone(
    store: SqliteStore, directory: Path, clock: Clock
) -> None:
    token = await add(store, clock)
    other = await add(store, clock)
    with pytest.raises(Exception, match="UNIQUE"):
        # the rotated link is written first, then the new code turns out to be taken
        await store.change_token(token.id, lambda token: replace(token, lookup=other.lookup))
    assert kept(store, token) == token
    with closing(sqlite3.connect(directory / "otsd.db")) as db:
        assert db.execute("SELECT count(*) FROM rotated").fetchone() == (0,)


# -- settling


@pytest.mark.parametrize("outcome", [EXECUTED, REFUSED, UNCONFIRMED], ids=lambda o: o.state)
async def test_an_outcome_is_written_down_with_its_announcements(
    store: SqliteStore, clock: Clock, outcome: Outcome
) -> None:
    token = await add(store, clock, comment="Plumber")
    started = clock.now
    claim = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    clock.move(seconds=3)
    settled = await store.settle(claim, outcome, clock.now, ANNOUNCE)

    assert store.attempt(token.id, "attempt-1") == settled
    assert (settled.state, settled.reason, settled.error) == (
        outcome.state,
        outcome.reason,
        outcome.error,
    )
    assert (settled.started_at, settled.finished_at) == (started, clock.now)
    assert settled.uses_left == (1 if outcome.give_back else 0)
    assert settled.spent is not outcome.give_back
    assert kept(store, token).uses_left == settled.uses_left
    assert kept(store, token).last_used_at == (None if outcome.give_back else started)

    (event,) = store.announcements(Queue.EVENT, 0, 10)
    (notification,) = store.announcements(Queue.NOTIFICATION, 0, 10)
    assert event.payload == notification.payload
    assert event.finished_at == clock.now
    assert event.payload == {
        "submission_id": settled.id,
        "token_id": token.id,
        "comment": "Plumber",
        "action": "open-door",
        "title": "Open the front door",
        "outcome": outcome.state.value,
        "error": outcome.error,
        "uses_left": settled.uses_left,
        "max_uses": 1,
        "submitted_at": "2026-11-21T20:15:00+00:00",
        "remote_ip": VISITOR.remote_ip,
        "user_agent": VISITOR.user_agent,
    }


async def test_a_use_from_before_a_replenishing_does_not_come_back_after_it(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    claim = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    await store.change_token(
        token.id, lambda token: replace(token, uses_taken=0, round=token.round + 1)
    )
    second = await store.claim(token.id, "attempt-2", VISITOR, clock.now)
    settled = await store.settle(claim, REFUSED, clock.now, ANNOUNCE)
    assert settled.uses_left == 0  # as it was when it was claimed
    assert kept(store, token).uses_left == 0
    await store.settle(second, REFUSED, clock.now, ANNOUNCE)
    assert kept(store, token).uses_left == 1


async def test_what_happened_is_announced_though_the_token_was_deleted_meanwhile(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    claim = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    await store.delete_token(token.id)
    settled = await store.settle(claim, EXECUTED, clock.now, ANNOUNCE)
    assert settled.state is SubmissionState.EXECUTED
    assert [event.payload["token_id"] for event in store.announcements(Queue.EVENT, 0, 9)] == [
        token.id
    ]


async def test_what_was_running_at_the_end_is_settled_at_the_next_start(
    directory: Path, clock: Clock
) -> None:
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        tokens = [await add(store, clock) for _ in range(3)]
        for token in tokens:
            await store.claim(token.id, "attempt-1", VISITOR, clock.now)
        done = await add(store, clock)
        await use(store, clock, done)
    clock.move(minutes=5)
    async with opened(directory) as (store, _):
        assert await store.recover(UNCONFIRMED, clock.now, ANNOUNCE) == 3
        assert await store.recover(UNCONFIRMED, clock.now, ANNOUNCE) == 0
        for token in tokens:
            known = store.attempt(token.id, "attempt-1")
            assert known is not None
            assert known.state is SubmissionState.UNCONFIRMED
            assert known.finished_at == clock.now
            assert known.spent
            assert kept(store, token).uses_left == 0
        events = store.announcements(Queue.EVENT, 0, 10)
        assert [event.payload["outcome"] for event in events] == ["executed", *["unconfirmed"] * 3]


# -- giving back by the owner


async def test_the_owner_gives_back_what_stayed_spent_once(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    number = (await use(store, clock, token, outcome=UNCONFIRMED)).submission.id
    assert (await store.refund(number)).spent is False
    assert kept(store, token).uses_left == 1
    with pytest.raises(Conflict) as refused:
        await store.refund(number)
    assert refused.value.code == "not_spent"
    assert kept(store, token).uses_left == 1


async def test_what_was_executed_or_runs_is_not_given_back(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=2)
    done = (await use(store, clock, token)).submission.id
    running = (await store.claim(token.id, "attempt-2", VISITOR, clock.now)).submission.id
    for number in (done, running):
        with pytest.raises(Conflict) as refused:
            await store.refund(number)
        assert refused.value.code == "not_refundable"
    with pytest.raises(NotFound):
        await store.refund(999)


async def test_a_use_from_before_a_replenishing_is_not_given_back(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    number = (await use(store, clock, token, outcome=UNCONFIRMED)).submission.id
    await store.change_token(
        token.id, lambda token: replace(token, uses_taken=0, round=token.round + 1)
    )
    with pytest.raises(Conflict) as refused:
        await store.refund(number)
    assert refused.value.code == "replenished"
    assert kept(store, token).uses_left == 1


# -- the outbox


async def test_the_outbox_is_in_order_and_forgets_only_what_was_delivered(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=None)
    for number in range(12):
        await use(store, clock, token, f"attempt-{number}")
    first = store.announcements(Queue.EVENT, 0, 5)
    rest = store.announcements(Queue.EVENT, first[-1].id, 50)
    numbers = [int(str(event.payload["submission_id"])) for event in (*first, *rest)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 12

    await store.delivered(Queue.EVENT, first[-1].id)
    assert store.announcements(Queue.EVENT, 0, 50) == rest
    assert len(store.announcements(Queue.NOTIFICATION, 0, 50)) == 12
    counts = await store.counts(clock.now)
    assert (counts.waiting_events, counts.waiting_notifications) == (7, 12)


async def test_ids_of_the_outbox_are_never_used_again(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock, max_uses=None)
    await use(store, clock, token, "attempt-1")
    (event,) = store.announcements(Queue.EVENT, 0, 9)
    last = store.announcements(Queue.NOTIFICATION, 0, 9)[-1].id
    await store.delivered(Queue.EVENT, last)
    await store.delivered(Queue.NOTIFICATION, last)
    await use(store, clock, token, "attempt-2")
    # an announcer that remembers how far it came must not pass over the next one
    assert [e.id > event.id for e in store.announcements(Queue.EVENT, event.id, 9)] == [True]


async def test_payloads_come_back_as_they_went_in(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock, comment='"\\\u2028 مرحبا 👩\u200d🚒 <b>')

    def odd(claim: Claim) -> list[Announcement]:
        return [Announcement(Queue.EVENT, {"a": claim.token.comment, "b": [None, 1.5]}, clock.now)]

    claim = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    await store.settle(claim, EXECUTED, clock.now, odd)
    (event,) = store.announcements(Queue.EVENT, 0, 9)
    assert event.payload == {"a": token.comment, "b": [None, 1.5]}


# -- forgetting


async def test_pruned_attempts_still_answer_as_long_as_there_is_the_token(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=None)
    first = (await use(store, clock, token, "attempt-1")).submission
    failed = (await use(store, clock, token, "attempt-2", REFUSED)).submission
    clock.move(days=10)
    young = (await use(store, clock, token, "attempt-3")).submission
    assert await store.prune(clock.now - timedelta(days=5), clock.now - timedelta(days=1)) is False

    for old in (first, failed):
        archived = store.attempt(token.id, old.attempt)
        assert archived == replace(
            old, error=None, remote_ip=None, user_agent=None, context_id=None
        )
        again = await store.claim(token.id, old.attempt, VISITOR, clock.now)
        assert again.submission == archived
    assert [item.id for item in (await store.submissions()).items] == [young.id]
    assert (await store.counts(clock.now)).submissions == 1
    assert kept(store, token).uses_taken == 2
    with pytest.raises(NotFound):
        await store.refund(failed.id)

    await store.delete_token(token.id)
    assert store.attempt(token.id, "attempt-1") is None


async def test_addresses_are_forgotten_before_the_submissions(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=None)
    await use(store, clock, token, "attempt-1")
    clock.move(days=10)
    await use(store, clock, token, "attempt-2")
    await store.prune(clock.now - timedelta(days=30), clock.now - timedelta(days=5))
    new, old = (await store.submissions()).items
    assert (old.remote_ip, old.user_agent) == (None, None)
    assert (new.remote_ip, new.user_agent) == (VISITOR.remote_ip, VISITOR.user_agent)
    for queue in Queue:  # those that wait for Home Assistant, too
        events = store.announcements(queue, 0, 9)
        assert [event.payload["remote_ip"] for event in events] == [None, VISITOR.remote_ip]
        assert [event.payload["user_agent"] for event in events] == [None, VISITOR.user_agent]
    # and later those that were too young then
    clock.move(days=10)
    await store.prune(clock.now - timedelta(days=30), clock.now - timedelta(days=5))
    assert {item.remote_ip for item in (await store.submissions()).items} == {None}


async def test_nothing_is_forgotten_before_its_time(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock)
    await use(store, clock, token)
    for moment, count in ((clock.now, 1), (clock.now + timedelta(milliseconds=1), 0)):
        assert await store.prune(moment, moment) is False
        assert len((await store.submissions()).items) == count


async def test_what_is_running_is_not_pruned_however_old(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock)
    claim = await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    clock.move(days=400)
    await store.prune(clock.now, clock.now)
    settled = await store.settle(claim, EXECUTED, clock.now, ANNOUNCE)
    known = store.attempt(token.id, "attempt-1")
    assert known == replace(settled, remote_ip=None, user_agent=None)


async def test_pruning_goes_on_in_parts_until_all_is_done(store: SqliteStore, clock: Clock) -> None:
    token = await add(store, clock, max_uses=None)
    await asyncio.gather(*(use(store, clock, token, f"attempt-{n}") for n in range(1100)))
    clock.move(days=1)
    parts = 1
    while await store.prune(clock.now, clock.now):
        parts += 1
    assert parts == 3
    assert (await store.counts(clock.now)).submissions == 0
    assert (await store.submissions()).items == []


# -- requests that may be repeated


def request(key: str = "r1", digest: bytes = b"a", scope: str = "mqtt") -> Request:
    return Request(scope, key, digest)


async def ask(store: SqliteStore, now: datetime, request: Request) -> Token:
    return await store.add_token(making.token(now), request, now)


async def test_the_same_request_within_10_minutes_makes_one_token(
    store: SqliteStore, clock: Clock
) -> None:
    first = await ask(store, clock.now, request())
    for length in (timedelta(), timedelta(minutes=10) - SECOND):
        assert await ask(store, clock.now + length, request()) == first
    assert (await store.counts(clock.now)).tokens == 1


async def test_after_10_minutes_it_is_a_new_request(store: SqliteStore, clock: Clock) -> None:
    first = await ask(store, clock.now, request())
    clock.move(minutes=10)
    second = await ask(store, clock.now, request(digest=b"another body"))
    assert second.id != first.id
    assert await ask(store, clock.now, request(digest=b"another body")) == second


async def test_another_body_under_the_same_key_is_a_conflict(
    store: SqliteStore, clock: Clock
) -> None:
    first = await ask(store, clock.now, request())
    clock.move(minutes=9, seconds=59)
    with pytest.raises(Conflict) as refused:
        await ask(store, clock.now, request(digest=b"b"))
    assert refused.value.code == "request_conflict"
    assert await ask(store, clock.now, request()) == first
    assert (await store.counts(clock.now)).tokens == 1


async def test_keys_of_different_scopes_and_different_keys_are_apart(
    store: SqliteStore, clock: Clock
) -> None:
    made = {
        (await ask(store, clock.now, one)).id
        for one in (request(), request(scope="key:shop"), request(key="r2"))
    }
    assert len(made) == 3


async def test_parallel_repetitions_of_a_request_make_one_token(
    store: SqliteStore, clock: Clock
) -> None:
    made = await asyncio.gather(*(ask(store, clock.now, request()) for _ in range(50)))
    assert len({token.id for token in made}) == 1


async def test_a_repeated_request_shows_the_token_as_it_is_now(
    store: SqliteStore, clock: Clock
) -> None:
    first = await ask(store, clock.now, request())
    await store.change_token(first.id, lambda token: replace(token, paused=True))
    assert (await ask(store, clock.now, request())).paused


async def test_a_repeated_request_whose_token_was_deleted_makes_no_other(
    store: SqliteStore, clock: Clock
) -> None:
    first = await ask(store, clock.now, request())
    await store.delete_token(first.id)
    with pytest.raises(Conflict, match="deleted"):
        await ask(store, clock.now, request())


async def test_a_request_survives_a_restart(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        first = await ask(store, clock.now, request())
    async with opened(directory) as (store, _):
        assert await ask(store, clock.now, request()) == first


# -- tokens


async def test_ids_that_are_taken_are_drawn_again(store: SqliteStore, clock: Clock) -> None:
    first = await add(store, clock)
    rotated = await add(store, clock)
    await store.change_token(rotated.id, lambda token: replace(token, lookup=1))
    drawn = iter(
        [
            making.token(clock.now, id=first.id),
            making.token(clock.now, lookup=first.lookup),
            making.token(clock.now, lookup=rotated.lookup),  # somebody may still have that link
            making.token(clock.now, id="free"),
        ]
    )
    made = await store.add_token(lambda: next(drawn)(), None, clock.now)  # noqa: PLW0108
    assert made.id == "free"


async def test_a_token_needs_its_action(store: SqliteStore, clock: Clock) -> None:
    with pytest.raises(NotFound) as refused:
        await store.add_token(making.token(clock.now, action="none"), None, clock.now)
    assert refused.value.code == "unknown_action"


async def test_a_rotated_link_leads_to_its_token_as_not_current(
    store: SqliteStore, clock: Clock
) -> None:
    token = await add(store, clock)
    lookups = [token.lookup, 2**63, 2**64 - 1, 0]
    for lookup in lookups[1:]:
        await store.change_token(token.id, partial(replace, lookup=lookup))
    for lookup in lookups:
        found = store.find(lookup)
        assert found is not None
        assert found.current is (lookup == lookups[-1])
        assert found.token.id == token.id
        assert found.token.lookup == lookups[-1]
    assert store.find(7) is None
    await store.delete_token(token.id)
    assert [store.find(lookup) for lookup in lookups] == [None] * 4


async def test_deleting_a_token_removes_everything_of_it(
    store: SqliteStore, directory: Path, clock: Clock
) -> None:
    token = await add(store, clock, max_uses=None)
    await use(store, clock, token, "attempt-1")
    clock.move(days=1)
    await store.prune(clock.now, clock.now)
    await use(store, clock, token, "attempt-2")
    await store.change_token(token.id, lambda token: replace(token, lookup=5))
    await store.delete_token(token.id)
    with closing(sqlite3.connect(directory / "otsd.db")) as db:
        for table in ("tokens", "submissions", "attempts", "rotated"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    assert (await store.counts(clock.now)).submissions == 0
    with pytest.raises(NotFound):
        await store.change_token(token.id, lambda token: token)


async def test_lists_come_in_pages_newest_first_without_gaps(
    store: SqliteStore, clock: Clock
) -> None:
    tokens = [await add(store, clock, max_uses=None) for _ in range(7)]
    for number, token in enumerate(tokens):
        await use(store, clock, token, f"attempt-{number}")
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.tokens(clock.now, limit=3, cursor=cursor)
        seen += [token.id for token in page.items]
        if (cursor := page.next) is None:
            break
        if len(seen) == 3:  # a token made meanwhile disturbs nothing
            await add(store, clock)
    assert seen == [token.id for token in reversed(tokens)]

    numbers: list[int] = []
    while True:
        runs = await store.submissions(limit=3, cursor=cursor)
        numbers += [run.id for run in runs.items]
        if (cursor := runs.next) is None:
            break
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 7


async def test_a_page_that_holds_exactly_the_rest_is_the_last(
    store: SqliteStore, clock: Clock
) -> None:
    for _ in range(3):
        await use(store, clock, await add(store, clock))
    assert (await store.tokens(clock.now, limit=3)).next is None
    assert (await store.submissions(limit=3)).next is None
    assert (await store.tokens(clock.now, limit=2)).next is not None


async def test_submissions_are_listed_by_token_and_state(store: SqliteStore, clock: Clock) -> None:
    first, second = await add(store, clock, max_uses=None), await add(store, clock, max_uses=None)
    outcomes = [EXECUTED, REFUSED, UNCONFIRMED]
    for token in (first, second):
        for number, outcome in enumerate(outcomes):
            await use(store, clock, token, f"attempt-{number}", outcome)
        await store.claim(token.id, "attempt-9", VISITOR, clock.now)
    for state in SubmissionState:
        both = (await store.submissions(state=state)).items
        assert {(run.token_id, run.state) for run in both} == {
            (first.id, state),
            (second.id, state),
        }
        (one,) = (await store.submissions(token=first.id, state=state)).items
        assert one.token_id == first.id
    assert len((await store.submissions(token=first.id)).items) == 4
    assert (await store.submissions(token="none")).items == []


# -- actions


async def test_actions_are_listed_newest_first_and_replaced_in_place(
    store: SqliteStore, directory: Path, clock: Clock
) -> None:
    made = clock.now
    await store.save_action(making.action("second"), create=True, now=clock.now)
    clock.move(hours=1)
    changed = await store.save_action(
        making.action("open-door", "Another title"), create=False, now=clock.now
    )
    assert (changed.created_at, changed.updated_at) == (made, clock.now)
    assert [action.name for action in store.actions()] == ["second", "open-door"]
    assert store.action("open-door") == changed
    with pytest.raises(Conflict) as refused:
        await store.save_action(making.action("second"), create=True, now=clock.now)
    assert refused.value.code == "action_exists"


async def test_actions_read_the_same_after_a_restart(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        for name in ("a", "b", "c"):
            await store.save_action(making.action(name), create=True, now=clock.now)
        await store.save_action(making.action("a", "Changed"), create=False, now=clock.now)
        await store.delete_action("b", force=False, now=clock.now)
        before = store.actions()
    async with opened(directory) as (store, _):
        assert store.actions() == before
    assert [action.name for action in before] == ["c", "a"]


async def test_an_action_that_tokens_use_is_deleted_only_by_force(
    store: SqliteStore, clock: Clock
) -> None:
    tokens = [await add(store, clock), await add(store, clock, paused=True)]
    with pytest.raises(Conflict) as refused:
        await store.delete_action("open-door", force=False, now=clock.now)
    assert refused.value.code == "action_in_use"
    assert store.action("open-door") is not None

    assert await store.delete_action("open-door", force=True, now=clock.now) == 2
    assert store.action("open-door") is None
    assert {kept(store, token).state(clock.now) for token in tokens} == {TokenState.REVOKED}
    counts = await store.counts(clock.now)
    assert (counts.actions, counts.tokens, counts.total.active_tokens) == (0, 2, 0)
    with pytest.raises(NotFound):
        await store.delete_action("open-door", force=True, now=clock.now)


async def test_force_revokes_a_token_that_is_made_meanwhile_too(
    store: SqliteStore, clock: Clock
) -> None:
    revoked, token = await asyncio.gather(
        store.delete_action("open-door", force=True, now=clock.now), add(store, clock)
    )
    assert revoked == 1
    assert kept(store, token).state(clock.now) is TokenState.REVOKED


async def test_every_token_that_is_not_revoked_keeps_its_action(
    store: SqliteStore, clock: Clock
) -> None:
    """One that is used up can be replenished, and would then run whatever has the name."""
    await add(store, clock, revoked_at=clock.now)
    await use(store, clock, await add(store, clock))
    await add(store, clock, expires_at=clock.now)
    with pytest.raises(Conflict):
        await store.delete_action("open-door", force=False, now=clock.now)
    assert await store.delete_action("open-door", force=True, now=clock.now) == 2


async def test_an_action_made_anew_counts_its_old_tokens(store: SqliteStore, clock: Clock) -> None:
    await add(store, clock)
    await store.delete_action("open-door", force=True, now=clock.now)
    await store.save_action(making.action(), create=True, now=clock.now)
    await add(store, clock, max_uses=3)
    tally = (await store.counts(clock.now)).by_action["open-door"]
    assert (tally.active_tokens, tally.remaining_uses) == (1, 3)


@pytest.mark.parametrize("restart", [False, True])
async def test_an_action_whose_maker_went_away_is_there_all_the_same(
    directory: Path, clock: Clock, restart: bool
) -> None:
    async def leave(work: asyncio.Task[object]) -> None:
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    async with opened(directory) as (store, _), asyncio.TaskGroup() as tasks:
        await store.save_action(making.action("old"), create=True, now=clock.now)
        await leave(
            tasks.create_task(store.save_action(making.action(), create=True, now=clock.now))
        )
        await leave(tasks.create_task(store.delete_action("old", force=False, now=clock.now)))
        await store.remember("in order", "so both are done")
        if not restart:
            assert [action.name for action in store.actions()] == ["open-door"]
    async with opened(directory) as (store, _):
        assert [action.name for action in store.actions()] == ["open-door"]


# -- small facts


async def test_small_facts_are_remembered_and_replaced(directory: Path) -> None:
    async with opened(directory) as (store, _):
        assert store.recall("zone") is None
        await store.remember("zone", "Europe/Berlin")
        await store.remember("zone", "Asia/Kolkata")
    async with opened(directory) as (store, _):
        assert store.recall("zone") == "Asia/Kolkata"


async def test_the_newest_entry_tells_a_clock_that_is_behind(
    store: SqliteStore, clock: Clock
) -> None:
    assert store.newest() is None
    token = await add(store, clock)
    assert store.newest() == clock.now
    clock.move(days=1)
    await use(store, clock, token)
    assert store.newest() == clock.now


# -- what the owner does (``core.manage``) over the real store


@pytest.fixture
def owner(store: SqliteStore, clock: Clock) -> Tokens:
    """Return the owner's tokens, with chance that counts."""
    numbers = iter(range(1, 1000))
    return Tokens(
        base_url="http://localhost",
        store=store,
        codes=Codes(b"k" * 32),
        now=clock,
        changes=Changes(),
        random=lambda size: next(numbers).to_bytes(size, "little"),
    )


async def test_a_repeated_request_is_answered_though_its_end_has_passed(
    owner: Tokens, clock: Clock
) -> None:
    wish = Mint("open-door", "mqtt", expires_at=clock.now + timedelta(minutes=5))
    token = await owner.mint(wish, Request("mqtt", "r1", b"a"))
    clock.move(minutes=6)
    assert await owner.mint(wish, Request("mqtt", "r1", b"a")) == token
    with pytest.raises(Invalid):
        await owner.mint(wish, Request("mqtt", "r2", b"a"))


@pytest.mark.parametrize(
    "wish",
    [
        lambda now: Mint("open-door", "cli", expires_at=now),
        lambda now: Mint("open-door", "cli", expires_at=now - SECOND),
        lambda now: Mint("open-door", "cli", valid_from=now + SECOND, expires_at=now + SECOND),
        lambda now: Mint("open-door", "cli", valid_from=now + 2 * SECOND, expires_at=now + SECOND),
    ],
)
async def test_a_token_that_could_never_be_used_is_not_made(
    owner: Tokens, store: SqliteStore, clock: Clock, wish: Callable[[datetime], Mint]
) -> None:
    with pytest.raises(Invalid) as refused:
        await owner.mint(wish(clock.now))
    assert [fault.loc for fault in refused.value.faults] == [("expires_at",)]
    assert (await store.counts(clock.now)).tokens == 0


async def test_a_length_counts_from_its_beginning(owner: Tokens, clock: Clock) -> None:
    later = clock.now + timedelta(days=1)
    wish = Mint("open-door", "cli", valid_from=later, expires_in=timedelta(hours=2))
    assert (await owner.mint(wish)).expires_at == later + timedelta(hours=2)
    earlier = replace(wish, valid_from=clock.now - timedelta(days=1))
    assert (await owner.mint(earlier)).expires_at == clock.now + timedelta(hours=2)


async def test_a_duplicate_is_of_the_same_kind_and_length(owner: Tokens, clock: Clock) -> None:
    wish = Mint("open-door", "cli", "Plumber", 3, expires_in=timedelta(hours=2), device=True)
    like = await owner.mint(wish)
    clock.move(hours=5)
    other = await owner.duplicate(like.id, "key:shop")
    assert other.id != like.id
    assert other.lookup != like.lookup
    assert (other.action, other.comment, other.max_uses, other.device) == (
        *("open-door", "Plumber", 3),
        True,
    )
    assert (other.created_by, other.expires_at) == ("key:shop", clock.now + timedelta(hours=2))
    assert other.uses_taken == 0


async def test_fewer_uses_than_are_taken_are_a_conflict(
    owner: Tokens, store: SqliteStore, clock: Clock
) -> None:
    token = await owner.mint(Mint("open-door", "cli", max_uses=None))
    for number in range(3):
        await use(store, clock, token, f"attempt-{number}")
    with pytest.raises(Conflict) as refused:
        await owner.edit(token.id, Edit(max_uses=2))
    assert refused.value.code == "uses_taken"
    assert (await owner.edit(token.id, Edit(max_uses=3))).uses_left == 0


async def test_revoking_is_final_and_may_be_repeated(owner: Tokens, clock: Clock) -> None:
    token = await owner.mint(Mint("open-door", "cli"))
    first = await owner.revoke(token.id)
    clock.move(days=1)
    assert await owner.revoke(token.id) == first
    for work in (owner.pause, owner.resume, owner.replenish, owner.rotate):
        with pytest.raises(Conflict) as refused:
            await work(token.id)
        assert refused.value.code == "revoked"
    with pytest.raises(Conflict):
        await owner.edit(token.id, Edit(comment="x"))


async def test_an_expired_token_can_get_a_later_end_and_is_usable_again(
    owner: Tokens, clock: Clock
) -> None:
    token = await owner.mint(Mint("open-door", "cli", expires_in=timedelta(hours=1)))
    clock.move(hours=1)
    with pytest.raises(Conflict) as refused:
        await owner.replenish(token.id)
    assert refused.value.code == "expired"
    later = clock.now + timedelta(hours=1)
    assert (await owner.edit(token.id, Edit(expires_at=later))).state(clock.now) == "active"
    with pytest.raises(Invalid):
        await owner.edit(token.id, Edit(expires_at=clock.now))
    with pytest.raises(Invalid):
        await owner.edit(token.id, Edit(valid_from=later))
    assert (await owner.edit(token.id, Edit(comment="x"))).expires_at == later


async def test_what_does_not_exist_is_not_found(owner: Tokens) -> None:
    for work in (owner.pause, owner.resume, owner.revoke, owner.replenish, owner.rotate):
        with pytest.raises(NotFound):
            await work("missing")
    with pytest.raises(NotFound):
        await owner.duplicate("missing", "cli")
    with pytest.raises(NotFound):
        await owner.mint(Mint("missing", "cli"))
