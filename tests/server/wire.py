"""HTTP as it lies on the wire: requests byte by byte, answers with every header as it came."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import count
from typing import Any

PATIENCE = 20.0
NEVER = "code-that-nobody-has"
SHAPED = "0" * 33  # the shape of a code, and none
HOME_AWAY = "The house cannot be reached right now"

_addresses = count(1)


def address() -> str:
    """Return an address that no other test has, so that nobody is throttled for another."""
    number = next(_addresses)
    return f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"


@dataclass
class Reply:
    """One answer."""

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def page(self) -> Page:
        return Page(self.text)


class Page(HTMLParser):
    """A page as a browser takes it: its words, its forms, what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._open.append(tag)
        if tag == "form":
            self.forms.append({**attributes, "fields": {}, "buttons": 0})
        if tag == "input" and self.forms:
            self.forms[-1]["fields"][attributes["name"]] = attributes.get("value")
        if tag == "button" and self.forms:
            self.forms[-1]["buttons"] += 1

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside in ("style", "script", "title"):
            self.raw[inside] = self.raw.get(inside, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        """What is read on it."""
        return " ".join(" ".join(self.words).split())

    @property
    def button(self) -> dict[str, str] | None:
        """The fields of the form that submits a link, if there is one."""
        submitting = [form for form in self.forms if form["method"] == "post"]
        assert len(submitting) <= 1
        assert all(form["buttons"] == 1 for form in submitting)
        return submitting[0]["fields"] if submitting else None


def read(stream: bytes, methods: Sequence[str] = ("GET",)) -> list[Reply]:
    """Split what a server sent into answers; ``methods`` of the requests tell which have a body."""
    replies: list[Reply] = []
    while stream:
        head, found, rest = stream.partition(b"\r\n\r\n")
        assert found, stream[:200]
        first, *lines = head.decode().split("\r\n")
        version, status, _ = first.split(" ", 2)
        headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
        method = methods[min(len(replies), len(methods) - 1)]
        reply = Reply(version, int(status), headers, b"")
        if reply.status == 100:
            stream = rest
            continue
        length = 0 if method == "HEAD" else int(reply.header("Content-Length") or 0)
        reply.body, stream = rest[:length], rest[length:]
        assert len(reply.body) == length
        replies.append(reply)
    return replies


async def talk(port: int, *parts: bytes, pause: float = 0.02, half_close: bool = False) -> bytes:
    """Send parts one after another and return everything that came until the server closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause)
            writer.write(part)
            await writer.drain()
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


def request(
    method: str, target: str, *, body: bytes | None = None, version: str = "1.1", **headers: str
) -> bytes:
    """Write a request that asks the server to close; ``_`` in header names stands for ``-``."""
    lines = {"Host": "localhost", "Connection": "close", "X-Forwarded-For": address()}
    lines.update({name.replace("_", "-"): value for name, value in headers.items()})
    if body is not None:
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {target} HTTP/{version}\r\n{head}\r\n".encode() + (body or b"")


async def ask(port: int, method: str, target: str, **more: Any) -> Reply:
    """Send one request and return its answer."""
    (reply,) = read(await talk(port, request(method, target, **more)), [method])
    check_headers(reply)
    return reply


FORM = "application/x-www-form-urlencoded"


async def press(port: int, code: str, attempt: str, path: str = "/", **headers: str) -> Reply:
    """Press the button of a page."""
    body = f"token={code}&attempt={attempt}".encode()
    return await ask(port, "POST", path, body=body, Content_Type=FORM, **headers)


def check_headers(reply: Reply) -> None:
    """Hold an answer of the public site to the headers that every one must carry."""
    assert reply.header("Referrer-Policy") == "no-referrer"
    assert reply.header("Cache-Control") == "no-store"
    assert reply.header("X-Robots-Tag") == "noindex"
    assert reply.header("X-Content-Type-Options") == "nosniff"
    policy = reply.header("Content-Security-Policy")
    assert policy is not None
    assert "unsafe-" not in policy
    rules = [rule.strip() for rule in policy.split(";")]
    for rule in ("frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
        assert rule in rules
    assert "default-src 'none'" in rules
    names = {name.lower() for name, _ in reply.headers}
    assert "server" not in names
    assert "set-cookie" not in names
    assert not any(name.startswith("access-control-") for name in names)
    if (reply.header("Content-Type") or "").startswith("text/html") and reply.body:
        page = reply.page
        for kind in ("style", "script"):
            digest = hashlib.sha256(page.raw[kind].encode()).digest()
            source = f"'sha256-{base64.b64encode(digest).decode()}'"
            assert f"{kind}-src {source}" in rules
        assert len(reply.body) < 60_000
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes), tag
            for name in ("src", "href", "action"):
                assert not re.match(r"\w+:(?!,)|//", attributes.get(name) or ""), (tag, attributes)
