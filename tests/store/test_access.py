"""Sessions and keys on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from otsd.core.access import Access, ApiKey, Scope, Session
from otsd.core.errors import Conflict, NotFound
from otsd.store.store import opened
from tests.conftest import Clock

DIGEST = b"d" * 32


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with opened(tmp_path / "data") as (store, _):
        yield store.access


@pytest.fixture
def session(clock: Clock) -> Session:
    return Session("u1", "Anna", b"sealed", clock.now, clock.now, clock.now)


@pytest.fixture
def key(clock: Clock) -> ApiKey:
    end = clock.now + timedelta(days=1)
    actions = frozenset({"open-door", "open-gate"})
    return ApiKey("k1", "bot", Scope.MINT, actions, clock.now, "user:Anna", end)


async def test_a_session_is_found_by_its_digest_until_it_ends(
    access: Access, session: Session
) -> None:
    assert access.session(DIGEST) is None
    await access.begin_session(DIGEST, session)
    assert access.session(DIGEST) == session
    await access.end_session(DIGEST)
    assert access.session(DIGEST) is None


async def test_a_session_that_has_ended_comes_back_by_no_update(
    access: Access, session: Session
) -> None:
    await access.begin_session(DIGEST, session)
    await access.end_session(DIGEST)
    await access.update_session(DIGEST, session)
    assert access.session(DIGEST) is None


async def test_updates_that_cross_each_other_lose_nothing(
    access: Access, session: Session, clock: Clock
) -> None:
    await access.begin_session(DIGEST, session)
    later = clock.now + timedelta(minutes=1)
    await access.update_session(DIGEST, replace(session, seen_at=later))
    await access.update_session(DIGEST, replace(session, asked_at=later, user_name="Anna Maria"))
    found = access.session(DIGEST)
    assert found == replace(session, seen_at=later, asked_at=later, user_name="Anna Maria")


async def test_sessions_of_before_are_told(access: Access, session: Session, clock: Clock) -> None:
    await access.begin_session(DIGEST, session)
    now, moment = clock.now, timedelta(milliseconds=1)
    assert access.sessions_before(now - moment, now - moment) == []
    assert access.sessions_before(now, now - moment) == [(DIGEST, session)]
    assert access.sessions_before(now - moment, now) == [(DIGEST, session)]


async def test_a_key_is_found_by_its_digest_until_it_is_revoked(
    access: Access, key: ApiKey, clock: Clock
) -> None:
    await access.add_key(DIGEST, key)
    await access.add_key(b"e" * 32, replace(key, id="k2", name="other", expires_at=None))
    assert access.key(DIGEST) == key
    newest, oldest = access.keys()
    assert (newest.name, oldest.name) == ("other", "bot")
    await access.key_used("k1", clock.now)
    assert access.key(DIGEST) == replace(key, last_used_at=clock.now)
    await access.delete_key("k1")
    assert access.key(DIGEST) is None
    with pytest.raises(NotFound):
        await access.delete_key("k1")


async def test_a_name_is_taken_once(access: Access, key: ApiKey) -> None:
    await access.add_key(DIGEST, key)
    with pytest.raises(Conflict):
        await access.add_key(b"e" * 32, replace(key, id="k2"))
