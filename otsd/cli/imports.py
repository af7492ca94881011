"""``otsd import``: what the One Time Service add-on kept."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otsd.cli.output import Progress, explain, flush, say, say_json, visible
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otsd.cli.context import Context

_DEADLINE: Final = timedelta(minutes=10)  # a small machine, a large file
_WORDS: Final = {
    "taken": "taken",
    "changed": "taken, with a change",
    "known": "here already",
    "refused": "refused",
}


_WEAK: Final = (
    "The codes of these links come from a generator that can be guessed: otsd token list marks\n"
    "them as weak. Give those that live long a new link: otsd token rotate ID."
)


class CannotRead(OtsdError):
    """The file cannot be read."""


def take(context: Context) -> int:
    """Take over a file, and print what became of its entries."""
    given = context.given
    try:
        content = sys.stdin.buffer.read() if given.file == "-" else Path(given.file).read_bytes()
    except OSError as error:
        raise CannotRead(f"{given.file} cannot be read: {error.strerror}.") from error
    daemon = context.connected(_DEADLINE)
    with Progress() as progress:
        progress.show(f"reading {given.file} …")
        asked = {"dry_run": given.dry_run, "brief": not context.json}
        query = {name: "true" for name, is_asked in asked.items() if is_asked}
        _, report = daemon.request("POST", "/imports", content, **query)
    if context.json:
        say_json(report)
        return 0
    for action in report["actions"]:
        say(f"action {visible(action['source'])}: {_became(action, action['name'])}")
    for token in report["tokens"]:
        say(f"token {_called(token)}: {_became(token, token['id'])}")
    say(_summary(report))
    if _has_new_links(report):
        flush()
        explain(_WEAK)
    return 0


def _has_new_links(report: Mapping[str, Any]) -> bool:
    """Whether tokens were taken; the report counts actions and tokens together."""
    new = ("taken", "changed")
    actions = sum(action["outcome"] in new for action in report["actions"])
    return not report["dry_run"] and sum(report["counts"][each] for each in new) > actions


def _became(entry: Mapping[str, Any], name: str | None) -> str:
    words = _WORDS[entry["outcome"]] + (f" as {name}" if name else "")
    return "; ".join([words, *map(visible, entry["notes"])])


def _called(token: Mapping[str, Any]) -> str:
    comment = f" ({visible(token['comment'])})" if token["comment"] else ""
    return f"number {token['number']}{comment}"


def _summary(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    parts = [f"{counts[outcome]} {words}" for outcome, words in _WORDS.items() if counts[outcome]]
    all_of_it = ", ".join(parts) or "there was nothing in it"
    if report["dry_run"]:
        return f"This would be: {all_of_it}. Nothing was changed."
    return f"{all_of_it[0].upper()}{all_of_it[1:]}."
