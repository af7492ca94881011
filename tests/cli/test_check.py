"""``otsd check``: one line each, with a daemon and without, when all is right and when not."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from otsd.store import database
from otsd.store.store import opened
from tests.cli.calling import call
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import Browser, daemon_with_admin

PARTS = ("configuration", "storage", "Home Assistant", "broker")


async def check(daemon: Daemon, *words: str, status: int = 0) -> dict[str, str]:
    """Run it; return what it says of each part, having counted the lines."""
    return read(await call(daemon, "check", *words), status)


def read(ran: subprocess.CompletedProcess[str], status: int) -> dict[str, str]:
    assert ran.returncode == status, ran
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert len(lines) == len(PARTS)
    told = {}
    for part, line in zip(PARTS, lines, strict=True):
        assert line.startswith(f"{part} ")
        told[part] = line.removeprefix(part).strip()
    return told


async def made(daemon: Daemon) -> None:
    """Make the storage directory, as a daemon does."""
    async with opened(daemon.directory):
        pass


async def test_everything_right_is_said_of_the_running_daemon(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    told = await check(daemon)
    assert told["configuration"].startswith("ok")
    assert told["storage"] == f"ok         {daemon.directory}, used by the running daemon"
    assert told["Home Assistant"] == f"ok         version {fake_home.version}"
    assert told["broker"] == "off        mqtt.host is not set"
    as_json = json.loads((await call(daemon, "check", "--json")).stdout)
    assert as_json["ok"] is True
    assert [(found["part"], found["verdict"]) for found in as_json["checks"]] == [
        ("configuration", "ok"),
        ("storage", "ok"),
        ("Home Assistant", "ok"),
        ("broker", "off"),
    ]
    fake_home.admin = False  # which the daemon learns when it connects again
    await fake_home.hang_up()
    await daemon.until_status(lambda status: status["home_assistant"]["error"])
    await daemon.connected()
    told = await check(daemon, status=1)
    assert told["Home Assistant"].startswith("failed     The access token is not an admin")


async def test_a_daemon_without_its_home_is_not_in_order(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    await fake_home.stop()
    await daemon.until_status(lambda status: status["home_assistant"]["error"])
    told = await check(daemon, status=1)
    assert told["storage"].startswith("ok")
    assert told["Home Assistant"].startswith("failed     ")
    fake_home.token = "another"
    await fake_home.start()
    await daemon.until_status(lambda status: status["home_assistant"]["state"] == "refused")
    told = await check(daemon, status=1)
    assert "Give otsd a new long-lived access token" in told["Home Assistant"]


async def test_without_a_daemon_everything_is_tried_and_nothing_is_made(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    daemon = Daemon(tmp_path, url=fake_home.url, token=fake_home.token)
    told = await check(daemon)
    assert told["storage"] == f"ok         {daemon.directory} does not exist yet; it will be made"
    assert told["Home Assistant"] == f"ok         version {fake_home.version} at 127.0.0.1"
    assert not daemon.directory.exists()

    daemon.directory.mkdir()
    told = await check(daemon, "--mqtt.host", "127.0.0.1", "--mqtt.port", "1", status=1)
    assert "holds no database yet" in told["storage"]
    assert told["broker"] == "failed     nothing answers at 127.0.0.1:1 (Connection refused)"
    assert list(daemon.directory.iterdir()) == []

    await made(daemon)
    before = {path.name for path in daemon.directory.iterdir()}
    told = await check(daemon)
    assert told["storage"] == f"ok         {daemon.directory}"
    assert {path.name for path in daemon.directory.iterdir()} == before
    assert not fake_home.calls
    assert not fake_home.events


async def test_without_a_daemon_a_home_that_is_wrong_is_explained(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    daemon = Daemon(tmp_path, url=fake_home.url, token="wrong")
    told = await check(daemon, status=1)
    assert "Give otsd a new long-lived access token" in told["Home Assistant"]
    assert fake_home.auth_attempts == 1  # a few more, and Home Assistant bans this address

    nowhere = ("--home_assistant.url", "http://127.0.0.1:1")
    told = await check(daemon, *nowhere, status=1)
    assert told["Home Assistant"].startswith("failed     nothing answers at 127.0.0.1:1")

    tls = ("--home_assistant.url", "https://127.0.0.1:1", "--home_assistant.ca_file", "none.pem")
    told = await check(daemon, *tls, status=1)
    assert "home_assistant.ca_file" in told["Home Assistant"]

    fake_home.handshake = "not_a_websocket"
    told = await check(daemon, status=1)
    assert "is it Home Assistant?" in told["Home Assistant"]

    off = Daemon(tmp_path, url=fake_home.url, token=None)
    told = await check(off)
    assert told["Home Assistant"].startswith("off        no access token is configured")
    assert told["Home Assistant"].endswith(f"something answers at {fake_home.url}")
    told = await check(off, *nowhere)
    assert told["Home Assistant"].startswith("off        no access token is configured")
    assert told["Home Assistant"].endswith("nothing answers at 127.0.0.1:1 (Connection refused)")


async def test_what_does_not_answer_is_given_five_seconds(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    assert daemon.process
    fake_home.handshake = "silent"
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        frozen, silent = await asyncio.gather(
            check(daemon, status=1),
            daemon.command("check", "--storage.directory", str(daemon.folder / "new")),
        )
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert "has not answered within 5 s" in frozen["storage"]
    assert frozen["Home Assistant"] == "not tried  the daemon comes first"
    assert "answer" in read(silent, 1)["Home Assistant"]


async def test_ports_that_the_daemon_could_not_have_are_told_and_the_rest_is_tried(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    daemon = Daemon(tmp_path, url=fake_home.url, token=fake_home.token)
    with socket.create_server(("127.0.0.1", daemon.port)):
        told = await check(daemon, status=1)
        assert told["configuration"].startswith(
            f"failed     public.port (OTSD_PUBLIC__PORT): port {daemon.port} of 127.0.0.1 is in use"
        )
        assert told["storage"].startswith("ok")
        assert told["Home Assistant"].startswith("ok")

        # 192.0.2.0/24 is for documentation (RFC 5737)
        ran = await call(daemon, "check", "--admin.host", "192.0.2.1")
    assert ran.returncode == 1
    first, second, *rest = ran.stdout.splitlines()
    assert "public.port (OTSD_PUBLIC__PORT)" in first
    assert second.strip() == (
        "admin.host (OTSD_ADMIN__HOST): 192.0.2.1 is no address of this machine. Choose one that is."
    )
    assert len(rest) == len(PARTS) - 1

    one_door = ("--admin.host", "localhost", "--admin.port", str(daemon.port))
    for host in ("127.0.0.1", "0.0.0.0"):
        ran = await call(daemon, "check", *one_door, "--public.host", host)
        assert ran.returncode == 1
        assert "admin.port (OTSD_ADMIN__PORT)" in ran.stdout.splitlines()[0]
    long = f"http://{'x' * 64}.example.org"
    ran = await call(daemon, "check", "--home_assistant.url", long)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "example.org is not known" in ran.stdout.splitlines()[2]
    assert (await check(daemon))["configuration"] == "ok         every setting can be used"


async def test_a_login_on_the_admin_page_is_tried_without_a_daemon(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    async with (
        daemon_with_admin(tmp_path, fake_home, token=None) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        await browser.log_in(fake_home)
        await browser.get(fake_home.authorize(await browser.begin("/connect")))
        await daemon.connected()
        await daemon.stop()
        before = {path.name for path in daemon.directory.iterdir()}
        told = await check(daemon)
        assert told["Home Assistant"].startswith("ok         version ")
        assert {path.name for path in daemon.directory.iterdir()} == before

        await daemon.start()
        gone = await browser.api("POST", "/home-assistant/disconnect")
        assert gone.status == 204, gone.text
        await daemon.stop()
        told = await check(daemon)
        assert told["Home Assistant"].startswith("off        no access token is configured")


async def test_a_login_that_was_ended_or_cannot_be_known_is_told_without_a_daemon(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    async with (
        daemon_with_admin(tmp_path, fake_home, token=None) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        await browser.log_in(fake_home)
        await browser.get(fake_home.authorize(await browser.begin("/connect")))
        await daemon.connected()
        await daemon.stop()
        for refresh in fake_home.refresh_tokens:
            fake_home.revoke(refresh)
        told = await check(daemon, status=1)
        assert told["Home Assistant"].startswith(
            "failed     Home Assistant does not accept the access any more that was granted to otsd"
        )

        (daemon.directory / database.RESTORED).mkdir()
        assert (await check(daemon))["Home Assistant"] == (
            "not tried  otsd run puts the restored backup into its place first"
        )
        (daemon.directory / database.RESTORED).rmdir()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("a foreign key", "belongs to another database"),
        ("a lost key", "is missing, and without it no link"),
        ("a key for all", "can be read by others (mode 0644)"),
        ("a key for all and no database", "can be read by others (mode 0644)"),
        ("a damaged database", "is damaged"),
        ("a folder as database", "cannot be "),
        ("a file as folder", "cannot be used: "),
        ("a file above", "cannot be made: otsd may not write in "),
    ],
)
async def test_storage_that_cannot_be_used_is_explained_as_the_daemon_would(
    tmp_path: Path, harm: str, told: str
) -> None:
    daemon = Daemon(tmp_path, token=None)
    database, key = daemon.directory / "otsd.db", daemon.directory / "otsd.key"
    if harm in ("a foreign key", "a lost key", "a damaged database"):
        await made(daemon)
    else:
        daemon.directory.mkdir()
    match harm:
        case "a foreign key":
            key.write_text("00" * 32)
        case "a lost key":
            key.unlink()
        case "a key for all":
            key.write_text("00" * 32)
            key.chmod(0o644)
            database.write_bytes(b"")
        case "a key for all and no database":
            key.write_text("00" * 32)
            key.chmod(0o644)
        case "a damaged database":
            database.write_bytes(b"x" * 8192)
        case "a folder as database":
            database.mkdir()
        case "a file as folder":
            daemon.directory.rmdir()
            daemon.directory.write_text("")
        case _:
            daemon.directory.rmdir()
            daemon.directory.write_text("")
            daemon.directory /= "deeper"
    found = await check(daemon, status=1)
    assert found["storage"].startswith("failed     ")
    assert told in found["storage"]
    is_known = harm == "a file above"  # there is nothing in which a login could be kept
    assert found["Home Assistant"].startswith(
        "off  " if is_known else "not tried  the storage comes first"
    )


async def test_a_wrong_configuration_is_listed_and_nothing_else_is_tried(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings={"public.prot": "80", "log.level": '"loud"'})
    ran = await call(daemon, "check", "--mqtt.port", "99999")
    assert ran.returncode == 1
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(
        "configuration   failed     command line: mqtt.port (OTSD_MQTT__PORT)"
    )
    assert len(lines) == 6
    assert "public.prot" in ran.stdout
    assert "log.level" in ran.stdout
    assert [line[: line.index("not")].strip() for line in lines[3:]] == list(PARTS[1:])
    assert not daemon.directory.exists()


async def test_an_older_database_is_looked_at_and_not_upgraded(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.directory.mkdir(mode=0o700)
    older = database.schemas()[:-1]
    database.prepare(daemon.directory, older)
    told = await check(daemon, status=1)  # there is no Home Assistant
    assert "of an older otsd; it is upgraded at the start, and a copy kept" in told["storage"]
    assert database.look(daemon.directory, database.schemas()) == older[-1].version
    assert {file.name for file in daemon.directory.iterdir()} == {"otsd.db", "otsd.key"}
