"""Tables and words: pure functions of items, widths and an instant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from otsd.cli.output import visible
from otsd.cli.tables import Column, Table, both, columns, cut, local, record, relative

NOW = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(), "now"),
        (timedelta(seconds=59), "in 59 s"),
        (timedelta(seconds=60), "in 1 min"),
        (timedelta(minutes=59), "in 59 min"),
        (timedelta(hours=1), "in 1 h"),
        (timedelta(hours=47), "in 47 h"),
        (timedelta(hours=48), "in 2 days"),
        (timedelta(days=7) - timedelta(milliseconds=300), "in 7 days"),
        (timedelta(days=14), "in 14 days"),
        (timedelta(days=15), "2026-12-06"),
        (timedelta(seconds=-1), "1 s ago"),
        (timedelta(minutes=-5), "5 min ago"),
        (timedelta(days=-3), "3 days ago"),
        (timedelta(days=-30), "2026-10-22"),
    ],
)
def test_an_instant_is_told_by_its_distance_until_a_date_says_more(
    length: timedelta, words: str
) -> None:
    assert relative((NOW + length).isoformat(), NOW) == words


@pytest.mark.usefixtures("_berlin")
def test_times_are_those_of_the_machine_and_a_lone_one_names_its_zone() -> None:
    assert local("2026-07-01T22:30:00+00:00") == "2026-07-02 00:30:00"
    assert local("2026-12-01T22:30:00.123+00:00") == "2026-12-01 23:30:00"
    assert both("2026-11-21T21:15:00+00:00", NOW) == "2026-11-21 22:15:00 CET (in 1 h)"
    assert both("9000-01-01T00:00:00+00:00", NOW) == "9000-01-01 01:00:00 CET"
    assert local(None) is both(None, NOW) is relative(None, NOW) is None


def table(items: list[dict[str, object]], width: int | None = None) -> list[str]:
    wanted = [
        Column("ID", lambda item: item["id"]),
        Column("COMMENT", lambda item: item["comment"], shrink=True),
        Column("STATE", lambda item: item["state"]),
    ]
    return list(Table(wanted, width).lines(items))


def test_columns_are_aligned_and_nothing_is_a_dash() -> None:
    assert table(
        [
            {"id": "k7m2qx4d", "comment": "Plumber", "state": "active"},
            {"id": "a", "comment": "", "state": None},
        ]
    ) == [
        "ID        COMMENT  STATE",
        "k7m2qx4d  Plumber  active",
        "a         -        -",
    ]


def test_a_table_without_rows_has_its_titles() -> None:
    assert table([]) == ["ID  COMMENT  STATE"]


def test_zero_is_not_nothing() -> None:
    assert table([{"id": 0, "comment": "x", "state": False}])[1].split() == ["0", "x", "False"]


def test_only_what_may_shrink_is_cut_to_the_width_and_shows_it() -> None:
    items: list[dict[str, object]] = [{"id": "k7m2qx4d", "comment": "x" * 90, "state": "active"}]
    title, row = table(items, width=40)
    assert len(row) == 40
    assert row.startswith("k7m2qx4d  xxxx")
    assert row.endswith("x…  active")
    assert title.index("STATE") == row.index("active")
    assert "x" * 90 in table(items)[1]


def test_a_terminal_that_is_too_narrow_gets_long_lines_rather_than_none() -> None:
    row = table([{"id": "k7m2qx4d", "comment": "x" * 90, "state": "active"}], width=5)[1]
    assert row == "k7m2qx4d  xxxxxxx…  active"


def test_letters_of_two_columns_and_of_none_are_aligned_too() -> None:
    lines = table(
        [
            {"id": "1", "comment": "鍵屋", "state": "active"},
            {"id": "2", "comment": "Cafe\u0301", "state": "active"},
            {"id": "3", "comment": "Klempner", "state": "active"},
        ]
    )
    assert {columns(line[: line.index("active")]) for line in lines[1:]} == {14}
    assert cut("鍵屋鍵屋", 4) == "鍵…"


def test_later_pages_have_no_titles_and_stay_as_wide() -> None:
    pages = Table([Column("ID", lambda item: item["id"]), Column("X", lambda item: item["x"])])
    assert list(pages.lines([{"id": "long-one", "x": 1}])) == ["ID        X", "long-one  1"]
    assert list(pages.lines([{"id": "a", "x": 2}])) == ["a         2"]


def test_a_record_is_a_line_for_each_fact() -> None:
    assert list(record([("id", "k7m2qx4d"), ("comment", ""), ("uses left", 0)])) == [
        "id         k7m2qx4d",
        "comment    -",
        "uses left  0",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\nc\td\x00\x7f", r"a\rb\nc\td\x00\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\udcff", r"\udcff"),
        ("Tür & ☕ 👩\u200d🔧 鍵", "Tür & ☕ 👩\u200d🔧 鍵"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert table([{"id": "1", "comment": text, "state": "x"}])[1].split("  ")[1].strip() == shown
