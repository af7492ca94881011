"""API keys, made and revoked by an owner; a key is shown once and kept as its hash."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otsd.core.access import ApiKey, Scope
from otsd.core.errors import Fault, Invalid
from otsd.core.times import truncate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from otsd.core.access import Access
    from otsd.core.ports import Clock, Randomness, Store

PREFIX: Final = "otsd_"
"""What every key begins with, so that one that leaked can be found and recognised."""


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What somebody wants of a new key; one that may `Scope.MINT` names its actions."""

    name: str
    scope: Scope
    actions: frozenset[str] = frozenset()
    expires_at: datetime | None = None
    expires_in: timedelta | None = None


class Keys:
    """The owner's API keys."""

    def __init__(self, *, access: Access, store: Store, now: Clock, random: Randomness) -> None:
        """Take the parts."""
        self._access = access
        self._store = store
        self._now = now
        self._random = random

    def list(self) -> Sequence[ApiKey]:
        """Return all, newest first."""
        return self._access.keys()

    async def create(self, wish: KeyWish, created_by: str) -> tuple[ApiKey, str]:
        """Make a key; return it with its secret, which nothing else will ever tell.

        Raises:
            Invalid: its actions or its end make no sense.
            Conflict: the name is taken.

        """
        now = truncate(self._now())
        faults = []
        if (wish.scope is Scope.MINT) != bool(wish.actions):
            msg = "a mint key names its actions, and only a mint key does"
            faults.append(Fault(("actions",), msg))
        faults += [
            Fault(("actions",), f"there is no action {name!r}")
            for name in sorted(wish.actions)
            if self._store.action(name) is None
        ]
        expires_at = wish.expires_at
        if wish.expires_in is not None:
            expires_at = now + wish.expires_in
        if expires_at is not None and expires_at <= now:
            faults.append(Fault(("expires_at",), "this time is past"))
        if faults:
            raise Invalid(faults)
        secret = PREFIX + base64.urlsafe_b64encode(self._random(32)).decode().rstrip("=")
        key = ApiKey(
            id=self._random(5).hex(),
            name=wish.name,
            scope=wish.scope,
            actions=wish.actions,
            created_at=now,
            created_by=created_by,
            expires_at=expires_at,
        )
        await self._access.add_key(digest_of(secret), key)
        return key, secret

    async def delete(self, key_id: str) -> None:
        """Revoke a key; `NotFound` when there is none."""
        await self._access.delete_key(key_id)


def digest_of(secret: str) -> bytes:
    """Return what is kept of a secret with so much chance in it that its hash says nothing."""
    # a header may hold bytes that are no text
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
