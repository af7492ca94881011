"""What can be known of an action before it runs: the command, its targets, whether it refunds."""

from typing import Any

import pytest

from otsd.actionfile import read_plan
from otsd.core.actions import Plan, Reach, Target, doubts, plan

UNLOCK: dict[str, Any] = {"action": "lock.unlock", "target": {"entity_id": "lock.front_door"}}


def entities(found: Plan) -> list[str]:
    return [target.id for target in found.targets if target.reach is Reach.ENTITY]


# -- call_service or execute_script


@pytest.mark.parametrize(
    "step",
    [
        UNLOCK,
        [UNLOCK],
        {"service": "lock.unlock", "target": {"entity_id": "lock.front_door"}},
        {**UNLOCK, "alias": "Open", "metadata": {}},
        {**UNLOCK, "data": {"code": "1234"}},
        {**UNLOCK, "data": None},
        {"action": "lock.unlock", "data": {"entity_id": "lock.front_door"}},
        {"action": "LOCK.Unlock ", "target": {"entity_id": "lock.front_door"}},
    ],
)
def test_one_plain_step_is_call_service(step: object) -> None:
    found = plan(step)
    assert found.call is not None
    assert (found.call.domain, found.call.service) == ("lock", "unlock")
    assert entities(found) == ["lock.front_door"]


def test_call_service_carries_data_and_target_as_they_stand() -> None:
    call = plan({**UNLOCK, "data": {"code": "12", "list": [1, {"a": None}]}}).call
    assert call is not None
    assert call.data == {"code": "12", "list": [1, {"a": None}]}
    assert call.target == {"entity_id": "lock.front_door"}
    bare = plan({"action": "homeassistant.restart"}).call
    assert bare is not None
    assert (bare.data, bare.target) == ({}, {})


@pytest.mark.parametrize(
    "step",
    [
        [UNLOCK, UNLOCK],
        {**UNLOCK, "service": "lock.unlock"},
        {**UNLOCK, "entity_id": "lock.front_door"},
        {**UNLOCK, "enabled": True},
        {**UNLOCK, "continue_on_error": True},
        {**UNLOCK, "response_variable": "answer"},
        {**UNLOCK, "data_template": {"code": "12"}},
        {**UNLOCK, "anything": 1},
        [{"delay": "00:00:05"}],
        [{"parallel": [UNLOCK]}],
        # templates anywhere: call_service would not render them
        {**UNLOCK, "data": {"code": "{{ token.id }}"}},
        {**UNLOCK, "data": {"a": [{"b": ["{% if x %}"]}]}},
        {**UNLOCK, "data": {"{{ key }}": 1}},
        {**UNLOCK, "data": {"a": "{# note #}"}},
        {**UNLOCK, "target": {"entity_id": ["lock.a", "{{ x }}"]}},
        {**UNLOCK, "target": "{{ x }}"},
        {**UNLOCK, "data": "{{ x }}"},
        {**UNLOCK, "alias": "for {{ token.comment }}"},
        {"action": "lock.{{ 'unlock' }}"},
    ],
)
def test_everything_else_is_execute_script(step: object) -> None:
    found = plan(step)
    assert found.call is None
    assert found.steps == tuple(step if isinstance(step, list) else [step])


@pytest.mark.parametrize("text", ["{ {x} }", "}}", "{", "100 %", "#}", "{x}"])
def test_braces_that_are_no_template_stay_plain(text: str) -> None:
    assert plan({**UNLOCK, "data": {"message": text}}).call is not None


# -- whether an error means that nothing ran


@pytest.mark.parametrize(
    ("step", "refundable"),
    [
        (UNLOCK, True),
        ([UNLOCK], True),
        ({**UNLOCK, "service": None}, True),
        ({**UNLOCK, "data": {"code": "{{ token.id }}"}}, True),
        ({"action": "notify.notify", "data": {"message": "hi"}}, True),
        ({"action": "script.open"}, False),
        ({"action": "SCRIPT.open"}, False),
        ({"service": "script.turn_on", "target": {"entity_id": "script.open"}}, False),
        ({"action": "homeassistant.turn_on", "target": {"entity_id": "script.open"}}, False),
        ({"action": "homeassistant.turn_on", "data": {"entity_id": "light.a, script.b"}}, False),
        ({"action": "{{ 'lock.unlock' }}"}, False),
        ([UNLOCK, UNLOCK], False),
        ([UNLOCK, {"delay": 1}], False),
        ([{"sequence": [UNLOCK]}], False),
        ([{"parallel": [UNLOCK]}], False),
        ([{"delay": 1}], False),
        ([{"event": "x"}], False),
    ],
)
def test_a_use_can_come_back_only_after_one_step_that_is_no_script(
    step: object, refundable: bool
) -> None:
    assert plan(step).refundable is refundable


# -- what must be there


@pytest.mark.parametrize(
    "step",
    [
        {"action": "lock.unlock", "target": {"entity_id": ["lock.a", "lock.b"]}},
        {"action": "lock.unlock", "target": {"entity_id": "lock.a, lock.b"}},
        {"action": "lock.unlock", "target": {"entity_id": ["LOCK.A", " lock.b "]}},
        {"action": "lock.unlock", "data": {"entity_id": "lock.a,lock.b"}},
        {"action": "lock.unlock", "data_template": {"entity_id": "lock.a,lock.b"}},
        {"action": "lock.unlock", "entity_id": ["lock.a", "lock.b", "lock.a"]},
        {
            "action": "lock.unlock",
            "target": {"entity_id": "lock.a"},
            "data": {"entity_id": "lock.b"},
        },
        {"action": "lock.unlock", "target": {"entity_id": ["lock.a", "{{ x }}", "lock.b", ""]}},
    ],
)
def test_entities_are_found_wherever_home_assistant_takes_them(step: object) -> None:
    assert entities(plan(step)) == ["lock.a", "lock.b"]


@pytest.mark.parametrize("value", ["all", "ALL", "none", "", None, [], "{{ x }}", ["all"]])
def test_what_names_no_entity_asks_for_none(value: object) -> None:
    found = plan({"action": "light.turn_on", "target": {"entity_id": value}})
    assert found.targets == ()
    assert found.services == ("light.turn_on",)


def test_areas_devices_floors_and_labels_keep_their_service() -> None:
    found = plan(
        {
            "action": "light.turn_on",
            "target": {
                "area_id": "hall, Kitchen",
                "device_id": ["d1"],
                "floor_id": "up",
                "label_id": ["night"],
            },
        }
    )
    assert set(found.targets) == {
        Target(Reach.AREA, "hall", "light.turn_on"),
        Target(Reach.AREA, "Kitchen", "light.turn_on"),
        Target(Reach.DEVICE, "d1", "light.turn_on"),
        Target(Reach.FLOOR, "up", "light.turn_on"),
        Target(Reach.LABEL, "night", "light.turn_on"),
    }


def test_targets_are_found_at_any_depth_of_a_sequence() -> None:
    found = read_plan(
        """
        - if: [{condition: state, entity_id: binary_sensor.dark, state: "on"}]
          then: {action: light.turn_on, target: {entity_id: light.then}}
          else: [{action: light.turn_on, target: {entity_id: light.else}}]
        - choose:
            - conditions: "{{ true }}"
              sequence: [{action: switch.turn_on, target: {entity_id: switch.choice}}]
          default:
            - action: switch.turn_off
              target: {entity_id: switch.default}
        - repeat:
            count: 2
            sequence: {action: cover.open_cover, target: {entity_id: cover.repeated}}
        - parallel:
            - [{action: lock.unlock, target: {entity_id: lock.first}}]
            - sequence: [{action: lock.unlock, target: {entity_id: lock.second}}]
        - sequence: [{sequence: [{action: fan.turn_on, data: {entity_id: fan.deep}}]}]
        - scene: scene.movie
        """
    )
    assert entities(found) == [
        *("light.then", "light.else", "switch.choice", "switch.default", "cover.repeated"),
        *("lock.first", "lock.second", "fan.deep", "scene.movie"),
    ]
    assert found.services == (
        *("light.turn_on", "switch.turn_on", "switch.turn_off", "cover.open_cover"),
        *("lock.unlock", "fan.turn_on", "scene.turn_on"),
    )


def test_steps_that_are_switched_off_need_nothing() -> None:
    found = plan(
        [
            {**UNLOCK, "enabled": False},
            {"parallel": [{"action": "light.turn_on", "entity_id": "light.a"}], "enabled": False},
            {"action": "fan.turn_on", "target": {"entity_id": "fan.b"}, "enabled": True},
        ]
    )
    assert entities(found) == ["fan.b"]
    assert found.services == ("fan.turn_on",)


@pytest.mark.parametrize(
    "place",
    [
        "data",
        "target",
        "metadata",
        "variables",
        "event_data",
        "data_template",
        "wait_for_trigger",
        "event_data_template",
    ],
)
def test_what_looks_like_a_step_inside_data_is_none(place: str) -> None:
    inner = {"action": "open the app", "entity_id": "light.none"}
    found = plan([UNLOCK, {"event": "x", place: {"actions": [inner]}}])
    assert found.services == ("lock.unlock",)
    assert entities(found) == ["lock.front_door"]


def test_the_items_of_a_loop_are_data() -> None:
    item = {"action": "not a service", "entity_id": "light.none"}
    found = plan([{"repeat": {"for_each": [item], "sequence": [UNLOCK]}}])
    assert found.services == ("lock.unlock",)


def test_an_actionable_notification_is_one_plain_step() -> None:
    message = {"message": "Open?", "data": {"actions": [{"action": "OPEN", "title": "Open"}]}}
    found = plan({"action": "notify.mobile_app_phone", "data": message})
    assert found.call is not None
    assert found.services == ("notify.mobile_app_phone",)


@pytest.mark.parametrize(
    "document",
    [
        *(None, True, 7, "lock.unlock", [], {}, [{}], [None], ["lock.unlock"], [[UNLOCK]]),
        {"target": {"entity_id": "lock.a"}},
        {"delay": 5},
        {"action": "unlock"},
        {"action": "lock.unlock.now"},
        {"action": "lock unlock"},
        {"action": "löck.unlock"},
        {"action": ""},
        [UNLOCK, {"choose": [{"sequence": [{"action": "nonsense"}]}]}],
    ],
)
def test_what_is_no_action_is_refused_with_a_sentence(document: object) -> None:
    with pytest.raises(
        ValueError, match=r"no steps|one step|needs the key action|is not an action"
    ):
        plan(document)


@pytest.mark.parametrize(
    ("yaml", "doubt"),
    [
        ("{action: lock.unlock, target: {entity_id: lock.front_door}}", None),
        ("{action: script.open}", None),
        ("{action: lock.unlock, target: {entity_id: '{{ which }}'}}", "template"),
        ("{action: lock.unlock, target: '{{ which }}'}", "template"),
        ("[{action: lock.unlock, data: {entity_id: ['{{ which }}']}}]", "template"),
        ("{action: lock.unlock, target: {entity_id: none}}", "nothing to act on"),
        ("{action: lock.unlock, target: {entity_id: []}}", "nothing to act on"),
        ("{action: lock.unlock, target: {entity_id: all}}", None),
        ("{action: lock.unlock, enabled: false}", "switched off"),
    ],
)
def test_what_would_report_success_for_nothing_is_doubted(yaml: str, doubt: str | None) -> None:
    found = doubts(read_plan(yaml).steps)
    assert len(found) == (doubt is not None)
    assert doubt is None or doubt in found[0]
