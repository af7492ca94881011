"""What costs nothing: fetching a link, and asking for what Home Assistant cannot do at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from tests.daemon import OPEN_DOOR, Daemon
from tests.scenarios.house import House

MESSENGERS = (
    "WhatsApp/2.23.20.0 A",
    "TelegramBot (like TwitterBot)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Signal-Android/6.40.0",
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) "
        "Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"
    ),  # iMessage
    "Twitterbot/1.0",
    "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
    "Mozilla/5.0 (Windows NT 10.0) Teams/1.6 Microsoft Office Protocol Discovery",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)


async def test_two_hundred_fetches_of_a_link_by_messengers_do_nothing(
    house: House, otsd: Daemon
) -> None:
    await otsd.action()
    token = await otsd.mint(max_uses=1)
    code, before = token["code"], house.opened()
    paths = (
        (f"/?token={code}", 200),
        (f"/?token={code}&attempt=an-attempt", 200),
        (f"/api/public/token/details?token={code}", 200),
        (f"/api/public/token/submit?token={code}", 405),
    )
    fetches = [
        (method, *paths[number % len(paths)], MESSENGERS[number // len(paths) % len(MESSENGERS)])
        for method in ("GET", "HEAD")
        for number in range(100)
    ]
    assert {agent for *_, agent in fetches} == set(MESSENGERS)

    async def fetch(method: str, path: str, status: int, agent: str) -> None:
        headers = {"User-Agent": agent}
        answer = await otsd.request(method, f"{otsd.url}{path}", headers=headers)
        assert answer.status == status

    async with asyncio.TaskGroup() as tasks:
        for each in fetches:
            tasks.create_task(fetch(*each))

    shown = (await otsd.admin("GET", f"/tokens/{token['id']}")).json
    assert (shown["uses_left"], shown["last_used_at"]) == (1, None)
    assert (await otsd.admin("GET", "/submissions")).json["items"] == []
    await otsd.announced()
    await house.caught_up()
    assert house.heard(token["id"]) == []
    assert house.opened() == before
    # and the link still is what it was
    assert (await otsd.submit(code)).status == 200
    assert house.opened() == before + 1


Give: TypeAlias = Callable[[House, bool], Awaitable[None]]

TARGETS: dict[str, tuple[str, Give]] = {
    "an entity that is missing": (
        "action: lock.unlock\ntarget:\n  entity_id: lock.visiting\n",
        lambda house, there: house.have_visiting(there=there),
    ),
    "an entity that is unavailable": (
        "action: lock.unlock\ntarget:\n  entity_id: lock.garden_gate\n",
        lambda house, there: house.make_available("lock.garden_gate", available=there),
    ),
    "one entity of two": (
        "action: lock.unlock\ntarget:\n  entity_id: [lock.front_door, lock.garden_gate]\n",
        lambda house, there: house.make_available("lock.garden_gate", available=there),
    ),
    "the second step of a sequence": (
        (
            "- action: lock.unlock\n  target:\n    entity_id: lock.front_door\n"
            "- action: lock.unlock\n  target:\n    entity_id: lock.visiting\n"
        ),
        lambda house, there: house.have_visiting(there=there),
    ),
    "a service that Home Assistant does not have": (
        "action: script.later\n",
        lambda house, there: house.have_later(there=there),
    ),
    "an area that is empty": (
        "action: lock.unlock\ntarget:\n  area_id: attic\n",
        lambda house, there: house.put("lock.cellar", "attic" if there else None),
    ),
    "an area where nothing is available": (
        "action: lock.unlock\ntarget:\n  area_id: garden\n",
        lambda house, there: house.make_available("lock.garden_gate", available=there),
    ),
}


@pytest.mark.parametrize("what", TARGETS)
async def test_what_is_missing_is_told_and_costs_nothing_until_it_is_there(
    house: House, otsd: Daemon, what: str
) -> None:
    yaml, give = TARGETS[what]
    await otsd.action("missing", yaml)
    token = await otsd.mint("missing", max_uses=1)
    opened = house.opened()

    for number in range(3):
        answer = await otsd.submit(token["code"], f"attempt-{number}")
        assert (answer.status, answer.json["code"]) == (503, "target_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    page = await otsd.get(f"/?token={token['code']}")
    assert page.status == 503
    assert "This cannot be done right now" in page.text
    assert "<button" not in page.text
    assert "lock." not in page.text  # what is in the house is nobody else's business
    assert (await otsd.post("/", data={"token": token["code"]})).status == 503
    assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 1
    assert (await otsd.admin("GET", "/submissions")).json["items"] == []
    assert house.opened() == opened

    await give(house, True)
    try:
        async with asyncio.timeout(10):
            # the same attempt as before: nothing was recorded for it
            while (answer := await otsd.submit(token["code"], "attempt-0")).status == 503:
                await asyncio.sleep(0.02)
        assert answer.status == 200
    finally:
        await give(house, False)
    assert (await otsd.submit(token["code"])).json["code"] == "used_up"


async def test_an_entity_that_says_unknown_is_there(house: House, otsd: Daemon) -> None:
    await otsd.action("cellar", OPEN_DOOR.replace("front_door", "cellar"))
    token = await otsd.mint("cellar")
    assert (await otsd.submit(token["code"])).status == 200


async def test_a_door_that_goes_away_and_comes_back_is_followed(house: House, otsd: Daemon) -> None:
    await otsd.action()
    token = await otsd.mint(max_uses=10)
    for available, status in ((False, 503), (True, 200), (False, 503), (True, 200)):
        await house.make_available("lock.front_door", available=available)
        async with asyncio.timeout(10):
            while (await otsd.get(f"/?token={token['code']}")).status != status:
                await asyncio.sleep(0.02)
        used = (await otsd.submit(token["code"])).status
        assert used == status
    assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 8
