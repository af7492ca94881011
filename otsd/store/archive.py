"""Backups: one tar of the key, the database and what they should be, made while otsd runs.

Whoever has a backup has every link. What is read is taken only if it is exactly what `Backups`
writes: another name, another order, a byte too few or too many, and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from otsd import __version__
from otsd.core.errors import OtsdError, StartError, StorageUnavailable
from otsd.core.times import isoformat
from otsd.store import database
from otsd.store import key as keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from otsd.core.ports import Clock

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_NAMES: Final = (keys.NAME, database.NAME)  # in the order in which they stand in the archive
_LARGEST_MANIFEST: Final = 16 * 1024
_LARGEST_KEY: Final = 1024
_PART: Final = 256 * 1024
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


class NotABackup(OtsdError):
    """The archive is not one that this otsd can restore; says why, as in "it is cut short"."""


class CannotRestore(OtsdError):
    """The storage directory cannot take a backup: it holds a database, or its disk is full."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file of the archive must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself; everything that was acknowledged by ``created_at`` is in it."""

    otsd: str
    schema: int
    created_at: str
    files: Mapping[str, Content]

    def written(self) -> bytes:
        """Return it as it stands in the archive."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is in a database."""

    schema: int
    actions: int
    tokens: int


# -- making one ------------------------------------------------------------------------------


class Snapshot:
    """An archive that is ready to be sent. Its database is a file that has no name any more."""

    def __init__(self, manifest: Manifest, key: bytes, file: IO[bytes]) -> None:
        """Take what is in it."""
        written = manifest.written()
        size = manifest.files[database.NAME].bytes
        self._head = (
            _header(_MANIFEST, len(written))
            + _padded(written)
            + _header(keys.NAME, len(key))
            + _padded(key)
            + _header(database.NAME, size)
        )
        self._file = file
        self._tail = bytes(-size % tarfile.BLOCKSIZE) + _END
        self.size = len(self._head) + size + len(self._tail)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield all of it; raises `StorageUnavailable` when the disk fails."""
        yield self._head
        try:
            while part := await asyncio.to_thread(self._file.read, _PART):
                yield part
        except OSError as error:
            raise StorageUnavailable(str(error)) from error
        yield self._tail

    def close(self) -> None:
        """Forget it."""
        self._file.close()


class Backups:
    """Makes archives of a storage directory that this daemon holds, one after another.

    It has a thread and connections of its own: neither submissions nor lists wait for it.
    """

    def __init__(self, directory: Path, now: Clock) -> None:
        """Take the directory and the clock."""
        self._directory = directory
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otsd-backup")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[Snapshot]:
        """Make an archive of everything that was acknowledged by now.

        Raises:
            StorageUnavailable: the disk is full, or what is on it could not be restored.

        """
        making = self._thread.submit(_take, self._directory, self._now)
        try:
            snapshot = await asyncio.wrap_future(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise
        with closing(snapshot):
            yield snapshot


def _discard(made: Future[Snapshot]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


def _take(directory: Path, now: Clock) -> Snapshot:
    copy = directory / database.SNAPSHOT
    created_at = isoformat(now())
    try:
        try:
            with closing(database.connect(directory / database.NAME, write=False)) as connection:
                database.copy(connection, copy)
            facts = _look(copy, directory, "quick_check")
            key = (directory / keys.NAME).read_bytes()
            file = copy.open("rb")
        finally:
            database.remove_snapshot(directory)
        try:
            files = {keys.NAME: _describe(io.BytesIO(key)), database.NAME: _describe(file)}
            file.seek(0)
            return Snapshot(Manifest(__version__, facts.schema, created_at, files), key, file)
        except BaseException:
            file.close()
            raise
    except (OSError, sqlite3.Error, StartError, NotABackup) as error:
        msg = f"No backup of {directory} could be made: {error}."
        raise StorageUnavailable(msg.replace("..", ".")) from error


def _describe(file: IO[bytes]) -> Content:
    digest, size = hashlib.sha256(), 0
    while part := file.read(_PART):
        digest.update(part)
        size += len(part)
    return Content(size, digest.hexdigest())


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    return entry.tobuf(tarfile.GNU_FORMAT)  # which knows files of more than 8 GB


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


# -- reading one -----------------------------------------------------------------------------


def check(file: IO[bytes]) -> Manifest:
    """Read an archive to its end and return what it says of itself.

    Raises:
        NotABackup: it is not whole, or another thing.

    """
    return _read(file, {})


def _read(file: IO[bytes], into: Mapping[str, IO[bytes]]) -> Manifest:
    """Read an archive, and write what is in it to the files of these names."""
    manifest = _manifest(b"".join(_content(file, _entry(file, _MANIFEST, _LARGEST_MANIFEST))))
    for name in _NAMES:
        wanted = manifest.files[name]
        size = _entry(file, name, wanted.bytes)
        digest = hashlib.sha256()
        for part in _content(file, size):
            digest.update(part)
            if name in into:
                into[name].write(part)
        if Content(size, digest.hexdigest()) != wanted:
            raise NotABackup(f"{name} in it is not what was backed up")
    # tar programs fill their last record
    rest = _some(file, tarfile.RECORDSIZE + 1)
    if len(rest) < len(_END):
        raise NotABackup("it is cut short")
    if any(rest) or len(rest) > tarfile.RECORDSIZE:
        raise NotABackup("there is more in it than a backup has")
    return manifest


def _entry(file: IO[bytes], name: str, most: int) -> int:
    """Read the header of the file that comes next, and return its size."""
    header = _exactly(file, tarfile.BLOCKSIZE)
    try:
        entry = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise NotABackup("it is not an archive of otsd, or damaged") from error
    if entry.name != name or entry.type != tarfile.REGTYPE:
        raise NotABackup(f"it has {entry.name[:64]!r} where every backup has the file {name!r}")
    if not 0 <= entry.size <= most:
        raise NotABackup(f"{name} in it is larger than it should be")
    return entry.size


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        part = _exactly(file, min(left, _PART))
        left -= len(part)
        yield part
    _exactly(file, -size % tarfile.BLOCKSIZE)


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = _some(file, size)
    if len(content) < size:
        raise NotABackup("it is cut short")
    return content


def _some(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise NotABackup(f"it cannot be read: {error.strerror}") from error


def _manifest(text: bytes) -> Manifest:
    try:
        document: Any = json.loads(text)
        version = document["format"]
        if isinstance(version, int) and version > _FORMAT:
            msg = f"it was made by a newer otsd, {str(document.get('otsd'))[:32]}"
            raise NotABackup(msg)
        files = {
            name: Content(int(document["files"][name]["bytes"]), document["files"][name]["sha256"])
            for name in _NAMES
        }
        created_at = isoformat(datetime.fromisoformat(document["created_at"]).astimezone(UTC))
        manifest = Manifest(str(document["otsd"])[:32], int(document["schema"]), created_at, files)
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise NotABackup(f"its {_MANIFEST} is damaged") from error
    if version != _FORMAT or files[keys.NAME].bytes > _LARGEST_KEY:
        raise NotABackup(f"its {_MANIFEST} is damaged")
    return manifest


# -- restoring one ---------------------------------------------------------------------------


def restore(file: IO[bytes], directory: Path) -> tuple[Manifest, Facts]:
    """Put what is in an archive into a storage directory that has no database.

    Whenever it is cut short, the directory is as it was, or the next start of otsd finishes it.

    Raises:
        NotABackup: the archive cannot be used; nothing was changed.
        CannotRestore: the directory cannot take it; nothing was changed.
        StartError: otsd runs there, or the directory cannot be used.

    """
    is_new = not directory.exists()
    try:
        with database.held(directory):
            _check_vacant(directory)
            found = _unpack(file, directory)
            database.finish_restore(directory)
            return found
    except OSError as error:
        msg = f"{directory} cannot take the backup: {error.strerror or error}."
        raise CannotRestore(msg) from error
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty: all went well
                directory.rmdir()


def _check_vacant(directory: Path) -> None:
    if database.finish_restore(directory):
        msg = (
            f"An earlier restore into {directory} was cut short and is finished now: what it "
            f"restored is there, and nothing of this backup was taken."
        )
        raise CannotRestore(msg)
    # a log without its database would be played into the restored one
    ours = (database.NAME, f"{database.NAME}-wal", f"{database.NAME}-journal", keys.NAME)
    if there := [name for name in ours if os.path.lexists(directory / name)]:
        msg = (
            f"{directory} is not empty, and nothing is replaced: {', '.join(there)}. Move that "
            f"away first, or restore into another folder: --storage.directory DIRECTORY."
        )
        raise CannotRestore(msg)


def _unpack(file: IO[bytes], directory: Path) -> tuple[Manifest, Facts]:
    """Write what is in an archive into a folder of its own, which has its name when it is whole."""
    part = directory / database.PARTIAL
    part.mkdir(0o700)
    try:
        with ExitStack() as stack:
            into = {name: stack.enter_context(_private(part / name)) for name in _NAMES}
            manifest = _read(file, into)
            for each in into.values():
                each.flush()
                os.fsync(each.fileno())
        if manifest.schema < 1:
            raise NotABackup(f"its {_MANIFEST} is damaged")
        if manifest.schema > database.schemas()[-1].version:
            raise NotABackup(f"it was made by a newer otsd, {manifest.otsd}")
        try:
            facts = _look(part / database.NAME, part, "integrity_check")
        except (sqlite3.Error, StartError) as error:
            raise NotABackup("its key or its database is damaged") from error
        if facts.schema != manifest.schema:
            raise NotABackup(f"its {_MANIFEST} is damaged")
        _hand_over(part, directory)
        keys.sync_directory(part)
        part.rename(directory / database.RESTORED)
        keys.sync_directory(directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest, facts


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _hand_over(part: Path, directory: Path) -> None:
    """Let root restore for the user whose directory it is."""
    if os.geteuid() == 0:
        owner = directory.stat()
        for path in (part, *part.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)


def _look(path: Path, directory: Path, pragma: str) -> Facts:
    """Return what is in a database, if it is in order and the key of this directory fits it.

    Raises:
        NotABackup: it is not.
        StartError: there is no such key.
        sqlite3.Error: it cannot be read.

    """
    # for writing, though nothing is written: SQLite checks no constraint of a file that it may only
    # read, and the next start does
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        ((found,),) = connection.execute(f"PRAGMA {pragma}(1)").fetchall()
        if found != "ok":
            raise NotABackup(f"the database is damaged ({found.splitlines()[-1]})")
        key = keys.load(directory)
        row = connection.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()
        if key is None or row is None or row[0] != key.fingerprint:
            raise NotABackup("the key is not that of the database")
        ((schema, actions, tokens),) = connection.execute(
            "SELECT user_version, (SELECT count(*) FROM actions), (SELECT count(*) FROM tokens) "
            "FROM pragma_user_version"
        ).fetchall()
    return Facts(schema, actions, tokens)
