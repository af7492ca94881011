"""Taking over: what is kept of another program's actions and tokens, and what is not."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otsd.core.actions import NAME, Action
from otsd.core.errors import StorageUnavailable
from otsd.core.imports import Taken, name_of
from otsd.core.tokens import Token
from otsd.store.store import SqliteStore, opened
from tests.conftest import Clock
from tests.store import making

Make = Callable[[int, str | None], Token]


def maker(clock: Clock) -> Make:
    """Return what makes weak tokens of the action that it is told, revoked ones without."""
    return lambda _, action: making.token(
        clock.now,
        action=action or "gone",
        revoked_at=None if action else clock.now,
        created_by="import",
        weak=True,
    )()


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def take(
    store: SqliteStore,
    clock: Clock,
    *numbers: int,
    actions: list[tuple[str, Action]] | None = None,
    make: Make | None = None,
    dry_run: bool = False,
) -> Taken:
    """Take over tokens of ``Door`` by the numbers of their digests."""
    return await store.take_over(
        [("Door", making.action("door"))] if actions is None else actions,
        [(digest(number), "Door") for number in numbers],
        make or maker(clock),
        clock.now,
        dry_run=dry_run,
    )


async def test_what_is_taken_is_found_by_its_digest_alone(store: SqliteStore, clock: Clock) -> None:
    taken = await take(store, clock, 1, 2)
    assert not taken.known
    for number, token in enumerate(taken.tokens, 1):
        assert token is not None
        found = store.find_imported(digest(number))
        assert found is not None
        assert (found.token, found.current) == (token, True)
        assert found.token.action == "door"
    assert store.find_imported(digest(3)) is None


async def test_a_dry_run_says_the_same_and_keeps_nothing(store: SqliteStore, clock: Clock) -> None:
    rehearsed = await take(store, clock, 1, 2, dry_run=True)
    assert store.find_imported(digest(1)) is None
    assert store.action("door") is None
    taken = await take(store, clock, 1, 2)
    assert [is_new for _, is_new in rehearsed.actions] == [is_new for _, is_new in taken.actions]
    assert (len(rehearsed.tokens), rehearsed.known) == (len(taken.tokens), taken.known)
    assert (await take(store, clock, 1, 3, dry_run=True)).known == {0}


async def test_a_name_that_is_taken_gets_a_number_and_is_known_from_then_on(
    store: SqliteStore, clock: Clock
) -> None:
    wishes = [("Open door", making.action()), ("open door", making.action())]
    for is_new in (True, False):
        taken = await take(store, clock, actions=wishes)
        assert [(action.name, new) for action, new in taken.actions] == [
            ("open-door-2", is_new),
            ("open-door-3", is_new),
        ]
    await store.delete_action("open-door-2", force=False, now=clock.now)
    again = await take(store, clock, actions=wishes)
    assert [(action.name, new) for action, new in again.actions] == [
        ("open-door-2", True),
        ("open-door-3", False),
    ]


class _Waits(list[tuple[bytes, str]]):
    """Tokens that are not told before somebody says so."""

    asked, told = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        self.asked.set()
        assert self.told.wait(20)
        return super().__iter__()


async def test_who_looks_while_the_store_is_closed_is_waited_for(
    directory: Path, clock: Clock
) -> None:
    async with opened(directory) as (store, _):
        await take(store, clock, 1)
        tokens = _Waits([(digest(1), "Door")])
        looking = asyncio.create_task(
            store.take_over([], tokens, maker(clock), clock.now, dry_run=True), name="look"
        )
        await asyncio.to_thread(tokens.asked.wait, 20)
        timer = threading.Timer(0.2, tokens.told.set)
        timer.start()
    timer.join()
    assert (await looking).known == {0}


async def test_thousands_of_one_name_are_told_apart_in_a_moment(
    store: SqliteStore, clock: Clock
) -> None:
    name = name_of("x" * 100)
    wishes = [(str(number), making.action(name)) for number in range(20_000)]
    async with asyncio.timeout(15):  # it took minutes, and nobody's list was shown meanwhile
        taken = await take(store, clock, actions=wishes, dry_run=True)
    names = {action.name for action, _ in taken.actions}
    assert len(names) == len(wishes)
    assert all(NAME.fullmatch(each) for each in names)


async def test_another_action_of_a_deleted_ones_name_is_not_it(
    store: SqliteStore, clock: Clock
) -> None:
    await take(store, clock, 1)
    await store.delete_action("door", force=True, now=clock.now)
    await store.save_action(making.action("door"), create=True, now=clock.now)
    for is_new in (True, False):
        ((action, new),) = (await take(store, clock, 1, 2)).actions
        assert (action.name, new) == ("door-2", is_new)
    found = store.find_imported(digest(2))
    assert found is not None
    assert found.token.action == "door-2"


async def test_a_token_whose_action_is_not_known_is_made_without_one(
    store: SqliteStore, clock: Clock
) -> None:
    (token,) = (await take(store, clock, 1, actions=[])).tokens
    assert token is not None
    assert token.revoked_at == clock.now


async def test_a_known_token_is_shown_as_it_is_now(store: SqliteStore, clock: Clock) -> None:
    one, two = (await take(store, clock, 1, 2)).tokens
    assert one is not None
    assert two is not None
    await store.change_token(one.id, lambda token: replace(token, comment="Edited", weak=False))
    await store.delete_token(two.id)
    again = await take(store, clock, 1, 2, 3)
    assert again.known == {0, 1}
    first, second, third = again.tokens
    assert first is not None
    assert first.comment == "Edited"
    assert second is None
    assert third is not None
    found = store.find_imported(digest(1))
    assert found is not None
    assert not found.current
    assert store.find_imported(digest(2)) is None


async def test_a_token_that_is_made_later_never_gets_the_link_of_a_deleted_one(
    store: SqliteStore, clock: Clock
) -> None:
    (token,) = (await take(store, clock, 1)).tokens
    assert token is not None
    await store.delete_token(token.id)
    for _ in range(3):
        await store.add_token(making.token(clock.now), None, clock.now)
    assert store.find_imported(digest(1)) is None


async def test_ids_that_are_taken_are_drawn_again(store: SqliteStore, clock: Clock) -> None:
    there = await store.add_token(making.token(clock.now), None, clock.now)
    made = itertools.count()
    fresh = maker(clock)

    def make(place: int, action: str | None) -> Token:
        # two of three clash: with a token that is there, or with each other
        number = next(made)
        if number in (0, 3, 6):
            return replace(fresh(place, action), id=there.id)
        return replace(fresh(place, action), lookup=7) if number in (1, 2) else fresh(place, action)

    taken = await take(store, clock, *range(5), make=make)
    ids = {token.id for token in taken.tokens if token is not None}
    assert len(ids) == 5
    assert there.id not in ids
    for number in range(5):
        found = store.find_imported(digest(number))
        assert found is not None
        assert found.token == taken.tokens[number]


async def test_a_fault_in_the_middle_takes_nothing(
    store: SqliteStore, clock: Clock, directory: Path
) -> None:
    fresh = maker(clock)

    def make(place: int, action: str | None) -> Token:
        # one that the database does not take, among those of a later statement
        return replace(fresh(place, action), uses_taken=2 if place == 1_500 else 0)

    with pytest.raises(StorageUnavailable):
        await take(store, clock, *range(2_000), make=make)
    assert store.action("door") is None
    assert (await store.counts(clock.now)).tokens == 0
    assert store.find_imported(digest(0)) is None
    assert not (await take(store, clock, *range(2_000))).known
    counts = await store.counts(clock.now)
    assert (counts.tokens, counts.by_action["door"].active_tokens) == (2_000, 2_000)
