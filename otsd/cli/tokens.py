"""``otsd token``: who may run an action, and how often.

A command that makes a link prints the link alone, for scripts; what else there is to say goes to
standard error.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otsd.cli import listing, qr, tables
from otsd.cli.context import UsageError
from otsd.cli.output import explain, flush, say, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from otsd.cli.context import Context

_WEAK: Final = "weak: it was imported and can be guessed; give it a new one with rotate"
_DEVICE: Final = {None: "if it can be used other than once", True: "yes", False: "no"}


def create(context: Context) -> int:
    """Make a token and print its link."""
    given = context.given
    body = {"action": given.action, **_terms(context)}
    if given.expires_in is not None:
        body["expires_in"] = given.expires_in
    if given.device is not None:
        body["device"] = given.device
    from otsd.cli.faults import as_written, suggesting  # noqa: PLC0415 - loads the client

    with suggesting(context, given.action), as_written(context):
        made = context.daemon.post("/tokens", body)
    return _made(context, made)


def list_(context: Context) -> int:
    """Print the tokens."""
    present = tables.now()
    return listing.show(
        context,
        "/tokens",
        [
            tables.Column("ID", lambda token: token["id"]),
            tables.Column("ACTION", lambda token: token["action"], shrink=True),
            tables.Column("STATE", _state_and_code),
            tables.Column("USES LEFT", tables.uses_left),
            tables.Column("EXPIRES", lambda token: tables.relative(token["expires_at"], present)),
            tables.Column("LAST USED", lambda item: tables.relative(item["last_used_at"], present)),
            tables.Column("COMMENT", lambda token: token["comment"], shrink=True),
        ],
        state=context.given.state,
        action=context.given.action,
    )


def _state_and_code(token: Mapping[str, Any]) -> str:
    state = str(token["state"]).replace("_", " ")
    return f"{state}, weak code" if "weak" in token else state


def show(context: Context) -> int:
    """Print a token."""
    token = context.daemon.get(_path(context))
    if context.json:
        say_json(token)
        return 0
    present = tables.now()
    for line in tables.record(
        [
            ("id", token["id"]),
            ("action", token["action"]),
            ("comment", token["comment"]),
            ("state", _state(token)),
            ("uses left", tables.uses_left(token)),
            ("valid from", tables.both(token["valid_from"], present)),
            ("expires", tables.both(token["expires_at"], present)),
            ("created", tables.both(token["created_at"], present)),
            ("created by", token["created_by"]),
            ("last used", tables.both(token["last_used_at"], present)),
            ("device", _DEVICE[token["device"]]),
            *([("code", _WEAK)] if "weak" in token else []),
        ]
    ):
        say(line)
    return 0


def link(context: Context) -> int:
    """Print the link of a token again."""
    answer = context.daemon.get(f"{_path(context)}/link")
    _say_link(context, answer)
    return 0


def edit(context: Context) -> int:
    """Change a token."""
    body = _terms(context)
    if context.given.expires_in is not None:
        body["expires_at"] = _from_now(context.given.expires_in)
    if not body:
        msg = "say what to change: --uses, --expires-in, --comment …; otsd token edit --help"
        raise UsageError(msg)
    from otsd.cli.faults import as_written  # noqa: PLC0415 - loads the client

    with as_written(context):
        _, token = context.daemon.request("PATCH", _path(context), body)
    return _changed(context, token)


def revoke(context: Context) -> int:
    """End a token for good."""
    return _change(context, "revoke")


def pause(context: Context) -> int:
    """Forbid submissions until it is resumed."""
    return _change(context, "pause")


def resume(context: Context) -> int:
    """Allow submissions again."""
    return _change(context, "resume")


def replenish(context: Context) -> int:
    """Set the uses left to all of them."""
    return _change(context, "replenish")


def rotate(context: Context) -> int:
    """Give a token a new link and print it."""
    return _made(context, context.daemon.post(f"{_path(context)}/rotate"))


def duplicate(context: Context) -> int:
    """Make another token of the same kind and print its link."""
    return _made(context, context.daemon.post(f"{_path(context)}/duplicate"))


def delete(context: Context) -> int:
    """Remove a token and its history."""
    context.daemon.request("DELETE", _path(context))
    if not context.json:
        say(f"{context.given.id}: deleted")
    return 0


# -- parts -----------------------------------------------------------------------------------


def _path(context: Context) -> str:
    from otsd.cli.client import segment  # noqa: PLC0415

    return f"/tokens/{segment(context.given.id)}"


def _terms(context: Context) -> dict[str, Any]:
    """Return what was written of a token's terms, as creating and editing both take it."""
    given = context.given
    body: dict[str, Any] = {}
    if given.unlimited or given.uses is not None:
        body["max_uses"] = given.uses
    if given.no_expiry or given.expires_at is not None:
        body["expires_at"] = given.expires_at
    if given.valid_from is not None:
        body["valid_from"] = given.valid_from
    if given.comment is not None:
        body["comment"] = given.comment
    return body


def _from_now(length: str) -> str:
    from otsd.core.times import isoformat, parse_duration  # noqa: PLC0415

    try:
        return isoformat(tables.now() + parse_duration(length))
    except ValueError as error:
        raise UsageError(f"--expires-in: {error}") from error


def _change(context: Context, verb: str) -> int:
    return _changed(context, context.daemon.post(f"{_path(context)}/{verb}"))


def _changed(context: Context, token: dict[str, Any]) -> int:
    if context.json:
        say_json(token)
    else:
        say(_sentence(token))
    return 0


def _made(context: Context, token: dict[str, Any]) -> int:
    if not context.json:
        explain(_sentence(token))
    _say_link(context, token)
    return 0


def _say_link(context: Context, answer: dict[str, Any]) -> None:
    if context.json:
        say_json(answer)
    else:
        say(answer["url"])
    if context.given.qr:
        flush()
        qr.draw(answer["url"])
    if not context.json and _is_local(url := urlsplit(answer["url"])):
        flush()
        begin = url._replace(path=url.path.rstrip("/"), query="").geturl()
        explain(f"Only this machine can open a link that begins with {begin}: set public.base_url.")


def _is_local(url: SplitResult) -> bool:
    host = url.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _state(token: dict[str, Any]) -> str:
    return str(token["state"]).replace("_", " ")


def _sentence(token: dict[str, Any]) -> str:
    present = tables.now()
    begin, end = token["valid_from"], token["expires_at"]
    words = [
        f"{token['id']}: {token['action']}",
        _state(token),
        f"uses left: {tables.uses_left(token)}",
        begin and f"from {tables.both(begin, present)}",
        f"until {tables.both(end, present)}" if end else "no expiry",
    ]
    return ", ".join(filter(None, words))
