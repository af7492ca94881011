"""What the handlers of the admin API share: the parts that they speak for, and how they do it.

What a request says is read strictly: a parameter that is misspelt or makes no sense is refused, for
without it a list would show everything, and a wish would be granted that nobody had.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from otsd.core.errors import Fault, Invalid
from otsd.payloads import LARGEST_BODY, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import tzinfo
    from enum import StrEnum
    from pathlib import Path

    from pydantic import BaseModel

    from otsd.core.announce import Announcer
    from otsd.core.imports import Imports
    from otsd.core.keys import Keys
    from otsd.core.manage import Actions, Tokens
    from otsd.core.ports import Backups, Clock, ConnectionStatus, Household, Store
    from otsd.core.submit import Submissions
    from otsd.server.live import Live

    Kind = TypeVar("Kind", bound=StrEnum)
    Body = TypeVar("Body", bound=BaseModel)
    Item = TypeVar("Item")

MOST_ITEMS: Final = 500
SOME_ITEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API speaks for; ``offered`` is where another add-on may have left a file."""

    store: Store
    home: Household
    submissions: Submissions
    announcer: Announcer
    actions: Actions
    tokens: Tokens
    now: Clock
    mqtt: Callable[[], ConnectionStatus]
    keys: Keys
    live: Live
    imports: Imports
    offered: Path | None
    backups: Backups
    title: str
    base_url: str
    browser_url: str
    configured: Callable[[], str]
    disconnect: Callable[[], Awaitable[None]]
    retry_broker: Callable[[], None]


async def body_of(request: web.Request, model: type[Body], zone: tzinfo) -> Body:
    """Read the body of a request; raises `Invalid` with every fault."""
    text = await request.read()
    if len(text) > LARGEST_BODY and "yaml" not in model.model_fields:
        raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, len(text))
    return read(model, text, zone)


def flag(request: web.Request, name: str) -> bool:
    """Read a parameter that is true or false, and false when it is not given."""
    text = request.rel_url.query.get(name, "false")
    if text not in ("true", "false"):
        raise Invalid([Fault((name,), "true or false")])
    return text == "true"


def choice(request: web.Request, name: str, kind: type[Kind]) -> Kind | None:
    """Read a parameter that is one of few words."""
    if (value := request.rel_url.query.get(name)) is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid([Fault((name,), f"one of {', '.join(kind)}")]) from error


def window(request: web.Request) -> tuple[int, int | None]:
    """Read which part of a list is wanted: how many, and after which cursor."""
    query = request.rel_url.query
    faults = []
    limit, cursor = query.get("limit", str(SOME_ITEMS)), query.get("cursor")
    if not re.fullmatch(r"\d{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= MOST_ITEMS:
        faults.append(Fault(("limit",), f"a whole number from 1 to {MOST_ITEMS}"))
    if cursor is not None and not re.fullmatch(r"\d{1,18}", cursor, re.ASCII):
        faults.append(Fault(("cursor",), "the value of next in the page before"))
    if faults:
        raise Invalid(faults)
    return int(limit), None if cursor is None else int(cursor)


def part_of(request: web.Request, items: Sequence[Item]) -> tuple[Sequence[Item], int | None]:
    """Return a page of what is in memory as a whole, and the cursor of the next one."""
    limit, cursor = window(request)
    begin = cursor or 0
    end = begin + limit
    return items[begin:end], end if end < len(items) else None


def as_json(body: Any, status: int = 200, location: str | None = None) -> web.Response:  # noqa: ANN401
    """Answer with JSON; ``location`` is where the thing is that was made."""
    headers = {"Cache-Control": "no-store"}
    if location is not None:
        headers["Location"] = location
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/json",
        headers=headers,
    )
