"""The visitor's address behind proxies: only what trusted ones wrote is believed."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otsd.server.forwarded import visitor_address

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
TRUSTED = [ipaddress.ip_network(net) for net in ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")]
TRUSTED_ADDRESS = st.sampled_from(["127.0.0.1", "10.0.0.1", "10.255.1.2", "fd00::7"])


def is_stranger(address: IPAddress) -> bool:
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
    return not mapped and not any(
        address.version == network.version and address in network for network in TRUSTED
    )


STRANGER = st.ip_addresses().filter(is_stranger).map(str)


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["1.2.3.4, 203.0.113.9,10.0.0.3"], "203.0.113.9"),
        ("127.0.0.1", ["1.2.3.4", "203.0.113.9", "10.0.0.3"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9", "10.0.0.4, 10.0.0.3"], "203.0.113.9"),
        ("127.0.0.1", ["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
        ("127.0.0.1", ["1.2.3.4, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["1.2.3.4, _hidden, 10.0.0.3"], "10.0.0.3"),
        ("127.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fd00::1%eth0", ["2001:db8::1"], "2001:db8::1"),
        ("", ["1.2.3.4"], ""),
    ],
)
def test_the_header_is_walked_from_the_right_past_trusted_addresses(
    peer: str, headers: list[str], address: str
) -> None:
    assert visitor_address(peer, headers, TRUSTED) == address


@given(STRANGER, st.lists(st.text()))
def test_a_stranger_is_believed_nothing(peer: str, headers: list[str]) -> None:
    assert visitor_address(peer, headers, TRUSTED) == peer


@given(TRUSTED_ADDRESS, STRANGER, st.lists(TRUSTED_ADDRESS), st.lists(st.text()), st.text())
def test_what_stands_before_the_visitors_address_never_changes_it(
    peer: str, visitor: str, proxies: list[str], headers: list[str], forged: str
) -> None:
    real = ", ".join([visitor, *proxies])
    assert visitor_address(peer, [real], TRUSTED) == visitor
    assert visitor_address(peer, [*headers, real], TRUSTED) == visitor
    assert visitor_address(peer, [*headers, f"{forged}, {real}"], TRUSTED) == visitor
    assert visitor_address(peer, [*headers, forged, *real.split(", ")], TRUSTED) == visitor


@given(st.text(), st.lists(st.text()))
def test_nothing_that_is_sent_makes_it_fail_or_trust_without_trusted_proxies(
    peer: str, headers: list[str]
) -> None:
    visitor_address("127.0.0.1", headers, TRUSTED)
    before = visitor_address(peer, [], [])
    assert visitor_address(peer, headers, []) == before
