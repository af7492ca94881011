"""Actions: what a token runs, and what must be there in Home Assistant for it to run.

An action is one step or a list of steps, as Home Assistant's script syntax has them, already read
from YAML (``otsd.actionfile``). This module only looks at the structure: which services and
entities are named, whether one plain ``call_service`` does it, and whether an error can have come
after something ran. Whether Home Assistant would take the steps is for Home Assistant to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
TITLE_LENGTH: Final = 200

_SERVICE: Final = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+", re.ASCII)
_PLAIN_KEYS: Final = frozenset({"action", "service", "target", "data", "alias", "metadata"})
# what is below these keys is data for a service, a trigger or a template, never a step
_NOT_STEPS: Final = frozenset(
    {
        "data",
        "data_template",
        "event_data",
        "event_data_template",
        "for_each",
        "metadata",
        "target",
        "variables",
        "wait_for_trigger",
    }
)


class Reach(StrEnum):
    """How a step names what it acts on; the value is Home Assistant's key."""

    ENTITY = "entity_id"
    DEVICE = "device_id"
    AREA = "area_id"
    FLOOR = "floor_id"
    LABEL = "label_id"


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that a step names: this entity, or whatever is in this area, for one service."""

    reach: Reach
    id: str
    service: str


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """A step that Home Assistant's ``call_service`` command runs as it stands."""

    domain: str
    service: str
    data: Mapping[str, object]
    target: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """An action's steps with what there is to know about them before they run.

    ``call`` is set where one ``call_service`` does it, else the steps go to ``execute_script``.
    ``refundable`` says that an error of Home Assistant means that nothing ran: one step that
    calls one service which is no script.
    """

    steps: tuple[Mapping[str, object], ...]
    call: ServiceCall | None
    services: tuple[str, ...]
    targets: tuple[Target, ...]
    refundable: bool


NOTHING: Final = Plan(steps=(), call=None, services=(), targets=(), refundable=False)
"""A plan without steps, which needs nothing of Home Assistant but that it is there."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a token of the action gets when its maker says nothing; ``None`` is without limit."""

    max_uses: int | None = 1
    expires_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """A named action with the YAML that its owner wrote and the plan that was read from it."""

    name: str
    title: str
    yaml: str
    plan: Plan
    defaults: Defaults = field(default_factory=Defaults)
    created_at: datetime | None = None
    updated_at: datetime | None = None


def plan(document: object) -> Plan:
    """Look at the steps of an action.

    Raises:
        ValueError: if the document is no step and no list of steps, or names nothing to do.

    """
    steps: list[Any] = document if isinstance(document, list) else [document]
    if not steps:
        msg = "the action has no steps"
        raise ValueError(msg)
    for step in steps:
        if not isinstance(step, dict) or not step:
            msg = "an action is one step (action:, target:, data:) or a list of steps"
            raise ValueError(msg)
    if isinstance(document, dict) and not document.keys() & {"action", "service"}:
        msg = "a single step needs the key action:, such as lock.unlock"
        raise ValueError(msg)
    calls = tuple(_calls(steps))
    services = [_service(step) for step in calls]
    targets = tuple(target for step in calls for target in _targets(step))
    return Plan(
        steps=tuple(steps),
        call=_plain_call(steps),
        services=tuple(dict.fromkeys(service for service in services if service)),
        targets=tuple(dict.fromkeys(targets)),
        refundable=_refundable(steps, targets),
    )


def doubts(steps: Sequence[Mapping[str, object]]) -> Sequence[str]:
    """Say what of an action would report success although nothing happened."""
    found = []
    if all(step.get("enabled") is False for step in steps):
        found.append("Every step is switched off (enabled: false): this action does nothing.")
    for step in _calls(list(steps)):
        places = [step.get("target"), step.get("data"), step]
        named = [
            place[reach.value]
            for place in places
            if isinstance(place, dict)
            for reach in Reach
            if reach.value in place
        ]
        if _has_template([step.get("target"), *named]):
            found.append(
                "A template names what this acts on, so otsd cannot know whether it is there; "
                "Home Assistant reports success when it is not."
            )
        elif named and all(name.lower() == "none" for value in named for name in _names(value)):
            found.append(f"{_service(step)} names nothing to act on: it does nothing.")
    return list(dict.fromkeys(found))


def _calls(node: object) -> Iterator[Mapping[str, object]]:
    """Every step that calls a service, at any depth, except those that are switched off."""
    if isinstance(node, list):
        for item in node:
            yield from _calls(item)
    elif isinstance(node, dict):
        if node.get("enabled") is False:
            return
        if isinstance(node.get("action", node.get("service")), str):
            yield node
        if isinstance(node.get("scene"), str):  # short for a call of scene.turn_on
            yield {"action": "scene.turn_on", "target": {"entity_id": node["scene"]}}
        for key, value in node.items():
            if key not in _NOT_STEPS:
                yield from _calls(value)


def _service(step: Mapping[str, object]) -> str | None:
    """Return ``lock.unlock``, or ``None`` where a template decides it."""
    name = str(step.get("action", step.get("service"))).strip().lower()
    if _has_template(name):
        return None
    if not _SERVICE.fullmatch(name):
        msg = f"{name[:80]!r} is not an action; write one such as lock.unlock"
        raise ValueError(msg)
    return name


def _targets(step: Mapping[str, object]) -> Iterator[Target]:
    service = _service(step) or ""
    # Home Assistant takes the entity from target, from data, and (older) from the step itself
    for place in (step.get("target"), step.get("data"), step.get("data_template"), step):
        if not isinstance(place, dict):
            continue
        for reach in Reach:
            for name in _names(place.get(reach.value)):
                if reach is not Reach.ENTITY:
                    yield Target(reach, name, service)
                elif name.lower() not in ("all", "none"):
                    yield Target(reach, name.lower(), service)


def _names(value: object) -> Iterator[str]:
    parts: Sequence[object] = value if isinstance(value, list) else str(value or "").split(",")
    for part in parts:
        name = str(part).strip()
        if name and not _has_template(name):
            yield name


def _plain_call(steps: Sequence[Mapping[str, object]]) -> ServiceCall | None:
    step = steps[0]
    if len(steps) > 1 or not step.keys() <= _PLAIN_KEYS or _has_template(step):
        return None
    if ("action" in step) == ("service" in step) or not (service := _service(step)):
        return None
    data, target = step.get("data") or {}, step.get("target") or {}
    if not isinstance(data, dict) or not isinstance(target, dict):
        return None
    domain, _, name = service.partition(".")
    return ServiceCall(domain, name, data, target)


def _refundable(steps: Sequence[Mapping[str, object]], targets: Sequence[Target]) -> bool:
    step = steps[0]
    if len(steps) > 1 or not isinstance(step.get("action", step.get("service")), str):
        return False
    service = _service(step)
    if service is None or service.startswith("script."):
        return False
    # homeassistant.turn_on runs a script when it is pointed at one
    return not any(target.id.startswith("script.") for target in targets)


def _has_template(node: object) -> bool:
    if isinstance(node, str):
        return any(mark in node for mark in ("{{", "{%", "{#"))
    if isinstance(node, dict):
        return any(_has_template(part) for pair in node.items() for part in pair)
    return isinstance(node, list) and any(_has_template(item) for item in node)
