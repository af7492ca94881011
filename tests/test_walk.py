"""The thinnest way: a link, a press, and a lock of a real Home Assistant that opens, once."""

from pathlib import Path

from tests.daemon import Daemon
from tests.real.home_assistant import HomeAssistant


async def test_a_link_opens_the_door_of_a_real_home_assistant_once(
    tmp_path: Path, real_home: HomeAssistant
) -> None:
    before = len(real_home.witnessed(entity="lock.front_door"))
    async with Daemon(tmp_path, url=real_home.url, token=real_home.token) as daemon:
        await daemon.connected()
        await daemon.action()
        code = (await daemon.mint(comment="Plumber"))["code"]

        page = await daemon.get(f"/?token={code}")
        assert page.status == 200
        assert "Open the front door" in page.text
        assert "Plumber" in page.text

        first = await daemon.post("/", data={"token": code, "attempt": "attempt-1"})
        assert first.status == 303
        assert first.headers["Location"] == f"/?token={code}&attempt=attempt-1"
        assert "Done" in (await daemon.get(first.headers["Location"])).text
        assert (await daemon.submit(code)).status == 410
        await daemon.announced()

    assert len(real_home.witnessed(entity="lock.front_door")) == before + 1
    (event,) = real_home.witnessed(key="event")[-1:]
    assert event["data"]["outcome"] == "executed"
    assert event["data"]["comment"] == "Plumber"
