"""What every command is given: what was written, the configuration, and the running daemon."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from otsd.core.errors import OtsdError

_DEADLINE: Final = timedelta(minutes=2)
SOCKET: Final = "otsd.sock"
"""The daemon's ``otsd.app.SOCKET``, which would take a second to import."""

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from otsd.cli.client import Client
    from otsd.settings import Settings


class UsageError(OtsdError):
    """What was written makes no sense together."""


class Context:
    """One call of the command line; a context manager that closes what the command opened."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Take what was written; nothing is read before it is asked for."""
        self.given = given
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def json(self) -> bool:
        """Whether a program reads the result."""
        return bool(self.given.json)

    @cached_property
    def settings(self) -> Settings:
        """The configuration; raises `otsd.settings.ConfigurationError`."""
        from otsd.settings import load  # noqa: PLC0415

        written = {key: value for key, value in vars(self.given).items() if "." in key}
        return load(config=self.given.config, overrides=written)

    @property
    def socket(self) -> Path:
        """Where the daemon listens, if it runs."""
        return (self.settings.storage.directory / SOCKET).absolute()

    @cached_property
    def daemon(self) -> Client:
        """The running daemon; asking it raises `otsd.cli.client.NoDaemon` if there is none."""
        return self.connected(_DEADLINE)

    def connected(self, deadline: timedelta) -> Client:
        """Return a way to the daemon that waits so long for an answer."""
        from otsd.cli.client import Client  # noqa: PLC0415 - `otsd run` does without

        return self._opened.enter_context(Client(self.socket, deadline))
