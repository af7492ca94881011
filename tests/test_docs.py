"""What is written for people is true: links lead somewhere, commands and YAML are what they say."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from otsd.actionfile import read_file
from otsd.cli import parser
from otsd.settings import schema

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

_HERE_DOCUMENT = re.compile(r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_otsd_command_is_one(page: Path) -> None:
    for block in blocks(page, "sh"):
        commands = _HERE_DOCUMENT.sub("", block).replace("\\\n", " ")
        for line in commands.splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "otsd":
                parser.build(schema()).parse_args(words[1:])  # exits, and so fails, at wrong usage


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_script_and_file_that_is_named_exists(page: Path) -> None:
    for block in blocks(page, "sh"):
        for name in re.findall(r"(?:^|\s)((?:scripts|docs|tests|benchmarks)/[\w./-]+)", block):
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_toml_and_actions_file_can_be_read(page: Path) -> None:
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    texts = [text for block in blocks(page, "sh") for _, _, text in _HERE_DOCUMENT.findall(block)]
    for text in [*texts, *blocks(page, "yaml")]:
        assert read_file(text)


def test_the_docs_are_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in readme] == []
