"""The inside of the add-on's container: a network, a /data and a /share of its own.

Run in namespaces of its own (see `tests.addon.house`), it connects what is outside by Unix sockets
with addresses inside, and runs what it is told to, one JSON line a job:

    {"run": ["otsd", "status"]}  ─►  {"status": 0, "output": "…"}
    {"start": ["otsd-add-on", "run"]}  ─►  {"pid": 12}
    {"end": "TERM"}  ─►  {"status": 0}
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

INGRESS = "172.30.32.2"
NEIGHBOUR = "172.30.33.9"  # another add-on
BROKER = "172.30.33.1"
OWN = "172.30.33.5"

Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def bridge(way: Open) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Pass on what comes over a connection, and what comes back."""

    async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await way()
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pour(reader, far_writer))
            tasks.create_task(pour(far_reader, writer))

    return handle


def to_socket(path: Path) -> Open:
    """Return the way to a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def to_port(host: str, port: int, *, of: str | None = None) -> Open:
    """Return the way to a port, with an address of one's own."""
    return lambda: asyncio.open_connection(host, port, local_addr=(of, 0) if of else None)


async def work(log: Path) -> None:
    """Do each job that standard input names, until it ends."""
    loop = asyncio.get_running_loop()
    jobs = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(jobs), sys.stdin)
    main: asyncio.subprocess.Process | None = None
    try:
        while line := await jobs.readline():
            job: dict[str, Any] = json.loads(line)
            done: dict[str, Any] = {}
            if "run" in job:
                process = await asyncio.create_subprocess_exec(
                    *job["run"],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd="/",
                )
                output, _ = await process.communicate()
                done = {"status": process.returncode, "output": output.decode()}
            elif "start" in job:
                with log.open("ab") as out:
                    main = await asyncio.create_subprocess_exec(
                        *job["start"],
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                        cwd="/",
                    )
                done = {"pid": main.pid}
            elif main is not None:
                with suppress(ProcessLookupError):
                    main.send_signal(signal.Signals[f"SIG{job['end']}"])
                done = {"status": await main.wait()}
            print(json.dumps(done), flush=True)  # noqa: T201 - the other end reads it
    finally:
        if main is not None and main.returncode is None:
            main.kill()
            await main.wait()


async def live(sockets: Path) -> None:
    """Connect the inside with the outside, and work."""
    outside = to_port("127.0.0.1", 8099, of=INGRESS), to_port(OWN, 8099, of=NEIGHBOUR)
    servers = [
        await asyncio.start_server(bridge(to_socket(sockets / "supervisor")), INGRESS, 80),
        await asyncio.start_server(bridge(to_socket(sockets / "broker")), BROKER, 1883),
        await asyncio.start_unix_server(
            bridge(to_port(OWN, 1337, of=NEIGHBOUR)), sockets / "visitors"
        ),
        await asyncio.start_unix_server(bridge(outside[0]), sockets / "ingress"),
        await asyncio.start_unix_server(bridge(outside[1]), sockets / "neighbour"),
    ]
    print(json.dumps({"ready": len(servers)}), flush=True)  # noqa: T201
    await work(sockets / "log")


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
