"""The actions: writing one with the house's own words, its verdict, running and deleting it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Route, expect
from playwright.async_api import TimeoutError as Slow

from tests.browser.admin.owner import DESK, EVIL, PHONE, Estate, Owner
from tests.daemon import OPEN_DOOR
from tests.fakes.home_assistant import Fail, FakeHomeAssistant, Succeed

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def home(estate: Estate) -> AsyncIterator[FakeHomeAssistant]:
    """Return the house, which has no opinion of its own before and after a test."""
    home = estate.home
    home.set_state("lock.front_door", "locked", friendly_name="Front door")
    home.add_service(
        "lock",
        "unlock",
        description="Opens a lock",
        target={"entity": [{"domain": ["lock"]}]},
        fields={"code": {"description": "A code"}, "reason": {"required": True}},
    )
    home.calls.clear()
    yield home
    home.on_call = lambda _: None
    home.on_validate = lambda _: None
    home.set_state("lock.front_door", "locked")


@pytest.fixture
def name() -> str:
    """Return the name of an action that no other test has."""
    return f"a-{datetime.now(UTC).timestamp()}".replace(".", "-")


def editor(owner: Owner) -> Locator:
    return owner.page.get_by_role("textbox", name="What Home Assistant does, in YAML")


def verdict(owner: Owner) -> Locator:
    return owner.page.locator(".verdict")


def asked(owner: Owner) -> Locator:
    return owner.page.locator("wa-dialog")


async def new(owner: Owner, title: str = "") -> None:
    await owner.go("#/actions/new")
    await owner.page.get_by_label("Title").fill(title)
    await editor(owner).click()


async def write(owner: Owner, yaml: str) -> None:
    await editor(owner).click()
    await owner.page.keyboard.insert_text(yaml)


async def offered(owner: Owner, label: str) -> None:
    """Take what completion offers."""
    option = owner.page.get_by_role("option").filter(has_text=label)
    await expect(option.first).to_be_visible()
    before = await editor(owner).inner_text()
    async with asyncio.timeout(10):
        # the list is drawn anew while it is looked at, and a click on what was there goes nowhere
        while await editor(owner).inner_text() == before:
            with suppress(Slow):
                await option.first.click(timeout=500)


async def shown(owner: Owner, action: str, **more: Any) -> Any:
    """Save an action by the API and open it."""
    saved = await owner.daemon.action(action, **more)
    await owner.go(f"#/actions/{action}")
    await expect(owner.heading()).to_have_text(saved["title"])
    await editor(owner).wait_for()
    return saved


async def exists(owner: Owner, action: str) -> bool:
    return (await owner.daemon.admin("GET", f"/actions/{action}")).status == 200


async def test_an_action_is_written_with_what_the_house_has(
    owner: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await new(owner, f"Let in {name}")
    await expect(owner.page.get_by_label("Name", exact=True)).to_have_value(f"let-in-{name}")
    await owner.page.keyboard.type("act")
    await offered(owner, "action")
    await owner.page.keyboard.type("unl")
    await offered(owner, "lock.unlock")
    await owner.page.keyboard.press("Enter")
    await owner.page.keyboard.type("tar")
    await offered(owner, "target")
    await owner.page.keyboard.type("ent")
    await offered(owner, "entity_id")
    await owner.page.keyboard.type("Front d")
    await offered(owner, "Front door")
    await expect(verdict(owner)).to_contain_text("Home Assistant accepts it.")
    touched = owner.page.get_by_role("list", name="What it touches")
    await expect(touched).to_have_text("Front door locked")
    await owner.button("Save").click()
    await expect(owner.heading()).to_have_text(f"Let in {name}")
    saved = (await owner.daemon.admin("GET", f"/actions/let-in-{name}")).json
    assert saved["yaml"].rstrip() == OPEN_DOOR.rstrip()
    assert saved["defaults"] == {"max_uses": 1, "expires_in": "7d"}


async def test_the_fields_of_an_action_are_offered_under_its_data(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await new(phone)
    await write(phone, "action: lock.unlock\ndata:\n  ")
    await phone.page.keyboard.press("Control+Space")
    options = phone.page.get_by_role("option")
    await expect(options).to_have_text(["reasonneeded", "code"])
    await phone.page.keyboard.press("Escape")
    await phone.page.keyboard.type("co")
    await expect(options).to_have_text(["code"])


async def test_entities_are_offered_in_a_list_those_of_the_actions_kind_first(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    home.set_state("binary_sensor.front_window", "off", friendly_name="Front window")
    await new(phone)
    await write(phone, "action: lock.unlock\ntarget:\n  entity_id:\n    - front")
    await phone.page.keyboard.press("Control+Space")
    options = phone.page.get_by_role("option")
    await expect(options).to_contain_text(["lock.front_door", "binary_sensor.front_window"])


async def test_what_home_assistant_refuses_is_told_in_its_words_and_not_saved(
    owner: Owner, home: FakeHomeAssistant, name: str
) -> None:
    home.on_validate = lambda steps: (
        "extra keys not allowed @ data['foo']" if "foo" in str(steps) else None
    )
    await new(owner, name)
    await write(owner, f"{OPEN_DOOR}foo: {EVIL[:4]}\n")
    await expect(verdict(owner)).to_contain_text("extra keys not allowed @ data['foo']")
    await expect(owner.page.locator(".cm-lint-marker-error")).to_have_count(1)
    await owner.check_access()
    await expect(owner.button("Save")).to_be_disabled()
    assert not await exists(owner, name)
    await editor(owner).click()
    await owner.page.keyboard.press("Control+End")
    await owner.page.keyboard.press("Backspace")
    await owner.page.keyboard.press("Shift+Home")
    await owner.page.keyboard.press("Backspace")
    await expect(verdict(owner)).to_contain_text("Home Assistant accepts it.")
    await expect(owner.page.locator(".cm-lint-marker-error")).to_have_count(0)
    await expect(owner.button("Save")).to_be_enabled()


async def test_what_is_saved_before_it_was_looked_at_is_refused_all_the_same(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    home.on_validate = lambda steps: "extra keys not allowed @ data['foo']"
    await phone.page.clock.install()
    await new(phone, name)
    await phone.page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    await write(phone, OPEN_DOOR)
    await phone.button("Save").click()
    await expect(phone.page.locator(".cm-lint-marker-error")).to_have_count(1)
    assert not await exists(phone, name)


async def test_what_is_wrong_comes_into_view_above_the_bar(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    home.on_validate = lambda _: "extra keys not allowed @ data['foo'] " * 4
    await new(phone, "Far down")
    await write(phone, "\n".join(f"# {number}" for number in range(30)) + f"\n{OPEN_DOOR}")
    await expect(verdict(phone)).to_contain_text("Not right yet")
    seen = await phone.page.evaluate_handle(
        """() => {
            const shadow = document.querySelector("otsd-app").shadowRoot
                .querySelector("otsd-actions").shadowRoot
                .querySelector("otsd-action-editor").shadowRoot
            const place = name => shadow.querySelector(name).getBoundingClientRect()
            return { isClear: () => place(".verdict").top > 0
                && place(".verdict").bottom <= place(".bar").top }
        }"""
    )
    await phone.page.wait_for_function("seen => seen.isClear()", arg=seen)


async def test_what_was_refused_may_be_right_later(phone: Owner, home: FakeHomeAssistant) -> None:
    home.on_validate = lambda _: "not now"
    await phone.page.clock.install()
    await new(phone, "Patience")
    await write(phone, OPEN_DOOR)
    await phone.page.clock.fast_forward(1000)
    await expect(phone.button("Save")).to_be_disabled()
    home.on_validate = lambda _: None
    await phone.page.clock.fast_forward(16_000)
    await expect(verdict(phone)).to_contain_text("accepts it")
    await expect(phone.button("Save")).to_be_enabled()


async def test_what_is_no_yaml_is_marked_in_its_line(phone: Owner, home: FakeHomeAssistant) -> None:
    await new(phone)
    await write(phone, "action: lock.unlock\ntarget: [\n")
    await expect(verdict(phone)).to_contain_text("Not right yet: line")


async def test_what_is_not_there_now_is_a_warning_and_can_be_saved(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await new(phone, name)
    await write(phone, "action: lock.unlock\ntarget:\n  entity_id: lock.shed\n")
    await expect(verdict(phone)).to_contain_text("It is written correctly, but:")
    await expect(verdict(phone)).to_contain_text("lock.shed is missing")
    await expect(verdict(phone)).not_to_contain_text("accepts it")
    await phone.check_access()
    await phone.button("Save").click()
    await expect(phone.heading()).to_have_text(name)
    assert await exists(phone, name)


async def test_what_cannot_be_known_is_no_more_than_a_doubt(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await new(phone)
    await write(phone, "action: lock.unlock\ntarget:\n  entity_id: '{{ door }}'\n")
    await expect(verdict(phone)).to_contain_text("It is written correctly, but:")
    await expect(verdict(phone)).to_contain_text("A template names what this acts on")


async def test_what_is_wrong_with_a_field_is_said_at_the_field(
    phone: Owner, home: FakeHomeAssistant
) -> None:
    await new(phone, "Twice")
    await write(phone, OPEN_DOOR)
    await phone.page.get_by_label("Name", exact=True).fill("open-door")
    await phone.button("Save").click()
    field = phone.page.get_by_label("Name", exact=True)
    await expect(field).to_be_focused()
    await expect(field).to_have_accessible_description("There is an action of this name already.")
    await field.fill("Not a name!")
    await phone.button("Save").click()
    await expect(field).to_have_accessible_description(
        "a name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit"
    )


async def test_an_action_runs_now_only_after_it_was_confirmed(
    owner: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(owner, name)
    await owner.button("Run now").click()
    await asked(owner).get_by_role("button", name="Cancel").click()
    await expect(asked(owner)).to_have_count(0)
    assert home.calls == []
    await owner.button("Run now").click()
    await asked(owner).get_by_role("button", name="Run now").click()
    await expect(owner.page.locator("#answer")).to_contain_text("Done just now")
    assert [call.service for call in home.calls] == ["unlock"]
    await owner.check_access()


async def test_the_answer_of_an_action_is_shown(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    home.add_service("weather", "tell", response={"rain": EVIL}, response_only=True)
    await shown(phone, name, yaml="action: weather.tell\n")
    await phone.button("Run now").click()
    await asked(phone).get_by_role("button", name="Run now").click()
    await expect(phone.page.get_by_label("What it answered")).to_contain_text("<img src=x")


async def test_why_an_action_failed_is_told_as_text(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    home.on_call = lambda _: Fail("home_assistant_error", f"The lock is jammed {EVIL}")
    await shown(phone, name)
    await phone.button("Run now").click()
    await asked(phone).get_by_role("button", name="Run now").click()
    await expect(phone.page.locator("#answer")).to_contain_text(
        f"It did not work: The lock is jammed {EVIL}"
    )


async def test_changes_are_saved_before_they_run(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(phone, name)
    home.on_call = lambda _: Succeed()
    await phone.page.get_by_label("Title").fill("Another title")
    await phone.button("Run now").click()
    await asked(phone).get_by_role("button", name="Save and run").click()
    await expect(phone.page.locator("#answer")).to_contain_text("Done")
    assert (await phone.daemon.admin("GET", f"/actions/{name}")).json["title"] == "Another title"
    await expect(phone.heading()).to_have_text("Another title")


async def test_what_is_not_saved_is_there_when_one_comes_back(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(phone, name)
    await phone.page.get_by_label("Title").fill("Half a thought")
    await phone.page.get_by_role("link", name="Activity").click()
    await expect(phone.heading()).to_have_text("Activity")
    await phone.go(f"#/actions/{name}")
    await expect(phone.page.get_by_label("Title")).to_have_value("Half a thought")
    phone.page.on("dialog", lambda dialog: dialog.accept())

    async def late(route: Route) -> None:
        await asyncio.sleep(0.5)
        await route.continue_()

    await phone.page.route("**/api/v1/session", late)  # the action itself is there before
    await phone.page.reload()
    assert phone.complaints == [""]  # the browser asked whether to leave, in its own words
    phone.complaints.clear()
    await expect(phone.page.get_by_label("Title")).to_have_value("Half a thought")
    await phone.button("Discard them").click()
    await expect(phone.page.get_by_label("Title")).to_have_value("Open the front door")
    await expect(phone.button("Discard them")).to_have_count(0)


async def test_somebody_elses_change_is_shown_or_told_of(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(phone, name)
    await phone.daemon.action(name, title="Theirs")
    title = phone.page.get_by_label("Title")
    await expect(title).to_have_value("Theirs")
    await title.fill("Mine")
    await phone.daemon.action(name, title="Theirs again")
    await expect(phone.page.get_by_text("changed elsewhere")).to_be_visible()
    await expect(title).to_have_value("Mine")
    await phone.button("Show that one").click()
    await expect(title).to_have_value("Theirs again")


async def test_an_action_with_links_is_deleted_only_with_them(
    owner: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(owner, name)
    token = await owner.daemon.mint(name)
    await owner.button("Delete").click()
    await asked(owner).get_by_role("button", name="Delete").click()
    await expect(asked(owner)).to_contain_text("There are links that do this")
    await asked(owner).get_by_role("button", name="Cancel").click()
    await expect(asked(owner)).to_have_count(0)
    assert await exists(owner, name)
    await owner.button("Delete").click()
    await asked(owner).get_by_role("button", name="Delete").click()
    await asked(owner).get_by_role("button", name="Revoke links and delete").click()
    await expect(owner.heading()).to_have_text("Actions")
    assert not await exists(owner, name)
    kept = (await owner.daemon.admin("GET", f"/tokens/{token['id']}")).json
    assert kept["state"] == "revoked"


async def test_what_a_new_link_gets_is_chosen(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(phone, name)
    await phone.page.get_by_text("Without limit").click()
    await phone.page.get_by_text("Other…").click()
    await phone.page.get_by_role("textbox", name="Time").fill("90m")
    await phone.button("Save").click()
    await expect(phone.button("Save")).to_be_disabled()
    saved = (await phone.daemon.admin("GET", f"/actions/{name}")).json
    assert saved["defaults"] == {"max_uses": None, "expires_in": "1h30m"}


async def test_the_keyboard_gets_out_of_the_editor(
    phone: Owner, home: FakeHomeAssistant, name: str
) -> None:
    await shown(phone, name)
    await editor(phone).click()
    await phone.page.keyboard.press("Tab")
    await expect(editor(phone)).to_be_focused()  # it indents
    await phone.page.keyboard.press("Escape")
    await phone.page.keyboard.press("Tab")
    await expect(editor(phone)).not_to_be_focused()


async def test_keys_are_told_of_only_where_there_is_a_keyboard(
    estate: Estate, home: FakeHomeAssistant, name: str
) -> None:
    for device, is_told in (DESK, True), (PHONE, False):
        async with estate.owner(**device) as owner:
            await shown(owner, name)
            await expect(owner.page.get_by_text("Ctrl + Space")).to_be_visible(visible=is_told)


async def test_the_editor_is_loaded_only_when_it_is_opened(estate: Estate) -> None:
    async with estate.owner() as owner:
        await owner.go("#/actions")
        await owner.page.locator("a.row").first.wait_for()

        def loaded() -> bool:
            return any("/assets/yaml-" in each.url for each in owner.requests)

        assert not loaded()
        await owner.page.get_by_role("link", name="Open the front door").first.click()
        await editor(owner).wait_for()
        assert loaded()


async def test_the_list_says_what_each_touches_and_what_a_link_of_it_gets(
    owner: Owner, home: FakeHomeAssistant, name: str
) -> None:
    title = f"{name} {EVIL}"
    await owner.daemon.action(name, title=title, defaults={"max_uses": 3, "expires_in": None})
    await owner.go("#/actions")
    row = owner.page.locator("a.row", has_text=name)
    await expect(row).to_contain_text(title)
    await expect(row).to_contain_text("lock.unlock")
    await expect(row).to_contain_text("3 times, no end")
    await owner.check_access()
    await owner.check_width()
    await row.click()
    await expect(owner.heading()).to_have_text(title)
    await verdict(owner).get_by_text("accepts it").wait_for()
    await owner.check_access()
    await owner.check_width()


async def test_an_action_called_new_can_be_opened_and_others_be_made(
    estate: Estate, home: FakeHomeAssistant
) -> None:
    async with estate.owner() as owner:
        await owner.daemon.action("new", title="Called new")
        try:
            await owner.go("#/actions")
            await owner.page.locator("a.row", has_text="Called new").click()
            await expect(owner.heading()).to_have_text("Called new")
            await owner.go("#/actions")
            await owner.page.get_by_role("link", name="New action").click()
            await expect(owner.heading()).to_have_text("New action")
        finally:
            await owner.daemon.admin("DELETE", "/actions/new")
