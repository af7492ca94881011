"""The public site with a clock and a Home Assistant that a test holds in its hands."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from otsd.core.errors import HomeUnavailable, NotAsked
from otsd.core.ports import Ran
from tests.server.conftest import Place
from tests.server.wire import SHAPED

pytestmark = pytest.mark.asyncio(loop_scope="package")

Open = Callable[..., Any]


async def test_a_replay_is_shown_as_what_it_is(open_place: Open) -> None:
    place: Place = await open_place()
    _, code = await place.token(max_uses=2)
    assert (await place.press(code, "attempt-1")).status == 303
    first = await place.page(code, "attempt-1")
    assert "Done Done at 21:15." in first.page.text
    place.clock.move(hours=3)
    replay = await place.page(code, "attempt-1")
    assert replay.status == 200
    assert "Already done Done yesterday at 21:15." in replay.page.text
    button = replay.page.button
    assert button is not None
    assert button["attempt"] != "attempt-1"
    assert "once more" in replay.page.text
    assert (await place.press(code, "attempt-1")).status == 303
    assert place.home.ran == 1
    assert (await place.press(code, button["attempt"])).status == 303
    assert place.home.ran == 2
    last = await place.page(code, "attempt-1")
    assert "Already done" in last.page.text
    assert last.page.button is None


async def test_a_link_is_usable_from_its_first_to_before_its_last_instant(open_place: Open) -> None:
    place: Place = await open_place()
    begin = place.clock.now + timedelta(hours=1)
    _, code = await place.token(valid_from=begin, expires_at=begin + timedelta(hours=1), max_uses=9)
    for number, (moment, status, words) in enumerate(
        (
            (begin - timedelta(milliseconds=1), 403, "from 22:15"),
            (begin, 200, "Good until 23:15"),
            (begin + timedelta(minutes=59, seconds=59.999), 200, "Good until 23:15"),
            (begin + timedelta(hours=1), 410, "It was good until 23:15."),
        )
    ):
        place.clock.now = moment
        page = await place.page(code)
        assert page.status == status
        assert words in page.page.text
        pressed = await place.press(code, f"attempt-{number}")
        assert pressed.status == (303 if status == 200 else status)
    assert place.home.ran == 2


async def test_the_page_of_a_link_to_come_looks_again_when_it_is_time(open_place: Open) -> None:
    place: Place = await open_place()
    _, code = await place.token(valid_from=place.clock.now + timedelta(seconds=90))
    assert (await place.page(code)).header("Refresh") == "90"
    _, later = await place.token(valid_from=place.clock.now + timedelta(days=90))
    assert (await place.page(later)).header("Refresh") == "3600"


async def test_a_hundred_submissions_of_a_link_run_at_once_and_the_next_is_not_admitted(
    open_place: Open,
) -> None:
    place: Place = await open_place()
    token, code = await place.token(max_uses=None)
    _, other = await place.token(max_uses=1)
    go = asyncio.Event()

    async def wait() -> Ran:
        await go.wait()
        return Ran()

    place.home.answer = wait
    async with asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(place.press(code, f"attempt-{number}"))
    busy = await place.ask("POST", f"/api/public/token/submit?token={code}")
    assert (busy.status, busy.json["code"]) == (503, "busy")
    assert int(busy.header("Retry-After") or 0) > 0
    page = await place.press(code, "attempt-new")
    assert page.status == 503
    assert page.page.button is None
    assert (page.header("Refresh") or "").endswith(f"; url=/?token={code}")
    # known attempts and other links are not held up
    assert (await place.press(code, "attempt-7")).status == 303
    assert (await place.press(other, "attempt-7")).status == 303
    go.set()
    await place.submissions.finish(timedelta(seconds=10))
    assert place.home.ran == 101
    assert place.store.token(token.id).uses_taken == 100


async def test_while_it_shuts_down_nothing_new_is_admitted(open_place: Open) -> None:
    place: Place = await open_place()
    token, code = await place.token()
    await place.submissions.finish(timedelta())
    reply = await place.ask("POST", f"/api/public/token/submit?token={code}")
    assert (reply.status, reply.json["code"]) == (503, "busy")
    assert place.store.token(token.id).uses_taken == 0


async def test_a_store_that_cannot_write_is_told_and_nothing_runs(open_place: Open) -> None:
    place: Place = await open_place()
    token, code = await place.token()
    place.store.failing = {"claim"}
    reply = await place.ask("POST", f"/api/public/token/submit?token={code}")
    assert (reply.status, reply.json["code"]) == (503, "storage_unavailable")
    assert int(reply.header("Retry-After") or 0) > 0
    page = await place.press(code, "attempt-1")
    assert page.status == 503
    assert page.page.button is None
    assert "disk" not in page.text
    assert place.home.ran == 0
    assert place.store.token(token.id).uses_taken == 0


async def test_a_store_that_cannot_read_is_told(open_place: Open) -> None:
    place: Place = await open_place()
    _, code = await place.token()
    place.store.failing = {"find", "attempt"}
    page = await place.page(code)
    assert page.status == 503
    assert page.header("Refresh")
    assert page.page.button is None
    pressed = await place.press(code, "attempt-1")
    assert pressed.status == 503
    assert pressed.header("Refresh") is None  # there is nothing to look at again


async def test_what_nobody_expected_is_a_500_like_any_other_answer(
    open_place: Open, caplog: Any
) -> None:
    place: Place = await open_place()
    _, code = await place.token()
    place.home.fault = RuntimeError(f"this text holds {code}")
    page = await place.page(code)
    assert page.status == 500
    assert page.page.button is None
    assert "Nothing was done" in page.page.text
    api = await place.ask("GET", f"/api/public/token/details?token={code}")
    assert (api.status, api.json["code"]) == (500, "internal_error")
    for reply in (page, api):
        assert code not in reply.text
    assert "RuntimeError" in caplog.text
    assert code not in caplog.text


async def test_an_action_that_was_never_sent_gives_the_use_back_and_offers_it_again(
    open_place: Open,
) -> None:
    place: Place = await open_place()
    _, code = await place.token()

    async def lost() -> Ran:
        raise NotAsked("the connection went away")

    place.home.answer = lost
    reply = await place.ask("POST", f"/api/public/token/submit?token={code}")
    assert (reply.status, reply.json["code"]) == (503, "home_unavailable")
    assert reply.header("Retry-After")
    await place.press(code, "attempt-1")
    page = await place.page(code, "attempt-1")
    assert page.status == 200
    assert page.header("Refresh") is None
    assert page.page.button is not None
    assert "Your link is still good" in page.page.text
    place.home.fault = HomeUnavailable()
    assert (await place.page(code, "attempt-1")).page.button is None


async def test_a_throttled_address_is_answered_again_after_a_minute(open_place: Open) -> None:
    place: Place = await open_place()
    for number in range(40):
        reply = await place.ask("GET", f"/?token={SHAPED}", X_Forwarded_For="192.0.2.9")
        assert reply.status == (404 if number < 30 else 429)
    place.throttle_clock = 59
    waiting = await place.ask("GET", f"/?token={SHAPED}", X_Forwarded_For="192.0.2.9")
    assert (waiting.status, waiting.header("Retry-After")) == (429, "3")
    place.throttle_clock = 62.1
    reply = await place.ask("GET", f"/?token={SHAPED}", X_Forwarded_For="192.0.2.9")
    assert reply.status == 404


async def test_a_client_without_a_proxy_cannot_say_who_it_is(open_place: Open) -> None:
    place: Place = await open_place(proxies="10.0.0.0/8")
    for number in range(31):
        reply = await place.ask("GET", "/?token=x", X_Forwarded_For=f"192.0.2.{number}")
    assert reply.status == 429


async def test_below_a_path_everything_is_served_twice_and_leads_below_it(
    open_place: Open,
) -> None:
    place: Place = await open_place(root="/t%C3%BCr/door")
    for root in ("", "/t%C3%BCr/door"):
        _, code = await place.token()
        assert (await place.ask("GET", f"{root}/")).page.forms[0]["action"] == "/t%C3%BCr/door/"
        page = (await place.ask("GET", f"{root}/?token={code}")).page
        assert page.button is not None
        assert page.forms[0]["action"] == "/t%C3%BCr/door/"
        body = f"token={code}&attempt=attempt-1".encode()
        pressed = await place.ask(
            "POST", f"{root}/", body=body, Content_Type="application/x-www-form-urlencoded"
        )
        assert pressed.status == 303
        location = f"/t%C3%BCr/door/?token={code}&attempt=attempt-1"
        assert pressed.header("Location") == location
        assert "Done" in (await place.ask("GET", location)).page.text
        api = f"{root}/api/public"
        assert (await place.ask("GET", f"{api}/ping")).json == {"response": "pong"}
        assert (await place.ask("GET", f"{root}/healthz")).status == 200
        details = await place.ask("GET", f"{api}/token/details?token={code}")
        assert (details.status, details.json["code"]) == (410, "used_up")
        submit = await place.ask("POST", f"{api}/token/submit?token={code}")
        assert (submit.status, submit.json["code"]) == (410, "used_up")
        # errors are in the manner of what was asked for, at both
        assert (await place.ask("GET", f"{api}/nothing")).json["code"] == "not_found"
    _, code = await place.token()
    bare = await place.ask("GET", f"/t%C3%BCr/door?token={code}")
    assert bare.page.button is not None
    assert (await place.ask("GET", "/t%C3%BCr")).status == 404
    place.home.fault = HomeUnavailable()
    away = await place.press(code, "attempt-1")
    assert (away.header("Refresh") or "").endswith(f"; url=/t%C3%BCr/door/?token={code}")
