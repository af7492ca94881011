"""otsd as add-on, where another one has left things in ``/share``; prints what it is answered."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from otsd.one_time_service import WHERE
from tests import importing
from tests.daemon import Daemon

OFFER = "/imports/one-time-service"


async def main() -> None:
    """Leave one thing after the other, and ask."""
    found: dict[str, Any] = {}
    code, later = importing.code(), importing.code()
    content = importing.file({code: importing.token()})
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "db.json"
        secret.write_bytes(content)
        environment = {"SUPERVISOR_TOKEN": "a-token"}
        async with Daemon(Path(folder), token=None, environment=environment) as daemon:

            async def ask(name: str, digest: str | None = None) -> Any:
                method, body = ("GET", None) if digest is None else ("POST", {"digest": digest})
                answer = await daemon.admin(method, OFFER, json=body)
                found[name] = {"status": answer.status, "json": answer.json}
                return answer.json

            await ask("no folder")
            WHERE.parent.mkdir()
            await ask("no file")
            WHERE.symlink_to(secret)
            await ask("a link")
            WHERE.unlink()
            os.mkfifo(WHERE)
            await ask("a pipe")
            WHERE.unlink()
            WHERE.mkdir()
            await ask("a folder")
            WHERE.rmdir()
            WHERE.write_bytes(content[:-9])
            await ask("cut off")
            await ask("cut off, taken", "0" * 64)
            WHERE.write_bytes(content)
            digest = (await ask("offered"))["digest"]
            WHERE.write_bytes(importing.file({code: importing.token(), later: importing.token()}))
            await ask("changed", digest)
            found["before"] = (await daemon.status())["counts"]["tokens"]
            digest = (await ask("offered again"))["digest"]
            await ask("taken", digest)
            await ask("offered when known")
            found["submitted"] = (await daemon.submit(later)).json["code"]
            found["codes"] = importing.holds(daemon.directory, [code, later])
            found["logged"] = importing.holds(daemon.folder, [code, later]) != [str(secret)]
            found["log"] = daemon.log
    text = json.dumps(found)
    found["told"] = code in text or later in text
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
