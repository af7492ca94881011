"""What the tests of the store make over and over: an action, a token, a visitor, an outcome."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from otsd.actionfile import read_plan
from otsd.core.actions import Action, Defaults
from otsd.core.events import announcer
from otsd.core.tokens import Outcome, Reason, SubmissionState, Token, Visitor

YAML: Final = "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"
VISITOR: Final = Visitor("203.0.113.9", "Mozilla/5.0")
ANNOUNCE: Final = announcer(notify=True)

EXECUTED: Final = Outcome(SubmissionState.EXECUTED, context_id="01J")
REFUSED: Final = Outcome(SubmissionState.FAILED, Reason.ACTION_FAILED, "no", give_back=True)
NOT_ASKED: Final = Outcome(SubmissionState.FAILED, Reason.HOME_UNAVAILABLE, "no", give_back=True)
INCOMPLETE: Final = Outcome(SubmissionState.FAILED, Reason.ACTION_INCOMPLETE, "half")
UNCONFIRMED: Final = Outcome(SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, "?")

_numbers = itertools.count(1)


def action(name: str = "open-door", title: str = "Open the front door") -> Action:
    """Return an action that opens the front door."""
    return Action(name, title, YAML, read_plan(YAML), Defaults())


def token(now: datetime, **more: Any) -> Callable[[], Token]:
    """Return what makes a new token, each with ids of its own."""
    number = next(_numbers)
    facts: dict[str, Any] = {
        "id": f"t{number:07}",
        "lookup": number * 0x9E37_79B9_7F4A_7C15 % 2**64,
        "action": "open-door",
        "comment": "",
        "max_uses": 1,
        "uses_taken": 0,
        "round": 0,
        "valid_from": None,
        "expires_at": None,
        "created_at": now,
        "created_by": "cli",
        "last_used_at": None,
        "revoked_at": None,
        "paused": False,
        "device": None,
        **more,
    }
    return lambda: Token(**facts)
