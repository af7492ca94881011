"""The import by the admin API: of a file that is sent, and of one that another add-on has left."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from otsd.core.imports import ImportReport
from otsd.server.api import AdminApi
from otsd.server.shapes import Import, ImportOffer
from tests import apart, importing
from tests.daemon import Daemon

# a root with an empty /share
BOX = f"""
{apart.MACHINE}
ip link set lo up
root=$(mktemp -d)
machine "$root" /share
exec chroot "$root" sh -c 'cd "$1" && exec "$2" -m tests.server.share' sh "$PWD" "$1"
"""


@pytest.fixture(scope="module")
def found() -> Any:
    """Leave things in /share, in a place of its own; see `tests.server.share`."""
    return apart.told(BOX, sys.executable)


def is_problem(answer: Any, status: int, code: str) -> bool:
    """Return whether an answer is a problem document of this code."""
    return (answer["status"], answer["json"]["code"]) == (status, code)


@pytest.mark.parametrize("what", ["no folder", "no file"])
async def test_where_no_file_lies_there_is_none(found: Any, what: str) -> None:
    assert is_problem(found[what], 404, "no_import")


@pytest.mark.parametrize("what", ["a link", "a pipe", "a folder", "cut off", "cut off, taken"])
async def test_what_is_no_file_of_that_add_on_is_refused(found: Any, what: str) -> None:
    status = 409 if what == "cut off, taken" else 422
    assert is_problem(found[what], status, "import_changed" if status == 409 else "invalid_import")


async def test_the_owner_is_shown_everything_before_he_says_yes(found: Any) -> None:
    offered = ImportOffer.model_validate(found["offered"]["json"])
    assert offered.path == "/share/one-time-service/db.json"
    assert offered.dry_run
    assert [action.yaml for action in offered.actions] == [
        "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"
    ]
    assert [(token.comment, token.id) for token in offered.tokens] == [("Plumber", None)]


async def test_what_he_says_yes_to_is_what_he_was_shown(found: Any) -> None:
    assert is_problem(found["changed"], 409, "import_changed")
    assert found["before"] == 0
    taken = Import.model_validate(found["taken"]["json"])
    assert not taken.dry_run
    assert (taken.counts.taken, len(taken.tokens)) == (3, 2)
    again = ImportOffer.model_validate(found["offered when known"]["json"])
    assert (again.counts.known, again.counts.taken) == (3, 0)
    assert found["submitted"] == "home_unavailable"  # its link is known


async def test_no_code_of_it_is_told_or_kept(found: Any) -> None:
    assert found["codes"] == []
    assert not found["logged"]
    assert not found["told"]
    assert "Traceback" not in found["log"]
    assert "nobody expected" not in found["log"]


async def test_who_is_no_add_on_looks_nowhere(daemon: Daemon) -> None:
    answer = await daemon.admin("GET", "/imports/one-time-service")
    assert (answer.status, answer.json["code"]) == (404, "no_import")


class _Taking:
    """Takes imports slowly, and counts how many at a time."""

    at_once = most = taken = 0

    async def take(self, *_: object, **__: object) -> ImportReport:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert not gc.isenabled()
        await asyncio.sleep(0.1)
        self.at_once -= 1
        self.taken += 1
        return ImportReport(dry_run=False, counts=Counter(), actions=[], tokens=[])


async def test_one_file_is_imported_after_the_other() -> None:
    taking = _Taking()
    parts = cast("Any", SimpleNamespace(imports=taking))
    async with TestClient(TestServer(AdminApi(parts).application())) as client:
        content = importing.file({importing.code(): importing.token()})
        asked = [client.post("/api/v1/imports", data=content) for _ in range(4)]
        assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 4
    assert (taking.taken, taking.most) == (4, 1)
    assert gc.isenabled()


async def test_nothing_of_an_odd_file_surprises_the_daemon(daemon: Daemon) -> None:
    codes = [importing.code() for _ in range(3)]
    odd = importing.file(
        {
            codes[0]: importing.token(service_call_name="\ud800", comment="\ud800"),
            codes[1]: importing.token(service_call_name="Null\0"),
            codes[2]: importing.token(service_call_name="x" * 100_000),
        },
        **{"\ud800": importing.DOOR, "Null\0": importing.DOOR, "x" * 100_000: importing.DOOR},
    )
    for query, outcomes in (
        ("?dry_run=true", ["refused", "changed", "changed"]),
        ("", ["refused", "changed", "changed"]),
        ("", ["refused", "known", "known"]),
    ):
        answer = await daemon.admin("POST", f"/imports{query}", data=odd)
        report = Import.model_validate(answer.json)
        assert [each.outcome for each in report.actions[1:]] == outcomes
        expected = ["taken" if outcome == "changed" else outcome for outcome in outcomes]
        assert [each.outcome for each in report.tokens] == expected
        assert not any(code in answer.text for code in codes)
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(
    "query", ["?dry_run=1", "?brief=yes", "?dryrun=true", "?dry_run=true&dry_run=true"]
)
async def test_a_wish_that_is_misspelt_takes_nothing(daemon: Daemon, query: str) -> None:
    content = importing.file({importing.code(): importing.token()})
    answer = await daemon.admin("POST", f"/imports{query}", data=content)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert (await daemon.status())["counts"]["tokens"] == 0
