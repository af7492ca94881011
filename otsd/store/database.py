"""The database file: found or made, fitting its key, upgraded, and held by one daemon.

Everything here happens before the daemon serves anybody, and what is wrong ends the start with a
message that says what to do. The numbered files in ``schema`` are the only description of the
tables: each is applied once, and all that are missing together with the number in one transaction.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from otsd.core.errors import StartError
from otsd.store import key as keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NAME: Final = "otsd.db"
SNAPSHOT: Final = "otsd.db.backup"
"""A copy that a backup is made of; it is gone when that is sent."""
PARTIAL: Final = "restore.part"
"""The folder that a restore unpacks into."""
RESTORED: Final = "restore.new"
"""The name of that folder when it is whole: from then on, what is in it is the new state."""
# the size up to which a database is read whole at start: about 50 ms, and nearly every household
_CHECKED_WHOLE: Final = 16 * 2**20
_OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables; RETURNING and UPDATE FROM came earlier


@dataclass(frozen=True, slots=True)
class Schema:
    """One numbered step of the schema."""

    version: int
    sql: str


def schemas() -> Sequence[Schema]:
    """Return the steps of the schema in order."""
    folder = resources.files("otsd.store") / "schema"
    return sorted(
        (
            Schema(int(file.name.partition("_")[0]), file.read_text("utf-8"))
            for file in folder.iterdir()
            if file.name.endswith(".sql")
        ),
        key=lambda schema: schema.version,
    )


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a connection with the settings that durability rests on.

    WAL lets readers go on while the writer commits; ``synchronous=FULL`` syncs the log at each
    commit, so that what was committed survives a power loss (https://sqlite.org/wal.html).
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        if write:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        else:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()  # or it would be closed, and tidy up its log, at some later moment
        raise
    return connection


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the storage directory for this daemon, making it if need be.

    Raises:
        StartError: another daemon holds it, or it cannot be used.

    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        msg = f"SQLite {sqlite3.sqlite_version} is too old: otsd needs 3.37 or newer."
        raise StartError(msg)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        msg = f"The storage directory {directory} cannot be used: {error.strerror}."
        raise StartError(msg) from error
    # the lock is on the directory itself: it leaves no file behind and ends with the process
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            where = f"the storage directory {directory.absolute()}"
            msg = f"Another otsd is running with {where}. Stop it first."
            raise StartError(msg) from error
        except OSError as error:
            msg = f"The storage directory {directory} cannot be locked: {error.strerror}."
            raise StartError(msg) from error
        _keep_others_out(directory, descriptor)
        yield
    finally:
        os.close(descriptor)


def _keep_others_out(directory: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    names = set(os.listdir(descriptor))
    ours = not names or NAME in names or keys.NAME in names
    # a folder that is also somebody else's (say /tmp, by mistake) keeps its mode
    if stat.S_IMODE(status.st_mode) & 0o077 and ours and status.st_uid == os.geteuid():
        directory.chmod(0o700)


def prepare(directory: Path, steps: Sequence[Schema]) -> keys.InstanceKey:
    """Make the database usable by this version and return the key that fits it.

    Raises:
        StartError: the key is lost or foreign, the file is damaged or newer, the disk is full.

    """
    path = directory / NAME
    try:
        finish_restore(directory)
        remove_snapshot(directory)
        with closing(_open_private(path)) as connection:
            return _prepare(directory, connection, steps)
    except sqlite3.Error as error:
        raise StartError(_explain(path, error)) from error
    except OSError as error:
        msg = (
            f"{error.filename or directory} cannot be written: {error.strerror}. Check the owner "
            f"and the disk of the storage directory."
        )
        raise StartError(msg) from error


def finish_restore(directory: Path) -> bool:
    """Put a restored key and database into their places; return whether there were any.

    What is left of a restore that did not come that far is removed. It can be cut short and called
    again at any moment.

    Raises:
        StartError: somebody has put another database there in between.

    """
    shutil.rmtree(directory / PARTIAL, ignore_errors=True)
    folder = directory / RESTORED
    if not folder.is_dir():
        return False
    for name in (keys.NAME, NAME):
        if (folder / name).exists():
            if (directory / name).exists():
                msg = (
                    f"{directory} has a file {name}, and {folder} has one that was restored: "
                    f"move one of the two away."
                )
                raise StartError(msg)
            (folder / name).rename(directory / name)
    keys.sync_directory(directory)
    folder.rmdir()
    keys.sync_directory(directory)
    return True


def remove_snapshot(directory: Path) -> None:
    """Remove the copy that a backup was made of, and what SQLite may have left beside it."""
    for ending in ("", "-journal", "-wal", "-shm"):
        (directory / f"{SNAPSHOT}{ending}").unlink(missing_ok=True)


def _open_private(path: Path) -> sqlite3.Connection:
    # made here rather than by SQLite, which would let others read it; its log copies the mode
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return connect(path, write=True)


def look(directory: Path, steps: Sequence[Schema]) -> int:
    """Return the version of a database's schema; it is not upgraded, and nothing is changed.

    Raises:
        StartError: as `prepare` does.

    """
    path = directory / NAME
    try:
        with closing(connect(path, write=False)) as connection:
            version, _ = _examine(directory, connection, steps)
    except sqlite3.Error as error:
        raise StartError(_explain(path, error)) from error
    return version


def recall(directory: Path, name: str) -> str | None:
    """Return what is remembered under a name, in a database that is not in use.

    Raises:
        StartError: it cannot be read.

    """
    path = directory / NAME
    try:
        with closing(connect(path, write=False)) as connection:
            found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            return None if found is None else bytes(found[0]).decode()
    except sqlite3.Error as error:
        raise StartError(_explain(path, error)) from error


def _examine(
    directory: Path, connection: sqlite3.Connection, steps: Sequence[Schema]
) -> tuple[int, keys.InstanceKey | None]:
    """Return the version of the schema and the key there is, unless they are of no use."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = steps[-1].version
    if version > newest:
        msg = (
            f"The database {directory / NAME} was written by a newer otsd: its schema is "
            f"{version}, this one knows {newest}. Install that version again, or restore an "
            f"older backup."
        )
        raise StartError(msg)
    key = keys.load(directory)
    if version == 0:
        return version, key
    if key is None:
        msg = (
            f"The key file {directory / keys.NAME} is missing, and without it no link of this "
            f"database works. Put it back from a backup. To begin anew instead, move "
            f"{directory / NAME} away."
        )
        raise StartError(msg)
    _check(connection, directory / NAME)
    found = connection.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
    if found is None or bytes(found[0]) != key.fingerprint:
        msg = (
            f"The key file {directory / keys.NAME} belongs to another database than "
            f"{directory / NAME}: none of its links would work. Put the right one back."
        )
        raise StartError(msg)
    return version, key


def _prepare(
    directory: Path, connection: sqlite3.Connection, steps: Sequence[Schema]
) -> keys.InstanceKey:
    version, key = _examine(directory, connection, steps)
    key = key or keys.create(directory)
    if 0 < version < steps[-1].version:
        _keep_copy(connection, directory / f"{NAME}.v{version}")
    if version < steps[-1].version:
        _apply(connection, [step for step in steps if step.version > version], key)
    return key


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Notice a file that was cut short or overwritten: read all of it where that is quick."""
    if path.stat().st_size <= _CHECKED_WHOLE:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StartError(_damaged(path, found.splitlines()[-1]))
    for table in ("tokens", "submissions", "outbox", "actions"):
        connection.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1").fetchone()  # noqa: S608


def _apply(connection: sqlite3.Connection, steps: Sequence[Schema], key: keys.InstanceKey) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            for statement in _statements(step.sql):
                connection.execute(statement)
            if step.version == 1:
                connection.execute("INSERT INTO meta VALUES ('key', ?)", (key.fingerprint,))
        connection.execute(f"PRAGMA user_version = {steps[-1].version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(sql: str) -> Iterator[str]:
    # executescript would commit in the middle
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _keep_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the database beside itself before an upgrade; whole, or not at all."""
    part = path.with_name(f"{path.name}.part")
    copy(connection, part)
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(path)
    keys.sync_directory(path.parent)


def copy(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a database that may be in use, as it is now, into a private file; not yet on disk."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        connection.backup(made)  # in one step: nothing can change in between
        made.execute("PRAGMA journal_mode = DELETE")  # it is whole without a log beside it


def _damaged(path: Path, what: object) -> str:
    return (
        f"The database {path} is damaged ({what}). Restore a backup, or move the file away to "
        f"begin anew; the key file can stay."
    )


def _explain(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _damaged(path, error)
    if name.startswith("SQLITE_FULL"):
        return f"The disk of {path.parent} is full: free some space and start otsd again."
    if name.startswith("SQLITE_IOERR"):
        return (
            f"The disk of {path.parent} is full or failing ({error}): free some space, or check "
            f"the disk, and start otsd again."
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"The database {path} cannot be written ({error}): check its owner and the disk."
    return f"The database {path} cannot be opened: {error}."
