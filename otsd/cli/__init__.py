"""The command line (temporary entry point while it is built)."""

import asyncio
import sys
from pathlib import Path


def main() -> int:
    """Run the daemon."""
    from otsd import app, logs, settings

    loaded = settings.load(config=Path(sys.argv[sys.argv.index("--config") + 1]))
    logs.set_up(loaded.log)
    asyncio.run(app.run(loaded))
    return 0
