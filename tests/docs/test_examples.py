"""Every example of the pages is read by what reads it: otsd, Home Assistant, and the like."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from otsd.actionfile import read_file
from otsd.settings import load
from tests.docs.pages import Block, every
from tests.real.home_assistant import HomeAssistant
from tests.test_docs import ROOT, documents

# Tests that read and play all that a page has in a language, which takes the whole page.
PLAYED: Final[Mapping[tuple[str, str], str]] = {
    ("docs/add-on.md", "yaml"): "tests/addon/test_files.py",
    ("docs/metrics.md", "yaml"): "tests/server/test_metrics.py",
    ("docs/mqtt.md", "conf"): "tests/mqtt/test_docs.py",
    ("docs/mqtt.md", "mqtt"): "tests/mqtt/test_docs.py",
    ("docs/mqtt.md", "yaml"): "tests/mqtt/test_docs.py",
    ("docs/reverse-proxy.md", "conf"): "tests/proxies/recipes.py",
    ("docs/reverse-proxy.md", "yml"): "tests/proxies/recipes.py",
}
READ: Final = {"toml", "yaml", "yml", "json"}
# A picture, a tree, usage, or a Caddyfile, which has no colours anywhere.
DRAWN: Final = {"", "text", "sh"}


def read_here(*languages: str) -> list[Block]:
    return [each for each in every(*languages) if (each.page, each.language) not in PLAYED]


YAML: Final = [(block, yaml.safe_load(block.text)) for block in read_here("yaml", "yml")]
AUTOMATIONS: Final = [each for each in YAML if "triggers" in each[1]]
ACTIONS: Final = [block for block, content in YAML if "triggers" not in content]


def test_what_is_in_fences_is_of_a_kind_that_is_read() -> None:
    known = READ | DRAWN
    unread = [each for each in every() if each.language not in known]
    assert [str(each) for each in unread if (each.page, each.language) not in PLAYED] == []


def test_every_test_that_plays_a_page_is_there() -> None:
    there = {(each.page, each.language) for each in every()}
    assert PLAYED.keys() - there == set()
    for (page, _), test in PLAYED.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize("block", read_here("toml"), ids=str)
def test_every_piece_of_configuration_is_one(block: Block, tmp_path: Path) -> None:
    text = block.text.replace("/run/secrets", str(tmp_path))
    for name in re.findall(r'^\w+_file = "(.*)"', text, re.MULTILINE):
        (tmp_path / name).write_text("a secret")
    (tmp_path / "config.toml").write_text(text)
    assert load(config=tmp_path / "config.toml", environ={})


@pytest.mark.parametrize("block", ACTIONS, ids=str)
def test_every_actions_file_is_one(block: Block) -> None:
    assert read_file(block.text)


@pytest.mark.real
async def test_every_automation_is_one_for_home_assistant(real_home: HomeAssistant) -> None:
    assert AUTOMATIONS
    for block, content in AUTOMATIONS:
        parts = ("triggers", "conditions", "actions")
        assert content.keys() <= {"alias", *parts}, block
        verdicts: Any = await real_home.command(
            "validate_config", **{part: content[part] for part in parts if part in content}
        )
        assert {part: each["error"] for part, each in verdicts.items() if each["error"]} == {}, (
            block
        )


@pytest.mark.parametrize("block", read_here("json"), ids=str)
def test_every_document_is_json(block: Block) -> None:
    assert all(json.dumps(each) for each in documents(block.text))
