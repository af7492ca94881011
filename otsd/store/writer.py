"""One thread that writes: it commits together what has gathered while it was committing.

A durable commit costs a sync of the disk whatever is in it, so under load a hundred claims share
one. Each job runs in a savepoint of its own: one that fails takes nothing of the others along.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otsd.core.errors import StorageUnavailable
from otsd.core.measures import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_TOGETHER: Final = 500
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """Something to do in a transaction, and where the answer goes."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    asked: float
    kept: Callable[[Any], None] | None = None
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs jobs in order on a connection of its own; made and closed on the event loop."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take the connection and start the thread."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failing = False
        self.durations = Durations(*_BUCKETS)
        """How long it took from asking for a write until it was on disk."""
        self._thread = threading.Thread(target=self._serve, name="otsd-writer", daemon=True)
        self._thread.start()

    async def write(
        self, work: Callable[[sqlite3.Connection], T], kept: Callable[[T], None] | None = None
    ) -> T:
        """Run ``work`` in a transaction and return its result once that is on disk.

        What ``work`` raises is raised here, and what it had written is undone. The work is done
        even if the caller is cancelled, and so is ``kept``, which is called on the event loop with
        the result.

        Raises:
            StorageUnavailable: the disk did not take it; nothing was kept.

        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(work, future, time.monotonic(), kept))
        return await future

    async def close(self) -> None:
        """Finish what is queued, then close the connection."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _serve(self) -> None:
        stopping = False
        while not stopping:
            jobs: list[_Job] = []
            job = self._queue.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == _MOST_TOGETHER:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = job is None
            if jobs:
                self._commit(jobs)
                done = time.monotonic()
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._answer, jobs, done)

    def _commit(self, jobs: Sequence[_Job]) -> None:
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._run(job)
            execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - this thread must not end: all others wait for it
            self._note(error)
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    execute("ROLLBACK")
            for job in jobs:
                if job.error is None:
                    job.error = StorageUnavailable(str(error))
                    job.error.__cause__ = error
        else:
            if self._failing and not any(isinstance(job.error, StorageUnavailable) for job in jobs):
                self._failing = False
                _log.warning("the store can write again")

    def _run(self, job: _Job) -> None:
        """Do one job; raises only when SQLite has ended the transaction of all."""
        execute = self._connection.execute
        execute("SAVEPOINT job")
        try:
            job.result = job.work(self._connection)
        except sqlite3.Error as error:
            job.error = StorageUnavailable(str(error))
            job.error.__cause__ = error
            self._note(error)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            job.error = error
        if job.error is not None:
            # on a full disk SQLite may have ended the whole transaction by itself, and then this
            # raises: nothing of the batch was kept
            execute("ROLLBACK TO job")
        execute("RELEASE job")

    def _note(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            _log.error("the store cannot write: %s; submissions are refused until it can", error)

    def _answer(self, jobs: Sequence[_Job], done: float) -> None:
        for job in jobs:
            if job.error is None:
                self.durations.add(done - job.asked)
                if job.kept is not None:
                    job.kept(job.result)
            if job.future.done():  # its caller was cancelled
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
