"""``otsd backup`` and ``otsd restore``: everything otsd keeps, in one file and back.

The daemon makes a backup, and it is written here, where the command was called. Restoring needs no
daemon. A file that is there is never written over, neither by the one nor by the other.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from otsd.cli import tables
from otsd.cli.output import Progress, explain, say, say_json
from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from otsd.cli.client import Client
    from otsd.cli.context import Context
    from otsd.store.archive import Manifest

# until the daemon has made a backup of a large database
_DEADLINE: Final = timedelta(minutes=10)


class NotWritten(OtsdError):
    """No backup was written, and why."""


class NotRestored(OtsdError):
    """Nothing was restored, and why."""


def backup(context: Context) -> int:
    """Write a backup to a new file."""
    path = Path(context.given.file)
    manifest, size = _written(context, path)
    if context.json:
        say_json({"file": str(path.absolute()), "bytes": size, **_about(manifest)})
        return 0
    until = tables.both(manifest.created_at, tables.now())
    say(f"{path}: {_in_words(size)}, with everything up to {until}")
    explain("Keep it as you keep keys: it opens every link.")
    return 0


def restore(context: Context) -> int:
    """Put what is in a backup into a storage directory that has no database."""
    from otsd.store import archive  # noqa: PLC0415 - slow to load

    given = context.given.file
    name = "Standard input" if given == "-" else given
    directory = context.settings.storage.directory.absolute()
    try:
        # read once, from its beginning to its end: a pipe is as good as a file
        with nullcontext(sys.stdin.buffer) if given == "-" else Path(given).open("rb") as file:
            manifest, facts = archive.restore(file, directory)
    except OSError as error:
        raise NotRestored(f"{name} cannot be read: {error.strerror}.") from error
    except archive.NotABackup as error:
        msg = f"{name} is no backup that can be restored: {error}. Nothing was changed."
        raise NotRestored(msg) from error
    if context.json:
        where = "-" if given == "-" else str(Path(given).absolute())
        document = {"file": where, "directory": str(directory), **_about(manifest)}
        say_json({**document, "actions": facts.actions, "tokens": facts.tokens})
        return 0
    when = tables.both(manifest.created_at, tables.now())
    say(f"{directory}: {facts.actions} actions and {facts.tokens} tokens, as they were at {when}")
    explain(
        "Links that were used since then work again as they did at that time; revoke or check them."
    )
    return 0


def _about(manifest: Manifest) -> dict[str, object]:
    return {
        "created_at": manifest.created_at,
        "version": manifest.otsd,
        "schema": manifest.schema,
    }


def _in_words(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


# -- the file: absent, or whole ----------------------------------------------------------------


def _written(context: Context, path: Path) -> tuple[Manifest, int]:
    if str(path) == "-":
        raise NotWritten("A backup is written to a file: say which, as in backup.tar.")
    if os.path.lexists(path):
        raise NotWritten(f"{path} is there already, and nothing is written over it.")
    daemon = context.connected(_DEADLINE)
    try:
        # a name that nobody takes for a backup, until it is one; private before the first byte
        descriptor, name = tempfile.mkstemp(".part", ".otsd-backup-", path.absolute().parent)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                manifest = _received(daemon, file)
                os.fsync(descriptor)
                size = file.seek(0, os.SEEK_END)
                _give_name(Path(name), path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - it is text here
        _sync(path.absolute().parent)
    except FileExistsError as error:
        msg = f"{path} has come into being meanwhile, and nothing is written over it."
        raise NotWritten(msg) from error
    except OSError as error:
        raise NotWritten(f"{path} cannot be written: {error.strerror}.") from error
    return manifest, size


def _received(daemon: Client, file: IO[bytes]) -> Manifest:
    from otsd.store import archive  # noqa: PLC0415 - slow to load

    received = 0
    with Progress() as progress:
        for part in daemon.download("/backup"):
            file.write(part)
            received += len(part)
            progress.show(_in_words(received))
    file.seek(0)
    try:
        return archive.check(file)
    except archive.NotABackup as error:
        raise NotWritten(f"The daemon sent no backup: {error}.") from error


def _give_name(part: Path, path: Path) -> None:
    """Let the file have its name, which nothing else has had in between."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:
        # a file system without links, as on most USB sticks; it does not know the owner either
        if os.path.lexists(path):
            raise FileExistsError from None
        part.rename(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
