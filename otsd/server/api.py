"""The admin API: what an owner's programs do with actions, tokens and submissions.

Served on the control socket, which only the daemon's user can reach. Each handler reads, calls
one method of ``core.manage``, and shows the result.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from otsd import __version__
from otsd.core.errors import Fault, Invalid, NotFound, OtsdError
from otsd.core.ports import ConnectionStatus, Request
from otsd.core.tokens import SubmissionState, TokenState
from otsd.payloads import (
    LARGEST_BODY,
    REQUEST_ID,
    REQUEST_ID_RULE,
    CreateAction,
    EditToken,
    MintToken,
    ReplaceAction,
    ValidateAction,
    action_json,
    check_name,
    connection_json,
    digest,
    list_json,
    read,
    submission_json,
    token_json,
)
from otsd.server import problems
from otsd.server.listener import log_unexpected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from enum import StrEnum

    from pydantic import BaseModel

    from otsd.core.announce import Announcer
    from otsd.core.manage import Actions, Tokens
    from otsd.core.ports import Clock, Home, Store
    from otsd.core.submit import Submissions
    from otsd.core.tokens import Token

    Kind = TypeVar("Kind", bound=StrEnum)
    Body = TypeVar("Body", bound=BaseModel)

_LARGEST_ACTION: Final = 256 * 1024  # 64 kB of YAML: JSON writes two bytes of it with up to six
_MOST_ITEMS: Final = 500
_SOME_ITEMS: Final = 100
_CALLER: Final = "cli"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API speaks for."""

    store: Store
    home: Home
    submissions: Submissions
    announcer: Announcer
    actions: Actions
    tokens: Tokens
    now: Clock
    mqtt: Callable[[], ConnectionStatus]


class AdminApi:
    """The handlers of the admin API."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts."""
        self._parts = parts

    def application(self) -> web.Application:
        """Return the application with every route."""
        application = web.Application(middlewares=[_guard], client_max_size=_LARGEST_ACTION)
        v1 = "/api/v1"
        application.add_routes(
            [
                web.get(f"{v1}/status", self.status),
                web.get(f"{v1}/actions", self.list_actions),
                web.post(f"{v1}/actions", self.create_action),
                web.post(f"{v1}/actions/validate", self.validate_action),
                web.get(f"{v1}/actions/{{name}}", self.show_action),
                web.put(f"{v1}/actions/{{name}}", self.replace_action),
                web.delete(f"{v1}/actions/{{name}}", self.delete_action),
                web.post(f"{v1}/actions/{{name}}/run", self.run_action),
                web.get(f"{v1}/tokens", self.list_tokens),
                web.post(f"{v1}/tokens", self.mint_token),
                web.get(f"{v1}/tokens/{{id}}", self.show_token),
                web.patch(f"{v1}/tokens/{{id}}", self.edit_token),
                web.delete(f"{v1}/tokens/{{id}}", self.delete_token),
                web.get(f"{v1}/tokens/{{id}}/link", self.show_link),
                web.get(f"{v1}/tokens/{{id}}/qr.svg", self.show_qr),
                web.get(f"{v1}/tokens/{{id}}/qr.png", self.show_qr),
                web.post(f"{v1}/tokens/{{id}}/rotate", self.rotate_token),
                web.post(f"{v1}/tokens/{{id}}/duplicate", self.duplicate_token),
                web.post(
                    f"{v1}/tokens/{{id}}/{{verb:revoke|pause|resume|replenish}}",
                    self.change_token,
                ),
                web.get(f"{v1}/submissions", self.list_submissions),
                web.post(f"{v1}/submissions/{{id}}/refund", self.refund_submission),
            ]
        )
        return application

    # -- status ------------------------------------------------------------------------------

    async def status(self, _: web.Request) -> web.Response:
        """Show the connections and counts."""
        parts = self._parts
        counts = await parts.store.counts(parts.now())
        return _json(
            {
                "version": __version__,
                "home_assistant": connection_json(parts.home.status),
                "mqtt": connection_json(parts.mqtt()),
                "counts": {
                    "actions": counts.actions,
                    "tokens": counts.tokens,
                    "active_tokens": counts.total.active_tokens,
                    "remaining_uses": counts.total.remaining_uses,
                    "submissions": counts.submissions,
                    "running_submissions": parts.submissions.running,
                    "waiting_events": counts.waiting_events,
                    "waiting_notifications": counts.waiting_notifications,
                },
                "event_error": parts.announcer.event_error,
                "notification_error": parts.announcer.notification_error,
            }
        )

    # -- actions -----------------------------------------------------------------------------

    async def list_actions(self, request: web.Request) -> web.Response:
        """List actions, newest first."""
        limit, cursor = _window(request)
        begin = cursor or 0
        actions = self._parts.actions.list()
        shown = [action_json(action) for action in actions[begin : begin + limit]]
        return _json(list_json(shown, begin + limit if begin + limit < len(actions) else None))

    async def create_action(self, request: web.Request) -> web.Response:
        """Create an action."""
        body = await self._read(request, CreateAction)
        action, warnings = await self._parts.actions.save(body.action(body.name), create=True)
        return _json(action_json(action, warnings), 201, f"/api/v1/actions/{action.name}")

    async def validate_action(self, request: web.Request) -> web.Response:
        """Say what is wrong with the YAML of an action, if anything is."""
        body = await self._read(request, ValidateAction)
        plan = ReplaceAction(title="-", yaml=body.yaml).action("-").plan
        return _json({"valid": True, "warnings": list(await self._parts.actions.validate(plan))})

    async def show_action(self, request: web.Request) -> web.Response:
        """Show an action."""
        return _json(action_json(self._parts.actions.get(request.match_info["name"])))

    async def replace_action(self, request: web.Request) -> web.Response:
        """Create or replace an action."""
        name = request.match_info["name"]
        body = await self._read(request, ReplaceAction)
        check_name(name)
        is_new = self._parts.store.action(name) is None
        action, warnings = await self._parts.actions.save(body.action(name), create=False)
        location = f"/api/v1/actions/{name}" if is_new else None
        return _json(action_json(action, warnings), 201 if is_new else 200, location)

    async def delete_action(self, request: web.Request) -> web.Response:
        """Delete an action."""
        force = request.rel_url.query.get("force", "false")
        if force not in ("true", "false"):
            raise Invalid([Fault(("force",), "true or false")])
        await self._parts.actions.delete(request.match_info["name"], force=force == "true")
        return web.Response(status=204)

    async def run_action(self, request: web.Request) -> web.Response:
        """Run an action now."""
        ran = await self._parts.actions.run(request.match_info["name"])
        return _json({"state": "executed", "context_id": ran.context_id, "response": ran.response})

    # -- tokens ------------------------------------------------------------------------------

    async def list_tokens(self, request: web.Request) -> web.Response:
        """List tokens, newest first."""
        limit, cursor = _window(request)
        now = self._parts.now()
        page = await self._parts.store.tokens(
            now,
            state=_choice(request, "state", TokenState),
            action=request.rel_url.query.get("action"),
            limit=limit,
            cursor=cursor,
        )
        return _json(list_json([token_json(token, now) for token in page.items], page.next))

    async def mint_token(self, request: web.Request) -> web.Response:
        """Mint a token; the answer carries its link."""
        body = await self._read(request, MintToken)
        token = await self._parts.tokens.mint(body.mint(_CALLER), _request_id(request, body))
        return self._made(token)

    async def show_token(self, request: web.Request) -> web.Response:
        """Show a token."""
        return self._shown(self._token(request))

    async def edit_token(self, request: web.Request) -> web.Response:
        """Change a token."""
        body = await self._read(request, EditToken)
        token = await self._parts.tokens.edit(request.match_info["id"], body.edit())
        return self._shown(token)

    async def delete_token(self, request: web.Request) -> web.Response:
        """Delete a token and its history."""
        await self._parts.tokens.delete(request.match_info["id"])
        return web.Response(status=204)

    async def change_token(self, request: web.Request) -> web.Response:
        """Revoke, pause, resume or replenish a token."""
        change = getattr(self._parts.tokens, request.match_info["verb"])
        return self._shown(await change(request.match_info["id"]))

    async def rotate_token(self, request: web.Request) -> web.Response:
        """Give a token a new link."""
        token = await self._parts.tokens.rotate(request.match_info["id"])
        return _json(token_json(token, self._parts.now(), self._parts.tokens.link(token)))

    async def duplicate_token(self, request: web.Request) -> web.Response:
        """Mint another token of the same kind."""
        return self._made(await self._parts.tokens.duplicate(request.match_info["id"], _CALLER))

    async def show_link(self, request: web.Request) -> web.Response:
        """Show a token's link again."""
        return _json({"url": self._parts.tokens.link(self._token(request))})

    async def show_qr(self, request: web.Request) -> web.Response:
        """Draw a token's link as a QR code."""
        import segno  # noqa: PLC0415 - most daemons never draw one

        kind = request.path.rpartition(".")[2]
        picture = io.BytesIO()
        segno.make(self._parts.tokens.link(self._token(request)), error="m").save(
            picture, kind=kind, scale=8, border=4
        )
        mime = "image/svg+xml" if kind == "svg" else "image/png"
        return web.Response(body=picture.getvalue(), content_type=mime)

    # -- submissions -------------------------------------------------------------------------

    async def list_submissions(self, request: web.Request) -> web.Response:
        """List submissions, newest first."""
        limit, cursor = _window(request)
        page = await self._parts.store.submissions(
            token=request.rel_url.query.get("token"),
            state=_choice(request, "state", SubmissionState),
            limit=limit,
            cursor=cursor,
        )
        return _json(list_json([submission_json(item) for item in page.items], page.next))

    async def refund_submission(self, request: web.Request) -> web.Response:
        """Give back the use of a submission that stayed spent."""
        text = request.match_info["id"]
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise NotFound("submission", text)
        return _json(submission_json(await self._parts.tokens.refund(int(text))))

    # -- parts -------------------------------------------------------------------------------

    async def _read(self, request: web.Request, body: type[Body]) -> Body:
        text = await request.read()
        if len(text) > LARGEST_BODY and "yaml" not in body.model_fields:
            raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, len(text))
        return read(body, text, self._parts.home.zone)

    def _token(self, request: web.Request) -> Token:
        return self._parts.tokens.get(request.match_info["id"])

    def _shown(self, token: Token) -> web.Response:
        return _json(token_json(token, self._parts.now()))

    def _made(self, token: Token) -> web.Response:
        shown = token_json(token, self._parts.now(), self._parts.tokens.link(token))
        return _json(shown, 201, f"/api/v1/tokens/{token.id}")


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except OtsdError as error:
        return problems.of_error(error)
    except web.HTTPException as error:
        response = problems.problem(
            error.status, _HTTP_CODES.get(error.status, "bad_request"), error.reason
        )
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001 - logged without its text, which may hold a code
        log_unexpected(error)
        return problems.problem(500, "internal_error", "Something went wrong; see the log.")


_HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def _json(body: Any, status: int = 200, location: str | None = None) -> web.Response:  # noqa: ANN401
    headers = {"Cache-Control": "no-store"}
    if location is not None:
        headers["Location"] = location
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/json",
        headers=headers,
    )


def _window(request: web.Request) -> tuple[int, int | None]:
    query = request.rel_url.query
    faults = []
    limit, cursor = query.get("limit", str(_SOME_ITEMS)), query.get("cursor")
    if not re.fullmatch(r"\d{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= _MOST_ITEMS:
        faults.append(Fault(("limit",), f"a whole number from 1 to {_MOST_ITEMS}"))
    if cursor is not None and not re.fullmatch(r"\d{1,18}", cursor, re.ASCII):
        faults.append(Fault(("cursor",), "the value of next in the page before"))
    if faults:
        raise Invalid(faults)
    return int(limit), None if cursor is None else int(cursor)


def _choice(request: web.Request, name: str, kind: type[Kind]) -> Kind | None:
    if (value := request.rel_url.query.get(name)) is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid([Fault((name,), f"one of {', '.join(kind)}")]) from error


def _request_id(request: web.Request, body: MintToken) -> Request | None:
    if (key := request.headers.get("Idempotency-Key")) is None:
        return None
    if not REQUEST_ID.fullmatch(key):
        raise Invalid([Fault(("Idempotency-Key",), REQUEST_ID_RULE)])
    return Request(_CALLER, key, digest(body))
