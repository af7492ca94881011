"""The configuration entry, made by `witness:` in the YAML file."""

from typing import Any

from homeassistant.config_entries import ConfigFlow, ConfigFlowResult

from . import DOMAIN


class WitnessFlow(ConfigFlow, domain=DOMAIN):
    """Makes the only entry there is."""

    async def async_step_import(self, _data: dict[str, Any] | None) -> ConfigFlowResult:
        """Make the entry."""
        await self.async_set_unique_id(DOMAIN)
        self._abort_if_unique_id_configured()
        return self.async_create_entry(title="Witness", data={})
