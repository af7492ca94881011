"""The admin API: what an owner and his programs do with actions, tokens and submissions.

The same handlers are served on the control socket, which only the daemon's user can reach, and on
the owner's listener, where ``entrance`` says who calls. Each reads, calls one method of
``core.manage``, and shows the result.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cached_property
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from aiohttp import web

from otsd import __version__, imports
from otsd.core.access import Caller, Forbidden, Scope
from otsd.core.errors import (
    Conflict,
    Fault,
    HomeError,
    Invalid,
    NoImport,
    NotFound,
    OtsdError,
    StorageUnavailable,
)
from otsd.core.ports import ConnectionStatus, Request
from otsd.core.times import isoformat
from otsd.core.tokens import COMMENT_LENGTH, SubmissionState, TokenState
from otsd.payloads import (
    LARGEST_BODY,
    REQUEST_ID,
    REQUEST_ID_RULE,
    SUBMISSION_COLUMNS,
    CreateAction,
    CreateKey,
    EditToken,
    MintToken,
    OneTimeServiceFile,
    ReplaceAction,
    TakeOffer,
    ValidateAction,
    action_json,
    check_name,
    connection_json,
    csv_lines,
    digest,
    entity_list,
    import_json,
    key_json,
    list_json,
    read,
    service_list,
    submission_json,
    token_json,
    validation_json,
)
from otsd.qr import picture
from otsd.server import problems
from otsd.server.entrance import Entrance
from otsd.server.listener import log_unexpected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from enum import StrEnum
    from pathlib import Path

    from pydantic import BaseModel

    from otsd.core.announce import Announcer
    from otsd.core.imports import Imports
    from otsd.core.keys import Keys
    from otsd.core.manage import Actions, Tokens
    from otsd.core.ports import Backups, Clock, Household, Store
    from otsd.core.submit import Submissions
    from otsd.core.tokens import Token
    from otsd.server.live import Live

    Kind = TypeVar("Kind", bound=StrEnum)
    Body = TypeVar("Body", bound=BaseModel)
    Item = TypeVar("Item")

_LARGEST_ACTION: Final = 256 * 1024  # 64 kB of YAML: JSON writes two bytes of it with up to six
MOST_ITEMS: Final = 500
_PATIENCE: Final = 15.0  # for whoever downloads, until he takes the next part
_PATIENCE_WITH_A_DISK: Final = 60.0  # which the next part of a backup is written to
SOME_ITEMS: Final = 100
MOST_DAYS: Final = 400
_SHOWN: Final = 64  # letters of a name that is none
_ENDS: Final = (SubmissionState.EXECUTED, SubmissionState.FAILED, SubmissionState.UNCONFIRMED)
_CELLS: Final = itemgetter(*SUBMISSION_COLUMNS)
_SOCKET: Final = Caller("cli", "socket", "socket")
_V1: Final = "/api/v1"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API speaks for; ``offered`` is where another add-on may have left a file."""

    store: Store
    home: Household
    submissions: Submissions
    announcer: Announcer
    actions: Actions
    tokens: Tokens
    now: Clock
    mqtt: Callable[[], ConnectionStatus]
    keys: Keys
    live: Live
    imports: Imports
    offered: Path | None
    backups: Backups
    title: str
    base_url: str
    browser_url: str
    configured: Callable[[], str]
    disconnect: Callable[[], Awaitable[None]]
    retry_broker: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: its handler, and what the OpenAPI document says of it.

    ``scopes`` are those of keys that may call it beside ``admin``. ``answer`` names a model of
    ``otsd.server.shapes``, which is slow to load and of use to the document alone. ``fails`` are
    the statuses of its problems, beside those that every operation has.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scopes: frozenset[Scope] = frozenset()
    body: type[BaseModel] | None = None
    answer: str | None = None
    kind: str | None = None
    statuses: tuple[int, ...] = (200,)
    fails: tuple[int, ...] = ()
    query: tuple[str, ...] = ()
    states: type[StrEnum] | None = None
    repeatable: bool = False


class AdminApi:
    """The handlers of the admin API."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts."""
        self._parts = parts
        self._importing = asyncio.Lock()

    @cached_property
    def routes(self) -> Sequence[Route]:
        """Every operation there is; paths are below ``/api/v1``."""
        read = frozenset({Scope.READ})
        mint = frozenset({Scope.MINT})
        both = read | mint
        page = ("limit", "cursor")
        # fmt: off
        return [
            Route("GET", "/session", self.session, both, answer="Session"),
            Route("GET", "/status", self.status, read, answer="Status"),
            Route("GET", "/events", self.events, read, kind="text/event-stream", fails=(429,)),
            Route("GET", "/actions", self.list_actions, read,
                  answer="Listing[ListedAction]", query=page),
            Route("POST", "/actions", self.create_action,
                  body=CreateAction, answer="SavedAction", statuses=(201,), fails=(409,)),
            Route("POST", "/actions/validate", self.validate_action,
                  body=ValidateAction, answer="Validation"),
            Route("GET", "/actions/{name}", self.show_action, read,
                  answer="ListedAction", fails=(404,)),
            Route("PUT", "/actions/{name}", self.replace_action,
                  body=ReplaceAction, answer="SavedAction", statuses=(200, 201)),
            Route("DELETE", "/actions/{name}", self.delete_action,
                  statuses=(204,), fails=(404, 409), query=("force",)),
            Route("POST", "/actions/{name}/run", self.run_action,
                  answer="Ran", fails=(404, 502, 504)),
            Route("GET", "/tokens", self.list_tokens, both, answer="Listing[ListedToken]",
                  query=("state", "action", "q", *page), states=TokenState),
            Route("POST", "/tokens", self.mint_token, mint, body=MintToken, answer="MintedToken",
                  statuses=(201,), fails=(404, 409), repeatable=True),
            Route("GET", "/tokens/{id}", self.show_token, both,
                  answer="ListedToken", fails=(404,)),
            Route("PATCH", "/tokens/{id}", self.edit_token, mint,
                  body=EditToken, answer="ListedToken", fails=(404, 409)),
            Route("DELETE", "/tokens/{id}", self.delete_token, statuses=(204,), fails=(404,)),
            Route("GET", "/tokens/{id}/link", self.show_link, mint,
                  answer="Link", fails=(404, 409)),
            Route("GET", "/tokens/{id}/qr.svg", self.show_qr_svg, mint,
                  kind="image/svg+xml", fails=(404, 409)),
            Route("GET", "/tokens/{id}/qr.png", self.show_qr_png, mint,
                  kind="image/png", fails=(404, 409)),
            Route("POST", "/tokens/{id}/revoke", self.revoke_token, mint,
                  answer="ListedToken", fails=(404,)),
            Route("POST", "/tokens/{id}/pause", self.pause_token, mint,
                  answer="ListedToken", fails=(404, 409)),
            Route("POST", "/tokens/{id}/resume", self.resume_token, mint,
                  answer="ListedToken", fails=(404, 409)),
            Route("POST", "/tokens/{id}/replenish", self.replenish_token, mint,
                  answer="ListedToken", fails=(404, 409)),
            Route("POST", "/tokens/{id}/rotate", self.rotate_token, mint,
                  answer="MintedToken", fails=(404, 409)),
            Route("POST", "/tokens/{id}/duplicate", self.duplicate_token, mint,
                  answer="MintedToken", statuses=(201,), fails=(404,)),
            Route("GET", "/submissions", self.list_submissions, read,
                  answer="Listing[ListedSubmission]",
                  query=("token", "state", *page), states=SubmissionState),
            Route("GET", "/submissions/daily", self.count_submissions, read,
                  answer="All[Day]", query=("days",)),
            Route("GET", "/submissions.csv", self.export_submissions, read, kind="text/csv"),
            Route("POST", "/submissions/{id}/refund", self.refund_submission,
                  answer="ListedSubmission", fails=(404, 409)),
            Route("GET", "/home-assistant/actions", self.list_services,
                  answer="All[Service]", fails=(502, 504)),
            Route("GET", "/home-assistant/entities", self.list_entities,
                  answer="All[Entity]", fails=(502, 504)),
            Route("POST", "/home-assistant/retry", self.retry, statuses=(204,)),
            Route("POST", "/mqtt/retry", self.retry_broker, statuses=(204,)),
            Route("POST", "/home-assistant/disconnect", self.disconnect,
                  statuses=(204,), fails=(409,)),
            Route("POST", "/imports", self.import_file, body=OneTimeServiceFile,
                  answer="Import", query=("dry_run", "brief")),
            Route("GET", "/imports/one-time-service", self.show_offer,
                  answer="ImportOffer", fails=(404,)),
            Route("POST", "/imports/one-time-service", self.take_offer, body=TakeOffer,
                  answer="Import", fails=(404, 409)),
            Route("GET", "/api-keys", self.list_keys, answer="Listing[ListedKey]", query=page),
            Route("POST", "/api-keys", self.create_key, body=CreateKey,
                  answer="CreatedKey", statuses=(201,), fails=(409,)),
            Route("DELETE", "/api-keys/{id}", self.delete_key, statuses=(204,), fails=(404,)),
            Route("GET", "/openapi.json", self.describe, both, kind="application/json"),
        ]
        # fmt: on

    @cached_property
    def routes_of_socket(self) -> Sequence[Route]:
        """What the control socket has beside: a backup opens every link, whoever asks for it."""
        return [Route("GET", "/backup", self.backup, kind="application/x-tar")]

    def application(self, entrance: Entrance | None = None) -> web.Application:
        """Return the application with every route; without an entrance, it is the socket's.

        There everybody may do everything.
        """
        routes = [*self.routes, *(self.routes_of_socket if entrance is None else ())]
        application = web.Application(
            middlewares=[_guard, self._enter], client_max_size=_LARGEST_ACTION
        )
        application[_ENTRANCE] = entrance
        application[_ROUTES] = {
            application.router.add_route(route.method, _V1 + route.path, route.handler): route
            for route in routes
        }
        return application

    @web.middleware
    async def _enter(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Find out who calls, and whether he may."""
        entrance = request.app[_ENTRANCE]
        if not request.path.startswith(f"{_V1}/"):
            return await handler(request)  # the site's own pages look themselves
        caller = _SOCKET if entrance is None else await entrance.admit(request)
        route = request.app[_ROUTES].get(request.match_info.route)
        if route is not None:
            if caller.scope is not Scope.ADMIN and caller.scope not in route.scopes:
                raise Forbidden(f"An API key with the scope {caller.scope} may not do this.")
            _check_query(request, route)
        request[_CALLER] = caller
        return await handler(request)

    async def describe(self, _: web.Request) -> web.Response:
        """Show the OpenAPI document of all this."""
        # in a thread: pydantic takes half a second to see all the models for the first time
        return _json(await asyncio.to_thread(self._document))

    def _document(self) -> Mapping[str, Any]:
        from otsd.server.openapi import document  # noqa: PLC0415 - few ever ask

        return document(self.routes)

    # -- who and how -------------------------------------------------------------------------

    async def session(self, request: web.Request) -> web.Response:
        """Show who calls, and what a page needs to know once."""
        caller, parts = request[_CALLER], self._parts
        return _json(
            {
                "user": {"id": caller.user_id, "name": caller.name or caller.maker},
                "via": caller.via,
                "scope": caller.scope.value,
                "can_log_out": caller.via == "home_assistant",
                "version": __version__,
                "title": parts.title,
                "base_url": parts.base_url,
                "time_zone": getattr(parts.home.zone, "key", None),
                "home_assistant": {"configured": parts.configured(), "url": parts.browser_url},
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream what changes, as it changes."""
        entrance, caller = request.app[_ENTRANCE], request[_CALLER]
        still = _always if entrance is None else entrance.still
        return await self._parts.live.stream(request, caller, still)

    async def retry(self, _: web.Request) -> web.Response:
        """Try to connect to Home Assistant now, also after a refusal."""
        self._parts.home.retry()
        return web.Response(status=204)

    async def retry_broker(self, _: web.Request) -> web.Response:
        """Try to connect to the broker now, if it refused otsd."""
        self._parts.retry_broker()
        return web.Response(status=204)

    async def disconnect(self, _: web.Request) -> web.Response:
        """Give up otsd's own connection that somebody granted."""
        await self._parts.disconnect()
        return web.Response(status=204)

    async def list_services(self, _: web.Request) -> web.Response:
        """List Home Assistant's actions, for a picker."""
        return _json({"items": service_list(await self._parts.home.services())})

    async def list_entities(self, _: web.Request) -> web.Response:
        """List Home Assistant's entities, for a picker."""
        return _json({"items": entity_list(await self._parts.home.states())})

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
        with_yaml = request[_CALLER].scope is Scope.ADMIN
        actions, after = _part(request, self._parts.actions.list())
        shown = [action_json(action, with_yaml=with_yaml) for action in actions]
        return _json(list_json(shown, after))

    async def create_action(self, request: web.Request) -> web.Response:
        """Create an action."""
        body = await self._read(request, CreateAction)
        action, warnings = await self._parts.actions.save(body.action(body.name), create=True)
        return _json(action_json(action, warnings), 201, f"/api/v1/actions/{action.name}")

    async def validate_action(self, request: web.Request) -> web.Response:
        """Say what is wrong with the YAML of an action, if anything is."""
        body = await self._read(request, ValidateAction)
        plan = ReplaceAction(title="-", yaml=body.yaml).action("-").plan
        warnings = await self._parts.actions.validate(plan)
        return _json(validation_json(plan, warnings, await self._states()))

    async def show_action(self, request: web.Request) -> web.Response:
        """Show an action."""
        action = self._parts.actions.get(request.match_info["name"])
        return _json(action_json(action, with_yaml=request[_CALLER].scope is Scope.ADMIN))

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
        force = _flag(request, "force")
        await self._parts.actions.delete(request.match_info["name"], force=force)
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
        caller, words = request[_CALLER], request.rel_url.query.get("q")
        if words is not None and len(words) > COMMENT_LENGTH:
            raise Invalid([Fault(("q",), f"at most {COMMENT_LENGTH} characters")])
        if words is not None and "\0" in words:  # SQLite would look for what stands before it
            raise Invalid([Fault(("q",), "no text has a NUL")])
        own = caller.key is not None and caller.scope is Scope.MINT
        page = await self._parts.store.tokens(
            now,
            state=_choice(request, "state", TokenState),
            action=request.rel_url.query.get("action"),
            maker=caller.maker if own else None,
            since=caller.key.created_at if own and caller.key else None,
            words=words or None,
            limit=limit,
            cursor=cursor,
        )
        return _json(list_json([token_json(token, now) for token in page.items], page.next))

    async def mint_token(self, request: web.Request) -> web.Response:
        """Mint a token; the answer carries its link."""
        body = await self._read(request, MintToken)
        caller = request[_CALLER]
        if caller.scope is Scope.MINT and caller.key and body.action not in caller.key.actions:
            raise Forbidden(f"This API key makes no tokens of {body.action!r}.")
        request_id = _request_id(request, body, caller)
        return self._made(await self._parts.tokens.mint(body.mint(caller.maker), request_id))

    async def show_token(self, request: web.Request) -> web.Response:
        """Show a token."""
        return self._shown(self._token(request))

    async def edit_token(self, request: web.Request) -> web.Response:
        """Change a token."""
        body = await self._read(request, EditToken)
        token = await self._parts.tokens.edit(self._token(request).id, body.edit())
        return self._shown(token)

    async def delete_token(self, request: web.Request) -> web.Response:
        """Delete a token and its history."""
        await self._parts.tokens.delete(request.match_info["id"])
        return web.Response(status=204)

    async def revoke_token(self, request: web.Request) -> web.Response:
        """End a token for good; its history stays."""
        return self._shown(await self._parts.tokens.revoke(self._token(request).id))

    async def pause_token(self, request: web.Request) -> web.Response:
        """Forbid submissions until the token is resumed."""
        return self._shown(await self._parts.tokens.pause(self._token(request).id))

    async def resume_token(self, request: web.Request) -> web.Response:
        """Allow submissions again."""
        return self._shown(await self._parts.tokens.resume(self._token(request).id))

    async def replenish_token(self, request: web.Request) -> web.Response:
        """Give a token all of its uses again."""
        return self._shown(await self._parts.tokens.replenish(self._token(request).id))

    async def rotate_token(self, request: web.Request) -> web.Response:
        """Give a token a new link."""
        token = await self._parts.tokens.rotate(self._token(request).id)
        return _json(token_json(token, self._parts.now(), self._parts.tokens.link(token)))

    async def duplicate_token(self, request: web.Request) -> web.Response:
        """Mint another token of the same kind."""
        like, caller = self._token(request), request[_CALLER]
        if caller.scope is Scope.MINT and caller.key and like.action not in caller.key.actions:
            raise Forbidden(f"This API key makes no tokens of {like.action!r}.")
        return self._made(await self._parts.tokens.duplicate(like.id, caller.maker))

    async def show_link(self, request: web.Request) -> web.Response:
        """Show a token's link again."""
        return _json({"url": self._parts.tokens.link(self._token(request))})

    async def show_qr_svg(self, request: web.Request) -> web.Response:
        """Draw a token's link as a QR code."""
        return self._drawn(request, "svg", "image/svg+xml")

    async def show_qr_png(self, request: web.Request) -> web.Response:
        """Draw a token's link as a QR code, in pixels."""
        return self._drawn(request, "png", "image/png")

    def _drawn(
        self, request: web.Request, kind: Literal["png", "svg"], content_type: str
    ) -> web.Response:
        link = self._parts.tokens.link(self._token(request))
        return web.Response(body=picture(link, kind), content_type=content_type)

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

    async def count_submissions(self, request: web.Request) -> web.Response:
        """Count the submissions of each of the last days, in the house's time zone."""
        text = request.rel_url.query.get("days", "28")
        if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 1 <= int(text) <= MOST_DAYS:
            raise Invalid([Fault(("days",), f"a whole number from 1 to {MOST_DAYS}")])
        zone = self._parts.home.zone
        today = self._parts.now().astimezone(zone).date()
        days = [today - timedelta(days=ago) for ago in range(int(text) - 1, -1, -1)]
        midnights = [
            datetime.combine(day, time(), zone) for day in [*days, today + timedelta(days=1)]
        ]
        counted = await self._parts.store.daily(midnights)
        return _json(
            {
                "items": [
                    {
                        "day": day.isoformat(),
                        **{state.value: count.get(state, 0) for state in _ENDS},
                    }
                    for day, count in zip(days, counted, strict=True)
                ]
            }
        )

    async def export_submissions(self, request: web.Request) -> web.StreamResponse:
        """Send every submission as CSV, newest first."""
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": 'attachment; filename="submissions.csv"',
                "Cache-Control": "no-store",
            }
        )
        page = await self._parts.store.submissions(limit=SOME_ITEMS)
        await response.prepare(request)
        await response.write(csv_lines([SUBMISSION_COLUMNS]))
        try:
            while True:
                lines = csv_lines(map(_CELLS, map(submission_json, page.items)))
                async with asyncio.timeout(_PATIENCE):
                    await response.write(lines)
                if page.next is None:
                    return response
                page = await self._parts.store.submissions(limit=SOME_ITEMS, cursor=page.next)
        except (StorageUnavailable, TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # an end in good order would make a part look whole
            return response

    # -- what another program kept -----------------------------------------------------------

    async def import_file(self, request: web.Request) -> web.Response:
        """Take over the file of a One Time Service add-on, or say what would become of it."""
        dry_run, brief = _flag(request, "dry_run"), _flag(request, "brief")
        content = bytearray()
        async for part in request.content.iter_any():
            content += part
            if len(content) > imports.LARGEST:
                reason = f"The file is larger than {imports.LARGEST // 1024**2} MB."
                raise web.HTTPRequestEntityTooLarge(imports.LARGEST, len(content), reason=reason)
        return await self._imported(bytes(content), dry_run=dry_run, brief=brief)

    async def show_offer(self, _: web.Request) -> web.Response:
        """Show what would become of the file that the One Time Service add-on left."""
        offer = await self._offer()
        about = {
            "path": str(imports.WHERE),
            "digest": offer.digest,
            "modified_at": isoformat(offer.modified_at),
        }
        return await self._imported(offer.content, about, dry_run=True)

    async def take_offer(self, request: web.Request) -> web.Response:
        """Take over that file, if it is what the owner was shown."""
        body = await self._read(request, TakeOffer)
        offer = await self._offer()
        if body.digest != offer.digest:
            msg = "The file was changed since you looked at it; look again."
            raise Conflict("import_changed", msg)
        return await self._imported(offer.content, dry_run=False)

    async def _offer(self) -> imports.Offer:
        where = self._parts.offered
        offer = None if where is None else await asyncio.to_thread(imports.look, where)
        if offer is None:
            raise NoImport
        return offer

    async def _imported(
        self,
        content: bytes,
        about: Mapping[str, Any] = MappingProxyType({}),
        *,
        dry_run: bool,
        brief: bool = False,
    ) -> web.Response:
        # a file may hold a hundred thousand tokens, and visitors are served meanwhile: in threads,
        # and one file after the other
        async with self._importing, _without_collecting():
            file = await asyncio.to_thread(imports.read, content)
            report = await self._parts.imports.take(file, dry_run=dry_run, brief=brief)
            return await asyncio.to_thread(lambda: _json({**about, **import_json(report)}))

    # -- backup ------------------------------------------------------------------------------

    async def backup(self, request: web.Request) -> web.StreamResponse:
        """Send everything as one archive, which `otsd restore` takes."""
        async with self._parts.backups.begun() as backup:
            response = web.StreamResponse(
                headers={
                    "Content-Type": "application/x-tar",
                    "Content-Length": str(backup.size),
                    "Cache-Control": "no-store",
                }
            )
            await response.prepare(request)
            try:
                async for part in backup.parts():
                    async with asyncio.timeout(_PATIENCE_WITH_A_DISK):
                        await response.write(part)
            except (StorageUnavailable, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
            return response

    # -- keys of programs --------------------------------------------------------------------

    async def list_keys(self, request: web.Request) -> web.Response:
        """List API keys, newest first."""
        keys, after = _part(request, self._parts.keys.list())
        return _json(list_json([key_json(key) for key in keys], after))

    async def create_key(self, request: web.Request) -> web.Response:
        """Make an API key; the answer is the only place where it stands."""
        body = await self._read(request, CreateKey)
        key, secret = await self._parts.keys.create(body.wish(), request[_CALLER].maker)
        return _json({**key_json(key), "key": secret}, 201, f"/api/v1/api-keys/{key.id}")

    async def delete_key(self, request: web.Request) -> web.Response:
        """Revoke an API key, and end what it has open."""
        await self._parts.keys.delete(request.match_info["id"])
        self._parts.live.end(f"key:{request.match_info['id']}")
        return web.Response(status=204)

    # -- parts -------------------------------------------------------------------------------

    async def _states(self) -> Mapping[str, Mapping[str, object]]:
        try:
            states = await self._parts.home.states()
        except HomeError:
            return {}
        return {str(state["entity_id"]): state for state in states}

    async def _read(self, request: web.Request, body: type[Body]) -> Body:
        text = await request.read()
        if len(text) > LARGEST_BODY and "yaml" not in body.model_fields:
            raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, len(text))
        return read(body, text, self._parts.home.zone)

    def _token(self, request: web.Request) -> Token:
        token = self._parts.tokens.get(request.match_info["id"])
        if not request[_CALLER].may_see(token):
            raise NotFound("token", token.id)
        return token

    def _shown(self, token: Token) -> web.Response:
        return _json(token_json(token, self._parts.now()))

    def _made(self, token: Token) -> web.Response:
        shown = token_json(token, self._parts.now(), self._parts.tokens.link(token))
        return _json(shown, 201, f"/api/v1/tokens/{token.id}")


_ENTRANCE: Final[web.AppKey[Entrance | None]] = web.AppKey("entrance")
_ROUTES: Final[web.AppKey[dict[web.AbstractRoute, Route]]] = web.AppKey("routes")
_CALLER: Final = web.RequestKey("caller", Caller)


async def _always(_: web.BaseRequest) -> bool:
    return True


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
    except web.RequestPayloadError:
        return problems.problem(400, "bad_request", "The body cannot be read.")
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


def _check_query(request: web.Request, route: Route) -> None:
    """Refuse a parameter that there is not: misspelt, a filter would show everything."""
    query = request.rel_url.query
    faults = [
        Fault((name[:_SHOWN],), "there is no such parameter")
        for name in sorted(set(query) - set(route.query))
    ]
    faults += [
        Fault((name,), "give this once") for name in route.query if len(query.getall(name, ())) > 1
    ]
    if faults:
        raise Invalid(faults)


def _part(request: web.Request, items: Sequence[Item]) -> tuple[Sequence[Item], int | None]:
    """Return a page of what is in memory as a whole, and the cursor of the next one."""
    limit, cursor = _window(request)
    begin = cursor or 0
    end = begin + limit
    return items[begin:end], end if end < len(items) else None


def _window(request: web.Request) -> tuple[int, int | None]:
    query = request.rel_url.query
    faults = []
    limit, cursor = query.get("limit", str(SOME_ITEMS)), query.get("cursor")
    if not re.fullmatch(r"\d{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= MOST_ITEMS:
        faults.append(Fault(("limit",), f"a whole number from 1 to {MOST_ITEMS}"))
    if cursor is not None and not re.fullmatch(r"\d{1,18}", cursor, re.ASCII):
        faults.append(Fault(("cursor",), "the value of next in the page before"))
    if faults:
        raise Invalid(faults)
    return int(limit), None if cursor is None else int(cursor)


@asynccontextmanager
async def _without_collecting() -> AsyncIterator[None]:
    """Look for no garbage where much is made and all of it is needed: that takes a fifth longer."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _flag(request: web.Request, name: str) -> bool:
    text = request.rel_url.query.get(name, "false")
    if text not in ("true", "false"):
        raise Invalid([Fault((name,), "true or false")])
    return text == "true"


def _choice(request: web.Request, name: str, kind: type[Kind]) -> Kind | None:
    if (value := request.rel_url.query.get(name)) is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid([Fault((name,), f"one of {', '.join(kind)}")]) from error


def _request_id(request: web.Request, body: MintToken, caller: Caller) -> Request | None:
    if (key := request.headers.get("Idempotency-Key")) is None:
        return None
    if not REQUEST_ID.fullmatch(key):
        raise Invalid([Fault(("Idempotency-Key",), REQUEST_ID_RULE)])
    # not its maker: a later key, or another person, may have the same name
    return Request(caller.holder, key, digest(body))
