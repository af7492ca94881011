"""Tokens and submissions: what they are and the rules of their states.

States are computed from facts and the time, never stored: nothing has to run for a token to
expire, and no crash can leave one in a state that its facts do not say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from otsd.core.errors import TokenUnusable

COMMENT_LENGTH: Final = 500
MOST_USES: Final = 10**9
DEVICE_STAYS: Final = timedelta(days=1)
ATTEMPT: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


class TokenState(StrEnum):
    """What a token is at an instant; the first that holds, in this order."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used_up"
    PAUSED = "paused"
    SCHEDULED = "scheduled"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Token:
    """The permission to run one action a limited number of times.

    ``lookup`` is the non-secret half of its code. ``uses_taken`` counts since the token was made
    or last replenished; ``round`` counts the replenishings, so that a use from before one is not
    given back after it. A ``weak`` one was imported and still has its old link, whose code is not
    made from ``lookup`` and comes from a generator that can be guessed.
    """

    id: str
    lookup: int
    action: str
    comment: str
    max_uses: int | None
    uses_taken: int
    round: int
    valid_from: datetime | None
    expires_at: datetime | None
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    revoked_at: datetime | None
    paused: bool
    device: bool | None
    weak: bool = False

    @property
    def uses_left(self) -> int | None:
        """How often it can still be used; ``None`` without limit."""
        return None if self.max_uses is None else max(self.max_uses - self.uses_taken, 0)

    def state(self, now: datetime) -> TokenState:
        """Compute the state at an instant: usable while ``valid_from <= now < expires_at``."""
        if self.revoked_at is not None:
            return TokenState.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return TokenState.EXPIRED
        if self.uses_left == 0:
            return TokenState.USED_UP
        if self.paused:
            return TokenState.PAUSED
        if self.valid_from is not None and now < self.valid_from:
            return TokenState.SCHEDULED
        return TokenState.ACTIVE

    @property
    def wants_device(self) -> bool:
        """Whether it is to have a device of its own in MQTT; not so by default if used once."""
        return self.max_uses != 1 if self.device is None else self.device

    @property
    def device_until(self) -> datetime | None:
        """When its device goes: a day after its last use or its expiry; ``None``: not known yet."""
        ends = [] if self.expires_at is None else [self.expires_at]
        if self.uses_left == 0 and self.last_used_at is not None:
            ends.append(self.last_used_at)
        return min(ends) + DEVICE_STAYS if ends else None

    def check_usable(self, now: datetime) -> None:
        """Raise `TokenUnusable` unless a submission is allowed at this instant."""
        if (state := self.state(now)) is not TokenState.ACTIVE:
            raise TokenUnusable(self, state)


class SubmissionState(StrEnum):
    """What became of a submission."""

    RUNNING = "running"
    EXECUTED = "executed"
    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"


class Reason(StrEnum):
    """Why a submission did not end as executed; the values are the public API's codes."""

    HOME_UNAVAILABLE = "home_unavailable"
    ACTION_FAILED = "action_failed"
    ACTION_INCOMPLETE = "action_incomplete"
    OUTCOME_UNKNOWN = "outcome_unknown"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a submission came from: an address and what the browser called itself."""

    remote_ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """One attempt that was admitted: a use was taken, and Home Assistant was or would be asked.

    ``uses_left`` is the token's count after this submission. ``spent`` is false once the use was
    given back, by the rules or by the owner. ``error`` is Home Assistant's text, for the owner.
    """

    id: int
    token_id: str
    action: str
    attempt: str
    state: SubmissionState
    reason: Reason | None
    started_at: datetime
    finished_at: datetime | None
    uses_left: int | None
    spent: bool
    error: str | None
    remote_ip: str | None
    user_agent: str | None
    context_id: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of an action ended, before it is written down."""

    state: SubmissionState
    reason: Reason | None = None
    error: str | None = None
    context_id: str | None = None
    give_back: bool = False
