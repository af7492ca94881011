"""Logging in with Home Assistant: to a session of one's own, or on behalf of otsd itself.

    ./login or ./connect ─► Home Assistant's page ─► ./callback ─► in

What must be the same at both ends, the state and the PKCE verifier, waits in a cookie that is
encrypted, good for ten minutes, and taken once.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken

from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otsd.core.ports import Clock

COOKIE: Final = "otsd_login"
LIFETIME: Final = timedelta(minutes=10)
_MOST_TAKEN: Final = 10_000


class Purpose(StrEnum):
    """What somebody logs in for."""

    SESSION = "session"
    CONNECTION = "connection"


class LoginFailed(OtsdError):
    """The way back from Home Assistant cannot be gone on; ``str()`` is for the person there."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that was begun: where the browser goes, and the cookie that it takes along."""

    state: str
    verifier: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Returned:
    """Somebody who came back from Home Assistant with a code."""

    purpose: Purpose
    code: str
    verifier: str


class Logins:
    """Begins logins and receives those who come back."""

    def __init__(self, *, secret: bytes, now: Clock) -> None:
        """Take the secret that cookies are encrypted with, a Fernet key."""
        self._box = Fernet(secret)
        self._now = now
        self._taken: OrderedDict[str, None] = OrderedDict()

    def begin(self, purpose: Purpose) -> Begun:
        """Begin a login."""
        state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        said = json.dumps({"purpose": purpose, "state": state, "verifier": verifier})
        cookie = self._box.encrypt_at_time(said.encode(), self._seconds()).decode()
        return Begun(state, verifier, cookie)

    def receive(self, query: Mapping[str, str], cookie: str | None) -> Returned:
        """Check what somebody brings back.

        Raises:
            LoginFailed: it is not the end of a login that was begun here, or he said no.

        """
        try:
            lifetime = int(LIFETIME.total_seconds())
            said = self._box.decrypt_at_time(
                (cookie or "").encode(errors="replace"), lifetime, self._seconds()
            )
        except InvalidToken as error:
            raise LoginFailed(
                "This login was not begun in this browser, or that was more than ten minutes ago."
            ) from error
        begun = json.loads(said)
        state = begun["state"]
        if not secrets.compare_digest(
            query.get("state", "").encode(errors="replace"), state.encode()
        ):
            raise LoginFailed("This is not the answer to the login that was begun last.")
        if state in self._taken:
            raise LoginFailed("This login was used already.")
        self._taken[state] = None
        if len(self._taken) > _MOST_TAKEN:
            self._taken.popitem(last=False)
        if "code" not in query:
            raise LoginFailed("Home Assistant did not let you in.")
        return Returned(Purpose(begun["purpose"]), query["code"], begun["verifier"])

    def _seconds(self) -> int:
        return int(self._now().timestamp())
