"""A real Home Assistant shows what otsd is: devices, entities, their states, their ends."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
import pytest_asyncio

from otsd.mqtt import discovery, states
from otsd.mqtt.discovery import name_of
from otsd.mqtt.topics import Topics
from tests.daemon import Daemon
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

BASE_URL: Final = "https://door.example.org"
ABOUT: Final = discovery.About(
    Topics("strange", "homeassistant"),
    title="Strange",
    version="1",
    configuration_url="http://localhost:8099",
    commands=True,
    links=True,
)
STRANGE: Final = [
    'He said "hi", it\'s a \\ test',
    "{{ 1 + 1 }} {% if x %} {# y #} ~",
    "<b>bold</b> **bold** [a](javascript:b) &amp;",
    "👩‍👩‍👧 😀",
    "😀",
    "None",
    "x" * 200,
    "訪問者" * 66 + "。。",
    "щ" * 200,
    "أبي (1)",
]
# what the API refuses may come from elsewhere
FORBIDDEN: Final = [
    "bell\x07 and\x00nul",
    "two\nlines",
    "\u202eevil",
    "\ud83d",
    "\x1b[31mred",
    " ",
    "أبي \u200f(1)\u200f",
]

_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d \S+ [A-Z]+ \()", re.MULTILINE)
# whatever Home Assistant complains about that is of MQTT, or of an entity of ours
_OURS = re.compile(
    r"mqtt|otsd|value_json|\b(?:binary_sensor|button|event|image|sensor|switch)\.\w", re.IGNORECASE
)
# what it says without otsd as well: when it starts, and when its broker ends
_AT_START = "libturbojpeg"
_BROKER_GONE = ("Disconnected from MQTT server", "Error returned from MQTT server")


class House:
    """Home Assistant, the broker and otsd, and what is to be seen of one in another."""

    def __init__(self, home: HomeAssistant, broker: Mosquitto, otsd: Daemon) -> None:
        self.home = home
        self.broker = broker
        self.otsd = otsd
        self._read = len(home.log())

    def complaints(self, *allowed: str) -> list[str]:
        """Return what was logged since the last call at WARNING or above that concerns otsd."""
        log = self.home.log()
        begun, self._read = self._read, len(log)
        return [
            record
            for record in _RECORD.split(log[begun:])
            if _OURS.search(record) and not any(each in record for each in (_AT_START, *allowed))
        ]

    async def look(self, device: str) -> dict[str, tuple[str, str]]:
        """Return the entities of a device by their names: their ids and states."""
        devices, entities = await self.home.mqtt_devices(), await self.home.mqtt_entities()
        states = await self.states()
        found = devices.get(device, {"id": None})["id"]
        return {
            each["original_name"]: (
                each["entity_id"],
                states.get(each["entity_id"], {"state": ""})["state"],
            )
            for each in entities.values()
            if found is not None and each["device_id"] == found
        }

    async def states(self) -> dict[str, Any]:
        return {each["entity_id"]: each for each in await self.home.command("get_states")}

    async def until_states(self, **expected: str | None) -> Any:
        """Wait for states: ``sensor__plumber_state="paused"``; None is an entity that is gone."""
        wanted = {name.replace("__", ".", 1): state for name, state in expected.items()}

        async def found() -> dict[str, Any] | None:
            states = await self.states()
            actual = {each: states.get(each, {"state": None})["state"] for each in wanted}
            seen.update(actual)
            return states if actual == wanted else None

        seen: dict[str, Any] = {}
        try:
            return await until(found)
        except TimeoutError:
            raise AssertionError(f"{seen} instead of {wanted}") from None

    async def until_gone(self, device: str) -> None:
        """Wait until there is no such device in the registry, and no entity of it."""

        async def gone() -> bool:
            entities = await self.home.mqtt_entities()
            return device not in await self.home.mqtt_devices() and not any(
                each.startswith(f"{device}_") for each in entities
            )

        await until(gone)

    async def until_entities(self, device: str, names: set[str], *, known: bool = True) -> Any:
        """Wait until a device has exactly these entities, and their states are ``known``."""

        async def found() -> dict[str, tuple[str, str]] | None:
            seen.clear()
            seen.update(await self.look(device))
            missing = {"", "unavailable"}
            is_complete = seen.keys() == names and all(
                state not in (missing | {"unknown"} if known and name in KNOWN else missing)
                for name, (_, state) in seen.items()
            )
            return dict(seen) if is_complete else None

        seen: dict[str, tuple[str, str]] = {}
        try:
            return await until(found)
        except TimeoutError:
            raise AssertionError(f"{seen} instead of {names}") from None

    async def until_attribute(self, entity_id: str, name: str, expected: Any) -> None:
        async def found() -> bool:
            entity = await self.home.entity(entity_id)
            return entity is not None and entity["attributes"].get(name) == expected

        await until(found)

    async def until_picture(self, entity_id: str) -> bytes:
        """Wait until an image has a picture, and return that."""

        async def seen() -> bool:
            return (await self.states())[entity_id]["state"] not in {"unknown", "unavailable"}

        await until(seen)
        kind, picture = await self.home.picture(entity_id)
        assert (kind, picture[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
        return picture

    async def press(self, entity_id: str) -> None:
        await self.home.call("button", "press", target={"entity_id": entity_id})


async def until(ask: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """Wait until a question is answered with something true, and return that."""
    async with asyncio.timeout(seconds):
        while not (found := await ask()):
            await asyncio.sleep(0.05)
    return found


# what has a state from the beginning
KNOWN: Final = {"State", "Uses left", "Enabled", "Remaining tokens"}
OF_A_TOKEN: Final = {
    *("State", "Uses left", "Submission", "Last used", "Expires"),
    *("Enabled", "Replenish", "Revoke"),
}
OF_AN_ACTION: Final = {"Remaining tokens", "Remaining uses", "Last used", "Submission"}
OF_LINKS: Final = {"Create link", "Newest link", "QR code"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_house(
    real_home_session: HomeAssistant, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    home, folder = real_home_session, tmp_path_factory.mktemp("in_home_assistant")
    home.thaw()
    await home.start()
    settings = {"mqtt.publish_links": "true", "public.base_url": f'"{BASE_URL}"'}
    settings["admin.base_url"] = '"http://otsd.lan:8099"'
    async with Mosquitto(folder / "broker") as broker:
        settings |= broker.settings
        entry = await home.add_mqtt(broker.port)
        try:
            async with Daemon(folder, url=home.url, token=home.token, settings=settings) as otsd:
                await otsd.connected()
                await otsd.until_status(lambda status: status["mqtt"]["state"] == "connected")
                yield House(home, broker, otsd)
                assert "Traceback" not in otsd.log
        finally:
            await home.remove_entry(entry)
            assert await home.mqtt_devices() == {}


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """Return a house, whose log is to hold no complaint when the test is over."""
    yield shared_house
    assert shared_house.complaints() == []


async def furnished(house: House, action: str, title: str, **token: Any) -> Any:
    """Make an action and a token, and wait until Home Assistant knows all of both."""
    await house.otsd.action(action, title=title)
    minted = await house.otsd.mint(action, **{"max_uses": 3, "expires_in": "7d", **token})
    await house.until_entities(f"otsd_action_{action}", OF_AN_ACTION | OF_LINKS)
    limited = minted["max_uses"] is not None
    names = OF_A_TOKEN if limited else OF_A_TOKEN - {"Uses left"}
    await house.until_entities(f"otsd_token_{minted['id']}", names)
    return minted


# -- what there is ---------------------------------------------------------------------------


def table(rows: str) -> dict[str, dict[str, str]]:
    heads = ("entity", "name", "category", "icon", "class", "state")
    lines = [[cell.strip() for cell in row.split("|")] for row in rows.strip().splitlines()]
    return {line[0]: dict(zip(heads, line, strict=True)) for line in lines}


ENTITIES = table("""
sensor.one_time_service_remaining_tokens                 | Remaining tokens          |            | ticket-confirmation  |              | 1
sensor.one_time_service_last_used                        | Last used                 | diagnostic | clock-check-outline  | timestamp    | unknown
sensor.one_time_service_last_outcome                     | Last outcome              |            | clipboard-check      | enum         | unknown
binary_sensor.one_time_service_home_assistant_connection | Home Assistant connection | diagnostic |                      | connectivity | on
event.one_time_service_submission                        | Submission                |            | gesture-tap-button   |              | unknown
sensor.open_the_front_door_remaining_tokens              | Remaining tokens          |            | ticket-confirmation  |              | 1
sensor.open_the_front_door_remaining_uses                | Remaining uses            |            | counter              |              | 3
sensor.open_the_front_door_last_used                     | Last used                 | diagnostic | clock-check-outline  | timestamp    | unknown
event.open_the_front_door_submission                     | Submission                |            | gesture-tap-button   |              | unknown
button.open_the_front_door_create_link                   | Create link               | config     | link-variant-plus    |              | unknown
sensor.open_the_front_door_newest_link                   | Newest link               | diagnostic | link-variant         | timestamp    | TIME
image.open_the_front_door_qr_code                        | QR code                   |            | qrcode               |              | TIME
sensor.plumber_state                                     | State                     |            | link-variant         | enum         | active
sensor.plumber_uses_left                                 | Uses left                 |            | counter              |              | 3
event.plumber_submission                                 | Submission                |            | gesture-tap-button   |              | unknown
sensor.plumber_last_used                                 | Last used                 | diagnostic | clock-check-outline  | timestamp    | unknown
sensor.plumber_expires                                   | Expires                   | diagnostic | clock-end            | timestamp    | TIME
switch.plumber_enabled                                   | Enabled                   | config     | play-pause           |              | on
button.plumber_replenish                                 | Replenish                 | config     | refresh              |              | unknown
button.plumber_revoke                                    | Revoke                    | config     | link-variant-off     |              | unknown
""")


async def test_every_entity_appears_as_a_person_would_expect(house: House) -> None:
    token = await furnished(house, "open-door", "Open the front door", comment="Plumber")
    link = "sensor.open_the_front_door_newest_link"
    await house.until_attribute(link, "url", token["url"])
    await house.until_picture("image.open_the_front_door_qr_code")
    states = await house.until_states(
        sensor__one_time_service_remaining_tokens="1",
        sensor__open_the_front_door_remaining_uses="3",
        binary_sensor__one_time_service_home_assistant_connection="on",
    )
    found = {}
    for each in (await house.home.mqtt_entities()).values():
        state = states[each["entity_id"]]
        attributes = state["attributes"]
        is_time = re.match(r"\d{4}-\d\d-\d\dT", state["state"])
        found[each["entity_id"]] = {
            "entity": each["entity_id"],
            "name": each["original_name"],
            "category": each["entity_category"] or "",
            "icon": attributes.get("icon", "").removeprefix("mdi:"),
            "class": attributes.get("device_class", ""),
            "state": "TIME" if is_time else state["state"],
        }
        device = attributes["friendly_name"].removesuffix(each["original_name"]).strip()
        assert device in {"One Time Service", "Open the front door", "Plumber"}
        measured = each["unique_id"] == "otsd_service_remaining_tokens"
        assert attributes.get("state_class") == ("measurement" if measured else None)
        assert (each["disabled_by"], each["hidden_by"]) == (None, None)
    assert found == ENTITIES

    devices = await house.home.mqtt_devices()
    service, action, plumber = (
        devices[each]
        for each in ("otsd_service", "otsd_action_open-door", f"otsd_token_{token['id']}")
    )
    assert len(devices) == 3
    assert service["via_device_id"] is None
    assert action["via_device_id"] == service["id"]
    assert plumber["via_device_id"] == action["id"]
    assert [each["model"] for each in devices.values()] == ["One-time links", "Action", "Link"]
    assert {each["manufacturer"] for each in devices.values()} == {"otsd"}
    assert {each["configuration_url"] for each in devices.values()} == {"http://otsd.lan:8099"}
    assert service["sw_version"]


async def test_a_submission_moves_everything(house: House) -> None:
    token = await furnished(house, "move", "Move", comment="Mover")
    assert (await house.otsd.submit(token["code"])).status == 200
    states = await house.until_states(
        sensor__mover_state="active",
        sensor__mover_uses_left="2",
        sensor__move_remaining_uses="2",
        sensor__move_remaining_tokens="1",
        sensor__one_time_service_last_outcome="executed",
    )
    assert states["sensor.one_time_service_last_outcome"]["attributes"]["action"] == "move"
    events = ("event.one_time_service_submission", "event.move_submission")
    for event in (*events, "event.mover_submission"):
        await house.until_attribute(event, "event_type", "executed")
        attributes = (await house.states())[event]["attributes"]
        expected = {"comment": "Mover", "token_id": token["id"], "action": "move", "title": "Move"}
        assert expected.items() <= attributes.items()
        assert (attributes["uses_left"], attributes["delivered_late"]) == (2, False)
        assert not {"remote_ip", "user_agent"} & attributes.keys()
    used = (await house.otsd.admin("GET", f"/tokens/{token['id']}")).json["last_used_at"]
    for sensor in ("mover", "move", "one_time_service"):
        shown = (await house.states())[f"sensor.{sensor}_last_used"]["state"]
        assert shown[:19] == used[:19]
    for each in (1, 0):
        assert (await house.otsd.submit(token["code"])).json["response"]["uses_left"] == each
    await house.until_states(
        sensor__mover_state="used_up",
        sensor__mover_uses_left="0",
        sensor__move_remaining_tokens="0",
    )


async def test_the_switch_pauses_and_resumes(house: House) -> None:
    token = await furnished(house, "switch", "Switch", comment="Neighbour")
    switch = {"entity_id": "switch.neighbour_enabled"}
    await house.home.call("switch", "turn_off", target=switch)
    await house.until_states(sensor__neighbour_state="paused", switch__neighbour_enabled="off")
    assert (await house.otsd.submit(token["code"])).json["code"] == "paused"
    await house.home.call("switch", "turn_on", target=switch)
    await house.until_states(sensor__neighbour_state="active", switch__neighbour_enabled="on")
    assert (await house.otsd.submit(token["code"])).status == 200


async def test_the_buttons_replenish_and_revoke(house: House) -> None:
    token = await furnished(house, "buttons", "Buttons", comment="Gardener", max_uses=2)
    assert (await house.otsd.submit(token["code"])).status == 200
    await house.until_states(sensor__gardener_uses_left="1")
    await house.press("button.gardener_replenish")
    await house.until_states(sensor__gardener_uses_left="2")
    await house.press("button.gardener_revoke")
    await house.until_gone(f"otsd_token_{token['id']}")
    assert (await house.otsd.submit(token["code"])).json["code"] == "revoked"
    assert not [each for each in await house.states() if "gardener" in each]


async def test_a_link_is_made_shown_and_gone_after_its_use(house: House) -> None:
    async def shown(expected: str | None) -> bool:
        picture = await house.until_picture("image.make_a_link_qr_code")
        return picture == b64decode(states.qr(expected))

    old = await furnished(house, "link", "Make a link", comment="Old")
    newest = "sensor.make_a_link_newest_link"
    await house.until_attribute(newest, "url", old["url"])
    await until(lambda: shown(old["url"]))
    await house.press("button.make_a_link_create_link")

    async def another() -> Any:
        url = (await house.states())[newest]["attributes"]["url"]
        return url != old["url"] and url

    url = await until(another)
    assert url.startswith(f"{BASE_URL}/?token=")

    await until(lambda: shown(url))
    assert (await house.otsd.submit(url.rpartition("=")[2])).status == 200
    await house.until_attribute(newest, "url", None)
    await house.until_states(sensor__make_a_link_newest_link="unknown")
    await until(lambda: shown(None))


# -- what goes -------------------------------------------------------------------------------


async def test_what_is_deleted_goes_and_takes_along_what_hung_on_it(house: House) -> None:
    await house.otsd.action("gone", title="Gone")
    tokens = [await house.otsd.mint("gone", comment=f"Gone {n}", max_uses=2) for n in range(3)]
    devices = [f"otsd_token_{each['id']}" for each in tokens]
    for device in devices:
        await house.until_entities(device, OF_A_TOKEN)
    assert (await house.otsd.admin("DELETE", f"/tokens/{tokens[0]['id']}")).status == 204
    await house.until_gone(devices[0])
    assert (await house.otsd.admin("POST", f"/tokens/{tokens[1]['id']}/revoke")).status == 200
    await house.until_gone(devices[1])
    await house.until_entities(devices[2], OF_A_TOKEN)
    assert (await house.otsd.admin("DELETE", "/actions/gone?force=true")).status == 204
    await house.until_gone(devices[2])
    await house.until_gone("otsd_action_gone")
    assert not [each for each in await house.states() if ".gone" in each]


async def test_a_token_that_loses_its_limit_loses_what_counts_it(house: House) -> None:
    token = await furnished(house, "limit", "Limit", comment="Cleaner")
    device = f"otsd_token_{token['id']}"
    for max_uses, names in ((None, OF_A_TOKEN - {"Uses left"}), (5, OF_A_TOKEN)):
        answer = await house.otsd.admin(
            "PATCH", f"/tokens/{token['id']}", json={"max_uses": max_uses}
        )
        assert answer.status == 200, answer.text
        await house.until_entities(device, names)
        uses = "unknown" if max_uses is None else "5"
        await house.until_states(sensor__limit_remaining_uses=uses)
    await house.until_states(sensor__cleaner_uses_left="5")


async def test_a_comment_and_a_title_that_change_rename_the_devices(house: House) -> None:
    token = await furnished(house, "rename", "Rename", comment="Before")
    await house.otsd.action("rename", title="Renamed")
    edit = {"comment": "After"}
    await house.otsd.admin("PATCH", f"/tokens/{token['id']}", json=edit)

    async def renamed() -> bool:
        devices = await house.home.mqtt_devices()
        names = [
            devices[f"otsd_{each}"]["name"] for each in ("action_rename", f"token_{token['id']}")
        ]
        return names == ["Renamed", "After"]

    await until(renamed)
    # what automations refer to stays
    await house.until_states(sensor__before_state="active", sensor__rename_remaining_tokens="1")


# -- what people write -----------------------------------------------------------------------


async def test_whatever_people_write_becomes_a_name_and_does_no_harm(house: House) -> None:
    tokens = {}
    for number, text in enumerate(STRANGE):
        await house.otsd.action(f"strange-{number}", title=text)
        tokens[text] = await house.otsd.mint(f"strange-{number}", comment=text, max_uses=2)
    for number, (text, token) in enumerate(tokens.items()):
        device = f"otsd_token_{token['id']}"
        entities = await house.until_entities(device, OF_A_TOKEN)
        assert entities["State"][1] == "active"
        await house.until_entities(f"otsd_action_strange-{number}", OF_AN_ACTION | OF_LINKS)
        devices = await house.home.mqtt_devices()
        assert devices[device]["name"] == name_of(text)
        assert devices[f"otsd_action_strange-{number}"]["name"] == name_of(text)
        assert (await house.otsd.submit(token["code"])).status == 200
        await house.until_attribute(entities["Submission"][0], "comment", text)
        await house.until_attribute(entities["Submission"][0], "title", text)


async def test_what_the_api_refuses_does_no_harm_either(house: House) -> None:
    topics = ABOUT.topics
    messages = {topics.discovery(topics.service_device): discovery.service(ABOUT)}
    for number, text in enumerate(FORBIDDEN):
        about = replace(ABOUT, title=text)
        action, token = f"a{number}", f"t{number}"
        messages |= {
            topics.discovery(topics.service_device): discovery.service(about),
            topics.discovery(topics.action_device(action)): discovery.action(about, action, text),
            topics.discovery(topics.token_device(token)): discovery.token(
                about, token, text, action, True
            ),
        }
    async with Ear(house.broker) as ear:
        await publish(ear, messages)
        await ear.say(topics.status, "online", retain=True)
        for number, text in enumerate(FORBIDDEN):
            for device, names, otherwise in (
                (topics.action_device(f"a{number}"), OF_AN_ACTION | OF_LINKS, f"a{number}"),
                (topics.token_device(f"t{number}"), OF_A_TOKEN, f"Link t{number}"),
            ):
                await house.until_entities(device, names, known=False)
                named = (await house.home.mqtt_devices())[device]["name"]
                assert named == (name_of(text) or otherwise)
        await publish(ear, dict.fromkeys([*messages, topics.status]))
        for topic in messages:
            await house.until_gone(topic.split("/")[2])


async def publish(ear: Ear, messages: Mapping[str, Any]) -> None:
    for topic, message in messages.items():
        await ear.say(topic, b"" if message is None else json.dumps(message), retain=True)


async def test_a_complaint_of_home_assistant_would_be_noticed(shared_house: House) -> None:
    async with Ear(shared_house.broker) as ear:
        await ear.say("homeassistant/device/otsd_wrong/config", '{"dev": {"nonsense": 1}}')

    async def noticed() -> list[str]:
        return shared_house.complaints()

    assert "otsd_wrong" in (await until(noticed))[0]


# -- outages ---------------------------------------------------------------------------------


def unavailable(states: Mapping[str, Any]) -> set[str]:
    return {name for name, state in states.items() if state["state"] == "unavailable"}


async def settled(house: House) -> Any:
    """Return a token with a link and a picture that are there."""
    existing = (await house.otsd.admin("GET", "/actions")).json["items"]
    if not any(each["name"] == "stay" for each in existing):
        await furnished(house, "stay", "Stay", comment="Stayer")
    token = (await house.otsd.admin("GET", "/tokens?action=stay")).json["items"][0]
    url = (await house.otsd.admin("GET", f"/tokens/{token['id']}/link")).json["url"]
    await house.until_attribute("sensor.stay_newest_link", "url", url)
    return {**token, "url": url}


async def all_back(house: House, token: Any, before: Mapping[str, Any]) -> None:
    """Wait until everything says what it said before."""

    def said(states: Mapping[str, Any]) -> dict[str, Any]:
        # a picture's state is when it came
        return {
            name: state["state"]
            for name, state in states.items()
            if re.search(r"one_time_service|\.stay", name) and not name.startswith("image.")
        }

    async def found() -> bool:
        return said(await house.states()) == said(before)

    await until(found)
    await house.until_attribute("sensor.stay_newest_link", "url", token["url"])

    await house.until_picture("image.stay_qr_code")


async def test_when_otsd_dies_all_of_it_is_unavailable_until_it_is_back(house: House) -> None:
    token = await settled(house)
    before = await house.states()
    house.otsd.kill()
    ours = {each["entity_id"] for each in (await house.home.mqtt_entities()).values()}

    async def gone() -> bool:
        return unavailable(await house.states()) >= ours

    await until(gone)
    await house.otsd.start()
    await all_back(house, token, before)


async def test_after_a_restart_of_home_assistant_all_of_it_is_back(house: House) -> None:
    token = await settled(house)
    assert (await house.otsd.submit(token["url"].rpartition("=")[2])).status == 200
    await house.until_attribute("event.stay_submission", "event_type", "executed")
    await house.until_states(sensor__one_time_service_last_outcome="executed")
    before = await house.states()
    await house.home.restart()
    await all_back(house, token, before)


async def test_after_a_restart_of_the_broker_all_of_it_is_back(house: House) -> None:
    token = await settled(house)
    before = await house.states()
    house.broker.kill()

    async def gone() -> bool:
        return bool(unavailable(await house.states()))

    await until(gone)
    await house.broker.start()
    await all_back(house, token, before)
    assert house.complaints(*_BROKER_GONE) == []


async def test_links_that_are_published_no_more_leave_home_assistant(house: House) -> None:
    token = await settled(house)
    await house.otsd.stop()
    written = house.otsd.config.read_text()
    try:
        house.otsd.config.write_text(
            written.replace("publish_links = true", "publish_links = false")
        )
        await house.otsd.start()
        await house.until_entities("otsd_action_stay", OF_AN_ACTION)
        await house.until_entities(f"otsd_token_{token['id']}", OF_A_TOKEN)
    finally:
        await house.otsd.stop()
        house.otsd.config.write_text(written)
        await house.otsd.start()
    await house.until_entities("otsd_action_stay", OF_AN_ACTION | OF_LINKS)
    await house.until_attribute("sensor.stay_newest_link", "url", token["url"])
