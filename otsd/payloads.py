"""JSON at the edges: what programs send, read strictly, and what they get.

One set of bodies for the admin API, the command line and MQTT commands. Reading refuses unknown
keys, ``true`` where a number belongs, and anything too large; every fault is listed at once. Text
without a time zone is read in the zone that is passed as pydantic's validation context.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from operator import itemgetter
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from otsd import actionfile
from otsd.core.access import KEY_NAME_LENGTH, ApiKey, Scope
from otsd.core.actions import NAME, TITLE_LENGTH, Action, Defaults, Plan, Reach
from otsd.core.errors import Fault, Invalid
from otsd.core.imports import ImportedToken, ImportOutcome, ImportReport
from otsd.core.keys import KeyWish
from otsd.core.manage import UNSET, Edit, Mint
from otsd.core.ports import ConnectionStatus
from otsd.core.times import format_duration, isoformat, parse_duration, parse_time
from otsd.core.tokens import COMMENT_LENGTH, MOST_USES, Submission, Token

Body = TypeVar("Body", bound=BaseModel)

LARGEST_BODY: Final = 64 * 1024
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
REQUEST_ID_RULE: Final = "1 to 64 of A-Z, a-z, 0-9, _ . : and -"

_PREFIX: Final = "Value error, "


def _instant(value: object, info: ValidationInfo) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        msg = "a time is text such as 2026-12-01T18:00"
        raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
    return parse_time(value, info.context)  # type: ignore[arg-type]


def _length(value: object) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, str):
        msg = "a duration is text such as 2h or 7d"
        raise ValueError(msg)  # noqa: TRY004
    return parse_duration(value)


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        msg = "a name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit"
        raise ValueError(msg)
    return value


def _key_name(value: str) -> str:
    if not value.strip() or len(value) > KEY_NAME_LENGTH:
        msg = f"a name is text of 1 to {KEY_NAME_LENGTH} characters"
        raise ValueError(msg)
    return actionfile.check_text(value)


def _request_id(value: str) -> str:
    if not REQUEST_ID.fullmatch(value):
        raise ValueError(REQUEST_ID_RULE)
    return value


def _scope(value: object) -> object:
    # strict types take no text for an enum
    try:
        return Scope(str(value))
    except ValueError as error:
        raise ValueError(f"a scope is one of {', '.join(Scope)}") from error


# Patterns for the API's document, which other programs read: what they cannot say, such as that a
# time is past, the validators beside them refuse as well.
_LETTER: Final = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]"
_ANY_TEXT: Final = f"^{_LETTER}*$"
_SOME_TEXT: Final = rf"^{_LETTER}*[^\s\u0000-\u001f\u007f-\u009f]{_LETTER}*$"
_A_TIME: Final = (
    r"^\s*(?:19[7-9][0-9]|[2-8][0-9]{3})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,6})?)?"
    r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?\s*$"
)
_A_LENGTH: Final = r"^\s*(?:[0-9]{1,9}[dhms]){1,4}\s*$"


def _described(**schema: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema}, mode="validation")


def _or_null(**schema: object) -> WithJsonSchema:
    return WithJsonSchema(
        {"anyOf": [{"type": "string", **schema}, {"type": "null"}]}, mode="validation"
    )


Name = Annotated[
    str,
    AfterValidator(_name),
    _described(pattern=f"^{NAME.pattern}$", examples=["open-door"]),
]
Title = Annotated[
    str,
    AfterValidator(actionfile.check_title),
    _described(
        minLength=1, maxLength=TITLE_LENGTH, pattern=_SOME_TEXT, examples=["Open the front door"]
    ),
]
Comment = Annotated[
    str,
    StringConstraints(max_length=COMMENT_LENGTH),
    AfterValidator(actionfile.check_text),
    _described(maxLength=COMMENT_LENGTH, pattern=_ANY_TEXT, examples=["Plumber"]),
]
Yaml = Annotated[
    str,
    _described(
        description="What Home Assistant's Developer Tools show; up to 64 kB.",
        examples=["action: lock.unlock\ntarget:\n  entity_id: lock.front_door\n"],
    ),
]
Uses = Annotated[int, Field(ge=1, le=MOST_USES)]
Instant = Annotated[
    datetime | None,
    PlainValidator(_instant),
    _or_null(
        pattern=_A_TIME,
        examples=["2126-12-01T18:00:00+00:00"],
        description="ISO 8601; without a zone it is in Home Assistant's.",
    ),
]
KeyName = Annotated[
    str,
    AfterValidator(_key_name),
    _described(minLength=1, maxLength=KEY_NAME_LENGTH, pattern=_SOME_TEXT, examples=["calendar"]),
]
RequestId = Annotated[str, AfterValidator(_request_id)]
Length = Annotated[
    timedelta | None,
    PlainValidator(_length),
    _or_null(
        pattern=_A_LENGTH,
        examples=["1h30m"],
        description="Such as 90s, 15m, 2h, 7d or 1h30m.",
    ),
]


def _absent_is_not_null(schema: dict[str, Any]) -> None:
    # what is absent has a meaning of its own: programs that fill in defaults must not send null
    for value in schema["properties"].values():
        value.pop("default", None)


def _one_end(schema: dict[str, Any]) -> None:
    _absent_is_not_null(schema)
    schema["not"] = {"required": ["expires_at", "expires_in"]}


class _Body(BaseModel):
    """What every body has in common: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DefaultsBody(_Body):
    """What a token gets when its maker says nothing."""

    max_uses: Uses | None = 1
    expires_in: Length = None


class ReplaceAction(_Body):
    """An action without its name, which stands in the path."""

    title: Title
    yaml: Yaml
    defaults: DefaultsBody = DefaultsBody()

    def action(self, name: str) -> Action:
        """Return the action; raises `Invalid` when the YAML is no action."""
        try:
            plan = actionfile.read_plan(self.yaml)
        except ValueError as error:
            raise Invalid([Fault(("yaml",), str(error))], "invalid_action") from error
        defaults = Defaults(self.defaults.max_uses, self.defaults.expires_in)
        return Action(name, self.title, self.yaml, plan, defaults)


class CreateAction(ReplaceAction):
    """A new action."""

    name: Name


class ValidateAction(_Body):
    """YAML of which Home Assistant's opinion is wanted."""

    yaml: Yaml


class MintToken(_Body):
    """A new token; uses and end, where absent, are the action's defaults; null is without."""

    model_config = ConfigDict(json_schema_extra=_one_end)

    action: Name
    max_uses: Uses | None = None
    valid_from: Instant = None
    expires_at: Instant = None
    expires_in: Length = None
    comment: Comment = ""
    device: bool | None = None

    @model_validator(mode="after")
    def _check_end(self) -> MintToken:
        if {"expires_at", "expires_in"} <= self.model_fields_set:
            msg = "give expires_at or expires_in, not both"
            raise ValueError(msg)
        return self

    def mint(self, created_by: str) -> Mint:
        """Return the wish."""
        given = self.model_fields_set
        return Mint(
            action=self.action,
            created_by=created_by,
            comment=self.comment,
            max_uses=self.max_uses if "max_uses" in given else UNSET,
            valid_from=self.valid_from,
            expires_at=self.expires_at if "expires_at" in given else UNSET,
            expires_in=self.expires_in if "expires_in" in given else UNSET,
            device=self.device,
        )


class MintCommand(MintToken):
    """A new token wanted by MQTT, which always has a limit and an end."""

    request_id: RequestId | None = None

    @model_validator(mode="after")
    def _bounded(self) -> MintCommand:
        for name in ("max_uses", "expires_at", "expires_in"):
            if name in self.model_fields_set and getattr(self, name) is None:
                msg = (
                    f"{name} cannot be null, since a token minted by MQTT has a limit and an end: "
                    "give a value, or leave it out"
                )
                raise ValueError(msg)
        return self

    def mint(self, created_by: str) -> Mint:
        """Return the wish."""
        return replace(super().mint(created_by), bounded=True)


class OneTimeServiceFile(BaseModel):
    """The ``db.json`` of the One Time Service add-on, which `otsd.one_time_service` reads."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "anyOf": [
                {"required": [part], "properties": {part: {"type": "object"}}}
                for part in ("service_calls", "macros", "tokens")
            ]
        },
    )

    service_calls: dict[str, Any] | None = None
    macros: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None


class TakeOffer(_Body):
    """The file that was looked at, by its SHA-256, and may be imported as it was seen."""

    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class TokenCommand(_Body):
    """What is to be done, by MQTT, to one token."""

    token_id: str
    request_id: RequestId | None = None


class CreateKey(_Body):
    """A new API key."""

    name: KeyName
    scope: Annotated[Scope, BeforeValidator(_scope)]
    actions: list[Name] = Field(default_factory=list, max_length=500)
    expires_at: Instant = None
    expires_in: Length = None

    def wish(self) -> KeyWish:
        """Return the wish."""
        return KeyWish(
            self.name, self.scope, frozenset(self.actions), self.expires_at, self.expires_in
        )


class EditToken(_Body):
    """What is to change of a token; what is absent stays."""

    model_config = ConfigDict(json_schema_extra=_absent_is_not_null)

    comment: Comment = ""
    max_uses: Uses | None = None
    valid_from: Instant = None
    expires_at: Instant = None

    def edit(self) -> Edit:
        """Return the change."""
        return Edit(**{name: getattr(self, name) for name in self.model_fields_set})


def check_name(name: str) -> None:
    """Hold a name that stands in a path to the rule of one in a body; raises `Invalid`."""
    try:
        _name(name)
    except ValueError as error:
        raise Invalid([Fault(("name",), str(error))]) from error


def digest(body: BaseModel, verb: str = "") -> bytes:
    """Return what makes two requests the same, apart from their ids."""
    # pydantic warns of values that a PlainValidator has made; what it writes of them is right
    text = body.model_dump_json(exclude_unset=True, exclude={"request_id"}, warnings=False)
    return hashlib.sha256(f"{verb}{text}".encode()).digest()


def read(body: type[Body], text: bytes | str, zone: tzinfo) -> Body:
    """Read a JSON body.

    Raises:
        Invalid: with every fault; its code is ``bad_json`` when it is not JSON at all.

    """
    try:
        return body.model_validate_json(text, context=zone)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        code = "bad_json" if details[0]["type"] == "json_invalid" else "invalid"
        faults = [Fault(tuple(detail["loc"]), _in_our_words(detail)) for detail in details]
        raise Invalid(faults, code) from error


_WORDS: Final = {
    "missing": "this is needed",
    "extra_forbidden": "there is no such key",
    "string_type": "this must be text",
    "int_type": "this must be a whole number",
    "bool_type": "this must be true or false",
    "string_too_long": f"at most {COMMENT_LENGTH} characters",
    "greater_than_equal": f"this must be from 1 to {MOST_USES}",
    "less_than_equal": f"this must be from 1 to {MOST_USES}",
}


def _in_our_words(detail: ErrorDetails) -> str:
    return _WORDS.get(detail["type"], detail["msg"].removeprefix(_PREFIX))


# -- what programs get -----------------------------------------------------------------------


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else isoformat(moment)


def action_json(
    action: Action, warnings: Sequence[str] | None = None, *, with_yaml: bool = True
) -> dict[str, Any]:
    """Show an action; with warnings only where it was just saved."""
    length = action.defaults.expires_in
    shown: dict[str, Any] = {
        "name": action.name,
        "title": action.title,
        "yaml": action.yaml,
        "defaults": {
            "max_uses": action.defaults.max_uses,
            "expires_in": None if length is None else format_duration(length),
        },
        "created_at": _time(action.created_at),
        "updated_at": _time(action.updated_at),
    }
    if not with_yaml:
        del shown["yaml"]
    if warnings is not None:
        shown["warnings"] = list(warnings)
    return shown


def token_json(token: Token, now: datetime, url: str | None = None) -> dict[str, Any]:
    """Show a token; with its link only where it was just made."""
    shown: dict[str, Any] = {
        "id": token.id,
        "action": token.action,
        "comment": token.comment,
        "max_uses": token.max_uses,
        "uses_left": token.uses_left,
        "state": token.state(now).value,
        "valid_from": _time(token.valid_from),
        "expires_at": _time(token.expires_at),
        "created_at": _time(token.created_at),
        "created_by": token.created_by,
        "last_used_at": _time(token.last_used_at),
        "device": token.device,
    }
    if token.weak:
        shown["weak"] = True
    if url is not None:
        shown["url"] = url
    return shown


def import_json(report: ImportReport) -> dict[str, Any]:
    """Show what became of every entry of a file, or would."""
    return {
        "dry_run": report.dry_run,
        "counts": {outcome.value: report.counts[outcome] for outcome in ImportOutcome},
        "actions": [
            {
                "source": each.source,
                "name": each.action and each.action.name,
                "title": each.action and each.action.title,
                "yaml": each.action and each.action.yaml,
                "outcome": each.outcome.value,
                "notes": list(each.notes),
                "warnings": list(each.warnings),
            }
            for each in report.actions
        ],
        "tokens": [
            {
                "number": each.number,
                "id": _id(each, dry_run=report.dry_run),
                "action": each.token and each.token.action,
                "comment": each.token and each.token.comment,
                "max_uses": each.token and each.token.max_uses,
                "uses_left": each.token and each.token.uses_left,
                "expires_at": each.token and _time(each.token.expires_at),
                "outcome": each.outcome.value,
                "notes": list(each.notes),
            }
            for each in report.tokens
        ],
    }


def _id(each: ImportedToken, *, dry_run: bool) -> str | None:
    is_here = not dry_run or each.outcome is ImportOutcome.KNOWN
    return each.token.id if each.token is not None and is_here else None


def submission_json(submission: Submission) -> dict[str, Any]:
    """Show a submission."""
    return {
        "id": submission.id,
        "token_id": submission.token_id,
        "action": submission.action,
        "state": submission.state.value,
        "reason": submission.reason,
        "started_at": _time(submission.started_at),
        "finished_at": _time(submission.finished_at),
        "uses_left": submission.uses_left,
        "spent": submission.spent,
        "error": submission.error,
        "remote_ip": submission.remote_ip,
        "user_agent": submission.user_agent,
        "context_id": submission.context_id,
    }


def connection_json(status: ConnectionStatus) -> dict[str, Any]:
    """Show how a connection stands."""
    return {
        "state": status.state.value,
        "since": _time(status.since),
        "error": status.error,
        "version": status.version,
    }


def key_json(key: ApiKey) -> dict[str, Any]:
    """Show an API key, without the secret that nobody has any more."""
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope.value,
        "actions": sorted(key.actions) if key.scope is Scope.MINT else None,
        "created_at": _time(key.created_at),
        "created_by": key.created_by,
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
    }


def validation_json(
    plan: Plan, warnings: Sequence[str], states: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Show what an action calls and what it acts on, with the ``states`` by entity."""

    def attributes(entity: str) -> Mapping[str, Any]:
        return states.get(entity, {}).get("attributes") or {}

    return {
        "valid": True,
        "warnings": list(warnings),
        "services": list(plan.services),
        "targets": [
            {
                "kind": target.reach.value,
                "id": target.id,
                "name": _words(attributes(target.id).get("friendly_name")),
                "state": states.get(target.id, {}).get("state"),
            }
            for target in {(each.reach, each.id): each for each in plan.targets}.values()
            if target.reach is not Reach.ENTITY or target.id
        ],
    }


def service_list(services: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Show Home Assistant's actions as a picker needs them, by name."""
    return [
        {
            "name": f"{domain}.{name}",
            "title": _words(service.get("name")),
            "description": _words(service.get("description")),
            "fields": [
                {
                    "name": field,
                    "description": _words(about.get("description")),
                    "required": bool(about.get("required")),
                    "example": about.get("example"),
                }
                for field, about in _fields(service.get("fields") or {})
            ],
            "target": bool(service.get("target")),
        }
        for domain, names in sorted(services.items())
        for name, service in sorted(names.items())
    ]


def _fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, given in fields.items():
        about = given or {}  # an integration may say nothing of a field
        if isinstance(about.get("fields"), dict):  # a section, which has fields of its own
            yield from _fields(about["fields"])
        else:
            yield name, about


def _words(value: object) -> str | None:
    # integrations, and owners in their customizations, may give a number
    return None if value is None or value == "" else str(value)


def entity_list(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Show Home Assistant's entities as a picker needs them, by id."""
    return sorted(
        (
            {
                "entity_id": state["entity_id"],
                "name": _words((state.get("attributes") or {}).get("friendly_name")),
                "state": state["state"],
            }
            for state in states
        ),
        key=itemgetter("entity_id"),
    )


SUBMISSION_COLUMNS: Final = (
    "id",
    "token_id",
    "action",
    "state",
    "reason",
    "started_at",
    "finished_at",
    "uses_left",
    "spent",
    "error",
    "remote_ip",
    "user_agent",
    "context_id",
)
# What makes a cell a formula, also as a wide letter and after blanks (OWASP, "CSV Injection").
# Also after what separates cells elsewhere: where the comma is decimal, spreadsheets open a file
# of commas at its semicolons.
_RUN_BY_SPREADSHEETS: Final = re.compile(
    r"""((?:^|[;\t\r\n])[\s"']*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])"""
)


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Write rows of CSV (RFC 4180); what a spreadsheet would run has an apostrophe before it."""
    written = io.StringIO()
    csv.writer(written).writerows([_defused(cell) for cell in row] for row in rows)
    return written.getvalue().encode()


def _defused(cell: object) -> object:
    return _RUN_BY_SPREADSHEETS.sub(r"\1'", cell) if isinstance(cell, str) else cell


def list_json(items: Sequence[Mapping[str, Any]], after: int | None) -> dict[str, Any]:
    """Show a page of a list; ``next`` is the cursor of the following one."""
    return {"items": list(items), "next": None if after is None else str(after)}
