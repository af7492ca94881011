"""``otsd import``, as somebody calls it who has just found the file."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import importing
from tests.cli.calling import call
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant

IN_TIME = 15.0  # 3.6 s where two cores have nothing else to do; at most 5 s are promised

CHANGED = "taken, with a change as"
SPACES = "its comment had line breaks or control characters, which are spaces now"
NEGATIVE = "its uses left were -2, and are 0 now"
ORPHAN = "its action is not in the file, so it is revoked"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Run otsd without Home Assistant, which an import does not need."""
    async with Daemon(tmp_path) as daemon:
        yield daemon


def write(daemon: Daemon, content: bytes) -> str:
    """Write a file, and return where it is: outside of what otsd writes."""
    folder = daemon.folder / "theirs"
    folder.mkdir(exist_ok=True)
    (folder / "db.json").write_bytes(content)
    return str(folder / "db.json")


async def test_each_change_and_each_refusal_has_a_line_and_no_line_has_a_code(
    daemon: Daemon,
) -> None:
    codes = [importing.code() for _ in range(5)]
    tokens = {
        codes[0]: importing.token(),
        codes[1]: importing.token(uses_left=-2, comment="Neighbour"),
        codes[2]: importing.token(service_call_name="Ring", comment=None),
        codes[3]: importing.token(service_call_name="Gone", comment="\x1b[31mred"),
        codes[4][:31]: importing.token(),
    }
    content = importing.file(tokens, Ring={"service": None}, **{"Tür\n": importing.DOOR})
    path = write(daemon, content)
    rehearsed = await call(daemon, "import", path, "--dry-run")
    assert (rehearsed.returncode, rehearsed.stderr) == (0, "")
    assert rehearsed.stdout.endswith("Nothing was changed.\n")
    assert (await daemon.status())["counts"]["actions"] == 0

    done = await call(daemon, "import", path)
    assert done.returncode == 0
    assert "a generator that can be guessed" in done.stderr
    assert "otsd token rotate ID" in done.stderr
    shown = (await daemon.admin("GET", "/tokens")).json["items"]
    ids = {each["comment"]: each["id"] for each in shown}
    assert done.stdout.splitlines() == [
        "action Open door: taken as open-door",
        "action Ring: refused; it names no service",
        "action Tür\\n: taken, with a change as tur; its title is now 'Tür'",
        f"token number 2 (Neighbour): {CHANGED} {ids['Neighbour']}; {NEGATIVE}",
        "token number 3: refused; its action is refused",
        f"token number 4 ( [31mred): {CHANGED} {ids[' [31mred']}; {SPACES}; {ORPHAN}",
        "token number 5: refused; its code is not 32 letters",
        (
            "1 action and 1 token taken, 1 action and 2 tokens taken with a change, "
            "1 action and 2 tokens refused."
        ),
    ]
    again = await call(daemon, "import", path)
    assert again.stdout.splitlines()[-1] == (
        "2 actions and 3 tokens here already, 1 action and 2 tokens refused."
    )
    assert again.stderr == ""

    for form in ("--json", "--dry-run"):
        told = await call(daemon, "import", path, form)
        assert not any(code[:31] in told.stdout + told.stderr for code in codes)
    assert not any(code[:31] in rehearsed.stdout + done.stdout for code in codes)
    Path(path).unlink()
    assert importing.holds(daemon.folder, [code[:31] for code in codes]) == []


async def test_what_home_assistant_does_not_have_is_told_and_taken_all_the_same(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    def judge(actions: Any) -> str | None:
        return "it is no good" if actions[0]["action"] == "light.turn_on" else None

    fake_home.on_validate = judge
    content = importing.file(
        {importing.code(): importing.token()},
        Cat={"service": "script.cat_flap"},
        Hall={"service": "light.turn_on", "data": {"entity_id": "light.hall"}},
    )
    async with Daemon(tmp_path, url=fake_home.url, token=fake_home.token) as daemon:
        await daemon.connected()
        path = write(daemon, content)
        rehearsed = await call(daemon, "import", path, "--dry-run")
        done = await call(daemon, "import", path)
        lines = [
            "action Open door: taken as open-door",
            "action Cat: taken as cat; warning: Home Assistant has no action script.cat_flap",
            "action Hall: taken as hall; warning: it is no good",
        ]
        assert rehearsed.stdout.splitlines() == [
            *lines,
            "This would be: 3 actions and 1 token taken. Nothing was changed.",
        ]
        assert done.stdout.splitlines() == [*lines, "3 actions and 1 token taken."]
        again = json.loads((await call(daemon, "import", path, "--json")).stdout)
        assert [(each["outcome"], each["warnings"]) for each in again["actions"]] == [
            ("known", [])
        ] * 3


async def test_a_link_that_can_be_guessed_is_told_until_it_is_another(daemon: Daemon) -> None:
    await call(
        daemon, "import", write(daemon, importing.file({importing.code(): importing.token()}))
    )
    (weak,) = (await daemon.admin("GET", "/tokens")).json["items"]
    ours = await daemon.mint("open-door", comment="Ours")

    async def told(token: str) -> tuple[bool, bool]:
        listed = (await call(daemon, "token", "list")).stdout.splitlines()
        (line,) = (each for each in listed if token in each)
        assert "  active" in line
        shown = (await call(daemon, "token", "show", token)).stdout
        return "active, weak code" in line, "weak: it was imported and can be guessed" in shown

    assert await told(weak["id"]) == (True, True)
    assert await told(ours["id"]) == (False, False)
    assert (await call(daemon, "token", "rotate", weak["id"])).returncode == 0
    assert await told(weak["id"]) == (False, False)


async def test_json_shows_every_token(daemon: Daemon) -> None:
    path = write(daemon, importing.file(importing.large(30)))
    report = json.loads((await call(daemon, "import", path, "--json")).stdout)
    assert [each["number"] for each in report["tokens"]] == list(range(1, 31))
    assert report["counts"]["taken"] == 31


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b"[]", "it is not an object"),
        (b"{}", "and may be another file.\n"),
        (importing.file(importing.large(3))[:-20], "it is not JSON"),
        (b'{"tokens": NaN}', "a number in it is none"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"tokens": {"x": [' + b"[]," * 1_000_001 + b"1]}}", "more in it than"),
        (b" " * (64 * 1024**2 + 1), "64 MB"),
    ],
    ids=["empty", "a list", "of nothing", "cut off", "NaN", "deep", "of too many values", "large"],
)
async def test_a_file_that_is_none_changes_nothing(
    daemon: Daemon, content: bytes, why: str
) -> None:
    done = await call(daemon, "import", write(daemon, content))
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    counts = (await daemon.status())["counts"]
    assert (counts["actions"], counts["tokens"]) == (0, 0)


async def test_a_file_can_come_through_a_pipe(daemon: Daemon) -> None:
    text = '{"service_calls": {"Ring": {"service": "script.ring"}}, "tokens": {}}'
    ran = await call(daemon, "import", "-", stdin=text)
    assert (ran.returncode, ran.stdout) == (0, "action Ring: taken as ring\n1 action taken.\n"), (
        ran.stderr
    )
    assert ran.stderr == ""


async def test_a_file_that_is_not_there_is_said_so(daemon: Daemon) -> None:
    for path in (str(daemon.folder / "nothing.json"), str(daemon.folder)):
        done = await call(daemon, "import", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{path} cannot be read" in done.stderr


async def test_a_hundred_thousand_tokens_are_taken_in_seconds(daemon: Daemon) -> None:
    tokens = importing.large(100_000)
    path = write(daemon, importing.file(tokens))
    begun = time.monotonic()
    rehearsed = await daemon.command("import", path, "--dry-run")
    assert time.monotonic() - begun < IN_TIME
    assert "1 action and 100000 tokens taken. Nothing was changed." in rehearsed.stdout, (
        rehearsed.stderr
    )
    assert (await daemon.status())["counts"]["tokens"] == 0

    begun = time.monotonic()
    done = await daemon.command("import", path)
    assert time.monotonic() - begun < IN_TIME
    assert done.stdout == (
        "action Open door: taken as open-door\n1 action and 100000 tokens taken.\n"
    ), done.stderr
    counts = (await daemon.status())["counts"]
    assert (counts["tokens"], counts["active_tokens"]) == (100_000, 100_000)
    assert counts["remaining_uses"] == 150_000

    # all of them are there, and not only the first
    codes = list(tokens)[::10_000]
    answers = await asyncio.gather(*(daemon.submit(code) for code in codes))
    assert {answer.json["code"] for answer in answers} == {"home_unavailable"}
