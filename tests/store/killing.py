"""Does something in a child of its own and kills that at any moment: between any two steps of it.

A step is what Python itself reports before it does it (PEP 578): a file that is opened, renamed,
linked or removed, a database that is connected. `Killer` is the test's side; the process is one,
so that a round costs a fork and not the start of a program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from otsd.cli import main
from otsd.store import database
from otsd.store.database import Schema

STEPS = ("os.", "open", "shutil.", "tempfile.", "sqlite3.", "fcntl.")
MORE = 10


def more_schemas() -> list[Schema]:
    """Return the schema with 10 versions to come, each of which writes every token anew."""
    steps = list(database.schemas())
    for number in range(1, MORE + 1):
        sql = f"CREATE TABLE more{number} (id INTEGER);\nUPDATE tokens SET comment = 'v{number}';\n"
        steps.append(Schema(len(database.schemas()) + number, sql))
    return steps


class Killer:
    """Calls commands, and kills them."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def call(self, *words: str, at: int | None = None, after: float | None = None) -> int | None:
        """Call ``otsd`` (or ``upgrade DIRECTORY``), and kill it before a step, or after seconds.

        Returns its exit status, ``None`` if it was killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "at": at, "after": after}) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())
        return None if status == -signal.SIGKILL else int(status)

    def at_every_step(self, *words: str) -> Iterator[int | None]:
        """Kill it before its first step, its second …, until it is through; yields each status."""
        for step in range(1, 500):
            status = self.call(*words, at=step)
            yield status
            if status is not None:
                return
        raise AssertionError("it never ended by itself")


def child(words: list[str], at: int | None) -> int:
    """Do what was asked for; the process is killed on the way if ``at`` says so."""
    if at is not None:
        left = at

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal left
            if event.startswith(STEPS):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    if words[0] == "upgrade":
        directory = Path(words[1])
        with database.held(directory):
            database.prepare(directory, more_schemas())
        return 0
    return main(words)


def serve() -> None:
    """Fork for each line that asks for it."""
    # whatever is loaded late is loaded by now
    for command in ("backup", "restore"):
        main([command, "/nowhere/file", "--storage.directory", "/nowhere"])
    with Path(os.devnull).open("w") as nothing:
        for line in sys.stdin:
            asked = json.loads(line)
            if not (pid := os.fork()):
                os.dup2(nothing.fileno(), 1)
                status = 70
                try:
                    status = child(asked["words"], asked["at"])
                finally:
                    os._exit(status)
            if asked["after"] is not None:
                time.sleep(asked["after"])
                os.kill(pid, signal.SIGKILL)
            _, waited = os.waitpid(pid, 0)
            os.write(1, f"{os.waitstatus_to_exitcode(waited)}\n".encode())


if __name__ == "__main__":
    serve()
