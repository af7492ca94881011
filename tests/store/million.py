"""A storage directory with a great many tokens, built through SQL in a few seconds.

``fill(directory)`` makes key and schema as the daemon does, the action ``open-door`` and tokens
numbered from 0. `token_id`, `lookup` and `state` say what the token of a number is like, so that
a test can pick one; none of it depends on the clock. `code` is what stands in its link.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

from otsd.actionfile import read_plan
from otsd.core.codes import Codes
from otsd.core.times import to_millis
from otsd.core.tokens import TokenState
from otsd.store import database
from otsd.store import key as keys

YAML: Final = "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"

_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_HALF: Final = len(_LETTERS) ** 4
# ids and lookup ids grow with the number: SQLite then appends to its indexes, which is four times
# as fast as scattering; there is room for 8 million tokens
_ID_STEP: Final = _HALF**2 >> 23
_LOOKUP_STEP: Final = 2**64 >> 23

_CREATED: Final = to_millis(datetime(2025, 1, 1, tzinfo=UTC))
_PAST: Final = to_millis(datetime(2025, 2, 1, tzinfo=UTC))
_COUNTED_AT: Final = to_millis(datetime(2025, 3, 1, tzinfo=UTC))
_FUTURE: Final = to_millis(datetime(2200, 1, 1, tzinfo=UTC))

# by the last digit of a token's number
_STATES: Final = (*[TokenState.ACTIVE] * 5, *[s for s in TokenState if s is not TokenState.ACTIVE])


def state(number: int) -> TokenState:
    """Return the state of a token: half of them are active, the last digits 0 to 4."""
    return _STATES[number % 10]


def max_uses(number: int) -> int:
    """Return 1, or 5 for every tenth (last digit 4)."""
    return 5 if number % 10 == 4 else 1


def token_id(number: int) -> str:
    """Return the public id of a token."""
    rest, text = number * _ID_STEP, ""
    for _ in range(8):
        rest, digit = divmod(rest, len(_LETTERS))
        text = _LETTERS[digit] + text
    return text


def lookup(number: int) -> int:
    """Return the lookup id of a token."""
    return _signed_lookup(number) % 2**64


def code(directory: Path, number: int) -> str:
    """Return the code of a token."""
    key = keys.load(directory)
    assert key is not None
    return Codes(key.derive("codes")).code(lookup(number)).reveal()


def _signed_lookup(number: int) -> int:
    return number * _LOOKUP_STEP - 2**63


def fill(directory: Path, tokens: int = 1_000_000) -> None:
    """Fill a new storage directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    database.prepare(directory, database.schemas())
    with closing(database.connect(directory / database.NAME, write=True)) as db:
        # nothing is lost if the machine stops here: a test begins anew
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -400000")
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "INSERT INTO actions (name, title, yaml, steps, max_uses, created_at, updated_at) "
            "VALUES ('open-door', 'Open the front door', ?, ?, 1, ?, ?)",
            (YAML, json.dumps(read_plan(YAML).steps), _CREATED, _CREATED),
        )
        # the trigger costs more than the rows: it steps aside, and its sums are made at the end
        ((trigger,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'token_added'")
        db.execute("DROP TRIGGER token_added")
        db.executemany(
            "INSERT INTO tokens (id, lookup, action, comment, max_uses, uses_taken, round, "
            "valid_from, expires_at, created_at, created_by, revoked_at, paused) "
            f"VALUES (?, ?, 'open-door', ?, ?, ?, 0, ?, ?, {_CREATED}, 'cli', ?, ?)",
            _rows(tokens),
        )
        db.execute("UPDATE horizon SET at = ?", (_COUNTED_AT,))
        active = "live AND coalesce(valid_from <= at, 1) AND coalesce(expires_at > at, 1)"
        db.execute(
            f"INSERT INTO tallies SELECT action, count(*), sum({active}), "
            f"sum(({active}) * (max_uses - uses_taken)), 0, max(last_used_at) "
            "FROM tokens, horizon GROUP BY action"
        )
        db.execute(trigger)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(tokens: int) -> Iterator[tuple[Any, ...]]:
    quarters = ["".join(letters) for letters in product(_LETTERS, repeat=4)]
    by_digit = [
        (
            max_uses(digit),
            int(state(digit) is TokenState.USED_UP),
            _FUTURE if state(digit) is TokenState.SCHEDULED else None,
            {TokenState.EXPIRED: _PAST, TokenState.ACTIVE: _FUTURE}.get(state(digit)),
            _PAST if state(digit) is TokenState.REVOKED else None,
            int(state(digit) is TokenState.PAUSED),
        )
        for digit in range(10)
    ]
    for number in range(tokens):
        high, low = divmod(number * _ID_STEP, _HALF)
        yield (
            quarters[high] + quarters[low],
            _signed_lookup(number),
            f"Plumber {number}",
            *by_digit[number % 10],
        )
