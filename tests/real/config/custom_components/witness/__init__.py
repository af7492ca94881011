"""Witness: writes down what Home Assistant really did, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import homeassistant.helpers.config_validation as cv
import voluptuous as vol
from homeassistant.config_entries import SOURCE_IMPORT
from homeassistant.const import EVENT_HOMEASSISTANT_START, Platform
from homeassistant.core import SupportsResponse
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError

if TYPE_CHECKING:
    from homeassistant.config_entries import ConfigEntry
    from homeassistant.core import Event, HomeAssistant, ServiceCall
    from homeassistant.helpers.typing import ConfigType

    from .entity import WitnessEntity

DOMAIN = "witness"
PLATFORMS = [Platform.LIGHT, Platform.LOCK, Platform.NOTIFY]
CONFIG_SCHEMA = cv.empty_config_schema(DOMAIN)

RECORD = vol.Schema(
    {
        vol.Required("key"): cv.string,
        vol.Optional("data"): dict,
        vol.Optional("seconds", default=0): vol.Coerce(float),
        vol.Optional("fail"): cv.string,
        vol.Optional("refuse"): cv.string,
    }
)
ANSWER = vol.Schema({vol.Required("key"): cv.string, vol.Optional("data"): dict})
AVAILABILITY = vol.Schema({vol.Required("entity_id"): cv.entity_ids, vol.Required("available"): cv.boolean})
MESSAGE = vol.Schema(
    {
        vol.Required("message"): cv.string,
        vol.Optional("title"): cv.string,
        vol.Optional("data"): dict,
        vol.Optional("target"): cv.ensure_list,
    }
)

LONGEST_START = 14.0
"""Home Assistant waits no longer than 15 s for those who listen for its start."""


class Witness:
    """Writes to the file, and knows the entities."""

    def __init__(self, path: str) -> None:
        """Open the file."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.entities: dict[str, WitnessEntity] = {}

    def record(self, **what: Any) -> None:
        """Write one line, whole and in order; after this it survives the end of the process."""
        os.write(self._descriptor, json.dumps(what, default=str).encode() + b"\n")


async def async_setup(hass: HomeAssistant, _config: ConfigType) -> bool:
    """Open the file, register the services, and see that there is a configuration entry."""
    witness = await hass.async_add_executor_job(Witness, hass.config.path("witness.jsonl"))
    hass.data[DOMAIN] = witness
    _register_services(hass, witness)
    if not hass.config_entries.async_entries(DOMAIN):
        hass.async_create_task(hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_IMPORT}))
    await _delay_start(hass, float(os.environ.get("WITNESS_START_DELAY") or 0))
    return True


async def async_setup_entry(hass: HomeAssistant, entry: ConfigEntry) -> bool:
    """Add the entities."""
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    return True


async def async_unload_entry(hass: HomeAssistant, entry: ConfigEntry) -> bool:
    """Remove the entities."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def _delay_start(hass: HomeAssistant, seconds: float) -> None:
    """Keep Home Assistant in its starting state, and before it if that is not long enough."""

    async def sleep(_event: Event) -> None:
        await asyncio.sleep(min(seconds, LONGEST_START))

    if seconds:
        hass.bus.async_listen_once(EVENT_HOMEASSISTANT_START, sleep)
        await asyncio.sleep(max(0.0, seconds - LONGEST_START))


def _register_services(hass: HomeAssistant, witness: Witness) -> None:
    async def record(call: ServiceCall) -> None:
        if "refuse" in call.data:
            raise ServiceValidationError(call.data["refuse"])
        witness.record(**{name: call.data[name] for name in ("key", "data") if name in call.data})
        await asyncio.sleep(call.data["seconds"])
        if "fail" in call.data:
            raise HomeAssistantError(call.data["fail"])

    async def answer(call: ServiceCall) -> dict[str, Any]:
        witness.record(**call.data)
        return {"ok": True}

    async def availability(call: ServiceCall) -> None:
        for entity_id in call.data["entity_id"]:
            if (entity := witness.entities.get(entity_id)) is None:
                message = f"{entity_id} is none of the witness's entities"
                raise ServiceValidationError(message)
            entity.set_available(available=call.data["available"])

    async def notify(call: ServiceCall) -> None:
        witness.record(notify="notify.witness", **{"title": None} | call.data)

    register = hass.services.async_register
    register(DOMAIN, "record", record, RECORD)
    register(DOMAIN, "answer", answer, ANSWER, supports_response=SupportsResponse.ONLY)
    register(DOMAIN, "availability", availability, AVAILABILITY)
    register("notify", "witness", notify, MESSAGE)
