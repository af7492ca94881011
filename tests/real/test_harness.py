"""Whether the tests' Home Assistant, and its witness, can be relied upon."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from otsd.demo.provision import (
    ProvisionError,
    find_installation,
    find_interpreter,
    provision,
)

from .home_assistant import CommandError, HomeAssistant, NotRunningError

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRONT_DOOR = {"entity_id": "lock.front_door"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ha() -> AsyncIterator[HomeAssistant]:
    """Run one instance for all tests here."""
    async with HomeAssistant() as home_assistant:
        yield home_assistant


def alive(pid: int) -> bool:
    """Tell whether a process runs, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], Any], seconds: float = 5) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


# Starting


async def test_it_starts_without_errors_in_its_log(ha: HomeAssistant) -> None:
    """A plain start logs nothing worse than warnings, and stays at the address it was given."""
    config = await ha.command("get_config")
    assert config["state"] == "RUNNING"
    assert config["version"] == ha.version
    # The library for cameras' pictures is not Python's, and not to be had everywhere.
    assert [
        line for line in ha.log().splitlines() if " ERROR " in line and "libturbojpeg" not in line
    ] == []


async def test_entities_areas_labels_and_floors_are_there(ha: HomeAssistant) -> None:
    """What the other tests refer to exists."""
    expected = {
        "lock.front_door": "locked",
        "lock.garden_gate": "unavailable",
        "lock.cellar": "unknown",
        "lock.visiting": None,
        "light.hall": "off",
        "automation.one_time_token_submitted": "on",
        "script.slow": "off",
        "script.half": "off",
        "script.nap": "off",
        "input_boolean.guest_mode": "off",
        "counter.visits": "0",
        "sensor.guest_mode_text": "nobody",
        "notify.kitchen_tablet": "unknown",
    }
    states = {each["entity_id"]: each["state"] for each in await ha.command("get_states")}
    assert {entity_id: states.get(entity_id) for entity_id in expected} == expected
    template = (
        "{{ [area_entities('hall') | sort, area_entities('attic'), area_entities('garden'),"
        " label_entities('entrance'), floor_areas('ground'), areas() | sort,"
        " device_entities(device_id('lock.front_door'))] | to_json }}"
    )
    async with ha.connection() as connection:
        await connection.command("render_template", template=template)
        event = (await connection.receive())["event"]
    assert event["result"] == [
        ["light.hall", "lock.front_door"],
        [],
        ["lock.garden_gate"],
        ["lock.front_door"],
        ["hall"],
        ["attic", "garden", "hall"],
        ["lock.front_door"],
    ]


async def test_a_delayed_start_can_be_watched(ha: HomeAssistant) -> None:
    """While it starts it answers and runs actions, but automations do not hear events yet."""
    await ha.restart(wait=False, delay=1.5)
    while (await ha.wait_reachable()) != "STARTING":
        await asyncio.sleep(0.01)
    assert not ha.witnessed(key="while starting")
    await ha.call("witness", "record", {"key": "while starting"})
    await ha.fire("one_time_token_submitted", {"submission_id": "early"})
    assert (await ha.command("get_config"))["state"] == "STARTING"
    await ha.wait_running()
    await ha.fire("one_time_token_submitted", {"submission_id": "late"})
    await ha.wait_witnessed(key="event", data={"submission_id": "late"})
    assert ha.witnessed(key="event", data={"submission_id": "early"}) == []
    assert len(ha.witnessed(key="while starting")) == 1


# Users


async def test_guest_is_no_administrator(ha: HomeAssistant) -> None:
    """There are two users, and only one of them may do everything."""
    async with ha.connection(ha.guest_token) as connection:
        user = await connection.command("auth/current_user")
        assert (user["is_admin"], user["is_owner"]) == (False, False)
        with pytest.raises(CommandError) as failure:
            await connection.command("fire_event", event_type="one_time_token_submitted")
        assert failure.value.code == "unauthorized"
    user = await ha.command("auth/current_user")
    assert (user["is_admin"], user["is_owner"]) == (True, True)


async def test_wrong_token_is_refused(ha: HomeAssistant) -> None:
    """The helper tells a refusal from a lost connection."""
    with pytest.raises(CommandError) as failure:
        async with ha.connection("wrong"):
            pass
    assert failure.value.code == "auth_invalid"


# The witness


async def test_services_are_witnessed_in_order(ha: HomeAssistant) -> None:
    """Each call leaves one line, also one that fails afterwards; a refused one leaves none."""
    before = len(ha.witnessed())
    await ha.call("witness", "record", {"key": "plain"})
    await ha.call("witness", "record", {"key": "data", "data": {"a": [1, None, "ü"]}})
    assert await ha.call("witness", "answer", {"key": "answer"}, answer=True) == {"ok": True}
    with pytest.raises(CommandError) as failure:
        await ha.call("witness", "record", {"key": "fails", "fail": "on purpose"})
    assert (failure.value.code, failure.value.message) == ("home_assistant_error", "on purpose")
    with pytest.raises(CommandError) as failure:
        await ha.call("witness", "record", {"key": "refused", "refuse": "not today"})
    assert failure.value.code == "service_validation_error"
    assert "not today" in failure.value.message
    assert ha.witnessed()[before:] == [
        {"key": "plain"},
        {"key": "data", "data": {"a": [1, None, "ü"]}},
        {"key": "answer"},
        {"key": "fails"},
    ]


async def test_record_can_take_its_time(ha: HomeAssistant) -> None:
    """It is witnessed at once and answers later."""
    task = asyncio.create_task(ha.call("witness", "record", {"key": "sleepy", "seconds": 0.5}))
    await ha.wait_witnessed(key="sleepy")
    assert not task.done()
    await task


async def test_locks(ha: HomeAssistant) -> None:
    """The front door works, the cellar never says how it is, and nobody gets at the garden gate."""
    before = len(ha.witnessed())
    for service, state in (
        ("unlock", "unlocked"),
        ("lock", "locked"),
        ("open", "open"),
        ("lock", "locked"),
    ):
        await ha.call("lock", service, target=FRONT_DOOR)
        assert await ha.state("lock.front_door") == state
    await ha.call("lock", "unlock", target={"entity_id": ["lock.garden_gate", "lock.cellar"]})
    assert await ha.state("lock.cellar") == "unknown"
    assert ha.witnessed()[before:] == [
        {"entity": entity_id, "action": action}
        for entity_id, action in (
            ("lock.front_door", "unlock"),
            ("lock.front_door", "lock"),
            ("lock.front_door", "open"),
            ("lock.front_door", "lock"),
            ("lock.cellar", "unlock"),
        )
    ]


async def test_entities_come_and_go(ha: HomeAssistant) -> None:
    """Availability can be changed, and one lock be added and removed again and again."""
    for available, state in (True, "locked"), (False, "unavailable"):
        await ha.call(
            "witness", "availability", {"entity_id": "lock.garden_gate", "available": available}
        )
        assert await ha.state("lock.garden_gate") == state
    for _ in range(2):
        await ha.call("witness", "add_entity")
        assert await ha.state("lock.visiting") == "locked"
        await ha.call("lock", "unlock", target={"entity_id": "lock.visiting"})
        await ha.call("witness", "remove_entity")
        assert await ha.state("lock.visiting") is None
    assert len(ha.witnessed(entity="lock.visiting", action="unlock")) == 2
    assert not [
        each
        for each in await ha.command("config/entity_registry/list")
        if each["entity_id"] == "lock.visiting"
    ]


async def test_notifications_are_witnessed(ha: HomeAssistant) -> None:
    """By the old kind of service, and by the new kind of entity."""
    message = {"title": "Plumber", "message": "executed"}
    await ha.call("notify", "witness", message)
    await ha.call("notify", "witness", {"message": "no title"})
    await ha.call("notify", "send_message", message, {"entity_id": "notify.kitchen_tablet"})
    assert ha.witnessed(notify="notify.witness") == [
        {"notify": "notify.witness"} | message,
        {"notify": "notify.witness", "title": None, "message": "no title"},
    ]
    assert ha.witnessed(notify="notify.kitchen_tablet") == [
        {"notify": "notify.kitchen_tablet"} | message
    ]


async def test_the_automation_hears_events_and_keeps_their_data(ha: HomeAssistant) -> None:
    """Texts stay texts, whatever they look like, and a burst arrives whole and in order."""
    texts = ["[1, 2]", "{{ 1 + 1 }}", " 7 ", 'it\'s "quoted" \\ \n', "None", "é😀"]
    data = {"submission_id": 41, "error": None, "delivered_late": False, "texts": texts}
    await ha.fire("one_time_token_submitted", data)
    assert await ha.wait_witnessed(key="event", data=data) == [{"key": "event", "data": data}]
    async with ha.connection() as connection:
        for number in range(50):
            await connection.command(
                "fire_event", event_type="one_time_token_submitted", event_data={"burst": number}
            )
    await ha.wait_witnessed(key="event", data={"burst": 49})
    heard = [each["data"]["burst"] for each in ha.witnessed(key="event") if "burst" in each["data"]]
    assert heard == list(range(50))


async def test_scripts(ha: HomeAssistant) -> None:
    """One is slow, one stops half-way, and one takes as long as it is told."""
    before = len(ha.witnessed())
    with pytest.raises(CommandError) as failure:
        await ha.call("script", "half")
    assert failure.value.code == "service_validation_error"
    await ha.call("script", "nap", {"seconds": 0.1})
    began = time.monotonic()
    await ha.call("script", "slow")
    assert time.monotonic() - began >= 3
    keys = [each["key"] for each in ha.witnessed()[before:]]
    assert keys == ["half_first", "nap_start", "nap_end", "slow_start", "slow_end"]


# Ending, and worse


async def test_kill_loses_nothing_that_was_witnessed(ha: HomeAssistant) -> None:
    """Each call that was answered is there after a sudden end, and one that went on is there once."""
    before = len(ha.witnessed())
    for number in range(20):
        await ha.call("witness", "record", {"key": f"kill {number}"})
    pending = asyncio.create_task(
        ha.call("witness", "record", {"key": "kill pending", "seconds": 60})
    )
    await ha.wait_witnessed(key="kill pending")
    await ha.kill()
    assert ha.pid is None
    with pytest.raises(NotRunningError):
        await pending
    expected = [{"key": f"kill {number}"} for number in range(20)] + [{"key": "kill pending"}]
    assert ha.witnessed()[before:] == expected
    port = ha.port
    await ha.start()
    assert ha.port == port
    await ha.call("witness", "record", {"key": "after kill"})
    assert ha.witnessed()[before:] == [*expected, {"key": "after kill"}]


async def test_restart_keeps_port_and_tokens(ha: HomeAssistant) -> None:
    """Everything is as it was."""
    url, token, pid = ha.url, ha.token, ha.pid
    await ha.restart()
    assert (ha.url, ha.token) == (url, token)
    assert ha.pid != pid
    async with ha.connection(ha.guest_token) as connection:
        assert not (await connection.command("auth/current_user"))["is_admin"]


async def test_frozen_it_says_nothing_and_thawed_it_goes_on(ha: HomeAssistant) -> None:
    """A frozen instance takes what it is sent, and deals with it later."""
    async with ha.connection() as connection:
        ha.freeze()
        call = asyncio.create_task(
            connection.command(
                "call_service", domain="witness", service="record", service_data={"key": "frozen"}
            )
        )
        await asyncio.sleep(0.5)
        assert not call.done()
        assert ha.witnessed(key="frozen") == []
        ha.thaw()
        await call
    assert len(ha.witnessed(key="frozen")) == 1


async def test_a_frozen_one_can_be_stopped(ha: HomeAssistant) -> None:
    """So that no test has to tidy up in a certain order."""
    ha.freeze()
    await ha.stop()
    assert ha.pid is None
    await ha.stop()
    await ha.kill()
    await ha.start()


@pytest.mark.parametrize("frozen", [False, True])
async def test_it_does_not_outlive_whoever_started_it(tmp_path: Path, *, frozen: bool) -> None:
    """Not even if that was killed, and Home Assistant cannot do anything itself."""
    program = f"""
        import asyncio, sys
        from {HomeAssistant.__module__} import HomeAssistant
        async def main():
            ha = HomeAssistant()
            await ha.start(wait=False)
            if {frozen}:
                await ha.wait_running()
                ha.freeze()
            print(ha.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": str(tmp_path),
    }
    starter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, stdout=subprocess.PIPE
    )
    assert starter.stdout
    with starter.stdout:
        pid = int(await asyncio.to_thread(starter.stdout.readline))
    assert alive(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    await until(lambda: not alive(pid))


async def test_a_folder_of_ones_own_is_used_again(tmp_path: Path) -> None:
    """Port, tokens and what was witnessed are those of the folder; a broken configuration is explained."""
    folder = tmp_path / "home"
    async with HomeAssistant(folder) as first:
        await first.call("counter", "increment", target={"entity_id": "counter.visits"})
        await first.call("witness", "record", {"key": "first"})
        credentials = first.credentials
    async with HomeAssistant(folder) as second:
        assert second.credentials == credentials
        assert second.witnessed() == [{"key": "first"}]
        assert await second.state("counter.visits") == "1"
    (folder / "configuration.yaml").write_text(
        "homeassistant:\n  latitude: nowhere\nhttp: !env_var MISSING\n"
    )
    with pytest.raises(NotRunningError, match="the end of its log"):
        await HomeAssistant(folder).start()


# Installing


async def test_the_second_time_takes_no_time() -> None:
    """An installation is found without running anything."""
    installation = provision()
    began = time.monotonic()
    assert provision() == installation
    assert time.monotonic() - began < 0.05


async def test_no_interpreter_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says what to do."""
    monkeypatch.delenv("OTSD_HA_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ProvisionError, match="OTSD_HA_PYTHON"):
        find_interpreter()
    monkeypatch.setenv("OTSD_HA_PYTHON", str(tmp_path / "python"))
    with pytest.raises(ProvisionError, match="no working CPython"):
        find_interpreter()


async def test_an_unfinished_installation_is_none(tmp_path: Path) -> None:
    """Without the marker that is written last, or with one of another format, it does not count."""
    assert find_installation(tmp_path) is None
    (tmp_path / "home-assistant").mkdir()
    assert find_installation(tmp_path) is None
    (tmp_path / "home-assistant" / "installed.json").write_text(
        '{"format": 0, "version": "1", "interpreter": "x"}'
    )
    assert find_installation(tmp_path) is None
