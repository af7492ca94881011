"""The thinnest way through: mint by MQTT, submit, see it."""

from __future__ import annotations

from tests.daemon import Daemon
from tests.mqtt.ear import Ear


async def test_a_token_minted_by_mqtt_is_used_and_everybody_sees_it(otsd: Daemon, ear: Ear) -> None:
    await otsd.action()
    await ear.state("otsd/actions/open-door/state", active_tokens=0)
    reply = await ear.ask("otsd/command/mint", {"action": "open-door", "max_uses": 2})
    assert reply["ok"], reply
    token = reply["token"]
    assert token["created_by"] == "mqtt"
    await ear.state(f"otsd/tokens/{token['id']}/state", state="active", uses_left=2)

    submitted = await otsd.submit(reply["url"].rpartition("=")[2])
    assert submitted.status == 200, submitted.text
    await ear.state(f"otsd/tokens/{token['id']}/state", state="active", uses_left=1)
    await ear.state("otsd/actions/open-door/state", active_tokens=1, remaining_uses=1)
    await ear.state("otsd/state", last_outcome="executed", home_assistant="connected")
    told = await ear.message(f"otsd/tokens/{token['id']}/submission")
    assert told.json["event_type"] == "executed"
    assert "remote_ip" not in told.json

    switched = await ear.ask(f"otsd/tokens/{token['id']}/set", "OFF")
    assert switched["token"]["state"] == "paused"
    await ear.state(f"otsd/tokens/{token['id']}/state", state="paused", enabled="OFF")
    await ear.ask("otsd/command/revoke", token["id"])
    await ear.until(
        lambda: ear.held[f"homeassistant/device/otsd_token_{token['id']}/config"] == b""
    )
    await ear.until(lambda: ear.held[f"otsd/tokens/{token['id']}/state"] == b"")

    assert await otsd.stop() == 0
    assert (await ear.message("otsd/status")).payload == b"offline"
