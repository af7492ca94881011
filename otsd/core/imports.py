"""Taking over what another program kept: actions, and tokens whose links go on working.

``otsd.one_time_service`` reads the file. Here is what becomes of each entry: taken as it is, taken
with a change, known from an import before (and left as it is now), or refused. All of it is taken
in one transaction, or nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING, Final

from otsd.core.changes import Changes, Subject
from otsd.core.errors import Invalid
from otsd.core.manage import Actions, new_id, new_lookup
from otsd.core.ports import ConnectionState
from otsd.core.times import truncate
from otsd.core.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from otsd.core.actions import Action
    from otsd.core.codes import Code, ImportedCodes
    from otsd.core.ports import Clock, Home, Randomness, Store

CREATED_BY: Final = "import"
_DRAWN_TOGETHER: Final = 4096
_NAME_LENGTH: Final = 56  # leaves room for a number, of as many as a file can hold
_ACTION_REFUSED: Final = "its action is refused"
_DELETED_SINCE: Final = "it was deleted here since"
_ORPHAN: Final = "its action is not in the file, so it is revoked"
_PATIENCE: Final = timedelta(seconds=5)  # with Home Assistant, for the actions of a file together
_UNCHECKED: Final = "it could not be checked with Home Assistant in time"

_log = logging.getLogger(__name__)


class ImportOutcome(StrEnum):
    """What becomes of an entry."""

    TAKEN = "taken"
    CHANGED = "changed"
    KNOWN = "known"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FoundAction:
    """An action of a file, called ``source`` there; its name here is only a wish.

    ``notes`` say what is not as it was, or, where there is no ``action``, why it is refused.
    """

    source: str
    action: Action | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token of a file, the ``number``-th there; ``source`` is what its action is called.

    One that was made at no known time, or in the future, is made now.
    """

    number: int
    source: str
    code: Code
    comment: str
    max_uses: int
    uses_taken: int
    created_at: datetime | None
    expires_at: datetime | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedToken:
    """An entry that is no token to be used; ``notes`` say why."""

    number: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportFile:
    """Everything that a file holds, in its order."""

    actions: Sequence[FoundAction]
    tokens: Sequence[FoundToken | RefusedToken]


@dataclass(frozen=True, slots=True)
class ImportedAction:
    """What became of an action; ``action`` is the one here.

    ``warnings`` are what saving it would tell, where it is new and Home Assistant is connected.
    They change nothing of the outcome.
    """

    source: str
    action: Action | None
    outcome: ImportOutcome
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportedToken:
    """What became of a token; ``token`` is the one here, or how it would be.

    There is none if it is refused, or if it was deleted since an import before.
    """

    number: int
    token: Token | None
    outcome: ImportOutcome
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the entries of a file, or, after a ``dry_run``, what would.

    A brief one lists only the tokens with notes; ``counts`` are always of all entries.
    """

    dry_run: bool
    counts: Mapping[ImportOutcome, int]
    actions: Sequence[ImportedAction]
    tokens: Sequence[ImportedToken]


@dataclass(frozen=True, slots=True)
class Taken:
    """What the store made of an import, in the order of what was wanted.

    Each action with whether it is new, and each token: at the places in ``known`` as it is since
    an import before, or ``None`` if it was deleted.
    """

    actions: Sequence[tuple[Action, bool]]
    tokens: Sequence[Token | None]
    known: AbstractSet[int]


class Imports:
    """Takes files over."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        *,
        store: Store,
        home: Home,
        codes: ImportedCodes,
        now: Clock,
        changes: Changes,
        random: Randomness,
    ) -> None:
        """Take the parts."""
        self._store = store
        self._home = home
        self._actions = Actions(store=store, home=home, now=now, changes=changes)
        self._asking: set[asyncio.Task[None]] = set()
        self._codes = codes
        self._now = now
        self._changes = changes
        self._random = random

    async def take(self, file: ImportFile, *, dry_run: bool, brief: bool = False) -> ImportReport:
        """Take over what can be, or say what would become of it.

        What was taken before is left as it is now: its uses were counted here since.

        Raises:
            StorageUnavailable: nothing was taken.

        """
        now = truncate(self._now())
        random = _drawn(self._random)
        actions = {each.source: each.action for each in file.actions if each.action is not None}
        refused = {each.source for each in file.actions} - actions.keys()
        wanted = [
            each
            for each in file.tokens
            if isinstance(each, FoundToken) and each.source not in refused
        ]
        # lists show what was made last first
        wanted.sort(key=lambda each: each.created_at or now)

        def make(place: int, action: str | None) -> Token:
            return _token(wanted[place], action, now, random)

        taken = await self._store.take_over(
            list(actions.items()),
            [(self._codes.digest(each.code), each.source) for each in wanted],
            make,
            now,
            dry_run=dry_run,
        )
        if not dry_run:
            await self._look(taken)
            self._tell(taken)
        of_action = dict(zip(actions, taken.actions, strict=True))
        told_actions = [_told_action(each, of_action.get(each.source)) for each in file.actions]
        told_actions = await self._checked(told_actions)
        place_of = {each.number: place for place, each in enumerate(wanted)}
        counts = Counter(each.outcome for each in told_actions)
        told_tokens = []
        for found in file.tokens:
            place = place_of.get(found.number)
            outcome, notes = _outcome(found, place, taken, actions.keys())
            counts[outcome] += 1
            if notes or not brief:
                token = None if place is None else taken.tokens[place]
                told_tokens.append(ImportedToken(found.number, token, outcome, notes))
        return ImportReport(dry_run, counts, told_actions, told_tokens)

    async def _look(self, taken: Taken) -> None:
        """Have Home Assistant asked for what the new actions need, before a visitor comes."""
        for action, is_new in taken.actions:
            if is_new:
                await self._home.missing(action.plan)  # looks at those of all others, too
                return

    async def _checked(self, told: Sequence[ImportedAction]) -> list[ImportedAction]:
        """Add what Home Assistant says of the new actions, as far as there is time."""
        new = {
            each.action.name: each.action
            for each in told
            if each.action is not None and each.outcome is not ImportOutcome.KNOWN
        }
        if not new or self._home.status.state is not ConnectionState.CONNECTED:
            return list(told)
        doubts: dict[str, Sequence[str]] = {}
        asking = asyncio.create_task(self._ask(new, doubts), name="check what is imported")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        # a question that was begun is not cut short: others may wait for its answer, too
        await asyncio.wait({asking}, timeout=_PATIENCE.total_seconds())
        told_of = {name: tuple(doubts.get(name, (_UNCHECKED,))) for name in new}
        return [
            replace(each, warnings=told_of[each.action.name])
            if each.action is not None and each.action.name in new
            else each
            for each in told
        ]

    async def _ask(
        self, actions: Mapping[str, Action], doubts: MutableMapping[str, Sequence[str]]
    ) -> None:
        time = asyncio.get_running_loop().time
        end = time() + _PATIENCE.total_seconds()
        for name, action in actions.items():
            if time() >= end:
                return
            try:
                doubts[name] = await self._actions.validate(action.plan)
            except Invalid as error:
                doubts[name] = [fault.msg for fault in error.faults]
            except Exception:  # noqa: BLE001 - what is imported is imported
                _log.exception("the action %s could not be checked", name)
                doubts[name] = (_UNCHECKED,)

    def _tell(self, taken: Taken) -> None:
        for action, is_new in taken.actions:
            if is_new:
                self._changes.tell(Subject.ACTION, action.name)
        if len(taken.known) < len(taken.tokens):  # there may be a hundred thousand
            self._changes.tell(Subject.MANY, CREATED_BY)


def name_of(source: str) -> str:
    """Return the name of an action that was called ``source``: ``Tür öffnen`` is ``tur-offnen``."""
    plain = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_NAME_LENGTH].strip("-") or "action"


def _told_action(found: FoundAction, done: tuple[Action, bool] | None) -> ImportedAction:
    if done is None:
        return ImportedAction(found.source, None, ImportOutcome.REFUSED, found.notes)
    action, is_new = done
    if not is_new:
        return ImportedAction(found.source, action, ImportOutcome.KNOWN, ())
    outcome = ImportOutcome.CHANGED if found.notes else ImportOutcome.TAKEN
    return ImportedAction(found.source, action, outcome, found.notes)


def _outcome(
    found: FoundToken | RefusedToken, place: int | None, taken: Taken, actions: AbstractSet[str]
) -> tuple[ImportOutcome, tuple[str, ...]]:
    if isinstance(found, RefusedToken):
        return ImportOutcome.REFUSED, found.notes
    if place is None:
        return ImportOutcome.REFUSED, (_ACTION_REFUSED,)
    if place in taken.known:
        return ImportOutcome.KNOWN, () if taken.tokens[place] else (_DELETED_SINCE,)
    notes = found.notes if found.source in actions else (*found.notes, _ORPHAN)
    return ImportOutcome.CHANGED if notes else ImportOutcome.TAKEN, notes


def _token(found: FoundToken, action: str | None, now: datetime, random: Randomness) -> Token:
    """Make a token, which is revoked where its action is not known."""
    return Token(
        id=new_id(random),
        lookup=new_lookup(random),
        action=name_of(found.source) if action is None else action,
        comment=found.comment,
        max_uses=found.max_uses,
        uses_taken=found.uses_taken,
        round=0,
        valid_from=None,
        expires_at=found.expires_at,
        created_at=now if found.created_at is None else min(found.created_at, now),
        created_by=CREATED_BY,
        last_used_at=None,
        revoked_at=now if action is None else None,
        paused=False,
        device=None,
        weak=True,
    )


def _drawn(random: Randomness) -> Randomness:
    """Draw much at a time: a hundred thousand tokens would ask twice as often."""
    drawn = BytesIO()

    def draw(size: int) -> bytes:
        nonlocal drawn
        if len(part := drawn.read(size)) < size:
            drawn = BytesIO(random(_DRAWN_TOGETHER))
            part = drawn.read(size)
        return part

    return draw
