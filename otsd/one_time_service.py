"""Reads what the One Time Service add-on for Home Assistant keeps: its ``db.json``.

Every version of the format is read: at first the actions were called ``macros`` and a token could
be used once, later they are ``service_calls``, and tokens have ``uses_max`` and ``uses_left``.
People edit the file by hand. What of an entry has no place here is changed, and a note says so; an
entry that cannot be used is refused with a note; a file that is none is refused as a whole.

A code stands in no note and in no error: whoever reads those need not know the links.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otsd import actionfile
from otsd.core.actions import TITLE_LENGTH, Action, Reach
from otsd.core.codes import IMPORTED_LENGTH, Code, ImportedCodes
from otsd.core.errors import Fault, Invalid
from otsd.core.imports import FoundAction, FoundToken, ImportFile, RefusedToken, name_of
from otsd.core.times import truncate
from otsd.core.tokens import COMMENT_LENGTH, MOST_USES

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

LARGEST: Final = 64 * 1024 * 1024
_MOST_VALUES: Final = 1_000_000  # a token has six
WHERE: Final = Path("/share/one-time-service/db.json")
"""Where that add-on keeps it, and every other add-on can write."""

_ACTIONS: Final = ("service_calls", "macros")
_PARTS: Final = (*_ACTIONS, "tokens")
_NAME: Final = "service_call_name"
_OLD_NAME: Final = "macro_name"
_SERVICE: Final = ("service", "action")
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)
_MOST_SHOWN: Final = 10**12
_FAR_TOO_LARGE: Final = 8 * actionfile.SIZE  # as JSON, which writes some bytes with six

_NO_OBJECT: Final = "it is not an object"
_TOO_DEEP: Final = "it is nested too deep"


class _Refused(Exception):
    """An entry cannot be used; ``str()`` is the note."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that lies there to be imported: what was seen of it is what its ``digest`` names."""

    content: bytes
    digest: str
    modified_at: datetime


def look(path: Path) -> Offer | None:
    """Return the file at a place where strangers may write, if there is one.

    Raises:
        Invalid: it cannot be read, or is no plain file (``invalid_import``).

    """
    try:
        with open(path, "rb", opener=_cautiously) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _damaged(f"{path} is no plain file")
            content = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise _damaged(f"{path} is larger than {LARGEST // 1024**2} MB")
    # a file system may say anything
    modified_at = datetime.fromtimestamp(min(max(status.st_mtime, 0), _LAST.timestamp()), UTC)
    return Offer(content, hashlib.sha256(content).hexdigest(), modified_at)


def _cautiously(path: str, flags: int) -> int:
    # a link could lead to a file of ours, and a pipe would never end
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read(content: bytes) -> ImportFile:
    """Read a file.

    Raises:
        Invalid: it is damaged, or another file (``invalid_import``).

    """
    # before it is read: a file of nothing but empty lists becomes 30 times as large in memory
    if content.count(b",") > _MOST_VALUES:
        raise _damaged("there is more in it than that add-on can have made")
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        # a parser's message shows where, never what stands there
        raise _damaged(f"it is not JSON: {_place(error)}") from error
    if not isinstance(document, dict):
        raise _damaged("it is not an object with service_calls and tokens")
    parts = {name: document[name] for name in _PARTS if document.get(name) is not None}
    if not parts:
        raise _damaged("it has neither service_calls nor tokens, and may be another file")
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise _damaged(f"its {name} are not an object")
    actions, tokens = _first(parts, _ACTIONS, {}), parts.get("tokens", {})
    return ImportFile(
        [_action(source, entry, tokens.keys()) for source, entry in actions.items()],
        [_token(number, code, entry) for number, (code, entry) in enumerate(tokens.items(), 1)],
    )


def _damaged(why: str) -> Invalid:
    return Invalid([Fault((), f"This is no file of the One Time Service add-on: {why}.")], _CODE)


_CODE: Final = "invalid_import"


def _constant(name: str) -> None:
    msg = f"{name} is not a value of JSON"
    raise ValueError(msg)


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    return "a number in it is none, or is too long"


def _first(entry: Mapping[str, Any], names: Sequence[str], default: object = None) -> Any:  # noqa: ANN401 - JSON
    return next((entry[name] for name in names if entry.get(name) is not None), default)


# -- actions ---------------------------------------------------------------------------------


def _action(source: str, entry: object, codes: Container[str]) -> FoundAction:
    notes: list[str] = []
    if any(code[0] in codes for code in _A_CODE.finditer(source)):
        return FoundAction(source, None, ("its name has the code of a link: name it otherwise",))
    try:
        step = _step(entry)
        shown = _without(step, codes)
        text = _yaml(source, shown)
        plan = actionfile.read_plan(text)
    except (_Refused, ValueError) as error:
        return FoundAction(source, None, (str(error),))
    except RecursionError:
        return FoundAction(source, None, (_TOO_DEEP,))
    title = _plain(source[:TITLE_LENGTH]).strip() or "Action"
    if title != source:
        notes.append(f"its title is now {title!r}")
    if shown != step:
        notes.append("it had the code of a link, which is left out")
    if plan.call is None:
        notes.append("it has a template, which is rendered here and was not before")
    return FoundAction(source, Action(name_of(source), title, text, plan), tuple(notes))


def _without(value: Any, codes: Container[str]) -> Any:  # noqa: ANN401 - JSON
    """Return it with each of the codes left out, wherever it stands."""
    match value:
        case str():
            return _A_CODE.sub(lambda code: _HIDDEN if code[0] in codes else code[0], value)
        case list():
            return [_without(each, codes) for each in value]
        case dict():
            return {_without(key, codes): _without(each, codes) for key, each in value.items()}
    return value


def _yaml(source: str, step: dict[str, Any]) -> str:
    try:
        source.encode()
        size = len(json.dumps(step, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        raise _Refused("it has half of a character in a text") from error
    # what is far too large takes minutes to write
    if size > _FAR_TOO_LARGE:
        raise _Refused(f"it is larger than {actionfile.SIZE // 1024} kB")
    return actionfile.dump(step)


def _step(entry: object) -> dict[str, Any]:
    """Return an action's step as Home Assistant's own editor writes it: what it acts on apart."""
    if not isinstance(entry, dict):
        raise _Refused(_NO_OBJECT)
    service = _first(entry, _SERVICE)
    if not isinstance(service, str):
        raise _Refused("it names no service")
    data, target = entry.get("data") or {}, entry.get("target") or {}
    if not isinstance(data, dict) or not isinstance(target, dict):
        raise _Refused("its data are not an object")
    reaches = {reach.value for reach in Reach}
    target = {key: value for key, value in data.items() if key in reaches} | target
    data = {key: value for key, value in data.items() if key not in reaches}
    parts = {"action": service.strip(), "target": target, "data": data}
    return {key: value for key, value in parts.items() if value}


# -- tokens ----------------------------------------------------------------------------------


def _token(number: int, code: str, entry: object) -> FoundToken | RefusedToken:
    if not isinstance(entry, dict):
        return RefusedToken(number, (_NO_OBJECT,))
    if not ImportedCodes.has_form(code):
        return RefusedToken(number, ("its code is not 32 letters",))
    notes: list[str] = []
    try:
        max_uses, left = _uses(entry, notes)
        return FoundToken(
            number=number,
            source=_source(entry),
            code=Code(code),
            comment=_comment(entry.get("comment"), code, notes),
            max_uses=max_uses,
            uses_taken=max_uses - left,
            created_at=_created(entry.get("created")),
            expires_at=_expiry(entry.get("expires"), notes),
            notes=tuple(notes),
        )
    except _Refused as refused:
        return RefusedToken(number, (str(refused),))


def _source(entry: Mapping[str, Any]) -> str:
    if (source := entry.get(_NAME)) is None:
        source = entry.get(_OLD_NAME)
    if not isinstance(source, str):
        raise _Refused("it names no action")
    return source


def _uses(entry: Mapping[str, Any], notes: list[str]) -> tuple[int, int]:
    """Return how often a token could be used at first and can be now: what is left decides."""
    most, left = _whole(entry, "uses_max"), _whole(entry, "uses_left")
    if left is None:
        left = 1 if most is None else most
    kept = min(max(left, 0), MOST_USES)
    if kept != left:
        notes.append(f"its uses left were {_shown(left)}, and are {kept} now")
    fitting = min(max(1 if most is None else most, kept, 1), MOST_USES)
    if most is not None and most != fitting:
        notes.append(f"its uses in all were {_shown(most)}, and are {fitting} now")
    return fitting, kept


def _whole(entry: Mapping[str, Any], name: str) -> int | None:
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _Refused(f"its {name} is not a whole number")


def _shown(number: int) -> str:
    return str(number) if abs(number) <= _MOST_SHOWN else "far too many"


def _comment(comment: object, code: str, notes: list[str]) -> str:
    if comment is None:
        return ""
    if not isinstance(comment, str):
        notes.append("its comment was not text, and is left out")
        return ""
    is_cut = len(comment) > _MOST_OF_A_COMMENT
    comment = comment[:_MOST_OF_A_COMMENT]
    # people note their links there, and everybody who is told reads it
    hidden = _A_CODE.sub(_HIDDEN, comment.replace(code, _HIDDEN))
    if hidden != comment:
        notes.append("its comment had the code of a link, which is left out")
    plain = _plain(hidden)
    if plain != hidden:
        notes.append("its comment had line breaks or control characters, which are spaces now")
    if is_cut or len(plain) > COMMENT_LENGTH:
        notes.append(f"its comment was longer than {COMMENT_LENGTH} characters, and is cut")
    return plain[:COMMENT_LENGTH]


# all that can be in what is kept of one, however many codes are left out of it
_MOST_OF_A_COMMENT: Final = COMMENT_LENGTH * IMPORTED_LENGTH
_HIDDEN: Final = "…"
# whatever has the form of a code may be that of a link, also of one that was taken before
_A_CODE: Final = re.compile(rf"(?<![A-Za-z])[A-Za-z]{{{IMPORTED_LENGTH}}}(?![A-Za-z])")


def _plain(text: str) -> str:
    """Return text that can be shown, with a space for each character that otsd does not take."""
    return text.translate(_SPACES)


class _Spaces(dict[int, str]):
    """What each character is, asked once: there may be millions of them."""

    def __missing__(self, letter: int) -> str:
        try:
            self[letter] = actionfile.check_text(chr(letter))
        except ValueError:
            self[letter] = " "
        return self[letter]


_SPACES: Final = _Spaces()


def _created(value: object) -> datetime | None:
    try:
        return None if value is None else _moment(value)
    except ValueError:
        return None


def _expiry(value: object, notes: list[str]) -> datetime | None:
    if value is None:
        return None
    try:
        moment = _moment(value)
    except ValueError as error:
        raise _Refused("its expires is not a time") from error
    if moment >= _LAST:
        notes.append("it ended so far away that it has no end now")
        return None
    return moment


def _moment(value: object) -> datetime:
    """Read a time of Go's (RFC 3339, up to nine decimals)."""
    if not isinstance(value, str):
        msg = "not text"
        raise ValueError(msg)  # noqa: TRY004 - as for text that is no time
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        msg = "no zone"
        raise ValueError(msg)
    # a year that cannot be told in UTC is before or after everything that there is
    if moment.year < _FIRST.year:
        return _FIRST
    if moment.year >= _LAST.year:
        return _LAST
    return truncate(max(moment.astimezone(UTC), _FIRST))
