"""The way of a submission, over the real store and a home in memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd.actionfile import read_plan
from otsd.core.actions import Action
from otsd.core.changes import Change, Changes, Subject
from otsd.core.codes import Codes, ImportedCodes
from otsd.core.errors import (
    Busy,
    HomeUnavailable,
    NoAnswer,
    NotAsked,
    Refused,
    StorageUnavailable,
    TargetUnavailable,
    TokenUnusable,
    UnknownToken,
)
from otsd.core.events import announcer, event_data
from otsd.core.manage import Mint, Tokens
from otsd.core.ports import Found, Queue, Ran
from otsd.core.submit import MOST_RUNNING, MOST_RUNNING_OF_A_TOKEN, Submissions
from otsd.core.tokens import Reason, Submission, SubmissionState, Token, TokenState, Visitor
from otsd.store import store as stores
from tests.conftest import Clock
from tests.core.homes import FillingStore, MemoryHome, hastily, until

# in the scenarios that run hastily, this is only three seconds
SOON = timedelta(minutes=5)
VISITOR = Visitor("203.0.113.9", "Mozilla/5.0")
STEP = "action: lock.unlock\ntarget: {entity_id: lock.front_door}\n"
SEQUENCE = f"- {STEP.replace(chr(10), chr(10) + '  ')}\n- {{delay: 1}}\n"
SCRIPT = "action: script.open\n"


@dataclass
class World:
    """Everything a submission needs."""

    store: FillingStore
    home: MemoryHome
    submissions: Submissions
    owner: Tokens
    codes: Codes
    clock: Clock
    changes: list[Change]

    async def mint(self, action: str = "step", **wish: Any) -> Found:
        token = await self.owner.mint(Mint(action, "cli", **wish))
        return self.submissions.find(self.codes.code(token.lookup).reveal())

    async def submit(self, found: Found, attempt: str = "attempt-1") -> Submission:
        attempted = await self.submissions.submit(found, attempt, VISITOR)
        return await attempted.finished(SOON)

    def token(self, found: Found) -> Token:
        token = self.store.token(found.token.id)
        assert token is not None
        return token


@asynccontextmanager
async def a_world(directory: Path, clock: Clock) -> AsyncIterator[World]:
    """Open a store, its actions and what submits."""
    async with stores.opened(directory) as (plain, _):
        store = FillingStore(plain._reader, plain._listing, plain._lister, plain._writer)
        for name, yaml in {"step": STEP, "sequence": SEQUENCE, "script": SCRIPT}.items():
            action = Action(name, f"Title of {name}", yaml, read_plan(yaml))
            if store.action(name) is None:
                await store.save_action(action, create=True, now=clock.now)
        home, codes, changes = MemoryHome(), Codes(b"k" * 32), Changes()
        heard: list[Change] = []
        numbers = iter(range(len((await store.tokens(clock.now)).items) + 1, 10**6))
        owner = Tokens(
            base_url="http://localhost",
            store=store,
            codes=codes,
            now=clock,
            changes=changes,
            random=lambda size: (next(numbers) * 0x9E3779B9).to_bytes(8, "little")[:size],
        )
        submissions = Submissions(
            store=store,
            home=home,
            codes=codes,
            imported=ImportedCodes(bytes(32)),
            now=clock,
            changes=changes,
            announce=announcer(notify=False),
        )
        with changes.heard_by(heard.append):
            async with submissions:
                yield World(store, home, submissions, owner, codes, clock, heard)


@pytest.fixture
async def world(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    async with a_world(tmp_path / "data", clock) as world:
        yield world


# -- what becomes of it


@pytest.mark.parametrize("action", ["step", "sequence", "script"])
@pytest.mark.parametrize(
    ("answer", "state", "reason", "back"),
    [
        (Ran("01J"), SubmissionState.EXECUTED, None, False),
        (NotAsked("away"), SubmissionState.FAILED, Reason.HOME_UNAVAILABLE, True),
        (NoAnswer("gone"), SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, False),
        (TypeError("a bug"), SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, False),
        (Refused("jammed"), SubmissionState.FAILED, None, None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_answer_of_home_assistant_becomes_an_outcome(
    world: World,
    *,
    action: str,
    answer: Ran | BaseException,
    state: SubmissionState,
    reason: Reason | None,
    back: bool | None,
) -> None:
    if isinstance(answer, Refused):
        back = action == "step"
        reason = Reason.ACTION_FAILED if back else Reason.ACTION_INCOMPLETE
    world.home.answer = answer
    found = await world.mint(action)
    done = await world.submit(found)
    assert (done.state, done.reason, done.spent) == (state, reason, not back)
    assert done.uses_left == world.token(found).uses_left == (1 if back else 0)
    assert len(world.home.runs) == 1
    assert done.context_id == ("01J" if isinstance(answer, Ran) else None)
    assert world.store.attempt(found.token.id, "attempt-1") == done
    (event,) = world.store.announcements(Queue.EVENT, 0, 9)
    assert event.payload["outcome"] == state.value
    assert event.payload["error"] == done.error
    if isinstance(answer, BaseException):
        assert str(answer) in str(done.error)


async def test_home_assistant_gets_the_variables_of_the_token_and_the_submission(
    world: World,
) -> None:
    found = await world.mint(comment="Plumber", max_uses=3)
    done = await world.submit(found)
    ((plan, variables),) = world.home.runs
    assert plan == read_plan(STEP)
    assert variables == {
        "token": {"id": found.token.id, "comment": "Plumber", "max_uses": 3, "uses_left": 2},
        "submission": {"id": done.id, "remote_ip": "203.0.113.9"},
    }


async def test_a_use_is_on_disk_before_home_assistant_is_asked(world: World) -> None:
    world.home.answering.clear()
    found = await world.mint()
    attempted = await world.submissions.submit(found, "attempt-1", VISITOR)
    await until(lambda: world.home.runs)
    assert world.token(found).uses_left == 0
    known = world.store.attempt(found.token.id, "attempt-1")
    assert known is not None
    assert known.state is SubmissionState.RUNNING
    still = await attempted.finished(timedelta(milliseconds=1))
    assert still.state is SubmissionState.RUNNING
    assert not attempted.has_finished
    assert world.submissions.running == 1
    world.home.answering.set()
    assert (await attempted.finished(SOON)).state is SubmissionState.EXECUTED
    await until(lambda: world.submissions.running == 0)


async def test_what_changed_is_told(world: World) -> None:
    found = await world.mint()
    world.changes.clear()
    done = await world.submit(found)
    await until(lambda: len(world.changes) == 5)
    assert world.changes == [
        Change(Subject.SUBMISSION, done.id),
        Change(Subject.TOKEN, found.token.id),
        Change(Subject.SUBMISSION, done.id),
        Change(Subject.FINISHED, done.id),
        Change(Subject.TOKEN, found.token.id),
    ]


# -- what is not admitted


async def test_a_wrong_code_is_refused(world: World) -> None:
    found = await world.mint()
    code = world.codes.code(found.token.lookup).reveal()
    for text in ("", "x", code[:-1], f"{code}x", code.swapcase()):
        with pytest.raises(UnknownToken):
            world.submissions.find(text)
    with pytest.raises(UnknownToken):  # a good proof of a token that is no more
        world.submissions.find(world.codes.code(1).reveal())


@pytest.mark.parametrize("state", [s for s in TokenState if s is not TokenState.ACTIVE])
async def test_a_token_that_is_not_active_is_refused(world: World, state: TokenState) -> None:
    later = world.clock.now + timedelta(hours=1)
    wishes: dict[TokenState, dict[str, Any]] = {
        TokenState.SCHEDULED: {"valid_from": later},
        TokenState.EXPIRED: {"expires_at": later},
    }
    found = await world.mint(**wishes.get(state, {}))
    if state is TokenState.REVOKED:
        await world.owner.revoke(found.token.id)
    elif state is TokenState.PAUSED:
        await world.owner.pause(found.token.id)
    elif state is TokenState.USED_UP:
        await world.submit(found, "attempt-0")
    elif state is TokenState.EXPIRED:
        world.clock.move(hours=1)
    for stale in (found, Found(world.token(found), current=True)):  # as read before, and now
        with pytest.raises(TokenUnusable) as refused:
            await world.submissions.submit(stale, "attempt-1", VISITOR)
        assert refused.value.state is state
    assert len(world.home.runs) == (state is TokenState.USED_UP)


async def test_a_link_that_was_rotated_away_is_refused_as_revoked(world: World) -> None:
    old = await world.mint()
    code = world.codes.code(old.token.lookup).reveal()
    await world.owner.rotate(old.token.id)
    found = world.submissions.find(code)
    with pytest.raises(TokenUnusable) as refused:
        await world.submissions.submit(found, "attempt-1", VISITOR)
    assert refused.value.state is TokenState.REVOKED


@pytest.mark.parametrize(
    "refusal", [HomeUnavailable(), TargetUnavailable(["lock.front_door is missing"])]
)
async def test_nothing_is_spent_while_home_assistant_or_the_target_is_away(
    world: World, refusal: Exception
) -> None:
    found = await world.mint()
    world.home.refusal = refusal
    with pytest.raises(type(refusal)):
        await world.submissions.submit(found, "attempt-1", VISITOR)
    assert world.token(found).uses_left == 1
    assert world.store.attempt(found.token.id, "attempt-1") is None
    world.home.refusal = None
    assert (await world.submit(found)).state is SubmissionState.EXECUTED


async def test_the_state_of_the_token_is_told_before_that_of_home_assistant(world: World) -> None:
    found = await world.mint()
    await world.owner.pause(found.token.id)
    world.home.refusal = HomeUnavailable()
    with pytest.raises(TokenUnusable):
        await world.submissions.submit(
            Found(world.token(found), current=True), "attempt-1", VISITOR
        )


async def test_a_deleted_action_is_unavailable(world: World) -> None:
    found = await world.mint()
    await world.submit(found)
    await world.store.delete_action("step", force=True, now=world.clock.now)
    before = replace(world.token(found), revoked_at=None, uses_taken=0)  # read just before that
    with pytest.raises(TargetUnavailable, match="step was deleted"):
        world.submissions.check(Found(before, current=True))


# -- the same attempt again


async def test_50_parallel_submissions_of_one_attempt_are_one(world: World) -> None:
    found = await world.mint(max_uses=5)
    done = await asyncio.gather(*(world.submit(found) for _ in range(50)))
    assert len({submission.id for submission in done}) == 1
    assert len(world.home.runs) == 1
    assert world.token(found).uses_left == 4


async def test_50_parallel_attempts_of_a_single_use_are_one_success(world: World) -> None:
    found = await world.mint()
    answers = await asyncio.gather(
        *(world.submit(found, f"attempt-{n}") for n in range(50)), return_exceptions=True
    )
    assert sum(isinstance(answer, Submission) for answer in answers) == 1
    refused = [answer for answer in answers if isinstance(answer, TokenUnusable)]
    assert [error.state for error in refused] == [TokenState.USED_UP] * 49
    assert len(world.home.runs) == 1


async def test_a_finished_attempt_is_answered_whatever_became_of_the_token(world: World) -> None:
    found = await world.mint()
    first = await world.submit(found)
    await world.owner.rotate(found.token.id)
    await world.owner.revoke(found.token.id)
    world.home.refusal = HomeUnavailable()
    stale = Found(world.token(found), current=False)
    assert await world.submit(stale) == first
    assert len(world.home.runs) == 1
    with pytest.raises(TokenUnusable):
        await world.submit(stale, "attempt-2")


async def test_looking_at_an_attempt_waits_for_it_and_runs_nothing(world: World) -> None:
    found = await world.mint(max_uses=2)
    assert await world.submissions.attempt(found.token, "attempt-1", SOON) is None
    world.home.answering.clear()
    await world.submissions.submit(found, "attempt-1", VISITOR)
    short = timedelta(milliseconds=1)
    running = await world.submissions.attempt(found.token, "attempt-1", short)
    assert running is not None
    assert running.state is SubmissionState.RUNNING
    looking = asyncio.ensure_future(world.submissions.attempt(found.token, "attempt-1", SOON))
    await asyncio.sleep(0)
    world.home.answering.set()
    done = await looking
    assert done is not None
    assert done.state is SubmissionState.EXECUTED
    assert await world.submissions.attempt(found.token, "attempt-1", SOON) == done
    assert len(world.home.runs) == 1


async def test_looking_at_an_attempt_that_is_just_refused_finds_none(world: World) -> None:
    found = await world.mint()
    world.store.full_for = frozenset({"claim"})
    submitting = asyncio.ensure_future(world.submit(found))
    await asyncio.sleep(0)
    assert await world.submissions.attempt(found.token, "attempt-1", SOON) is None
    with pytest.raises(StorageUnavailable):
        await submitting


# -- visitors who go away


async def test_a_visitor_who_goes_away_changes_nothing(world: World) -> None:
    found = await world.mint()
    world.home.answering.clear()
    leaving = asyncio.ensure_future(world.submit(found))
    staying = asyncio.ensure_future(world.submit(found))
    await until(lambda: world.home.runs)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    world.home.answering.set()
    assert (await staying).state is SubmissionState.EXECUTED


async def test_a_visitor_who_goes_away_before_the_claim_leaves_it_to_run(world: World) -> None:
    found = await world.mint()
    leaving = asyncio.ensure_future(world.submissions.submit(found, "attempt-1", VISITOR))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    done = await world.submissions.attempt(found.token, "attempt-1", SOON)
    assert done is not None
    assert done.state is SubmissionState.EXECUTED


# -- bounds


async def test_100_submissions_of_a_token_run_and_the_next_is_told_to_wait(world: World) -> None:
    world.home.answering.clear()
    found, other = await world.mint(max_uses=None), await world.mint()
    for number in range(MOST_RUNNING_OF_A_TOKEN):
        await world.submissions.submit(found, f"attempt-{number}", VISITOR)
    with pytest.raises(Busy):
        await world.submissions.submit(found, "one-more-1", VISITOR)
    assert world.token(found).uses_taken == MOST_RUNNING_OF_A_TOKEN == 100
    # the same attempt again is no other submission, and another token is not held up
    await world.submissions.submit(found, "attempt-0", VISITOR)
    await world.submissions.submit(other, "attempt-0", VISITOR)
    world.home.answering.set()
    await until(lambda: not world.submissions.running)
    assert (await world.submit(found, "one-more-1")).state is SubmissionState.EXECUTED


async def test_1000_submissions_run_and_the_next_is_told_to_wait(world: World) -> None:
    world.home.answering.clear()
    links = [await world.mint(max_uses=None) for _ in range(11)]
    await asyncio.gather(
        *(
            world.submissions.submit(links[number % 10], f"attempt-{number}", VISITOR)
            for number in range(MOST_RUNNING)
        )
    )
    assert world.submissions.running == MOST_RUNNING == 1000
    with pytest.raises(Busy):
        await world.submissions.submit(links[10], "one-more-1", VISITOR)
    assert world.token(links[10]).uses_taken == 0
    world.home.answering.set()
    await until(lambda: not world.submissions.running)
    assert len(world.home.runs) == MOST_RUNNING


async def test_parallel_submissions_are_bounded_before_they_are_claimed(world: World) -> None:
    world.home.answering.clear()
    found = await world.mint(max_uses=None)
    answers = await asyncio.gather(
        *(world.submissions.submit(found, f"attempt-{n}", VISITOR) for n in range(150)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Busy) for answer in answers) == 50
    world.home.answering.set()


# -- shutting down


async def test_shutting_down_admits_nothing_and_waits_for_what_runs(world: World) -> None:
    world.home.answering.clear()
    found = await world.mint(max_uses=2)
    attempted = await world.submissions.submit(found, "attempt-1", VISITOR)
    finishing = asyncio.ensure_future(world.submissions.finish(SOON))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await world.submissions.submit(found, "attempt-2", VISITOR)
    world.home.answering.set()
    await finishing
    assert attempted.has_finished
    assert world.token(found).uses_taken == 1
    # what is known is still answered
    assert (await world.submit(found)).state is SubmissionState.EXECUTED


async def test_what_does_not_end_in_time_is_unconfirmed_after_the_next_start(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_world(tmp_path, clock) as world:
        world.home.answering.clear()
        found = await world.mint()
        await world.submissions.submit(found, "attempt-1", VISITOR)
        await until(lambda: world.home.runs)
        await world.submissions.finish(timedelta(milliseconds=1))
    assert "unconfirmed" not in caplog.text
    async with a_world(tmp_path, clock) as world:
        known = await world.submissions.attempt(found.token, "attempt-1", SOON)
        assert known is not None
        assert (known.state, known.reason) == (
            SubmissionState.UNCONFIRMED,
            Reason.OUTCOME_UNKNOWN,
        )
        assert world.token(found).uses_left == 0
        assert await world.submit(found) == known
        assert world.home.runs == []
        (event,) = world.store.announcements(Queue.EVENT, 0, 9)
        assert event.payload["outcome"] == "unconfirmed"
    assert "1 submissions were running when otsd stopped" in caplog.text


# -- a store that cannot write


async def test_a_link_that_is_replaced_while_it_waits_to_be_claimed_runs_nothing(
    world: World,
) -> None:
    found = await world.mint(max_uses=5)
    world.store.free.clear()
    waiting = asyncio.create_task(world.submit(found))
    await until(lambda: world.store.claiming)
    await world.owner.rotate(found.token.id)
    world.store.free.set()
    with pytest.raises(TokenUnusable) as refused:
        await waiting
    assert refused.value.state is TokenState.REVOKED
    assert world.home.runs == []
    assert world.token(found).uses_left == 5


async def test_an_action_that_is_replaced_while_its_token_waits_to_be_claimed_is_the_new_one(
    world: World,
) -> None:
    found = await world.mint()
    world.store.free.clear()
    waiting = asyncio.create_task(world.submit(found))
    await until(lambda: world.store.claiming)
    new = Action("step", "New", SCRIPT, read_plan(SCRIPT))
    await world.store.save_action(new, create=False, now=world.clock.now)
    world.store.free.set()
    assert (await waiting).state is SubmissionState.EXECUTED
    ((plan, _),) = world.home.runs
    assert plan == new.plan


async def test_an_action_that_is_replaced_by_one_that_cannot_run_gives_the_use_back(
    world: World,
) -> None:
    found = await world.mint()
    world.store.free.clear()
    waiting = asyncio.create_task(world.submit(found))
    await until(lambda: world.store.claiming)
    new = Action("step", "New", SCRIPT, read_plan(SCRIPT))
    await world.store.save_action(new, create=False, now=world.clock.now)
    world.home.refusal = TargetUnavailable(["Home Assistant has no action script.open"])
    world.store.free.set()
    told = await waiting
    assert (told.state, told.spent) == (SubmissionState.FAILED, False)
    assert world.home.runs == []
    assert world.token(found).uses_left == 1


async def test_without_a_claim_on_disk_home_assistant_is_not_asked(world: World) -> None:
    found = await world.mint()
    world.store.full_for = frozenset({"claim"})
    answers = await asyncio.gather(*(world.submit(found) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageUnavailable] * 5
    assert world.home.runs == []
    assert world.submissions.running == 0
    world.store.full_for = frozenset()
    assert (await world.submit(found)).state is SubmissionState.EXECUTED


def test_the_visitor_hears_done_though_it_cannot_be_written_down_yet(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with a_world(tmp_path, clock) as world:
            found = await world.mint()
            world.store.full_for = frozenset({"settle"})
            done = await world.submit(found)
            assert (done.state, done.spent) == (SubmissionState.EXECUTED, True)
            assert done.finished_at == clock.now
            # the same attempt is answered the same, and runs nothing
            assert await world.submit(found) == done
            await until(lambda: world.store.tries > 3)
            known = world.store.attempt(found.token.id, "attempt-1")
            assert known is not None
            assert known.state is SubmissionState.RUNNING
            assert world.store.announcements(Queue.EVENT, 0, 9) == []

            ended = clock.now
            clock.move(minutes=5)
            world.store.full_for = frozenset()
            await until(lambda: not world.submissions.running)
            known = world.store.attempt(found.token.id, "attempt-1")
            assert known is not None
            assert (known.state, known.finished_at) == (SubmissionState.EXECUTED, ended)
            assert len(world.store.announcements(Queue.EVENT, 0, 9)) == 1
            assert len(world.home.runs) == 1

    hastily(scenario())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "ended as executed, and the store cannot write it down yet" in errors[0].getMessage()


def test_a_use_that_comes_back_is_told_so_though_it_cannot_be_written_down_yet(
    tmp_path: Path, clock: Clock
) -> None:
    async def scenario() -> None:
        async with a_world(tmp_path, clock) as world:
            found = await world.mint()
            world.home.answer = Refused("jammed")
            world.store.full_for = frozenset({"settle"})
            told = await world.submit(found)
            assert (told.reason, told.spent) == (Reason.ACTION_FAILED, False)
            world.store.full_for = frozenset()
            await until(lambda: not world.submissions.running)
            assert world.token(found).uses_left == 1

    hastily(scenario())


# -- what nobody expects


def test_an_outcome_that_cannot_be_written_at_all_stays_with_its_submission(
    tmp_path: Path, clock: Clock
) -> None:
    async def scenario() -> None:
        async with a_world(tmp_path, clock) as world:
            found, other = await world.mint(), await world.mint()
            world.store.unwritable = frozenset({1})
            assert (await world.submit(found)).state is SubmissionState.UNCONFIRMED
            assert world.submissions.running == 0
            assert (await world.submit(other)).state is SubmissionState.EXECUTED
            # the next start settles it
            world.store.unwritable = frozenset()
            known = world.store.attempt(found.token.id, "attempt-1")
            assert known is not None
            assert known.state is SubmissionState.RUNNING

    hastily(scenario())


async def test_what_a_restart_settles_is_announced_as_old_as_it_was_begun(
    tmp_path: Path, clock: Clock
) -> None:
    """When it ended nobody knows; a night later the light in the hall must stay off."""
    async with stores.opened(tmp_path) as (store, _):
        await store.save_action(
            Action("step", "Title", STEP, read_plan(STEP)), create=True, now=clock.now
        )
        owner = Tokens(
            base_url="http://localhost",
            store=store,
            codes=Codes(b"k" * 32),
            now=clock,
            changes=Changes(),
            random=os.urandom,
        )
        token = await owner.mint(Mint("step", "cli"))
        await store.claim(token.id, "attempt-1", VISITOR, clock.now)
    clock.move(seconds=65)
    async with a_world(tmp_path, clock) as world:
        (waiting,) = world.store.announcements(Queue.EVENT, 0, 10)
        assert event_data(waiting, clock.now)["delivered_late"] is True


async def test_an_outcome_that_cannot_be_written_is_written_as_unconfirmed(world: World) -> None:
    """Home Assistant's words may be anything; the daemon and the other submissions go on."""
    found = await world.mint(max_uses=2)
    world.home.answer = Refused("half a pair: \ud800")
    submission = await world.submit(found)
    assert submission.state is SubmissionState.UNCONFIRMED
    assert world.token(found).uses_left == 1
    world.home.answer = Ran("01J")
    assert (await world.submit(found, "attempt-2")).state is SubmissionState.EXECUTED


async def test_a_use_that_is_taken_after_otsd_gave_up_comes_back_and_nothing_is_asked(
    tmp_path: Path, clock: Clock
) -> None:
    async with a_world(tmp_path, clock) as world:
        found, asked = await world.mint(), await world.mint()
        world.home.answering.clear()
        running = await world.submissions.submit(asked, "attempt-1", VISITOR)
        await until(lambda: len(world.home.runs) == 1)
        world.store.free.clear()
        waiting = asyncio.create_task(world.submit(found))
        await until(lambda: world.store.claiming == 2)

        # the second signal, while the first is heard
        finishing = asyncio.create_task(world.submissions.finish(SOON))
        await asyncio.sleep(0)
        world.submissions.give_up()
        assert (await running.finished(SOON)).state is SubmissionState.RUNNING
        assert not waiting.done()
        world.store.free.set()
        told = await waiting
        await finishing
        assert (told.state, told.reason, told.spent) == (
            SubmissionState.FAILED,
            Reason.HOME_UNAVAILABLE,
            False,
        )
        assert told.uses_left == world.token(found).uses_left == 1
        assert world.store.attempt(found.token.id, "attempt-1") == told
        assert len(world.home.runs) == 1
        assert world.submissions.running == 0
        (event,) = world.store.announcements(Queue.EVENT, 0, 9)
        assert event.payload["outcome"] == "failed"
    async with a_world(tmp_path, clock) as world:
        known = world.store.attempt(asked.token.id, "attempt-1")
        assert known is not None
        assert known.state is SubmissionState.UNCONFIRMED
        assert world.store.attempt(found.token.id, "attempt-1") == told


async def test_whoever_waits_hears_an_outcome_that_is_being_written_when_otsd_gives_up(
    world: World,
) -> None:
    world.home.answering.clear()
    found = await world.mint()
    attempted = await world.submissions.submit(found, "attempt-1", VISITOR)
    await until(lambda: world.home.runs)
    world.store.free.clear()
    world.home.answering.set()
    await until(lambda: world.store.settling)
    world.submissions.give_up()
    await asyncio.sleep(0)
    world.store.free.set()
    assert (await attempted.finished(SOON)).state is SubmissionState.EXECUTED


async def test_the_end_of_the_grace_ends_what_was_not_asked_yet_too(world: World) -> None:
    world.store.free.clear()
    found = await world.mint()
    waiting = asyncio.create_task(world.submit(found))
    await until(lambda: world.store.claiming)
    await world.submissions.finish(timedelta())
    world.store.free.set()
    told = await waiting
    assert (told.reason, told.spent) == (Reason.HOME_UNAVAILABLE, False)
    assert world.home.runs == []


async def test_a_full_disk_does_not_hold_up_the_end_of_what_was_not_asked(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(15), a_world(tmp_path, clock) as world:
        world.store.free.clear()
        found = await world.mint()
        waiting = asyncio.create_task(world.submit(found))
        await until(lambda: world.store.claiming)
        world.submissions.give_up()
        world.store.full_for = frozenset({"settle"})
        world.store.free.set()
        # nobody is told that the use came back, for that is not on disk
        assert (await waiting).state is SubmissionState.RUNNING
        assert world.home.runs == []
    assert "submission 1 could not be written down" in caplog.text
