"""What holds of every answer of the public site, also of those that aiohttp makes by itself."""

import asyncio
from typing import Any

import pytest

from otsd.server.api import AdminApi
from tests.daemon import Daemon
from tests.fakes.home_assistant import After, Succeed
from tests.server import wire
from tests.server.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="package")

ROUTES = [
    "/",
    "/?token={code}",
    "/?token={code}&attempt={attempt}",
    "/api/public/token/details?token={code}",
    "/api/public/token/submit?token={code}",
    "/api/public/ping",
    "/healthz",
]
MESSENGERS = [
    "WhatsApp/2.23.20.0 A",
    "TelegramBot (like TwitterBot)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
    "Signal-Desktop/6.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Twitterbot/1.0",
    "iMessage/1.0 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
]

# each carries a good code, and is not in order in a way of its own
MALFORMED = {
    "a version that there is not": "GET /?token={code} HTTP/9.9\r\nHost: x\r\n\r\n",
    "no target": "GET HTTP/1.1\r\nHost: {code}\r\n\r\n",
    "a NUL in the target": "GET /?token={code}\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a line of 20 kB": "GET /?token={code}&x=" + "a" * 20_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of 20 kB": "GET / HTTP/1.1\r\nHost: x\r\nX-Code: {code}" + "a" * 20_000 + "\r\n\r\n",
    "a thousand headers": "GET /?token={code} HTTP/1.1\r\n" + "X-A: {code}\r\n" * 1000 + "\r\n",
    "a method that is none": "G@T /?token={code} HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header that is none": "GET /?token={code} HTTP/1.1\r\nHost: x\r\nHost {code}\r\n\r\n",
    "a NUL in a header": "GET /?token={code} HTTP/1.1\r\nHost: x\r\nX-Code: {code}\0\r\n\r\n",
    "a length below nothing": "POST /?token={code} HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a length and chunks": (
        "POST /?token={code} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "a chunk that is none": (
        "POST /?token={code} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{code}\r\n"
    ),
    "a port that is none": "GET http://x:999999/?token={code} HTTP/1.1\r\nHost: x\r\n\r\n",
    "half an IPv6 address": "GET http://[::1/?token={code} HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00{code}\r\n\r\n",
    "words": "I have the code {code}, open the door\r\n\r\n",
    "a target without a slash": "GET {code} HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes that are no UTF-8": "GET /?token={code}\udcff HTTP/1.1\r\nHost: x\r\n\r\n",
}
SUBMIT = "POST /api/public/token/submit?token={code} HTTP/1.1\r\nHost: x\r\nX-Code: {code}\r\n"
FORM = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
REFUSED = {
    "an Expect that is none": (SUBMIT + "Connection: close\r\nExpect: {code}\r\n\r\n", 417),
    "another method": (
        "DELETE /?token={code} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        405,
    ),
    "a method of others": (
        "PROPFIND /?token={code} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        405,
    ),
    "CONNECT": ("CONNECT {code}:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "OPTIONS of all": ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "another path": ("GET /{code}/{code} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "a path that is not decodable": (
        "GET /%ff%zz{code} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        404,
    ),
    "a type that is none": (
        SUBMIT.replace("/api/public/token/submit?token={code}", "/")
        + "Content-Type: \udcff/;;=\r\nConnection: close\r\nContent-Length: 5\r\n\r\n{code}",
        400,
    ),
    "too large a body": (FORM + "Content-Length: 20000\r\n\r\ntoken={code}" + "a" * 19_961, 413),
    "an upgrade": (
        "GET /{code} HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        404,
    ),
}


def fill(text: str, code: str) -> bytes:
    return text.replace("{code}", code).encode("utf-8", "surrogateescape")


async def nothing_happened(house: House, code: str, calls: int) -> None:
    assert len(house.home.calls) == calls
    details = await house.details(code)
    assert details.status == 200, details.text
    assert details.json["response"]["uses_left"] == 1


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_gets_a_400_with_every_header_and_no_echo(
    house: House, case: str
) -> None:
    code, calls = await house.code(), len(house.home.calls)
    (reply,) = wire.read(await wire.talk(house.port, fill(MALFORMED[case], code)))
    assert reply.status == 400
    wire.check_headers(reply)
    assert code not in reply.text
    assert reply.header("Connection") != "keep-alive"
    await nothing_happened(house, code, calls)


@pytest.mark.parametrize("case", REFUSED)
async def test_a_request_that_is_refused_gets_every_header_and_no_echo(
    house: House, case: str
) -> None:
    code, calls = await house.code(), len(house.home.calls)
    text, status = REFUSED[case]
    replies = wire.read(await wire.talk(house.port, fill(text, code), half_close=False))
    assert replies[0].status == status
    for reply in replies:
        wire.check_headers(reply)
        assert code not in reply.text
    if status == 405:
        assert replies[0].header("Allow")
    await nothing_happened(house, code, calls)


@pytest.mark.parametrize("target", ["/", "/api/public/token/submit?token={code}"])
async def test_a_chunk_that_turns_out_to_be_none_gets_a_400(house: House, target: str) -> None:
    code, calls = await house.code(), len(house.home.calls)
    head = wire.request(
        "POST",
        target.format(code=code),
        Transfer_Encoding="chunked",
        Content_Type="application/x-www-form-urlencoded",
    )
    stream = await wire.talk(house.port, head + b"5\r\ntoken\r\n", b"XX\r\n" + code.encode())
    replies = wire.read(stream)
    assert replies[0].status == 400
    for reply in replies:
        wire.check_headers(reply)
    await nothing_happened(house, code, calls)


async def test_an_expectation_of_100_is_met(house: House) -> None:
    code = await house.code()
    body = f"token={code}&attempt=attempt-1".encode()
    kind = "application/x-www-form-urlencoded"
    head = wire.request(
        "POST", "/", Expect="100-continue", Content_Type=kind, Content_Length=str(len(body))
    )
    stream = await wire.talk(house.port, head, body)
    assert stream.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    (reply,) = wire.read(stream)
    assert reply.status == 303
    wire.check_headers(reply)


async def test_a_client_that_hangs_up_in_the_middle_is_no_event(house: House) -> None:
    code, calls = await house.code(), len(house.home.calls)
    for text in (
        "GET /?token={code} HT",
        FORM + "Content-Length: 100\r\n\r\ntoken={code}",
        FORM + "Transfer-Encoding: chunked\r\n\r\nff\r\ntoken={code}",
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(fill(text, code))
        await writer.drain()
        writer.transport.abort()
    await nothing_happened(house, code, calls)
    # the house's own end looks into its log


async def test_a_visitor_who_goes_away_changes_nothing(house: House) -> None:
    code = await house.code()
    body = wire.request(
        "POST", f"/api/public/token/submit?token={code}", Idempotency_Key="gone-away"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    calls = len(house.home.calls)
    writer.write(body)
    await house.home.until(lambda: len(house.home.calls) > calls)
    writer.transport.abort()
    assert (await house.submit(code, "gone-away")).json["response"]["state"] == "executed"
    assert len(house.home.calls) == calls + 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_looking_never_spends_whoever_looks(house: House, method: str) -> None:
    token = await house.token()
    code, calls = token["code"], len(house.home.calls)
    before = (await house.daemon.status())["counts"]["submissions"]
    for agent in MESSENGERS:
        for route in ROUTES:
            target = route.format(code=code, attempt="attempt-1")
            reply = await house.ask(
                method,
                target,
                User_Agent=agent,
                Idempotency_Key="attempt-1",
                X_HTTP_Method_Override="POST",
                Purpose="prefetch",
            )
            assert reply.status in (200, 405)
            assert reply.status == 200 or method == "OPTIONS" or "submit" in route
    body = f"token={code}&attempt=attempt-1&_method=POST".encode()
    kind = "application/x-www-form-urlencoded"
    await house.ask(method, "/", body=body, Content_Type=kind)
    assert (await house.daemon.status())["counts"]["submissions"] == before
    await nothing_happened(house, code, calls)
    assert not [event for event in house.home.events if event.data["token_id"] == token["id"]]
    # not even an attempt was taken
    assert (await house.submit(code, "attempt-1")).json["response"]["uses_left"] == 0


async def test_looking_at_a_running_attempt_neither_ends_nor_repeats_it(house: House) -> None:
    code = await house.code(max_uses=5)
    go = asyncio.Event()
    house.home.on_call = lambda _: After(go, Succeed())
    calls = len(house.home.calls)
    assert (await house.submit(code, "attempt-1")).status == 202
    looks = [house.page(code, "attempt-1") for _ in range(10)]
    assert {reply.status for reply in await asyncio.gather(*looks)} == {202}
    go.set()
    assert "Done" in (await house.page(code, "attempt-1")).page.text
    assert len(house.home.calls) == calls + 1


ADMIN_PATHS = sorted(
    {
        path.format(name="open-door", id="k7m2qx4d", verb="revoke")
        for route in AdminApi(None).application().router.routes()  # type: ignore[arg-type]
        if (path := route.resource.canonical if route.resource else "")
    }
)
TRUSTING = {
    "X_Ingress_Path": "/api/hassio_ingress/x",
    "X_Remote_User_Id": "c0ffee",
    "X_Remote_User_Name": "admin",
    "X_Forwarded_For": "172.30.32.2",
    "X_Forwarded_Host": "localhost:8099",
    "X_Forwarded_Prefix": "/api/v1",
    "X_Original_URL": "/api/v1/status",
    "X_Rewrite_URL": "/api/v1/status",
    "Forwarded": "for=172.30.32.2;host=localhost",
    "Authorization": "Bearer admin",
    "Host": "localhost:8099",
}


async def test_there_is_no_way_to_the_admin_side(house: House) -> None:
    assert len(ADMIN_PATHS) > 10
    for path in ADMIN_PATHS:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            for target in (path, f"/{path}", f"/door{path}", f"http://otsd{path}"):
                reply = await house.ask(method, target, **TRUSTING)
                assert reply.status == 404, (method, target)
        assert (await house.ask("GET", path)).status == 404
    assert (await house.ask("GET", "/", **TRUSTING)).status == 200


async def test_the_two_sites_have_no_route_in_common(open_place: Any) -> None:
    place = await open_place()
    assert (await place.ask("GET", "/healthz")).status == 200
    for path in ADMIN_PATHS:
        assert (await place.ask("GET", path)).status == 404
    assert all(path.startswith("/api/v1/") for path in ADMIN_PATHS)


async def test_the_code_is_nowhere_in_the_log_after_all_that(house: House) -> None:
    code = await house.code(max_uses=50)
    for text in [*MALFORMED.values(), *(text for text, _ in REFUSED.values())]:
        await wire.talk(house.port, fill(text, code))
    for target in ROUTES:
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT"):
            await house.ask(method, target.format(code=code, attempt="attempt-1"))
    assert (await house.press(code, "attempt-1")).status == 303
    assert (await house.page(code, "attempt-1")).status == 200
    assert (await house.ask("GET", "/", Cookie=f"token={code}", Referer=f"/?token={code}")).status
    log = house.daemon.log
    assert log
    assert code not in log
    assert code[:16] not in log
    assert code.encode() not in b"".join(
        path.read_bytes() for path in house.daemon.directory.iterdir() if path.is_file()
    )


async def test_the_daemon_says_the_same_at_its_own_address(house: House, tmp_path: Any) -> None:
    """Without a proxy, with a path in its base URL, and with no Home Assistant at all."""
    settings = {"public.base_url": '"http://localhost/door"'}
    async with Daemon(tmp_path, settings=settings) as daemon:
        assert (await daemon.action())["warnings"]
        token = await daemon.mint()
        assert token["url"] == f"http://localhost/door/?token={token['code']}"
        for root in ("", "/door"):
            page = await wire.ask(daemon.port, "GET", f"{root}/?token={token['code']}")
            assert page.status == 503
            assert wire.HOME_AWAY in page.page.text
            assert page.page.button is None
            reply = await wire.ask(
                daemon.port, "POST", f"{root}/api/public/token/submit?token={token['code']}"
            )
            assert (reply.status, reply.json["code"]) == (503, "home_unavailable")
        for number in range(31):
            forged = await wire.ask(
                daemon.port, "GET", "/?token=x", X_Forwarded_For=f"192.0.2.{number}"
            )
        assert forged.status == 429
