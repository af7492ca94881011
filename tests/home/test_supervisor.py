"""What the Supervisor says of the broker, which any add-on may have told it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from otsd.home.supervisor import MqttService

TOLD: dict[str, Any] = {
    "addon": "core_mosquitto",
    "host": "core-mosquitto",
    "port": 1883,
    "ssl": False,
    "username": "otsd",
    "password": "hunter2-and-more",
    "protocol": "3.1.1",
}


def test_what_the_mosquitto_add_on_tells_is_taken() -> None:
    service = MqttService.model_validate(TOLD)
    assert (service.host, service.port, service.ssl) == ("core-mosquitto", 1883, False)
    assert service.username == "otsd"
    assert service.password is not None
    assert service.password.get_secret_value() == "hunter2-and-more"


@pytest.mark.parametrize("empty", [None, ""])
def test_a_broker_may_want_neither_a_name_nor_a_password(empty: str | None) -> None:
    service = MqttService.model_validate({**TOLD, "username": empty, "password": empty})
    assert (service.username, service.password) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", ""),
        ("host", "\ud800"),
        ("host", "x" * 501),
        ("port", 0),
        ("port", 65_536),
        ("port", 10**30),
        ("username", "x" * 70_000),
        ("username", "\ud800"),
        ("username", "a\0b"),
        ("password", "\ud800"),
        ("password", 5),
    ],
)
def test_what_cannot_be_said_to_a_broker_is_refused_and_not_repeated(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        MqttService.model_validate({**TOLD, name: value})
    assert "hunter2" not in str(refused.value)
