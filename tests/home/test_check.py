"""What must be there for an action to run, followed as it comes and goes."""

import asyncio
from typing import Any

import pytest

from otsd.core.actions import plan
from otsd.core.errors import HomeUnavailable, TargetUnavailable
from tests.fakes.home_assistant import Fail, FakeHomeAssistant, TemplateError
from tests.home.conftest import UNLOCK, Connect, Kept, until


def missing(home: Kept, number: int = 0) -> list[str]:
    """Return what a visitor's check finds to be missing."""
    try:
        home.check(home.plans[number])
    except TargetUnavailable as error:
        return list(error.missing)
    return []


async def _until_missing(home: Kept, faults: list[str]) -> None:
    await until(lambda: missing(home) == faults)


def of(reach: str, name: object, action: str = "lock.unlock") -> dict[str, Any]:
    """Return a step that acts on an area or its kin."""
    return {"action": action, "target": {reach: name}}


def members(fake: FakeHomeAssistant, **entities: list[str]) -> None:
    """Let the fake know what is in its areas, devices, floors and labels."""
    fake.on_render = lambda _, variables: [entities.get(name, []) for _, name in variables["asked"]]


async def test_what_is_there_can_run(fake_home: FakeHomeAssistant, connect: Connect) -> None:
    home = await connect(fake_home, UNLOCK)
    assert missing(home) == []


async def test_a_service_that_home_assistant_does_not_have_is_named(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, [UNLOCK, {"if": [], "then": {"action": "lock.explode"}}])
    assert missing(home) == ["Home Assistant has no action lock.explode"]


async def test_each_missing_and_each_unavailable_entity_is_named(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.set_state("lock.garden_gate", "unavailable")
    fake_home.set_state("lock.cellar", "unknown")
    ids = ["lock.front_door", "lock.garden_gate", "lock.cellar", "lock.none"]
    home = await connect(fake_home, of("entity_id", ids))
    assert missing(home) == ["lock.garden_gate is unavailable", "lock.none is missing"]


async def test_entities_are_followed_as_they_come_and_go(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    for state, fault in [
        ("unavailable", ["lock.front_door is unavailable"]),
        ("unlocked", []),
        (None, ["lock.front_door is missing"]),
        ("unknown", []),
        ("unavailable", ["lock.front_door is unavailable"]),
        (None, ["lock.front_door is missing"]),
        ("locked", []),
    ]:
        fake_home.set_state("lock.front_door", state)
        await _until_missing(home, fault)


async def test_a_change_of_attributes_changes_nothing(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    fake_home.set_state("lock.front_door", "locked", battery=7)
    fake_home.set_state("lock.front_door", "unavailable", battery=7)
    await until(lambda: missing(home))


async def test_services_are_followed_as_they_come_and_go(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, {"action": "script.arrive"})
    assert missing(home) == ["Home Assistant has no action script.arrive"]
    for _ in range(2):
        fake_home.add_service("script", "arrive")
        await until(lambda: not missing(home))
        fake_home.remove_service("script", "arrive")
        await until(lambda: missing(home))


async def test_a_service_that_came_before_its_action_did_is_known(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home)
    fake_home.add_service("script", "arrive")
    fake_home.remove_service("lock", "lock")
    arrive, lock = plan({"action": "script.arrive"}), plan({"action": "lock.lock"})
    assert await home.validate(arrive) is None  # as before every saving
    assert await home.missing(arrive) == []
    assert await home.missing(lock) == ["Home Assistant has no action lock.lock"]


async def test_while_home_assistant_is_away_that_is_what_is_said(connect: Connect) -> None:
    home = await connect("http://127.0.0.1:1", UNLOCK, token="x", wait=False)
    with pytest.raises(HomeUnavailable):
        home.check(home.plans[0])


# -- areas and their kin -------------------------------------------------------------------------


@pytest.mark.parametrize("reach", ["area_id", "device_id", "floor_id", "label_id"])
async def test_of_an_area_or_its_kin_one_entity_of_the_domain_must_be_available(
    fake_home: FakeHomeAssistant, connect: Connect, reach: str
) -> None:
    kind = reach.removesuffix("_id")
    fake_home.set_state("light.hall", "on")
    members(
        fake_home,
        hall=["light.hall", "lock.front_door", "lock.gone"],
        attic=["light.hall"],
        garden=["lock.gate"],
    )
    fake_home.set_state("lock.gate", "unavailable")
    home = await connect(fake_home, *(of(reach, n) for n in ("hall", "attic", "garden", "moon")))
    assert [missing(home, number) for number in range(4)] == [
        [],
        [f"the {kind} attic has no entity for lock.unlock"],
        [f"the {kind} garden has no available entity for lock.unlock"],
        [f"the {kind} moon has no entity for lock.unlock"],
    ]
    fake_home.set_state("lock.gate", "unknown")
    await until(lambda: missing(home, 2) == [])
    fake_home.set_state("lock.front_door", None)
    await until(lambda: missing(home, 0))


async def test_the_members_are_asked_for_by_data_and_not_by_text(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    asked: list[Any] = []

    def render(text: str, variables: dict[str, Any]) -> Any:
        asked.append((text, variables))
        return [[] for _ in variables["asked"]]

    fake_home.on_render = render
    name = "a' + states('lock.front_door') + '"
    await connect(fake_home, of("area_id", name), of("label_id", "x"), of("area_id", name))
    text, variables = asked[-1]
    assert "states(" not in text
    assert variables == {"asked": [["area_id", name], ["label_id", "x"]]}


async def test_when_a_registry_changes_the_members_are_read_again(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    members(fake_home, hall=[])
    home = await connect(fake_home, of("area_id", "hall"))
    for event in ("entity", "device", "area", "floor", "label"):
        assert missing(home)
        members(fake_home, hall=["lock.front_door"])
        fake_home.fire(f"{event}_registry_updated", {"action": "update"})
        await until(lambda: not missing(home))
        members(fake_home, hall=[])
        fake_home.fire(f"{event}_registry_updated", {"action": "update"})
        await until(lambda: missing(home))


@pytest.mark.parametrize(
    ("action", "target", "found"),
    [
        ("homeassistant.turn_on", {"entity": [{}]}, True),
        ("homeassistant.turn_on", None, True),
        ("vendor.reset", {"entity": [{"integration": "vendor"}]}, True),
        ("vendor.reset", {"entity": [{"domain": ["lock", "cover"]}]}, True),
        ("vendor.reset", {"entity": {"domain": "lock"}}, True),
        ("vendor.reset", {"entity": [{"domain": ["cover"]}]}, False),
        ("{{ 'lock.' ~ 'unlock' }}", None, True),
        ("light.turn_on", {"entity": [{"domain": ["light"]}]}, False),
    ],
)
async def test_which_entities_a_service_acts_on_is_for_home_assistant_to_say(
    fake_home: FakeHomeAssistant,
    connect: Connect,
    action: str,
    target: dict[str, Any] | None,
    found: bool,
) -> None:
    members(fake_home, hall=["lock.front_door"])
    if "{" not in action:
        domain, _, service = action.partition(".")
        fake_home.add_service(domain, service)
        if target is not None:
            fake_home.services[domain][service]["target"] = target
    home = await connect(fake_home, of("area_id", "hall", action))
    assert bool(missing(home)) is not found


@pytest.mark.parametrize("result", [Fail("unauthorized", "Unauthorized"), TemplateError("no such")])
async def test_without_an_answer_about_areas_they_are_empty_and_the_rest_goes_on(
    fake_home: FakeHomeAssistant, connect: Connect, result: object
) -> None:
    fake_home.on_render = lambda *_: result
    home = await connect(fake_home, UNLOCK, of("area_id", "hall"))
    assert missing(home, 0) == []
    assert missing(home, 1) == ["the area hall has no entity for lock.unlock"]


# -- new actions ---------------------------------------------------------------------------------


async def test_what_a_new_action_names_is_known_when_it_was_asked_about(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.set_state("lock.cellar", "locked")
    members(fake_home, hall=["lock.front_door"])
    home = await connect(fake_home, UNLOCK)
    for step in (of("entity_id", "lock.cellar"), of("area_id", "hall")):
        new = plan(step)
        assert await home.missing(new) == []
        home.check(new)
        # something else is read meanwhile, and the action is not saved yet
        fake_home.fire("area_registry_updated")
        await _read_again(fake_home)
        home.check(new)
        home.plans.append(new)
        home.actions_changed()
        await _read_again(fake_home)
        home.check(new)
    assert await home.missing(plan(of("entity_id", "lock.typo"))) == ["lock.typo is missing"]


async def _read_again(fake: FakeHomeAssistant) -> None:
    """Wait longer than the adapter lets a burst of changes settle."""
    await asyncio.sleep(0.5)


async def test_nothing_seems_to_be_missing_while_it_is_read_again(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    members(fake_home, hall=["lock.front_door"])
    home = await connect(fake_home, UNLOCK, of("area_id", "hall"))
    faults: list[str] = []

    async def watch() -> None:
        while True:
            faults.extend(missing(home, 0) + missing(home, 1))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for number in range(4):
        # the lock of the hall is replaced, so that neither members nor states of before will do
        fake_home.set_state(f"lock.new_{number}", "locked")
        members(fake_home, hall=[f"lock.new_{number}"])
        await home.missing(plan(of("entity_id", f"lock.other_{number}")))
    watching.cancel()
    assert faults == []


async def test_without_entities_there_is_no_subscription_as_none_would_mean_all(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, {"action": "lock.unlock"})
    subscriptions = [m for m in fake_home.received if m["type"] == "subscribe_entities"]
    assert subscriptions == []
    home.plans[:] = [plan(UNLOCK)]
    home.actions_changed()
    await until(lambda: missing(home) == [])
    home.plans[:] = []
    home.actions_changed()
    await fake_home.until(
        lambda: any(message["type"] == "unsubscribe_events" for message in fake_home.received)
    )
    subscriptions = [m for m in fake_home.received if m["type"] == "subscribe_entities"]
    assert [message["entity_ids"] for message in subscriptions] == [["lock.front_door"]]


async def test_an_entity_that_cannot_be_one_is_missing_and_does_no_harm(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    wrong = ["front_door", "lock.front door", "lock._x", "lock.a__b", "lock.ü", "a.b.c", "."]
    home = await connect(fake_home, UNLOCK, {"action": "lock.unlock", "data": {"entity_id": wrong}})
    assert missing(home, 0) == []
    assert missing(home, 1) == [f"{name} is missing" for name in wrong]


async def test_asking_about_an_action_can_be_given_up(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    for turns in range(15):
        asking = asyncio.create_task(home.missing(plan(of("entity_id", f"lock.other_{turns}"))))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert await home.missing(plan(of("entity_id", "lock.none"))) == ["lock.none is missing"]
    assert missing(home) == []
    assert fake_home.auth_attempts == 1


async def test_when_home_assistant_does_not_tell_its_services_entities_still_count(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.on_command = lambda message: (
        Fail("unknown_error", "Unknown error") if message["type"] == "get_services" else None
    )
    home = await connect(fake_home, UNLOCK, of("entity_id", "lock.none"))
    assert missing(home, 0) == []
    assert missing(home, 1) == ["lock.none is missing"]


async def test_after_a_restart_things_are_as_they_are_then(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    await fake_home.stop()
    fake_home.set_state("lock.front_door", None)
    fake_home.state = "STARTING"
    await fake_home.start()
    await until(lambda: fake_home.auth_attempts == 2)
    await home.connected()
    assert missing(home) == ["lock.front_door is missing"]
    fake_home.set_state("lock.front_door", "locked")
    await until(lambda: missing(home) == [])


async def test_an_entity_that_the_service_does_nothing_to_is_told(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    """Home Assistant passes over it and reports success."""
    fake_home.add_service("lock", "unlock", target={"entity": [{"domain": ["lock"]}]})
    fake_home.set_state("light.hall", "off")
    fake_home.set_state("group.doors", "on")
    home = await connect(
        fake_home,
        {"action": "lock.unlock", "target": {"entity_id": "light.hall"}},
        {"action": "lock.unlock", "target": {"entity_id": "group.doors"}},
        {"action": "lock.unlock", "target": {"entity_id": "lock.front_door"}},
    )
    with pytest.raises(TargetUnavailable, match=r"lock\.unlock does nothing to light\.hall"):
        home.check(home.plans[0])
    home.check(home.plans[1])
    home.check(home.plans[2])


async def test_a_sequence_is_not_tried_with_a_token_that_may_run_none(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    """It would be refused, and the use be spent although nothing can have run."""
    fake_home.admin = False
    home = await connect(
        fake_home,
        [{"action": "lock.unlock", "target": {"entity_id": "lock.front_door"}}, {"delay": 1}],
        {"action": "lock.unlock", "target": {"entity_id": "lock.front_door"}},
    )
    with pytest.raises(TargetUnavailable, match="administrator"):
        home.check(home.plans[0])
    home.check(home.plans[1])
