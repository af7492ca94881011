"""The public site as a visitor and his browser meet it: each row of the contract's tables."""

import asyncio
import re

import pytest

from tests.fakes.home_assistant import After, Fail, HangUp
from tests.server.conftest import CONTACT, House
from tests.server.wire import SHAPED, Reply, read, request, talk

pytestmark = pytest.mark.asyncio(loop_scope="package")

FORM = "application/x-www-form-urlencoded"
TWO_STEPS = """
- action: lock.unlock
  target: {entity_id: lock.front_door}
- action: light.turn_on
  target: {entity_id: light.hall}
"""


def error_of(reply: Reply) -> str:
    """Check the envelope of a failure and return its code."""
    assert reply.header("Content-Type") == "application/json"
    assert reply.json.keys() == {"error", "code", "response"}
    assert reply.json["response"] is None
    assert reply.json["error"]
    return str(reply.json["code"])


def check_no_way(reply: Reply, *, contact: bool = True) -> None:
    """A page that offers nothing, and says whom to ask."""
    assert reply.page.button is None
    assert (CONTACT in reply.page.text) == contact


# -- what there is -----------------------------------------------------------------------------


async def test_the_front_page_asks_for_a_code(house: House) -> None:
    for path in ("/", "/?token=", "/?token", "/?x=y"):
        reply = await house.ask("GET", path)
        assert reply.status == 200
        (form,) = reply.page.forms
        assert (form["method"], form["action"]) == ("get", "/")
        assert list(form["fields"]) == ["token"]
        assert CONTACT in reply.page.text


async def test_the_page_of_a_link_shows_what_it_does_and_one_button(house: House) -> None:
    code = await house.code(comment="Plumber", max_uses=3, expires_in="2h")
    reply = await house.page(code)
    assert reply.status == 200
    assert reply.header("Content-Type") == "text/html; charset=utf-8"
    for words in ("Open the front door", "Plumber", "3 uses left", "Good until"):
        assert words in reply.page.text
    button = reply.page.button
    assert button is not None
    assert button["token"] == code
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,64}", button["attempt"])
    other = (await house.page(code)).page.button
    assert other is not None
    assert other["attempt"] != button["attempt"]


async def test_the_title_of_every_page_is_the_sites(house: House) -> None:
    code = await house.code()
    for reply in (await house.page(code), await house.page(SHAPED), await house.ask("GET", "/")):
        assert "<title>Café &lt;Rain&gt; &amp; Sons</title>" in reply.text


async def test_what_the_owner_wrote_is_text(house: House) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
    await house.daemon.action("evil", title=evil)
    code = await house.code("evil", comment=evil, max_uses=2)
    for reply in (
        await house.page(code),
        await house.press(code, "attempt-evil"),
        await house.page(code, "attempt-evil"),
        await house.page(SHAPED),
    ):
        assert "<img" not in reply.text
        assert "<b>" not in reply.text
    assert evil in (await house.page(code)).page.text
    assert (await house.details(code)).json["response"]["comment"] == evil


async def test_details_are_what_the_page_shows(house: House) -> None:
    code = await house.code(comment="Plumber", max_uses=3, expires_at="2099-12-01T18:00:00Z")
    reply = await house.details(code)
    assert reply.status == 200
    assert reply.header("Content-Type") == "application/json"
    assert reply.json == {
        "response": {
            "service_call_name": "Open the front door",
            "comment": "Plumber",
            "expires": "2099-12-01T18:00:00+00:00",
            "uses_max": 3,
            "uses_left": 3,
        }
    }
    unlimited = (await house.details(await house.code(max_uses=None))).json["response"]
    assert unlimited["expires"] is unlimited["uses_max"] is unlimited["uses_left"] is None


async def test_ping_and_healthz_answer(house: House) -> None:
    assert (await house.ask("GET", "/api/public/ping")).json == {"response": "pong"}
    assert (await house.ask("GET", "/healthz")).status == 200


# -- a submission ------------------------------------------------------------------------------


async def test_a_press_leads_to_the_page_of_its_attempt(house: House) -> None:
    code = await house.code(max_uses=2)
    reply = await house.press(code, "attempt-1")
    assert reply.status == 303
    assert reply.header("Location") == f"/?token={code}&attempt=attempt-1"
    shown = await house.page(code, "attempt-1")
    assert shown.status == 200
    assert "Done" in shown.page.text
    assert shown.header("Refresh") is None
    # there is another use, for a new attempt
    button = shown.page.button
    assert button is not None
    assert button["attempt"] != "attempt-1"
    # the same press again leads to the same page, and spends nothing
    again = await house.press(code, "attempt-1")
    assert (again.status, again.header("Location")) == (303, reply.header("Location"))
    assert (await house.details(code)).json["response"]["uses_left"] == 1
    assert (await house.press(code, button["attempt"])).status == 303
    last = await house.page(code, button["attempt"])
    assert last.page.button is None
    assert "No uses left" in last.page.text


async def test_a_submission_by_the_api_tells_state_uses_and_attempt(house: House) -> None:
    code = await house.code(max_uses=2)
    reply = await house.submit(code, "attempt-1")
    assert reply.status == 200
    assert reply.json == {"response": {"state": "executed", "uses_left": 1, "attempt": "attempt-1"}}
    assert (await house.submit(code, "attempt-1")).json == reply.json
    made = await house.submit(code)
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,64}", made.json["response"]["attempt"])
    assert made.json["response"]["uses_left"] == 0


async def test_a_running_action_is_waited_for_and_then_followed(house: House) -> None:
    code = await house.code()
    go = asyncio.Event()
    house.home.on_call = lambda _: After(go, Fail("home_assistant_error", "jammed"))
    reply = await house.submit(code, "attempt-1")
    assert reply.status == 202
    assert reply.json == {"response": {"state": "running", "uses_left": 0, "attempt": "attempt-1"}}
    page = await house.page(code, "attempt-1")
    assert page.status == 202
    assert page.header("Refresh") == "1"
    assert page.header("Retry-After") is None
    assert page.page.button is None
    assert "Please wait" in page.page.text
    waiting = asyncio.create_task(house.page(code, "attempt-1"))
    go.set()
    ended = await waiting
    assert ended.status == 200
    assert ended.header("Refresh") is None
    assert "It did not work" in ended.page.text
    # the use has come back, and the page that waited for it knows
    assert ended.page.button is not None


async def test_an_attempt_that_is_not_known_shows_the_page_of_the_link(house: House) -> None:
    code = await house.code()
    reply = await house.page(code, "attempt-unknown")
    assert reply.status == 200
    button = reply.page.button
    assert button is not None
    assert button["attempt"] != "attempt-unknown"


async def test_an_attempt_belongs_to_its_link(house: House) -> None:
    one, other = await house.code(), await house.code()
    assert (await house.submit(one, "attempt-shared")).status == 200
    assert (await house.page(other, "attempt-shared")).page.button is not None
    assert (await house.submit(other, "attempt-shared")).json["response"]["uses_left"] == 0


async def test_a_known_attempt_comes_before_the_state_of_its_link(house: House) -> None:
    token = await house.token()
    assert (await house.submit(token["code"], "attempt-1")).status == 200
    await house.admin("POST", f"/tokens/{token['id']}/revoke")
    assert (await house.submit(token["code"], "attempt-1")).status == 200
    assert (await house.press(token["code"], "attempt-1")).status == 303
    assert "Done" in (await house.page(token["code"], "attempt-1")).page.text
    assert error_of(await house.submit(token["code"], "attempt-2")) == "revoked"


# -- links that cannot be used -----------------------------------------------------------------


@pytest.mark.parametrize("code", [SHAPED, "x", "a" * 32, "z" * 33, "%00", "%F0%9F%98%80" * 33])
async def test_what_is_no_code_is_not_known(house: House, code: str) -> None:
    page = await house.page(code)
    assert page.status == 404
    check_no_way(page)
    for reply in (await house.details(code), await house.submit(code)):
        assert reply.status == 404
        assert error_of(reply) == "unknown_token"
    assert (await house.press(code, "attempt-1")).status == 404


async def test_without_a_code_there_is_no_token(house: House) -> None:
    for path in ("/api/public/token/details", "/api/public/token/details?token="):
        assert error_of(await house.ask("GET", path)) == "unknown_token"
    assert error_of(await house.ask("POST", "/api/public/token/submit")) == "unknown_token"
    assert (await house.ask("POST", "/")).status == 404


@pytest.mark.parametrize(
    ("verb", "status", "code", "words"),
    [
        ("use", 410, "used_up", "This link was used"),
        ("revoke", 410, "revoked", "This link is no longer valid"),
        ("rotate", 410, "revoked", "This link is no longer valid"),
        ("pause", 403, "paused", "This link is paused"),
        ("expire", 410, "expired", "This link has expired"),
        ("schedule", 403, "not_yet_valid", "It can be used from 1 March 2099 at 13:00"),
        ("delete", 404, "unknown_token", "This link is not known here"),
    ],
)
async def test_a_link_that_cannot_be_used_says_why_and_offers_no_button(
    house: House, verb: str, status: int, code: str, words: str
) -> None:
    more = {}
    if verb == "schedule":
        more = {"valid_from": "2099-03-01T12:00:00Z"}
    if verb == "expire":
        more = {"expires_in": "1s"}
    token = await house.token(comment="Plumber", **more)
    if verb == "use":
        await house.submit(token["code"])
    elif verb == "delete":
        await house.admin("DELETE", f"/tokens/{token['id']}")
    elif verb == "expire":

        async def has_expired() -> bool:
            return (await house.details(token["code"])).status != 200

        await house.until(has_expired)
    elif verb != "schedule":
        await house.admin("POST", f"/tokens/{token['id']}/{verb}")
    calls = len(house.home.calls)
    for page in (
        await house.page(token["code"]),
        await house.press(token["code"], "attempt-2"),
        await house.page(token["code"], "attempt-3"),
    ):
        assert page.status == status
        assert words in page.page.text
        assert ("Plumber" in page.page.text) == (verb != "delete")
        check_no_way(page)
    for reply in (await house.details(token["code"]), await house.submit(token["code"])):
        assert reply.status == status
        assert error_of(reply) == code
        assert reply.header("Retry-After") is None
    assert len(house.home.calls) == calls


# -- Home Assistant ----------------------------------------------------------------------------


async def test_the_state_of_a_link_comes_before_home_assistant(house: House) -> None:
    paused, good = await house.token(), await house.code()
    await house.admin("POST", f"/tokens/{paused['id']}/pause")
    await house.home.stop()
    try:
        await house.daemon.until_status(lambda s: s["home_assistant"]["state"] != "connected")
        assert (await house.page(paused["code"])).status == 403
        page = await house.page(good)
        assert page.status == 503
        assert page.header("Retry-After")
        assert int(page.header("Refresh") or 0) > 0
        check_no_way(page)
        assert "The house cannot be reached" in page.page.text
        pressed = await house.press(good, "attempt-1")
        assert pressed.status == 503
        check_no_way(pressed)
        # it looks again at the link, not at the address of the form
        assert (pressed.header("Refresh") or "").endswith(f"; url=/?token={good}")
        for reply in (await house.details(good), await house.submit(good, "attempt-1")):
            assert reply.status == 503
            assert error_of(reply) == "home_unavailable"
            assert int(reply.header("Retry-After") or 0) > 0
    finally:
        await house.home.start()
        await house.daemon.connected()
    assert (await house.details(good)).json["response"]["uses_left"] == 1
    assert (await house.submit(good, "attempt-1")).status == 200


@pytest.mark.parametrize("state", [None, "unavailable"])
async def test_a_missing_or_unavailable_entity_is_told_before_anything_is_spent(
    house: House, state: str | None
) -> None:
    house.home.set_state("lock.shed", "locked")
    await house.daemon.action("shed", "action: lock.unlock\ntarget: {entity_id: lock.shed}\n")
    code = await house.code("shed")
    house.home.set_state("lock.shed", state)

    async def is_known() -> bool:
        return (await house.details(code)).status == 503

    await house.until(is_known)
    page = await house.page(code)
    assert page.status == 503
    check_no_way(page)
    assert "lock.shed" not in page.text
    reply = await house.submit(code)
    assert (reply.status, error_of(reply)) == (503, "target_unavailable")
    assert int(reply.header("Retry-After") or 0) > 0
    assert not [call for call in house.home.calls if call.target.get("entity_id") == "lock.shed"]
    # unknown is a state, not an absence
    house.home.set_state("lock.shed", "unknown")

    async def is_back() -> bool:
        return (await house.details(code)).status == 200

    await house.until(is_back)
    assert (await house.details(code)).json["response"]["uses_left"] == 1


async def test_a_deleted_action_cannot_be_done_now(house: House) -> None:
    await house.daemon.action("gone")
    code = await house.code("gone")
    await house.daemon.submit(code)
    await house.admin("DELETE", "/actions/gone?force=true")
    assert (await house.page(code)).status == 410
    assert error_of(await house.submit(code)) == "revoked"


async def test_a_refused_step_spends_nothing(house: House) -> None:
    code = await house.code()
    house.home.on_call = lambda _: Fail("home_assistant_error", "The lock <b>is jammed</b>")
    reply = await house.submit(code, "attempt-1")
    assert (reply.status, error_of(reply)) == (502, "action_failed")
    assert reply.header("Retry-After") is None
    assert "jammed" not in reply.text
    page = await house.page(code, "attempt-1")
    assert page.status == 200
    assert "It did not work" in page.page.text
    assert CONTACT in page.page.text
    assert "jammed" not in page.text
    assert page.page.button is not None  # at once: the link is still good
    house.home.on_call = lambda _: None
    assert error_of(await house.submit(code, "attempt-1")) == "action_failed"
    assert (await house.submit(code, "attempt-2")).status == 200


async def test_a_sequence_that_ends_with_an_error_stays_spent(house: House) -> None:
    house.home.set_state("light.hall", "off")
    await house.daemon.action("arrive", TWO_STEPS)
    code = await house.code("arrive")
    house.home.on_call = lambda _: Fail("unknown_error", "The light is broken")
    reply = await house.submit(code, "attempt-1")
    assert (reply.status, error_of(reply)) == (502, "action_incomplete")
    page = await house.page(code, "attempt-1")
    assert page.status == 200
    assert "may not have worked completely" in page.page.text
    check_no_way(page)
    assert error_of(await house.submit(code, "attempt-2")) == "used_up"


async def test_an_outcome_that_never_comes_is_unknown_and_spent(house: House) -> None:
    code = await house.code()
    house.home.on_call = lambda _: HangUp()
    first = await house.submit(code, "attempt-1")
    assert first.status in (202, 504)

    async def is_over() -> bool:
        return (await house.page(code, "attempt-1")).status == 200

    await house.until(is_over)
    page = await house.page(code, "attempt-1")
    assert "No answer from the house" in page.page.text
    check_no_way(page)
    reply = await house.submit(code, "attempt-1")
    assert (reply.status, error_of(reply)) == (504, "outcome_unknown")
    await house.daemon.connected()
    assert error_of(await house.submit(code, "attempt-2")) == "used_up"


# -- requests that are not in order ------------------------------------------------------------


@pytest.mark.parametrize(
    "attempt", ["short", "a" * 65, "a b c d e", "attempt-é", "a/../../b", "attempt;1", "-------"]
)
async def test_an_attempt_of_another_form_is_refused(house: House, attempt: str) -> None:
    code = await house.code()
    quoted = attempt.replace(" ", "%20").replace("é", "%C3%A9").replace(";", "%3B")
    assert (await house.page(code, quoted)).status == 400
    assert (await house.press(code, quoted)).status == 400
    if attempt.isascii():
        reply = await house.submit(code, attempt)
        assert (reply.status, error_of(reply)) == (400, "bad_request")
    assert (await house.details(code)).json["response"]["uses_left"] == 1


async def test_two_tokens_are_not_in_order(house: House) -> None:
    code = await house.code()
    assert (await house.ask("GET", f"/?token={code}&token={code}")).status == 400
    assert (await house.ask("GET", f"/?token={code}&attempt=a1234567&attempt=b1")).status == 400
    for method, what in (("GET", "details"), ("POST", "submit")):
        reply = await house.ask(method, f"/api/public/token/{what}?token={code}&token={SHAPED}")
        assert (reply.status, error_of(reply)) == (400, "bad_request")
    body = f"token={code}&token={code}&attempt=attempt-1".encode()
    assert (await house.ask("POST", "/", body=body, Content_Type=FORM)).status == 400
    assert (await house.details(code)).json["response"]["uses_left"] == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="t'),
        ("application/json", b'{"token": "x"}'),
        ("", b"token=x"),
        ("text/plain", b"token=x"),
        (FORM, b"token=\xff\xfe"),
        (FORM, "token=é".encode("latin-1")),
        (FORM, b"\x1f\x8b\x08\x00 gzip"),
        (FORM, b"&".join(b"a=1" for _ in range(100))),
    ],
)
async def test_a_form_that_is_none_is_refused(house: House, kind: str, body: bytes) -> None:
    reply = await house.ask("POST", "/", body=body, Content_Type=kind)
    assert reply.status == 400
    assert reply.page.button is None


async def test_a_form_that_was_packed_is_refused(house: House) -> None:
    import gzip

    code = await house.code()
    body = gzip.compress(f"token={code}&attempt=attempt-1".encode())
    reply = await house.ask("POST", "/", body=body, Content_Type=FORM, Content_Encoding="gzip")
    assert reply.status == 400
    assert (await house.details(code)).json["response"]["uses_left"] == 1


def chunked(body: bytes) -> bytes:
    head = request("POST", "/", Content_Type=FORM, Transfer_Encoding="chunked", Expect="")
    pieces = [body[begin : begin + 1000] for begin in range(0, len(body), 1000)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


async def test_a_body_in_chunks_is_as_good_as_any(house: House) -> None:
    code = await house.code()
    body = f"token={code}&attempt=attempt-1".encode()
    (reply,) = read(await talk(house.port, chunked(body)))
    assert reply.status == 303


async def test_a_body_over_16_kilobytes_is_too_large(house: House) -> None:
    code = await house.code()
    body = f"token={code}&attempt=attempt-1&x=".encode()
    fits = body + b"a" * (16 * 1024 - len(body))
    large = fits + b"a"
    for target in ("/", f"/api/public/token/submit?token={code}"):
        reply = await house.ask("POST", target, body=large, Content_Type=FORM)
        assert reply.status == 413
        assert "/api" not in target or error_of(reply) == "bad_request"
    (reply,) = read(await talk(house.port, chunked(large)))
    assert reply.status == 413
    assert (await house.details(code)).json["response"]["uses_left"] == 1
    assert (await house.ask("POST", "/", body=fits, Content_Type=FORM)).status == 303


async def test_a_huge_body_is_refused_before_it_is_sent(house: House) -> None:
    head = request("POST", "/", Content_Type=FORM, Content_Length="100000000000")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(head + b"a" * 20_000)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_an_enormous_query_is_refused(house: House) -> None:
    reply = (await talk(house.port, request("GET", "/?token=" + "a" * 20_000)))[:12]
    assert reply == b"HTTP/1.0 400"
    assert (await house.ask("GET", "/?token=" + "a" * 7_000)).status == 404
    assert (await house.ask("GET", "/?" + "&".join(["a=b"] * 1_500))).status == 200


async def test_old_and_odd_requests_are_served(house: House) -> None:
    code = await house.code()
    assert (await house.ask("GET", f"/?token={code}", version="1.0")).status == 200
    absolute = await house.ask("GET", f"http://example.org/?token={code}")
    assert absolute.page.button is not None
    assert (await house.ask("GET", f"/?token={code}#there")).status == 200
    for path in ("//", f"//?token={code}", "//api/public/ping", "/..//", "/api//public/ping"):
        assert (await house.ask("GET", path)).status == 404


# -- too many unknown codes --------------------------------------------------------------------


async def test_the_31st_unknown_code_of_an_address_must_wait_and_a_good_one_must_not(
    house: House,
) -> None:
    code = await house.code()
    visitor, other = "192.0.2.1", "192.0.2.2"
    for _ in range(15):
        for path in (f"/?token={SHAPED}", f"/api/public/token/details?token={SHAPED}"):
            assert (await house.ask("GET", path, X_Forwarded_For=visitor)).status == 404
    page = await house.ask("GET", f"/?token={SHAPED}", X_Forwarded_For=visitor)
    assert page.status == 429
    assert 1 <= int(page.header("Retry-After") or 0) <= 60
    assert page.header("Refresh") is None
    check_no_way(page)
    api = await house.ask(
        "POST", f"/api/public/token/submit?token={SHAPED}", X_Forwarded_For=visitor
    )
    assert (api.status, error_of(api)) == (429, "too_many_requests")
    assert api.header("Retry-After")
    # a forged address before the real one does not help
    forged = await house.ask("GET", f"/?token={SHAPED}", X_Forwarded_For=f"{other}, {visitor}")
    assert forged.status == 429
    assert (await house.ask("GET", f"/?token={SHAPED}", X_Forwarded_For=other)).status == 404
    good = await house.ask("GET", f"/?token={code}", X_Forwarded_For=visitor)
    assert good.page.button is not None
    assert (await house.press(code, "attempt-1", X_Forwarded_For=visitor)).status == 303
    shown = (await house.admin("GET", "/submissions?limit=1")).json["items"][0]
    assert shown["remote_ip"] == visitor


async def test_the_addresses_of_one_ipv6_network_are_counted_together(house: House) -> None:
    for number in range(30):
        address = f"2001:db8:1:2:{number:x}::1"
        assert (await house.ask("GET", "/?token=x", X_Forwarded_For=address)).status == 404
    for address, status in (("2001:db8:1:2:ffff::", 429), ("2001:db8:1:3::1", 404)):
        assert (await house.ask("GET", "/?token=x", X_Forwarded_For=address)).status == status


async def test_no_other_header_tells_the_visitors_address(house: House) -> None:
    code = await house.code()
    await house.submit(
        code,
        X_Forwarded_For="192.0.2.77",
        Forwarded="for=192.0.2.78",
        X_Real_IP="192.0.2.79",
        CF_Connecting_IP="192.0.2.80",
        User_Agent="Rain/1.0",
    )
    shown = (await house.admin("GET", "/submissions?limit=1")).json["items"][0]
    assert (shown["remote_ip"], shown["user_agent"]) == ("192.0.2.77", "Rain/1.0")


async def test_a_user_agent_of_any_bytes_is_kept_as_text(house: House) -> None:
    code = await house.code()
    head = request("POST", f"/api/public/token/submit?token={code}", User_Agent="AGENT")
    stream = await talk(house.port, head.replace(b"AGENT", b"\xff\xfe<b>" + b"x" * 1000))
    assert read(stream)[0].status == 200
    shown = (await house.admin("GET", "/submissions?limit=1")).json["items"][0]
    assert "<b>" in shown["user_agent"]
    assert len(shown["user_agent"]) == 256
