"""What programs may do with their keys, route by route, and what is kept of them."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from otsd.server.api import AdminApi
from tests.daemon import OPEN_DOOR, Answer
from tests.server.conftest import Estate
from tests.server.owner import Browser, events, key

pytestmark = pytest.mark.asyncio(loop_scope="package")


class Program:
    """A program with a key."""

    def __init__(self, browser: Browser, made: Any) -> None:
        self.made = made
        self._browser = browser

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        headers = {**self.made["bearer"], **more.pop("headers", {})}
        return await self._browser.api(method, path, headers=headers, **more)

    async def mint(self, action: str = "open-door", **more: Any) -> Any:
        answer = await self.ask("POST", "/tokens", json={"action": action}, **more)
        assert answer.status == 201, answer.text
        return answer.json


async def program(estate: Estate, name: str, scope: str, *actions: str, **more: Any) -> Program:
    """Make a key, and a program that has it."""
    made = await key(estate.daemon, name, scope, *actions, **more)
    return Program(await estate.browser(), made)


def forbidden(answer: Answer) -> None:
    """Hold an answer to be a refusal that says nothing else."""
    assert (answer.status, answer.json["code"]) == (403, "forbidden"), answer.text


async def test_a_key_is_shown_once_and_kept_as_its_hash(estate: Estate) -> None:
    made = await key(estate.daemon, "shown once", "read")
    secret = made["key"]
    assert secret.startswith("otsd_")
    assert len(secret) >= 48
    listed = (await estate.daemon.admin("GET", "/api-keys")).text
    assert "shown once" in listed
    assert secret not in listed
    found = await program(estate, "shown once, looking", "admin")
    assert secret not in (await found.ask("GET", "/api-keys")).text
    await found.ask("GET", "/status", headers=made["bearer"])
    # the search finds what is there
    contents = [path.read_bytes() for path in estate.daemon.directory.iterdir() if path.is_file()]
    assert any(b"shown once" in content for content in contents)
    assert not any(secret.removeprefix("otsd_").encode() in content for content in contents)
    assert secret.removeprefix("otsd_") not in estate.daemon.log


async def test_a_key_of_the_same_name_is_a_conflict(estate: Estate) -> None:
    await key(estate.daemon, "twice", "read")
    again = await estate.daemon.admin("POST", "/api-keys", json={"name": "twice", "scope": "read"})
    assert (again.status, again.json["code"]) == (409, "key_exists")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"name": "wish", "scope": "mint"}, "actions"),
        ({"name": "wish", "scope": "mint", "actions": []}, "actions"),
        ({"name": "wish", "scope": "mint", "actions": ["no-such-action"]}, "actions"),
        ({"name": "wish", "scope": "read", "actions": ["open-door"]}, "actions"),
        ({"name": "wish", "scope": "owner"}, "scope"),
        ({"name": "", "scope": "read"}, "name"),
        ({"name": "a\nb", "scope": "read"}, "name"),
        ({"name": "wish", "scope": "read", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(
    estate: Estate, body: dict[str, Any], place: str
) -> None:
    answer = await estate.daemon.admin("POST", "/api-keys", json=body)
    assert answer.status == 422, answer.text
    assert place in {str(error["loc"][0]) for error in answer.json["errors"]}


# every operation, and who may call it beside admin: r(ead), m(int); a mint key meets its own token
OPERATIONS = {
    ("GET", "/openapi.json"): "rm",
    ("GET", "/session"): "rm",
    ("GET", "/status"): "r",
    ("GET", "/actions"): "r",
    ("POST", "/actions"): "",
    ("POST", "/actions/validate"): "",
    ("GET", "/actions/open-door"): "r",
    ("PUT", "/actions/open-door"): "",
    ("DELETE", "/actions/nothing"): "",
    ("POST", "/actions/open-door/run"): "",
    ("GET", "/tokens"): "rm",
    ("POST", "/tokens"): "m",
    ("GET", "/tokens/ID"): "rm",
    ("PATCH", "/tokens/ID"): "m",
    ("DELETE", "/tokens/ID"): "",
    ("GET", "/tokens/ID/link"): "m",
    ("GET", "/tokens/ID/qr.svg"): "m",
    ("GET", "/tokens/ID/qr.png"): "m",
    ("POST", "/tokens/ID/pause"): "m",
    ("POST", "/tokens/ID/resume"): "m",
    ("POST", "/tokens/ID/replenish"): "m",
    ("POST", "/tokens/ID/rotate"): "m",
    ("POST", "/tokens/ID/duplicate"): "m",
    ("POST", "/tokens/ID/revoke"): "m",
    ("GET", "/submissions"): "r",
    ("GET", "/submissions/daily"): "r",
    ("GET", "/submissions.csv"): "r",
    ("POST", "/submissions/1/refund"): "",
    ("GET", "/home-assistant/actions"): "",
    ("GET", "/home-assistant/entities"): "",
    ("POST", "/home-assistant/retry"): "",
    ("POST", "/mqtt/retry"): "",
    ("POST", "/home-assistant/disconnect"): "",
    ("POST", "/imports"): "",
    ("GET", "/imports/one-time-service"): "",
    ("POST", "/imports/one-time-service"): "",
    ("GET", "/api-keys"): "",
    ("POST", "/api-keys"): "",
    ("DELETE", "/api-keys/nothing"): "",
}


@pytest.mark.parametrize("scope", ["read", "mint"])
async def test_a_scope_may_do_what_it_says_and_nothing_else(estate: Estate, scope: str) -> None:
    actions = ["open-door"] if scope == "mint" else []
    caller = await program(estate, f"only {scope}", scope, *actions)
    if scope == "mint":
        token = await caller.mint()
    else:
        token = await estate.daemon.mint()
    before = len(estate.home.calls)
    for (method, path), allowed in OPERATIONS.items():
        body = {"POST": {"action": "open-door"}, "PATCH": {"comment": "changed"}}.get(method)
        answer = await caller.ask(method, path.replace("ID", token["id"]), json=body)
        if scope[0] in allowed:
            assert answer.status in (200, 201), (method, path, answer.text)
        else:
            forbidden(answer)
    assert len(estate.home.calls) == before


async def test_no_operation_was_forgotten_here() -> None:
    listed = {
        (method, re.sub(r"/(open-door|ID|1|nothing)(?=/|$)", "/{}", path))
        for method, path in OPERATIONS
    }
    there = {
        (route.method, re.sub(r"{(id|name)}", "{}", route.path.replace("{verb:", "{")))
        for route in AdminApi(cast("Any", None)).routes
    } - {("GET", "/events")}
    verbs = "{revoke|pause|resume|replenish}"
    for _, path in list(there):
        if verbs in path:
            there.discard(("POST", path))
            there |= {("POST", path.replace(verbs, verb)) for verb in verbs[1:-1].split("|")}
    assert listed == there


async def test_a_read_key_sees_no_link_no_qr_code_and_no_yaml(estate: Estate) -> None:
    reader = await program(estate, "reader", "read")
    token = await estate.daemon.mint(comment="Plumber")
    await estate.daemon.submit(token["code"])
    seen = ""
    for path in (
        "/tokens",
        f"/tokens/{token['id']}",
        "/actions",
        "/actions/open-door",
        "/submissions",
        "/submissions.csv",
        "/status",
        "/session",
    ):
        answer = await reader.ask("GET", path)
        assert answer.status == 200, path
        seen += answer.text
    assert "Plumber" in seen
    assert token["code"] not in seen
    assert "yaml" not in seen
    assert "lock.unlock" not in seen
    admin = await program(estate, "not a reader", "admin")
    assert (await admin.ask("GET", "/actions/open-door")).json["yaml"] == OPEN_DOOR


async def test_a_mint_key_meets_its_own_tokens_alone(estate: Estate) -> None:
    minter = await program(estate, "minter", "mint", "open-door")
    own = [await minter.mint() for _ in range(3)]
    assert own[0]["created_by"] == "key:minter"
    other = await program(estate, "minter 2", "mint", "open-door")
    foreign = [await other.mint(), await estate.daemon.mint()]
    listed = (await minter.ask("GET", "/tokens")).json
    assert [token["id"] for token in listed["items"]] == [token["id"] for token in own[::-1]]
    assert (await minter.ask("GET", "/tokens?limit=2")).json["next"] is not None
    for token in foreign:
        for (method, path), allowed in OPERATIONS.items():
            if "ID" in path and "m" in allowed:
                body = {"comment": "mine"} if method == "PATCH" else None
                answer = await minter.ask(method, path.replace("ID", token["id"]), json=body)
                assert (answer.status, answer.json["code"]) == (404, "unknown_token"), path
        unchanged = (await estate.daemon.admin("GET", f"/tokens/{token['id']}")).json
        assert unchanged == {name: token[name] for name in unchanged}


async def test_a_mint_key_makes_tokens_of_its_actions_only(estate: Estate) -> None:
    await estate.daemon.action("open-gate")
    minter = await program(estate, "gate keeper", "mint", "open-gate")
    await minter.mint("open-gate")
    for action in ("open-door", "no-such-action"):
        forbidden(await minter.ask("POST", "/tokens", json={"action": action}))


async def test_a_later_key_of_the_same_name_is_another_key(estate: Estate) -> None:
    first = await program(estate, "successor", "mint", "open-door")
    again = {"Idempotency-Key": "the-same-request"}
    old = await first.mint(headers=again)
    assert (await first.mint(headers=again))["url"] == old["url"]
    await estate.daemon.admin("DELETE", f"/api-keys/{first.made['id']}")
    second = await program(estate, "successor", "mint", "open-door")
    assert (await second.ask("GET", "/tokens")).json["items"] == []
    assert (await second.ask("GET", f"/tokens/{old['id']}/link")).status == 404
    new = await second.mint(headers=again)
    assert new["id"] != old["id"]
    assert new["url"] != old["url"]


async def test_a_key_expires(estate: Estate) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    short = await program(estate, "short", "read", expires_at=soon.isoformat())
    assert (await short.ask("GET", "/status")).status == 200
    async with asyncio.timeout(15):
        while (answer := await short.ask("GET", "/status")).status == 200:
            await asyncio.sleep(0.05)
    assert (answer.status, answer.json["code"]) == (401, "login_required")
    assert datetime.now(UTC) >= soon


async def test_the_last_use_of_a_key_is_noted(estate: Estate) -> None:
    used = await program(estate, "used", "read")
    assert used.made["last_used_at"] is None
    begin = datetime.now(UTC) - timedelta(seconds=1)
    await used.ask("GET", "/status")
    listed = (await estate.daemon.admin("GET", "/api-keys")).json["items"]
    (found,) = [each for each in listed if each["name"] == "used"]
    assert begin <= datetime.fromisoformat(found["last_used_at"]) <= datetime.now(UTC)


async def test_a_revoked_key_is_refused_at_once_and_its_streams_end(estate: Estate) -> None:
    doomed = await program(estate, "doomed", "read")
    async with events(estate.daemon, **doomed.made["bearer"]) as stream:
        gone = await estate.daemon.admin("DELETE", f"/api-keys/{doomed.made['id']}")
        assert gone.status == 204
        assert await stream.ended(3)
    assert (await doomed.ask("GET", "/status")).status == 401
    again = await estate.daemon.admin("DELETE", f"/api-keys/{doomed.made['id']}")
    assert (again.status, again.json["code"]) == (404, "unknown_key")


async def test_a_key_that_expires_loses_its_streams(estate: Estate) -> None:
    short = await program(estate, "listening", "read", expires_in="2s")
    async with events(estate.daemon, **short.made["bearer"]) as stream:
        async with asyncio.timeout(15):
            while (await short.ask("GET", "/status")).status == 200:
                await asyncio.sleep(0.05)
        await estate.daemon.mint()  # with something to be told, it is looked at before the next
        await estate.daemon.mint()
        assert await stream.ended(5)


async def test_an_admin_key_may_all(estate: Estate) -> None:
    admin = await program(estate, "may all", "admin")
    token = await admin.mint()
    assert (await admin.ask("GET", f"/tokens/{token['id']}/link")).json["url"] == token["url"]
    made = await admin.ask("POST", "/api-keys", json={"name": "child", "scope": "read"})
    assert made.status == 201
    assert made.json["created_by"] == "key:may all"
    assert (await admin.ask("DELETE", f"/tokens/{token['id']}")).status == 204


async def test_an_access_token_of_an_administrator_is_a_way_in_where_that_is_switched_on(
    estate: Estate,
) -> None:
    browser = await estate.browser()
    user = estate.home.add_user("Carla", admin=True)
    access = estate.home.access_token(user)
    bearer = {"Authorization": f"Bearer {access}"}
    logins = estate.home.auth_attempts
    for _ in range(3):
        answer = await browser.api("POST", "/tokens", json={"action": "open-door"}, headers=bearer)
        assert answer.status == 201, answer.text
        assert answer.json["created_by"] == "user:Carla"
    assert estate.home.auth_attempts == logins + 1  # remembered
    assert access not in estate.daemon.log
    guest = {"Authorization": f"Bearer {estate.home.access_token(estate.home.add_user('Guest'))}"}
    answer = await browser.api("GET", "/status", headers=guest)
    assert (answer.status, answer.json["code"]) == (403, "not_an_administrator")


async def test_garbage_as_access_tokens_never_gets_otsd_banned(estate: Estate) -> None:
    browser = await estate.browser()
    estate.home.wrong_logins = estate.home.most_wrong_logins = 0

    async def knock(number: int) -> int:
        bearer = {"Authorization": f"Bearer garbage-{number}"}
        return (await browser.api("GET", "/status", headers=bearer)).status

    async with asyncio.TaskGroup() as together:
        knocks = [together.create_task(knock(number)) for number in range(20)]
    assert {each.result() for each in knocks} == {401}
    assert 0 < estate.home.most_wrong_logins <= 2
    logins = estate.home.auth_attempts
    assert await knock(3) == 401
    assert estate.home.auth_attempts == logins  # remembered
    good = {"Authorization": f"Bearer {estate.home.access_token()}"}
    assert (await browser.api("GET", "/status", headers=good)).status == 200
