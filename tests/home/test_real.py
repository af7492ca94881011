"""The adapter and a real Home Assistant: the same promises, kept by the real thing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from otsd.core.actions import Plan, plan
from otsd.core.errors import NoAnswer, NotAsked, Refused, TargetUnavailable
from otsd.core.ports import ConnectionState
from otsd.home.home import Pace
from tests.home.conftest import UNLOCK, Connect, Kept, until
from tests.real.home_assistant import HomeAssistant

EVENT = "one_time_token_submitted"


def unlock(**target: object) -> dict[str, object]:
    return {"action": "lock.unlock", "target": target}


def missing(home: Kept, steps: Plan) -> list[str]:
    try:
        home.check(steps)
    except TargetUnavailable as error:
        return list(error.missing)
    return []


async def _until_missing(home: Kept, steps: Plan, faults: list[str]) -> None:
    await until(lambda: missing(home, steps) == faults)


@pytest.fixture
async def home(real_home: HomeAssistant, connect: Connect) -> Kept:
    """Return the adapter, connected to a real Home Assistant that is running."""
    home = await connect(real_home.url, token=real_home.token, action_timeout=timedelta(seconds=20))
    await asyncio.wait_for(home.running(), 30)
    return home


async def ids(real: HomeAssistant, registry: str, name: str) -> str:
    """Return the id of an area, floor or label by its name."""
    (found,) = [
        each
        for each in await real.command(f"config/{registry}_registry/list")
        if each["name"] == name
    ]
    return str(found[f"{registry}_id"])


async def test_it_connects_and_tells_version_and_zone(home: Kept, real_home: HomeAssistant) -> None:
    assert home.state is ConnectionState.CONNECTED
    assert home.status.version == real_home.version
    assert home.status.error is None
    assert str(home.zone) == "UTC"


async def test_it_knows_which_locks_can_be_used(home: Kept, real_home: HomeAssistant) -> None:
    hall, garden, attic = [await ids(real_home, "area", n) for n in ("Hall", "Garden", "Attic")]
    ground = await ids(real_home, "floor", "Ground")
    entrance = await ids(real_home, "label", "Entrance")
    front = (await real_home.command("config/entity_registry/get", entity_id="lock.front_door"))[
        "device_id"
    ]
    expected = [
        (unlock(entity_id="lock.front_door"), []),
        (unlock(entity_id="lock.garden_gate"), ["lock.garden_gate is unavailable"]),
        (unlock(entity_id="lock.cellar"), []),
        (unlock(entity_id="lock.none"), ["lock.none is missing"]),
        (unlock(entity_id="front door"), ["front door is missing"]),
        (unlock(area_id=hall), []),
        (unlock(area_id=garden), [f"the area {garden} has no available entity for lock.unlock"]),
        (unlock(area_id=attic), [f"the area {attic} has no entity for lock.unlock"]),
        (unlock(area_id="moon"), ["the area moon has no entity for lock.unlock"]),
        (unlock(label_id=entrance), []),
        (unlock(floor_id=ground), []),
        (unlock(device_id=front), []),
        ({"action": "light.turn_on", "target": {"area_id": hall}}, []),
        (
            {"action": "light.turn_on", "target": {"label_id": entrance}},
            [f"the label {entrance} has no entity for light.turn_on"],
        ),
        ({"action": "homeassistant.turn_on", "target": {"area_id": hall}}, []),
        ({"action": "lock.explode"}, ["Home Assistant has no action lock.explode"]),
        ({"action": "script.slow"}, []),
        ({"action": "script.none"}, ["Home Assistant has no action script.none"]),
    ]
    for step, faults in expected:
        assert await home.missing(plan(step)) == faults, step


async def test_what_is_hidden_is_not_acted_on_by_an_area_and_does_not_count(
    home: Kept, real_home: HomeAssistant
) -> None:
    hall = await ids(real_home, "area", "Hall")
    steps = plan(unlock(area_id=hall))
    assert await home.missing(steps) == []
    entity = {"entity_id": "lock.front_door"}
    await real_home.command("config/entity_registry/update", **entity, hidden_by="user")
    try:
        await until(lambda: missing(home, steps))
        before = len(real_home.witnessed(entity="lock.front_door"))
        await home.run(steps, {})
        assert len(real_home.witnessed(entity="lock.front_door")) == before
    finally:
        await real_home.command("config/entity_registry/update", **entity, hidden_by=None)
    await until(lambda: not missing(home, steps))


async def test_availability_is_followed(home: Kept, real_home: HomeAssistant) -> None:
    steps = plan(unlock(entity_id="lock.front_door"))
    assert await home.missing(steps) == []
    for available in (False, True):
        await real_home.call(
            "witness",
            "availability",
            {"entity_id": "lock.front_door", "available": available},
        )
        faults = [] if available else ["lock.front_door is unavailable"]
        await _until_missing(home, steps, faults)


async def test_an_entity_that_comes_and_goes_is_followed(
    home: Kept, real_home: HomeAssistant
) -> None:
    steps = plan(unlock(entity_id="lock.visiting"))
    assert await home.missing(steps) == ["lock.visiting is missing"]
    for _ in range(2):
        await real_home.call("witness", "add_entity")
        await until(lambda: not missing(home, steps))
        await home.run(steps, {})
        await real_home.call("witness", "remove_entity")
        await until(lambda: missing(home, steps))
    assert len(real_home.witnessed(entity="lock.visiting", action="unlock")) >= 2


async def test_what_moves_into_an_area_is_found_there(home: Kept, real_home: HomeAssistant) -> None:
    attic = await ids(real_home, "area", "Attic")
    steps = plan(unlock(area_id=attic))
    home.plans.append(steps)
    assert await home.missing(steps)
    entity = {"entity_id": "lock.cellar"}
    try:
        await real_home.command("config/entity_registry/update", **entity, area_id=attic)
        await until(lambda: not missing(home, steps))
    finally:
        await real_home.command("config/entity_registry/update", **entity, area_id=None)
    await until(lambda: missing(home, steps))


# -- asking --------------------------------------------------------------------------------------


async def test_one_step_runs_once_and_tells_its_context(
    home: Kept, real_home: HomeAssistant
) -> None:
    before = len(real_home.witnessed(entity="lock.front_door"))
    ran = await home.run(plan(UNLOCK), {})
    assert ran.context_id
    assert len(real_home.witnessed(entity="lock.front_door")) == before + 1


async def test_what_can_only_be_called_for_its_response_is_called_and_answers(
    home: Kept, real_home: HomeAssistant
) -> None:
    ran = await home.run(plan({"action": "witness.answer", "data": {"key": "adapter"}}), {})
    assert ran.response == {"ok": True}
    assert len(real_home.witnessed(key="adapter")) == 1


async def test_a_sequence_gets_the_variables_as_data(home: Kept, real_home: HomeAssistant) -> None:
    data = {"bare": "{{ token.comment | string }}", "in_text": "For {{ token.comment }}"}
    record = {"key": "adapter variables", "data": data}
    steps = plan([{"action": "witness.record", "data": record}, {"delay": 0}])
    comments = ["Plumber", "{{ 1 + 1 }}", "é😀", "[1, 2]", "None", 'a "quoted" \\ one']
    for comment in comments:
        await home.run(steps, {"token": {"comment": comment}, "submission": {"id": 1}})
    found = real_home.witnessed(key="adapter variables")
    assert [each["data"]["in_text"] for each in found] == [f"For {each}" for each in comments]
    assert [each["data"]["bare"] for each in found][:3] == comments[:3]


async def test_an_error_is_told_in_home_assistants_words(home: Kept) -> None:
    step = {"action": "witness.record", "data": {"key": "x", "refuse": "Not today"}}
    with pytest.raises(Refused, match="Not today"):
        await home.run(plan(step), {})
    with pytest.raises(Refused, match="This step always fails"):
        await home.run(plan([{"action": "script.half"}, {"delay": 0}]), {})
    with pytest.raises(Refused, match=r"(?i)not found"):
        await home.run(plan({"action": "lock.explode"}), {})


async def test_home_assistant_says_what_is_wrong_with_an_action(home: Kept) -> None:
    assert await home.validate(plan(UNLOCK)) is None
    assert await home.validate(plan([UNLOCK, {"delay": 1}])) is None
    assert "extra keys" in str(await home.validate(plan({**UNLOCK, "when": "now"})))
    assert await home.validate(plan([{"delay": "soon"}]))


async def test_notifications_arrive_as_they_are_by_action_and_by_entity(
    home: Kept, real_home: HomeAssistant
) -> None:
    title, message = "Front door {{ 1 + 1 }}", "adapter: {{ 1 + 1 }} *é*"
    for target in ("notify.witness", "notify.kitchen_tablet"):
        await home.notify(target, title, message)
        (found,) = real_home.witnessed(notify=target, message=message)
        assert found["title"] == title
    with pytest.raises(Refused, match=r"notify\.typo is missing"):
        await home.notify("notify.typo", title, message)


async def test_a_guest_is_told_to_be_one_and_connected_all_the_same(
    real_home: HomeAssistant, connect: Connect
) -> None:
    hall = await ids(real_home, "area", "Hall")
    home = await connect(real_home.url, UNLOCK, unlock(area_id=hall), token=real_home.guest_token)
    await asyncio.wait_for(home.running(), 30)
    assert "administrator" in str(home.status.error)
    for steps in home.plans:
        home.check(steps)
    await home.run(home.plans[0], {})
    with pytest.raises(Refused):
        await home.fire(EVENT, {})
    with pytest.raises(Refused):
        await home.run(plan([{"delay": 0}]), {})


# -- coming and going ----------------------------------------------------------------------------


@asynccontextmanager
async def frozen(real: HomeAssistant) -> AsyncIterator[None]:
    real.freeze()
    try:
        yield
    finally:
        real.thaw()


async def test_a_frozen_one_is_noticed_within_20_s_and_used_within_5_s_when_it_thaws(
    home: Kept, real_home: HomeAssistant
) -> None:
    steps = plan({"action": "witness.record", "data": {"key": "adapter frozen", "seconds": 30}})
    calling = asyncio.create_task(home.run(steps, {}))
    await real_home.wait_witnessed(key="adapter frozen")
    async with frozen(real_home):
        begun = time.monotonic()
        await until(lambda: home.state is ConnectionState.CONNECTING, 20)
        with pytest.raises(NoAnswer):
            await calling
        assert time.monotonic() - begun < 20
    await home.connected(5)
    await asyncio.wait_for(home.running(), 5)
    assert len(real_home.witnessed(key="adapter frozen")) == 1


async def test_events_reach_the_automation_after_a_restart_because_they_wait_for_running(
    real_home: HomeAssistant, connect: Connect
) -> None:
    home = await connect(real_home.url, token=real_home.token)
    await asyncio.wait_for(home.running(), 30)
    delivered: list[int] = []

    async def deliver() -> None:
        """Deliver as the announcer does: each one until it is confirmed, and then the next."""
        for number in range(1_000_000):
            while True:
                await home.running()
                try:
                    await home.fire(EVENT, {"adapter": number})
                except (NoAnswer, NotAsked):
                    await asyncio.sleep(0)
                else:
                    delivered.append(number)
                    break
            await asyncio.sleep(0.005)

    delivering = asyncio.create_task(deliver())
    await until(lambda: len(delivered) > 5)
    await real_home.stop()
    await until(lambda: home.state is ConnectionState.CONNECTING)
    before = len(delivered)
    await real_home.start(wait=False)
    await until(lambda: len(delivered) > before + 5, 60)
    delivering.cancel()
    await asyncio.wait([delivering])
    await real_home.wait_running()
    await until(lambda: set(delivered) <= _heard(real_home))


def _heard(real: HomeAssistant) -> set[int]:
    events = [each["data"] for each in real.witnessed(key="event")]
    return {data["adapter"] for data in events if "adapter" in data}


async def test_a_wrong_token_is_refused_and_not_tried_again_soon(
    real_home: HomeAssistant, connect: Connect
) -> None:
    pace = Pace(refusal_pauses=(timedelta(days=1), timedelta(days=1)))
    home = await connect(real_home.url, token="wrong", wait=False, pace=pace)
    await until(lambda: home.state is ConnectionState.REFUSED)
    assert "home_assistant.token" in str(home.status.error)
