"""The add-on as the Supervisor runs it, beside a real Home Assistant: everything but the container.

    async with House(real_home) as house:
        await house.start()
        await house.ask("GET", "/api/v1/status", as_user=house.owner)

The add-on's own files are used: the environment and the command of its Dockerfile, the options and
the commands of its config.yaml. The Supervisor is a stand-in that answers as the real one, and
passes on what is for Home Assistant; the networks are namespaces.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from tests import apart
from tests.addon.container import BROKER, INGRESS, NEIGHBOUR, OWN, bridge, to_port
from tests.daemon import Answer
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.real.home_assistant import HomeAssistant

ROOT = Path(__file__).resolve().parents[2]
ADDON = ROOT / "addon"
TOKEN = "the-supervisors-own-token-for-this-add-on"
SLUG = "local_otsd"
INGRESS_PATH = "/api/hassio_ingress/Yk2gPXxhm"
HOST = "homeassistant.local:8123"
_PATIENCE = 20.0

AnyHome = HomeAssistant | FakeHomeAssistant

CONFIG: dict[str, Any] = yaml.safe_load((ADDON / "config.yaml").read_text())


def image() -> tuple[dict[str, str], list[str]]:
    """Return the environment and the command of the image, read from the Dockerfile."""
    text = (ADDON / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = [line.partition(" ") for line in text.splitlines()]
    environment = {
        name: value
        for instruction, _, rest in lines
        if instruction == "ENV"
        for name, _, value in (each.partition("=") for each in shlex.split(rest))
    }
    (command,) = (json.loads(rest) for instruction, _, rest in lines if instruction == "CMD")
    return environment, command


class Supervisor:
    """Answers an add-on as the Supervisor does, and passes on what is for Home Assistant."""

    def __init__(self, home: AnyHome) -> None:
        self.broker: dict[str, Any] | None = None
        self.says: tuple[int, str] | None = None  # to everything, in place of an answer
        self._home = home

    @asynccontextmanager
    async def at(self, path: Path) -> AsyncIterator[None]:
        application = web.Application()
        application.add_routes(
            [
                web.get("/core/websocket", self._websocket),
                web.get("/services/mqtt", self._mqtt),
                web.get("/addons/self/info", self._info),
            ]
        )
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        try:
            yield
        finally:
            await runner.cleanup()

    def _answer(self, request: web.Request, status: int, body: Mapping[str, Any]) -> web.Response:
        if self.says is not None:
            status, text = self.says
            return web.Response(status=status, text=text)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"result": "error", "message": "unauthorized"}, status=401)
        return web.json_response(body, status=status)

    async def _mqtt(self, request: web.Request) -> web.Response:
        if self.broker is None:
            body = {"result": "error", "message": "Service not enabled", "extra_fields": None}
            return self._answer(request, 400, body)
        return self._answer(request, 200, {"result": "ok", "data": self.broker})

    async def _info(self, request: web.Request) -> web.Response:
        data = {"slug": SLUG, "name": CONFIG["name"], "version": CONFIG["version"]}
        return self._answer(request, 200, {"result": "ok", "data": data})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Speak to Home Assistant with a token of its own, once the add-on has shown its one."""
        near = web.WebSocketResponse()
        await near.prepare(request)
        await near.send_json({"type": "auth_required", "ha_version": self._home.version})
        shown = await near.receive_json()
        if shown != {"type": "auth", "access_token": TOKEN}:
            await near.send_json({"type": "auth_invalid", "message": "Invalid access"})
            await near.close()
            return near
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{self._home.url}/api/websocket", max_msg_size=0) as far,
        ):
            await far.receive_json()
            await far.send_json({"type": "auth", "access_token": self._home.token})

            async def back() -> None:
                async for message in far:
                    await near.send_str(message.data)
                await near.close()

            task = asyncio.create_task(back(), name="Home Assistant to add-on")
            try:
                async for message in near:
                    await far.send_str(message.data)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await task
        return near


def _known(options: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the add-on has; the Supervisor leaves out every other."""
    return {
        name: _known(value, schema[name]) if isinstance(value, dict) else value
        for name, value in options.items()
        if name in schema
    }


class House:
    """A machine with Home Assistant, its Supervisor, a broker to come, and the add-on."""

    def __init__(self, home: AnyHome, options: Mapping[str, Any] | None = None) -> None:
        """Take the Home Assistant that is there; ``options`` go over the add-on's own."""
        self.home = home
        self.supervisor = Supervisor(home)
        # paths of sockets are short
        self.folder = Path(tempfile.mkdtemp(prefix="otsd-"))
        self.data, self._share = self.folder / "data", self.folder / "share"
        for folder in (self.data, self._share, self.folder / "root"):
            folder.mkdir()
        self.options = _known({**CONFIG["options"], **(options or {})}, CONFIG["schema"])
        self._stack = AsyncExitStack()
        self._jobs: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def _enter(self) -> None:
        await self._stack.enter_async_context(self.supervisor.at(self.folder / "supervisor"))
        (self.folder / "hosts").write_text(
            f"127.0.0.1 localhost\n{INGRESS} supervisor\n{BROKER} core-mosquitto\n"
        )
        environment, _ = image()
        # what the image has in /opt/otsd and /usr/local/bin is here
        path = f"{Path(sys.executable).parent}:{ADDON}:{apart.PATH}"
        own = {**environment, "PATH": path, "SUPERVISOR_TOKEN": TOKEN, "TZ": "Europe/Berlin"}
        self._jobs = await asyncio.create_subprocess_exec(
            *(*apart.SHELL, _BOX, "sh"),
            *(str(self.folder), sys.executable),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=own,
        )
        await self._told()

    async def _leave(self) -> None:
        if self._jobs is not None and self._jobs.stdin is not None:
            self._jobs.stdin.close()
            await self._jobs.wait()
        await self._stack.aclose()
        shutil.rmtree(self.folder)

    async def _told(self) -> Any:
        assert self._jobs is not None
        assert self._jobs.stdout is not None
        async with asyncio.timeout(_PATIENCE * 2):
            line = await self._jobs.stdout.readline()
        return json.loads(line)

    async def _do(self, **job: Any) -> Any:
        assert self._jobs is not None
        assert self._jobs.stdin is not None
        self._jobs.stdin.write(f"{json.dumps(job)}\n".encode())
        return await self._told()

    # -- what the Supervisor does ------------------------------------------------------------

    async def start(self) -> None:
        """Write the options and start the add-on; wait until the watchdog is content."""
        (self.data / "options.json").write_text(json.dumps(self.options))
        await self._do(start=image()[1])
        port, path = re.fullmatch(
            r"http://\[HOST\]:\[PORT:(\d+)\](.*)", CONFIG["watchdog"]
        ).groups()  # type: ignore[union-attr]
        assert port == "1337"
        async with asyncio.timeout(_PATIENCE):
            while True:
                with suppress(aiohttp.ClientError):
                    if (await self.visit("GET", path)).status == 200:
                        return
                await asyncio.sleep(0.05)

    async def fail(self) -> int:
        """Start it where it cannot; return its exit status."""
        (self.data / "options.json").write_text(json.dumps(self.options))
        await self._do(start=image()[1])
        async with asyncio.timeout(_PATIENCE):
            return int((await self._do(end="CONT"))["status"])

    async def stop(self, how: str = "TERM") -> int:
        """End it, with another signal if need be; return its exit status."""
        return int((await self._do(end=how))["status"])

    async def run(self, command: str) -> tuple[int, str]:
        """Run a command in the container, as ``backup_pre`` is."""
        done = await self._do(run=shlex.split(command))
        return done["status"], done["output"]

    async def back_up(self, to: Path, *, running: bool = True) -> None:
        """Copy the data as a backup of Home Assistant does."""
        if running:
            status, output = await self.run(CONFIG["backup_pre"])
            assert status == 0, output
        to.mkdir()
        for each in self.data.rglob("*"):
            left_out = any(fnmatch(each.name, name) for name in CONFIG["backup_exclude"])
            if each.is_file() and not left_out:
                shutil.copy2(each, to / each.relative_to(self.data))
        if running:
            status, output = await self.run(CONFIG["backup_post"])
            assert status == 0, output

    def restore(self, backup: Path) -> None:
        """Put the data back as Home Assistant does: nothing of what was there remains."""
        for each in self.data.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        shutil.copytree(backup, self.data, dirs_exist_ok=True)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    # -- those who come ----------------------------------------------------------------------

    async def visit(self, method: str, path: str, **more: Any) -> Answer:
        """Ask the port for visitors."""
        return await self._request("visitors", method, path, **more)

    async def ask(
        self, method: str, path: str, *, user: Mapping[str, str], by: str = "ingress", **more: Any
    ) -> Answer:
        """Ask the admin page as Home Assistant's sidebar does for a user."""
        headers = {
            "Host": HOST,
            "Origin": f"http://{HOST}",
            "X-Ingress-Path": INGRESS_PATH,
            "X-Hass-Source": "core.ingress",
            "X-Forwarded-For": "192.168.1.20",
            "X-Forwarded-Host": HOST,
            "X-Forwarded-Proto": "http",
            "X-Remote-User-Id": user["id"],
            "X-Remote-User-Name": user["name"],
            "X-Remote-User-Display-Name": user["name"],
        }
        return await self._request(by, method, path, headers=headers, **more)

    async def control(self, method: str, path: str, **more: Any) -> Answer:
        """Ask the admin API on the control socket, as the command line does."""
        return await self._request("data/otsd.sock", method, f"/api/v1{path}", **more)

    async def _request(self, way: str, method: str, path: str, **more: Any) -> Answer:
        connector = aiohttp.UnixConnector(path=str(self.folder / way))
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            http.request(method, f"http://{OWN}{path}", allow_redirects=False, **more) as response,
        ):
            return await Answer.of(response)

    async def users(self) -> dict[str, dict[str, str]]:
        """Return Home Assistant's users by what they are: ``owner`` and ``guest``."""
        assert isinstance(self.home, HomeAssistant)
        users = await self.home.command("config/auth/list")
        (owner,) = (each for each in users if each["is_owner"])
        (guest,) = (each for each in users if each["name"] == "Guest")
        return {"owner": owner, "guest": guest}

    # -- the broker --------------------------------------------------------------------------

    @asynccontextmanager
    async def broker(self, port: int, password: str) -> AsyncIterator[None]:
        """Have the broker of this port at the address that the Supervisor tells."""
        path = self.folder / "broker"
        server = await asyncio.start_unix_server(bridge(to_port("127.0.0.1", port)), path)
        self.tell(password)
        try:
            yield
        finally:
            self.supervisor.broker = None
            server.close()
            path.unlink()

    def tell(self, password: str) -> None:
        """Have the Supervisor tell where the broker is."""
        self.supervisor.broker = {
            "addon": "core_mosquitto",
            "host": "core-mosquitto",
            "port": 1883,
            "ssl": False,
            "username": "otsd",
            "password": password,
            "protocol": "3.1.1",
        }

    async def status(self) -> Any:
        """Return the status."""
        return (await self.control("GET", "/status")).json

    async def until_mqtt(self, state: str, seconds: float = _PATIENCE) -> Any:
        """Wait until the broker's connection is in this state, and return how it stands."""
        async with asyncio.timeout(seconds):
            while (mqtt := (await self.status())["mqtt"])["state"] != state:
                await asyncio.sleep(0.1)
        return mqtt


# A root with another /data, /share and /etc/hosts; then addresses of the Supervisor's network.
_BOX = f"""
{apart.MACHINE}
folder=$1
ip link set lo up
for address in {INGRESS} {BROKER} {OWN} {NEIGHBOUR}; do ip address add $address/32 dev lo; done
machine "$folder/root" /data /share
mount --bind "$folder/data" "$root/data"
mount --bind "$folder/share" "$root/share"
mount --bind "$folder/hosts" "$root/etc/hosts"
exec chroot "$root" sh -c 'cd "$1" && exec "$2" -m tests.addon.container "$3"' sh "$PWD" "$2" "$folder"
"""
