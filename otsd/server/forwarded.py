"""The visitor's address, also behind proxies: `X-Forwarded-For`, from those who are trusted.

Some proxies append to the header and some replace it, so it is walked from the right: every
address that a trusted proxy wrote is believed, and the first that is not itself a trusted proxy is
the visitor's. Nothing to the left of it means anything.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
    IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def visitor_address(peer: str, headers: Iterable[str], trusted: Sequence[IPNetwork]) -> str:
    """Return the address of whoever is behind ``peer``; ``headers`` in the order they came."""
    if not trusted:
        return _normal(peer)
    address = _parse(peer)
    if address is None or not _is_trusted(address, trusted):
        return _normal(peer)
    hops = [hop.strip() for header in headers for hop in header.split(",")]
    for hop in reversed(hops):
        behind = _parse(hop)
        if behind is None:  # whoever wrote that is not what it was taken for
            break
        address = behind
        if not _is_trusted(address, trusted):
            break
    return str(address)


@lru_cache(1024)
def _normal(peer: str) -> str:
    return str(_parse(peer) or peer)


def _is_trusted(address: IPAddress, trusted: Sequence[IPNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)


def _parse(text: str) -> IPAddress | None:
    host = text.partition("%")[0]
    if host.startswith("["):  # [2001:db8::1]:4711
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:  # 203.0.113.9:4711
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
