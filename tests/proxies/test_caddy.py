"""Behind a real Caddy, at the root and below a path, whether it strips the path or not."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.daemon import Daemon, free_port
from tests.fakes.home_assistant import FakeHomeAssistant

SITES = {
    "root": ("", "reverse_proxy 127.0.0.1:{otsd}"),
    "path": ("/door", "handle /door/* {{\nreverse_proxy 127.0.0.1:{otsd}\n}}"),
    "path stripped": ("/door", "handle_path /door/* {{\nreverse_proxy 127.0.0.1:{otsd}\n}}"),
}


@asynccontextmanager
async def caddy(folder: Path, port: int, site: str) -> AsyncIterator[str]:
    """Run Caddy on 127.0.0.1 with one site."""
    (folder / "Caddyfile").write_text(
        "{\nadmin off\nauto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\nbind 127.0.0.1\n{site}\n}}\n"
    )
    with (folder / "caddy.log").open("wb") as log:
        process = subprocess.Popen(
            ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(15), aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(url):
                        break
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("site", SITES)
async def test_links_pages_and_programs_work_behind_caddy(
    tmp_path: Path, fake_home: FakeHomeAssistant, site: str
) -> None:
    path, directives = SITES[site]
    port = free_port()
    settings = {
        "public.base_url": f'"http://127.0.0.1:{port}{path}"',
        "public.trusted_proxies": '["127.0.0.1"]',
    }
    async with Daemon(
        tmp_path, url=fake_home.url, token=fake_home.token, settings=settings
    ) as otsd:
        await otsd.connected()
        await otsd.action()
        async with caddy(tmp_path, port, directives.format(otsd=otsd.port)) as url:
            token = await otsd.mint(max_uses=2)
            assert token["url"].startswith(f"{url}{path}/?token=")

            page = await otsd.request("GET", token["url"])
            assert page.status == 200
            assert f'action="{path}/"' in page.text
            # forged: Caddy replaces what a stranger says of himself
            headers = {"X-Forwarded-For": "198.51.100.7"}
            form = {"token": token["code"], "attempt": "attempt-1"}
            sent = await otsd.request("POST", f"{url}{path}/", data=form, headers=headers)
            assert sent.status == 303
            assert sent.headers["Location"] == f"{path}/?token={token['code']}&attempt=attempt-1"
            done = await otsd.request("GET", f"{url}{sent.headers['Location']}")
            assert (done.status, "Done" in done.text) == (200, True)
            assert "Content-Security-Policy" in done.headers

            api = f"{url}{path}/api/public/token"
            details = await otsd.request("GET", f"{api}/details?token={token['code']}")
            assert details.json["response"]["uses_left"] == 1
            submit = await otsd.request("POST", f"{api}/submit?token={token['code']}")
            assert submit.json["response"]["state"] == "executed"
            gone = await otsd.request("GET", token["url"])
            assert gone.status == 410

            await otsd.announced()
        addresses = [event.data["remote_ip"] for event in fake_home.events]
        assert addresses == ["127.0.0.1", "127.0.0.1"]
    assert [call.service for call in fake_home.calls] == ["unlock", "unlock"]
