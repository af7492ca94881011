"""Run a real Home Assistant, set up and with two users, and ask it what it did.

    async with HomeAssistant() as ha:
        await ha.call("lock", "unlock", target={"entity_id": "lock.front_door"})
        assert ha.witnessed(entity="lock.front_door") == [{"entity": "lock.front_door", "action": "unlock"}]

The first run installs Home Assistant and walks through its onboarding; later ones start from a copy of
the result. None of the methods is bound to an event loop: an instance may be shared between several.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from .provision import Installation, Progress, locked, provision

CONFIG = Path(__file__).parent / "config"
"""The configuration folder that instances start with, unless told otherwise."""

START_SECONDS = 90.0
STOP_SECONDS = 30.0
COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.05

_LAUNCHER = """
import os, runpy, signal
home = os.getpid()
if os.fork() == 0:
    while os.read(0, 1):
        pass
    if os.getppid() == home:
        os.kill(home, signal.SIGKILL)
    os._exit(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
runpy.run_module("homeassistant", run_name="__main__", alter_sys=True)
"""
"""Forks a guard that waits for the end of its input, which comes when the process that started us is
gone, however it went, and then kills Home Assistant, be it frozen or not."""


class NotRunningError(Exception):
    """Home Assistant did not come up, or is gone."""


class CommandError(Exception):
    """Home Assistant's answer to a command is an error."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code, which says more than the text."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Credentials:
    """What it takes to get in."""

    port: int
    token: str
    guest_token: str
    username: str
    password: str
    guest_username: str
    guest_password: str


class Connection:
    """A websocket connection, as one user."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        """Take over a connection that is authenticated."""
        self._socket = socket_
        self._last = 0
        self._unread: deque[dict[str, Any]] = deque()

    async def command(self, command: str, /, **fields: Any) -> Any:
        """Send a command and return its result; raises `CommandError`."""
        self._last += 1
        await self._socket.send_json({"id": self._last, "type": command, **fields})
        async with asyncio.timeout(COMMAND_SECONDS):
            while True:
                answer = await self._receive()
                if answer["id"] == self._last and answer["type"] == "result":
                    break
                self._unread.append(answer)
        if not answer["success"]:
            raise CommandError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message that answers no command, such as the event of a subscription."""
        return self._unread.popleft() if self._unread else await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            text = f"the websocket connection is gone: {message.type.name}"
            raise NotRunningError(text)
        content: dict[str, Any] = json.loads(message.data)
        return content


class HomeAssistant:
    """A real Home Assistant on a port of its own on 127.0.0.1."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        template: Path = CONFIG,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Describe an instance; nothing happens before `start`.

        `folder` is its configuration folder: one that has been used before is used again, one that does
        not exist is made. Without it, a temporary one is made, and removed by `close`.
        """
        self._given = folder
        self._template = template
        self._cache = cache
        self._progress = progress
        self._folder: Path | None = None
        self._installation: Installation | None = None
        self._credentials: Credentials | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start, and wait until everything runs."""
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process and tidy up."""
        await self.close()

    # What it is

    @property
    def folder(self) -> Path:
        """The configuration folder."""
        if self._folder is None:
            message = "call prepare() or start() first"
            raise NotRunningError(message)
        return self._folder

    @property
    def credentials(self) -> Credentials:
        """Names, passwords and tokens."""
        if self._credentials is None:
            message = "call prepare() or start() first"
            raise NotRunningError(message)
        return self._credentials

    @property
    def installation(self) -> Installation:
        """The software that runs."""
        if self._installation is None:
            message = "call prepare() or start() first"
            raise NotRunningError(message)
        return self._installation

    @property
    def version(self) -> str:
        """Home Assistant's version, such as `2025.4.4`."""
        return self.installation.version

    @property
    def port(self) -> int:
        """The port, which stays the same for ever."""
        return self.credentials.port

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """A long-lived access token of the owner, an administrator."""
        return self.credentials.token

    @property
    def guest_token(self) -> str:
        """A long-lived access token of a user who is no administrator."""
        return self.credentials.guest_token

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def log(self) -> str:
        """Return everything that was logged, in all runs."""
        try:
            return (self.folder / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # Starting and ending it

    async def prepare(self) -> None:
        """Install and onboard where that has not been done, and fill the configuration folder."""
        if self._credentials is not None:
            return
        self._installation = await asyncio.to_thread(provision, self._cache, self._progress)
        if self._given is None:
            self._folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="home-assistant-"))
        else:
            self._folder = self._given.absolute()
        if not (self._folder / "credentials.json").exists():
            snapshot = await _snapshot(self._installation, self._template, self._progress)
            await asyncio.to_thread(shutil.copytree, snapshot, self._folder, dirs_exist_ok=True)
            credentials = replace(_read_credentials(snapshot), port=_free_port())
            _write_credentials(self._folder, credentials)
        self._credentials = _read_credentials(self._folder)

    async def start(self, *, wait: bool = True, delay: float = 0) -> None:
        """Start the process.

        `wait=False` returns at once. `delay` keeps it from running for so many seconds: `get_config` says
        STARTING for the last 14 of them, and NOT_RUNNING before.
        """
        await self.prepare()
        if self.pid is not None:
            return
        await self._ended()
        await asyncio.to_thread(self._spawn, delay)
        if wait:
            try:
                await self.wait_running(START_SECONDS + delay)
            except BaseException:
                await self.kill()
                raise

    async def stop(self) -> None:
        """End the process in good order, and by force if it takes too long."""
        if self._process is None:
            return
        self.thaw()
        self._signal(signal.SIGTERM)
        await self._ended(STOP_SECONDS)

    async def kill(self) -> None:
        """End the process at once, without any warning to it."""
        self._signal(signal.SIGKILL)
        await self._ended()

    async def restart(self, *, wait: bool = True, delay: float = 0) -> None:
        """Stop in good order and start again, with everything as it was."""
        await self.stop()
        await self.start(wait=wait, delay=delay)

    def freeze(self) -> None:
        """Make the process stand still: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    async def close(self) -> None:
        """End the process: in good order if its folder stays, at once if that is removed."""
        if self._given is not None:
            await self.stop()
            return
        await self.kill()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = self._credentials = None

    async def wait_reachable(self, seconds: float = START_SECONDS) -> str:
        """Wait until it answers, which is before it runs; returns the state it says it is in."""
        async with self._waiting(seconds), self._connected() as connection:
            config = await connection.command("get_config")
        return str(config["state"])

    async def wait_running(self, seconds: float = START_SECONDS) -> None:
        """Wait until it says that it is running: automations hear events from now on."""
        async with self._waiting(seconds), self._connected() as connection:
            while (config := await connection.command("get_config"))["state"] != "RUNNING":
                await asyncio.sleep(_POLL_SECONDS)
            if config["recovery_mode"]:
                message = "Home Assistant refuses its configuration and runs in recovery mode"
                raise NotRunningError(message)
            await self._confirm_address(connection)

    # Talking to it

    @contextlib.asynccontextmanager
    async def connection(self, token: str | None = None) -> AsyncIterator[Connection]:
        """Open a websocket connection, as the owner or with another token."""
        async with (
            aiohttp.ClientSession() as session,
            _websocket(session, self.url, token or self.token) as connection,
        ):
            yield connection

    async def command(self, command: str, /, **fields: Any) -> Any:
        """Send one websocket command as the owner and return its result; raises `CommandError`."""
        async with self.connection() as connection:
            return await connection.command(command, **fields)

    async def request(
        self, method: str, path: str, data: Any = None, *, token: str | None = None
    ) -> Any:
        """Send one REST request as the owner and return the JSON of the answer; raises `ClientResponseError`."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with (
            aiohttp.ClientSession(
                headers=headers, timeout=aiohttp.ClientTimeout(COMMAND_SECONDS)
            ) as session,
            session.request(method, self.url + path, json=data) as response,
        ):
            response.raise_for_status()
            return await response.json()

    async def entity(self, entity_id: str) -> dict[str, Any] | None:
        """Return the state object of an entity, with its attributes, or None if there is none."""
        states: list[dict[str, Any]] = await self.command("get_states")
        return next((each for each in states if each["entity_id"] == entity_id), None)

    async def state(self, entity_id: str) -> str | None:
        """Return the state of an entity, or None if there is none."""
        entity = await self.entity(entity_id)
        return None if entity is None else str(entity["state"])

    async def call(
        self,
        domain: str,
        service: str,
        data: Mapping[str, Any] | None = None,
        target: Mapping[str, Any] | None = None,
        *,
        answer: bool = False,
    ) -> Any:
        """Run an action, wait until it has finished, and return its response if an answer was asked for."""
        result = await self.command(
            "call_service",
            domain=domain,
            service=service,
            service_data=dict(data or {}),
            **({"target": dict(target)} if target else {}),
            **({"return_response": True} if answer else {}),
        )
        return result["response"] if answer else None

    async def fire(self, event_type: str, data: Mapping[str, Any] | None = None) -> None:
        """Fire an event on the bus."""
        await self.command("fire_event", event_type=event_type, event_data=dict(data or {}))

    async def add_mqtt(self, port: int, host: str = "127.0.0.1") -> str:
        """Connect it to a broker that runs already; returns the id of the configuration entry."""
        settings: dict[str, Any] = {"broker": host, "port": port}
        flow = await self.request("POST", "/api/config/config_entries/flow", {"handler": "mqtt"})
        fields = {each["name"] for each in flow["data_schema"]}
        if "other_settings" in fields:
            settings["other_settings"] = {"set_client_cert": False, "set_ca_cert": "off"}
        if "protocol" in fields:
            settings["protocol"] = "5"
        result = await self.request(
            "POST", f"/api/config/config_entries/flow/{flow['flow_id']}", settings
        )
        if result["type"] != "create_entry":
            raise CommandError(
                str(result["type"]), f"cannot connect to the broker: {result.get('errors')}"
            )
        return str(result["result"]["entry_id"])

    # What it did

    def witnessed(self, **fields: Any) -> list[dict[str, Any]]:
        """Return what really ran since the folder was made, in order; only what has these fields."""
        try:
            *lines, _unfinished = (self.folder / "witness.jsonl").read_text().split("\n")
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [
            each for each in found if all(each.get(name) == value for name, value in fields.items())
        ]

    async def wait_witnessed(
        self, count: int = 1, seconds: float = 10, **fields: Any
    ) -> list[dict[str, Any]]:
        """Wait until at least so many things have been witnessed, and return all of them."""
        deadline = time.monotonic() + seconds
        while len(found := self.witnessed(**fields)) < count:
            if time.monotonic() > deadline:
                message = (
                    f"{len(found)} instead of {count} of {fields} were witnessed within {seconds} s"
                )
                raise TimeoutError(message)
            await asyncio.sleep(_POLL_SECONDS)
        return found

    # How it is done

    def _spawn(self, delay: float) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "SUPERVISOR", "HASSIO", "VIRTUAL_ENV"))
        }
        environment |= {
            "HA_PORT": str(self.port),
            "PYTHONPATH": str(self.installation.stubs),
            "PYTHONUNBUFFERED": "1",
            "WITNESS_START_DELAY": str(delay),
        }
        options = ("--config", str(self.folder), "--skip-pip", "--log-no-color")
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.installation.python, "-c", _LAUNCHER, *options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _ended(self, seconds: float | None = None) -> None:
        """Wait for the end of the process, and bring it about after so many seconds."""
        if (process := self._process) is None:
            return
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
        if process.stdin:
            process.stdin.close()
        self._process = None

    @contextlib.asynccontextmanager
    async def _waiting(self, seconds: float) -> AsyncIterator[None]:
        """Limit the time, and explain a failure by the end of the log."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except (TimeoutError, NotRunningError) as error:
            reason = str(error) or f"Home Assistant did not run within {seconds:.0f} s"
            message = f"{reason}; the end of its log:\n{self.log()[-3000:]}"
            raise NotRunningError(message) from error

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """Try to connect until that succeeds."""
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    connection = await stack.enter_async_context(self.connection())
                    break
                except (aiohttp.ClientError, OSError):
                    await self._pause()
            yield connection

    async def _pause(self) -> None:
        """Wait a little for a process that is expected to be there."""
        if self.pid is None:
            message = f"Home Assistant ended with exit code {self._process.returncode if self._process else None}"
            raise NotRunningError(message)
        await asyncio.sleep(_POLL_SECONDS)

    async def _confirm_address(self, connection: Connection) -> None:
        """Keep what `http:` in the YAML file says, which newer versions take on trial only."""
        try:
            await connection.command("http/config/promote")
        except CommandError as error:
            if error.code not in {"unknown_command", "home_assistant_error"}:
                raise


@contextlib.asynccontextmanager
async def _websocket(
    session: aiohttp.ClientSession, url: str, token: str
) -> AsyncIterator[Connection]:
    async with asyncio.timeout(COMMAND_SECONDS):
        socket_ = await session.ws_connect(f"{url}/api/websocket", max_msg_size=0)
    async with socket_:
        connection = Connection(socket_)
        async with asyncio.timeout(COMMAND_SECONDS):
            await connection.receive()
            await socket_.send_json({"type": "auth", "access_token": token})
            answer = await connection.receive()
        if answer["type"] != "auth_ok":
            raise CommandError(answer["type"], answer["message"])
        yield connection


def _free_port() -> int:
    """Choose a port that no outgoing connection will take while Home Assistant is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port


def _read_credentials(folder: Path) -> Credentials:
    return Credentials(**json.loads((folder / "credentials.json").read_text()))


def _write_credentials(folder: Path, credentials: Credentials) -> None:
    path = folder / "credentials.json"
    path.with_suffix(".new").write_text(json.dumps(asdict(credentials)))
    path.with_suffix(".new").rename(path)


# The snapshot that instances start from


async def _snapshot(installation: Installation, template: Path, progress: Progress | None) -> Path:
    """Return a configuration folder that has been set up with this version and template."""
    snapshot = await asyncio.to_thread(_name_snapshot, installation, template)
    if snapshot.exists():
        return snapshot
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, locked(snapshot.with_suffix(".lock")))
        if not snapshot.exists():
            if progress:
                progress("setting up Home Assistant", 0.0)
            building = snapshot.with_suffix(".partial")
            shutil.rmtree(building, ignore_errors=True)
            shutil.copytree(template, building, ignore=shutil.ignore_patterns("__pycache__"))
            await _Unconfigured(building, installation).set_up()
            building.rename(snapshot)
            if progress:
                progress("Home Assistant is set up", 1.0)
    return snapshot


def _name_snapshot(installation: Installation, template: Path) -> Path:
    """Name it after everything that went into it."""
    digest = hashlib.sha256(f"{installation.version} {installation.interpreter}".encode())
    digest.update(Path(__file__).read_bytes())
    for path in sorted(template.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"\0{path.relative_to(template)}\0".encode() + path.read_bytes())
    snapshots = installation.folder / "snapshots"
    snapshots.mkdir(exist_ok=True)
    return snapshots / digest.hexdigest()[:16]


class _Unconfigured(HomeAssistant):
    """An instance in a folder that is to become a snapshot."""

    def __init__(self, folder: Path, installation: Installation) -> None:
        """Invent the passwords; there are no tokens yet."""
        super().__init__(folder)
        self._folder = folder
        self._installation = installation
        self._credentials = Credentials(
            port=_free_port(),
            token="",
            guest_token="",
            username="owner",
            password=secrets.token_urlsafe(12),
            guest_username="guest",
            guest_password=secrets.token_urlsafe(12),
        )

    async def set_up(self) -> None:
        """Start, do what a new owner does, and stop."""
        try:
            await self.start(wait=False)
            async with self._waiting(START_SECONDS):
                await self._onboard()
                await self.wait_running()
                while await self.entity("lock.front_door") is None:
                    await asyncio.sleep(_POLL_SECONDS)
                await self._add_guest()
                await self._organize()
                await self._remove_extras()
        finally:
            await self.stop()
        _write_credentials(self.folder, self.credentials)
        for pattern in ("*.log*", "witness.jsonl", ".storage/http", ".storage/http.*"):
            for path in self.folder.glob(pattern):
                path.unlink()

    async def _onboard(self) -> None:
        client = {"client_id": f"{self.url}/"}
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.url}/api/onboarding") as response:
                        if response.ok:
                            break
                except (aiohttp.ClientError, OSError):
                    pass
                await self._pause()
        user = client | {
            "name": "Owner",
            "username": self.credentials.username,
            "password": self.credentials.password,
            "language": "en",
        }
        answer = await self.request("POST", "/api/onboarding/users", user)
        self._adopt(token=await self._exchange(answer["auth_code"]))
        self._adopt(token=await self._long_lived(self.token))
        await self.request("POST", "/api/onboarding/core_config", {})
        await self.request("POST", "/api/onboarding/analytics", {})
        async with aiohttp.ClientSession() as session:
            token = await self._log_in(
                session, self.credentials.username, self.credentials.password
            )
        redirect = client | {"redirect_uri": f"{self.url}/?auth_callback=1"}
        await self.request("POST", "/api/onboarding/integration", redirect, token=token)

    async def _add_guest(self) -> None:
        name, password = self.credentials.guest_username, self.credentials.guest_password
        async with self.connection() as connection:
            answer = await connection.command(
                "config/auth/create", name="Guest", group_ids=["system-users"]
            )
            await connection.command(
                "config/auth_provider/homeassistant/create",
                user_id=answer["user"]["id"],
                username=name,
                password=password,
            )
        async with aiohttp.ClientSession() as session:
            self._adopt(
                guest_token=await self._long_lived(await self._log_in(session, name, password))
            )

    async def _log_in(self, session: aiohttp.ClientSession, name: str, password: str) -> str:
        """Walk through the login as a browser does; returns an access token."""
        client = f"{self.url}/"
        flow: dict[str, Any] = {
            "client_id": client,
            "handler": ["homeassistant", None],
            "redirect_uri": client,
        }
        async with session.post(f"{self.url}/auth/login_flow", json=flow) as response:
            flow_id = (await response.json())["flow_id"]
        entries = {"client_id": client, "username": name, "password": password}
        async with session.post(f"{self.url}/auth/login_flow/{flow_id}", json=entries) as response:
            return await self._exchange((await response.json())["result"])

    async def _exchange(self, code: str) -> str:
        form = {"grant_type": "authorization_code", "code": code, "client_id": f"{self.url}/"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/auth/token", data=form) as response,
        ):
            response.raise_for_status()
            return str((await response.json())["access_token"])

    async def _long_lived(self, token: str) -> str:
        async with self.connection(token) as connection:
            name = f"otsd {secrets.token_hex(4)}"
            return str(
                await connection.command(
                    "auth/long_lived_access_token", client_name=name, lifespan=3650
                )
            )

    async def _organize(self) -> None:
        """Put the entities into areas, and an area on a floor."""
        async with self.connection() as connection:
            for area in await connection.command("config/area_registry/list"):
                await connection.command("config/area_registry/delete", area_id=area["area_id"])
            floor = await connection.command("config/floor_registry/create", name="Ground")
            label = await connection.command("config/label_registry/create", name="Entrance")
            areas = {}
            for name, details in {
                "Hall": {"floor_id": floor["floor_id"]},
                "Garden": {},
                "Attic": {},
            }.items():
                area = await connection.command("config/area_registry/create", name=name, **details)
                areas[name] = area["area_id"]
            for entity_id, details in {
                "lock.front_door": {"area_id": areas["Hall"], "labels": [label["label_id"]]},
                "light.hall": {"area_id": areas["Hall"]},
                "lock.garden_gate": {"area_id": areas["Garden"]},
            }.items():
                await connection.command(
                    "config/entity_registry/update", entity_id=entity_id, **details
                )

    async def _remove_extras(self) -> None:
        """Remove the integrations that the onboarding adds of its own accord, such as a weather forecast."""
        for entry in await self.command("config_entries/get"):
            if entry["source"] == "onboarding":
                await self.request(
                    "DELETE", f"/api/config/config_entries/entry/{entry['entry_id']}"
                )

    def _adopt(self, **tokens: str) -> None:
        self._credentials = replace(self.credentials, **tokens)  # type: ignore[arg-type]
