"""What can be asked by MQTT: tokens are minted and changed, and every command gets a reply.

    a message ─► may it be answered there ─► what does it want ─► core.manage ─► a reply

Whatever arrives, the answer is a reply that says what to change; nothing is raised to whoever
listens for the next message.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otsd.core.actions import NAME
from otsd.core.errors import Fault, Invalid, OwnerError, StorageUnavailable
from otsd.core.ports import Request
from otsd.payloads import (
    LARGEST_BODY,
    REQUEST_ID,
    MintCommand,
    TokenCommand,
    digest,
    read,
    token_json,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otsd.core.manage import Tokens
    from otsd.core.ports import Clock, Home
    from otsd.core.tokens import Token
    from otsd.mqtt.topics import Topics

_CREATED_BY: Final = "mqtt"
_SCOPE: Final = "mqtt"
_MINT: Final = "mint"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came; the last two are MQTT 5's."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, and where; may hold a link, so it is never retained and never logged."""

    topic: str
    body: Mapping[str, Any]
    correlation: bytes | None = None


class Refused(OwnerError):
    """A command that is not even looked at."""


class Commands:
    """The commands and the switches of tokens."""

    def __init__(self, *, tokens: Tokens, home: Home, now: Clock, topics: Topics) -> None:
        """Take the parts."""
        self._tokens = tokens
        self._home = home
        self._now = now
        self._topics = topics
        self._changes: Mapping[str, Callable[[str, Request | None], Awaitable[Token]]] = {
            "revoke": tokens.revoke,
            "pause": tokens.pause,
            "resume": tokens.resume,
            "replenish": tokens.replenish,
        }

    async def obey(self, message: Message) -> Reply | None:
        """Do what a message asks for and return the reply; ``None`` to an empty message."""
        if not message.payload:
            return None
        request_id = _request_id(message.payload)
        topic, correlation = self._topics.response(request_id), None
        try:
            if message.response_topic is not None:
                self._check_response_topic(message.response_topic)
                topic, correlation = message.response_topic, message.correlation
            body = await self._done(message)
        except OwnerError as error:
            body = self._refused(message, error.code, str(error))
        except StorageUnavailable as error:
            why = f"The store cannot be used at the moment ({error}): nothing was done. Try later."
            body = self._refused(message, "storage_unavailable", why)
        except Exception as error:  # noqa: BLE001 - whatever arrives, the daemon lives
            # its text may hold what was sent
            _log.error("the command %r failed: %s", self._named(message), type(error).__name__)
            why = "otsd failed at this command; see its log."
            body = {"ok": False, "code": "internal_error", "error": why}
        return Reply(topic, {"request_id": request_id, **body}, correlation)

    def _refused(self, message: Message, code: str, why: str) -> Mapping[str, Any]:
        # the reply says why; its words may quote what was sent, such as a link
        _log.warning("the command %r was refused: %s", self._named(message), code)
        return {"ok": False, "code": code, "error": why}

    def _check_response_topic(self, topic: str) -> None:
        if not self._topics.may_reply(topic):
            below = f"{self._topics.response(None)}/"
            msg = (
                "The response topic is not allowed: name one outside of otsd's and Home "
                f"Assistant's own topics and without + # $, or one below {below}, or none."
            )
            raise Refused("bad_response_topic", msg)

    def _named(self, message: Message) -> str:
        verb = self._topics.verb(message.topic)
        return "set" if verb is None else verb if verb in (_MINT, *self._changes) else "unknown"

    async def _done(self, message: Message) -> Mapping[str, Any]:
        if message.retained:
            raise Refused(
                "retained",
                "A retained command would be run again at every reconnect: publish it without "
                "retain. It was removed.",
            )
        if len(message.payload) > LARGEST_BODY:
            raise Refused("too_large", f"A command has at most {LARGEST_BODY} bytes.")
        verb = self._topics.verb(message.topic)
        if verb is None:
            return self._told(await self._switch(message))
        text = _text(message.payload)
        if verb == _MINT:
            wish = read(MintCommand, _object(text, "action"), self._home.zone)
            request = _request(wish.request_id, digest(wish, verb))
            token = await self._tokens.mint(wish.mint(_CREATED_BY), request)
            return {**self._told(token), "url": self._tokens.link(token)}
        if (change := self._changes.get(verb)) is None:
            verbs = ", ".join([_MINT, *self._changes])
            raise Refused("unknown_command", f"There is no command {verb[:40]!r}, only {verbs}.")
        command = read(TokenCommand, _object(text, "token_id"), self._home.zone)
        request = _request(command.request_id, digest(command, verb))
        return self._told(await change(command.token_id, request))

    async def _switch(self, message: Message) -> Token:
        token_id = self._topics.switched(message.topic) or ""
        match _text(message.payload):
            case "ON":
                return await self._tokens.resume(token_id)
            case "OFF":
                return await self._tokens.pause(token_id)
            case _:
                raise Invalid([Fault((), "a token is switched ON or OFF")])

    def _told(self, token: Token) -> Mapping[str, Any]:
        return {"ok": True, "token": token_json(token, self._now())}


def _request(request_id: str | None, sent: bytes) -> Request | None:
    return None if request_id is None else Request(_SCOPE, request_id, sent)


def _text(payload: bytes) -> str:
    try:
        return payload.decode().strip()
    except UnicodeDecodeError as error:
        raise Invalid([Fault((), "this is not UTF-8")], "bad_json") from error


def _object(text: str, key: str) -> str:
    """Return the JSON object of a command; a payload that is only a name stands for one key."""
    if NAME.fullmatch(text):
        return json.dumps({key: text})
    if not text.startswith("{"):
        msg = f'a command is a JSON object with "{key}", or the {key} alone'
        raise Invalid([Fault((), msg)], "bad_json")
    return text


def _request_id(payload: bytes) -> str | None:
    """Return the id of a request, also of one that is otherwise wrong, so that it is answered."""
    if len(payload) > LARGEST_BODY:
        return None
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    found = said.get("request_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and REQUEST_ID.fullmatch(found) else None
