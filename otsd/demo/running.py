"""The demo: Home Assistant, a broker and otsd in one temporary folder, and the end of all of them.

Two steps, because the first may take minutes and blocks: `ready` finds or installs what is needed,
`running` starts it.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otsd.core.errors import StartError
from otsd.demo.broker import HOST, Broker, find_mosquitto
from otsd.demo.daemon import Daemon
from otsd.demo.home_assistant import HomeAssistant, free_port
from otsd.demo.provision import (
    ProvisionError,
    find_installation,
    find_interpreter,
    provision,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from otsd.demo.provision import Progress

CONFIG: Final = Path(__file__).parent / "config"
DASHBOARD: Final = "demo-door"
DOOR: Final = "lock.front_door"
COMMENT: Final = "Plumber"

_PUBLIC_PORT: Final = 1337
_ADMIN_PORT: Final = 8099
_HOME_PORT: Final = 8123
_AT_REST: Final = {"demo/front_door": "LOCK", "demo/hall": "OFF"}
_INSTALLING: Final = 0.75
"""How much of the first start is installing Home Assistant."""
_LOOK_AGAIN: Final = 0.5
_MISSING_BROKER: Final = (
    "The demo needs the MQTT broker mosquitto, and it is not installed: "
    "sudo apt install mosquitto (or your system's way), then call this again."
)


@dataclass(frozen=True)
class Demo:
    """What runs, for people."""

    link: str
    home_url: str
    admin_url: str
    username: str
    password: str
    configuration: Path
    _home: HomeAssistant
    _broker: Broker
    _daemon: Daemon

    async def door(self) -> AsyncGenerator[str]:
        """Yield what the door is, such as ``unlocked``, whenever that changes, for ever.

        Raises:
            OtsdError: a part of the demo has ended.

        """
        async with self._home.connection() as connection:
            await connection.command(
                "subscribe_trigger", trigger={"platform": "state", "entity_id": DOOR, "to": None}
            )
            while True:
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        message = await connection.receive()
                except TimeoutError:
                    self._check()
                else:
                    yield message["event"]["variables"]["trigger"]["to_state"]["state"]

    def _check(self) -> None:
        ended = {
            "The broker": self._broker.exit_status,
            "otsd": self._daemon.exit_status,
        }
        for name, status in ended.items():
            if status is not None:
                msg = f"{name} has ended, with exit status {status}."
                raise StartError(msg)


def ready(progress: Progress) -> Path:
    """Find the broker, and find or install Home Assistant; return the broker's program.

    It blocks, as `provision` does.

    Raises:
        StartError: something is missing; the message says everything that is, and how to get it.

    """
    faults = []
    if (mosquitto := find_mosquitto()) is None:
        faults.append(_MISSING_BROKER)
    if find_installation() is None:
        progress("looking for what is needed", 0.0)
        try:
            find_interpreter()
        except ProvisionError as error:
            faults.append(str(error))
    if mosquitto is None or faults:
        raise StartError("\n".join(faults))
    if find_installation() is None:
        provision(progress=lambda what, done: progress(what, done * _INSTALLING))
    return mosquitto


@asynccontextmanager
async def running(mosquitto: Path, progress: Progress, *, lan: bool) -> AsyncIterator[Demo]:
    """Start everything, and leave nothing behind but the cache.

    Raises:
        OtsdError: a part does not run, and why.

    """
    host, shown = ("0.0.0.0", _lan_address()) if lan else (HOST, HOST)  # noqa: S104 - with --lan
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="otsd-demo-")))
        (folder / "broker").mkdir()
        (folder / "otsd").mkdir()
        home = HomeAssistant(
            folder / "home-assistant",
            template=CONFIG,
            progress=lambda what, _: progress(what, _INSTALLING),
            host=host,
            port=_port(_HOME_PORT, host, stack),
        )
        stack.push_async_callback(home.kill)
        await home.prepare()
        progress("starting the broker", 0.8)
        broker = await stack.enter_async_context(Broker(mosquitto, folder / "broker"))
        for topic, payload in _AT_REST.items():
            await broker.publish(topic, payload)
        progress("starting Home Assistant", 0.82)
        await home.start()
        progress("starting otsd", 0.95)
        port = _port(_PUBLIC_PORT, host, stack)
        admin_port = _port(_ADMIN_PORT, HOST, stack)
        admin_url = f"http://localhost:{admin_port}"
        daemon = await stack.enter_async_context(
            Daemon(
                folder / "otsd",
                {
                    "home_assistant.url": home.url,
                    "home_assistant.token": home.token,
                    "mqtt.host": HOST,
                    "mqtt.port": broker.port,
                    "mqtt.username": broker.username,
                    "mqtt.password": broker.password,
                    "public.host": host,
                    "public.port": port,
                    "public.base_url": f"http://{shown}:{port}",
                    "public.title": "otsd demo",
                    "admin.host": HOST,
                    "admin.port": admin_port,
                    "admin.base_url": admin_url,
                },
            )
        )
        await home.add_mqtt(broker.port, HOST, username=broker.username, password=broker.password)
        await daemon.connected()
        await daemon.apply_actions()
        link = await daemon.mint("open-door", COMMENT)
        yield Demo(
            link=link,
            home_url=f"http://{shown}:{home.port}/{DASHBOARD}",
            admin_url=admin_url,
            username=home.credentials.username,
            password=home.credentials.password,
            configuration=daemon.configuration,
            _home=home,
            _broker=broker,
            _daemon=daemon,
        )


def _port(wanted: int, host: str, stack: AsyncExitStack) -> int:
    """Return the port that people expect if it is free, and no other demo is about to take it."""
    mine = stack.enter_context(socket.socket(socket.AF_UNIX))
    with socket.socket() as trial:
        # as servers do, so that connections that linger after an earlier demo do not count
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, wanted))
            trial.listen()
            mine.bind(f"\0otsd-demo-{wanted}")  # a name that the system forgets with the socket
        except OSError:
            return free_port()
    return wanted


def _lan_address() -> str:
    """Return the address of this machine in its network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.connect(("192.0.2.1", 9))  # nothing is sent: it asks for the way out
        except OSError as error:
            msg = "--lan needs a network, and this machine is in none."
            raise StartError(msg) from error
        return str(trial.getsockname()[0])
