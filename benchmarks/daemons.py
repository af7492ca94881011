"""The daemons that are measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.daemon import Daemon
from tests.real.home_assistant import HomeAssistant

TOGGLE = "action: input_boolean.toggle\ntarget:\n  entity_id: input_boolean.guest_mode\n"


@asynccontextmanager
async def running(
    folder: Path, home: HomeAssistant, settings: Mapping[str, str]
) -> AsyncIterator[Daemon]:
    """Run a daemon that is connected."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"log.level": '"warning"', **settings}
    async with Daemon(folder, url=home.url, token=home.token, settings=settings) as daemon:
        await daemon.connected()
        yield daemon


async def submit_url(daemon: Daemon) -> str:
    """Return where a link without limit is submitted."""
    await daemon.action("toggle", TOGGLE)
    code = (await daemon.mint("toggle", max_uses=None))["code"]
    return f"{daemon.url}/api/public/token/submit?token={code}"


async def is_quiet(*daemons: Daemon) -> bool:
    """Return whether nothing runs, and no event waits."""
    counts = [(await daemon.status())["counts"] for daemon in daemons]
    return not any(count["waiting_events"] + count["running_submissions"] for count in counts)


def memory(daemon: Daemon) -> float:
    """Return its megabytes."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000
