"""otsd is killed under load again and again, and nothing runs twice and nothing is lost."""

from __future__ import annotations

# ruff: noqa: T201 - shown with the failure, or with -s
import asyncio
import random

import pytest

from tests.scenarios.conftest import Make
from tests.scenarios.house import FakeHouse, RealHouse
from tests.scenarios.rounds import Books, Broken, hold, play

SEED = random.SystemRandom().randrange(10**6)


def report(books: Books) -> None:
    """Say what happened, for whoever looks at a failure."""
    print(f"seed {SEED}")
    for name, count in books.lines():
        print(f"{name:<45}{count:>7}")


@pytest.mark.real
async def test_25_rounds_of_kill_under_load_break_no_promise(
    real_house: RealHouse, make: Make
) -> None:
    books = Books()
    try:
        # one waits for its daemon to start while the other counts
        async with asyncio.TaskGroup() as tasks:
            for lane, rounds in enumerate((13, 12)):
                chance = random.Random(SEED + lane)
                tasks.create_task(play(make(real_house), real_house, chance, books, rounds))
    finally:
        report(books)
    assert books.rounds == 25
    assert books.cut > 5  # else it was no load
    assert books.executions > 100


async def test_rounds_of_kill_with_the_fake_home(fake_house: FakeHouse, make: Make) -> None:
    books = Books()
    await play(make(fake_house), fake_house, random.Random(SEED), books, 4)
    report(books)
    assert books.rounds == 4
    assert books.executions > 10


def test_a_broken_promise_is_raised() -> None:
    with pytest.raises(Broken, match="uses spent"):
        hold(0, "uses spent")
