"""The unit of docs/systemd.md: systemd takes it, and otsd can do its work within it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otsd.cli import parser
from otsd.settings import schema
from tests.confined import settings
from tests.daemon import Daemon
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant
from tests.test_docs import blocks
from tests.walk import in_toml, walk, way_to

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "docs" / "otsd.service"
PAGE = ROOT / "docs" / "systemd.md"
PROGRAM = "/opt/otsd/bin/otsd"
CONFIG = "/etc/otsd/config.toml"
# what is left is the network, and this machine's root; measured with systemd 252: 1.2
MOST_EXPOSED = 1.5


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit of an otsd that is installed elsewhere, with every hint followed."""
    there = Path(sys.executable).with_name("otsd")
    text = re.sub(r"^#(?=[A-Z]\w+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    path = tmp_path / "otsd.service"
    path.write_text(text.replace(PROGRAM, str(there)))
    return path


def analyzed(*arguments: str | Path) -> str:
    """Run systemd-analyze, which must be content, and return what it said."""
    ran = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_systemd_takes_the_unit_with_and_without_its_hints(unit: Path) -> None:
    assert analyzed("verify", "--man=no", unit) == ""
    assert "LoadCredential=" in unit.read_text()
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    assert analyzed("verify", "--man=no", unit) == ""


def test_systemd_would_say_what_is_wrong_with_it(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    with pytest.raises(AssertionError, match="ProtectHouse"):
        assert analyzed("verify", "--man=no", unit) == ""


def test_systemd_finds_it_as_little_exposed_as_is_said(unit: Path) -> None:
    analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", unit)


def test_it_is_stopped_later_than_otsd_needs_and_killed_when_it_hangs() -> None:
    assert settings(UNIT, "Type") == ["notify"]
    assert int(settings(UNIT, "TimeoutStopSec")[0]) > 10
    assert int(settings(UNIT, "WatchdogSec")[0]) > 0
    assert settings(UNIT, "Restart") == ["on-failure"]


class Confined(Daemon):
    """An otsd that runs as the unit says, under its filters."""

    def spawn(self, preexec: Any = None) -> subprocess.Popen[bytes]:
        (line,) = settings(UNIT, "ExecStart")
        program, *arguments = line.replace(CONFIG, str(self.config)).split()
        assert program == PROGRAM
        (mask,) = settings(UNIT, "UMask")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.confined", str(UNIT)),
                    *(str(Path(sys.executable).with_name("otsd")), *arguments),
                ],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                umask=int(mask, 8),
            )
        return self.process


@pytest.mark.real
async def test_it_goes_the_whole_way_under_the_filters_of_the_unit(
    tmp_path: Path, real_home: HomeAssistant
) -> None:
    async with Mosquitto(tmp_path / "broker", tls=True) as broker, Ear(broker) as ear:
        directory = {"storage.directory": f'"{tmp_path / "data"}"'}
        more = {**broker.settings, **in_toml(), **directory}
        url = real_home.url.replace("127.0.0.1", "localhost")
        async with Confined(tmp_path, url=url, token=real_home.token, settings=more) as otsd:
            assert otsd.process is not None
            status = Path(f"/proc/{otsd.process.pid}/status").read_text()
            assert re.search(r"^Seccomp_filters:\s*2$", status, re.MULTILINE)
            await walk(way_to(otsd), real_home, ear)
            token = await otsd.mint()
            assert (await otsd.admin("GET", f"/tokens/{token['id']}/qr.png")).status == 200
            assert (await otsd.admin("GET", "/openapi.json")).status == 200
            assert await otsd.stop() == 0
    assert "Traceback" not in otsd.log


def test_every_command_of_the_owner_on_the_page_is_one() -> None:
    text = "".join(blocks(PAGE, "sh"))
    lines = [shlex.split(line.partition(" < ")[0]) for line in text.splitlines()]
    commands = [words[words.index(PROGRAM) + 1 :] for words in lines if PROGRAM in words]
    assert any(words[:2] == ["token", "create"] for words in commands)
    for words in commands:
        parser.build(schema()).parse_args(words)  # exits, and so fails, at wrong usage
        assert words[-2:] == ["--config", CONFIG]


def test_the_page_and_the_unit_speak_of_the_same_places() -> None:
    text = PAGE.read_text()
    for place in (PROGRAM.rpartition("/bin/")[0], CONFIG, "/var/lib/otsd"):
        assert place in text
    explained = set(re.findall(r"`(\w+)=?[^`]*`", text))
    confining = UNIT.read_text().partition("# what it may not do\n")[2].partition("\n[Install]")[0]
    named = set(re.findall(r"^(\w+)=", confining, re.MULTILINE))
    assert sorted(named - explained) == []
    (secret,) = re.findall(r"^\[Service\]\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {f"#{line}" for line in secret.splitlines()} < {*UNIT.read_text().splitlines()}
