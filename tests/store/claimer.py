"""A process that claims and settles as fast as it can and says so, until somebody kills it.

Each acknowledgement is one line on standard output, written before anything else is done.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from otsd.store.store import SqliteStore, opened
from tests.store import making


async def visit(store: SqliteStore, token: str, name: str) -> None:
    """Claim and settle, one attempt after another."""
    for number in count():
        attempt = f"attempt-{name}-{number}"
        claim = await store.claim(token, attempt, making.VISITOR, datetime.now(UTC))
        os.write(1, f"claimed {attempt}\n".encode())
        if number % 3:
            await store.settle(claim, making.EXECUTED, datetime.now(UTC), making.ANNOUNCE)
            os.write(1, f"settled {attempt}\n".encode())


async def main(directory: Path, token: str, name: str) -> None:
    """Have 20 visitors at once."""
    async with opened(directory) as (store, _), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(visit(store, token, f"{name}-{number}"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
