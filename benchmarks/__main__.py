"""One run: otsd beside a bare call, a bare handler and a bare commit, in turns.

Figures of one machine mean little, ratios of one run mean something: each turn measures the
references and otsd one after the other, and the table shows the median of the turns.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from hass_client import HomeAssistantClient

from benchmarks import mqtt
from benchmarks.daemons import is_quiet, memory, running, submit_url
from benchmarks.measure import Measured, Row, Say, calls, commit, until, wrk
from tests.daemon import free_port
from tests.real.home_assistant import HomeAssistant
from tests.store.million import fill

_TRUSTING = {"public.trusted_proxies": '["127.0.0.1"]'}
_MILLION = 1_000_000
_ROWS = 300

Figures = defaultdict[str, list[float]]


async def _main(parts: list[str], turns: int, seconds: int) -> int:
    if shutil.which("wrk") is None:
        print("wrk is missing; scripts/benchmark installs it when it may.", file=sys.stderr)
        return 1
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            rows, version = await _PARTS[part](Path(name), turns, seconds, _say)
            print(_table(rows, turns, version), "\n")
    return 0


async def _submissions(folder: Path, turns: int, seconds: int, say: Say) -> Measured:
    say("filling a store with 1,000,000 tokens")
    fill(folder / "million" / "data", _MILLION)
    async with (
        HomeAssistant(folder / "home") as home,
        _bare_http() as bare_url,
        _bare_client(home) as client,
        running(folder / "ten", home, _TRUSTING) as few,
        running(folder / "million", home, _TRUSTING) as many,
    ):
        ten, million = await submit_url(few), await submit_url(many)
        figures: Figures = defaultdict(list)
        await calls(client, 64, 500)
        await wrk(ten, 1, 1, "submit.lua")
        await wrk(million, 1, 1, "submit.lua")
        for turn in range(turns):
            say(f"turn {turn + 1} of {turns}")
            figures["call"].append((await calls(client, 1, 100 * seconds)).median)
            figures["calls"].append((await calls(client, 64, 1_500 * seconds)).rate)
            figures["http"].append((await wrk(bare_url, 1, seconds)).median)
            figures["https"].append((await wrk(bare_url, 32, seconds, "wrong_codes.lua")).rate)
            figures["commit"].append(commit(folder / "bare.db", _ROWS))
            pair = [("one", ten), ("million", million)]
            for key, url in pair if turn % 2 else reversed(pair):
                figures[key].append((await wrk(url, 1, seconds, "submit.lua")).median)
                await until(lambda: is_quiet(few, many))
            load = await wrk(ten, 64, seconds, "submit.lua")
            figures["at once"].append(load.rate)
            figures["failures"].append(load.failures)
            await until(lambda: is_quiet(few, many))
            figures["wrong"].append((await wrk(few.url, 32, seconds, "wrong_codes.lua")).rate)
        figures["memory"].append(memory(many))
        await many.stop()
        for _ in range(5):
            begun = time.perf_counter()
            await many.start()
            figures["start"].append(time.perf_counter() - begun)
            await many.stop()
    return _rows(figures), home.version


@asynccontextmanager
async def _bare_http() -> AsyncIterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_http", str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        async with aiohttp.ClientSession() as http:

            async def answers() -> bool:
                try:
                    async with http.get(url) as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await until(answers)
        yield url
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def _bare_client(home: HomeAssistant) -> AsyncIterator[HomeAssistantClient]:
    url = home.url.replace("http", "ws", 1) + "/api/websocket"
    async with HomeAssistantClient(url, home.token) as client:
        yield client


def _rows(figures: Figures) -> list[Row]:
    middle = {key: statistics.median(values) for key, values in figures.items()}
    parts = middle["call"] + middle["http"] + 2 * middle["commit"]
    return [
        (
            "submission, one by one, p50",
            f"{middle['one'] * 1e3:.2f} ms",
            f"{parts * 1e3:.2f} ms: a call {middle['call'] * 1e3:.2f}, a request "
            f"{middle['http'] * 1e3:.2f}, two commits {2e3 * middle['commit']:.2f}",
            middle["one"] / parts,
            "at most 2",
            middle["one"] / parts <= 2,
        ),
        (
            "submissions, 64 at once",
            f"{middle['at once']:,.0f}/s, {sum(figures['failures']):.0f} failed",
            f"{middle['calls']:,.0f} calls/s",
            middle["at once"] / middle["calls"],
            "at least 0.35",
            middle["at once"] / middle["calls"] >= 0.35 and not sum(figures["failures"]),
        ),
        (
            "wrong codes, from many addresses",
            f"{middle['wrong']:,.0f}/s",
            f"{middle['https']:,.0f} requests/s",
            middle["wrong"] / middle["https"],
            "at least 0.7",
            middle["wrong"] / middle["https"] >= 0.7,
        ),
        (
            "submission, p50, with 1,000,000 tokens",
            f"{middle['million'] * 1e3:.2f} ms",
            f"with few tokens {middle['one'] * 1e3:.2f} ms",
            middle["million"] / middle["one"],
            "at most 1.2",
            middle["million"] / middle["one"] <= 1.2,
        ),
        (
            "start with 1,000,000 tokens",
            f"{middle['start']:.2f} s",
            "",
            middle["start"],
            "at most 1 s",
            middle["start"] <= 1,
        ),
        (
            "memory after the load, with 1,000,000 tokens",
            f"{middle['memory']:.0f} MB",
            "",
            middle["memory"],
            "at most 80 MB",
            middle["memory"] <= 80,
        ),
    ]


def _table(rows: Sequence[Row], turns: int, version: str) -> str:
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, median of {turns} turns; Home Assistant {version}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"aiohttp {aiohttp.__version__}",
        "",
        "| | otsd | beside | ratio | target | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {what} | {ours} | {beside} | {ratio:.2f} | {target} | {'met' if met else 'missed'} |"
            for what, ours, beside, ratio, target, met in rows
        ),
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_PARTS = {"submissions": _submissions, "mqtt": mqtt.measure}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10, help="how often to measure (10)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each load (3)")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" or ".join(_PARTS))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(_PARTS):
        parser.error(f"there is no part {min(unknown)}")
    wanted = arguments.parts or list(_PARTS)
    sys.exit(asyncio.run(_main(wanted, arguments.turns, arguments.seconds)))
