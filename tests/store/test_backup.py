"""Backups, restores and upgrades that are cut short at any moment: the old state, or the new one."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import sqlite3
import stat
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otsd.core.errors import StartError
from otsd.store import archive, database
from otsd.store.store import opened
from tests.conftest import Clock
from tests.store import making, million
from tests.store.killing import MORE, Killer, more_schemas

TOKENS = 500


async def backed_up(directory: Path, clock: Clock) -> bytes:
    """Return a backup of a directory."""
    with archive.Backups(directory, clock) as backups:
        async with backups.begun() as backup:
            made = b"".join([part async for part in backup.parts()])
            assert len(made) == backup.size
    return made


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def count(path: Path) -> tuple[int, int]:
    """Return the version of a database that is in order, and how many tokens it has."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((version, tokens),) = db.execute(
            "SELECT user_version, (SELECT count(*) FROM tokens) FROM pragma_user_version"
        )
        return version, tokens


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage directory to copy."""
    directory = tmp_path_factory.mktemp("filled") / "data"
    million.fill(directory, TOKENS)
    return directory


@pytest.fixture
async def file(filled: Path, tmp_path: Path, clock: Clock) -> Path:
    """Return a backup of it."""
    path = tmp_path / "backup.tar"
    path.write_bytes(await backed_up(filled, clock))
    return path


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as killer:
        yield killer


# -- what is in one


async def test_a_backup_is_a_tar_of_three_files_that_only_their_owner_reads(
    filled: Path, clock: Clock
) -> None:
    made = await backed_up(filled, clock)
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert tar.getnames() == ["manifest.json", "otsd.key", "otsd.db"]
        assert {member.mode for member in tar} == {0o600}
        key, db = (tar.extractfile(name) for name in ("otsd.key", "otsd.db"))
        assert key is not None
        assert db is not None
        assert key.read() == (filled / "otsd.key").read_bytes()
        assert db.read()[18:20] == b"\1\1"  # it is no WAL database: whole without a log beside it


async def test_what_was_acknowledged_is_in_it_though_it_is_only_in_the_log(
    directory: Path, clock: Clock, tmp_path: Path
) -> None:
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        token = await store.add_token(making.token(clock.now), None, clock.now)
        await store.claim(token.id, "attempt-1", making.VISITOR, clock.now)
        made = await backed_up(directory, clock)
        assert names(directory) == {"otsd.db", "otsd.db-wal", "otsd.db-shm", "otsd.key"}
    manifest, facts = archive.restore(io.BytesIO(made), tmp_path / "new")
    assert manifest.created_at == "2026-11-21T20:15:00+00:00"
    assert facts == archive.Facts(database.schemas()[-1].version, actions=1, tokens=1)
    async with opened(tmp_path / "new") as (store, _):
        assert store.attempt(token.id, "attempt-1") is not None


async def test_what_a_killed_backup_left_is_gone_after_the_next_start_and_the_next_backup(
    filled: Path, directory: Path, clock: Clock
) -> None:
    shutil.copytree(filled, directory)
    for begin in ("start", "backup"):
        for ending in ("", "-journal", "-wal"):
            (directory / f"otsd.db.backup{ending}").write_text("half")
        if begin == "start":
            async with opened(directory):
                pass
        else:
            archive.check(io.BytesIO(await backed_up(directory, clock)))
        assert not [name for name in names(directory) if "backup" in name]


async def test_submissions_go_on_while_a_million_tokens_are_backed_up(
    a_million: Path, directory: Path, clock: Clock
) -> None:
    shutil.copytree(a_million, directory)
    async with opened(directory) as (store, _):
        backup = asyncio.create_task(backed_up(directory, clock))
        meanwhile = number = 0
        while not backup.done():
            copying = (directory / "otsd.db.backup").exists()
            token_id = million.token_id(number)
            claim = await store.claim(token_id, "attempt-1", making.VISITOR, clock.now)
            await store.settle(claim, making.EXECUTED, clock.now, making.ANNOUNCE)
            await store.tokens(clock.now, limit=1)
            meanwhile += copying and (directory / "otsd.db.backup").exists()
            number += 10
        made = await backup
    assert meanwhile > 3
    assert archive.check(io.BytesIO(made)).files["otsd.db"].bytes > 100_000_000


# -- restores that are cut short


def settle(directory: Path, status: int | None) -> str:
    """Say which state a restore left, after the start of otsd."""
    found = names(directory) if directory.exists() else set()
    assert found <= {"otsd.db", "otsd.key", "restore.part", "restore.new"}
    directory.mkdir(mode=0o700, exist_ok=True)
    with database.held(directory):
        database.prepare(directory, database.schemas())
    assert names(directory) == {"otsd.db", "otsd.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    _, tokens = count(directory / "otsd.db")
    assert tokens in (0, TOKENS)
    assert status is None or tokens == TOKENS
    return "new" if tokens else "old"


def test_a_restore_that_is_killed_at_any_step_leaves_nothing_or_everything(
    killer: Killer, file: Path, filled: Path, tmp_path: Path
) -> None:
    states: list[str] = []
    words = ("restore", str(file), "--storage.directory")
    for step in range(1, 500):
        directory = tmp_path / str(step)
        status = killer.call(*words, str(directory), at=step)
        states.append(settle(directory, status))
        if states[-1] == "new":
            assert (directory / "otsd.key").read_bytes() == (filled / "otsd.key").read_bytes()
        shutil.rmtree(directory)
        if status is not None:
            break
    assert status == 0
    # once everything is there it stays there
    assert states == sorted(states, reverse=True)
    assert len(states) > 20
    assert Counter(states)["new"] > 5


def test_a_restore_that_was_killed_is_taken_up_by_the_next(
    killer: Killer, file: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    statuses = list(
        killer.at_every_step("restore", str(file), "--storage.directory", str(directory))
    )
    # each goes on where the one before was killed; the last finds what it would have put there
    assert set(statuses[:-1]) == {None}
    assert statuses[-1] in (0, 1)
    assert settle(directory, 0) == "new"


def test_a_restore_that_is_killed_at_any_time_leaves_nothing_or_everything(
    killer: Killer, file: Path, tmp_path: Path
) -> None:
    words = ("restore", str(file), "--storage.directory")
    began = time.monotonic()
    assert killer.call(*words, str(tmp_path / "whole")) == 0
    length = time.monotonic() - began
    statuses = []
    for number in range(20):
        directory = tmp_path / str(number)
        statuses.append(killer.call(*words, str(directory), after=length * number / 20))
        settle(directory, statuses[-1])
    assert None in statuses


def test_a_database_put_beside_a_restored_one_is_not_written_over(
    filled: Path, directory: Path
) -> None:
    shutil.copytree(filled, directory)
    shutil.copytree(filled, directory / "restore.new")
    before = content(filled)
    with pytest.raises(StartError, match="move one of the two away"):
        database.prepare(directory, database.schemas())
    shutil.rmtree(directory / "restore.new")
    assert content(directory) == before


# -- upgrades that are cut short


def test_an_upgrade_that_is_killed_at_any_moment_leaves_the_old_or_the_new_version(
    killer: Killer, filled: Path, tmp_path: Path
) -> None:
    old = database.schemas()[-1].version
    copy = f"otsd.db.v{old}"
    found: Counter[int] = Counter()

    def play(number: int, **when: float | None) -> int | None:
        directory = tmp_path / str(number)
        shutil.copytree(filled, directory)
        at = when.get("at")
        status = killer.call(
            "upgrade",
            str(directory),
            at=None if at is None else int(at),
            after=when.get("after"),
        )
        version, tokens = count(directory / "otsd.db")
        assert tokens == TOKENS
        assert version in (old, old + MORE)
        assert status is None or version == old + MORE
        if version == old:  # the older otsd goes on, as if nothing had been
            with database.held(directory):
                database.prepare(directory, database.schemas())
        else:
            assert count(directory / copy) == (old, TOKENS)
        found[version] += 1
        with database.held(directory):
            database.prepare(directory, more_schemas())
        assert count(directory / copy) == (old, TOKENS)
        assert names(directory) == {"otsd.db", "otsd.key", copy}
        shutil.rmtree(directory)
        return status

    began = time.monotonic()
    assert play(0) == 0
    length = time.monotonic() - began
    for number in range(1, 100):
        if play(number, at=number) is not None:
            break
    for number in range(100, 115):
        play(number, after=length * random.random() / 2)
    assert found[old] > 5
    assert found[old + MORE] >= 1


# -- who it belongs to


@pytest.mark.parametrize("user", [os.geteuid(), 65534 if os.geteuid() == 0 else os.geteuid()])
def test_what_root_restores_belongs_to_whoever_the_directory_belongs_to(
    file: Path, directory: Path, user: int
) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, user, -1)
    with file.open("rb") as backup:
        archive.restore(backup, directory)
    assert {path.stat().st_uid for path in directory.iterdir()} == {user}
