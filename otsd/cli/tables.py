"""Columns for people, and words for times and uses."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from otsd.cli.output import is_terminal, visible

Item = dict[str, Any]

_GAP: Final = "  "
_NOTHING: Final = "-"
_NARROWEST: Final = 8


# -- words -----------------------------------------------------------------------------------


def now() -> datetime:
    """Return the present, in UTC."""
    return datetime.now(UTC)


def relative(text: str | None, present: datetime) -> str | None:
    """Say how long ago or ahead an instant of the API is; of one far away, its date."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    length = abs(moment - present)
    for count, unit, limit in (
        (length / timedelta(seconds=1), "s", 60),
        (length / timedelta(minutes=1), "min", 60),
        (length / timedelta(hours=1), "h", 48),
        (length / timedelta(days=1), "days", 15),
    ):
        if (number := round(count)) < limit:
            if not number:
                return "now"
            return f"in {number} {unit}" if moment > present else f"{number} {unit} ago"
    return f"{moment.astimezone():%Y-%m-%d}"


def local(text: str | None) -> str | None:
    """Write an instant of the API in local time."""
    return (
        None if text is None else f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
    )


def both(text: str | None, present: datetime) -> str | None:
    """Write an instant in local time with its zone, and how far it is away."""
    if text is None:
        return None
    written = f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    away = relative(text, present)
    return f"{written} ({away})" if away and not written.startswith(away) else written


def uses_left(token: Item) -> str:
    """Say how often a token can still be used."""
    if token["max_uses"] is None:
        return "unlimited"
    return f"{token['uses_left']} of {token['max_uses']}"


def yes(value: object) -> str | None:
    """Say yes, or nothing."""
    return "yes" if value else None


# -- columns ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A title and what stands below it; one that may ``shrink`` is cut when the line is full."""

    title: str
    cell: Callable[[Item], object]
    shrink: bool = False


class Table:
    """Aligned columns; of a long list, as wide as what was shown so far needs."""

    def __init__(self, columns: Sequence[Column], width: int | None = None) -> None:
        """Take the columns and the width of a line, ``None`` for any."""
        self._columns = columns
        self._width = width
        self._widths = [0] * len(columns)
        self._began = False

    def lines(self, items: Iterable[Item]) -> Iterator[str]:
        """Yield a line for each item; before the first, the titles."""
        rows = [[_text(column.cell(item)) for column in self._columns] for item in items]
        if not self._began:
            self._began = True
            rows.insert(0, [column.title for column in self._columns])
        for row in rows:
            self._widths = [
                max(old, columns(cell)) for old, cell in zip(self._widths, row, strict=True)
            ]
        widths = self._fitted()
        for row in rows:
            cells = [pad(cut(cell, width), width) for cell, width in zip(row, widths, strict=True)]
            yield _GAP.join(cells).rstrip()

    def _fitted(self) -> list[int]:
        """Take from the widest of the columns that may shrink until the line fits."""
        widths = list(self._widths)
        if self._width is None:
            return widths
        too_much = sum(widths) + len(_GAP) * (len(widths) - 1) - self._width
        soft = [index for index, column in enumerate(self._columns) if column.shrink]
        while too_much > 0 and soft:
            widest = max(soft, key=widths.__getitem__)
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
            too_much -= 1
        return widths


def record(facts: Sequence[tuple[str, object]]) -> Iterator[str]:
    """Yield a line for each fact of one thing."""
    width = max(columns(name) for name, _ in facts)
    for name, value in facts:
        yield f"{pad(name, width)}{_GAP}{_text(value)}"


def terminal_width() -> int | None:
    """How wide a line of standard output is; ``None`` when it is no terminal."""
    if not is_terminal(sys.stdout):
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def _text(value: object) -> str:
    return _NOTHING if value in (None, "") else visible(str(value))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def pad(text: str, width: int) -> str:
    """Fill a text with spaces."""
    return text + " " * (width - columns(text))


def cut(text: str, width: int) -> str:
    """Shorten a text that takes more columns, so that it shows that it was."""
    if columns(text) <= width:
        return text
    kept = ""
    room = width - 1
    for letter in text:
        room -= _columns(letter)
        if room < 0:
            break
        kept += letter
    return f"{kept}…"
