"""Lists: a table for people, all of it as JSON for programs, both read page by page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from otsd.cli.output import Progress, explain, flush, is_terminal, say, say_json_list
from otsd.cli.tables import Column, Table, terminal_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otsd.cli.context import Context

_ON_A_SCREEN: Final = 100


def show(context: Context, path: str, columns: Sequence[Column], **query: str | None) -> int:
    """Print a list.

    All of it, or ``--limit`` items; a table on a terminal ends after the newest 100 and says so,
    because the newest stand at its top.
    """
    limit: int | None = context.given.limit
    on_screen = is_terminal(sys.stdout)
    pages = context.daemon.pages(path, limit, query)
    with Progress(wanted=not on_screen) as progress:
        if context.json:
            say_json_list(item for page in _counted(pages, progress) for item in page)
            return 0
        table = Table(columns, terminal_width())
        room = _ON_A_SCREEN if on_screen and limit is None else None
        there = False
        for page in _counted(pages, progress):
            there = there or bool(page)
            for line in table.lines(page[:room]):
                say(line)
            if room is not None and len(page) > room:
                flush()
                explain(f"These are the newest {room}; --limit N shows more.")
                break
        if on_screen and not there:
            flush()
            explain("None of that kind." if any(query.values()) else "None yet.")
    return 0


def _counted(pages: Iterator[list[Any]], progress: Progress) -> Iterator[list[Any]]:
    read = 0
    for page in pages:
        read += len(page)
        if read > len(page):
            progress.show(f"{read} read")
        yield page
