"""``otsd backup`` and ``otsd restore``: what they write, what they refuse, and what is left then."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from otsd import __version__
from otsd.store import archive, database
from tests.cli.calling import call, process
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import daemon_with_admin
from tests.store import million
from tests.store.killing import Killer

SCHEMA = database.schemas()[-1].version
PAGE = Path(__file__).parents[2] / "docs" / "backup.md"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run one daemon, without a home, for what needs none of its own."""
    daemon = Daemon(tmp_path_factory.mktemp("serving"))
    try:
        asyncio.run(daemon.start())
        yield daemon
        asyncio.run(daemon.stop())
    finally:
        daemon.kill()


async def restored(file: Path, folder: Path, **more: Any) -> Daemon:
    """Restore a backup for another daemon, which is not started yet."""
    folder.mkdir()
    other = Daemon(folder, **more)
    ran = await call(other, "restore", str(file))
    assert (ran.returncode, ran.stderr.splitlines()[0][:5]) == (0, "Links"), ran.stderr
    return other


# -- there and back


async def test_links_of_a_backup_work_where_it_is_restored(
    daemon: Daemon, fake_home: FakeHomeAssistant, tmp_path: Path
) -> None:
    await daemon.action()
    used, fresh = await daemon.mint(), await daemon.mint(max_uses=2, comment="Plumber")
    assert (await daemon.submit(used["code"], "attempt-1")).status == 200
    await daemon.announced()
    file = tmp_path / "backup.tar"
    ran = await call(daemon, "backup", str(file))
    assert (ran.returncode, ran.stderr) == (
        0,
        "Keep it as you keep keys: it opens every link.\n",
    )
    assert ran.stdout.startswith(f"{file}: {file.stat().st_size / 1e6:.1f} MB, with everything up ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    # what comes later is not in it
    assert (await daemon.submit(fresh["code"])).status == 200
    await daemon.announced()
    await daemon.stop()
    other = await restored(file, tmp_path / "other", url=fake_home.url, token=fake_home.token)
    assert names(other.directory) == {"otsd.db", "otsd.key"}
    assert stat.S_IMODE(other.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in other.directory.iterdir()} == {0o600}
    async with other:
        await other.connected()
        assert (await other.admin("GET", f"/tokens/{fresh['id']}")).json["uses_left"] == 2
        assert (await other.submit(fresh["code"])).status == 200
        assert (await other.submit(used["code"])).status == 410
        assert (await other.submit(used["code"], "attempt-1")).status == 200  # as it was then
        assert len(fake_home.calls) == 3


async def test_programs_are_told_in_json_what_was_made_and_restored(
    daemon: Daemon, tmp_path: Path
) -> None:
    await daemon.action()
    await daemon.mint()
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    file = tmp_path / "backup.tar"
    made = json.loads((await call(daemon, "backup", str(file), "--json")).stdout)
    created_at = datetime.fromisoformat(made["created_at"])
    assert before <= created_at <= datetime.now(UTC)
    about = {"created_at": made["created_at"], "version": __version__, "schema": SCHEMA}
    assert made == {"file": str(file), "bytes": file.stat().st_size, **about}

    folder = tmp_path / "other"
    folder.mkdir()
    other = Daemon(folder)
    found = json.loads((await call(other, "restore", str(file), "--json")).stdout)
    assert found == {
        "file": str(file),
        "directory": str(other.directory),
        **about,
        "actions": 1,
        "tokens": 1,
    }


async def test_a_backup_is_written_where_the_command_is_called(
    serving: Daemon, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "otsd", "backup", "here.tar", "--config", str(serving.config)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OTSD_STORAGE__DIRECTORY": str(serving.directory)},
    )
    assert (ran.returncode, ran.stderr.count("\n")) == (0, 1)
    assert ran.stdout.startswith("here.tar: ")
    assert names(folder) == {"here.tar"}


async def test_two_backups_at_a_time_are_both_whole(serving: Daemon, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.tar" for number in range(4)]
    ran = await asyncio.gather(*(call(serving, "backup", str(file)) for file in files))
    assert [each.returncode for each in ran] == [0] * 4
    for number, file in enumerate(files):
        await restored(file, tmp_path / f"other-{number}")


async def test_no_key_of_the_api_opens_the_backup_over_the_network(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    async with daemon_with_admin(tmp_path, fake_home) as daemon:
        made = await daemon.admin("POST", "/api-keys", json={"name": "all", "scope": "admin"})
        headers = {"Authorization": f"Bearer {made.json['key']}"}
        for address in (daemon.admin_url, daemon.url):
            for method in ("GET", "HEAD", "POST"):
                answer = await daemon.request(method, f"{address}/api/v1/backup", headers=headers)
                assert answer.status == 404, (address, method)
        api = f"{daemon.admin_url}/api/v1"
        assert (await daemon.request("GET", f"{api}/status", headers=headers)).status == 200
        document = await daemon.request("GET", f"{api}/openapi.json", headers=headers)
        assert "/backup" not in document.json["paths"]


async def test_the_page_about_backups_does_what_it_says(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    make, look, move, restore, go_back = blocks
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    async def follow(block: str) -> str:
        ran = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-ec", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    daemon = Daemon(tmp_path, url=fake_home.url, token=fake_home.token)
    async with daemon:
        await daemon.connected()
        await daemon.action()
        link = await daemon.mint()
        await follow(make)
        assert json.loads(await follow(look))["schema"] == SCHEMA
        await daemon.stop()
        await follow(move)
        assert "ok" in await follow(restore)
        assert names(daemon.directory) == {"otsd.db", "otsd.key"}
        copy = re.findall(r"otsd\.db\.v\d+", go_back)[0]
        shutil.copy(daemon.directory / "otsd.db", daemon.directory / copy)
        await follow(go_back)
        assert names(daemon.directory) == {"otsd.db", "otsd.key"}
        await daemon.start()
        await daemon.connected()
        assert (await daemon.submit(link["code"])).status == 200


# -- what backup refuses


async def test_a_backup_is_no_stream(serving: Daemon) -> None:
    ran = await call(serving, "backup", "-")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "otsd: A backup is written to a file: say which, as in backup.tar.\n"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
async def test_nothing_is_written_over(serving: Daemon, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "backup.tar"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    ran = await call(serving, "backup", str(path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"otsd: {path} is there already, and nothing is written over it.\n"
    assert names(tmp_path) == before
    assert kind != "file" or path.read_text() == "precious"


async def test_a_folder_that_is_not_there_is_named(serving: Daemon, tmp_path: Path) -> None:
    ran = await call(serving, "backup", str(tmp_path / "no" / "backup.tar"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot be written: No such file or directory" in ran.stderr


async def test_without_a_daemon_there_is_no_backup(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    before = names(tmp_path)
    ran = await call(daemon, "backup", str(tmp_path / "backup.tar"))
    assert ran.returncode == 1
    assert "No daemon is running" in ran.stderr
    assert names(tmp_path) == before


@asynccontextmanager
async def standing_in(
    daemon: Daemon, answer: bytes, *, hang_up: bool = True
) -> AsyncIterator[asyncio.Event]:
    """Answer every request with these bytes in place of a daemon; tells when one was heard."""
    heard, done = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        heard.set()
        if not hang_up:
            await done.wait()
        writer.close()

    daemon.directory.mkdir()
    async with await asyncio.start_unix_server(serve, daemon.directory / "otsd.sock"):
        yield heard
        done.set()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "ended before it answered"),
        (HEAD + b"Content-Length: 9000\r\n\r\n" + bytes(4000), "ended before it answered"),
        (HEAD + b"Content-Length: 4096\r\n\r\n" + bytes(4096), "not an archive of otsd"),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", "cut short"),
        (HEAD + b"\r\n" + bytes(100), "cut short"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n{}", "the daemon answered 404"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\n{", "does not speak as this otsd does"),
    ],
)
async def test_what_is_no_whole_backup_leaves_no_file(
    tmp_path: Path, answer: bytes, told: str
) -> None:
    daemon = Daemon(tmp_path)
    async with standing_in(daemon, answer):
        before = names(tmp_path)
        ran = await call(daemon, "backup", str(tmp_path / "backup.tar"))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert told in ran.stderr
        assert names(tmp_path) == before


async def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    answer = HEAD + b"Content-Length: 9000\r\n\r\n" + bytes(4000)
    async with standing_in(daemon, answer, hang_up=False) as heard:
        before = names(tmp_path)
        running = process(
            daemon, "backup", "backup.tar", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(15):
            await heard.wait()
        assert len(names(tmp_path) - before) == 1
        running.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(running.communicate, timeout=15)
        assert (running.returncode, out, err) == (1, "", "")
        assert names(tmp_path) == before


async def test_a_full_disk_of_the_daemon_is_told_and_it_goes_on(
    serving: Daemon, tmp_path: Path
) -> None:
    assert serving.process is not None
    was = resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE)
    room = len(serving.log) + 30_000
    assert (serving.directory / "otsd.db").stat().st_size > room
    resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, (room, was[1]))
    try:
        answer = await serving.admin("GET", "/backup")
        assert (answer.status, answer.json["code"]) == (503, "storage_unavailable")
        ran = await call(serving, "backup", str(tmp_path / "backup.tar"))
    finally:
        resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, was)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"No backup of {serving.directory} could be made" in ran.stderr
    assert not (tmp_path / "backup.tar").exists()
    assert not [name for name in names(serving.directory) if "backup" in name]
    assert (await call(serving, "backup", str(tmp_path / "backup.tar"))).returncode == 0
    assert "Traceback" not in serving.log


async def test_a_full_disk_where_it_is_called_leaves_no_file(
    serving: Daemon, tmp_path: Path
) -> None:
    before = names(tmp_path)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "otsd", "backup", str(tmp_path / "backup.tar")],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OTSD_CONFIG": str(serving.config),
            "OTSD_STORAGE__DIRECTORY": str(serving.directory),
        },
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"otsd: {tmp_path / 'backup.tar'} cannot be written: File too large.\n"
    assert names(tmp_path) == before


@pytest.mark.parametrize("taken", [False, True])
async def test_a_file_system_without_links_takes_a_backup_too(
    serving: Daemon, tmp_path: Path, taken: bool
) -> None:
    file = tmp_path / "backup.tar"
    code = (
        "import errno, os, sys; from otsd.cli import main\n"
        "def link(source, target, **_):\n"
        f"    if {taken}: open(target, 'x').close()\n"
        f"    raise OSError({errno.EPERM}, 'Operation not permitted')\n"
        "os.link = link\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    where = ("--config", str(serving.config), "--storage.directory", str(serving.directory))
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, "backup", str(file), *where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not [name for name in names(tmp_path) if name.endswith(".part")]
    if taken:
        assert ran.returncode == 1
        assert "has come into being meanwhile" in ran.stderr
        assert file.read_bytes() == b""
    else:
        assert ran.returncode == 0
        await restored(file, tmp_path / "other")


async def test_a_key_that_does_not_fit_the_database_is_not_backed_up(
    serving: Daemon, tmp_path: Path
) -> None:
    key = serving.directory / "otsd.key"
    was = key.read_text()
    key.write_text("00" * 32)
    try:
        ran = await call(serving, "backup", str(tmp_path / "backup.tar"))
    finally:
        key.write_text(was)
    assert ran.returncode == 1
    assert "the key is not that of the database" in ran.stderr
    assert names(tmp_path) == set()


def test_a_backup_that_is_killed_at_any_step_leaves_no_file_or_a_whole_one(
    serving: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    where = ("--config", str(serving.config), "--storage.directory", str(serving.directory))
    found: Counter[bool] = Counter()
    with Killer() as killer:
        for step in range(1, 200):
            status = killer.call("backup", str(file), *where, at=step)
            found[file.exists()] += 1
            if file.exists():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                with file.open("rb") as made:
                    archive.check(made)
                file.unlink()
            # what a kill leaves has no name that anybody would take for a backup
            for path in tmp_path.iterdir():
                assert path.name.startswith(".otsd-backup-")
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                path.unlink()
            if status is not None:
                break
    assert status == 0
    assert found[False] > 5
    assert found[True] > 1


# -- what restore refuses


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage directory with 50 tokens, which nobody changes."""
    directory = tmp_path_factory.mktemp("filled") / "data"
    million.fill(directory, 50)
    with closing(sqlite3.connect(directory / "otsd.db")) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    return directory


Members = dict[str, bytes]
KEPT = ("otsd.key", "otsd.db")


def packed(members: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """Return a tar of these files, and then of these members."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in more:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return written.getvalue()


def members(directory: Path, **changes: Any) -> Members:
    """Return what is in a backup of a directory; ``changes`` are of the manifest."""
    files = {name: (directory / name).read_bytes() for name in KEPT}
    manifest = {
        "format": 1,
        "otsd": "1.2.3",
        "schema": SCHEMA,
        "created_at": "2026-11-21T20:15:00+00:00",
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
        **changes,
    }
    return {"manifest.json": json.dumps(manifest).encode(), **files}


def renamed(directory: Path, old: str, new: str) -> bytes:
    found = members(directory)
    return packed({new if name == old else name: content for name, content in found.items()})


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = target
    return entry


def replaced(directory: Path, entry: tarfile.TarInfo) -> bytes:
    """Return a backup whose key is another kind of thing."""
    found = members(directory)
    head = packed({"manifest.json": found["manifest.json"]})[: 2 * tarfile.BLOCKSIZE]
    return head + entry.tobuf(tarfile.GNU_FORMAT) + packed({"otsd.db": found["otsd.db"]})


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def break_a_rule(db: sqlite3.Connection) -> None:
    """Write what the schema forbids, as a fault of the disk may."""
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.execute("UPDATE tokens SET uses_taken = -1 WHERE seq = 7")


def with_database(
    directory: Path, change: Callable[[sqlite3.Connection], Any], **changes: Any
) -> bytes:
    """Return a backup in good order, of a database that was changed; ``changes`` as `members`."""
    other = directory.with_name(f"changed-{os.urandom(4).hex()}")
    shutil.copytree(directory, other)
    with closing(sqlite3.connect(other / "otsd.db", isolation_level=None)) as db:
        change(db)
    made = packed(members(other, **changes))
    shutil.rmtree(other)
    return made


def overwritten(directory: Path) -> bytes:
    """Return a backup of a database with a page of noise."""
    found = members(directory)
    db = found["otsd.db"]
    other = directory.with_name("noise")
    other.mkdir()
    (other / "otsd.db").write_bytes(db[:8192] + b"\xff" * 4096 + db[12288:])
    shutil.copy(directory / "otsd.key", other)
    made = packed(members(other))
    shutil.rmtree(other)
    return made


GARBAGE: Mapping[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (lambda _: b"", "cut short"),
    "zeros": (lambda _: bytes(10_240), "not an archive of otsd"),
    "noise": (lambda _: os.urandom(10_240), "not an archive of otsd"),
    "a database": (lambda d: (d / "otsd.db").read_bytes(), "not an archive of otsd"),
    "cut in the manifest": (lambda d: packed(members(d))[:600], "cut short"),
    "cut in the key": (lambda d: packed(members(d))[:1600], "cut short"),
    "cut in the database": (lambda d: packed(members(d))[:9000], "cut short"),
    "without its end": (lambda d: packed(members(d)).rstrip(b"\0"), "cut short"),
    "more behind it": (lambda d: packed(members(d)) + b"x", "more in it"),
    "many zeros behind it": (lambda d: packed(members(d)) + bytes(20_480), "more in it"),
    "a fourth file": (lambda d: packed(members(d), member("otsd.sock")), "more in it"),
    "the key twice": (lambda d: packed(members(d), member("otsd.key")), "more in it"),
    "another name": (lambda d: renamed(d, "otsd.key", "config.toml"), "has 'config.toml' where"),
    "a path up": (lambda d: renamed(d, "otsd.key", "../otsd.key"), "has '../otsd.key' where"),
    "an absolute path": (lambda d: renamed(d, "otsd.key", "/etc/x"), "has '/etc/x' where"),
    "no manifest": (lambda d: renamed(d, "manifest.json", "x"), "has 'x' where"),
    "another order": (
        lambda d: packed(dict(reversed(members(d).items()))),
        "has 'otsd.db' where",
    ),
    "a symbolic link": (
        lambda d: replaced(d, member("otsd.key", tarfile.SYMTYPE, "/etc/passwd")),
        "has 'otsd.key' where every backup has the file 'otsd.key'",
    ),
    "a hard link": (
        lambda d: replaced(d, member("otsd.key", tarfile.LNKTYPE, "manifest.json")),
        "has 'otsd.key' where",
    ),
    "a device": (
        lambda d: replaced(d, member("otsd.key", tarfile.CHRTYPE)),
        "has 'otsd.key' where",
    ),
    "a folder": (
        lambda d: replaced(d, member("otsd.key", tarfile.DIRTYPE)),
        "has 'otsd.key' where",
    ),
    "a long name": (
        lambda d: packed({**members(d), "x" * 200: b""}),
        "more in it",
    ),
    "a manifest that is large": (
        lambda d: packed({"manifest.json": bytes(20_000)}),
        "manifest.json in it is larger",
    ),
    "a manifest of no use": (lambda _: packed({"manifest.json": b"[]"}), "is damaged"),
    "a manifest that is no JSON": (lambda _: packed({"manifest.json": b"{"}), "is damaged"),
    "a manifest of depth": (lambda _: packed({"manifest.json": b"[" * 16_000}), "is damaged"),
    "a manifest without files": (lambda d: packed(members(d, files={})), "is damaged"),
    "a manifest of infinity": (
        lambda d: packed(members(d, schema=float("inf"))),
        "is damaged",
    ),
    "a size of infinity": (
        lambda d: packed(
            members(d, files={name: {"bytes": float("inf"), "sha256": ""} for name in KEPT})
        ),
        "is damaged",
    ),
    "a time that is none": (lambda d: packed(members(d, created_at="yesterday")), "is damaged"),
    "a time that is a number": (lambda d: packed(members(d, created_at=5)), "is damaged"),
    "a time before all others": (
        lambda d: packed(members(d, created_at="0001-01-01T00:00:00+14:00")),
        "is damaged",
    ),
    "a format to come": (lambda d: packed(members(d, format=2)), "by a newer otsd, 1.2.3"),
    "no format": (lambda d: packed(members(d, format=None)), "is damaged"),
    "a newer schema": (lambda d: packed(members(d, schema=SCHEMA + 1)), "by a newer otsd, 1.2.3"),
    "another schema": (lambda d: packed(members(d, schema=SCHEMA - 1)), "is damaged"),
    "a key that is larger": (
        lambda d: packed({**members(d), "otsd.key": bytes(66)}),
        "otsd.key in it is larger",
    ),
    "a key that is shorter": (
        lambda d: packed({**members(d), "otsd.key": bytes(64)}),
        "otsd.key in it is not what was backed up",
    ),
    "another key": (
        lambda d: packed({**members(d), "otsd.key": b"0" * 64 + b"\n"}),
        "otsd.key in it is not what was backed up",
    ),
    "a bit of the database": (
        lambda d: packed({**members(d), "otsd.db": flipped((d / "otsd.db").read_bytes(), 50_000)}),
        "otsd.db in it is not what was backed up",
    ),
    "a database with noise": (overwritten, "damaged"),
    "a database of another key": (
        lambda d: with_database(d, lambda db: db.execute("UPDATE meta SET value = x'00'")),
        "the key is not that of the database",
    ),
    "a database without tokens": (
        lambda d: with_database(d, lambda db: db.execute("DROP TABLE tokens")),
        "is damaged",
    ),
    "a value that no start takes": (
        lambda d: with_database(d, break_a_rule),
        "the database is damaged (CHECK constraint failed in tokens)",
    ),
    "no schema": (
        lambda d: with_database(d, lambda db: db.execute("PRAGMA user_version = 0"), schema=0),
        "is damaged",
    ),
    "a database of a newer otsd": (
        lambda d: with_database(d, lambda db: db.execute(f"PRAGMA user_version = {SCHEMA + 1}")),
        "is damaged",
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_no_backup_is_refused_and_nothing_changes(
    filled: Path, tmp_path: Path, kind: str
) -> None:
    make, told = GARBAGE[kind]
    file = tmp_path / "backup.tar"
    file.write_bytes(make(filled))
    daemon = Daemon(tmp_path)
    before = names(tmp_path)
    ran = await call(daemon, "restore", str(file))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"otsd: {file} is no backup that can be restored: ")
    assert ran.stderr.endswith(". Nothing was changed.\n")
    assert told in ran.stderr
    assert names(tmp_path) == before


async def test_a_backup_that_is_refused_leaves_an_empty_directory_empty(
    filled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled))[:9000])
    daemon = Daemon(tmp_path)
    daemon.directory.mkdir()
    assert (await call(daemon, "restore", str(file))).returncode == 1
    assert names(daemon.directory) == set()


async def test_what_a_tar_program_has_packed_anew_is_taken(filled: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for name, content in members(filled).items():
        (unpacked / name).write_bytes(content)
    file = tmp_path / "backup.tar"
    subprocess.run(
        ["tar", "cf", file, "-C", unpacked, "manifest.json", "otsd.key", "otsd.db"], check=True
    )
    daemon = Daemon(tmp_path)
    ran = await call(daemon, "restore", str(file))
    assert ran.returncode == 0, ran.stderr
    assert f"{daemon.directory}: 1 actions and 50 tokens, as they were at 2026-11-21" in ran.stdout
    assert "Links that were used since then work again" in ran.stderr


async def test_a_backup_of_an_older_otsd_is_taken_and_the_start_upgrades_it(
    tmp_path: Path,
) -> None:
    older = tmp_path / "older"
    older.mkdir(mode=0o700)
    steps = database.schemas()[:-1]
    database.prepare(older, steps)
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(older, schema=steps[-1].version)))
    daemon = Daemon(tmp_path)
    assert (await call(daemon, "restore", str(file))).returncode == 0
    checked = await call(daemon, "check")
    assert "of an older otsd; it is upgraded at the start, and a copy kept" in checked.stdout
    async with daemon:
        assert f"otsd.db.v{steps[-1].version}" in names(daemon.directory)


@pytest.mark.parametrize("there", ["otsd.db", "otsd.key", "otsd.db-wal", "otsd.db-journal"])
async def test_nothing_is_restored_over_a_database_a_key_or_a_log(
    filled: Path, tmp_path: Path, there: str
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled)))
    daemon = Daemon(tmp_path)
    daemon.directory.mkdir()
    (daemon.directory / there).write_text("precious")
    ran = await call(daemon, "restore", str(file))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{there}. Move that away first" in ran.stderr
    assert names(daemon.directory) == {there}
    assert (daemon.directory / there).read_text() == "precious"


async def test_nothing_is_restored_while_a_daemon_runs_there(
    daemon: Daemon, filled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled)))
    before = (daemon.directory / "otsd.key").read_bytes()
    ran = await call(daemon, "restore", str(file))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Another otsd is running with the storage directory" in ran.stderr
    assert (daemon.directory / "otsd.key").read_bytes() == before
    assert (await daemon.status())["home_assistant"]["state"] == "connected"


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_backup_can_come_through_a_pipe(
    filled: Path, tmp_path: Path, is_whole: bool
) -> None:
    content = packed(members(filled))[: None if is_whole else 9000]
    daemon = Daemon(tmp_path)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "otsd", "restore", "-", "--json"],
        input=content,
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OTSD_CONFIG": str(daemon.config)},
    )
    if is_whole:
        assert (ran.returncode, ran.stderr) == (0, b"")
        told = json.loads(ran.stdout)
        assert (told["file"], told["actions"], told["tokens"]) == ("-", 1, 50)
        assert names(daemon.directory) == {"otsd.db", "otsd.key"}
    else:
        assert (ran.returncode, ran.stdout) == (1, b"")
        assert ran.stderr == (
            b"otsd: Standard input is no backup that can be restored: it is cut short. "
            b"Nothing was changed.\n"
        )
        assert not daemon.directory.exists()


@pytest.mark.parametrize("kind", ["nothing", "folder"])
async def test_what_cannot_be_read_is_said_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "backup.tar"
    if kind == "folder":
        path.mkdir()
    daemon = Daemon(tmp_path)
    ran = await call(daemon, "restore", str(path))
    assert (ran.returncode, ran.stdout) == (1, "")
    why = "Is a directory" if kind == "folder" else "No such file or directory"
    assert ran.stderr == f"otsd: {path} cannot be read: {why}.\n"
    assert not daemon.directory.exists()


async def test_a_disk_that_is_full_takes_nothing_of_a_backup(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled)))
    directory = tmp_path / "data"
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "otsd", "restore", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OTSD_STORAGE__DIRECTORY": str(directory)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert ran.returncode == 1
    assert ran.stderr == f"otsd: {directory} cannot take the backup: File too large.\n"
    assert not directory.exists()


@pytest.mark.parametrize(
    "words", [("backup",), ("restore",), ("backup", ""), ("restore", "a", "b")]
)
async def test_a_file_is_named_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert (await call(Daemon(tmp_path), *words)).returncode == 2


# -- a restore that was cut short


async def test_a_restore_that_was_cut_short_when_all_was_there_is_finished(
    filled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled)))
    daemon = Daemon(tmp_path)
    daemon.directory.mkdir(mode=0o700)
    shutil.copytree(filled, daemon.directory / "restore.new")
    (daemon.directory / "restore.new" / "otsd.key").rename(daemon.directory / "otsd.key")
    (daemon.directory / "restore.part").mkdir()
    checked = await call(daemon, "check")
    assert "has a restored backup, which the start puts into its place" in checked.stdout
    assert names(daemon.directory) == {"otsd.key", "restore.new", "restore.part"}

    ran = await call(daemon, "restore", str(file))
    assert ran.returncode == 1
    assert "was cut short and is finished now" in ran.stderr
    assert names(daemon.directory) == {"otsd.db", "otsd.key"}
    async with daemon:
        counts = (await daemon.status())["counts"]
        assert (counts["actions"], counts["tokens"]) == (1, 50)


async def test_two_restores_at_a_time_do_not_meet(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.write_bytes(packed(members(filled)))
    daemon = Daemon(tmp_path)
    with database.held(daemon.directory):
        ran = await call(daemon, "restore", str(file))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Another otsd is running" in ran.stderr
    assert names(daemon.directory) == set()
