"""``scripts/stress``: rounds of ``kill -9`` in any number, and a long silence of Home Assistant."""

from __future__ import annotations

# ruff: noqa: T201 - it is a program, and prints
import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.real.home_assistant import HomeAssistant
from tests.scenarios.house import FakeHouse, House, RealHouse
from tests.scenarios.rounds import Books, play
from tests.scenarios.steps import freeze_and_thaw

_OF_A_DIRECTORY = 25
_DESCRIPTION = """\
Kill otsd under load, again and again, and count what Home Assistant really did.

Each round mints fresh tokens of three uses. Sixteen visitors submit them in parallel and repeat
every attempt until they are told its end; meanwhile otsd is killed (kill -9) at a random moment
and started again. After each round the books must agree: executions in Home Assistant are at most
the uses spent, everything that a visitor was told as done is in the list, nothing is left
running, every end was announced to an automation in order, and a repeated attempt has its first
outcome. The first thing that does not hold ends it, with exit status 1 and the folder kept.

It runs a real Home Assistant of its own, which the tests install when it is not there yet, on
127.0.0.1. 500 rounds take about six minutes on two cores.
"""


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/stress",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=500, metavar="N", help="how many rounds (500)")
    add("--lanes", type=int, default=2, metavar="N", help="how many otsd at a time (2)")
    add("--seed", type=int, metavar="N", help="begin with the chance of an earlier run")
    add("--fake", action="store_true", help="with the tests' fake instead of a real Home Assistant")
    add(
        "--freeze",
        type=float,
        default=0,
        metavar="SECONDS",
        help="then freeze Home Assistant in the middle of a call for so long (such as 60): it is "
        "noticed within 20 s, and used again within 5 s of its return",
    )
    given = parser.parse_args(words)
    if given.rounds < 0 or given.lanes < 1:
        parser.error("there are no fewer than 0 rounds and 1 lane")
    return given


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    given = _arguments(words)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="otsd-stress-"))
    books = Books()
    begun = time.monotonic()
    try:
        asyncio.run(_run(given, folder, seed, books))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            print(f"\nFAILED: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"seed {seed}; everything that was written is in {folder}", file=sys.stderr)
        status = 1
    else:
        status = 0
    if status != 1:
        shutil.rmtree(folder, ignore_errors=True)
    for name, count in books.lines():
        print(f"{name:<45} {count:>9,}")
    print(f"{'seconds':<45} {time.monotonic() - begun:>9,.0f}")
    return status


async def _run(given: argparse.Namespace, folder: Path, seed: int, books: Books) -> None:
    # in a group, so that whatever fails comes as one
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_play(given, folder, seed, books))


async def _play(given: argparse.Namespace, folder: Path, seed: int, books: Books) -> None:
    async with _house(folder, fake=given.fake) as house:
        chunks = [
            min(_OF_A_DIRECTORY, given.rounds - at)
            for at in range(0, given.rounds, _OF_A_DIRECTORY)
        ]
        if len(chunks) < given.lanes:  # few rounds are divided among the lanes
            share, rest = divmod(given.rounds, given.lanes)
            chunks = [share + (lane < rest) for lane in range(given.lanes)]
        waiting = list(enumerate(chunks))

        async def lane() -> None:
            while waiting:
                number, rounds = waiting.pop(0)
                otsd = _daemon(folder / f"otsd-{number}", house)
                await play(otsd, house, random.Random(seed + number), books, rounds)
                shutil.rmtree(otsd.folder)

        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(_show(books, given.rounds))
            async with asyncio.TaskGroup() as lanes:
                for _ in range(given.lanes):
                    lanes.create_task(lane())
            showing.cancel()
        if given.freeze:
            print(f"Home Assistant stands still for {given.freeze:.0f} s …", file=sys.stderr)
            async with _daemon(folder / "frozen", house) as otsd:
                await otsd.connected()
                await freeze_and_thaw(house, otsd, given.freeze)
            print("it was noticed, and used again after its return", file=sys.stderr)


def _daemon(folder: Path, house: House) -> Daemon:
    folder.mkdir()
    return Daemon(folder, url=house.url, token=house.token)


@asynccontextmanager
async def _house(folder: Path, *, fake: bool) -> AsyncIterator[House]:
    if fake:
        async with FakeHomeAssistant() as home:
            yield FakeHouse(home)
        return

    def progress(what: str, part: float) -> None:
        print(f"\r{what} {part:4.0%}\033[K", end="", file=sys.stderr, flush=True)

    async with HomeAssistant(folder / "home", progress=progress) as real:
        print(f"\rHome Assistant {real.version} runs\033[K", file=sys.stderr)
        yield RealHouse(real)


async def _show(books: Books, rounds: int) -> None:
    """Show how far it is, until cancelled."""
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(print, file=sys.stderr)
        while True:
            passed = time.monotonic() - begun
            left = passed / books.rounds * (rounds - books.rounds) if books.rounds else None
            print(
                f"\r{books.rounds} of {rounds} rounds, {books.executions:,} executions of "
                f"{books.spent:,} uses spent, {passed:.0f} s"
                + ("" if left is None else f", about {left:.0f} s to go")
                + "\033[K",
                end="",
                file=sys.stderr,
                flush=True,
            )
            await asyncio.sleep(0.5)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
