"""Take the pictures of the visitor's pages that the documentation shows.

``scripts/screenshots`` writes them to ``docs/pictures``: every page as a phone shows it, on one
sheet each for light and dark, and one page for the README. The clock stands still, so that the
pictures change only when the pages do. With a folder as argument it writes every page as a file of its own
there, on a phone and on a desk, to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Page

from tests.browser.browsing import HEIGHT, WIDTH, browsing, visiting
from tests.browser.gallery import SCENES, Place, Scene, gallery

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
_THEMES = ("light", "dark")
_SHEET = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 20px; display: grid; grid-template-columns: repeat(5, 210px); gap: 20px;
  font: 14px/1.3 "Liberation Sans", sans-serif; background: {ground}; color: {ink}; }}
figure {{ margin: 0; }}
figcaption {{ padding: 0 0 6px 2px; }}
img {{ display: block; width: 210px; border: 1px solid #8886; border-radius: 14px; box-sizing: border-box; }}
</style>{figures}"""
_COLOURS = {
    "light": {"ground": "#dfe4e9", "ink": "#12161c"},
    "dark": {"ground": "#2a3038", "ink": "#f2f5f8"},
}


async def visit(page: Page, place: Place, scene: Scene) -> None:
    """Lead a browser to the page of a scene."""
    place.calm()
    address = await scene.arrange(place)
    await page.clock.set_fixed_time(place.clock.now)
    await page.goto(address)
    if scene.pressed:
        await page.locator("button").click()
    await page.locator(f"[data-code={scene.code}]").wait_for()


async def sheet(browser: Browser, theme: str, pictures: dict[str, bytes]) -> bytes:
    """Put the pictures side by side."""
    figures = "".join(
        f"<figure><figcaption>{name.replace('-', ' ')}</figcaption>"
        f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}"></figure>'
        for name, picture in pictures.items()
    )
    page = await browser.new_page(viewport={"width": 1170, "height": 800})
    await page.set_content(_SHEET.format(figures=figures, **_COLOURS[theme]))
    try:
        return await page.screenshot(full_page=True)
    finally:
        await page.close()


async def take(each: Path | None) -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as folder:
        async with gallery(Path(folder)) as place, browsing() as browser:
            for theme in _THEMES:
                pictures = {}
                async with visiting(browser, color_scheme=theme) as phone:
                    page = await phone.new_page()
                    for scene in SCENES:
                        await visit(page, place, scene)
                        pictures[scene.name] = await page.screenshot()
                if each:
                    for name, picture in pictures.items():
                        (each / f"{name}-{theme}.png").write_bytes(picture)
                    desk = {"width": 1280, "height": 800}
                    async with visiting(browser, color_scheme=theme, viewport=desk) as screen:
                        page = await screen.new_page()
                        for scene in SCENES:
                            await visit(page, place, scene)
                            path = each / f"{scene.name}-desk-{theme}.png"
                            await page.screenshot(path=path)
                else:
                    picture = await sheet(browser, theme, pictures)
                    (PICTURES / f"visitor-{theme}.png").write_bytes(picture)
                    if theme == "light":
                        (PICTURES / "ready.png").write_bytes(pictures["ready"])
                        (PICTURES / "executed.png").write_bytes(pictures["executed"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Phone pictures of {WIDTH}x{HEIGHT}.")
    parser.add_argument("folder", nargs="?", type=Path, help="every page as a file of its own")
    asyncio.run(take(parser.parse_args().folder))
