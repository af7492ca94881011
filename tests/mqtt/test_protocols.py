"""MQTT 5 and 3.1.1, and brokers that speak one of them, or none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Will

from otsd.mqtt.line import Address, Line, Pace, connected
from otsd.settings import MqttProtocol
from otsd.supervise import CredentialRefused, Lost
from tests.cli.calling import call
from tests.daemon import Daemon, free_port
from tests.fakes.broker import ACCEPT, HANG_UP, SAY_NOTHING, FakeBroker, publish
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.home.conftest import until
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto, certify

BOTH = (MqttProtocol.V5, MqttProtocol.V311)
QUICK = Pace(connect_deadline=timedelta(seconds=2))
HURRIED = Pace(connect_deadline=timedelta(seconds=0.03))


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    """Run a broker that does as it is told."""
    async with FakeBroker() as broker:
        yield broker


@pytest.fixture(autouse=True)
async def faults() -> AsyncIterator[list[str]]:
    """Hear of what nobody has caught; there may be none."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: found.append(repr(told)))
    yield found
    gc.collect()
    await asyncio.sleep(0)
    assert found == []


def at(port: int, **more: Any) -> Address:
    return Address("127.0.0.1", port, **more)


async def why(address: Address, pace: Pace = QUICK) -> str:
    """Return why there is no connection."""
    with pytest.raises((Lost, CredentialRefused)) as refused:
        async with connected(address, pace, "otsd", will=None):
            pass
    return str(refused.value)


async def version(address: Address) -> str:
    async with connected(address, QUICK, "otsd", will=None) as line:
        await line.part()
        return line.version


# -- a real broker -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", BOTH)
async def test_online_is_said_in_both_and_offline_however_otsd_ends(
    tmp_path: Path, broker: Mosquitto, ear: Ear, protocol: MqttProtocol
) -> None:
    settings = {**broker.settings, "mqtt.protocol": f'"{protocol}"'}
    async with Daemon(tmp_path, token=None, settings=settings) as otsd:
        await ear.until(lambda: ear.held.get("otsd/status") == b"online")
        status = await otsd.until_status(lambda status: status["mqtt"]["state"] == "connected")
        assert status["mqtt"]["version"] == protocol
        assert status["mqtt"]["error"] is None
        told = await call(otsd, "check")
        assert told.stdout.splitlines()[-1] == f"broker          ok         MQTT {protocol}"
        otsd.kill()
        await ear.until(lambda: ear.held["otsd/status"] == b"offline")
        told = await call(otsd, "check")
        said = f"broker          ok         MQTT {protocol} at 127.0.0.1"
        assert told.stdout.splitlines()[-1] == said
        await otsd.start()
        await ear.until(lambda: ear.held["otsd/status"] == b"online")
        assert await otsd.stop() == 0
        await ear.until(lambda: ear.held["otsd/status"] == b"offline")
    async with Ear(broker) as later:
        assert (await later.message("otsd/status")).retained


@pytest.mark.parametrize("protocol", BOTH)
async def test_small_messages_do_not_wait_for_each_other(
    broker: Mosquitto, protocol: MqttProtocol
) -> None:
    """Without TCP_NODELAY a pair takes 40 ms and more."""
    loop = asyncio.get_running_loop()
    async with connected(at(broker.port, protocol=protocol), QUICK, "otsd", will=None) as line:
        sock = client_of(line)._client.socket()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        took = []
        for _ in range(20):
            begun = loop.time()
            await line.publish("x", "1")
            await line.publish("x", "2", confirmed=True)
            took.append(loop.time() - begun)
        assert sorted(took)[10] < 0.02
        await line.part()


def client_of(line: Line) -> Any:
    return line._client


async def test_the_will_is_published_unless_otsd_parts(broker: Mosquitto, ear: Ear) -> None:
    for number, parts in enumerate((True, False, True)):
        will = Will(f"will/{number}", "gone", qos=1)
        async with connected(at(broker.port), QUICK, "otsd", will=will) as line:
            await line.publish(f"there/{number}", "1", confirmed=True)
            if parts:
                await line.part()
    await ear.message("there/2")
    await ear.message("will/1")
    assert [heard.topic for heard in ear.heard if heard.topic.startswith("will/")] == ["will/1"]


# -- brokers that do not speak MQTT 5 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "knows_5"), [(1, False), (132, True), (HANG_UP, True)], ids=["1", "132", "hang up"]
)
async def test_a_broker_that_refuses_5_is_spoken_to_in_3_1_1_at_once(
    fake: FakeBroker, answer: int | str, *, knows_5: bool
) -> None:
    fake.answers[5], fake.knows_5 = answer, knows_5
    assert await version(at(fake.port)) == "3.1.1"
    assert [connect.version for connect in fake.connects] == [5, 4]
    told = await why(at(fake.port, protocol=MqttProtocol.V5))
    if answer == HANG_UP:
        assert told == (
            f"127.0.0.1:{fake.port} closes the connection without an answer; "
            "see mqtt.protocol, mqtt.port and mqtt.tls"
        )
    else:
        assert told == "the broker does not speak MQTT 5; see mqtt.protocol"
    assert [connect.version for connect in fake.connects] == [5, 4, 5]
    await fake.until(lambda: fake.connections == 0)


async def test_a_broker_that_takes_5_is_not_spoken_to_in_3_1_1(fake: FakeBroker) -> None:
    assert await version(at(fake.port)) == "5"
    assert await version(at(fake.port, protocol=MqttProtocol.V311)) == "3.1.1"
    assert [connect.version for connect in fake.connects] == [5, 4]


async def test_a_broker_that_refuses_3_1_1_is_reported(fake: FakeBroker) -> None:
    fake.answers[4] = 1
    assert await why(at(fake.port, protocol=MqttProtocol.V311)) == (
        f"what answers at 127.0.0.1:{fake.port} does not speak MQTT 3.1.1; "
        "see mqtt.protocol, mqtt.port and mqtt.tls"
    )
    fake.answers[5], fake.knows_5 = 1, False
    assert await why(at(fake.port)) == (
        f"what answers at 127.0.0.1:{fake.port} does not speak MQTT 5 or 3.1.1; "
        "see mqtt.port and mqtt.tls"
    )


async def test_the_daemon_falls_back_and_reports_what_it_may_not_fall_back_from(
    tmp_path: Path, fake: FakeBroker
) -> None:
    fake.answers[5] = HANG_UP
    async with Daemon(tmp_path, token=None, settings=fake.settings) as otsd:
        status = await otsd.until_status(lambda status: status["mqtt"]["state"] == "connected")
        assert status["mqtt"]["version"] == "3.1.1"
    # its own last word, then that it parts
    assert fake.published[-1].topic == "otsd/status"
    assert fake.published[-1].payload == b"offline"
    assert fake.parted == 1
    otsd = Daemon(tmp_path, token=None, settings={**fake.settings, "mqtt.protocol": '"5"'})
    ran = await call(otsd, "check")
    assert ran.returncode == 1
    assert "closes the connection without an answer; see mqtt.protocol" in ran.stdout
    async with otsd:
        status = await otsd.until_status(lambda status: status["mqtt"]["error"])
        assert status["mqtt"]["state"] == "connecting"
        assert "see mqtt.protocol" in status["mqtt"]["error"]
        ran = await call(otsd, "check")
        assert ran.returncode == 1
        assert status["mqtt"]["error"] in ran.stdout


# -- what else may answer, or not ----------------------------------------------------------------


@pytest.mark.parametrize(("code", "versions"), [(4, [5, 4]), (5, [5, 4]), (134, [5]), (135, [5])])
async def test_a_refused_credential_is_understood_in_every_form(
    fake: FakeBroker, code: int, versions: list[int]
) -> None:
    fake.answers = {4: code, 5: code}
    fake.knows_5 = code > 100
    who = at(fake.port, username="otsd", password="hunter2")
    with pytest.raises(CredentialRefused) as refused:
        async with connected(who, QUICK, "otsd", will=None):
            pass
    assert str(refused.value) == (
        "the broker does not accept this name and password; see mqtt.username and mqtt.password"
    )
    assert "hunter2" not in repr(who)
    assert [connect.version for connect in fake.connects] == versions
    assert {(each.username, each.password) for each in fake.connects} == {("otsd", "hunter2")}
    assert await why(at(fake.port)) == (
        "the broker lets nobody in without a name and a password; "
        "see mqtt.username and mqtt.password"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (133, "the broker does not accept the client id; see mqtt.base_topic"),
        (138, "the broker has banned otsd; see its configuration"),
        (136, "the broker refuses connections at the moment (Server unavailable)"),
        (137, "the broker refuses connections at the moment (Server busy)"),
    ],
)
async def test_other_refusals_are_told_too(fake: FakeBroker, code: int, told: str) -> None:
    fake.answers[5] = code
    assert await why(at(fake.port)) == told


async def test_what_is_no_broker_is_told_from_one(fake_home: FakeHomeAssistant) -> None:
    port = int(fake_home.url.rpartition(":")[2])
    told = await why(at(port))
    assert told.startswith((f"what answers at 127.0.0.1:{port} does not speak MQTT", "127.0.0.1"))
    assert told.endswith("; see mqtt.port and mqtt.tls")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 11\r\n\r\nBad Request" * 3,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x20\x01\x00",
        b"\x20\x05\x00\x00\x7f\x7f\x7f",
        b"\x30\x03\x00\x01\xff",
        b"\x40\x05\x00\x01\x63\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"\xf0\xff\xff\xff\xff\x7f",
        b"\xe0\x00",
    ],
)
async def test_an_answer_that_makes_no_sense_does_no_harm(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(10)
            writer.write(answer)
            await reader.read()  # until otsd has enough of it
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        told = await why(at(port), Pace(connect_deadline=timedelta(seconds=0.5)))
        assert told.startswith((f"what answers at 127.0.0.1:{port} does not", "127.0.0.1"))


async def test_a_name_that_cannot_be_one_is_not_known() -> None:
    name = "x" * 70
    assert await why(Address(name, 1)) == f"the name {name} is not known; see mqtt.host"


async def test_a_broker_on_another_address_of_its_name_is_found(fake: FakeBroker) -> None:
    """``localhost`` is ::1, too, where it does not listen."""
    assert await version(Address("localhost", fake.port)) == "5"


# -- nothing stays behind ------------------------------------------------------------------------


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


Fault = Callable[[FakeBroker, Path], Awaitable[Address]]


async def nothing_listens(_: FakeBroker, __: Path) -> Address:
    return at(free_port())


async def it_says_nothing(fake: FakeBroker, _: Path) -> Address:
    fake.answers = {4: SAY_NOTHING, 5: SAY_NOTHING}
    return at(fake.port)


async def it_hangs_up(fake: FakeBroker, _: Path) -> Address:
    fake.answers = {4: HANG_UP, 5: HANG_UP}
    return at(fake.port)


async def it_refuses_the_password(fake: FakeBroker, _: Path) -> Address:
    fake.answers[5] = 135
    return at(fake.port)


async def it_knows_no_version(fake: FakeBroker, _: Path) -> Address:
    fake.answers, fake.knows_5 = {4: 1, 5: 1}, False
    return at(fake.port)


async def it_says_nothing_of_tls(fake: FakeBroker, folder: Path) -> Address:
    fake.deaf = True
    return at(fake.port, tls=trusting(folder))


def trusting(folder: Path) -> ssl.SSLContext:
    certify(folder)
    return ssl.create_default_context(cafile=folder / "ca.pem")


@pytest.mark.parametrize(
    "fault",
    [
        nothing_listens,
        it_says_nothing,
        it_hangs_up,
        it_refuses_the_password,
        it_knows_no_version,
        it_says_nothing_of_tls,
    ],
)
async def test_thirty_tries_in_vain_leave_nothing_behind(
    fake: FakeBroker, tmp_path: Path, fault: Fault
) -> None:
    address = await fault(fake, tmp_path)
    await why(address, HURRIED)
    files, tasks = _open_files(), len(asyncio.all_tasks())
    for _ in range(30):
        assert await why(address, HURRIED)
    await fake.until(lambda: fake.connections == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert _open_files() <= files


async def test_a_try_can_be_given_up_at_any_moment(fake: FakeBroker) -> None:
    files = _open_files()
    fake.answers = {4: SAY_NOTHING, 5: SAY_NOTHING}
    for turns in range(12):
        trying = asyncio.create_task(why(at(fake.port)))
        for _ in range(turns):
            await asyncio.sleep(0)
        trying.cancel()
        await asyncio.wait([trying], timeout=1)
        assert trying.cancelled()
    await fake.until(lambda: fake.connections == 0)
    assert _open_files() <= files


async def test_a_try_can_be_given_up_while_the_broker_hangs_up(fake: FakeBroker) -> None:
    address = await it_hangs_up(fake, Path())
    for turns in range(300):
        trying = asyncio.create_task(why(address))
        for _ in range(turns):
            await asyncio.sleep(0)
        trying.cancel()
        await asyncio.wait([trying])
        assert trying.cancelled() or trying.result()
    await fake.until(lambda: fake.connections == 0)


@pytest.mark.parametrize("protocol", BOTH)
async def test_connections_that_break_leave_nothing_behind(
    fake: FakeBroker, protocol: MqttProtocol
) -> None:
    """Also while something is written, and with something unread."""
    fake.answers = {4: ACCEPT, 5: ACCEPT}
    files = _open_files()
    for number in range(1, 31):
        with pytest.raises(Lost):
            await break_off(fake, protocol, number)
    await fake.until(lambda: fake.connections == 0)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert _open_files() <= files


async def break_off(fake: FakeBroker, protocol: MqttProtocol, number: int) -> None:
    async with connected(at(fake.port, protocol=protocol), QUICK, "otsd", will=None) as line:
        writing = asyncio.create_task(write(line))
        if protocol is MqttProtocol.V311:
            fake.send(publish("x", b"1", number=number) * 3, and_hang_up=True)
        else:
            fake.end(139)
        try:
            async for _ in line.messages:
                pass
        finally:
            writing.cancel()
            await asyncio.wait([writing])


async def write(line: Line) -> None:
    while True:
        await line.publish("x", "1")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (142, "another client has come with the id of this one; see mqtt.base_topic"),
        (139, "it is shutting down"),
        (141, "it does not answer any more"),
        (151, "the connection broke"),
    ],
)
async def test_why_a_connection_ended_is_told(fake: FakeBroker, reason: int, told: str) -> None:
    async def listen() -> None:
        async with connected(at(fake.port), QUICK, "otsd", will=None) as line:
            fake.end(reason)
            async for _ in line.messages:
                pass

    with pytest.raises(Lost, match=f"^{told}$"):
        await listen()


async def test_a_broker_that_does_not_take_what_is_sent_is_left(fake: FakeBroker) -> None:
    """Parting is not waited for, either."""
    pace = Pace(deadline=timedelta(seconds=0.2))
    fake.silent = True

    async def publish_it() -> None:
        async with connected(at(fake.port), pace, "otsd", will=None) as line:
            await line.publish("x", "1", confirmed=True)

    with pytest.raises(Lost, match="it does not answer any more"):
        await publish_it()
    await fake.until(lambda: fake.connections == 0)
    assert fake.parted == 0


async def test_what_comes_in_is_read_as_fast_as_it_comes(fake: FakeBroker) -> None:
    """What waits to be read is held in memory, and may be a megabyte each."""
    many, heard, waiting = 5_000, 0, 0
    async with connected(at(fake.port), QUICK, "otsd", will=None) as line:
        for _ in range(many):
            fake.say("x", b"1")
        async with asyncio.timeout(10):
            async for _ in line.messages:
                heard += 1
                waiting = max(waiting, len(line._client.messages))
                if heard == many:
                    break
    assert waiting < 100


async def test_which_subscriptions_are_refused_is_told_in_both(fake: FakeBroker) -> None:
    fake.denied = {"b", "c/+"}
    for protocol in BOTH:
        async with connected(at(fake.port, protocol=protocol), QUICK, "otsd", will=None) as line:
            assert await line.subscribe(["a", "b", "c/+"]) == ["b", "c/+"]
            assert await line.subscribe(["a"], as_published=True) == []
            await line.unsubscribe(["a", "b"])
