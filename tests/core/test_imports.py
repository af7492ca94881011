"""What becomes of each entry of a file, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otsd import one_time_service
from otsd.core.actions import Plan
from otsd.core.changes import Change, Changes, Subject
from otsd.core.codes import Code, Codes, ImportedCodes
from otsd.core.imports import ImportOutcome, ImportReport, Imports, name_of
from otsd.core.tokens import TokenState
from otsd.store.store import SqliteStore, opened
from tests import importing
from tests.conftest import Clock
from tests.core.homes import MemoryHome, hastily
from tests.test_one_time_service import json_values, token_values


def imports(
    store: SqliteStore, clock: Clock, changes: Changes, home: MemoryHome | None = None
) -> Imports:
    return Imports(
        store=store,
        home=home or MemoryHome(),
        codes=ImportedCodes(b"k" * 32),
        now=clock,
        changes=changes,
        random=secrets.token_bytes,
    )


def told(report: ImportReport) -> list[tuple[int, ImportOutcome, tuple[str, ...]]]:
    return [(each.number, each.outcome, each.notes) for each in report.tokens]


async def test_every_entry_has_an_outcome_and_a_brief_report_tells_of_few(
    directory: Path, clock: Clock
) -> None:
    codes = [importing.code() for _ in range(6)]
    tokens = {
        codes[0]: importing.token(),
        codes[1]: importing.token(uses_left=-1),
        codes[2]: importing.token(service_call_name="Ring"),
        codes[3]: importing.token(service_call_name="Deleted"),
        codes[4]: None,
        codes[5]: importing.token(created=None),
    }
    file = one_time_service.read(importing.file(tokens, Ring={}))
    expected = [
        (1, ImportOutcome.TAKEN, ()),
        (2, ImportOutcome.CHANGED, ("its uses left were -1, and are 0 now",)),
        (3, ImportOutcome.REFUSED, ("its action is refused",)),
        (4, ImportOutcome.CHANGED, ("its action is not in the file, so it is revoked",)),
        (5, ImportOutcome.REFUSED, ("it is not an object",)),
        (6, ImportOutcome.TAKEN, ()),
    ]
    heard: list[Change] = []
    changes = Changes()
    async with opened(directory) as (store, _):
        with changes.heard_by(heard.append):
            take = imports(store, clock, changes).take
            assert told(await take(file, dry_run=True)) == expected
            assert heard == []
            report = await take(file, dry_run=False)
            assert told(report) == expected
            brief = await take(file, dry_run=False, brief=True)
        assert told(brief) == [each for each in expected if each[1] is ImportOutcome.REFUSED]
        assert report.counts == {
            ImportOutcome.TAKEN: 3,
            ImportOutcome.CHANGED: 2,
            ImportOutcome.REFUSED: 3,
        }
        assert brief.counts == {ImportOutcome.KNOWN: 5, ImportOutcome.REFUSED: 3}
        assert [each.subject for each in heard] == [Subject.ACTION, Subject.MANY]
        made = {each.number: each.token for each in report.tokens}
        assert made[4] is not None
        assert made[4].state(clock.now) is TokenState.REVOKED
        # newest first, and what was made at no known time is made now
        listed = (await store.tokens(clock.now)).items
        assert listed[0].created_at == clock.now
        assert listed[0] == made[6]


class SlowHome(MemoryHome):
    """Has nothing of what it is asked for, and thinks two seconds about each action."""

    async def validate(self, plan: Plan) -> str | None:
        await asyncio.sleep(2)
        return None

    async def missing(self, plan: Plan) -> Sequence[str]:
        return [f"{name} is missing" for name in plan.services]


def test_a_slow_home_holds_up_an_import_for_some_seconds_only(directory: Path) -> None:
    calls = {f"Bell {number}": {"service": "button.press"} for number in range(50)}
    file = one_time_service.read(importing.file({}, **calls))

    async def take() -> ImportReport:
        clock = Clock()
        async with opened(directory) as (store, _):
            return await imports(store, clock, Changes(), SlowHome()).take(file, dry_run=False)

    report = hastily(take(), 50)
    assert {each.outcome for each in report.actions} == {ImportOutcome.TAKEN}
    warnings = [each.warnings for each in report.actions]
    asked = [("lock.unlock is missing",), *[("button.press is missing",)] * 50]
    count = warnings.index(("it could not be checked with Home Assistant in time",))
    assert 1 <= count <= 4
    assert warnings[:count] == asked[:count]
    assert set(warnings[count:]) == {warnings[count]}


async def test_what_was_made_in_the_future_is_made_now(directory: Path, clock: Clock) -> None:
    later = (clock.now + timedelta(days=900)).isoformat()
    file = one_time_service.read(importing.file({importing.code(): importing.token(created=later)}))
    async with opened(directory) as (store, _):
        report = await imports(store, clock, Changes()).take(file, dry_run=False)
    (token,) = (each.token for each in report.tokens)
    assert token is not None
    assert token.created_at == clock.now


NAMES = st.sampled_from(["Open door", "open door", "open-door"]) | st.text()
DOCUMENTS = st.fixed_dictionaries(
    {
        "service_calls": st.dictionaries(NAMES, st.just(importing.DOOR) | json_values, max_size=4),
        "tokens": st.dictionaries(
            st.sampled_from([each * 32 for each in "abc"]) | st.text(), token_values, max_size=4
        ),
    }
)


@given(DOCUMENTS)
@settings(max_examples=40)
def test_whatever_is_in_a_file_is_taken_once_or_refused_with_a_reason(document: object) -> None:
    content = json.dumps(document).encode()

    async def twice(directory: Path) -> None:
        file = one_time_service.read(content)
        async with opened(directory) as (store, _):
            clock = Clock()
            take = imports(store, clock, Changes()).take
            first, second = [await take(file, dry_run=False) for _ in range(2)]
            assert all(each.notes or each.outcome is ImportOutcome.TAKEN for each in first.actions)
            assert all(each.notes or each.outcome is ImportOutcome.TAKEN for each in first.tokens)
            new = first.counts[ImportOutcome.TAKEN] + first.counts[ImportOutcome.CHANGED]
            assert second.counts[ImportOutcome.KNOWN] == new
            assert second.counts[ImportOutcome.REFUSED] == first.counts[ImportOutcome.REFUSED]
            assert second.counts[ImportOutcome.TAKEN] == second.counts[ImportOutcome.CHANGED] == 0
            counts = await store.counts(clock.now)
            assert counts.actions + counts.tokens == new

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(twice(Path(folder) / "data"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Tür öffnen", "tur-offnen"),
        ("OPEN  DOOR!", "open-door"),
        ("--a--", "a"),
        ("门", "action"),
        ("", "action"),
        ("a" * 55 + " bc", "a" * 55),
    ],
)
def test_a_name_is_made_of_what_can_stand_in_one(source: str, name: str) -> None:
    assert name_of(source) == name


def test_the_digest_of_a_code_is_that_of_this_instance_and_of_all_of_it() -> None:
    one, two = ImportedCodes(b"1" * 32), ImportedCodes(b"2" * 32)
    code = importing.code()
    other = code[:-1] + ("a" if code[-1] != "a" else "b")
    assert one.digest(Code(code)) == one.digest(Code(code))
    digests = {one.digest(Code(code)), two.digest(Code(code)), one.digest(Code(other))}
    assert len(digests) == 3
    assert all(len(each) == 32 for each in digests)
    assert Codes(b"1" * 32).lookup(code) is None
