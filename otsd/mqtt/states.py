"""What is published of the store: pure functions from what there is to payloads."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from otsd.core.events import finished_at, is_late, submission_data
from otsd.core.times import isoformat
from otsd.qr import picture

if TYPE_CHECKING:
    from datetime import datetime

    from otsd.core.ports import Claim, ConnectionState, Tally
    from otsd.core.tokens import Submission, Token, TokenState

Payload = dict[str, Any]

# every user of Home Assistant can read the attributes of an entity
_FOR_ADMINISTRATORS: Final = ("remote_ip", "user_agent")


def online() -> bytes:
    """Return what is said while otsd is connected."""
    return b"online"


def service(total: Tally, last: Submission | None, home: ConnectionState) -> Payload:
    """Return the state of the whole service."""
    return {
        "active_tokens": total.active_tokens,
        "remaining_uses": total.remaining_uses,
        "last_used": _time(total.last_used_at),
        "last_action": last.action if last else None,
        "last_outcome": last.state.value if last else None,
        "home_assistant": home.value,
    }


def action(tally: Tally) -> Payload:
    """Return the state of an action."""
    return {
        "active_tokens": tally.active_tokens,
        "remaining_uses": tally.remaining_uses,
        "last_used": _time(tally.last_used_at),
    }


def token(token: Token, state: TokenState) -> Payload:
    """Return the state of a token."""
    return {
        "state": state.value,
        "uses_left": token.uses_left,
        "max_uses": token.max_uses,
        "last_used": _time(token.last_used_at),
        "expires_at": _time(token.expires_at),
        "comment": token.comment,
        "action": token.action,
        "enabled": "OFF" if token.paused else "ON",
    }


def submission(claim: Claim, now: datetime) -> Payload:
    """Return what is told of a submission that finished, at ``now``."""
    data = submission_data(claim)
    return {
        "event_type": claim.submission.state.value,
        **{key: value for key, value in data.items() if key not in _FOR_ADMINISTRATORS},
        "delivered_late": is_late(finished_at(claim), now),
    }


def link(created_at: datetime | None, url: str | None) -> Payload:
    """Return an action's newest link; of one that is spent, nothing."""
    return {"created_at": _time(created_at), "url": url}


def qr(url: str | None) -> bytes:
    """Return the picture of a link, in base64; of one that is spent, a placeholder."""
    if url is None:
        return base64.b64encode(_nothing())
    return base64.b64encode(picture(url, "png"))


def _nothing() -> bytes:
    from importlib.resources import files  # noqa: PLC0415 - most daemons never show one

    return (files("otsd.mqtt") / "no-link.png").read_bytes()


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else isoformat(moment)
