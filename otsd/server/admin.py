"""The owner's site: the admin page, the way in, and the admin API, on a listener of its own.

Nothing of it is reachable from the public listener: that is another application on another socket.
Every address in it is relative, because in Home Assistant's sidebar it is below a path that
changes.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from otsd.core.access import (
    AccountsUnavailable,
    Forbidden,
    LoginRefused,
    LoginRequired,
    Misdirected,
    Scope,
)
from otsd.core.errors import OtsdError, StorageUnavailable
from otsd.server import entrance as doors
from otsd.server import login as logins_of
from otsd.server import problems
from otsd.server.login import LoginFailed, Purpose
from otsd.server.messages import message
from otsd.server.visitor import PublicResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from yarl import URL

    from otsd.home.accounts import Accounts
    from otsd.server.api import AdminApi
    from otsd.server.entrance import Entrance
    from otsd.server.live import Live
    from otsd.server.login import Logins
    from otsd.server.metrics import Metrics

# in the wheel the folder lies in the package, in a checkout beside it
_PACKAGED: Final = Path(__file__).parent / "admin_pages"
_BUILT: Final = Path(__file__).resolve().parents[2] / "web" / "admin" / "dist"
_ASSET: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", re.ASCII)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_log = logging.getLogger(__name__)

_AGAIN: Final = ("Log in", "./login")


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the site is made of; ``grant`` takes a refresh token for otsd's own connection."""

    title: str
    base_url: URL
    api: AdminApi
    entrance: Entrance
    accounts: Accounts
    logins: Logins
    live: Live
    metrics: Metrics
    can_connect: Callable[[], bool]
    grant: Callable[[str], Awaitable[None]]


class AdminSite:
    """The handlers of the owner's site."""

    def __init__(self, parts: AdminParts) -> None:
        """Take the parts."""
        self._parts = parts
        self._folder = _PACKAGED if _PACKAGED.is_dir() else _BUILT
        self._secure = parts.base_url.scheme == "https"
        self._path = parts.base_url.path or "/"

    def application(self) -> web.Application:
        """Return the application with every route."""
        application = self._parts.api.application(self._parts.entrance)
        application.middlewares.insert(0, _ours)
        application.router.add_get("/", self.page)
        application.router.add_get("/assets/{name}", self.asset)
        application.router.add_get("/login", self.login)
        application.router.add_get("/connect", self.connect)
        application.router.add_get("/callback", self.callback)
        application.router.add_post("/logout", self.logout)
        application.router.add_get("/healthz", self.healthz)
        application.router.add_get("/metrics", self.metrics)
        application.on_response_prepare.append(self._prepare)
        return application

    def fallback(self, _: web.BaseRequest, said: web.StreamResponse) -> web.Response:
        """Answer in place of aiohttp what it cannot read."""
        answer = problems.problem(said.status, "bad_request", "This request is not in order.")
        policy = {"Content-Security-Policy": f"{_POLICY}; frame-ancestors 'none'"}
        headers = {**answer.headers, **_HEADERS, **policy}
        return PublicResponse(status=answer.status, body=answer.body, headers=headers)

    # -- the admin page ----------------------------------------------------------------------

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Show the admin page to whoever may enter; send others to log in."""
        if (answer := await self._turned_away(request)) is not None:
            return answer
        if not (self._folder / "index.html").is_file():
            text = "Run scripts/setup, which builds it, and start otsd again."
            return self._message(503, "The admin page was not built", text)
        return web.FileResponse(self._folder / "index.html")

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """Serve a file of the admin page; its name changes with its content."""
        await self._parts.entrance.admit(request)
        name = request.match_info["name"]
        if not _ASSET.fullmatch(name) or not (self._folder / "assets" / name).is_file():
            raise web.HTTPNotFound
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return web.FileResponse(self._folder / "assets" / name, headers=headers)

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the process serves."""
        return web.Response(text="ok\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """Show what was measured to whoever may read everything."""
        caller = await self._parts.entrance.admit(request)
        if caller.scope not in (Scope.READ, Scope.ADMIN):
            raise Forbidden(f"An API key with the scope {caller.scope} may not do this.")
        return await self._parts.metrics.show(request.headers.get("Accept", ""))

    # -- the way in and out ------------------------------------------------------------------

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Send the browser to Home Assistant to log in."""
        return await self._begin(request, Purpose.SESSION)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Send the browser to Home Assistant to let otsd itself in."""
        if (answer := await self._turned_away(request)) is not None:
            return answer
        if not self._parts.can_connect():
            text = "Its access token is configured (home_assistant.token), and stays in use."
            return self._message(409, "otsd is connected otherwise", text, ("Back", "./"))
        return await self._begin(request, Purpose.CONNECTION)

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """Receive somebody who comes back from Home Assistant."""
        try:
            self._parts.entrance.check_host(request)
            response = await self._received(request)
        except OtsdError as error:
            # what it says holds neither a code nor a token
            _log.warning("a login was not finished: %s", error)
            response = self._refused(error, request)
        response.del_cookie(logins_of.COOKIE, path=self._path)
        return response

    async def _received(self, request: web.Request) -> web.Response:
        parts = self._parts
        returned = parts.logins.receive(request.query, request.cookies.get(logins_of.COOKIE))
        if returned.purpose is Purpose.CONNECTION:
            await parts.entrance.admit(request)
        grant = await parts.accounts.exchange(returned.code, returned.verifier)
        response = _sent_to("./")
        try:
            user = await parts.accounts.user(grant.access)
            if not user.is_admin:
                raise Forbidden(
                    f"{user.name or 'This user'} is not an administrator of Home Assistant, and "
                    "only administrators may enter here.",
                    "not_an_administrator",
                )
            if returned.purpose is Purpose.CONNECTION:
                await parts.grant(grant.refresh)
            else:
                session = await parts.entrance.begin(user, grant.refresh)
                await self._end(request)  # a session that there was is over
                self._set(response, doors.COOKIE, session, None)
        except OtsdError:
            with suppress(AccountsUnavailable):  # nobody will ever use it
                await parts.accounts.revoke(grant.refresh)
            raise
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        """End the session here and in Home Assistant."""
        try:
            await self._parts.entrance.admit(request)
        except LoginRequired:
            pass  # it has ended already
        except OtsdError as error:
            return self._refused(error, request)
        await self._end(request)
        text = "This browser has no way in any more until you log in again."
        response = self._message(200, "You are logged out", text, ("Log in again", "./login"))
        if doors.COOKIE in request.cookies:  # which is not sent when another site asked for this
            response.del_cookie(doors.COOKIE, path=self._path)
        return response

    # -- parts -------------------------------------------------------------------------------

    async def _begin(self, request: web.Request, purpose: Purpose) -> web.StreamResponse:
        entrance, base = self._parts.entrance, str(self._parts.base_url).rstrip("/")
        name = request.path.rpartition("/")[2]
        if entrance.is_ingress(request):
            return _sent_to("./")  # where nobody has to log in
        try:
            entrance.check_host(request)
        except Misdirected as error:
            return self._refused(error, request)
        if not entrance.is_named(request):
            if "moved" in request.query:
                text = (
                    f"What is in front of otsd must pass on the name by which it is called: {base} "
                    f"arrives here as {request.host}."
                )
                return self._message(421, "The proxy hides the address", text)
            # Home Assistant sends the browser back to the one address, which must have the cookie
            return _sent_to(f"{base}/{name}?moved")
        if "anyway" not in request.query:
            try:
                await self._parts.accounts.knock()
            except AccountsUnavailable as error:
                again = ("Try again", f"./{name}")
                anyway = ("Log in all the same", f"./{name}?anyway")
                text = _why_away(error if self._parts.accounts.is_open else None)
                return self._message(503, "Home Assistant cannot be reached", text, again, anyway)
        begun = self._parts.logins.begin(purpose)
        response = _sent_to(self._parts.accounts.authorize_url(begun.state, begun.verifier))
        lifetime = int(logins_of.LIFETIME.total_seconds())
        self._set(response, logins_of.COOKIE, begun.cookie, lifetime)
        return response

    async def _turned_away(self, request: web.Request) -> web.Response | None:
        """Answer whoever may not enter: he is sent to log in, or told why not."""
        try:
            await self._parts.entrance.admit(request)
        except LoginRequired:
            return _sent_to("./login")
        except OtsdError as error:
            return self._refused(error, request)
        return None

    async def _end(self, request: web.Request) -> None:
        if (holder := await self._parts.entrance.end(request)) is not None:
            self._parts.live.end(holder)

    def _set(
        self, response: web.StreamResponse, name: str, value: str, max_age: int | None
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path=self._path,
            secure=self._secure,
            httponly=True,
            samesite="Lax",
        )

    def _refused(self, error: OtsdError, request: web.Request) -> web.Response:  # noqa: PLR0911 - a page each
        """Return the page that says why somebody may not enter, or not this way."""
        text, again = str(error), ("Try again", "./login")
        if self._parts.entrance.is_ingress(request):
            again = ("Try again", "./")
        match error:
            case LoginRequired():
                return self._message(401, "Log in first", text, _AGAIN)
            case LoginFailed():
                return self._message(400, "This login cannot be finished", text, _AGAIN)
            case LoginRefused():
                text = "It was used already, or took too long."
                return self._message(400, "Home Assistant does not accept this login", text, _AGAIN)
            case Forbidden():
                return self._message(403, "You may not enter here", text, again)
            case Misdirected():
                return self._message(421, "This is not the right address", text)
            case AccountsUnavailable() | StorageUnavailable():
                return self._message(503, "Not at the moment", text, again)
            case _:
                return self._message(500, "Something went wrong", "See the log of otsd.")

    def _message(
        self, status: int, heading: str, text: str, *links: tuple[str, str]
    ) -> web.Response:
        return message(status, self._parts.title, heading, text, *links)

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        policy = response.headers.get("Content-Security-Policy", _POLICY)
        framed_by = "'self'" if self._parts.entrance.is_ingress(request) else "'none'"
        response.headers["Content-Security-Policy"] = f"{policy}; frame-ancestors {framed_by}"
        if "Server" in response.headers:
            del response.headers["Server"]


@web.middleware
async def _ours(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    response = await handler(request)
    response.is_ours = True  # type: ignore[attr-defined] # see Connection.finish_response
    return response


def _sent_to(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where})


def _why_away(error: AccountsUnavailable | None) -> str:
    """Say it to whoever comes; an address that browsers do not know is told in the log alone."""
    reason = "it does not answer otsd" if error is None else error.reason
    if not reason.startswith("http"):
        reason = f"{reason[0].upper()}{reason[1:]}"
    return f"{reason}. Is Home Assistant running, and is its address right (home_assistant.url)?"
