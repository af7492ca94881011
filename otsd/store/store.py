"""The store: what `otsd.core.ports.Store` promises, in SQL.

Point reads run on the event loop, on a connection of their own: a few microseconds from SQLite's
cache, and never behind a writer. Lists and counts run on a reading thread, writes on the writer's.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otsd.core.errors import (
    Conflict,
    NotFound,
    StartError,
    StorageUnavailable,
    TokenUnusable,
    UnknownToken,
)
from otsd.core.imports import Taken
from otsd.core.ports import Claim, Counts, Found, Overview, Queue, Tally
from otsd.core.times import from_millis, to_millis
from otsd.core.tokens import DEVICE_STAYS, Submission, SubmissionState, TokenState
from otsd.store import database, imports, rows
from otsd.store.access import SqliteAccess
from otsd.store.lists import ACTIVE_AT, NOT_EXECUTED, USED_UP, Lists, reading
from otsd.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from otsd.core.actions import Action
    from otsd.core.ports import Announce, Announcement, Request
    from otsd.core.tokens import Outcome, Token, Visitor
    from otsd.store.key import InstanceKey

_PRUNED_TOGETHER: Final = 500
_REQUESTS_KEPT_MILLIS: Final = 10 * 60 * 1000
_TRIES: Final = 8
# word for word that of the index
_WITH_DEVICE: Final = "revoked_at IS NULL AND coalesce(device, max_uses IS NULL OR max_uses <> 1)"


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[SqliteStore, InstanceKey]]:
    """Open the store of a directory for one daemon, and its key.

    Raises:
        StartError: it cannot be used, and why.

    """
    async with AsyncExitStack() as stack:
        stack.enter_context(database.held(directory))
        key = database.prepare(directory, database.schemas())
        path = directory / database.NAME
        try:
            reader = stack.enter_context(closing(database.connect(path, write=False)))
            writer = Writer(database.connect(path, write=True))
            stack.push_async_callback(writer.close)
            listing = stack.enter_context(closing(database.connect(path, write=False)))
            lister = ThreadPoolExecutor(1, thread_name_prefix="otsd-lister")
            # before its connection is closed: a thread that reads a closed one can end the process
            stack.callback(lister.shutdown)
            store = SqliteStore(reader, listing, lister, writer)
        except (sqlite3.Error, StorageUnavailable, ValueError) as error:
            msg = f"The database {path} cannot be read: {error}. Restore a backup."
            raise StartError(msg) from error
        yield store, key


class SqliteStore(Lists):
    """The one adapter of the port `otsd.core.ports.Store`, where its methods are described."""

    # ruff: noqa: D102 - the port describes each method once

    def __init__(
        self,
        reader: sqlite3.Connection,
        listing: sqlite3.Connection,
        lister: ThreadPoolExecutor,
        writer: Writer,
    ) -> None:
        """Take the connections, each used by one thread, and read the actions, which are few."""
        super().__init__(listing, lister)
        self._reader = reader
        self._writer = writer
        self.writes = writer.durations
        """How long writes take."""
        self.access = SqliteAccess(reader, writer)
        """Sessions and keys."""
        read = reader.execute(f"SELECT {rows.ACTION} FROM actions ORDER BY seq")  # noqa: S608
        self._actions: dict[str, Action] = {row[0]: rows.action(row) for row in read}

    # -- the submission --------------------------------------------------------------------

    @reading
    def find(self, lookup: int) -> Found | None:
        key = (rows.signed(lookup),)
        row = self._reader.execute(
            f"SELECT {rows.TOKEN} FROM tokens WHERE lookup = ?",  # noqa: S608
            key,
        ).fetchone()
        if row is not None:
            return Found(rows.token(row), current=True)
        row = self._reader.execute(
            f"SELECT {rows.TOKEN} FROM tokens "  # noqa: S608
            "WHERE seq = (SELECT token FROM rotated WHERE lookup = ?)",
            key,
        ).fetchone()
        return None if row is None else Found(rows.token(row), current=False)

    @reading
    def find_imported(self, digest: bytes) -> Found | None:
        token = imports.find(self._reader, digest)
        return None if token is None else Found(token, current=token.weak)

    @reading
    def attempt(self, token_id: str, attempt: str) -> Submission | None:
        return _attempt(self._reader, token_id, attempt)

    def action(self, name: str) -> Action | None:
        return self._actions.get(name)

    async def claim(
        self,
        token_id: str,
        attempt: str,
        visitor: Visitor,
        now: datetime,
        *,
        lookup: int | None = None,
    ) -> Claim:
        at = to_millis(now)
        link = None if lookup is None else rows.signed(lookup)

        def work(db: sqlite3.Connection) -> Claim:
            known = _attempt(db, token_id, attempt)
            if known is not None:
                return self._claim(known, _token(db, token_id))
            # The guard and the taking are one statement: nothing can come between them.
            row = db.execute(
                "UPDATE tokens SET uses_taken = uses_taken + 1 "  # noqa: S608
                f"WHERE id = :id AND lookup = coalesce(:link, lookup) AND live "
                f"AND {ACTIVE_AT.format(':now')} RETURNING {rows.TOKEN}, seq",
                {"id": token_id, "link": link, "now": at},
            ).fetchone()
            if row is None:
                token = _find_token(db, token_id)
                if token is None:
                    raise UnknownToken
                if lookup not in (None, token.lookup):
                    raise TokenUnusable(token, TokenState.REVOKED)
                token.check_usable(now)
                raise StorageUnavailable("the guard and the rule of a token's state disagree")
            token = rows.token(row)
            cursor = db.execute(
                "INSERT INTO submissions (token, action, attempt, state, started_at, uses_left, "
                "spent, round, remote_ip, user_agent) "
                "VALUES (?, ?, ?, 'running', ?, ?, 1, ?, ?, ?)",
                (
                    row[-1],
                    token.action,
                    attempt,
                    at,
                    token.uses_left,
                    token.round,
                    visitor.remote_ip,
                    visitor.user_agent,
                ),
            )
            submission = Submission(
                id=cursor.lastrowid or 0,
                token_id=token_id,
                action=token.action,
                attempt=attempt,
                state=SubmissionState.RUNNING,
                reason=None,
                started_at=from_millis(at),
                finished_at=None,
                uses_left=token.uses_left,
                spent=True,
                error=None,
                remote_ip=visitor.remote_ip,
                user_agent=visitor.user_agent,
                context_id=None,
            )
            return self._claim(submission, token)

        return await self._writer.write(work)

    def _claim(self, submission: Submission, token: Token) -> Claim:
        action = self._actions.get(submission.action)
        return Claim(submission, token, action.title if action else submission.action)

    async def settle(
        self, claim: Claim, outcome: Outcome, now: datetime, announce: Announce
    ) -> Submission:
        return await self._writer.write(lambda db: _settle(db, claim, outcome, now, announce))

    async def recover(self, outcome: Outcome, now: datetime, announce: Announce) -> int:
        def work(db: sqlite3.Connection) -> int:
            left = db.execute(
                f"SELECT {rows.SUBMISSION} FROM submissions "  # noqa: S608
                "JOIN tokens ON tokens.seq = submissions.token "
                f"WHERE state = 'running' AND {NOT_EXECUTED} ORDER BY submissions.id"
            ).fetchall()
            for row in left:
                submission = rows.submission(row)
                claim = self._claim(submission, _token(db, submission.token_id))
                _settle(db, claim, outcome, now, announce)
            return len(left)

        return await self._writer.write(work)

    # -- the outbox ------------------------------------------------------------------------

    @reading
    def announcements(self, queue: Queue, after: int, limit: int) -> Sequence[Announcement]:
        read = self._reader.execute(
            "SELECT id, queue, payload, finished_at FROM outbox "
            "WHERE queue = ? AND id > ? ORDER BY id LIMIT ?",
            (queue.value, after, limit),
        )
        return [rows.announcement(row) for row in read]

    async def delivered(self, queue: Queue, upto: int) -> None:
        await self._writer.write(
            lambda db: db.execute(
                "DELETE FROM outbox WHERE queue = ? AND id <= ?", (queue.value, upto)
            )
        )

    # -- actions ---------------------------------------------------------------------------

    def actions(self) -> Sequence[Action]:
        return list(reversed(self._actions.values()))

    async def save_action(self, action: Action, *, create: bool, now: datetime) -> Action:
        def work(db: sqlite3.Connection) -> Action:
            values = rows.action_row(action, now)
            marks = ", ".join("?" * len(values))
            try:
                row = db.execute(
                    f"INSERT INTO actions ({rows.ACTION}) VALUES ({marks}) "  # noqa: S608
                    + (
                        ""
                        if create
                        else "ON CONFLICT (name) DO UPDATE SET title = excluded.title, "
                        "yaml = excluded.yaml, steps = excluded.steps, "
                        "max_uses = excluded.max_uses, expires_in = excluded.expires_in, "
                        "updated_at = excluded.updated_at "
                    )
                    + f"RETURNING {rows.ACTION}",
                    values,
                ).fetchone()
            except sqlite3.IntegrityError as error:
                msg = f"There is an action {action.name!r} already; PUT replaces it."
                raise Conflict("action_exists", msg) from error
            return rows.action(row)

        def kept(saved: Action) -> None:
            self._actions[saved.name] = saved

        return await self._writer.write(work, kept)

    async def delete_action(self, name: str, *, force: bool, now: datetime) -> int:
        def revoke_some(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE tokens SET revoked_at = ? WHERE seq IN (SELECT seq FROM tokens "
                "WHERE action = ? AND revoked_at IS NULL LIMIT ?)",
                (to_millis(now), name, _PRUNED_TOGETHER),
            ).rowcount

        def work(db: sqlite3.Connection) -> int:
            late = 0
            while force and (some := revoke_some(db)):  # made since the last was revoked
                late += some
            using = "SELECT 1 FROM tokens WHERE action = ? AND revoked_at IS NULL LIMIT 1"
            if db.execute(using, (name,)).fetchone():
                msg = (
                    f"Tokens that are not revoked use the action {name!r}; revoke them, "
                    "or delete it with force, which revokes them."
                )
                raise Conflict("action_in_use", msg)
            if not db.execute("DELETE FROM actions WHERE name = ?", (name,)).rowcount:
                raise NotFound("action", name)
            # another action of this name is not what was imported
            db.execute("DELETE FROM imported_actions WHERE name = ?", (name,))
            return late

        def kept(_: int) -> None:
            self._actions.pop(name, None)

        # a little at a time, so that submissions go on; the action is the last to go
        revoked = 0
        while force and name in self._actions and (some := await self._writer.write(revoke_some)):
            revoked += some
        return revoked + await self._writer.write(work, kept)

    # -- tokens ----------------------------------------------------------------------------

    @reading
    def token(self, token_id: str) -> Token | None:
        return _find_token(self._reader, token_id)

    async def add_token(
        self, make: Callable[[], Token], request: Request | None, now: datetime
    ) -> Token:
        return await self._writer.write(
            lambda db: _once(db, request, now, lambda: _insert(db, make))
        )

    async def change_token(
        self,
        token_id: str,
        change: Callable[[Token], Token],
        request: Request | None = None,
        now: datetime | None = None,
    ) -> Token:
        def work(db: sqlite3.Connection) -> Token:
            old = _token(db, token_id)
            new = change(old)
            if new.lookup != old.lookup:
                db.execute(
                    "INSERT INTO rotated SELECT lookup, seq FROM tokens WHERE id = ?", (token_id,)
                )
            if new != old:
                marks = ", ".join("?" * len(rows.token_row(new)))
                db.execute(
                    f"UPDATE tokens SET ({rows.TOKEN}) = ({marks}) WHERE id = ?",  # noqa: S608
                    (*rows.token_row(new), token_id),
                )
            return new

        return await self._writer.write(lambda db: _once(db, request, now, lambda: work(db)))

    async def delete_token(self, token_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM tokens WHERE id = ?", (token_id,)).rowcount:
                raise NotFound("token", token_id)

        await self._writer.write(work)

    async def take_over(
        self,
        actions: Sequence[tuple[str, Action]],
        tokens: Sequence[tuple[bytes, str]],
        make: Callable[[int, str | None], Token],
        now: datetime,
        *,
        dry_run: bool,
    ) -> Taken:
        def kept(taken: Taken) -> None:
            self._actions |= {action.name: action for action, is_new in taken.actions if is_new}

        if dry_run:
            return await self._look(lambda db: imports.look(db, actions, tokens, make))
        return await self._writer.write(
            lambda db: imports.take(db, actions, tokens, make, now), kept
        )

    # -- submissions -----------------------------------------------------------------------

    async def refund(self, submission_id: int) -> Submission:
        def work(db: sqlite3.Connection) -> Submission:
            row = db.execute(
                f"SELECT {rows.SUBMISSION}, submissions.round FROM submissions "  # noqa: S608
                "JOIN tokens ON tokens.seq = submissions.token WHERE submissions.id = ?",
                (submission_id,),
            ).fetchone()
            if row is None:
                raise NotFound("submission", submission_id)
            submission = rows.submission(row)
            if submission.state in (SubmissionState.RUNNING, SubmissionState.EXECUTED):
                msg = f"Submission {submission_id} is {submission.state}: its use cannot come back."
                raise Conflict("not_refundable", msg)
            if not submission.spent:
                msg = f"The use of submission {submission_id} has come back already."
                raise Conflict("not_spent", msg)
            left = _give_back(db, submission.token_id, row[-1])
            if left is None:
                msg = f"The token was replenished after submission {submission_id}."
                raise Conflict("replenished", msg)
            db.execute("UPDATE submissions SET spent = 0 WHERE id = ?", (submission_id,))
            return replace(submission, spent=False)

        return await self._writer.write(work)

    @reading
    def claimed(self, submission_id: int) -> Claim | None:
        row = self._reader.execute(
            f"SELECT {rows.SUBMISSION} FROM submissions "  # noqa: S608
            "JOIN tokens ON tokens.seq = submissions.token WHERE submissions.id = ?",
            (submission_id,),
        ).fetchone()
        if row is None:
            return None
        submission = rows.submission(row)
        token = _find_token(self._reader, submission.token_id)
        return None if token is None else self._claim(submission, token)

    # -- counting, remembering, forgetting ---------------------------------------------------

    async def counts(self, now: datetime) -> Counts:
        at = to_millis(now)
        ((behind,),) = await self._read(
            "SELECT EXISTS (SELECT 1 FROM tokens, horizon WHERE live "
            "AND valid_from > min(at, :now) AND valid_from <= max(at, :now)) "
            "OR EXISTS (SELECT 1 FROM tokens, horizon WHERE live "
            "AND expires_at > min(at, :now) AND expires_at <= max(at, :now))",
            {"now": at},
        )
        if behind:
            await self._writer.write(lambda db: _move_horizon(db, at))
        tallies = await self._read(
            "SELECT action, tokens, active, remaining, unlimited, last_used_at FROM tallies", {}
        )
        ((submissions, events, notifications),) = await self._read(
            "SELECT (SELECT value FROM totals WHERE name = 'submissions'), "
            "(SELECT count(*) FROM outbox WHERE queue = 'event'), "
            "(SELECT count(*) FROM outbox WHERE queue = 'notification')",
            {},
        )
        return Counts(
            actions=len(self._actions),
            tokens=sum(row[1] for row in tallies),
            submissions=submissions,
            total=_tally(tallies),
            by_action={name: _tally([]) for name in self._actions}
            | {row[0]: _tally([row]) for row in tallies if row[0] in self._actions},
            waiting_events=events,
            waiting_notifications=notifications,
        )

    async def overview(self, now: datetime, *, devices: int, newest: bool) -> Overview:
        counts = await self.counts(now)
        at = to_millis(now)
        last = await self._read(
            f"SELECT {rows.SUBMISSION} FROM submissions "  # noqa: S608
            "JOIN tokens ON tokens.seq = submissions.token WHERE state <> 'running' "
            "ORDER BY submissions.id DESC LIMIT 1",
            {},
        )
        with_device = await self._read(
            f"SELECT {rows.TOKEN} FROM tokens WHERE {_WITH_DEVICE} "  # noqa: S608
            f"AND coalesce(expires_at > :gone, 1) "
            f"AND NOT ({USED_UP} AND coalesce(last_used_at <= :gone, 0)) "
            "ORDER BY seq DESC LIMIT :devices",
            {"gone": to_millis(now - DEVICE_STAYS), "devices": devices},
        )
        newest_of = await self._read(
            f"SELECT {rows.TOKEN} FROM tokens WHERE :newest AND seq IN "  # noqa: S608
            "(SELECT (SELECT max(seq) FROM tokens WHERE action = name) FROM actions)",
            {"newest": newest},
        )
        ((next_change,),) = await self._read(
            "SELECT min(at) FROM ("
            "SELECT min(valid_from) AS at FROM tokens WHERE live AND valid_from > :now "
            "UNION ALL SELECT min(expires_at) FROM tokens WHERE live AND expires_at > :now)",
            {"now": at},
        )
        return Overview(
            counts=counts,
            last=rows.submission(last[0]) if last else None,
            devices=[rows.token(row) for row in with_device],
            newest={row[2]: rows.token(row) for row in newest_of},
            next_change=rows.instant(next_change),
        )

    @reading
    def recall(self, name: str) -> str | None:
        row = self._reader.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0]).decode()

    async def remember(self, name: str, value: str) -> None:
        await self._writer.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value.encode())
            )
        )

    @reading
    def newest(self) -> datetime | None:
        (newest,) = self._reader.execute(
            "SELECT max(coalesce((SELECT created_at FROM tokens ORDER BY seq DESC LIMIT 1), 0), "
            "coalesce((SELECT started_at FROM submissions ORDER BY id DESC LIMIT 1), 0))"
        ).fetchone()
        return from_millis(newest) if newest else None

    async def prune(self, keep_from: datetime, addresses_from: datetime) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            return _prune(db, to_millis(keep_from)) | _blank(db, to_millis(addresses_from))

        return await self._writer.write(work)


# -- inside a transaction of the writer ------------------------------------------------------


def _find_token(db: sqlite3.Connection, token_id: str) -> Token | None:
    row = db.execute(
        f"SELECT {rows.TOKEN} FROM tokens WHERE id = ?",  # noqa: S608
        (token_id,),
    ).fetchone()
    return None if row is None else rows.token(row)


def _token(db: sqlite3.Connection, token_id: str) -> Token:
    if (token := _find_token(db, token_id)) is None:
        raise NotFound("token", token_id)
    return token


def _attempt(db: sqlite3.Connection, token_id: str, attempt: str) -> Submission | None:
    row = db.execute(
        f"SELECT {rows.SUBMISSION} FROM tokens JOIN submissions "  # noqa: S608
        "ON submissions.token = tokens.seq AND attempt = :attempt WHERE tokens.id = :id "
        f"UNION ALL SELECT {rows.ARCHIVED} FROM tokens JOIN attempts "
        "ON attempts.token = tokens.seq AND attempt = :attempt WHERE tokens.id = :id",
        {"id": token_id, "attempt": attempt},
    ).fetchone()
    return None if row is None else rows.submission(row)


def _settle(
    db: sqlite3.Connection, claim: Claim, outcome: Outcome, now: datetime, announce: Announce
) -> Submission:
    submission = claim.submission
    uses_left = submission.uses_left
    if outcome.give_back:
        left = _give_back(db, submission.token_id, claim.token.round)
        uses_left = uses_left if left is None else left[0]
    else:
        db.execute(
            "UPDATE tokens SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?",
            (to_millis(submission.started_at), submission.token_id),
        )
    settled = replace(
        submission,
        state=outcome.state,
        reason=outcome.reason,
        finished_at=from_millis(to_millis(now)),
        uses_left=uses_left,
        spent=not outcome.give_back,
        error=outcome.error,
        context_id=outcome.context_id,
    )
    db.execute(
        "UPDATE submissions SET state = ?, reason = ?, finished_at = ?, uses_left = ?, spent = ?, "
        "error = ?, context_id = ? WHERE id = ?",
        (
            settled.state.value,
            settled.reason,
            to_millis(now),
            settled.uses_left,
            int(settled.spent),
            settled.error,
            settled.context_id,
            settled.id,
        ),
    )
    # announced even if the owner deleted the token meanwhile: it did happen
    for announcement in announce(replace(claim, submission=settled)):
        db.execute(
            "INSERT INTO outbox (queue, payload, finished_at) VALUES (?, ?, ?)",
            (
                announcement.queue.value,
                json.dumps(announcement.payload),
                to_millis(announcement.finished_at),
            ),
        )
    return settled


def _give_back(
    db: sqlite3.Connection, token_id: str, taken_in_round: int
) -> tuple[int | None] | None:
    """Return a use; the uses left after it in a tuple, ``None`` if a replenishing came before."""
    row = db.execute(
        "UPDATE tokens SET uses_taken = uses_taken - 1 "
        "WHERE id = ? AND round = ? AND uses_taken > 0 RETURNING max_uses - uses_taken",
        (token_id, taken_in_round),
    ).fetchone()
    return None if row is None else (row[0],)


def _once(
    db: sqlite3.Connection, request: Request | None, now: datetime | None, work: Callable[[], Token]
) -> Token:
    """Do the work of a request, or return the token that it was done to when it came before."""
    if request is None or now is None:
        return work()
    at = to_millis(now)
    # somebody may send a code as the key of his request, and none is kept in clear
    key = hashlib.sha256(request.key.encode()).hexdigest()
    db.execute("DELETE FROM requests WHERE created_at <= ?", (at - _REQUESTS_KEPT_MILLIS,))
    known = db.execute(
        "SELECT digest, token_id FROM requests WHERE scope = ? AND key = ?", (request.scope, key)
    ).fetchone()
    if known is not None:
        if bytes(known[0]) != request.digest:
            msg = (
                f"The request {request.key!r} came before with another body; "
                "give this one an id of its own."
            )
            raise Conflict("request_conflict", msg)
        if (token := _find_token(db, known[1])) is None:
            msg = f"The token of the request {request.key!r} was deleted since."
            raise Conflict("token_deleted", msg)
        return token
    token = work()
    db.execute(
        "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?)",
        (request.scope, key, request.digest, token.id, at),
    )
    return token


def _insert(db: sqlite3.Connection, make: Callable[[], Token]) -> Token:
    for _ in range(_TRIES):
        token = make()
        if not db.execute("SELECT 1 FROM actions WHERE name = ?", (token.action,)).fetchone():
            raise NotFound("action", token.action)
        values = rows.token_row(token)
        row = db.execute(
            f"INSERT INTO tokens ({rows.TOKEN}) SELECT {', '.join('?' * len(values))} "  # noqa: S608
            "WHERE NOT EXISTS (SELECT 1 FROM rotated WHERE lookup = ?) "
            "ON CONFLICT DO NOTHING RETURNING seq",
            (*values, rows.signed(token.lookup)),
        ).fetchone()
        if row is not None:
            return token
    msg = "no free id was found"
    raise StorageUnavailable(msg)


def _tally(tallies: Sequence[rows.Row]) -> Tally:
    unlimited = sum(row[4] for row in tallies)
    used = [row[5] for row in tallies if row[5] is not None]
    return Tally(
        sum(row[2] for row in tallies),
        None if unlimited else sum(row[3] for row in tallies),
        rows.instant(max(used, default=None)),
    )


def _move_horizon(db: sqlite3.Connection, now: int) -> None:
    """Let the tallies hold for another instant: look at what begins or ends in between."""
    ((at,),) = db.execute("SELECT at FROM horizon").fetchall()
    change = f"live * ({ACTIVE_AT.format(':now')} - {ACTIVE_AT.format(':at')})"
    db.execute(
        "UPDATE tallies SET active = active + more, remaining = remaining + uses, "  # noqa: S608
        "unlimited = unlimited + endless FROM ("
        f" SELECT action AS of, sum({change}) AS more,"
        f" sum({change} * coalesce(max_uses - uses_taken, 0)) AS uses,"
        f" sum({change} * (max_uses IS NULL)) AS endless FROM tokens WHERE seq IN ("
        "  SELECT seq FROM tokens WHERE live AND valid_from > :low AND valid_from <= :high"
        "  UNION SELECT seq FROM tokens WHERE live AND expires_at > :low AND expires_at <= :high"
        " ) GROUP BY action) WHERE action = of",
        {"at": at, "now": now, "low": min(at, now), "high": max(at, now)},
    )
    db.execute("UPDATE horizon SET at = ?", (now,))


def _prune(db: sqlite3.Connection, keep_from: int) -> bool:
    """Move the oldest submissions to `attempts`; ids are in the order of time."""
    old = [
        row[0]
        for row in db.execute(
            "SELECT id, started_at, state FROM submissions ORDER BY id LIMIT ?", (_PRUNED_TOGETHER,)
        )
        if row[1] < keep_from and row[2] != SubmissionState.RUNNING
    ]
    for submission in old:
        db.execute(
            "INSERT INTO attempts SELECT token, attempt, id, action, state, reason, started_at, "
            "finished_at, uses_left, spent FROM submissions WHERE id = ?",
            (submission,),
        )
        db.execute("DELETE FROM submissions WHERE id = ?", (submission,))
    return len(old) == _PRUNED_TOGETHER


def _blank(db: sqlite3.Connection, addresses_from: int) -> bool:
    """Blank the addresses of the next submissions in line, and of events that still wait."""
    row = db.execute("SELECT value FROM meta WHERE name = 'blanked'").fetchone()
    begin = int(bytes(row[0])) if row else 0
    old = db.execute(
        "SELECT max(id), count(*) FROM (SELECT id, started_at FROM submissions WHERE id > ? "
        "ORDER BY id LIMIT ?) WHERE started_at < ?",
        (begin, _PRUNED_TOGETHER, addresses_from),
    ).fetchone()
    db.execute(
        "UPDATE outbox SET payload = json_set(payload, '$.remote_ip', NULL, '$.user_agent', NULL) "
        "WHERE finished_at < ?",
        (addresses_from,),
    )
    if not old[1]:
        return False
    db.execute(
        "UPDATE submissions SET remote_ip = NULL, user_agent = NULL WHERE id > ? AND id <= ?",
        (begin, old[0]),
    )
    db.execute("INSERT OR REPLACE INTO meta VALUES ('blanked', ?)", (str(old[0]).encode(),))
    return bool(old[1] == _PRUNED_TOGETHER)
