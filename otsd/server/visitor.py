"""The public site: what strangers reach. It has no route to anything else, on a socket of its own.

GET, HEAD and OPTIONS never spend anything: messengers fetch links. Whatever is answered, also by
aiohttp itself, carries the same headers.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from otsd.core.errors import (
    BadRequest,
    OtsdError,
    TooManyRequests,
    UnknownToken,
)
from otsd.core.times import isoformat
from otsd.core.tokens import ATTEMPT, Submission, SubmissionState, Token, Visitor
from otsd.server.answers import Answer, Speaker
from otsd.server.forwarded import visitor_address
from otsd.server.listener import log_unexpected
from otsd.server.pages import Offer, Pages
from otsd.server.throttle import Throttle

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from otsd.core.ports import Clock, Found, Home
    from otsd.core.submit import Submissions

LARGEST_BODY: Final = 16 * 1024
_PATIENCE: Final = timedelta(seconds=2)
_API: Final = "/api/public/"
_USER_AGENT_LENGTH: Final = 256
# a finished attempt that is looked at again after this is shown as one that was done before
_REPLAY_AFTER: Final = timedelta(seconds=15)

_REMEMBERED_ANSWERS: Final = 128
_HTML: Final = "text/html; charset=utf-8"
_PLAIN: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"

# nearly every query; the general way costs as much as all the rest of an unknown code
_CODE_ALONE: Final = re.compile(r"token=([0-9A-Za-z]+)", re.ASCII)

_HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
}


Handler: TypeAlias = "Callable[[web.Request], Awaitable[web.StreamResponse]]"


class PublicResponse(web.Response):
    """An answer of the public site, which does not name the server's software."""

    is_ours = True

    async def _prepare_headers(self) -> None:
        # aiohttp adds its name and version here, after every hook that it has
        await super()._prepare_headers()
        self._headers.pop("Server", None)


@dataclass(frozen=True, slots=True)
class Site:
    """What the owner set about the public site; ``root`` is the path of its base URL."""

    title: str
    contact: str | None
    root: str
    trusted_proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()


class VisitorSite:
    """The handlers of the public site."""

    def __init__(
        self,
        site: Site,
        *,
        submissions: Submissions,
        home: Home,
        now: Clock,
        throttle: Throttle,
    ) -> None:
        """Take the parts and load the pages."""
        self._site = site
        # links are written with the path as it is encoded, and aiohttp routes by what it says
        self._root = URL(site.root, encoded=True).path_safe
        self._submissions = submissions
        self._home = home
        self._now = now
        self._throttle = throttle
        self._pages = Pages(title=site.title, contact=site.contact, root=site.root)
        # an unknown code must cost little: guessing is the one thing that anybody can do for ever
        self._page_body = lru_cache(_REMEMBERED_ANSWERS)(self._render_page)
        self._error_body = lru_cache(_REMEMBERED_ANSWERS)(_render_error)
        headers = {**_HEADERS, "Content-Security-Policy": self._pages.policy}
        self._headers = {
            kind: CIMultiDict({**headers, "Content-Type": kind}) for kind in (_HTML, _PLAIN, _JSON)
        }

    def application(self) -> web.Application:
        """Return the application: every route there is, at ``/`` and below the base URL's path."""
        application = web.Application(client_max_size=LARGEST_BODY)
        get, post = application.router.add_get, application.router.add_post
        for root in sorted({"", self._root}):
            get(f"{root}/", self._guarded(self.page))
            post(f"{root}/", self._guarded(self.post))
            if root:
                get(root, self._guarded(self.page))
            get(f"{root}{_API}token/details", self._guarded(self.details))
            post(f"{root}{_API}token/submit", self._guarded(self.submit))
            get(f"{root}{_API}ping", self.ping)
            get(f"{root}/healthz", self.healthz)
        return application

    def fallback(self, request: web.BaseRequest, said: web.StreamResponse) -> web.Response:
        """Answer in place of aiohttp: no such page, no such method, a request it cannot read."""
        response = self._say(request, _http_answer(said.status))
        if "Allow" in said.headers:
            response.headers["Allow"] = said.headers["Allow"]
        return response

    # -- handlers ----------------------------------------------------------------------------

    async def page(self, request: web.Request) -> web.Response:
        """Show the form, a token's page, or what became of an attempt."""
        query = _query(request)
        code = query.get("token", "")
        if code != (tidy := code.strip()):  # as it comes out of a message
            response = self._text(303, "", _PLAIN)
            response.headers["Location"] = f"{self._site.root}/?token={quote(tidy)}"
            return response
        if not code:
            return self._text(200, self._pages.form())
        if attempt := query.get("attempt"):
            _check_attempt(attempt)
        found = self._submissions.find(code)
        if attempt:
            submission = await self._submissions.attempt(found.token, attempt, _PATIENCE)
            if submission is not None:
                # found anew: the use of one that was waited for may have come back
                return self._outcome_page(self._submissions.find(code), code, submission)
        try:
            action = self._submissions.check(found)
        except OtsdError as error:
            return self._refusal_page(error, found)
        token, speaker = found.token, self._speaker()
        return self._text(
            200,
            self._pages.token(
                title=action.title,
                comment=token.comment,
                uses=_uses(token),
                expires=speaker.bound(token.expires_at) if token.expires_at else None,
                expires_iso=isoformat(token.expires_at) if token.expires_at else None,
                offer=_offer(code),
            ),
        )

    async def post(self, request: web.Request) -> web.Response:
        """Submit; redirect to the attempt's page as soon as a use is taken."""
        form = _form(request.content_type, await request.read())
        code, attempt = form.get("token", ""), form.get("attempt") or secrets.token_urlsafe(16)
        _check_attempt(attempt)
        found = self._submissions.find(code)
        try:
            await self._submissions.submit(found, attempt, self._visitor(request, code, attempt))
        except OtsdError as error:
            response = self._refusal_page(error, found)
            if "Refresh" in response.headers:
                # without an address it would be this one, which is nobody's link
                response.headers["Refresh"] += f"; url={self._site.root}/?token={quote(code)}"
            return response
        response = self._text(303, "", _PLAIN)
        response.headers["Location"] = (
            f"{self._site.root}/?token={quote(code)}&attempt={quote(attempt)}"
        )
        return response

    async def details(self, request: web.Request) -> web.Response:
        """Tell a program what a token's page shows."""
        query = _query(request)
        found = self._submissions.find(query.get("token", ""))
        action, token = self._submissions.check(found), found.token
        return self._json(
            200,
            {
                "service_call_name": action.title,
                "comment": token.comment,
                "expires": isoformat(token.expires_at) if token.expires_at else None,
                "uses_max": token.max_uses,
                "uses_left": token.uses_left,
            },
        )

    async def submit(self, request: web.Request) -> web.Response:
        """Submit for a program; answer when it has finished, or after two seconds."""
        await request.read()  # it means nothing, and is bounded all the same
        query = _query(request)
        attempt = request.headers.get("Idempotency-Key") or secrets.token_urlsafe(16)
        code = query.get("token", "")
        _check_attempt(attempt)
        found = self._submissions.find(code)
        attempted = await self._submissions.submit(
            found, attempt, self._visitor(request, code, attempt)
        )
        submission = await attempted.finished(_PATIENCE)
        answer = self._speaker().outcome(submission)
        if submission.state not in (SubmissionState.RUNNING, SubmissionState.EXECUTED):
            return self._error(answer)
        return self._json(
            answer.status,
            {
                "state": submission.state.value,
                "uses_left": submission.uses_left,
                "attempt": attempt,
            },
        )

    async def ping(self, _: web.Request) -> web.Response:
        """Answer a client of the One Time Service add-on."""
        return self._json(200, "pong")

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the process serves."""
        return self._text(200, "ok\n", _PLAIN)

    # -- from errors to answers --------------------------------------------------------------

    def _guarded(self, handler: Handler) -> Handler:
        """Have every error of a handler answered in the manner of what was asked for.

        A wrapper rather than a middleware, which costs a tenth of an unknown code's time; what
        comes before a handler is answered by `fallback`.
        """

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except OtsdError as error:
                return self._say(request, self._speaker().refusal(self._throttled(request, error)))
            except web.HTTPRequestEntityTooLarge as error:
                response = self._say(request, _http_answer(error.status))
            except web.RequestPayloadError:  # a chunk that is none, or a client that went away
                response = self._say(request, _http_answer(400))
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - logged without its text, which may hold a code
                log_unexpected(error)
                return self._say(request, _http_answer(500))
            response.force_close()  # the rest of the body is not wanted
            return response

        return guarded

    def _throttled(self, request: web.Request, error: OtsdError) -> OtsdError:
        if not isinstance(error, UnknownToken):
            return error
        wait = self._throttle.wrong_code(self._address(request))
        if wait is None and error.imported:
            wait = self._throttle.wrong_imported_code()
        return error if wait is None else TooManyRequests(wait)

    def _say(self, request: web.BaseRequest, answer: Answer) -> web.Response:
        if request.rel_url.path_safe.startswith((_API, f"{self._root}{_API}")):
            return self._error(answer)
        page = self._answer(answer.status, self._page_body(answer), _HTML)
        response = self._looking_again(page, answer)
        if request.method == "POST":  # a browser would look again at an address without a link
            response.headers.pop("Refresh", None)
        return response

    def _refusal_page(self, error: OtsdError, found: Found) -> web.Response:
        answer = self._speaker().refusal(error)
        return self._answer_page(
            answer,
            title=self._submissions.title(found.token),
            comment=found.token.comment,
            show_contact=True,
        )

    def _outcome_page(self, found: Found, code: str, submission: Submission) -> web.Response:
        answer = self._speaker().outcome(submission)
        finished_at = submission.finished_at
        is_open = finished_at is not None and self._is_usable(found)
        if finished_at is not None:
            # some proxies put a page of their own in place of the bodies of 502 and 504
            answer = replace(answer, status=200, retry_after=None)
        is_replay = (
            submission.state is SubmissionState.EXECUTED
            and finished_at is not None
            and self._now() - finished_at >= _REPLAY_AFTER
        )
        return self._answer_page(
            answer,
            headline="Already done" if is_replay else None,
            is_replay=is_replay,
            title=self._submissions.title(found.token),
            comment=found.token.comment,
            offer=_offer(code) if is_open else None,
            uses=_uses(found.token) if finished_at else None,
            show_contact=finished_at is not None,
        )

    def _is_usable(self, found: Found) -> bool:
        try:
            self._submissions.check(found)
        except OtsdError:
            return False
        return True

    # -- parts -------------------------------------------------------------------------------

    def _visitor(self, request: web.Request, code: str, attempt: str) -> Visitor:
        if code in attempt:  # attempts are kept
            raise BadRequest("the attempt holds the code")
        agent = request.headers.get("User-Agent")
        if agent and code in agent:  # it would be kept, and told to Home Assistant
            agent = None
        # header bytes that are no UTF-8 come as halves of surrogate pairs, which JSON cannot carry
        shown = agent and agent.encode("utf-8", "replace").decode()[:_USER_AGENT_LENGTH]
        return Visitor(self._address(request), shown)

    def _address(self, request: web.Request) -> str:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return visitor_address(
            peer[0] if peer else "",
            request.headers.getall("X-Forwarded-For", ()),
            self._site.trusted_proxies,
        )

    def _speaker(self) -> Speaker:
        return Speaker(self._now(), self._home.zone)

    def _answer_page(
        self,
        answer: Answer,
        *,
        show_contact: bool,
        **facts: Any,  # noqa: ANN401
    ) -> web.Response:
        page = self._pages.answer(answer, show_contact=show_contact, **facts)
        return self._looking_again(self._text(answer.status, page), answer)

    def _looking_again(self, page: web.Response, answer: Answer) -> web.Response:
        # works without JavaScript, and keeps the address, which has the attempt
        if (seconds := answer.looks_again) is not None:
            page.headers["Refresh"] = str(min(seconds, 3600))
        return _retrying(page, answer)

    def _render_page(self, answer: Answer) -> bytes:
        """Render the page of an answer that is the same for everybody."""
        is_ours = answer.status != 400  # noqa: PLR2004 - whoever sent that needs no owner
        return self._pages.answer(answer, show_contact=is_ours).encode()

    def _error(self, answer: Answer) -> web.Response:
        return _retrying(self._answer(answer.status, self._error_body(answer), _JSON), answer)

    def _json(self, status: int, response: object) -> web.Response:
        return self._answer(status, _dump({"response": response}), _JSON)

    def _text(self, status: int, text: str, content_type: str = _HTML) -> web.Response:
        return self._answer(status, text.encode(), content_type)

    def _answer(self, status: int, body: bytes, content_type: str) -> web.Response:
        return PublicResponse(status=status, body=body, headers=self._headers[content_type])


def _retrying(response: web.Response, answer: Answer) -> web.Response:
    if answer.retry_after is not None and answer.status in (429, 503):
        response.headers["Retry-After"] = str(answer.retry_after)
    return response


def _dump(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _render_error(answer: Answer) -> bytes:
    """Render an error in the envelope of the One Time Service add-on."""
    sentence = f"{answer.headline}. {answer.text}".rstrip()
    return _dump({"error": sentence, "code": answer.code, "response": None})


def _query(request: web.Request) -> dict[str, str]:
    if alone := _CODE_ALONE.fullmatch(request.rel_url.raw_query_string):
        return {"token": alone[1]}
    return _single(request.rel_url.query.items())


def _single(pairs: Any) -> dict[str, str]:  # noqa: ANN401
    """Return parameters by name; the same one twice is not in order."""
    single: dict[str, str] = {}
    for name, value in pairs:
        if name in single and name in ("token", "attempt"):
            raise BadRequest("a parameter stands twice")
        single[name] = value
    return single


def _form(content_type: str, body: bytes) -> dict[str, str]:
    if body and content_type != "application/x-www-form-urlencoded":
        raise BadRequest("the body is not a form")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadRequest("the form cannot be read") from error
    return _single(pairs)


def _check_attempt(attempt: str) -> None:
    if not ATTEMPT.fullmatch(attempt):
        raise BadRequest("an attempt is 8 to 64 of A-Z, a-z, 0-9, _ and -")


def _offer(code: str) -> Offer:
    return Offer(code, secrets.token_urlsafe(16))


def _uses(token: Token) -> str:
    match token.uses_left:
        case None:
            return "As often as you like"
        case 0:
            return "No uses left"
        case 1:
            return "Can be used once" if token.max_uses == 1 else "1 use left"
        case left:
            return f"{left} uses left"


def _http_answer(status: int) -> Answer:
    match status:
        case 404:
            return Answer(404, "not_found", "There is no such page", "Please check the address.")
        case 405:
            return Answer(405, "method_not_allowed", "This cannot be done here", "")
        case 413:
            return Answer(413, "bad_request", "This request is too large", "Nothing was done.")
        case 400 | 417:
            return Answer(status, "bad_request", "This request is not in order", "")
        case _:
            return Answer(status, "internal_error", "Something went wrong", "Nothing was done.")
