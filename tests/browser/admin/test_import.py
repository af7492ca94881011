"""The import of One Time Service's file: looked at, taken over, and its links made strong."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, FilePayload, Locator, Route, expect

from tests import importing
from tests.browser.admin.owner import DEVICES, EVIL, Estate, Owner
from tests.daemon import Daemon
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.server.owner import daemon_with_admin

pytestmark = pytest.mark.asyncio(loop_scope="package")

FOUND: Final = "imports/one-time-service"


def old_file(*tokens: dict[str, Any], **actions: Any) -> bytes:
    """Return what One Time Service wrote; a token may name its ``code``."""
    kept = {token.pop("code", importing.code()): token for token in tokens}
    return importing.file(kept, **actions)


class Share:
    """The folder where an add-on leaves its file, which otsd reads only as an add-on itself.

    What becomes of the file is the daemon's own answer to it.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.content: bytes | None = None

    async def appear(self, owner: Owner) -> None:
        """Be there for whatever a page asks from now on."""
        await owner.page.context.route(f"**/{FOUND}", self._answer)
        await be_an_addon(owner)

    async def _answer(self, route: Route) -> None:
        """Answer as the daemon does when it finds the file."""
        asked = route.request
        if self.content is None:
            return await _refuse(route, 404, "no_import", "There is no file to import.")
        digest = hashlib.sha256(self.content).hexdigest()
        if asked.method == "POST" and asked.post_data_json != {"digest": digest}:
            return await _refuse(route, 409, "import_changed", "The file was changed.")
        dry_run = asked.method == "GET"
        answer = await take(self.daemon, self.content, dry_run=dry_run)
        about = {
            "path": "/share/one-time-service/db.json",
            "digest": digest,
            "modified_at": "2026-11-21T10:00:00+00:00",
        }
        body = answer.json if answer.status != 200 else {**answer.json, **about}
        await route.fulfill(status=answer.status, body=json.dumps(body))
        return None


async def be_an_addon(owner: Owner, **more: str) -> None:
    """Let the page know otsd as an add-on; ``more`` of its session differs."""

    async def answer(route: Route) -> None:
        response = await route.fetch()
        session = {**await response.json(), **more}
        session["home_assistant"]["configured"] = "supervisor"
        await route.fulfill(response=response, json=session)

    await owner.page.context.route("**/api/v1/session", answer)


async def _refuse(route: Route, status: int, code: str, detail: str) -> None:
    problem = {"status": status, "code": code, "detail": detail, "errors": []}
    await route.fulfill(status=status, json=problem)


async def take(daemon: Daemon, content: bytes, *, dry_run: bool = False) -> Any:
    headers = {"Content-Type": "application/json"}
    path = f"/imports?dry_run={str(dry_run).lower()}"
    return await daemon.admin("POST", path, data=content, headers=headers)


async def choose(owner: Owner, content: bytes) -> None:
    async with owner.page.expect_file_chooser() as chooser:
        await owner.page.get_by_role("button", name="Choose").click()
    file = FilePayload(name="db.json", mimeType="application/json", buffer=content)
    await (await chooser.value).set_files([file])


def group(owner: Owner, name: str) -> Locator:
    """Return the rows of a group: "To be taken over 2 links"."""
    return owner.page.get_by_role("list", name=name, exact=True).get_by_role("listitem")


async def count(daemon: Daemon, what: str) -> int:
    return int((await daemon.status())["counts"][what])


@asynccontextmanager
async def beginner(browser: Browser, folder: Path) -> AsyncIterator[tuple[Estate, Share]]:
    """Run a daemon that knows nothing yet, as an add-on beside One Time Service."""
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked", friendly_name="Front door")
        async with daemon_with_admin(folder, home, token=home.token) as daemon:
            await daemon.connected()
            estate = Estate(home, daemon, browser)
            await estate.log_in()
            yield estate, Share(daemon)


async def test_a_file_of_the_owners_is_looked_at_and_then_taken(owner: Owner) -> None:
    daemon, code, twist = owner.daemon, importing.code(), secrets.token_hex(4)
    content = old_file(
        importing.token(code=code, comment=f"Plumber {EVIL} {twist}"),
        importing.token(
            comment="Guests", expires="2031-03-01T18:00:00Z", uses_max=6, uses_left=4,
            service_call_name=f"Light {twist}",
        ),
        importing.token(comment="Cleaner", uses_max=20, uses_left=-1),
        importing.token(comment="Neighbour", uses_left="many"),
        **{
            f"Light {twist}": {"service": "light.turn_on", "data": {"entity_id": "light.hall"}},
            f"Broken {EVIL} {twist}": {"data": {}},
        },
    )  # fmt: skip
    tokens = await count(daemon, "tokens")
    await owner.go("#/connections")
    await owner.page.get_by_role("link", name="Import from One Time Service").click()
    await expect(owner.heading()).to_have_text("Import from One Time Service")
    await owner.check_access()
    await choose(owner, content)

    lights = group(owner, "To be taken over 1 action").or_(
        group(owner, "To be taken over 2 actions")
    )
    await expect(lights.last).to_contain_text("action: light.turn_on")
    broken = group(owner, "Cannot be taken over 1 action")
    await expect(broken).to_contain_text(f"Broken {EVIL} {twist}")
    await expect(broken).to_contain_text("It names no service")
    links = group(owner, "To be taken over 2 links")
    plumber, guests = (links.filter(has_text=name) for name in ("Plumber", "Guests"))
    await expect(plumber).to_contain_text(f"Plumber {EVIL} {twist}")
    await expect(plumber).to_contain_text("Open door · 1 use left · no end")
    await expect(guests).to_contain_text(f"Light {twist} · 4 of 6 left · expires in")
    cleaner = group(owner, "To be taken over with a change 1 link")
    await expect(cleaner).to_contain_text("Its uses left were -1, and are 0 now")
    neighbour = group(owner, "Cannot be taken over 1 link")
    await expect(neighbour).to_contain_text("Its uses_left is not a whole number")
    await owner.check_access()
    await owner.check_width()
    view = owner.page.locator("otsd-import")
    await expect(view.locator(".notice")).to_contain_text(
        "works only on the machine that otsd runs on"
    )
    await expect(view).to_contain_text("First set public.base_url to what the old links begin with")
    await expect(view).not_to_contain_text("go on working")
    assert await count(daemon, "tokens") == tokens

    take_over = owner.page.get_by_role(
        "button", name=re.compile(r"Take over \d actions? and 3 links")
    )
    await take_over.click()
    result = owner.page.get_by_role("heading", name="3 links taken over")
    await expect(result).to_be_focused()
    await expect(view).to_contain_text("public.base_url")
    await expect(view).to_contain_text("can be guessed")
    await owner.check_access()
    await owner.check_width()
    assert await count(daemon, "tokens") == tokens + 3
    assert (await daemon.get(f"/?token={code}")).status == 200
    taken = group(owner, "Taken over 2 links").get_by_role("link", name="Plumber")
    await taken.click()
    await expect(owner.heading()).to_have_text(f"Plumber {EVIL} {twist}")

    await owner.go("#/import")
    await choose(owner, content)
    await expect(owner.page.get_by_text("It was taken over already.")).to_be_visible()
    await expect(owner.page.get_by_role("button", name="Take over")).to_have_count(0)


async def test_where_the_old_links_lead_is_said_as_it_is(phone: Owner) -> None:
    await be_an_addon(phone, base_url="http://localhost:1337")
    await phone.page.reload()
    await phone.go("#/import")
    await choose(phone, old_file(importing.token(service_call_name="Not there", comment="Orphan")))
    view = phone.page.locator("otsd-import")
    await expect(view).to_contain_text("Set What links begin with in the add-on's configuration")
    await expect(view).to_contain_text("First set What links begin with")
    orphan = group(phone, "To be taken over with a change 1 link")
    await expect(orphan).to_contain_text("so it is revoked")
    await expect(orphan).not_to_contain_text("use left")
    await be_an_addon(phone, base_url="https://door.example.org")
    await phone.page.evaluate("dispatchEvent(new Event('online'))")  # as after a restart
    await expect(view).to_contain_text("go on working if they begin with https://door.example.org")
    await expect(view.locator(".notice")).to_have_count(0)


async def test_a_damaged_file_is_refused_with_the_reason_and_another_can_be_chosen(
    phone: Owner,
) -> None:
    await phone.go("#/import")
    await choose(phone, b'{"tokens": [')
    alert = phone.page.get_by_role("alert")
    await expect(alert).to_contain_text("This is no file of the One Time Service add-on")
    await expect(phone.page.locator("otsd-import-entries")).to_have_count(0)
    await phone.check_access()
    await choose(phone, old_file(importing.token(comment="Mended")))
    await expect(phone.page.get_by_text("Mended")).to_be_visible()
    await expect(alert).to_have_count(0)


async def test_the_first_steps_offer_what_one_time_service_left(
    browser: Browser, tmp_path: Path
) -> None:
    first = old_file(importing.token(comment="Plumber"))
    async with (
        beginner(browser, tmp_path) as (estate, share),
        estate.owner() as phone,
    ):
        await expect(phone.heading()).to_have_text("Welcome")
        assert phone.asked("/imports") == []  # it is no add-on
        await share.appear(phone)
        async with phone.page.expect_response(f"**/{FOUND}"):
            await phone.page.reload()
        offer = phone.page.locator("otsd-import-offer")
        await expect(phone.heading()).to_have_text("Welcome")
        await expect(offer).to_have_text("")  # there is no file

        share.content = b"{"
        await phone.page.reload()
        await expect(offer).to_contain_text("cannot be read")
        await expect(offer).to_contain_text("it is not JSON")
        await expect(offer.get_by_role("link")).to_have_count(0)
        await phone.check_access()

        share.content = old_file()
        taken = await take(estate.daemon, share.content)
        assert taken.status == 200, taken.text
        await phone.page.reload()
        await expect(offer).to_contain_text("was taken over")
        await phone.check_access()

        share.content = first
        await phone.page.reload()
        await expect(offer).to_contain_text("Bring your links from One Time Service")
        await expect(offer).to_contain_text("Its file is here, with 1 link.")
        await phone.check_access()
        await phone.check_width()
        await offer.get_by_role("link").click()
        view = phone.page.locator("otsd-import")
        await expect(view).to_contain_text("Other add-ons can write where this file is.")
        await expect(view).to_contain_text("/share/one-time-service/db.json")

        # somebody writes there while the owner reads
        share.content = old_file(
            importing.token(comment="Plumber"), importing.token(comment="Burglar")
        )
        await phone.button("Take over 1 link").click()
        await expect(phone.page.get_by_role("alert")).to_contain_text("The file has changed")
        links = group(phone, "To be taken over 2 links")
        await expect(links.filter(has_text="Burglar")).to_have_count(1)
        await phone.check_access()
        assert await count(estate.daemon, "tokens") == 0

        share.content = first
        await phone.button("Take over 2 links").click()
        await expect(group(phone, "To be taken over 1 link")).to_contain_text("Plumber")
        await phone.button("Take over 1 link").click()
        result = phone.page.get_by_role("heading", name="1 link taken over")
        await expect(result).to_be_focused()
        assert await count(estate.daemon, "tokens") == 1


async def test_what_otsd_does_not_know_of_imported_uses_is_not_told(phone: Owner) -> None:
    new, used = (f"{kind} {secrets.token_hex(4)}" for kind in ("New", "Used"))
    content = old_file(importing.token(comment=new), importing.token(comment=used, uses_left=0))
    assert (await take(phone.daemon, content)).status == 200
    await expect(phone.row(new)).to_contain_text("not used here yet")
    await expect(phone.row(used)).to_contain_text("used before the import")
    await phone.row(used).click()
    await expect(phone.page.locator("otsd-token .facts")).to_contain_text("used before the import")
    history = phone.page.locator("otsd-token-history")
    await expect(history).to_contain_text("Nothing that otsd knows of.")


@pytest.mark.parametrize("device", DEVICES)
async def test_an_imported_link_is_replaced_when_the_owner_says_so(
    estate: Estate, device: str
) -> None:
    daemon, code, comment = estate.daemon, importing.code(), f"Cleaner {secrets.token_hex(4)}"
    taken = await take(daemon, old_file(importing.token(code=code, comment=comment, uses_max=3)))
    assert taken.status == 200, taken.text
    (token,) = taken.json["tokens"]
    async with estate.owner(**DEVICES[device]) as owner:
        row = owner.row(comment)
        await expect(row).to_contain_text("Weak code")
        heights = await owner.page.locator("otsd-token-list li").evaluate_all(
            "rows => [...new Set(rows.map(row => Math.round(row.getBoundingClientRect().height)))]"
        )
        assert len(heights) == 1
        await owner.check_access()
        await owner.check_width()
        await row.click()
        await expect(owner.heading()).to_have_text(comment)
        notice = owner.page.locator("otsd-token .notice")
        await expect(notice).to_contain_text("Its code comes from a generator that can be guessed.")
        await expect(owner.button("Link and QR code")).to_have_count(0)
        await owner.check_access()
        await owner.check_width()
        assert owner.asked(f"/tokens/{token['id']}/") == []

        await owner.button("Replace link").click()
        await owner.sheet().get_by_role("button", name="Cancel").click()
        await expect(owner.sheet()).to_have_count(0)
        assert (await daemon.get(f"/?token={code}")).status == 200
        await owner.button("Replace link").click()
        await owner.sheet().get_by_role("button", name="Replace").click()
        link = await owner.link()
        assert (await daemon.request("GET", link)).status == 200
        assert (await daemon.get(f"/?token={code}")).status in (404, 410)
        picture = owner.page.locator("otsd-hand-over img")
        await expect(picture).to_have_js_property("complete", value=True)
        assert await picture.evaluate("image => image.naturalWidth") > 100
        await owner.button("Done").click()
        await expect(notice).to_have_count(0)
        await expect(owner.button("Link and QR code")).to_be_visible()
        await owner.page.get_by_role("link", name="All links").click()
        await expect(row).to_be_visible()
        await expect(row.locator("otsd-weak")).to_have_count(0)


async def test_a_hundred_thousand_links_are_shown_in_portions_and_found(phone: Owner) -> None:
    entry: dict[str, Any] = {
        "id": None, "action": "open-door", "max_uses": 1, "uses_left": 1, "expires_at": None,
        "outcome": "taken", "notes": [],
    }  # fmt: skip
    found = {
        "dry_run": True,
        "path": "/share/one-time-service/db.json",
        "digest": "0" * 64,
        "modified_at": "2026-11-21T10:00:00+00:00",
        "counts": {"taken": 100_000, "changed": 0, "known": 0, "refused": 0},
        "actions": [],
        "tokens": [{**entry, "number": n, "comment": f"Guest {n}"} for n in range(1, 100_001)],
    }
    body = json.dumps(found)
    await phone.page.route(f"**/{FOUND}", lambda route: route.fulfill(body=body))
    await be_an_addon(phone)
    await phone.go("#/import")
    await phone.page.reload()
    rows = group(phone, "To be taken over 100,000 links")
    await rows.first.wait_for(timeout=60_000)  # it is 20 MB that a test hands the browser
    await expect(rows).to_have_count(50)
    await expect(phone.button("Take over 100,000 links")).to_be_visible()
    await phone.page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(100)
    await phone.page.get_by_label("Search").fill("guest 99999")
    await expect(group(phone, "To be taken over 1 link")).to_contain_text("Guest 99999")
    await phone.page.get_by_label("Search").fill("nobody")
    await expect(phone.page.get_by_text("None found")).to_be_visible()
