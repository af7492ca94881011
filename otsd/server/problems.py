"""From errors to RFC 9457 problem documents: the admin API's one table."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from otsd.core.access import (
    AccountsUnavailable,
    Forbidden,
    LoginRefused,
    LoginRequired,
    Misdirected,
    TooManyStreams,
)
from otsd.core.errors import (
    Conflict,
    HomeUnavailable,
    Invalid,
    NoAnswer,
    NotAsked,
    NotFound,
    OtsdError,
    OwnerError,
    Refused,
    StorageUnavailable,
    TargetUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otsd.core.errors import Fault

_TABLE: Sequence[tuple[type[OtsdError], int, str]] = (
    (LoginRequired, 401, "login_required"),
    (TooManyStreams, 429, ""),
    (Forbidden, 403, ""),
    (Misdirected, 421, "misdirected"),
    (AccountsUnavailable, 503, "home_unavailable"),
    (LoginRefused, 401, "login_refused"),
    (NotFound, 404, ""),
    (Conflict, 409, ""),
    (Invalid, 422, ""),
    (HomeUnavailable, 503, "home_unavailable"),
    (NotAsked, 503, "home_unavailable"),
    (TargetUnavailable, 503, "target_unavailable"),
    (StorageUnavailable, 503, "storage_unavailable"),
    (Refused, 502, "action_failed"),
    (NoAnswer, 504, "outcome_unknown"),
)


def problem(status: int, code: str, detail: str, faults: Sequence[Fault] = ()) -> web.Response:
    """Return a problem document; ``errors`` lists what is wrong with a body, by place."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [{"loc": list(fault.loc), "msg": fault.msg} for fault in faults],
    }
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
    )


def of_error(error: OtsdError) -> web.Response:
    """Return the problem document of an error."""
    for kind, status, code in _TABLE:
        if isinstance(error, kind):
            if isinstance(error, OwnerError):
                code = error.code  # noqa: PLW2901 - the table has none for these
            faults = error.faults if isinstance(error, Invalid) else ()
            status = 400 if code == "bad_json" else status  # noqa: PLW2901
            return problem(status, code, str(error), faults)
    return problem(500, "internal_error", "Something went wrong; see the log.")
