"""One way to look at two Home Assistants: the fake and the real one.

A scenario is written once, against `House`. It counts what really ran: in the real one by its
witness (``tests/real``), in the fake by what arrived and was not refused.

    await house.start()
    ...
    assert house.ran("a key") == 1          # how often witness.record ran with this key
    await house.caught_up()
    assert len(house.heard(token_id)) == 1  # what an automation heard of a token
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from otsd.core.events import EVENT_TYPE
from tests.fakes.home_assistant import (
    After,
    Answer,
    Call,
    Fail,
    FakeHomeAssistant,
    Proceed,
)
from tests.real.home_assistant import HomeAssistant

FRONT_DOOR = "lock.front_door"
VISITING = "lock.visiting"
LATER = "script.later"

_STATES = {
    FRONT_DOOR: "locked",
    "lock.garden_gate": "unavailable",
    "lock.cellar": "unknown",
    "light.hall": "off",
}
_AREAS = {
    "lock.front_door": "hall",
    "light.hall": "hall",
    "lock.garden_gate": "garden",
}
_SCRIPT = """
  later:
    alias: Later
    sequence:
      - action: witness.record
        data:
          key: later
"""


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class House(ABC):
    """A Home Assistant with a witness, whose life is in the hands of a test."""

    url: str
    token: str

    # What it did

    @abstractmethod
    def ran(self, key: str) -> int:
        """Tell how often ``witness.record`` ran with this key."""

    @abstractmethod
    def opened(self) -> int:
        """Tell how often the front door was unlocked."""

    @abstractmethod
    def heard(self, *tokens: str) -> list[dict[str, Any]]:
        """Return the data of every event of these tokens that an automation heard, in order."""

    @abstractmethod
    def notified(self) -> list[dict[str, Any]]:
        """Return the notifications that ``notify.witness`` sent, in order."""

    @abstractmethod
    async def caught_up(self) -> None:
        """Wait until the automation has heard everything that was fired before."""

    @abstractmethod
    def refusals(self) -> int:
        """Tell how often somebody came with a wrong access token."""

    @abstractmethod
    def traces(self) -> Iterable[tuple[str, bytes]]:
        """Return everything that it was told or has written, with a name of each."""

    # Its life

    @abstractmethod
    async def start(self, *, starting: float = 0) -> None:
        """Start it and wait until its entities are there.

        With ``starting`` it says STARTING for so many seconds, then RUNNING.
        """

    @abstractmethod
    async def running(self) -> None:
        """Wait until it says RUNNING."""

    @abstractmethod
    async def is_starting(self) -> bool:
        """Tell whether it says STARTING."""

    @abstractmethod
    async def kill(self) -> None:
        """End it at once, without a goodbye."""

    @abstractmethod
    async def freeze(self) -> None:
        """Make it stand still, with its connections open."""

    @abstractmethod
    async def thaw(self) -> None:
        """Let it go on."""

    # What it has

    @abstractmethod
    async def make_available(self, entity_id: str, *, available: bool) -> None:
        """Change whether an entity can be reached."""

    @abstractmethod
    async def have_visiting(self, *, there: bool) -> None:
        """Add or remove the entity ``lock.visiting``."""

    @abstractmethod
    async def have_later(self, *, there: bool) -> None:
        """Add or remove the script ``script.later``, which is a service of its own."""

    @abstractmethod
    async def put(self, entity_id: str, area: str | None) -> None:
        """Put an entity into an area, or into none."""


class FakeHouse(House):
    """The fake: what its witness would do is done here."""

    def __init__(self, home: FakeHomeAssistant) -> None:
        """Furnish a fake that has just been made."""
        self.home = home
        self.token = home.token
        self._areas = dict(_AREAS)
        self._ran: list[str] = []
        self._opened = 0
        self._life: asyncio.Task[None] | None = None
        home.on_call = self._call
        home.on_render = self._render
        for domain, service in (
            ("witness", "record"),
            ("notify", "witness"),
            ("script", "half"),
        ):
            home.add_service(domain, service)
        for entity_id, state in _STATES.items():
            home.set_state(entity_id, state)

    @property
    def url(self) -> str:  # type: ignore[override]
        """Where it is."""
        return self.home.url

    def _call(self, call: Call) -> Answer:
        """Do what the witness and the scripts of the real one do."""
        if call.kind == "call_service":
            name = f"{call.domain}.{call.service}"
            steps: list[Any] = [{"action": name, "data": call.service_data}]
        else:
            steps = call.sequence
        pause, answer = self._run(steps, call.variables)
        return After(pause, answer) if pause else answer

    def _run(self, steps: list[Any], variables: Mapping[str, Any]) -> tuple[float, Answer]:
        pause = 0.0
        for step in steps:
            data = step.get("data", {})
            match step["action"]:
                case "lock.unlock":
                    self._opened += 1
                case "script.later":
                    self._ran.append("later")
                case "script.half":
                    self._ran.append("half_first")
                    return pause, Fail("service_validation_error", "This step always fails")
                case "witness.record" if "refuse" in data:
                    return pause, Fail("service_validation_error", data["refuse"])
                case "witness.record":
                    key = data["key"]
                    if key == "{{ token.id }}":
                        key = variables["token"]["id"]
                    self._ran.append(key)
                    pause += data.get("seconds", 0)
                case name if name.partition(".")[2] not in self.home.services.get(
                    name.partition(".")[0], {}
                ):
                    return pause, Fail("service_validation_error", f"Action {name} not found")
        return pause, Proceed()

    def _render(self, _text: str, variables: dict[str, Any]) -> Any:
        return [
            [entity for entity, area in self._areas.items() if area == name]
            for _reach, name in variables["asked"]
        ]

    def ran(self, key: str) -> int:
        return self._ran.count(key)

    def opened(self) -> int:
        return self._opened

    def heard(self, *tokens: str) -> list[dict[str, Any]]:
        return [
            event.data
            for event in self.home.events
            if event.event_type == EVENT_TYPE
            and event.ha_state == "RUNNING"
            and event.data["token_id"] in tokens
        ]

    def notified(self) -> list[dict[str, Any]]:
        return [call.service_data for call in self.home.calls if call.domain == "notify"]

    async def caught_up(self) -> None:
        pass

    def refusals(self) -> int:
        return self.home.auth_attempts

    def traces(self) -> Iterator[tuple[str, bytes]]:
        for number, message in enumerate(self.home.received):
            yield f"message {number}", json.dumps(message, ensure_ascii=False).encode()

    async def start(self, *, starting: float = 0) -> None:
        self.home.state = "STARTING" if starting else "RUNNING"
        await self.home.start()
        if starting:
            self._life = asyncio.create_task(self._run_after(starting))

    async def _run_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.home.state = "RUNNING"

    async def running(self) -> None:
        await until(lambda: self.home.state == "RUNNING")

    async def is_starting(self) -> bool:
        return self.home.state == "STARTING"

    async def kill(self) -> None:
        if self._life is not None:
            self._life.cancel()
        await self.home.stall()  # a fake that stands still says no goodbye
        await self.home.stop()

    async def freeze(self) -> None:
        await self.home.stall()

    async def thaw(self) -> None:
        await self.home.resume()

    async def make_available(self, entity_id: str, *, available: bool) -> None:
        self.home.set_state(entity_id, "locked" if available else "unavailable")

    async def have_visiting(self, *, there: bool) -> None:
        self.home.set_state(VISITING, "locked" if there else None)

    async def have_later(self, *, there: bool) -> None:
        if there:
            self.home.add_service("script", "later")
        else:
            self.home.remove_service("script", "later")

    async def put(self, entity_id: str, area: str | None) -> None:
        if area is None:
            self._areas.pop(entity_id, None)
        else:
            self._areas[entity_id] = area
        self.home.fire("entity_registry_updated", {"action": "update", "entity_id": entity_id})


class RealHouse(House):
    """The real one, seen through what its witness wrote."""

    def __init__(self, home: HomeAssistant) -> None:
        """Take one that has been prepared."""
        self.home = home
        self.url = home.url
        self.token = home.token
        self._offset = 0
        self._ran: Counter[str] = Counter()
        self._opened = 0
        self._events = 0
        self._heard: defaultdict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self._notified: list[dict[str, Any]] = []
        self._sentinels: set[str] = set()

    def _read(self) -> None:
        """Read what the witness has written since the last time: over many rounds that is much."""
        path = self.home.folder / "witness.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            self._note(json.loads(line))

    def _note(self, seen: dict[str, Any]) -> None:
        match seen:
            case {"key": "event", "data": {"sentinel": name}}:
                self._sentinels.add(name)
            case {"key": "event", "data": data}:
                self._events += 1
                self._heard[str(data.get("token_id"))].append((self._events, data))
            case {"key": key}:
                self._ran[key] += 1
            case {"entity": "lock.front_door", "action": "unlock"}:
                self._opened += 1
            case {"notify": "notify.witness"}:
                self._notified.append(seen)

    def ran(self, key: str) -> int:
        self._read()
        return self._ran[key]

    def opened(self) -> int:
        self._read()
        return self._opened

    def heard(self, *tokens: str) -> list[dict[str, Any]]:
        self._read()
        found = sorted(
            (each for token in tokens for each in self._heard[token]), key=lambda each: each[0]
        )
        return [data for _, data in found]

    def notified(self) -> list[dict[str, Any]]:
        self._read()
        return list(self._notified)

    async def caught_up(self) -> None:
        # the automation works off its events in order
        name = secrets.token_hex(8)
        await self.home.fire(EVENT_TYPE, {"sentinel": name})

        def came() -> bool:
            self._read()
            return name in self._sentinels

        await until(came)

    def refusals(self) -> int:
        return self.home.log().count("Login attempt or request with invalid authentication")

    def traces(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self.home.folder.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()

    async def start(self, *, starting: float = 0) -> None:
        await self.home.start(wait=False, delay=starting)
        await self.home.wait_reachable()
        while await self.home.entity(FRONT_DOOR) is None:
            await asyncio.sleep(0.02)

    async def running(self) -> None:
        await self.home.wait_running()

    async def is_starting(self) -> bool:
        return bool((await self.home.command("get_config"))["state"] == "STARTING")

    async def kill(self) -> None:
        await self.home.kill()

    async def freeze(self) -> None:
        self.home.freeze()

    async def thaw(self) -> None:
        self.home.thaw()

    async def make_available(self, entity_id: str, *, available: bool) -> None:
        data = {"entity_id": entity_id, "available": available}
        await self.home.call("witness", "availability", data)

    async def have_visiting(self, *, there: bool) -> None:
        await self.home.call("witness", "add_entity" if there else "remove_entity")

    async def have_later(self, *, there: bool) -> None:
        path = self.home.folder / "configuration.yaml"
        text = path.read_text().replace(_SCRIPT, "\n")
        path.write_text(text.replace("\nscript:\n", f"\nscript:{_SCRIPT}") if there else text)
        await self.home.call("script", "reload")

    async def put(self, entity_id: str, area: str | None) -> None:
        await self.home.command("config/entity_registry/update", entity_id=entity_id, area_id=area)
