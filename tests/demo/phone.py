"""A telephone in the network of the demo: run it where there is no other network.

It starts `otsd demo --lan`, follows the link by the address of the network, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from pathlib import Path

from tests.demo.running import Demo

_LISTEN = "0A"


def listening() -> dict[str, list[int]]:
    """Return the ports that are listened on, by address."""
    found = defaultdict(list)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _LISTEN:
            address, port = local.split(":")
            numbers = bytes.fromhex(address)[::-1]
            found[".".join(map(str, numbers))].append(int(port, 16))
    assert Path("/proc/net/tcp6").read_text().count(f" {_LISTEN} ") == 0
    return {address: sorted(ports) for address, ports in found.items()}


async def main() -> None:
    """Print what is seen from the network."""
    async with Demo("--lan") as demo:
        await demo.ready()
        seen: dict[str, object] = {"site": demo.site, "home": demo.home, "listening": listening()}
        token = await demo.log_in()
        seen["pressed"] = await demo.press()
        async with asyncio.timeout(10):
            while await demo.state(token, "lock.front_door") != "unlocked":
                await asyncio.sleep(0.05)
        sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main())
