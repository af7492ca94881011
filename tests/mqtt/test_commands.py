"""Commands by themselves: on the real store, with a clock, and without a broker."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import string
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otsd.core.actions import Defaults
from otsd.core.changes import Changes
from otsd.core.codes import Codes
from otsd.core.manage import Tokens
from otsd.core.ports import Store
from otsd.core.tokens import Token
from otsd.mqtt.commands import Commands, Message, Reply
from otsd.mqtt.topics import Topics
from otsd.store.store import opened
from tests.conftest import Clock
from tests.core.homes import MemoryHome
from tests.store import making

VERBS = ("revoke", "pause", "resume", "replenish")
TOPICS = Topics("otsd", "homeassistant")


class Desk:
    """Where commands are handed in: `close` and `open` it as a daemon ends and starts."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.store: Store
        self.tokens: Tokens
        self.commands: Commands
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.open()
        await self.action("open-door")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self.store, key = await self._stack.enter_async_context(opened(self.directory))
        self.tokens = Tokens(
            store=self.store,
            codes=Codes(key.derive("codes")),
            now=self.clock,
            changes=Changes(),
            random=secrets.token_bytes,
            base_url="https://rain.example",
        )
        self.commands = Commands(
            tokens=self.tokens, home=MemoryHome(), now=self.clock, topics=TOPICS
        )

    async def close(self) -> None:
        await self._stack.aclose()

    async def action(
        self, name: str, max_uses: int | None = 1, expires_in: timedelta | None = None
    ) -> None:
        action = replace(making.action(name), defaults=Defaults(max_uses, expires_in))
        await self.store.save_action(action, create=False, now=self.clock())

    async def send(self, topic: str, payload: Any, **more: Any) -> Reply | None:
        """Hand in a message; what is not text or bytes is sent as JSON."""
        if not isinstance(payload, str | bytes):
            payload = json.dumps(payload)
        data = payload.encode() if isinstance(payload, str) else payload
        return await self.commands.obey(Message(topic, data, **more))

    async def say(self, verb: str, payload: Any, **more: Any) -> Mapping[str, Any]:
        """Hand in a command and return what the reply says."""
        reply = await self.send(f"otsd/command/{verb}", payload, **more)
        assert reply is not None
        json.dumps(reply.body)
        return reply.body

    async def done(self, verb: str, payload: Any) -> Mapping[str, Any]:
        """Hand in a command that is done."""
        body = await self.say(verb, payload)
        assert body["ok"] is True, body
        return body

    async def refused(self, verb: str, payload: Any, code: str, *words: str) -> str:
        """Hand in a command that is refused, with these words, and changes nothing."""
        before = await self.everything()
        body = await self.say(verb, payload)
        assert body.keys() == {"request_id", "ok", "code", "error"}
        assert (body["ok"], body["code"]) == (False, code), body
        for word in words:
            assert word in body["error"], body["error"]
        assert await self.everything() == before
        return str(body["error"])

    async def everything(self) -> list[Token]:
        return list((await self.store.tokens(self.clock(), limit=500)).items)

    async def use(self, token_id: str) -> None:
        attempt = secrets.token_hex(8)
        claim = await self.store.claim(token_id, attempt, making.VISITOR, self.clock())
        await self.store.settle(claim, making.EXECUTED, self.clock(), making.ANNOUNCE)


@pytest.fixture
async def desk(tmp_path: Path, clock: Clock) -> AsyncIterator[Desk]:
    async with Desk(tmp_path / "data", clock) as desk:
        yield desk


# -- what is asked, and what is answered


async def test_a_mint_is_answered_with_the_token_and_its_link(desk: Desk) -> None:
    wish = {
        "action": "open-door",
        "max_uses": 3,
        "expires_in": "2h",
        "comment": "Plumber",
        "device": True,
        "request_id": "r1",
    }
    reply = await desk.send("otsd/command/mint", wish)
    assert reply is not None
    (token,) = await desk.everything()
    assert reply == Reply(
        "otsd/response/r1",
        {
            "request_id": "r1",
            "ok": True,
            "token": {
                "id": token.id,
                "action": "open-door",
                "comment": "Plumber",
                "max_uses": 3,
                "uses_left": 3,
                "state": "active",
                "valid_from": None,
                "expires_at": "2026-11-21T22:15:00+00:00",
                "created_at": "2026-11-21T20:15:00+00:00",
                "created_by": "mqtt",
                "last_used_at": None,
                "device": True,
            },
            "url": desk.tokens.link(token),
        },
        None,
    )


@pytest.mark.parametrize("payload", ["open-door", " open-door\n", {"action": "open-door"}])
async def test_a_name_alone_mints(desk: Desk, payload: Any) -> None:
    body = await desk.done("mint", payload)
    assert body["request_id"] is None
    assert body["token"]["action"] == "open-door"
    assert body["url"].startswith("https://rain.example/?token=")


@pytest.mark.parametrize("bare", [True, False])
async def test_a_token_is_paused_resumed_replenished_and_revoked(desk: Desk, bare: bool) -> None:
    minted = (await desk.done("mint", {"action": "open-door", "max_uses": 2}))["token"]
    await desk.use(minted["id"])

    async def change(verb: str) -> tuple[str, int]:
        payload = minted["id"] if bare else {"token_id": minted["id"], "request_id": f"r-{verb}"}
        body = await desk.done(verb, payload)
        assert body.keys() == {"request_id", "ok", "token"}
        assert body["request_id"] == (None if bare else f"r-{verb}")
        assert body["token"].keys() == minted.keys()
        assert body["token"]["id"] == minted["id"]
        return body["token"]["state"], body["token"]["uses_left"]

    assert await change("pause") == ("paused", 1)
    assert await change("resume") == ("active", 1)
    assert await change("replenish") == ("active", 2)
    assert await change("revoke") == ("revoked", 2)


async def test_the_switch_of_a_token_pauses_and_resumes_it(desk: Desk) -> None:
    token = (await desk.done("mint", "open-door"))["token"]
    for payload, state in (("OFF", "paused"), ("OFF", "paused"), ("ON\n", "active")):
        reply = await desk.send(f"otsd/tokens/{token['id']}/set", payload)
        assert reply is not None
        assert reply.topic == "otsd/response"
        assert reply.body == {"request_id": None, "ok": True, "token": {**token, "state": state}}


async def test_commands_are_obeyed_in_the_order_in_which_they_came(desk: Desk) -> None:
    token_id = (await desk.done("mint", "open-door"))["token"]["id"]
    async with asyncio.TaskGroup() as tasks:
        for switch in ["OFF", "ON"] * 20 + ["OFF"]:
            tasks.create_task(desk.send(f"otsd/tokens/{token_id}/set", switch))
    (token,) = await desk.everything()
    assert token.paused


# -- tokens minted by MQTT end


@pytest.mark.parametrize(
    ("defaults", "wish", "uses", "length"),
    [
        ((None, None), {}, 1, timedelta(days=7)),
        ((5, None), {}, 5, timedelta(days=7)),
        ((None, timedelta(hours=3)), {}, 1, timedelta(hours=3)),
        ((5, timedelta(hours=3)), {}, 5, timedelta(hours=3)),
        ((None, None), {"max_uses": 9}, 9, timedelta(days=7)),
        ((None, None), {"expires_in": "30d"}, 1, timedelta(days=30)),
        ((5, timedelta(hours=3)), {"expires_at": "2026-11-22T20:15Z"}, 5, timedelta(days=1)),
        # without a zone, a time is in Home Assistant's
        ((5, None), {"expires_at": "2026-11-22T21:15"}, 5, timedelta(days=1)),
        # a length counts from the beginning
        ((1, None), {"valid_from": "2026-11-22T20:15Z"}, 1, timedelta(days=8)),
    ],
)
async def test_a_token_always_has_a_limit_and_an_end(
    desk: Desk,
    defaults: tuple[int | None, timedelta | None],
    wish: dict[str, Any],
    uses: int,
    length: timedelta,
) -> None:
    await desk.action("open-gate", *defaults)
    await desk.done("mint", {"action": "open-gate", **wish})
    (token,) = await desk.everything()
    assert token.max_uses == uses
    assert token.expires_at == desk.clock() + length
    assert token.created_by == "mqtt"


@pytest.mark.parametrize("key", ["max_uses", "expires_in", "expires_at"])
async def test_without_limit_or_without_end_is_refused_and_the_way_out_is_said(
    desk: Desk, key: str
) -> None:
    wish = {"action": "open-door", key: None}
    await desk.refused("mint", wish, "invalid", key, "give a value, or leave it out")


# -- where the reply goes


async def test_the_reply_goes_where_the_message_says(desk: Desk) -> None:
    reply = await desk.send(
        "otsd/command/mint",
        {"action": "open-door", "request_id": "r1"},
        response_topic="phones/anna/replies",
        correlation=b"\x00\xff7",
    )
    assert reply is not None
    assert (reply.topic, reply.correlation) == ("phones/anna/replies", b"\x00\xff7")
    assert (reply.body["request_id"], reply.body["ok"]) == ("r1", True)


@pytest.mark.parametrize(
    "topic", ["otsd/response", "otsd/response/", "otsd/response/a/b", "otsd2/x", "homeassistants"]
)
async def test_a_response_topic_of_others_or_below_our_responses_is_allowed(
    desk: Desk, topic: str
) -> None:
    reply = await desk.send("otsd/command/mint", "open-door", response_topic=topic)
    assert reply is not None
    assert reply.topic == topic
    assert reply.body["ok"]


@pytest.mark.parametrize("sent", ["open-door", {"action": "open-door", "request_id": "r1"}])
@pytest.mark.parametrize(
    "topic",
    [
        "",
        "otsd",
        "otsd/",
        "otsd/status",
        "otsd/state",
        "otsd/command/mint",
        "otsd/tokens/k7m2qx4d/set",
        "otsd/tokens/k7m2qx4d/state",
        "otsd/responses",
        "otsd/response/+",
        "otsd/response/#",
        "otsd/response/$x",
        "homeassistant",
        "homeassistant/status",
        "homeassistant/device/door/config",
        "$SYS/broker/uptime",
        "$share/otsd/x",
        "a/$b",
        "a/+/b",
        "#",
        "a\0b",
        "a\x07b",
        "a\ufffeb",
    ],
)
async def test_a_response_topic_that_is_not_allowed_is_refused_and_nothing_is_done(
    desk: Desk, topic: str, sent: Any
) -> None:
    reply = await desk.send(
        "otsd/command/mint", sent, response_topic=topic, correlation=b"not to be sent elsewhere"
    )
    assert reply is not None
    request_id = None if isinstance(sent, str) else "r1"
    assert reply.topic == ("otsd/response/r1" if request_id else "otsd/response")
    assert reply.correlation is None
    assert reply.body["request_id"] == request_id
    assert (reply.body["ok"], reply.body["code"]) == (False, "bad_response_topic")
    assert "below otsd/response/" in reply.body["error"]
    assert await desk.everything() == []


def test_the_configured_prefixes_are_the_ones_that_are_guarded() -> None:
    topics = Topics("home/keys", "ha")
    assert topics.may_reply("otsd/status")
    assert topics.may_reply("home")
    assert topics.may_reply("homeassistant/status")
    assert topics.may_reply("home/keys/response/r1")
    assert not topics.may_reply("home/keys/status")
    assert not topics.may_reply("home/keys")
    assert not topics.may_reply("ha/status")


# -- the same request


async def test_the_same_request_gets_the_same_answer_in_whatever_order_its_keys_stand(
    desk: Desk,
) -> None:
    first = await desk.done(
        "mint", '{"action": "open-door", "expires_in": "2h", "max_uses": 2, "request_id": "r1"}'
    )
    desk.clock.move(minutes=1)
    again = await desk.done(
        "mint", '{"request_id":"r1","max_uses":2,"action":"open-door","expires_in":"2h"}'
    )
    assert again == first
    assert len(await desk.everything()) == 1


@pytest.mark.parametrize(
    "span",
    [
        {"expires_at": "2026-12-01T18:00"},
        {"valid_from": "2026-12-01T18:00", "expires_at": "2026-12-02T18:00Z"},
        {"valid_from": "2026-12-01T18:00", "expires_in": "1h30m"},
    ],
)
async def test_a_request_with_times_is_the_same_when_it_comes_again(
    desk: Desk, span: dict[str, Any]
) -> None:
    wish = {"action": "open-door", "request_id": "r1", **span}
    assert await desk.done("mint", wish) == await desk.done("mint", wish)
    later = {
        key: value.replace("18:00", "18:01").replace("30m", "31m") for key, value in span.items()
    }
    await desk.refused("mint", {**wish, **later}, "request_conflict")


async def test_the_answer_to_a_request_that_came_before_tells_of_the_token_as_it_is(
    desk: Desk,
) -> None:
    wish = {"action": "open-door", "request_id": "r1"}
    first = await desk.done("mint", wish)
    await desk.use(first["token"]["id"])
    again = await desk.done("mint", wish)
    assert again["url"] == first["url"]
    assert (again["token"]["id"], again["token"]["state"]) == (first["token"]["id"], "used_up")


@pytest.mark.parametrize(
    "other",
    [
        {"comment": "Plumber"},
        {"max_uses": 1},
        {"expires_in": "3h"},
        {"action": "open-gate"},
        {"action": "no-such-action"},
    ],
)
async def test_another_wish_with_the_same_request_id_conflicts(
    desk: Desk, other: dict[str, Any]
) -> None:
    await desk.action("open-gate")
    wish = {"action": "open-door", "expires_in": "2h", "request_id": "r1"}
    await desk.done("mint", wish)
    await desk.refused("mint", {**wish, **other}, "request_conflict", "r1")
    await desk.done("mint", wish)


async def test_the_same_request_id_for_another_verb_or_token_conflicts(desk: Desk) -> None:
    one = (await desk.done("mint", {"action": "open-door", "request_id": "r1"}))["token"]
    two = (await desk.done("mint", {"action": "open-door", "request_id": "r2"}))["token"]
    for verb in VERBS:
        await desk.refused(verb, {"token_id": one["id"], "request_id": "r1"}, "request_conflict")
    await desk.done("pause", {"token_id": one["id"], "request_id": "r3"})
    await desk.refused("resume", {"token_id": one["id"], "request_id": "r3"}, "request_conflict")
    await desk.refused("pause", {"token_id": two["id"], "request_id": "r3"}, "request_conflict")
    await desk.refused("mint", {"action": "open-door", "request_id": "r3"}, "request_conflict")


async def test_a_replenishing_that_comes_again_replenishes_once(desk: Desk) -> None:
    token_id = (await desk.done("mint", "open-door"))["token"]["id"]
    request = {"token_id": token_id, "request_id": "r1"}
    for number in range(3):
        if number < 2:
            await desk.use(token_id)
        again = (await desk.done("replenish", request))["token"]
        # after the second use, the same request changes nothing any more
        assert again["uses_left"] == (1 if number == 0 else 0)
    (token,) = await desk.everything()
    assert token.round == 1


async def test_a_pause_that_comes_again_does_not_undo_what_came_between(desk: Desk) -> None:
    token_id = (await desk.done("mint", "open-door"))["token"]["id"]
    request = {"token_id": token_id, "request_id": "r1"}
    await desk.done("pause", request)
    await desk.done("resume", token_id)
    assert (await desk.done("pause", request))["token"]["state"] == "active"


async def test_a_request_is_new_after_ten_minutes(desk: Desk) -> None:
    wish = {"action": "open-door", "request_id": "r1"}
    first = await desk.done("mint", wish)
    desk.clock.move(minutes=9, seconds=59)
    assert await desk.done("mint", wish) == first
    await desk.refused("mint", {**wish, "max_uses": 2}, "request_conflict")
    desk.clock.move(seconds=1)
    second = await desk.done("mint", {**wish, "max_uses": 2})
    assert second["url"] != first["url"]
    assert len(await desk.everything()) == 2


async def test_a_request_is_remembered_over_a_restart(desk: Desk) -> None:
    wish = {"action": "open-door", "request_id": "r1", "expires_in": "2h"}
    first = await desk.done("mint", wish)
    await desk.close()
    await desk.open()
    assert await desk.done("mint", wish) == first
    await desk.refused("mint", {**wish, "expires_in": "3h"}, "request_conflict")


async def test_the_same_request_many_times_at_once_mints_once(desk: Desk) -> None:
    wish = {"action": "open-door", "request_id": "r1"}
    async with asyncio.TaskGroup() as tasks:
        replies = [tasks.create_task(desk.done("mint", wish)) for _ in range(50)]
    assert len({reply.result()["url"] for reply in replies}) == 1
    assert len(await desk.everything()) == 1


async def test_a_request_that_was_refused_may_be_mended_and_sent_again(desk: Desk) -> None:
    await desk.refused("mint", {"action": "open-gate", "request_id": "r1"}, "unknown_action")
    await desk.done("mint", {"action": "open-door", "request_id": "r1"})


@pytest.mark.parametrize("request_id", ["r", "A.b_c:d-9", "x" * 64])
async def test_a_request_id_in_order_is_taken(desk: Desk, request_id: str) -> None:
    wish = {"action": "open-door", "request_id": request_id}
    reply = await desk.send("otsd/command/mint", wish)
    assert reply is not None
    assert reply.topic == f"otsd/response/{request_id}"
    assert reply.body["request_id"] == request_id


@pytest.mark.parametrize(
    "request_id", ["", "x" * 65, "a b", "a/b", "../status", "#", "r1\n", "é", 5, True, ["r1"], {}]
)
async def test_a_request_id_that_is_not_in_order_names_no_topic(
    desk: Desk, request_id: Any
) -> None:
    wish = {"action": "open-door", "request_id": request_id}
    await desk.refused("mint", wish, "invalid", "request_id: ")
    reply = await desk.send("otsd/command/mint", wish)
    assert reply is not None
    assert reply.topic == "otsd/response"
    assert reply.body["request_id"] is None


async def test_a_refusal_is_answered_to_the_request_that_it_refuses(desk: Desk) -> None:
    wish = {"action": "open-door", "max_uses": -1, "request_id": "r1", "usess": 1}
    reply = await desk.send("otsd/command/mint", wish)
    assert reply is not None
    assert (reply.topic, reply.body["request_id"]) == ("otsd/response/r1", "r1")


# -- what is not in order


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        ("Open the door", "bad_json", ['"action"', "alone"]),
        ("[]", "bad_json", ['"action"']),
        ('["open-door"]', "bad_json", ['"action"']),
        ('"open-door"', "bad_json", ['"action"']),
        ("-1", "bad_json", ['"action"']),
        ("1.5", "bad_json", ['"action"']),
        ("   ", "bad_json", ['"action"']),
        ("null", "unknown_action", ["'null'"]),
        ("true", "unknown_action", ["'true'"]),
        ("42", "unknown_action", ["'42'"]),
        ("open-gate", "unknown_action", ["open-gate"]),
        ("../open-door", "bad_json", []),
        ("{", "bad_json", ["line 1"]),
        ('{"action": "open-door"', "bad_json", ["line 1"]),
        ("{'action': 'open-door'}", "bad_json", ["line 1"]),
        ('{"action": "open-door"} {}', "bad_json", ["line 1"]),
        ('{"action": "open-door",}', "bad_json", ["line 1"]),
        ('{"action": "open-door", "comment": "\\ud800"}', "bad_json", ["line 1"]),
        ("[" * 60_000, "bad_json", []),
        ('{"a":' * 10_000, "bad_json", ["recursion"]),
        ('{"action": "open-door", "max_uses": ' + "1" * 5_000 + "}", "bad_json", ["number"]),
        (b"\xff\xfe\x00", "bad_json", ["UTF-8"]),
        ('{"action": "open-door"}'.encode("utf-16"), "bad_json", ["UTF-8"]),
        (b"x" * 300_000, "too_large", ["65536 bytes"]),
        ({"action": "open-door", "comment": "x" * 70_000}, "too_large", ["65536 bytes"]),
        ({}, "invalid", ["action: this is needed"]),
        ({"action": None}, "invalid", ["action: this must be text"]),
        ({"action": ["open-door"]}, "invalid", ["action: this must be text"]),
        ({"action": "Open Door"}, "invalid", ["action: a name is 1 to 64 of a-z"]),
        ({"action": "../../etc"}, "invalid", ["action: a name is 1 to 64 of a-z"]),
        ({"action": "open-door", "uses": 1}, "invalid", ["uses: there is no such key"]),
        ({"action": "open-door", "max_uses": 0}, "invalid", ["max_uses: ", "from 1 to 1000000000"]),
        ({"action": "open-door", "max_uses": -1}, "invalid", ["from 1 to 1000000000"]),
        ({"action": "open-door", "max_uses": 10**9 + 1}, "invalid", ["from 1 to 1000000000"]),
        ({"action": "open-door", "max_uses": 10**30}, "invalid", ["from 1 to 1000000000"]),
        ({"action": "open-door", "max_uses": 1.5}, "invalid", ["max_uses: ", "whole number"]),
        ({"action": "open-door", "max_uses": "2"}, "invalid", ["max_uses: ", "whole number"]),
        ({"action": "open-door", "max_uses": True}, "invalid", ["max_uses: ", "whole number"]),
        ({"action": "open-door", "expires_in": 3600}, "invalid", ["expires_in: ", "2h or 7d"]),
        ({"action": "open-door", "expires_in": "2 hours"}, "invalid", ["expires_in: ", "2h"]),
        ({"action": "open-door", "expires_in": "-2h"}, "invalid", ["expires_in: ", "2h"]),
        ({"action": "open-door", "expires_at": "tomorrow"}, "invalid", ["2026-12-01T18:00"]),
        ({"action": "open-door", "expires_at": "2020-01-01T00:00Z"}, "invalid", ["is past"]),
        (
            {"action": "open-door", "expires_at": "2027-01-01T00:00Z", "expires_in": "1h"},
            "invalid",
            ["expires_at or expires_in, not both"],
        ),
        ({"action": "open-door", "comment": 5}, "invalid", ["comment: this must be text"]),
        ({"action": "open-door", "comment": "x" * 501}, "invalid", ["comment: at most 500"]),
        ({"action": "open-door", "comment": "a\x07"}, "invalid", ["comment: control characters"]),
        ({"action": "open-door", "device": "yes"}, "invalid", ["device: ", "true or false"]),
        (
            {"max_uses": 0, "device": 1, "x": 1},
            "invalid",
            ["action: ", "max_uses: ", "device: ", "x: "],
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_mint_that_is_not_in_order_is_told_what_to_change(
    desk: Desk, payload: Any, code: str, words: list[str]
) -> None:
    await desk.refused("mint", payload, code, *words)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_change_that_is_not_in_order_is_told_what_to_change(desk: Desk, verb: str) -> None:
    for payload, code, words in (
        ("k7m2qx4d", "unknown_token", "k7m2qx4d"),
        ({"token_id": "k7m2qx4d"}, "unknown_token", "k7m2qx4d"),
        ({"token_id": "../../otsd"}, "unknown_token", "../../otsd"),
        ({"token_id": "' OR 1=1 --\x00"}, "unknown_token", "no token"),
        ({"token_id": "x" * 60_000}, "unknown_token", "no token"),
        ({"token_id": ""}, "unknown_token", "no token"),
        ({"token_id": None}, "invalid", "token_id: this must be text"),
        ({"token_id": 7}, "invalid", "token_id: this must be text"),
        ({"token_id": "k7m2qx4d", "x": 1}, "invalid", "x: there is no such key"),
        ({}, "invalid", "token_id: this is needed"),
        ("[]", "bad_json", '"token_id"'),
        ("{", "bad_json", "line 1"),
        (b"\xff", "bad_json", "UTF-8"),
        (b"x" * 300_000, "too_large", "65536 bytes"),
    ):
        error = await desk.refused(verb, payload, code, words)
        assert len(error) < 300


async def test_what_a_tokens_state_forbids_is_refused(desk: Desk) -> None:
    token_id = (await desk.done("mint", {"action": "open-door", "expires_in": "1h"}))["token"]["id"]
    desk.clock.move(hours=1)
    await desk.refused("replenish", token_id, "expired", "expires_at")
    await desk.done("revoke", token_id)
    for verb in ("pause", "resume", "replenish"):
        await desk.refused(verb, token_id, "revoked", "final")
    assert (await desk.done("revoke", token_id))["token"]["state"] == "revoked"
    for payload in ("ON", "OFF"):
        reply = await desk.send(f"otsd/tokens/{token_id}/set", payload)
        assert reply is not None
        assert reply.body["code"] == "revoked"


@pytest.mark.parametrize("verb", ["", "mintt", "MINT", "delete", "..", "\x07", "x" * 1_000, "%s"])
async def test_an_unknown_command_is_told_which_there_are(desk: Desk, verb: str) -> None:
    error = await desk.refused(
        verb, "open-door", "unknown_command", "mint, revoke, pause, resume, replenish"
    )
    assert len(error) < 200


@pytest.mark.parametrize("payload", ["on", "1", "TOGGLE", "{}", b"\xff", b"x" * 300_000])
async def test_a_switch_takes_on_and_off_only(desk: Desk, payload: str | bytes) -> None:
    token_id = (await desk.done("mint", "open-door"))["token"]["id"]
    before = await desk.everything()
    reply = await desk.send(f"otsd/tokens/{token_id}/set", payload)
    assert reply is not None
    assert reply.body["ok"] is False
    assert reply.body["code"] in ("invalid", "bad_json", "too_large")
    assert await desk.everything() == before


@pytest.mark.parametrize("token_id", ["", "..", "k7m2qx4d", "\x07", "' OR 1=1"])
async def test_a_switch_of_no_token_is_refused(desk: Desk, token_id: str) -> None:
    await desk.done("mint", "open-door")
    before = await desk.everything()
    reply = await desk.send(f"otsd/tokens/{token_id}/set", "OFF")
    assert reply is not None
    assert (reply.body["ok"], reply.body["code"]) == (False, "unknown_token")
    assert await desk.everything() == before


async def test_a_retained_command_is_refused(desk: Desk) -> None:
    token_id = (await desk.done("mint", "open-door"))["token"]["id"]
    before = await desk.everything()
    for topic, payload in (
        ("otsd/command/mint", "open-door"),
        ("otsd/command/revoke", token_id),
        ("otsd/command/unknown", "x"),
        ("otsd/command/mint", "x" * 300_000),
        (f"otsd/tokens/{token_id}/set", "OFF"),
    ):
        reply = await desk.send(topic, payload, retained=True)
        assert reply is not None
        assert reply.body["code"] == "retained"
        assert "without retain" in reply.body["error"]
    assert await desk.everything() == before


@pytest.mark.parametrize("retained", [True, False])
async def test_an_empty_message_is_ignored(desk: Desk, retained: bool) -> None:
    for topic in ("otsd/command/mint", "otsd/command/unknown", "otsd/tokens/x/set"):
        reply = await desk.send(topic, b"", retained=retained, response_topic="$SYS")
        assert reply is None


# -- anything at all

_KEYS = st.sampled_from(
    [
        "action",
        "max_uses",
        "valid_from",
        "expires_at",
        "expires_in",
        "comment",
        "device",
        "request_id",
        "token_id",
        "url",
        "\x00",
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["open-door", "2h", "0s", "2026-12-01T18:00", "9999-12-31T23:59Z", "r1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=5).map(lambda each: json.dumps(each).encode())
# such as may succeed: a key is often in order
_MINTS = st.fixed_dictionaries(
    {"action": st.just("open-door")},
    optional={
        "max_uses": st.integers(1, 9) | _VALUES,
        "expires_in": st.sampled_from(["2h", "1d"]) | _VALUES,
        "comment": st.text(max_size=9) | _VALUES,
        "request_id": st.sampled_from(["r1", "r2"]) | _VALUES,
    },
).map(lambda each: json.dumps(each).encode())
_TOPICS = st.sampled_from(
    [
        *["otsd/command/mint"] * 4,
        *[f"otsd/command/{verb}" for verb in VERBS],
        "otsd/command/",
        "otsd/tokens//set",
        "otsd/tokens/k7m2qx4d/set",
    ]
)
_MESSAGES = st.builds(
    Message,
    _TOPICS | st.text(max_size=30).map("otsd/command/{}".format),
    st.binary(max_size=100)
    | _OBJECTS
    | _MINTS
    | st.text(max_size=100).map(str.encode)
    | st.text(string.ascii_lowercase, max_size=9).map(str.encode),
    retained=st.sampled_from([False, False, False, True]),
    response_topic=st.sampled_from([None, None, "a", "$SYS", "otsd/state"]) | st.text(max_size=20),
    correlation=st.none() | st.binary(max_size=10),
)


def test_whatever_arrives_is_answered_and_every_token_has_a_limit_and_an_end(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as runner:
        desk = Desk(tmp_path / "data", clock)
        runner.run(desk.__aenter__())
        oks = []

        @settings(max_examples=400, database=None, derandomize=True)
        @given(_MESSAGES)
        def arrives(message: Message) -> None:
            reply = runner.run(desk.commands.obey(message))
            if not message.payload:
                assert reply is None
                return
            assert reply is not None
            json.dumps(reply.body).encode()
            assert TOPICS.may_reply(reply.topic)
            assert isinstance(reply.body["ok"], bool)
            oks.append(reply.body["ok"])
            if not reply.body["ok"]:
                assert reply.body.keys() == {"request_id", "ok", "code", "error"}
                assert reply.body["code"] != "internal_error"
                assert reply.body["error"]

        try:
            arrives()
            minted = runner.run(desk.everything())
        finally:
            runner.run(desk.close())
    assert set(oks) == {True, False}
    assert all(token.max_uses and token.expires_at for token in minted)
    assert "failed" not in caplog.text


async def test_a_fault_of_otsd_itself_is_answered_and_not_quoted(
    desk: Desk, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenHome(MemoryHome):
        @property
        def zone(self) -> tzinfo:
            raise RuntimeError("something secret")

        @zone.setter
        def zone(self, zone: tzinfo) -> None:
            pass

    commands = Commands(tokens=desk.tokens, home=BrokenHome(), now=clock, topics=TOPICS)
    reply = await commands.obey(Message("otsd/command/mint", b'{"request_id": "r1"}'))
    assert reply is not None
    assert reply.topic == "otsd/response/r1"
    assert (reply.body["ok"], reply.body["code"]) == (False, "internal_error")
    assert "RuntimeError" in caplog.text
    assert "secret" not in f"{caplog.text} {reply}"


# -- what nobody may read


async def test_the_log_of_refusals_holds_neither_code_nor_link(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = (await desk.done("mint", "open-door"))["url"]
    code = url.rpartition("=")[2]
    for secret in (url, code, code[:20]):
        for verb in ("mint", *VERBS):
            for payload in (
                secret,
                {"token_id": secret},
                {"action": secret},
                {secret: secret},
                {"action": "open-door", "expires_in": secret, "max_uses": secret},
                {"action": "open-door", "request_id": secret, "expires_at": secret},
                "{" + secret,
            ):
                body = await desk.say(verb, payload)
                assert body["ok"] is False
        await desk.say(secret, "open-door")
        await desk.say("mint", "open-door", response_topic=f"otsd/{secret}")
        await desk.say("mint", secret, retained=True)
        await desk.send(f"otsd/tokens/{secret}/set", "ON")
        await desk.send("otsd/tokens/x/set", secret)
    assert "was refused: unknown_token" in caplog.text
    assert code[:20] not in caplog.text
    assert len(await desk.everything()) == 1
