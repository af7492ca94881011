"""Who may enter the owner's side: one place that turns a request into a `Caller`, or refuses.

    peer is the Supervisor's ingress ─► the administrator it names
    Authorization: Bearer            ─► an API key, or (if switched on) Home Assistant's own token
    a cookie                         ─► an administrator who logged in with Home Assistant

A header is believed from the Supervisor's address alone, and only under the Supervisor: to believe
it from anyone is the most common hole of its kind. A cookie is sent by browsers also for requests
that other sites make, so with it whatever changes something must come from our own pages; and the
name by which we are called must be ours, or a name that an attacker owns could be pointed at us.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from cryptography.fernet import Fernet, InvalidToken
from yarl import URL

from otsd.core.access import (
    IDLE,
    LONGEST,
    AccountsUnavailable,
    Caller,
    Forbidden,
    LoginRefused,
    LoginRequired,
    Misdirected,
    Session,
)
from otsd.core.errors import HomeError, OtsdError, StorageUnavailable
from otsd.core.keys import PREFIX, digest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from aiohttp import web

    from otsd.core.access import Access
    from otsd.core.ports import Clock

COOKIE: Final = "otsd_session"
INGRESS: Final = "172.30.32.2"
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_NOTED_EVERY: Final = timedelta(minutes=1)
_ADMINISTRATORS_FOR: Final = timedelta(minutes=5)
_TOKENS_FOR: Final = timedelta(seconds=60)
_MOST_TOKENS: Final = 1_000

_NOT_ADMIN: Final = "Only an administrator of Home Assistant may enter here."
_ENDED: Final = "This session has ended. Log in again."


class User(Protocol):
    """A user, as Home Assistant tells of him."""

    @property
    def id(self) -> str:
        """His id, which stays."""

    @property
    def name(self) -> str:
        """His name, which he may change."""

    @property
    def is_admin(self) -> bool:
        """Whether he is an administrator now."""


class Accounts(Protocol):
    """What is asked of Home Assistant; see `otsd.home.accounts.Accounts`."""

    async def user_of_session(self, refresh: str) -> User:
        """Return whose refresh token this is."""

    async def user_of_stranger(self, access: str) -> User:
        """Return whose access token this is that anybody may have sent."""

    async def revoke(self, refresh: str) -> None:
        """Give a refresh token up."""


@dataclass(frozen=True, slots=True)
class House:
    """The rules of this house; ``administrators`` returns the names of active ones by user id."""

    base_url: URL
    supervised: bool
    accept_tokens: bool
    administrators: Callable[[], Awaitable[Mapping[str, str]]]


class Entrance:
    """Lets callers in, and knows sessions."""

    def __init__(
        self, house: House, *, access: Access, accounts: Accounts, secret: bytes, now: Clock
    ) -> None:
        """Take the parts; refresh tokens are kept encrypted with the ``secret``, a Fernet key."""
        self._house = house
        self._access = access
        self._accounts = accounts
        self._box = Fernet(secret)
        self._now = now
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._ask_later: dict[bytes, datetime] = {}
        self._ended: set[bytes] = set()
        self._administrators: tuple[datetime, Mapping[str, str]] | None = None
        self._bearers: OrderedDict[bytes, tuple[datetime, Caller | None]] = OrderedDict()
        self._bearer_turn = asyncio.Lock()

    async def admit(self, request: web.BaseRequest) -> Caller:
        """Return who a request is from.

        Raises:
            LoginRequired: nobody we know.
            Forbidden: somebody who may not enter, or a change that another site asked for.
            Misdirected: it was sent to a name that is not ours.

        """
        caller = await self._caller(request)
        if caller.via == "ingress":
            _check_origin(request, request.headers.get("X-Forwarded-Host", ""))
        elif caller.via == "home_assistant":
            _check_origin(request, request.host)
            await self._note(request)
        return caller

    async def still(self, request: web.BaseRequest) -> bool:
        """Return whether whoever was let in still may: a stream asks from time to time."""
        try:
            await self._caller(request)
        except (LoginRequired, Forbidden):
            return False
        except OtsdError:
            return True  # nothing speaks against him
        return True

    async def _caller(self, request: web.BaseRequest) -> Caller:
        if self.is_ingress(request):
            return await self._by_ingress(request)
        kind, _, credential = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and credential:
            return await self._by_bearer(credential.strip())
        self.check_host(request)
        return await self._by_cookie(request)

    # -- ingress -----------------------------------------------------------------------------

    def is_ingress(self, request: web.BaseRequest) -> bool:
        """Return whether a request comes through the Supervisor, whatever it says of itself."""
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return self._house.supervised and peer is not None and peer[0] == INGRESS

    async def _by_ingress(self, request: web.BaseRequest) -> Caller:
        user_id = request.headers.get("X-Remote-User-Id", "")
        try:
            name = (await self._known_administrators()).get(user_id)
        except HomeError as error:
            raise AccountsUnavailable(
                "Home Assistant cannot say now who is an administrator; try again in a moment."
            ) from error
        if not user_id or name is None:
            raise Forbidden(_NOT_ADMIN, "not_an_administrator")
        return Caller(f"user:{name}", f"ingress:{user_id}", "ingress", user_id, name)

    async def _known_administrators(self) -> Mapping[str, str]:
        now = self._now()
        if self._administrators is None or not (
            self._administrators[0] <= now < self._administrators[0] + _ADMINISTRATORS_FOR
        ):
            self._administrators = (now, await self._house.administrators())
        return self._administrators[1]

    # -- programs ----------------------------------------------------------------------------

    async def _by_bearer(self, credential: str) -> Caller:
        digest, now = digest_of(credential), self._now()
        if credential.startswith(PREFIX):
            key = self._access.key(digest)
            if key is None or not key.is_valid(now):
                raise LoginRequired("This API key is not valid (any more).")
            if key.last_used_at is None or now >= key.last_used_at + _NOTED_EVERY:
                with suppress(StorageUnavailable):
                    await self._access.key_used(key.id, now)
            maker = f"key:{key.name}"
            return Caller(maker, f"key:{key.id}", "api_key", None, key.name, key.scope, key)
        if not self._house.accept_tokens:
            raise LoginRequired("This is not an API key of otsd.")
        async with self._bearer_turn:  # so that two are never asked about at once
            known = self._bearers.get(digest)
            if known is None or not known[0] <= now < known[0] + _TOKENS_FOR:
                known = (now, await self._ask_of(credential))
                self._bearers[digest] = known
                self._bearers.move_to_end(digest)
                if len(self._bearers) > _MOST_TOKENS:
                    self._bearers.popitem(last=False)
        if (caller := known[1]) is None:
            raise LoginRequired("Home Assistant does not accept this token.")
        if caller.user_id is None:
            raise Forbidden(_NOT_ADMIN, "not_an_administrator")
        return caller

    async def _ask_of(self, credential: str) -> Caller | None:
        try:
            user = await self._accounts.user_of_stranger(credential)
        except LoginRefused:
            return None
        holder = f"token:{user.id}"
        user_id = user.id if user.is_admin else None
        return Caller(f"user:{user.name}", holder, "home_assistant_token", user_id, user.name)

    # -- administrators who logged in ----------------------------------------------------------

    def check_host(self, request: web.BaseRequest) -> None:
        """Raise `Misdirected` unless a browser called us by our name, or as this machine."""
        if not self.is_named(request) and not _is_loopback(_called(request).host or ""):
            raise Misdirected(
                "This is not the address of the admin page, which is "
                f"{self._house.base_url}: see admin.base_url."
            )

    def is_named(self, request: web.BaseRequest) -> bool:
        """Return whether a browser called us by our name."""
        base = self._house.base_url
        # behind a proxy the port that is left out is that of its own scheme
        called = _called(request).with_scheme(base.scheme)
        return (called.host, called.port) == (base.host, base.port)

    async def begin(self, user: User, refresh: str) -> str:
        """Begin the session of an administrator; return its id, for the cookie."""
        now = self._now()
        for digest, ended in self._access.sessions_before(now - IDLE, now - LONGEST):
            await self._close(digest, ended)
            self._ended.discard(digest)
        session_id = secrets.token_urlsafe(32)
        sealed = self._box.encrypt(refresh.encode())
        session = Session(user.id, user.name, sealed, now, now, now)
        await self._access.begin_session(digest_of(session_id), session)
        return session_id

    async def end(self, request: web.BaseRequest) -> str | None:
        """End the session of a request, here and in Home Assistant; return who held it."""
        session_id = request.cookies.get(COOKIE, "")
        session = self._access.session(digest_of(session_id))
        if session is None:
            return None
        await self._close(digest_of(session_id), session)
        return _holder(digest_of(session_id))

    async def _by_cookie(self, request: web.BaseRequest) -> Caller:
        session_id = request.cookies.get(COOKIE)
        if not session_id:
            raise LoginRequired
        digest = digest_of(session_id)
        session = await self._valid(digest)
        name = session.user_name
        return Caller(f"user:{name}", _holder(digest), "home_assistant", session.user_id, name)

    async def _note(self, request: web.BaseRequest) -> None:
        """Note that a session is in use."""
        digest, now = digest_of(request.cookies[COOKIE]), self._now()
        with suppress(StorageUnavailable):
            session = self._access.session(digest)
            if session is not None and now >= session.seen_at + _NOTED_EVERY:
                await self._access.update_session(digest, session.seen(now))

    async def _valid(self, digest: bytes) -> Session:
        """Return a session that holds now, after asking about its user if that is due."""
        session = await self._current(digest)
        if self._is_due(digest, session):
            # the requests of a page come together, and one question is enough for all
            async with self._asking.setdefault(digest, asyncio.Lock()):
                session = await self._current(digest)
                if self._is_due(digest, session):
                    session = await self._ask_again(digest, session)
        return session

    async def _current(self, digest: bytes) -> Session:
        session = self._access.session(digest)
        if session is None or digest in self._ended:
            raise LoginRequired(_ENDED)
        if not session.is_valid(self._now()):
            await self._shut_out(digest, session)
            raise LoginRequired(_ENDED)
        return session

    def _is_due(self, digest: bytes, session: Session) -> bool:
        now = self._now()
        return session.must_ask(now) and now >= self._ask_later.get(digest, now)

    async def _ask_again(self, digest: bytes, session: Session) -> Session:
        try:
            user = await self._accounts.user_of_session(self._opened(session))
        except AccountsUnavailable:
            # whoever is in stays in while Home Assistant is away, and nobody gets in
            self._ask_later[digest] = self._now() + _NOTED_EVERY
            return session
        except LoginRefused as error:
            await self._shut_out(digest, session)
            raise LoginRequired("Home Assistant has ended this session. Log in again.") from error
        if not user.is_admin or user.id != session.user_id:
            await self._shut_out(digest, session)
            raise LoginRequired(f"{_NOT_ADMIN} You are not one any more.")
        self._ask_later.pop(digest, None)
        asked = replace(session, user_name=user.name, asked_at=self._now())
        with suppress(StorageUnavailable):  # then he is asked about once more
            await self._access.update_session(digest, asked)
        return asked

    async def _shut_out(self, digest: bytes, session: Session) -> None:
        """Close a session that does not hold any more, also while the store cannot forget it."""
        try:
            await self._close(digest, session)
        except StorageUnavailable:
            self._ended.add(digest)

    async def _close(self, digest: bytes, session: Session) -> None:
        await self._access.end_session(digest)
        self._ask_later.pop(digest, None)
        with suppress(AccountsUnavailable, LoginRefused):
            await self._accounts.revoke(self._opened(session))

    def _opened(self, session: Session) -> str:
        try:
            return self._box.decrypt(session.refresh).decode()
        except InvalidToken as error:  # sealed with another key
            raise LoginRefused("The key of this instance is another now.") from error


def _check_origin(request: web.BaseRequest, host: str) -> None:
    """Refuse a change that a page of another site asked for with our visitor's cookie."""
    if request.method in _SAFE:
        return
    # browsers send the first on https and loopback only, the second with every POST
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        is_ours = site == "same-origin"
    else:
        _, _, origin = request.headers.get("Origin", "").partition("://")
        is_ours = bool(origin) and origin.lower() == host.lower()
    if not is_ours:
        raise Forbidden("This was not asked for by a page of ours.", "foreign_origin")


def _called(request: web.BaseRequest) -> URL:
    """Return the name by which a request calls us; a name that nobody has when it is none."""
    try:
        return URL(f"http://{request.host}").origin()
    except ValueError:
        return URL("http://invalid")


def _holder(digest: bytes) -> str:
    return f"session:{digest.hex()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
