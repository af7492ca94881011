"""What the entities of all platforms have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeassistant.helpers.entity import Entity

from . import DOMAIN

if TYPE_CHECKING:
    from . import Witness


class WitnessEntity(Entity):
    """An entity whose actions are written down."""

    _attr_should_poll = False

    def __init__(self, entity_id: str, *, available: bool = True) -> None:
        """Name the entity after its id."""
        self.entity_id = entity_id
        domain, _, name = entity_id.partition(".")
        self._attr_unique_id = f"{domain}_{name}"
        self._attr_name = name.replace("_", " ").capitalize()
        self._attr_available = available

    @property
    def witness(self) -> Witness:
        """Tell who writes."""
        witness: Witness = self.hass.data[DOMAIN]
        return witness

    async def async_added_to_hass(self) -> None:
        """Make the entity known to the service that changes availabilities."""
        self.witness.entities[self.entity_id] = self

    async def async_will_remove_from_hass(self) -> None:
        """Forget the entity."""
        self.witness.entities.pop(self.entity_id, None)

    def set_available(self, *, available: bool) -> None:
        """Change the availability."""
        self._attr_available = available
        self.async_write_ha_state()

    def acted(self, action: str, **details: Any) -> None:
        """Write down an action, and the state that came of it."""
        self.witness.record(entity=self.entity_id, action=action, **details)
        self.async_write_ha_state()
