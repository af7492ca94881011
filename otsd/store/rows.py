"""Rows to objects and back: the only place that knows the order of the columns."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

from otsd.core.actions import Action, Defaults, plan
from otsd.core.ports import Announcement, Queue
from otsd.core.times import from_millis, to_millis
from otsd.core.tokens import Reason, Submission, SubmissionState, Token

Row = tuple[Any, ...]

TOKEN: Final = (
    "id, lookup, action, comment, max_uses, uses_taken, round, valid_from, expires_at, "  # noqa: S105 - columns, no password
    "created_at, created_by, last_used_at, revoked_at, paused, device, weak"
)
SUBMISSION: Final = (
    "submissions.id, tokens.id, submissions.action, attempt, state, reason, started_at, "
    "finished_at, uses_left, spent, error, remote_ip, user_agent, context_id"
)
ARCHIVED: Final = (
    "submission, tokens.id, attempts.action, attempt, state, reason, started_at, "
    "finished_at, uses_left, spent, NULL, NULL, NULL, NULL"
)
ACTION: Final = "name, title, yaml, steps, max_uses, expires_in, created_at, updated_at"

_SIGNED: Final = 1 << 63
_UNSIGNED: Final = 1 << 64


def signed(lookup: int) -> int:
    """Fold 64 bits into SQLite's integers, which have a sign."""
    return lookup - _UNSIGNED if lookup >= _SIGNED else lookup


def instant(millis: int | None) -> datetime | None:
    """Read an instant that may be absent."""
    return None if millis is None else from_millis(millis)


def millis(moment: datetime | None) -> int | None:
    """Write an instant that may be absent."""
    return None if moment is None else to_millis(moment)


def token(row: Row) -> Token:
    """Read a row of `TOKEN`."""
    return Token(
        id=row[0],
        lookup=row[1] % _UNSIGNED,
        action=row[2],
        comment=row[3],
        max_uses=row[4],
        uses_taken=row[5],
        round=row[6],
        valid_from=instant(row[7]),
        expires_at=instant(row[8]),
        created_at=from_millis(row[9]),
        created_by=row[10],
        last_used_at=instant(row[11]),
        revoked_at=instant(row[12]),
        paused=bool(row[13]),
        device=None if row[14] is None else bool(row[14]),
        weak=bool(row[15]),
    )


def token_row(token: Token) -> Row:
    """Write a row of `TOKEN`."""
    return (
        token.id,
        signed(token.lookup),
        token.action,
        token.comment,
        token.max_uses,
        token.uses_taken,
        token.round,
        millis(token.valid_from),
        millis(token.expires_at),
        to_millis(token.created_at),
        token.created_by,
        millis(token.last_used_at),
        millis(token.revoked_at),
        int(token.paused),
        None if token.device is None else int(token.device),
        int(token.weak),
    )


def submission(row: Row) -> Submission:
    """Read a row of `SUBMISSION` or `ARCHIVED`."""
    return Submission(
        id=row[0],
        token_id=row[1],
        action=row[2],
        attempt=row[3],
        state=SubmissionState(row[4]),
        reason=None if row[5] is None else Reason(row[5]),
        started_at=from_millis(row[6]),
        finished_at=instant(row[7]),
        uses_left=row[8],
        spent=bool(row[9]),
        error=row[10],
        remote_ip=row[11],
        user_agent=row[12],
        context_id=row[13],
    )


def action(row: Row) -> Action:
    """Read a row of `ACTION`."""
    steps = json.loads(row[3])
    return Action(
        name=row[0],
        title=row[1],
        yaml=row[2],
        plan=plan(steps),
        defaults=Defaults(row[4], None if row[5] is None else timedelta(seconds=row[5])),
        created_at=from_millis(row[6]),
        updated_at=from_millis(row[7]),
    )


def action_row(action: Action, now: datetime) -> Row:
    """Write a row of `ACTION`, made or replaced ``now``."""
    length = action.defaults.expires_in
    return (
        action.name,
        action.title,
        action.yaml,
        json.dumps(action.plan.steps),
        action.defaults.max_uses,
        None if length is None else int(length.total_seconds()),
        to_millis(action.created_at or now),
        to_millis(now),
    )


def announcement(row: Row) -> Announcement:
    """Read ``id, queue, payload, finished_at``."""
    return Announcement(
        id=row[0],
        queue=Queue(row[1]),
        payload=json.loads(row[2]),
        finished_at=from_millis(row[3]),
    )
