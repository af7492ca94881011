"""The commands that speak to the daemon: real processes, both of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import segno

from tests.cli.calling import call, process
from tests.daemon import Daemon
from tests.fakes.home_assistant import After, Call, Fail, FakeHomeAssistant, Succeed

ACTIONS = """
open-door:
  title: Open the front door
  action: lock.unlock
  target: {entity_id: lock.front_door}
  defaults: {max_uses: 2, expires_in: 7d}
arrive:
  alias: Let me in
  sequence:
    - action: lock.unlock
      target: {entity_id: lock.front_door}
    - action: light.turn_on
      target: {entity_id: light.hall}
"""


async def done(daemon: Daemon, *words: str, stdin: str | None = None) -> str:
    """Run a command that succeeds; return what it printed."""
    ran = await call(daemon, *words, stdin=stdin)
    assert ran.returncode == 0, ran
    return ran.stdout


async def result(daemon: Daemon, *words: str) -> Any:
    """Run a command with --json; return what it printed."""
    return json.loads(await done(daemon, *words, "--json"))


async def failed(daemon: Daemon, *words: str, stdin: str | None = None, status: int = 1) -> str:
    """Run a command that fails; return what it complained about."""
    ran = await call(daemon, *words, stdin=stdin)
    assert (ran.returncode, ran.stdout) == (status, ""), ran
    assert "Traceback" not in ran.stderr
    return ran.stderr


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run one daemon with one action, without a home, for what changes nothing."""
    daemon = Daemon(tmp_path_factory.mktemp("serving"))

    async def begin() -> None:
        await daemon.start()
        await daemon.action()

    try:
        asyncio.run(begin())
        yield daemon
        asyncio.run(daemon.stop())
    finally:
        daemon.kill()


# -- actions ---------------------------------------------------------------------------------


async def test_a_file_of_actions_is_applied_shown_run_and_deleted(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    file = daemon.folder / "actions.yaml"
    file.write_text(ACTIONS)
    first = await call(daemon, "action", "apply", str(file))
    assert first.returncode == 0
    assert first.stdout == "open-door: created\narrive: created\n"
    assert first.stderr == "arrive: warning: light.hall is missing\n"

    fake_home.set_state("light.hall", "off")
    changed = ACTIONS.replace("Let me in", "Let us in")
    assert await done(daemon, "action", "apply", "-", stdin=changed) == (
        "open-door: unchanged\narrive: replaced\n"
    )
    listed = await done(daemon, "action", "list")
    shown = await done(daemon, "action", "show", "open-door")
    as_json = await result(daemon, "action", "show", "arrive")
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "arrive", "open-door"]
    assert "Let us in" in listed
    assert "Open the front door" in shown
    assert "after 7d" in shown
    assert "  entity_id: lock.front_door\n" in shown
    assert as_json["title"] == "Let us in"
    assert as_json == (await daemon.admin("GET", "/actions/arrive")).json

    assert await done(daemon, "action", "run", "open-door") == "open-door: executed\n"
    assert [call.service for call in fake_home.calls] == ["unlock"]
    fake_home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
    assert "The lock is jammed" in await failed(daemon, "action", "run", "open-door")

    await daemon.mint()
    assert "use the action" in await failed(daemon, "action", "delete", "open-door")
    assert await done(daemon, "action", "delete", "open-door", "--force") == "open-door: deleted\n"
    assert "There is no action 'open-door'" in await failed(daemon, "action", "show", "open-door")


async def test_when_one_action_is_wrong_all_faults_are_told_and_nothing_is_changed(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    bad = "Bad Name: {action: a.b}\nfive: 5\nlong: {action: lock.unlock, title: ''}\n"
    told = await failed(daemon, "action", "apply", "-", stdin=ACTIONS + bad)
    assert "Nothing was changed. In standard input:" in told
    assert [line.split(":")[0].strip() for line in told.splitlines()[1:]] == [
        "Bad Name",
        "five",
        "long",
    ]
    # and what only Home Assistant knows
    fake_home.on_validate = lambda config: f"{config[0]['action']} is no good"
    told = await failed(daemon, "action", "apply", "-", stdin=ACTIONS)
    assert "  open-door: yaml: lock.unlock is no good\n  arrive: yaml: lock.unlock" in told
    assert (await daemon.admin("GET", "/actions")).json["items"] == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 60_000, "nested"),
        (b"a: " + b"x" * 70_000, "larger than 64 kB"),
        ("é".encode() * 70_001, "larger than 64 kB"),
        (b"open-door: {action: lock.unlock}\n\xff: 1\n", "line 2: this is not UTF-8"),
        (b"a: {action: !secret door}", "!secret"),
        (b"", "a mapping of names"),
        (None, "cannot be read: No such file"),
    ],
)
async def test_a_file_that_is_none_is_refused_with_its_name(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "actions.yaml"
    if content is not None:
        file.write_bytes(content)
    daemon = Daemon(tmp_path)  # which does not run: nobody is asked about such a file
    complaint = await failed(daemon, "action", "apply", str(file))
    assert told in complaint
    assert str(file) in complaint


# -- tokens ----------------------------------------------------------------------------------


async def test_a_token_is_made_changed_and_ended(daemon: Daemon) -> None:
    await daemon.action()
    made = await daemon.command(
        *("token", "create", "--uses", "3", "open-door", "--expires-in", "2h", "--comment", "A b")
    )
    assert made.returncode == 0
    link = made.stdout.removesuffix("\n")
    assert link.startswith("http://localhost:")
    assert len(link.split()) == 1
    assert "uses left: 3 of 3" in made.stderr
    assert link not in made.stderr
    code = link.rpartition("=")[2]
    (token,) = (await daemon.admin("GET", "/tokens")).json["items"]
    name = token["id"]

    assert await done(daemon, "token", "link", name) == f"{link}\n"
    assert await result(daemon, "token", "link", name) == {"url": link}
    shown = await done(daemon, "token", "show", name)
    listed = await done(daemon, "token", "list", "--state", "active")
    for text in (shown, listed):
        assert "A b" in text
        assert "3 of 3" in text
        assert "in 2 h" in text
        assert code not in text

    assert "paused" in await done(daemon, "token", "pause", name)
    assert (await daemon.submit(code)).json["code"] == "paused"
    assert "active" in await done(daemon, "token", "resume", name)
    assert (await daemon.submit(code)).status == 200
    edited = await result(
        daemon, "token", "edit", name, "--uses", "5", "--expires-in", "30d", "--comment", ""
    )
    assert (edited["max_uses"], edited["uses_left"], edited["comment"]) == (5, 4, "")
    assert edited["expires_at"] > token["expires_at"]
    edited = await result(daemon, "token", "edit", "--unlimited", name, "--no-expiry")
    assert (edited["max_uses"], edited["expires_at"]) == (None, None)
    await done(daemon, "token", "edit", name, "--uses", "2")
    assert "uses left: 2 of 2" in await done(daemon, "token", "replenish", name)

    rotated = (await done(daemon, "token", "rotate", name)).strip()
    assert rotated != link
    assert (await daemon.submit(code)).json["code"] == "revoked"
    twin = await result(daemon, "token", "duplicate", name)
    assert twin["id"] != name
    assert twin["url"] not in (link, rotated)
    assert "revoked" in await done(daemon, "token", "revoke", name)
    assert "revoked, which is final" in await failed(daemon, "token", "resume", name)
    assert await done(daemon, "token", "delete", name) == f"{name}: deleted\n"
    assert "There is no token" in await failed(daemon, "token", "show", name)
    assert await done(daemon, "token", "delete", twin["id"], "--json") == ""


async def test_the_command_line_reads_numbers_and_the_daemon_says_what_is_wrong(
    daemon: Daemon,
) -> None:
    await daemon.action()
    made = await daemon.mint(max_uses=2)
    await daemon.submit(made["code"])
    await daemon.submit(made["code"])
    create = ("token", "create", "open-door")
    cases = [
        ((*create, "--comment", "\udcff"), "Invalid JSON"),
        (("token", "edit", made["id"], "--uses", "1"), "2 uses are taken already"),
        (("token", "link", "../../status"), "There is no token"),
        (("token", "show", "\udcff"), "There is no token"),
        (("submissions", "refund", "x"), "There is no submission 'x'"),
        (("submissions", "refund", "9" * 40), "There is no submission"),
    ]
    for words, wanted in cases:
        text = await failed(daemon, *words)
        assert wanted in text, words
        assert "\x1b" not in text
    assert (await daemon.status())["counts"]["tokens"] == 1

    edit = ("token", "edit", made["id"])
    usage = [
        ((*create, "--uses", "0"), "otsd: --uses: this must be from 1 to"),
        ((*create, "--uses", "-1"), "otsd: --uses: "),
        ((*create, "--uses", "1" + "0" * 30), "otsd: --uses: "),
        ((*create, "--expires-in", "0s"), "otsd: --expires-in: a duration must be longer than 0s"),
        ((*create, "--expires-in", "99999999d"), "--expires-in: '99999999d' is too long"),
        ((*create, "--expires-in", "NaN"), "--expires-in: 'NaN' is not a duration"),
        ((*create, "--expires-at", "2027-03-28T02:30"), "does not exist in Europe/Berlin"),
        ((*create, "--expires-at", "2020-01-01T00:00"), "--expires-at: this time is past"),
        ((*create, "--expires-at", "soon"), "--expires-at: 'soon' is not a date and time"),
        ((*create, "--valid-from", "soon"), "--valid-from: 'soon' is not a date and time"),
        (
            (*create, "--valid-from", "2040-01-02T00:00Z", "--expires-at", "2040-01-01T00:00Z"),
            "--expires-at: it would end before it begins (--valid-from)",
        ),
        ((*create, "--comment", "a\x1b[31mb"), "--comment: control characters"),
        ((*create, "--comment", "x" * 501), "--comment: "),
        ((*create, "--uses", "0", "--expires-in", "0s"), "  --expires-in: a duration"),
        (("token", "create", "../tokens"), "ACTION: a name is"),
        ((*edit, "--uses", "0"), "--uses: "),
        ((*edit, "--expires-in", "0s"), "--expires-in: a duration must be"),
        (
            (*edit, "--valid-from", "2090-01-01T00:00Z", "--expires-in", "2h"),
            "--expires-in: it would end before it begins",
        ),
        (("token", "edit", made["id"]), "say what to change"),
        (("submissions", "--limit", "3", "refund", "1"), "no options of the list"),
        (("submissions", "--follow", "--state", "running"), "--follow prints what has finished"),
    ]
    for words, wanted in usage:
        text = await failed(daemon, *words, status=2)
        assert wanted in text, words
        assert not re.search(r"max_uses|expires_|valid_from|\x1b", text), words
    assert (await daemon.status())["counts"]["tokens"] == 1


@pytest.mark.parametrize(
    "words", [("action", "show"), ("action", "run"), ("action", "delete"), ("token", "create")]
)
async def test_a_name_that_is_misspelt_is_told_with_the_one_that_is_meant(
    serving: Daemon, words: tuple[str, ...]
) -> None:
    near = await failed(serving, *words, "open-dor")
    assert near == "otsd: There is no action 'open-dor'. Did you mean open-door?\n"
    far = await failed(serving, *words, "xyz")
    assert far == "otsd: There is no action 'xyz'. otsd action list shows all.\n"


LOCAL = "Only this machine can open a link that begins with {}: set public.base_url.\n"


async def test_a_link_that_only_this_machine_can_open_is_told_once_and_not_to_programs(
    daemon: Daemon,
) -> None:
    await daemon.action()
    made = await daemon.mint()
    told = LOCAL.format(made["url"].partition("/?")[0])
    for words in (
        ("create", "open-door"),
        ("link", made["id"]),
        ("rotate", made["id"]),
        ("duplicate", made["id"]),
    ):
        ran = await call(daemon, "token", *words)
        assert ran.stderr.count(told) == ran.stderr.count("public.base_url") == 1, ran
        assert ran.stdout.count("\n") == 1
        assert (await call(daemon, "token", *words, "--json")).stderr == ""


@pytest.mark.parametrize(
    ("base", "is_told"),
    [
        ("http://door.localhost/in", True),
        ("http://[::1]:1340", True),
        ("https://door.example.org", False),
    ],
)
async def test_who_is_told_depends_on_where_links_lead(
    tmp_path: Path, base: str, is_told: bool
) -> None:
    async with Daemon(tmp_path, environment={"OTSD_PUBLIC__BASE_URL": base}) as daemon:
        await daemon.action()
        ran = await call(daemon, "token", "create", "open-door")
    assert ran.stdout.startswith(f"{base}/?token=")
    assert (LOCAL.format(base) in ran.stderr) is is_told
    assert ("base_url" in ran.stderr) is is_told


async def test_a_list_as_json_is_all_of_it_and_a_reader_may_stop_early(daemon: Daemon) -> None:
    await daemon.action()
    for _ in range(17):
        await asyncio.gather(*(daemon.mint() for _ in range(30)))
    everything = await result(daemon, "token", "list")
    some = await result(daemon, "token", "list", "--limit", "502")
    table = await done(daemon, "token", "list")
    assert everything.keys() == {"items", "next"}
    assert everything["next"] is some["next"] is None
    assert len({token["id"] for token in everything["items"]}) == 510
    assert some["items"] == everything["items"][:502]
    assert everything["items"][0] == (await daemon.admin("GET", "/tokens?limit=1")).json["items"][0]
    assert len(table.splitlines()) == 511
    for words in ("token list", "token list --json", "action show open-door", "--help"):
        ran = await asyncio.to_thread(
            subprocess.run,
            f"{sys.executable} -m otsd {words} | true",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
            cwd=daemon.folder,
            env={**os.environ, "OTSD_CONFIG": str(daemon.config)},
        )
        assert ran.stderr == "", words


async def test_a_result_that_cannot_be_written_is_a_failure(daemon: Daemon) -> None:
    with Path("/dev/full").open("w") as full:
        status = process(daemon, "status", stdout=full, stderr=subprocess.PIPE)
        _, complaint = await asyncio.to_thread(status.communicate, timeout=15)
    assert status.returncode == 1
    assert complaint == "otsd: The result cannot be written: No space left on device.\n"


def modules(picture: str) -> list[list[bool]]:
    """Read the half blocks back: true is dark."""
    dark = {" ": (True, True), "▀": (False, True), "▄": (True, False), "█": (False, False)}
    rows = []
    for line in picture.splitlines():
        pairs = [dark[letter] for letter in line]
        rows += [[upper for upper, _ in pairs], [lower for _, lower in pairs]]
    return rows


async def test_a_qr_code_is_drawn_beside_the_link_and_holds_it(daemon: Daemon) -> None:
    await daemon.action()
    made = await daemon.mint()
    ran = await daemon.command("token", "link", made["id"], "--qr")
    assert ran.stdout == f"{made['url']}\n"
    wanted = [
        [bool(module) for module in row]
        for row in segno.make(made["url"], error="m").matrix_iter(border=4)
    ]
    picture = ran.stderr.removesuffix(LOCAL.format(made["url"].partition("/?")[0]))
    assert modules(picture)[: len(wanted)] == wanted
    as_json = await daemon.command("token", "create", "open-door", "--qr", "--json")
    assert json.loads(as_json.stdout)["url"].startswith("http://")
    assert "█▀" in as_json.stderr


# -- submissions -----------------------------------------------------------------------------


async def test_submissions_are_listed_and_one_that_stayed_spent_is_given_back(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    await daemon.action("arrive", "- action: lock.unlock\n- action: lock.unlock\n")
    made = await daemon.mint("arrive")
    fake_home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
    hostile = "Phone \u009b31m \u202e"
    path = f"/api/public/token/submit?token={made['code']}"
    answer = await daemon.post(path, headers={"User-Agent": hostile})
    assert answer.json["code"] == "action_incomplete"

    listed = await done(daemon, "submissions", "--token", made["id"])
    as_json = await done(daemon, "submissions", "--state", "failed", "--json")
    assert "The lock is jammed" in listed
    for text in (listed, as_json):
        assert "Phone" in text
        assert "\u009b" not in text
        assert "\u202e" not in text
    (submission,) = json.loads(as_json)["items"]
    assert submission["spent"] is True
    told = await done(daemon, "submissions", "refund", str(submission["id"]))
    assert "was given back" in told
    again = await failed(daemon, "submissions", "refund", str(submission["id"]))
    assert "has come back already" in again
    assert (await daemon.submit(made["code"])).json["code"] == "action_incomplete"
    assert "made" not in await done(daemon, "submissions", "--token", "nobody")


@contextlib.contextmanager
def follow(daemon: Daemon, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``otsd submissions --follow`` until the block ends."""
    following = process(
        daemon,
        *("submissions", "--follow", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield following
    finally:
        following.kill()
        following.communicate()


async def line(stream: IO[str] | None) -> str:
    assert stream
    async with asyncio.timeout(15):
        return await asyncio.to_thread(stream.readline)


async def test_following_prints_each_submission_once_when_it_has_finished(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    await daemon.action()
    code = (await daemon.mint(max_uses=None))["code"]
    await daemon.submit(code)
    opened = asyncio.Event()
    fake_home.on_call = lambda _: After(opened, Succeed())
    assert (await daemon.submit(code)).status == 202  # number 2 runs
    with follow(daemon, "--json", "--limit", "2") as following:
        assert json.loads(await line(following.stdout))["id"] == 1
        fake_home.on_call = lambda _: None
        await daemon.submit(code)
        third = json.loads(await line(following.stdout))
        assert (third["id"], third["state"]) == (3, "executed")
        opened.set()
        second = json.loads(await line(following.stdout))
        assert (second["id"], second["state"]) == (2, "executed")
        await daemon.submit(code)
        assert json.loads(await line(following.stdout))["id"] == 4
        following.send_signal(signal.SIGINT)
        rest, complaint = await asyncio.to_thread(following.communicate, timeout=15)
        assert (following.returncode, rest, complaint) == (0, "", "")


async def test_following_begins_with_what_comes_and_filters_it(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    await daemon.action()
    code = (await daemon.mint(max_uses=None))["code"]
    await daemon.submit(code)
    with follow(daemon, "--state", "failed") as following:
        assert (await line(following.stdout)).startswith("ID")
        await daemon.submit(code)
        fake_home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
        await daemon.submit(code)
        row = await line(following.stdout)
        assert row.startswith("3 ")
        assert "The lock is jammed" in row
        await daemon.stop()
        _, complaint = await asyncio.to_thread(following.communicate, timeout=15)
        assert following.returncode == 1
        assert "aemon" in complaint
        assert "Traceback" not in complaint


# -- a terminal, and none --------------------------------------------------------------------


async def in_a_terminal(daemon: Daemon, *words: str, columns: int = 60) -> str:
    """Run a command in a terminal of its own; return everything that it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""

    def run() -> None:
        nonlocal shown
        command = process(daemon, *words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO: the other end was closed
            while chunk := os.read(ours, 65536):
                shown += chunk
        assert command.wait(15) == 0, shown

    await asyncio.to_thread(run)
    os.close(ours)
    return shown.decode()


async def test_on_a_terminal_a_table_fits_its_width_and_says_where_it_ends(daemon: Daemon) -> None:
    await daemon.action()
    for _ in range(4):
        await asyncio.gather(*(daemon.mint(comment="x" * 80) for _ in range(26)))
    shown = await in_a_terminal(daemon, "token", "list", columns=90)
    piped = await done(daemon, "token", "list")
    lines = shown.split("\r\n")
    assert max(map(len, lines)) == 90
    assert lines[1].endswith("x…")
    assert len(lines) == 1 + 100 + 2
    assert "the newest 100" in lines[101]
    assert piped.count("x" * 80) == 104


async def test_on_a_terminal_what_takes_long_shows_its_progress_and_clears_it(
    daemon: Daemon,
) -> None:
    file = daemon.folder / "actions.yaml"
    file.write_text(ACTIONS)
    shown = await in_a_terminal(daemon, "action", "apply", str(file))
    assert "checking 2 of 2" in shown
    assert "saving 2 of 2" in shown
    lines = shown.replace("\r\x1b[K", "\n").replace("\r\n", "\n").split("\n")
    assert {"open-door: created", "arrive: created"} < set(lines)
    picture = await in_a_terminal(daemon, "token", "create", "open-door", "--qr")
    assert "\x1b[38;5;231;48;5;16m█" in picture
    assert "\x1b[0m\r\nOnly this machine" in picture


async def test_without_a_daemon_every_command_says_so_and_how_to_start_one(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    commands = [
        ("status",),
        ("action", "list"),
        ("token", "create", "open-door"),
        ("submissions", "--follow"),
        ("token", "list", "--json"),
    ]
    for words in commands:
        told = await failed(daemon, *words)
        assert str(daemon.directory / "otsd.sock") in told
        assert "otsd run" in told


async def test_nothing_is_an_empty_list_and_the_status_counts_what_there_is(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    assert await result(daemon, "submissions") == {"items": [], "next": None}
    assert (await done(daemon, "token", "list")).split()[:2] == ["ID", "ACTION"]
    await daemon.action()
    await daemon.mint(max_uses=4)
    told, as_json = await done(daemon, "status"), await result(daemon, "status")
    assert as_json["home_assistant"]["state"] == "connected"
    assert as_json["counts"]["remaining_uses"] == 4
    assert f"version {fake_home.version}" in told
    assert "1, 1 of them active" in told


async def test_on_a_terminal_an_empty_list_says_that_it_is_one(serving: Daemon) -> None:
    cases = [
        (("key", "list"), "None yet."),
        (("submissions",), "None yet."),
        (("submissions", "--state", "failed"), "None of that kind."),
    ]
    for words, told in cases:
        assert (await in_a_terminal(serving, *words)).splitlines()[1:] == [told]
        ran = await call(serving, *words)
        assert (ran.stderr, ran.stdout.count("\n")) == ("", 1)
        assert (await call(serving, *words, "--json")).stderr == ""
    assert "None" not in await in_a_terminal(serving, "action", "list")


async def test_running_an_action_waits_for_its_answer_and_prints_its_response(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    fake_home.add_service("weather", "get", {"sun": True})
    await daemon.action("weather", "- action: weather.get\n- stop: done\n")
    calls: list[Call] = []

    def answer(call: Call) -> After:
        calls.append(call)
        return After(0.3, Succeed({"sun": True}))

    fake_home.on_call = answer
    told = await done(daemon, "action", "run", "weather")
    assert told.startswith("weather: executed\n")
    assert json.loads(told.partition("\n")[2]) == {"sun": True}
    assert (await result(daemon, "action", "run", "weather"))["response"] == {"sun": True}
    assert len(calls) == 2
