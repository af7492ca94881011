"""What the add-on needs the Supervisor for, and what it does not wait for."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.addon.house import CONFIG, SLUG, AnyHome, House, Supervisor
from tests.addon.test_house import until_described
from tests.fakes.broker import FakeBroker
from tests.fakes.home_assistant import FakeHomeAssistant


class Silent(Supervisor):
    """Does not say what the add-on is called until the test says so; its first answer is garbage."""

    def __init__(self, home: AnyHome) -> None:
        super().__init__(home)
        self.asked: list[web.Request] = []
        self.says_it = asyncio.Event()

    async def _info(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if len(self.asked) == 1:
            # an encoding that Python has, and not for text
            garbage = {"Content-Type": "application/json; charset=hex"}
            return web.Response(body=b"{}", headers=garbage)
        await self.says_it.wait()
        return await super()._info(request)


async def test_it_starts_and_finds_the_broker_while_its_page_is_not_known_and_then_shows_it(
    fake_home: FakeHomeAssistant,
) -> None:
    house = House(fake_home)
    house.supervisor = supervisor = Silent(fake_home)
    async with house, FakeBroker() as broker:
        await house.start()
        async with asyncio.timeout(20):
            while len(supervisor.asked) < 2:
                await asyncio.sleep(0.02)
        # visitors are served, and the second answer is still being waited for
        _, asked = supervisor.asked
        assert asked.transport is not None
        async with house.broker(broker.port, "any"):
            await house.until_mqtt("connected")
            assert "cu" not in await until_described(broker)
            supervisor.says_it.set()
            device = await until_described(broker, "cu")
            assert device["cu"] == f"homeassistant://hassio/ingress/{SLUG}"
        # options as they come are no reason for a word
        assert "mqtt.host is not set" not in house.log
        assert "Traceback" not in house.log


async def test_a_login_for_a_broker_that_is_not_named_is_told_to_be_of_no_use(
    fake_home: FakeHomeAssistant,
) -> None:
    login = {"host": "", "username": "otsd", "password": "hunter2-and-more"}
    async with House(fake_home, {"mqtt": {**CONFIG["options"]["mqtt"], **login}}) as house:
        await house.start()
        (told,) = (line for line in house.log.splitlines() if "mqtt.host is not set" in line)
        assert "WARNING" in told
        assert ": mqtt.username, mqtt.password;" in told
        assert "hunter2" not in house.log
