"""Whatever bytes come, the answer is one of ours, and nothing of them is in the log."""

import asyncio
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otsd.core.codes import Codes
from otsd.core.errors import UnknownToken
from otsd.server.listener import ListenAddress, listening
from otsd.server.throttle import Throttle
from otsd.server.visitor import Site, VisitorSite
from tests.server import wire
from tests.server.conftest import StubHome


class NoTokens:
    """A site of which nobody has a link."""

    def __init__(self) -> None:
        self.codes = Codes(secrets.token_bytes(32))

    def find(self, code: str) -> Any:
        assert self.codes.lookup(code) is None
        raise UnknownToken


@pytest.fixture(scope="module")
def noisy() -> Iterator[int]:
    """Serve such a site from another thread, since hypothesis has none for a loop."""
    site = VisitorSite(
        Site("Rain", None, ""),
        submissions=NoTokens(),  # type: ignore[arg-type]
        home=StubHome(),
        now=lambda: datetime.now(UTC),
        throttle=Throttle(lambda: 0.0),
    )
    started, port = threading.Event(), 0
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        nonlocal port
        address = ListenAddress("public", "127.0.0.1", 0)
        async with listening(site.application(), address, site.fallback) as port:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@given(
    st.binary(max_size=300),
    st.sampled_from(
        ["GET /?token={code}", "POST /", "", "GET http://", "GET /?token={code} HTTP/1.1\r\n"]
    ),
)
@settings(max_examples=60)
def test_whatever_bytes_come_every_answer_is_ours(noisy: int, noise: bytes, begin: str) -> None:
    async def send() -> None:
        begun = begin.replace("{code}", wire.SHAPED).encode()
        stream = await wire.talk(noisy, begun + noise + b"\r\n\r\n", half_close=True)
        for reply in wire.read(stream):
            wire.check_headers(reply)

    asyncio.run(send())
