"""compose.yaml as Docker Compose reads it: variables filled in, then YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.container.image import ROOT

_VARIABLE: Final = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")


class Missing(Exception):
    """A variable that has to be set is not; ``str()`` is what the file says of it."""


def compose(variables: Mapping[str, str], text: str | None = None) -> Any:
    """Return the file's content as it is with these variables; ``text`` stands in for the file's."""
    text = (ROOT / "compose.yaml").read_text() if text is None else text
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]

    def value(found: re.Match[str]) -> str:
        name, kind, words = found.groups()
        if name is None:
            return "$"
        if not (given := variables.get(name, "")):
            if kind == "?":
                raise Missing(words)
            return words or ""
        return given

    return yaml.safe_load(_VARIABLE.sub(value, "\n".join(lines)))
