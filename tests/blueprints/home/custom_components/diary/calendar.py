"""A calendar that keeps its events in memory; triggers and actions are Home Assistant's own."""
# mypy: ignore-errors

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeassistant.components.calendar import (
    CalendarEntity,
    CalendarEntityFeature,
    CalendarEvent,
)

if TYPE_CHECKING:
    from datetime import datetime

    from homeassistant.core import HomeAssistant
    from homeassistant.helpers.entity_platform import AddEntitiesCallback
    from homeassistant.helpers.typing import ConfigType, DiscoveryInfoType


class Diary(CalendarEntity):
    """A calendar."""

    _attr_name = "Guests"
    _attr_supported_features = CalendarEntityFeature.CREATE_EVENT

    def __init__(self) -> None:
        """Begin with an empty one."""
        self._events: list[CalendarEvent] = []

    @property
    def event(self) -> None:
        """Tell of no event: the state of the calendar is not what triggers."""
        return

    async def async_get_events(
        self, hass: HomeAssistant, start_date: datetime, end_date: datetime
    ) -> list[CalendarEvent]:
        """Return what happens in between."""
        return [
            each
            for each in self._events
            if each.end_datetime_local > start_date and each.start_datetime_local < end_date
        ]

    async def async_create_event(self, **kwargs: Any) -> None:
        """Enter an event."""
        start, end = kwargs["dtstart"], kwargs["dtend"]
        self._events.append(CalendarEvent(start=start, end=end, summary=kwargs["summary"]))


async def async_setup_platform(
    hass: HomeAssistant,
    config: ConfigType,
    async_add_entities: AddEntitiesCallback,
    discovery_info: DiscoveryInfoType | None = None,
) -> None:
    """Add the calendar."""
    async_add_entities([Diary()])
