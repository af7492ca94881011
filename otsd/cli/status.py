"""``otsd status``: how the daemon and its connections stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otsd.cli import tables
from otsd.cli.output import say, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otsd.cli.context import Context


def show(context: Context) -> int:
    """Print the daemon's version, connections and counts."""
    status = context.daemon.get("/status")
    if context.json:
        say_json(status)
        return 0
    counts = status["counts"]
    uses = counts["remaining_uses"]
    for line in tables.record(
        [
            ("otsd", status["version"]),
            ("Home Assistant", connection(status["home_assistant"])),
            ("MQTT", connection(status["mqtt"])),
            ("actions", counts["actions"]),
            ("tokens", f"{counts['tokens']}, {counts['active_tokens']} of them active"),
            ("uses left", "unlimited" if uses is None else uses),
            ("submissions", f"{counts['submissions']}, {counts['running_submissions']} running"),
            ("events", _waiting(counts["waiting_events"], status["event_error"])),
            (
                "notifications",
                _waiting(counts["waiting_notifications"], status["notification_error"]),
            ),
        ]
    ):
        say(line)
    return 0


def connection(status: Mapping[str, Any]) -> str:
    """Say how a connection stands, in a line."""
    since = tables.both(status["since"], tables.now())
    words = [
        f"{status['state']}{f' since {since}' if since else ''}",
        status["version"] and f"version {status['version']}",
        status["error"],
    ]
    return "; ".join(filter(None, words))


def _waiting(count: int, error: str | None) -> str:
    return "; ".join(filter(None, [f"{count} waiting" if count else "all delivered", error]))
