"""The way of a submission, and the table of contents of the program.

    claim      take a use, on disk before Home Assistant is asked
    run        ask Home Assistant, once
    settle     write down what became of it, on disk before the visitor hears it
    announce   queue the event and the notification, in the same transaction

A submission belongs to the daemon, not to the request that brought it: a visitor who goes away
changes nothing, and whoever asks again with the same attempt joins the same submission.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from otsd.core.actions import NOTHING
from otsd.core.changes import Changes, Subject
from otsd.core.codes import Code
from otsd.core.errors import (
    Busy,
    HomeUnavailable,
    NoAnswer,
    NotAsked,
    OtsdError,
    Refused,
    StorageUnavailable,
    TargetUnavailable,
    TokenUnusable,
    UnknownToken,
)
from otsd.core.measures import Durations
from otsd.core.tokens import Outcome, Reason, SubmissionState, TokenState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from otsd.core.actions import Action
    from otsd.core.codes import Codes, ImportedCodes
    from otsd.core.ports import Announce, Announcement, Claim, Clock, Found, Home, Store
    from otsd.core.tokens import Submission, Token, Visitor

MOST_RUNNING: Final = 1_000
MOST_RUNNING_OF_A_TOKEN: Final = 100
_SETTLE_AGAIN_AFTER: Final = 1.0
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_IN_DOUBT: Final = Outcome(
    SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, "otsd could not write down the outcome"
)

_NEVER_ASKED: Final = Outcome(
    SubmissionState.FAILED,
    Reason.HOME_UNAVAILABLE,
    "otsd was stopped before it asked",
    give_back=True,
)

_log = logging.getLogger(__name__)


class Attempted:
    """An attempt on its way: first it is claimed (or refused), later it has finished."""

    def __init__(self) -> None:
        """Begin with neither."""
        loop = asyncio.get_running_loop()
        self._claimed: asyncio.Future[Submission] = loop.create_future()
        self._finished: asyncio.Future[Submission] = loop.create_future()

    async def claimed(self) -> Submission:
        """Wait until a use was taken; raises the `Refusal` or `StorageUnavailable` if none was."""
        # wait() leaves the future alone when the caller is cancelled: others may wait for it too
        await asyncio.wait((self._claimed,))
        return self._claimed.result()

    async def finished(self, within: timedelta) -> Submission:
        """Return the submission as soon as it has finished, else as it stands after ``within``.

        When otsd stops, it is returned as it stands then.
        """
        if not self._finished.done():
            await asyncio.wait((self._finished,), timeout=within.total_seconds())
        return self._finished.result() if self._finished.done() else self._claimed.result()

    @property
    def has_finished(self) -> bool:
        """Whether the end has been told."""
        return self._finished.done()

    def claim(self, submission: Submission) -> None:
        """Tell that a use was taken."""
        self._claimed.set_result(submission)

    def refuse(self, error: OtsdError) -> None:
        """Tell why no use was taken."""
        self._claimed.set_exception(error)
        self._claimed.exception()  # whoever waited may be gone, and that is no fault to log

    def give_up(self) -> None:
        """Tell whoever still waits that otsd is stopping."""
        if not self._claimed.done():
            self.refuse(Busy("otsd is stopping"))
        elif not self._finished.done() and self._claimed.exception() is None:
            self._finished.set_result(self._claimed.result())  # which says that it is running

    def finish(self, submission: Submission) -> None:
        """Tell how it ended; the first to tell is believed."""
        if not self._claimed.done():
            self._claimed.set_result(submission)
        if not self._finished.done():
            self._finished.set_result(submission)


class Submissions:
    """Admits submissions and carries them out; a context manager that owns their tasks."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        *,
        store: Store,
        home: Home,
        codes: Codes,
        imported: ImportedCodes,
        now: Clock,
        changes: Changes,
        announce: Announce,
    ) -> None:
        """Take the parts; nothing runs before the context is entered."""
        self._store = store
        self._home = home
        self._codes = codes
        self._imported = imported
        self._now = now
        self._changes = changes
        self._announce = announce
        self._tasks = asyncio.TaskGroup()
        self._running: dict[tuple[str, str], Attempted] = {}
        self._running_of: Counter[str] = Counter()
        self._carrying_out: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._closing = self._given_up = False
        self._ended = dict.fromkeys(
            (SubmissionState.EXECUTED, SubmissionState.FAILED, SubmissionState.UNCONFIRMED), 0
        )
        self.durations = Durations(*_BUCKETS)
        """How long submissions took, from taking a use until the outcome was on disk."""

    async def __aenter__(self) -> Self:
        """Settle what an earlier daemon left running: it was asked, and nobody heard the answer."""
        left = await self._store.recover(
            Outcome(
                SubmissionState.UNCONFIRMED,
                Reason.OUTCOME_UNKNOWN,
                "otsd was stopped before Home Assistant answered",
            ),
            self._now(),
            self._announce_recovered,
        )
        self._ended[SubmissionState.UNCONFIRMED] += left
        if left:
            _log.warning("%d submissions were running when otsd stopped: unconfirmed", left)
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Admit nothing more and wait for what runs."""
        await self.finish(timedelta())
        await self._tasks.__aexit__(kind, error, traceback)

    @property
    def running(self) -> int:
        """How many submissions are running."""
        return len(self._running)

    @property
    def ended(self) -> Mapping[SubmissionState, int]:
        """How many have ended since the start, by what became of them."""
        return self._ended

    async def finish(self, within: timedelta) -> None:
        """Admit nothing more, and give what runs some time; what is left will be unconfirmed."""
        self._closing = True
        if self._carrying_out:
            await asyncio.wait(self._carrying_out, timeout=within.total_seconds())
        self.give_up()

    def give_up(self) -> None:
        """Wait no longer for what runs; nothing more is asked of Home Assistant."""
        self._given_up = True
        for task in self._asking:
            task.cancel()

    # -- what a visitor asks ---------------------------------------------------------------

    def find(self, code: str) -> Found:
        """Return the token of a code.

        Raises:
            UnknownToken: no token has it; a wrong code is refused without touching the store,
                unless it looks like an imported one.

        """
        if is_imported := self._imported.has_form(code):
            found = self._store.find_imported(self._imported.digest(Code(code)))
        else:
            lookup = self._codes.lookup(code)
            found = None if lookup is None else self._store.find(lookup)
        if found is None:
            raise UnknownToken(imported=is_imported)
        return found

    def check(self, found: Found) -> Action:
        """Return the token's action if it could be submitted now, else raise the `Refusal`."""
        token = found.token
        if not found.current:
            raise TokenUnusable(token, TokenState.REVOKED)
        token.check_usable(self._now())
        action = self._store.action(token.action)
        try:
            self._home.check(NOTHING if action is None else action.plan)
        except HomeUnavailable as error:
            raise HomeUnavailable(token) from error
        if action is None:
            raise TargetUnavailable([f"the action {token.action} was deleted"])
        return action

    def title(self, token: Token) -> str | None:
        """Return the title of the token's action, as long as there is one."""
        action = self._store.action(token.action)
        return None if action is None else action.title

    async def attempt(self, token: Token, attempt: str, within: timedelta) -> Submission | None:
        """Return what became of an attempt, waiting for a running one; ``None`` if not known."""
        if running := self._running.get((token.id, attempt)):
            try:
                await running.claimed()
            except OtsdError:
                return None
            return await running.finished(within)
        return self._store.attempt(token.id, attempt)

    async def submit(self, found: Found, attempt: str, visitor: Visitor) -> Attempted:
        """Submit a token, or join the attempt if it is known; return once a use was taken.

        Raises:
            Refusal: it was not admitted.
            StorageUnavailable: no use could be taken.

        """
        token = found.token
        attempted = self._running.get((token.id, attempt))
        if attempted is None and (known := self._store.attempt(token.id, attempt)):
            attempted = Attempted()
            attempted.finish(known)
        if attempted is None:
            try:
                action = self.check(found)
            except (HomeUnavailable, TargetUnavailable) as error:
                # nothing is recorded of it, and its owner may be able to help
                _log.warning("token %s could not be used by its visitor: %s", token.id, error)
                raise
            if (
                self._closing
                or len(self._running) >= MOST_RUNNING
                or self._running_of[token.id] >= MOST_RUNNING_OF_A_TOKEN
            ):
                raise Busy
            attempted = self._running[token.id, attempt] = Attempted()
            self._running_of[token.id] += 1
            task = self._tasks.create_task(
                self._carry_out(attempted, token, attempt, visitor, action),
                name=f"submission of {token.id}",
            )
            self._carrying_out.add(task)
            task.add_done_callback(self._carrying_out.discard)
        await attempted.claimed()
        return attempted

    # -- what the daemon does --------------------------------------------------------------

    def _announce_recovered(self, claim: Claim) -> Sequence[Announcement]:
        # when it came to its end nobody knows: it counts as old since it was begun
        begun = claim.submission.started_at
        return [replace(each, finished_at=begun) for each in self._announce(claim)]

    async def _carry_out(
        self, attempted: Attempted, token: Token, attempt: str, visitor: Visitor, action: Action
    ) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            # not cut short when otsd stops: the writer takes the use all the same
            claim = await self._store.claim(
                token.id, attempt, visitor, self._now(), lookup=token.lookup
            )
        except OtsdError as error:
            attempted.refuse(error)
        except Exception:  # noqa: BLE001 - whoever waits must be answered
            _log.exception("a use could not be taken, for a reason that nobody expected")
            attempted.refuse(StorageUnavailable("an error that nobody expected"))
        else:
            if claim.submission.state is SubmissionState.RUNNING:
                attempted.claim(claim.submission)
                self._changes.tell(Subject.SUBMISSION, claim.submission.id)
                self._changes.tell(Subject.TOKEN, token.id)
                outcome = await self._run_unless_stopped(claim, action)
                self._ended[await self._settle(attempted, claim, outcome)] += 1
                self.durations.add(clock() - begun)
            else:
                attempted.finish(claim.submission)
        finally:
            attempted.give_up()
            del self._running[token.id, attempt]
            self._running_of[token.id] -= 1
            if not self._running_of[token.id]:
                del self._running_of[token.id]

    async def _run_unless_stopped(self, claim: Claim, action: Action) -> Outcome:
        task = asyncio.current_task()
        if self._given_up or task is None:
            return _NEVER_ASKED
        self._asking.add(task)
        try:
            return await self._run(claim, action)
        finally:
            self._asking.discard(task)  # settling is not cut short

    async def _run(self, claim: Claim, action: Action) -> Outcome:
        """Ask Home Assistant and judge its answer by what can have happened."""
        variables = {
            "token": {
                "id": claim.token.id,
                "comment": claim.token.comment,
                "max_uses": claim.token.max_uses,
                "uses_left": claim.token.uses_left,
            },
            "submission": {
                "id": claim.submission.id,
                "remote_ip": claim.submission.remote_ip,
            },
        }
        try:
            # it may have been replaced since it was looked at
            if (current := self._store.action(action.name)) not in (None, action):
                action = current
                self._home.check(action.plan)
            ran = await self._home.run(action.plan, variables)
        except (NotAsked, HomeUnavailable, TargetUnavailable) as error:
            return Outcome(
                SubmissionState.FAILED, Reason.HOME_UNAVAILABLE, str(error), give_back=True
            )
        except Refused as error:
            if action.plan.refundable:
                return Outcome(
                    SubmissionState.FAILED, Reason.ACTION_FAILED, str(error), give_back=True
                )
            # the error says nothing about how far it came, so the use stays spent
            return Outcome(SubmissionState.FAILED, Reason.ACTION_INCOMPLETE, str(error))
        except NoAnswer as error:
            return Outcome(SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the action may have run
            _log.exception("submission %d: an error that nobody expected", claim.submission.id)
            return Outcome(
                SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, f"otsd failed: {error!r}"
            )
        return Outcome(SubmissionState.EXECUTED, context_id=ran.context_id)

    async def _settle(
        self, attempted: Attempted, claim: Claim, outcome: Outcome
    ) -> SubmissionState:
        """Write the outcome down, however long it takes; tell the visitor when it is on disk.

        Only when the disk refuses does the visitor hear it before: Home Assistant has acted, and
        to say anything else would be untrue.
        """
        finished_at = self._now()
        while True:
            try:
                submission = await self._store.settle(claim, outcome, finished_at, self._announce)
            except StorageUnavailable as error:
                if self._given_up:
                    # whoever waits hears that it is running; the next start settles it
                    _log.error(
                        "submission %d could not be written down: %s", claim.submission.id, error
                    )
                    return SubmissionState.UNCONFIRMED
                if not attempted.has_finished:
                    _log.error(
                        "submission %d ended as %s, and the store cannot write it down yet: %s",
                        claim.submission.id,
                        outcome.state,
                        error,
                    )
                    attempted.finish(_as_it_will_be(claim.submission, outcome, finished_at))
                await asyncio.sleep(_SETTLE_AGAIN_AFTER)
            except Exception:  # noqa: BLE001 - it stays with this one submission
                _log.exception("submission %d could not be written down", claim.submission.id)
                if outcome == _IN_DOUBT:
                    # nothing simpler can be written; the next start settles it as unconfirmed
                    attempted.finish(_as_it_will_be(claim.submission, outcome, finished_at))
                    return outcome.state
                outcome = _IN_DOUBT
            else:
                break
        attempted.finish(submission)
        _log.info(
            "submission %d of token %s: %s%s",
            submission.id,
            submission.token_id,
            submission.state,
            f" ({submission.error})" if submission.error else "",
        )
        self._changes.tell(Subject.SUBMISSION, submission.id)
        self._changes.tell(Subject.FINISHED, submission.id)
        self._changes.tell(Subject.TOKEN, submission.token_id)
        return submission.state


def _as_it_will_be(submission: Submission, outcome: Outcome, finished_at: datetime) -> Submission:
    """Return what the store will say once it can write."""
    left = submission.uses_left
    return replace(
        submission,
        state=outcome.state,
        reason=outcome.reason,
        finished_at=finished_at,
        uses_left=left + 1 if outcome.give_back and left is not None else left,
        spent=not outcome.give_back,
        error=outcome.error,
        context_id=outcome.context_id,
    )
