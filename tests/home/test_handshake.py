"""What answers may be anything, or nothing: the owner is told what, and otsd stays up."""

import asyncio
import socket
import ssl
import time
from pathlib import Path

import pytest

from otsd.core.ports import ConnectionState
from tests.fakes.home_assistant import FakeHomeAssistant, Handshake
from tests.home.conftest import QUICK, Connect


@pytest.mark.parametrize(
    ("handshake", "words"),
    [
        ("not_a_websocket", "HTTP 200"),
        ("http_502", "HTTP 502"),
        ("close_at_once", "does not speak as Home Assistant does"),
        ("binary", "does not speak as Home Assistant does"),
        ("garbage_json", "does not speak as Home Assistant does"),
        ("silent", "does not answer"),
    ],
)
async def test_what_is_no_home_assistant_is_told_and_used_once_it_is_one(
    fake_home: FakeHomeAssistant, connect: Connect, handshake: Handshake, words: str
) -> None:
    fake_home.handshake = handshake
    home = await connect(fake_home, wait=False, pace=QUICK)
    assert words in await home.unsuccessful()
    assert home.state is ConnectionState.CONNECTING
    fake_home.handshake = "normal"
    await home.connected(6)
    assert fake_home.auth_attempts == 1


async def test_a_peer_that_takes_connections_and_says_nothing_is_tried_anew(
    connect: Connect,
) -> None:
    """As a proxy whose Home Assistant is away: what it took before the return leads nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        home = await connect(url, token="x", wait=False, pace=QUICK)
        deaf.setblocking(False)
        begun = time.monotonic()
        taken = [await asyncio.get_running_loop().sock_accept(deaf) for _ in range(2)]
        assert time.monotonic() - begun < 4
        assert "does not answer" in str(home.status.error)
    for connection, _ in taken:
        connection.close()


async def test_a_refused_port_is_told(connect: Connect) -> None:
    home = await connect("http://127.0.0.1:1", token="x", wait=False)
    assert await home.unsuccessful() == ("nothing answers at 127.0.0.1:1 (Connection refused)")


async def test_a_name_that_does_not_exist_is_told(connect: Connect) -> None:
    home = await connect("http://no-such-name.invalid:8123", token="x", wait=False)
    assert await home.unsuccessful() == (
        "the name no-such-name.invalid is not known; see home_assistant.url"
    )


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_of_an_unknown_authority_names_the_setting(
    connect: Connect, server: ssl.SSLContext
) -> None:
    async with FakeHomeAssistant(tls=server) as fake:
        url = fake.url.replace("127.0.0.1", "localhost")
        home = await connect(url, token=fake.token, wait=False)
        error = await home.unsuccessful()
        assert "localhost is not trusted" in error
        assert "home_assistant.ca_file" in error
        assert fake.attempts == 0


async def test_with_the_file_of_the_authority_it_is_trusted(
    connect: Connect, server: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    trust = ssl.create_default_context(cafile=certificate[0])
    async with FakeHomeAssistant(tls=server) as fake:
        url = fake.url.replace("127.0.0.1", "localhost")
        await connect(url, token=fake.token, tls=trust)
        assert fake.connections == 1


async def test_a_certificate_of_another_host_is_not_trusted(
    connect: Connect, server: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    trust = ssl.create_default_context(cafile=certificate[0])
    async with FakeHomeAssistant(tls=server) as fake:
        home = await connect(fake, tls=trust, wait=False)
        error = await home.unsuccessful()
        assert "127.0.0.1 is not trusted" in error
        assert "not valid for '127.0.0.1'" in error
        assert fake.attempts == 0


async def test_without_verification_any_certificate_will_do(
    connect: Connect, server: ssl.SSLContext
) -> None:
    async with FakeHomeAssistant(tls=server) as fake:
        await connect(fake, tls=False)
        assert fake.connections == 1


async def test_https_where_http_is_spoken_is_told(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    url = fake_home.url.replace("http:", "https:")
    home = await connect(url, token="x", wait=False)
    assert "does not speak TLS" in await home.unsuccessful()
