"""What is said when the daemon does not answer as it should: a stand-in listens on its socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from otsd.cli.client import Client, NoDaemon, NoReply, Problem, segment

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.asynccontextmanager
async def standing_in(path: Path, answer: bytes | None) -> AsyncIterator[list[bytes]]:
    """Answer every request with these bytes and hang up; ``None`` never answers."""
    heard: list[bytes] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield heard
        done.set()


async def status(path: Path, deadline: float = 10) -> object:
    with Client(path, timedelta(seconds=deadline)) as client:
        return await asyncio.to_thread(client.get, "/status")


async def test_an_answer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with standing_in(path, HEAD + b'Content-Length: 9\r\n\r\n{"a": 1}\n') as heard:
        assert await status(path) == {"a": 1}
    assert heard[0].startswith(b"GET /api/v1/status HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "ended before it answered"),
        (b"\x00\x01\r\n", "ended before it answered"),
        (HEAD + b"Content-Length: 900\r\n\r\n{", "ended before it answered"),
        (HEAD + b"Content-Length: 2\r\n\r\n{]", "does not speak as this otsd does"),
        (HEAD + b"Content-Length: 2\r\n\r\n\xff\xff", "does not speak as this otsd does"),
    ],
)
async def test_half_an_answer_is_no_answer(tmp_path: Path, answer: bytes, told: str) -> None:
    path = tmp_path / "s"
    async with standing_in(path, answer):
        with pytest.raises(NoReply, match=told):
            await status(path)


async def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with standing_in(path, None):
        with pytest.raises(NoReply, match=r"has not answered within .* s; look at its log"):
            await status(path, 0.2)


async def test_a_problem_names_every_fault_and_its_place_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    body = (
        b'{"detail": "a: one", "code": "invalid", "errors": ['
        b'{"loc": ["a"], "msg": "one"}, {"loc": ["b", 0, "c"], "msg": "two"},'
        b'{"loc": [], "msg": "three"}]}'
    )
    head = b"HTTP/1.1 422 X\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with standing_in(path, head + body):
        with pytest.raises(Problem) as caught:
            await status(path)
    assert str(caught.value) == "a: one\nb.0.c: two\nthree"
    assert (caught.value.status, caught.value.code) == (422, "invalid")


async def test_a_failure_without_a_document_is_told_by_its_status(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with standing_in(path, b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]"):
        with pytest.raises(Problem, match="the daemon answered 500"):
            await status(path)


@pytest.mark.parametrize("there", ["nothing", "no folder", "a file", "a stale socket"])
async def test_without_a_daemon_its_socket_is_named_and_how_to_start_one(
    tmp_path: Path, there: str
) -> None:
    path = tmp_path / "otsd.sock"
    if there == "no folder":
        path = tmp_path / "data" / "otsd.sock"
    elif there == "a file":
        path.write_text("")
    elif there == "a stale socket":
        async with standing_in(path, b""):
            pass
        assert path.is_socket()
    with pytest.raises(NoDaemon, match="otsd run") as caught:
        await status(path)
    assert str(path) in str(caught.value)


async def test_a_path_that_no_socket_can_have_is_said_to_be_too_long(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="too long"):
        await status(tmp_path / ("x" * 120))


@pytest.mark.parametrize(
    ("name", "written"),
    [("open-door", "open-door"), ("a/b?c#d", "a%2Fb%3Fc%23d"), ("ü", "%C3%BC"), ("\udcff", "%FF")],
)
def test_a_name_stays_one_segment_of_the_path(name: str, written: str) -> None:
    assert segment(name) == written
