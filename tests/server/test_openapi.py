"""The OpenAPI document: it names every operation, and the daemon keeps to what it says of each."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from otsd.core.access import Scope
from otsd.server import problems
from otsd.server.api import AdminApi
from otsd.server.openapi import document
from tests.daemon import Daemon
from tests.fakes.home_assistant import Fail, FakeHomeAssistant, HangUp
from tests.server.owner import daemon_with_admin, key

ROOT = Path(__file__).parents[2]
ADMIN_PART = (ROOT / "docs" / "api.md").read_text().partition("\n# The admin API\n")[2]
METHODS = {"get", "put", "post", "patch", "delete"}
TOKENS = 150  # so many that those which the run deletes or revokes are few

# What a schema cannot say of a body, and so answers 422: whether text is YAML that Home Assistant
# takes, whether a time is past or skipped, whether an action exists.
UNSPEAKABLE = [
    "create_action",
    "replace_action",
    "validate_action",
    "mint_token",
    "edit_token",
    "create_key",
]
OTHERWISE = ["2xx", 401, 403, 404, 409]


def configuration(tokens: list[str], submissions: list[int]) -> str:
    """Return how schemathesis runs: what is in the database, and what it should not mind."""
    return f"""
warnings = false
continue-on-failure = true
request-timeout = 20.0

[generation]
deterministic = true
max-examples = 20

[dictionaries.tokens]
values = {json.dumps(tokens)}

[dictionaries.submissions]
values = {json.dumps(submissions)}

[dictionaries.actions]
values = ["open-door", "open-gate"]

[[operations]]
include-path-regex = "/tokens/"
parameters = {{ "path.id" = {{ dictionary = "tokens", probability = 0.7 }} }}

[[operations]]
include-path-regex = "/submissions/[{{]"
parameters = {{ "path.id" = {{ dictionary = "submissions", probability = 0.7 }} }}

[[operations]]
include-path-regex = "/actions/[{{]"
parameters = {{ "path.name" = {{ dictionary = "actions", probability = 0.5 }} }}

[[operations]]
include-operation-id = {json.dumps(UNSPEAKABLE)}
checks = {{ positive_data_acceptance = {{ expected-statuses = {json.dumps([*OTHERWISE, 422])} }} }}

# an action may be called validate as well, so Allow names the methods of actions
[[operations]]
include-operation-id = "validate_action"
checks = {{ allow_header_conformance = {{ enabled = false }} }}

# its answer never ends; tests/server/test_events.py
[[operations]]
include-operation-id = "events"
enabled = false

# it might find, and then lose, the key of the run itself; tests/server/test_keys.py
[[operations]]
include-operation-id = "delete_key"
enabled = false
"""


@pytest.fixture(scope="module")
def described() -> Any:
    """Return the document."""
    return document(AdminApi(cast("Any", None)).routes)


def operations(described: Any) -> list[tuple[str, str, Any]]:
    """Return method, path and description of each operation."""
    return [
        (method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


def test_every_route_is_described_and_every_description_is_a_route(described: Any) -> None:
    routes = Counter(
        (route.method, route.resource.canonical)
        for route in AdminApi(cast("Any", None)).application(cast("Any", "a door")).router.routes()
        if route.resource is not None
    )
    assert routes == Counter(
        (method, f"/api/v1{path}") for method, path, _ in operations(described)
    )


def test_the_page_about_the_api_has_every_operation_and_who_may_call_it(described: Any) -> None:
    written = re.findall(r"^\| `([A-Z]+) (/\S+)` \| ([a-z, ]*)\|", ADMIN_PART, re.MULTILINE)
    assert Counter((method, path) for method, path, _ in written) == Counter(
        (method, path) for method, path, _ in operations(described)
    )
    may = {
        (method, path): {*re.findall(r"\w+", scopes), "admin"} for method, path, scopes in written
    }
    for route in AdminApi(cast("Any", None)).routes:
        assert may[route.method, route.path] == {"admin", *route.scopes}, route.path


def test_the_page_about_the_api_has_every_code_with_its_status(described: Any) -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", ADMIN_PART, re.MULTILINE)
    written = {
        code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)
    }
    sources = {path: path.read_text() for path in (ROOT / "otsd").rglob("*.py")}
    for code in written:
        kind, _, name = code.partition("_")
        parts = [f'"{name}"'] if kind == "unknown" else [f'"{code}"']
        assert any(part in text for text in sources.values() for part in parts), code
    # those that are raised, and those that the table of errors and the API itself make
    raised = {
        code for text in sources.values() for code in re.findall(r'Conflict\(\s*"(\w+)"', text)
    }
    assert raised <= written.keys()
    assert {code for _, _, code in problems._TABLE if code} <= written.keys()
    assert {status for _, status, _ in problems._TABLE} <= set(written.values())
    assert {
        f"unknown_{kind}" for kind in ("action", "token", "submission", "key")
    } <= written.keys()
    told = {
        int(status)
        for _, _, operation in operations(described)
        for status in operation["responses"]
    }
    assert set(written.values()) == {status for status in told if status >= 400} | {405}


def test_operations_have_names_of_their_own_and_words(described: Any) -> None:
    names = Counter(operation["operationId"] for _, _, operation in operations(described))
    assert set(names.values()) == {1}
    for _, path, operation in operations(described):
        assert operation["summary"].endswith("."), path
        assert any(f" {scope}" in operation["description"] for scope in Scope), path


def test_every_reference_leads_somewhere_and_every_schema_is_used(described: Any) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    schemas = described["components"]["schemas"]
    assert references(described) == {f"#/components/schemas/{name}" for name in schemas}


def test_absence_is_no_null_where_the_two_differ(described: Any) -> None:
    # a program that fills in defaults would make unlimited tokens
    schemas = described["components"]["schemas"]
    for model in ("MintToken", "EditToken"):
        for name, schema in schemas[model]["properties"].items():
            assert "default" not in schema, (model, name)


async def test_the_daemon_keeps_to_its_document(tmp_path: Path, described: Any) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=home.token) as daemon,
    ):
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        await daemon.connected()
        tokens, submissions = await _furnish(home, daemon)
        admin = await key(daemon, "schemathesis", "admin")
        (tmp_path / "schemathesis.toml").write_text(configuration(tokens, submissions))
        run = await asyncio.to_thread(_schemathesis, tmp_path, daemon, admin["bearer"])
        assert run.returncode == 0, run.stdout[-20_000:]
        assert "No issues found" in run.stdout
        # it met the handlers, and not only their refusals
        met = _succeeded(described, json.loads((tmp_path / "requests.json").read_text()))
        names = {operation["operationId"] for _, _, operation in operations(described)}
        # it begins with the document; here is no grant to be given up, and no other add-on
        out_of_reach = {"disconnect", "show_offer", "take_offer"}
        assert names - met == {"describe", "events", "delete_key"} | out_of_reach
        assert (await daemon.get("/healthz")).status == 200
        assert "nobody expected" not in daemon.log
        assert "Traceback" not in daemon.log


async def _furnish(home: FakeHomeAssistant, daemon: Daemon) -> tuple[list[str], list[int]]:
    """Make what there is to be found: tokens, and submissions of which each ended."""
    await daemon.action()
    await daemon.action("open-gate")
    minted = [await daemon.mint(max_uses=5, comment="Plumber") for _ in range(TOKENS)]
    await daemon.submit(minted[0]["code"])
    home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
    await daemon.submit(minted[0]["code"])
    home.on_call = lambda _: HangUp()
    for token in minted[:3]:
        await daemon.submit(token["code"])
        await daemon.connected()
    home.on_call = lambda _: None
    listed = (await daemon.admin("GET", "/submissions")).json["items"]
    return [token["id"] for token in minted], [item["id"] for item in listed]


def _schemathesis(
    folder: Path, daemon: Daemon, bearer: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    ((name, value),) = bearer.items()
    program = Path(sys.executable).with_name("schemathesis")
    return subprocess.run(
        [
            str(program),
            *("--config-file", "schemathesis.toml", "run", "--no-color"),
            *("--header", f"{name}: {value}"),
            *("--report-har-path", "requests.json"),
            f"{daemon.admin_url}/api/v1/openapi.json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,
    )


def _succeeded(described: Any, archive: Any) -> set[str]:
    """Return the names of the operations of which a request was done."""
    done = {
        (entry["request"]["method"], urlsplit(entry["request"]["url"]).path)
        for entry in archive["log"]["entries"]
        if entry["response"]["status"] in (200, 201, 204)
    }
    # /actions/validate before /actions/{name}, which it fits as well
    ways = sorted(operations(described), key=lambda way: way[1].count("{"))
    patterns = [
        (method, re.compile("/api/v1" + re.sub(r"{\w+}", "[^/]*", path)), operation["operationId"])
        for method, path, operation in ways
    ]
    return {
        next(
            name
            for method, pattern, name in patterns
            if method == asked and pattern.fullmatch(path)
        )
        for asked, path in done
    }
