"""Durations and times as people write them, daylight saving included."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otsd.core.times import (
    format_duration,
    from_millis,
    isoformat,
    parse_duration,
    parse_time,
    to_millis,
    truncate,
)

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("1h30m", timedelta(minutes=90)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        (" 7d\n", timedelta(days=7)),
        ("0h1s", timedelta(seconds=1)),
        ("007d", timedelta(days=7)),
        ("36500d", timedelta(days=36500)),
        ("876000h", timedelta(days=36500)),
    ],
)
def test_a_duration_is_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0s", "0d0h0m0s", "7", "d", "7 d", "7d 1h", "-7d", "+7d", "1.5h", "1,5h"),
        *("1h7d", "7d7d", "7D", "7w", "7days", "P7D", "1e3s", "0x10s", "NaN", "inf", "7d\0"),
        *("\u0667d", "\uff17d", "7\uff44", "²s", "7d\u00a07h", "\ud800", "null", "{{ 7 }}d"),
        *("99999999d", "36501d", "36500d1s", "876001h", "999999999s" * 2, "9" * 5000 + "s"),
        # more days than a timedelta can hold
        "999999999d999999999h999999999m999999999s",
    ],
)
def test_what_is_no_duration_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"^'.*' is (not a duration; write|too long; at most 36500d)|longer than 0s",
    ):
        parse_duration(text)


@given(st.text(max_size=30) | st.from_regex(r"\A[0-9dhms]{0,30}\Z"))
def test_any_text_is_a_duration_in_bounds_or_a_value_error(text: str) -> None:
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert timedelta() < length <= timedelta(days=36500)
    assert parse_duration(format_duration(length)) == length


@given(st.integers(1, 36_500 * 86_400))
def test_a_duration_is_written_so_that_it_reads_the_same(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(days=7), "7d"),
        (timedelta(days=365), "365d"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(days=1, seconds=1), "1d1s"),
        (timedelta(), "0s"),
    ],
)
def test_a_duration_is_written_as_people_would(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01T18:00Z", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        ("2026-12-01T18:00:00+00:00", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        ("2026-12-01T18:00+05:30", datetime(2026, 12, 1, 12, 30, tzinfo=UTC)),
        ("2026-12-01T18:00", datetime(2026, 12, 1, 17, tzinfo=UTC)),  # winter in Berlin
        ("2026-07-01T18:00", datetime(2026, 7, 1, 16, tzinfo=UTC)),  # summer
        ("2026-12-01 18:00", datetime(2026, 12, 1, 17, tzinfo=UTC)),
        (" 2026-12-01T18:00Z\n", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        ("2026-12-01T18:00:00.1239Z", datetime(2026, 12, 1, 18, 0, 0, 123000, tzinfo=UTC)),
        ("1970-01-01T00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9000-12-31T23:59:59Z", datetime(9000, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_its_zone_else_in_the_one_named(text: str, moment: datetime) -> None:
    read = parse_time(text, BERLIN)
    assert read == moment
    assert read.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "tomorrow", "2026-12-01", "20261201", "2026-W49-2", "18:00", "1796140800"),
        *("2026-13-01T18:00", "2026-02-29T18:00", "2026-12-01T24:30", "2026-12-01T18:60"),
        *("2026-12-01T18:00+25:00", "2026-12-01T18:00 Europe/Berlin", "2026-12-01T18:00[UTC]"),
        *(
            "\u0662\u0660\u0662\u0666-12-01T18:00",
            "\uff12026-12-01T18:00",
            "2026-12-01T18:00\0",
            "T" * 100_000,
        ),
        *("2026-12-01\ud80018:00", "2026-12-01x18:00", "2026-12-01\n18:00"),
        *("1969-12-31T23:59Z", "9001-01-01T00:00Z", "0001-01-01T00:00", "9999-12-31T23:59"),
    ],
)
def test_what_is_no_time_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a date and time; write|is out of range"):
        parse_time(text, BERLIN)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        moment = parse_time(text, BERLIN)
    except ValueError:
        return
    assert moment.utcoffset() == timedelta()


@pytest.mark.parametrize(
    "text", ["2026-03-29T02:00", "2026-03-29T02:30", "2026-03-29T02:59:59.999"]
)
def test_a_local_time_that_daylight_saving_skips_does_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not exist in Europe/Berlin"):
        parse_time(text, BERLIN)
    # with an offset it does, and in a zone that does not change at that hour
    assert parse_time(f"{text}+01:00", BERLIN)
    assert parse_time(text, ZoneInfo("America/New_York"))


@pytest.mark.parametrize(
    ("text", "hour", "minute"),
    [
        ("2026-03-29T01:59", 0, 59),  # before the gap
        ("2026-03-29T03:00", 1, 0),  # right after it
        ("2026-10-25T02:30", 0, 30),  # twice that night: the first, still summer
        ("2026-10-25T03:00", 2, 0),  # after the fold
    ],
)
def test_times_around_a_change_of_the_clock(text: str, hour: int, minute: int) -> None:
    moment = parse_time(text, BERLIN)
    assert (moment.hour, moment.minute) == (hour, minute)


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9000, 12, 30)),  # noqa: DTZ001 - local times
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"]),
)
def test_a_local_time_that_is_read_is_the_same_on_that_wall(local: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    try:
        moment = parse_time(local.isoformat(), zone)
    except ValueError as error:
        assert "does not exist" in str(error)  # noqa: PT017
        return
    assert moment.astimezone(zone).replace(tzinfo=None, fold=0) == truncate(local)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_instants_survive_the_store_and_the_wire(moment: datetime) -> None:
    cut = truncate(moment)
    assert timedelta() <= moment - cut < timedelta(milliseconds=1)
    assert from_millis(to_millis(moment)) == cut
    assert parse_time(isoformat(cut), BERLIN) == cut


def test_instants_are_written_in_utc() -> None:
    cet = timezone(timedelta(hours=1))
    assert isoformat(datetime(2026, 12, 1, 19, tzinfo=cet)) == "2026-12-01T18:00:00+00:00"
    with_millis = datetime(2026, 12, 1, 18, 0, 0, 5000, tzinfo=UTC)
    assert isoformat(with_millis) == "2026-12-01T18:00:00.005+00:00"
