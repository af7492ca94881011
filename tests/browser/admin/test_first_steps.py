"""The first steps: from nothing at all to a link, by following what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, expect

from tests.browser.admin.owner import DEVICES, Estate, Owner
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import daemon_with_admin

pytestmark = pytest.mark.asyncio(loop_scope="package")


def step(owner: Owner, title: str) -> Locator:
    return owner.page.locator("otsd-welcome li", has_text=title)


@pytest.mark.parametrize("device", DEVICES)
async def test_the_first_steps_lead_to_a_first_link(
    browser: Browser, tmp_path: Path, device: str
) -> None:
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        home.set_state("light.hall", "off", friendly_name="Hall")
        async with daemon_with_admin(tmp_path, home, token=None) as daemon:
            estate = Estate(home, daemon, browser)
            await estate.log_in()
            async with estate.owner(**DEVICES[device]) as owner:
                await follow(owner, home, estate)


async def follow(owner: Owner, home: FakeHomeAssistant, estate: Estate) -> None:
    await expect(owner.heading()).to_have_text("Welcome")
    await owner.check_access()
    await owner.check_width()
    await step(owner, "Connect otsd").get_by_role("link", name="Connect").click()
    await expect(step(owner, "Connect otsd").get_by_label("Done")).to_be_visible()
    await owner.check_access()
    does = step(owner, "Say what a link does")
    await expect(does.locator("wa-button")).to_have_text(
        ["Unlock Front door", "Switch on Hall", "Something else"]
    )
    await does.get_by_role("button", name="Unlock Front door").click()
    await expect(owner.heading()).to_have_text("New action")
    await expect(owner.page.locator(".verdict")).to_contain_text("Home Assistant accepts it.")
    await owner.button("Save").click()
    await expect(owner.heading()).to_have_text("Welcome")
    await expect(does.get_by_label("Done")).to_be_visible()
    # only the first action leads on
    await owner.go("#/actions/new")
    await owner.button("Switch on Hall").click()
    await owner.button("Save").click()
    await expect(owner.heading()).to_have_text("Switch on Hall")
    await owner.daemon.admin("DELETE", "/actions/switch-on-hall")
    await owner.go("#/tokens")
    await owner.page.reload()  # without what was told of the changes, over what is below
    await expect(does.get_by_label("Done")).to_be_visible()
    warning = step(owner, "Make a link").locator(".notice")
    await expect(warning).to_contain_text("Links begin with http://localhost")
    await owner.check_access()
    await owner.check_width()
    async with estate.owner() as elsewhere:  # a browser that saw nothing of this goes on there
        await expect(elsewhere.button("Make a link")).to_be_visible()
    await owner.button("Make a link").click()
    await owner.page.get_by_role("button", name="Unlock Front door Once").click()
    link = await owner.link()
    assert "/?token=" in link
    await owner.page.keyboard.press("Escape")
    await expect(owner.heading()).to_have_text("Links")
    await expect(owner.page.locator("otsd-welcome")).to_have_count(0)
    (token,) = (await owner.daemon.admin("GET", "/tokens")).json["items"]
    await owner.daemon.admin("DELETE", f"/tokens/{token['id']}")
    await expect(owner.button("Make a link")).to_be_visible()
    owner.requests = [each for each in owner.requests if home.url not in each.url]
