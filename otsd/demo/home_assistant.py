"""Run a real Home Assistant, set up and with an owner.

The first run installs Home Assistant and walks through its onboarding; later ones start from a
copy of the result. None of the methods is bound to an event loop: an instance may be shared
between several.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from otsd.core.errors import OtsdError
from otsd.demo.process import ended, spawn, tail
from otsd.demo.provision import Installation, Progress, provision

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from types import TracebackType

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 30.0
COMMAND_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05

_CREDENTIALS: Final = "credentials.json"
_LOG: Final = "console.log"
_UNPREPARED: Final = "call prepare() or start() first"
_RECOVERY: Final = "Home Assistant refuses its configuration and runs in recovery mode."


class NotRunningError(OtsdError):
    """Home Assistant did not come up, or is gone."""


class CommandError(OtsdError):
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
    username: str
    password: str


class Connection:
    """A websocket connection, as one user."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        """Take over a connection that is authenticated."""
        self._socket = websocket
        self._last = 0
        self._unread: deque[dict[str, Any]] = deque()

    async def command(self, command: str, /, **fields: Any) -> Any:  # noqa: ANN401 - JSON
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
        """Wait for the next message that answers no command: the event of a subscription."""
        return self._unread.popleft() if self._unread else await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            msg = f"The connection to Home Assistant is gone ({message.type.name})."
            raise NotRunningError(msg)
        content: dict[str, Any] = json.loads(message.data)
        return content


class HomeAssistant:
    """A real Home Assistant on a port of its own, on 127.0.0.1 unless told otherwise."""

    def __init__(  # noqa: PLR0913 - each has a name
        self,
        folder: Path | None = None,
        *,
        template: Path,
        cache: Path | None = None,
        progress: Progress | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        """Describe an instance; nothing happens before `start`.

        Args:
            folder: its configuration folder: one that has been used before is used again, one that
                does not exist is made. Without it, a temporary one is made, and removed by `close`.
            template: what the folder is made of.
            cache: where Home Assistant is installed, if not in `provision.default_cache`.
            progress: hears how far it is.
            host: the address to listen on.
            port: the port to listen on; without it, one that is free when the folder is made.

        """
        self._given = folder
        self._template = template
        self._cache = cache
        self._progress = progress
        self._host = host
        self._wanted_port = port
        self._folder: Path | None = None
        self._installation: Installation | None = None
        self._credentials: Credentials | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}

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
            raise NotRunningError(_UNPREPARED)
        return self._folder

    @property
    def credentials(self) -> Credentials:
        """Names, passwords and tokens."""
        if self._credentials is None:
            raise NotRunningError(_UNPREPARED)
        return self._credentials

    @property
    def installation(self) -> Installation:
        """The software that runs."""
        if self._installation is None:
            raise NotRunningError(_UNPREPARED)
        return self._installation

    @property
    def version(self) -> str:
        """Home Assistant's version, such as `2025.4.4`."""
        return self.installation.version

    @property
    def port(self) -> int:
        """The port, which stays the same as long as the folder does."""
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
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def log(self) -> str:
        """Return everything that was logged, in all runs."""
        try:
            return (self.folder / _LOG).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # Starting and ending it

    async def prepare(self) -> None:
        """Install and onboard where that has not been done, and fill the configuration folder.

        Installing does not stop when this is cancelled: call `provision` before if that matters.
        """
        if self._credentials is not None:
            return
        self._installation = await asyncio.to_thread(provision, self._cache, self._progress)
        if self._given is None:
            self._folder = Path(tempfile.mkdtemp(prefix="home-assistant-"))
        else:
            self._folder = self._given.absolute()
        if not (self._folder / _CREDENTIALS).exists():
            snapshot = await self._snapshot(self._installation)
            shutil.copytree(snapshot, self._folder, dirs_exist_ok=True)
            port = self._wanted_port or free_port()
            _write_credentials(self._folder, replace(_read_credentials(snapshot), port=port))
        self._credentials = _read_credentials(self._folder)

    async def start(self, *, wait: bool = True, patience: float = START_SECONDS) -> None:
        """Start the process; ``wait=False`` returns at once, else it runs when this returns."""
        await self.prepare()
        if self.pid is not None:
            return
        await self._ended()
        self._spawn()
        if wait:
            try:
                await self.wait_running(patience)
            except BaseException:
                await self.kill()
                raise

    async def stop(self) -> None:
        """End the process in good order, and by force if it takes too long."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        await self._ended(STOP_SECONDS)

    async def kill(self) -> None:
        """End the process at once, without any warning to it."""
        self._signal(signal.SIGKILL)
        await self._ended()

    async def close(self) -> None:
        """End the process: in good order if its folder stays, at once if that is removed."""
        if self._given is not None:
            await self.stop()
            return
        await self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = self._credentials = None

    async def wait_running(self, seconds: float = START_SECONDS) -> None:
        """Wait until it says that it is running: automations hear events from now on."""
        async with self._waiting(seconds), self._connected() as connection:
            while (config := await connection.command("get_config"))["state"] != "RUNNING":  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            if config["recovery_mode"]:
                raise NotRunningError(_RECOVERY)
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

    async def command(self, command: str, /, **fields: Any) -> Any:  # noqa: ANN401 - JSON
        """Send one websocket command as the owner and return its result; raises `CommandError`."""
        async with self.connection() as connection:
            return await connection.command(command, **fields)

    async def request(
        self,
        method: str,
        path: str,
        data: Any = None,  # noqa: ANN401 - JSON
        *,
        token: str | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Send one REST request as the owner and return the JSON of the answer.

        Raises:
            aiohttp.ClientResponseError: the answer is an error.

        """
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with (
            aiohttp.ClientSession(
                headers=headers, timeout=aiohttp.ClientTimeout(COMMAND_SECONDS)
            ) as session,
            session.request(method, self.url + path, json=data) as response,
        ):
            response.raise_for_status()
            return await response.json()

    async def add_mqtt(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        username: str | None = None,
        password: str | None = None,
    ) -> str:
        """Connect it to a broker that runs already; returns the id of the configuration entry."""
        settings: dict[str, Any] = {"broker": host, "port": port}
        if username is not None:
            settings |= {"username": username, "password": password}
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

    # How it is done

    def _spawn(self) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "SUPERVISOR", "HASSIO", "VIRTUAL_ENV"))
        }
        environment |= {
            "HA_HOST": self._host,
            "HA_PORT": str(self.port),
            "PYTHONPATH": str(self.installation.stubs),
            "PYTHONUNBUFFERED": "1",
            **self._environment,
        }
        self._process = spawn(
            [
                *(self.installation.python, "-m", "homeassistant"),
                *("--config", str(self.folder), "--skip-pip", "--log-no-color"),
            ],
            folder=self.folder,
            log=self.folder / _LOG,
            environment=environment,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _ended(self, patience: float | None = None) -> None:
        """Wait for the end of the process, and bring it about after so many seconds."""
        if self._process is not None:
            await ended(self._process, patience)
            self._process = None

    @contextlib.asynccontextmanager
    async def _waiting(self, patience: float) -> AsyncIterator[None]:
        """Limit the time, and explain a failure by the end of the log."""
        try:
            async with asyncio.timeout(patience):
                yield
        except (TimeoutError, NotRunningError) as error:
            reason = str(error) or f"Home Assistant did not run within {patience:.0f} s."
            log = tail(self.folder / _LOG)
            msg = f"{reason} This is the end of its log:\n{log}"
            raise NotRunningError(msg) from error

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
            status = self._process.returncode if self._process else None
            msg = f"Home Assistant ended with exit status {status}."
            raise NotRunningError(msg)
        await asyncio.sleep(POLL_SECONDS)

    async def _confirm_address(self, connection: Connection) -> None:
        """Keep what `http:` in the YAML file says, which newer versions take on trial only."""
        try:
            await connection.command("http/config/promote")
        except CommandError as error:
            if error.code not in {"unknown_command", "home_assistant_error"}:
                raise

    # The snapshot that instances start from

    async def furnish(self) -> None:
        """Add to the snapshot, which runs, what each instance shall have; a subclass may."""

    async def _snapshot(self, installation: Installation) -> Path:
        """Return a configuration folder that has been set up with this version and template."""
        snapshot = self._name_snapshot(installation)
        async with _turn(snapshot.with_suffix(".lock")):
            if not snapshot.exists():
                if self._progress:
                    self._progress("setting up Home Assistant", 0.0)
                building = snapshot.with_suffix(".partial")
                shutil.rmtree(building, ignore_errors=True)
                shutil.copytree(
                    self._template, building, ignore=shutil.ignore_patterns("__pycache__")
                )
                building.chmod(0o700)  # it will hold a token of the owner
                instance = type(self)(building, template=self._template)
                await instance._set_up(installation)  # noqa: SLF001 - one of us
                building.rename(snapshot)
                if self._progress:
                    self._progress("Home Assistant is set up", 1.0)
        return snapshot

    def _name_snapshot(self, installation: Installation) -> Path:
        """Name it after everything that went into it."""
        digest = hashlib.sha256(f"{installation.version} {installation.interpreter}".encode())
        for source in type(self).__mro__[:-1]:
            digest.update(Path(inspect.getfile(source)).read_bytes())
        for path in sorted(self._template.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(self._template)
                digest.update(f"\0{name}\0".encode() + path.read_bytes())
        snapshots = installation.folder / "snapshots"
        snapshots.mkdir(exist_ok=True)
        return snapshots / digest.hexdigest()[:16]

    async def _set_up(self, installation: Installation) -> None:
        """Make a snapshot of the folder: start, do what a new owner does, and stop."""
        self._folder = self._given
        self._installation = installation
        self._credentials = Credentials(
            port=free_port(), token="", username="owner", password=secrets.token_urlsafe(12)
        )
        try:
            await self.start(wait=False)
            async with self._waiting(START_SECONDS):
                await self._onboard()
                await self.wait_running()
                await self.furnish()
                await self._remove_extras()
            await self.stop()
        finally:
            await self.kill()
        _write_credentials(self.folder, self.credentials)
        for pattern in ("*.log*", ".storage/http", ".storage/http.*"):
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
        self._adopt(await self._exchange(answer["auth_code"]))
        self._adopt(await self._long_lived(self.token))
        await self.request("POST", "/api/onboarding/core_config", {})
        await self.request("POST", "/api/onboarding/analytics", {})
        token = await self._log_in(self.credentials.username, self.credentials.password)
        redirect = client | {"redirect_uri": f"{self.url}/?auth_callback=1"}
        await self.request("POST", "/api/onboarding/integration", redirect, token=token)

    async def _log_in(self, name: str, password: str) -> str:
        """Walk through the login as a browser does; returns an access token."""
        client = f"{self.url}/"
        flow = {
            "client_id": client,
            "handler": ["homeassistant", None],
            "redirect_uri": client,
        }
        entries = {"client_id": client, "username": name, "password": password}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{self.url}/auth/login_flow", json=flow) as response:
                step = f"{self.url}/auth/login_flow/{(await response.json())['flow_id']}"
            async with session.post(step, json=entries) as response:
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

    async def _remove_extras(self) -> None:
        """Remove what the onboarding adds of its own accord, such as a weather forecast."""
        for entry in await self.command("config_entries/get"):
            if entry["source"] == "onboarding":
                await self.request(
                    "DELETE", f"/api/config/config_entries/entry/{entry['entry_id']}"
                )

    def _adopt(self, token: str) -> None:
        self._credentials = replace(self.credentials, token=token)


@contextlib.asynccontextmanager
async def _websocket(
    session: aiohttp.ClientSession, url: str, token: str
) -> AsyncIterator[Connection]:
    async with asyncio.timeout(COMMAND_SECONDS):
        websocket = await session.ws_connect(f"{url}/api/websocket", max_msg_size=0)
    async with websocket:
        connection = Connection(websocket)
        async with asyncio.timeout(COMMAND_SECONDS):
            await connection.receive()
            await websocket.send_json({"type": "auth", "access_token": token})
            answer = await connection.receive()
        if answer["type"] != "auth_ok":
            raise CommandError(answer["type"], answer["message"])
        yield connection


@contextlib.asynccontextmanager
async def _turn(path: Path) -> AsyncIterator[None]:
    """Wait for a lock between processes, and hold it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def free_port() -> int:
    """Choose a port that no outgoing connection will take while nobody listens on it."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - any will do
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port


def _read_credentials(folder: Path) -> Credentials:
    return Credentials(**json.loads((folder / _CREDENTIALS).read_text()))


def _write_credentials(folder: Path, credentials: Credentials) -> None:
    path = folder / _CREDENTIALS
    path.with_suffix(".new").write_text(json.dumps(asdict(credentials)))
    path.with_suffix(".new").rename(path)
