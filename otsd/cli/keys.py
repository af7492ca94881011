"""``otsd key``: keys for programs that use the API.

``create`` prints the key alone, for scripts, and it is the only time that it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otsd.cli import listing, tables
from otsd.cli.output import explain, say, say_json

if TYPE_CHECKING:
    from otsd.cli.context import Context


def create(context: Context) -> int:
    """Make a key and print it."""
    given = context.given
    body: dict[str, Any] = {"name": given.name, "scope": given.scope}
    if given.action:
        body["actions"] = given.action
    for name in ("expires_in", "expires_at"):
        if (end := getattr(given, name)) is not None:
            body[name] = end
    from otsd.cli.faults import as_written  # noqa: PLC0415 - loads the client

    with as_written(context):
        key = context.daemon.post("/api-keys", body)
    if context.json:
        say_json(key)
        return 0
    until = "no expiry"
    if key["expires_at"]:
        until = f"until {tables.both(key['expires_at'], tables.now())}"
    explain(f"{key['id']}: {key['name']}, {key['scope']}, {until}; it is not shown again")
    say(key["key"])
    return 0


def list_(context: Context) -> int:
    """Print the keys."""
    present = tables.now()
    return listing.show(
        context,
        "/api-keys",
        [
            tables.Column("ID", lambda key: key["id"]),
            tables.Column("NAME", lambda key: key["name"], shrink=True),
            tables.Column("SCOPE", lambda key: key["scope"]),
            tables.Column("ACTIONS", lambda key: ", ".join(key["actions"] or []), shrink=True),
            tables.Column("EXPIRES", lambda key: tables.relative(key["expires_at"], present)),
            tables.Column("LAST USED", lambda key: tables.relative(key["last_used_at"], present)),
            tables.Column("MADE BY", lambda key: key["created_by"], shrink=True),
        ],
    )


def revoke(context: Context) -> int:
    """End a key for good."""
    from otsd.cli.client import segment  # noqa: PLC0415

    context.daemon.request("DELETE", f"/api-keys/{segment(context.given.id)}")
    if not context.json:
        say(f"{context.given.id}: revoked")
    return 0
