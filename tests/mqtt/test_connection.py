"""The connection to the broker, kept for ever: what its owner is told, and how it comes back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from otsd.core.changes import Changes
from otsd.core.ports import ConnectionState
from otsd.mqtt.broker import Broker, Find, always
from otsd.mqtt.discovery import About
from otsd.mqtt.line import Address, Pace
from otsd.mqtt.projection import Projection
from otsd.mqtt.topics import Topics
from otsd.settings import MqttProtocol
from otsd.store.store import opened
from tests.cli.calling import call
from tests.core.homes import MemoryHome
from tests.daemon import Daemon, free_port
from tests.fakes.broker import ACCEPT, SAY_NOTHING, FakeBroker
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.home.conftest import until
from tests.home.test_connection import lines
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto, certify

BOTH = (MqttProtocol.V5, MqttProtocol.V311)
QUICK = Pace(
    connect_deadline=timedelta(seconds=2),
    keep_alive=timedelta(seconds=1),
    deadline=timedelta(seconds=2),
    sweep=timedelta(seconds=0.05),
)
PASSWORD = "hunter2-and-more"


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    """Run a broker that does as it is told."""
    async with FakeBroker() as broker:
        yield broker


@asynccontextmanager
async def kept(
    folder: Path,
    port: int,
    pace: Pace = QUICK,
    protocol: MqttProtocol = MqttProtocol.AUTO,
    find: Find | None = None,
) -> AsyncIterator[Broker]:
    """Keep a connection as the daemon does, with a pace of the test's own."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(repr(told)))
    topics, home = Topics("otsd", "homeassistant"), MemoryHome()
    about = About(topics, "Links", "0", "http://localhost:8099", commands=True, links=False)
    async with opened(folder / "data") as (store, _):
        broker = Broker(
            find or always(Address("127.0.0.1", port, protocol=protocol)),
            topics=topics,
            store=store,
            projection=Projection(
                store=store,
                home=home,
                link=lambda _: "",
                changes=Changes(),
                now=now,
                about=about,
                devices=20,
            ),
            commands=None,
            now=now,
            pace=pace,
        )
        task = asyncio.create_task(broker.keep(), name="MQTT")
        try:
            yield broker
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled()
    assert faults == []


def now() -> datetime:
    return datetime.now(UTC)


async def is_connected(broker: Broker, seconds: float = 10) -> None:
    await until(lambda: broker.status.state is ConnectionState.CONNECTED, seconds)


async def until_connected(otsd: Daemon, seconds: float = 15) -> Any:
    return await otsd.until_status(lambda status: status["mqtt"]["state"] == "connected", seconds)


# -- what is wrong, in words ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Run a mosquitto that wants TLS and a password."""
    broker = Mosquitto(tmp_path_factory.mktemp("locked"), tls=True, password=PASSWORD)
    asyncio.run(broker.start())
    yield broker
    broker.kill()


Settings = dict[str, str]


def everything_right(_: Mosquitto, __: Path) -> tuple[Settings, None]:
    return {}, None


def nothing_listens(_: Mosquitto, __: Path) -> tuple[Settings, str]:
    port = str(free_port())
    return {"mqtt.port": port}, f"nothing answers at 127.0.0.1:{port} (Connection refused)"


def an_unknown_name(_: Mosquitto, __: Path) -> tuple[Settings, str]:
    name = "broker.invalid"  # RFC 6761: nobody has it
    return {"mqtt.host": f'"{name}"'}, f"the name {name} is not known; see mqtt.host"


def another_authority(broker: Mosquitto, folder: Path) -> tuple[Settings, str]:
    certify(folder)
    told = f"the certificate of 127.0.0.1:{broker.port} is not trusted ("
    return {"mqtt.ca_file": f'"{folder / "ca.pem"}"'}, told


def another_name(broker: Mosquitto, _: Path) -> tuple[Settings, str]:
    told = (
        f"the certificate of localhost:{broker.port} is not trusted (Hostname mismatch, "
        "certificate is not valid for 'localhost'); see mqtt.host"
    )
    return {"mqtt.host": '"localhost"'}, told


def no_tls_at_its_port(broker: Mosquitto, _: Path) -> tuple[Settings, str]:
    return {"mqtt.tls": "false"}, "see mqtt.port and mqtt.tls"


def a_wrong_password(_: Mosquitto, __: Path) -> tuple[Settings, str]:
    told = "the broker does not accept this name and password; see mqtt.username and mqtt.password"
    return {"mqtt.password": f'"{PASSWORD}-not"'}, told


def no_password(_: Mosquitto, __: Path) -> tuple[Settings, str]:
    told = (
        "the broker lets nobody in without a name and a password; "
        "see mqtt.username and mqtt.password"
    )
    return {"mqtt.username": '""', "mqtt.password": '""'}, told


@pytest.mark.parametrize(
    "case",
    [
        everything_right,
        nothing_listens,
        an_unknown_name,
        another_authority,
        another_name,
        no_tls_at_its_port,
        a_wrong_password,
        no_password,
    ],
)
async def test_what_is_wrong_is_told_by_the_status_and_by_check(
    tmp_path: Path, locked: Mosquitto, case: Any
) -> None:
    settings, told = case(locked, tmp_path)
    settings = {
        key: value for key, value in {**locked.settings, **settings}.items() if value != '""'
    }
    otsd = Daemon(tmp_path, token=None, settings=settings)
    without = await call(otsd, "check")
    async with otsd:
        status = await otsd.until_status(
            lambda status: status["mqtt"]["state"] == "connected" or status["mqtt"]["error"]
        )
        within = await call(otsd, "check")
    *_, last = without.stdout.splitlines()
    if told is None:
        assert status["mqtt"]["state"] == "connected"
        assert without.returncode == within.returncode == 0
        assert last == "broker          ok         MQTT 5 at 127.0.0.1"
    else:
        refused = case in (a_wrong_password, no_password)
        assert status["mqtt"]["state"] == ("refused" if refused else "connecting")
        assert told in status["mqtt"]["error"]
        assert without.returncode == within.returncode == 1
        assert last.startswith("broker          failed     ")
        assert told in last
        assert within.stdout.splitlines()[-1] == last
    assert without.stderr == within.stderr == ""
    for said in (without.stdout, within.stdout, otsd.log, str(status)):
        assert PASSWORD not in said


async def test_tls_where_there_is_none_is_told(tmp_path: Path, broker: Mosquitto) -> None:
    otsd = Daemon(tmp_path, token=None, settings={**broker.settings, "mqtt.tls": "true"})
    told = f"127.0.0.1:{broker.port} does not speak TLS; see mqtt.tls and mqtt.port"
    ran = await call(otsd, "check")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == f"broker          failed     {told}"
    async with otsd:
        await otsd.until_status(lambda status: status["mqtt"]["error"] == told)


async def test_a_broker_that_says_nothing_is_told_and_does_not_hold_up_the_end(
    tmp_path: Path, fake: FakeBroker
) -> None:
    fake.answers = {4: SAY_NOTHING, 5: SAY_NOTHING}
    otsd = Daemon(tmp_path, token=None, settings=fake.settings)
    async with otsd:
        (tmp_path / "alone").mkdir()
        alone = Daemon(tmp_path / "alone", token=None, settings=fake.settings)
        within, without = await asyncio.gather(call(otsd, "check"), alone.command("check"))
        told = f"127.0.0.1:{fake.port} does not answer"
        for ran in (within, without):
            assert ran.returncode == 1
            assert ran.stdout.splitlines()[-1] == f"broker          failed     {told}"
        await fake.until(lambda: fake.connections == 1)
        assert await seconds_to_stop(otsd) < 3
    assert otsd.log.count("MQTT broker") == 1


async def seconds_to_stop(otsd: Daemon) -> float:
    begun = time.monotonic()
    assert await otsd.stop() == 0
    return time.monotonic() - begun


async def test_a_denied_subscription_is_told_and_the_rest_works(
    tmp_path: Path, fake: FakeBroker
) -> None:
    fake.denied = {"otsd/command/+", "otsd/tokens/+/set"}
    otsd = Daemon(tmp_path, token=None, settings=fake.settings)
    told = (
        "the broker does not let otsd subscribe to otsd/command/+ and otsd/tokens/+/set; "
        "see its access rules"
    )
    ran = await call(otsd, "check")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == f"broker          failed     {told}"
    async with otsd:
        status = await until_connected(otsd)
        assert status["mqtt"]["error"] == told
        beside = (await call(otsd, "check")).stdout.splitlines()
        assert beside[-1] == ran.stdout.splitlines()[-1]
        await fake.until(lambda: any(each.topic == "otsd/status" for each in fake.published))
    quiet = await call(otsd, "check", "--mqtt.commands", "false")
    assert quiet.returncode == 0
    assert otsd.log.count("access rules") == 1


# -- refused -------------------------------------------------------------------------------------


async def test_a_refused_password_is_tried_once_more_and_then_only_when_asked(
    tmp_path: Path, fake: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answers = {4: 135, 5: 135}
    pace = replace(QUICK, refusal_pauses=(timedelta(seconds=0.4), timedelta(days=1)))
    async with kept(tmp_path, fake.port, pace) as broker:
        await until(lambda: broker.status.state is ConnectionState.REFUSED)
        assert len(fake.connects) == 1
        await fake.until(lambda: len(fake.connects) == 2)
        await asyncio.sleep(1)  # more than the first pause: nothing comes, which no event tells
        assert len(fake.connects) == 2
        broker.retry()
        await fake.until(lambda: len(fake.connects) == 3)
        fake.answers = {4: ACCEPT, 5: ACCEPT}
        await until(lambda: broker.status.state is ConnectionState.REFUSED)
        broker.retry()
        await is_connected(broker)
        assert len(fake.connects) == 4
        broker.retry()  # of no consequence
    assert len(fake.connects) == 4
    assert "see mqtt.username and mqtt.password" in lines(caplog)[0]


async def test_home_assistant_coming_back_is_a_reason_to_ask_a_broker_again_that_refused(
    tmp_path: Path, fake: FakeBroker, fake_home: FakeHomeAssistant
) -> None:
    """Its own broker asks it who may enter, and refuses everybody while it is away."""
    fake.answers = {4: 135, 5: 135}
    settings = {**fake.settings, "mqtt.username": '"otsd"', "mqtt.password": f'"{PASSWORD}"'}
    await fake_home.stop()
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as otsd:
        await otsd.until_status(lambda status: status["mqtt"]["state"] == "refused")
        assert len(fake.connects) == 1
        fake.answers = {4: ACCEPT, 5: ACCEPT}
        await fake_home.start()
        await until_connected(otsd)
        assert len(fake.connects) == 2
        assert fake.connects[1].password == PASSWORD
    assert PASSWORD not in otsd.log


# -- without a broker ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"username": "x" * 70_000},
        {"username": "\ud800"},
        {"password": "x" * 70_000, "username": "x"},
        {"port": 10**30},
        {},
    ],
    ids=["a long name", "half a character", "a long password", "no port", "no answer"],
)
async def test_an_address_of_no_sense_ends_nothing_and_a_better_one_is_taken(
    tmp_path: Path, fake: FakeBroker, odd: dict[str, Any]
) -> None:
    right = Address("127.0.0.1", fake.port)
    found: list[Address] = []

    async def find() -> Address:
        if found:
            return found[0]
        if not odd:
            raise ZeroDivisionError
        return replace(right, **odd)

    async with kept(tmp_path, fake.port, find=find) as broker:
        await until(lambda: broker.status.error is not None)
        assert broker.status.state is ConnectionState.CONNECTING
        found.append(right)
        await is_connected(broker)


async def test_without_a_host_it_is_off(tmp_path: Path) -> None:
    async with Daemon(tmp_path, token=None) as otsd:
        status = await otsd.status()
        assert status["mqtt"]["state"] == "off"
        assert status["mqtt"]["error"] == "mqtt.host is not set"
        assert datetime.fromisoformat(status["mqtt"]["since"]) <= now()
        assert status["mqtt"]["version"] is None


@pytest.mark.parametrize("settings", [{}, {"mqtt.host": '"127.0.0.1"', "mqtt.port": "1"}])
async def test_its_library_is_loaded_only_with_a_host(tmp_path: Path, settings: Settings) -> None:
    otsd = Daemon(tmp_path, token=None, settings=settings)
    script = (
        "import sys; from otsd.cli import main; main(sys.argv[1:]); "
        "sys.exit(3 if {'aiomqtt', 'paho'} & set(sys.modules) else 0)"
    )
    words = [sys.executable, "-c", script, "run", "--config", str(otsd.config)]
    with otsd.log_file.open("ab") as log:
        otsd.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=tmp_path)
    try:
        async with asyncio.timeout(15):
            while "serves visitors" not in otsd.log:
                await asyncio.sleep(0.02)
        assert await otsd.stop() == (3 if settings else 0)
    finally:
        otsd.kill()


# -- coming and going ----------------------------------------------------------------------------


async def test_visitors_do_not_notice_that_the_broker_is_killed_and_it_is_told_all_when_back(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    """It is not there in the beginning, either."""
    broker = Mosquitto(tmp_path / "broker")
    otsd = Daemon(tmp_path, url=fake_home.url, token=fake_home.token, settings=broker.settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(otsd)
        await otsd.connected()
        await otsd.action()
        token = await otsd.mint(max_uses=9)
        await otsd.until_status(lambda status: status["mqtt"]["error"])
        for uses_left in (8, 6):
            assert (await otsd.submit(token["code"])).status == 200
            await stack.enter_async_context(broker)
            async with Ear(broker) as ear:
                await ear.until(lambda: ear.held.get("otsd/status") == b"online", 5)
                state = f"otsd/tokens/{token['id']}/state"
                await ear.state(state, state="active", uses_left=uses_left)
                await ear.message(f"homeassistant/device/otsd_token_{token['id']}/config")
                await ear.state("otsd/actions/open-door/state", active_tokens=1)
                await ear.state("otsd/state", last_outcome="executed")
                assert (await otsd.submit(token["code"])).status == 200
                broker.kill()
            # what it retains on disk is that of before: nothing
            for left in (tmp_path / "broker").glob("mosquitto.db*"):
                left.unlink()
            await otsd.until_status(lambda status: status["mqtt"]["error"])
    told = [line.split(maxsplit=3)[-1] for line in otsd.log.splitlines() if "MQTT broker" in line]
    where = f"nothing answers at 127.0.0.1:{broker.port} (Connection refused)"
    assert told == [
        f"the MQTT broker cannot be reached: {where}; trying again",
        "the MQTT broker is there now",
        "the MQTT broker is lost: the connection broke; trying again",
        "the MQTT broker is back",
        "the MQTT broker is lost: the connection broke; trying again",
    ]


async def test_failed_tries_of_the_daemon_leave_nothing_open(
    tmp_path: Path, fake: FakeBroker
) -> None:
    await fake.stop()
    async with Daemon(tmp_path, token=None, settings=fake.settings) as otsd:
        await otsd.until_status(lambda status: status["mqtt"]["error"])
        assert otsd.process
        pid = otsd.process.pid
        before = files_of(pid)
        await fake.start()
        for number in range(3):
            await fake.until(partial(more_than, number, fake.connects))
            fake.hang_up()
        await fake.stop()
        await until(lambda: files_of(pid) <= before)


def more_than(number: int, things: Sequence[object]) -> bool:
    return len(things) > number


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("protocol", BOTH)
async def test_a_frozen_broker_is_noticed_and_taken_up_again(
    tmp_path: Path, broker: Mosquitto, ear: Ear, protocol: MqttProtocol
) -> None:
    async with kept(tmp_path, broker.port, protocol=protocol) as kept_up:
        await is_connected(kept_up)
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        broker.freeze()
        await until(lambda: kept_up.status.state is ConnectionState.CONNECTING)
        await until(lambda: "does not answer" in str(kept_up.status.error))
        broker.thaw()
        await is_connected(kept_up, 5)
        await until(lambda: kept_up.status.error is None)
        # what it did not do while it was frozen, it does now; the last word is online
        ear.heard.clear()
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
    await ear.until(lambda: ear.held.get("otsd/status") == b"offline")


async def test_a_frozen_broker_does_not_hold_up_the_end_and_says_offline_after_it(
    otsd: Daemon, broker: Mosquitto, ear: Ear
) -> None:
    await ear.until(lambda: ear.held.get("otsd/status") == b"online")
    broker.freeze()
    await otsd.action()  # there is something to say, which is not heard
    assert await seconds_to_stop(otsd) < 3
    broker.thaw()
    await ear.until(lambda: ear.held.get("otsd/status") == b"offline")


async def test_an_otsd_that_was_frozen_and_hung_up_on_is_back_when_it_goes_on(
    tmp_path: Path, fake: FakeBroker
) -> None:
    async with Daemon(tmp_path, token=None, settings=fake.settings) as otsd:
        await until_connected(otsd)
        assert otsd.process
        otsd.process.send_signal(signal.SIGSTOP)
        fake.hang_up()
        fake.published.clear()
        otsd.process.send_signal(signal.SIGCONT)
        await fake.until(lambda: any(each.topic == "otsd/status" for each in fake.published), 5)


# -- others who speak in otsd's name -------------------------------------------------------------


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("retain", [False, True])
async def test_whoever_says_offline_in_its_name_is_contradicted(
    tmp_path: Path, broker: Mosquitto, ear: Ear, protocol: MqttProtocol, *, retain: bool
) -> None:
    async with kept(tmp_path, broker.port, protocol=protocol):
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        await asyncio.sleep(0.3)  # until what it says at first is over
        ear.heard.clear()
        await ear.say("otsd/status", "offline", retain=retain)
        await ear.until(
            lambda: [h.payload for h in of(ear, "otsd/status")][-2:] == [b"offline", b"online"]
        )
        assert of(ear, "homeassistant/device/otsd_service/config")
        assert of(ear, "otsd/state")


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("retain", [False, True])
async def test_home_assistant_is_told_everything_when_it_says_that_it_is_there(
    tmp_path: Path, broker: Mosquitto, ear: Ear, protocol: MqttProtocol, *, retain: bool
) -> None:
    """Its birth message is retained if its owner has told it to."""
    async with kept(tmp_path, broker.port, protocol=protocol):
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        await asyncio.sleep(0.3)
        ear.heard.clear()
        await ear.say("homeassistant/status", "online", retain=retain)
        await ear.until(lambda: of(ear, "otsd/status"))
        assert of(ear, "homeassistant/device/otsd_service/config")


@pytest.mark.parametrize("protocol", BOTH)
async def test_what_was_said_before_it_came_is_no_reason_to_say_everything_twice(
    tmp_path: Path, broker: Mosquitto, ear: Ear, protocol: MqttProtocol
) -> None:
    await ear.say("homeassistant/status", "online", retain=True)
    await ear.say("otsd/status", "offline", retain=True)
    async with kept(tmp_path, broker.port, protocol=protocol):
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        await asyncio.sleep(0.5)  # it would be said again by now
        await ear.say("homeassistant/status", "online")
        await ear.until(lambda: [h.payload for h in of(ear, "otsd/status")][1:] == [b"online"] * 2)
        assert len(of(ear, "homeassistant/device/otsd_service/config")) == 2


def of(ear: Ear, topic: str) -> Any:
    return [heard for heard in ear.heard if heard.topic == topic]


async def test_two_daemons_of_one_name_take_turns_and_say_why(
    tmp_path: Path, broker: Mosquitto
) -> None:
    pair = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pair.append(Daemon(tmp_path / name, token=None, settings=broker.settings))
    async with pair[0], pair[1]:
        async with asyncio.timeout(15):
            while min(otsd.log.count("see mqtt.base_topic") for otsd in pair) < 1:
                await asyncio.sleep(0.05)
        await pair[1].stop()
        await until_connected(pair[0], 10)
    for otsd in pair:
        # not several times a second
        assert otsd.log.count("is lost") < 12
        assert "Traceback" not in otsd.log


async def test_a_connection_that_ends_as_soon_as_it_is_made_is_not_made_ever_faster(
    tmp_path: Path, fake: FakeBroker
) -> None:
    begun: list[float] = []
    async with kept(tmp_path, fake.port) as broker:
        for number in range(5):
            await fake.until(partial(more_than, 2 * number, fake.subscribed))
            begun.append(time.monotonic())
            fake.hang_up()
            await until(lambda: broker.status.state is ConnectionState.CONNECTING)
        assert begun[-1] - begun[-2] > 0.7
        assert "is another client called otsd? see mqtt.base_topic" in str(broker.status.error)


async def test_a_broker_that_hangs_up_at_a_subscription_is_noticed_at_once(
    tmp_path: Path, fake: FakeBroker
) -> None:
    fake.silent = True
    async with kept(tmp_path, fake.port, replace(QUICK, deadline=timedelta(seconds=60))) as broker:
        await fake.until(lambda: len(fake.connects) == 1)
        await asyncio.sleep(0.1)  # it waits for the answer now
        fake.hang_up()
        await fake.until(lambda: len(fake.connects) == 2, 5)
        assert broker.status.error == "the connection broke"
