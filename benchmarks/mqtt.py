"""MQTT: what it adds to a submission, how soon Home Assistant knows, and how fast links are minted.

Broker and Home Assistant are real, and both, the daemons and this share the machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from hass_client import HomeAssistantClient

from benchmarks.daemons import TOGGLE, is_quiet, memory, running, submit_url
from benchmarks.measure import Measured, Row, Say, until, wrk
from tests.daemon import Daemon
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant
from tests.store.million import fill

Figures = defaultdict[str, list[float]]


async def measure(folder: Path, turns: int, seconds: int, say: Say) -> Measured:
    """Return the rows of the table and Home Assistant's version."""
    figures: Figures = defaultdict(list)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(folder / "broker"))
        home = await stack.enter_async_context(HomeAssistant(folder / "home"))
        await home.add_mqtt(broker.port)
        off = await stack.enter_async_context(running(folder / "off", home, {}))
        on = await stack.enter_async_context(running(folder / "on", home, broker.settings))
        for turn in range(turns):
            say(f"MQTT, turn {turn + 1} of {turns}")
            pair = [("off", off), ("on", on)]
            for key, daemon in pair if turn % 2 else reversed(pair):
                load = await wrk(await submit_url(daemon), 64, seconds, "submit.lua")
                figures[key].append(load.rate)
                await until(lambda: is_quiet(off, on))
        say("20 submissions a second")
        await _follow(home, on, 20 * 15, figures)
        say("minting")
        await _mint(broker, on, figures)
        await on.stop()
        say("filling a store with 1,000,000 tokens")
        fill(folder / "many" / "data")
        settings = {**broker.settings, "mqtt.token_devices": "1000", "mqtt.base_topic": '"many"'}
        ear = await stack.enter_async_context(Ear(broker))
        async with running(folder / "many", home, settings) as many:
            for number in range(199):
                await many.action(f"action-{number}", TOGGLE)
        for _ in range(3):
            ear.heard.clear()
            begun = time.perf_counter()
            await many.start()
            figures["start"].append(time.perf_counter() - begun)
            await many.until_status(lambda status: status["mqtt"]["state"] == "connected")
            connected = time.perf_counter()
            await ear.until(lambda: ear.held.get("many/status") == b"online", 60)
            figures["discovery"].append(time.perf_counter() - connected)
            devices = sum(topic.endswith("/config") for topic in {each.topic for each in ear.heard})
            assert devices >= 1_201, devices
            figures["memory"].append(memory(many))
            await many.stop()
            await ear.until(lambda: ear.held.get("many/status") == b"offline")
    return _rows(figures), home.version


async def _follow(home: HomeAssistant, daemon: Daemon, count: int, figures: Figures) -> None:
    """Submit 20 times a second; see when Home Assistant has the state and the event of each."""
    await daemon.action("follow", TOGGLE, title="Follow")
    token = await daemon.mint("follow", max_uses=10_000, comment="Guest")
    arrived: dict[str, dict[int, float]] = {"state": {}, "event": {}}
    url = f"{daemon.url}/api/public/token/submit?token={token['code']}"

    def hear(message: dict[str, Any]) -> None:
        new = message["data"]["new_state"] or {}
        if new.get("entity_id") == "sensor.guest_uses_left" and new["state"].isdigit():
            arrived["state"].setdefault(int(new["state"]), time.perf_counter())
        if new.get("entity_id") == "event.guest_submission":
            left = new["attributes"].get("uses_left", -1)
            arrived["event"].setdefault(left, time.perf_counter())

    websocket = home.url.replace("http", "ws", 1) + "/api/websocket"
    async with (
        HomeAssistantClient(websocket, home.token) as client,
        aiohttp.ClientSession() as http,
    ):
        await client.subscribe_events(hear, "state_changed")
        await asyncio.sleep(5)  # Home Assistant learns of the new devices
        sent: dict[int, float] = {}

        async def submit() -> None:
            begun = time.perf_counter()
            async with http.post(url) as response:
                left = (await response.json())["response"]["uses_left"]
            sent[left] = begun

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(submit())
                await asyncio.sleep(1 / 20)

        def lengths(of: str) -> list[float]:
            # a state that was passed over is there as soon as a later one is
            times = sorted(arrived[of].items())
            found = []
            for left, begun in sent.items():
                later = [at for value, at in times if value <= left and at >= begun]
                found.append(min(later) - begun if later else float("inf"))
            return found

        async def complete() -> bool:
            return float("inf") not in lengths("state") + lengths("event")

        await until(complete)
        figures["events"].append(sum(left in arrived["event"] for left in sent) / len(sent))
        for of in ("state", "event"):
            figures[of].append(statistics.quantiles(lengths(of), n=100)[98])


async def _mint(broker: Mosquitto, daemon: Daemon, figures: Figures) -> None:
    # who hears his own command first waits 40 ms for what mosquitto sends next (Nagle's algorithm)
    async with Ear(broker, listens_to="ear/#") as ear:
        wish = {"action": "toggle", "expires_in": "1h"}
        for _ in range(500):
            begun = time.perf_counter()
            # as Home Assistant publishes: with 1 the broker's acknowledgement would come first
            assert (await ear.ask("otsd/command/mint", wish, qos=0))["ok"]
            figures["mint"].append(time.perf_counter() - begun)
    async with Ear(broker) as ear, broker.client() as client:
        count, begun = 5_000, time.perf_counter()
        for number in range(count):
            # no faster than what is asked of it, twice over
            await asyncio.sleep(max(begun + number / 1_000 - time.perf_counter(), 0))
            await client.publish(
                "otsd/command/mint", json.dumps(wish | {"request_id": f"m{number}"})
            )

        def answered() -> int:
            return sum(each.topic.startswith("otsd/response/m") for each in ear.heard)

        await ear.until(lambda: answered() == count, 60)
        figures["rate"].append(count / (time.perf_counter() - begun))
    await until(lambda: is_quiet(daemon))


def _rows(figures: Figures) -> list[Row]:
    middle = {key: statistics.median(values) for key, values in figures.items()}
    slower = middle["off"] / middle["on"]
    mint = middle["mint"] * 1e3
    return [
        (
            "submissions, 64 at once, with MQTT",
            f"{middle['on']:,.0f}/s",
            f"without {middle['off']:,.0f}/s",
            slower,
            "at most 1.1",
            slower <= 1.1,
        ),
        *(
            (
                f"{of} in Home Assistant, p99 at 20 submissions a second",
                f"{middle[of]:.2f} s",
                f"{middle['events']:.0%} of the events" if of == "event" else "",
                middle[of],
                "at most 1 s",
                middle[of] <= 1,
            )
            for of in ("state", "event")
        ),
        (
            "a link minted by MQTT, p50",
            f"{mint:.1f} ms",
            "",
            mint,
            "at most 10 ms",
            mint <= 10,
        ),
        (
            "links minted by MQTT, sustained",
            f"{middle['rate']:,.0f}/s",
            "1,000/s asked",
            middle["rate"],
            "at least 500/s",
            middle["rate"] >= 500,
        ),
        (
            "discovery of 200 actions and 1,000 tokens of 1,000,000",
            f"{middle['discovery']:.2f} s",
            "",
            middle["discovery"],
            "at most 5 s",
            middle["discovery"] <= 5,
        ),
        (
            "start with them",
            f"{middle['start']:.2f} s",
            "",
            middle["start"],
            "at most 1 s",
            middle["start"] <= 1,
        ),
        (
            "memory with them",
            f"{middle['memory']:.0f} MB",
            "",
            middle["memory"],
            "at most 90 MB",
            middle["memory"] <= 90,
        ),
    ]
