"""What Home Assistant is told of the devices: the exact messages, and names that do no harm."""

from __future__ import annotations

import itertools
import json
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otsd.core.tokens import SubmissionState, TokenState
from otsd.mqtt import discovery
from otsd.mqtt.discovery import About, name_of
from otsd.mqtt.topics import Topics

ABOUT = About(
    topics=Topics("otsd", "homeassistant"),
    title="One Time Service",
    version="1.2.3",
    configuration_url="http://localhost:8099",
    commands=True,
    links=True,
)
OUTCOMES = ["executed", "failed", "unconfirmed"]
BASICS = {"o": {"name": "otsd", "sw": "1.2.3"}, "avty_t": "otsd/status"}
DEVICE = {"mf": "otsd", "cu": "http://localhost:8099"}


def devices(about: About = ABOUT, text: str = "Plumber") -> dict[str, Any]:
    """Return every kind of device, named by a text, as Home Assistant reads it."""
    messages = {
        "service": discovery.service(replace(about, title=text)),
        "action": discovery.action(about, "open-door", text),
        "limited": discovery.token(about, "k7m2qx4d", text, "open-door", True),
        "unlimited": discovery.token(about, "k7m2qx4d", text, "open-door", False),
    }
    return {kind: json.loads(json.dumps(message)) for kind, message in messages.items()}


def removed(message: Any) -> set[str]:
    """Return the entities that a message takes away: those of which it says the platform alone."""
    return {key for key, each in message["cmps"].items() if set(each) == {"p"}}


# -- the shape -------------------------------------------------------------------------------


def test_the_service_is_described_exactly() -> None:
    assert discovery.service(ABOUT) == {
        **BASICS,
        "dev": {
            **DEVICE,
            "ids": "otsd_service",
            "name": "One Time Service",
            "mdl": "One-time links",
            "sw": "1.2.3",
        },
        "cmps": {
            "remaining_tokens": {
                "p": "sensor",
                "uniq_id": "otsd_service_remaining_tokens",
                "name": "Remaining tokens",
                "ic": "mdi:ticket-confirmation",
                "stat_cla": "measurement",
                "stat_t": "otsd/state",
                "val_tpl": "{{ value_json.active_tokens }}",
            },
            "last_used": {
                "p": "sensor",
                "uniq_id": "otsd_service_last_used",
                "name": "Last used",
                "ic": "mdi:clock-check-outline",
                "dev_cla": "timestamp",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/state",
                "val_tpl": "{{ value_json.last_used }}",
            },
            "last_outcome": {
                "p": "sensor",
                "uniq_id": "otsd_service_last_outcome",
                "name": "Last outcome",
                "ic": "mdi:clipboard-check",
                "dev_cla": "enum",
                "ops": OUTCOMES,
                "stat_t": "otsd/state",
                "val_tpl": "{{ value_json.last_outcome }}",
                "json_attr_t": "otsd/state",
                "json_attr_tpl": "{{ {'action': value_json.last_action} | tojson }}",
            },
            "home_assistant": {
                "p": "binary_sensor",
                "uniq_id": "otsd_service_home_assistant",
                "name": "Home Assistant connection",
                # its icon follows its state, as that of every connection does
                "dev_cla": "connectivity",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/state",
                "val_tpl": "{{ 'ON' if value_json.home_assistant == 'connected' else 'OFF' }}",
                "json_attr_t": "otsd/state",
                "json_attr_tpl": "{{ {'connection': value_json.home_assistant} | tojson }}",
            },
            "submission": {
                "p": "event",
                "uniq_id": "otsd_service_submission",
                "name": "Submission",
                "ic": "mdi:gesture-tap-button",
                "stat_t": "otsd/submission",
                "evt_typ": OUTCOMES,
            },
        },
    }


def test_an_action_is_described_exactly() -> None:
    assert discovery.action(ABOUT, "open-door", "Open the front door") == {
        **BASICS,
        "dev": {
            **DEVICE,
            "ids": "otsd_action_open-door",
            "name": "Open the front door",
            "mdl": "Action",
            "via_device": "otsd_service",
        },
        "cmps": {
            "remaining_tokens": {
                "p": "sensor",
                "uniq_id": "otsd_action_open-door_remaining_tokens",
                "name": "Remaining tokens",
                "ic": "mdi:ticket-confirmation",
                "stat_t": "otsd/actions/open-door/state",
                "val_tpl": "{{ value_json.active_tokens }}",
            },
            "remaining_uses": {
                "p": "sensor",
                "uniq_id": "otsd_action_open-door_remaining_uses",
                "name": "Remaining uses",
                "ic": "mdi:counter",
                "stat_t": "otsd/actions/open-door/state",
                "val_tpl": "{{ value_json.remaining_uses }}",
            },
            "last_used": {
                "p": "sensor",
                "uniq_id": "otsd_action_open-door_last_used",
                "name": "Last used",
                "ic": "mdi:clock-check-outline",
                "dev_cla": "timestamp",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/actions/open-door/state",
                "val_tpl": "{{ value_json.last_used }}",
            },
            "submission": {
                "p": "event",
                "uniq_id": "otsd_action_open-door_submission",
                "name": "Submission",
                "ic": "mdi:gesture-tap-button",
                "stat_t": "otsd/actions/open-door/submission",
                "evt_typ": OUTCOMES,
            },
            "create_link": {
                "p": "button",
                "uniq_id": "otsd_action_open-door_create_link",
                "name": "Create link",
                "ic": "mdi:link-variant-plus",
                "ent_cat": "config",
                "cmd_t": "otsd/command/mint",
                "pl_prs": "open-door",
            },
            "newest_link": {
                "p": "sensor",
                "uniq_id": "otsd_action_open-door_newest_link",
                "name": "Newest link",
                "ic": "mdi:link-variant",
                "dev_cla": "timestamp",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/actions/open-door/link",
                "val_tpl": "{{ value_json.created_at }}",
                "json_attr_t": "otsd/actions/open-door/link",
                "json_attr_tpl": "{{ {'url': value_json.url} | tojson }}",
            },
            "qr_code": {
                "p": "image",
                "uniq_id": "otsd_action_open-door_qr_code",
                "name": "QR code",
                "ic": "mdi:qrcode",
                "img_t": "otsd/actions/open-door/qr",
                "img_e": "b64",
                "cont_type": "image/png",
            },
        },
    }


def test_a_token_is_described_exactly() -> None:
    assert discovery.token(ABOUT, "k7m2qx4d", "Plumber", "open-door", True) == {
        **BASICS,
        "dev": {
            **DEVICE,
            "ids": "otsd_token_k7m2qx4d",
            "name": "Plumber",
            "mdl": "Link",
            "via_device": "otsd_action_open-door",
        },
        "cmps": {
            "state": {
                "p": "sensor",
                "uniq_id": "otsd_token_k7m2qx4d_state",
                "name": "State",
                "ic": "mdi:link-variant",
                "dev_cla": "enum",
                "ops": ["revoked", "expired", "used_up", "paused", "scheduled", "active"],
                "stat_t": "otsd/tokens/k7m2qx4d/state",
                "val_tpl": "{{ value_json.state }}",
            },
            "uses_left": {
                "p": "sensor",
                "uniq_id": "otsd_token_k7m2qx4d_uses_left",
                "name": "Uses left",
                "ic": "mdi:counter",
                "stat_t": "otsd/tokens/k7m2qx4d/state",
                "val_tpl": "{{ value_json.uses_left }}",
            },
            "submission": {
                "p": "event",
                "uniq_id": "otsd_token_k7m2qx4d_submission",
                "name": "Submission",
                "ic": "mdi:gesture-tap-button",
                "stat_t": "otsd/tokens/k7m2qx4d/submission",
                "evt_typ": OUTCOMES,
            },
            "last_used": {
                "p": "sensor",
                "uniq_id": "otsd_token_k7m2qx4d_last_used",
                "name": "Last used",
                "ic": "mdi:clock-check-outline",
                "dev_cla": "timestamp",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/tokens/k7m2qx4d/state",
                "val_tpl": "{{ value_json.last_used }}",
            },
            "expires": {
                "p": "sensor",
                "uniq_id": "otsd_token_k7m2qx4d_expires",
                "name": "Expires",
                "ic": "mdi:clock-end",
                "dev_cla": "timestamp",
                "ent_cat": "diagnostic",
                "stat_t": "otsd/tokens/k7m2qx4d/state",
                "val_tpl": "{{ value_json.expires_at }}",
            },
            "enabled": {
                "p": "switch",
                "uniq_id": "otsd_token_k7m2qx4d_enabled",
                "name": "Enabled",
                "ic": "mdi:play-pause",
                "ent_cat": "config",
                "stat_t": "otsd/tokens/k7m2qx4d/state",
                "val_tpl": "{{ value_json.enabled }}",
                "cmd_t": "otsd/tokens/k7m2qx4d/set",
            },
            "replenish": {
                "p": "button",
                "uniq_id": "otsd_token_k7m2qx4d_replenish",
                "name": "Replenish",
                "ic": "mdi:refresh",
                "ent_cat": "config",
                "cmd_t": "otsd/command/replenish",
                "pl_prs": "k7m2qx4d",
            },
            "revoke": {
                "p": "button",
                "uniq_id": "otsd_token_k7m2qx4d_revoke",
                "name": "Revoke",
                "ic": "mdi:link-variant-off",
                "ent_cat": "config",
                "cmd_t": "otsd/command/revoke",
                "pl_prs": "k7m2qx4d",
            },
        },
    }


@pytest.mark.parametrize(
    ("commands", "links", "gone"),
    [
        (True, False, {"create_link", "newest_link", "qr_code"}),
        (False, True, {"create_link", "enabled", "replenish", "revoke"}),
        (
            False,
            False,
            {"create_link", "newest_link", "qr_code", "enabled", "replenish", "revoke"},
        ),
    ],
)
def test_what_the_settings_rule_out_is_removed_and_the_rest_stays(
    commands: bool, links: bool, gone: set[str]
) -> None:
    all_of_it = devices()
    for kind, message in devices(replace(ABOUT, commands=commands, links=links)).items():
        assert removed(message) == removed(all_of_it[kind]) | (gone & message["cmps"].keys())
        for key, component in message["cmps"].items():
            if key not in removed(message):
                assert component == all_of_it[kind]["cmps"][key]


def test_without_limit_there_is_nothing_that_counts_uses() -> None:
    both = devices()
    assert removed(both["unlimited"]) == {"uses_left"}
    assert removed(both["limited"]) == set()


def test_every_kind_of_entity_has_the_category_of_its_kind() -> None:
    """Home Assistant keeps both kinds off the dashboards and the voice assistants it sets up."""
    for message in devices().values():
        for key, each in message["cmps"].items():
            if key in removed(message):
                continue
            is_diagnostic = each.get("dev_cla") in {"timestamp", "connectivity"}
            is_config = each["p"] in {"switch", "button"}
            expected = "diagnostic" if is_diagnostic else "config" if is_config else None
            assert each.get("ent_cat") == expected, key
            assert each["name"][0].isupper()
            assert ("ic" in each) != (each["p"] == "binary_sensor")


def test_what_can_be_shown_is_what_can_be() -> None:
    options = {state.value for state in TokenState}
    assert set(devices()["limited"]["cmps"]["state"]["ops"]) == options
    # an option that is called so could not be told from nothing
    assert "unknown" not in options
    assert set(OUTCOMES) == set(SubmissionState) - {SubmissionState.RUNNING}


def test_two_otsd_share_a_broker_without_a_name_in_common() -> None:
    other = replace(ABOUT, topics=Topics("flat 2/otsd", "homeassistant"))
    mine, theirs = devices(), devices(other)
    for kind, message in theirs.items():
        assert message["dev"]["ids"].startswith("flat_2_otsd_")
        for component, own in zip(
            message["cmps"].values(), mine[kind]["cmps"].values(), strict=True
        ):
            same = {key for key in component if component[key] == own[key]}
            assert not same & {"uniq_id", "stat_t", "cmd_t", "json_attr_t", "img_t"}


# -- names -----------------------------------------------------------------------------------

STRANGE = [
    "",
    " ",
    "\t\n",
    "\x00\x07\x1b[31m",
    "\u2028\u2029",
    "\u202e",
    "\ud800",
    'He said "hi", it\'s a \\ test',
    "{{ 1 + 1 }}{% raw %}{# #}",
    "<img src=x onerror=alert(1)> **bold** [x](y)",
    "👩‍👩‍👧 😀",
    "x" * 200,
    "y" * 500,
    "אבא \u200f(דוד)",
    "~",
    "null",
]


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_every_device_has_a_name_whatever_the_owner_wrote(text: str) -> None:
    written = name_of(text)
    expected = {"service": "otsd", "action": "open-door"}
    for kind, message in devices(text=text).items():
        named = message["dev"]["name"]
        assert named == (written or expected.get(kind, "Link k7m2qx4d"))
        assert named.strip()


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_a_name_changes_nothing_but_the_name(text: str) -> None:
    like = devices()
    for kind, message in devices(text=text).items():
        message["dev"]["name"] = like[kind]["dev"]["name"]
        assert message == like[kind]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Plumber", "Plumber"),
        ("  two \r\n lines ", "two lines"),
        ("bell\x07 and\x00nul", "bell and nul"),
        ("a\u2028b\u2029c\x85d", "a b c d"),
        ("evil \u202etxt.exe", "evil txt.exe"),
        ("\u2067אבא\u2069", "אבא"),
        ("אבא\u200f!", "אבא\u200f!"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
        ("🏴\U000e0067\U000e0062\U000e007f", "🏴\U000e0067\U000e0062\U000e007f"),
        ("é and e\u0301", "é and e\u0301"),
        ("half a \ud83d pair", "half a pair"),
        ("{{ states('lock.door') }}", "{{ states('lock.door') }}"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        (" " * 300 + "far", "far"),
        ("й" * 50, "й" * 50),
        ("й" * 51, "й" * 49 + "…"),
        ("訪" * 25, "訪" * 25),
        ("訪" * 26, "訪" * 24 + "…"),
        ("a" * 192 + "訪", "a" * 192 + "訪"),
        ("a" * 193 + "訪", "a" * 192 + "…"),
    ],
)
def test_a_name_is_what_was_written_in_one_line(text: str, name: str) -> None:
    assert name_of(text) == name


ANY_TEXT = st.text(st.characters(codec=None), max_size=260) | st.lists(
    st.sampled_from(['"', "{{", "}}", "{%", "\x00", "\n", "\u202e", "\u200f", "😀", "\u200d", "a"])
).map("".join)


@given(ANY_TEXT)
@example("\x00" * 300)
def test_a_name_is_one_line_that_every_program_can_read(text: str) -> None:
    name = name_of(text)
    assert len(name) <= 200
    assert name == name.strip()
    assert not any(a.isspace() and b.isspace() for a, b in itertools.pairwise(name))
    assert {unicodedata.category(each) for each in name}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert len(name.splitlines()) <= 1
    name.encode()
    assert name_of(name) == name or name.endswith("…")


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=25))
def test_letters_digits_signs_and_emoji_stay_as_they_are(text: str) -> None:
    assert name_of(text) == text
