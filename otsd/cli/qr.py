"""A link as a QR code that a phone reads from the terminal."""

from __future__ import annotations

import sys
from typing import Final

from otsd.cli.output import is_terminal
from otsd.qr import blocks

# white on black, whatever the terminal's own colours: cameras want the light around it light
_BEGIN: Final = "\x1b[38;5;231;48;5;16m"
_END: Final = "\x1b[0m"


def draw(url: str) -> None:
    """Draw it on standard error: standard output has the link alone."""
    begin, end = (_BEGIN, _END) if is_terminal(sys.stderr) else ("", "")
    for line in blocks(url).splitlines():
        sys.stderr.write(f"{begin}{line}{end}\n")
