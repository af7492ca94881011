"""``otsd action``: what links can run."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otsd.cli import listing, tables
from otsd.cli.output import Progress, explain, say, say_json, visible
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from otsd.cli.client import Client
    from otsd.cli.context import Context
    from otsd.core.actions import Action

_SLACK: Final = timedelta(seconds=60)
_INVALID: Final = 422
_CREATED: Final = 201


class CannotApply(OtsdError):
    """The file could not be applied; ``str()`` lists every fault and says what was changed."""


def list_(context: Context) -> int:
    """Print the actions."""
    present = tables.now()
    return listing.show(
        context,
        "/actions",
        [
            tables.Column("NAME", lambda action: action["name"]),
            tables.Column("TITLE", lambda action: action["title"], shrink=True),
            tables.Column("USES", lambda action: _uses(action["defaults"])),
            tables.Column("EXPIRES", lambda action: _end(action["defaults"])),
            tables.Column("CHANGED", lambda item: tables.relative(item["updated_at"], present)),
        ],
    )


def show(context: Context) -> int:
    """Print an action."""
    with _suggesting(context):
        action = context.daemon.get(_path(context.given.name))
    if context.json:
        say_json(action)
        return 0
    present = tables.now()
    for line in tables.record(
        [
            ("name", action["name"]),
            ("title", action["title"]),
            ("default uses", _uses(action["defaults"])),
            ("default expiry", _end(action["defaults"])),
            ("created", tables.both(action["created_at"], present)),
            ("changed", tables.both(action["updated_at"], present)),
        ]
    ):
        say(line)
    say("")
    for line in action["yaml"].splitlines():
        say(visible(line))
    return 0


def delete(context: Context) -> int:
    """Delete an action."""
    given = context.given
    force = "true" if given.force else None
    with _suggesting(context):
        context.daemon.request("DELETE", _path(given.name), force=force)
    if not context.json:
        say(f"{given.name}: deleted")
    return 0


def run(context: Context) -> int:
    """Run an action now, and wait until Home Assistant says that it has finished."""
    name = context.given.name
    daemon = context.connected(context.settings.home_assistant.action_timeout + _SLACK)
    with _suggesting(context), Progress() as progress:
        progress.show(f"running {name} …")
        ran = daemon.post(f"{_path(name)}/run")
    if context.json:
        say_json(ran)
        return 0
    say(f"{name}: {ran['state']}")
    if ran["response"] is not None:
        say_json(ran["response"])
    return 0


def apply(context: Context) -> int:
    """Create or replace the actions of a file: all of them, or none when one is wrong."""
    from otsd.actionfile import read_file  # noqa: PLC0415 - the YAML parser
    from otsd.core.errors import Invalid  # noqa: PLC0415

    source = context.given.file
    try:
        actions = read_file(_read(source))
    except Invalid as error:
        raise _cannot_apply(
            source, [": ".join([*map(str, fault.loc), fault.msg]) for fault in error.faults]
        ) from error
    daemon = context.daemon
    with Progress() as progress:
        warnings = _validate(daemon, source, actions, progress)
        there = {item["name"]: item for page in daemon.pages("/actions", None, {}) for item in page}
        results: list[Any] = []
        for action in actions:
            progress.show(f"saving {len(results) + 1} of {len(actions)}")
            try:
                done, shown = _save(daemon, action, there.get(action.name))
            except OtsdError as error:
                msg = f"{action.name}: {error}\nSaved before it: {len(results)} of {len(actions)}."
                raise CannotApply(msg) from error
            results.append(shown)
            if not context.json:
                progress.show("")
                say(f"{action.name}: {done}")
    if context.json:
        say_json({"items": results, "next": None})
        return 0
    for name, sentences in warnings.items():
        for sentence in sentences:
            explain(f"{name}: warning: {sentence}")
    return 0


def _validate(
    daemon: Client, source: str, actions: Sequence[Action], progress: Progress
) -> dict[str, list[str]]:
    """Ask Home Assistant, through the daemon, about every action before one is saved."""
    from otsd.cli.client import Problem  # noqa: PLC0415

    faults: list[str] = []
    warnings: dict[str, list[str]] = {}
    for count, action in enumerate(actions, 1):
        progress.show(f"checking {count} of {len(actions)}")
        try:
            answer = daemon.post("/actions/validate", {"yaml": action.yaml})
        except Problem as problem:
            if problem.status != _INVALID:
                raise
            faults += [f"{action.name}: {line}" for line in problem.errors or [str(problem)]]
        else:
            warnings[action.name] = answer["warnings"]
    if faults:
        raise _cannot_apply(source, faults)
    return warnings


def _save(daemon: Client, action: Action, there: Any) -> tuple[str, Any]:  # noqa: ANN401 - JSON
    """Save an action unless it is there already; return what was done, and the action."""
    body = _body(action)
    if there is not None and all(there[key] == value for key, value in body.items()):
        return "unchanged", there
    status, shown = daemon.request("PUT", _path(action.name), body)
    return ("created" if status == _CREATED else "replaced"), shown


def _body(action: Action) -> dict[str, Any]:
    from otsd.core.times import format_duration  # noqa: PLC0415

    length = action.defaults.expires_in
    return {
        "title": action.title,
        "yaml": action.yaml,
        "defaults": {
            "max_uses": action.defaults.max_uses,
            "expires_in": None if length is None else format_duration(length),
        },
    }


def _read(source: str) -> str:
    from otsd.actionfile import SIZE  # noqa: PLC0415

    try:
        if source == "-":
            content = sys.stdin.buffer.read(2 * SIZE)
        else:
            with Path(source).open("rb") as file:
                content = file.read(2 * SIZE)
        # of one that is too long, which `read_file` says, a letter may be cut in two
        return content.decode("utf-8-sig", "strict" if len(content) <= SIZE else "replace")
    except OSError as error:
        msg = f"{source} cannot be read: {error.strerror}."
        raise CannotApply(msg) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _cannot_apply(source, [f"line {line}: this is not UTF-8"]) from error


def _cannot_apply(source: str, faults: Sequence[str]) -> CannotApply:
    name = "standard input" if source == "-" else source
    return CannotApply("\n".join([f"Nothing was changed. In {name}:", *faults]))


def _suggesting(context: Context) -> AbstractContextManager[None]:
    from otsd.cli.faults import suggesting  # noqa: PLC0415 - loads the client

    return suggesting(context, context.given.name)


def _path(name: str) -> str:
    from otsd.cli.client import segment  # noqa: PLC0415

    return f"/actions/{segment(name)}"


def _uses(defaults: dict[str, Any]) -> str:
    return "unlimited" if defaults["max_uses"] is None else str(defaults["max_uses"])


def _end(defaults: dict[str, Any]) -> str | None:
    return None if defaults["expires_in"] is None else f"after {defaults['expires_in']}"
