"""Run otsd for the demo, as a process of its own with its own configuration and storage."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from otsd.actionfile import read_file
from otsd.core.errors import StartError
from otsd.core.times import format_duration
from otsd.demo.home_assistant import POLL_SECONDS
from otsd.demo.process import ended, spawn, tail

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

ACTIONS: Final = Path(__file__).parent / "actions.yaml"
_PATIENCE: Final = 30.0
_SOCKET: Final = "otsd.sock"


class Daemon:
    """An `otsd run` from entering to leaving, in a folder that exists."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Take what goes into its configuration, by key."""
        self._folder = folder
        self._log = folder / "log"
        self._storage = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.configuration = folder / "config.toml"
        self._settings = {"storage.directory": str(self._storage), **settings}

    @property
    def exit_status(self) -> int | None:
        """How it ended, if it did."""
        return self._process.poll() if self._process else None

    async def __aenter__(self) -> Self:
        """Start it; it may not serve yet."""
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items())
        self.configuration.touch(mode=0o600)
        self.configuration.write_text("".join(lines))
        self._process = spawn(
            [sys.executable, "-m", "otsd", "run", "--config", self.configuration],
            folder=self._folder,
            log=self._log,
            environment={
                # settings in the environment are of another otsd, and stronger than the file
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("OTSD_", "SUPERVISOR"))
            },
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # it is made for that, and everything of it is thrown away
            await ended(self._process)

    async def connected(self) -> None:
        """Wait until it is connected to Home Assistant.

        Raises:
            StartError: it ended, or that took too long.

        """
        try:
            async with asyncio.timeout(_PATIENCE):
                while self.exit_status is None:
                    try:
                        status = await self._ask("GET", "/status")
                        if status["home_assistant"]["state"] == "connected":
                            return
                    except aiohttp.ClientError:
                        pass
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
        msg = f"otsd does not run as it should. This is its log:\n{tail(self._log)}"
        raise StartError(msg)

    async def apply_actions(self) -> None:
        """Save the demo's actions."""
        for action in read_file(ACTIONS.read_text()):
            length = action.defaults.expires_in
            defaults = {
                "max_uses": action.defaults.max_uses,
                "expires_in": None if length is None else format_duration(length),
            }
            body = {"title": action.title, "yaml": action.yaml, "defaults": defaults}
            await self._ask("PUT", f"/actions/{action.name}", body)

    async def mint(self, action: str, comment: str) -> str:
        """Make a token and return its link."""
        token = await self._ask("POST", "/tokens", {"action": action, "comment": comment})
        return str(token["url"])

    async def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        connector = aiohttp.UnixConnector(str(self._storage / _SOCKET))
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(_PATIENCE),
                raise_for_status=True,
            ) as session,
            session.request(method, f"http://otsd/api/v1{path}", json=body) as response,
        ):
            return await response.json()
