"""``otsd demo``: a real Home Assistant, a real broker and otsd, with a door to open."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from otsd.cli import qr
from otsd.cli.context import UsageError
from otsd.cli.output import Progress, explain, flush, is_terminal, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otsd.cli.context import Context
    from otsd.demo.running import Demo

_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BAR: Final = 24


def demo(context: Context) -> int:
    """Run the demo until it is told to stop; raises what keeps it from starting."""
    given = context.given
    if given.config is not None or any("." in key for key in vars(given)):
        msg = "The demo has a configuration of its own and takes no settings, only --lan."
        raise UsageError(msg)
    from otsd.demo.running import ready  # noqa: PLC0415 - only this command pays for it

    with _interruptible(), _Bar() as bar:
        mosquitto = ready(bar.show)
        was_ready = asyncio.run(_run(mosquitto, bar, lan=given.lan))
    if not was_ready:
        raise KeyboardInterrupt
    with suppress(OSError):  # the terminal may be what has gone
        explain("The demo has ended, and nothing of it is left but its cache.")
    return 0


async def _run(mosquitto: Path, bar: _Bar, *, lan: bool) -> bool:
    """Run the demo until a signal ends it; return whether it was ready by then."""
    from otsd.demo.running import running  # noqa: PLC0415

    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    was_ready = told = False

    def stop() -> None:
        nonlocal told
        if me is not None and not told:  # an impatient second Ctrl-C must not end the tidying up
            told = True
            me.cancel()

    for number in _heard():
        loop.add_signal_handler(number, stop)
    try:
        async with running(mosquitto, bar.show, lan=lan) as it:
            was_ready = True
            bar.close()
            _show(it, lan=lan)
            async with aclosing(it.door()) as states:
                async for state in states:
                    say(f"{time.strftime('%H:%M:%S')}  The front door is {state}.")
                    flush()
    except asyncio.CancelledError:
        if not told:
            raise
    return was_ready


def _show(it: Demo, *, lan: bool) -> None:
    where = "for everybody in your network" if lan else "on this machine alone"
    say(f"A real Home Assistant, a real broker and otsd are running, {where}.\n")
    say(f"  A visitor's link    {it.link}")
    flush()
    qr.draw(it.link)
    hint = "" if lan else "\n     (With --lan, a phone can scan the code.)"
    here = " on this machine" if lan else ""
    command = [*_myself(), "token", "create", "open-door", "--comment", "Postman", "--qr"]
    say(f"""
  Home Assistant      {it.home_url}
  The admin page      {it.admin_url}
  User, password      {it.username}, {it.password}

What to do next:

  1. Open Home Assistant and log in: the front door is locked.
  2. Open the link and press the button: the door opens, and locks itself after a minute.{hint}
  3. Open the link again: it has been used.
  4. Make another link, in another terminal:
     {shlex.join([*command, "--config", str(it.configuration)])}
  5. Open the admin page{here} and log in with the same user: every link is there.

Ctrl-C ends everything.
""")
    flush()


def _myself() -> list[str]:
    """Return how this program was called."""
    called = Path(sys.argv[0])
    if called.name != "otsd":
        return [sys.executable, "-m", "otsd"]
    known = shutil.which("otsd")
    return ["otsd"] if known and Path(known).resolve() == called.resolve() else [str(called)]


def _heard() -> list[signal.Signals]:
    """Return the signals that end the demo; nohup and shells can have some of them ignored."""
    return [each for each in _ENDINGS if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let each of the signals be a `KeyboardInterrupt`, once: installing is not asynchronous."""
    before = {number: signal.getsignal(number) for number in _heard()}

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """How far the start is, on standard error: a bar on a terminal, else a line for each step."""

    def __init__(self) -> None:
        self._line = Progress()
        self._what = ""
        self._first: float | None = None
        self._done = 0.0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if is_terminal(sys.stderr):
            self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal may be gone
            self.close()

    def show(self, what: str, done: float) -> None:
        """Say what is being done, and how much of all is done already, from 0 to 1."""
        if self._first is None:
            self._first = done  # where an earlier start has done the rest
        self._done = max(self._done, (done - self._first) / (1 - self._first))
        if what != self._what and not is_terminal(sys.stderr):
            explain(f"{self._done:4.0%} {what}")
        self._what = what
        self._draw()

    def close(self) -> None:
        """Remove it."""
        self._over.set()
        if self._ticking.is_alive():
            self._ticking.join()
        self._line.show("")

    def _tick(self) -> None:
        while not self._over.wait(1):  # a second that passes shows that it has not stopped
            with suppress(OSError):
                self._draw()

    def _draw(self) -> None:
        full = round(self._done * _BAR)
        passed = time.monotonic() - self._began
        bar = f"[{'#' * full}{'.' * (_BAR - full)}]"
        if self._what:
            self._line.show(f"{bar} {self._done:4.0%} {passed:4.0f} s  {self._what}")
