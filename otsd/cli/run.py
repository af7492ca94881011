"""``otsd run``: the daemon."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otsd.cli.context import Context

_log = logging.getLogger(__name__)


def run(context: Context) -> int:
    """Run the daemon until it is told to stop; raises what keeps it from starting."""
    settings = context.settings
    from otsd import app, logs  # noqa: PLC0415 - only this command pays for them
    from otsd.settings import mistyped  # noqa: PLC0415

    logs.set_up(settings.log)
    for words in mistyped():
        _log.warning("%s", words)
    asyncio.run(app.run(settings))
    return 0
