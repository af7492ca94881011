"""Reading the pages: what stands in fences, and what follows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from tests.test_docs import PAGES, ROOT

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands in one fence; ``shown`` is the output that stands right below it."""

    page: str
    line: int
    language: str
    text: str
    shown: str | None = None

    @property
    def first(self) -> str:
        """Its first line, by which it is known."""
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name(page: Path) -> str:
    """Return how a page is called."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    for match, after in zip_longest(found, found[1:]):
        line = text.count("\n", 0, match.start()) + 1
        shown = None
        if after and after[1] == "text" and not text[match.end() : after.start()].strip():
            shown = after[2]
        yield Block(name(page), line, match[1], match[2], shown)


def every(*languages: str) -> list[Block]:
    """Return the blocks of all pages, or those that are written in one of the languages."""
    found = [each for page in PAGES for each in blocks(page)]
    return [each for each in found if not languages or each.language in languages]
