"""The single measurements: each takes a few seconds and returns figures."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hass_client import HomeAssistantClient

_HERE = Path(__file__).parent
Row = tuple[str, str, str, float, str, bool]
"""What, otsd's figure, what is beside it, their ratio, the target, and whether it is met."""

Measured = tuple[Sequence[Row], str]
"""The rows of a table, and the version of Home Assistant that took part."""

Say = Callable[[str], None]

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What a load measured: requests a second, the median in seconds, and failures."""

    rate: float
    median: float
    failures: int = 0


async def wrk(url: str, connections: int, seconds: int, script: str | None = None) -> Load:
    """Put load on a URL with wrk."""
    process = await asyncio.create_subprocess_exec(
        "wrk",
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds}s",
        "--latency",
        *(["--script", str(_HERE / script)] if script else []),
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    said = (await process.communicate())[0].decode()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or median is None:
        raise RuntimeError(f"wrk said: {said}")
    failures = sum(
        int(number)
        for line in re.findall(r"Socket errors:.*|Non-2xx.*", said)
        for number in re.findall(r"\d+", line.removeprefix("Non-2xx or 3xx"))
    )
    return Load(float(rate[1]), float(median[1]) * _UNITS[median[2]], failures)


async def calls(client: HomeAssistantClient, at_once: int, count: int) -> Load:
    """Call a service of Home Assistant, ``at_once`` in flight, as bare as hass_client allows."""
    turns = asyncio.Semaphore(at_once)
    lengths: list[float] = []

    async def call() -> None:
        async with turns:
            begun = time.perf_counter()
            await client.call_service(
                "input_boolean", "toggle", target={"entity_id": "input_boolean.guest_mode"}
            )
            lengths.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(call())
    return Load(count / (time.perf_counter() - begun), statistics.median(lengths))


def commit(path: Path, count: int) -> float:
    """Commit one row durably, again and again; return the median in seconds."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, text TEXT)")
    lengths = []
    for _ in range(count):
        begun = time.perf_counter()
        connection.execute("INSERT INTO rows (text) VALUES ('a row')")
        lengths.append(time.perf_counter() - begun)
    connection.close()
    return statistics.median(lengths)


async def until(condition: Callable[[], Awaitable[bool]], patience: float = 120.0) -> None:
    """Wait for something, so that what one measurement left behind does not burden the next."""
    async with asyncio.timeout(patience):
        while not await condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
