"""What is written for people hangs together: links lead somewhere, every page can be found.

That its commands run and its examples can be read is seen to in ``tests/docs``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def documents(text: str) -> list[Any]:
    """Read JSON, one after the other."""
    found = []
    while text := text.strip():
        one, end = json.JSONDecoder().raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield where a page leads to within the repository: a file, and a heading of it."""
    for target in re.findall(r'(?:\]\(|src=")(?!https?:)([^)"]+)', page.read_text()):
        name, _, anchor = target.partition("#")
        yield name, anchor


def anchors(page: Path) -> set[str]:
    """Return what a link to a page can point at: its headings, as they stand in addresses."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words} | set(re.findall(r'<a id="(.*?)">', text))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    assert [name for name, _ in links(page) if not (page.parent / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    wrong = [
        (name, anchor)
        for name, anchor in links(page)
        if anchor and anchor not in anchors(page.parent / name if name else page)
    ]
    assert wrong == []


def test_every_page_is_in_the_index_and_the_index_is_in_the_readme() -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / name).resolve() for name, _ in links(index)}
    assert [page.name for page in index.parent.glob("*.md") if page not in {*named, index}] == []
    assert ("docs/README.md", "") in set(links(ROOT / "README.md"))
