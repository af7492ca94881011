"""Every page that a visitor can meet, on a real socket, with a clock and a house that stand still.

``async with gallery() as place`` opens the public site in this process; each `Scene` of `SCENES`
arranges one page and says what is read on it. The tests look at all of them, and
``scripts/screenshots`` takes their pictures.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from otsd.core.changes import Changes
from otsd.core.codes import Codes, ImportedCodes
from otsd.core.errors import HomeUnavailable, NoAnswer, NotAsked, Refused, TargetUnavailable
from otsd.core.events import announcer
from otsd.core.manage import Mint, Tokens
from otsd.core.ports import Ran
from otsd.core.submit import MOST_RUNNING_OF_A_TOKEN, Submissions
from otsd.core.tokens import Token, Visitor
from otsd.payloads import ReplaceAction
from otsd.server.listener import Limits, ListenAddress, listening
from otsd.server.throttle import Throttle
from otsd.server.visitor import Site, VisitorSite
from otsd.store.store import opened
from tests.conftest import Clock
from tests.daemon import OPEN_DOOR
from tests.server.conftest import FaultyStore, StubHome
from tests.server.wire import SHAPED

STEPS = "- action: lock.unlock\n  target: {entity_id: lock.front_door}\n- action: light.turn_on\n"


@dataclass(frozen=True)
class Wording:
    """What the owner wrote."""

    site: str = "Rose Cottage"
    contact: str = "Questions? Call Anna: 030 1234 5678"
    title: str = "Open the front door"
    comment: str = "For the plumber"


class Place:
    """The public site, and the strings that a scene pulls."""

    def __init__(self, wording: Wording, root: str) -> None:
        self.wording = wording
        self.root = root
        self.clock = Clock()
        self.home = StubHome()
        self.port = 0
        self.tokens: Tokens
        self.submissions: Submissions
        self.store: FaultyStore
        self.throttle_clock = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.root}"

    def calm(self) -> None:
        """Undo what a scene arranged."""
        self.clock.now = Clock().now
        self.home.fault = self.home.answer = None
        self.store.failing = set()
        self.throttle_clock += 3600

    async def mint(self, action: str = "open-door", **more: Any) -> tuple[Token, str]:
        """Return a token and its link."""
        wish: dict[str, Any] = {"comment": self.wording.comment, "max_uses": 1, **more}
        token = await self.tokens.mint(Mint(action, "cli", **wish))
        return token, f"{self.url}/?token={self.tokens.code(token).reveal()}"

    async def submit(self, link: str, attempt: str = "attempt-1") -> str:
        """Submit, wait up to a moment for the end, and return the address of the attempt."""
        found = self.submissions.find(link.partition("token=")[2])
        attempted = await self.submissions.submit(found, attempt, Visitor())
        if self.home.answer is not forever:
            await attempted.finished(timedelta(seconds=10))
        return f"{link}&attempt={attempt}"

    async def submitted(self, answer: Callable[[], Awaitable[Ran]] | None, **wish: Any) -> str:
        """Return the address of an attempt that the house answers like this."""
        self.home.answer = answer
        return await self.submit((await self.mint(**wish))[1])


async def forever() -> Ran:
    """Never answer."""
    await asyncio.Event().wait()
    return Ran()


def failing(error: Exception) -> Callable[[], Awaitable[Ran]]:
    """Answer with an error."""

    async def fail() -> Ran:
        raise error

    return fail


@asynccontextmanager
async def gallery(
    folder: Path, wording: Wording | None = None, root: str = ""
) -> AsyncIterator[Place]:
    """Open the public site in this process, below the path ``root``."""
    place = Place(wording or Wording(), root)
    async with opened(folder / "data") as (store, key):
        codes, changes = Codes(key.derive("codes")), Changes()
        place.store = FaultyStore(store)
        parts: Any = {"codes": codes, "now": place.clock, "changes": changes}
        announce = announcer(notify=False)
        async with Submissions(
            store=place.store,
            home=place.home,
            announce=announce,
            imported=ImportedCodes(key.derive("imported codes")),
            **parts,
        ) as place.submissions:
            place.tokens = Tokens(
                base_url="http://localhost", store=store, random=secrets.token_bytes, **parts
            )
            for name, yaml in (("open-door", OPEN_DOOR), ("arrive", STEPS)):
                action = ReplaceAction(title=place.wording.title, yaml=yaml).action(name)
                await store.save_action(action, create=True, now=place.clock())
            site = VisitorSite(
                Site(place.wording.site, place.wording.contact, root),
                submissions=place.submissions,
                home=place.home,
                now=place.clock,
                throttle=Throttle(lambda: place.throttle_clock),
            )
            limits = Limits()
            anywhere = ListenAddress("public", "127.0.0.1", 0)
            async with listening(site.application(), anywhere, site.fallback, limits) as place.port:
                yield place


# -- the scenes: each returns the address of its page ------------------------------------------


async def _form(place: Place) -> str:
    return f"{place.url}/"


async def _ready(place: Place) -> str:
    return (await place.mint(expires_at=place.clock.now + timedelta(hours=2)))[1]


async def _scheduled(place: Place) -> str:
    return (await place.mint(valid_from=place.clock.now + timedelta(minutes=42)))[1]


async def _paused(place: Place) -> str:
    token, link = await place.mint()
    await place.tokens.pause(token.id)
    return link


async def _expired(place: Place) -> str:
    _, link = await place.mint(expires_at=place.clock.now + timedelta(minutes=1))
    place.clock.move(hours=20)
    return link


async def _used_up(place: Place) -> str:
    _, link = await place.mint()
    place.clock.move(days=-5, hours=-12, minutes=-15)
    await place.submit(link)
    place.clock.now = Clock().now
    return link


async def _used_up_often(place: Place) -> str:
    _, link = await place.mint(max_uses=2)
    await place.submit(link)
    await place.submit(link, "attempt-2")
    return link


async def _revoked(place: Place) -> str:
    token, link = await place.mint()
    await place.tokens.revoke(token.id)
    return link


async def _unknown(place: Place) -> str:
    return f"{place.url}/?token={SHAPED}"


async def _away(place: Place) -> str:
    _, link = await place.mint()
    place.home.fault = HomeUnavailable()
    return link


async def _missing(place: Place) -> str:
    _, link = await place.mint()
    place.home.fault = TargetUnavailable(["lock.front_door is unavailable"])
    return link


async def _running(place: Place) -> str:
    return await place.submitted(forever)


async def _executed(place: Place) -> str:
    return await place.submitted(None)


async def _executed_with_more(place: Place) -> str:
    return await place.submitted(None, max_uses=3)


async def _replayed(place: Place) -> str:
    address = await place.submitted(None)
    place.clock.move(hours=1)
    return address


async def _replayed_with_more(place: Place) -> str:
    address = await place.submitted(None, max_uses=3)
    place.clock.move(hours=12)
    return address


async def _failed(place: Place) -> str:
    return await place.submitted(failing(Refused("The lock is jammed")))


async def _never_asked(place: Place) -> str:
    return await place.submitted(failing(NotAsked("the connection went away")))


async def _incomplete(place: Place) -> str:
    return await place.submitted(failing(Refused("The light is broken")), action="arrive")


async def _unconfirmed(place: Place) -> str:
    return await place.submitted(failing(NoAnswer("the connection went away")))


async def _throttled(place: Place) -> str:
    import aiohttp

    async with aiohttp.ClientSession() as http:
        for number in range(30):
            async with http.get(f"{place.url}/?token=wrong{number}") as answer:
                assert answer.status == 404
    return f"{place.url}/?token={SHAPED}"


async def _busy(place: Place) -> str:
    place.home.answer = forever
    _, link = await place.mint(max_uses=None)
    for number in range(MOST_RUNNING_OF_A_TOKEN):
        await place.submit(link, f"attempt-{number}")
    return link


async def _storage(place: Place) -> str:
    _, link = await place.mint()
    place.store.failing = {"find"}
    return link


async def _bad_request(place: Place) -> str:
    return f"{(await place.mint())[1]}&attempt=short"


async def _no_page(place: Place) -> str:
    return f"{place.url}/nowhere"


@dataclass(frozen=True)
class Scene:
    """One page: how to get there, and what it says; ``pressed`` is one that a press leads to."""

    name: str
    arrange: Callable[[Place], Awaitable[str]]
    status: int
    headline: str
    text: str
    code: str
    button: bool = False
    contact: bool = True
    pressed: bool = False


_STILL_GOOD = "Your link is still good."
SCENES = [
    Scene("form", _form, 200, "Open a link", "The code of your link", "form"),
    Scene("ready", _ready, 200, "Your link is ready", "Can be used once Good until 23:15", "ready", button=True, contact=False),
    Scene("scheduled", _scheduled, 403, "This link is not valid yet", "It can be used from 21:57.", "not_yet_valid"),
    Scene("running", _running, 202, "It is being done", "The house was asked at 21:15. Please wait", "running", contact=False),
    Scene("executed", _executed, 200, "Done", "Done at 21:15.", "executed"),
    Scene("executed-with-more", _executed_with_more, 200, "Done", "2 uses left Use it once more", "executed", button=True),
    Scene("replayed", _replayed, 200, "Already done", "Done at 21:15. Nothing more was done.", "executed"),
    Scene("replayed-with-more", _replayed_with_more, 200, "Already done", "Done yesterday at 21:15.", "executed", button=True),
    Scene("failed", _failed, 200, "It did not work", f"The house refused it at 21:15. {_STILL_GOOD}", "action_failed", button=True),
    Scene("never-asked", _never_asked, 200, "The house could not be reached", "Nothing was done at 21:15.", "home_unavailable", button=True),
    Scene("incomplete", _incomplete, 200, "It may not have worked completely", "The house reported an error at 21:15.", "action_incomplete"),
    Scene("unconfirmed", _unconfirmed, 200, "No answer from the house", "it may have been done: please look", "outcome_unknown"),
    Scene("home-away", _away, 503, "The house cannot be reached right now", f"{_STILL_GOOD} This page keeps trying", "home_unavailable"),
    Scene("target-missing", _missing, 503, "This cannot be done right now", _STILL_GOOD, "target_unavailable"),
    Scene("used-up", _used_up, 410, "This link was used", "It was used on Monday at 09:00.", "used_up"),
    Scene("used-up-often", _used_up_often, 410, "This link was used up", "It was last used at 21:15. It has no uses left.", "used_up"),
    Scene("expired", _expired, 410, "This link has expired", "It was good until yesterday at 21:16.", "expired"),
    Scene("revoked", _revoked, 410, "This link is no longer valid", "ask whoever gave it to you", "revoked"),
    Scene("paused", _paused, 403, "This link is paused", "can switch it on again", "paused"),
    Scene("unknown", _unknown, 404, "This link is not known here", "Type the code again", "unknown_token"),
    Scene("throttled", _throttled, 429, "Too many tries", "Please wait a minute.", "too_many_requests"),
    Scene("busy", _busy, 503, "Too much is going on right now", _STILL_GOOD.lower(), "busy", pressed=True),
    Scene("storage", _storage, 503, "This cannot be done right now", "Nothing was done", "storage_unavailable"),
    Scene("bad-request", _bad_request, 400, "This request is not in order", "open the link again", "bad_request", contact=False),
    Scene("no-page", _no_page, 404, "There is no such page", "check the address", "not_found"),
]  # fmt: skip
