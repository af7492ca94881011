"""What was acknowledged is there after ``kill -9``, and how the database is held."""

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from otsd.core.errors import StartError
from otsd.core.ports import Queue
from otsd.core.tokens import SubmissionState
from otsd.store import database
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making

ROOT = Path(__file__).parents[2]


def test_every_commit_of_the_writer_is_synced_to_the_disk(directory: Path) -> None:
    directory.mkdir()
    database.prepare(directory, database.schemas())
    with closing(database.connect(directory / database.NAME, write=True)) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert writer.execute("PRAGMA foreign_keys").fetchone() == (1,)
    with (
        closing(database.connect(directory / database.NAME, write=False)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("DELETE FROM tokens")


async def test_what_was_acknowledged_survives_kill_9(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        made = making.token(clock.now, max_uses=None)
        token = await store.add_token(made, None, clock.now)

    acknowledged: dict[str, str] = {}
    for round_, lines in enumerate((1, 17, 150, 400)):
        line = [sys.executable, "-m", "tests.store.claimer", str(directory), token.id, str(round_)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            said += process.stdout.readlines()
        entries = [entry.split() for entry in said if entry.endswith("\n")]
        acknowledged |= {attempt: word for word, attempt in entries}

        async with opened(directory) as (store, _):
            await _check(store, token.id, acknowledged, clock)
    assert len(acknowledged) > 200


async def _check(
    store: SqliteStore, token_id: str, acknowledged: dict[str, str], clock: Clock
) -> None:
    running = (await store.submissions(state=SubmissionState.RUNNING, limit=500)).items
    assert await store.recover(making.UNCONFIRMED, clock.now, making.ANNOUNCE) == len(running)
    for attempt, word in acknowledged.items():
        known = store.attempt(token_id, attempt)
        assert known is not None, attempt
        if word == "settled":
            assert known.state is SubmissionState.EXECUTED
        assert known.state is not SubmissionState.RUNNING
    counts = await store.counts(clock.now)
    token = store.token(token_id)
    assert token is not None
    assert token.uses_taken == counts.submissions >= len(acknowledged)
    # every end is announced, exactly once so far
    events = store.announcements(Queue.EVENT, 0, 100_000)
    numbers = [event.payload["submission_id"] for event in events]
    assert len(numbers) == len(set(numbers)) == counts.submissions


async def test_every_file_is_its_users_alone(directory: Path, clock: Clock) -> None:
    async with opened(directory) as (store, _):
        await store.save_action(making.action(), create=True, now=clock.now)
        modes = {
            path.name: oct(stat.S_IMODE(path.stat().st_mode))
            for path in (directory, *directory.iterdir())
        }
    assert modes == {
        "data": "0o700",
        "otsd.db": "0o600",
        "otsd.db-wal": "0o600",
        "otsd.db-shm": "0o600",
        "otsd.key": "0o600",
    }


async def test_a_second_daemon_on_the_directory_says_so(directory: Path) -> None:
    async with opened(directory):
        with pytest.raises(StartError, match="Another otsd is running") as refused:
            async with opened(directory):
                pass
        assert str(directory) in str(refused.value)
    async with opened(directory):
        pass
