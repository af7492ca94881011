"""``otsd run``: what keeps it from starting is one message, and ending it is quiet."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from otsd.server.listener import ListenAddress
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant


async def test_a_wrong_configuration_ends_it_with_every_fault(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings={"public.prot": "80"})
    ran = await daemon.command("run", "--mqtt.port", "99999", "--log.level", "loud")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 3
    for word in ("otsd: command line: mqtt.port", "log.level (OTSD_LOG__LEVEL)", "public.prot"):
        assert word in ran.stderr
    named = await daemon.command("run", "--config", "nowhere.toml")
    assert named.returncode == 1
    assert "nowhere.toml: does not exist" in named.stderr


async def test_what_keeps_it_from_starting_is_one_message(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = await daemon.command("run", "--admin.port", str(port), "--log.level", "error")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"otsd: admin.port (OTSD_ADMIN__PORT): port {port} of 127.0.0.1 is in use, by another "
        "program or by another site of otsd. End that, or choose another port.\n"
    )
    async with daemon:
        relative = ("--storage.directory", "data")
        second = await daemon.command("run", "--public.port", "0", *relative)
        assert second.returncode == 1
        assert second.stderr == (
            f"otsd: Another otsd is running with the storage directory {daemon.directory}. "
            "Stop it first.\n"
        )
        assert "Traceback" not in second.stderr
        assert (await daemon.get("/healthz")).status == 200


async def test_two_addresses_that_cannot_be_had_are_told_at_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings={"admin.host": '"192.0.2.1"'})
    with socket.create_server(("127.0.0.1", daemon.port)):
        ran = await daemon.command("run", "--log.level", "error")
    assert ran.returncode == 1
    first, second = ran.stderr.splitlines()
    assert first.startswith(f"otsd: public.port (OTSD_PUBLIC__PORT): port {daemon.port} of ")
    assert second == (
        "  admin.host (OTSD_ADMIN__HOST): 192.0.2.1 is no address of this machine. "
        "Choose one that is."
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "port (OTSD_PUBLIC__PORT): this user may not listen on port 80. Choose a port from 1024 on.",
        ),
        (
            OSError("could not bind on any address"),  # asyncio's, from Python 3.13 on
            "host (OTSD_PUBLIC__HOST): nas is no address of this machine. Choose one that is.",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "host (OTSD_PUBLIC__HOST): the name nas is not known here. Choose an address.",
        ),
        (
            OSError(errno.ENOBUFS, "No buffer space available"),
            "port (OTSD_PUBLIC__PORT): cannot listen on nas port 80: No buffer space available.",
        ),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_by_its_setting(
    error: OSError, told: str
) -> None:
    assert ListenAddress("public", "nas", 80).why_not(error) == f"public.{told}"


async def test_the_command_line_is_the_strongest_and_takes_a_secret_from_its_file(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{fake_home.token}\n")
    daemon = Daemon(
        tmp_path,
        url=fake_home.url,
        token="wrong",
        settings={"public.title": '"From the file"'},
    )
    daemon.directory = tmp_path / "elsewhere"
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "otsd", "run", "--config", str(daemon.config)),
                *("--home_assistant.token_file", str(file), "--public.title", "From the line"),
                *("--storage.directory", str(daemon.directory)),
            ],
            stderr=log,
            cwd=tmp_path,
        )
    try:
        async with asyncio.timeout(15):
            while not (daemon.directory / "otsd.sock").is_socket() or "serves" not in daemon.log:
                assert daemon.process.poll() is None, daemon.log
                await asyncio.sleep(0.02)
        await daemon.connected()
        assert "From the line" in (await daemon.get("/")).text
        assert await daemon.stop() == 0
    finally:
        daemon.kill()


async def test_a_variable_with_one_underscore_too_few_is_told_and_not_used(tmp_path: Path) -> None:
    told = "OTSD_PUBLIC_PORT is not a setting; did you mean OTSD_PUBLIC__PORT?"
    daemon = Daemon(tmp_path, environment={"OTSD_PUBLIC_PORT": "7", "OTSD_PORT": "tcp://8"})
    ran = await daemon.command("check", "--json")
    checked = json.loads(ran.stdout)["checks"][0]
    assert checked["verdict"] == "ok"
    assert checked["words"] == f"every setting can be used; {told}"
    async with daemon:
        assert told in daemon.log
        assert "OTSD_PORT" not in daemon.log


async def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    async with daemon:
        assert daemon.process
        daemon.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(daemon.process.wait, 15) == 0
    assert "Traceback" not in daemon.log
    assert "KeyboardInterrupt" not in daemon.log
