"""A light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeassistant.components.light import LightEntity
from homeassistant.components.light.const import ColorMode

from .entity import WitnessEntity

if TYPE_CHECKING:
    from homeassistant.config_entries import ConfigEntry
    from homeassistant.core import HomeAssistant
    from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback


class WitnessLight(WitnessEntity, LightEntity):
    """A light that is on or off."""

    _attr_color_mode = ColorMode.ONOFF
    _attr_is_on = False
    _attr_supported_color_modes = {ColorMode.ONOFF}  # noqa: RUF012

    async def async_turn_on(self, **_kwargs: Any) -> None:
        """Turn the light on."""
        self._attr_is_on = True
        self.acted("turn_on")

    async def async_turn_off(self, **_kwargs: Any) -> None:
        """Turn the light off."""
        self._attr_is_on = False
        self.acted("turn_off")


async def async_setup_entry(
    _hass: HomeAssistant, _entry: ConfigEntry, add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the light."""
    add_entities([WitnessLight("light.hall")])
