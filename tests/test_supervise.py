"""When a connection is tried again, with sessions that a test ends as it likes."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

import pytest

from otsd.core.ports import ConnectionState
from otsd.supervise import REFUSAL_PAUSES, Absent, CredentialRefused, Keeper, Lost, delays
from tests.conftest import Clock
from tests.home.conftest import until

PAUSES = (timedelta(seconds=0.15), timedelta(days=1))


def test_delays_double_up_to_4_s_and_are_jittered() -> None:
    sequences = [list(itertools.islice(delays(), 40)) for _ in range(50)]
    for sequence in sequences:
        assert all(0.1 <= delay <= 4 for delay in sequence)
        assert sequence[0] <= 0.2
        assert all(delay >= 2 for delay in sequence[5:])
        assert all(later <= 4 * earlier for earlier, later in itertools.pairwise(sequence))
    assert len({sequence[0] for sequence in sequences}) > 40
    assert len(set(sequences[0][5:])) > 30


def test_a_refusal_is_left_alone_for_60_s_and_then_for_a_day() -> None:
    assert (timedelta(seconds=60), timedelta(days=1)) == REFUSAL_PAUSES


class Sessions:
    """What happens in one session after another; the last one goes on for ever."""

    def __init__(self, keeper: Keeper, *ends: Exception | Callable[[], Awaitable[None]]) -> None:
        self.keeper = keeper
        self.ends = ends
        self.begun: list[float] = []
        self.lose = asyncio.Event()

    async def __call__(self) -> NoReturn:
        self.begun.append(asyncio.get_running_loop().time())
        end = self.ends[min(len(self.begun), len(self.ends)) - 1]
        if isinstance(end, Exception):
            raise end
        await end()
        raise Lost("gone")

    async def connected(self) -> None:
        """Be usable until the test says otherwise."""
        self.keeper.connected("1.0")
        self.lose.clear()
        await self.lose.wait()


@pytest.fixture
async def keeper(clock: Clock) -> Keeper:
    return Keeper("The other side", clock, refusal_pauses=PAUSES)


async def _run(keeper: Keeper, sessions: Sessions, test: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.create_task(keeper.run(sessions))
    try:
        await test()
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_is_lost_is_tried_again_with_growing_delays(keeper: Keeper) -> None:
    sessions = Sessions(keeper, Lost("no"))

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 5)

    await _run(keeper, sessions, test)
    pauses = [later - earlier for earlier, later in itertools.pairwise(sessions.begun)]
    bounds = [(0.1, 0.2), (0.2, 0.4), (0.4, 0.8), (0.8, 1.6)]
    for pause, (least, most) in zip(pauses, bounds, strict=True):
        assert least - 0.02 <= pause <= most + 1


async def test_a_loss_and_a_return_are_told_once_each_however_often_it_was_tried(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="otsd")
    sessions = Sessions(keeper)
    sessions.ends = (
        sessions.connected,
        *[Lost(f"no {n}") for n in range(3)],
        sessions.connected,
    )

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        sessions.lose.set()
        await until(lambda: not keeper.is_connected)
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)
    assert [record.getMessage() for record in caplog.records] == [
        "connected to The other side, version 1.0",
        "The other side is lost: gone; trying again",
        "The other side is back",
    ]


async def test_what_is_not_there_yet_is_off_and_no_fault_and_is_looked_for_again(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="otsd")
    sessions = Sessions(keeper)
    sessions.ends = (Absent("install one"), Absent("install one"), sessions.connected)

    async def test() -> None:
        await until(lambda: keeper.status.state is ConnectionState.OFF)
        assert keeper.status.error == "install one"
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "The other side: install one"),
        ("INFO", "connected to The other side, version 1.0"),
    ]


async def test_what_is_absent_and_out_of_reach_by_turns_is_told_once_each_until_it_is_there(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="otsd")
    sessions = Sessions(keeper)
    absent, lost = Absent("install one"), Lost("it does not answer")
    sessions.ends = (absent, lost, absent, sessions.connected, absent, sessions.connected)

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        sessions.lose.set()
        await until(lambda: not keeper.is_connected)
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "The other side: install one"),
        ("WARNING", "The other side cannot be reached: it does not answer; trying again"),
        ("WARNING", "The other side is there now"),
        ("WARNING", "The other side is lost: gone; trying again"),
        ("INFO", "The other side: install one"),
        ("WARNING", "The other side is back"),
    ]


async def test_the_first_try_after_a_loss_comes_at_once(keeper: Keeper) -> None:
    sessions = Sessions(keeper)
    sessions.ends = (Lost("1"), Lost("2"), Lost("3"), sessions.connected)

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        await asyncio.sleep(0.3)
        sessions.lose.set()
        lost = asyncio.get_running_loop().time()
        await until(lambda: len(sessions.begun) == 5)
        assert sessions.begun[-1] - lost < 0.8

    await _run(keeper, sessions, test)


async def test_the_status_says_since_when_and_why(keeper: Keeper, clock: Clock) -> None:
    begin = clock.now
    sessions = Sessions(keeper)
    sessions.ends = (Lost("one"), Lost("two"), sessions.connected)
    assert keeper.status.state is ConnectionState.CONNECTING
    clock.move(seconds=1)

    async def test() -> None:
        await until(lambda: keeper.status.error == "one")
        assert keeper.status.since == begin
        await until(lambda: keeper.status.error == "two")
        await until(lambda: keeper.is_connected)
        assert keeper.status.since == clock.now
        assert keeper.status.error is None
        keeper.limited("half of it")
        assert keeper.status.error == "half of it"
        assert keeper.status.version == "1.0"
        clock.move(seconds=1)
        sessions.ends = (*sessions.ends, Lost("three"))
        sessions.lose.set()
        await until(lambda: keeper.status.error == "three")
        assert keeper.status.since == clock.now

    await _run(keeper, sessions, test)


async def test_a_refusal_is_tried_once_more_then_only_when_asked(keeper: Keeper) -> None:
    sessions = Sessions(keeper, CredentialRefused("who are you"))

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 2)
        assert sessions.begun[1] - sessions.begun[0] >= 0.14
        assert keeper.status.state is ConnectionState.REFUSED
        await asyncio.sleep(0.6)
        assert len(sessions.begun) == 2
        keeper.retry()
        await until(lambda: len(sessions.begun) == 3)
        await asyncio.sleep(0.4)
        assert len(sessions.begun) == 3

    await _run(keeper, sessions, test)


async def test_after_a_day_a_refusal_is_tried_again(clock: Clock) -> None:
    keeper = Keeper("it", clock, refusal_pauses=(timedelta(seconds=0.05), timedelta(seconds=0.2)))
    sessions = Sessions(keeper, CredentialRefused("no"))

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 4)

    await _run(keeper, sessions, test)
    first, *further = (b - a for a, b in itertools.pairwise(sessions.begun))
    assert first >= 0.04
    assert all(pause >= 0.19 for pause in further)


async def test_an_outage_between_two_refusals_forgives_nothing(keeper: Keeper) -> None:
    refused = CredentialRefused("no")
    sessions = Sessions(keeper, refused, Lost("down"), Lost("down"), refused)

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 4)
        await asyncio.sleep(0.5)
        assert len(sessions.begun) == 4
        assert keeper.status.state is ConnectionState.REFUSED

    await _run(keeper, sessions, test)


async def test_a_success_forgives_refusals(keeper: Keeper) -> None:
    refused = CredentialRefused("no")
    sessions = Sessions(keeper, refused)
    sessions.ends = (refused, sessions.connected, refused, sessions.connected)

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        sessions.lose.set()
        await until(lambda: len(sessions.begun) == 4)
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)


async def test_a_retry_cuts_a_pause_short(keeper: Keeper) -> None:
    sessions = Sessions(keeper)
    sessions.ends = (*[Lost("no")] * 4, sessions.connected)

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 4)
        keeper.retry()
        asked = asyncio.get_running_loop().time()
        await until(lambda: keeper.is_connected)
        assert sessions.begun[-1] - asked < 0.5  # it would have been 0.8 at least

    await _run(keeper, sessions, test)


async def test_what_is_off_waits_until_it_is_asked(clock: Clock) -> None:
    keeper = Keeper("it", clock, off="nothing is configured")
    sessions = Sessions(keeper)
    sessions.ends = (sessions.connected,)

    async def test() -> None:
        await asyncio.sleep(0.1)
        assert sessions.begun == []
        assert keeper.status.state is ConnectionState.OFF
        assert keeper.status.error == "nothing is configured"
        keeper.retry()
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)


async def test_a_restart_ends_the_session_and_begins_another_at_once(keeper: Keeper) -> None:
    sessions = Sessions(keeper)
    sessions.ends = (sessions.connected,)

    async def test() -> None:
        for number in range(1, 4):
            await until(lambda: keeper.is_connected and len(sessions.begun) == number)  # noqa: B023
            keeper.restart(None)
            assert keeper.status.state is ConnectionState.CONNECTING
            assert keeper.status.error is None
        await until(lambda: keeper.is_connected)
        assert len(sessions.begun) == 4
        assert sessions.begun[-1] - sessions.begun[0] < 1

    await _run(keeper, sessions, test)


async def test_a_restart_forgives_a_refusal(keeper: Keeper) -> None:
    sessions = Sessions(keeper)
    refused = CredentialRefused("no")
    sessions.ends = (refused, refused, sessions.connected)

    async def test() -> None:
        await until(lambda: len(sessions.begun) == 2)
        await until(lambda: keeper.status.state is ConnectionState.REFUSED)
        keeper.restart(None)
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)


async def test_what_is_restarted_without_anything_to_connect_with_is_off(keeper: Keeper) -> None:
    sessions = Sessions(keeper)
    sessions.ends = (sessions.connected,)

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        keeper.restart("given up")
        assert keeper.status.state is ConnectionState.OFF
        assert keeper.status.error == "given up"
        await asyncio.sleep(0.3)
        assert len(sessions.begun) == 1
        assert keeper.status.state is ConnectionState.OFF
        keeper.restart(None)
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)


async def test_what_is_off_and_restarted_before_it_runs_connects(clock: Clock) -> None:
    keeper = Keeper("it", clock, off="nothing is configured")
    keeper.restart(None)
    sessions = Sessions(keeper)
    sessions.ends = (sessions.connected,)

    async def test() -> None:
        await until(lambda: keeper.is_connected)

    await _run(keeper, sessions, test)


async def test_a_session_that_was_cancelled_by_nobody_is_lost(keeper: Keeper) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    sessions = Sessions(keeper)
    sessions.ends = (cancelled, sessions.connected)

    async def test() -> None:
        await until(lambda: keeper.is_connected)
        assert len(sessions.begun) == 2

    await _run(keeper, sessions, test)


async def test_the_end_of_a_keeper_ends_its_session(keeper: Keeper) -> None:
    ended = []

    async def session() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    sessions = Sessions(keeper, session)

    async def test() -> None:
        await until(lambda: sessions.begun)

    await _run(keeper, sessions, test)
    assert ended == [True]
