"""A real broker, an ear on it, and otsd beside a fake Home Assistant, connected to both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """Run a mosquitto that lets everybody in."""
    async with Mosquitto(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
async def ear(broker: Mosquitto) -> AsyncIterator[Ear]:
    """Listen to everything on the broker."""
    async with Ear(broker) as ear:
        yield ear


@pytest.fixture
async def otsd(
    tmp_path: Path, broker: Mosquitto, fake_home: FakeHomeAssistant
) -> AsyncIterator[Daemon]:
    """Run otsd as a process of its own, connected to Home Assistant and to the broker."""
    daemon = Daemon(tmp_path, url=fake_home.url, token=fake_home.token, settings=broker.settings)
    async with daemon:
        await daemon.connected()
        await daemon.until_status(lambda status: status["mqtt"]["state"] == "connected")
        yield daemon
