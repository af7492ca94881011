"""The words for visitors: every error and outcome has some, and times are said as people do."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from otsd.core import errors
from otsd.core.errors import OtsdError
from otsd.core.tokens import Reason, Submission, SubmissionState, Token, TokenState
from otsd.server.answers import Speaker

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)  # a Saturday, 21:15 in Berlin
SPEAKER = Speaker(NOW, BERLIN)
TOKEN = Token(
    id="k7m2qx4d",
    lookup=1,
    action="open-door",
    comment="",
    max_uses=1,
    uses_taken=0,
    round=0,
    valid_from=NOW + timedelta(hours=2),
    expires_at=NOW - timedelta(hours=2),
    created_at=NOW,
    created_by="cli",
    last_used_at=NOW - timedelta(minutes=5),
    revoked_at=None,
    paused=False,
    device=None,
)
ASK = "Please ask whoever gave it to you for a new one."


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-11-21T20:14:00", "at 21:14"),
        ("2026-11-21T22:59:59", "at 23:59"),
        ("2026-11-21T23:00:00", "tomorrow at 00:00"),
        ("2026-11-20T12:00:00", "yesterday at 13:00"),
        ("2026-11-23T08:00:00", "on Monday at 09:00"),
        ("2026-11-27T22:00:00", "on Friday at 23:00"),
        ("2026-11-28T08:00:00", "on 28 November at 09:00"),
        ("2026-11-14T08:00:00", "on 14 November at 09:00"),
        ("2027-07-01T08:00:00", "on 1 July 2027 at 10:00"),
    ],
)
def test_a_time_is_said_as_people_do_in_the_zone_of_the_house(moment: str, words: str) -> None:
    assert SPEAKER.moment(datetime.fromisoformat(moment).replace(tzinfo=UTC)) == words


@pytest.mark.parametrize(
    ("state", "status", "code", "words"),
    [
        (TokenState.EXPIRED, 410, "expired", f"It was good until 19:15. {ASK}"),
        (TokenState.USED_UP, 410, "used_up", f"It was used at 21:10. {ASK}"),
        (TokenState.REVOKED, 410, "revoked", ASK),
        (TokenState.PAUSED, 403, "paused", "switch it on again"),
        (TokenState.SCHEDULED, 403, "not_yet_valid", "from 23:15"),
    ],
)
def test_an_unusable_link_says_which_way_it_is_unusable(
    state: TokenState, status: int, code: str, words: str
) -> None:
    answer = SPEAKER.refusal(errors.TokenUnusable(TOKEN, state))
    assert (answer.status, answer.code) == (status, code)
    assert words in answer.text


@pytest.mark.parametrize(
    ("error", "status", "code", "retries"),
    [
        (errors.UnknownToken(), 404, "unknown_token", False),
        (errors.HomeUnavailable(), 503, "home_unavailable", True),
        (errors.TargetUnavailable(["lock.x is missing"]), 503, "target_unavailable", True),
        (errors.Busy(), 503, "busy", True),
        (errors.StorageUnavailable("disk I/O error"), 503, "storage_unavailable", True),
        (errors.TooManyRequests(timedelta(seconds=0.2)), 429, "too_many_requests", True),
        (errors.BadRequest("x"), 400, "bad_request", False),
        (errors.NoAnswer("x"), 500, "internal_error", False),
    ],
)
def test_every_refusal_has_a_status_a_code_and_words_without_the_owners_facts(
    error: OtsdError, status: int, code: str, retries: bool
) -> None:
    answer = SPEAKER.refusal(error)
    assert (answer.status, answer.code) == (status, code)
    assert (answer.retry_after is not None) == retries
    assert answer.retry_after is None or answer.retry_after >= 1
    for secret in ("lock.x", "disk", "I/O"):
        assert secret not in answer.headline + answer.text


@pytest.mark.parametrize(
    ("state", "reason", "status", "code"),
    [
        (SubmissionState.RUNNING, None, 202, "running"),
        (SubmissionState.EXECUTED, None, 200, "executed"),
        (SubmissionState.FAILED, Reason.ACTION_FAILED, 502, "action_failed"),
        (SubmissionState.FAILED, Reason.ACTION_INCOMPLETE, 502, "action_incomplete"),
        (SubmissionState.FAILED, Reason.HOME_UNAVAILABLE, 503, "home_unavailable"),
        (SubmissionState.UNCONFIRMED, Reason.OUTCOME_UNKNOWN, 504, "outcome_unknown"),
    ],
)
def test_every_outcome_is_told_and_only_an_executed_one_as_done(
    state: SubmissionState, reason: Reason | None, status: int, code: str
) -> None:
    submission = Submission(
        id=1,
        token_id="k7m2qx4d",
        action="open-door",
        attempt="attempt-1",
        state=state,
        reason=reason,
        started_at=NOW,
        finished_at=None if state is SubmissionState.RUNNING else NOW,
        uses_left=0,
        spent=True,
        error="The lock says <secret>",
        remote_ip=None,
        user_agent=None,
        context_id=None,
    )
    answer = SPEAKER.outcome(submission)
    assert (answer.status, answer.code) == (status, code)
    assert "secret" not in answer.text
    assert (answer.headline == "Done") == (state is SubmissionState.EXECUTED)
    assert state is SubmissionState.RUNNING or "at 21:15" in answer.text
