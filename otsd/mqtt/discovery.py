"""What Home Assistant is told of the devices of otsd: pure functions, one message a device.

The keys are the abbreviations of Home Assistant's MQTT discovery
(https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery). What a device does not have at
the moment is named with its platform alone, which removes it where it was before. Neither
``object_id`` nor ``default_entity_id`` is given: each is known to some versions of Home Assistant
only, and the ids that it makes of the names read well.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from otsd.core.tokens import SubmissionState, TokenState
from otsd.mqtt.topics import Topics

Component = dict[str, Any]
Payload = dict[str, Any]

OUTCOMES: Final = [state.value for state in SubmissionState if state is not SubmissionState.RUNNING]

_DIAGNOSTIC: Final = "diagnostic"
_CONFIG: Final = "config"
_NAME_LENGTH: Final = 200
# Home Assistant makes the ids of entities of the names, in Latin letters: one that would be longer
# than 255 it cuts, which makes ids that it then refuses. Letters become longer there: щ is
# shch, and each syllable or word that is written as one sign stands alone, as shuang_ does.
_ASCII: Final = 0x80
_HANGUL: Final = 0x1100
_OF_AN_ALPHABET: Final = 4
_OF_OTHERS: Final = 8
# the classes of https://www.unicode.org/reports/tr9/#Explicit_Directional_Formatting_Characters
# but for the marks, which reach no further than their neighbours
_TURNS: Final = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@dataclass(frozen=True, slots=True)
class About:
    """What all devices have in common.

    ``commands`` and ``links`` are the settings ``mqtt.commands`` and ``mqtt.publish_links``.
    ``configuration_url`` is where the admin page is, if that is known yet.
    """

    topics: Topics
    title: str
    version: str
    configuration_url: str | None
    commands: bool
    links: bool


# -- the devices -----------------------------------------------------------------------------


def service(about: About) -> Payload:
    """Describe otsd itself."""
    topics = about.topics
    state = topics.state
    return _message(
        about,
        topics.service_device,
        name_of(about.title) or "otsd",
        "One-time links",
        {
            "remaining_tokens": {
                **_sensor("Remaining tokens", "mdi:ticket-confirmation", state, "active_tokens"),
                "stat_cla": "measurement",
            },
            "last_used": _time("Last used", "mdi:clock-check-outline", state, "last_used"),
            "last_outcome": {
                **_choice("Last outcome", "mdi:clipboard-check", state, "last_outcome", OUTCOMES),
                "json_attr_t": state,
                "json_attr_tpl": "{{ {'action': value_json.last_action} | tojson }}",
            },
            "home_assistant": {
                "p": "binary_sensor",
                "name": "Home Assistant connection",
                "dev_cla": "connectivity",
                "ent_cat": _DIAGNOSTIC,
                "stat_t": state,
                "val_tpl": "{{ 'ON' if value_json.home_assistant == 'connected' else 'OFF' }}",
                "json_attr_t": state,
                "json_attr_tpl": "{{ {'connection': value_json.home_assistant} | tojson }}",
            },
            "submission": _event(topics.submission),
        },
        sw=about.version,
    )


def action(about: About, name: str, title: str) -> Payload:
    """Describe an action."""
    topics = about.topics
    state = topics.action(name, "state")
    create_link: Component = {"p": "button"}
    newest_link: Component = {"p": "sensor"}
    qr_code: Component = {"p": "image"}
    if about.links:
        link = topics.action(name, "link")
        newest_link = {
            **_time("Newest link", "mdi:link-variant", link, "created_at"),
            "json_attr_t": link,
            "json_attr_tpl": "{{ {'url': value_json.url} | tojson }}",
        }
        qr_code |= {
            "name": "QR code",
            "ic": "mdi:qrcode",
            "img_t": topics.action(name, "qr"),
            "img_e": "b64",
            "cont_type": "image/png",
        }
    if about.links and about.commands:
        create_link |= {
            "name": "Create link",
            "ic": "mdi:link-variant-plus",
            "ent_cat": _CONFIG,
            "cmd_t": topics.command("mint"),
            "pl_prs": name,
        }
    return _message(
        about,
        topics.action_device(name),
        name_of(title) or name,
        "Action",
        {
            "remaining_tokens": _sensor(
                "Remaining tokens", "mdi:ticket-confirmation", state, "active_tokens"
            ),
            "remaining_uses": _sensor("Remaining uses", "mdi:counter", state, "remaining_uses"),
            "last_used": _time("Last used", "mdi:clock-check-outline", state, "last_used"),
            "submission": _event(topics.action(name, "submission")),
            "create_link": create_link,
            "newest_link": newest_link,
            "qr_code": qr_code,
        },
        via=topics.service_device,
    )


def token(
    about: About,
    token_id: str,
    comment: str,
    action: str,
    limited: bool,  # noqa: FBT001 - called with what was compared
) -> Payload:
    """Describe a token."""
    topics = about.topics
    state = topics.token(token_id, "state")
    uses_left: Component = {"p": "sensor"}
    if limited:
        uses_left = _sensor("Uses left", "mdi:counter", state, "uses_left")
    enabled: Component = {"p": "switch"}
    replenish: Component = {"p": "button"}
    revoke: Component = {"p": "button"}
    if about.commands:
        enabled |= {
            "name": "Enabled",
            "ic": "mdi:play-pause",
            "ent_cat": _CONFIG,
            "stat_t": state,
            "val_tpl": "{{ value_json.enabled }}",
            "cmd_t": topics.token(token_id, "set"),
        }
        replenish |= {
            "name": "Replenish",
            "ic": "mdi:refresh",
            "ent_cat": _CONFIG,
            "cmd_t": topics.command("replenish"),
            "pl_prs": token_id,
        }
        revoke |= {
            "name": "Revoke",
            "ic": "mdi:link-variant-off",
            "ent_cat": _CONFIG,
            "cmd_t": topics.command("revoke"),
            "pl_prs": token_id,
        }
    return _message(
        about,
        topics.token_device(token_id),
        name_of(comment) or f"Link {token_id}",
        "Link",
        {
            "state": _choice("State", "mdi:link-variant", state, "state", list(TokenState)),
            "uses_left": uses_left,
            "submission": _event(topics.token(token_id, "submission")),
            "last_used": _time("Last used", "mdi:clock-check-outline", state, "last_used"),
            "expires": _time("Expires", "mdi:clock-end", state, "expires_at"),
            "enabled": enabled,
            "replenish": replenish,
            "revoke": revoke,
        },
        via=topics.action_device(action),
    )


# -- their parts -----------------------------------------------------------------------------


def _message(  # noqa: PLR0913
    about: About,
    device: str,
    name: str,
    model: str,
    components: dict[str, Component],
    *,
    sw: str | None = None,
    via: str | None = None,
) -> Payload:
    described: dict[str, str] = {
        "ids": device,
        "name": name,
        "mf": "otsd",
        "mdl": model,
    }
    if about.configuration_url is not None:
        described["cu"] = about.configuration_url
    if sw is not None:
        described["sw"] = sw
    if via is not None:
        described["via_device"] = via
    for key, component in components.items():
        if len(component) > 1:
            component["uniq_id"] = f"{device}_{key}"
    return {
        "dev": described,
        "o": {"name": "otsd", "sw": about.version},
        "avty_t": about.topics.status,
        "cmps": components,
    }


def name_of(text: str) -> str:
    """Return a name as Home Assistant shows it well: one line, and not too long; maybe empty."""
    # control characters pass through Home Assistant into its registries, and what turns the
    # direction of writing would turn the entity's name behind it; other Cf stay: emoji need them
    spaced = "".join(
        " " if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} else each
        for each in text
        if unicodedata.bidirectional(each) not in _TURNS
    )
    line = " ".join(spaced.split())
    lengths = accumulate(map(_length_in_an_id, line))
    fitting = sum(length <= _NAME_LENGTH for length in lengths)
    return line if fitting == len(line) else f"{line[: fitting - 1]}…"


def _length_in_an_id(letter: str) -> int:
    if ord(letter) < _ASCII:
        return 1
    return _OF_AN_ALPHABET if ord(letter) < _HANGUL else _OF_OTHERS


def _sensor(name: str, icon: str, topic: str, key: str) -> Component:
    return {
        "p": "sensor",
        "name": name,
        "ic": icon,
        "stat_t": topic,
        "val_tpl": f"{{{{ value_json.{key} }}}}",
    }


def _time(name: str, icon: str, topic: str, key: str) -> Component:
    return {
        **_sensor(name, icon, topic, key),
        "dev_cla": "timestamp",
        "ent_cat": _DIAGNOSTIC,
    }


def _choice(name: str, icon: str, topic: str, key: str, options: list[Any]) -> Component:
    return {
        **_sensor(name, icon, topic, key),
        "dev_cla": "enum",
        "ops": [str(option) for option in options],
    }


def _event(topic: str) -> Component:
    return {
        "p": "event",
        "name": "Submission",
        "ic": "mdi:gesture-tap-button",
        "stat_t": topic,
        "evt_typ": OUTCOMES,
    }
