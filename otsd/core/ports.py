"""What the rules need from the world: a store, and a home. Each has one adapter.

``otsd.store`` keeps the `Store`, ``otsd.home`` is the `Home`. The clock is any callable that
returns an aware datetime in UTC; a test passes its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from otsd.core.actions import Action, Plan
from otsd.core.tokens import Outcome, Submission, SubmissionState, Token, TokenState, Visitor

if TYPE_CHECKING:
    from otsd.core.imports import Taken

T = TypeVar("T")

Clock = Callable[[], datetime]
Randomness = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Claim:
    """A use that was taken: the submission, its token right after, and the action's title."""

    submission: Submission
    token: Token
    title: str


class Queue(StrEnum):
    """The outbox has two queues, so that a notification never holds up an event."""

    EVENT = "event"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something to tell Home Assistant until it has confirmed it."""

    queue: Queue
    payload: Mapping[str, object]
    finished_at: datetime
    id: int = 0


Announce = Callable[[Claim], Sequence[Announcement]]


@dataclass(frozen=True, slots=True)
class Found:
    """A token by its code; ``current`` is false for a link that was rotated away."""

    token: Token
    current: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, newest first; ``next`` is where the following page begins."""

    items: Sequence[T]
    next: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may be repeated: the same key and digest get the same token."""

    scope: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """Active tokens, their uses together (``None``: one has no limit), and the last use."""

    active_tokens: int
    remaining_uses: int | None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is in the store, at an instant; costs the same however much there is."""

    actions: int
    tokens: int
    submissions: int
    total: Tally
    by_action: Mapping[str, Tally]
    waiting_events: int
    waiting_notifications: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What a dashboard shows, at an instant.

    ``last`` is the submission that was the last to begin of those that have finished. ``devices``
    are the tokens with a device of their own, newest first; ``newest`` is each action's newest
    token. ``next_change`` is when the next token becomes or ceases to be active by itself.
    """

    counts: Counts
    last: Submission | None
    devices: Sequence[Token]
    newest: Mapping[str, Token]
    next_change: datetime | None


class Store(Protocol):
    """Keeps actions, tokens and submissions: what it has acknowledged is on disk.

    The plain methods read without waiting for a writer; a coroutine that changes something
    returns once the change is durable. Every method may raise `StorageUnavailable`.
    """

    # -- the submission

    def find(self, lookup: int) -> Found | None:
        """Return the token whose code, now or before a rotation, has this lookup id."""

    def find_imported(self, digest: bytes) -> Found | None:
        """Return the token that was imported under the digest of a code."""

    def attempt(self, token_id: str, attempt: str) -> Submission | None:
        """Return what became of an attempt, however long ago it was."""

    def action(self, name: str) -> Action | None:
        """Return an action by its name."""

    async def claim(
        self,
        token_id: str,
        attempt: str,
        visitor: Visitor,
        now: datetime,
        *,
        lookup: int | None = None,
    ) -> Claim:
        """Take one use and record the submission as running, or return the attempt's first claim.

        One guarded statement: of any number of claims at once, as many succeed as uses are left.
        With ``lookup`` the token must still have the link that was found by it: to find it came
        before, and it may have been rotated since.

        Raises:
            TokenUnusable: when its state does not allow it at ``now``.
            UnknownToken: when it was deleted in the meantime.

        """

    async def settle(
        self, claim: Claim, outcome: Outcome, now: datetime, announce: Announce
    ) -> Submission:
        """Write down how it ended, give the use back if so, and queue what is to be announced."""

    async def recover(self, outcome: Outcome, now: datetime, announce: Announce) -> int:
        """Settle everything that was running when the last daemon ended; return how many."""

    # -- the outbox

    def announcements(self, queue: Queue, after: int, limit: int) -> Sequence[Announcement]:
        """Return what waits in a queue beyond the id ``after``, in order."""

    async def delivered(self, queue: Queue, upto: int) -> None:
        """Forget what waits in a queue up to and including this id."""

    # -- the owner

    def actions(self) -> Sequence[Action]:
        """Return all actions, newest first."""

    async def save_action(self, action: Action, *, create: bool, now: datetime) -> Action:
        """Create or replace an action; `Conflict` when ``create`` finds the name taken."""

    async def delete_action(self, name: str, *, force: bool, now: datetime) -> int:
        """Delete an action and, with ``force``, revoke its tokens; return how many."""

    def token(self, token_id: str) -> Token | None:
        """Return a token by its public id."""

    async def tokens(  # noqa: PLR0913 - each narrows the list
        self,
        now: datetime,
        *,
        state: TokenState | None = None,
        action: str | None = None,
        maker: str | None = None,
        since: datetime | None = None,
        words: str | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> Page[Token]:
        """List tokens, newest first.

        ``maker`` is a key (``key:NAME``), ``since`` when they were made at the earliest, ``words``
        a part of their comment or id.
        """

    async def add_token(
        self, make: Callable[[], Token], request: Request | None, now: datetime
    ) -> Token:
        """Keep a new token; ``make`` is called again when its ids are taken.

        With a request that was seen before, return the token that it made then; `Conflict`
        (``request_conflict``) when the same key came with another body.
        """

    async def change_token(
        self,
        token_id: str,
        change: Callable[[Token], Token],
        request: Request | None = None,
        now: datetime | None = None,
    ) -> Token:
        """Read, change and write a token in one step; what ``change`` raises changes nothing.

        With a request that was seen before nothing is changed, as for `add_token`; it needs
        ``now``.
        """

    async def delete_token(self, token_id: str) -> None:
        """Remove a token and its history."""

    async def take_over(
        self,
        actions: Sequence[tuple[str, Action]],
        tokens: Sequence[tuple[bytes, str]],
        make: Callable[[int, str | None], Token],
        now: datetime,
        *,
        dry_run: bool,
    ) -> Taken:
        """Keep actions, by what they are called elsewhere, and tokens that are not known yet.

        All in one transaction. An action whose name is taken gets a number. Tokens are named by the
        digest of their old code, with what their action is called elsewhere; ``make`` makes the one
        at a place, for the name that its action has here, ``None`` if there is none, and is called
        again when its ids are taken. A ``dry_run`` keeps nothing, and says what would be.
        """

    async def submissions(
        self,
        *,
        token: str | None = None,
        state: SubmissionState | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> Page[Submission]:
        """List submissions, newest first."""

    async def daily(self, bounds: Sequence[datetime]) -> Sequence[Mapping[SubmissionState, int]]:
        """Count the submissions that began between each two neighbouring bounds, by state."""

    async def refund(self, submission_id: int) -> Submission:
        """Give back the use of a submission that stayed spent without being executed."""

    def claimed(self, submission_id: int) -> Claim | None:
        """Return a submission with its token and the action's title, as they are now."""

    async def counts(self, now: datetime) -> Counts:
        """Count what there is."""

    async def overview(self, now: datetime, *, devices: int, newest: bool) -> Overview:
        """Look at everything that a dashboard shows: at most so many ``devices``."""

    def recall(self, name: str) -> str | None:
        """Return a small fact that was remembered."""

    async def remember(self, name: str, value: str) -> None:
        """Keep a small fact, such as Home Assistant's time zone."""

    def newest(self) -> datetime | None:
        """Return when the newest entry was made: a clock behind that is wrong."""

    async def prune(self, keep_from: datetime, addresses_from: datetime) -> bool:
        """Drop a bounded part of what is older; return whether there is more."""


class Backup(Protocol):
    """An archive of everything that was acknowledged when it was begun; it opens every link."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def parts(self) -> AsyncIterator[bytes]:
        """Yield all of it; raises `StorageUnavailable` when the disk fails on the way."""


class Backups(Protocol):
    """Makes backups while the store is in use."""

    def begun(self) -> AbstractAsyncContextManager[Backup]:
        """Make one; it is forgotten at the end of the block. Raises `StorageUnavailable`."""


class ConnectionState(StrEnum):
    """How a connection stands, in the words of the API."""

    CONNECTED = "connected"
    CONNECTING = "connecting"
    REFUSED = "refused"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connection as its owner sees it: ``error`` is the last fault in plain words."""

    state: ConnectionState
    since: datetime
    error: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """Home Assistant said that an action has finished."""

    context_id: str | None = None
    response: object = field(default=None)


class Home(Protocol):
    """Home Assistant, over its websocket."""

    @property
    def status(self) -> ConnectionStatus:
        """How the connection stands."""

    @property
    def zone(self) -> tzinfo:
        """Home Assistant's time zone once known, else the machine's."""

    def check(self, plan: Plan) -> None:
        """Find out, without asking, whether a plan can run now.

        Raises:
            HomeUnavailable: Home Assistant is away.
            TargetUnavailable: a service or an entity is missing or unavailable.

        """

    async def run(self, plan: Plan, variables: Mapping[str, object]) -> Ran:
        """Run a plan and return when Home Assistant says that it has finished.

        Raises:
            NotAsked: nothing left for Home Assistant.
            Refused: it answered with an error.
            NoAnswer: it was asked, and the answer never came.

        """

    async def validate(self, plan: Plan) -> str | None:
        """Return what is wrong with the steps, ``None`` if nothing is; `NotAsked` when away."""

    async def missing(self, plan: Plan) -> Sequence[str]:
        """Say what of a plan Home Assistant does not have now; nothing when it is away."""

    async def running(self) -> None:
        """Return once Home Assistant is connected and ``RUNNING``, when automations hear events."""

    async def fire(self, event_type: str, data: Mapping[str, object]) -> None:
        """Fire an event; raises as `run` does."""

    async def notify(self, target: str, title: str, message: str) -> None:
        """Send a notification by a notify action or entity; raises as `run` does."""


class Household(Home, Protocol):
    """Home Assistant, and what its administrators ask of it; every method raises as `Home.run`."""

    async def services(self) -> Mapping[str, Mapping[str, object]]:
        """Return its services by domain and name, as it describes them."""

    async def states(self) -> Sequence[Mapping[str, object]]:
        """Return the state of every entity, as it tells it."""

    async def administrators(self) -> Mapping[str, str]:
        """Return the names of active administrators by the id of the user."""

    def retry(self) -> None:
        """Try to connect now, also after a refusal."""
