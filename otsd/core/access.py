"""Who may act as the owner: sessions of administrators, keys of programs, and what they may do.

Secrets are never kept: a session or a key is found by the hash of what its holder shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from otsd.core.errors import OtsdError, OwnerError
from otsd.core.tokens import Token

KEY_NAME_LENGTH: Final = 64
IDLE: Final = timedelta(hours=12)
LONGEST: Final = timedelta(days=30)
ASKED_EVERY: Final = timedelta(minutes=30)


class Scope(StrEnum):
    """What a key is for; each may do what it says and nothing of the others."""

    READ = "read"
    MINT = "mint"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A program's key. ``actions`` are those whose tokens a `Scope.MINT` key may make."""

    id: str
    name: str
    scope: Scope
    actions: frozenset[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Return whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Session:
    """An administrator who logged in with Home Assistant.

    ``refresh`` is the encrypted refresh token by which Home Assistant is asked whether he still is
    one; ``asked_at`` is when it last said so.
    """

    user_id: str
    user_name: str
    refresh: bytes
    created_at: datetime
    seen_at: datetime
    asked_at: datetime

    def is_valid(self, now: datetime) -> bool:
        """Return whether it has neither been idle nor lasted for too long."""
        return now < self.seen_at + IDLE and now < self.created_at + LONGEST

    def must_ask(self, now: datetime) -> bool:
        """Return whether Home Assistant must be asked about its user again."""
        return now >= self.asked_at + ASKED_EVERY

    def seen(self, now: datetime) -> Session:
        """Return it as of a request at this moment."""
        return replace(self, seen_at=now)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from, and what he may do.

    ``maker`` is what stands in ``created_by``: ``cli``, ``user:NAME``, ``key:NAME``. ``holder``
    tells one session or key from another, and says nothing about either's secret.
    """

    maker: str
    holder: str
    via: str
    user_id: str | None = None
    name: str | None = None
    scope: Scope = Scope.ADMIN
    key: ApiKey | None = None

    def may_see(self, token: Token) -> bool:
        """Return whether a token is his to see; a `Scope.MINT` key sees its own alone."""
        if self.scope is not Scope.MINT or self.key is None:
            return True
        # a later key of the same name is another key
        return token.created_by == self.maker and token.created_at >= self.key.created_at


class Access(Protocol):
    """Keeps sessions and keys; every method may raise `StorageUnavailable`."""

    def session(self, digest: bytes) -> Session | None:
        """Return a session by the hash of its id."""

    async def begin_session(self, digest: bytes, session: Session) -> None:
        """Keep a new session."""

    async def update_session(self, digest: bytes, session: Session) -> None:
        """Keep a session as it is now, unless it has ended meanwhile."""

    async def end_session(self, digest: bytes) -> None:
        """Forget a session."""

    def sessions_before(self, seen: datetime, created: datetime) -> list[tuple[bytes, Session]]:
        """Return those that were not seen since one moment, or were made before the other."""

    def keys(self) -> list[ApiKey]:
        """Return all keys, newest first."""

    def key(self, digest: bytes) -> ApiKey | None:
        """Return a key by its hash."""

    async def add_key(self, digest: bytes, key: ApiKey) -> None:
        """Keep a new key; `Conflict` (``key_exists``) when its name is taken."""

    async def key_used(self, key_id: str, now: datetime) -> None:
        """Note when a key was used last."""

    async def delete_key(self, key_id: str) -> None:
        """Revoke a key; `NotFound` when there is none."""


# -- why somebody may not enter --------------------------------------------------------------


class LoginRequired(OtsdError):
    """Nobody we know: no session, no key, or one that has ended."""

    def __init__(self, message: str = "Log in, or send an API key.") -> None:
        """Carry what to do."""
        super().__init__(message)


class Forbidden(OwnerError):
    """Somebody we know, who may not do this."""

    def __init__(self, message: str, code: str = "forbidden") -> None:
        """Carry why."""
        super().__init__(code, message)


class TooManyStreams(OwnerError):
    """One session or key has as many event streams as it may."""

    def __init__(self, most: int) -> None:
        """Carry how many."""
        super().__init__("too_many_streams", f"At most {most} event streams at a time.")


class Misdirected(OtsdError):
    """The request was sent to a host name that is not ours."""


class AccountsUnavailable(OtsdError):
    """Home Assistant could not be asked about its users."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        """Carry a sentence, and the ``reason`` in it by which a log names it."""
        super().__init__(message)
        self.reason = reason or message


class LoginRefused(OtsdError):
    """Home Assistant does not accept a code or a token (any more)."""
