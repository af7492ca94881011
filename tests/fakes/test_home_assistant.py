"""The fake behaves like Home Assistant, and misbehaves as told, towards the real client."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hass_client import HomeAssistantClient
from hass_client.exceptions import (
    AuthenticationFailed,
    CannotConnect,
    FailedCommand,
)

from .home_assistant import (
    After,
    Answer,
    Call,
    Event,
    Fail,
    FakeHomeAssistant,
    HangUp,
    Proceed,
    Stall,
    Succeed,
    TemplateError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def _client(
    ha: FakeHomeAssistant,
    token: str | None = None,
    trust: ssl.SSLContext | bool = True,
) -> AsyncIterator[HomeAssistantClient]:
    url = f"{ha.url}/api/websocket".replace("http", "ws", 1)
    client = HomeAssistantClient(url, token or ha.token)
    try:
        await client.connect(ssl=trust)
        yield client
    finally:
        await client.disconnect()  # closes the session, also after a failure


@asynccontextmanager
async def _connected(ha: FakeHomeAssistant) -> AsyncIterator[HomeAssistantClient]:
    async with _client(ha) as client:
        listening = asyncio.create_task(client.start_listening())
        try:
            yield client
        finally:
            await client.disconnect()
            with suppress(Exception):
                await listening


async def _connect(ha: FakeHomeAssistant, token: str | None = None) -> None:
    async with _client(ha, token):
        pass


@asynccontextmanager
async def _raw(
    ha: FakeHomeAssistant, heartbeat: float | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{ha.url}/api/websocket", heartbeat=heartbeat) as ws,
    ):
        assert (await ws.receive_json())["type"] == "auth_required"
        await ws.send_json({"type": "auth", "access_token": ha.token})
        assert (await ws.receive_json()) == {"type": "auth_ok", "ha_version": ha.version}
        yield ws


async def test_the_right_token_is_accepted_and_a_wrong_one_refused() -> None:
    """Also over plain HTTP, and the right one once it is to be refused."""
    async with FakeHomeAssistant() as ha, aiohttp.ClientSession() as session:
        with pytest.raises(AuthenticationFailed, match="Invalid access token or password"):
            await _connect(ha, "wrong")
        async with _connected(ha) as client:
            assert (client.version, ha.connections) == (ha.version, 1)
            ha.refuse_token()
            with pytest.raises(AuthenticationFailed):
                await _connect(ha)
            assert (await client.get_config())["state"] == "RUNNING"
        assert (ha.auth_attempts, ha.attempts) == (3, 3)
        await ha.until(lambda: ha.connections == 0)
        for refuse, status in ((True, 401), (False, 200)):
            ha.refuse_token(refuse)
            bearer = {"Authorization": f"Bearer {ha.token}"}
            async with session.get(f"{ha.url}/api/", headers=bearer) as response:
                assert response.status == status
                assert "API running." in await response.text() or response.status == 401


async def test_it_tells_about_itself_and_its_user() -> None:
    """The commands that only read."""
    async with FakeHomeAssistant() as ha:
        ha.time_zone = "Asia/Tokyo"
        other = ha.add_user("Eve", admin=True)
        ha.set_state("lock.front", "locked", friendly_name="Front")
        async with _connected(ha) as client:
            assert (await client.get_config())["time_zone"] == "Asia/Tokyo"
            assert (await client.get_services())["lock"]["unlock"]["fields"] == {}
            (state,) = await client.get_states()
            assert (state["entity_id"], state["state"]) == ("lock.front", "locked")
            assert state["attributes"] == {"friendly_name": "Front"}
            assert (await client.send_command("auth/current_user"))["is_admin"] is True
            users = await client.send_command("config/auth/list")
            assert [user["id"] for user in users] == [ha.user_id, other]
            assert await client.get_entity_registry() == []


async def test_what_an_administrator_may_others_may_not() -> None:
    """An owner is an administrator whatever his group."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        ha.admin = False
        for command in (
            client.send_command("execute_script", sequence=[]),
            client.send_command("fire_event", event_type="x"),
            client.send_command("config/auth/list"),
            client.subscribe_events(print, "homeassistant_started"),
        ):
            with pytest.raises(FailedCommand, match="Unauthorized"):
                await command
        await client.subscribe_events(print, "service_registered")
        ha.owner = True
        await client.send_command("fire_event", event_type="x")
        assert ha.events == [Event("x")]
        assert ha.calls == []


async def test_it_records_calls_and_answers_as_told() -> None:
    """Success, refusal, and the errors of Home Assistant itself."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        first = await client.call_service("lock", "unlock", {"code": 1}, {"entity_id": "lock.a"})
        second = await client.call_service("lock", "unlock")
        assert first.keys() == {"context"}
        assert first["context"]["user_id"] == ha.user_id
        assert [call.context_id for call in ha.calls] == [
            first["context"]["id"],
            second["context"]["id"],
        ]
        assert len(first["context"]["id"]) == 26
        assert ha.calls[0] == Call(
            "call_service", "lock", "unlock", {"code": 1}, {"entity_id": "lock.a"}
        )
        with pytest.raises(FailedCommand, match=r"Service lock\.fly not found\."):
            await client.call_service("lock", "fly")
        with pytest.raises(FailedCommand, match="Templates are not supported here"):
            await client.call_service("lock", "unlock", target={"entity_id": "{{ x }}"})

        ha.on_call = lambda _call: Fail("home_assistant_error", "The lock is jammed")
        with pytest.raises(FailedCommand, match="The lock is jammed"):
            await client.call_service("lock", "unlock")
        ha.on_call = lambda _call: Succeed({"opened": True})
        result = await client.send_command("execute_script", sequence=[], variables={"a": 1})
        assert result["response"] == {"opened": True}
        assert ha.calls[-1] == Call("execute_script", sequence=[], variables={"a": 1})
        ha.on_call = lambda _call: None
        with pytest.raises(FailedCommand, match=r"Action lock\.fly not found"):
            await client.send_command("execute_script", sequence=[{"action": "lock.fly"}])


async def test_a_service_responds_to_those_who_ask() -> None:
    """And comes and goes with an event."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        seen: asyncio.Queue[Any] = asyncio.Queue()
        await client.subscribe_events(seen.put_nowait)
        ha.add_service("weather", "ask", {"rain": False})
        event = await seen.get()
        assert event["event_type"] == "service_registered"
        assert event["data"] == {"domain": "weather", "service": "ask"}
        ask = {"domain": "weather", "service": "ask"}
        answer = await client.send_command("call_service", **ask, return_response=True)
        assert answer["response"] == {"rain": False}
        assert "response" not in await client.send_command("call_service", **ask)
        ha.remove_service("weather", "ask")
        assert (await seen.get())["event_type"] == "service_removed"
        ha.state = "STOPPING"
        assert (await seen.get())["event_type"] == "homeassistant_stop"


async def test_entities_are_followed_in_the_compressed_format() -> None:
    """What is there at first, changes, removal, return."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        ha.set_state("lock.a", "locked")
        ha.set_state("lock.b", "locked")
        seen: asyncio.Queue[Any] = asyncio.Queue()
        stop = await client.subscribe_entities(seen.put_nowait, ["lock.a", "lock.none"])
        initial = (await seen.get())["a"]
        assert initial.keys() == {"lock.a"}
        assert initial["lock.a"].keys() == {"s", "a", "c", "lc"}
        ha.set_state("lock.b", "unlocked")
        ha.set_state("lock.a", "locked")
        ha.set_state("lock.a", "unlocked")
        assert (await seen.get())["c"]["lock.a"]["+"]["s"] == "unlocked"
        ha.set_state("lock.a", None)
        assert await seen.get() == {"r": ["lock.a"]}
        ha.set_state("lock.none", "locked")
        assert (await seen.get())["a"]["lock.none"]["s"] == "locked"
        assert ha.entities == {"lock.b": "unlocked", "lock.none": "locked"}
        stop()
        await ha.until(lambda: ha.received[-1]["type"] == "unsubscribe_events")
        ha.set_state("lock.none", "jammed")
        await client.get_states()
        assert seen.empty()


async def test_templates_are_looked_up() -> None:
    """A template's own error is an event, or silence."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def render(text: str, **options: Any) -> None:
            await client.subscribe(seen.put_nowait, "render_template", template=text, **options)

        ha.templates = {"{{ a }}": ["lock.a"], "{{ b }}": TemplateError("b is undefined")}
        await render("{{ a }}")
        assert (await seen.get())["event"]["result"] == ["lock.a"]
        await render("{{ b }}", report_errors=True)
        for _ in range(2):
            assert (await seen.get())["event"] == {"error": "b is undefined", "level": "ERROR"}
        await render("{{ b }}")
        await client.get_states()
        assert seen.empty()
        with pytest.raises(FailedCommand, match="no result for"):
            await render("{{ c }}")


async def test_configurations_are_validated_as_told() -> None:
    """By default everything is valid."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        result = await client.send_command("validate_config", actions=[])
        assert result == {"actions": {"valid": True, "error": None}}
        ha.on_validate = lambda _config: "Unknown key"
        result = await client.send_command("validate_config", actions=[])
        assert result == {"actions": {"valid": False, "error": "Unknown key"}}


async def test_a_client_without_manners_is_told_so() -> None:
    """With the codes of the real one, which hass_client keeps to itself."""
    async with FakeHomeAssistant() as ha, _raw(ha) as ws:
        for message, code in (
            ({"id": 5, "type": "ping", "x": 1}, "invalid_format"),
            ({"id": 5, "type": "ping"}, "id_reuse"),
            ({"id": 6, "type": "fly"}, "unknown_command"),
            ({"id": 7, "type": "call_service", "domain": "lock"}, "invalid_format"),
            ({"id": 8, "type": "unsubscribe_events", "subscription": 3}, "not_found"),
            ({"type": "ping"}, "invalid_format"),
        ):
            await ws.send_json(message)
            answer = await ws.receive_json()
            assert (answer["success"], answer["error"]["code"]) == (False, code)
        await ws.send_json({"id": 9, "type": "ping"})
        assert await ws.receive_json() == {"id": 9, "type": "pong"}


async def test_messages_are_coalesced_only_if_the_client_can_take_it() -> None:
    """Three events at once are three frames, and then one."""
    async with FakeHomeAssistant() as ha, _raw(ha) as ws:
        await ws.send_json([{"id": 1, "type": "subscribe_events"}, {"id": 2, "type": "ping"}])
        assert [(await ws.receive_json())["id"] for _ in range(2)] == [1, 2]
        for _ in range(3):
            ha.fire("x")
        assert [(await ws.receive_json())["type"] for _ in range(3)] == ["event"] * 3
        features = {"coalesce_messages": 1}
        await ws.send_json({"id": 3, "type": "supported_features", "features": features})
        assert (await ws.receive_json())["success"]
        for _ in range(3):
            ha.fire("x")
        assert [message["type"] for message in await ws.receive_json()] == ["event"] * 3


async def test_an_answer_can_be_late_missing_or_a_hang_up() -> None:
    """While one call waits, others go on."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        go = asyncio.Event()
        ha.on_call = lambda call: After(go, Proceed()) if call.service == "lock" else Proceed()
        late = asyncio.create_task(client.call_service("lock", "lock"))
        await ha.until(lambda: ha.calls)
        await client.call_service("lock", "unlock")
        assert not late.done()
        go.set()
        await late
        ha.on_call = lambda _call: Stall()
        stalled = asyncio.create_task(client.call_service("lock", "lock"))
        await ha.until(lambda: len(ha.calls) == 3)
        await client.get_states()
        assert not stalled.done()
        ha.on_call = lambda _call: HangUp()
        with pytest.raises(asyncio.CancelledError):  # hass_client's way of saying "lost"
            await client.call_service("lock", "lock")
        with pytest.raises(asyncio.CancelledError):
            await stalled
        await ha.until(lambda: ha.connections == 0)


async def test_any_command_can_be_answered_otherwise() -> None:
    """Also one that the fake does not know."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        answers: dict[str, Answer] = {
            "get_states": Fail("unknown_error", "Oops"),
            "fly": Succeed("high"),
        }
        ha.on_command = lambda message: answers.get(message["type"])
        with pytest.raises(FailedCommand, match="Oops"):
            await client.get_states()
        assert await client.send_command("fly") == "high"


async def test_events_are_recorded_and_reach_subscribers() -> None:
    """Unless refused; the record tells whether automations heard them."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        seen: asyncio.Queue[Any] = asyncio.Queue()
        await client.subscribe_events(seen.put_nowait, "used")
        ha.state = "STARTING"
        await client.send_command("fire_event", event_type="used", event_data={"n": 1})
        event = await seen.get()
        assert (event["data"], event["context"]["user_id"]) == ({"n": 1}, ha.user_id)
        ha.on_fire = lambda _event: Fail("unknown_error", "No")
        with pytest.raises(FailedCommand, match="No"):
            await client.send_command("fire_event", event_type="used")
        assert seen.empty()
        assert ha.events == [Event("used", {"n": 1}, "STARTING"), Event("used", {}, "STARTING")]


async def test_a_frozen_process_says_nothing_at_all_until_it_thaws() -> None:
    """Nor to new connections; then it works off what came in."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client, _raw(ha) as ws:
        await ha.stall()
        ha.fire("x")
        states = asyncio.create_task(client.get_states())
        new = asyncio.create_task(_connect(ha))
        pong = asyncio.create_task(ws.receive())
        await ws.send_json({"id": 1, "type": "ping"})
        done, _ = await asyncio.wait({states, new, pong}, timeout=0.2)
        assert not done
        assert ha.attempts == 2
        await ha.resume()
        assert await states == []
        await new
        assert json.loads((await pong).data) == {"id": 1, "type": "pong"}
        assert ha.attempts == 3


async def test_a_frozen_process_does_not_answer_heartbeats() -> None:
    """Those of the websocket protocol, which aiohttp answers by itself."""
    async with FakeHomeAssistant() as ha, _raw(ha, heartbeat=0.2) as ws:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.receive(), 0.5)
        await ha.stall()
        with pytest.raises(aiohttp.ServerTimeoutError):
            raise (await ws.receive()).data


async def test_a_frozen_process_can_be_killed() -> None:
    """And thaws by being started anew."""
    async with FakeHomeAssistant() as ha:
        async with _raw(ha) as ws:
            await ha.stall()
            await ha.stop()
            assert (await ws.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        await ha.start()
        async with _connected(ha) as client:
            await client.get_states()


async def test_it_restarts_on_the_same_port() -> None:
    """With a goodbye, and refusing connections meanwhile."""
    async with FakeHomeAssistant() as ha:
        url = ha.url
        async with _raw(ha) as ws:
            stopping = asyncio.create_task(ha.stop())
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
            await stopping
        with pytest.raises(CannotConnect):
            await _connect(ha)
        await ha.stop()
        await ha.start()
        assert ha.url == url
        async with _connected(ha):
            assert ha.connections == 1


async def test_it_hangs_up() -> None:
    """Without a goodbye, and goes on to take connections."""
    async with FakeHomeAssistant() as ha:
        async with _raw(ha) as ws:
            await ha.hang_up()
            assert ha.connections == 0
            assert (await ws.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        async with _connected(ha):
            assert ha.connections == 1


@pytest.mark.parametrize(
    ("handshake", "error"),
    [
        ("not_a_websocket", CannotConnect),
        ("http_502", CannotConnect),
        ("close_at_once", TypeError),
        ("binary", TypeError),
        ("garbage_json", ValueError),
        ("silent", TimeoutError),
    ],
)
async def test_the_handshake_can_go_wrong(handshake: Any, error: type[Exception]) -> None:
    """And what hass_client makes of it."""
    async with FakeHomeAssistant() as ha:
        ha.handshake = handshake
        with pytest.raises(error):
            await asyncio.wait_for(_connect(ha), 0.5 if handshake == "silent" else 5)
        assert (ha.attempts, ha.auth_attempts) == (1, 0)


async def test_frames_of_any_content_can_be_sent() -> None:
    """Text and binary."""
    async with FakeHomeAssistant() as ha, _raw(ha) as ws:
        await ha.send_raw("{")
        assert await ws.receive_str() == "{"
        await ha.send_raw(b"\x00")
        assert await ws.receive_bytes() == b"\x00"


async def test_waiting_in_vain_tells_what_was_received() -> None:
    """So that a failing test explains itself."""
    async with FakeHomeAssistant() as ha, _connected(ha) as client:
        await client.get_states()
        with pytest.raises(TimeoutError, match=r"1 connections, last received: .*get_states"):
            await ha.until(lambda: False, timeout=0)


async def test_it_speaks_tls(tmp_path: Path) -> None:
    """With the certificate it is given; who does not trust it, goes away."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=127.0.0.1"]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    async with FakeHomeAssistant(tls=server) as ha:
        assert ha.url.startswith("https://")
        with pytest.raises(CannotConnect):
            await _connect(ha)
        async with _client(ha, trust=ssl.create_default_context(cafile=str(certificate))):
            assert ha.connections == 1
            await ha.hang_up()
