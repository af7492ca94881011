"""Tells a service manager such as systemd how the daemon stands, as sd_notify(3) says.

Where none has started the daemon, nothing is said. What cannot be said ends nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE: Final = 0.1  # seconds, in which nothing else is done; its socket is seldom full


class ServiceManager:
    """The service manager, if there is one, by what it put into the environment."""

    def __init__(self, environment: Mapping[str, str], process: int) -> None:
        """Find out where it listens, and how often it wants to hear of the daemon's ``process``."""
        address = environment.get("NOTIFY_SOCKET", "")
        # a name that begins with @ is in no folder (unix(7))
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        within = environment.get("WATCHDOG_USEC", "")
        is_meant = environment.get("WATCHDOG_PID", str(process)) == str(process)
        self._within = timedelta(microseconds=int(within) if is_meant and within.isdigit() else 0)

    def say(self, *assignments: str) -> None:
        """Say one or more of what sd_notify(3) lists, such as ``READY=1``."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.sendto("\n".join(assignments).encode(), os.fsencode(self._address))

    async def watchdog(self) -> None:
        """Say twice in each interval of its watchdog that the event loop turns, if it has one."""
        while self._within:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self._within.total_seconds() / 2)
