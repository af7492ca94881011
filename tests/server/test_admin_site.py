"""What the admin listener is to somebody who may not enter, and to a browser that was misled."""

from __future__ import annotations

from typing import Any, cast

import pytest
from yarl import URL

from otsd.server.admin import AdminParts, AdminSite
from otsd.server.api import AdminApi
from tests.daemon import Answer
from tests.server import wire
from tests.server.conftest import Estate, House
from tests.server.owner import LOGIN, SESSION, Browser, key

pytestmark = pytest.mark.asyncio(loop_scope="package")

OPEN = {"/login": 303, "/callback": 400, "/logout": 200, "/healthz": 200}
TRUSTING = {
    "X-Ingress-Path": "/api/hassio_ingress/x",
    "X-Remote-User-Id": "c0ffee",
    "X-Remote-User-Name": "admin",
    "X-Remote-User-Display-Name": "Admin",
    "X-Hass-Source": "core.ingress",
    "X-Forwarded-For": "172.30.32.2",
    "X-Forwarded-Host": "localhost:8099",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/api/v1",
    "X-Original-URL": "/api/v1/status",
    "X-Rewrite-URL": "/api/v1/status",
    "X-Real-IP": "172.30.32.2",
    "Forwarded": "for=172.30.32.2;host=localhost",
}


def _routes() -> list[tuple[str, str]]:
    """Return every method and path that the admin application has."""
    nothing = cast("Any", None)
    parts = AdminParts(
        title="",
        base_url=URL("http://localhost"),
        api=AdminApi(nothing),
        entrance=nothing,
        accounts=nothing,
        logins=nothing,
        live=nothing,
        metrics=nothing,
        can_connect=lambda: True,
        grant=nothing,
    )
    return sorted(
        {
            (route.method, path.format(name="open-door", id="k7m2qx4d", verb=verb))
            for route in AdminSite(parts).application().router.routes()
            if (path := route.resource.canonical if route.resource else "")
            for verb in ("revoke", "pause", "resume", "replenish")
        }
    )


def carries_headers(answer: Answer) -> None:
    """Hold an answer of the admin site to the headers that every one carries."""
    headers = answer.headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Robots-Tag"] == "noindex"
    assert headers["Cache-Control"] == "no-store" or answer.status == 200
    rules = [rule.strip() for rule in headers["Content-Security-Policy"].split(";")]
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(rules)
    assert not any("unsafe" in rule for rule in rules if not rule.startswith("style-src "))
    assert "Server" not in headers
    assert not any(name.lower().startswith("access-control-") for name in headers)


async def test_without_credentials_every_route_is_401_or_leads_to_the_login(
    estate: Estate,
) -> None:
    browser = await estate.browser()
    routes = _routes()
    assert len(routes) > 40
    for method, path in routes:
        for headers in ({}, TRUSTING):
            answer = await browser.ask(method, path, headers=headers)
            carries_headers(answer)
            if path in OPEN:
                assert answer.status == OPEN[path], path
            elif path in ("/", "/connect"):
                assert (answer.status, answer.headers["Location"]) == (303, "./login")
                assert answer.body == b""
            else:
                assert answer.status == 401, (method, path)
                if answer.json:
                    assert answer.json["code"] == "login_required"
    assert not {SESSION} & set(browser.cookies)


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", "Bearer otsd_wrong", "Basic YTpi", "bearer otsd_", "Bearer \N{SNOWMAN}"],
)
async def test_no_other_authorization_is_a_way_in(estate: Estate, authorization: str) -> None:
    browser = await estate.browser()
    answer = await browser.api("GET", "/status", headers={"Authorization": authorization})
    assert answer.status == 401
    assert authorization[7:] == "" or authorization[7:] not in answer.text


async def test_a_bearer_that_is_no_text_is_refused(estate: Estate) -> None:
    port = URL(estate.url).port
    assert port is not None
    for header in (b"Authorization: Bearer otsd_\xff\xfe", b"Cookie: otsd_session=\xff; a=b"):
        request = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        stream = await wire.talk(port, request + header + b"\r\n\r\n")
        assert stream.startswith(b"HTTP/1.1 401 "), stream


async def test_the_public_site_has_nothing_of_the_admin_side(house: House) -> None:
    for path in sorted({path for _, path in _routes()} - {"/", "/healthz"}):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            for target in (path, f"/admin{path}", f"/{path}", f"http://localhost:8099{path}"):
                headers = {name.replace("-", "_"): value for name, value in TRUSTING.items()}
                del headers["X_Forwarded_For"]  # the house believes in it
                reply = await house.ask(method, target, **headers)
                assert reply.status == 404, (method, target)
        assert (await house.ask("GET", path)).status == 404
    for path in ("/admin", "/admin/", "/admin/login", "/api/v1", "/api/v1/"):
        assert (await house.ask("GET", path)).status == 404


async def test_the_admin_site_has_nothing_of_the_public_one(estate: Estate) -> None:
    browser = await estate.owner()
    token = await estate.daemon.mint()
    calls = len(estate.home.calls)
    for path in ("/api/public/token/details", "/api/public/token/submit", "/api/public/ping"):
        answer = await browser.get(f"{path}?token={token['code']}")
        assert answer.status == 404
        assert token["code"] not in answer.text
    await browser.post("/", data={"token": token["code"], "attempt": "attempt-1"})
    assert len(estate.home.calls) == calls


# -- names -------------------------------------------------------------------------------------


async def test_another_name_than_ours_is_refused_also_with_a_session(estate: Estate) -> None:
    browser = await estate.owner()
    port = URL(estate.url).port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        f"localhost.evil.example:{port}",
        "192.168.1.5",
        "0.0.0.0",
        "127.0.0.1:99999",
        "[::1",
        "",
        " ",
    ):
        for path in ("/api/v1/session", "/", "/login", "/connect", "/callback", "/assets/x.js"):
            answer = await browser.get(path, headers={"Host": host})
            assert answer.status in (421, 400), (host, path)
            assert "Location" not in answer.headers
            carries_headers(answer)
        answer = await browser.post("/logout", headers={"Host": host})
        assert answer.status in (421, 400)
    assert await browser.is_in()


async def test_our_name_and_loopback_are_good_at_any_port(estate: Estate) -> None:
    browser = await estate.owner()
    port = URL(estate.url).port
    for host in (f"127.0.0.1:{port}", "localhost", "localhost:1", "LOCALHOST:80", "[::1]:8099"):
        assert (await browser.get("/api/v1/session", headers={"Host": host})).status == 200, host


async def test_a_program_with_a_key_may_call_by_any_name(estate: Estate) -> None:
    made = await key(estate.daemon, "by any name", "read")
    browser = await estate.browser()
    headers = {"Host": "otsd.internal:8099", **made["bearer"]}
    assert (await browser.api("GET", "/status", headers=headers)).status == 200
    headers["Origin"] = "http://elsewhere.example"
    assert (await browser.api("GET", "/session", headers=headers)).status == 200


# -- requests that other sites make -------------------------------------------------------------

FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "OURS", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "OURS", "Sec-Fetch-Site": "same-site"},
    {"Origin": "OURS", "Sec-Fetch-Site": "none"},
    {"Origin": "OURS", "Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "//"},
    {"Origin": "http://["},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "OURS.evil.example"},
    {"Origin": "http://evil.example/OURS"},
    {},
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=repr)
async def test_no_route_changes_anything_for_a_page_of_another_site(
    estate: Estate, foreign: dict[str, str]
) -> None:
    browser = await estate.owner()
    headers = {name: value.replace("OURS", estate.url) for name, value in foreign.items()}
    changing = [(method, path) for method, path in _routes() if method not in ("GET", "HEAD")]
    assert len(changing) > 15
    for method, path in changing:
        async with browser.http.request(
            method, estate.url + path, headers=headers, data=b"{}", allow_redirects=False
        ) as response:
            text = await response.text()
        assert response.status == 403, (method, path, text)
        assert "not asked for by a page of ours" in text
    assert await browser.is_in()


@pytest.mark.parametrize(
    "ours",
    [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "OURS"}],
    ids=["a browser of today", "on plain http"],
)
async def test_a_page_of_ours_may_change_things(estate: Estate, ours: dict[str, str]) -> None:
    browser = await estate.owner()
    headers = {name: value.replace("OURS", estate.url) for name, value in ours.items()}
    url = f"{estate.url}/api/v1/tokens"
    async with browser.http.post(url, headers=headers, json={"action": "open-door"}) as response:
        assert response.status == 201, await response.text()


async def test_a_preflight_allows_nothing(estate: Estate) -> None:
    browser = await estate.owner()
    headers = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/api/v1/tokens", "/logout", "/"):
        answer = await browser.ask("OPTIONS", path, headers=headers)
        assert answer.status == 405
        carries_headers(answer)


# -- every answer -------------------------------------------------------------------------------


async def test_every_answer_carries_the_headers(estate: Estate) -> None:
    browser = await estate.owner()
    for path in (
        "/",
        "/api/v1/session",
        "/api/v1/nothing",
        "/api/v1/tokens?limit=x",
        "/nothing",
        "/assets/nothing.js",
        "/submissions.csv",
        "/api/v1/submissions.csv",
        "/callback",
        "/login",
        "/connect",
    ):
        carries_headers(await browser.get(path))
    carries_headers(await browser.ask("PUT", "/"))
    carries_headers(await browser.api("POST", "/tokens", data=b"x" * 300_000))


@pytest.mark.parametrize(
    "request_line",
    [
        "GET / HTTP/9.9",
        "G@T / HTTP/1.1",
        "GET",
        "GET /\0 HTTP/1.1",
        "GET /" + "a" * 20_000 + " HTTP/1.1",
    ],
)
async def test_what_cannot_be_read_gets_a_400_with_every_header(
    estate: Estate, request_line: str
) -> None:
    port = URL(estate.url).port
    assert port is not None
    stream = await wire.talk(port, f"{request_line}\r\nHost: localhost\r\n\r\n".encode())
    (reply,) = wire.read(stream)
    assert reply.status == 400
    assert reply.json["code"] == "bad_request"
    assert "aaaa" not in reply.text
    for name in ("Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options"):
        assert reply.header(name)
    assert "frame-ancestors 'none'" in (reply.header("Content-Security-Policy") or "")
    assert reply.header("Cache-Control") == "no-store"
    assert reply.header("Server") is None


async def test_an_expectation_that_is_none_gets_every_header(estate: Estate) -> None:
    port = URL(estate.url).port
    assert port is not None
    head = "POST /logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: x\r\n\r\n"
    (reply,) = wire.read(await wire.talk(port, head.encode()))
    assert reply.status == 417
    assert reply.header("Content-Security-Policy")
    assert reply.header("Server") is None


async def test_the_assets_are_a_flat_folder_for_owners(estate: Estate) -> None:
    browser = await estate.owner()
    page = await browser.get("/")
    assert page.status in (200, 503)  # it may not be built here
    names = [part.partition('"')[0] for part in page.text.split('"./assets/')[1:]]
    assert names or page.status == 503
    for name in names:
        asset = await browser.get(f"/assets/{name}")
        assert asset.status == 200
        assert asset.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        carries_headers(asset)
        stranger = await estate.browser()
        assert (await stranger.get(f"/assets/{name}")).status == 401
    port = URL(estate.url).port
    assert port is not None
    for path in (
        "/assets/../index.html",
        "/assets/..%2findex.html",
        "/assets/%2e%2e/index.html",
        "/assets/..",
        "/assets/.",
        "/assets/",
        "/assets/%2fetc%2fpasswd",
        "/assets//etc/passwd",
        "/assets/..\\index.html",
        "/assets/index.html%00.js",
        "/assets/%ff",
        "/assets/" + "a" * 5_000,
        "/../../etc/passwd",
    ):
        stream = await wire.talk(
            port,
            wire.request("GET", path, Cookie=f"{SESSION}={browser.cookies[SESSION]}"),
        )
        (reply,) = wire.read(stream)
        assert reply.status in (404, 400), path
        assert b"root:" not in reply.body
        assert b"<otsd-app" not in reply.body


async def test_redirects_lead_nowhere_else(estate: Estate) -> None:
    browser = await estate.browser()
    port = URL(estate.url).port
    assert port is not None
    for target in ("//evil.example/", "/login//evil.example", "/\\evil.example", "/./login"):
        (reply,) = wire.read(await wire.talk(port, wire.request("GET", target)))
        location = reply.header("Location") or ""
        assert "evil" not in location
    for query in ("next=https://evil.example", "redirect_uri=https://evil.example", "url=//evil"):
        answer = await browser.get(f"/login?{query}")
        assert "evil" not in answer.headers["Location"]


async def test_nothing_of_what_keeps_a_login_is_readable_by_scripts(estate: Estate) -> None:
    async with Browser(estate.url) as browser:
        await browser.log_in(estate.home)
        for cookie in browser.http.cookie_jar:
            assert cookie["httponly"]
            assert cookie["samesite"] == "Lax"
            assert cookie.key in (SESSION, LOGIN)
        session = (await browser.api("GET", "/session")).text
        assert browser.cookies[SESSION] not in session
