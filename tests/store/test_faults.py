"""Folders, keys and databases that cannot be used: what is said, and that nothing is lost."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from otsd.core.errors import StartError, StorageUnavailable
from otsd.store import database
from otsd.store import key as keys
from otsd.store.database import Schema
from otsd.store.store import opened
from tests.conftest import Clock
from tests.store import making, million

STEPS = database.schemas()


def prepare(directory: Path) -> keys.InstanceKey:
    with database.held(directory):
        return database.prepare(directory, STEPS)


def refused(directory: Path) -> str:
    """Return what is said when a directory cannot be used."""
    with pytest.raises(StartError) as refusal:
        prepare(directory)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage directory with 50 tokens, to copy."""
    directory = tmp_path_factory.mktemp("made") / "data"
    million.fill(directory, 50)
    return directory


@pytest.fixture
def used(made: Path, directory: Path) -> Path:
    """Return a storage directory with 50 tokens, not in use."""
    shutil.copytree(made, directory)
    return directory


# -- the directory


def test_a_directory_is_made_with_its_parents_for_its_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_our_directory_is_closed_to_others(used: Path) -> None:
    used.chmod(0o755)
    prepare(used)
    assert stat.S_IMODE(used.stat().st_mode) == 0o700


def test_an_empty_directory_becomes_ours(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_with_the_files_of_others_keeps_its_mode(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "somebody's").touch()
    prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in directory.glob("otsd.*")} == {
        "0o600"
    }


def test_a_directory_that_is_a_file_is_named(directory: Path) -> None:
    directory.write_text("")
    assert "cannot be used" in refused(directory)


def test_a_directory_below_a_file_is_named(directory: Path) -> None:
    directory.write_text("")
    assert "Not a directory" in refused(directory / "below")


def test_a_directory_that_another_daemon_holds_is_named(used: Path) -> None:
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert "Another otsd is running" in refused(used)
    finally:
        os.close(descriptor)
    prepare(used)


def _without_the_powers_of_root() -> None:
    # CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) leave the bounding set (PR_CAPBSET_DROP, 24),
    # so that root, too, is held to the modes of files; who is not root has no such power to lose
    for power in (1, 2):
        ctypes.CDLL(None).prctl(24, power, 0, 0, 0)


def _without_locks() -> None:
    # as on a file system that knows none: flock fails with ENOLCK
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(0x7FFF0000))  # the rest is allowed
    number = library.seccomp_syscall_resolve_name(b"flock")
    library.seccomp_rule_add(rules, 0x00050000 | errno.ENOLCK, number, 0)
    library.seccomp_load(rules)


def _without_room() -> None:
    # no file may grow, as on a disk that is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def start(directory: Path, preexec: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    code = (
        "import pathlib, sys; from otsd.store import database; d = pathlib.Path(sys.argv[1])\n"
        "with database.held(d): database.prepare(d, database.schemas())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=preexec,
    )


def test_a_read_only_directory_is_named(directory: Path) -> None:
    directory.mkdir(mode=0o500)
    ended = start(directory, _without_the_powers_of_root)
    assert "StartError" in ended.stderr
    assert "cannot be written: Permission denied. Check the owner" in ended.stderr
    assert list(directory.iterdir()) == []


def test_a_used_directory_that_became_read_only_is_named_and_left_alone(used: Path) -> None:
    for path in used.iterdir():
        path.chmod(0o400)
    used.chmod(0o500)
    before = {path.name: path.read_bytes() for path in used.iterdir()}
    ended = start(used, _without_the_powers_of_root)
    assert "StartError" in ended.stderr
    assert "cannot be written: Permission denied" in ended.stderr
    assert {path.name: path.read_bytes() for path in used.iterdir()} == before


def test_a_directory_that_cannot_be_entered_is_named(used: Path) -> None:
    used.chmod(0)
    ended = start(used, _without_the_powers_of_root)
    used.chmod(0o700)
    assert "StartError" in ended.stderr
    assert "cannot be used: Permission denied" in ended.stderr


def test_a_file_system_that_cannot_lock_is_named_and_not_another_daemon(used: Path) -> None:
    ended = start(used, _without_locks)
    assert "StartError" in ended.stderr
    assert f"The storage directory {used} cannot be locked: No locks available." in ended.stderr
    assert "Another otsd" not in ended.stderr


def test_a_disk_that_is_full_at_start_is_told_and_costs_nothing(used: Path) -> None:
    before = dumped(used / "otsd.db")
    ended = start(used, _without_room)
    assert "StartError" in ended.stderr
    assert "is full or failing" in ended.stderr
    assert "free some space" in ended.stderr
    assert dumped(used / "otsd.db") == before
    prepare(used)


def test_a_disk_that_is_full_at_the_first_start_leaves_no_obstacle(directory: Path) -> None:
    ended = start(directory, _without_room)
    assert "StartError" in ended.stderr
    assert str(directory) in ended.stderr
    prepare(directory)


def test_a_database_that_is_a_directory_is_named(used: Path) -> None:
    (used / "otsd.db").unlink()
    (used / "otsd.db").mkdir()
    message = refused(used)
    assert "otsd.db cannot be written: Is a directory" in message


# -- the key


def test_a_key_is_made_once_and_read_again(directory: Path) -> None:
    first = prepare(directory)
    assert prepare(directory).derive("codes") == first.derive("codes")
    assert len({first.derive(purpose) for purpose in ("codes", "imports", "credentials")}) == 3
    text = (directory / "otsd.key").read_text()
    assert len(bytes.fromhex(text)) == 32
    assert text.strip() not in repr(first) + str(vars(type(first)))


def test_two_instances_have_different_keys(tmp_path: Path) -> None:
    assert prepare(tmp_path / "a").fingerprint != prepare(tmp_path / "b").fingerprint


def test_a_lost_key_is_explained_and_no_new_one_made(used: Path) -> None:
    (used / "otsd.key").unlink()
    message = refused(used)
    assert "otsd.key is missing" in message
    assert "Put it back from a backup" in message
    assert "move" in message
    assert not (used / "otsd.key").exists()


def test_a_foreign_key_is_explained(used: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "otsd.key", used / "otsd.key")
    message = refused(used)
    assert "belongs to another database" in message
    assert "Put the right one back" in message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o610, 0o777])
def test_a_key_that_others_may_read_is_explained(used: Path, mode: int) -> None:
    (used / "otsd.key").chmod(mode)
    message = refused(used)
    assert "can be read by others" in message
    assert f"chmod 600 {used / 'otsd.key'}" in message
    assert "rotate" in message
    (used / "otsd.key").chmod(0o600)
    prepare(used)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_user_alone_is_taken(used: Path, mode: int) -> None:
    (used / "otsd.key").chmod(mode)
    prepare(used)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"ab" * 31, b"ab" * 33, b"xy" * 32, b"\xff" * 64, b"\0" * 65, b"ab" * 5000],
)
def test_a_damaged_key_is_explained_without_telling_it(used: Path, content: bytes) -> None:
    (used / "otsd.key").write_bytes(content)
    message = refused(used)
    assert "is damaged: it must hold 64 hexadecimal digits" in message
    assert "backup" in message
    assert content.decode("ascii", "replace")[:4].strip() in ("", "ab\0") or "abab" not in message


def test_a_key_that_is_a_directory_is_named(used: Path) -> None:
    (used / "otsd.key").unlink()
    (used / "otsd.key").mkdir()
    assert "otsd.key cannot be read: Is a directory" in refused(used)


def test_what_an_interrupted_first_start_left_is_no_obstacle(directory: Path) -> None:
    # the key comes first, then the database; a key that was being written has another name
    directory.mkdir()
    (directory / "otsd.key.new").write_text("half")
    (directory / "otsd.db").touch()
    key = prepare(directory)
    (directory / "otsd.db").unlink()
    assert prepare(directory).fingerprint == key.fingerprint


# -- a damaged database


def damage(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: damage(path, 0, b"not a database, certainly" * 4),
        lambda path: path.write_text("hello\n" * 2000),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 4096),
        lambda path: os.truncate(path, 5000),
        lambda path: os.truncate(path, 50),
        lambda path: damage(path, path.stat().st_size // 8192 * 4096, b"\xff" * 4096),
        lambda path: damage(path, 4096 * 5, os.urandom(4096)),
        lambda path: damage(path, 4096, b"\0" * (path.stat().st_size - 4096)),
        lambda path: damage(path, 100, b"\xff" * 400),
    ],
    ids=[
        "header",
        "text",
        "half",
        "last-page",
        "one-page",
        "50-bytes",
        "middle",
        "random",
        "zeros",
        "schema",
    ],
)
def test_a_damaged_database_is_explained_and_left_as_it_is(used: Path, spoil: object) -> None:
    path = used / "otsd.db"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    message = refused(used)
    assert "is damaged" in message
    assert "Restore a backup, or move the file away" in message
    assert path.read_bytes() == before
    # as the message says: the key can stay
    for leftover in used.glob("otsd.db*"):
        leftover.unlink()
    prepare(used)


async def test_a_damaged_page_of_a_large_database_breaks_only_what_is_on_it(
    directory: Path, clock: Clock
) -> None:
    million.fill(directory, 120_000)  # too large to be read whole at start
    path = directory / "otsd.db"
    assert path.stat().st_size > 16 * 2**20
    page = path.read_bytes().index(b"Plumber 60000") // 4096
    damage(path, page * 4096, b"\xff" * 4096)
    async with opened(directory) as (store, _):
        with pytest.raises(StorageUnavailable, match="malformed"):
            store.token(million.token_id(60_000))
        with pytest.raises(StorageUnavailable, match="malformed"):
            await store.claim(million.token_id(60_000), "attempt-1", making.VISITOR, clock.now)
        for number in (0, 119_990):
            assert await store.claim(
                million.token_id(number), "attempt-1", making.VISITOR, clock.now
            )


def test_a_table_that_is_gone_is_explained(used: Path) -> None:
    with closing(sqlite3.connect(used / "otsd.db")) as db:
        db.execute("DROP TABLE outbox")
    assert "cannot be opened: no such table: outbox" in refused(used)


# -- older and newer


def test_a_newer_database_is_refused_and_left_alone(used: Path) -> None:
    with closing(sqlite3.connect(used / "otsd.db")) as db:
        db.execute(f"PRAGMA user_version = {STEPS[-1].version + 1}")
    before = (used / "otsd.db").read_bytes()
    message = refused(used)
    assert "written by a newer otsd" in message
    assert f"its schema is {STEPS[-1].version + 1}, this one knows {STEPS[-1].version}" in message
    assert "Install that version again, or restore an older backup" in message
    assert (used / "otsd.db").read_bytes() == before


SECOND = Schema(
    STEPS[-1].version + 1,
    """
    -- a column, and a table with a trigger that has statements of its own; with ';' in a comment
    ALTER TABLE tokens ADD COLUMN note TEXT NOT NULL DEFAULT 'none; yet';
    CREATE TABLE second (id INTEGER PRIMARY KEY) STRICT;
    CREATE TRIGGER second_added AFTER INSERT ON second BEGIN
        DELETE FROM second WHERE id < 0;
        DELETE FROM second WHERE id > 100;
    END;
    INSERT INTO second VALUES (7);
    """,
)
BROKEN = Schema(
    SECOND.version,
    "CREATE TABLE second (id INTEGER);\nDELETE FROM tokens;\nINSERT INTO missing VALUES (1);\n",
)


def dumped(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def schema(path: Path) -> set[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


def test_an_upgrade_keeps_a_whole_copy_beside(used: Path) -> None:
    path, copy = used / "otsd.db", used / f"otsd.db.v{STEPS[-1].version}"
    before = dumped(path)
    database.prepare(used, [*STEPS, SECOND])

    assert dumped(copy) == before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {name.name for name in used.iterdir()} == {"otsd.db", "otsd.key", copy.name}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SECOND.version,)
        assert db.execute("SELECT count(*), min(note) FROM tokens").fetchone() == (50, "none; yet")
        assert db.execute("SELECT id FROM second").fetchall() == [(7,)]
    # the copy is a database that the older version takes
    shutil.move(copy, path)
    prepare(used)


def test_an_upgraded_database_has_the_schema_of_a_new_one(used: Path, tmp_path: Path) -> None:
    database.prepare(used, [*STEPS, SECOND])
    new = tmp_path / "new"
    new.mkdir()
    database.prepare(new, [*STEPS, SECOND])
    assert schema(used / "otsd.db") == schema(new / "otsd.db")


def test_an_upgrade_is_done_once(used: Path) -> None:
    database.prepare(used, [*STEPS, SECOND])
    copy = used / f"otsd.db.v{STEPS[-1].version}"
    made = copy.stat().st_mtime_ns
    database.prepare(used, [*STEPS, SECOND])
    assert copy.stat().st_mtime_ns == made


def test_an_upgrade_that_fails_leaves_the_old_state(used: Path) -> None:
    path = used / "otsd.db"
    before, tables = dumped(path), schema(path)
    with pytest.raises(StartError, match="cannot be opened: no such table: missing"):
        database.prepare(used, [*STEPS, BROKEN])
    assert dumped(path) == before
    assert schema(path) == tables
    prepare(used)
    database.prepare(used, [*STEPS, SECOND])


def test_an_upgrade_that_was_killed_leaves_the_old_state(used: Path) -> None:
    path = used / "otsd.db"
    before = dumped(path)
    code = (
        "import os, signal, sqlite3, sys; from pathlib import Path\n"
        "from otsd.store import database\n"
        "from otsd.store.database import Schema\n"
        "connect = sqlite3.connect\n"
        "class Killed(sqlite3.Connection):\n"
        "    def execute(self, sql, *rest):\n"
        "        if 'COMMIT' in sql: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().execute(sql, *rest)\n"
        "sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Killed)\n"
        f"second = Schema({SECOND.version}, 'DELETE FROM tokens;\\nCREATE TABLE second (id INTEGER);\\n')\n"
        "database.prepare(Path(sys.argv[1]), [*database.schemas(), second])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(used)], check=False)
    assert ended.returncode == -9
    assert dumped(path) == before
    assert dumped(used / f"otsd.db.v{STEPS[-1].version}") == before
    prepare(used)
    database.prepare(used, [*STEPS, SECOND])


def test_half_a_copy_of_an_earlier_upgrade_is_replaced(used: Path) -> None:
    part = used / f"otsd.db.v{STEPS[-1].version}.part"
    part.write_text("half")
    part.chmod(0o644)
    database.prepare(used, [*STEPS, SECOND])
    assert not part.exists()
    assert len(dumped(used / f"otsd.db.v{STEPS[-1].version}")) > 50


def test_the_steps_of_the_schema_are_numbered_without_gaps() -> None:
    assert [step.version for step in STEPS] == list(range(1, len(STEPS) + 1))


# -- no secrets in what is said


async def test_no_message_of_a_fault_carries_the_key(used: Path) -> None:
    secret = (used / "otsd.key").read_text().strip()
    said = []
    for mode, content in ((0o644, secret), (0o600, f"{secret[:63]}x"), (0o600, f"{secret}00")):
        (used / "otsd.key").write_text(content)
        (used / "otsd.key").chmod(mode)
        with pytest.raises(StartError) as refusal:
            async with opened(used):
                pass
        said += traceback.format_exception(refusal.value)
    assert secret[:16] not in "".join(said)
