"""The recipes of docs/reverse-proxy.md and the real proxies that run them.

Of a recipe only host names, ports and paths of files are changed; what is added keeps a proxy to
itself: a folder of its own, no administration, no other address than 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.real.broker import certify
from tests.test_docs import ROOT

PAGE: Final = ROOT / "docs" / "reverse-proxy.md"
_PATIENCE: Final = 15


def section(heading: str, page: Path = PAGE) -> dict[str, list[str]]:
    """Return the fenced blocks below a heading, by language."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    blocks: dict[str, list[str]] = {}
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL):
        blocks.setdefault(language, []).append(text)
    return blocks


def settings() -> Any:
    """Return what the page says that otsd has to know."""
    (text,) = section("What otsd has to know")["toml"]
    return tomllib.loads(text)["public"]


@dataclass(frozen=True)
class Place:
    """Where a proxy and what is behind it are in a test."""

    folder: Path
    port: int
    public: int = 0
    admin: int = 0
    scheme: str = "https"

    @property
    def url(self) -> str:
        """The proxy."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All that the proxy has written."""
        return "".join(file.read_text() for file in self.folder.glob("*.log"))

    def moved(self, recipe: str) -> str:
        """Return a recipe with the ports of this place."""
        recipe = recipe.replace("127.0.0.1:1337", f"127.0.0.1:{self.public}")
        return recipe.replace("127.0.0.1:8099", f"127.0.0.1:{self.admin}")


def caddyfile(recipe: str, place: Place) -> str:
    """Return a recipe for Caddy as a whole file; a name's own part goes below the common one."""
    name = re.compile(r"^[\w.]+\.example\.org|^example\.org", re.MULTILINE)
    common, own = "", recipe
    if name.match(recipe) is None:
        end = recipe.index("\n}\n") + 3
        common, own = recipe[:end], recipe[end:]
    else:
        (first,) = section("Caddy, a name of its own")[""]
        common = first[: first.index("\n}\n") + 3]
    alone = "{\nadmin off\ndefault_bind 127.0.0.1\nskip_install_trust\nauto_https disable_redirects"
    own = name.sub(place.url, place.moved(own))
    return alone + common.removeprefix("{") + own


def nginx_conf(recipe: str, place: Place) -> str:
    """Return a recipe for nginx as a whole file; a location goes into a server."""
    folder = place.folder
    if not recipe.startswith("server"):
        (first,) = section("nginx, a name of its own")["conf"]
        head = re.match(r"server \{\n.*?\n\n", first, re.DOTALL)
        assert head is not None
        recipe = f"{head[0]}{recipe}}}\n"
    recipe = place.moved(recipe)
    recipe = recipe.replace("listen 443 ssl", f"listen 127.0.0.1:{place.port} ssl")
    recipe = re.sub(r"[\w.]*example\.org;", "127.0.0.1;", recipe)
    recipe = re.sub(r"/etc/\S+/fullchain\.pem", str(folder / "server.pem"), recipe)
    recipe = re.sub(r"/etc/\S+/privkey\.pem", str(folder / "server.key"), recipe)
    recipe = recipe.replace("/var/log/nginx/", f"{folder}/")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return (
        # workers take a user of their own otherwise, who cannot read the folder
        ("user root;\n" if os.geteuid() == 0 else "")
        + f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log warn;\nevents {{}}\n"
        + f"http {{\naccess_log {folder}/access.log;\n{temporary}{recipe}}}\n"
    )


@asynccontextmanager
async def caddy_over_http(folder: Path, port: int, site: str) -> AsyncIterator[None]:
    """Run Caddy with what stands below the name of a site, without TLS."""
    place = Place(folder, port, scheme="http")
    async with caddy(f"example.org {{\n{site}\n}}\n", place):
        yield


@asynccontextmanager
async def caddy(recipe: str, place: Place) -> AsyncIterator[None]:
    """Run Caddy with a recipe."""
    file = place.folder / "Caddyfile"
    file.write_text(caddyfile(recipe, place))
    command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    async with _running(command, place):
        yield


@asynccontextmanager
async def nginx(recipe: str, place: Place) -> AsyncIterator[None]:
    """Run nginx with a recipe."""
    certify(place.folder)
    file = place.folder / "nginx.conf"
    file.write_text(nginx_conf(recipe, place))
    command = [
        "nginx",
        "-e",
        f"{place.folder}/nginx.log",
        "-p",
        f"{place.folder}/",
        "-c",
        str(file),
    ]
    async with _running(command, place):
        yield


@asynccontextmanager
async def _running(command: Sequence[str], place: Place) -> AsyncIterator[None]:
    with (place.folder / "said.log").open("wb") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env={"HOME": str(place.folder), "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )
    try:
        async with asyncio.timeout(_PATIENCE), aiohttp.ClientSession() as http:
            while not await _answers(http, place):
                assert process.poll() is None, place.log
                await asyncio.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(_PATIENCE)


async def _answers(http: aiohttp.ClientSession, place: Place) -> bool:
    try:
        async with http.get(place.url, ssl=False):
            return True
    except aiohttp.ClientError:
        return False
