"""What the daemon refuses, in the words of the command line."""

from __future__ import annotations

import difflib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from otsd.cli.client import Problem
from otsd.cli.context import UsageError
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otsd.cli.context import Context

_WRITTEN: Final = {
    "action": "ACTION",
    "actions": "--action",
    "comment": "--comment",
    "device": "--device",
    "expires_at": "--expires-at",
    "expires_in": "--expires-in",
    "max_uses": "--uses",
    "name": "NAME",
    "scope": "--scope",
    "valid_from": "--valid-from",
}
"""How the fields of a body are written."""


class NoSuchAction(OtsdError):
    """There is no action of this name; ``str()`` says which may be meant."""


@contextmanager
def as_written(context: Context) -> Iterator[None]:
    """Name options rather than fields where what was written is wrong; raises `UsageError`."""
    try:
        yield
    except Problem as problem:
        faults = [(_WRITTEN.get(place.partition(".")[0]), msg) for place, msg in problem.faults]
        if not faults or not all(option for option, _ in faults):
            raise
        lines = [f"{_option(context, option)}: {_in_options(msg)}" for option, msg in faults]
        raise UsageError("\n".join(lines)) from problem


def _in_options(msg: str) -> str:
    """Name options in a sentence that names other fields."""
    return re.sub(r"\w+_\w+", lambda field: _WRITTEN.get(field[0], field[0]), msg)


def _option(context: Context, option: str | None) -> str | None:
    """Return which option was written: `otsd token edit` makes an instant of a length."""
    is_length = option == "--expires-at" and context.given.expires_in is not None
    return "--expires-in" if is_length else option


@contextmanager
def suggesting(context: Context, name: str) -> Iterator[None]:
    """Say which action may be meant where there is none of this name."""
    try:
        yield
    except Problem as problem:
        if problem.code != "unknown_action":
            raise
        names = [
            action["name"] for page in context.daemon.pages("/actions", None, {}) for action in page
        ]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]}?" if near else "otsd action list shows all."
        raise NoSuchAction(f"{problem} {hint}") from problem
