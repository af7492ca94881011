"""The image that the Dockerfile makes: what is in it, and otsd as compose.yaml runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.container.composing import compose
from tests.container.image import MADE, Build
from tests.daemon import Daemon, free_port
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant
from tests.server.owner import Browser
from tests.server.test_real_login import person
from tests.walk import SETTINGS, Way, in_variables, walk

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
            **in_variables(),
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


class Broker(Mosquitto):
    """The broker of compose.yaml, on another port; a `client` of it is Home Assistant's."""

    def __init__(self, build: Build, folder: Path) -> None:
        super().__init__(folder, password=PASSWORDS["MQTT_HOME_ASSISTANT_PASSWORD"])
        self.username = "homeassistant"
        self._build = build
        self._whole = compose({"HOME_ASSISTANT_URL": "http://ha.example", **PASSWORDS})

    def command(self) -> list[str]:
        """Return what the engine would start."""
        service = self._whole["services"]["mosquitto"]
        kept = self.folder / "kept"
        kept.mkdir()
        binds = {"/mosquitto/data": kept}
        for each in service["configs"]:
            content = self._whole["configs"][each["source"]]["content"]
            file = self.folder / f"{each['source']}.config"
            file.write_text(content.replace("listener 1883", f"listener {self.port} 127.0.0.1"))
            file.chmod(0o444)  # as Docker puts it there
            binds[each["target"]] = file
        return self._build.command(service["command"], binds=binds, user=service["user"])


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


async def test_a_backup_that_only_its_owner_may_read_is_restored_into_an_empty_volume(
    build: Build, tmp_path: Path
) -> None:
    backup, volume = tmp_path / "backup.tar", tmp_path / "volume"
    volume.mkdir()
    async with Daemon(tmp_path) as daemon:
        assert (await daemon.command("backup", str(backup))).returncode == 0
    binds = {"/data": volume}
    # as a new volume takes over whose the folder in the image is
    subprocess.run(
        build.command(["chown", "1337:1337", "/data"], binds=binds, user="0"), check=True
    )
    words = [*build.image.said["ENTRYPOINT"].words, "restore", "-"]
    with backup.open("rb") as file:
        ended = await asyncio.to_thread(
            subprocess.run,
            build.command(words, binds=binds),
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert {each.name for each in volume.iterdir()} >= {"otsd.db", "otsd.key"}
    assert {each.stat().st_uid for each in volume.iterdir()} == {volume.stat().st_uid}


@pytest.mark.real
async def test_it_goes_the_whole_way_as_compose_says_from_the_first_login(
    build: Build, tmp_path: Path, real_home: HomeAssistant
) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    variables = {
        "HOME_ASSISTANT_URL": real_home.url,
        "PUBLIC_URL": SETTINGS["public.base_url"],
        "TRUSTED_PROXIES": ",".join(SETTINGS["public.trusted_proxies"]),
        "ADMIN_URL": url,
        **PASSWORDS,
    }
    otsd = Container(build, tmp_path, variables)
    assert not await otsd.is_healthy()
    async with (
        person(real_home) as anna,
        Broker(build, tmp_path / "broker") as broker,
        Ear(broker) as ear,
        published(port, (OWN_ADDRESS, otsd.admin_port)),
        Browser(url) as browser,
    ):
        otsd.given["OTSD_MQTT__PORT"] = str(broker.port)
        async with otsd:
            assert await otsd.is_healthy()
            await anna.log_in(browser)
            await anna.connect(browser)
            way = Way(
                owner=browser.api,
                visitor=otsd.visit,
                start=otsd.start,
                stop=otsd.stop,
                log=lambda: otsd.log,
                maker=f"user:{anna.name}",
            )
            await walk(way, real_home, ear)
            assert (await otsd.status())["counts"]["submissions"] == 3

            assert await otsd.stop() == 0
            assert not await otsd.is_healthy()
            owners = {(each.stat().st_uid, each.stat().st_gid) for each in otsd.directory.iterdir()}
            assert owners == {(1337, 1337)}
    assert "Traceback" not in otsd.log
