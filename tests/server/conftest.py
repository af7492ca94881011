"""What the tests of the server share: one daemon for many tests, and the site in this process.

All of them run in one event loop, since the Home Assistant of the one daemon lives in it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, tzinfo
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from otsd.core.actions import Action, Plan
from otsd.core.changes import Changes
from otsd.core.codes import Codes, ImportedCodes
from otsd.core.errors import StorageUnavailable
from otsd.core.events import announcer
from otsd.core.manage import Mint, Tokens
from otsd.core.ports import ConnectionState, ConnectionStatus, Ran
from otsd.core.submit import Submissions
from otsd.core.tokens import Token
from otsd.payloads import ReplaceAction
from otsd.server.listener import Limits, ListenAddress, listening
from otsd.server.throttle import Throttle
from otsd.server.visitor import Site, VisitorSite
from otsd.store.store import opened
from tests.conftest import Clock
from tests.daemon import OPEN_DOOR, Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server import wire
from tests.server.owner import Browser, daemon_with_admin
from tests.server.wire import Reply

TITLE = "Café <Rain> & Sons"
CONTACT = "Call <b>Anna</b>: 030 1234"


class House:
    """A daemon, its fake Home Assistant, and the short ways of a test to both."""

    def __init__(self, home: FakeHomeAssistant, daemon: Daemon) -> None:
        self.home = home
        self.daemon = daemon
        self.admin = daemon.admin

    @property
    def port(self) -> int:
        return self.daemon.port

    async def ask(self, method: str, target: str, **more: Any) -> Reply:
        return await wire.ask(self.port, method, target, **more)

    async def press(self, code: str, attempt: str, **headers: str) -> Reply:
        return await wire.press(self.port, code, attempt, **headers)

    async def submit(self, code: str, attempt: str | None = None, **headers: str) -> Reply:
        if attempt is not None:
            headers["Idempotency_Key"] = attempt
        return await self.ask("POST", f"/api/public/token/submit?token={code}", **headers)

    async def details(self, code: str) -> Reply:
        return await self.ask("GET", f"/api/public/token/details?token={code}")

    async def page(self, code: str, attempt: str | None = None) -> Reply:
        end = "" if attempt is None else f"&attempt={attempt}"
        return await self.ask("GET", f"/?token={code}{end}")

    async def code(self, action: str = "open-door", **body: Any) -> str:
        """Mint a link and return its code."""
        return str((await self.daemon.mint(action, **body))["code"])

    async def token(self, action: str = "open-door", **body: Any) -> Any:
        return await self.daemon.mint(action, **body)

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(wire.PATIENCE):
            while not await condition():
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    settings = {
        "public.trusted_proxies": '["127.0.0.1"]',
        "public.title": f'"{TITLE}"',
        "public.contact": f'"{CONTACT}"',
    }
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked")
        async with Daemon(folder, url=home.url, token=home.token, settings=settings) as daemon:
            await daemon.connected()
            await daemon.action()
            yield House(home, daemon)
            # whatever the tests of the package did, it goes on, and nothing surprised it
            assert (await daemon.get("/healthz")).status == 200
            assert "nobody expected" not in daemon.log
            assert "Traceback" not in daemon.log


@pytest_asyncio.fixture(loop_scope="package")
async def house(_house: House) -> House:
    """Return one daemon for all, with a Home Assistant that does what it is told."""
    _house.home.on_call = lambda _: None
    _house.home.on_validate = lambda _: None
    await _house.daemon.connected()
    return _house


class Estate:
    """A daemon whose admin page is open, its fake Home Assistant, and browsers as many as needed."""

    def __init__(self, home: FakeHomeAssistant, daemon: Daemon, stack: AsyncExitStack) -> None:
        self.home = home
        self.daemon = daemon
        self.url = daemon.admin_url
        self._stack = stack

    async def browser(self) -> Browser:
        """Open a browser that knows nothing yet."""
        return await self._stack.enter_async_context(Browser(self.url))

    async def owner(self) -> Browser:
        """Open a browser and log in as an administrator of its own."""
        browser = await self.browser()
        user = self.home.add_user(f"Owner {len(self.home.users)}", admin=True)
        assert (await browser.log_in(self.home, user)).status == 303
        assert await browser.is_in()
        return browser


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _estate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    folder = tmp_path_factory.mktemp("estate")
    settings = {"admin.accept_home_assistant_tokens": "true", "public.title": f'"{TITLE}"'}
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        daemon = daemon_with_admin(folder, home, token=home.token, settings=settings)
        daemon.home = home  # type: ignore[attr-defined]
        async with daemon:
            await daemon.connected()
            await daemon.action()
            yield daemon
            assert home.most_wrong_logins <= 2
            assert "nobody expected" not in daemon.log
            assert "Traceback" not in daemon.log


@pytest_asyncio.fixture(loop_scope="package")
async def estate(_estate: Daemon) -> AsyncIterator[Estate]:
    """Return one daemon with an admin page for all."""
    async with AsyncExitStack() as stack:
        await _estate.connected()
        yield Estate(_estate.home, _estate, stack)  # type: ignore[attr-defined]


class StubHome:
    """The port `otsd.core.ports.Home`, which does what a test says."""

    def __init__(self) -> None:
        self.zone: tzinfo = ZoneInfo("Europe/Berlin")
        self.status = ConnectionStatus(ConnectionState.CONNECTED, datetime.now(UTC))
        self.fault: Exception | None = None
        self.answer: Callable[[], Awaitable[Ran]] | None = None
        self.ran = 0

    def check(self, plan: Plan) -> None:
        if self.fault is not None:
            raise self.fault

    async def run(self, plan: Plan, variables: Mapping[str, object]) -> Ran:
        self.ran += 1
        return await self.answer() if self.answer else Ran()

    async def validate(self, plan: Plan) -> str | None:
        return None

    async def missing(self, plan: Plan) -> list[str]:
        return []

    async def running(self) -> None:
        return

    async def fire(self, event_type: str, data: Mapping[str, object]) -> None:
        return

    async def notify(self, target: str, title: str, message: str) -> None:
        return


class FaultyStore:
    """A store of which some methods fail, as on a disk that is full or gone."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name in self.failing:
            raise StorageUnavailable("database or disk is full")
        return getattr(self._store, name)


class Place:
    """The public site in this process, with a clock, on a real store and a real socket."""

    def __init__(self, clock: Clock, home: StubHome) -> None:
        self.clock = clock
        self.home = home
        self.port = 0
        self.submissions: Submissions
        self.tokens: Tokens
        self.store: Any
        self.throttle_clock = 0.0

    async def token(self, **wish: Any) -> tuple[Token, str]:
        token = await self.tokens.mint(Mint("open-door", "cli", **wish))
        return token, self.tokens.code(token).reveal()

    async def ask(self, method: str, target: str, **more: Any) -> Reply:
        return await wire.ask(self.port, method, target, **more)

    async def page(self, code: str, attempt: str | None = None) -> Reply:
        end = "" if attempt is None else f"&attempt={attempt}"
        return await self.ask("GET", f"/?token={code}{end}")

    async def press(self, code: str, attempt: str) -> Reply:
        return await wire.press(self.port, code, attempt)


@pytest_asyncio.fixture(loop_scope="package")
async def open_place(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    """Return what opens the public site in this process: ``await open_place(limits=…)``."""
    async with AsyncExitStack() as stack:

        async def begin(
            *, root: str = "", limits: Limits | None = None, proxies: str = "127.0.0.1/32"
        ) -> Place:
            place = Place(clock, StubHome())
            store, key = await stack.enter_async_context(opened(tmp_path / "data"))
            codes, changes = Codes(key.derive("codes")), Changes()
            place.store = FaultyStore(store)
            place.submissions = await stack.enter_async_context(
                Submissions(
                    store=place.store,
                    home=place.home,
                    codes=codes,
                    imported=ImportedCodes(key.derive("imported codes")),
                    now=clock,
                    changes=changes,
                    announce=announcer(notify=False),
                )
            )
            place.tokens = Tokens(
                base_url="http://localhost",
                store=store,
                codes=codes,
                now=clock,
                changes=changes,
                random=secrets.token_bytes,
            )
            action: Action = ReplaceAction(title="Open the front door", yaml=OPEN_DOOR).action(
                "open-door"
            )
            await store.save_action(action, create=True, now=clock())
            site = VisitorSite(
                Site("Rain", "Call Anna", root, [ip_network(proxies)]),
                submissions=place.submissions,
                home=place.home,
                now=clock,
                throttle=Throttle(lambda: place.throttle_clock),
            )
            address = ListenAddress("public", "127.0.0.1", 0)
            place.port = await stack.enter_async_context(
                listening(site.application(), address, site.fallback, limits or Limits())
            )
            return place

        yield begin
