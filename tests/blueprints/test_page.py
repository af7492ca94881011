"""The page about the blueprints names everything that can be filled in, as it is named there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.blueprints.conftest import ROOT

PAGE = (ROOT / "docs" / "automations.md").read_text()
BLUEPRINTS = sorted((ROOT / "blueprints").glob("*/otsd/*.yaml"))
NAMES = [path.stem for path in BLUEPRINTS]


class _Loader(yaml.SafeLoader):
    """Reads ``!input`` as the name of the input."""


_Loader.add_constructor("!input", lambda loader, node: f"!input {node.value}")


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), _Loader)


@pytest.mark.parametrize("path", BLUEPRINTS, ids=NAMES)
def test_the_page_has_every_field_and_input(path: Path) -> None:
    content = read(path)
    name = content["blueprint"]["name"]
    assert f"[{name}](../{path.relative_to(ROOT)})" in PAGE
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (own,) = [each for each in section if each.startswith(f"{name}\n")]
    inputs = {**content["blueprint"]["input"], **content.get("fields", {})}
    named = {each["name"] for each in inputs.values()}
    assert set(re.findall(r"^\| ([A-Z][^|`]*) \|", own, re.MULTILINE)) | {"Base topic"} == named | {
        "Base topic"
    }


@pytest.mark.parametrize("path", BLUEPRINTS, ids=NAMES)
def test_every_input_is_used(path: Path) -> None:
    content = read(path)
    inputs = content.pop("blueprint")["input"]
    assert {f"!input {each}" for each in inputs} <= set(re.findall(r"!input \w+", str(content)))
