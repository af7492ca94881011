"""The image that the Dockerfile makes: what is in it, and otsd as compose.yaml runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.container.composing import compose
from tests.container.image import MADE, Build
from tests.daemon import OPEN_DOOR, Daemon, free_port
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import Browser

# what a container has of its own, and this machine has once
OWN_ADDRESS = "127.0.0.2"
HOSTS = f"127.0.0.1 localhost mosquitto\n{OWN_ADDRESS} otsd\n"
PASSWORDS = {"MQTT_PASSWORD": "one-of-otsd", "MQTT_HOME_ASSISTANT_PASSWORD": "another"}


class Container(Daemon):
    """The service otsd of compose.yaml; only addresses and ports are others than there."""

    def __init__(self, build: Build, folder: Path, variables: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.build = build
        self.admin_port = free_port()
        self.directory = build.image.inside("/data")
        self.hosts = folder / "hosts"
        self.hosts.write_text(HOSTS)
        self.given = {
            **compose(variables)["services"]["otsd"]["environment"],
            "OTSD_PUBLIC__HOST": "127.0.0.1",
            "OTSD_PUBLIC__PORT": str(self.port),
            "OTSD_ADMIN__PORT": str(self.admin_port),
        }

    def line(self, *words: str) -> list[str]:
        """Return the command that runs something in the container."""
        binds = {"/etc/hosts": self.hosts}
        return self.build.command(words, environment=self.given, binds=binds)

    def spawn(self, preexec: Any = None) -> subprocess.Popen[bytes]:
        """Start what the image starts."""
        said = self.build.image.said
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.line(*said["ENTRYPOINT"].words, *said["CMD"].words), stdout=log, stderr=log
            )
        return self.process

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run something in the container, as ``docker compose exec`` does."""
        return await asyncio.to_thread(
            subprocess.run, self.line(*words), capture_output=True, text=True, check=False
        )

    async def status(self) -> Any:
        """Return the status, as the command line there tells it."""
        return json.loads((await self.run("otsd", "status", "--json")).stdout)

    async def is_healthy(self) -> bool:
        """Ask as the engine does."""
        kind, _, words = self.build.image.said["HEALTHCHECK"].rest.partition(" ")
        assert kind == "CMD"
        return (await self.run(*json.loads(words))).returncode == 0


@asynccontextmanager
async def published(port: int, to: tuple[str, int]) -> AsyncIterator[None]:
    """Publish a container's port on 127.0.0.1, as the engine does."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*to)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(carry(reader, there_writer))
            tasks.create_task(carry(there_reader, writer))

    async with await asyncio.start_server(connect, "127.0.0.1", port):
        yield


@asynccontextmanager
async def broker(build: Build, folder: Path, port: int) -> AsyncIterator[None]:
    """Run the broker of compose.yaml, on another port."""
    whole = compose({"HOME_ASSISTANT_URL": "http://ha.example", **PASSWORDS})
    service = whole["services"]["mosquitto"]
    kept = folder / "kept"
    kept.mkdir()
    binds = {"/mosquitto/data": kept}
    for each in service["configs"]:
        content = whole["configs"][each["source"]]["content"]
        file = folder / each["source"]
        file.write_text(content.replace("listener 1883", f"listener {port} 127.0.0.1"))
        file.chmod(0o444)  # as Docker puts it there
        binds[each["target"]] = file
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen(
            build.command(service["command"], binds=binds, user=service["user"]),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_the_image_has_otsd_and_nothing_that_only_its_making_needs(build: Build) -> None:
    installed = build.image.inside("/opt/otsd")
    (packages,) = installed.glob("lib/python*/site-packages")
    assert (packages / "otsd/server/admin_pages/index.html").is_file()
    assert (packages / "otsd/server/visitor_pages/style.css").is_file()
    left = {each.name for each in packages.iterdir()} | {
        each.name for each in (installed / "bin").iterdir()
    }
    assert not {"pip", "npm", "node", "hatchling", "setuptools"} & left
    assert not list(installed.rglob("node_modules"))
    for made in set(MADE) - {"/opt/otsd"}:
        assert list(build.image.inside(made).iterdir()) == []


def test_the_bytecode_is_there_and_good_whatever_the_time_of_the_files(build: Build) -> None:
    (packages,) = build.image.inside("/opt/otsd").glob("lib/python*/site-packages")
    sources = list((packages / "otsd").rglob("*.py"))
    assert sources
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        # PEP 552: the flags say that it goes by a hash, which is not checked
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01


async def test_it_runs_as_compose_says_from_the_first_login_to_the_end_and_again(
    build: Build, tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    port, broker_port = free_port(), free_port()
    url = f"http://localhost:{port}"
    variables = {"HOME_ASSISTANT_URL": fake_home.url, "ADMIN_URL": url, **PASSWORDS}
    otsd = Container(build, tmp_path, variables)
    otsd.given["OTSD_MQTT__PORT"] = str(broker_port)
    assert not await otsd.is_healthy()
    async with (
        broker(build, tmp_path, broker_port),
        published(port, (OWN_ADDRESS, otsd.admin_port)),
        otsd,
        Browser(url) as browser,
    ):
        assert await otsd.is_healthy()
        await browser.log_in(fake_home)
        back = await browser.get(fake_home.authorize(await browser.begin("/connect")))
        assert (back.status, back.headers["Location"]) == (303, "./")
        status = await otsd.until_status(
            lambda it: it["home_assistant"]["state"] == it["mqtt"]["state"] == "connected"
        )
        assert status["home_assistant"]["error"] is status["mqtt"]["error"] is None
        action = {"name": "open-door", "title": "Open", "yaml": OPEN_DOOR}
        assert (await browser.api("POST", "/actions", json=action)).status == 201
        token = (await browser.api("POST", "/tokens", json={"action": "open-door"})).json
        code = token["url"].rpartition("=")[2]
        assert "Your link is ready" in (await otsd.get(f"/?token={code}")).text
        sent = await otsd.post("/", data={"token": code, "attempt": "attempt-1"})
        done = await otsd.get(sent.headers["Location"])
        assert (done.status, "Done" in done.text) == (200, True)
        told = await otsd.run("otsd", "token", "show", token["id"], "--json")
        assert json.loads(told.stdout)["state"] == "used_up"

        assert await otsd.stop() == 0
        assert not await otsd.is_healthy()
        owners = {(each.stat().st_uid, each.stat().st_gid) for each in otsd.directory.iterdir()}
        assert owners == {(1337, 1337)}

        await otsd.start()
        assert (await otsd.get(f"/?token={code}")).status == 410
        again = await otsd.get(sent.headers["Location"])
        assert (again.status, "Done" in again.text) == (200, True)
        assert await browser.is_in()
        await otsd.connected()
    assert [call.service for call in fake_home.calls] == ["unlock"]
    assert "Traceback" not in otsd.log
