"""Forgets what is older than its owner wants to keep, a little at a time, in the background."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NoReturn

from otsd.core.errors import StorageUnavailable

if TYPE_CHECKING:
    from datetime import timedelta

    from otsd.core.ports import Clock, Store

_EVERY: Final = 3600.0
_BETWEEN_PARTS: Final = 0.1

_log = logging.getLogger(__name__)


async def forget(
    store: Store, now: Clock, *, keep: timedelta, keep_addresses: timedelta
) -> NoReturn:
    """Prune for ever: submissions after ``keep``, their addresses after ``keep_addresses``."""
    while True:
        try:
            more = await store.prune(now() - keep, now() - keep_addresses)
        except StorageUnavailable as error:
            _log.debug("the history cannot be pruned now: %s", error)
            more = False
        await asyncio.sleep(_BETWEEN_PARTS if more else _EVERY)
