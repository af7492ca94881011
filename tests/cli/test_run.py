"""``otsd run``: what keeps it from starting is one message, and ending it is quiet."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

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
        port = str(taken.getsockname()[1])
        ran = await daemon.command("run", "--public.port", port, "--log.level", "error")
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("otsd: ")
    assert port in line
    async with daemon:
        second = await daemon.command("run", "--public.port", "0")
        assert second.returncode == 1
        assert "Another otsd is running with the storage directory" in second.stderr
        assert "Traceback" not in second.stderr
        assert (await daemon.get("/healthz")).status == 200


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


async def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    async with daemon:
        assert daemon.process
        daemon.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(daemon.process.wait, 15) == 0
    assert "Traceback" not in daemon.log
    assert "KeyboardInterrupt" not in daemon.log
