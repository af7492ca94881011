"""The demo's Home Assistant with a witness: what it was asked to do, and what it did.

    async with HomeAssistant() as ha:
        await ha.call("lock", "unlock", target={"entity_id": "lock.front_door"})
        assert ha.witnessed(entity="lock.front_door") == [{"entity": "lock.front_door", "action": "unlock"}]

It has a second user, who is no administrator, and can be frozen, delayed and killed.
"""

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from otsd.demo import home_assistant
from otsd.demo.home_assistant import (
    POLL_SECONDS,
    START_SECONDS,
    CommandError,
    Connection,
    Credentials,
    NotRunningError,
)
from otsd.demo.provision import Progress

__all__ = ["CommandError", "Connection", "Credentials", "HomeAssistant", "NotRunningError"]

CONFIG = Path(__file__).parent / "config"
"""The configuration folder that instances start with, unless told otherwise."""


class HomeAssistant(home_assistant.HomeAssistant):
    """A real Home Assistant on a port of its own on 127.0.0.1, with a witness."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        template: Path = CONFIG,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Describe an instance; nothing happens before `start`."""
        super().__init__(folder, template=template, cache=cache, progress=progress)

    @property
    def guest_token(self) -> str:
        """A long-lived access token of a user who is no administrator."""
        return (self.folder / "guest-token").read_text()

    # Starting and ending it

    async def start(
        self, *, wait: bool = True, patience: float = START_SECONDS, delay: float = 0
    ) -> None:
        """Start the process.

        `wait=False` returns at once. `delay` keeps it from running for so many seconds: `get_config` says
        STARTING for the last 14 of them, and NOT_RUNNING before.
        """
        self._environment["WITNESS_START_DELAY"] = str(delay)
        await super().start(wait=wait, patience=patience + delay)

    async def stop(self) -> None:
        """End the process in good order, frozen or not."""
        self.thaw()
        await super().stop()

    async def restart(self, *, wait: bool = True, delay: float = 0) -> None:
        """Stop in good order and start again, with everything as it was."""
        await self.stop()
        await self.start(wait=wait, delay=delay)

    def freeze(self) -> None:
        """Make the process stand still: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    async def wait_reachable(self, seconds: float = START_SECONDS) -> str:
        """Wait until it answers, which is before it runs; returns the state it says it is in."""
        async with self._waiting(seconds), self._connected() as connection:
            config = await connection.command("get_config")
        return str(config["state"])

    # Talking to it

    async def entity(self, entity_id: str) -> dict[str, Any] | None:
        """Return the state object of an entity, with its attributes, or None if there is none."""
        states: list[dict[str, Any]] = await self.command("get_states")
        return next((each for each in states if each["entity_id"] == entity_id), None)

    async def state(self, entity_id: str) -> str | None:
        """Return the state of an entity, or None if there is none."""
        entity = await self.entity(entity_id)
        return None if entity is None else str(entity["state"])

    async def call(
        self,
        domain: str,
        service: str,
        data: Mapping[str, Any] | None = None,
        target: Mapping[str, Any] | None = None,
        *,
        answer: bool = False,
    ) -> Any:
        """Run an action, wait until it has finished, and return its response if an answer was asked for."""
        result = await self.command(
            "call_service",
            domain=domain,
            service=service,
            service_data=dict(data or {}),
            **({"target": dict(target)} if target else {}),
            **({"return_response": True} if answer else {}),
        )
        return result["response"] if answer else None

    async def fire(self, event_type: str, data: Mapping[str, Any] | None = None) -> None:
        """Fire an event on the bus."""
        await self.command("fire_event", event_type=event_type, event_data=dict(data or {}))

    async def remove_entry(self, entry_id: str) -> None:
        """Remove a configuration entry, such as `add_mqtt` adds, with its devices and entities."""
        await self.request("DELETE", f"/api/config/config_entries/entry/{entry_id}")

    async def mqtt_devices(self) -> dict[str, dict[str, Any]]:
        """Return the devices that came by MQTT, by the ids that they were discovered with."""
        devices = await self.command("config/device_registry/list")
        return {
            name: device
            for device in devices
            for domain, name in device["identifiers"]
            if domain == "mqtt"
        }

    async def mqtt_entities(self) -> dict[str, dict[str, Any]]:
        """Return what the registry says of the entities that came by MQTT, by their unique ids."""
        entities = await self.command("config/entity_registry/list")
        return {each["unique_id"]: each for each in entities if each["platform"] == "mqtt"}

    async def picture(self, entity_id: str) -> tuple[str, bytes]:
        """Return an image as a dashboard shows it: its type and its bytes."""
        entity = await self.entity(entity_id)
        assert entity is not None, entity_id
        address = self.url + entity["attributes"]["entity_picture"]
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            response.raise_for_status()
            return response.content_type, await response.read()

    # What it did

    def witnessed(self, **fields: Any) -> list[dict[str, Any]]:
        """Return what really ran since the folder was made, in order; only what has these fields."""
        try:
            *lines, _unfinished = (self.folder / "witness.jsonl").read_text().split("\n")
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [
            each for each in found if all(each.get(name) == value for name, value in fields.items())
        ]

    async def wait_witnessed(
        self, count: int = 1, seconds: float = 10, **fields: Any
    ) -> list[dict[str, Any]]:
        """Wait until at least so many things have been witnessed, and return all of them."""
        deadline = time.monotonic() + seconds
        while len(found := self.witnessed(**fields)) < count:
            if time.monotonic() > deadline:
                message = (
                    f"{len(found)} instead of {count} of {fields} were witnessed within {seconds} s"
                )
                raise TimeoutError(message)
            await asyncio.sleep(POLL_SECONDS)
        return found

    # What each has

    async def furnish(self) -> None:
        """Add a guest, and put the entities into areas, and an area on a floor."""
        while await self.entity("lock.front_door") is None:
            await asyncio.sleep(POLL_SECONDS)
        await self._add_guest()
        await self._organize()
        (self.folder / "witness.jsonl").unlink(missing_ok=True)

    async def _add_guest(self) -> None:
        name, password = "guest", secrets.token_urlsafe(12)
        async with self.connection() as connection:
            answer = await connection.command(
                "config/auth/create", name="Guest", group_ids=["system-users"]
            )
            await connection.command(
                "config/auth_provider/homeassistant/create",
                user_id=answer["user"]["id"],
                username=name,
                password=password,
            )
        token = await self._long_lived(await self._log_in(name, password))
        (self.folder / "guest-token").write_text(token)

    async def _organize(self) -> None:
        """Put the entities into areas, and an area on a floor."""
        async with self.connection() as connection:
            for area in await connection.command("config/area_registry/list"):
                await connection.command("config/area_registry/delete", area_id=area["area_id"])
            floor = await connection.command("config/floor_registry/create", name="Ground")
            label = await connection.command("config/label_registry/create", name="Entrance")
            areas = {}
            for name, details in {
                "Hall": {"floor_id": floor["floor_id"]},
                "Garden": {},
                "Attic": {},
            }.items():
                area = await connection.command("config/area_registry/create", name=name, **details)
                areas[name] = area["area_id"]
            for entity_id, details in {
                "lock.front_door": {"area_id": areas["Hall"], "labels": [label["label_id"]]},
                "light.hall": {"area_id": areas["Hall"]},
                "lock.garden_gate": {"area_id": areas["Garden"]},
            }.items():
                await connection.command(
                    "config/entity_registry/update", entity_id=entity_id, **details
                )
