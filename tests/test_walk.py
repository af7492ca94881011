"""otsd as it is run by hand: a configuration, and settings on the command line."""

from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.mqtt.ear import Ear
from tests.real.broker import Mosquitto
from tests.real.home_assistant import HomeAssistant
from tests.walk import in_arguments, walk, way_to


@pytest.mark.real
async def test_otsd_run_goes_the_whole_way(tmp_path: Path, real_home: HomeAssistant) -> None:
    async with (
        Mosquitto(tmp_path / "broker") as broker,
        Ear(broker) as ear,
        Daemon(
            tmp_path,
            url=real_home.url,
            token=real_home.token,
            settings=broker.settings,
            arguments=in_arguments(),
        ) as otsd,
    ):
        await walk(way_to(otsd), real_home, ear)
