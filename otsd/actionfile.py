"""Actions as people write them: Home Assistant's YAML, read as Home Assistant reads it.

YAML 1.1 by a safe loader, at most 64 kB, bounded in depth and in what its aliases unfold to, and
nothing that JSON, Home Assistant's wire format, cannot carry. ``!secret`` and ``!include`` belong
to files of Home Assistant's own and are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import yaml

from otsd.core.actions import NAME, TITLE_LENGTH, Action, Defaults, Plan, plan
from otsd.core.errors import Fault, Invalid
from otsd.core.times import parse_duration
from otsd.core.tokens import MOST_USES

SIZE: Final = 64 * 1024
_DEEPEST: Final = 64
_MOST_NODES: Final = 20_000
_LARGEST: Final = 2**63
_RARE_BREAKS: Final = re.compile("[\x85\u2028\u2029]")

_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_CLoader):  # type: ignore[misc]
    """The safe loader, with Home Assistant's own tags named as what they are."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._merged = 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:  # noqa: FBT001, FBT002
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            # a constructor of PyYAML's met text that its tag does not allow, such as 2026-13-45
            kind = node.tag.rpartition(":")[2]
            what = f"{str(node.value)[:40]!r} cannot be read as {kind}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # merge keys (<<) copy where other aliases only refer, so they are counted as they unfold
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > _MOST_NODES:
            what = f"it unfolds to more than {_MOST_NODES} values"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)

    def foreign(self, node: yaml.Node) -> object:
        tag = node.tag
        what = (
            f"{tag} works only in Home Assistant's own files; write the value here"
            if tag in ("!secret", "!include")
            else f"the tag {tag} is not known here"
        )
        raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)


_Loader.add_constructor(None, _Loader.foreign)


def load(text: str) -> object:
    """Read one YAML document as data that JSON can carry; dates become ISO 8601 text.

    Raises:
        ValueError: with a sentence that names the line where there is one.

    """
    if len(text.encode("utf-8", "surrogatepass")) > SIZE:
        msg = f"it is larger than {SIZE // 1024} kB"
        raise ValueError(msg)
    try:
        depth = 0
        # first the events alone: the loader would recurse as deep as the text is nested
        for event in yaml.parse(text, Loader=_CLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                msg = f"it is nested more than {_DEEPEST} levels deep"
                raise ValueError(msg)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        msg = f"{where}{error.problem or error.context or 'this is not YAML'}"
        raise ValueError(msg) from error
    except (yaml.YAMLError, UnicodeError) as error:
        msg = f"this is not YAML: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
    return _Checker().plain(document, ())


def dump(document: object) -> str:
    """Write data as YAML that `load` reads the same."""
    text = _written(document, allow_unicode=True)
    # PyYAML folds them in a key, unless it escapes whatever is not ASCII
    return _written(document, allow_unicode=False) if _RARE_BREAKS.search(text) else text


def _written(document: object, *, allow_unicode: bool) -> str:
    return str(
        yaml.dump(
            document, Dumper=_CDumper, sort_keys=False, allow_unicode=allow_unicode, width=100
        )
    )


class _Checker:
    """Walks a document once, so that aliases cannot unfold without end."""

    def __init__(self) -> None:
        self._nodes = 0

    def plain(self, node: object, inside: tuple[int, ...]) -> object:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            msg = f"it unfolds to more than {_MOST_NODES} values"
            raise ValueError(msg)
        if len(inside) > _DEEPEST:  # aliases nest deeper than the text does
            msg = f"it is nested more than {_DEEPEST} levels deep"
            raise ValueError(msg)
        if id(node) in inside:
            msg = "an alias (*) contains itself"
            raise ValueError(msg)
        if isinstance(node, dict):
            return {
                self._key(key): self.plain(value, (*inside, id(node)))
                for key, value in node.items()
            }
        if isinstance(node, list):
            return [self.plain(item, (*inside, id(node))) for item in node]
        return _scalar(node)

    @staticmethod
    def _key(key: object) -> str:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            msg = f"the key {str(key)[:40]!r} must be text; put it in quotes"
            raise ValueError(msg)  # noqa: TRY004 - one kind of error for whatever is wrong
        return str(_scalar(key))


def _scalar(value: object) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            msg = "it has half a surrogate pair in a text"
            raise ValueError(msg) from None
        return value
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{value} is not a number that Home Assistant takes"
        raise ValueError(msg)
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        msg = "a whole number is too large: Home Assistant's numbers have 64 bits"
        raise ValueError(msg)
    if isinstance(value, date):  # and datetime, which is one
        return value.isoformat()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    msg = f"a {type(value).__name__} has no place in an action"
    raise ValueError(msg)


def read_plan(text: str) -> Plan:
    """Read the YAML of one action; raises `ValueError` as `load` and `plan` do."""
    return plan(load(text))


# -- the file of ``otsd action apply`` -------------------------------------------------------

_ONE_STEP: Final = "action"
_STEPS: Final = "sequence"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One action of a file, as it stands there."""

    name: str
    body: Mapping[str, object]


def read_file(text: str) -> list[Action]:
    """Read a file of actions: a mapping, like Home Assistant's ``scripts.yaml``, of names.

    Raises:
        Invalid: with every fault of the file.

    """
    try:
        document = load(text)
        if not isinstance(document, dict) or not document:
            msg = "an actions file is a mapping of names to actions"
            raise ValueError(msg)  # noqa: TRY301
    except ValueError as error:
        raise Invalid([Fault((), str(error))]) from error
    faults: list[Fault] = []
    actions = []
    for name, body in document.items():
        try:
            actions.append(_read_entry(name, body))
        except ValueError as error:
            faults.append(Fault((name[:64],), str(error)))
    if faults:
        raise Invalid(faults)
    return actions


def _read_entry(name: str, body: object) -> Action:
    if not NAME.fullmatch(name):
        msg = "a name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit"
        raise ValueError(msg)
    if not isinstance(body, dict):
        msg = "an action is a mapping with action: or sequence:"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for whatever is wrong
    rest = dict(body)
    defaults = read_defaults(rest.pop("defaults", {}))
    titles = [rest.pop(key) for key in ("title", "alias") if key in rest]
    title = check_title(titles[0] if titles else name)
    if _STEPS in rest:
        # what a script of Home Assistant may have beside its steps and what changes nothing here
        steps = rest.pop(_STEPS)
        for harmless in ("description", "icon"):
            rest.pop(harmless, None)
        if rest:
            msg = f"{next(iter(rest))!r} cannot stand beside sequence:"
            raise ValueError(msg)
        document = steps
    else:
        document = rest
    return Action(name, title, dump(document), plan(document), defaults)


def check_title(title: object) -> str:
    """Return a title that can be shown: 1 to 200 characters, no control characters."""
    if not isinstance(title, str) or not title.strip() or len(title) > TITLE_LENGTH:
        msg = f"a title is text of 1 to {TITLE_LENGTH} characters"
        raise ValueError(msg)
    return check_text(title)


def check_text(text: str) -> str:
    """Return text that has no control characters and no halves of surrogate pairs."""
    if any(
        (not letter.isprintable() and letter not in "\u200d\u200c\u00ad" and not letter.isspace())
        or letter in "\n\r\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
        for letter in text
    ):
        msg = "control characters and line breaks are not allowed"
        raise ValueError(msg)
    return text


def read_defaults(document: object) -> Defaults:
    """Read ``{max_uses: 1, expires_in: 7d}``; ``null`` is without limit, or without end."""
    if not isinstance(document, dict):
        msg = "defaults: is a mapping of max_uses and expires_in"
        raise ValueError(msg)  # noqa: TRY004
    unknown = document.keys() - {"max_uses", "expires_in"}
    if unknown:
        msg = f"defaults: has no key {min(unknown)!r}, only max_uses and expires_in"
        raise ValueError(msg)
    uses = document.get("max_uses", 1)
    if uses is not None and (
        isinstance(uses, bool) or not isinstance(uses, int) or not 1 <= uses <= MOST_USES
    ):
        msg = f"max_uses is a whole number from 1 to {MOST_USES}, or null for no limit"
        raise ValueError(msg)
    length = document.get("expires_in")
    if length is not None and not isinstance(length, str):
        msg = "expires_in is a duration such as 7d, or null for no end"
        raise ValueError(msg)
    return Defaults(uses, None if length is None else parse_duration(length))
