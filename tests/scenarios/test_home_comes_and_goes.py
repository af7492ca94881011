"""Home Assistant dies, freezes and starts, and otsd says what is true and comes back by itself."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tests.daemon import Daemon
from tests.scenarios.conftest import Make
from tests.scenarios.house import FakeHouse, House, RealHouse, until
from tests.scenarios.steps import (
    BACK_WITHIN,
    ended,
    form,
    freeze_and_thaw,
    in_order,
    record,
    refused,
    usable,
    uses_left,
)


async def test_otsd_starts_and_stays_up_without_home_assistant_and_uses_it_when_it_comes(
    house: House, make: Make
) -> None:
    await house.kill()
    async with make(house) as otsd:
        status = await otsd.until_status(lambda status: status["home_assistant"]["error"])
        assert status["home_assistant"]["state"] == "connecting"
        assert "nothing answers" in status["home_assistant"]["error"]
        await otsd.action()
        token = await otsd.mint(max_uses=2)
        await refused(otsd, token)
        assert (await otsd.get("/healthz")).status == 200

        before = house.opened()
        await house.start()
        assert await usable(otsd, token["code"]) < BACK_WITHIN
        assert house.opened() == before + 1
        assert await uses_left(otsd, token) == 1
        await in_order(house, token, 1)


async def test_a_call_that_home_assistant_died_in_is_unconfirmed_and_not_repeated(
    house: House, otsd: Daemon
) -> None:
    key, other = secrets.token_hex(8), secrets.token_hex(8)
    await otsd.action("slow", record(key, seconds=30))
    await otsd.action("quick", record(other))
    slow, quick = await otsd.mint("slow", max_uses=2), await otsd.mint("quick", max_uses=5)
    assert (await otsd.submit(quick["code"])).status == 200
    assert (await form(otsd, slow["code"], "the-attempt")).status == 303
    await until(lambda: house.ran(key))

    await house.kill()
    answer = await ended(otsd, slow["code"], "the-attempt")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    page = await otsd.get(f"/?token={slow['code']}&attempt=the-attempt")
    assert page.status == 200
    assert "No answer from the house" in page.text
    assert await uses_left(otsd, slow) == 1
    await refused(otsd, slow)
    await refused(otsd, quick)

    await house.start()
    assert await usable(otsd, quick["code"]) < BACK_WITHIN
    assert (await otsd.submit(slow["code"], "the-attempt")).status == 504
    await house.running()
    await in_order(house, slow, 1)
    (event,) = house.heard(slow["id"])
    assert (event["outcome"], event["uses_left"]) == ("unconfirmed", 1)
    await in_order(house, quick, 2)
    assert (house.ran(key), house.ran(other)) == (1, 2)


async def test_events_outlive_a_start_that_failed_and_a_kill_of_otsd(
    house: House, otsd: Daemon
) -> None:
    key = secrets.token_hex(8)
    await otsd.action("record", record(key))
    token = await otsd.mint("record", max_uses=10)
    await house.kill()

    # it runs actions as soon as the entities are there, but no automation would hear an event
    await house.start(starting=14)
    assert await usable(otsd, token["code"]) < BACK_WITHIN
    assert (await otsd.submit(token["code"])).status == 200
    assert await house.is_starting()
    assert house.ran(key) == 2
    counts = (await otsd.status())["counts"]
    assert (counts["running_submissions"], counts["waiting_events"]) == (0, 2)

    # what was done stays done, whoever dies now
    await house.kill()
    otsd.kill()
    await otsd.start()
    assert (await otsd.status())["counts"]["waiting_events"] == 2
    await refused(otsd, token)

    await house.start(starting=3)
    assert await usable(otsd, token["code"]) < BACK_WITHIN
    assert await house.is_starting()
    assert house.heard(token["id"]) == []
    await house.running()
    await in_order(house, token, 3)
    assert [event["outcome"] for event in house.heard(token["id"])] == ["executed"] * 3
    assert house.ran(key) == 3
    await otsd.announced()


@pytest.mark.real
async def test_a_home_assistant_that_stands_still_is_noticed_and_used_again(
    fake_house: FakeHouse, real_house: RealHouse, make: Make
) -> None:
    # both at a time: it is a test of waiting
    async with make(fake_house) as first, make(real_house) as second, asyncio.TaskGroup() as tasks:
        await first.connected()
        await second.connected()
        tasks.create_task(freeze_and_thaw(fake_house, first))
        tasks.create_task(freeze_and_thaw(real_house, second))


async def test_a_wrong_access_token_is_reported_and_hardly_ever_tried(
    house: House, make: Make
) -> None:
    before = house.refusals()
    async with make(house, token="wrong") as otsd:
        status = await otsd.until_status(
            lambda status: status["home_assistant"]["state"] == "refused"
        )
        assert "access token" in status["home_assistant"]["error"]
        await otsd.action()
        token = await otsd.mint()
        visits = 0
        async with asyncio.timeout(10):
            # a daemon that tried again as after a lost connection would do so often by now
            while visits < 100:
                answer = await otsd.submit(token["code"])
                assert (answer.status, answer.json["code"]) == (503, "home_unavailable")
                visits += 1
                await asyncio.sleep(0.02)
        assert await uses_left(otsd, token) == 1
        assert house.refusals() == before + 1
        assert (await otsd.status())["home_assistant"]["state"] == "refused"
