"""A backup is made while visitors press, and while things are killed: it is whole, or there is none."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otsd.store import archive
from tests.cli.calling import call
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.store import million

LIMITED, USES = 30, 3


async def everything(daemon: Daemon, path: str) -> list[Any]:
    """Return a whole list."""
    items, cursor = [], ""
    while True:
        page = (await daemon.admin("GET", f"{path}?limit=500{cursor}")).json
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = f"&cursor={page['next']}"


class Visitors:
    """Eight who submit as fast as they can, and what they were told was done."""

    def __init__(self, daemon: Daemon, tokens: Sequence[Any]) -> None:
        self._daemon = daemon
        self._tokens = tokens
        self._stopped = asyncio.Event()
        self.done: list[tuple[str, str]] = []
        """Codes and attempts."""

    async def visit(self) -> None:
        while not self._stopped.is_set():
            code, attempt = random.choice(self._tokens)["code"], secrets.token_hex(8)
            if (await self._daemon.submit(code, attempt)).status == 200:
                self.done.append((code, attempt))

    async def go_on(self, by: int) -> None:
        """Wait until so many more were done."""
        wanted = len(self.done) + by
        async with asyncio.timeout(30):
            while len(self.done) < wanted:
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stopped.set()


async def test_nothing_acknowledged_before_a_backup_is_missing_from_it(
    daemon: Daemon, fake_home: FakeHomeAssistant, tmp_path: Path
) -> None:
    await daemon.action()
    tokens = [await daemon.mint(max_uses=USES) for _ in range(LIMITED)]
    tokens += [await daemon.mint(max_uses=None) for _ in range(4)]
    visitors = Visitors(daemon, tokens)
    file = tmp_path / "backup.tar"
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(visitors.visit())
        await visitors.go_on(60)
        late = await daemon.mint()  # a link that was just given away
        before = list(visitors.done)
        ran = await call(daemon, "backup", str(file))
        assert ran.returncode == 0, ran.stderr
        assert len(visitors.done) > len(before)  # they did not have to wait for it
        await visitors.go_on(1)
        visitors.stop()
    daemon.kill()

    folder = tmp_path / "other"
    folder.mkdir()
    other = Daemon(folder, url=fake_home.url, token=fake_home.token)
    assert (await call(other, "restore", str(file))).returncode == 0
    async with other:
        await other.connected()
        await other.announced()
        # each of them is known, with its outcome, and runs nothing again
        calls = len(fake_home.calls)
        told = Counter([(await other.submit(*pair)).json["response"]["state"] for pair in before])
        assert told == {"executed": len(before)}
        assert len(fake_home.calls) == calls

        # and there are as many uses as were left then
        spent = Counter(each["token_id"] for each in await everything(other, "/submissions"))
        assert spent.total() >= len(before)
        shown = {token["id"]: token for token in await everything(other, "/tokens")}
        for token in tokens[:LIMITED]:
            assert shown[token["id"]]["uses_left"] == USES - spent[token["id"]] >= 0
        one = tokens[0]
        statuses = [(await other.submit(one["code"])).status for _ in range(USES + 1)]
        assert statuses.count(200) == USES - spent[one["id"]]
        assert (await other.submit(late["code"])).status == 200


async def test_a_daemon_that_is_killed_while_it_makes_a_backup_leaves_nothing_of_it(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path)
    million.fill(daemon.directory, 10_000)
    ended: Counter[int] = Counter()
    length = 0.0
    for number in range(5):
        await daemon.start()
        assert not [path for path in daemon.directory.iterdir() if "backup" in path.name]
        file = tmp_path / f"{number}.tar"
        began = time.monotonic()
        backup = asyncio.create_task(call(daemon, "backup", str(file)))
        if number:  # the first shows how long it takes; the second is killed before it is asked
            await asyncio.wait({backup}, timeout=length * (number - 1) * random.random() / 4)
            daemon.kill()
        ran = await backup
        length = length or time.monotonic() - began
        ended[ran.returncode] += 1
        assert file.exists() == (ran.returncode == 0), ran.stderr
        if file.exists():
            with file.open("rb") as opened:
                archive.check(opened)
        assert not list(tmp_path.glob(".otsd-backup-*"))
        daemon.kill()
    assert ended[0] >= 1
    assert ended[1] >= 1
