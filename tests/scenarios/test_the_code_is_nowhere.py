"""A code is in the link and nowhere else: not at rest, in no log, event or notification.

Everything that was written is searched, after requests that were in order and after every kind
that was not and carried the code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from tests.daemon import Daemon
from tests.scenarios.conftest import Make
from tests.scenarios.house import House, until
from tests.scenarios.steps import form

COMMENT = "Plumber-4711"
DONE = {b"200", b"303"}


def malformed(code: str) -> dict[str, bytes]:
    """Return requests that are not in order, each with the code in it."""
    token = f"token={code}".encode()
    path = b"/?" + token
    head = b" HTTP/1.1\r\nHost: x\r\n"
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    return {
        "a bad version": b"GET " + path + b" HTTP/9.9\r\n\r\n",
        "no version": b"GET " + path + b"\r\n\r\n",
        "a NUL in the path": b"GET " + path + b"\0" + head + b"\r\n",
        "a NUL in a header": b"GET " + path + head + b"X-Code: " + token + b"\0\r\n\r\n",
        "a line of 20 kB": b"GET " + path + b"&x=" + b"a" * 20_000 + head + b"\r\n",
        "a header of 20 kB": b"GET " + path + head + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        "a bad method": b"G@T " + path + head + b"\r\n",
        "an unknown method": b"BREW " + path + head + b"\r\n",
        "the code as method": code.encode() + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
        "the code as header": b"GET / HTTP/1.1\r\nHost: x\r\n" + token + b"\r\n\r\n",
        "the code as version": b"GET / " + code.encode() + b"\r\n\r\n",
        "a bad length": post + b"Content-Length: " + code.encode() + b"\r\n\r\n" + token,
        "two lengths": post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + token,
        "a bad chunk": post + b"Transfer-Encoding: chunked\r\n\r\n" + token + b"\r\n\r\n",
        "a bad encoding": post + b"Transfer-Encoding: " + code.encode() + b"\r\n\r\n" + token,
        "a bad compression": post
        + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(token)
        + token,
        "a body too large": post + b"Content-Length: 20000\r\n\r\n" + token.ljust(20_000, b"&"),
        "a form that is none": post
        + b"Content-Length: %d\r\n\r\n" % (len(token) + 1)
        + token
        + b"\xff",
        "the code twice": b"GET " + path + b"&" + token + head + b"\r\n",
        "a bad attempt": b"GET " + path + b"&attempt=" + code.encode() + b"!" + head + b"\r\n",
        "a path that is not there": b"GET /" + code.encode() + path + head + b"\r\n",
        "a bad escape": b"GET " + path + b"%zz%00" + head + b"\r\n",
        "a foreign host": b"GET http://x" + path + head + b"\r\n",
        "a bad URL": b"GET http://[" + path + head + b"\r\n",
        "TLS": b"\x16\x03\x01" + token + b"\r\n\r\n",
        "half a head": b"GET " + path + b" HTTP/1.1\r\nHo",
        "half a body": post + b"Content-Length: 500\r\n\r\n" + token,
        "an upgrade": b"GET "
        + path
        + head
        + b"Connection: upgrade\r\nUpgrade: "
        + token
        + b"\r\n\r\n",
    }


UNFINISHED = {"half a head", "half a body"}


async def send(otsd: Daemon, raw: bytes, *, hang_up: bool) -> bytes:
    """Send raw bytes, and read what comes, or close at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", otsd.port)
    try:
        writer.write(raw)
        await writer.drain()
        if not hang_up:
            async with asyncio.timeout(15):
                return await reader.read(1 << 16)
    except ConnectionError:
        pass  # it closed before everything was sent
    finally:
        if hang_up:
            writer.transport.abort()
        writer.close()
    return b""


def written(house: House, otsd: Daemon) -> Iterator[tuple[str, bytes]]:
    """Everything that otsd and Home Assistant have written, or were told."""
    for path in sorted(otsd.folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
    yield from house.traces()


async def test_a_code_is_found_in_nothing_that_was_written(house: House, make: Make) -> None:
    settings = {"notifications.target": '"notify.witness"'}
    async with make(house, settings=settings) as otsd:
        await otsd.connected()
        await otsd.action()
        await otsd.action("half", "action: script.half\n")
        token = await otsd.mint(max_uses=100, comment=COMMENT)
        other = await otsd.mint("half", max_uses=100, comment=COMMENT)
        codes = [token["code"], other["code"]]
        notified = len(house.notified())

        # in order
        for code in codes:
            assert (await otsd.get(f"/?token={code}")).status == 200
            assert (await form(otsd, code, "attempt-1")).status == 303
            assert (await otsd.get(f"/?token={code}&attempt=attempt-1")).status == 200
            assert (await otsd.submit(code, "attempt-2")).status in (200, 502)
            assert (await otsd.get(f"/api/public/token/details?token={code}")).status == 200
            assert (await otsd.get(f"/{code}")).status == 404
            headers = {"User-Agent": "a visitor", "Referer": f"{otsd.url}/?token={code}"}
            assert (await otsd.get(f"/?token={code}", headers=headers)).status == 200
        link = (await otsd.admin("GET", f"/tokens/{token['id']}/link")).json["url"]
        assert link == token["url"]
        rotated = (await otsd.admin("POST", f"/tokens/{token['id']}/rotate")).json["url"]
        codes.append(rotated.rpartition("=")[2])
        assert (await otsd.submit(codes[0])).status == 410
        assert (await otsd.submit(codes[2])).status == 200

        # as what is kept, or told to Home Assistant
        code = codes[2]
        assert (await otsd.submit(code, code)).status == 400
        assert (await otsd.submit(code, f"x-{code}-x")).status == 400
        assert (await form(otsd, code, code)).status == 400
        headers = {"User-Agent": f"a visitor of {code}"}
        told = await otsd.post(f"/api/public/token/submit?token={code}", headers=headers)
        assert told.status == 200

        # not in order
        statuses: dict[str, bytes] = {}
        for code in (codes[1], codes[2]):
            for what, raw in malformed(code).items():
                if what not in UNFINISHED:
                    answer = await send(otsd, raw, hang_up=False)
                    statuses[what] = answer[9:12]
                    assert code.encode() not in answer or statuses[what] in DONE, what
                await send(otsd, raw, hang_up=True)
                await send(otsd, raw[: len(raw) // 2], hang_up=True)
        assert {status for status in statuses.values() if status[:1] != b"4"} <= DONE, statuses
        assert (await otsd.get("/healthz")).status == 200

        # also while Home Assistant is away, and by a daemon that was killed
        otsd.kill()
        await otsd.start()
        await otsd.connected()
        await otsd.announced()
        await house.caught_up()
        submitted = (await otsd.admin("GET", "/submissions")).json["items"]
        events = house.heard(token["id"]) + house.heard(other["id"])
        assert {event["submission_id"] for event in events} == {each["id"] for each in submitted}
        # one that was told right before the kill may be told again
        await until(lambda: len(house.notified()) >= notified + len(submitted))

        data = otsd.directory
        assert {path.name for path in data.iterdir()} >= {
            "otsd.db", "otsd.db-wal", "otsd.key"
        }  # fmt: skip
        await _search(house, otsd, codes)
    await _search(house, otsd, codes)


async def _search(house: House, otsd: Daemon, codes: list[str]) -> None:
    # a part of a code is as little anybody's business; that the search finds, the comment shows
    needles = [code[at : at + 11].encode() for code in codes for at in (0, 11, 22)]
    found_comment = set()
    for name, content in written(house, otsd):
        for needle in needles:
            at = content.find(needle)
            assert at < 0, f"{name}: {content[max(at - 200, 0) : at + 200]!r}"
        if COMMENT.encode() in content or json.dumps(COMMENT).encode() in content:
            found_comment.add(name.rpartition("/")[2].split()[0])
    assert found_comment >= {"otsd.db"} | ({"witness.jsonl"} if "/" in name else {"message"})
