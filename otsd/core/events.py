"""What is told about a finished submission: the event's data and the notification's words."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from otsd.core.ports import Announcement, Queue
from otsd.core.times import isoformat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from otsd.core.ports import Announce, Claim

EVENT_TYPE: Final = "one_time_token_submitted"
LATE: Final = timedelta(seconds=60)

# every character that Markdown, as Home Assistant's front end reads it, could take for markup
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&:@])")


def announcer(*, notify: bool) -> Announce:
    """Return what a finished submission queues: an event always, a notification if wanted."""
    queues = (Queue.EVENT, Queue.NOTIFICATION) if notify else (Queue.EVENT,)

    def announce(claim: Claim) -> Sequence[Announcement]:
        payload = submission_data(claim)
        return [Announcement(queue, payload, finished_at(claim)) for queue in queues]

    return announce


def submission_data(claim: Claim) -> Mapping[str, object]:
    """Return what everybody is told about a finished submission."""
    submission, token = claim.submission, claim.token
    return {
        "submission_id": submission.id,
        "token_id": token.id,
        "comment": token.comment,
        "action": submission.action,
        "title": claim.title,
        "outcome": submission.state.value,
        "error": submission.error,
        "uses_left": submission.uses_left,
        "max_uses": token.max_uses,
        "submitted_at": isoformat(submission.started_at.replace(microsecond=0)),
        "remote_ip": submission.remote_ip,
        "user_agent": submission.user_agent,
    }


def finished_at(claim: Claim) -> datetime:
    """Return when a submission came to its end."""
    return claim.submission.finished_at or claim.submission.started_at


def is_late(finished: datetime, now: datetime) -> bool:
    """Return whether what is told at ``now`` is old: the hall light should not go on at night."""
    return now - finished > LATE


def event_data(announcement: Announcement, now: datetime) -> Mapping[str, object]:
    """Return the event's data as it is delivered at ``now``."""
    return {**announcement.payload, "delivered_late": is_late(announcement.finished_at, now)}


def notification(payload: Mapping[str, object], zone: tzinfo) -> tuple[str, str]:
    """Return a notification's title and message: comment, outcome, time and uses left.

    The message is Markdown wherever Home Assistant shows it, and a picture in it would be
    fetched by the owner's browser: so everything that somebody wrote is escaped.
    """
    outcome = {
        "executed": "Done",
        "failed": "It failed",
        "unconfirmed": "Home Assistant did not confirm it",
    }[str(payload["outcome"])]
    moment = datetime.fromisoformat(str(payload["submitted_at"])).astimezone(zone)
    lines = [f"{outcome}, {moment:%Y-%m-%d %H:%M}"]
    if payload["comment"]:
        lines.insert(0, _escape(str(payload["comment"])))
    left = payload["uses_left"]
    lines.append("Uses left: without limit" if left is None else f"Uses left: {left}")
    return _escape(str(payload["title"])), "\n".join(lines)


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
