"""Bounds how many wrong codes an address may try, in a table that cannot grow without end."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_A_MINUTE: Final = 30
_MINUTE: Final = 60.0
_MOST_ADDRESSES: Final = 10_000


class Throttle:
    """Counts, for each address, the wrong codes of a minute that begins with the first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wrong_code(self, address: str) -> timedelta | None:
        """Count one; return how long to wait when that was too many."""
        now = self._clock()
        key = network_of(address)
        begun, count = self._counts.pop(key, (now, 0))
        if now - begun >= _MINUTE:
            begun, count = now, 0
        # the one that was quiet for the longest is forgotten first
        self._counts[key] = (begun, count + 1)
        if len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)
        if count < MOST_A_MINUTE:
            return None
        return timedelta(seconds=begun + _MINUTE - now)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counts)


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, the /64 of an IPv6 one (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return ip.packed[:8].hex(":", 2)
