"""Commands as they are sent: over a real broker, to otsd as a process of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from otsd.mqtt.line import Address, Pace
from otsd.mqtt.line import connected as connected_line
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.store.test_full_disk import full

_PATIENCE = 15


async def connected(daemon: Daemon) -> None:
    """Wait until otsd is connected to the broker."""
    await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")


async def tokens(daemon: Daemon) -> Any:
    """Return the tokens that there are, newest first."""
    return (await daemon.admin("GET", "/tokens?limit=500")).json["items"]


def asking(topic: str, correlation: bytes | None = None) -> Properties:
    """Return what says where the reply is wanted."""
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = topic
    if correlation is not None:
        properties.CorrelationData = correlation
    answer: Properties = properties
    return answer


@asynccontextmanager
async def talking(
    broker: Mosquitto, *filters: str, protocol: ProtocolVersion = ProtocolVersion.V5
) -> AsyncIterator[aiomqtt.Client]:
    """Connect somebody who hears of these exactly as they were published."""
    async with broker.client(protocol) as client:
        options: Any = 2
        if protocol is ProtocolVersion.V5:
            options = SubscribeOptions(qos=2, retainAsPublished=True)
        await client.subscribe([(each, options) for each in filters])
        yield client


async def next_message(client: aiomqtt.Client) -> aiomqtt.Message:
    async with asyncio.timeout(_PATIENCE):
        async for message in client.messages:
            return message
    raise AssertionError("the connection ended")


def said(message: aiomqtt.Message) -> Any:
    assert isinstance(message.payload, bytes)
    return json.loads(message.payload)


async def retained(broker: Mosquitto, *topics: str) -> Sequence[str]:
    """Return which of these topics the broker keeps something of."""
    mark = f"marks/{secrets.token_hex(4)}"
    async with talking(broker, mark, *topics) as client:
        # what is retained is sent when the subscription is answered, so it is here before the mark
        await client.publish(mark, b"x", qos=1)
        found = []
        while str((message := await next_message(client)).topic) != mark:
            found.append(str(message.topic))
        return found


# -- replies


async def test_a_reply_finds_its_way_and_is_neither_retained_nor_kept_for_long(
    otsd: Daemon, broker: Mosquitto
) -> None:
    await otsd.action()
    topics = ["phones/anna", "otsd/response/#"]
    async with talking(broker, *topics) as client:
        for topic, payload, properties in (
            ("phones/anna", {"request_id": "r1"}, asking("phones/anna", b"\x00\xff7")),
            ("phones/anna", {}, asking("phones/anna")),
            ("otsd/response/kitchen/2", {}, asking("otsd/response/kitchen/2", b"2")),
            ("otsd/response/r2", {"request_id": "r2"}, None),
            ("otsd/response", {}, None),
        ):
            for action, ok in (("open-gate", False), ("open-door", True)):
                text = json.dumps({"action": action, **payload})
                await client.publish("otsd/command/mint", text, qos=1, properties=properties)
                reply = await next_message(client)
                assert str(reply.topic) == topic
                assert (reply.qos, reply.retain) == (0, False)
                assert 55 <= getattr(reply.properties, "MessageExpiryInterval", 0) <= 60
                wanted = getattr(properties, "CorrelationData", None)
                assert getattr(reply.properties, "CorrelationData", None) == wanted
                body = said(reply)
                assert body["ok"] is ok
                assert body["request_id"] == payload.get("request_id")
                rest = {"token", "url"} if ok else {"code", "error"}
                assert body.keys() == {"request_id", "ok", *rest}
    assert await retained(broker, *topics) == []


async def test_a_reply_goes_nowhere_where_it_could_command_or_pretend(
    otsd: Daemon, broker: Mosquitto, ear: Ear
) -> None:
    await otsd.action()
    async with talking(broker, "otsd/response/#") as client:
        for number, topic in enumerate(
            (
                "otsd/status",
                "otsd/state",
                "otsd/command/mint",
                "otsd/tokens/x/set",
                "homeassistant/status",
                "homeassistant/device/otsd_service/config",
                "$SYS/broker/uptime",
            )
        ):
            text = json.dumps({"action": "open-door", "request_id": f"r{number}"})
            properties = asking(topic, b"1")
            await client.publish("otsd/command/mint", text, qos=1, properties=properties)
            reply = await next_message(client)
            assert str(reply.topic) == f"otsd/response/r{number}"
            assert not hasattr(reply.properties, "CorrelationData")
            assert said(reply)["code"] == "bad_response_topic"
    assert await tokens(otsd) == []
    assert not [
        each
        for each in ear.heard
        if b"bad_response_topic" in each.payload and not each.topic.startswith("otsd/response/r")
    ]


async def test_in_3_1_1_a_reply_goes_below_the_responses(
    tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant
) -> None:
    settings = {**broker.settings, "mqtt.protocol": '"3.1.1"'}
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as otsd:
        await connected(otsd)
        await otsd.action()
        v311 = ProtocolVersion.V311
        async with talking(broker, "otsd/response/#", protocol=v311) as client:
            mint = {"action": "open-door", "request_id": "r1"}
            for _ in range(2):
                await client.publish("otsd/command/mint", json.dumps(mint), qos=1)
                reply = await next_message(client)
                assert (str(reply.topic), reply.qos, reply.retain) == ("otsd/response/r1", 0, False)
                assert said(reply)["ok"]
            await client.publish("otsd/command/mint", "open-gate", qos=1)
            reply = await next_message(client)
            assert str(reply.topic) == "otsd/response"
            assert said(reply)["code"] == "unknown_action"
            assert len(await tokens(otsd)) == 1

            # 3.1.1 does not tell of a message that comes at once whether it was retained, only of
            # one that was there before
            otsd.kill()
            await client.publish("otsd/command/mint", "open-door", qos=1, retain=True)
            await otsd.start()
            assert said(await next_message(client))["code"] == "retained"
            assert await retained(broker, "otsd/command/#") == []
            assert len(await tokens(otsd)) == 1


# -- what commands do


async def test_commands_change_what_a_visitor_can_do(otsd: Daemon, ear: Ear) -> None:
    await otsd.action()
    minted = await ear.ask("otsd/command/mint", "open-door")
    code = minted["url"].rpartition("=")[2]
    token_id = minted["token"]["id"]

    async def refused(by: str) -> None:
        answer = await otsd.submit(code)
        assert answer.json["code"] == by

    assert (await ear.ask("otsd/command/pause", token_id))["token"]["state"] == "paused"
    await refused("paused")
    resumed = await ear.ask("otsd/command/resume", {"token_id": token_id, "request_id": "r1"})
    assert (resumed["request_id"], resumed["token"]["state"]) == ("r1", "active")
    assert (await otsd.submit(code)).status == 200
    await refused("used_up")
    replenish = {"token_id": token_id, "request_id": "r2"}
    assert (await ear.ask("otsd/command/replenish", replenish))["token"]["uses_left"] == 1
    assert (await ear.ask(f"otsd/tokens/{token_id}/set", "OFF"))["token"]["state"] == "paused"
    await refused("paused")
    assert (await ear.ask(f"otsd/tokens/{token_id}/set", "ON"))["token"]["state"] == "active"
    assert (await otsd.submit(code)).status == 200
    # the same request again gives nothing back
    assert (await ear.ask("otsd/command/replenish", replenish))["token"]["uses_left"] == 0
    await refused("used_up")
    assert (await ear.ask("otsd/command/revoke", token_id))["token"]["state"] == "revoked"
    await refused("revoked")


async def test_a_request_is_done_once_whenever_otsd_is_killed(otsd: Daemon, ear: Ear) -> None:
    await otsd.action()
    wish = {"action": "open-door", "max_uses": 2, "request_id": "r"}
    first = await ear.ask("otsd/command/mint", wish)
    for number in range(3):
        # it is killed before, while or after it does this
        await ear.say("otsd/command/mint", json.dumps({**wish, "request_id": f"r{number}"}))
        await asyncio.sleep(0.002 * number)
        otsd.kill()
        await otsd.start()
        await connected(otsd)
        again = await ear.ask("otsd/command/mint", {**wish, "request_id": f"r{number}"})
        assert again["ok"]
        same = await ear.ask("otsd/command/mint", dict(reversed(wish.items())))
        assert (same["url"], same["token"]["id"]) == (first["url"], first["token"]["id"])
        assert len(await tokens(otsd)) == 2 + number
    other = await ear.ask("otsd/command/mint", {**wish, "max_uses": 3})
    assert (other["ok"], other["code"]) == (False, "request_conflict")
    assert len(await tokens(otsd)) == 4


async def test_without_commands_otsd_hears_of_none(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    broker = Mosquitto(tmp_path / "broker")
    with (broker.folder / "mosquitto.conf").open("a") as configuration:
        configuration.write("log_type all\n")
    settings = {**broker.settings, "mqtt.commands": "false"}
    otsd = Daemon(tmp_path, url=fake_home.url, token=fake_home.token, settings=settings)
    async with broker, Ear(broker) as ear, otsd:
        await connected(otsd)
        await otsd.action()
        token = await otsd.mint(max_uses=2)
        await ear.state(f"otsd/tokens/{token['id']}/state", state="active")
        for topic, payload in (
            ("otsd/command/mint", "open-door"),
            ("otsd/command/revoke", token["id"]),
            (f"otsd/tokens/{token['id']}/set", "OFF"),
        ):
            await ear.say(topic, payload)
        # this comes after, and has everything published again
        del ear.held["otsd/state"]
        await ear.say("homeassistant/status", "online")
        await ear.state("otsd/state", active_tokens=1)
        (left,) = await tokens(otsd)
        assert left["state"] == "active"
        assert not [each for each in ear.heard if each.topic.startswith("otsd/response")]
    log = (broker.folder / "log").read_text()
    assert "homeassistant/status (QoS" in log
    assert "otsd/command/+" not in log
    assert "otsd/tokens/+/set" not in log


# -- what is not in order

_MALFORMED: Sequence[bytes] = (
    b"{",
    b'{"action": "open-door"',
    b"[]",
    b'["open-door"]',
    b"null",
    b"true",
    b"42",
    b"-1",
    b'"open-door"',
    b"\xff\xfe\x00",
    b"\x00",
    b" ",
    b"../open-door",
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b"x" * 300_000,
    b'{"action": "open-door", "comment": "' + b"x" * 300_000 + b'"}',
    b'{"action": "open-gate"}',
    b'{"action": 7}',
    b'{"action": "open-door", "max_uses": -1}',
    b'{"action": "open-door", "max_uses": 0}',
    b'{"action": "open-door", "max_uses": 1e400}',
    b'{"action": "open-door", "max_uses": null}',
    b'{"action": "open-door", "expires_in": "soon"}',
    b'{"action": "open-door", "request_id": "a/b"}',
    b'{"action": "open-door", "unknown": 1}',
    b'{"token_id": "../../status"}',
    b'{"token_id": ["x"]}',
)


async def test_whatever_is_sent_gets_an_error_and_otsd_lives(
    otsd: Daemon, broker: Mosquitto
) -> None:
    await otsd.action()
    assert otsd.process is not None
    process = otsd.process.pid
    async with talking(broker, "ear/+") as client:
        for payload in _MALFORMED:
            for topic in (
                "otsd/command/mint",
                "otsd/command/revoke",
                "otsd/command/..",
                "otsd/tokens/../set",
            ):
                await client.publish(topic, payload, properties=asking("ear/errors"))
                reply = said(await next_message(client))
                assert reply.keys() == {"request_id", "ok", "code", "error"}
                assert reply["ok"] is False
                assert reply["code"] != "internal_error"
        # larger than otsd takes at all: the broker keeps it to itself
        await client.publish("otsd/command/mint", b"x" * 2_000_000, properties=asking("ear/large"))
        await client.publish("otsd/command/mint", b"", properties=asking("ear/empty"))
        await client.publish("otsd/command/mint/x", "open-door", properties=asking("ear/deep"))
        await client.publish("otsd/command/mint", "open-door", properties=asking("ear/good"))
        reply = await next_message(client)
        assert str(reply.topic) == "ear/good"
        assert said(reply)["ok"]
    assert len(await tokens(otsd)) == 1
    assert (otsd.process.pid, otsd.process.poll()) == (process, None)
    assert "Traceback" not in otsd.log
    assert "connection broke" not in otsd.log


async def test_a_retained_command_is_refused_reported_and_cleared(
    otsd: Daemon, broker: Mosquitto, ear: Ear
) -> None:
    await otsd.action()
    token = (await ear.ask("otsd/command/mint", {"action": "open-door", "max_uses": 2}))["token"]
    switch = f"otsd/tokens/{token['id']}/set"
    commands = ["otsd/command/#", "otsd/tokens/+/set"]
    # while it is there
    for topic, payload in (("otsd/command/mint", "open-door"), (switch, "OFF")):
        reply = await ear.ask(topic, payload, retain=True)
        assert reply["code"] == "retained"
        # the reply is the last that is sent
        assert await retained(broker, *commands) == []
    assert otsd.log.count("was refused: retained") == 2

    # while it is away
    otsd.kill()
    for topic, payload in (
        ("otsd/command/mint", '{"action": "open-door", "request_id": "left"}'),
        ("otsd/command/revoke", token["id"]),
        ("otsd/command/unknown", "x"),
        (switch, "OFF"),
    ):
        await ear.say(topic, payload, retain=True)
    assert len(await retained(broker, *commands)) == 4
    await otsd.start()
    await ear.until(lambda: sum(b'"retained"' in each.payload for each in ear.heard) == 6)
    assert (await ear.message("otsd/response/left")).json["code"] == "retained"
    assert await retained(broker, *commands) == []
    assert otsd.log.count("was refused: retained") == 6
    (left,) = await tokens(otsd)
    assert (left["id"], left["state"]) == (token["id"], "active")


async def test_a_store_that_cannot_write_refuses_commands_and_takes_them_again_later(
    tmp_path: Path, broker: Mosquitto, ear: Ear, fake_home: FakeHomeAssistant
) -> None:
    # the limit holds for the log, too
    settings = {**broker.settings, "log.level": '"warning"'}
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as otsd:
        await connected(otsd)
        await otsd.action()
        for _ in range(15):  # so that the write-ahead log is far longer than the daemon's own
            token = await otsd.mint()
        wish = {"action": "open-door", "request_id": "r1"}
        with full(otsd):
            for topic, payload in (
                ("otsd/command/mint", wish),
                ("otsd/command/revoke", token["id"]),
                (f"otsd/tokens/{token['id']}/set", "OFF"),
            ):
                reply = await ear.ask(topic, payload)
                assert (reply["ok"], reply["code"]) == (False, "storage_unavailable")
                assert "nothing was done" in reply["error"]
        assert (await otsd.status())["mqtt"]["state"] == "connected"
        assert (await ear.ask("otsd/command/mint", wish))["ok"]
        assert len(await tokens(otsd)) == 16
        assert {each["state"] for each in await tokens(otsd)} == {"active"}
        assert "Traceback" not in otsd.log


# -- very many


@pytest.mark.parametrize("qos", [0, 1])
async def test_after_a_flood_otsd_answers(otsd: Daemon, broker: Mosquitto, qos: int) -> None:
    await otsd.action()
    many = 2_000
    answered: set[str] = set()
    async with talking(broker, "flood/+") as client, asyncio.timeout(60):

        async def listen() -> None:
            async for message in client.messages:
                assert said(message)["ok"]
                answered.add(str(message.topic))
                if str(message.topic) == "flood/last":
                    return

        async def mint(name: str, qos: int, **more: str) -> None:
            wish = json.dumps({"action": "open-door", **more})
            properties = asking(f"flood/{name}")
            await client.publish("otsd/command/mint", wish, qos, properties=properties, timeout=60)

        listening = asyncio.create_task(listen())
        async with asyncio.TaskGroup() as tasks:
            for number in range(many):
                tasks.create_task(mint(str(number), qos))
        # a broker drops what it cannot hold for a client: this is asked until it is answered
        while not listening.done():
            await mint("last", 1, request_id="last")
            await asyncio.wait([listening], timeout=0.5)
        await listening
    counts = (await otsd.status())["counts"]
    assert many / 2 < len(answered) <= counts["tokens"] <= many + 1
    assert "Traceback" not in otsd.log


# -- what nobody may read


async def test_neither_code_nor_link_is_in_the_log_or_retained(
    otsd: Daemon, broker: Mosquitto, ear: Ear
) -> None:
    await otsd.action()
    url = (await ear.ask("otsd/command/mint", {"action": "open-door", "max_uses": 2}))["url"]
    code = url.rpartition("=")[2]
    for secret in (url, code):
        for topic in ("otsd/command/mint", "otsd/command/revoke"):
            for payload in (
                secret,
                json.dumps({"token_id": secret, secret: secret}),
                f"{{{secret}",
            ):
                assert (await ear.ask(topic, payload))["ok"] is False
                assert (await ear.ask(topic, payload, retain=True))["code"] == "retained"
    for topic in (f"otsd/command/{code}", f"otsd/tokens/{code}/set"):
        assert (await ear.ask(topic, "ON"))["ok"] is False
        assert (await ear.ask(topic, "ON", retain=True))["code"] == "retained"
    assert await otsd.stop() == 0
    assert "was refused: unknown_token" in otsd.log
    assert code not in otsd.log
    async with talking(broker, "#", "marks/end") as client:
        await client.publish("marks/end", b"x", qos=1)
        while str((message := await next_message(client)).topic) != "marks/end":
            assert isinstance(message.payload, bytes)
            assert code not in f"{message.topic} {message.payload.decode()}"


# -- the end


async def test_what_is_cancelled_while_the_broker_confirms_it_ends(broker: Mosquitto) -> None:
    address = Address("127.0.0.1", broker.port)
    async with connected_line(address, Pace(), "otsd", will=None) as line:
        waiting = line._client._pending_publishes
        for _ in range(50):
            task = asyncio.create_task(line.publish("x", "y", confirmed=True))
            for begun in (True, False):
                while bool(waiting) is not begun:
                    await asyncio.sleep(0)
            # the confirmation has come, and the task has not heard of it yet
            assert task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
