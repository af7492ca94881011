"""Run mosquitto for the demo: on loopback, with a password, keeping nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import aiomqtt

from otsd.core.errors import StartError
from otsd.demo.home_assistant import POLL_SECONDS, free_port
from otsd.demo.process import ended, spawn, tail

if TYPE_CHECKING:
    import subprocess

HOST: Final = "127.0.0.1"
_PATIENCE: Final = 15.0
_ROUNDS: Final = 101  # mosquitto's own default; the password is random

_CONFIGURATION: Final = """\
listener {port} {host}
allow_anonymous false
password_file {passwords}
persistence false
log_dest stdout
"""


def find_mosquitto() -> Path | None:
    """Find the broker, on PATH or beside it: Debian's is in /usr/sbin, which few have on theirs."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    beside = [str(Path(each).parent / "sbin") for each in folders if Path(each).name == "bin"]
    found = shutil.which("mosquitto", path=os.pathsep.join([*folders, *beside]))
    return Path(found).absolute() if found else None


class Broker:
    """A mosquitto that runs, and can be logged in to, from entering to leaving."""

    def __init__(self, program: Path, folder: Path) -> None:
        """Take the program, and a folder that exists for what it needs."""
        self._program = program
        self._folder = folder
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.username = "demo"
        self.password = secrets.token_urlsafe(18)

    @property
    def exit_status(self) -> int | None:
        """How it ended, if it did."""
        return self._process.poll() if self._process else None

    async def __aenter__(self) -> Self:
        passwords = self._folder / "passwords"
        passwords.write_text(f"{self.username}:{_hash(self.password)}\n")
        configuration = self._folder / "mosquitto.conf"
        text = _CONFIGURATION.format(port=self.port, host=HOST, passwords=passwords)
        if os.geteuid() == 0:  # else it becomes a user who cannot read the folder
            text += "user root\n"
        configuration.write_text(text)
        self._process = spawn(
            [self._program, "-c", configuration],
            folder=self._folder,
            log=self._log,
            environment=os.environ,
        )
        try:
            await self._answers()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def publish(self, topic: str, payload: str) -> None:
        """Publish a retained message: who subscribes later gets it too."""
        async with self._client() as client:
            await client.publish(topic, payload, qos=1, retain=True)

    def _client(self) -> aiomqtt.Client:
        return aiomqtt.Client(HOST, self.port, username=self.username, password=self.password)

    async def _answers(self) -> None:
        """Wait until it lets us in."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while self.exit_status is None:
                    try:
                        async with self._client():
                            return
                    except aiomqtt.MqttError:
                        await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
        msg = f"The broker {self._program} does not run. This is its log:\n{tail(self._log)}"
        raise StartError(msg)

    async def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            await ended(self._process)


def _hash(password: str) -> str:
    """Write a password as mosquitto_passwd does: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
