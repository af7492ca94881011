"""The adapter, kept connected for a test; afterwards nothing of it may be left."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import pytest
from yarl import URL

from otsd.core.actions import Plan, plan
from otsd.core.ports import ConnectionState
from otsd.home.home import Address, HomeAssistant, Pace, websocket_url
from tests.fakes.home_assistant import FakeHomeAssistant

QUICK = Pace(
    connect_deadline=timedelta(seconds=1),
    ping_every=timedelta(seconds=0.1),
    ping_deadline=timedelta(seconds=1),
    refusal_pauses=(timedelta(seconds=0.5), timedelta(days=1)),
)
UNLOCK = {"action": "lock.unlock", "target": {"entity_id": "lock.front_door"}}
PATIENCE = 10.0


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Kept(HomeAssistant):
    """The adapter with the task that keeps it connected, and the actions' plans."""

    def __init__(self, address: Address, plans: list[Plan], **more: Any) -> None:
        now = lambda: datetime.now(UTC)  # noqa: E731
        super().__init__(address, now=now, zone=UTC, plans=lambda: plans, **more)
        self.plans = plans
        self.task = asyncio.create_task(self.keep(), name="Home Assistant")

    @property
    def state(self) -> ConnectionState:
        """How the connection stands."""
        return self.status.state

    async def connected(self, seconds: float = PATIENCE) -> None:
        """Wait until it can be asked."""
        await until(lambda: self.state is ConnectionState.CONNECTED, seconds)

    async def unsuccessful(self) -> str:
        """Wait until a try to connect has failed, and return why."""
        await until(lambda: self.status.error)
        return str(self.status.error)

    async def end(self) -> None:
        """End it as the daemon does."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=3)
        assert self.task.cancelled()


class Connect(Protocol):
    """Makes an adapter; ``steps`` are the actions that the store holds."""

    async def __call__(
        self,
        home: FakeHomeAssistant | str,
        *steps: object,
        token: str | None = ...,
        wait: bool = ...,
        tls: ssl.SSLContext | bool = ...,
        **more: Any,
    ) -> Kept: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return what makes adapters; at the end nothing of theirs may run, or have failed unseen."""
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(repr(context)))
    async with AsyncExitStack() as stack:

        async def make(
            home: FakeHomeAssistant | str,
            *steps: object,
            token: str | None = "the fake's",
            wait: bool = True,
            tls: ssl.SSLContext | bool = True,
            **more: Any,
        ) -> Kept:
            if isinstance(home, FakeHomeAssistant):
                token = home.token if token == "the fake's" else token
                home = home.url
            address = Address(websocket_url(URL(home)), token, tls)
            more = {"action_timeout": timedelta(seconds=5), **more}
            kept = Kept(address, [plan(step) for step in steps], **more)
            stack.push_async_callback(kept.end)
            if wait:
                await kept.connected()
            return kept

        yield make
    gc.collect()
    await asyncio.sleep(0)
    left = [repr(task) for task in asyncio.all_tasks() if "Home Assistant" in task.get_name()]
    left += [repr(task) for task in asyncio.all_tasks() if "hass_client" in repr(task)]
    assert left == []
    assert faults == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for ``localhost``, signed by itself, and its key."""
    import subprocess

    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem",
        shell=True,
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder / "cert.pem", folder / "key.pem"


ZONE = ZoneInfo("Europe/Berlin")
