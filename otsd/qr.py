"""Links as QR codes.

The library that draws them is loaded with the first one: most daemons draw none.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import segno


def picture(url: str, kind: Literal["png", "svg"]) -> bytes:
    """Draw a link to look at on a screen or on paper."""
    drawn = io.BytesIO()
    _code(url).save(drawn, kind=kind, scale=8, border=4)
    return drawn.getvalue()


def blocks(url: str) -> str:
    """Draw a link in the block letters of a terminal, light on dark."""
    drawn = io.StringIO()
    _code(url).terminal(out=drawn, compact=True)
    return drawn.getvalue()


def _code(url: str) -> segno.QRCode:
    import segno  # noqa: PLC0415 - see above

    return segno.make(url, error="m")
