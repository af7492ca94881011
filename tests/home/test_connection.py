"""One websocket, kept for ever: what its owner is told, and how it comes back."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from otsd.core.errors import HomeUnavailable, NoAnswer, NotAsked
from otsd.core.ports import ConnectionState
from otsd.home.home import Pace
from otsd.supervise import CredentialRefused, Lost
from tests.fakes.home_assistant import After, Event, FakeHomeAssistant, Stall, Succeed
from tests.home.conftest import QUICK, UNLOCK, ZONE, Connect, until

EVENT = "one_time_token_submitted"


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """Return what otsd itself logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("otsd") and record.levelno >= level
    ]


async def test_it_is_connecting_then_connected_and_knows_the_version_and_the_zone(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    await fake_home.stall()
    home = await connect(fake_home, wait=False)
    assert home.state is ConnectionState.CONNECTING
    assert home.status.error is None
    begun = home.status.since
    await fake_home.resume()
    await home.connected()
    assert home.status.since > begun
    assert home.status.version == "2025.4.4"
    assert home.status.error is None
    assert home.zone == ZONE


async def test_a_zone_that_this_machine_does_not_know_is_told_and_changes_nothing(
    fake_home: FakeHomeAssistant, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    fake_home.time_zone = "Mars/Olympus_Mons"
    home = await connect(fake_home)
    assert str(home.zone) == "UTC"
    assert "Mars/Olympus_Mons" in "".join(lines(caplog))


async def test_the_zone_is_told_once_it_is_known(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, wait=False)
    told: list[str] = []
    home.on_zone = told.append
    await home.connected()
    assert told == ["Europe/Berlin"]
    await fake_home.hang_up()
    await until(lambda: fake_home.auth_attempts == 2)
    await home.connected()
    assert told == ["Europe/Berlin"]
    assert home.task.cancelling() == 0  # a loss leaves no trace that a real end could be taken for


async def test_without_a_token_it_is_off_and_nothing_is_tried_even_when_asked(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, token=None, wait=False)
    home.retry()
    await asyncio.sleep(0.1)
    assert home.state is ConnectionState.OFF
    assert "home_assistant.token" in str(home.status.error)
    assert fake_home.attempts == 0
    with pytest.raises(NotAsked):
        await home.fire(EVENT, {})


# -- coming back -----------------------------------------------------------------------------


async def test_after_a_restart_it_is_used_again_within_5_s(
    fake_home: FakeHomeAssistant, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    home = await connect(fake_home, UNLOCK)
    await fake_home.stop()
    await until(lambda: home.state is ConnectionState.CONNECTING)
    assert home.status.error
    with pytest.raises(HomeUnavailable):
        home.check(home.plans[0])
    since = home.status.since
    await asyncio.sleep(1)  # so that the delays grow
    assert home.status.since == since
    await fake_home.start()
    await home.connected(5)
    home.check(home.plans[0])
    told = lines(caplog)
    assert len(told) == 3, told
    assert "connected to Home Assistant, version 2025.4.4" in told[0]
    assert "is lost" in told[1]
    assert "is back" in told[2]


async def test_one_that_was_never_there_is_told_once_and_once_when_it_comes(
    fake_home: FakeHomeAssistant, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fake_home.handshake = "http_502"
    home = await connect(fake_home, wait=False)
    await until(lambda: fake_home.attempts >= 4)
    assert len(lines(caplog)) == 1
    assert "cannot be reached" in lines(caplog)[0]
    fake_home.handshake = "normal"
    await home.connected()
    assert len(lines(caplog)) == 2
    assert "is there now" in lines(caplog)[1]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_frozen_peer_is_noticed_and_used_again_when_it_thaws(
    connect: Connect, certificate: tuple[str, str], tls: bool
) -> None:
    import ssl

    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    async with FakeHomeAssistant(tls=context) as fake:
        fake.set_state("lock.front_door", "locked")
        home = await connect(fake, UNLOCK, tls=False, pace=QUICK)
        fake.on_call = lambda _: Stall()
        call = asyncio.create_task(home.run(home.plans[0], {}))
        await fake.until(lambda: fake.calls)
        await fake.stall()
        begun = time.monotonic()
        await until(lambda: home.state is ConnectionState.CONNECTING)
        with pytest.raises(NoAnswer):
            await call
        assert time.monotonic() - begun < 4  # a closing handshake alone would take 10
        await fake.resume()
        await home.connected(5)


async def test_a_frozen_peer_is_noticed_also_with_more_to_tell_than_the_system_takes(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    big = {"action": "lock.unlock", "data": {"text": "x" * 500_000}}
    home = await connect(fake_home, big, pace=QUICK, action_timeout=timedelta(seconds=60))
    await fake_home.stall()
    async with asyncio.timeout(8):
        results = await asyncio.gather(
            *(home.run(home.plans[0], {}) for _ in range(40)), return_exceptions=True
        )
    assert {type(result) for result in results} <= {NoAnswer, NotAsked}
    await until(lambda: home.state is ConnectionState.CONNECTING, 3)
    await fake_home.resume()
    await home.connected(5)


async def test_a_peer_that_freezes_before_it_is_running_is_noticed_too(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.state = "STARTING"
    home = await connect(fake_home, pace=QUICK)
    await fake_home.stall()
    await until(lambda: home.state is ConnectionState.CONNECTING, 4)


async def test_a_frozen_peer_does_not_hold_up_the_end(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    await fake_home.stall()
    begun = time.monotonic()
    await home.end()
    assert time.monotonic() - begun < 2


async def test_it_can_be_ended_in_every_moment_of_a_loss(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    for turns in range(25):
        home = await connect(fake_home)
        losing = asyncio.create_task(fake_home.hang_up())
        for _ in range(turns):
            await asyncio.sleep(0)
        await home.end()
        await losing


@pytest.mark.parametrize(
    "garbage",
    [
        "[]",
        "[1]",
        "null",
        "7",
        "{}",
        '{"id": 1}',
        '{"type": "result"}',
        "no json",
        b"\0",
        "[" * 2000,
        '{"type": "result", "id": 2, "success": true}',
    ],
)
async def test_a_message_that_makes_no_sense_costs_at_most_the_connection(
    fake_home: FakeHomeAssistant, connect: Connect, garbage: str | bytes
) -> None:
    home = await connect(fake_home, UNLOCK)
    await fake_home.send_raw(garbage)
    # whatever became of the connection, a new one is there soon
    async with asyncio.timeout(5):
        while True:
            try:
                await home.run(home.plans[0], {})
                break
            except (NotAsked, NoAnswer):
                await asyncio.sleep(0.01)
    assert not home.task.done()


@pytest.mark.parametrize("kind", ["auth/current_user", "get_config", "get_services"])
async def test_answers_of_another_form_are_told_and_tried_again(
    fake_home: FakeHomeAssistant, connect: Connect, kind: str
) -> None:
    fake_home.on_command = lambda message: Succeed(7) if message["type"] == kind else None
    home = await connect(fake_home, wait=False)
    assert "unexpected" in await home.unsuccessful()
    fake_home.on_command = lambda _: None
    await home.connected(5)


# -- who we are --------------------------------------------------------------------------------


async def test_a_refused_token_is_tried_once_more_and_then_no_more(
    fake_home: FakeHomeAssistant, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    home = await connect(fake_home, token="wrong", wait=False, pace=QUICK)
    await until(lambda: fake_home.auth_attempts == 1)
    await until(lambda: home.state is ConnectionState.REFUSED)
    assert "home_assistant.token" in str(home.status.error)
    since = home.status.since
    await until(lambda: fake_home.auth_attempts == 2)
    await asyncio.sleep(1)  # twice the first pause
    assert fake_home.auth_attempts == 2
    assert home.state is ConnectionState.REFUSED
    assert home.status.since == since
    home.retry()
    await until(lambda: fake_home.auth_attempts == 3)
    await asyncio.sleep(0.7)
    assert fake_home.auth_attempts == 3
    assert len(lines(caplog, logging.ERROR)) == 3
    assert "wrong" not in caplog.text


async def test_a_refusal_that_is_slow_to_end_counts_as_one(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    """Home Assistant looks up the name of an address that it refused, which can take long."""
    fake_home.slow_refusal = True
    pace = replace(QUICK, refusal_pauses=(timedelta(days=1), timedelta(days=1)))
    home = await connect(fake_home, token="wrong", wait=False, pace=pace)
    await until(lambda: home.state is ConnectionState.REFUSED)
    assert fake_home.auth_attempts == 1
    await asyncio.sleep(0.5)
    assert fake_home.auth_attempts == 1


async def test_a_token_that_is_taken_away_is_refused_and_given_back_used_when_asked(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    fake_home.refuse_token()
    await fake_home.hang_up()
    await until(lambda: home.state is ConnectionState.REFUSED)
    fake_home.refuse_token(refuse=False)
    home.retry()
    await home.connected(5)


async def test_who_is_no_administrator_is_told_and_connected_all_the_same(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.admin = False
    home = await connect(fake_home, UNLOCK, pace=QUICK)
    assert "administrator" in str(home.status.error)
    home.check(home.plans[0])
    assert (await home.run(home.plans[0], {})).context_id
    fake_home.admin = True
    await until(lambda: home.status.error is None)


async def test_who_is_demoted_later_is_told_at_the_next_ping_and_once(
    fake_home: FakeHomeAssistant, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    home = await connect(fake_home, pace=QUICK)
    assert home.status.error is None
    since = home.status.since
    fake_home.admin = False
    await until(lambda: home.status.error)
    assert "administrator" in str(home.status.error)
    assert home.state is ConnectionState.CONNECTED
    assert home.status.since == since
    pings = [each for each in fake_home.received if each["type"] == "auth/current_user"]
    await fake_home.until(
        lambda: (
            sum(each["type"] == "auth/current_user" for each in fake_home.received) > len(pings) + 2
        )
    )
    assert len([line for line in lines(caplog) if "administrator" in line]) == 1


# -- RUNNING -----------------------------------------------------------------------------------


async def test_events_wait_until_home_assistant_is_running(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.state = "STARTING"
    home = await connect(fake_home)
    waiting = asyncio.create_task(home.running())
    with pytest.raises(NotAsked):
        await home.fire(EVENT, {})
    assert not waiting.done()
    fake_home.state = "RUNNING"
    await asyncio.wait_for(waiting, 5)
    await home.fire(EVENT, {"n": 1})
    assert fake_home.events == [Event(EVENT, {"n": 1})]


async def test_no_event_is_fired_after_home_assistant_began_to_stop(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    await home.running()
    fake_home.state = "STOPPING"
    heard = asyncio.create_task(home.running())
    await until(lambda: _not_running(home))
    with pytest.raises(NotAsked):
        await home.fire(EVENT, {})
    assert fake_home.events == []
    heard.cancel()


def _not_running(home: object) -> bool:
    return not home._is_running.is_set()  # type: ignore[attr-defined]


async def test_an_event_that_is_answered_while_it_stops_counts_as_not_delivered(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    await home.running()
    go_on = asyncio.Event()
    fake_home.on_fire = lambda _: After(go_on, Succeed())
    firing = asyncio.create_task(home.fire(EVENT, {}))
    await fake_home.until(lambda: fake_home.events)
    fake_home.state = "STOPPING"
    go_on.set()
    with pytest.raises(NoAnswer):
        await firing


async def test_one_that_stops_while_it_is_being_read_is_not_taken_for_running(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    go_on = asyncio.Event()
    fake_home.on_command = lambda message: (
        After(go_on, Succeed({})) if message["type"] == "get_services" else None
    )
    home = await connect(fake_home, wait=False)
    await fake_home.until(lambda: any(m["type"] == "get_services" for m in fake_home.received))
    fake_home.state = "STOPPING"
    go_on.set()
    await home.connected()
    with pytest.raises(NotAsked):
        await home.fire(EVENT, {})


async def test_events_wait_for_the_next_start_after_a_loss(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    await home.running()
    await fake_home.stop()
    await until(lambda: home.state is ConnectionState.CONNECTING)
    waiting = asyncio.create_task(home.running())
    fake_home.state = "STARTING"
    await fake_home.start()
    await home.connected(5)
    assert not waiting.done()
    fake_home.state = "RUNNING"
    await asyncio.wait_for(waiting, 5)


def test_by_default_all_is_in_time_for_what_is_promised() -> None:
    pace = Pace()
    assert pace.connect_deadline < timedelta(seconds=5)
    assert pace.ping_every + pace.ping_deadline < timedelta(seconds=18)


async def test_a_login_is_used_now_and_then_and_its_end_ends_the_connection(
    connect: Connect, fake_home: FakeHomeAssistant
) -> None:
    asked = 0
    refused = False

    async def credential() -> str:
        nonlocal asked
        asked += 1
        if refused:
            raise CredentialRefused("it was ended")
        if asked == 3:
            raise Lost("away for a moment")
        return fake_home.token

    pace = replace(QUICK, renew_every=timedelta(seconds=0.02))
    home = await connect(fake_home, token=None, wait=False, pace=pace)
    home.use(credential)
    await home.connected()
    await until(lambda: asked > 5)
    assert home.state is ConnectionState.CONNECTED
    refused = True
    await until(lambda: home.state is ConnectionState.REFUSED)
    assert home.status.error == "it was ended"
