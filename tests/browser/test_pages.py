"""Every page in a real browser: its words, what it weighs, and who can read it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Response

from tests.browser.browsing import HEIGHT, WIDTH, complaints_of, visiting
from tests.browser.conftest import EVIL
from tests.browser.gallery import SCENES, Place, Scene, Wording, gallery

pytestmark = pytest.mark.asyncio(loop_scope="package")

each_scene = pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])


class Witness:
    """What the browser loaded, and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.responses: list[Response] = []
        self.complaints = complaints_of(page)
        page.on("response", lambda response: self.responses.append(response))  # noqa: PLW0108 - it must be Python's

    def forget(self) -> None:
        """Be new to the next page."""
        self.responses.clear()
        self.complaints.clear()


class Visitor:
    """One phone, which visits one page after another."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.witness = Witness(page)

    async def visit(self, place: Place, scene: Scene) -> tuple[Page, Witness]:
        """Go to the page of a scene, in light colours and at the common size."""
        page = self.page
        await page.goto("about:blank")  # the page before may look again by itself
        place.calm()
        address = await scene.arrange(place)
        await page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        await page.emulate_media(color_scheme="light", reduced_motion="reduce")
        self.witness.forget()
        await page.goto(address)
        if scene.pressed:
            await page.locator("button").click()
        await page.locator(f"[data-code={scene.code}]").wait_for()
        return page, self.witness


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def scripted(browser: Browser) -> AsyncIterator[Visitor]:
    async with visiting(browser) as context:
        yield Visitor(await context.new_page())


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def plain(browser: Browser) -> AsyncIterator[Visitor]:
    async with visiting(browser, java_script_enabled=False) as context:
        yield Visitor(await context.new_page())


async def check_words(page: Page, witness: Witness, place: Place, scene: Scene) -> None:
    assert await page.title() == place.wording.site
    assert await page.locator("h1").all_inner_texts() == [scene.headline]
    text = " ".join((await page.locator("body").inner_text()).split())
    assert scene.text in text
    assert text.startswith(place.wording.site)
    assert (place.wording.contact in text) == scene.contact
    buttons = page.locator("form[method=post] button")
    assert await buttons.count() == (1 if scene.button else 0)
    if scene.button:
        assert await buttons.text_content() == place.wording.title
    # what the owner wrote is text, and no way led round the policy
    assert EVIL in text
    assert await page.locator("img").count() == 0
    assert witness.complaints == []


async def check_weight(witness: Witness, scene: Scene) -> None:
    documents = [response for response in witness.responses if response.status != 303]
    assert len(documents) == (2 if scene.pressed else 1)
    assert documents[-1].status == scene.status
    assert len(await documents[-1].body()) < 13_000
    for document in documents:
        policy = document.headers["content-security-policy"]
        assert "unsafe-" not in policy
        assert "default-src 'none'" in policy


async def check_access(page: Page) -> None:
    found = await Axe().run(page)
    violations = [
        (violation["impact"], violation["id"], violation["nodes"][0]["html"])
        for violation in found.response["violations"]
    ]
    assert violations == []


async def check_at_twice_the_size(page: Page) -> None:
    """Half as wide a window is what a browser makes of 200 %."""
    await page.set_viewport_size({"width": WIDTH // 2, "height": HEIGHT // 2})
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, window = await page.evaluate(widths)
    assert wide <= window == WIDTH // 2
    clipped = """[...document.querySelectorAll("body *")].filter((element) =>
        element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
        && getComputedStyle(element).display !== "inline").map((element) => element.outerHTML)"""
    assert await page.evaluate(clipped) == []


@each_scene
async def test_a_page_is_complete_without_a_script_in_one_small_answer(
    plain: Visitor, place: Place, scene: Scene
) -> None:
    page, witness = await plain.visit(place, scene)
    await check_words(page, witness, place, scene)
    await check_weight(witness, scene)


@each_scene
async def test_a_page_says_the_same_with_a_script_to_everybody_in_light_and_dark(
    scripted: Visitor, place: Place, scene: Scene
) -> None:
    page, witness = await scripted.visit(place, scene)
    await check_words(page, witness, place, scene)
    await check_weight(witness, scene)
    await check_access(page)
    await page.emulate_media(color_scheme="dark")
    await check_access(page)
    await check_at_twice_the_size(page)


async def test_the_longest_title_fits_at_twice_the_size(scripted: Visitor, tmp_path: Path) -> None:
    wording = Wording(title="Donaudampfschifffahrtsgesellschaft" * 5, comment="a" * 500)
    (ready,) = [scene for scene in SCENES if scene.name == "ready"]
    async with gallery(tmp_path, wording) as place:
        page, _ = await scripted.visit(place, ready)
        await check_at_twice_the_size(page)


async def test_the_button_is_large_and_reached_by_the_thumb(
    scripted: Visitor, place: Place
) -> None:
    (ready,) = [scene for scene in SCENES if scene.name == "ready"]
    page, _ = await scripted.visit(place, ready)
    box = await page.get_by_role("button").bounding_box()
    assert box is not None
    assert box["width"] > WIDTH * 0.75
    assert box["height"] > HEIGHT * 0.2
    assert box["y"] + box["height"] / 2 > HEIGHT * 0.4
    assert box["y"] + box["height"] <= HEIGHT


async def test_nothing_moves_for_whoever_wants_less_motion(scripted: Visitor, place: Place) -> None:
    (running,) = [scene for scene in SCENES if scene.name == "running"]
    page, _ = await scripted.visit(place, running)
    for motion, moving in (("reduce", 0), ("no-preference", 1)):
        await page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
        assert await page.evaluate("document.getAnimations().length") == moving


async def test_below_a_path_a_press_stays_below_it(
    scripted: Visitor, plain: Visitor, tmp_path: Path
) -> None:
    (ready,) = [scene for scene in SCENES if scene.name == "ready"]
    async with gallery(tmp_path, root="/t%C3%BCr/door") as place:
        for visitor in (scripted, plain):
            page, witness = await visitor.visit(place, ready)
            await page.get_by_role("button").click()
            await page.locator("[data-code=executed]").wait_for()
            assert page.url.startswith(f"{place.url}/?token=")
            assert "&attempt=" in page.url
            assert witness.complaints == []
        assert place.home.ran == 2
