"""The blueprints do what they say, in a real Home Assistant, with a real broker and otsd."""

from __future__ import annotations

import asyncio
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.blueprints.conftest import BASE_URL, ROOT, House, until
from tests.mqtt.ear import Ear

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="package")]

CLEANER = "automation.a_link_for_the_cleaner"
DAY = timedelta(days=1)
EVENT = "one_time_token_submitted"
STRANGE = [
    'He said "hi", it\'s a \\ test',
    "{{ 1 + 1 }} {% if x %}",
    "[1, 2]",
    "None",
    "é😀👨‍👩‍👧",
    "007",
    '", "max_uses": 99, "x": "',
]


def code(link: Any) -> str:
    """Return what stands in a link."""
    return str(link["url"].rpartition("=")[2])


# -- create_link ---------------------------------------------------------------------------------


async def test_a_script_returns_a_link_that_works_exactly_once(house: House) -> None:
    before = len(house.home.witnessed(entity="lock.front_door", action="unlock"))
    link = await house.create_link(action="open-door", expires_in="2h", comment="Plumber")
    assert link.keys() == {"ok", "url", "token_id", "expires_at", "error"}
    assert (link["ok"], link["error"]) == (True, None)
    assert link["url"].startswith(f"{BASE_URL}/?token=")
    token = await house.token(link["token_id"])
    assert (token["max_uses"], token["comment"], token["created_by"]) == (1, "Plumber", "mqtt")
    assert token["expires_at"] == link["expires_at"]
    good = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=118) < good <= timedelta(hours=2)

    assert [(await house.otsd.submit(code(link))).status for _ in range(2)] == [200, 410]
    assert len(house.home.witnessed(entity="lock.front_door", action="unlock")) == before + 1


async def test_a_comment_is_a_text_whatever_it_looks_like(house: House) -> None:
    links = await asyncio.gather(
        *(house.create_link(action="open-door", comment=each) for each in STRANGE)
    )
    comments = [(await house.token(link["token_id"]))["comment"] for link in links]
    assert comments == STRANGE


async def test_what_is_left_empty_is_what_the_action_says(house: House) -> None:
    empty = {"max_uses": None, "expires_in": "", "expires_at": "", "comment": ""}
    at = "2099-12-01T18:00:00+00:00"
    left_out, emptied, given = await asyncio.gather(
        house.create_link(action="often"),
        house.create_link(action="often", **empty),
        house.create_link(action="often", max_uses="5", expires_at=at, comment=7),
    )
    for link in left_out, emptied:
        token = await house.token(link["token_id"])
        assert (token["max_uses"], token["comment"]) == (3, "")
        good = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=58) < good <= timedelta(hours=1)
    token = await house.token(given["token_id"])
    assert (token["max_uses"], token["comment"]) == (5, "7")
    assert (token["expires_at"], given["expires_at"]) == (at, at)


async def test_a_refusal_is_told_in_the_response(house: House) -> None:
    before = await house.tokens()
    wishes: dict[str, dict[str, Any]] = {
        "no-such-action": {"action": "no-such-action"},
        "line breaks": {"action": "open-door", "comment": "two\nlines"},
        "max_uses": {"action": "open-door", "max_uses": -1},
        "whole number": {"action": "open-door", "max_uses": "many"},
        "not both": {"action": "open-door", "expires_in": "1h", "expires_at": "2099-12-01T18:00"},
        "expires_in": {"action": "open-door", "expires_in": "soon"},
    }
    links = await asyncio.gather(*(house.create_link(**wish) for wish in wishes.values()))
    for part, link in zip(wishes, links, strict=True):
        assert part in link.pop("error")
        assert link == {"ok": False, "url": None, "token_id": None, "expires_at": None}
    assert await house.tokens() == before


async def test_an_otsd_that_is_away_is_told(house: House) -> None:
    await house.otsd.stop()
    begun = asyncio.get_running_loop().time()
    link = await house.create_link(action="open-door")
    assert 9 < asyncio.get_running_loop().time() - begun < 30
    assert link["ok"] is False
    assert "did not answer within 10 seconds" in link["error"]
    await house.otsd.start()
    await house.otsd.connected()
    await house.otsd.until_status(lambda status: status["mqtt"]["state"] == "connected")


async def test_an_otsd_that_is_slow_is_asked_again_and_mints_once(house: House) -> None:
    before = len(await house.tokens())
    assert house.otsd.process is not None
    async with Ear(house.broker) as ear:

        def asked() -> list[bytes]:
            return [each.payload for each in ear.heard if each.topic == "otsd/command/mint"]

        house.otsd.process.send_signal(signal.SIGSTOP)
        try:
            asking = asyncio.create_task(house.create_link(action="open-door", comment="Slow"))
            await ear.until(lambda: len(asked()) == 2)
        finally:
            house.otsd.process.send_signal(signal.SIGCONT)
        link = await asking
        assert len(set(asked())) == 1
    assert link["ok"], link
    assert (await house.token(link["token_id"]))["comment"] == "Slow"
    assert len(await house.tokens()) == before + 1


async def test_the_automation_of_the_page_sends_its_link(house: House) -> None:
    page = (ROOT / "docs" / "automations.md").read_text()
    (block,) = re.findall(r"^```yml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    await house.save(CLEANER, "cleaner", yaml.safe_load(block))
    await house.home.call("automation", "trigger", target={"entity_id": CLEANER})
    (told,) = await house.home.wait_witnessed(notify="notify.witness", title=None)
    url = told["message"].removeprefix("Good until noon: ")
    assert (await house.otsd.submit(code({"url": url}))).status == 200
    await house.remove(CLEANER, "cleaner")


# -- announce_submission -------------------------------------------------------------------------


async def test_an_announcement_follows_a_fresh_submission_that_is_wanted(house: House) -> None:
    key = "announce some"
    await house.make(
        "automation.announce_some",
        "announce_submission",
        announce=[{"action": "witness.record", "data": {"key": key, "data": "{{ submission }}"}}],
        actions=["open-door", "arrive"],
        outcomes=["executed", "unconfirmed"],
    )
    data = {
        "submission_id": 1,
        "token_id": "k7m2qx4d",
        "comment": STRANGE[1],
        "action": "open-door",
        "title": "Open the front door",
        "outcome": "executed",
        "error": None,
        "uses_left": 0,
        "delivered_late": False,
    }
    variants: list[dict[str, Any]] = [
        {},
        {"delivered_late": True},
        {"action": "often"},
        {"outcome": "failed"},
        {"action": "arrive", "outcome": "unconfirmed"},
    ]
    for number, variant in enumerate(variants):
        await house.home.fire(EVENT, {**data, **variant, "submission_id": number})
    told = await house.home.wait_witnessed(2, key=key)
    assert [each["data"]["submission_id"] for each in told] == [0, 4]
    assert told[0]["data"] == {**data, "submission_id": 0}
    await house.remove("automation.announce_some")


async def test_whatever_a_comment_looks_like_it_is_announced_as_it_is(house: House) -> None:
    await house.make("automation.announce_all", "announce_submission")
    for comment in STRANGE:
        token = await house.otsd.mint(comment=comment, max_uses=2)
        assert (await house.otsd.submit(token["code"])).status == 200
    expected = [f"{comment}: executed, uses left: 1" for comment in STRANGE]
    told = await house.home.wait_witnessed(
        len(STRANGE), notify="notify.witness", title="Open the front door"
    )
    assert [each["message"] for each in told] == expected
    await house.remove("automation.announce_all")


# -- doorbell_link -------------------------------------------------------------------------------


async def test_who_rings_gets_one_link_and_what_only_looks_like_ringing_none(house: House) -> None:
    key = "doorbell"
    before = len(await house.tokens())
    recording = {"key": key, "data": "{{ dict(link, bell=trigger.entity_id) }}"}
    bells = "input_button.bell", "input_boolean.guest_mode", "event.bell", "binary_sensor.bell"
    long_ago = "2026-01-01T00:00:00+00:00"

    async def show(bell: str, state: str) -> None:
        await house.home.request("POST", f"/api/states/{bell}", {"state": state})

    async def ring(bell: str) -> None:
        if bell.startswith("input_button"):
            await house.home.call("input_button", "press", target={"entity_id": bell})
        elif bell.startswith("input_boolean"):
            await house.home.call("input_boolean", "turn_on", target={"entity_id": bell})
        else:
            fresh = datetime.now(UTC).isoformat(timespec="milliseconds")
            await show(bell, fresh if bell.startswith("event") else "on")

    for bell, state in (("event.bell", "unknown"), ("binary_sensor.bell", "unavailable")):
        await show(bell, state)
    for bell in bells:
        await house.make(
            f"automation.ring_{bell.partition('.')[0]}",
            "doorbell_link",
            doorbell=bell,
            script="script.create_link",
            expires_in="10m",
            comment="Ring",
            send=[{"action": "witness.record", "data": recording}],
        )
    # back from an outage, or from a restart, and what it says of itself beside its state
    await show("event.bell", long_ago)
    await house.home.request(
        "POST", "/api/states/event.bell", {"state": long_ago, "attributes": {"event_type": "ring"}}
    )
    await show("binary_sensor.bell", "on")
    await show("binary_sensor.bell", "off")
    for bell in bells:
        ringing = await house.home.entity(f"automation.ring_{bell.partition('.')[0]}")
        assert ringing is not None
        assert ringing["attributes"]["last_triggered"] is None

    await asyncio.gather(*(ring(bell) for bell in bells))
    await asyncio.gather(*(ring(bell) for bell in bells))  # impatient
    told = await house.home.wait_witnessed(len(bells), key=key)
    assert sorted(each["data"]["bell"] for each in told) == sorted(bells)
    for link in (each["data"] for each in told):
        token = await house.token(link["token_id"])
        assert (token["comment"], token["max_uses"]) == ("Ring", 1)
        assert [(await house.otsd.submit(code(link))).status for _ in range(2)] == [200, 410]
    assert len(await house.tokens()) == before + len(bells)
    await house.home.call("input_boolean", "turn_off", target={"entity_id": bells[1]})
    for bell in bells:
        await house.remove(f"automation.ring_{bell.partition('.')[0]}")


async def test_the_doorbell_s_notifications_say_what_they_should_and_the_quiet_time_ends(
    house: House,
) -> None:
    for action, message in (
        ("open-door", "This link works once: http"),
        ("no-such-action", "There is no link: "),
    ):
        await house.make(
            "automation.ring",
            "doorbell_link",
            doorbell="input_button.bell",
            script="script.create_link",
            action=action,
            quiet={"seconds": 0.1},
        )
        for _ in range(2):
            heard = len(house.home.witnessed(notify="notify.witness"))
            await house.home.call(
                "input_button", "press", target={"entity_id": "input_button.bell"}
            )
            told = await house.home.wait_witnessed(heard + 1, notify="notify.witness")
            assert told[-1]["title"] == "Somebody is at the door"
            assert told[-1]["message"].startswith(message)
            await until(lambda: house.running("automation.ring"), 0)
        await house.remove("automation.ring")


# -- calendar_link -------------------------------------------------------------------------------


async def test_a_link_is_good_until_its_event_ends_with_and_without_home_assistant(
    house: House,
) -> None:
    """Three at once, since each takes its time: an event to its end, one interrupted, a whole day."""
    now = datetime.now(UTC).replace(microsecond=0)
    start, end = now + timedelta(seconds=6), now + timedelta(seconds=16)
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    summary = 'Stay: {{ 1 + 1 }} "Anna"'
    spans: dict[str, dict[str, str]] = {
        f"{summary}\n😀": _span(start, end),
        "Interrupted": _span(start, end),
        "7": {"start_date": f"{tomorrow:%Y-%m-%d}", "end_date": f"{tomorrow + DAY:%Y-%m-%d}"},
        "Somebody else's": _span(start, end),
    }
    for title, span in spans.items():
        target = {"entity_id": "calendar.guests"}
        await house.home.call("calendar", "create_event", {"summary": title, **span}, target)
    early = int((tomorrow - start).total_seconds())
    offsets = {
        "stay": "00:00:00",
        "interrupted": "0:0:0",
        "7": f"-{early // 3600}:{early // 60 % 60}:{early % 60}",
    }
    # Home Assistant looks at a calendar when an automation is made, and every 15 minutes
    recording = {"key": "calendar", "data": "{{ dict(link, event=event) }}"}
    for words, offset in offsets.items():
        await house.make(
            f"automation.event_{words}",
            "calendar_link",
            calendar="calendar.guests",
            words=words,
            offset=offset,
            script="script.create_link",
            max_uses=4,
            send=[{"action": "witness.record", "data": recording}],
        )
    told = await house.home.wait_witnessed(3, key="calendar")
    assert len(told) == 3
    links = {each["data"]["event"]["summary"]: each["data"] for each in told}
    stay, interrupted, day = links[f"{summary}\n😀"], links["Interrupted"], links["7"]
    tokens = [await house.token(link["token_id"]) for link in (stay, interrupted, day)]
    assert [each["comment"] for each in tokens] == [f"{summary} 😀", "Interrupted", "7"]
    assert {each["max_uses"] for each in tokens} == {4}
    ends = [datetime.fromisoformat(each["expires_at"]) for each in tokens]
    assert ends == [end, end, tomorrow + DAY]
    assert (await house.otsd.submit(code(stay))).status == 200

    # a restart of Home Assistant ends an automation that waits, as this does
    interrupt = {"entity_id": "automation.event_interrupted", "stop_actions": True}
    await house.home.call("automation", "turn_off", interrupt)
    await until(lambda: house.token_state(stay), "revoked")
    assert datetime.now(UTC) >= end
    assert await house.token_state(interrupted) == "expired"
    assert await house.token_state(day) == "active"
    assert [(await house.otsd.submit(code(each))).status for each in (stay, interrupted)] == [
        410
    ] * 2
    for words in offsets:
        await house.remove(f"automation.event_{words}")


async def test_an_event_without_a_link_says_why(house: House) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    event = {"summary": "Typo", **_span(start, start + timedelta(hours=1))}
    await house.home.call("calendar", "create_event", event, {"entity_id": "calendar.guests"})
    await house.make(
        "automation.event_typo",
        "calendar_link",
        calendar="calendar.guests",
        words="Typo",
        offset="0:0:0",
        script="script.create_link",
        action="no-such-action",
    )
    (told,) = await house.home.wait_witnessed(notify="notify.witness", title="Typo")
    assert told["message"].startswith("There is no link: ")
    await until(lambda: house.running("automation.event_typo"), 0)
    await house.remove("automation.event_typo")


def _span(start: datetime, end: datetime) -> dict[str, str]:
    return {"start_date_time": start.isoformat(), "end_date_time": end.isoformat()}
