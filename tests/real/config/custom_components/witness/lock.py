"""Locks: one that works, one out of reach, one that never says how it is, and one that comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import voluptuous as vol
from homeassistant.components.lock import LockEntity, LockEntityFeature
from homeassistant.helpers import entity_platform, entity_registry
from homeassistant.helpers.device_registry import DeviceInfo

from . import DOMAIN
from .entity import WitnessEntity

if TYPE_CHECKING:
    from homeassistant.config_entries import ConfigEntry
    from homeassistant.core import HomeAssistant, ServiceCall
    from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

VISITING = "lock.visiting"


class WitnessLock(WitnessEntity, LockEntity):
    """A lock that can also open its door."""

    _attr_supported_features = LockEntityFeature.OPEN

    def __init__(self, entity_id: str, *, available: bool = True, reports: bool = True) -> None:
        """Lock it, if it reports its state at all."""
        super().__init__(entity_id, available=available)
        self._reports = reports
        self._show(locked=True)

    def _show(self, *, locked: bool, opened: bool = False) -> None:
        if self._reports:
            self._attr_is_locked = locked
            self._attr_is_open = opened

    async def async_lock(self, **_kwargs: Any) -> None:
        """Lock the door."""
        self._show(locked=True)
        self.acted("lock")

    async def async_unlock(self, **_kwargs: Any) -> None:
        """Unlock the door."""
        self._show(locked=False)
        self.acted("unlock")

    async def async_open(self, **_kwargs: Any) -> None:
        """Open the door."""
        self._show(locked=False, opened=True)
        self.acted("open")


class FrontDoor(WitnessLock):
    """A lock that belongs to a device."""

    _attr_device_info = DeviceInfo(identifiers={(DOMAIN, "front_door")}, name="Front door")


async def async_setup_entry(
    hass: HomeAssistant, _entry: ConfigEntry, add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the locks, and the services by which one comes and goes."""
    add_entities(
        [
            FrontDoor("lock.front_door"),
            WitnessLock("lock.garden_gate", available=False),
            WitnessLock("lock.cellar", reports=False),
        ]
    )

    async def add_entity(_call: ServiceCall) -> None:
        if hass.states.get(VISITING) is None:
            await platform.async_add_entities([WitnessLock(VISITING)])

    async def remove_entity(_call: ServiceCall) -> None:
        witness = hass.data[DOMAIN]
        if (entity := witness.entities.get(VISITING)) is not None:
            await entity.async_remove(force_remove=True)
            entity_registry.async_get(hass).async_remove(VISITING)

    platform = entity_platform.async_get_current_platform()
    hass.services.async_register(DOMAIN, "add_entity", add_entity, vol.Schema({}))
    hass.services.async_register(DOMAIN, "remove_entity", remove_entity, vol.Schema({}))
