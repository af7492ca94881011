"""The admin API: what an owner and his programs do with actions, tokens and submissions.

The same handlers are served on the control socket, which only the daemon's user can reach, and on
the owner's listener, where ``entrance`` says who calls. Each reads, calls one method of
``core.manage``, and shows the result.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from aiohttp import web

from otsd import __version__
from otsd.core.access import Caller, Forbidden, Scope
from otsd.core.errors import Fault, HomeError, Invalid, NotFound, OtsdError
from otsd.core.ports import Request
from otsd.core.tokens import COMMENT_LENGTH, SubmissionState, TokenState
from otsd.payloads import (
    REQUEST_ID,
    REQUEST_ID_RULE,
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
    digest,
    entity_list,
    key_json,
    list_json,
    service_list,
    submission_json,
    token_json,
    validation_json,
)
from otsd.qr import picture
from otsd.server import problems
from otsd.server.entrance import Entrance
from otsd.server.handling import as_json, body_of, choice, flag, part_of, window
from otsd.server.listener import log_unexpected
from otsd.server.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from enum import StrEnum

    from pydantic import BaseModel

    from otsd.core.tokens import Token
    from otsd.server.handling import Parts

    Body = TypeVar("Body", bound=BaseModel)

_LARGEST_ACTION: Final = 256 * 1024  # 64 kB of YAML: JSON writes two bytes of it with up to six
MOST_DAYS: Final = 400
_SHOWN: Final = 64  # letters of a name that is none
_ENDS: Final = (SubmissionState.EXECUTED, SubmissionState.FAILED, SubmissionState.UNCONFIRMED)
_SOCKET: Final = Caller("cli", "socket", "socket")
_V1: Final = "/api/v1"


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
        self._transfers = Transfers(parts)

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
            Route("GET", "/submissions.csv", self._transfers.export_submissions, read,
                  kind="text/csv"),
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
            Route("POST", "/imports", self._transfers.import_file, body=OneTimeServiceFile,
                  answer="Import", query=("dry_run", "brief")),
            Route("GET", "/imports/one-time-service", self._transfers.show_offer,
                  answer="ImportOffer", fails=(404,)),
            Route("POST", "/imports/one-time-service", self._transfers.take_offer, body=TakeOffer,
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
        return [Route("GET", "/backup", self._transfers.backup, kind="application/x-tar")]

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
        return as_json(await asyncio.to_thread(self._document))

    def _document(self) -> Mapping[str, Any]:
        from otsd.server.openapi import document  # noqa: PLC0415 - few ever ask

        return document(self.routes)

    # -- who and how -------------------------------------------------------------------------

    async def session(self, request: web.Request) -> web.Response:
        """Show who calls, and what a page needs to know once."""
        caller, parts = request[_CALLER], self._parts
        return as_json(
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
        return as_json({"items": service_list(await self._parts.home.services())})

    async def list_entities(self, _: web.Request) -> web.Response:
        """List Home Assistant's entities, for a picker."""
        return as_json({"items": entity_list(await self._parts.home.states())})

    # -- status ------------------------------------------------------------------------------

    async def status(self, _: web.Request) -> web.Response:
        """Show the connections and counts."""
        parts = self._parts
        counts = await parts.store.counts(parts.now())
        return as_json(
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
        actions, after = part_of(request, self._parts.actions.list())
        shown = [action_json(action, with_yaml=with_yaml) for action in actions]
        return as_json(list_json(shown, after))

    async def create_action(self, request: web.Request) -> web.Response:
        """Create an action."""
        body = await self._body(request, CreateAction)
        action, warnings = await self._parts.actions.save(body.action(body.name), create=True)
        return as_json(action_json(action, warnings), 201, f"/api/v1/actions/{action.name}")

    async def validate_action(self, request: web.Request) -> web.Response:
        """Say what is wrong with the YAML of an action, if anything is."""
        body = await self._body(request, ValidateAction)
        plan = ReplaceAction(title="-", yaml=body.yaml).action("-").plan
        warnings = await self._parts.actions.validate(plan)
        return as_json(validation_json(plan, warnings, await self._states()))

    async def show_action(self, request: web.Request) -> web.Response:
        """Show an action."""
        action = self._parts.actions.get(request.match_info["name"])
        return as_json(action_json(action, with_yaml=request[_CALLER].scope is Scope.ADMIN))

    async def replace_action(self, request: web.Request) -> web.Response:
        """Create or replace an action."""
        name = request.match_info["name"]
        body = await self._body(request, ReplaceAction)
        check_name(name)
        is_new = self._parts.store.action(name) is None
        action, warnings = await self._parts.actions.save(body.action(name), create=False)
        location = f"/api/v1/actions/{name}" if is_new else None
        return as_json(action_json(action, warnings), 201 if is_new else 200, location)

    async def delete_action(self, request: web.Request) -> web.Response:
        """Delete an action."""
        force = flag(request, "force")
        await self._parts.actions.delete(request.match_info["name"], force=force)
        return web.Response(status=204)

    async def run_action(self, request: web.Request) -> web.Response:
        """Run an action now."""
        ran = await self._parts.actions.run(request.match_info["name"])
        return as_json(
            {"state": "executed", "context_id": ran.context_id, "response": ran.response}
        )

    # -- tokens ------------------------------------------------------------------------------

    async def list_tokens(self, request: web.Request) -> web.Response:
        """List tokens, newest first."""
        limit, cursor = window(request)
        now = self._parts.now()
        caller, words = request[_CALLER], request.rel_url.query.get("q")
        if words is not None and len(words) > COMMENT_LENGTH:
            raise Invalid([Fault(("q",), f"at most {COMMENT_LENGTH} characters")])
        if words is not None and "\0" in words:  # SQLite would look for what stands before it
            raise Invalid([Fault(("q",), "no text has a NUL")])
        own = caller.key is not None and caller.scope is Scope.MINT
        page = await self._parts.store.tokens(
            now,
            state=choice(request, "state", TokenState),
            action=request.rel_url.query.get("action"),
            maker=caller.maker if own else None,
            since=caller.key.created_at if own and caller.key else None,
            words=words or None,
            limit=limit,
            cursor=cursor,
        )
        return as_json(list_json([token_json(token, now) for token in page.items], page.next))

    async def mint_token(self, request: web.Request) -> web.Response:
        """Mint a token; the answer carries its link."""
        body = await self._body(request, MintToken)
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
        body = await self._body(request, EditToken)
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
        return as_json(token_json(token, self._parts.now(), self._parts.tokens.link(token)))

    async def duplicate_token(self, request: web.Request) -> web.Response:
        """Mint another token of the same kind."""
        like, caller = self._token(request), request[_CALLER]
        if caller.scope is Scope.MINT and caller.key and like.action not in caller.key.actions:
            raise Forbidden(f"This API key makes no tokens of {like.action!r}.")
        return self._made(await self._parts.tokens.duplicate(like.id, caller.maker))

    async def show_link(self, request: web.Request) -> web.Response:
        """Show a token's link again."""
        return as_json({"url": self._parts.tokens.link(self._token(request))})

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
        limit, cursor = window(request)
        page = await self._parts.store.submissions(
            token=request.rel_url.query.get("token"),
            state=choice(request, "state", SubmissionState),
            limit=limit,
            cursor=cursor,
        )
        return as_json(list_json([submission_json(item) for item in page.items], page.next))

    async def refund_submission(self, request: web.Request) -> web.Response:
        """Give back the use of a submission that stayed spent."""
        text = request.match_info["id"]
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise NotFound("submission", text)
        return as_json(submission_json(await self._parts.tokens.refund(int(text))))

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
        return as_json(
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

    # -- keys of programs --------------------------------------------------------------------

    async def list_keys(self, request: web.Request) -> web.Response:
        """List API keys, newest first."""
        keys, after = part_of(request, self._parts.keys.list())
        return as_json(list_json([key_json(key) for key in keys], after))

    async def create_key(self, request: web.Request) -> web.Response:
        """Make an API key; the answer is the only place where it stands."""
        body = await self._body(request, CreateKey)
        key, secret = await self._parts.keys.create(body.wish(), request[_CALLER].maker)
        return as_json({**key_json(key), "key": secret}, 201, f"/api/v1/api-keys/{key.id}")

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

    async def _body(self, request: web.Request, model: type[Body]) -> Body:
        return await body_of(request, model, self._parts.home.zone)

    def _token(self, request: web.Request) -> Token:
        token = self._parts.tokens.get(request.match_info["id"])
        if not request[_CALLER].may_see(token):
            raise NotFound("token", token.id)
        return token

    def _shown(self, token: Token) -> web.Response:
        return as_json(token_json(token, self._parts.now()))

    def _made(self, token: Token) -> web.Response:
        shown = token_json(token, self._parts.now(), self._parts.tokens.link(token))
        return as_json(shown, 201, f"/api/v1/tokens/{token.id}")


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


def _request_id(request: web.Request, body: MintToken, caller: Caller) -> Request | None:
    if (key := request.headers.get("Idempotency-Key")) is None:
        return None
    if not REQUEST_ID.fullmatch(key):
        raise Invalid([Fault(("Idempotency-Key",), REQUEST_ID_RULE)])
    # not its maker: a later key, or another person, may have the same name
    return Request(caller.holder, key, digest(body))
