"""From errors and outcomes to what the public site says: one table, for pages and JSON alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from otsd.core.errors import (
    BadRequest,
    Busy,
    HomeUnavailable,
    OtsdError,
    StorageUnavailable,
    TargetUnavailable,
    TokenUnusable,
    TooManyRequests,
    UnknownToken,
)
from otsd.core.tokens import Reason, Submission, SubmissionState, TokenState

if TYPE_CHECKING:
    from datetime import tzinfo

_SOON: Final = 5
_ASK_FOR_ANOTHER: Final = "Please ask whoever gave it to you for a new one."


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said: the HTTP status, the API's code, a headline and a sentence for people."""

    status: int
    code: str
    headline: str
    text: str
    retry_after: int | None = None
    """Seconds after which another try makes sense."""

    @property
    def looks_again(self) -> int | None:
        """Seconds after which its page looks again by itself."""
        # the page of whoever was throttled must not knock by itself
        return None if self.status == 429 else self.retry_after  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Speaker:
    """Finds the words, with times in the zone of the house."""

    now: datetime
    zone: tzinfo

    def refusal(self, error: OtsdError) -> Answer:  # noqa: PLR0911 - a table of cases
        """Say why something was not done; nothing was spent."""
        match error:
            case UnknownToken():
                return Answer(
                    404,
                    "unknown_token",
                    "This link is not known here",
                    "Please check that it is complete, or ask for a new one.",
                )
            case TokenUnusable():
                return self._unusable(error)
            case HomeUnavailable():
                return Answer(
                    503,
                    "home_unavailable",
                    "The house cannot be reached right now",
                    "Your link is still good. This page keeps trying, "
                    "and the button appears as soon as the house answers.",
                    _SOON,
                )
            case TargetUnavailable():
                return Answer(
                    503,
                    "target_unavailable",
                    "This cannot be done right now",
                    "Something in the house does not respond. Your link is still good. "
                    "This page keeps trying, and the button appears as soon as it does.",
                    _SOON,
                )
            case TooManyRequests():
                wait = max(math.ceil(error.retry_after.total_seconds()), 1)
                return Answer(
                    429,
                    "too_many_requests",
                    "Too many tries",
                    "Too many links that are not known came from your connection. "
                    "Please wait a minute.",
                    wait,
                )
            case Busy():
                return Answer(
                    503,
                    "busy",
                    "Too much is going on right now",
                    "Nothing was done, and your link is still good. "
                    "This page looks again in a moment.",
                    _SOON,
                )
            case StorageUnavailable():
                return Answer(
                    503,
                    "storage_unavailable",
                    "This cannot be done right now",
                    "Nothing was done, and your link is still good. "
                    "This page looks again in a moment.",
                    _SOON * 2,
                )
            case BadRequest():
                return Answer(
                    400,
                    "bad_request",
                    "This request is not in order",
                    "Please open the link again as you received it.",
                )
            case _:
                return Answer(500, "internal_error", "Something went wrong", "Nothing was done.")

    def _unusable(self, error: TokenUnusable) -> Answer:
        token = error.token
        match error.state:
            case TokenState.EXPIRED:
                when = self.bound(token.expires_at or self.now)
                return Answer(
                    410,
                    "expired",
                    "This link has expired",
                    f"It was good until {when}. {_ASK_FOR_ANOTHER}",
                )
            case TokenState.USED_UP:
                used = token.last_used_at
                text = f"It was used {self.moment(used)}." if used else "It was used already."
                if token.max_uses == 1:
                    text = f"{text} {_ASK_FOR_ANOTHER}"
                    return Answer(410, "used_up", "This link was used", text)
                last = f"{text.replace('used', 'last used', 1)} It has no uses left."
                return Answer(410, "used_up", "This link was used up", f"{last} {_ASK_FOR_ANOTHER}")
            case TokenState.PAUSED:
                return Answer(
                    403,
                    "paused",
                    "This link is paused",
                    "Whoever gave it to you can switch it on again.",
                )
            case TokenState.SCHEDULED:
                when = self.bound(token.valid_from or self.now)
                return Answer(
                    403,
                    "not_yet_valid",
                    "This link is not valid yet",
                    f"It can be used from {when}.",
                    self._seconds_until(token.valid_from),
                )
            case _:
                return Answer(
                    410,
                    "revoked",
                    "This link is no longer valid",
                    _ASK_FOR_ANOTHER,
                )

    def outcome(self, submission: Submission) -> Answer:
        """Say what became of a submission."""
        when = self.moment(submission.finished_at or submission.started_at)
        if submission.state is SubmissionState.RUNNING:
            return Answer(
                202,
                "running",
                "It is being done",
                f"The house was asked {self.moment(submission.started_at)}. "
                "Please wait: this page says when it is done.",
                1,
            )
        if submission.state is SubmissionState.EXECUTED:
            return Answer(200, "executed", "Done", f"Done {when}.")
        match submission.reason:
            case Reason.ACTION_FAILED:
                return Answer(
                    502,
                    "action_failed",
                    "It did not work",
                    f"The house refused it {when}. Your link is still good.",
                )
            case Reason.ACTION_INCOMPLETE:
                return Answer(
                    502,
                    "action_incomplete",
                    "It may not have worked completely",
                    f"The house reported an error {when}. Please tell whoever gave you the link.",
                )
            case Reason.HOME_UNAVAILABLE:
                return Answer(
                    503,
                    "home_unavailable",
                    "The house could not be reached",
                    f"Nothing was done {when}. Your link is still good.",
                    _SOON,
                )
            case _:
                return Answer(
                    504,
                    "outcome_unknown",
                    "No answer from the house",
                    f"It was asked {when}, and it may have been done: please look. "
                    "The link stays used until its owner gives it back.",
                )

    def moment(self, moment: datetime) -> str:
        """Say when as people do: "at 20:15", "on Monday at 09:00", "on 1 December at 18:00"."""
        local, today = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        days = (local.date() - today.date()).days
        clock = f"{local:%H:%M}"
        if days == 0:
            return f"at {clock}"
        if days in (-1, 1):
            return f"{'tomorrow' if days > 0 else 'yesterday'} at {clock}"
        if abs(days) < 7:  # noqa: PLR2004 - within a week the name of the day is enough
            return f"on {local:%A} at {clock}"
        year = f" {local.year}" if local.year != today.year else ""
        return f"on {local.day} {local:%B}{year} at {clock}"

    def bound(self, moment: datetime) -> str:
        """Say when, after "until" or "from": "20:15", "Monday at 09:00"."""
        return self.moment(moment).removeprefix("at ").removeprefix("on ")

    def _seconds_until(self, moment: datetime | None) -> int | None:
        if moment is None:
            return None
        return math.ceil(max((moment - self.now) / timedelta(seconds=1), 1))
