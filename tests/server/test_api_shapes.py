"""What the admin API answers is what its models say: every key, every type, every instant in UTC."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from otsd.core.tokens import SubmissionState, TokenState
from otsd.server import shapes
from otsd.server.api import AdminApi
from otsd.server.openapi import model_of
from tests import importing
from tests.daemon import OPEN_DOOR, Answer, Daemon
from tests.fakes.home_assistant import After, Fail, FakeHomeAssistant, HangUp, Succeed
from tests.server.conftest import Estate
from tests.server.owner import daemon_with_admin, events, key

pytestmark = pytest.mark.asyncio(loop_scope="package")

AN_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T.*")
IN_UTC = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?\+00:00")


def fits(model: str, answer: Answer | Any) -> Any:
    """Hold an answer, or a part of one, strictly to its model; return it."""
    found = answer.json if isinstance(answer, Answer) else answer
    model_of(model).model_validate_json(json.dumps(found), strict=True)
    for text in texts(found):
        assert not AN_INSTANT.fullmatch(text) or IN_UTC.fullmatch(text), text
    return found


def texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [node] if isinstance(node, str) else []


class Furnished:
    """A daemon in which there is one of everything."""

    def __init__(self, daemon: Daemon, tokens: dict[str, str], running: asyncio.Event) -> None:
        self.daemon = daemon
        self.tokens = tokens  # ids by state
        self.running = running


@asynccontextmanager
async def furnished(folder: Path) -> AsyncIterator[Furnished]:
    """Run a daemon with tokens and submissions in every state."""
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(folder, home, token=home.token) as daemon,
    ):
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        home.set_state("lock.odd", "locked", friendly_name=7)
        home.add_service("odd", "fields", name=None, fields={"bare": None, "full": {"example": 1}})
        await daemon.connected()
        await daemon.action()
        tokens = {state: await daemon.mint(max_uses=9, comment=state) for state in TokenState}
        soon = await daemon.mint(comment="soon", expires_in="1s", device=True)
        tokens[TokenState.EXPIRED] = soon
        tokens[TokenState.SCHEDULED] = await daemon.mint(valid_from="2126-01-01T00:00")
        tokens[TokenState.USED_UP] = await daemon.mint(expires_in="3d")
        tokens[TokenState.ACTIVE] = await daemon.mint(max_uses=None, expires_at=None)
        paused, revoked = tokens[TokenState.PAUSED]["id"], tokens[TokenState.REVOKED]["id"]
        await daemon.admin("POST", f"/tokens/{paused}/pause")
        await daemon.admin("POST", f"/tokens/{revoked}/revoke")
        await daemon.submit(tokens[TokenState.USED_UP]["code"])
        code = tokens[TokenState.ACTIVE]["code"]
        home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
        assert (await daemon.submit(code)).status == 502
        home.on_call = lambda _: HangUp()
        assert (await daemon.submit(code)).status == 504
        await daemon.connected()
        go = asyncio.Event()
        home.on_call = lambda _: After(go, Succeed())
        assert (await daemon.submit(code)).status == 202
        await until_expired(daemon, soon["id"])
        try:
            yield Furnished(daemon, {state: tokens[state]["id"] for state in tokens}, go)
        finally:
            go.set()


async def until_expired(daemon: Daemon, token: str) -> None:
    async with asyncio.timeout(15):
        while (await daemon.admin("GET", f"/tokens/{token}")).json["state"] != "expired":
            await asyncio.sleep(0.05)


async def test_every_answer_fits_its_model(tmp_path: Path) -> None:
    async with furnished(tmp_path) as house:
        daemon, token = house.daemon, house.tokens[TokenState.ACTIVE]
        seen: set[tuple[str, str]] = set()
        routes = {(route.method, route.path): route for route in AdminApi(cast("Any", None)).routes}

        async def ask(method: str, path: str, where: str | None = None, **more: Any) -> Any:
            template = where or path
            answer = await daemon.admin(method, path, **more)
            route = routes[method, template]
            assert answer.status in route.statuses, answer.text
            assert route.answer is not None
            seen.add((method, template))
            return fits(route.answer, answer)

        await ask("GET", "/session")
        await ask("GET", "/status")
        body = {"title": "Open", "yaml": OPEN_DOOR}
        await ask("POST", "/actions", json={"name": "made", **body})
        await ask("PUT", "/actions/made", "/actions/{name}", json=body)
        await ask("GET", "/actions/made", "/actions/{name}")
        assert {item["name"] for item in (await ask("GET", "/actions"))["items"]} >= {"made"}
        area = (
            "- action: lock.unlock\n  target: {area_id: hall, entity_id: [lock.odd, lock.none]}\n"
        )
        valid = await ask("POST", "/actions/validate", json={"yaml": area})
        assert {target["name"] for target in valid["targets"]} == {None, "7"}

        listed = (await ask("GET", "/tokens?limit=500", "/tokens"))["items"]
        assert {item["state"] for item in listed} == set(TokenState)
        by_id = "/tokens/{id}"
        for each in house.tokens.values():
            await ask("GET", f"/tokens/{each}", by_id)
        await ask("PATCH", f"/tokens/{token}", by_id, json={"comment": "x"})
        await ask("POST", "/tokens", json={"action": "open-door"})
        done = (await ask("GET", "/submissions"))["items"]
        assert {item["state"] for item in done} == set(SubmissionState)
        (lost,) = [item["id"] for item in done if item["state"] == "unconfirmed"]
        await ask("POST", f"/submissions/{lost}/refund", "/submissions/{id}/refund")
        for verb in ("pause", "resume", "replenish", "rotate", "duplicate"):
            await ask("POST", f"/tokens/{token}/{verb}", f"{by_id}/{verb}")
        await ask("POST", f"/tokens/{listed[-1]['id']}/revoke", f"{by_id}/revoke")
        await ask("GET", f"/tokens/{token}/link", f"{by_id}/link")

        await ask("GET", "/submissions/daily?days=3", "/submissions/daily")
        await ask("GET", "/home-assistant/entities")
        services = (await ask("GET", "/home-assistant/actions"))["items"]
        (odd,) = [each for each in services if each["name"] == "odd.fields"]
        assert [field["name"] for field in odd["fields"]] == ["bare", "full"]
        house.running.set()
        await ask("POST", "/actions/open-door/run", "/actions/{name}/run")

        mint = {"name": "m", "scope": "mint", "actions": ["open-door"], "expires_in": "1d"}
        await ask("POST", "/api-keys", json=mint)
        await ask("POST", "/api-keys", json={"name": "r", "scope": "read"})
        assert len((await ask("GET", "/api-keys"))["items"]) == 2

        old = importing.file({importing.code(): importing.token(), "no code": None})
        await ask("POST", "/imports", data=old)
        assert {item.get("weak") for item in (await ask("GET", "/tokens"))["items"]} == {None, True}

        answering = {place for place, route in routes.items() if route.answer is not None}
        # what another add-on has left is in tests/server/test_imports.py
        left = {(method, "/imports/one-time-service") for method in ("GET", "POST")}
        assert seen == answering - left


async def test_the_table_of_submissions_has_the_columns_of_their_model(tmp_path: Path) -> None:
    async with furnished(tmp_path) as house:
        listed = (await house.daemon.admin("GET", "/submissions")).json["items"]
        answer = await house.daemon.admin("GET", "/submissions.csv")
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer.headers["Content-Disposition"]
        rows = list(csv.reader(io.StringIO(answer.text, newline="")))
        assert rows[0] == list(shapes.ListedSubmission.model_fields)
        assert rows[1:] == [
            ["" if item[name] is None else str(item[name]) for name in rows[0]] for item in listed
        ]
        assert answer.body.count(b"\r\n") == len(listed) + 1


async def test_every_day_of_the_chart_is_there_in_the_time_of_the_house(tmp_path: Path) -> None:
    async with furnished(tmp_path) as house:
        zone = ZoneInfo((await house.daemon.admin("GET", "/session")).json["time_zone"])
        days = fits("All[Day]", await house.daemon.admin("GET", "/submissions/daily?days=400"))
        today = datetime.now(zone).date()
        begin = today - timedelta(days=399)
        found = [item["day"] for item in days["items"]]
        assert found in (
            [str(begin + timedelta(days=each)) for each in range(400)],
            [str(begin + timedelta(days=each - 1)) for each in range(400)],  # at midnight
        )
        sums = {
            state: sum(item[state] for item in days["items"])
            for state in ("executed", "failed", "unconfirmed")
        }
        assert sums == {"executed": 1, "failed": 1, "unconfirmed": 1}
        month = (await house.daemon.admin("GET", "/submissions/daily")).json["items"]
        assert len(month) == 28
        assert month == days["items"][-28:]


async def test_whoever_calls_is_shown_to_himself(estate: Estate) -> None:
    daemon = estate.daemon
    assert fits("Session", await daemon.admin("GET", "/session"))["via"] == "socket"
    made = await key(daemon, "shapes", "read")
    browser = await estate.owner()
    by_key = fits("Session", await browser.api("GET", "/session", headers=made["bearer"]))
    assert (by_key["via"], by_key["scope"], by_key["can_log_out"]) == ("api_key", "read", False)
    assert by_key["user"] == {"id": None, "name": "shapes"}
    by_cookie = fits("Session", await browser.api("GET", "/session"))
    assert (by_cookie["via"], by_cookie["can_log_out"]) == ("home_assistant", True)
    bearer = {"Authorization": f"Bearer {estate.home.access_token()}"}
    by_token = fits("Session", await browser.api("GET", "/session", headers=bearer))
    assert (by_token["via"], by_token["scope"]) == ("home_assistant_token", "admin")


async def test_what_is_told_live_fits_the_same_models(estate: Estate) -> None:
    browser = await estate.owner()
    async with events(estate.daemon, browser) as stream:
        await estate.daemon.action("shapely")
        fits("ListedAction", (await stream.next("action"))["item"])
        token = await estate.daemon.mint("shapely")
        fits("ListedToken", (await stream.next("token"))["item"])
        await estate.daemon.submit(token["code"])
        fits("ListedSubmission", (await stream.next("submission"))["item"])


async def test_the_status_fits_its_model_while_nothing_is_connected(tmp_path: Path) -> None:
    settings = {"mqtt.host": '"127.0.0.1"', "mqtt.port": "1"}
    async with Daemon(tmp_path, settings=settings) as daemon:
        status = await daemon.until_status(lambda found: found["mqtt"]["error"])
        fits("Status", status)
        assert status["home_assistant"]["state"] == status["mqtt"]["state"] == "connecting"
        fits("Session", await daemon.admin("GET", "/session"))


async def test_every_problem_fits_its_model(tmp_path: Path) -> None:
    async with Daemon(tmp_path) as daemon:
        await daemon.action()
        for method, path, body, status in (
            ("GET", "/nothing", None, 404),
            ("GET", "/tokens/nothing", None, 404),
            ("PUT", "/tokens", None, 405),
            ("POST", "/tokens", "{", 400),
            ("POST", "/tokens", '{"a": 1, "action": 1}', 422),
            ("POST", "/tokens", "x" * 70_000, 413),
            ("POST", "/actions/open-door/run", None, 503),
            ("POST", "/home-assistant/disconnect", None, 409),
            ("GET", "/tokens?stat=active", None, 422),
        ):
            answer = await daemon.admin(method, path, data=body)
            assert answer.status == status, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            fits("Problem", answer)
        packed = {"Content-Encoding": "gzip"}
        answer = await daemon.admin("POST", "/tokens", data="{}", headers=packed)
        assert answer.status == 400
        fits("Problem", answer)
