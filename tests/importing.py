"""Files of the One Time Service add-on, as it or a hand has written them."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any, Final

DOOR: Final = {"service": "lock.unlock", "data": {"entity_id": "lock.front_door"}}
_CHANCE: Final = random.Random(20240910)


def code() -> str:
    """Return a code as the add-on makes it."""
    return "".join(_CHANCE.choices(string.ascii_letters, k=32))


def token(**more: Any) -> dict[str, Any]:
    """Return a token of version 0.4.0 that opens the door once; ``more`` differs."""
    return {
        "service_call_name": "Open door",
        "created": "2024-09-10T12:00:00.123456789+02:00",
        "expires": None,
        "uses_max": 1,
        "uses_left": 1,
        "comment": "Plumber",
        **more,
    }


def file(tokens: dict[str, Any], **actions: Any) -> bytes:
    """Return a file of version 0.4.0 with the action ``Open door`` and others."""
    document = {"service_calls": {"Open door": DOOR, **actions}, "tokens": tokens}
    return json.dumps(document, indent=4).encode()


def large(count: int) -> dict[str, Any]:
    """Return so many tokens."""
    return {
        code(): token(
            created=f"2024-09-{1 + number % 28:02}T12:00:00.123456789+02:00",
            expires=None if number % 2 else "2090-01-01T00:00:00Z",
            uses_max=2,
            uses_left=1 + number % 2,
            comment=f"Guest {number}",
        )
        for number in range(count)
    }


def holds(folder: Path, codes: list[str]) -> list[str]:
    """Return which files below a folder hold one of the codes."""
    contents = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [
        path
        for path, content in contents.items()
        if any(each.encode() in content for each in codes)
    ]
