"""Home Assistant's users: logging in with OAuth 2 and IndieAuth, and who is an administrator.

The rules are Home Assistant's (https://developers.home-assistant.io/docs/auth_api): the client id
is our URL with its trailing slash, equal byte for byte at each step; a code works once; an access
token lives for half an hour and needs its refresh token; revoking is always answered with 200.

A demoted administrator's refresh token goes on working, so being let in by Home Assistant is not
enough: `Accounts.user` says whether he is one.

Home Assistant can ban our address for ever after a few wrong codes or tokens in a row, and anybody
who reaches the admin page can send us wrong ones. So what a stranger brings is asked about one at
a time, and after two refusals only once our own token has been accepted, which ends the count. It
counts logins by websocket alone (``homeassistant.components.http.ban.process_success_login``).
So it is with sessions, after one refusal: many can end at once, when a backup of Home Assistant is
restored. They are counted apart, so that strangers cannot keep us from asking about a session.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from otsd.core.access import AccountsUnavailable, LoginRefused
from otsd.home.reasons import why

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from yarl import URL

_DEADLINE: Final = 10.0
_KNOCK_DEADLINE: Final = aiohttp.ClientTimeout(total=2.0)
_KNOCK_EVERY: Final = 2.0
# a name that no name server can be asked for is a UnicodeError
_AWAY: Final = (aiohttp.ClientError, TimeoutError, UnicodeError)
_GOODBYE: Final = aiohttp.ClientWSTimeout(ws_close=1.0)
_MOST_OF_STRANGERS: Final = 2
_MOST_OF_SESSIONS: Final = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """What Home Assistant gives for a code; both open it, so neither is shown."""

    access: str
    refresh: str

    def __repr__(self) -> str:
        """Show nothing."""
        return "Grant()"


@dataclass(frozen=True, slots=True)
class User:
    """A user of Home Assistant."""

    id: str
    name: str
    is_admin: bool


@dataclass(slots=True)
class _Questions:
    """Those that are asked one at a time, and how many in a row were answered with no."""

    most: int
    refused: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Accounts:
    """Asks Home Assistant about its users, over connections of their own; a context manager."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        *,
        url: URL,
        browser_url: URL,
        client_id: str,
        redirect_uri: str,
        own_token: Callable[[], Awaitable[str]],
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        """Take where Home Assistant is for us and for browsers, and who we are to it.

        ``own_token`` returns a token that was accepted, or raises `AccountsUnavailable`.
        """
        self._url = url
        self._browser_url = browser_url
        self._client_id = client_id
        self._redirect_uri = redirect_uri
        self._own_token = own_token
        self._tls = tls
        self._strangers = _Questions(_MOST_OF_STRANGERS)
        self._sessions = _Questions(_MOST_OF_SESSIONS)
        self._knocking = asyncio.Lock()
        self._knocked: tuple[float, AccountsUnavailable | None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=_DEADLINE),
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def authorize_url(self, state: str, verifier: str) -> str:
        """Return where a browser goes to log in; PKCE by S256 (RFC 7636)."""
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return str((self._browser_url / "auth/authorize").with_query(query))

    @property
    def is_open(self) -> bool:
        """Whether browsers go to the same address as otsd, so that it is no secret."""
        return self._url == self._browser_url

    async def knock(self) -> None:
        """See whether anything answers where Home Assistant is, for us; 2 s at most.

        Anybody may have this asked, so whoever comes soon after another shares his answer. What is
        asked for needs no login, and can be no wrong one.

        Raises:
            AccountsUnavailable: nothing does.

        """
        loop = asyncio.get_running_loop()
        async with self._knocking:
            if self._knocked is None or loop.time() >= self._knocked[0] + _KNOCK_EVERY:
                away = await self._no_answer()
                self._knocked = (loop.time(), away)
        if (away := self._knocked[1]) is not None:
            raise AccountsUnavailable(str(away), away.reason)

    async def _no_answer(self) -> AccountsUnavailable | None:
        url = self._url / "manifest.json"
        try:
            async with self._http.get(url, timeout=_KNOCK_DEADLINE, allow_redirects=False):
                return None
        except _AWAY as error:
            return self._away(error)

    async def exchange(self, code: str, verifier: str) -> Grant:
        """Return what a code is worth; it works once. Raises as `refresh`."""
        async with self._counted(self._strangers):
            said = await self._ask(
                grant_type="authorization_code", code=code, code_verifier=verifier
            )
        if not isinstance(said.get("refresh_token"), str):
            raise AccountsUnavailable("Home Assistant gave no refresh token.")
        return Grant(said["access_token"], said["refresh_token"])

    async def refresh(self, refresh: str) -> str:
        """Return a new access token.

        Raises:
            LoginRefused: Home Assistant does not accept it any more.
            AccountsUnavailable: it could not be asked.

        """
        said = await self._ask(grant_type="refresh_token", refresh_token=refresh)
        return str(said["access_token"])

    async def revoke(self, refresh: str) -> None:
        """Give a refresh token up, with everything that was opened by it, if that can be said."""
        try:
            async with self._http.post(
                self._url / "auth/revoke", data={"token": refresh}
            ) as response:
                await response.read()
        except _AWAY as error:
            raise self._away(error) from error

    async def user(self, access: str) -> User:
        """Return whose access token this is; raises as `refresh`."""
        scheme = "wss" if self._url.scheme == "https" else "ws"
        url = (self._url / "api/websocket").with_scheme(scheme)
        try:
            async with (
                asyncio.timeout(_DEADLINE),
                self._http.ws_connect(url, timeout=_GOODBYE) as websocket,
            ):
                await websocket.receive_json()
                await websocket.send_json({"type": "auth", "access_token": access})
                if (await websocket.receive_json())["type"] != "auth_ok":
                    raise LoginRefused("Home Assistant does not accept this token.")
                self._strangers.refused = self._sessions.refused = 0
                await websocket.send_json({"id": 1, "type": "auth/current_user"})
                said = (await websocket.receive_json())["result"]
                return User(str(said["id"]), str(said.get("name") or ""), said["is_admin"] is True)
        # of another form than Home Assistant's, an answer raises one of the last three
        except (aiohttp.ClientError, TimeoutError, TypeError, ValueError, LookupError) as error:
            raise self._away(error) from error

    async def user_of_stranger(self, access: str) -> User:
        """Return whose access token this is that anybody may have sent; raises as `refresh`."""
        async with self._counted(self._strangers):
            return await self.user(access)

    async def user_of_session(self, refresh: str) -> User:
        """Return whose refresh token this is, which was good once; raises as `refresh`."""
        async with self._counted(self._sessions):
            return await self.user(await self.refresh(refresh))

    @asynccontextmanager
    async def _counted(self, questions: _Questions) -> AsyncIterator[None]:
        """Let a question be asked whose answer counts against us when it is no."""
        async with questions.turn:
            if questions.refused >= questions.most:
                try:
                    await self.user(await self._own_token())
                except (AccountsUnavailable, LoginRefused) as error:
                    raise AccountsUnavailable(
                        "Too many wrong logins came here, and Home Assistant, which could ban otsd "
                        "for them, is asked no more until otsd itself is connected. If it cannot "
                        "be, start it again."
                    ) from error
            try:
                yield
            except LoginRefused:
                questions.refused += 1
                raise

    def _away(self, error: Exception) -> AccountsUnavailable:
        reason = why(self._url, error)
        return AccountsUnavailable(f"Home Assistant cannot be reached: {reason}.", reason)

    async def _ask(self, **form: str) -> dict[str, Any]:
        form["client_id"] = self._client_id
        try:
            async with self._http.post(self._url / "auth/token", data=form) as response:
                status = response.status
                text = await response.read()
        except _AWAY as error:
            raise self._away(error) from error
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        refused = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        if status in refused and isinstance(said, dict) and "error" in said:
            raise LoginRefused(str(said.get("error_description") or said["error"])[:200])
        if status != HTTPStatus.OK or not isinstance(said, dict) or "access_token" not in said:
            raise AccountsUnavailable(f"Home Assistant answers with HTTP {status}.")
        return said
