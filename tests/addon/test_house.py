"""The add-on, run as the Supervisor runs it: first with nothing but Home Assistant, then with all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.addon.house import ADDON, INGRESS_PATH, SLUG, House
from tests.fakes.broker import FakeBroker
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant
from tests.walk import Way, in_options, walk

OPEN_DOOR = {
    "name": "open-door",
    "title": "Open the front door",
    "yaml": "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n",
}


@pytest.mark.real
async def test_it_finds_everything_by_itself_and_goes_the_whole_way(
    real_home: HomeAssistant, tmp_path: Path
) -> None:
    async with House(real_home, in_options()) as house:
        await house.start()
        users = await house.users()

        # the owner, in the sidebar
        async with asyncio.timeout(20):
            while (await house.status())["home_assistant"]["state"] != "connected":
                await asyncio.sleep(0.05)
        session = await house.ask("GET", "/api/v1/session", user=users["owner"])
        assert session.status == 200, session.text
        assert session.json["via"] == "ingress"
        assert session.json["user"]["id"] == users["owner"]["id"]
        page = await house.ask("GET", "/", user=users["owner"])
        assert INGRESS_PATH not in page.text  # all its addresses are relative

        # others
        for path in ("/", "/api/v1/tokens"):
            assert (await house.ask("GET", path, user=users["guest"])).status == 403
            neighbours = await house.ask("GET", path, user=users["owner"], by="neighbour")
            assert neighbours.status in (401, 421)

        # a broker that comes later
        mqtt = await house.until_mqtt("off")
        assert mqtt["error"].startswith("Home Assistant has no MQTT broker yet")
        assert "MQTT" not in "".join(
            line for line in house.log.splitlines() if "WARNING" in line or "ERROR" in line
        )
        async with Mosquitto(tmp_path / "broker", password="first") as mosquitto:
            entry = await real_home.add_mqtt(mosquitto.port, username="otsd", password="first")
            async with house.broker(mosquitto.port, "first"):
                begun = datetime.now(UTC)
                mqtt = await house.until_mqtt("connected")
                # by the daemon's clock: how long the test took to see it says nothing
                assert datetime.fromisoformat(mqtt["since"]) - begun < timedelta(seconds=5)
                way = Way(
                    owner=lambda method, path, **more: house.ask(
                        method, f"/api/v1{path}", user=users["owner"], **more
                    ),
                    visitor=house.visit,
                    start=house.start,
                    stop=house.stop,
                    log=lambda: house.log,
                    maker=f"user:{users['owner']['name']}",
                )
                async with Ear(mosquitto) as ear:
                    await walk(way, real_home, ear)
                device = await until_device(real_home, "otsd_service")
                assert device["configuration_url"] == f"homeassistant://hassio/ingress/{SLUG}"
                await until_device(real_home, "otsd_action_open-door")
                status, told = await house.run("otsd check")
                assert (status, told.count(" ok ")) == (0, 4), told

                # another password
                await real_home.remove_entry(entry)
                mosquitto.stop()
                mosquitto.set_password("second")
                await mosquitto.start()
                await house.until_mqtt("refused")
                house.tell("second")
                await house.until_mqtt("connected")
            mosquitto.stop()
            mqtt = await house.until_mqtt("off")
            assert mqtt["error"].startswith("Home Assistant has no MQTT broker yet")
        assert await house.stop() == 0
        assert "Traceback" not in house.log


async def until_device(home: HomeAssistant, name: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while name not in (devices := await home.mqtt_devices()):
            await asyncio.sleep(0.1)
    return devices[name]


async def mint(house: House) -> str:
    minted = await house.control("POST", "/tokens", json={"action": "open-door"})
    assert minted.status == 201, minted.text
    return str(minted.json["url"].partition("/?token=")[2])


async def known(house: House, *codes: str) -> list[bool]:
    """Tell which links lead to a page of theirs, whether Home Assistant is there yet or not."""
    pages = [await house.visit("GET", f"/?token={code}") for code in codes]
    assert all(page.status in (200, 503, 404) for page in pages)
    return [page.status != 404 for page in pages]


async def test_a_backup_is_whole_whether_it_runs_or_not(
    fake_home: FakeHomeAssistant, tmp_path: Path
) -> None:
    async with House(fake_home) as house:
        await house.start()
        saved = await house.control("POST", "/actions", json=OPEN_DOOR)
        assert saved.status == 201, saved.text
        first = await mint(house)

        # while it runs; what is copied of the database then is torn
        await house.back_up(tmp_path / "running")
        names = {each.name for each in (tmp_path / "running").iterdir()}
        assert {"backup.tar", "options.json"} <= names
        assert not {"in-use", "otsd.sock", "otsd.db-shm"} & names
        assert not (house.data / "backup.tar").exists()
        torn = tmp_path / "running" / "otsd.db"
        torn.write_bytes(torn.read_bytes()[:5000])
        second = await mint(house)
        assert await house.stop() == 0

        # while it stands still
        await house.back_up(tmp_path / "stopped", running=False)

        house.restore(tmp_path / "running")
        await house.start()
        assert await known(house, first, second) == [True, False]
        assert not (house.data / "backup.tar").exists()
        assert await house.stop() == 0

        house.restore(tmp_path / "stopped")
        await house.start()
        assert await known(house, first, second) == [True, True]

        # a backup that the Supervisor did not finish, and a power loss: what was there goes on
        assert (await house.run("otsd-add-on backup"))[0] == 0
        assert (house.data / "backup.tar").stat().st_mode & 0o777 == 0o600
        third = await mint(house)
        await house.stop("KILL")
        await house.start()
        assert await known(house, first, second, third) == [True, True, True]
        assert not (house.data / "backup.tar").exists()
        assert "Traceback" not in house.log


async def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


async def test_a_damaged_archive_costs_nothing_of_what_was_copied_beside_it(
    fake_home: FakeHomeAssistant, tmp_path: Path
) -> None:
    async with House(fake_home) as house:
        await house.start()
        assert (await house.control("POST", "/actions", json=OPEN_DOOR)).status == 201
        code = await mint(house)
        part = house.data / ".otsd-backup-x.part"
        part.touch()
        await house.back_up(tmp_path / "backup")
        assert not part.exists()
        assert await house.stop() == 0

        backup = tmp_path / "backup"
        whole = (backup / "backup.tar").read_bytes()
        await damage(backup / "backup.tar")
        damaged = (backup / "backup.tar").read_bytes()
        house.restore(backup)
        part.touch()
        await house.start()
        assert await known(house, code) == [True]
        assert names(house) == {"backup.tar.unused"}
        assert (house.data / "backup.tar.unused").read_bytes() == damaged
        assert "The archive cannot be used" in house.log
        assert await house.stop() == 0

        # cut short while the old files were moved away
        (backup / "backup.tar").write_bytes(whole)
        await damage(backup / "otsd.db")
        (backup / "before-restore").mkdir()
        (backup / "otsd.db").rename(backup / "before-restore" / "otsd.db")
        (backup / "restore.part").mkdir()
        house.restore(backup)
        await house.start()
        assert await known(house, code) == [True]
        assert names(house) == set()
        assert await house.stop() == 0
        assert "Traceback" not in house.log


def names(house: House) -> set[str]:
    """Return what lies in the data beside what a daemon has there."""
    there = {each.name for each in house.data.iterdir()}
    ours = {"in-use", "options.json", "otsd.key", "otsd.sock"}
    return {each for each in there - ours if not each.startswith("otsd.db")}


@pytest.mark.parametrize("usable", [True, False])
def test_what_was_moved_away_first_is_what_comes_back(tmp_path: Path, *, usable: bool) -> None:
    """Cut short after the restore: what lies in its place by now is not what was copied."""
    programs, data = tmp_path / "bin", tmp_path / "data"
    (data / "before-restore").mkdir(parents=True)
    (data / "restore.new").mkdir()
    programs.mkdir()
    otsd = programs / "otsd"
    otsd.write_text(
        '#!/bin/sh\n[ "$1" = restore ] || exit 0\n'
        + ('echo new >"$OTSD_STORAGE__DIRECTORY/otsd.db"\n' if usable else "exit 1\n")
    )
    otsd.chmod(0o755)
    for name, text in {
        "before-restore/otsd.db": "copied",
        "before-restore/otsd.db-wal": "copied",
        "otsd.db": "of the archive",
        "otsd.key": "copied",
        "backup.tar": "the archive",
    }.items():
        (data / name).write_text(text)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "OTSD_STORAGE__DIRECTORY": str(data)}
    subprocess.run([ADDON / "otsd-add-on", "run"], env=environment, check=True)
    there = {each.name: each.read_text() for each in data.iterdir()}
    copied = {"otsd.db": "copied", "otsd.db-wal": "copied", "otsd.key": "copied"}
    kept = {"otsd.db": "new\n"} if usable else {**copied, "backup.tar.unused": "the archive"}
    assert there == {"in-use": "", **kept}


async def test_it_lives_with_a_supervisor_that_does_not_answer_well(
    fake_home: FakeHomeAssistant,
) -> None:
    async with House(fake_home) as house, FakeBroker() as broker:
        house.supervisor.says = (200, '{"data": ' + "[" * 100_000)
        await house.start()
        mqtt = await until_error(house)
        assert mqtt["state"] == "connecting"
        assert mqtt["error"] == "the Supervisor does not answer"
        async with house.broker(broker.port, "any"):
            house.supervisor.says = (500, "Server got itself in trouble")
            assert (await until_error(house))["error"] == "the Supervisor does not answer"
            assert house.supervisor.broker is not None
            house.supervisor.broker["port"] = 10**30
            house.supervisor.says = None
            await until_error(house, "the Supervisor does not say where the MQTT broker is")
            house.tell("any")
            await house.until_mqtt("connected")
            assert broker.connects[-1].username == "otsd"
            device = await until_described(broker, "cu")
            assert device["cu"] == f"homeassistant://hassio/ingress/{SLUG}"
        assert "Traceback" not in house.log


async def until_error(house: House, beginning: str = "") -> Any:
    async with asyncio.timeout(20):
        while not str((mqtt := (await house.status())["mqtt"])["error"] or "").startswith(
            beginning or "the"
        ):
            await asyncio.sleep(0.05)
    return mqtt


async def until_described(broker: FakeBroker, *keys: str) -> Any:
    """Wait until the service's device is described with these keys, and return how."""
    topic = "homeassistant/device/otsd_service/config"
    async with asyncio.timeout(20):
        while True:
            told = [json.loads(each.payload) for each in broker.published if each.topic == topic]
            for device in (each["dev"] for each in told):
                if {*keys} <= device.keys():
                    return device
            await asyncio.sleep(0.05)


async def test_what_is_wrong_with_options_is_told_by_their_names(
    fake_home: FakeHomeAssistant,
) -> None:
    wrong = {"public_token_base_url": "door.example.org", "history": {"keep": "for ever"}}
    async with House(fake_home, wrong) as house:
        assert await house.fail() == 1
        assert "options.json: public_token_base_url (OTSD_PUBLIC__BASE_URL) must be" in house.log
        assert "options.json: history.keep (OTSD_HISTORY__KEEP) must be a duration" in house.log
