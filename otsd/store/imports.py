"""What another program kept, taken over in one transaction: see `otsd.core.imports`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otsd.core.imports import Taken
from otsd.store import rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from otsd.core.actions import Action
    from otsd.core.tokens import Token

_INSERTED_TOGETHER: Final = 1000


def look(
    db: sqlite3.Connection,
    actions: Sequence[tuple[str, Action]],
    tokens: Sequence[tuple[bytes, str]],
    make: Callable[[int, str | None], Token],
) -> Taken:
    """Say what `take` would make of it."""
    placed = _place_actions(db, actions)
    names, known = _names(actions, placed), _known(db, tokens)
    made = {
        place: make(place, names.get(source))
        for place, (_, source) in enumerate(tokens)
        if place not in known
    }
    return _taken(placed, known, made)


def take(
    db: sqlite3.Connection,
    actions: Sequence[tuple[str, Action]],
    tokens: Sequence[tuple[bytes, str]],
    make: Callable[[int, str | None], Token],
    now: datetime,
) -> Taken:
    """Keep the actions and tokens that are not known yet, as `Store.take_over` promises."""
    placed = _place_actions(db, actions)
    _keep_actions(db, zip(actions, placed, strict=True), now)
    known = _known(db, tokens)
    made = _keep_tokens(db, tokens, known.keys(), _names(actions, placed), make)
    return _taken(placed, known, made)


def find(db: sqlite3.Connection, digest: bytes) -> Token | None:
    """Return the token that was imported under the digest of a code."""
    row = db.execute(
        f"SELECT {rows.TOKEN} FROM tokens "  # noqa: S608
        "WHERE seq = (SELECT token FROM imported_codes WHERE digest = ?)",
        (digest,),
    ).fetchone()
    return None if row is None else rows.token(row)


def _names(
    actions: Sequence[tuple[str, Action]], placed: Sequence[tuple[Action, bool]]
) -> dict[str, str]:
    """Return the names here by what the actions are called elsewhere."""
    return {source: action.name for (source, _), (action, _) in zip(actions, placed, strict=True)}


def _taken(
    placed: Sequence[tuple[Action, bool]],
    known: Mapping[int, Token | None],
    made: Mapping[int, Token],
) -> Taken:
    tokens = {**known, **made}
    return Taken(placed, [tokens[place] for place in range(len(tokens))], known.keys())


def _place_actions(
    db: sqlite3.Connection, actions: Sequence[tuple[str, Action]]
) -> list[tuple[Action, bool]]:
    """Find the actions that were imported before, and a free name for each of the others."""
    known = dict(db.execute("SELECT source, name FROM imported_actions"))
    read = db.execute(f"SELECT {rows.ACTION} FROM actions")  # noqa: S608
    there = {row[0]: row for row in read}
    taken, placed = set(there), []
    # each name goes on where it was: thousands may have one name, as those in letters it lacks do
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))
    for source, action in actions:
        if (row := there.get(known.get(source, ""))) is not None:
            placed.append((rows.action(row), False))
            continue
        name = action.name
        while name in taken:
            name = f"{action.name}-{next(numbers[action.name])}"
        taken.add(name)
        placed.append((replace(action, name=name), True))
    return placed


def _keep_actions(
    db: sqlite3.Connection,
    placed: Iterable[tuple[tuple[str, Action], tuple[Action, bool]]],
    now: datetime,
) -> None:
    for (source, _), (action, is_new) in placed:
        if is_new:
            values = rows.action_row(action, now)
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO actions ({rows.ACTION}) VALUES ({marks})", values)  # noqa: S608
            db.execute(
                "INSERT OR REPLACE INTO imported_actions VALUES (?, ?)", (source, action.name)
            )


def _known(db: sqlite3.Connection, tokens: Sequence[tuple[bytes, str]]) -> dict[int, Token | None]:
    """Find the tokens that were imported before, by their place; ``None`` is one deleted since."""
    known = {digest for (digest,) in db.execute("SELECT digest FROM imported_codes")}
    return {place: find(db, digest) for place, (digest, _) in enumerate(tokens) if digest in known}


def _keep_tokens(
    db: sqlite3.Connection,
    tokens: Sequence[tuple[bytes, str]],
    known: AbstractSet[int],
    names: Mapping[str, str],
    make: Callable[[int, str | None], Token],
) -> dict[int, Token]:
    """Make and insert the tokens that are not known; one whose ids are taken is made again."""
    kept: dict[int, Token] = {}
    codes: list[tuple[bytes, int]] = []
    left = [place for place in range(len(tokens)) if place not in known]
    while left:
        some, left = left[:_INSERTED_TOGETHER], left[_INSERTED_TOGETHER:]
        # one statement for many: the triggers make each statement costly
        made = {place: make(place, names.get(tokens[place][1])) for place in some}
        values = [rows.token_row(token) for token in made.values()]
        marks = f"({', '.join('?' * len(values[0]))})"
        inserted = dict(
            db.execute(
                f"INSERT INTO tokens ({rows.TOKEN}) VALUES {', '.join([marks] * len(made))} "  # noqa: S608
                "ON CONFLICT DO NOTHING RETURNING id, seq",
                list(itertools.chain.from_iterable(values)),
            ).fetchall()
        )
        for place, token in made.items():
            if (seq := inserted.pop(token.id, None)) is None:
                left.append(place)
            else:
                kept[place] = token
                codes.append((tokens[place][0], seq))
    # in the order of the index, which would be read and written all over otherwise
    db.executemany("INSERT INTO imported_codes VALUES (?, ?)", sorted(codes))
    return kept
