"""``otsd submissions``: what visitors did."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from otsd.cli import listing, tables
from otsd.cli.context import UsageError
from otsd.cli.output import flush, say, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otsd.cli.client import Client
    from otsd.cli.context import Context

_EVERY: Final = 1.0
_FEW: Final = 50
_RUNNING: Final = "running"

_COLUMNS: Final = (
    tables.Column("ID", lambda item: item["id"]),
    tables.Column("STARTED", lambda item: tables.local(item["started_at"])),
    tables.Column("TOKEN", lambda item: item["token_id"]),
    tables.Column("ACTION", lambda item: item["action"], shrink=True),
    tables.Column("STATE", lambda item: item["state"]),
    tables.Column("SPENT", lambda item: tables.yes(item["spent"])),
    tables.Column("ADDRESS", lambda item: item["remote_ip"]),
    tables.Column("ERROR", lambda item: item["error"], shrink=True),
    tables.Column("USER AGENT", lambda item: item["user_agent"], shrink=True),
)


def list_(context: Context) -> int:
    """Print the submissions, or those that finish from now on."""
    given = context.given
    if given.follow:
        return _follow(context)
    return listing.show(context, "/submissions", _COLUMNS, token=given.token, state=given.state)


def refund(context: Context) -> int:
    """Give back the use of a submission that stayed spent."""
    from otsd.cli.client import segment  # noqa: PLC0415

    given = context.given
    if given.token or given.state or given.limit or given.follow:
        msg = "refund takes the number of one submission, and no options of the list"
        raise UsageError(msg)
    submission = context.daemon.post(f"/submissions/{segment(given.id)}/refund")
    if context.json:
        say_json(submission)
    else:
        say(f"{submission['id']}: the use of token {submission['token_id']} was given back")
    return 0


# -- following -------------------------------------------------------------------------------


def _follow(context: Context) -> int:
    if context.given.state == _RUNNING:
        msg = "--follow prints what has finished; it cannot be --state running"
        raise UsageError(msg)
    table = tables.Table(_COLUMNS, tables.terminal_width())
    try:
        for items in _finished(context):
            if context.json:
                for item in items:
                    say(json.dumps(item))
            else:
                for line in table.lines(items):
                    say(line)
            flush()
    except KeyboardInterrupt:  # which is how it is meant to end
        return 0
    return 0


def _finished(context: Context) -> Iterator[list[Any]]:
    """Yield, again and again, what has finished since; first the newest of ``--limit``."""
    given, daemon = context.given, context.daemon
    begin = _items(daemon, given.token, limit=given.limit or 1)
    known = begin[0]["id"] if begin else 0
    # asked after it: what ended in between was running a moment ago, and is read again below
    waiting = {
        item["id"]
        for item in [*begin, *_items(daemon, given.token, _RUNNING)]
        if item["state"] == _RUNNING
    }
    shown = [item for item in reversed(begin) if given.limit and item["id"] not in waiting]
    while True:
        yield [item for item in shown if given.state in (None, item["state"])]
        time.sleep(_EVERY)
        news = list(_since(daemon, given.token, min(waiting, default=known + 1) - 1))
        shown = [
            item
            for item in reversed(news)
            if item["state"] != _RUNNING and (item["id"] > known or item["id"] in waiting)
        ]
        known = max(known, news[0]["id"] if news else 0)
        waiting = {item["id"] for item in news if item["state"] == _RUNNING}


def _items(
    daemon: Client, token: str | None, state: str | None = None, limit: int | None = None
) -> list[Any]:
    pages = daemon.pages("/submissions", limit, {"token": token, "state": state})
    return [item for page in pages for item in page]


def _since(daemon: Client, token: str | None, known: int) -> Iterator[Any]:
    """Read the submissions beyond a number, newest first."""
    for page in daemon.pages("/submissions", None, {"token": token}, _FEW):
        for item in page:
            if item["id"] <= known:
                return
            yield item
