"""``otsd run``: the daemon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otsd.cli.context import Context


def run(context: Context) -> int:
    """Run the daemon until it is told to stop; raises what keeps it from starting."""
    settings = context.settings
    from otsd import app, logs  # noqa: PLC0415 - only this command pays for them

    logs.set_up(settings.log)
    asyncio.run(app.run(settings))
    return 0
