"""Bounds how many wrong codes an address may try, in a table that cannot grow without end.

Codes that were imported come from a generator that can be guessed, and a guesser may have many
addresses: wrong ones of their form are bounded over all addresses too.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_A_MINUTE: Final = 30
MOST_IMPORTED_A_SECOND: Final = 20
_MINUTE: Final = 60.0
_MOST_ADDRESSES: Final = 10_000


class _Count(NamedTuple):
    begun: float
    before: int
    """How many in the minute before ``begun``."""
    since: int


class Throttle:
    """Counts, for each address, the wrong codes of the last minute.

    Kept are the counts of the running minute and of the one before, which counts by the part of it
    that the last sixty seconds still reach: exact enough, and three numbers an address.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._imported: deque[float] = deque(maxlen=MOST_IMPORTED_A_SECOND)

    def wrong_imported_code(self) -> timedelta | None:
        """Count one, of whatever address; return how long to wait when that was too many."""
        now = self._clock()
        if len(self._imported) == MOST_IMPORTED_A_SECOND:
            wait = self._imported[0] + 1 - now
            if wait > 0:
                return timedelta(seconds=wait)
        self._imported.append(now)
        return None

    def wrong_code(self, address: str) -> timedelta | None:
        """Count one; return how long to wait when that was too many."""
        now = self._clock()
        key = network_of(address)
        begun, before, since = self._counts.pop(key, (now, 0, 0))
        if now - begun >= 2 * _MINUTE:
            begun, before, since = now, 0, 0
        elif now - begun >= _MINUTE:
            # whoever goes on trying does not wait longer for it
            begun, before, since = begun + _MINUTE, min(since, MOST_A_MINUTE), 0
        reach = 1 - (now - begun) / _MINUTE
        is_one_too_many = before * reach + since >= MOST_A_MINUTE
        # the one that was quiet for the longest is forgotten first
        self._counts[key] = _Count(begun, before, since + 1)
        if len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)
        if not is_one_too_many:
            return None
        # until the next one fits: after this minute, or when enough of the one before is forgotten
        room = MOST_A_MINUTE - 1 - since
        wait = reach + 1 / MOST_A_MINUTE if room < 0 else reach - room / before
        return timedelta(seconds=_MINUTE * min(wait, 1))

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
