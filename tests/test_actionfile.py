"""Actions as people write them: read as Home Assistant reads YAML, bounded, and never a traceback."""

import datetime as dt
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otsd.actionfile import (
    SIZE,
    check_text,
    check_title,
    dump,
    load,
    read_defaults,
    read_file,
    read_plan,
)
from otsd.core.errors import Invalid

STEP = "action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"

# -- YAML 1.1 as Home Assistant reads it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # 1.1, not 1.2: these are no texts
        *(("on", True), ("off", False), ("yes", True), ("No", False), ("True", True)),
        *(("1:30", 90), ("010", 8), ("0x1F", 31), ("1_000", 1000), ("0b11", 3), ("0o17", "0o17")),
        *(("~", None), ("null", None), ("", None), ("1e3", "1e3"), ("1.0e+3", 1000.0)),
        *(("y", "y"), ("'on'", "on"), ('"1:30"', "1:30"), ("18:00:00", 64800), ("=x", "=x")),
        # JSON has no dates: they go as Home Assistant would write them
        ("2026-12-01", "2026-12-01"),
        ("2026-12-01T18:00:00", "2026-12-01T18:00:00"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("{a: [1, {b: null}]}", {"a": [1, {"b": None}]}),
        ("{1: a, '2': b}", {"1": "a", "2": "b"}),
        (r'"\u00e9\0\x1b"', "é\0\x1b"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_values_are_read_as_home_assistant_reads_them(text: str, value: object) -> None:
    assert load(f"value: {text}") == {"value": value}


def test_the_last_of_two_equal_keys_wins() -> None:
    assert load("a: 1\nb: 2\na: 3\n") == {"a": 3, "b": 2}
    assert load("1: a\n'1': b\n") == {"1": "b"}


def test_anchors_and_merge_keys_unfold() -> None:
    text = "base: &base {code: 1, other: 2}\nused: {<<: *base, code: 3}\nagain: [*base, *base]\n"
    assert load(text) == {
        "base": {"code": 1, "other": 2},
        "used": {"code": 3, "other": 2},
        "again": [{"code": 1, "other": 2}] * 2,
    }


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    assert load("\ufeffaction: lock.unlock\r\ndata:\r\n  a: 1\r\n") == {
        "action": "lock.unlock",
        "data": {"a": 1},
    }


# -- what is refused, each with a sentence

ALIASES = "- &a0 {k: v}\n" + "".join(
    f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "- &a0 {k: v}\n" + "".join(
    f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)
WIDE_MERGE = (
    "- &a {" + ", ".join(f"k{n}: 1" for n in range(3000)) + "}\n- {<<: [" + "*a, " * 7000 + "]}\n"
)
# only the last of equal keys stays, and that one is as deep as there are anchors
DEEP_ALIASES = "{k: &a0 [x]" + "".join(f", k: &a{n} [*a{n - 1}]" for n in range(1, 2500)) + "}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !secret code", "!secret works only in Home Assistant's own files"),
        ("!include lock.yaml", "line 1: !include works only in Home Assistant's own files"),
        ("a: 1\nb: !secret code", "line 2"),
        ("a: !include_dir_list x", "!include_dir_list"),
        ("a: !env_var X", "!env_var"),
        ("a: !!python/object/apply:os.system [id]", "python/object/apply:os.system is not known"),
        ("a: !!python/name:os.system", "not known"),
        ("a: !!python/tuple [1]", "not known"),
        ("!<tag:yaml.org,2002:python/module:os> x", "not known"),
        ("a: !!binary aGk=", "bytes has no place"),
        ("a: !!set {x, y}", "set has no place"),
        ("a: !!omap [x: 1]", "tuple has no place"),
        ("a: .nan", "nan is not a number that Home Assistant takes"),
        ("a: [.inf]", "inf is not a number"),
        ("a: -.Inf", "-inf is not a number"),
        ("a: 1.0e+400", "inf is not a number"),
        ("a: 9223372036854775808", "too large"),
        ("a: -9223372036854775809", "too large"),
        ("a: 1" + "0" * 30, "too large"),
        ("a: 1" + "0" * 50_000, "cannot be read as int"),
        ("a: 0x" + "f" * 50_000, "too large"),
        ("? 0x" + "f" * 50_000 + "\n: 1", "too large"),
        ("a: " + "1:" * 20_000 + "1", "too large"),
        ("a: 2026-02-30", "line 1: '2026-02-30' cannot be read as timestamp"),
        ("a: 2026-12-01T25:00:00", "cannot be read as timestamp"),
        ("a: !!timestamp soon", "cannot be read as timestamp"),
        ("a: !!bool maybe", "cannot be read as bool"),
        ("a: !!int ''", "cannot be read as int"),
        ("a: !!float x", "cannot be read as float"),
        ("on: 1", "the key 'True' must be text"),
        ("~: 1", "the key 'None' must be text"),
        ("1.5: 1", "the key '1.5' must be text"),
        ("? [a]\n: 1", "line 1"),
        ("? {a: 1}\n: 1", "line 1"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a:\n\t- x", "line 2"),
        ("a: [1", "line 2"),
        ("a: b: c", "line 1"),
        ("*unknown", "alias"),
        ("a: @home", "line 1"),
        ("a: \0", "not YAML"),
        ("a: \x1b", "not YAML"),
        ("a: \ud800", "not YAML"),
        ('a: "\\ud800"', "line 1"),
        ("&a [*a]", "contains itself"),
        ("&a {b: {c: *a}}", "contains itself"),
        ("x" * (SIZE + 1), "larger than 64 kB"),
        ("é" * (SIZE // 2 + 1), "larger than 64 kB"),
        ("\ud800" * (SIZE // 2), "larger than 64 kB"),
        ("[" * 100_000, "larger than 64 kB"),
        ("[" * 60_000, "nested more than 64 levels"),
        ("{a: " * 15_000, "nested more than 64 levels"),
        ("- " * 30_000, "nested more than 64 levels"),
        ("[" * 65 + "]" * 65, "nested more than 64 levels"),
        ("? " * 30_000, "nested more than 64 levels"),
        (ALIASES, "unfolds to more than 20000 values"),
        (MERGES, "unfolds to more than 20000 values"),
        (WIDE_MERGE, "unfolds to more than 20000 values"),
        (DEEP_ALIASES, "nested more than 64 levels"),
        ("- 1\n" * 16_000 + "- *a", "alias"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_what_home_assistant_could_not_be_sent_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the words are checked below
        load(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_64_levels_and_64_kilobytes_are_taken() -> None:
    document = load("[" * 64 + "]" * 64)
    assert str(document).count("[") == 64
    text = "x" * (SIZE - 4)
    assert load(f"a: {text} ") == {"a": text}


@settings(max_examples=300)
@given(st.text(max_size=200) | st.text("[]{}:,-&*!|>'\"%@`#? \n\tab01.<~", max_size=200))
def test_any_text_is_data_or_a_value_error(text: str) -> None:
    try:
        document = load(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017
        return
    assert load(dump(document)) == document


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300)
@given(JSON)
def test_what_is_dumped_reads_the_same(document: object) -> None:
    again = load(dump(document))
    assert again == document
    assert _kinds(again) == _kinds(document)  # 1 == True == 1.0


def _kinds(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _kinds(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_kinds(value) for value in node]
    return type(node)


# -- one action


def test_the_yaml_of_the_developer_tools_is_an_action() -> None:
    found = read_plan(STEP)
    assert found.call is not None
    assert found.call.target == {"entity_id": "lock.front_door"}


@pytest.mark.parametrize("text", ["", "#", "lock.unlock", "[]", "- ", "a: 1", "- - x", "--- \n..."])
def test_yaml_that_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"action"):
        read_plan(text)


# -- the file of ``otsd action apply``

FILE = """
open-door:
  title: Open the front door
  action: lock.unlock
  target: {entity_id: lock.front_door}
  defaults: {max_uses: 1, expires_in: 7d}
arrive:
  alias: Let me in and switch on the light
  description: Both
  icon: mdi:door
  sequence:
    - action: lock.unlock
      target: {entity_id: lock.front_door}
    - action: light.turn_on
      target: {area_id: hall}
party:
  defaults: {max_uses: null, expires_in: null}
  service: scene.turn_on
  target: {entity_id: scene.party}
"""


def test_a_file_of_actions_is_read() -> None:
    door, arrive, party = read_file(FILE)

    assert (door.name, door.title) == ("open-door", "Open the front door")
    assert (door.defaults.max_uses, door.defaults.expires_in) == (1, timedelta(days=7))
    assert door.plan.call is not None
    assert load(door.yaml) == {
        "action": "lock.unlock",
        "target": {"entity_id": "lock.front_door"},
    }

    assert (arrive.name, arrive.title) == ("arrive", "Let me in and switch on the light")
    assert (arrive.defaults.max_uses, arrive.defaults.expires_in) == (1, None)
    assert arrive.plan.call is None
    assert arrive.plan.services == ("lock.unlock", "light.turn_on")

    assert (party.name, party.title) == ("party", "party")
    assert (party.defaults.max_uses, party.defaults.expires_in) == (None, None)


def test_an_action_of_a_file_reads_the_same_from_its_own_yaml() -> None:
    for action in read_file(FILE):
        assert read_plan(action.yaml) == action.plan


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{title: x}", "an action is one step"),
        ("{title: x, target: {area_id: a}}", "needs the key action"),
        ("{sequence: []}", "no steps"),
        ("{sequence: [{action: nonsense}]}", "is not an action"),
        ("{sequence: [{delay: 1}], mode: single}", "'mode' cannot stand beside sequence"),
        ("{action: a.b, title: ''}", "a title is text"),
        ("{action: a.b, title: 7}", "a title is text"),
        (f"{{action: a.b, title: {'x' * 201}}}", "1 to 200"),
        ('{action: a.b, title: "a\\nb"}', "control characters"),
        ('{action: a.b, title: "a\\0b"}', "control characters"),
        ("{action: a.b, defaults: null}", "mapping of max_uses and expires_in"),
        ("{action: a.b, defaults: {uses: 1}}", "no key 'uses'"),
        ("{action: a.b, defaults: {max_uses: 0}}", "from 1 to 1000000000"),
        ("{action: a.b, defaults: {max_uses: true}}", "whole number"),
        ("{action: a.b, defaults: {max_uses: 1.0}}", "whole number"),
        ("{action: a.b, defaults: {max_uses: '1'}}", "whole number"),
        ("{action: a.b, defaults: {max_uses: 1000000001}}", "whole number"),
        ("{action: a.b, defaults: {expires_in: 7}}", "duration"),
        ("{action: a.b, defaults: {expires_in: 0s}}", "longer than 0s"),
        ("{action: a.b, defaults: {expires_in: 99999999d}}", "too long"),
        ("[{action: a.b}]", "mapping with action: or sequence:"),
        ("lock.unlock", "mapping with action: or sequence:"),
        ("null", "mapping with action: or sequence:"),
    ],
)
def test_a_fault_of_an_action_names_it(body: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_file(f"good: {{action: a.b}}\nbad: {body}")
    (fault,) = refused.value.faults
    assert fault.loc == ("bad",)
    assert words in fault.msg


@pytest.mark.parametrize("name", ["Open", "-x", "_x", "ö", "a b", "a/b", "''", "x" * 65, "a.b"])
def test_a_name_that_does_not_fit_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="a name is 1 to 64"):
        read_file(f"{name}: {{action: a.b}}")


@pytest.mark.parametrize("name", ["a", "0", "7up", "a-b_c", "x" * 64])
def test_names_at_the_bounds_are_taken(name: str) -> None:
    assert read_file(f"{name}: {{action: a.b}}")[0].name == name


def test_every_fault_of_a_file_is_listed_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        read_file("A: {action: a.b}\nb: 1\nc: {action: a.b}\nd: {action: x}\n")
    assert [fault.loc for fault in refused.value.faults] == [("A",), ("b",), ("d",)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "text", "- action: a.b", "a: !secret x", "[" * 99]
)
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_file(text)
    assert [fault.loc for fault in refused.value.faults] == [()]


# -- titles, text and defaults


@pytest.mark.parametrize("title", ["x", "x" * 200, "Tür öffnen", "مرحبا", "👩\u200d🚒", "a\u00a0b"])
def test_titles_that_can_be_shown_are_taken(title: str) -> None:
    assert check_title(title) == title


@pytest.mark.parametrize("title", ["", " ", "x" * 201, None, 5, True, ["x"], "a\nb", "a\u202eb"])
def test_titles_that_cannot_be_shown_are_refused(title: object) -> None:
    with pytest.raises(ValueError, match=r"a title is text|control characters"):
        check_title(title)


@pytest.mark.parametrize(
    "letter",
    [
        "\0",
        "\t",
        "\n",
        "\r",
        "\x1b",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\ud800",
        "\u202e",
        "\u200b",
    ],
)
def test_control_characters_are_refused_in_text(letter: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        check_text(f"a{letter}b")


@pytest.mark.parametrize("value", [1, 10**9, None])
def test_default_uses_at_the_bounds_are_taken(value: int | None) -> None:
    assert read_defaults({"max_uses": value}).max_uses == value


@pytest.mark.parametrize("value", [0, -1, 10**9 + 1, True, 1.0, "1", [1], math.nan, dt.date.min])
def test_default_uses_that_are_no_count_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="max_uses is a whole number"):
        read_defaults({"max_uses": value})
