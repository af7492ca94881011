"""Home Assistant's sidebar in a network of its own, where one peer really has its address.

Prints what each who knocks is answered. The Supervisor is played by the fake Home Assistant, whose
websocket is where the Supervisor's is, and by requests from 172.30.32.2 as its ingress sends them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import key

SUPERVISOR = "172.30.32.2"
ADMIN = "http://127.0.0.1:8099"
PATH = "/api/hassio_ingress/Yk2gPXxhm"
HOST = "homeassistant.local:8123"


async def ask(
    address: str, method: str, path: str, user: str | None, *, at: str = ADMIN, **headers: str
) -> dict[str, Any]:
    """Send one request as ingress does for a user, from an address."""
    sent = {
        "Host": HOST,
        "X-Ingress-Path": PATH,
        "X-Hass-Source": "core.ingress",
        "X-Forwarded-For": "192.168.1.20",
        "X-Forwarded-Host": HOST,
        "X-Forwarded-Proto": "http",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    if user is not None:
        sent |= {"X-Remote-User-Id": user, "X-Remote-User-Name": "anna"}
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(
            method, at + path, headers=sent, allow_redirects=False, json={"action": "open-door"}
        ) as response,
    ):
        return {
            "status": response.status,
            "headers": {name.lower(): value for name, value in response.headers.items()},
            "text": await response.text(),
        }


async def main() -> None:
    """Knock in every way."""
    home = FakeHomeAssistant()
    home._port = 80
    home.set_state("lock.front_door", "locked")
    admin, guest = home.add_user("Anna", admin=True), home.add_user("Guest")
    gone = home.add_user("Gone", admin=True, active=False)
    settings = {"admin.host": '"0.0.0.0"', "admin.port": "8099"}
    page = {"Origin": f"http://{HOST}"}
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(
            Path(folder),
            token=None,
            settings=settings,
            environment={"SUPERVISOR_TOKEN": home.token},
        )
        async with home, daemon:
            await daemon.connected()
            await daemon.action()
            found = {
                "page": await ask(SUPERVISOR, "GET", "/", admin),
                "session": await ask(SUPERVISOR, "GET", "/api/v1/session", admin),
                "mint": await ask(SUPERVISOR, "POST", "/api/v1/tokens", admin, **page),
                "nothing": await ask(SUPERVISOR, "GET", "/api/v1/nothing", admin),
                "login": await ask(SUPERVISOR, "GET", "/login", admin),
                "connect": await ask(SUPERVISOR, "GET", "/connect", admin),
                "callback": await ask(SUPERVISOR, "GET", "/callback?code=a&state=b", admin),
                "foreign": await ask(
                    SUPERVISOR, "POST", "/api/v1/tokens", admin, Origin="http://evil.example"
                ),
                "guest": await ask(SUPERVISOR, "GET", "/api/v1/session", guest),
                "guest's page": await ask(SUPERVISOR, "GET", "/", guest),
                "inactive": await ask(SUPERVISOR, "GET", "/", gone),
                "nobody": await ask(SUPERVISOR, "GET", "/", None),
                "empty": await ask(SUPERVISOR, "GET", "/", ""),
                "unknown": await ask(SUPERVISOR, "GET", "/", "0" * 32),
                "asset": await ask(SUPERVISOR, "GET", "/assets/x.js", guest),
                "key": await ask(
                    SUPERVISOR, "GET", "/api/v1/session", guest, Authorization="Bearer otsd_x"
                ),
            }
            for address in ("127.0.0.1", "172.30.32.1"):
                at = await ask(address, "GET", "/api/v1/session", admin, Host="127.0.0.1:8099")
                called = await ask(address, "GET", "/", admin)
                found |= {f"{address}": at, f"{address} as ingress": called}
            bearer = (await key(daemon, "Prometheus", "read"))["bearer"]
            own = {"Host": "127.0.0.1:8099", **bearer}
            found |= {
                "metrics": await ask(SUPERVISOR, "GET", "/metrics", admin),
                "guest's metrics": await ask(SUPERVISOR, "GET", "/metrics", guest),
                "metrics by key": await ask("127.0.0.1", "GET", "/metrics", None, **own),
            }
            visitors = f"http://127.0.0.1:{daemon.port}"
            for address in (SUPERVISOR, "127.0.0.1"):
                for path in ("/metrics", f"{PATH}/metrics"):
                    name = f"public {path} from {address}"
                    found[name] = await ask(address, "GET", path, admin, at=visitors, **bearer)
            found["log"] = {"text": daemon.log}
            json.dump({**found, "admin": admin}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
