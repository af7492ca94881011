"""How otsd ends, and that there is one of it."""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path

from tests.daemon import Daemon
from tests.scenarios.house import House, until
from tests.scenarios.steps import record


async def test_sigterm_lets_a_running_submission_finish(house: House, otsd: Daemon) -> None:
    key = secrets.token_hex(8)
    await otsd.action("slow", record(key, seconds=1))
    token = await otsd.mint("slow", max_uses=1)
    submission = asyncio.create_task(otsd.submit(token["code"], "the-attempt"))
    await until(lambda: house.ran(key))
    assert otsd.process is not None
    otsd.process.send_signal(signal.SIGTERM)

    answer = await submission
    assert (answer.status, answer.json["response"]["state"]) == (200, "executed")
    assert await otsd.stop() == 0
    assert "Traceback" not in otsd.log

    await otsd.start()
    assert (await otsd.submit(token["code"], "the-attempt")).json == answer.json
    await otsd.connected()
    await otsd.announced()
    await house.caught_up()
    events = house.heard(token["id"])
    assert {(event["submission_id"], event["outcome"]) for event in events} == {(1, "executed")}
    assert house.ran(key) == 1


async def test_a_submission_that_comes_while_it_ends_costs_nothing(
    house: House, otsd: Daemon
) -> None:
    key = secrets.token_hex(8)
    await otsd.action("slow", record(key, seconds=1))
    token = await otsd.mint("slow", max_uses=5)
    submission = asyncio.create_task(otsd.submit(token["code"]))
    await until(lambda: house.ran(key))
    assert otsd.process is not None
    otsd.process.send_signal(signal.SIGTERM)
    await until(lambda: "stopping" in otsd.log)
    answer = await otsd.submit(token["code"])
    assert (answer.status, answer.json["code"]) == (503, "busy")
    assert (await submission).status == 200
    assert await otsd.stop() == 0

    await otsd.start()
    assert (await otsd.admin("GET", f"/tokens/{token['id']}")).json["uses_left"] == 4
    assert house.ran(key) == 1


async def test_a_second_daemon_on_the_same_directory_says_so_and_ends(tmp_path: Path) -> None:
    async with Daemon(tmp_path) as otsd:
        ended = await otsd.command("run", "--config", str(otsd.config))
        assert ended.returncode == 1
        assert (
            f"Another otsd is running with the storage directory {otsd.directory}." in ended.stderr
        )
        assert "Traceback" not in ended.stderr
        assert (await otsd.get("/healthz")).status == 200
        assert (await otsd.status())["counts"]["tokens"] == 0
