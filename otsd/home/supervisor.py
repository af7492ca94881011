"""What Home Assistant's Supervisor tells its add-on: where the broker is, and what otsd is called.

Home Assistant itself is reached through it, too, but as always: see `otsd.home.home`. What the
Supervisor does not say in time is not known; nothing here waits for ever, and nothing is kept.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

import aiohttp
from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError
from yarl import URL

from otsd.settings import Port, Secret, Text
from otsd.supervise import Absent, Lost

WEBSOCKET: Final = URL("ws://supervisor/core/websocket")
"""The way to Home Assistant, for the token that the Supervisor gave."""

NO_BROKER: Final = (
    "Home Assistant has no MQTT broker yet; install the Mosquitto broker add-on, or set mqtt.host"
)

_API: Final = URL("http://supervisor")
_DEADLINE: Final = timedelta(seconds=4)
_EMPTY_IS_NONE: Final = BeforeValidator(lambda value: None if value == "" else value)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class MqttService(_Answer):
    """Where the broker is, and who otsd is to it; any add-on may have said so."""

    host: Text
    port: Port
    ssl: bool = False
    username: Annotated[Text | None, _EMPTY_IS_NONE] = None
    password: Annotated[Secret | None, _EMPTY_IS_NONE] = None


class _Self(_Answer):
    slug: str


class Supervisor:
    """The Supervisor's HTTP API, as far as an add-on may use it."""

    def __init__(self, token: SecretStr, *, deadline: timedelta = _DEADLINE) -> None:
        """Take the token that the Supervisor gave, and how long an answer may take."""
        self._token = token
        self._deadline = deadline

    async def mqtt(self) -> MqttService:
        """Return the broker that Home Assistant has.

        Raises:
            Absent: it has none.
            Lost: the Supervisor does not say.

        """
        status, data = await self._get("services/mqtt")
        if status == HTTPStatus.BAD_REQUEST:
            raise Absent(NO_BROKER)
        try:
            return MqttService.model_validate(data)
        except ValidationError as error:
            msg = f"the Supervisor does not say where the MQTT broker is (HTTP {status})"
            raise Lost(msg) from error

    async def page(self) -> str | None:
        """Return the address of otsd's page in Home Assistant's sidebar, if it can be had."""
        with suppress(Lost, ValidationError):
            _, data = await self._get("addons/self/info")
            return f"homeassistant://hassio/ingress/{_Self.model_validate(data).slug}"
        return None

    async def _get(self, path: str) -> tuple[int, Any]:
        """Return the status and what is in the envelope."""
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}"}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=self._deadline.total_seconds())
                ) as http,
                http.get(_API / path, headers=headers, allow_redirects=False) as answer,
            ):
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError, LookupError, RecursionError) as error:
            # a TimeoutError is an OSError, an encoding that nobody knows a LookupError
            raise Lost("the Supervisor does not answer") from error
        return answer.status, body.get("data") if isinstance(body, dict) else None
