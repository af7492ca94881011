"""What a real broker holds of otsd: true after every absence, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from otsd.store import database
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.store import million

IDS = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)


class House:
    """A folder for one otsd, whose configuration changes from run to run."""

    def __init__(self, folder: Path, broker: Mosquitto, home: FakeHomeAssistant) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._broker = broker
        self._home = home

    def otsd(self, **settings: str) -> Daemon:
        """Return otsd with other settings of the section ``mqtt``; it is not started."""
        return Daemon(
            self._folder,
            url=self._home.url,
            token=self._home.token,
            settings={
                **self._broker.settings,
                **{f"mqtt.{key}": value for key, value in settings.items()},
            },
        )


@pytest.fixture
def house(tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant) -> House:
    """Return a place for one otsd."""
    return House(tmp_path / "house", broker, fake_home)


class Shelf(Ear):
    """An ear that also knows what the broker retains at the moment."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self._kept: dict[str, bytes] = {}
        self._seen = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # a message that is retained says so also to those who are there already
        options = SubscribeOptions(qos=0, retainAsPublished=True)
        await self.client.unsubscribe("#")
        await self.client.subscribe("#", options=options)
        await self.say("shelf/end", "end")
        await self.message("shelf/end")
        return self

    @property
    def kept(self) -> dict[str, bytes]:
        """What is retained, by topic."""
        for each in self.heard[self._seen :]:
            if each.retained and each.payload:
                self._kept[each.topic] = each.payload
            elif each.retained:
                self._kept.pop(each.topic, None)
        self._seen = len(self.heard)
        return self._kept

    async def until_kept(
        self, condition: Callable[[dict[str, bytes]], object], seconds: float = 60
    ) -> dict[str, bytes]:
        """Wait until what is retained fulfils a condition, and return it."""
        await self.until(lambda: condition(self.kept), seconds)
        return dict(self.kept)


@pytest.fixture
async def shelf(broker: Mosquitto) -> AsyncIterator[Shelf]:
    """Look at what the broker retains."""
    async with Shelf(broker) as shelf:
        yield shelf


async def retained(broker: Mosquitto) -> dict[str, bytes]:
    """Ask the broker for everything that it retains."""
    async with Shelf(broker) as shelf:
        return shelf.kept


def is_online(found: dict[str, bytes], base: str = "otsd") -> bool:
    """Return whether all of otsd is there: it is said to be online last."""
    return found.get(f"{base}/status") == b"online"


def devices(found: Mapping[str, bytes], prefix: str = "homeassistant") -> set[str]:
    """Return the ids of the devices that are retained."""
    beginning = f"{prefix}/device/"
    return {
        topic.removeprefix(beginning).removesuffix("/config")
        for topic in found
        if topic.startswith(beginning)
    }


async def test_what_nobody_wants_any_more_is_removed_at_the_start_however_much_it_is(
    house: House, broker: Mosquitto, shelf: Shelf
) -> None:
    ours = json.dumps({"dev": {"ids": "x"}, "avty_t": "otsd/status"})
    theirs = json.dumps({"dev": {"ids": "x"}, "avty_t": "otsd_2/status"})
    orphans = {
        "homeassistant/device/otsd_action_gone/config": ours,
        "homeassistant/device/otsd_action_broken/config": "{",
        "otsd/actions/gone/state": "{}",
    }
    for number in range(2_000):
        orphans[f"homeassistant/device/otsd_token_gone{number}/config"] = ours
        orphans[f"otsd/tokens/gone{number}/state"] = "{}"
    foreign = {
        "homeassistant/device/otsd_2_service/config": theirs,
        "homeassistant/device/otsd_2_token_gone1/config": theirs,
        "homeassistant/device/otsd_token_service/config": theirs,
        "homeassistant/device/zigbee2mqtt_1/config": "{}",
        "homeassistant/sensor/otsd_token_gone1/config": "{}",
        "homeassistant/status": "offline",
        "otsd_2/state": "{}",
        "otsd_2/actions/gone/state": "{}",
        "otsd/somebody/else": "1",
    }
    for topic, payload in {**orphans, **foreign}.items():
        await shelf.client.publish(topic, payload, retain=True)
    # mosquitto drops what is for an ear that does not keep up, so it is asked
    before = await retained(broker)
    assert len(before) == len(orphans) + len(foreign)
    async with house.otsd() as otsd:
        await otsd.action()
        token = await otsd.mint(max_uses=5)
        new = {
            "otsd/status",
            "otsd/state",
            "otsd/actions/open-door/state",
            f"otsd/tokens/{token['id']}/state",
            "homeassistant/device/otsd_service/config",
            "homeassistant/device/otsd_action_open-door/config",
            f"homeassistant/device/otsd_token_{token['id']}/config",
        }
        async with asyncio.timeout(30):
            while (found := await retained(broker)).keys() != foreign.keys() | new:
                await asyncio.sleep(0.5)
    assert {topic: found[topic] for topic in foreign} == {topic: before[topic] for topic in foreign}


async def test_what_went_while_the_broker_was_away_is_gone_when_it_is_back(
    house: House, broker: Mosquitto, shelf: Shelf
) -> None:
    async with house.otsd() as otsd:
        await otsd.action()
        await otsd.action("garage")
        deleted, stays = [await otsd.mint(max_uses=5) for _ in range(2)]
        forced = await otsd.mint("garage", max_uses=5)
        before = await shelf.until_kept(lambda found: is_online(found) and len(devices(found)) == 6)
        assert f"otsd/tokens/{forced['id']}/state" in before
        broker.stop()
        await otsd.until_status(lambda status: status["mqtt"]["state"] == "connecting")
        assert (await otsd.admin("DELETE", f"/tokens/{deleted['id']}")).status == 204
        assert (await otsd.admin("DELETE", "/actions/garage?force=true")).status == 204
        await otsd.connected()
        submitted = await otsd.submit(stays["code"])
        assert submitted.status == 200, submitted.text
        await broker.start()
        async with Shelf(broker) as again:
            await again.until_kept(
                lambda found: (
                    found.keys()
                    == {
                        "homeassistant/device/otsd_service/config",
                        "homeassistant/device/otsd_action_open-door/config",
                        f"homeassistant/device/otsd_token_{stays['id']}/config",
                        "otsd/status",
                        "otsd/state",
                        "otsd/actions/open-door/state",
                        f"otsd/tokens/{stays['id']}/state",
                    }
                    and is_online(found)
                    and json.loads(found[f"otsd/tokens/{stays['id']}/state"])["uses_left"] == 4
                )
            )
            # and what happened in the meantime is told
            told = await again.message(f"otsd/tokens/{stays['id']}/submission")
            assert told.json["uses_left"] == 4


async def test_a_broker_that_forgot_everything_is_told_everything(
    house: House, broker: Mosquitto, shelf: Shelf
) -> None:
    async with house.otsd() as otsd:
        await otsd.connected()
        await otsd.action()
        token = await otsd.mint(max_uses=5)
        before = await shelf.until_kept(
            lambda found: (
                is_online(found)
                and f"otsd/tokens/{token['id']}/state" in found
                and json.loads(found["otsd/state"])["home_assistant"] == "connected"
            )
        )
        broker.kill()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        await broker.start()
        async with Shelf(broker) as again:
            await again.until_kept(lambda found: found == before)


async def test_what_went_while_otsd_was_away_is_gone_when_it_is_back(
    house: House, broker: Mosquitto, shelf: Shelf
) -> None:
    async with house.otsd() as otsd:
        await otsd.action()
        await otsd.action("garage")
        expired, ended = [await otsd.mint(max_uses=5) for _ in range(2)]
        found = await shelf.until_kept(lambda found: is_online(found) and len(devices(found)) == 5)
        assert f"otsd/tokens/{ended['id']}/state" in found
        otsd.kill()
        found = await shelf.until_kept(lambda found: found["otsd/status"] == b"offline")
        assert len(devices(found)) == 5
        # as time and a restored backup would have it
        now = int(time.time() * 1000)
        with closing(sqlite3.connect(otsd.directory / database.NAME)) as db:
            for token, length in ((expired, 1_000), (ended, 25 * 3_600_000)):
                db.execute(
                    "UPDATE tokens SET expires_at = ? WHERE id = ?", (now - length, token["id"])
                )
            db.execute("DELETE FROM actions WHERE name = 'garage'")
            db.commit()
        await otsd.start()
        found = await shelf.until_kept(
            lambda found: (
                is_online(found)
                and devices(found)
                == {"otsd_service", "otsd_action_open-door", f"otsd_token_{expired['id']}"}
                and not {f"otsd/tokens/{ended['id']}/state", "otsd/actions/garage/state"} & {*found}
            )
        )
        assert json.loads(found[f"otsd/tokens/{expired['id']}/state"])["state"] == "expired"


@pytest.fixture
def beside(tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant) -> House:
    """Return a place for another otsd."""
    return House(tmp_path / "beside", broker, fake_home)


async def test_after_the_topics_were_changed_all_that_was_is_gone_and_another_otsd_untouched(
    house: House, beside: House, shelf: Shelf
) -> None:
    other_base = "otsd_2"

    def is_other(topic: str) -> bool:
        return topic.startswith((f"{other_base}/", f"homeassistant/device/{other_base}_"))

    def others(found: Mapping[str, bytes]) -> dict[str, bytes]:
        return {topic: each for topic, each in found.items() if is_other(topic)}

    def rest(found: Mapping[str, bytes]) -> set[str]:
        return {topic for topic in found if not is_other(topic)}

    async with beside.otsd(base_topic=json.dumps(other_base)) as other:
        await other.connected()
        await other.action()
        foreign = await other.mint(max_uses=5)
        async with house.otsd() as otsd:
            await otsd.action()
            first, second = [await otsd.mint(max_uses=5) for _ in range(2)]
            found = await shelf.until_kept(
                lambda found: (
                    is_online(found)
                    and is_online(found, other_base)
                    and {f"otsd/tokens/{each['id']}/state" for each in (first, second)} <= {*found}
                    and f"{other_base}/tokens/{foreign['id']}/state" in found
                    and json.loads(found[f"{other_base}/state"])["home_assistant"] == "connected"
                )
            )
        theirs = others(found)
        assert len(theirs) == 7

        said = len(shelf.heard)
        moved = house.otsd(base_topic='"home/otsd"', discovery_prefix='"ha"', token_devices="1")
        async with moved as otsd:
            await shelf.until_kept(
                lambda found: (
                    is_online(found, "home/otsd")
                    and rest(found)
                    == {
                        "home/otsd/status",
                        "home/otsd/state",
                        "home/otsd/actions/open-door/state",
                        f"home/otsd/tokens/{second['id']}/state",
                        "ha/device/home_otsd_service/config",
                        "ha/device/home_otsd_action_open-door/config",
                        f"ha/device/home_otsd_token_{second['id']}/config",
                    }
                )
            )
            # what was is looked for again until there was time to find all of it
            async with asyncio.timeout(15):
                while _topics_of(otsd) != [["home/otsd", "ha"]]:
                    await asyncio.sleep(0.05)
        assert not [each.topic for each in shelf.heard[said:] if is_other(each.topic)]
        ours = rest(shelf.kept)

        # the other one starts again, and finds what is its own only
        await other.stop()
        await shelf.say(f"{other_base}/tokens/gone/state", "{}", retain=True)
        await shelf.until_kept(lambda found: f"{other_base}/tokens/gone/state" in found)
        await other.start()
        await other.connected()
        await shelf.until_kept(lambda found: others(found) == theirs)
        assert rest(shelf.kept) == ours
    assert _topics_of(other) == [[other_base, "homeassistant"]]


async def test_what_another_otsd_says_that_has_taken_the_former_name_is_left_to_it(
    house: House, beside: House, shelf: Shelf
) -> None:
    async with house.otsd() as otsd:
        await otsd.action()
        await shelf.until_kept(lambda found: is_online(found) and len(devices(found)) == 2)
    async with beside.otsd() as other:
        await other.action("garage")
        token = await other.mint("garage", max_uses=5)
        # what the first one left goes, since this one is called like it
        theirs = {"otsd_service", "otsd_action_garage", f"otsd_token_{token['id']}"}
        left = "otsd/actions/open-door/state"
        await shelf.until_kept(
            lambda found: is_online(found) and devices(found) == theirs and left not in found
        )
        said = len(shelf.heard)
        async with house.otsd(base_topic='"door"') as otsd:
            found = await shelf.until_kept(lambda found: is_online(found, "door"))
            await asyncio.sleep(7)  # twice as long as it looks for others, and then for its own
            found = shelf.kept
            assert devices(found) == theirs | {"door_service", "door_action_open-door"}
            assert is_online(found)
            cleared = [each.topic for each in shelf.heard[said:] if not each.payload]
            assert cleared == []
        # it looks again when it connects the next time: that one may be gone then
        assert _topics_of(otsd) == [["otsd", "homeassistant"], ["door", "homeassistant"]]
    async with house.otsd(base_topic='"door"') as otsd:
        await shelf.until_kept(
            lambda found: (
                is_online(found, "door")
                and devices(found) == {"door_service", "door_action_open-door"}
                and not [topic for topic in found if topic.startswith("otsd/")]
            )
        )


async def test_after_the_prefix_was_changed_offline_in_its_name_is_still_contradicted(
    house: House, shelf: Shelf
) -> None:
    async with house.otsd():
        await shelf.until_kept(is_online)
    async with house.otsd(discovery_prefix='"ha"') as otsd:
        await shelf.until_kept(lambda found: is_online(found) and devices(found, "ha"))
        async with asyncio.timeout(20):
            while _topics_of(otsd) != [["otsd", "ha"]]:
                await asyncio.sleep(0.05)
        await shelf.say("otsd/status", "offline", retain=True)
        await shelf.until_kept(lambda found: found["otsd/status"] == b"offline")
        await shelf.until_kept(is_online)


def _topics_of(otsd: Daemon) -> object:
    """Return the topics that otsd has used and not yet cleared."""
    with closing(sqlite3.connect(otsd.directory / database.NAME)) as db:
        ((known,),) = db.execute("SELECT value FROM meta WHERE name = 'mqtt topics'")
    return json.loads(known)


@pytest.mark.parametrize("base", ["home/otsd", "Haus 1/Zeit.Schloss"])
async def test_a_base_topic_of_any_form_makes_ids_that_home_assistant_takes(
    house: House, shelf: Shelf, base: str
) -> None:
    async with house.otsd(base_topic=json.dumps(base)) as otsd:
        await otsd.action()
        token = await otsd.mint(max_uses=5)
        state = f"{base}/tokens/{token['id']}/state"
        found = await shelf.until_kept(lambda found: is_online(found, base) and state in found)
        assert len(devices(found)) == 3
        assert all(IDS.fullmatch(device) for device in devices(found))
        await shelf.say(f"{base}/tokens/{token['id']}/set", "OFF")
        await shelf.state(state, state="paused", enabled="OFF")


@pytest.mark.parametrize("links", ["true", "false"])
async def test_no_code_is_retained_and_none_is_said_without_being_asked_for(
    house: House, broker: Mosquitto, shelf: Shelf, links: str
) -> None:
    link, picture = "otsd/actions/open-door/link", "otsd/actions/open-door/qr"
    async with house.otsd(publish_links=links) as otsd:
        await otsd.connected()
        await otsd.action()
        tokens = [await otsd.mint(max_uses=uses, comment="Plumber") for uses in (None, 5, 1)]
        if links == "true":
            await shelf.state(link, url=tokens[-1]["url"])
            await shelf.message(picture)
        for token in tokens:
            assert (await otsd.submit(token["code"])).status == 200
            await shelf.message(f"otsd/tokens/{token['id']}/submission")
        if links == "true":
            await shelf.state(link, url=None, created_at=None)
        rotated = await otsd.admin("POST", f"/tokens/{tokens[0]['id']}/rotate")
        codes = [token["code"].encode() for token in tokens]
        codes.append(rotated.json["url"].rpartition("=")[2].encode())
        await otsd.admin("POST", f"/tokens/{tokens[1]['id']}/revoke")
        await shelf.until_kept(lambda found: f"otsd/tokens/{tokens[1]['id']}/state" not in found)
        held = await retained(broker)
    assert len(held) == 7
    assert not [topic for topic, said in held.items() if any(code in said for code in codes)]
    with_code = {each.topic for each in shelf.heard if any(code in each.payload for code in codes)}
    assert with_code == ({link} if links == "true" else set())
    said = {each.topic for each in shelf.heard} & {link, picture}
    assert said == ({link, picture} if links == "true" else set())
    assert not any(each.retained for each in shelf.heard if each.topic in said)
    assert not any(code.decode() in otsd.log for code in codes)


@pytest.mark.parametrize("retain", [False, True])
async def test_home_assistant_and_whoever_says_offline_in_its_name_are_answered_with_everything(
    house: House, shelf: Shelf, retain: bool
) -> None:
    async with house.otsd() as otsd:
        await otsd.action()
        state = "otsd/actions/open-door/state"
        found = await shelf.until_kept(lambda found: is_online(found) and state in found)
        everything = set(found)
        assert len(everything) == 5
        for topic, payload in (("homeassistant/status", b"online"), ("otsd/status", b"offline")):
            heard = len(shelf.heard)
            await shelf.say(topic, payload, retain=retain)

            def answered(heard: int = heard, said: tuple[str, bytes] = (topic, payload)) -> bool:
                news = {(each.topic, each.payload) for each in shelf.heard[heard:]}
                return everything <= {topic for topic, _ in news - {said}}

            await shelf.until(answered)
        assert shelf.held["otsd/status"] == b"online"


async def test_two_hundred_actions_and_a_thousand_devices_among_a_million_tokens_are_out_at_once(
    house: House, shelf: Shelf
) -> None:
    otsd = house.otsd(token_devices="1000")
    await asyncio.to_thread(million.fill, otsd.directory)
    with closing(sqlite3.connect(otsd.directory / database.NAME)) as db:
        db.executemany(
            "INSERT INTO actions (name, title, yaml, steps, max_uses, created_at, updated_at) "
            "SELECT ?, title, yaml, steps, max_uses, created_at, updated_at FROM actions "
            "WHERE name = 'open-door'",
            [(f"action-{number}",) for number in range(199)],
        )
        db.commit()
    begun = time.monotonic()
    async with otsd:
        started = time.monotonic() - begun
        await otsd.until_status(lambda status: status["mqtt"]["state"] == "connected")
        connected = time.monotonic()
        await shelf.until_kept(is_online, 30)
        told = time.monotonic() - connected
        assert len(devices(shelf.kept)) == 1 + 200 + 1_000
        await otsd.connected()
        # one that is at work is seen in a moment all the same
        token = million.token_id(999_994)
        submitted = await otsd.submit(million.code(otsd.directory, 999_994))
        assert submitted.status == 200, submitted.text
        begun = time.monotonic()
        await shelf.state(f"otsd/tokens/{token}/state", uses_left=4)
        seen = time.monotonic() - begun
        assert otsd.process is not None
        status = Path(f"/proc/{otsd.process.pid}/status").read_text()
        memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        print(f"start {started:.2f} s, told {told:.2f} s, seen {seen:.2f} s, {memory:.0f} MB")  # noqa: T201 - shown with the failure, or with -s
    assert memory < 90
    assert told < 5
    assert started < 5
    assert seen < 5
