"""Instants and durations as people write them.

An instant inside otsd is an aware ``datetime`` in UTC, cut to milliseconds, which is what the
store keeps. A duration is a ``timedelta`` of whole seconds. Text without a zone is read in the
zone that the caller names; a local time that daylight saving skips does not exist and is refused,
one that happens twice means the first.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_TIME = re.compile(r"[\dTWZ:.,+ -]+", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``2h``, ``7d`` or ``1h30m``: more than nothing, at most 100 years.

    Raises:
        ValueError: with a sentence that says what a duration looks like.

    """
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        msg = f"{text[:40]!r} is not a duration; write 90s, 15m, 2h, 7d or 1h30m"
        raise ValueError(msg)
    seconds = sum(
        int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS.values(), strict=True)
    )
    if not seconds:
        msg = "a duration must be longer than 0s"
        raise ValueError(msg)
    if seconds > _LONGEST.total_seconds():
        msg = f"{text[:40]!r} is too long; at most {_LONGEST.days}d"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def format_duration(length: timedelta) -> str:
    """Write a duration so that `parse_duration` reads the same: ``7d``, ``1h30m``."""
    left = int(length.total_seconds())
    text = ""
    for letter, unit in _UNITS.items():
        count, left = divmod(left, unit)
        if count:
            text += f"{count}{letter}"
    return text or "0s"


def parse_time(text: str, zone: tzinfo) -> datetime:
    """Read an ISO 8601 date and time; without an offset it is local time in ``zone``.

    Raises:
        ValueError: for other text, a time that daylight saving skips, or a year outside 1970-9000.

    """
    text = text.strip()
    # fromisoformat takes any letter between date and time, and a NUL at the end
    try:
        moment = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:
        moment = None
    # it also takes bare dates, and "2026-12-01" could mean its beginning or its end
    if moment is None or len(text) <= len("2026-12-01"):
        msg = f"{text[:40]!r} is not a date and time; write 2026-12-01T18:00 or 2026-12-01T18:00Z"
        raise ValueError(msg)
    if not 1970 <= moment.year <= 9000:  # noqa: PLR2004 - the bounds that the sentence names
        msg = f"the year {moment.year} is out of range"
        raise ValueError(msg)
    if moment.tzinfo is None:
        local = moment.replace(tzinfo=zone, fold=0)
        if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
            msg = f"{text[:40]} does not exist in {zone}: the clock is put forward over it"
            raise ValueError(msg)
        moment = local
    return truncate(moment.astimezone(UTC))


def truncate(moment: datetime) -> datetime:
    """Cut to milliseconds, the resolution of the store."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def to_millis(moment: datetime) -> int:
    """Milliseconds since 1970, as the store keeps instants."""
    return (moment - _EPOCH) // _MILLISECOND


def from_millis(millis: int) -> datetime:
    """Be the inverse of `to_millis`."""
    return _EPOCH + millis * _MILLISECOND


def isoformat(moment: datetime) -> str:
    """UTC in ISO 8601: ``2026-12-01T18:00:00+00:00``, with milliseconds only where it has any."""
    moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
