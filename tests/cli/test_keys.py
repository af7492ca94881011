"""``otsd key``: keys are made, listed and revoked; and what a key then may is for the API's tests."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.daemon import Daemon
from tests.server.owner import daemon_with_admin

A_KEY = re.compile(r"otsd_[A-Za-z0-9_-]{43}\n")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Run a daemon with an action, whose admin API can be reached over TCP."""
    async with daemon_with_admin(tmp_path, "http://127.0.0.1:1") as daemon:
        await daemon.action()
        yield daemon


async def status_of(house: Daemon, key: str) -> int:
    """Return how the daemon answers a program with a key."""
    bearer = {"Authorization": f"Bearer {key}"}
    return (await house.request("GET", f"{house.admin_url}/api/v1/status", headers=bearer)).status


async def test_a_new_key_is_printed_alone_and_opens_the_api(house: Daemon) -> None:
    made = await call(house, "key", "create", "calendar", "--scope", "admin")
    assert made.returncode == 0, made
    assert A_KEY.fullmatch(made.stdout)
    key = made.stdout.strip()
    assert key not in made.stderr
    assert "calendar, admin, no expiry; it is not shown again" in made.stderr
    assert await status_of(house, key) == 200
    assert await status_of(house, key[:-1]) == 401
    listed = await call(house, "key", "list")
    assert key not in listed.stdout + listed.stderr


async def test_keys_are_listed_newest_first_and_revoked(house: Daemon) -> None:
    first = await call(house, "key", "create", "first", "--scope", "read", "--json")
    await call(house, "key", "create", "second", "--scope", "read", "--expires-in", "90d")
    listed = await call(house, "key", "list")
    titles, *rows = listed.stdout.splitlines()
    assert titles.split() == [
        "ID",
        "NAME",
        "SCOPE",
        "ACTIONS",
        "EXPIRES",
        "LAST",
        "USED",
        "MADE",
        "BY",
    ]
    assert [row.split()[1] for row in rows] == ["second", "first"]
    assert rows[1].split()[-1] == "cli"
    one = json.loads((await call(house, "key", "list", "--limit", "1", "--json")).stdout)
    assert [key["name"] for key in one["items"]] == ["second"]

    made = json.loads(first.stdout)
    assert await status_of(house, made["key"]) == 200
    revoked = await call(house, "key", "revoke", made["id"])
    assert (revoked.returncode, revoked.stdout) == (0, f"{made['id']}: revoked\n")
    assert await status_of(house, made["key"]) == 401
    again = await call(house, "key", "revoke", made["id"])
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is no key" in again.stderr


async def test_a_key_that_mints_names_its_actions_and_its_end(house: Daemon) -> None:
    await house.action("open-gate")
    words = ["--scope", "mint", "--action", "open-door", "--action", "open-gate"]
    made = json.loads(
        (await call(house, "key", "create", "m", *words, "--expires-in", "90d", "--json")).stdout
    )
    assert (made["scope"], made["actions"]) == ("mint", ["open-door", "open-gate"])
    length = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < length < timedelta(days=91)
    until = ["--scope", "read", "--expires-at", "2126-01-01T00:00Z", "--json"]
    later = json.loads((await call(house, "key", "create", "r", *until)).stdout)
    assert later["expires_at"] == "2126-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["m", "--scope", "mint"], "--action: a mint key names its actions"),
        (["m", "--scope", "mint", "--action", "none"], "--action: there is no action 'none'"),
        (["r", "--scope", "read", "--expires-in", "soon"], "--expires-in: 'soon' is not a dur"),
        (
            ["r", "--scope", "read", "--expires-at", "2020-01-01T00:00Z"],
            "--expires-at: this time is past",
        ),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_in_plain_words(
    house: Daemon, words: list[str], complaint: str
) -> None:
    refused = await call(house, "key", "create", *words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert complaint in refused.stderr


async def test_a_name_belongs_to_one_key(house: Daemon) -> None:
    await call(house, "key", "create", "twice", "--scope", "read")
    refused = await call(house, "key", "create", "twice", "--scope", "read")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "There is a key 'twice' already." in refused.stderr


async def test_a_command_line_that_is_wrong_makes_no_key(house: Daemon) -> None:
    for words in (
        ["create", "x"],
        ["create", "x", "--scope", "owner"],
        ["create", "", "--scope", "read"],
        ["create", "x", "--scope", "read", "--expires-in", "1d", "--expires-at", "2126-01-01T00Z"],
        ["revoke"],
    ):
        wrong = await call(house, "key", *words)
        assert (wrong.returncode, wrong.stdout) == (2, ""), words
    assert (await house.admin("GET", "/api-keys")).json["items"] == []


async def test_a_token_has_a_device_or_not_as_its_maker_says(house: Daemon) -> None:
    for words, device, shown in (
        ([], None, "if it can be used other than once"),
        (["--device"], True, "yes"),
        (["--no-device"], False, "no"),
    ):
        made = await call(house, "token", "create", "open-door", *words, "--json")
        token = json.loads(made.stdout)
        assert token["device"] is device
        record = (await call(house, "token", "show", token["id"])).stdout
        assert record.splitlines()[-1].split(maxsplit=1) == ["device", shown]
