"""A house with everything: Home Assistant with the blueprints, a broker, and otsd beside them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.daemon import OPEN_DOOR, Daemon
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant

ROOT: Final = Path(__file__).parents[2]
BASE_URL: Final = "https://door.example.org"
ADDITIONS: Final = Path(__file__).parent / "home"


@dataclass(frozen=True)
class House:
    """What is in it, and what an owner does with it."""

    home: HomeAssistant
    broker: Mosquitto
    otsd: Daemon

    async def create_link(self, **fields: Any) -> Any:
        """Run the script that was made from the blueprint, and return its response."""
        return await self.home.call("script", "create_link", fields, answer=True)

    async def make(self, entity_id: str, blueprint: str, **inputs: Any) -> None:
        """Make a script or an automation from a blueprint."""
        name = entity_id.partition(".")[2]
        path = f"otsd/{blueprint}.yaml"
        config = {"alias": name.replace("_", " "), "use_blueprint": {"path": path, "input": inputs}}
        await self.save(entity_id, name, config)

    async def save(self, entity_id: str, key: str, config: Mapping[str, Any]) -> None:
        """Save a script or an automation, as the front end does, and wait until it is there."""
        kind = entity_id.partition(".")[0]
        await self.home.request("POST", f"/api/config/{kind}/config/{key}", config)
        await until(lambda: self.home.state(entity_id), "on" if kind == "automation" else "off")

    async def remove(self, entity_id: str, key: str | None = None) -> None:
        """Delete a script or an automation, as the front end does, with all that it waits for."""
        kind, name = entity_id.split(".")
        await self.home.request("DELETE", f"/api/config/{kind}/config/{key or name}")
        await until(lambda: self.home.state(entity_id), None)

    async def running(self, entity_id: str) -> int:
        """Return how many runs of a script or an automation there are."""
        entity = await self.home.entity(entity_id)
        return int(entity["attributes"]["current"]) if entity else 0

    async def tokens(self) -> list[Any]:
        """Return every token, newest first."""
        found: list[Any] = (await self.otsd.admin("GET", "/tokens?limit=500")).json["items"]
        return found

    async def token(self, token_id: str) -> Any:
        """Return one."""
        return (await self.otsd.admin("GET", f"/tokens/{token_id}")).json

    async def token_state(self, link: Mapping[str, Any]) -> str:
        """Return the state of the token of a link that `create_link` returned."""
        return str((await self.token(link["token_id"]))["state"])


async def until(ask: Callable[[], Any], expected: Any, seconds: float = 20) -> None:
    """Wait until the answer to a question is what is expected."""
    found = None
    try:
        async with asyncio.timeout(seconds):
            while (found := await ask()) != expected:
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise TimeoutError(f"{found!r} instead of {expected!r}") from error


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _furnished(
    real_home_session: HomeAssistant, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HomeAssistant]:
    """Give the shared Home Assistant the blueprints, and take away whatever came of them."""
    home = real_home_session
    before = tmp_path_factory.mktemp("before") / "home"
    await home.stop()
    shutil.copytree(home.folder, before)
    shutil.copytree(ROOT / "blueprints", home.folder / "blueprints", dirs_exist_ok=True)
    shutil.copytree(ADDITIONS, home.folder, dirs_exist_ok=True)
    with (home.folder / "configuration.yaml").open("a") as configuration:
        configuration.write((ADDITIONS / "additions.yaml").read_text())
    (home.folder / "automations.yaml").write_text("[]\n")
    (home.folder / "scripts.yaml").write_text("{}\n")
    await home.start()
    yield home
    await home.stop()
    shutil.rmtree(home.folder)
    shutil.copytree(before, home.folder)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def house(
    _furnished: HomeAssistant, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """Return the house, with the script `create_link` and the actions ``open-door`` and ``often``."""
    home = _furnished
    folder = tmp_path_factory.mktemp("house")
    async with Mosquitto(folder / "broker") as broker:
        settings = {
            **broker.settings,
            "mqtt.publish_links": "true",
            "public.base_url": f'"{BASE_URL}"',
        }
        async with Daemon(folder, url=home.url, token=home.token, settings=settings) as otsd:
            await otsd.connected()
            await otsd.action(yaml=OPEN_DOOR)
            await otsd.action(
                "often", title="Come often", defaults={"max_uses": 3, "expires_in": "1h"}
            )
            await home.add_mqtt(broker.port)
            house = House(home, broker, otsd)
            await house.make("script.create_link", "create_link")
            yield house
            assert "Traceback" not in otsd.log
