"""Logging in with Home Assistant, and every way in which that can go wrong."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from yarl import URL

from tests.daemon import Answer
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.conftest import Estate
from tests.server.owner import LOGIN, SESSION, Browser, daemon_with_admin
from tests.server.wire import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="package")


def says(answer: Answer, status: int, heading: str) -> None:
    """Hold an answer to be a page with this heading, and a way on."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f"<h1>{heading}</h1>" in answer.text
    for cookie in answer.headers.getall("Set-Cookie", []):
        assert "Max-Age=0" in cookie  # nothing is left of it


async def test_an_administrator_logs_in_and_out(estate: Estate) -> None:
    browser = await estate.browser()
    sent = await browser.get("/")
    assert (sent.status, sent.headers["Location"]) == (303, "./login")
    asked = URL(await browser.begin())
    assert str(asked.with_query(None)) == f"{estate.home.url}/auth/authorize"
    assert asked.query["client_id"] == f"{estate.url}/"
    assert asked.query["redirect_uri"] == f"{estate.url}/callback"
    assert asked.query["response_type"] == "code"
    assert asked.query["code_challenge_method"] == "S256"
    user = estate.home.add_user("Anna", admin=True)
    back = await browser.get(estate.home.authorize(str(asked), user))
    assert (back.status, back.headers["Location"]) == (303, "./")
    session = (await browser.api("GET", "/session")).json
    assert session["user"] == {"id": user, "name": "Anna"}
    assert session["via"] == "home_assistant"
    assert session["can_log_out"] is True
    refresh = estate.home.refresh_tokens[-1]
    out = await browser.post("/logout")
    says(out, 200, "You are logged out")
    assert not await browser.is_in()
    assert refresh in estate.home.revoked
    says(await browser.post("/logout"), 200, "You are logged out")


async def test_what_an_administrator_makes_carries_his_name(estate: Estate) -> None:
    browser = await estate.browser()
    await browser.log_in(estate.home, estate.home.add_user("Berta", admin=True))
    made = await browser.api("POST", "/tokens", json={"action": "open-door"})
    assert made.status == 201, made.text
    assert made.json["created_by"] == "user:Berta"


async def test_the_cookies_are_for_this_site_alone(estate: Estate) -> None:
    browser = await estate.browser()
    begun = await browser.get("/login")
    login = begun.headers["Set-Cookie"]
    assert login.startswith(f"{LOGIN}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} <= set(login.split("; "))
    back = await browser.get(estate.home.authorize(begun.headers["Location"]))
    session, gone = back.headers.getall("Set-Cookie")
    assert session.startswith(f"{SESSION}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(session.split("; "))
    assert "Domain" not in session
    assert gone.startswith(f'{LOGIN}=""')
    assert "Max-Age=0" in gone


async def test_behind_tls_the_cookies_are_secure_and_below_the_path(tmp_path: Path) -> None:
    settings = {"admin.base_url": '"https://example.org/otsd"'}
    async with (
        daemon_with_admin(tmp_path, "http://127.0.0.1:1", settings=settings) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        begun = await browser.get("/login?anyway", headers={"Host": "example.org"})
        assert {"Secure", "Path=/otsd"} <= set(begun.headers["Set-Cookie"].split("; "))
        assert "redirect_uri=https://example.org/otsd/callback" in begun.headers["Location"]


async def test_a_session_has_a_new_id_at_each_login_and_the_one_before_is_over(
    estate: Estate,
) -> None:
    browser = await estate.browser()
    browser.set_cookie(SESSION, "chosen-by-somebody-else")
    await browser.log_in(estate.home)
    first, refresh = browser.cookies[SESSION], estate.home.refresh_tokens[-1]
    assert first != "chosen-by-somebody-else"
    assert len(first) >= 43
    await browser.log_in(estate.home)
    assert browser.cookies[SESSION] != first
    assert refresh in estate.home.revoked
    other = await estate.browser()
    other.set_cookie(SESSION, first)
    assert not await other.is_in()


async def test_neither_session_nor_refresh_token_is_kept_in_clear(estate: Estate) -> None:
    browser = await estate.owner()
    secrets = [browser.cookies[SESSION], estate.home.refresh_tokens[-1]]
    for path in estate.daemon.directory.iterdir():
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


async def test_a_wrong_state_ends_on_a_page(estate: Estate) -> None:
    browser = await estate.browser()
    back = URL(estate.home.authorize(await browser.begin()))
    asked = len(estate.home.asked_for_tokens)
    says(
        await browser.get(str(back.update_query(state="another"))),
        400,
        "This login cannot be finished",
    )
    assert not await browser.is_in()
    assert len(estate.home.asked_for_tokens) == asked
    # it is over: the right one does not help any more, for its cookie is gone
    says(await browser.get(str(back)), 400, "This login cannot be finished")


@pytest.mark.parametrize(
    "query", ["", "code=abc", "state=", "code=abc&state=%ff", "state=x&state=y"]
)
async def test_a_callback_without_a_login_ends_on_a_page(estate: Estate, query: str) -> None:
    browser = await estate.browser()
    asked = len(estate.home.asked_for_tokens)
    says(await browser.get(f"/callback?{query}"), 400, "This login cannot be finished")
    assert len(estate.home.asked_for_tokens) == asked


async def test_somebody_elses_callback_logs_nobody_in(estate: Estate) -> None:
    attacker, victim = await estate.browser(), await estate.browser()
    back = estate.home.authorize(await attacker.begin())
    says(await victim.get(back), 400, "This login cannot be finished")
    assert not await victim.is_in()
    await victim.begin()  # with a login of his own begun, too
    says(await victim.get(back), 400, "This login cannot be finished")
    assert not await victim.is_in()


async def test_a_login_is_used_once(estate: Estate) -> None:
    browser = await estate.browser()
    back = estate.home.authorize(await browser.begin())
    cookie = browser.cookies[LOGIN]
    assert (await browser.get(back)).status == 303
    asked = len(estate.home.asked_for_tokens)
    thief = await estate.browser()
    thief.set_cookie(LOGIN, cookie)
    says(await thief.get(back), 400, "This login cannot be finished")
    assert len(estate.home.asked_for_tokens) == asked
    assert await browser.is_in()
    assert not await thief.is_in()


async def test_a_code_that_home_assistant_refuses_ends_on_a_page(estate: Estate) -> None:
    browser = await estate.browser()
    back = URL(estate.home.authorize(await browser.begin()))
    answer = await browser.get(str(back.update_query(code="stolen")))
    says(answer, 400, "Home Assistant does not accept this login")
    assert not await browser.is_in()


@pytest.mark.parametrize("cookie", ["", "x", "gAAAAA", "\N{SNOWMAN}"])
async def test_a_cookie_that_is_not_ours_ends_on_a_page(estate: Estate, cookie: str) -> None:
    browser = await estate.browser()
    back = estate.home.authorize(await browser.begin())
    browser.http.cookie_jar.clear()
    answer = await browser.get(back, headers={"Cookie": f"{LOGIN}={cookie}; {SESSION}={cookie}"})
    says(answer, 400, "This login cannot be finished")
    assert (await browser.get("/", headers={"Cookie": f"{SESSION}={cookie}"})).status == 303


async def test_a_tampered_cookie_ends_on_a_page(estate: Estate) -> None:
    browser = await estate.browser()
    back = estate.home.authorize(await browser.begin())
    cookie = browser.cookies[LOGIN]
    middle = len(cookie) // 2
    browser.set_cookie(
        LOGIN, cookie[:middle] + ("A" if cookie[middle] != "A" else "B") + cookie[middle + 1 :]
    )
    says(await browser.get(back), 400, "This login cannot be finished")


async def test_who_is_no_administrator_is_told_so_and_his_tokens_are_revoked(
    estate: Estate,
) -> None:
    browser = await estate.browser()
    answer = await browser.log_in(estate.home, estate.home.add_user("<b>Guest</b>"))
    says(answer, 403, "You may not enter here")
    assert "&lt;b&gt;Guest&lt;/b&gt; is not an administrator" in answer.text
    assert not await browser.is_in()
    assert estate.home.revoked
    assert estate.home.revoked[-1] not in estate.home.refresh_tokens
    granted = [
        form for form in estate.home.asked_for_tokens if form["grant_type"] == "authorization_code"
    ]
    assert granted
    assert len(estate.home.revoked[-1]) == 128


async def test_whoever_says_no_at_home_assistant_is_told_so(estate: Estate) -> None:
    browser = await estate.browser()
    back = URL(estate.home.authorize(await browser.begin()))
    denied = back.with_query(error="access_denied", state=back.query["state"])
    answer = await browser.get(str(denied))
    says(answer, 400, "This login cannot be finished")
    assert "Home Assistant did not let you in" in answer.text


async def test_home_assistant_away_in_the_middle_is_told_and_the_next_try_succeeds(
    tmp_path: Path,
) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=home.token) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        await daemon.connected()
        back = home.authorize(await browser.begin())
        await home.stop()
        says(await browser.get(back), 503, "Not at the moment")
        await home.start()
        home.handshake = "http_502"
        says(await browser.get(home.authorize(await browser.begin())), 503, "Not at the moment")
        home.handshake = "not_a_websocket"  # gives tokens, and does not say whose
        says(await browser.get(home.authorize(await browser.begin())), 503, "Not at the moment")
        assert home.refresh_tokens == []  # nobody will ever use it
        home.handshake = "normal"
        assert (await browser.log_in(home)).status == 303
        assert await browser.is_in()
        assert "Traceback" not in daemon.log


async def test_a_login_while_nothing_answers_is_told_so_before_the_browser_is_sent_there(
    tmp_path: Path,
) -> None:
    async with FakeHomeAssistant() as home:
        await home.stop()
        async with (
            daemon_with_admin(tmp_path, home, token=None) as daemon,
            Browser(daemon.admin_url) as browser,
        ):
            where = home.url.removeprefix("http://")
            answer = await browser.get("/login")
            says(answer, 503, "Home Assistant cannot be reached")
            assert f"Nothing answers at {where} (Connection refused). Is Home" in answer.text
            assert '<a href="./login">Try again</a>' in answer.text
            assert '<a href="./login?anyway">Log in all the same</a>' in answer.text
            await browser.begin("/login?anyway")

            await home.start()
            async with asyncio.timeout(PATIENCE):
                while (await browser.get("/login")).status == 503:
                    await asyncio.sleep(0.1)
            await browser.log_in(home)
            assert await browser.is_in()
            assert home.most_wrong_logins == 0
            assert f"admin page until it can be: nothing answers at {where}" in daemon.log


async def test_a_login_begun_on_the_loopback_name_goes_on_at_the_one_address(
    tmp_path: Path,
) -> None:
    settings = {"admin.base_url": '"http://door.example:8099"'}
    async with (
        daemon_with_admin(tmp_path, "http://127.0.0.1:1", settings=settings) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        moved = await browser.get("/login")
        assert moved.status == 303
        assert moved.headers["Location"] == "http://door.example:8099/login?moved"
        assert "Set-Cookie" not in moved.headers
        there = await browser.get("/login?moved&anyway", headers={"Host": "door.example:8099"})
        assert there.status == 303
        assert "redirect_uri=http://door.example:8099/callback" in there.headers["Location"]
        # a proxy that hides the name would send it round and round
        says(await browser.get("/login?moved"), 421, "The proxy hides the address")


async def test_a_connection_is_granted_only_to_whoever_is_logged_in(tmp_path: Path) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=None) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        assert (await browser.get("/connect")).headers["Location"] == "./login"
        await browser.log_in(home)
        back = home.authorize(await browser.begin("/connect"))
        session = browser.cookies[SESSION]
        asked = len(home.asked_for_tokens)
        browser.http.cookie_jar.clear(lambda cookie: cookie.key == SESSION)
        says(await browser.get(back), 401, "Log in first")
        assert len(home.asked_for_tokens) == asked
        assert (await daemon.status())["home_assistant"]["state"] == "off"
        browser.set_cookie(SESSION, session)
        says(await browser.get(back), 400, "This login cannot be finished")
        back = home.authorize(await browser.begin("/connect"))
        assert (await browser.get(back)).headers["Location"] == "./"
        await daemon.connected()
        assert browser.cookies[SESSION] == session


async def test_a_configured_token_is_replaced_by_no_login(estate: Estate) -> None:
    browser = await estate.owner()
    says(await browser.get("/connect"), 409, "otsd is connected otherwise")
    refused = await browser.api("POST", "/home-assistant/disconnect")
    assert (refused.status, refused.json["code"]) == (409, "not_granted")


async def test_a_connection_that_was_granted_survives_restarts_and_says_when_it_was_revoked(
    tmp_path: Path,
) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=None) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        status = (await daemon.status())["home_assistant"]
        assert status["state"] == "off"
        assert "log in to the admin page" in status["error"]
        await browser.log_in(home)
        granted = await _connect(browser, home)
        await daemon.connected()
        assert (await browser.api("GET", "/session")).json["home_assistant"] == {
            "configured": "login",
            "url": home.url,
        }
        content = b"".join(
            path.read_bytes() for path in daemon.directory.iterdir() if path.is_file()
        )
        assert granted.encode() not in content

        await daemon.stop()
        await daemon.start()
        await daemon.connected()
        home.expire_access_tokens()
        assert (await daemon.status())["home_assistant"]["state"] == "connected"
        await home.hang_up()
        await daemon.until_status(lambda _: home.connections == 1)

        home.revoke(granted)
        status = await daemon.until_status(
            lambda status: status["home_assistant"]["state"] == "refused"
        )
        assert "Connect again on the admin page" in status["home_assistant"]["error"]
        assert await browser.is_in()
        anew = await _connect(browser, home)
        await daemon.connected()
        assert granted in home.revoked

        gone = await browser.api("POST", "/home-assistant/disconnect")
        assert gone.status == 204, gone.text
        await daemon.until_status(lambda status: status["home_assistant"]["state"] == "off")
        assert anew in home.revoked
        again = await browser.api("POST", "/home-assistant/disconnect")
        assert (again.status, again.json["code"]) == (409, "not_granted")


async def _connect(browser: Browser, home: FakeHomeAssistant) -> str:
    answer = await browser.get(home.authorize(await browser.begin("/connect")))
    assert answer.status == 303, answer.text
    return home.refresh_tokens[-1]


async def test_wrong_codes_of_strangers_never_get_otsd_banned(tmp_path: Path) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token=None) as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        for _ in range(5):
            back = URL(home.authorize(await browser.begin()))
            answer = await browser.get(str(back.update_query(code="garbage")))
        assert home.most_wrong_logins == 2
        says(answer, 503, "Not at the moment")
        assert "start it again" in answer.text
        assert len(home.asked_for_tokens) == 2
        await daemon.stop()
        await daemon.start()
        home.wrong_logins = 0
        await browser.log_in(home)
        await _connect(browser, home)
        await daemon.connected()
        # connected, it ends the count by a login of its own
        for _ in range(7):
            back = URL(home.authorize(await browser.begin()))
            answer = await browser.get(str(back.update_query(code="garbage")))
            says(answer, 400, "Home Assistant does not accept this login")
        assert home.most_wrong_logins == 2
        assert (await browser.log_in(home)).status == 303


async def test_a_refused_token_of_our_own_is_not_shown_to_end_the_count(tmp_path: Path) -> None:
    async with (
        FakeHomeAssistant() as home,
        daemon_with_admin(tmp_path, home, token="wrong") as daemon,
        Browser(daemon.admin_url) as browser,
    ):
        await daemon.until_status(lambda status: status["home_assistant"]["state"] == "refused")
        assert home.wrong_logins == 1
        for _ in range(5):
            back = URL(home.authorize(await browser.begin()))
            await browser.get(str(back.update_query(code="garbage")))
        assert home.wrong_logins == 3  # its own, and two of strangers


async def test_no_secret_of_a_login_is_in_the_log(estate: Estate) -> None:
    browser = await estate.browser()
    location = await browser.begin()
    login = browser.cookies[LOGIN]
    back = estate.home.authorize(location)
    await browser.get(back)
    await browser.get(back)
    stolen = URL(estate.home.authorize(await browser.begin())).update_query(code="stolen-code")
    await browser.get(str(stolen))
    session, refresh = browser.cookies[SESSION], estate.home.refresh_tokens[-1]
    await browser.api("GET", "/status")
    await browser.post("/logout")
    secrets = [
        URL(back).query["code"],
        URL(back).query["state"],
        "stolen-code",
        login,
        session,
        refresh,
        *[form.get("code_verifier", refresh) for form in estate.home.asked_for_tokens],
    ]
    log = estate.daemon.log
    assert "admin page" in log
    for secret in secrets:
        assert secret not in log


async def test_the_pages_are_whole_and_without_scripts(estate: Estate) -> None:
    browser = await estate.browser()
    page = await browser.get("/callback")
    assert re.search(
        r"<title>This login cannot be finished · Café &lt;Rain&gt; &amp; Sons</title>", page.text
    )
    assert '<meta charset="utf-8">' in page.text
    assert "<script" not in page.text
    assert '<a href="./login">' in page.text
