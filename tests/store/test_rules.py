"""The rules of tokens, held to a simple model by random histories, restarts included.

The model keeps plain facts and computes everything by brute force; the store must say the same
after every step.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from otsd.core.changes import Changes
from otsd.core.codes import Codes
from otsd.core.errors import Conflict, NotFound, TokenUnusable, UnknownToken
from otsd.core.manage import Edit, Mint, Tokens
from otsd.core.ports import Claim, Tally
from otsd.core.tokens import Outcome, Submission, SubmissionState, TokenState
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making

T = TypeVar("T")

ACTIONS = ("open-door", "light")
MOMENTS = st.sampled_from([None, *(timedelta(minutes=m) for m in (-20, -1, 0, 1, 20))])
LATER = st.sampled_from([None, *(timedelta(minutes=m) for m in (1, 2, 20, 40))])
USES = st.sampled_from([None, 1, 1, 2, 3])
OUTCOMES = st.sampled_from(
    [
        making.EXECUTED,
        making.REFUSED,
        making.NOT_ASKED,
        making.INCOMPLETE,
        making.UNCONFIRMED,
    ]
)


@dataclass
class Run:
    """A submission of the model."""

    token: str
    attempt: str
    round: int
    state: SubmissionState = SubmissionState.RUNNING
    spent: bool = True
    claim: Claim | None = None
    last: Submission | None = None


@dataclass
class Link:
    """A token of the model."""

    action: str
    max_uses: int | None
    valid_from: datetime | None
    expires_at: datetime | None
    lookup: int
    taken: int = 0
    round: int = 0
    paused: bool = False
    revoked: bool = False
    rotated: list[int] = field(default_factory=list)

    def left(self) -> int | None:
        return None if self.max_uses is None else self.max_uses - self.taken

    def state(self, now: datetime) -> TokenState:
        holds = {
            TokenState.REVOKED: self.revoked,
            TokenState.EXPIRED: self.expires_at is not None and now >= self.expires_at,
            TokenState.USED_UP: self.left() == 0,
            TokenState.PAUSED: self.paused,
            TokenState.SCHEDULED: self.valid_from is not None and now < self.valid_from,
        }
        return next((state for state, is_so in holds.items() if is_so), TokenState.ACTIVE)


class History(RuleBasedStateMachine):
    """Anything that can happen to tokens, in any order."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="otsd-rules-"))
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.links: dict[str, Link] = {}
        self.runs: dict[int, Run] = {}
        self.last_used: dict[str, datetime] = {}  # by action, and kept when its tokens are deleted
        self.counter = 0
        self.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def open(self) -> None:
        async def enter() -> SqliteStore:
            self.stack = AsyncExitStack()
            store, _ = await self.stack.enter_async_context(opened(self.folder / "data"))
            return store

        self.store = self.run(enter())
        self.owner = Tokens(
            base_url="http://localhost",
            store=self.store,
            codes=Codes(b"k" * 32),
            now=self.clock,
            changes=Changes(),
            random=self.random,
        )

    def random(self, size: int) -> bytes:
        self.counter += 1
        return self.counter.to_bytes(size, "little")

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)

    def alive(self, token: str) -> Link | None:
        """Return a token of the model; one that was deleted must be unknown to the store."""
        if token not in self.links:
            assert self.store.token(token) is None
            return None
        return self.links[token]

    # -- the owner

    @initialize()
    def actions(self) -> None:
        for name in ACTIONS:
            self.run(self.store.save_action(making.action(name), create=True, now=self.clock.now))

    @rule(
        target=tokens,
        action=st.sampled_from(ACTIONS),
        max_uses=USES,
        begin=MOMENTS,
        end=LATER,
    )
    def mint(
        self, action: str, max_uses: int | None, begin: timedelta | None, end: timedelta | None
    ) -> str:
        now = self.clock.now
        valid_from = None if begin is None else now + begin
        expires_at = None if end is None else max(now, valid_from or now) + end
        wish = Mint(action, "cli", max_uses=max_uses, valid_from=valid_from, expires_at=expires_at)
        token = self.run(self.owner.mint(wish))
        self.links[token.id] = Link(action, max_uses, valid_from, expires_at, token.lookup)
        return token.id

    @rule(token=tokens)
    def pause(self, token: str) -> None:
        if link := self.alive(token):
            self.unless_revoked(link, self.owner.pause(token), paused=True)

    @rule(token=tokens)
    def resume(self, token: str) -> None:
        if link := self.alive(token):
            self.unless_revoked(link, self.owner.resume(token), paused=False)

    def unless_revoked(self, link: Link, work: Coroutine[Any, Any, Any], **change: Any) -> None:
        if link.revoked:
            with pytest.raises(Conflict) as refused:
                self.run(work)
            assert refused.value.code == "revoked"
            return
        self.run(work)
        for name, value in change.items():
            setattr(link, name, value)

    @rule(token=tokens)
    def revoke(self, token: str) -> None:
        if link := self.alive(token):
            self.run(self.owner.revoke(token))
            link.revoked = True

    @rule(token=tokens)
    def replenish(self, token: str) -> None:
        link = self.alive(token)
        if link is None:
            return
        if link.state(self.clock.now) in (TokenState.REVOKED, TokenState.EXPIRED):
            with pytest.raises(Conflict) as refused:
                self.run(self.owner.replenish(token))
            assert refused.value.code == link.state(self.clock.now).value
            return
        assert self.run(self.owner.replenish(token)).uses_left == link.max_uses
        link.taken, link.round = 0, link.round + 1

    @rule(token=tokens, max_uses=USES)
    def edit_uses(self, token: str, max_uses: int | None) -> None:
        link = self.alive(token)
        if link is None:
            return
        work = self.owner.edit(token, Edit(max_uses=max_uses))
        if link.revoked or (max_uses is not None and max_uses < link.taken):
            with pytest.raises(Conflict):
                self.run(work)
            return
        self.run(work)
        link.max_uses = max_uses

    @rule(token=tokens, end=LATER)
    def edit_end(self, token: str, end: timedelta | None) -> None:
        if link := self.alive(token):
            now = self.clock.now
            expires_at = None if end is None else max(now, link.valid_from or now) + end
            edit = Edit(expires_at=expires_at)
            self.unless_revoked(link, self.owner.edit(token, edit), expires_at=expires_at)

    @rule(token=tokens)
    def rotate(self, token: str) -> None:
        link = self.alive(token)
        if link is None or link.revoked:
            return
        old = link.lookup
        link.lookup = self.run(self.owner.rotate(token)).lookup
        assert link.lookup != old
        link.rotated.append(old)

    @rule(token=tokens, sure=st.integers(0, 3))
    def delete(self, token: str, sure: int) -> None:
        if sure:  # rarely, so that histories grow long
            return
        if self.alive(token):
            self.run(self.owner.delete(token))
            link = self.links.pop(token)
            self.runs = {n: run for n, run in self.runs.items() if run.token != token}
            for lookup in (link.lookup, *link.rotated):
                assert self.store.find(lookup) is None
        with pytest.raises(NotFound):
            self.run(self.owner.delete(token))

    @rule(number=st.integers(1, 40))
    def refund(self, number: int) -> None:
        run = self.runs.get(number)
        if run is None:
            with pytest.raises(NotFound):
                self.run(self.owner.refund(number))
            return
        link = self.links[run.token]
        can = (
            run.state in (SubmissionState.FAILED, SubmissionState.UNCONFIRMED)
            and run.spent
            and run.round == link.round
        )
        if not can:
            with pytest.raises(Conflict):
                self.run(self.owner.refund(number))
            return
        run.last = self.run(self.owner.refund(number))
        run.spent = False
        link.taken -= 1

    # -- the visitor

    @rule(token=tokens, number=st.integers(0, 5))
    def claim(self, token: str, number: int) -> None:
        attempt = f"attempt-{number}"
        work = self.store.claim(token, attempt, making.VISITOR, self.clock.now)
        link = self.alive(token)
        if link is None:
            with pytest.raises(UnknownToken):
                self.run(work)
            return
        known = next(
            (r for r in self.runs.values() if (r.token, r.attempt) == (token, attempt)), None
        )
        if known is not None:
            assert self.run(work).submission == known.last
            return
        state = link.state(self.clock.now)
        if state is not TokenState.ACTIVE:
            with pytest.raises(TokenUnusable) as refused:
                self.run(work)
            assert refused.value.state is state
            return
        claim = self.run(work)
        link.taken += 1
        assert claim.submission.uses_left == link.left()
        assert claim.submission.id not in self.runs
        self.runs[claim.submission.id] = Run(
            token, attempt, link.round, claim=claim, last=claim.submission
        )

    @precondition(lambda self: any(run.claim for run in self.runs.values()))
    @rule(data=st.data(), outcome=OUTCOMES)
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        running = [number for number, run in self.runs.items() if run.claim]
        run = self.runs[data.draw(st.sampled_from(running))]
        assert run.claim
        work = self.store.settle(run.claim, outcome, self.clock.now, making.ANNOUNCE)
        run.last = self.run(work)
        run.claim, run.state, run.spent = None, outcome.state, not outcome.give_back
        link = self.links[run.token]
        if outcome.give_back and run.round == link.round:
            link.taken -= 1
            assert run.last.uses_left == link.left()
        if not outcome.give_back:
            self.used(run)
        assert run.last.state is outcome.state

    def used(self, run: Run) -> None:
        assert run.last
        action, moment = self.links[run.token].action, run.last.started_at
        self.last_used[action] = max(self.last_used.get(action, moment), moment)

    # -- time and power

    @rule(seconds=st.sampled_from([0.001, 1, 59, 61, 1200]))
    def time_passes(self, seconds: float) -> None:
        self.clock.move(seconds=seconds)

    @rule(minutes=st.sampled_from([1, 30]))
    def the_clock_is_put_back(self, minutes: int) -> None:
        self.clock.move(minutes=-minutes)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.open()
        left = [run for run in self.runs.values() if run.claim]
        work = self.store.recover(making.UNCONFIRMED, self.clock.now, making.ANNOUNCE)
        assert self.run(work) == len(left)
        for run in left:
            run.claim, run.state = None, SubmissionState.UNCONFIRMED
            run.last = self.store.attempt(run.token, run.attempt)
            self.used(run)

    # -- what must hold after every step

    @invariant()
    def every_token_is_as_the_model_says(self) -> None:
        now = self.clock.now
        for token_id, link in self.links.items():
            token = self.store.token(token_id)
            assert token is not None
            assert token.uses_left == link.left()
            assert token.uses_taken == link.taken
            assert token.state(now) is link.state(now)
            found = self.store.find(link.lookup)
            assert found is not None
            assert found.current
            assert found.token == token
            for lookup in link.rotated:
                old = self.store.find(lookup)
                assert old is not None
                assert not old.current
                assert old.token == token

    @invariant()
    def no_token_was_executed_more_often_than_it_allows(self) -> None:
        for token_id, link in self.links.items():
            spent = sum(
                run.spent
                for run in self.runs.values()
                if run.token == token_id and run.round == link.round
            )
            assert spent == link.taken
            assert link.max_uses is None or spent <= link.max_uses

    @invariant()
    def a_repeated_attempt_finds_the_first_record(self) -> None:
        for run in self.runs.values():
            known = self.store.attempt(run.token, run.attempt)
            assert known is not None
            assert known == run.last
            assert (known.state, known.spent) == (run.state, run.spent)

    @invariant()
    def the_lists_are_those_of_brute_force(self) -> None:
        now = self.clock.now
        newest_first = list(reversed(self.links))
        for state in TokenState:
            page = self.run(self.store.tokens(now, state=state))
            expected = [name for name in newest_first if self.links[name].state(now) is state]
            assert [token.id for token in page.items] == expected
            assert page.next is None
        page = self.run(self.store.tokens(now, state=TokenState.ACTIVE, action="light"))
        assert {token.id for token in page.items} == {
            name
            for name, link in self.links.items()
            if link.action == "light" and link.state(now) is TokenState.ACTIVE
        }

    @invariant()
    def the_counts_are_those_of_brute_force(self) -> None:
        now = self.clock.now
        counts = self.run(self.store.counts(now))
        assert counts.tokens == len(self.links)
        assert counts.submissions == len(self.runs)

        def tally(links: list[Link], used: datetime | None) -> Tally:
            active = [link for link in links if link.state(now) is TokenState.ACTIVE]
            left = [link.left() for link in active]
            return Tally(len(active), None if None in left else sum(n or 0 for n in left), used)

        last = max(self.last_used.values(), default=None)
        assert counts.total == tally(list(self.links.values()), last)
        for name in ACTIONS if counts.actions else ():
            ours = [link for link in self.links.values() if link.action == name]
            assert counts.by_action[name] == tally(ours, self.last_used.get(name))


History.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestTheRulesHoldInAnyHistory = History.TestCase
