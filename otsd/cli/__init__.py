"""The command line: ``otsd``.

    parser     what may be written, and which function does it
    context    what every command is given: its words, the settings, the daemon
    client     the daemon's API, over the control socket
    faults     what the daemon refuses, in the words of the command line
    output     results and messages, for people and for programs
    tables     columns, and words for times and uses

and a module for each command. Nothing heavy is imported before it is known that it is needed:
``otsd --help`` must not wait for aiohttp.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otsd.cli import output, parser
from otsd.cli.context import Context, UsageError
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otsd.settings import Setting

_FAILED: Final = 1
_WRONG_USAGE: Final = 2


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status: 0 done, 1 failed, 2 wrong usage."""
    output.set_up()
    try:
        try:
            return _do(sys.argv[1:] if words is None else words)
        finally:
            output.flush()
    except UsageError as error:
        output.complain(error)
        return _WRONG_USAGE
    except OtsdError as error:
        output.complain(error)
    except BrokenPipeError:
        output.close()  # whoever reads has seen enough, as in `otsd token list | head`
    except KeyboardInterrupt:
        output.close()
    return _FAILED


def _do(words: Sequence[str]) -> int:
    settings: Sequence[Setting] = ()
    if words and (not words[0].startswith("-") or "." in words[0]):
        # a command: every setting is an option of it, and it will read the configuration anyway;
        # or a setting that stands before its command, which is said
        from otsd.settings import schema  # noqa: PLC0415 - half of the time that a command takes

        settings = schema()
    given = parser.build(settings).parse_args(words, parser.unset())
    with Context(given) as context:
        done: int = given.do(context)
    return done
