"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LAUNCHER: Final = """
import os, signal, sys
started = os.getpid()
if os.fork() == 0:
    while os.read(0, 1):
        pass
    if os.getppid() == started:
        os.kill(started, signal.SIGKILL)
    os._exit(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Forks a guard that waits for the end of its input, which comes when the process that started us
is gone, however it went, and then kills what was started, be it frozen or not."""


def spawn(
    command: Sequence[str | Path], *, folder: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program, named by its whole path, in a session of its own.

    What it writes is added to ``log``. Pass the result to `ended` once: that ends the guard too.
    """
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 - programs of ours
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C of the terminal is for the one that started it
        )


async def ended(process: subprocess.Popen[bytes], patience: float | None = None) -> None:
    """Wait for the end of a process, and bring it about after so many seconds."""
    try:
        await asyncio.to_thread(process.wait, patience)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)
    if process.stdin:
        process.stdin.close()


def tail(log: Path, length: int = 3_000) -> str:
    """Return the end of a log, or nothing."""
    try:
        return log.read_text(errors="replace")[-length:].strip()
    except OSError:
        return ""
