"""The tokens: making a link and handing it over, the list that follows, and every change."""

from __future__ import annotations

import asyncio
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import segno
from playwright.async_api import Locator, Route, expect

from tests.browser.admin.owner import EVIL, Owner

pytestmark = pytest.mark.asyncio(loop_scope="package")

ACTION = "Open the front door"


def new_comment(kind: str) -> str:
    """Return a comment that no other test has."""
    return f"{kind} {datetime.now(UTC).timestamp()}"


async def find(owner: Owner, comment: str) -> Any:
    """Return the token with a comment, as the API has it."""
    answer = await owner.daemon.admin("GET", "/tokens?limit=500")
    (token,) = [each for each in answer.json["items"] if each["comment"] == comment]
    return token


async def opened(owner: Owner, kind: str, **body: Any) -> Any:
    """Mint a token and open its page."""
    token = await owner.daemon.mint(comment=new_comment(kind), **body)
    await owner.go(f"#/tokens/{token['id']}")
    await expect(owner.heading()).to_have_text(token["comment"])
    return token


def state(owner: Owner) -> Locator:
    return owner.page.locator("otsd-token .head otsd-state")


async def until_state(owner: Owner, token: Any, wanted: str) -> None:
    async with asyncio.timeout(10):
        while (await owner.daemon.admin("GET", f"/tokens/{token['id']}")).json["state"] != wanted:
            await asyncio.sleep(0.02)


async def show_link(owner: Owner) -> str:
    await owner.button("Link and QR code").click()
    return await owner.link()


async def check_picture(owner: Owner, link: str) -> None:
    """Hold the picture that is shown to be the QR code of a link."""
    picture = owner.page.locator("otsd-hand-over img")
    await expect(picture).to_have_js_property("complete", value=True)
    assert await picture.evaluate("image => image.naturalWidth") > 100
    source = await picture.get_attribute("src")
    assert source is not None
    assert source.startswith("api/v1/tokens/")  # relative, for the page may be below any path
    assert owner.asked(source.removeprefix("api/v1"))
    owner.requests.clear()  # another link has another picture
    shown = await owner.page.evaluate("async source => await (await fetch(source)).text()", source)
    drawn = io.BytesIO()
    segno.make(link, error="m").save(drawn, kind="svg", scale=8, border=4)
    assert shown == drawn.getvalue().decode()


async def test_two_taps_make_a_link_and_hand_it_over(owner: Owner) -> None:
    await owner.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await owner.button("New link").click()
    await owner.page.get_by_role("button", name=f"{ACTION} Once, for 1 week").click()
    link = await owner.link()
    page = await owner.daemon.request("GET", link)
    assert page.status == 200
    assert ACTION in page.text
    await check_picture(owner, link)
    await owner.button("Copy").click()
    await expect(owner.button("Copied")).to_be_visible()
    assert await owner.page.evaluate("navigator.clipboard.readText()") == link
    comment = new_comment("Plumber")
    await owner.page.get_by_label("Who is it for?").fill(comment)
    await owner.page.keyboard.press("Enter")
    await expect(owner.page.get_by_text("Saved")).to_be_visible()
    await owner.button("Done").click()
    await expect(owner.sheet()).to_have_count(0)
    await expect(owner.row(comment)).to_contain_text("1 use left")
    await expect(owner.row(comment)).to_contain_text("expires in 7 days")
    token = await find(owner, comment)
    assert token["max_uses"] == 1
    assert token["created_by"].startswith("user:")


async def test_with_more_choices_it_is_as_the_owner_says(owner: Owner) -> None:
    comment = new_comment("Guests")
    await owner.button("New link").click()
    await owner.button(f"More choices for {ACTION}").click()
    await owner.page.get_by_label("Who is it for?").fill(comment)
    await owner.choose("Several times")
    await owner.page.get_by_label("How many times?").fill("12")
    until = owner.page.get_by_role("group", name="How long?")
    await until.get_by_role("radio", name="Date and time").check(force=True)
    await owner.page.get_by_label("Until", exact=True).fill("2031-07-01T18:30")
    start = owner.page.get_by_role("group", name="From when?")
    await start.get_by_role("radio", name="Date and time").check(force=True)
    await owner.page.get_by_label("From", exact=True).fill("2031-06-01T08:00")
    await owner.button("Make the link").click()
    await expect(owner.page.get_by_text(f"Made for: {comment}")).to_be_visible()
    token = await find(owner, comment)
    assert token["max_uses"] == 12
    house = ZoneInfo("Europe/Berlin")  # whatever the browser's own zone is
    assert datetime.fromisoformat(token["expires_at"]) == datetime(2031, 7, 1, 18, 30, tzinfo=house)
    assert datetime.fromisoformat(token["valid_from"]) == datetime(2031, 6, 1, 8, 0, tzinfo=house)
    await owner.page.keyboard.press("Escape")
    await expect(owner.row(comment)).to_contain_text("Scheduled")
    await expect(owner.row(comment)).to_contain_text("12 of 12 left")


@pytest.mark.parametrize("choice", ["1 hour", "Today", "No end"])
async def test_a_length_is_chosen_by_a_tap(phone: Owner, choice: str) -> None:
    comment = new_comment(choice)
    await phone.button("New link").click()
    await phone.button(f"More choices for {ACTION}").click()
    await phone.page.get_by_label("Who is it for?").fill(comment)
    await phone.choose("Without limit")
    await phone.choose(choice)
    before = datetime.now(UTC)
    await phone.button("Make the link").click()
    await expect(phone.page.get_by_text(f"Made for: {comment}")).to_be_visible()
    token = await find(phone, comment)
    assert token["max_uses"] is None
    end = token["expires_at"] and datetime.fromisoformat(token["expires_at"])
    if choice == "1 hour":
        assert timedelta(minutes=59) < end - before < timedelta(minutes=61)
    elif choice == "Today":
        there = end.astimezone(ZoneInfo("Europe/Berlin"))
        assert (there.hour, there.minute) == (0, 0)
        assert timedelta() < end - before <= timedelta(hours=25)
    else:
        assert end is None


async def test_what_is_wrong_is_told_beside_the_field(phone: Owner) -> None:
    await phone.button("New link").click()
    await phone.button(f"More choices for {ACTION}").click()
    await phone.choose("Several times")
    await phone.page.get_by_label("How many times?").fill("0")
    await phone.button("Make the link").click()
    uses = phone.page.locator("otsd-uses-field")
    await expect(uses.get_by_role("alert")).to_contain_text("from 1 to")
    await phone.page.get_by_label("How many times?").fill("2")
    until = phone.page.get_by_role("group", name="How long?")
    await until.get_by_role("radio", name="Date and time").check(force=True)
    await phone.page.get_by_label("Until", exact=True).fill("2021-07-01T18:30")
    await phone.button("Make the link").click()
    await expect(phone.page.get_by_role("alert")).to_have_text("This time is past")
    await expect(phone.page.get_by_label("How many times?")).to_have_value("2")


async def test_a_press_that_got_no_answer_makes_one_link_when_it_is_repeated(phone: Owner) -> None:
    lost: list[str] = []

    async def lose(route: Any) -> None:
        if route.request.method != "POST":
            await route.fallback()
        elif lost:
            lost.append(route.request.headers["idempotency-key"])
            await route.fallback()
        else:
            lost.append(route.request.headers["idempotency-key"])
            await route.fetch()
            await route.abort()

    await phone.page.route("**/api/v1/tokens", lose)
    comment = new_comment("Once")
    await phone.button("New link").click()
    await phone.button(f"More choices for {ACTION}").click()
    await phone.page.get_by_label("Who is it for?").fill(comment)
    await phone.button("Make the link").click()
    await expect(phone.page.get_by_role("alert")).to_have_text("otsd does not answer.")
    await phone.button("Make the link").click()
    await expect(phone.page.get_by_text(f"Made for: {comment}")).to_be_visible()
    assert lost == [lost[0]] * 2
    assert await find(phone, comment)  # the only one
    phone.complaints.clear()  # the browser told of the answer that was lost


async def test_the_list_follows_a_visitor_without_being_loaded_again(owner: Owner) -> None:
    comment = new_comment("Neighbour")
    token = await owner.daemon.mint(comment=comment, max_uses=3)
    await expect(owner.row(comment)).to_contain_text("3 of 3 left")
    await expect(owner.row(comment)).to_contain_text("not used yet")
    asked = len(owner.asked("/tokens"))
    assert (await owner.daemon.submit(token["code"])).status == 200
    await expect(owner.row(comment)).to_contain_text("2 of 3 left")
    await expect(owner.row(comment)).to_contain_text("used just now")
    await owner.daemon.admin("DELETE", f"/tokens/{token['id']}")
    await expect(owner.row(comment)).to_have_count(0)
    assert len(owner.asked("/tokens")) == asked


async def test_the_state_and_the_action_filter_and_words_search(owner: Owner) -> None:
    word = new_comment("Zebra")
    paused = await owner.daemon.mint(comment=f"{word} paused")
    await owner.daemon.admin("POST", f"/tokens/{paused['id']}/pause")
    active = await owner.daemon.mint(comment=f"{word} active")
    await owner.daemon.mint("evil", comment=f"{word} evil")
    rows = owner.row(word)
    await owner.page.get_by_role("searchbox", name="Search").fill(word)
    await expect(rows).to_have_count(3)
    await expect(owner.row("")).to_have_count(3)
    await owner.choose("Paused")
    await expect(owner.row("")).to_have_count(1)
    await expect(rows).to_contain_text("paused")
    # what changes comes and goes by itself
    await owner.daemon.admin("POST", f"/tokens/{active['id']}/pause")
    await expect(rows).to_have_count(2)
    await owner.daemon.admin("POST", f"/tokens/{paused['id']}/resume")
    await expect(rows).to_have_count(1)
    await owner.choose("Active")
    await expect(rows).to_have_count(2)
    await owner.page.get_by_role("combobox", name="Action").click()
    await owner.page.get_by_role("option", name="Evil").click()
    await expect(owner.row("")).to_have_count(1)
    await expect(rows).to_contain_text(f"{word} evil")
    await owner.choose("Revoked")
    await expect(owner.page.get_by_role("heading", name="None found")).to_be_visible()
    (last,) = owner.asked("/tokens?")[-1:]
    assert {"state=revoked", "action=evil"} <= set(re.split("[?&]", last))


async def test_time_alone_ends_a_link_in_the_list(phone: Owner) -> None:
    comment = new_comment("Short")
    await phone.page.clock.install()
    await phone.page.reload()
    await phone.daemon.mint(comment=comment, expires_in="1h")
    await expect(phone.row(comment)).to_contain_text("Active")
    await phone.page.clock.fast_forward("01:00:30")
    await expect(phone.row(comment)).to_contain_text("Expired")
    await expect(phone.row(comment)).to_contain_text("expired just now")


async def test_a_long_list_grows_as_one_looks_at_it(phone: Owner) -> None:
    comment = new_comment("Many")
    for number in range(120):
        await phone.daemon.mint(comment=f"{comment} no. {number}")
    await phone.go("#/tokens")
    await phone.page.reload()
    await expect(phone.row(f"{comment} no. 119")).to_be_visible()
    await expect(phone.row(f"{comment} no. 20")).to_have_count(0)
    async with asyncio.timeout(15):
        while not await phone.row(f"{comment} no. 0").count():
            await phone.page.mouse.wheel(0, 2000)
            await asyncio.sleep(0.02)
    assert await phone.row("").count() < 100  # what is out of sight is not there
    # by the wheel as well: Chromium adds what is left of it to the place a script scrolls to
    await phone.page.mouse.wheel(0, -50_000)
    await expect(phone.row(f"{comment} no. 119")).to_be_in_viewport()
    pages = phone.asked("/tokens?")[-4:]
    assert len([page for page in pages if "cursor=" in page]) >= 2


async def test_pause_is_one_tap_and_undo_another(phone: Owner) -> None:
    token = await opened(phone, "Cleaner")
    await phone.button("Pause").click()
    await expect(state(phone)).to_have_text("Paused")
    await until_state(phone, token, "paused")
    await phone.button("Undo").click()
    await expect(state(phone)).to_have_text("Active")
    await until_state(phone, token, "active")


async def test_revoking_is_asked_about_and_final(owner: Owner) -> None:
    token = await opened(owner, "Ex")
    await owner.button("Revoke").click()
    await owner.sheet().get_by_role("button", name="Cancel").click()
    await expect(owner.sheet()).to_have_count(0)
    await until_state(owner, token, "active")
    await owner.button("Revoke").click()
    await owner.sheet().get_by_role("button", name="Revoke").click()
    await expect(state(owner)).to_have_text("Revoked")
    await until_state(owner, token, "revoked")
    assert (await owner.daemon.get(f"/?token={token['code']}")).status == 410
    for gone in ("Pause", "Extend", "Revoke", "Replace link", "Link and QR code"):
        await expect(owner.button(gone)).to_have_count(0)
    # what is left of it is nobody's any more
    facts = owner.page.locator("otsd-token .facts")
    await expect(facts).to_contain_text("Last used")
    await expect(facts).not_to_contain_text("use left")
    await owner.page.get_by_role("link", name="All links").click()
    await expect(owner.row(token["comment"])).to_contain_text("Revoked")
    await expect(owner.row(token["comment"])).not_to_contain_text("use left")
    await owner.row(token["comment"]).click()
    await expect(owner.button("Undo")).to_have_count(0)


async def test_a_later_end_is_two_taps_and_can_be_taken_back(phone: Owner) -> None:
    token = await opened(phone, "Guest", expires_in="2h")
    await phone.button("Extend").click()
    await phone.page.get_by_role("button", name="1 day longer").click()
    await expect(phone.sheet()).to_have_count(0)
    later = (await phone.daemon.admin("GET", f"/tokens/{token['id']}")).json["expires_at"]
    end = datetime.fromisoformat(token["expires_at"])
    assert datetime.fromisoformat(later) == end + timedelta(days=1)
    await phone.button("Undo").click()
    async with asyncio.timeout(10):
        while later != token["expires_at"]:
            await asyncio.sleep(0.02)
            later = (await phone.daemon.admin("GET", f"/tokens/{token['id']}")).json["expires_at"]


async def test_a_comment_and_the_uses_change_and_a_refusal_keeps_what_was_typed(
    phone: Owner,
) -> None:
    token = await opened(phone, "Child", max_uses=4)
    for _ in range(2):
        await phone.daemon.submit(token["code"])
    await phone.button("Change").click()
    comment = new_comment("Grown up")
    await phone.page.get_by_label("Who is it for?").fill(comment)
    await phone.page.get_by_label("How many times?").fill("1")
    await phone.button("Save").click()
    await expect(phone.sheet().get_by_role("alert")).to_contain_text("2 uses are taken already")
    await phone.page.get_by_label("How many times?").fill("9")
    await phone.button("Save").click()
    await expect(phone.heading()).to_have_text(comment)
    await expect(phone.page.locator("otsd-token .facts")).to_contain_text("7 of 9 left")
    await phone.button("Undo").click()
    await expect(phone.heading()).to_have_text(token["comment"])
    await expect(phone.page.locator("otsd-token .facts")).to_contain_text("2 of 4 left")


async def test_what_was_used_up_is_refilled_only_when_asked(phone: Owner) -> None:
    token = await opened(phone, "Courier")
    await expect(phone.button("Refill uses")).to_have_count(0)
    history = phone.page.locator("otsd-token-history")
    await expect(history).to_contain_text("Nobody has used it yet.")
    await phone.daemon.submit(token["code"])
    await expect(state(phone)).to_have_text("Used up")
    # what happened is there, too
    await expect(history.locator("li")).to_have_count(1)
    await expect(history.locator("li")).to_contain_text("Done")
    await expect(history.locator("li")).to_contain_text("127.0.0.1")
    await expect(phone.page.locator("otsd-token .facts")).to_contain_text("0 of 1 left")
    await phone.button("Refill uses").click()
    await phone.sheet().get_by_role("button", name="Refill").click()
    await expect(state(phone)).to_have_text("Active")
    await until_state(phone, token, "active")


async def test_the_link_is_shown_only_when_asked_for(phone: Owner) -> None:
    token = await opened(phone, "Secret")
    assert phone.asked(f"/tokens/{token['id']}/link") == []
    assert phone.asked(f"/tokens/{token['id']}/qr") == []
    assert token["code"] not in await phone.page.content()
    assert await show_link(phone) == token["url"]
    await check_picture(phone, token["url"])


async def test_a_replaced_link_ends_at_once_and_the_new_one_is_handed_over(phone: Owner) -> None:
    token = await opened(phone, "Lost phone")
    assert await show_link(phone) == token["url"]
    await phone.button("Done").click()
    await expect(phone.sheet()).to_have_count(0)
    await phone.button("Replace link").click()
    await phone.sheet().get_by_role("button", name="Replace").click()
    await expect(phone.page.get_by_role("heading", name="The new link")).to_be_visible()
    link = await phone.link()
    assert link != token["url"]
    await check_picture(phone, link)
    assert (await phone.daemon.request("GET", token["url"])).status == 410
    assert (await phone.daemon.request("GET", link)).status == 200


async def test_a_second_link_is_one_tap(phone: Owner) -> None:
    token = await opened(phone, "Twin", max_uses=5)
    await phone.button("Duplicate").click()
    link = await phone.link()
    assert link != token["url"]
    assert (await phone.daemon.request("GET", link)).status == 200
    await phone.sheet().get_by_role("link", name="Details").click()
    await expect(phone.heading()).to_have_text(token["comment"])
    assert token["id"] not in phone.page.url


async def test_what_is_deleted_is_gone_with_its_history(phone: Owner) -> None:
    token = await opened(phone, "Nobody")
    await phone.button("Delete").click()
    await phone.sheet().get_by_role("button", name="Delete").click()
    await expect(phone.heading()).to_have_text("Links")
    assert phone.page.url.endswith("#/tokens")
    assert (await phone.daemon.admin("GET", f"/tokens/{token['id']}")).status == 404
    await expect(phone.row(token["comment"])).to_have_count(0)


async def test_a_link_that_is_not_there_is_told_of(phone: Owner) -> None:
    told = phone.page.get_by_role("heading", name="There is no such link")
    await phone.go("#/tokens/nowhere")
    await expect(told).to_be_visible()
    token = await opened(phone, "Gone")
    await expect(told).to_have_count(0)
    await phone.daemon.admin("DELETE", f"/tokens/{token['id']}")
    await expect(told).to_be_visible()


async def test_a_link_that_nobody_else_can_open_is_handed_over_with_a_warning(phone: Owner) -> None:
    token = await opened(phone, "Far away")
    base = ""

    async def answer(route: Route) -> None:
        await route.fulfill(json={"url": f"{base}/?token={token['code']}"})

    await phone.page.route(f"**/tokens/{token['id']}/link", answer)
    warning = phone.sheet().locator(".notice")
    for base, is_local in [
        ("http://localhost:1337", True),
        ("http://127.0.0.1/door", True),
        ("http://[::1]:1337", True),
        ("http://otsd.localhost", True),
        ("https://localhost.example.org", False),
        ("https://127.example.org", False),
        ("http://192.168.1.20:1337", False),
    ]:
        assert (await show_link(phone)).startswith(base)
        await expect(warning).to_have_count(int(is_local))
        if is_local:
            await expect(warning).to_contain_text(f"Links begin with {base.removesuffix('/door')}")
            await expect(warning).to_contain_text("Set public.base_url in config.toml")
            await expect(warning).to_contain_text("restart otsd")
            await expect(warning).to_contain_text("Links made before keep their codes")
        await phone.button("Done").click()
        await expect(phone.sheet()).to_have_count(0)


async def test_back_in_the_list_one_is_where_one_was(phone: Owner) -> None:
    comment = new_comment("Filler")
    for number in range(40):
        await phone.daemon.mint(comment=f"{comment} no. {number}")
    await phone.go("#/tokens")
    await phone.page.reload()
    row = phone.row(f"{comment} no. 15")
    await row.scroll_into_view_if_needed()
    await expect(row).to_be_visible()
    before = await phone.page.evaluate("scrollY")
    assert before > 500
    await row.click()
    await expect(phone.button("Pause")).to_be_visible()
    assert await phone.page.evaluate("scrollY") == 0
    await phone.page.get_by_role("link", name="All links").click()
    await expect(row).to_be_in_viewport()


async def test_what_people_wrote_is_text_everywhere(owner: Owner) -> None:
    token = await owner.daemon.mint("evil", comment=EVIL, max_uses=2)
    await expect(owner.row(EVIL).first).to_be_visible()
    await owner.button("New link").click()
    await owner.page.get_by_role("button", name=f"More choices for Evil {EVIL}").click()
    await expect(owner.sheet().get_by_role("heading")).to_have_text(f"Evil {EVIL}")
    await owner.button("Make the link").click()
    await expect(owner.page.locator("otsd-hand-over")).to_contain_text(f"Evil {EVIL}")
    await owner.page.keyboard.press("Escape")
    await owner.go(f"#/tokens/{token['id']}")
    await expect(owner.heading()).to_have_text(EVIL)
    await show_link(owner)
    await expect(owner.page.get_by_text(f"Made for: {EVIL}")).to_be_visible()
    images = await owner.page.locator("img").evaluate_all("all => all.map(each => each.src)")
    assert [src for src in images if "/qr.svg" not in src] == []
    await owner.page.emulate_media(media="print")
    await expect(owner.page.locator("otsd-card")).to_contain_text(EVIL)


async def test_a_card_with_the_link_is_all_that_is_printed(owner: Owner) -> None:
    token = await opened(owner, "Holiday flat", expires_in="30d")
    link = await show_link(owner)
    card = owner.page.locator("otsd-card")
    await expect(card).not_to_be_visible()
    await owner.page.emulate_media(media="print")
    for text in (token["comment"], ACTION, link, "until", "once"):
        await expect(card).to_contain_text(text)
    await expect(card.locator("img")).to_be_visible()
    await expect(owner.page.locator("otsd-app")).not_to_be_visible()
    dialog = owner.sheet().locator("dialog")
    await expect(dialog).not_to_be_visible()
    await owner.page.emulate_media(media="screen")
    await expect(dialog).to_be_visible()
    printed = "new Promise(done => { window.print = () => done(true) })"
    async with asyncio.timeout(10):
        waiting = asyncio.ensure_future(owner.page.evaluate(printed))
        await owner.page.evaluate("0")
        await owner.button("Print").click()
        assert await waiting
    await owner.button("Done").click()
    await expect(card).to_have_count(0)


async def test_where_the_browser_can_share_it_shares_the_link(phone: Owner) -> None:
    share = "navigator.share = async what => { window.shared = what }"
    await phone.page.add_init_script(share)
    await phone.page.reload()
    token = await opened(phone, "Postwoman")
    link = await show_link(phone)
    await phone.button("Share").click()
    assert await phone.page.evaluate("window.shared") == {"title": ACTION, "url": link}
    assert link == token["url"]


async def test_the_keyboard_is_enough_and_the_focus_comes_back(owner: Owner) -> None:
    new = owner.button("New link")
    await new.focus()
    await owner.page.keyboard.press("Enter")
    await expect(owner.sheet()).to_have_count(1)
    await owner.page.keyboard.press("Escape")
    await expect(owner.sheet()).to_have_count(0)
    await expect(new).to_be_focused()
    await owner.page.keyboard.press("Enter")
    make = owner.page.get_by_role("button", name=f"{ACTION} Once")
    await make.focus()
    await owner.page.keyboard.press("Enter")
    await expect(owner.button("Copy")).to_be_focused()
    await owner.page.keyboard.press("Escape")
    await expect(new).to_be_focused()


async def test_everybody_can_use_it(owner: Owner) -> None:
    token = await owner.daemon.mint(comment=new_comment("Aunt"), max_uses=3, expires_in="2d")
    await owner.daemon.submit(token["code"])
    await expect(owner.row(token["comment"])).to_contain_text("2 of 3 left")
    await owner.check_access()
    await owner.check_width()
    await owner.button("New link").click()
    await expect(owner.button(f"More choices for {ACTION}")).to_be_visible()
    await owner.check_access()
    await owner.button(f"More choices for {ACTION}").click()
    await owner.choose("Several times")
    until = owner.page.get_by_role("group", name="How long?")
    await until.get_by_role("radio", name="Date and time").check(force=True)
    await owner.check_access()
    await owner.button("Make the link").click()
    await owner.link()
    await owner.check_access()
    await owner.page.keyboard.press("Escape")
    await owner.go(f"#/tokens/{token['id']}")
    await expect(owner.page.locator("otsd-token-history li")).to_be_visible()
    await owner.check_access()
    await owner.check_width()
    for button in ("Extend", "Change", "Revoke"):
        await owner.button(button).click()
        await expect(owner.sheet()).to_have_count(1)
        await owner.check_access()
        await owner.page.keyboard.press("Escape")
        await expect(owner.sheet()).to_have_count(0)
