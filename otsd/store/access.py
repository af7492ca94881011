"""Sessions and API keys in SQL: what `otsd.core.access.Access` promises."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Final

from otsd.core.access import ApiKey, Scope, Session
from otsd.core.errors import Conflict, NotFound, StorageUnavailable
from otsd.core.times import from_millis, to_millis
from otsd.store import rows

if TYPE_CHECKING:
    from datetime import datetime

    from otsd.store.writer import Writer

_SESSION: Final = "user_id, user_name, refresh, created_at, seen_at, asked_at"
_KEY: Final = "id, name, scope, actions, created_at, created_by, expires_at, last_used_at"


class SqliteAccess:
    """The one adapter of the port `otsd.core.access.Access`, where its methods are described."""

    # ruff: noqa: D102 - the port describes each method once

    def __init__(self, reader: sqlite3.Connection, writer: Writer) -> None:
        """Take the connection of the event loop, and the writer."""
        self._reader = reader
        self._writer = writer

    # -- sessions ----------------------------------------------------------------------------

    def session(self, digest: bytes) -> Session | None:
        row = self._one(f"SELECT {_SESSION} FROM sessions WHERE digest = ?", digest)  # noqa: S608
        return None if row is None else _session(row)

    async def begin_session(self, digest: bytes, session: Session) -> None:
        values = (
            digest,
            session.user_id,
            session.user_name,
            session.refresh,
            to_millis(session.created_at),
            to_millis(session.seen_at),
            to_millis(session.asked_at),
        )
        await self._writer.write(
            lambda db: db.execute(
                f"INSERT INTO sessions (digest, {_SESSION}) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        )

    async def update_session(self, digest: bytes, session: Session) -> None:
        values = (
            session.user_name,
            to_millis(session.seen_at),
            to_millis(session.asked_at),
            digest,
        )
        await self._writer.write(
            lambda db: db.execute(
                "UPDATE sessions SET user_name = ?, seen_at = max(seen_at, ?), "
                "asked_at = max(asked_at, ?) WHERE digest = ?",
                values,
            )
        )

    async def end_session(self, digest: bytes) -> None:
        await self._writer.write(
            lambda db: db.execute("DELETE FROM sessions WHERE digest = ?", (digest,))
        )

    def sessions_before(self, seen: datetime, created: datetime) -> list[tuple[bytes, Session]]:
        try:
            read = self._reader.execute(
                f"SELECT digest, {_SESSION} FROM sessions "  # noqa: S608
                "WHERE seen_at <= ? OR created_at <= ?",
                (to_millis(seen), to_millis(created)),
            ).fetchall()
        except sqlite3.Error as error:
            raise StorageUnavailable(str(error)) from error
        return [(bytes(digest), _session(row)) for digest, *row in read]

    # -- keys --------------------------------------------------------------------------------

    def keys(self) -> list[ApiKey]:
        try:
            read = self._reader.execute(
                f"SELECT {_KEY} FROM api_keys ORDER BY seq DESC"  # noqa: S608
            ).fetchall()
        except sqlite3.Error as error:
            raise StorageUnavailable(str(error)) from error
        return [_key(row) for row in read]

    def key(self, digest: bytes) -> ApiKey | None:
        row = self._one(f"SELECT {_KEY} FROM api_keys WHERE digest = ?", digest)  # noqa: S608
        return None if row is None else _key(row)

    async def add_key(self, digest: bytes, key: ApiKey) -> None:
        values = (
            digest,
            key.id,
            key.name,
            key.scope.value,
            json.dumps(sorted(key.actions)),
            to_millis(key.created_at),
            key.created_by,
            rows.millis(key.expires_at),
            None,
        )

        def work(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM api_keys WHERE name = ?", (key.name,)).fetchone():
                raise Conflict("key_exists", f"There is a key {key.name!r} already.")
            db.execute(
                f"INSERT INTO api_keys (digest, {_KEY}) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

        await self._writer.write(work)

    async def key_used(self, key_id: str, now: datetime) -> None:
        await self._writer.write(
            lambda db: db.execute(
                "UPDATE api_keys SET last_used_at = ? WHERE id = ?", (to_millis(now), key_id)
            )
        )

    async def delete_key(self, key_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM api_keys WHERE id = ?", (key_id,)).rowcount:
                raise NotFound("key", key_id)

        await self._writer.write(work)

    def _one(self, sql: str, digest: bytes) -> rows.Row | None:
        try:
            row: rows.Row | None = self._reader.execute(sql, (digest,)).fetchone()
        except sqlite3.Error as error:
            raise StorageUnavailable(str(error)) from error
        return row


def _session(row: rows.Row) -> Session:
    user_id, user_name, refresh, *times = row
    return Session(user_id, user_name, bytes(refresh), *map(from_millis, times))


def _key(row: rows.Row) -> ApiKey:
    return ApiKey(
        id=row[0],
        name=row[1],
        scope=Scope(row[2]),
        actions=frozenset(json.loads(row[3])),
        created_at=from_millis(row[4]),
        created_by=row[5],
        expires_at=rows.instant(row[6]),
        last_used_at=rows.instant(row[7]),
    )
