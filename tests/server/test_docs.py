"""The page about the owner's side is true: its tables are those of the code, its examples work."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from otsd.core.access import Scope
from otsd.home import credential, home
from otsd.home import reasons as reasons_of
from otsd.server import admin
from otsd.server.api import AdminApi
from otsd.settings import load
from tests.daemon import free_port
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.proxies.recipes import caddy_over_http
from tests.server.owner import SESSION, Browser, daemon_with_admin
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "admin.md"
CONFIGURED = [PAGE, ROOT / "docs" / "configuration.md", ROOT / "docs" / "reverse-proxy.md"]
GAP = "…"  # what differs from one message to the other


# -- reading the page, and the code ----------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    lines = [line.strip("|").split(" | ") for line in re.findall(r"^\|.*$", found[1], re.MULTILINE)]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def said(cell: str) -> list[str]:
    """Return what stands in italics."""
    return re.findall(r"\*([^*]+)\*", cell)


def text(node: ast.expr | None) -> str | None:
    """Return the text of a literal, with a gap for each value in it."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(text(part) or GAP for part in parts)
    return None


def reasons() -> set[str]:
    """Return every sentence by which a connection that could not be made is explained."""
    tree = ast.parse(Path(reasons_of.__file__).read_text())
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    returned = [
        text(node.value)
        for name in ("why", "_reason")
        for node in ast.walk(functions[name])
        if isinstance(node, ast.Return)
    ]
    return {each for each in returned if each is not None}


def quotes(row: str, message: str) -> bool:
    """Return whether the words of a row are those of a message, or of its beginning."""
    gap = re.escape(GAP)
    return re.match(re.escape(row).replace(gap, ".+"), message) is not None


# -- tables ----------------------------------------------------------------------------------


def test_every_page_that_ends_a_way_is_explained() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(Path(admin.__file__).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_message"
    ]
    pages = {(ast.literal_eval(call.args[0]), text(call.args[1])) for call in calls}
    rows = table("When a page says that it cannot go on")
    assert {(int(status), *said(says)) for status, says, *_ in rows} == pages
    assert [row for row in rows if not row[2]] == []


def test_every_reason_why_there_is_no_connection_is_explained() -> None:
    rows = [
        words
        for _, says, *_ in table("When otsd is not connected to Home Assistant")
        for words in said(says)
    ]
    messages = reasons() | {home._OFF, home._MEND, home._NOT_ADMIN, credential._ENDED}
    assert len(reasons()) > 5
    unexplained = {each for each in messages if not any(quotes(row, each) for row in rows)}
    assert unexplained == set()


def test_no_reason_is_explained_that_nobody_gives() -> None:
    code = "".join(each.read_text() for each in Path(home.__file__).parent.glob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # sentences go over lines
    for _, says, *_ in table("When otsd is not connected to Home Assistant"):
        for words in said(says):
            parts = [re.escape(part) for part in words.split(GAP)]
            assert re.search(r"\{[^}]+\}".join(parts), code), words


def test_every_operation_of_a_scope_is_listed() -> None:
    # the routes name their handlers, and call none
    routes = AdminApi(None).routes  # type: ignore[arg-type]
    for scope, may in table("API keys"):
        listed = re.findall(r"`([A-Z]+ /[^`]*)`", may)
        assert listed == [
            f"{route.method} {route.path}"
            for route in routes
            if Scope(scope.strip("`")) in route.scopes
        ]


# -- examples --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", CONFIGURED, ids=lambda page: page.name)
def test_every_piece_of_configuration_is_one(page: Path, tmp_path: Path) -> None:
    assert blocks(page, "toml")
    (tmp_path / "home_assistant").write_text("a secret")
    for block in blocks(page, "toml"):
        (tmp_path / "config.toml").write_text(block.replace("/run/secrets", str(tmp_path)))
        assert load(config=tmp_path / "config.toml", environ={})


def sites() -> Iterator[tuple[str, str]]:
    """Yield the addresses behind a proxy, each with the site of the Caddyfile."""
    addresses = [
        tomllib.loads(block)["admin"]["base_url"]
        for block in blocks(PAGE, "toml")
        if "https" in block and "[admin]" in block
    ]
    found = re.findall(r"^(\S+) \{\n(.*?)^\}$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for address, (host, site) in zip(addresses, found, strict=True):
        assert URL(address).host == host
        yield address, site


@pytest.mark.parametrize(("address", "site"), list(sites()), ids=["name", "path"])
async def test_behind_the_proxy_of_the_page_an_administrator_logs_in_and_out(
    tmp_path: Path, fake_home: FakeHomeAssistant, address: str, site: str
) -> None:
    front = free_port()
    base = f"http://127.0.0.1:{front}{URL(address).path.rstrip('/')}"
    settings = {"admin.base_url": f'"{base}"'}
    async with daemon_with_admin(
        tmp_path, fake_home, token=fake_home.token, settings=settings
    ) as daemon:
        upstream = daemon.admin_url.removeprefix("http://")
        assert "127.0.0.1:8099" in site
        async with (
            caddy_over_http(tmp_path, front, site.replace("127.0.0.1:8099", upstream)),
            Browser(base) as browser,
        ):
            assert (await browser.get("")).status in (302, 303)  # to what ends with /, or to log in
            back = await browser.log_in(fake_home)
            assert (back.status, back.headers["Location"]) == (303, "./"), back.text
            assert SESSION in browser.cookies
            assert (await browser.get("/")).status == 200
            assert await browser.is_in()
            assert (await browser.post("/logout")).status == 200
            assert not await browser.is_in()
