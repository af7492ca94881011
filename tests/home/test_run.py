"""What Home Assistant is asked, word for word, and what its answers, or none, mean."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from otsd.core.actions import plan
from otsd.core.errors import NoAnswer, NotAsked, Refused
from otsd.core.ports import Ran
from tests.fakes.home_assistant import After, Call, Fail, FakeHomeAssistant, HangUp, Stall, Succeed
from tests.home.conftest import UNLOCK, Connect, Kept, until

VARIABLES = {
    "token": {"id": "k7m2qx4d", "comment": "{{ 1 + 1 }}", "max_uses": 1, "uses_left": 0},
    "submission": {"id": 41, "remote_ip": "203.0.113.9"},
}


def sent(fake: FakeHomeAssistant) -> dict[str, Any]:
    """Return the last action that was asked for, as it came over the wire."""
    (*_, message) = [
        each for each in fake.received if each["type"] in ("call_service", "execute_script")
    ]
    return {key: value for key, value in message.items() if key != "id"}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (UNLOCK, {"target": {"entity_id": "lock.front_door"}}),
        ({"service": "lock.unlock"}, {}),
        ({"action": "Lock.Unlock", "alias": "Open", "metadata": {"a": 1}}, {}),
        ({"action": "lock.unlock", "data": {"code": "1234"}}, {"service_data": {"code": "1234"}}),
        ({"action": "lock.unlock", "data": {}, "target": None}, {}),
        ([UNLOCK], {"target": {"entity_id": "lock.front_door"}}),
        (
            {
                "action": "lock.unlock",
                "target": {"area_id": ["hall", "attic"], "entity_id": ["lock.b", "lock.a"]},
                "data": {"deep": [1, 2.5, None, True, {"ü": "é😀"}], "entity_id": "all"},
            },
            {
                "target": {"area_id": ["hall", "attic"], "entity_id": ["lock.b", "lock.a"]},
                "service_data": {
                    "deep": [1, 2.5, None, True, {"ü": "é😀"}],
                    "entity_id": "all",
                },
            },
        ),
    ],
)
async def test_one_plain_step_is_call_service_with_data_and_target_unchanged(
    fake_home: FakeHomeAssistant, connect: Connect, step: object, message: dict[str, object]
) -> None:
    home = await connect(fake_home, step)
    ran = await home.run(home.plans[0], VARIABLES)
    call = {"type": "call_service", "domain": "lock", "service": "unlock"}
    assert sent(fake_home) == {**call, **message}
    assert ran == Ran(fake_home.calls[0].context_id, None)


@pytest.mark.parametrize(
    "steps",
    [
        [UNLOCK, {"action": "light.turn_on", "target": {"area_id": "hall"}}],
        [{"delay": 1}],
        [{**UNLOCK, "continue_on_error": True}],
        [{**UNLOCK, "enabled": False}],
        [{**UNLOCK, "response_variable": "answer"}],
        [{"action": "lock.unlock", "data": {"code": "{{ token.comment | string }}"}}],
        [{"action": "{{ 'lock.unlock' }}"}],
        [{"event": "hello"}],
    ],
)
async def test_everything_else_is_execute_script_with_the_variables(
    fake_home: FakeHomeAssistant, connect: Connect, steps: list[object]
) -> None:
    home = await connect(fake_home, steps)
    await home.run(home.plans[0], VARIABLES)
    assert sent(fake_home) == {
        "type": "execute_script",
        "sequence": steps,
        "variables": VARIABLES,
    }


async def test_what_can_only_be_called_for_its_response_is_asked_for_it(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.add_service("witness", "answer", {"ok": True}, response_only=True)
    fake_home.add_service("witness", "may", {"ok": True})
    home = await connect(fake_home, {"action": "witness.answer"}, {"action": "witness.may"})
    ran = await home.run(home.plans[0], {})
    assert fake_home.calls[-1].return_response
    assert ran.response == {"ok": True}
    await home.run(home.plans[1], {})
    assert not fake_home.calls[-1].return_response


async def test_the_response_of_a_script_is_returned(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, [{"stop": "", "response_variable": "x"}])
    fake_home.on_call = lambda _: Succeed({"x": 1})
    ran = await home.run(home.plans[0], {})
    assert ran == Ran(fake_home.calls[0].context_id, {"x": 1})


async def test_it_has_run_when_home_assistant_says_so_and_not_before(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    done = asyncio.Event()
    fake_home.on_call = lambda _: After(done, Succeed())
    running = asyncio.create_task(home.run(home.plans[0], {}))
    await fake_home.until(lambda: fake_home.calls)
    await asyncio.sleep(0.05)
    assert not running.done()
    done.set()
    assert (await running).context_id


async def test_an_error_carries_home_assistants_own_words(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    fake_home.on_call = lambda _: Fail("home_assistant_error", "The lock is jammed")
    with pytest.raises(Refused, match=r"^The lock is jammed$"):
        await home.run(home.plans[0], {})


async def test_no_answer_within_the_time_is_told_as_such_and_the_connection_goes_on(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK, action_timeout=timedelta(seconds=0.2))
    fake_home.on_call = lambda _: Stall()
    with pytest.raises(NoAnswer):
        await home.run(home.plans[0], {})
    fake_home.on_call = lambda _: None
    await home.run(home.plans[0], {})
    assert fake_home.auth_attempts == 1
    assert len(fake_home.calls) == 2


async def test_an_answer_that_comes_too_late_hurts_nobody(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK, action_timeout=timedelta(seconds=0.1))
    go_on = asyncio.Event()
    fake_home.on_call = lambda _: After(go_on, Succeed())
    with pytest.raises(NoAnswer):
        await home.run(home.plans[0], {})
    go_on.set()
    fake_home.on_call = lambda _: None
    await home.run(home.plans[0], {})
    assert fake_home.auth_attempts == 1


async def test_a_connection_that_ends_in_the_middle_means_that_nobody_knows(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    fake_home.on_call = lambda _: HangUp()
    with pytest.raises(NoAnswer):
        await home.run(home.plans[0], {})


@pytest.mark.parametrize("how", ["hang_up", "stop"])
async def test_of_64_calls_in_flight_none_is_answered_and_none_is_repeated(
    fake_home: FakeHomeAssistant, connect: Connect, how: str
) -> None:
    home = await connect(fake_home, UNLOCK)
    fake_home.on_call = lambda _: Stall()
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(_outcome(home)) for _ in range(64)]
        await fake_home.until(lambda: len(fake_home.calls) == 64)
        await (fake_home.hang_up() if how == "hang_up" else fake_home.stop())
        if how == "stop":
            await fake_home.start()
    assert [call.result() for call in calls] == [NoAnswer] * 64
    await until(lambda: fake_home.auth_attempts == 2)
    await home.connected()
    fake_home.on_call = lambda _: None
    await home.run(home.plans[0], {})
    assert len(fake_home.calls) == 65


async def test_calls_made_while_the_connection_is_lost_are_asked_at_most_once(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    """Whatever is told as not asked was not asked, in each step of the event loop around a loss."""
    home = await connect(fake_home, UNLOCK)
    outcomes: list[object] = []

    async def press() -> None:
        while True:
            outcomes.append(await _outcome(home))
            await asyncio.sleep(0)

    for _ in range(5):
        await home.connected()
        pressing = asyncio.create_task(press())
        await asyncio.sleep(0.02)
        await fake_home.hang_up()
        await until(lambda: NotAsked in outcomes[-5:])
        pressing.cancel()
        await asyncio.wait([pressing])
    await home.connected()
    await home.run(home.plans[0], {})
    answered = sum(outcome is None for outcome in outcomes) + 1
    unknown = sum(outcome is NoAnswer for outcome in outcomes)
    assert answered <= len(fake_home.calls) <= answered + unknown + 5  # cancelled in the middle


async def _outcome(home: Kept) -> object:
    try:
        await home.run(home.plans[0], {})
    except (NoAnswer, NotAsked) as error:
        return type(error)
    return None


async def test_who_gives_up_waiting_is_cancelled_and_nobody_else(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    go_on = asyncio.Event()
    fake_home.on_call = lambda _: After(go_on, Succeed())
    first, second = (asyncio.create_task(home.run(home.plans[0], {})) for _ in range(2))
    await fake_home.until(lambda: len(fake_home.calls) == 2)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    go_on.set()
    assert (await second).context_id
    assert fake_home.auth_attempts == 1


async def test_without_a_connection_nothing_is_asked(connect: Connect) -> None:
    home = await connect("http://127.0.0.1:1", UNLOCK, token="x", wait=False)
    steps = home.plans[0]
    for asking in (
        home.run(steps, {}),
        home.validate(steps),
        home.fire("x", {}),
        home.notify("notify.notify", "t", "m"),
    ):
        with pytest.raises(NotAsked):
            await asking
    assert await home.missing(steps) == []


async def test_what_json_cannot_carry_is_not_asked(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, {"action": "lock.unlock", "data": {"code": {1, 2}}})
    with pytest.raises(NotAsked):
        await home.run(home.plans[0], {})
    assert fake_home.calls == []


# -- what else is asked --------------------------------------------------------------------------


async def test_validation_hands_on_the_steps_and_what_is_wrong_with_them(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    home = await connect(fake_home, UNLOCK)
    seen: list[object] = []

    def judge(config: object) -> str | None:
        seen.append(config)
        return None if len(seen) == 1 else "extra keys not allowed"

    fake_home.on_validate = judge
    assert await home.validate(home.plans[0]) is None
    assert await home.validate(home.plans[0]) == "extra keys not allowed"
    assert seen == [[UNLOCK], [UNLOCK]]
    fake_home.on_command = lambda _: Fail("unauthorized", "Unauthorized")
    assert await home.validate(home.plans[0]) == "Unauthorized"
    fake_home.on_command = lambda _: HangUp()
    with pytest.raises(NotAsked):
        await home.validate(home.plans[0])


async def test_an_event_that_is_refused_says_why(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.admin = False
    home = await connect(fake_home)
    await home.running()
    with pytest.raises(Refused, match="Unauthorized"):
        await home.fire("one_time_token_submitted", {"n": 1})


async def test_a_notify_action_gets_title_and_message(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.add_service("notify", "phone")
    home = await connect(fake_home)
    await home.notify("notify.phone", "Front door", "Plumber: executed")
    data = {"title": "Front door", "message": "Plumber: executed"}
    assert fake_home.calls == [Call("call_service", "notify", "phone", data)]


async def test_a_notify_action_that_came_after_the_connection_is_called_as_well(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    """As that of a phone does, each time Home Assistant starts."""
    home = await connect(fake_home)
    fake_home.add_service("notify", "phone")
    await home.validate(plan(UNLOCK))  # its answer comes after the news
    await home.notify("notify.phone", "Front door", "executed")
    assert [call.service for call in fake_home.calls] == ["phone"]


async def test_a_notify_entity_is_sent_a_message(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.add_service("notify", "send_message", target={"entity": [{"domain": ["notify"]}]})
    fake_home.set_state("notify.tablet", "unknown")
    home = await connect(fake_home)
    await home.notify("notify.tablet", "Front door", "executed")
    data = {"title": "Front door", "message": "executed"}
    target = {"entity_id": "notify.tablet"}
    assert fake_home.calls == [Call("call_service", "notify", "send_message", data, target)]


async def test_a_notify_target_that_is_not_there_is_refused_as_home_assistant_would_not(
    fake_home: FakeHomeAssistant, connect: Connect
) -> None:
    fake_home.add_service("notify", "send_message", target={"entity": [{"domain": ["notify"]}]})
    home = await connect(fake_home)
    with pytest.raises(Refused, match=r"notify\.typo is missing"):
        await home.notify("notify.typo", "Front door", "executed")
    assert fake_home.calls == []


def test_a_plan_of_one_step_is_the_same_as_a_list_with_it() -> None:
    assert plan(UNLOCK) == plan([UNLOCK])
