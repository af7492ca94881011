"""The names of topics, and which of them others may have otsd write to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NOT_IN_AN_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Topics:
    """Everything that otsd publishes and hears is below these two.

    ``base`` is ``mqtt.base_topic`` and ``prefix`` is ``mqtt.discovery_prefix``.
    """

    base: str
    prefix: str

    @property
    def id(self) -> str:
        """What the ids of devices, of entities and of the client begin with."""
        # Home Assistant takes these characters alone in the id of a device
        return _NOT_IN_AN_ID.sub("_", self.base)

    # -- what otsd says ------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """``online``, or ``offline`` by the broker."""
        return f"{self.base}/status"

    @property
    def state(self) -> str:
        """The state of the whole service."""
        return f"{self.base}/state"

    @property
    def submission(self) -> str:
        """Every submission that finished."""
        return f"{self.base}/submission"

    def action(self, name: str, what: str) -> str:
        """``state``, ``submission``, ``link`` or ``qr`` of an action."""
        return f"{self.base}/actions/{name}/{what}"

    def token(self, token_id: str, what: str) -> str:
        """``state``, ``submission`` or ``set`` of a token."""
        return f"{self.base}/tokens/{token_id}/{what}"

    # -- devices -------------------------------------------------------------------------------

    @property
    def service_device(self) -> str:
        """The id of the device that stands for otsd."""
        return f"{self.id}_service"

    def action_device(self, name: str) -> str:
        """Return the id of an action's device."""
        return f"{self.id}_action_{name}"

    def token_device(self, token_id: str) -> str:
        """Return the id of a token's device."""
        return f"{self.id}_token_{token_id}"

    def discovery(self, device: str) -> str:
        """Return where Home Assistant learns of a device."""
        return f"{self.prefix}/device/{device}/config"

    # -- what otsd hears -----------------------------------------------------------------------

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it is there."""
        return f"{self.prefix}/status"

    def command(self, verb: str) -> str:
        """Return where a command is sent to; ``+`` is all of them."""
        return f"{self.base}/command/{verb}"

    @property
    def retained(self) -> tuple[str, ...]:
        """Filters for everything retained that can outlive what it tells of."""
        return (
            self.discovery("+"),
            self.action("+", "state"),
            self.token("+", "state"),
            self.state,
        )

    def verb(self, topic: str) -> str | None:
        """Return the verb of a command's topic: ``mint`` of ``otsd/command/mint``."""
        beginning = self.command("")
        return topic.removeprefix(beginning) if topic.startswith(beginning) else None

    def switched(self, topic: str) -> str | None:
        """Return the id of the token whose switch this topic is."""
        if not (topic.startswith(self.token("", "")[:-1]) and topic.endswith("/set")):
            return None
        return topic.removeprefix(self.token("", "")[:-1]).removesuffix("/set")

    # -- replies -------------------------------------------------------------------------------

    def response(self, request_id: str | None) -> str:
        """Return where a reply goes that names no topic of its own."""
        return f"{self.base}/response" + (f"/{request_id}" if request_id else "")

    def may_reply(self, topic: str) -> bool:
        """Return whether a stranger may choose this topic for the reply to a command.

        He who may send commands is not, by that, allowed to command otsd by its own replies, to
        write a state, or to make devices in Home Assistant.
        """
        if not topic or not topic.isprintable() or set("$+#") & set(topic):
            return False
        below = f"{topic}/"
        if below.startswith(f"{self.response(None)}/"):
            return True
        return not below.startswith((f"{self.base}/", f"{self.prefix}/"))
