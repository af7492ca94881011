"""What scenarios are made of."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Final

from tests.daemon import Answer, Daemon
from tests.scenarios.house import House, until

BACK_WITHIN: Final = 5.0
NOTICED_WITHIN: Final = 20.0


def record(key: str, **data: object) -> str:
    """Return the YAML of a step that the witness writes down."""
    lines = "".join(f"  {name}: {value}\n" for name, value in {"key": key, **data}.items())
    return f"action: witness.record\ndata:\n{lines}"


async def form(otsd: Daemon, code: str, attempt: str) -> Answer:
    """Submit as a page without JavaScript does."""
    return await otsd.post("/", data={"token": code, "attempt": attempt})


async def usable(otsd: Daemon, code: str) -> float:
    """Submit until it is done, as a visitor would, and return how long that took."""
    begun = time.monotonic()
    async with asyncio.timeout(30):
        while (answer := await otsd.submit(code)).status != 200:
            assert (answer.status, answer.json["code"]) in (
                (503, "home_unavailable"),
                (503, "target_unavailable"),
            ), answer.text
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def uses_left(otsd: Daemon, token: Any) -> Any:
    """Return how often a token can still be used."""
    return (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"]


async def refused(otsd: Daemon, token: Any) -> None:
    """Check that a visitor hears that the house is away, and that this costs nothing."""
    before = await uses_left(otsd, token)
    answer = await otsd.submit(token["code"])
    assert (answer.status, answer.json["code"]) == (503, "home_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    page = await otsd.get(f"/?token={token['code']}")
    assert page.status == 503
    assert "<button" not in page.text
    assert (await form(otsd, token["code"], secrets.token_hex(8))).status == 503
    assert await uses_left(otsd, token) == before


async def ended(otsd: Daemon, code: str, attempt: str, seconds: float = NOTICED_WITHIN) -> Answer:
    """Ask after an attempt until it runs no more."""
    async with asyncio.timeout(seconds):
        while (answer := await otsd.submit(code, attempt)).status == 202:
            pass  # each answer takes up to two seconds
    return answer


async def in_order(house: House, token: Any, count: int) -> list[int]:
    """Wait until an automation heard so many submissions of a token, each once and in order."""
    await until(lambda: len(house.heard(token["id"])) >= count)
    await house.caught_up()
    ids = [event["submission_id"] for event in house.heard(token["id"])]
    assert ids == sorted(set(ids))
    assert len(ids) == count
    return ids


async def freeze_and_thaw(house: House, otsd: Daemon, seconds: float = 0) -> None:
    """Freeze Home Assistant in a call, until otsd has noticed and for so long; then thaw it."""
    key, other = secrets.token_hex(8), secrets.token_hex(8)
    await otsd.action("slow", record(key, seconds=0.5))
    await otsd.action("quick", record(other))
    slow, quick = await otsd.mint("slow", max_uses=2), await otsd.mint("quick", max_uses=5)
    assert (await form(otsd, slow["code"], "the-attempt")).status == 303
    await until(lambda: house.ran(key))

    await house.freeze()
    begun = time.monotonic()
    try:
        # one more is asked before the silence was noticed: it may or may not run later
        assert (await form(otsd, quick["code"], "in-silence")).status == 303
        for token, attempt in ((slow, "the-attempt"), (quick, "in-silence")):
            answer = await ended(otsd, token["code"], attempt)
            assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
        await refused(otsd, quick)
        assert time.monotonic() - begun < NOTICED_WITHIN
        await asyncio.sleep(seconds - (time.monotonic() - begun))
        await refused(otsd, quick)
    finally:
        await house.thaw()
    assert await usable(otsd, quick["code"]) < BACK_WITHIN

    assert (await otsd.submit(slow["code"], "the-attempt")).status == 504
    assert (await otsd.submit(quick["code"], "in-silence")).status == 504
    await in_order(house, slow, 1)
    await in_order(house, quick, 2)
    assert house.ran(key) == 1
    assert house.ran(other) in (1, 2)
    assert (await uses_left(otsd, slow), await uses_left(otsd, quick)) == (1, 3)
