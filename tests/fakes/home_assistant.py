"""A Home Assistant that refuses, stalls, hangs up, restarts or answers wrongly on request.

It speaks the websocket protocol over real sockets, with the messages, error codes and order of
events of Home Assistant 2025.4. It executes nothing: actions are recorded, scripts not followed,
templates looked up. What changes the *process* is awaited (`start`, `stop`, `stall`, `resume`,
`hang_up`); what happens *inside* Home Assistant is not (`set_state`, `fire`, `add_service`, …).

    async with FakeHomeAssistant() as ha:
        ha.set_state("lock.front_door", "locked")
        ha.on_call = lambda call: After(1.5, Fail("home_assistant_error", "The lock is jammed"))
        ...
        await ha.until(lambda: ha.calls)
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

from aiohttp import WSMsgType, web
from yarl import URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Mapping

Message: TypeAlias = dict[str, Any]
Handshake: TypeAlias = Literal[
    "normal",
    "silent",  # the websocket opens, and nothing is said
    "close_at_once",
    "binary",  # the first frame is binary
    "garbage_json",  # the first frame is no JSON
    "not_a_websocket",  # a plain page with status 200
    "http_502",  # a proxy whose Home Assistant is down
]


@dataclass(frozen=True)
class Proceed:
    """Answer as Home Assistant would; of use inside `After`."""


@dataclass(frozen=True)
class Succeed:
    """Report success. For an action `result` is its response."""

    result: Any = None


@dataclass(frozen=True)
class Fail:
    """Report an error."""

    code: str
    message: str


@dataclass(frozen=True)
class Stall:
    """Never answer."""


@dataclass(frozen=True)
class HangUp:
    """Drop the TCP connection instead of answering."""


@dataclass(frozen=True)
class After:
    """Answer after that many seconds, or when the event is set; other messages go on meanwhile."""

    when: float | asyncio.Event
    answer: Answer


Answer: TypeAlias = Proceed | Succeed | Fail | Stall | HangUp | After


@dataclass(frozen=True)
class TemplateError:
    """As the result of a template: an error event if the client asked for errors, else nothing."""

    message: str


@dataclass(frozen=True)
class Call:
    """One `call_service` or `execute_script`, as received."""

    kind: Literal["call_service", "execute_script"]
    domain: str = ""
    service: str = ""
    service_data: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    sequence: Any = None
    variables: dict[str, Any] = field(default_factory=dict)
    return_response: bool = False
    context_id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Event:
    """One event on the bus; `ha_state` tells whether automations were there to hear it."""

    event_type: str
    data: dict[str, Any] = field(default_factory=dict)
    ha_state: str = "RUNNING"
    context: Message = field(default_factory=dict, compare=False, repr=False)
    fired: float = field(default_factory=time.time, compare=False, repr=False)

    def full(self) -> Message:
        """Render it as subscribers get it."""
        event = {"event_type": self.event_type, "data": self.data, "context": self.context}
        return {**event, "origin": "LOCAL", "time_fired": _isoformat(self.fired)}


class _Connection:
    """One authenticated websocket: a queue of outgoing messages and the subscriptions."""

    def __init__(self, transport: asyncio.Transport | None, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.token = ""
        self.user: Message = {}
        self.last_id = 0
        self.coalesce = False
        self.listeners: dict[int, Callable[[Event, Message], None]] = {}
        self._transport = transport
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: Message) -> None:
        self._outbox.put_nowait(json.dumps(message))

    def succeed(self, ident: int, result: object) -> None:
        self.send({"id": ident, "type": "result", "success": True, "result": result})

    def fail(self, ident: int | None, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        self.send({"id": ident, "type": "result", "success": False, "error": error})

    def event(self, ident: int, event: Message) -> None:
        self.send({"id": ident, "type": "event", "event": event})

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` for as long as the connection lasts."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def write(self, resumed: asyncio.Event) -> None:
        """Send what is in the queue, except while the process is frozen."""
        with suppress(ConnectionError):
            while True:
                texts = [await self._outbox.get()]
                await resumed.wait()
                while self.coalesce and not self._outbox.empty():
                    texts.append(self._outbox.get_nowait())
                await self.ws.send_str(texts[0] if len(texts) == 1 else f"[{','.join(texts)}]")

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


class _Code(NamedTuple):
    """A code that somebody who logged in was given, and what it must be shown with."""

    user_id: str
    client_id: str
    challenge: str


class _Grant(NamedTuple):
    """Whose refresh token it is, and for whom."""

    user_id: str
    client_id: str


class _Command(NamedTuple):
    handler: Callable[[FakeHomeAssistant, _Connection, Message], Answer | None]  # None: answered
    required: str = ""
    optional: str = ""
    admin: bool = False

    def complaint(self, message: Message) -> str | None:
        """Say what is wrong with the keys, in Home Assistant's words."""
        required = ["id", "type", *self.required.split()]
        for key in message:
            if key not in {*required, *self.optional.split()}:
                return f"extra keys not allowed @ data['{key}']. Got {message[key]!r}"
        missing = [key for key in required if key not in message]
        return f"required key not provided @ data['{missing[0]}']. Got None" if missing else None


class FakeHomeAssistant:
    """A server on 127.0.0.1 that keeps its port over restarts."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """Prepare it; `start` or `async with` opens the port. `tls` makes it speak https."""
        self.token = secrets.token_urlsafe(24)
        self.version = "2025.4.4"
        self.time_zone = "Europe/Berlin"
        self.location_name = "Home"
        self.admin = True
        self.owner = False
        self.user_id = secrets.token_hex(16)
        self.users: list[Message] = []  # others than the token's; see add_user
        self.registry: list[Message] = []  # entries of the entity registry
        self.services: dict[str, dict[str, Message]] = {}
        self.templates: dict[str, Any] = {}  # text → result, TemplateError or Fail
        self.handshake: Handshake = "normal"
        self.slow_refusal = False  # after auth_invalid it looks up the client's name, for ever

        # Hooks. None means: no opinion, as Home Assistant would.
        self.on_command: Callable[[Message], Answer | None] = lambda _message: None
        self.on_call: Callable[[Call], Answer | None] = lambda _call: None
        self.on_fire: Callable[[Event], Answer | None] = lambda _event: None
        self.on_render: Callable[[str, Message], Any] = lambda text, _variables: self.templates.get(
            text, Fail("template_error", f"The fake has no result for {text!r}")
        )
        self.on_validate: Callable[[Any], str | None] = lambda _config: None  # what is wrong

        # Records. Each grows when a message arrives, whatever is answered.
        self.received: list[Message] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.attempts = 0  # requests for a websocket
        self.auth_attempts = 0
        self.asked_for_tokens: list[dict[str, str]] = []  # forms that came to auth/token
        self.revoked: list[str] = []  # refresh tokens
        self.wrong_logins = 0  # in a row, of which Home Assistant bans after a few
        self.most_wrong_logins = 0

        self._codes: dict[str, _Code] = {}
        self._grants: dict[str, _Grant] = {}  # by refresh token
        self._access: dict[str, str] = {}  # access token → its refresh token
        self._state = "RUNNING"
        self._states: dict[str, Message] = {}  # compressed, as in subscribe_entities
        self._responses: dict[tuple[str, str], Message] = {}
        self._refusing = False
        self._tls = tls
        self._port = 0
        self._listener: socket.socket | None = None
        self._server: web.Server | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._resumed = asyncio.Event()
        self._news = asyncio.Event()
        for name in ("lock.lock", "lock.unlock", "light.turn_on", "light.turn_off"):
            domain, service = name.split(".")
            self.add_service(domain, service, target={"entity": [{"domain": [domain]}]})
        self.add_service("persistent_notification", "create")

    # The process

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    @property
    def url(self) -> str:
        """The address a user would enter."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many authenticated websockets there are."""
        return len(self._connections)

    async def start(self) -> None:
        """Open the port: a free one the first time, then always the same."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listener.settimeout(0)
        self._port = self._listener.getsockname()[1]
        self._server = web.Server(self._handle, access_log=None)
        await self.resume()

    async def stop(self) -> None:
        """Close the port and, unless frozen, say goodbye to the websockets."""
        if self._listener is None or self._server is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        if self._resumed.is_set():
            async with asyncio.TaskGroup() as goodbyes:
                for connection in self._connections:
                    goodbyes.create_task(connection.ws.close())
        for task in self._accepting:
            task.cancel()
        await self.hang_up()
        await self._server.shutdown(1)

    async def stall(self) -> None:
        """Freeze: the kernel still accepts connections, and nobody reads or answers."""
        self._resumed.clear()
        asyncio.get_running_loop().remove_reader(self._require_listener())
        for transport in self._transports():
            transport.pause_reading()

    async def resume(self) -> None:
        """Thaw, and work off what has come in meanwhile."""
        listener = self._require_listener()
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        for transport in self._transports():
            transport.resume_reading()
        self._resumed.set()

    async def hang_up(self) -> None:
        """Drop every connection without a goodbye."""
        for transport in self._transports():
            transport.abort()
        await self.until(lambda: not self._connections)

    async def send_raw(self, data: str | bytes) -> None:
        """Send a text or binary frame of any content on every websocket."""
        for ws in [connection.ws for connection in self._connections]:
            await (ws.send_str(data) if isinstance(data, str) else ws.send_bytes(data))

    async def until(
        self,
        condition: Callable[[], object],
        timeout: float = 5,
    ) -> None:
        """Wait until `condition` holds; it is tried again at each message and connection."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            state = f"{self.attempts} attempts, {self.connections} connections"
            msg = f"not within {timeout} s; {state}, last received: {self.received[-5:]}"
            raise TimeoutError(msg) from None

    # Inside Home Assistant

    @property
    def state(self) -> str:
        """`STARTING`, `RUNNING`, `STOPPING`, …; setting it fires the events that go with it."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state
        suffix = {"STARTING": "start", "RUNNING": "started", "STOPPING": "stop"}.get(state)
        if suffix in {"start", "started"}:
            self.fire("core_config_updated")
        if suffix:
            self.fire(f"homeassistant_{suffix}")

    @property
    def entities(self) -> Mapping[str, str]:
        """The state of each entity; change it with `set_state`."""
        return {entity_id: state["s"] for entity_id, state in self._states.items()}

    @property
    def is_admin(self) -> bool:
        """Whether the token's user may do everything; an owner always may."""
        return self.admin or self.owner

    def set_state(self, entity_id: str, state: str | None, **attributes: object) -> None:
        """Add or change an entity, or with None remove it, and tell the subscribers."""
        old, now = self._states.get(entity_id), time.time()
        new: Message | None = None
        if state is None and old:
            del self._states[entity_id]
            diff: Message = {"r": [entity_id]}
        elif state is None or (old and (old["s"], old["a"]) == (state, attributes)):
            return  # nothing changes
        else:
            new = {"s": state, "a": attributes, "c": _ulid(), "lc": now}
            if old and old["s"] == state:
                new |= {"lc": old["lc"], "lu": now}
            self._states[entity_id] = new
            changed = {key: new[key] for key in new if old and new[key] != old.get(key)}
            diff = {"c": {entity_id: {"+": changed}}} if old else {"a": {entity_id: new}}
        states = {"old_state": _full(entity_id, old), "new_state": _full(entity_id, new)}
        data = {"entity_id": entity_id, **states}
        self._publish(Event("state_changed", data, self._state, _context(None)), diff)

    def add_service(
        self,
        domain: str,
        service: str,
        response: Message | None = None,
        *,
        response_only: bool = False,
        **description: object,
    ) -> None:
        """Add an action that returns `response`; `description` adds to what get_services says."""
        if response is not None:
            self._responses[domain, service] = response
            description = {"response": {"optional": not response_only}, **description}
        texts = {"name": service.replace("_", " ").capitalize(), "description": "", "fields": {}}
        self.services.setdefault(domain, {})[service] = {**texts, **description}
        self.fire("service_registered", {"domain": domain, "service": service})

    def remove_service(self, domain: str, service: str) -> None:
        """Remove an action."""
        del self.services[domain][service]
        self.fire("service_removed", {"domain": domain, "service": service})

    def add_user(self, name: str, *, admin: bool = False, active: bool = True) -> str:
        """Add a user besides the token's, and return the id."""
        user = _user(secrets.token_hex(16), name, admin=admin, active=active)
        self.users.append(user)
        return str(user["id"])

    def change_user(
        self, user_id: str, *, admin: bool | None = None, active: bool | None = None
    ) -> None:
        """Promote, demote, activate or deactivate a user; websockets stay."""
        user = next(user for user in self.users if user["id"] == user_id)
        if admin is not None:
            user["group_ids"] = ["system-admin" if admin else "system-users"]
        if active is not None:
            user["is_active"] = active

    def authorize(self, url: str, user_id: str | None = None) -> str:
        """Log a user in (the token's, if none is named) where an application sent the browser.

        Returns where the browser is sent: back to the application, with a code.
        """
        asked = URL(url).query
        redirect, client = URL(asked["redirect_uri"]), URL(asked["client_id"])
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        if redirect.origin() != client.origin():
            raise PermissionError("redirect_uri is not the client's")
        code = secrets.token_hex(16)
        self._codes[code] = _Code(
            user_id or self.user_id, asked["client_id"], asked["code_challenge"]
        )
        return str(redirect.update_query(code=code, state=asked["state"]))

    def access_token(self, user_id: str | None = None) -> str:
        """Return an access token of a user, as some other program would have it."""
        refresh = secrets.token_hex(64)
        self._grants[refresh] = _Grant(user_id or self.user_id, "https://another.example/")
        return self._new_access(refresh)

    @property
    def refresh_tokens(self) -> list[str]:
        """The refresh tokens that work, oldest first."""
        return list(self._grants)

    def expire_access_tokens(self) -> None:
        """Let half an hour go by: no access token is good any more, and websockets stay."""
        self._access.clear()

    def revoke(self, refresh: str) -> None:
        """Remove a refresh token, what came of it, and the websockets that were opened by it."""
        self._grants.pop(refresh, None)
        ended = {access for access, of in self._access.items() if of == refresh}
        for access in ended:
            del self._access[access]
        for connection in self._connections:
            if connection.token in ended:
                connection.abort()

    def fire(self, event_type: str, data: Message | None = None) -> None:
        """Fire an event, as some other part of Home Assistant would."""
        self._publish(Event(event_type, data or {}, self._state, _context(None)))

    def refuse_token(self, refuse: bool = True) -> None:
        """Refuse the right token from now on; open websockets stay."""
        self._refusing = refuse

    # Connections

    def _require_listener(self) -> socket.socket:
        assert self._listener is not None, "not started"
        return self._listener

    def _transports(self) -> list[asyncio.Transport]:
        protocols = self._server.connections if self._server else []
        return [protocol.transport for protocol in protocols if protocol.transport]

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the client is gone already
            task = asyncio.create_task(self._open(listener.accept()[0]))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _open(self, client: socket.socket) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # a TLS handshake that failed
            await loop.connect_accepted_socket(self._server, client, ssl=self._tls)

    def _accepts(self, token: object) -> bool:
        return self._user_of(token) is not None and not self._refusing

    def _user_of(self, token: object) -> Message | None:
        """Return the active user of an access token."""
        user_id = self.user_id
        if token != self.token:
            if not isinstance(token, str) or token not in self._access:
                return None
            user_id = self._grants[self._access[token]].user_id
        user = next(user for user in self._all_users() if user["id"] == user_id)
        return user if user["is_active"] else None

    def _all_users(self) -> list[Message]:
        myself = _user(self.user_id, "Test", admin=self.admin, owner=self.owner)
        return [myself, *self.users]

    def _new_access(self, refresh: str) -> str:
        access = secrets.token_urlsafe(24)
        self._access[access] = refresh
        return access

    def _wrong_login(self) -> None:
        self.wrong_logins += 1
        self.most_wrong_logins = max(self.most_wrong_logins, self.wrong_logins)

    async def _auth(self, request: web.BaseRequest) -> web.Response:
        match request.path:
            case "/auth/authorize":
                back = self.authorize(str(request.url))
                return web.Response(status=302, headers={"Location": back})
            case "/auth/token":
                return await self._token(request)
            case "/auth/revoke":
                token = str((await request.post()).get("token"))
                self.revoked.append(token)
                self.revoke(token)
                self._notify()
                return web.Response()
        return web.Response(status=404)

    async def _token(self, request: web.BaseRequest) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked_for_tokens.append(form)
        self._notify()
        said = self._granted(form)
        if "error" in said:
            self._wrong_login()
            denied = said["error"] == "access_denied"
            return web.json_response(said, status=403 if denied else 400)
        return web.json_response({**said, "token_type": "Bearer", "expires_in": 1800})

    def _granted(self, form: Mapping[str, str]) -> dict[str, str]:
        match form.get("grant_type"):
            case "authorization_code":
                code = self._codes.pop(form.get("code", ""), None)
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
                client = form.get("client_id", "")
                if code is None or (code.client_id, code.challenge) != (client, challenge):
                    return {"error": "invalid_request", "error_description": "Invalid code"}
                refresh = secrets.token_hex(64)
                self._grants[refresh] = _Grant(code.user_id, client)
            case "refresh_token":
                refresh = form.get("refresh_token", "")
                if refresh not in self._grants or self._refusing:
                    return {"error": "invalid_grant"}
                if self._grants[refresh].client_id != form.get("client_id"):
                    return {"error": "invalid_request"}
            case _:
                return {"error": "unsupported_grant_type"}
        access = self._new_access(refresh)
        if self._user_of(access) is None:
            return {"error": "access_denied", "error_description": "User is not active"}
        more = {"refresh_token": refresh} if "code" in form else {}
        return {"access_token": access, **more}

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        websocket = request.path in {
            "/api/websocket",
            "/core/websocket",
        }  # at the Supervisor: /core
        if websocket:
            self.attempts += 1
            self._notify()
        elif request.path not in {"/api/", "/core/api/"} and not request.path.startswith("/auth/"):
            return web.Response(status=404, text="404: Not Found")
        if self.handshake == "http_502":
            return web.Response(status=502, text="502: Bad Gateway")
        if request.path.startswith("/auth/"):
            return await self._auth(request)
        if websocket:
            return await self._websocket(request)
        if not self._accepts(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return web.Response(status=401, text="401: Unauthorized")
        return web.json_response({"message": "API running."})

    async def _websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.handshake == "not_a_websocket":
            return web.Response(text="It works!")
        ws = web.WebSocketResponse(timeout=1)
        await ws.prepare(request)
        with suppress(ConnectionError):
            if self.handshake == "normal":
                await self._authenticate(_Connection(request.transport, ws))
            elif self.handshake == "binary":
                await ws.send_bytes(b"\x00")
            elif self.handshake == "garbage_json":
                await ws.send_str('{"type": ')
            if self.handshake not in {"normal", "close_at_once"}:
                await ws.receive()
            await ws.close()
        return ws

    async def _authenticate(self, connection: _Connection) -> None:
        ws = connection.ws
        await ws.send_json({"type": "auth_required", "ha_version": self.version})
        frame = await ws.receive()
        if frame.type is not WSMsgType.TEXT:
            return
        message = json.loads(frame.data)
        self.received.append(message)
        self.auth_attempts += 1
        self._notify()
        if message.get("type") != "auth" or not self._accepts(message.get("access_token")):
            self._wrong_login()
            error = "Invalid access token or password"
            await ws.send_json({"type": "auth_invalid", "message": error})
            if self.slow_refusal:
                await asyncio.Event().wait()
            return
        self.wrong_logins = 0  # a login by websocket is the one success that counts
        connection.token = message["access_token"]
        connection.user = self._user_of(connection.token) or {}
        self._connections.add(connection)
        try:
            await ws.send_json({"type": "auth_ok", "ha_version": self.version})
            connection.spawn(connection.write(self._resumed))
            await self._listen(connection)
        finally:
            connection.cancel()
            self._connections.discard(connection)
            self._notify()

    async def _listen(self, connection: _Connection) -> None:
        async for frame in connection.ws:
            try:
                messages = json.loads(frame.data)
            except ValueError:
                return
            for message in messages if isinstance(messages, list) else [messages]:
                self.received.append(message)
                self._dispatch(connection, message)
                self._notify()

    def _dispatch(self, connection: _Connection, message: Message) -> None:
        match message:
            case {"id": int(ident), "type": str(kind)} if ident > 0:
                command = self._COMMANDS.get(kind)
            case _:
                known = message.get("id") if isinstance(message, dict) else 0
                connection.fail(known, "invalid_format", "Message incorrectly formatted.")
                return
        if ident <= connection.last_id:
            connection.fail(ident, "id_reuse", "Identifier values have to increase.")
            return
        if command:
            connection.last_id = ident

        def proceed() -> Answer | None:
            if command is None:
                return Fail("unknown_command", "Unknown command.")
            if complaint := command.complaint(message):
                return Fail("invalid_format", complaint)
            if command.admin and not _is_admin(self._whose(connection)):
                return Fail("unauthorized", "Unauthorized")
            return command.handler(self, connection, message)

        self._answer(connection, ident, self.on_command(message) or Proceed(), proceed)

    def _answer(
        self,
        connection: _Connection,
        ident: int,
        answer: Answer | None,
        proceed: Callable[[], Answer | None],
        shape: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        match answer:
            case Proceed():
                self._answer(connection, ident, proceed(), proceed, shape)
            case Succeed(result):
                connection.succeed(ident, shape(result))
            case Fail(code, text):
                connection.fail(ident, code, text)
            case HangUp():
                connection.abort()
            case After(when, then):

                async def later() -> None:
                    await (when.wait() if isinstance(when, asyncio.Event) else asyncio.sleep(when))
                    self._answer(connection, ident, then, proceed, shape)

                connection.spawn(later())

    def _publish(self, event: Event, diff: Message | None = None) -> None:
        for connection in self._connections:
            for listener in list(connection.listeners.values()):
                listener(event, diff or {})

    # Commands

    def _supported_features(self, connection: _Connection, message: Message) -> Answer:
        connection.coalesce = "coalesce_messages" in message["features"]
        return Succeed()

    def _get_config(self, *_: object) -> Answer:
        place = {"time_zone": self.time_zone, "location_name": self.location_name}
        place |= {"country": "DE", "currency": "EUR", "language": "en"}
        mode = {"components": [], "recovery_mode": False, "safe_mode": False}
        return Succeed({"state": self._state, "version": self.version, **place, **mode})

    def _whose(self, connection: _Connection) -> Message:
        """Return whose websocket it is, also after its token expired."""
        return self._user_of(connection.token) or connection.user

    def _current_user(self, connection: _Connection, _: Message) -> Answer:
        credentials = [{"auth_provider_type": "homeassistant", "auth_provider_id": None}]
        whose = self._whose(connection)
        user = {"id": whose["id"], "name": whose["name"], "credentials": credentials}
        rights = {"is_owner": whose["is_owner"], "is_admin": _is_admin(whose)}
        return Succeed({**user, "mfa_modules": [], **rights})

    def _list_users(self, *_: object) -> Answer:
        return Succeed(self._all_users())

    def _get_states(self, *_: object) -> Answer:
        return Succeed([_full(*item) for item in self._states.items()])

    def _subscribe_events(self, connection: _Connection, message: Message) -> Answer:
        wanted = message.get("event_type", "*")
        if wanted not in _EVENTS_FOR_ALL and not _is_admin(self._whose(connection)):
            return Fail("unauthorized", "Unauthorized")

        def listener(event: Event, _diff: Message) -> None:
            if wanted in {"*", event.event_type}:
                connection.event(message["id"], event.full())

        connection.listeners[message["id"]] = listener
        return Succeed()

    def _subscribe_entities(self, connection: _Connection, message: Message) -> Answer | None:
        wanted = set(message.get("entity_ids", []))  # an empty list means all, also in the real one
        for entity_id in wanted:
            if not _ENTITY_ID.fullmatch(entity_id):
                error = f"Entity ID {entity_id} is an invalid entity ID for dictionary value"
                return Fail("invalid_format", f"{error} @ data['entity_ids']")

        def listener(event: Event, diff: Message) -> None:
            if diff and (not wanted or event.data["entity_id"] in wanted):
                connection.event(message["id"], diff)

        connection.listeners[message["id"]] = listener
        connection.succeed(message["id"], None)
        present = {key: state for key, state in self._states.items() if not wanted or key in wanted}
        connection.event(message["id"], {"a": present})
        return None

    def _unsubscribe(self, connection: _Connection, message: Message) -> Answer:
        if connection.listeners.pop(message["subscription"], None):
            return Succeed()
        return Fail("not_found", "Subscription not found.")

    def _render_template(self, connection: _Connection, message: Message) -> Answer | None:
        ident, variables = message["id"], message.get("variables", {})
        result = self.on_render(message["template"], variables)
        if isinstance(result, Fail):
            return result
        connection.listeners[ident] = lambda _event, _diff: None  # never rendered again
        if not isinstance(result, TemplateError):
            connection.succeed(ident, None)
            listeners = {"all": False, "domains": [], "entities": [], "time": False}
            connection.event(ident, {"result": result, "listeners": listeners})
        elif message.get("report_errors"):  # comes twice, the first time before the result
            connection.event(ident, {"error": result.message, "level": "ERROR"})
            connection.succeed(ident, None)
            connection.event(ident, {"error": result.message, "level": "ERROR"})
        else:
            connection.succeed(ident, None)
        return None

    def _call_service(self, connection: _Connection, message: Message) -> Answer | None:
        if re.search(r"{[{%#]", json.dumps(message.get("target"))):
            return Fail("invalid_format", "Templates are not supported here")
        self._run(connection, message)
        return None

    def _run(self, connection: _Connection, message: Message) -> None:
        context = _context(self.user_id)
        details = {key: message[key] for key in message if key not in {"id", "type"}}
        call = Call(message["type"], **details, context_id=str(context["id"]))
        self.calls.append(call)
        responds = call.kind == "execute_script" or call.return_response

        def shape(response: object) -> Message:
            return {"context": context} | ({"response": response} if responds else {})

        answer = self.on_call(call) or Proceed()
        self._answer(connection, message["id"], answer, lambda: self._outcome(call), shape)

    def _outcome(self, call: Call) -> Answer:
        if call.kind == "execute_script":
            steps = call.sequence if isinstance(call.sequence, list) else [call.sequence]
            for step in (step for step in steps if isinstance(step, dict)):
                name = step.get("action", step.get("service"))
                domain, _, service = str(name).partition(".")
                if name and "{" not in name and service not in self.services.get(domain, {}):
                    return Fail("service_validation_error", f"Action {name} not found")
            return Succeed()
        domain, service = call.domain.lower(), call.service.lower()
        if service not in self.services.get(domain, {}):
            return Fail("not_found", f"Service {domain}.{service} not found.")
        response = self._responses.get((domain, service))
        described = self.services[domain][service].get("response")
        if described and not described["optional"] and not call.return_response:
            error = "The action requires responses and must be called with return_response"
            return Fail("service_validation_error", f"Validation error: {error}=True")
        if call.return_response and response is None:
            error = "An action which does not return responses can't be called with return_response"
            return Fail("service_validation_error", f"Validation error: {error}=True")
        return Succeed(response)

    def _fire_event(self, connection: _Connection, message: Message) -> None:
        context = _context(self.user_id)
        event = Event(message["event_type"], message.get("event_data", {}), self._state, context)
        self.events.append(event)

        def fired(_result: object) -> Message:
            self._publish(event)
            return {"context": context}

        answer = self.on_fire(event) or Proceed()
        self._answer(connection, message["id"], answer, Succeed, fired)

    def _validate_config(self, _: _Connection, message: Message) -> Answer:
        keys = [key for key in ("triggers", "conditions", "actions") if key in message]
        errors = {key: self.on_validate(message[key]) for key in keys}
        return Succeed({key: {"valid": not error, "error": error} for key, error in errors.items()})

    _COMMANDS: ClassVar[dict[str, _Command]] = {
        "auth/current_user": _Command(_current_user),
        "call_service": _Command(
            _call_service, "domain service", "target service_data return_response"
        ),
        "config/auth/list": _Command(_list_users, admin=True),
        "config/entity_registry/list": _Command(lambda ha, *_: Succeed(ha.registry)),
        "execute_script": _Command(_run, "sequence", "variables", admin=True),
        "fire_event": _Command(_fire_event, "event_type", "event_data", admin=True),
        "get_config": _Command(_get_config),
        "get_services": _Command(lambda ha, *_: Succeed(ha.services)),
        "get_states": _Command(_get_states),
        "ping": _Command(lambda _, c, m: c.send({"id": m["id"], "type": "pong"})),
        "render_template": _Command(
            _render_template, "template", "entity_ids variables timeout strict report_errors"
        ),
        "subscribe_entities": _Command(_subscribe_entities, "", "entity_ids include exclude"),
        "subscribe_events": _Command(_subscribe_events, "", "event_type"),
        "supported_features": _Command(_supported_features, "features"),
        "unsubscribe_events": _Command(_unsubscribe, "subscription"),
        "validate_config": _Command(_validate_config, "", "triggers conditions actions"),
    }


def _full(entity_id: str, state: Message | None) -> Message | None:
    """Turn a compressed state into that of get_states."""
    if state is None:
        return None
    changed = _isoformat(state["lc"])
    updated = _isoformat(state["lu"]) if "lu" in state else changed
    times = {"last_changed": changed, "last_reported": updated, "last_updated": updated}
    full = {"entity_id": entity_id, "state": state["s"], "attributes": state["a"], **times}
    return {**full, "context": _context(None, state["c"])}


def _isoformat(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat()


def _ulid() -> str:
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(alphabet[number >> shift & 31] for shift in range(125, -1, -5))


def _context(user_id: str | None, ident: str | None = None) -> Message:
    return {"id": ident or _ulid(), "parent_id": None, "user_id": user_id}


def _user(
    ident: str, name: str, *, admin: bool, owner: bool = False, active: bool = True
) -> Message:
    user = {"id": ident, "username": name.lower(), "name": name, "is_owner": owner}
    user |= {"is_active": active, "local_only": False, "system_generated": False}
    groups = ["system-admin" if admin else "system-users"]
    return {**user, "group_ids": groups, "credentials": [{"type": "homeassistant"}]}


def _is_admin(user: Message) -> bool:
    return bool(user["is_owner"] or "system-admin" in user["group_ids"])


_ENTITY_ID = re.compile(r"(?!.+__)(?!_)[\da-z_]+(?<!_)\.(?!_)[\da-z_]+(?<!_)")

# What users who are no administrators may subscribe to.
_EVENTS_FOR_ALL = {
    *(f"{what}_updated" for what in ("core_config", "lovelace", "panels", "shopping_list")),
    *(f"{what}_registry_updated" for what in ("area", "category", "device", "entity", "floor")),
    *("label_registry_updated", "repairs_issue_registry_updated", "themes_updated"),
    *("component_loaded", "service_registered", "service_removed", "state_changed"),
    *("recorder_5min_statistics_generated", "recorder_hourly_statistics_generated"),
}
