"""What is written for people is true: links lead somewhere, commands and YAML are what they say."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from otsd.actionfile import read_file
from otsd.cli import parser
from otsd.settings import schema

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# their YAML is Home Assistant's own, and tests of theirs do what it says
HOME_ASSISTANTS = ("mqtt.md", "automations.md")
# what is in fences: each is read by a test, but for pictures and what is printed; mqtt and conf are
# played in tests/mqtt/test_docs.py
LANGUAGES = {"", "text", "sh", "toml", "yaml", "yml", "json", "mqtt", "conf"}

_HERE_DOCUMENT = re.compile(r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """Return what a link to a page can point at: its headings, as they stand in addresses."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words} | set(re.findall(r'<a id="(.*?)">', text))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]*)\)", page.read_text())
    wrong = [
        (name, anchor)
        for name, anchor in links
        if anchor not in anchors(page.parent / name if name else page)
    ]
    assert wrong == []


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
    if page.name not in HOME_ASSISTANTS:
        texts += blocks(page, "yaml")
    for text in texts:
        assert read_file(text)


class _HomeAssistants(yaml.SafeLoader):
    """Reads Home Assistant's YAML, with the inputs of blueprints."""


def _input(loader: _HomeAssistants, node: yaml.Node) -> str:
    assert isinstance(node, yaml.ScalarNode)
    return str(loader.construct_scalar(node))


_HomeAssistants.add_constructor("!input", _input)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_yaml_and_json_can_be_read(page: Path) -> None:
    for block in blocks(page, "ya?ml"):
        assert yaml.load(block, _HomeAssistants)
    for block in blocks(page, "json"):
        assert documents(block)


def documents(text: str) -> list[Any]:
    """Read JSON, one after the other."""
    found = []
    while text := text.strip():
        one, end = json.JSONDecoder().raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_is_in_fences_is_of_a_kind_that_is_tested(page: Path) -> None:
    opened = re.findall(r"^```(\w*)\n.*?^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert set(opened) <= LANGUAGES


def test_the_docs_are_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in readme] == []
