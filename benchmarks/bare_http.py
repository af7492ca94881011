"""The reference for HTTP: an aiohttp application with one handler that does nothing."""

import asyncio
import sys

from aiohttp import web


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _main(port: int) -> None:
    application = web.Application()
    for path in ("/", "/api/public/token/details"):
        application.router.add_route("*", path, _answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


asyncio.run(_main(int(sys.argv[1])))
