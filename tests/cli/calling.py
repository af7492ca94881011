"""Calling ``otsd``: its entry point, or a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
from typing import Any

from otsd.cli import main
from tests.daemon import Daemon


async def call(
    daemon: Daemon, *words: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the program's entry point: as a process does, without the half second of starting it."""
    if stdin is not None:
        return await daemon.command(*words, stdin=stdin)
    where = ("--config", str(daemon.config), "--storage.directory", str(daemon.directory))

    def run() -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = main([*words, *where])
            except SystemExit as end:
                status = end.code
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    return await asyncio.to_thread(run)


def process(daemon: Daemon, *words: str, **streams: Any) -> subprocess.Popen[str]:
    """Start a command with streams of the test's own."""
    return subprocess.Popen(
        [sys.executable, "-m", "otsd", *words],
        **streams,
        text=True,
        cwd=daemon.folder,
        env={**os.environ, "OTSD_CONFIG": str(daemon.config)},
    )
