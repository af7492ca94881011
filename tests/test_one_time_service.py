"""Reading the file of the One Time Service add-on, entry by entry."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otsd import one_time_service
from otsd.core.errors import Invalid
from otsd.core.imports import FoundAction, FoundToken, ImportFile, RefusedToken
from tests import importing

CODE = "abcdefghijklmnopqrstuvwxyzABCDEF"


def read(document: object) -> ImportFile:
    return one_time_service.read(json.dumps(document).encode())


def read_token(code: str = CODE, **more: Any) -> FoundToken | RefusedToken:
    (found,) = one_time_service.read(importing.file({code: importing.token(**more)})).tokens
    return found


def taken(code: str = CODE, **more: Any) -> FoundToken:
    found = read_token(code, **more)
    assert isinstance(found, FoundToken), found.notes
    return found


def read_action(entry: object, name: str = "Open door") -> FoundAction:
    (found,) = read({"service_calls": {name: entry}}).actions
    return found


def test_a_token_of_0_4_0_is_read_as_it_is() -> None:
    found = taken(uses_max=3, uses_left=2, expires="2030-01-02T03:04:05.999999999Z")
    assert found.code.reveal() == CODE
    assert (found.source, found.comment, found.notes) == ("Open door", "Plumber", ())
    assert (found.max_uses, found.uses_taken) == (3, 1)
    assert found.created_at == datetime(2024, 9, 10, 10, 0, 0, 123000, UTC)
    assert found.expires_at == datetime(2030, 1, 2, 3, 4, 5, 999000, UTC)


def test_the_first_version_is_read_where_a_token_could_be_used_once() -> None:
    entry = {"macro_name": "Open door", "created": "2023-01-01T00:00:00Z", "expires": None}
    found = read({"macros": {"Open door": importing.DOOR}, "tokens": {CODE: entry}})
    (action,), (token,) = found.actions, found.tokens
    assert action.action is not None
    assert action.action.name == "open-door"
    assert isinstance(token, FoundToken)
    assert (token.source, token.comment, token.notes) == ("Open door", "", ())
    assert (token.max_uses, token.uses_taken) == (1, 0)


def test_the_newer_spelling_counts_where_both_are() -> None:
    found = read(
        {
            "macros": {"Old": importing.DOOR},
            "service_calls": {"New": importing.DOOR},
            "tokens": {CODE: importing.token(macro_name="Old", service_call_name="New")},
        }
    )
    assert [each.source for each in found.actions] == ["New"]
    assert [each.source for each in found.tokens if isinstance(each, FoundToken)] == ["New"]


@pytest.mark.parametrize(
    ("entry", "yaml"),
    [
        (importing.DOOR, "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"),
        ({"service": "light.turn_on", "data": {}}, "action: light.turn_on\n"),
        ({"service": "light.turn_on", "data": None}, "action: light.turn_on\n"),
        ({"service": "light.turn_on"}, "action: light.turn_on\n"),
        ({"action": "light.turn_on"}, "action: light.turn_on\n"),
        (
            {"service": " light.turn_on ", "data": {"area_id": ["hall"], "brightness": 7}},
            "action: light.turn_on\ntarget:\n  area_id:\n  - hall\ndata:\n  brightness: 7\n",
        ),
        (
            {"service": "light.turn_on", "target": {"entity_id": "light.a"}, "data": {"x": "no"}},
            "action: light.turn_on\ntarget:\n  entity_id: light.a\ndata:\n  x: 'no'\n",
        ),
    ],
)
def test_what_an_action_acts_on_stands_in_target(entry: Any, yaml: str) -> None:
    found = read_action(entry)
    assert found.action is not None, found.notes
    assert found.notes == ()
    assert found.action.yaml == yaml


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (None, "it is not an object"),
        ("lock.unlock", "it is not an object"),
        ({}, "it names no service"),
        ({"service": None}, "it names no service"),
        ({"service": 5}, "it names no service"),
        ({"service": "unlock"}, "'unlock' is not an action; write one such as lock.unlock"),
        ({"service": "lock.unlock", "data": "door"}, "its data are not an object"),
        ({"service": "lock.unlock", "data": {"x": 2**70}}, "a whole number is too large"),
        ({"service": "lock.unlock", "data": {"x": "\ud800"}}, "half of a character"),
        ({"service": "lock.unlock", "data": {"x": "y" * 70_000}}, "it is larger than 64 kB"),
        ({"service": "lock.unlock", "data": {"x": "y" * 7_000_000}}, "it is larger than 64 kB"),
    ],
)
def test_an_action_that_cannot_be_used_is_refused_with_the_reason(entry: Any, why: str) -> None:
    found = read_action(entry)
    assert found.action is None
    (note,) = found.notes
    assert why in note


@pytest.mark.parametrize("depth", [70, 300, 800])
def test_an_action_that_is_nested_too_deep_is_refused(depth: int) -> None:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    found = read_action({"service": "lock.unlock", "data": {"x": data}})
    assert found.action is None
    assert "nested" in found.notes[0]


def test_a_template_is_noted_for_it_was_none_before() -> None:
    found = read_action({"service": "notify.notify", "data": {"message": "{{ now() }}"}})
    assert found.action is not None
    assert found.notes == ("it has a template, which is rendered here and was not before",)


@pytest.mark.parametrize(
    ("source", "name", "title"),
    [
        ("Open door", "open-door", "Open door"),
        ("Tür öffnen", "tur-offnen", "Tür öffnen"),
        ("🚪", "action", "🚪"),
        ("👩\u200d🔧 kommt", "kommt", "👩\u200d🔧 kommt"),
        ("10\xa0€", "10", "10\xa0€"),
        ("", "action", "Action"),
        ("  ", "action", "Action"),
        (" Door ", "door", "Door"),
        ("a\nb\u202ec", "a-bc", "a b c"),
        ("Door\0", "door", "Door"),
        ("x" * 300, "x" * 56, "x" * 200),
    ],
)
def test_any_name_becomes_a_name_and_a_title(source: str, name: str, title: str) -> None:
    found = read_action(importing.DOOR, source)
    assert found.action is not None
    assert (found.action.name, found.action.title) == (name, title)
    assert bool(found.notes) == (title != source)


def test_a_name_that_cannot_be_kept_is_refused() -> None:
    assert read_action(importing.DOOR, "\ud800").notes == ("it has half of a character in a text",)


@pytest.mark.parametrize(
    ("counts", "max_uses", "left", "notes"),
    [
        ({"uses_max": 3, "uses_left": 0}, 3, 0, []),
        ({"uses_max": 3, "uses_left": 3}, 3, 3, []),
        ({"uses_max": 3.0, "uses_left": 2.0}, 3, 2, []),
        ({"uses_max": 3, "uses_left": None}, 3, 3, []),
        ({"uses_max": None, "uses_left": None}, 1, 1, []),
        ({"uses_max": None, "uses_left": 5}, 5, 5, []),
        ({"uses_max": None, "uses_left": 0}, 1, 0, []),
        ({"uses_max": 3, "uses_left": -2}, 3, 0, ["its uses left were -2, and are 0 now"]),
        ({"uses_max": 3, "uses_left": 7}, 7, 7, ["its uses in all were 3, and are 7 now"]),
        ({"uses_max": 0, "uses_left": 0}, 1, 0, ["its uses in all were 0, and are 1 now"]),
        (
            {"uses_max": 10**12, "uses_left": 10**12},
            10**9,
            10**9,
            [f"its uses {what} were {10**12}, and are {10**9} now" for what in ("left", "in all")],
        ),
        (
            {"uses_max": 1, "uses_left": 10**400},
            10**9,
            10**9,
            [
                f"its uses left were far too many, and are {10**9} now",
                f"its uses in all were 1, and are {10**9} now",
            ],
        ),
    ],
)
def test_what_is_left_decides_how_often_a_token_can_be_used(
    counts: dict[str, Any], max_uses: int, left: int, notes: list[str]
) -> None:
    found = taken(**counts)
    assert (found.max_uses, found.max_uses - found.uses_taken) == (max_uses, left)
    assert list(found.notes) == notes


@pytest.mark.parametrize("value", [1.5, "1", True, [], {}, 1e400, -1e400])
@pytest.mark.parametrize("name", ["uses_max", "uses_left"])
def test_a_count_that_is_none_refuses_the_token(name: str, value: Any) -> None:
    content = importing.file({CODE: importing.token(**{name: value})})
    (found,) = one_time_service.read(content.replace(b"Infinity", b"1e400")).tokens
    assert found == RefusedToken(1, (f"its {name} is not a whole number",))


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("2024-09-10T12:00:00.123456789+02:00", datetime(2024, 9, 10, 10, 0, 0, 123000, UTC)),
        ("2024-09-10T12:00:00Z", datetime(2024, 9, 10, 12, tzinfo=UTC)),
        ("2024-09-10T12:00:00.1-07:00", datetime(2024, 9, 10, 19, 0, 0, 100000, UTC)),
        ("0001-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1970-01-01T00:00:00+02:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("8999-12-31T23:59:59-12:00", None),
        ("9999-12-31T23:59:59-12:00", None),
    ],
)
def test_the_times_of_go_are_read(expires: str, moment: datetime | None) -> None:
    found = taken(expires=expires)
    assert found.expires_at == moment
    assert bool(found.notes) == (moment is None)


@pytest.mark.parametrize("expires", ["", "soon", "2024-09-10T12:00:00", "2024-13-10", 5, [], True])
def test_an_end_that_is_none_refuses_the_token_but_when_it_was_made_does_not(expires: Any) -> None:
    assert read_token(expires=expires).notes == ("its expires is not a time",)
    assert taken(created=expires).created_at is None


@pytest.mark.parametrize(
    ("comment", "kept", "notes"),
    [
        (None, "", 0),
        ("", "", 0),
        ("Grüße 👋🏽 10\xa0€", "Grüße 👋🏽 10\xa0€", 0),
        ("a\r\nb\tc\u2028d", "a  b c d", 1),
        ("a\u202eb\u2066c\ud800d", "a b c d", 1),
        ("x" * 500, "x" * 500, 0),
        ("x" * 560, "x" * 500, 1),
        ("\n" + "x" * 560, " " + "x" * 499, 2),
        (["a"], "", 1),
        (f"see https://example.org/?token={CODE}", "see https://example.org/?token=…", 1),
        (f"{CODE}\n{CODE}", "… …", 2),
        ("x" * 490 + CODE, "x" * 490 + "…", 1),
    ],
)
def test_a_comment_is_kept_as_far_as_it_can_be_shown(comment: Any, kept: str, notes: int) -> None:
    found = taken(comment=comment)
    assert found.comment == kept
    assert len(found.notes) == notes
    assert not any(CODE[:8] in text for text in (found.comment, *found.notes))


def test_a_comment_of_any_length_costs_next_to_nothing() -> None:
    begun = time.thread_time()
    for comment in ("\x01" * 10_000_000, "x" * 10_000_000, f"{CODE} " * 300_000):
        found = taken(comment=comment)
        assert len(found.comment) <= 500
        assert CODE not in found.comment
        assert "is cut" in found.notes[-1]
    for _ in range(1_000):
        taken(comment="\x01" * 10_000)
    assert time.thread_time() - begun < 5  # it took 10 s, and far more memory than there may be


def test_an_action_that_is_named_by_a_link_is_refused() -> None:
    file = importing.file({CODE: importing.token()}, **{f"Door {CODE}": importing.DOOR})
    _, action = one_time_service.read(file).actions
    assert action.action is None
    assert action.notes == ("its name has the code of a link: name it otherwise",)


@pytest.mark.parametrize(
    "code",
    [
        "",
        CODE[:31],
        CODE + "a",
        CODE[:31] + "1",
        CODE[:31] + "ü",
        CODE[:31] + "\N{LATIN SMALL LETTER LONG S}",
        CODE[:31] + "\N{KELVIN SIGN}",
        CODE[:31] + "\n",
        CODE[:31] + "\ud800",
    ],
)
def test_a_code_is_32_letters(code: str) -> None:
    found = read_token(code)
    assert found == RefusedToken(1, ("its code is not 32 letters",))


@pytest.mark.parametrize("entry", [None, 5, "x", [], True])
def test_a_token_that_is_no_object_is_refused(entry: Any) -> None:
    assert read({"tokens": {CODE: entry}}).tokens == [RefusedToken(1, ("it is not an object",))]


@pytest.mark.parametrize("name", [None, 5, ["Open door"]])
def test_a_token_that_names_no_action_is_refused(name: Any) -> None:
    assert read_token(service_call_name=name).notes == ("it names no action",)


def test_of_a_key_that_stands_twice_the_last_counts_as_it_did_before() -> None:
    one, two = json.dumps(importing.token(uses_max=3)), json.dumps(importing.token(uses_max=5))
    text = f'{{"tokens": {{"{CODE}": {one}, "{CODE}": {two}}}}}'
    (found,) = one_time_service.read(text.encode()).tokens
    assert isinstance(found, FoundToken)
    assert found.max_uses == 5


def test_a_byte_order_mark_and_other_keys_do_not_matter() -> None:
    content = b"\xef\xbb\xbf" + importing.file({}).replace(b"{", b'{"more": [1], ', 1)
    assert len(one_time_service.read(content).actions) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b" \n", "it is not JSON"),
        (b"[]", "it is not an object"),
        (b'"tokens"', "it is not an object"),
        (b"{}", "and may be another file."),
        (b'{"homeassistant": {}}', "and may be another file."),
        (b'{"tokens": []}', "its tokens are not an object"),
        (b'{"tokens": {}, "service_calls": "x"}', "its service_calls are not an object"),
        (importing.file({CODE: importing.token()})[:-5], "it is not JSON"),
        (b'{"tokens": {"' + CODE.encode() + b'": NaN}}', "a number in it is none"),
        (b'{"tokens": {"' + CODE.encode() + b'": -Infinity}}', "a number in it is none"),
        (b'{"tokens": {"x": 1' + b"0" * 5_000 + b"}}", "a number in it is none"),
        (b'{"tokens": {"' + CODE.encode() + b'": \xff}}', "it is not UTF-8"),
        (b'{"tokens": ' + b"[" * 100_000, "it is nested too deep"),
        (b'{"tokens": ' * 100_000, "it is nested too deep"),
        (b"PK\x03\x04" + bytes(range(256)), "it is not UTF-8"),
        # which is seen before any of it is made
        (b'{"tokens": {"x": [' + b"[]," * 1_000_001, "more in it than that add-on can have made"),
    ],
)
def test_a_file_that_is_none_is_refused_as_a_whole(content: bytes, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        one_time_service.read(content)
    assert caught.value.code == "invalid_import"
    assert why in str(caught.value)
    assert CODE not in str(caught.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just("lock.unlock"),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(["service", "data", "entity_id", "uses_left", "expires"]) | st.text(),
            each,
            max_size=3,
        )
    ),
    max_leaves=8,
)
token_values = json_values | st.fixed_dictionaries(
    {"service_call_name": st.sampled_from(["Open door", "x"]) | json_values},
    optional=dict.fromkeys(["created", "expires", "uses_max", "uses_left", "comment"], json_values),
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "service_calls": st.dictionaries(st.text(), json_values, max_size=3) | json_values,
        "tokens": st.dictionaries(st.just(CODE) | st.text(), token_values, max_size=3)
        | json_values,
    },
)


@given(documents)
@settings(max_examples=300)
def test_whatever_json_says_is_read_or_refused_and_no_code_is_told(document: Any) -> None:
    parts = [document.get(name) for name in ("service_calls", "macros", "tokens")]
    if all(part is None for part in parts) or not all(
        part is None or isinstance(part, dict) for part in parts
    ):
        with pytest.raises(Invalid):
            read(document)
        return
    found = read(document)
    for each in [*found.actions, *found.tokens]:
        assert not any(CODE in note for note in each.notes)
    for each in found.actions:
        assert (each.action is not None) or each.notes
    for each in found.tokens:
        if isinstance(each, FoundToken):
            assert 0 <= each.uses_taken <= each.max_uses <= 10**9
            assert len(each.comment) <= 500
            each.comment.encode()
        else:
            assert each.notes


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_whatever_bytes_say_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid):
        one_time_service.read(content)


# -- a file where strangers may write --------------------------------------------------------


def test_a_file_that_lies_there_is_named_by_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    assert one_time_service.look(path) is None
    assert one_time_service.look(tmp_path / "nothing" / "db.json") is None
    path.write_bytes(b"one")
    one = one_time_service.look(path)
    path.write_bytes(b"two")
    two = one_time_service.look(path)
    assert one is not None
    assert two is not None
    assert (one.content, two.content) == (b"one", b"two")
    assert one.digest != two.digest
    assert one.modified_at.tzinfo is UTC


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the key")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(Invalid) as caught:
            one_time_service.look(tmp_path / name)
        assert caught.value.code == "invalid_import"
        assert "the key" not in str(caught.value)


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    with path.open("wb") as file:
        file.truncate(one_time_service.LARGEST + 1)
    with pytest.raises(Invalid, match="larger than 64 MB"):
        one_time_service.look(path)
