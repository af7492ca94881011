"""The page about MQTT is true: its tables are those of the code, its examples are what happens."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from otsd.demo.broker import _hash
from otsd.home import supervisor
from otsd.mqtt import broker as broker_module
from otsd.mqtt import commands, discovery, line, projection
from otsd.mqtt.line import Address, Pace, connected
from otsd.mqtt.topics import Topics
from otsd.parts import NO_BROKER
from otsd.payloads import LARGEST_BODY, MintCommand
from otsd.settings import MqttProtocol, load
from otsd.supervise import CredentialRefused, Lost
from tests.daemon import Daemon, free_port
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "mqtt.md"
TEXT = PAGE.read_text()
TOPICS = Topics("otsd", "homeassistant")
ABOUT = discovery.About(TOPICS, "Title", "1", "http://localhost:8099", commands=True, links=True)
DEVICES = {
    "The service": discovery.service(ABOUT),
    "An action": discovery.action(ABOUT, "NAME", "Title"),
    "A link": discovery.token(ABOUT, "ID", "Comment", "NAME", True),
}
SHOWN_ID = "k7m2qx4d"
BASE_URL = "https://door.example.org"


# -- reading the page ------------------------------------------------------------------------


def section(heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    return found[1]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a text, each a list of rows without the one of headings."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [line.strip("|").split("|") for line in table.splitlines()]
        found.append([[cell.strip() for cell in line] for line in lines[2:]])
    return found


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def words(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def messages(block: str) -> Iterator[tuple[str, str]]:
    """Yield the topics and payloads of a block; a payload goes on in lines that are indented."""
    for message in re.split(r"\n(?=\S)", block.strip()):
        topic, _, payload = message.partition(" ")
        yield topic, words(payload)


# -- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", DEVICES)
def test_every_entity_is_explained(heading: str) -> None:
    (table,) = tables(section(heading))[:1]
    assert [row[:3] for row in table] == [
        [f"*{component['name']}*", component["p"], component.get("ent_cat", "")]
        for component in DEVICES[heading]["cmps"].values()
    ]
    assert all(row[3] for row in table)


def test_every_unique_id_and_the_topic_of_its_value_is_listed() -> None:
    (table,) = tables(section("Devices and entities"))
    expected = []
    for device in DEVICES.values():
        for component in device["cmps"].values():
            topic = component.get("stat_t", component.get("img_t"))
            value = f"`{topic}`" if topic else ""
            expected.append([f"`{component['uniq_id']}`", f"*{component['name']}*", value])
    assert table == expected


def test_every_key_of_the_mint_command_is_listed() -> None:
    (table,) = tables(section("mint"))
    assert {key for row in table for key in code(row[0])} == set(MintCommand.model_fields)


def test_the_limits_are_those_of_the_code() -> None:
    limits = words(section("Limits"))
    assert f"at least {projection._REST} seconds" in limits
    assert f"At most {projection._MOST_WAITING} submissions wait" in limits
    assert f"up to {projection._LONGEST_REST:.0f} seconds with very many devices" in limits
    assert f"{projection._MOST_TOLD} are told at a look" in limits
    assert timedelta(seconds=projection._SETTLING) == timedelta(seconds=1)
    assert "up to a second late" in limits
    assert f"At most {broker_module._MOST_AT_ONCE} commands" in limits
    assert f"more than {LARGEST_BODY:,} bytes" in TEXT
    expiry = broker_module._REPLY_EXPIRY.total_seconds()
    assert f"expires after {expiry:.0f} seconds" in words(section("Where the reply goes"))


# -- configuration ---------------------------------------------------------------------------


def test_the_configurations_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "mqtt.password").write_text("secret\n")
    config = tmp_path / "config.toml"
    settings = []
    for block in blocks(PAGE, "toml"):
        config.write_text(block)
        settings.append(load(config=config, environ={}, working_directory=tmp_path).mqtt)
    plain, links, tls = settings
    assert plain.password is not None
    assert (plain.username, plain.password.get_secret_value()) == ("otsd", "secret")
    assert links.publish_links
    assert tls.port == 8883
    assert f"`mqtt.token_devices` ({plain.token_devices})" in TEXT


# -- examples --------------------------------------------------------------------------------


def like(expected: Any, actual: Any) -> bool:
    """Return whether they are the same but for times, and for what the page leaves out (``…``)."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            like(expected[key], actual[key]) for key in expected
        )
    if not (isinstance(expected, str) and isinstance(actual, str)):
        return type(expected) is type(actual) and bool(expected == actual)
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", expected):
        return re.sub(r"\d", "0", expected) == re.sub(r"\d", "0", actual)
    return re.fullmatch(".+".join(map(re.escape, expected.split("…"))), actual) is not None


class Player:
    """Does what the page shows: sends its commands, waits for everything else."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.token_id = "…"

    async def play(self, block: str) -> None:
        for topic, text in messages(block.replace(SHOWN_ID, self.token_id)):
            if topic.startswith("otsd/command/") or topic.endswith("/set"):
                await self.ear.say(topic, text)
            else:
                await self.see(topic, json.loads(text))

    async def see(self, topic: str, expected: Any) -> Any:
        def seen() -> Any:
            found = map(json.loads, said_of(self.ear, topic))
            return next((each for each in found if like(expected, each)), None)

        try:
            return await self.ear.until(seen)
        except TimeoutError:
            raise AssertionError((topic, expected, said_of(self.ear, topic))) from None


@pytest.fixture
async def links(
    tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant
) -> AsyncIterator[Daemon]:
    """Run otsd with links as entities, and with the door of the page."""
    more = {"mqtt.publish_links": "true", "public.base_url": f'"{BASE_URL}"'}
    async with running(tmp_path, broker, fake_home, **more) as daemon:
        yield daemon


@asynccontextmanager
async def running(
    folder: Path, broker: Mosquitto, home: FakeHomeAssistant, **more: str
) -> AsyncIterator[Daemon]:
    daemon = Daemon(folder, url=home.url, token=home.token, settings={**broker.settings, **more})
    async with daemon:
        await daemon.connected()
        await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")
        await daemon.action()
        yield daemon


def general(topic: str) -> str:
    """Return a topic as the page's table names it."""
    if topic.startswith("homeassistant/device/"):
        return "homeassistant/device/DEVICE/config"
    topic = topic.replace("/open-door/", "/NAME/")
    topic = re.sub(r"^otsd/tokens/\w+/", "otsd/tokens/ID/", topic)
    return re.sub(r"^otsd/response/\w+$", "otsd/response/REQUEST", topic)


async def test_what_the_page_shows_is_what_happens(
    ear: Ear, broker: Mosquitto, links: Daemon
) -> None:
    await ear.state("otsd/actions/open-door/state", active_tokens=0)
    mint, alone, change, refused, state, nothing = blocks(PAGE, "mqtt")
    player = Player(ear)
    await player.play(mint)
    (_, shown) = list(messages(mint))[1]
    minted = await player.see("otsd/response/r1", json.loads(shown.replace(SHOWN_ID, "…")))
    player.token_id = minted["token"]["id"]
    await player.play(alone)
    await player.play(change)
    token = f"otsd/tokens/{player.token_id}"
    await ear.until(lambda: any(each.topic == f"{token}/set" for each in ear.heard))
    await ear.state(f"{token}/state", state="active", enabled="ON")
    await player.play(refused)
    assert (await links.submit(minted["url"].rpartition("=")[2])).status == 200
    await player.play(state)
    told = (await ear.message("otsd/submission")).json
    told.pop("event_type")
    assert ", ".join(f"`{key}`" for key in told) in words(section("Events"))
    newest = next(each.json["token"] for each in ear.heard if each.topic == "otsd/response")
    await ear.say("otsd/command/revoke", newest["id"])
    await player.play(nothing)
    (published,) = blocks(PAGE, "yaml")
    step = yaml.safe_load(published)
    assert step["action"] == "mqtt.publish"
    await ear.say(**step["data"])
    assert (await ear.message("otsd/response/r3")).json["code"] == "unknown_token"

    said, heard = tables(section("Topics"))
    hears = [topic for row in heard for topic in code(row[0])]
    says = {general(topic) for topic in ear.held if general(topic) not in hears} | {TOPICS.status}
    assert says == {code(row[0])[0] for row in said}
    async with Ear(broker) as late:
        await late.say("late", "comes after everything that is retained")
        await late.message("late")
        retained = {general(topic) for topic in late.held.keys() - {"late"}}
    assert retained == {code(row[0])[0] for row in said if row[1] == "yes"}

    for topic, payload in ((TOPICS.birth, "online"), (TOPICS.status, "offline")):
        assert topic in hears
        ear.heard.clear()
        await ear.say(topic, payload)
        await ear.until(lambda: b"online" in said_of(ear, TOPICS.status))
    for topic in filter(TOPICS.verb, hears):
        assert (await ear.ask(topic, "nothing"))["code"] in ("unknown_action", "unknown_token")

    # Home Assistant would log an empty state as an error while it knows the device
    gone = TOPICS.discovery(TOPICS.token_device(player.token_id)), f"{token}/state"
    await ear.ask("otsd/command/revoke", player.token_id)
    await ear.until(lambda: not ear.held[gone[0]] and not ear.held[gone[1]])
    assert [each.topic for each in ear.heard if each.topic in gone][-2:] == list(gone)


def said_of(ear: Ear, topic: str) -> list[bytes]:
    return [each.payload for each in ear.heard if each.topic == topic]


async def test_every_error_code_is_explained(otsd: Daemon, ear: Ear) -> None:
    await otsd.action()
    revoked, ended, gone = [
        (await ear.ask("otsd/command/mint", {"action": "open-door", "request_id": request_id}))
        for request_id in ("a", "b", "c")
    ]
    revoked_id, ended_id = revoked["token"]["id"], ended["token"]["id"]
    await ear.ask("otsd/command/revoke", revoked_id)
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    edited = await otsd.admin("PATCH", f"/tokens/{ended_id}", json={"expires_at": soon})
    assert edited.status == 200, edited.text
    await otsd.admin("DELETE", f"/tokens/{gone['token']['id']}")
    async with asyncio.timeout(10):
        while (await otsd.admin("GET", f"/tokens/{ended_id}")).json["state"] != "expired":
            await asyncio.sleep(0.02)
    provoked = [
        ("bad_json", "mint", "[]"),
        ("bad_json", "mint", b"\xff"),
        ("invalid", "mint", {"action": "open-door", "max_uses": -1}),
        ("invalid", "mint", {"action": "open-door", "expires_in": None}),
        ("too_large", "mint", " " * (LARGEST_BODY + 1)),
        ("unknown_command", "open", "open-door"),
        ("unknown_action", "mint", "nothing"),
        ("unknown_token", "revoke", "nothing"),
        ("revoked", "resume", revoked_id),
        ("expired", "replenish", ended_id),
        ("request_conflict", "mint", {"action": "open-door", "max_uses": 2, "request_id": "a"}),
        ("request_conflict", "revoke", {"token_id": revoked_id, "request_id": "a"}),
        ("token_deleted", "mint", {"action": "open-door", "request_id": "c"}),
    ]
    for expected, verb, payload in provoked:
        reply = await ear.ask(f"otsd/command/{verb}", payload)
        assert (reply["ok"], reply["code"]) == (False, expected)
        assert reply["error"]
    retained = await ear.ask("otsd/command/mint", "open-door", retain=True)
    assert retained["code"] == "retained"
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = "otsd/command/mint"
    body = json.dumps({"action": "open-door", "request_id": "d"})
    await ear.client.publish("otsd/command/mint", body, qos=1, properties=properties)
    assert (await ear.message("otsd/response/d")).json["code"] == "bad_response_topic"

    known = {each[0] for each in provoked} | {"retained", "bad_response_topic"}
    # these two need a full disk, and a fault of otsd
    source = Path(commands.__file__).read_text()
    for rare in ("storage_unavailable", "internal_error"):
        assert f'"{rare}"' in source
        known.add(rare)
    assert set(re.findall(r'Refused\(\s*"(\w+)"', source)) <= known
    (table,) = tables(section("Errors"))
    assert sorted(name for row in table for name in code(row[0])) == sorted(known)


# -- the broker's rules ----------------------------------------------------------------------


async def test_the_rules_for_mosquitto_let_otsd_do_everything_and_others_nothing(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    (rules,) = blocks(PAGE, "conf")
    broker = Mosquitto(tmp_path / "broker", password="secret", rules=rules.splitlines())
    users = ("otsd", "homeassistant", "lamp")
    lines = [f"{user}:{_hash('secret')}" for user in users]
    (broker.folder / "passwords").write_text("\n".join([*lines, ""]))
    with (broker.folder / "mosquitto.conf").open("a") as conf:
        conf.write("log_type all\n")
    async with broker:
        otsds = dict(broker.settings)
        broker.username = "lamp"
        async with Ear(broker) as lamp:
            broker.username = "homeassistant"
            async with Ear(broker) as home:
                daemon = Daemon(
                    tmp_path,
                    url=fake_home.url,
                    token=fake_home.token,
                    settings={**otsds, "mqtt.publish_links": "true"},
                )
                async with daemon:
                    await used(daemon, home)
                    await lamp.say("otsd/command/mint", "open-door")
                    await lamp.say("homeassistant/device/otsd_service/config", "", retain=True)
                    wish = {"action": "open-door", "request_id": "r2"}
                    await home.say("otsd/command/mint", json.dumps(wish))
                    assert (await home.message("otsd/response/r2")).json["ok"]
                    assert (await daemon.status())["counts"]["tokens"] == 2
                    assert lamp.heard == []
                assert (await home.message("otsd/status")).payload == b"offline"
        broker.stop()
    log = (broker.folder / "log").read_text()
    denied = set(re.findall(r"Denied PUBLISH from (\S+) .*'(\S+)'", log))
    assert {topic for _, topic in denied} == {
        "otsd/command/mint",
        "homeassistant/device/otsd_service/config",
    }
    assert len({client for client, _ in denied}) == 1
    assert "otsd" not in {client for client, _ in denied}


async def used(daemon: Daemon, home: Ear) -> None:
    """Do with otsd, as Home Assistant, everything that goes over the broker."""
    await daemon.connected()
    await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")
    await daemon.action()
    await home.message("homeassistant/device/otsd_action_open-door/config")
    wish = {"action": "open-door", "max_uses": 2, "request_id": "r1"}
    await home.say("otsd/command/mint", json.dumps(wish))
    minted = (await home.message("otsd/response/r1")).json
    token_id = minted["token"]["id"]
    await home.state(f"otsd/tokens/{token_id}/state", state="active")
    await home.state("otsd/actions/open-door/link", url=minted["url"])
    await home.say(f"otsd/tokens/{token_id}/set", "OFF")
    await home.state(f"otsd/tokens/{token_id}/state", state="paused")
    await home.say("otsd/command/resume", token_id)
    await home.state(f"otsd/tokens/{token_id}/state", state="active")
    assert (await daemon.submit(minted["url"].rpartition("=")[2])).status == 200
    await home.message(f"otsd/tokens/{token_id}/submission")
    # a retained command is removed, and so is what went while otsd was away
    await home.say("otsd/command/mint", "nothing", retain=True)
    await home.until(lambda: home.held["otsd/command/mint"] == b"")
    await daemon.stop()
    left = "homeassistant/device/otsd_action_gone/config"
    await home.say(left, json.dumps(discovery.action(ABOUT, "gone", "Gone")), retain=True)
    await daemon.start()
    await home.until(lambda: home.held[left] == b"")
    before = len(home.heard)
    await home.say("homeassistant/status", "online")
    await home.until(lambda: any(each.topic == "otsd/state" for each in home.heard[before:]))
    await home.say("otsd/command/revoke", token_id)
    await home.until(lambda: home.held[f"homeassistant/device/otsd_token_{token_id}/config"] == b"")


# -- what is said when something is wrong ----------------------------------------------------


def verdicts() -> list[str]:
    """Return what the page's table of troubles quotes, as patterns."""
    (table,) = tables(section("When something is wrong"))
    patterns = []
    for row in table:
        assert row[1]
        for quoted in code(row[0]):
            place = re.sub(r"192\.168\.1\.10:\d+|broker\.lan", "HOST", quoted)
            patterns.append(re.escape(place).replace("HOST", r"\S+").replace("…", ".*"))
    return patterns


async def said(address: Address, within: timedelta = timedelta(seconds=10)) -> str:
    """Return why there is no connection."""
    with pytest.raises((Lost, CredentialRefused)) as caught:
        async with connected(address, Pace(connect_deadline=within), "otsd", will=None):
            pass
    return str(caught.value)


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """Serve on a port that is returned: each client gets the answer, if there is one."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is not None:
            writer.write(answer)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


async def test_every_trouble_that_is_explained_is_said_so(tmp_path: Path) -> None:
    here = "127.0.0.1"
    told = [
        NO_BROKER,
        await said(Address(here, free_port())),
        await said(Address("broker..lan", 1883)),
    ]
    async with answering(None) as port:
        told.append(await said(Address(here, port), within=timedelta(seconds=0.3)))
    # CONNACK of MQTT 3.1.1 (section 3.2): a version that is not supported
    async with answering(bytes([0x20, 2, 0, 1])) as port:
        told.append(await said(Address(here, port, protocol=MqttProtocol.V311)))
    # and that of MQTT 5, with each reason
    for reason in (0x84, 0x85, 0x8A, 0x88):
        async with answering(bytes([0x20, 3, 0, reason, 0])) as port:
            told.append(await said(Address(here, port, protocol=MqttProtocol.V5)))
    async with Mosquitto(tmp_path / "tls", tls=True, password="secret") as broker:
        trusting = ssl.create_default_context(cafile=broker.ca_file)
        told += [
            await said(Address(here, broker.port, tls=trusting)),
            await said(Address(here, broker.port, "otsd", "wrong", tls=trusting)),
            await said(Address(here, broker.port, tls=ssl.create_default_context())),
            await said(Address(here, broker.port)),
        ]
    async with Mosquitto(tmp_path / "plain") as broker:
        told.append(await said(Address(here, broker.port, tls=ssl.create_default_context())))
    quoted = verdicts()
    explained = [[each for each in quoted if re.match(each, words)] for words in told]
    assert [words for words, found in zip(told, explained, strict=True) if len(found) != 1] == []
    # what is said of a connection that stood for a while
    saying = [broker_module, line, supervisor]  # and what only an add-on can meet
    source = words("".join(Path(str(each.__file__)).read_text() for each in saying))
    others = [each for each in quoted if [each] not in explained]
    assert len(others) == 7
    assert [each for each in others if not re.search(source_pattern(each), source)] == []


def source_pattern(said: str) -> str:
    """Return how the program's text has what it says of this client or these topics."""
    return said.replace("called\\ otsd", r"called .*").removesuffix(".*")
