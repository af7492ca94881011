"""The whole way of a newcomer, with a real Home Assistant, broker and otsd; and every way out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otsd.demo.provision import provision
from tests.demo.running import PATIENCE, Demo, running_of, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Have Home Assistant in the cache, so that no test has to wait for it."""
    provision()


@contextlib.contextmanager
def taken(*ports: int) -> Iterator[None]:
    """Listen on these ports, unless somebody else does."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            server = stack.enter_context(socket.socket())
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                server.bind(("127.0.0.1", port))
                server.listen()
        yield


PARTS = {"mosquitto", "homeassistant", "otsd run"}


def parts_of(demo: Demo) -> set[str]:
    """Return which of its parts run."""
    lines = running_of(demo.temporary).values()
    return {part for part in PARTS if any(part in line for line in lines)}


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def test_a_newcomer_opens_the_door_and_ctrl_c_leaves_nothing_behind() -> None:
    """Whatever the folder and the environment say of another otsd, and with the usual ports taken."""
    foreign = {"OTSD_CONFIG": "nowhere.toml", "OTSD_PUBLIC__PORT": "1", "OTSD_MQTT__TLS": "true"}
    with taken(1337, 8123, 8099):
        async with Demo(environment=foreign) as demo:
            (demo.here / "config.toml").write_text("this = is [no configuration")
            await demo.ready()
            assert {port(demo.site), port(demo.home)}.isdisjoint({1337, 8123, 8099})
            assert port(demo.admin) not in {1337, 8123, 8099}
            assert "█▀" in demo.err
            token = await demo.log_in()
            assert await demo.state(token, "lock.front_door") == "locked"
            assert await demo.state(token, "light.hall") == "off"
            assert await demo.press() == 303
            async with asyncio.timeout(10):
                while await demo.state(token, "lock.front_door") != "unlocked":
                    await asyncio.sleep(0.02)
                while "executed" not in await demo.state(token, "input_text.last_submission"):
                    await asyncio.sleep(0.02)
                await demo.said("The front door is unlocked.")
            another = await asyncio.to_thread(
                subprocess.run, demo.next_command, capture_output=True, text=True, check=True
            )
            assert another.stdout.startswith(f"{demo.site}/?token=")
            assert await demo.enter() == ["Postman", "Plumber"]
            assert parts_of(demo) == PARTS
            began = time.monotonic()
            assert await demo.end(signal.SIGINT) == 0
            assert time.monotonic() - began < 5
            await demo.gone()
            assert demo.err.endswith("nothing of it is left but its cache.\n")
            assert [each.name for each in demo.here.iterdir()] == ["config.toml"]


async def test_a_phone_scans_the_code_and_only_what_it_needs_is_open() -> None:
    """In a network of its own, where every port is free: those that people expect are taken."""
    network = (
        "ip link set lo up && ip address add 198.51.100.7/32 dev lo"
        " && ip route add default dev lo src 198.51.100.7"
        f" && exec {sys.executable} -m tests.demo.phone"
    )
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    phone = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "--map-root-user", "--net", "sh", "-c", network],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert phone.returncode == 0, phone.stderr
    seen = json.loads(phone.stdout)
    assert seen["site"] == "http://198.51.100.7:1337"
    assert seen["home"] == "http://198.51.100.7:8123"
    assert seen["pressed"] == 303
    open_to_all = seen["listening"].pop("0.0.0.0")
    assert open_to_all == [1337, 8123]
    assert list(seen["listening"]) == ["127.0.0.1"]


async def test_two_demos_at_a_time_keep_apart_and_one_that_loses_a_part_says_so() -> None:
    async with Demo() as first, Demo() as second:
        began = time.monotonic()
        await asyncio.gather(first.ready(), second.ready())
        assert time.monotonic() - began < 45  # from the snapshot, two at a time, on a busy machine
        assert len({port(first.site), port(first.home), port(second.site), port(second.home)}) == 4
        assert first.login == second.login  # of the same snapshot
        assert first.code != second.code
        for pid, line in running_of(first.temporary).items():
            if "mosquitto" in line:
                os.kill(int(pid), signal.SIGKILL)
        assert await first.ended() == 1
        assert "otsd: The broker has ended, with exit status -9." in first.err
        await first.gone()
        assert await second.press() == 303
        assert await second.end(signal.SIGTERM) == 0
        await second.gone()


async def test_closing_the_terminal_ends_it() -> None:
    """Of a real terminal, on which it draws a bar; a kernel's SIGHUP, and nowhere left to write."""
    parent, child = pty.openpty()
    async with Demo(terminal=child) as demo:
        os.close(child)
        shown = await asyncio.to_thread(_read_until, parent, b"Ctrl-C ends everything.")
        assert re.search(rb"\r\x1b\[K\[#*\.+\] +\d+% +\d+ s  starting Home Assistant", shown)
        assert b"\x1b[38;5;231;48;5;16m" in shown
        assert parts_of(demo) == PARTS
        os.close(parent)
        await demo.ended()
        await demo.gone()


def _read_until(terminal: int, words: bytes) -> bytes:
    shown = b""
    while words not in shown:
        shown += os.read(terminal, 4096)
    return shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_while_it_starts_ends_it(number: signal.Signals) -> None:
    async with Demo() as demo:
        await demo.said("starting Home Assistant")
        await until(lambda: len(running_of(demo.temporary)) > 1)
        assert await demo.end(number) == 1
        await demo.gone()
        assert "token=" not in demo.out


async def test_a_signal_while_it_installs_ends_the_installer_too(tmp_path: Path) -> None:
    """Which is what takes longest; the folder that is left is made anew by the next one."""
    async with Demo(environment={"OTSD_CACHE": str(tmp_path)}) as demo:
        await demo.said("installing the installer")
        await until(lambda: "pip" in " ".join(running_of(tmp_path).values()))
        assert await demo.end(signal.SIGTERM) == 1
        await until(lambda: not running_of(tmp_path), 5)
        await demo.gone()


async def test_killed_it_takes_everything_that_runs_along() -> None:
    async with Demo() as demo:
        await demo.said("starting Home Assistant")
        await until(lambda: len(running_of(demo.temporary)) > 1)
        await demo.end(signal.SIGKILL)
        await until(lambda: not running_of(demo.temporary))


async def test_what_is_missing_is_told_at_once_and_nothing_is_installed(tmp_path: Path) -> None:
    """Neither a broker nor a Python for Home Assistant is to be found: each has its sentence."""
    nothing = {"PATH": str(tmp_path), "OTSD_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    async with Demo(environment=nothing) as demo:
        assert await demo.ended() == 1
        *_, broker, interpreter = demo.err.splitlines()
        assert broker.startswith("otsd: The demo needs the MQTT broker mosquitto")
        assert "apt install mosquitto" in broker
        assert "Home Assistant needs Python 3.13" in interpreter
        assert not (tmp_path / "cache").exists()
        assert demo.out == ""


async def test_without_a_broker_alone_it_says_one_sentence(tmp_path: Path) -> None:
    async with Demo(environment={"PATH": str(tmp_path)}) as demo:
        assert await demo.ended() == 1
        (line,) = demo.err.splitlines()
        assert line.startswith("otsd: The demo needs the MQTT broker mosquitto")
        await demo.gone()


@pytest.mark.parametrize("words", [("--config", "config.toml"), ("--public.port", "80")])
async def test_it_takes_no_settings(words: tuple[str, ...]) -> None:
    async with Demo(*words) as demo:
        assert await demo.ended() == 2
        assert "takes no settings" in demo.err
