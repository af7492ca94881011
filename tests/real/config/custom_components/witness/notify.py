"""A tablet that shows messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeassistant.components.notify import NotifyEntity, NotifyEntityFeature

from .entity import WitnessEntity

if TYPE_CHECKING:
    from homeassistant.config_entries import ConfigEntry
    from homeassistant.core import HomeAssistant
    from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback


class WitnessTablet(WitnessEntity, NotifyEntity):
    """A tablet whose messages are written down."""

    _attr_supported_features = NotifyEntityFeature.TITLE

    async def async_send_message(self, message: str, title: str | None = None) -> None:
        """Show a message."""
        self.witness.record(notify=self.entity_id, title=title, message=message)


async def async_setup_entry(
    _hass: HomeAssistant, _entry: ConfigEntry, add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the tablet."""
    add_entities([WitnessTablet("notify.kitchen_tablet")])
