"""What the store lists, newest first, read on a thread of its own.

However many rows there are, neither visitors nor the writer wait for whoever looks at them.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sqlite3
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from otsd.core.errors import StorageUnavailable
from otsd.core.ports import Page
from otsd.core.times import to_millis
from otsd.core.tokens import Submission, SubmissionState, TokenState
from otsd.store import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from datetime import datetime

    from otsd.core.tokens import Token

P = ParamSpec("P")
R = TypeVar("R")

# whether the facts of a token, apart from its uses and switches, make it active at an instant
ACTIVE_AT: Final = "(coalesce(valid_from <= {0}, 1) AND coalesce(expires_at > {0}, 1))"
USED_UP: Final = "max_uses IS NOT NULL AND uses_taken >= max_uses"
_NOT_ENDED: Final = "revoked_at IS NULL AND coalesce(expires_at > :now, 1)"
_STATES: Final = {
    TokenState.REVOKED: "revoked_at IS NOT NULL",
    TokenState.EXPIRED: "revoked_at IS NULL AND +expires_at <= :now",
    TokenState.USED_UP: f"{_NOT_ENDED} AND {USED_UP}",
    TokenState.PAUSED: f"{_NOT_ENDED} AND NOT ({USED_UP}) AND paused = 1",
    TokenState.SCHEDULED: f"{_NOT_ENDED} AND live AND +valid_from > :now",
    TokenState.ACTIVE: f"live AND {ACTIVE_AT.format(':now')}",
}

_FROM_USED_UP: Final = (
    "SELECT seq FROM tokens INDEXED BY tokens_used_up_ending "  # noqa: S608 - no text of others
    f"WHERE revoked_at IS NULL AND {USED_UP}"
)
# Where time decides, SQLite cannot know whether they are few: the + above keeps it from an index
# that is out of order, and this finds the few.
_BY_TIME: Final = {
    TokenState.EXPIRED: "SELECT seq FROM tokens WHERE revoked_at IS NULL AND expires_at <= :now",
    TokenState.USED_UP: f"{_FROM_USED_UP} AND expires_at > :now "
    f"UNION ALL {_FROM_USED_UP} AND expires_at IS NULL",
    TokenState.SCHEDULED: "SELECT seq FROM tokens WHERE live AND valid_from > :now",
    TokenState.ACTIVE: "SELECT seq FROM tokens WHERE live AND expires_at > :now "
    "UNION ALL SELECT seq FROM tokens WHERE live AND expires_at IS NULL",
}
_OF_ACTION: Final = "SELECT seq FROM tokens WHERE action = :action"
_FEW: Final = 2_000
_SEARCHED_TOGETHER: Final = 50_000

_LIKE: Final = "%{}%"
_WILD: Final = re.compile(r"([!%_])")

# SQLite chooses a partial index only where its condition is repeated word for word
NOT_EXECUTED: Final = "state <> 'executed'"


def reading(method: Callable[P, R]) -> Callable[P, R]:
    """Turn SQLite's errors into `StorageUnavailable`."""

    @functools.wraps(method)
    def read(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except sqlite3.Error as error:
            raise StorageUnavailable(str(error)) from error

    return read


class Lists:
    """What the store lists; its methods are described where `otsd.core.ports.Store` has them."""

    # ruff: noqa: D102 - the port describes each method once

    def __init__(self, listing: sqlite3.Connection, lister: ThreadPoolExecutor) -> None:
        """Take a connection, and the one thread that uses it."""
        self._listing = listing
        self._lister = lister

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
        arguments = {
            "now": to_millis(now),
            "action": action,
            "maker": maker,
            "since": rows.millis(since),
            "words": None if words is None else _LIKE.format(_WILD.sub(r"!\1", words)),
        }
        conditions = ["true"]
        if maker is not None:
            conditions.append("created_by = :maker AND created_by GLOB 'key:*'")
        if since is not None:
            conditions.append("created_at >= :since")
        if words is not None:
            conditions.append("(comment LIKE :words ESCAPE '!' OR id LIKE :words ESCAPE '!')")
        is_narrow = maker is not None
        if action is not None:
            is_narrow = is_narrow or state is None or await self._are_few(_OF_ACTION, arguments)
            conditions.append("action = :action" if is_narrow else "+action = :action")
        if state is not None:
            conditions.append(_STATES[state])
            found = None if is_narrow else _BY_TIME.get(state)
            if found is not None and await self._are_few(found, arguments):
                conditions.append(f"seq IN ({found})")
        sql = f"SELECT {rows.TOKEN}, seq FROM tokens WHERE {' AND '.join(conditions)}"  # noqa: S608
        if words is not None:
            read = await self._search(sql, arguments, limit + 1, cursor)
        else:
            if cursor is not None:
                sql += " AND seq < :cursor"
            read = await self._read(
                f"{sql} ORDER BY seq DESC LIMIT :limit",
                {**arguments, "cursor": cursor, "limit": limit + 1},
            )
        return Page(
            [rows.token(row) for row in read[:limit]],
            read[limit - 1][-1] if len(read) > limit else None,
        )

    async def _are_few(self, sql: str, arguments: dict[str, Any]) -> bool:
        ((count,),) = await self._read(
            f"SELECT count(*) FROM (SELECT 1 FROM ({sql}) LIMIT {_FEW + 1})",  # noqa: S608
            arguments,
        )
        return bool(count <= _FEW)

    async def _search(
        self, sql: str, arguments: dict[str, Any], most: int, cursor: int | None
    ) -> list[rows.Row]:
        """Look at every token, a part of them at a time, so that other lists need not wait."""
        ((newest,),) = await self._read("SELECT coalesce(max(seq), 0) FROM tokens", {})
        end = newest + 1 if cursor is None else min(cursor, newest + 1)
        found: list[rows.Row] = []
        while end > 0 and len(found) < most:
            begin = end - _SEARCHED_TOGETHER
            found += await self._read(
                f"{sql} AND seq >= :begin AND seq < :end ORDER BY seq DESC LIMIT :limit",
                {**arguments, "begin": begin, "end": end, "limit": most - len(found)},
            )
            end = begin
        return found

    async def submissions(
        self,
        *,
        token: str | None = None,
        state: SubmissionState | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> Page[Submission]:
        conditions = ["true"]
        if token is not None:
            conditions.append("submissions.token = (SELECT seq FROM tokens WHERE id = :token)")
        if state is not None:
            conditions.append("state = :state")
            if state is not SubmissionState.EXECUTED:
                conditions.append(NOT_EXECUTED)
        if cursor is not None:
            conditions.append("submissions.id < :cursor")
        read = await self._read(
            f"SELECT {rows.SUBMISSION} FROM submissions "  # noqa: S608
            "JOIN tokens ON tokens.seq = submissions.token "
            f"WHERE {' AND '.join(conditions)} ORDER BY submissions.id DESC LIMIT :limit",
            {"token": token, "state": state, "cursor": cursor, "limit": limit + 1},
        )
        items = [rows.submission(row) for row in read[:limit]]
        return Page(items, items[-1].id if len(read) > limit else None)

    async def daily(self, bounds: Sequence[datetime]) -> Sequence[Mapping[SubmissionState, int]]:
        counted = []
        for begin, end in pairwise(bounds):
            read = await self._read(
                "SELECT state, count(*) FROM submissions "
                "WHERE started_at >= :begin AND started_at < :end GROUP BY state",
                {"begin": to_millis(begin), "end": to_millis(end)},
            )
            counted.append({SubmissionState(state): count for state, count in read})
        return counted

    async def _read(self, sql: str, arguments: dict[str, Any]) -> list[rows.Row]:
        return await self._look(lambda db: db.execute(sql, arguments).fetchall())

    async def _look(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Do what takes a while, and changes nothing, on the thread of lists."""
        read = reading(lambda: work(self._listing))
        return await asyncio.get_running_loop().run_in_executor(self._lister, read)
