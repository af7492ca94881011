"""What comes in and goes out as a whole: imports, backups, and all submissions as CSV.

It may be large, and visitors are served meanwhile: what takes long is done in threads, and whoever
takes nothing of a download for a while is cut off.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager, contextmanager
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from otsd import one_time_service
from otsd.core.errors import Conflict, NoImport, StorageUnavailable
from otsd.core.times import isoformat
from otsd.payloads import SUBMISSION_COLUMNS, TakeOffer, csv_lines, import_json, submission_json
from otsd.server.handling import SOME_ITEMS, Parts, as_json, body_of, flag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

_PATIENCE: Final = 15.0  # for whoever downloads, until he takes the next part
_PATIENCE_WITH_A_DISK: Final = 60.0  # which the next part of a backup is written to
_CELLS: Final = itemgetter(*SUBMISSION_COLUMNS)


class Transfers:
    """The handlers of what is sent and taken as a whole."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts."""
        self._parts = parts
        self._importing = asyncio.Lock()

    # -- what another program kept -----------------------------------------------------------

    async def import_file(self, request: web.Request) -> web.Response:
        """Take over the file of a One Time Service add-on, or say what would become of it."""
        dry_run, brief = flag(request, "dry_run"), flag(request, "brief")
        content = bytearray()
        async for part in request.content.iter_any():
            content += part
            if len(content) > one_time_service.LARGEST:
                reason = f"The file is larger than {one_time_service.LARGEST // 1024**2} MB."
                raise web.HTTPRequestEntityTooLarge(
                    one_time_service.LARGEST, len(content), reason=reason
                )
        return await self._imported(bytes(content), dry_run=dry_run, brief=brief)

    async def show_offer(self, _: web.Request) -> web.Response:
        """Show what would become of the file that the One Time Service add-on left."""
        offer = await self._offer()
        about = {
            "path": str(one_time_service.WHERE),
            "digest": offer.digest,
            "modified_at": isoformat(offer.modified_at),
        }
        return await self._imported(offer.content, about, dry_run=True)

    async def take_offer(self, request: web.Request) -> web.Response:
        """Take over that file, if it is what the owner was shown."""
        body = await body_of(request, TakeOffer, self._parts.home.zone)
        offer = await self._offer()
        if body.digest != offer.digest:
            msg = "The file was changed since you looked at it; look again."
            raise Conflict("import_changed", msg)
        return await self._imported(offer.content, dry_run=False)

    async def _offer(self) -> one_time_service.Offer:
        where = self._parts.offered
        offer = None if where is None else await asyncio.to_thread(one_time_service.look, where)
        if offer is None:
            raise NoImport
        return offer

    async def _imported(
        self,
        content: bytes,
        about: Mapping[str, Any] = MappingProxyType({}),
        *,
        dry_run: bool,
        brief: bool = False,
    ) -> web.Response:
        # a file may hold a hundred thousand tokens, and visitors are served meanwhile: in threads,
        # and one file after the other
        async with self._importing, _without_collecting():
            file = await asyncio.to_thread(one_time_service.read, content)
            report = await self._parts.imports.take(file, dry_run=dry_run, brief=brief)
            return await asyncio.to_thread(lambda: as_json({**about, **import_json(report)}))

    # -- backup ------------------------------------------------------------------------------

    async def backup(self, request: web.Request) -> web.StreamResponse:
        """Send everything as one archive, which `otsd restore` takes."""
        async with self._parts.backups.begun() as backup:
            response = web.StreamResponse(
                headers={
                    "Content-Type": "application/x-tar",
                    "Content-Length": str(backup.size),
                    "Cache-Control": "no-store",
                }
            )
            await response.prepare(request)
            with _whole_or_cut_off(request):
                async for part in backup.parts():
                    async with asyncio.timeout(_PATIENCE_WITH_A_DISK):
                        await response.write(part)
            return response

    # -- submissions -------------------------------------------------------------------------

    async def export_submissions(self, request: web.Request) -> web.StreamResponse:
        """Send every submission as CSV, newest first."""
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": 'attachment; filename="submissions.csv"',
                "Cache-Control": "no-store",
            }
        )
        page = await self._parts.store.submissions(limit=SOME_ITEMS)
        await response.prepare(request)
        await response.write(csv_lines([SUBMISSION_COLUMNS]))
        with _whole_or_cut_off(request):
            while True:
                lines = csv_lines(map(_CELLS, map(submission_json, page.items)))
                async with asyncio.timeout(_PATIENCE):
                    await response.write(lines)
                if page.next is None:
                    break
                page = await self._parts.store.submissions(limit=SOME_ITEMS, cursor=page.next)
        return response


@contextmanager
def _whole_or_cut_off(request: web.Request) -> Iterator[None]:
    """Cut a download off that cannot go on: an end in good order would make a part look whole."""
    try:
        yield
    except (StorageUnavailable, TimeoutError):
        if request.transport is not None:
            request.transport.abort()


@asynccontextmanager
async def _without_collecting() -> AsyncIterator[None]:
    """Look for no garbage where much is made and all of it is needed: that takes a fifth longer."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
