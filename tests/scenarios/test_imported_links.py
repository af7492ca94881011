"""Links of the One Time Service add-on go on working: exactly as often as they still could."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

from tests import importing
from tests.daemon import Answer, Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.scenarios.steps import form

MANY = 20_000
LONGEST = 10.0  # measured: 1.5 s on two cores that eight others use


async def take(daemon: Daemon, tokens: dict[str, Any], query: str = "", **actions: Any) -> Answer:
    """Import tokens, and some actions."""
    return await daemon.admin("POST", f"/imports{query}", data=importing.file(tokens, **actions))


async def taken(daemon: Daemon, tokens: dict[str, Any], **actions: Any) -> list[Any]:
    """Import, and return what was reported of each token."""
    answer = await take(daemon, tokens, **actions)
    assert answer.status == 200, answer.text
    found: list[Any] = answer.json["tokens"]
    return found


async def outcome(daemon: Daemon, code: str) -> int | str:
    """Submit; return the status, or why not."""
    answer = await daemon.submit(code)
    return answer.status if answer.status == 200 else str(answer.json["code"])


async def test_each_old_link_redeems_exactly_its_uses(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    page, program, many, gone, old, orphan = (importing.code() for _ in range(6))
    tokens = {
        page: importing.token(comment="Neighbour"),
        program: importing.token(uses_max=3, uses_left=2, expires="2090-01-02T03:04:05.6+02:00"),
        many: importing.token(uses_max=9, uses_left=5),
        gone: importing.token(uses_left=0),
        old: importing.token(expires="2025-01-01T00:00:00Z"),
        orphan: importing.token(service_call_name="Deleted"),
    }
    reported = await taken(daemon, tokens)
    assert [each["outcome"] for each in reported] == ["taken"] * 5 + ["changed"]
    assert [each["number"] for each in reported] == [1, 2, 3, 4, 5, 6]

    # the page, at the same address
    shown = await daemon.get(f"/?token={page}")
    assert shown.status == 200
    assert "Open door" in shown.text
    assert "Neighbour" in shown.text
    assert (await form(daemon, page, "attempt-1")).status == 303
    assert (await daemon.get(f"/?token={page}&attempt=attempt-1")).status == 200
    assert (await form(daemon, page, "attempt-2")).status == 410

    # a program
    details = await daemon.get(f"/api/public/token/details?token={program}")
    assert details.json["response"] == {
        "service_call_name": "Open door",
        "comment": "Plumber",
        "expires": "2090-01-02T01:04:05.600+00:00",
        "uses_max": 3,
        "uses_left": 2,
    }
    assert await outcome(daemon, program) == 200
    daemon.kill()
    await daemon.start()
    await daemon.connected()
    assert [await outcome(daemon, program) for _ in range(2)] == [200, "used_up"]

    # many presses at once
    ends = await asyncio.gather(*(outcome(daemon, many) for _ in range(20)))
    assert sorted(map(str, ends)) == ["200"] * 5 + ["used_up"] * 15

    assert await outcome(daemon, gone) == "used_up"
    assert await outcome(daemon, old) == "expired"
    assert await outcome(daemon, orphan) == "revoked"
    for code in (gone, old, orphan):
        assert (await daemon.get(f"/?token={code}")).status == 410
    assert len(fake_home.calls) == 1 + 2 + 5

    await daemon.announced()
    assert importing.holds(daemon.folder, list(tokens)) == []
    listed = (await daemon.admin("GET", "/tokens")).text
    assert not any(code in listed + json.dumps(reported) for code in tokens)


async def test_a_new_link_ends_the_old_one_and_a_deleted_one_stays_away(daemon: Daemon) -> None:
    code, other = importing.code(), importing.code()
    tokens = {code: importing.token(uses_max=5, uses_left=5), other: importing.token()}
    one, two = await taken(daemon, tokens)
    where = f"/tokens/{one['id']}"
    shown = (await daemon.admin("GET", where)).json
    assert (shown["weak"], shown["created_by"]) == (True, "import")
    assert shown["created_at"] == "2024-09-10T10:00:00.123+00:00"
    for path in ("/link", "/qr.svg", "/qr.png"):
        refused = await daemon.admin("GET", where + path)
        assert (refused.status, refused.json["code"]) == (409, "link_unknown")
    made = (await daemon.admin("POST", f"{where}/duplicate")).json
    assert "weak" not in made
    assert await outcome(daemon, made["url"].rpartition("=")[2]) == 200
    assert await outcome(daemon, code) == 200

    rotated = (await daemon.admin("POST", f"{where}/rotate")).json
    assert "weak" not in rotated
    assert rotated["uses_left"] == 4
    assert await outcome(daemon, code) == "revoked"
    assert await outcome(daemon, rotated["url"].rpartition("=")[2]) == 200
    assert (await daemon.admin("GET", f"{where}/link")).status == 200

    assert (await daemon.admin("DELETE", f"/tokens/{two['id']}")).status == 204
    assert await outcome(daemon, other) == "unknown_token"
    again = await take(daemon, tokens)
    assert again.json["counts"] == {"taken": 0, "changed": 0, "known": 3, "refused": 0}
    assert [each["id"] for each in again.json["tokens"]] == [one["id"], None]
    assert again.json["tokens"][1]["notes"] == ["it was deleted here since"]
    assert await outcome(daemon, other) == "unknown_token"
    assert await outcome(daemon, code) == "revoked"


async def test_a_repeated_import_changes_nothing_and_takes_what_is_new(daemon: Daemon) -> None:
    code, later = importing.code(), importing.code()
    tokens = {code: importing.token(uses_max=3, uses_left=3)}
    await daemon.action("open-door", title="Another door")
    rehearsed = (await take(daemon, tokens, "?dry_run=true")).json
    assert rehearsed["dry_run"] is True
    assert (await daemon.admin("GET", "/tokens")).json["items"] == []
    assert len((await daemon.admin("GET", "/actions")).json["items"]) == 1
    first = (await take(daemon, tokens)).json
    assert rehearsed["counts"] == first["counts"]
    # a name that is taken gets a number, and keeps it
    assert [each["name"] for each in first["actions"]] == ["open-door-2"]
    assert await outcome(daemon, code) == 200
    where = f"/tokens/{first['tokens'][0]['id']}"
    edited = await daemon.admin("PATCH", where, json={"comment": "Edited"})
    assert edited.status == 200
    await daemon.action("open-door-2", title="Edited")
    before = (await daemon.admin("GET", where)).json

    again = (await take(daemon, {**tokens, later: importing.token()})).json
    assert again["counts"] == {"taken": 1, "changed": 0, "known": 2, "refused": 0}
    assert (await daemon.admin("GET", where)).json == before
    assert (await daemon.admin("GET", "/actions/open-door-2")).json["title"] == "Edited"
    assert [await outcome(daemon, later) for _ in range(2)] == [200, "used_up"]
    assert [await outcome(daemon, code) for _ in range(3)] == [200, 200, "used_up"]


async def test_a_link_that_stands_in_a_comment_is_kept_nowhere(daemon: Daemon) -> None:
    code, another = importing.code(), importing.code()
    comment = f"Plumber, https://door.example.org/?token={code}"
    both = f"the same as {code}, {another}"
    (told, other) = await taken(
        daemon,
        {code: importing.token(comment=comment), another: importing.token(comment=both)},
    )
    assert (told["outcome"], told["notes"]) == (
        "changed",
        ["its comment had the code of a link, which is left out"],
    )
    assert told["comment"] == "Plumber, https://door.example.org/?token=…"
    assert other["comment"] == "the same as …, …"
    assert await outcome(daemon, code) == 200
    await daemon.announced()
    assert importing.holds(daemon.folder, [code, another]) == []


async def test_a_link_in_the_comment_of_a_later_file_or_in_an_action_is_kept_nowhere(
    daemon: Daemon,
) -> None:
    first, later = importing.code(), importing.code()
    await taken(daemon, {first: importing.token()})
    tell = {"service": "notify.phone", "data": {"message": f"Or use:\r\n{later}"}}
    answer = await take(daemon, {later: importing.token(comment=f"after {first}")}, Tell=tell)
    assert answer.json["tokens"][0]["comment"] == "after …"
    notes = {each["source"]: each["notes"] for each in answer.json["actions"]}
    assert notes["Tell"] == ["it had the code of a link, which is left out"]
    assert "Or use:\\r\\n…" in (await daemon.admin("GET", "/actions/tell")).json["yaml"]
    assert importing.holds(daemon.folder, [first, later]) == []


async def test_a_deleted_action_is_imported_anew_and_never_mistaken_for_another(
    daemon: Daemon, fake_home: FakeHomeAssistant
) -> None:
    first, second = importing.code(), importing.code()
    await taken(daemon, {first: importing.token()})
    assert (await daemon.admin("DELETE", "/actions/open-door?force=true")).status == 204
    await daemon.action("open-door", yaml="action: light.turn_on\n")  # the owner's, unrelated
    known, new = await taken(daemon, {first: importing.token(), second: importing.token()})
    assert (known["outcome"], new["outcome"]) == ("known", "taken")
    token = (await daemon.admin("GET", f"/tokens/{new['id']}")).json
    assert token["action"] == "open-door-2"
    action = (await daemon.admin("GET", "/actions/open-door-2")).json
    assert action["yaml"] == "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"
    assert await outcome(daemon, first) == "revoked"
    assert await outcome(daemon, second) == 200
    assert len(fake_home.calls) == 1


async def test_two_imports_at_once_take_each_link_once(daemon: Daemon) -> None:
    tokens = importing.large(500)
    answers = await asyncio.gather(*(take(daemon, tokens, "?brief=true") for _ in range(3)))
    counts = [answer.json["counts"] for answer in answers]
    assert sorted(each["taken"] for each in counts) == [0, 0, 501]
    assert sorted(each["known"] for each in counts) == [0, 501, 501]
    assert (await daemon.status())["counts"]["tokens"] == 500


async def test_a_daemon_that_is_killed_meanwhile_took_all_or_nothing(daemon: Daemon) -> None:
    tokens = importing.large(MANY)
    content = importing.file(tokens)
    ended = set()
    log = daemon.directory / "otsd.db-wal"
    for growth in (10_000, 2_000_000, None):
        size = log.stat().st_size
        asked = asyncio.create_task(
            daemon.admin("POST", "/imports?brief=true", data=io.BytesIO(content)), name="import"
        )
        while not asked.done() and (growth is None or log.stat().st_size < size + growth):
            await asyncio.sleep(0.002)
        daemon.kill()
        await asyncio.wait([asked])
        acknowledged = asked.exception() is None
        await daemon.start()
        count = (await daemon.status())["counts"]["tokens"]
        assert count in ((MANY,) if acknowledged else (0, MANY))
        ended.add(count)
    assert ended == {0, MANY}


async def test_visitors_are_served_while_a_large_file_is_imported(daemon: Daemon) -> None:
    await daemon.action("open-gate")
    code = (await daemon.mint("open-gate", max_uses=None))["code"]
    content = importing.file(importing.large(MANY))
    asked = asyncio.create_task(
        daemon.admin("POST", "/imports?brief=true", data=io.BytesIO(content)), name="import"
    )
    waits = []
    while not asked.done():
        begun = time.monotonic()
        assert await outcome(daemon, code) == 200
        waits.append(time.monotonic() - begun)
    assert asked.result().json["counts"]["taken"] == MANY + 1
    assert len(waits) > 1
    assert max(waits) < LONGEST


async def test_wrong_codes_of_the_old_form_are_bounded_over_all_addresses(
    tmp_path: Path, fake_home: FakeHomeAssistant
) -> None:
    old = importing.code()
    settings = {"public.trusted_proxies": '["127.0.0.1"]'}
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as daemon:
        await daemon.connected()
        await taken(daemon, {old: importing.token()})
        await daemon.action("open-gate")
        ours = (await daemon.mint("open-gate"))["code"]

        async def details(code: str, number: int) -> Answer:
            headers = {"X-Forwarded-For": f"203.0.{number // 250}.{number % 250 + 1}"}
            path = f"/api/public/token/details?token={code}"
            return await daemon.get(path, headers=headers)

        begun = time.monotonic()
        answers = await asyncio.gather(*(details(importing.code(), each) for each in range(150)))
        lasted = time.monotonic() - begun
        refused = [answer for answer in answers if answer.status == 429]
        assert len(answers) - len(refused) <= 20 * (1 + int(lasted))
        assert {answer.status for answer in answers} == {404, 429}
        assert {answer.json["code"] for answer in refused} == {"too_many_requests"}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        # who has a link is answered, and so is everybody about codes of ours
        wrong = [details(importing.code(), 200 + each) for each in range(30)]
        good = [details(old, 300), details(ours, 301), details("A" * 33, 302)]
        *_, first, second, third = await asyncio.gather(*wrong, *good)
        assert (first.status, second.status, third.status) == (200, 200, 404)
