"""``otsd import``: what the One Time Service add-on kept."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otsd.cli.output import Progress, explain, flush, say, say_json, visible
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        became = _became(action, action["name"], action["warnings"])
        say(f"action {visible(action['source'])}: {became}")
    for token in report["tokens"]:
        say(f"token {_called(token)}: {_became(token, token['id'])}")
    say(_summary(report))
    if _has_new_links(report):
        flush()
        explain(_WEAK)
    return 0


def _has_new_links(report: Mapping[str, Any]) -> bool:
    """Whether tokens were taken."""
    new = [_counts(report, outcome)[1] for outcome in ("taken", "changed")]
    return not report["dry_run"] and any(new)


def _became(entry: Mapping[str, Any], name: str | None, warnings: Sequence[str] = ()) -> str:
    words = _WORDS[entry["outcome"]] + (f" as {name}" if name else "")
    told = [*entry["notes"], *(f"warning: {each}" for each in warnings)]
    return "; ".join([words, *map(visible, told)])


def _called(token: Mapping[str, Any]) -> str:
    comment = f" ({visible(token['comment'])})" if token["comment"] else ""
    return f"number {token['number']}{comment}"


def _summary(report: Mapping[str, Any]) -> str:
    parts = []
    for outcome, words in _WORDS.items():
        actions, tokens = _counts(report, outcome)
        kinds = [_several(actions, "action"), _several(tokens, "token")]
        if there := " and ".join(filter(None, kinds)):
            parts.append(f"{there} {words.replace(',', '')}")
    all_of_it = ", ".join(parts) or "there was nothing in it"
    if report["dry_run"]:
        return f"This would be: {all_of_it}. Nothing was changed."
    return f"{all_of_it[0].upper()}{all_of_it[1:]}."


def _counts(report: Mapping[str, Any], outcome: str) -> tuple[int, int]:
    """Return how many actions and how many tokens; the report counts them together."""
    actions = sum(action["outcome"] == outcome for action in report["actions"])
    return actions, report["counts"][outcome] - actions


def _several(count: int, kind: str) -> str:
    return f"{count} {kind}{'' if count == 1 else 's'}" if count else ""
