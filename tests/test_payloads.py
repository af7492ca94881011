"""What programs send, read strictly, and what they get back."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from otsd.core.actions import Action, Defaults
from otsd.core.errors import Invalid
from otsd.core.manage import UNSET
from otsd.core.ports import ConnectionState, ConnectionStatus
from otsd.core.tokens import Reason, Submission, SubmissionState, Token
from otsd.payloads import (
    CreateAction,
    CreateKey,
    EditToken,
    MintToken,
    ReplaceAction,
    ValidateAction,
    action_json,
    check_name,
    connection_json,
    csv_lines,
    entity_list,
    list_json,
    read,
    service_list,
    submission_json,
    token_json,
)
from tests.conftest import Clock

BERLIN = ZoneInfo("Europe/Berlin")


def mint(**body: Any) -> MintToken:
    return read(MintToken, json.dumps({"action": "open-door", **body}), BERLIN)


def faults(body: type[BaseModel], text: str | bytes) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(Invalid) as refused:
        read(body, text, BERLIN)
    assert "\n" not in str(refused.value)
    return [(fault.loc, fault.msg) for fault in refused.value.faults]


# -- minting


def test_a_wish_of_an_action_alone_leaves_the_rest_to_its_defaults() -> None:
    wish = mint().mint("cli")
    assert (wish.action, wish.created_by, wish.comment) == ("open-door", "cli", "")
    assert wish.max_uses is UNSET
    assert wish.expires_at is UNSET
    assert wish.expires_in is UNSET
    assert wish.valid_from is None
    assert wish.device is None


def test_null_is_without_limit_and_without_end_where_absent_is_the_default() -> None:
    wish = mint(max_uses=None, expires_at=None).mint("cli")
    assert wish.max_uses is None
    assert wish.expires_at is None
    assert wish.expires_in is UNSET
    assert mint(expires_in=None).mint("cli").expires_in is None


def test_everything_of_a_wish_is_read() -> None:
    wish = mint(
        max_uses=10**9,
        valid_from="2026-12-01T18:00",
        expires_in="1h30m",
        comment="Plumber",
        device=True,
    ).mint("key:shop")
    assert wish.max_uses == 10**9
    assert wish.valid_from == datetime(2026, 12, 1, 17, tzinfo=UTC)
    assert wish.expires_in == timedelta(minutes=90)
    assert (wish.comment, wish.device) == ("Plumber", True)


@pytest.mark.parametrize(
    "value", ["true", "1.0", "1e0", "1e30", "NaN", "Infinity", '"1"', "[1]", "{}"]
)
def test_uses_are_a_whole_number_and_nothing_like_one(value: str) -> None:
    found = faults(MintToken, f'{{"action": "a", "max_uses": {value}}}')
    assert [loc for loc, _ in found] == [("max_uses",)]
    assert found[0][1] == "this must be a whole number"


@pytest.mark.parametrize("value", ["0", "-1", "1000000001", "1" + "0" * 30, "-1" + "0" * 30])
def test_uses_have_bounds(value: str) -> None:
    assert faults(MintToken, f'{{"action": "a", "max_uses": {value}}}') == [
        (("max_uses",), "this must be from 1 to 1000000000")
    ]


def test_both_ends_given_are_refused_also_as_null() -> None:
    for at, length in (("2026-12-01T18:00", "2h"), (None, "2h"), (None, None)):
        body = json.dumps({"action": "a", "expires_at": at, "expires_in": length})
        assert faults(MintToken, body) == [((), "give expires_at or expires_in, not both")]


@pytest.mark.parametrize(
    "value", ['"0s"', '"99999999d"', '"soon"', "7", "true", '""', "7.0", '"-1h"']
)
@pytest.mark.parametrize("key", ["expires_in", "expires_at", "valid_from"])
def test_ends_that_are_none_are_refused(key: str, value: str) -> None:
    ((loc, _),) = faults(MintToken, f'{{"action": "a", "{key}": {value}}}')
    assert loc == (key,)


def test_a_time_that_daylight_saving_skips_is_refused() -> None:
    ((loc, why),) = faults(MintToken, '{"action": "a", "expires_at": "2026-03-29T02:30"}')
    assert loc == ("expires_at",)
    assert "does not exist in Europe/Berlin" in why


@pytest.mark.parametrize("name", ["", "Open", "a b", "../a", "ö", "-a", "a\n", "x" * 65, "a\0"])
def test_names_are_held_to_their_form_in_bodies_and_in_paths(name: str) -> None:
    ((loc, why),) = faults(MintToken, json.dumps({"action": name}))
    assert loc == ("action",)
    assert "a name is 1 to 64 of a-z" in why
    with pytest.raises(Invalid, match="a name is 1 to 64"):
        check_name(name)


def test_a_good_name_in_a_path_passes() -> None:
    check_name("open-door_2")


# -- text


@pytest.mark.parametrize("body", [MintToken, EditToken])
@pytest.mark.parametrize("text", ["a\nb", "a\tb", "\0", "\x1b[31m", "\x7f", "\u202e", "\u2028"])
def test_control_characters_in_a_comment_are_refused(body: type[BaseModel], text: str) -> None:
    more = {"action": "a"} if body is MintToken else {}
    ((loc, why),) = faults(body, json.dumps({**more, "comment": text}))
    assert loc == ("comment",)
    assert "control characters" in why


def test_a_comment_has_500_characters() -> None:
    assert mint(comment="é" * 500).comment == "é" * 500
    ((loc, why),) = faults(MintToken, json.dumps({"action": "a", "comment": "é" * 501}))
    assert loc == ("comment",)
    assert "500" in why


@pytest.mark.parametrize(
    "text", ["مرحبا", "👩\u200d🚒", "<b>x</b>", "a\u00a0b", "'; DROP TABLE --"]
)
def test_a_comment_in_any_script_is_kept_as_it_is(text: str) -> None:
    assert mint(comment=text).comment == text


@pytest.mark.parametrize(
    "text",
    [
        b'{"action": "a", "comment": "\xff"}',
        b'{"action": "a", "comment": "\xed\xa0\x80"}',
        '{"action": "a", "comment": "\\ud800"}',
        '{"action": "a", "comment": "\ud800"}',
        '{"action": "a", "comment": "raw \n line"}',
    ],
)
def test_text_that_is_none_is_refused(text: str | bytes) -> None:
    assert len(faults(MintToken, text)) == 1


# -- what is no JSON, and what is not an object of known keys


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "{'action': 'a'}", "action=a", '{"action": "a",}', '{"action": "a"} x'),
        *("[" * 100_000, '{"action":' * 100_000, '{"a":[' * 50_000, "nul", "\0", "// x\n{}"),
        '{"action": "a", "max_uses": ' + "1" * 100_000 + "}",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_json_is_told_so(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(MintToken, text, BERLIN)
    assert refused.value.code == "bad_json"
    assert len(refused.value.faults) == 1
    assert "JSON" in refused.value.faults[0].msg


@pytest.mark.parametrize("text", ["[]", "null", '"open-door"', "1", "true", "NaN"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(MintToken, text, BERLIN)
    assert refused.value.code in ("invalid", "bad_json")


@pytest.mark.parametrize(
    "body", [MintToken, EditToken, ReplaceAction, CreateAction, ValidateAction]
)
def test_an_unknown_key_is_a_fault_with_its_name(body: type[BaseModel]) -> None:
    assert (("uses",), "there is no such key") in faults(body, '{"uses": 1}')


def test_every_fault_is_listed_at_once() -> None:
    text = """{"action": "A", "max_uses": true, "expires_in": "0s", "valid_from": "soon",
               "comment": "a\\u0000", "device": 1, "code": "x"}"""
    assert sorted(loc for loc, _ in faults(MintToken, text)) == [
        *(("action",), ("code",), ("comment",), ("device",)),
        *(("expires_in",), ("max_uses",), ("valid_from",)),
    ]


def test_a_fault_never_repeats_what_was_sent() -> None:
    body = json.dumps({"action": "a", "code": "hush" * 9, "max_uses": "hush" * 9})
    assert "hush" not in str(faults(MintToken, body))


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_whatever_arrives_is_a_body_or_invalid(text: bytes | str) -> None:
    for body in (MintToken, EditToken, CreateAction):
        try:
            read(body, text, BERLIN)
        except Invalid as refused:
            assert refused.faults  # noqa: PT017


# -- editing


def test_an_edit_changes_what_is_given_and_nothing_else() -> None:
    edit = read(EditToken, '{"max_uses": null, "expires_at": null}', BERLIN).edit()
    assert edit.max_uses is None
    assert edit.expires_at is None
    assert edit.comment is UNSET
    assert edit.valid_from is UNSET
    nothing = read(EditToken, "{}", BERLIN).edit()
    assert nothing.max_uses is UNSET
    assert nothing.expires_at is UNSET


@pytest.mark.parametrize("key", ["action", "expires_in", "uses_left", "state", "paused", "id"])
def test_what_cannot_be_edited_is_refused(key: str) -> None:
    assert [loc for loc, _ in faults(EditToken, json.dumps({key: "x"}))] == [(key,)]


def test_a_comment_cannot_become_null() -> None:
    assert [loc for loc, _ in faults(EditToken, '{"comment": null}')] == [("comment",)]


# -- actions


def test_an_action_is_read_with_its_defaults() -> None:
    body = read(
        CreateAction,
        json.dumps(
            {
                "name": "open-door",
                "title": "Open",
                "yaml": "action: lock.unlock",
                "defaults": {"max_uses": None, "expires_in": "7d"},
            }
        ),
        BERLIN,
    )
    action = body.action(body.name)
    assert action.plan.services == ("lock.unlock",)
    assert action.defaults == Defaults(None, timedelta(days=7))


def test_an_action_without_defaults_gives_one_use_and_no_end() -> None:
    body = read(ReplaceAction, '{"title": "Open", "yaml": "action: a.b"}', BERLIN)
    assert body.action("a").defaults == Defaults(1, None)
    body = read(ReplaceAction, '{"title": "Open", "yaml": "action: a.b", "defaults": {}}', BERLIN)
    assert body.action("a").defaults == Defaults(1, None)


@pytest.mark.parametrize(
    ("defaults", "loc"),
    [
        ('{"max_uses": true}', ("defaults", "max_uses")),
        ('{"max_uses": 0}', ("defaults", "max_uses")),
        ('{"expires_in": "0s"}', ("defaults", "expires_in")),
        ('{"expires_in": 5}', ("defaults", "expires_in")),
        ('{"uses": 5}', ("defaults", "uses")),
        ("null", ("defaults",)),
    ],
)
def test_a_fault_of_the_defaults_says_where(defaults: str, loc: tuple[str, ...]) -> None:
    text = f'{{"title": "x", "yaml": "action: a.b", "defaults": {defaults}}}'
    assert [found for found, _ in faults(ReplaceAction, text)] == [loc]


def test_a_title_has_200_characters_and_no_control_characters() -> None:
    for title in ("x" * 201, "", " ", "a\nb", "\ud83d"):
        text = json.dumps({"title": title, "yaml": "action: a.b"})
        assert len(faults(ReplaceAction, text)) == 1
    assert read(ReplaceAction, json.dumps({"title": "x" * 200, "yaml": ""}), BERLIN)


@pytest.mark.parametrize("text", ["", "[", "a: !secret x", "delay: 1", "[" * 60_000, "a: \ud800"])
def test_yaml_that_is_no_action_is_an_invalid_action(text: str) -> None:
    body = ReplaceAction.model_construct(title="x", yaml=text)
    with pytest.raises(Invalid) as refused:
        body.action("a")
    assert refused.value.code == "invalid_action"
    assert [fault.loc for fault in refused.value.faults] == [("yaml",)]


# -- what programs get


def test_a_token_is_shown_as_the_contract_has_it(clock: Clock) -> None:
    token = Token(
        id="k7m2qx4d",
        lookup=1,
        action="open-door",
        comment="Plumber",
        max_uses=1,
        uses_taken=0,
        round=0,
        valid_from=None,
        expires_at=datetime(2026, 12, 1, 18, tzinfo=UTC),
        created_at=clock.now,
        created_by="cli",
        last_used_at=None,
        revoked_at=None,
        paused=False,
        device=None,
    )
    shown = {
        "id": "k7m2qx4d",
        "action": "open-door",
        "comment": "Plumber",
        "max_uses": 1,
        "uses_left": 1,
        "state": "active",
        "valid_from": None,
        "expires_at": "2026-12-01T18:00:00+00:00",
        "created_at": "2026-11-21T20:15:00+00:00",
        "created_by": "cli",
        "last_used_at": None,
        "device": None,
    }
    assert token_json(token, clock.now) == shown
    assert token_json(token, clock.now, "https://x/?token=y") == {
        **shown,
        "url": "https://x/?token=y",
    }
    json.dumps(shown)


def test_a_submission_is_shown_as_the_contract_has_it(clock: Clock) -> None:
    submission = Submission(
        id=41,
        token_id="k7m2qx4d",
        action="open-door",
        attempt="attempt-1",
        state=SubmissionState.FAILED,
        reason=Reason.ACTION_FAILED,
        started_at=clock.now,
        finished_at=None,
        uses_left=0,
        spent=False,
        error="no",
        remote_ip="203.0.113.9",
        user_agent="x",
        context_id="01J",
    )
    shown = json.loads(json.dumps(submission_json(submission)))
    assert shown.items() >= {
        ("id", 41),
        ("token_id", "k7m2qx4d"),
        ("action", "open-door"),
        ("state", "failed"),
        ("started_at", "2026-11-21T20:15:00+00:00"),
        ("finished_at", None),
        ("uses_left", 0),
        ("error", "no"),
        ("remote_ip", "203.0.113.9"),
        ("user_agent", "x"),
        ("context_id", "01J"),
    }
    assert "attempt" not in shown


def test_an_action_is_shown_as_the_contract_has_it() -> None:
    body = read(ReplaceAction, '{"title": "Open", "yaml": "action: a.b\\n"}', BERLIN)
    action: Action = body.action("open-door")
    shown = action_json(action)
    assert shown.items() >= {("name", "open-door"), ("title", "Open"), ("yaml", "action: a.b\n")}
    assert shown["defaults"] == {"max_uses": 1, "expires_in": None}
    assert "warnings" not in shown
    assert action_json(action, ["x"])["warnings"] == ["x"]


def test_a_connection_and_a_list_are_shown(clock: Clock) -> None:
    status = ConnectionStatus(ConnectionState.REFUSED, clock.now, "wrong token", None)
    assert connection_json(status) == {
        "state": "refused",
        "since": "2026-11-21T20:15:00+00:00",
        "error": "wrong token",
        "version": None,
    }
    assert list_json([{"id": 1}], None) == {"items": [{"id": 1}], "next": None}
    assert list_json([], 7) == {"items": [], "next": "7"}


# -- tables for spreadsheets -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff201", "'\uff201"),
        ("  =1", "  '=1"),
        ("\t=1", "\t'=1"),
        ("\r=1", "\r'=1"),
        ("\n=1", "\n'=1"),
        ("\u00a0=1", "\u00a0'=1"),
        ('"=1', "\"'=1"),
        ("x;=1", "x;'=1"),
        ('x; "=1', "x; \"'=1"),
        ("x\n-1", "x\n'-1"),
        ("a=1;b=2", "a=1;b=2"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("2026-11-21T20:15:00+00:00", "2026-11-21T20:15:00+00:00"),
        ("", ""),
        (-1, "-1"),
        (None, ""),
        (True, "True"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_is_text(cell: object, written: str) -> None:
    ((found,),) = csv.reader(io.StringIO(csv_lines([[cell]]).decode(), newline=""))
    assert found == written


TRIGGERS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@given(
    st.lists(st.lists(st.text("=+-@;,\"' \t\r\nax\uff1d"), min_size=2, max_size=2), max_size=4),
    st.sampled_from(",;\t"),
)
def test_no_cell_begins_a_formula_however_the_table_is_cut(
    rows: list[list[str]], delimiter: str
) -> None:
    written = csv_lines(rows).decode()
    for row in csv.reader(io.StringIO(written, newline=""), delimiter=delimiter):
        for cell in row:
            assert not cell.lstrip().startswith(TRIGGERS), (written, cell)


@given(st.lists(st.lists(st.text('ab,;"\r\n '), min_size=1, max_size=3)))
def test_a_table_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    written = csv_lines(rows)
    assert written.count(b"\r\n") >= len(rows)
    assert list(csv.reader(io.StringIO(written.decode(), newline=""))) == rows


# -- pickers -----------------------------------------------------------------------------------


def test_a_picker_is_shown_what_integrations_say_of_themselves_however_odd() -> None:
    services: dict[str, Any] = {
        "lock": {"unlock": {"name": "Unlock", "description": "", "target": {}, "fields": None}},
        "odd": {
            "b": {
                "fields": {
                    "bare": None,
                    "more": {"fields": {"deep": {"required": True, "description": 7}}},
                }
            },
            "a": {"name": 1, "target": {"entity": {}}},
        },
    }
    unlock, first, second = service_list(services)
    assert unlock == {
        "name": "lock.unlock",
        "title": "Unlock",
        "description": None,
        "fields": [],
        "target": False,
    }
    assert (first["name"], first["title"], first["target"]) == ("odd.a", "1", True)
    assert second["fields"] == [
        {"name": "bare", "description": None, "required": False, "example": None},
        {"name": "deep", "description": "7", "required": True, "example": None},
    ]


def test_an_entity_may_be_called_by_a_number() -> None:
    states: list[dict[str, Any]] = [
        {"entity_id": "lock.b", "state": "locked", "attributes": {"friendly_name": 7}},
        {"entity_id": "lock.a", "state": "locked"},
    ]
    assert entity_list(states) == [
        {"entity_id": "lock.a", "name": None, "state": "locked"},
        {"entity_id": "lock.b", "name": "7", "state": "locked"},
    ]


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb"])
def test_a_key_has_a_name_that_can_be_shown(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(CreateKey, json.dumps({"name": name, "scope": "read"}), BERLIN)
    (fault,) = caught.value.faults
    assert fault.loc == ("name",)
    assert "500" not in fault.msg
    assert "pattern" not in fault.msg
