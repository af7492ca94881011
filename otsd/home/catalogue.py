"""What Home Assistant has now: its services, the entities that actions name, and how they are.

Home Assistant reports success for a call to an entity that is missing or unavailable, so whether
an action can run is known here, before it is asked. The catalogue follows by subscription: only
the entities that some action names, or that are in an area, device, floor or label that one
names. It belongs to one connection and ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from otsd.core.actions import Reach
from otsd.core.errors import NoAnswer, Refused
from otsd.home.commands import Client, command, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otsd.core.actions import Plan, Target

UNAVAILABLE: Final = "unavailable"
_DEADLINE: Final = timedelta(seconds=20)
# registry events come in bursts, and at start so do services
_SETTLING: Final = 0.3
# plans that were asked about stay known for a while: they are about to be saved, or asked again
_ASKED: Final = 16
# Home Assistant's own rule: a subscription that names one other is refused as a whole
_ENTITY_ID: Final = re.compile(
    r"(?!.*__)(?!_)[a-z0-9_]+(?<!_)\.(?!_)[a-z0-9_]+(?<!_)",
    re.ASCII,
)

_REGISTRY_EVENTS: Final = (
    "entity_registry_updated",
    "device_registry_updated",
    "area_registry_updated",
    "floor_registry_updated",
    "label_registry_updated",
)

# The portable way to the members of an area and its kin: every release renders this. The names
# are variables, so nothing of an action becomes part of the template. What is hidden is left out,
# as an action for an area leaves it out.
_MEMBERS: Final = """
{%- set found = namespace(members=[]) -%}
{%- for reach, id in asked -%}
  {%- if reach == 'area_id' -%}
    {%- set ids = area_entities(id) | list -%}
  {%- elif reach == 'device_id' -%}
    {%- set ids = device_entities(id) | list -%}
  {%- elif reach == 'floor_id' -%}
    {%- set ids = floor_areas(id) | map('area_entities') | sum(start=[]) | list -%}
  {%- else -%}
    {%- set ids = label_entities(id) | list
          + label_areas(id) | map('area_entities') | sum(start=[]) | list
          + label_devices(id) | map('device_entities') | sum(start=[]) | list -%}
  {%- endif -%}
  {%- set found.members = found.members + [ids | reject('is_hidden_entity') | list] -%}
{%- endfor -%}
{{ found.members | to_json }}
"""

_T = TypeVar("_T")
_Members: TypeAlias = "Mapping[tuple[Reach, str], Sequence[str]]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A service as ``get_services`` describes it."""

    domains: frozenset[str] = field(default_factory=frozenset)
    """The domains of the entities that it says it acts on; empty where it does not say."""
    must_respond: bool = False
    """Whether it can only be called for its response."""


class Catalogue:
    """The part of one Home Assistant that actions need; `follow` keeps it true."""

    def __init__(self, client: Client, plans: Callable[[], Iterable[Plan]]) -> None:
        """Take the connection and where the plans of all actions can be read."""
        self._client = client
        self._plans = plans
        self._services: dict[str, Service] | None = None
        self._states: dict[str, str] = {}
        self._members: _Members = {}
        self._watched: frozenset[str] = frozenset()
        self._unwatch: Callable[[], None] | None = None
        self._asked: deque[Plan] = deque(maxlen=_ASKED)
        self._stale = asyncio.Event()
        self._services_stale = False
        self._refreshing = asyncio.Lock()

    # -- answering -------------------------------------------------------------------------

    def service(self, name: str) -> Service | None:
        """Return a service, ``None`` if there is no such thing."""
        return None if self._services is None else self._services.get(name)

    async def find(self, name: str) -> Service | None:
        """Return a service as `service` does, having read what came since; raises `HomeError`."""
        async with self._refreshing:
            if self._services_stale:
                await self._read_services()
        return self.service(name)

    def missing(self, plan: Plan) -> Sequence[str]:
        """Say what a plan needs that is missing or unavailable; empty if it can run."""
        faults = []
        if self._services is not None:
            faults = [
                f"Home Assistant has no action {name}"
                for name in plan.services
                if name not in self._services
            ]
        for target in plan.targets:
            if target.reach is Reach.ENTITY:
                state = self._states.get(target.id)
                if state is None:
                    faults.append(f"{target.id} is missing")
                elif state == UNAVAILABLE:
                    faults.append(f"{target.id} is unavailable")
                elif not self._acts_on(target):
                    # Home Assistant passes over it and reports success
                    faults.append(f"{target.service} does nothing to {target.id}")
            elif fault := self._nothing_in(target):
                faults.append(fault)
        return faults

    def _acts_on(self, target: Target) -> bool:
        service = self.service(target.service)
        domain = target.id.partition(".")[0]
        return (
            service is None
            or not service.domains
            or domain in service.domains
            or domain in ("group", target.service.partition(".")[0])
        )

    def _nothing_in(self, target: Target) -> str | None:
        """At least one entity that the service acts on must be there and available."""
        kind = target.reach.removesuffix("_id")
        domains = self._domains(target.service)
        of_domain = [
            entity
            for entity in self._members.get((target.reach, target.id), ())
            if not domains or entity.partition(".")[0] in domains
        ]
        if not of_domain:
            return f"the {kind} {target.id} has no entity for {target.service or 'the action'}"
        if all(self._states.get(entity, UNAVAILABLE) == UNAVAILABLE for entity in of_domain):
            name = target.service or "the action"
            return f"the {kind} {target.id} has no available entity for {name}"
        return None

    def _domains(self, name: str) -> frozenset[str]:
        """Return the domains of the entities that a service acts on; empty for any."""
        domain = name.partition(".")[0]
        service = self.service(name)
        if service is not None:
            return service.domains and service.domains | {domain}
        # a template, or Home Assistant does not tell its actions
        return frozenset() if domain in ("", "homeassistant") else frozenset({domain})

    # -- following -------------------------------------------------------------------------

    async def begin(self) -> None:
        """Read everything once and subscribe to what changes it; raises `HomeError`."""
        for event_type in ("service_registered", "service_removed"):
            await self._on_event(event_type, self._hear_service)
        for event_type in _REGISTRY_EVENTS:
            await self._on_event(event_type, lambda _: self._stale.set())
        self._services_stale = True
        await self.refresh()

    async def follow(self) -> None:
        """Refresh whenever something said that it changed; raises `HomeError` when it cannot."""
        while True:
            await self._stale.wait()
            await asyncio.sleep(_SETTLING)
            self._stale.clear()
            await self.refresh()

    def actions_changed(self) -> None:
        """Hear that other entities may be named now."""
        self._stale.set()

    async def refresh(self, also: Plan | None = None) -> None:
        """Make sure that what the actions (and ``also`` this plan) name is known."""
        async with self._refreshing:
            if also is not None and also not in self._asked:
                self._asked.append(also)
            if self._services_stale:
                await self._read_services()
            plans = (*self._plans(), *self._asked)
            targets = {target for plan in plans for target in plan.targets}
            members = await self._read_members(targets)
            named = {target.id for target in targets if target.reach is Reach.ENTITY}
            await self._watch(named, members)

    async def _on_event(
        self, event_type: str, handler: Callable[[Mapping[str, Any]], None]
    ) -> None:
        try:
            await subscribe(
                self._client,
                lambda message: handler(message["event"]["data"]),
                "subscribe_events",
                _DEADLINE,
                event_type=event_type,
            )
        except Refused as error:
            # an older release, or not an administrator: then it is known from the next refresh on
            _log.debug("no subscription to %s: %s", event_type, error)

    def _hear_service(self, data: Mapping[str, Any]) -> None:
        # both events are alike but for their type, and what counts is what is there now; reading
        # all services at once is worth it only when an action names this one
        self._services_stale = True
        name = f"{data.get('domain')}.{data.get('service')}".lower()
        if any(name in plan.services for plan in self._plans()):
            self._stale.set()

    async def _read_services(self) -> None:
        self._services_stale = False
        try:
            found = await command(self._client, "get_services", _DEADLINE)
        except Refused as error:
            # then Home Assistant itself says at the call that there is no such service
            _log.warning("Home Assistant does not tell its actions: %s", error)
            self._services = None
            return
        except BaseException:
            self._services_stale = True
            raise
        self._services = {
            f"{domain}.{name}": _service(description)
            for domain, services in found.items()
            for name, description in services.items()
        }

    async def _read_members(self, targets: Iterable[Target]) -> _Members:
        asked = sorted({(t.reach, t.id) for t in targets if t.reach is not Reach.ENTITY})
        if not asked:
            return {}
        arrived: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

        def hear(message: Mapping[str, Any]) -> None:
            event = message["event"]
            if not arrived.done() and ("result" in event or event.get("level") != "WARNING"):
                arrived.set_result(event)

        try:
            end = await subscribe(
                self._client,
                hear,
                "render_template",
                _DEADLINE,
                template=_MEMBERS,
                variables={"asked": [[reach.value, name] for reach, name in asked]},
                report_errors=True,
            )
        except Refused as error:
            _log.warning("Home Assistant does not tell its areas: %s", error)
            return self._members
        try:
            event = await _in_time(arrived, "what is in its areas")
        finally:
            end()
        if "result" not in event:
            _log.warning("Home Assistant does not tell its areas: %s", event.get("error"))
            return self._members
        return dict(zip(asked, event["result"], strict=True))

    async def _watch(self, named: Iterable[str], members: _Members) -> None:
        entities = frozenset(named).union(*members.values())
        wanted = frozenset(entity for entity in entities if _ENTITY_ID.fullmatch(entity))
        if wanted != self._watched:
            states: dict[str, str] = {}
            end = await self._subscribe_entities(sorted(wanted), states) if wanted else None
            # only now, so that meanwhile nothing seems to be missing
            self._states, self._watched = states, wanted
            if self._unwatch is not None:
                self._unwatch()
            self._unwatch = end
        self._members = members

    async def _subscribe_entities(
        self, entities: Sequence[str], states: dict[str, str]
    ) -> Callable[[], None]:
        """Keep these states up to date; returns once they are known. No entities would mean all."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hear(message: Mapping[str, Any]) -> None:
            _apply(states, message["event"])
            if not first.done():
                first.set_result(None)

        end = await subscribe(
            self._client, hear, "subscribe_entities", _DEADLINE, entity_ids=entities
        )
        try:
            await _in_time(first, "the states of its entities")
        except BaseException:
            end()
            raise
        return end


async def _in_time(arriving: asyncio.Future[_T], what: str) -> _T:
    try:
        async with asyncio.timeout(_DEADLINE.total_seconds()):
            return await arriving
    except TimeoutError as error:
        msg = f"Home Assistant did not tell {what}"
        raise NoAnswer(msg) from error


def _service(description: Mapping[str, Any]) -> Service:
    target = description.get("target") or {}
    filters = target.get("entity") or []
    domains: set[str] = set()
    for entity in filters if isinstance(filters, list) else [filters]:
        of = entity.get("domain") or []
        domains.update([of] if isinstance(of, str) else of)
    response = description.get("response")
    return Service(
        frozenset(domains),
        must_respond=isinstance(response, dict) and response.get("optional") is False,
    )


def _apply(states: dict[str, str], event: Mapping[str, Any]) -> None:
    """Apply one message of ``subscribe_entities``: a(dded), c(hanged), r(emoved)."""
    for entity, state in event.get("a", {}).items():
        states[entity] = state["s"]
    for entity, change in event.get("c", {}).items():
        if "s" in (new := change.get("+", {})):
            states[entity] = new["s"]
    for entity in event.get("r", ()):
        states.pop(entity, None)
