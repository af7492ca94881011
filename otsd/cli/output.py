"""Results go to standard output, everything else to standard error.

What others wrote (a visitor's user agent, a comment, Home Assistant's errors) reaches a terminal
only in characters that cannot steer it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

_JOINERS: Final = "\u200d\u200c\u00ad"  # emoji and scripts need them; they steer nothing


class CannotWrite(OtsdError):
    """Standard output does not take what is written: the disk behind it is full."""


def set_up() -> None:
    """Make writing safe in whatever state the process was started."""
    for stream, mode in (("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:  # started with it closed
            setattr(sys, stream, open(os.devnull, mode))  # noqa: PTH123, SIM115 - till the end
    if hasattr(sys.stdout, "reconfigure"):
        # a terminal that has no "…" gets an escape rather than a traceback
        sys.stdout.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    r"""Replace what could steer a terminal by an escape: ``\x1b``."""
    return "".join(
        letter
        if letter.isprintable() or letter in _JOINERS
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads along."""
    return stream.isatty()


def say(text: str) -> None:
    """Write a line of the result."""
    _write(f"{text}\n")


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(error) from error


def flush() -> None:
    """Hand over what was said."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(error) from error


def _cannot_write(error: OSError) -> CannotWrite:
    close()
    return CannotWrite(f"The result cannot be written: {error.strerror}.")


def close() -> None:
    """Say no more: what is not yet written would only raise again when Python ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def explain(text: str) -> None:
    """Write a line for the person who reads along."""
    sys.stderr.write("\n".join(map(visible, text.split("\n"))) + "\n")


def complain(error: OtsdError) -> None:
    """Say what went wrong; what is more than a line continues indented."""
    first, *rest = str(error).split("\n")
    explain("\n".join([f"otsd: {first}", *(f"  {line}" for line in rest)]))


def say_json(document: object) -> None:
    """Write what the API answered."""
    say(json.dumps(document, indent=2))


def say_json_list(items: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole list as the API shows a page of one, without holding all of it."""
    between = '{"items": [\n'
    for item in items:
        _write(between + json.dumps(item))
        between = ",\n"
    say('\n], "next": null}' if between == ",\n" else '{"items": [], "next": null}')


class Progress:
    """A line on a terminal's standard error that says how far something is, and then is gone."""

    def __init__(self, *, wanted: bool = True) -> None:
        """Show nothing unless a person reads along."""
        self._shows = wanted and is_terminal(sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._shows:
            sys.stderr.write(f"\r\x1b[K{visible(text)}")
            sys.stderr.flush()
