"""Wrong codes are counted by address, and the table of addresses has an end."""

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from otsd.server.throttle import MOST_A_MINUTE, MOST_IMPORTED_A_SECOND, Throttle, network_of


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_thirty_wrong_codes_a_minute_are_answered_and_the_next_must_wait() -> None:
    clock = Ticks()
    throttle = Throttle(clock)
    for _ in range(30):
        assert throttle.wrong_code("203.0.113.9") is None
        clock.now += 1
    assert throttle.wrong_code("203.0.113.9") == timedelta(seconds=32)
    assert throttle.wrong_code("203.0.113.10") is None


def test_whoever_goes_on_trying_does_not_wait_longer_for_it() -> None:
    clock = Ticks()
    throttle = Throttle(clock)
    for _ in range(500):
        throttle.wrong_code("203.0.113.9")
    clock.now += 59.9
    assert throttle.wrong_code("203.0.113.9") is not None
    clock.now += 2.2
    assert throttle.wrong_code("203.0.113.9") is None


def test_no_sixty_seconds_hold_twice_as_many() -> None:
    """Waiting at the end of one minute for the beginning of the next gains nothing."""
    clock = Ticks()
    throttle = Throttle(clock)
    assert throttle.wrong_code("203.0.113.9") is None
    clock.now += 59
    assert [throttle.wrong_code("203.0.113.9") for _ in range(29)] == [None] * 29
    clock.now += 1
    assert len([1 for _ in range(30) if throttle.wrong_code("203.0.113.9") is None]) <= 1


def test_a_wait_is_never_nothing_and_never_over_a_minute() -> None:
    clock = Ticks()
    throttle = Throttle(clock)
    waits = []
    for _ in range(300):
        clock.now += 0.7
        waits.append(throttle.wrong_code("2001:db8::1"))
    assert all(timedelta() < wait <= timedelta(minutes=1) for wait in waits if wait)
    assert any(waits)
    assert not all(waits)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_the_addresses_of_one_ipv6_network_of_64_bits_count_as_one(
    address: IPv6Address, host: int
) -> None:
    other = IPv6Address((int(address) >> 64 << 64) | host)
    if not address.ipv4_mapped and not other.ipv4_mapped:
        assert network_of(str(address)) == network_of(str(other))
    far = IPv6Address(int(address) ^ 1 << 64)
    assert network_of(str(address)) != network_of(str(far))


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_each_ipv4_address_counts_alone_also_when_it_is_written_as_ipv6(
    one: IPv4Address, other: IPv4Address
) -> None:
    assert network_of(f"::ffff:{one}") == network_of(str(one)) == str(one)
    assert (network_of(str(one)) == network_of(str(other))) == (one == other)


@given(st.text())
def test_what_is_no_address_counts_as_whatever_it_is(text: str) -> None:
    assert isinstance(network_of(text), str)


def test_the_table_is_bounded_and_forgets_who_was_quiet_longest() -> None:
    clock = Ticks()
    throttle = Throttle(clock)
    for number in range(10_000):
        throttle.wrong_code(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    for _ in range(MOST_A_MINUTE):
        throttle.wrong_code("10.0.0.0")
    assert throttle.wrong_code("10.0.0.0") is not None
    for number in range(9_000):
        throttle.wrong_code(f"2001:db8:{number:x}::1")
    assert len(throttle) == 10_000
    assert throttle.wrong_code("10.0.0.0") is not None


def test_wrong_codes_of_the_imported_form_are_bounded_whatever_their_addresses() -> None:
    clock = Ticks()
    throttle = Throttle(clock)
    answered = []
    for _ in range(1_000):
        clock.now += 0.01
        if throttle.wrong_imported_code() is None:
            answered.append(clock.now)
    assert 190 <= len(answered) <= 200
    # no second holds more, wherever it begins
    later = zip(answered, answered[MOST_IMPORTED_A_SECOND:], strict=False)
    assert all(after - before >= 1 - 1e-9 for before, after in later)
    wait = throttle.wrong_imported_code()
    assert wait is not None
    assert timedelta() < wait <= timedelta(seconds=1)
    clock.now += wait.total_seconds() + 1e-9
    assert throttle.wrong_imported_code() is None
    assert throttle.wrong_code("203.0.113.9") is None
