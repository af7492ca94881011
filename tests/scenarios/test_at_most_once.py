"""A use is spent at most once, and comes back only when nothing can have run."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

from tests.daemon import Answer, Daemon
from tests.scenarios.house import House
from tests.scenarios.steps import form, record


async def together(*requests: asyncio.Future[Answer] | object) -> list[Answer]:
    """Send requests at the same time."""
    return await asyncio.gather(*requests)  # type: ignore[arg-type]


async def test_of_fifty_parallel_submissions_one_opens_the_door(house: House, otsd: Daemon) -> None:
    await otsd.action()
    token = await otsd.mint(max_uses=1)
    before = house.opened()

    answers = await together(
        *(otsd.submit(token["code"], f"attempt-{number}") for number in range(25)),
        *(form(otsd, token["code"], f"attempt-{number}") for number in range(25, 50)),
    )

    statuses = Counter(answer.status for answer in answers)
    assert statuses.pop(410) == 49
    assert statuses in ({200: 1}, {303: 1})
    for answer in answers:
        if answer.json is not None and answer.status == 410:
            assert answer.json["code"] == "used_up"
        elif answer.status == 410:
            assert "This link was used" in answer.text
    await otsd.announced()
    await house.caught_up()
    assert house.opened() == before + 1
    (event,) = house.heard(token["id"])
    assert (event["outcome"], event["uses_left"]) == ("executed", 0)


async def test_one_attempt_fifty_times_at_once_has_one_outcome(house: House, otsd: Daemon) -> None:
    await otsd.action()
    token = await otsd.mint(max_uses=3)
    before = house.opened()

    answers = await together(
        *(otsd.submit(token["code"], "the-attempt") for _ in range(25)),
        *(form(otsd, token["code"], "the-attempt") for _ in range(25)),
    )

    told = Counter((answer.status, answer.text or answer.headers["Location"]) for answer in answers)
    assert sorted((status, count) for (status, _), count in told.items()) == [(200, 25), (303, 25)]
    await otsd.announced()
    await house.caught_up()
    assert house.opened() == before + 1
    (event,) = house.heard(token["id"])
    assert event["uses_left"] == 2


async def test_a_repeated_attempt_gets_the_first_outcome_also_after_a_kill(
    house: House, otsd: Daemon
) -> None:
    await otsd.action()
    token = await otsd.mint(max_uses=3)
    before = house.opened()
    first = await otsd.submit(token["code"], "the-attempt")
    assert (first.status, first.json["response"]["state"]) == (200, "executed")
    assert (await otsd.submit(token["code"], "the-attempt")).json == first.json

    otsd.kill()
    await otsd.start()
    again = await otsd.submit(token["code"], "the-attempt")  # Home Assistant may still be away
    assert (again.status, again.json) == (200, first.json)
    page = await form(otsd, token["code"], "the-attempt")
    assert page.status == 303
    assert "Done" in (await otsd.get(page.headers["Location"])).text

    await otsd.connected()
    assert (await otsd.submit(token["code"], "the-attempt")).json == first.json
    await otsd.announced()
    await house.caught_up()
    assert house.opened() == before + 1
    events = house.heard(token["id"])
    assert {event["submission_id"] for event in events} == {1}
    assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 2


async def test_an_attempt_that_was_cut_by_a_kill_is_unconfirmed_for_ever(
    house: House, otsd: Daemon
) -> None:
    key = secrets.token_hex(8)
    await otsd.action("slow", record(key, seconds=2))
    token = await otsd.mint("slow", max_uses=3)
    assert (await form(otsd, token["code"], "the-attempt")).status == 303
    async with asyncio.timeout(10):
        while not house.ran(key):
            await asyncio.sleep(0.01)

    otsd.kill()
    await otsd.start()
    await otsd.connected()
    for _ in range(3):
        answer = await otsd.submit(token["code"], "the-attempt")
        assert (answer.status, answer.json["code"]) == (504, "outcome_unknown")
    await otsd.announced()
    await house.caught_up()
    assert house.ran(key) == 1
    (event,) = house.heard(token["id"])
    assert (event["outcome"], event["uses_left"]) == ("unconfirmed", 2)


async def test_a_sequence_that_fails_at_its_second_step_is_spent_after_one_run(
    house: House, otsd: Daemon
) -> None:
    first, third = secrets.token_hex(8), secrets.token_hex(8)
    steps = (record(first), record("second", refuse="on purpose"), record(third))
    sequence = "".join("- " + step.replace("\n", "\n  ").rstrip(" ") for step in steps)
    await otsd.action("sequence", sequence)
    token = await otsd.mint("sequence", max_uses=1)

    answers = await together(
        *(otsd.submit(token["code"], f"attempt-{number}") for number in range(5))
    )

    assert sorted((answer.status, answer.json["code"]) for answer in answers) == [
        *[(410, "used_up")] * 4,
        (502, "action_incomplete"),
    ]
    await otsd.announced()
    await house.caught_up()
    assert (house.ran(first), house.ran(third)) == (1, 0)
    (event,) = house.heard(token["id"])
    assert (event["outcome"], event["uses_left"]) == ("failed", 0)
    (submission,) = (await otsd.admin("GET", "/submissions")).json["items"]
    assert submission["spent"] is True
    assert submission["error"]

    # the owner sees that, and can give it back
    await otsd.admin("POST", f"/submissions/{submission['id']}/refund")
    assert (await otsd.submit(token["code"])).status == 502
    assert house.ran(first) == 2


async def test_a_script_that_fails_is_spent_although_it_is_one_step(
    house: House, otsd: Daemon
) -> None:
    await otsd.action("half", "action: script.half\n")
    token = await otsd.mint("half", max_uses=1)
    before = house.ran("half_first")

    statuses = [(await otsd.submit(token["code"])).status for _ in range(3)]

    assert statuses == [502, 410, 410]
    assert house.ran("half_first") == before + 1


async def test_the_use_comes_back_whenever_a_single_step_is_refused(
    house: House, otsd: Daemon
) -> None:
    key = secrets.token_hex(8)
    await otsd.action("refused", record(key, refuse="not today"))
    token = await otsd.mint("refused", max_uses=1)

    for number in range(1, 4):
        answer = await otsd.submit(token["code"], f"attempt-{number}")
        assert (answer.status, answer.json["code"]) == (502, "action_failed")
        assert "not today" not in answer.text  # Home Assistant's words are for the owner alone
        assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 1
    page = await form(otsd, token["code"], "attempt-4")
    assert page.status == 303
    assert "It did not work" in (await otsd.get(page.headers["Location"])).text

    await otsd.announced()
    await house.caught_up()
    assert house.ran(key) == 0
    events = house.heard(token["id"])
    assert [(event["outcome"], event["uses_left"]) for event in events] == [("failed", 1)] * 4
    assert all("not today" in event["error"] for event in events)
    submissions = (await otsd.admin("GET", "/submissions")).json["items"]
    assert [submission["spent"] for submission in submissions] == [False] * 4
