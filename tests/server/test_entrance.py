"""Who may enter, where only a clock or a refusal of Home Assistant can show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from cryptography.fernet import Fernet
from yarl import URL

from otsd.core.access import (
    AccountsUnavailable,
    ApiKey,
    Caller,
    Forbidden,
    LoginRefused,
    LoginRequired,
    Scope,
    Session,
)
from otsd.core.errors import NotAsked, NotFound, StorageUnavailable
from otsd.core.keys import digest_of
from otsd.server.entrance import Entrance, House
from otsd.server.login import LoginFailed, Logins, Purpose
from tests.conftest import Clock

BASE = URL("http://otsd.example:8099")
KEY = Fernet.generate_key()
INGRESS = "172.30.32.2"


@dataclass(frozen=True)
class User:
    """A user of Home Assistant."""

    id: str
    name: str = "Anna"
    is_admin: bool = True


class Accounts:
    """Home Assistant's users, and a record of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.revoked: list[str] = []
        self.users: dict[str, User] = {"refresh": User("u1")}
        self.away = False
        self.pause: asyncio.Event | None = None

    async def user(self, access: str) -> User:
        self.asked.append(access)
        if self.pause is not None:
            await self.pause.wait()
        if self.away:
            raise AccountsUnavailable("away")
        if access not in self.users:
            raise LoginRefused("no")
        return self.users[access]

    async def user_of_session(self, refresh: str) -> User:
        return await self.user(refresh)

    async def user_of_stranger(self, access: str) -> User:
        return await self.user(access)

    async def revoke(self, refresh: str) -> None:
        self.revoked.append(refresh)
        if self.away:
            raise AccountsUnavailable("away")


class Access:
    """Sessions and keys in memory."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.by_digest: dict[bytes, ApiKey] = {}
        self.uses: list[datetime] = []
        self.notes = 0
        self.is_full = False

    def session(self, digest: bytes) -> Session | None:
        return self.sessions.get(digest)

    async def begin_session(self, digest: bytes, session: Session) -> None:
        self.sessions[digest] = session

    async def update_session(self, digest: bytes, session: Session) -> None:
        self.notes += 1
        if digest in self.sessions:
            self.sessions[digest] = session

    async def end_session(self, digest: bytes) -> None:
        if self.is_full:
            raise StorageUnavailable("database or disk is full")
        self.sessions.pop(digest, None)

    def sessions_before(self, seen: datetime, created: datetime) -> list[tuple[bytes, Session]]:
        return [
            (digest, session)
            for digest, session in self.sessions.items()
            if session.seen_at <= seen or session.created_at <= created
        ]

    def keys(self) -> list[ApiKey]:
        return list(self.by_digest.values())

    def key(self, digest: bytes) -> ApiKey | None:
        return self.by_digest.get(digest)

    async def add_key(self, digest: bytes, key: ApiKey) -> None:
        self.by_digest[digest] = key

    async def key_used(self, key_id: str, now: datetime) -> None:
        self.uses.append(now)

    async def delete_key(self, key_id: str) -> None:
        raise NotFound("key", key_id)


class Door:
    """An entrance and everything around it."""

    def __init__(self, clock: Clock, *, supervised: bool = False) -> None:
        self.clock = clock
        self.accounts = Accounts()
        self.access = Access()
        self.administrators: Mapping[str, str] | Exception = {"u1": "Anna"}
        self.asked_for_administrators = 0
        self.entrance = Entrance(
            House(BASE, supervised, True, self._administrators),
            access=self.access,
            accounts=self.accounts,
            secret=KEY,
            now=clock,
        )

    async def _administrators(self) -> Mapping[str, str]:
        self.asked_for_administrators += 1
        if isinstance(self.administrators, Exception):
            raise self.administrators
        return self.administrators

    async def begin(self) -> str:
        return await self.entrance.begin(self.accounts.users["refresh"], "refresh")

    async def enter(self, session: str) -> Caller:
        return await self.entrance.admit(request(Cookie=f"otsd_session={session}"))

    async def knock(self, token: str) -> Caller:
        return await self.entrance.admit(request(Authorization=f"Bearer {token}"))

    async def by_ingress(self, user_id: str = "u1") -> Caller:
        return await self.entrance.admit(request(peer=INGRESS, X_Remote_User_Id=user_id))


def request(method: str = "GET", peer: str = "127.0.0.1", **headers: str) -> web.Request:
    """Return a request from somewhere; ``_`` in header names stands for ``-``."""
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (
        (peer, 40_000) if name == "peername" else default
    )
    named = {"Host": "otsd.example:8099", **headers}
    return make_mocked_request(
        method,
        "/",
        {name.replace("_", "-"): value for name, value in named.items()},
        transport=transport,
    )


@pytest.fixture
async def door(clock: Clock) -> Door:
    return Door(clock)


# -- how long a session lasts ----------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "holds"), [(-1, True), (0, False), (1, False)])
async def test_a_session_that_nobody_used_for_12_hours_is_over(
    door: Door, seconds: int, holds: bool
) -> None:
    session = await door.begin()
    door.clock.move(hours=12, seconds=seconds)
    if holds:
        assert (await door.enter(session)).maker == "user:Anna"
        return
    with pytest.raises(LoginRequired):
        await door.enter(session)
    assert door.accounts.revoked == ["refresh"]
    assert door.access.sessions == {}


@pytest.mark.parametrize(("seconds", "holds"), [(-1, True), (0, False), (1, False)])
async def test_a_session_lasts_30_days_at_most(door: Door, seconds: int, holds: bool) -> None:
    session = await door.begin()
    begun = door.clock.now
    for _ in range(59):
        door.clock.move(hours=12, minutes=-5)
        await door.enter(session)
    door.clock.now = begun + timedelta(days=30, hours=-6)
    await door.enter(session)
    door.clock.now = begun + timedelta(days=30, seconds=seconds)
    if holds:
        await door.enter(session)
        return
    with pytest.raises(LoginRequired):
        await door.enter(session)
    assert door.accounts.revoked == ["refresh"]


async def test_a_page_that_only_listens_does_not_keep_its_session(door: Door) -> None:
    session = await door.begin()
    listening = request(Cookie=f"otsd_session={session}")
    for _ in range(23):
        door.clock.move(minutes=31)
        assert await door.entrance.still(listening)
    door.clock.move(minutes=31)
    assert not await door.entrance.still(listening)


async def test_the_use_of_a_session_is_written_down_once_a_minute(door: Door) -> None:
    session = await door.begin()
    for _ in range(60):
        door.clock.move(seconds=2)
        await door.enter(session)
    assert door.access.notes == 2


async def test_sessions_that_are_over_are_given_up_at_the_next_login(door: Door) -> None:
    await door.begin()
    door.clock.move(hours=13)
    session = await door.begin()
    assert list(door.access.sessions) == [digest_of(session)]
    assert door.accounts.revoked == ["refresh"]


async def test_a_session_of_another_key_of_the_instance_is_over(door: Door) -> None:
    session = await door.begin()
    (digest,) = door.access.sessions
    other = Fernet(Fernet.generate_key()).encrypt(b"refresh")
    was = door.access.sessions[digest]
    door.access.sessions[digest] = Session(
        was.user_id, was.user_name, other, was.created_at, was.seen_at, was.asked_at
    )
    await door.enter(session)
    door.clock.move(minutes=30)
    with pytest.raises(LoginRequired):
        await door.enter(session)
    assert door.accounts.asked == []


# -- whether he is an administrator still ------------------------------------------------------


@pytest.mark.parametrize(("seconds", "asked"), [(-1, 0), (0, 1), (1, 1)])
async def test_home_assistant_is_asked_every_30_minutes(
    door: Door, seconds: int, asked: int
) -> None:
    session = await door.begin()
    door.clock.move(minutes=30, seconds=seconds)
    for _ in range(3):
        await door.enter(session)
    assert len(door.accounts.asked) == asked
    door.clock.move(minutes=30)
    await door.enter(session)
    assert len(door.accounts.asked) == asked + 1


async def test_who_was_demoted_is_out_and_his_tokens_are_revoked(door: Door) -> None:
    session = await door.begin()
    door.accounts.users["refresh"] = User("u1", is_admin=False)
    door.clock.move(minutes=29)
    await door.enter(session)
    door.clock.move(minutes=1)
    with pytest.raises(LoginRequired, match="not one any more"):
        await door.enter(session)
    assert door.accounts.revoked == ["refresh"]
    with pytest.raises(LoginRequired):
        await door.enter(session)
    assert len(door.accounts.asked) == 1


async def test_whose_refresh_token_was_revoked_is_out(door: Door) -> None:
    session = await door.begin()
    door.accounts.users.clear()
    door.clock.move(minutes=30)
    with pytest.raises(LoginRequired, match="Home Assistant has ended"):
        await door.enter(session)
    assert door.access.sessions == {}


@pytest.mark.parametrize("end", ["idle", "refused", "demoted"])
async def test_a_session_that_cannot_be_forgotten_is_over_all_the_same(
    door: Door, end: str
) -> None:
    session = await door.begin()
    door.access.is_full = True
    if end == "refused":
        door.accounts.users.clear()
    elif end == "demoted":
        door.accounts.users["refresh"] = User("u1", is_admin=False)
    door.clock.move(hours=12 if end == "idle" else 1)
    for _ in range(2):
        with pytest.raises(LoginRequired):
            await door.enter(session)
        assert not await door.entrance.still(request(Cookie=f"otsd_session={session}"))
    assert len(door.accounts.asked) <= 1
    assert len(door.access.sessions) == 1


async def test_while_the_store_cannot_forget_a_session_nobody_is_told_that_he_logged_out(
    door: Door,
) -> None:
    session = await door.begin()
    door.access.is_full = True
    with pytest.raises(StorageUnavailable):
        await door.entrance.end(request("POST", Cookie=f"otsd_session={session}"))
    await door.enter(session)
    door.access.is_full = False
    await door.entrance.end(request("POST", Cookie=f"otsd_session={session}"))
    with pytest.raises(LoginRequired):
        await door.enter(session)


async def test_while_home_assistant_is_away_whoever_is_in_stays_in(door: Door) -> None:
    session = await door.begin()
    door.accounts.away = True
    door.clock.move(minutes=31)
    for _ in range(5):
        await door.enter(session)
    assert len(door.accounts.asked) == 1  # it is asked once a minute then
    door.clock.move(seconds=61)
    await door.enter(session)
    assert len(door.accounts.asked) == 2
    door.accounts.away = False
    door.accounts.users["refresh"] = User("u1", is_admin=False)
    door.clock.move(seconds=60)
    with pytest.raises(LoginRequired):
        await door.enter(session)


async def test_the_requests_of_a_page_ask_once_together(door: Door) -> None:
    session = await door.begin()
    door.clock.move(minutes=31)
    door.accounts.pause = asyncio.Event()
    async with asyncio.TaskGroup() as together:
        tasks = [together.create_task(door.enter(session)) for _ in range(8)]
        while not door.accounts.asked:
            await asyncio.sleep(0)
        tasks[0].cancel()  # whoever asks may go away
        await asyncio.sleep(0)
        door.accounts.pause.set()
    assert all(task.cancelled() or task.result() for task in tasks)
    assert sum(task.cancelled() for task in tasks) == 1
    assert len(door.accounts.asked) == 2


async def test_a_logout_during_the_question_holds(door: Door) -> None:
    session = await door.begin()
    door.clock.move(minutes=31)
    door.accounts.pause = asyncio.Event()
    entering = asyncio.create_task(door.enter(session))
    while not door.accounts.asked:
        await asyncio.sleep(0)
    await door.entrance.end(request("POST", Cookie=f"otsd_session={session}"))
    door.accounts.pause.set()
    await entering
    assert door.access.sessions == {}


async def test_a_name_that_changed_is_the_name_from_then_on(door: Door) -> None:
    session = await door.begin()
    door.accounts.users["refresh"] = User("u1", name="Anna Maria")
    door.clock.move(minutes=31)
    assert (await door.enter(session)).maker == "user:Anna Maria"
    assert (await door.enter(session)).maker == "user:Anna Maria"


# -- ingress ---------------------------------------------------------------------------------


async def test_administrators_of_ingress_are_asked_for_anew_after_5_minutes(clock: Clock) -> None:
    door = Door(clock, supervised=True)
    assert (await door.by_ingress()).maker == "user:Anna"
    clock.move(minutes=5, seconds=-1)
    door.administrators = {"u2": "Berta"}
    assert (await door.by_ingress()).user_id == "u1"
    assert door.asked_for_administrators == 1
    clock.move(seconds=1)
    with pytest.raises(Forbidden):
        await door.by_ingress()
    assert (await door.by_ingress("u2")).name == "Berta"
    assert door.asked_for_administrators == 2


async def test_while_home_assistant_cannot_be_asked_nobody_enters_by_ingress(
    clock: Clock,
) -> None:
    door = Door(clock, supervised=True)
    door.administrators = NotAsked("away")
    with pytest.raises(AccountsUnavailable):
        await door.by_ingress()
    door.administrators = {"u1": "Anna"}
    await door.by_ingress()
    door.administrators = NotAsked("away")
    clock.move(minutes=5)
    with pytest.raises(AccountsUnavailable):
        await door.by_ingress()
    assert await door.entrance.still(request(peer=INGRESS, X_Remote_User_Id="u1"))


async def test_who_was_demoted_listens_no_longer_by_ingress(clock: Clock) -> None:
    door = Door(clock, supervised=True)
    listening = request(peer=INGRESS, X_Remote_User_Id="u1")
    assert await door.entrance.still(listening)
    door.administrators = {}
    clock.move(minutes=5)
    assert not await door.entrance.still(listening)


@pytest.mark.parametrize(
    ("supervised", "peer"),
    [(False, INGRESS), (True, "172.30.32.1"), (True, "127.0.0.1"), (True, "::ffff:172.30.32.2")],
)
async def test_from_anybody_else_the_headers_mean_nothing(
    clock: Clock, supervised: bool, peer: str
) -> None:
    door = Door(clock, supervised=supervised)
    with pytest.raises(LoginRequired):
        await door.entrance.admit(
            request(peer=peer, X_Remote_User_Id="u1", X_Forwarded_For=INGRESS)
        )
    assert door.asked_for_administrators == 0


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"Sec_Fetch_Site": "same-origin", "X_Forwarded_Host": "ha.example"}, True),
        ({"Origin": "http://ha.example", "X_Forwarded_Host": "ha.example"}, True),
        ({"Origin": "http://evil.example", "X_Forwarded_Host": "ha.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "null", "X_Forwarded_Host": ""}, False),
        ({"Origin": "http://"}, False),
        ({"Sec_Fetch_Site": "cross-site", "X_Forwarded_Host": "ha.example"}, False),
        ({}, False),
    ],
)
async def test_a_change_by_ingress_comes_from_its_own_page(
    clock: Clock, headers: dict[str, str], ours: bool
) -> None:
    door = Door(clock, supervised=True)
    changing = request("POST", peer=INGRESS, X_Remote_User_Id="u1", **headers)
    if ours:
        assert (await door.entrance.admit(changing)).via == "ingress"
        return
    with pytest.raises(Forbidden, match="page of ours"):
        await door.entrance.admit(changing)


# -- programs --------------------------------------------------------------------------------


async def test_an_access_token_is_remembered_for_60_s(door: Door) -> None:
    for seconds in (0, 30, 29):
        door.clock.move(seconds=seconds)
        assert (await door.knock("refresh")).via == "home_assistant_token"
    assert len(door.accounts.asked) == 1
    door.accounts.users["refresh"] = User("u1", is_admin=False)
    door.clock.move(seconds=1)
    with pytest.raises(Forbidden):
        await door.knock("refresh")
    assert len(door.accounts.asked) == 2


async def test_a_refused_access_token_is_remembered_too(door: Door) -> None:
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await door.knock("garbage")
    assert door.accounts.asked == ["garbage"]


async def test_no_access_token_is_kept(door: Door) -> None:
    await door.knock("refresh")
    assert "'refresh'" not in repr(vars(door.entrance))


async def test_while_home_assistant_is_away_no_access_token_lets_anybody_in(door: Door) -> None:
    await door.knock("refresh")
    door.accounts.away = True
    door.clock.move(seconds=60)
    with pytest.raises(AccountsUnavailable):
        await door.knock("refresh")


async def test_a_thousand_access_tokens_are_remembered_and_no_more(door: Door) -> None:
    await door.knock("refresh")
    for number in range(1_000):
        with pytest.raises(LoginRequired):
            await door.knock(f"garbage {number}")
    await door.knock("refresh")
    assert door.accounts.asked.count("refresh") == 2


async def test_streams_by_an_access_token_end_with_it(door: Door) -> None:
    listening = request(Authorization="Bearer refresh")
    assert await door.entrance.still(listening)
    door.accounts.users.clear()
    assert await door.entrance.still(listening)
    door.clock.move(seconds=60)
    assert not await door.entrance.still(listening)


@pytest.mark.parametrize(("seconds", "holds"), [(-1, True), (0, False), (1, False)])
async def test_a_key_is_good_until_it_expires(door: Door, seconds: int, holds: bool) -> None:
    now = door.clock.now
    door.access.by_digest[digest_of("otsd_secret")] = ApiKey(
        "k1", "bot", Scope.READ, frozenset(), now, "cli", now + timedelta(hours=1)
    )
    door.clock.move(hours=1, seconds=seconds)
    if holds:
        assert (await door.knock("otsd_secret")).maker == "key:bot"
        assert door.access.uses == [door.clock.now]
        return
    with pytest.raises(LoginRequired):
        await door.knock("otsd_secret")
    assert door.access.uses == []
    assert door.accounts.asked == []  # no key is ever shown to Home Assistant


# -- the cookie of a login -------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "good"), [(-1, True), (0, True), (1, False)])
async def test_a_login_is_good_for_ten_minutes(clock: Clock, seconds: int, good: bool) -> None:
    logins = Logins(secret=KEY, now=clock)
    begun = logins.begin(Purpose.SESSION)
    clock.move(minutes=10, seconds=seconds)
    query = {"state": begun.state, "code": "abc"}
    if good:
        returned = logins.receive(query, begun.cookie)
        assert (returned.code, returned.verifier) == ("abc", begun.verifier)
        return
    with pytest.raises(LoginFailed, match="ten minutes ago"):
        logins.receive(query, begun.cookie)


async def test_the_cookie_of_a_login_tells_nothing(clock: Clock) -> None:
    logins = Logins(secret=KEY, now=clock)
    begun = logins.begin(Purpose.CONNECTION)
    assert begun.state not in begun.cookie
    assert begun.verifier not in begun.cookie
    other = Logins(secret=Fernet.generate_key(), now=clock)
    with pytest.raises(LoginFailed):
        other.receive({"state": begun.state, "code": "abc"}, begun.cookie)
    assert len(begun.verifier) >= 43  # RFC 7636
