"""What the admin API answers, as models: for the OpenAPI document, and for the tests to hold it to.

Nothing here runs: `otsd.payloads` makes the answers.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from otsd.core.access import Scope
from otsd.core.actions import Reach
from otsd.core.imports import ImportOutcome
from otsd.core.ports import ConnectionState
from otsd.core.tokens import SubmissionState, TokenState

Item = TypeVar("Item")


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Shape):
    """What went wrong (RFC 9457); ``code`` is for programs, ``errors`` lists faults by place."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError]


class ProblemError(_Shape):
    """One thing wrong with a request."""

    loc: list[str | int]
    msg: str


class Listing(_Shape, Generic[Item]):
    """A page of a list, newest first; ``next`` is the cursor of the following one."""

    items: list[Item]
    next: str | None


class All(_Shape, Generic[Item]):
    """A list that has no pages."""

    items: list[Item]


class Connection(_Shape):
    """How a connection stands, since when, and its last fault in plain words."""

    state: ConnectionState
    since: datetime | None
    error: str | None
    version: str | None


class Counts(_Shape):
    """How many there are; ``remaining_uses`` is null while an active token has no limit."""

    actions: int
    tokens: int
    active_tokens: int
    remaining_uses: int | None
    submissions: int
    running_submissions: int
    waiting_events: int
    waiting_notifications: int


class Status(_Shape):
    """How otsd stands."""

    version: str
    home_assistant: Connection
    mqtt: Connection
    counts: Counts
    event_error: str | None
    notification_error: str | None


class Via(StrEnum):
    """How somebody came in."""

    HOME_ASSISTANT = "home_assistant"
    INGRESS = "ingress"
    API_KEY = "api_key"
    HOME_ASSISTANT_TOKEN = "home_assistant_token"  # noqa: S105 - a way in, no password
    SOCKET = "socket"


class CallingUser(_Shape):
    """Who calls; a program has no id."""

    id: str | None
    name: str


class CredentialSource(StrEnum):
    """Where otsd's own credential comes from."""

    SUPERVISOR = "supervisor"
    TOKEN = "token"  # noqa: S105 - likewise
    LOGIN = "login"
    NONE = "none"


class SessionHome(_Shape):
    """Home Assistant, for a page."""

    configured: CredentialSource
    url: str


class Session(_Shape):
    """Who calls, and what a page needs to know once."""

    user: CallingUser
    via: Via
    scope: Scope
    can_log_out: bool
    version: str
    title: str
    base_url: str
    time_zone: str | None
    home_assistant: SessionHome


class Defaults(_Shape):
    """What a token gets when its maker says nothing."""

    max_uses: int | None
    expires_in: str | None


class ListedAction(_Shape):
    """An action; its YAML is for administrators alone."""

    name: str
    title: str
    yaml: str | None = None
    defaults: Defaults
    created_at: datetime | None
    updated_at: datetime | None


class SavedAction(ListedAction):
    """An action as it was saved, with what Home Assistant does not have at the moment."""

    warnings: list[str]


class ActsOn(_Shape):
    """One thing that an action acts on, and how it is now."""

    kind: Reach
    id: str
    name: str | None
    state: str | None


class Validation(_Shape):
    """What an action calls and what it acts on."""

    valid: bool
    warnings: list[str]
    services: list[str]
    targets: list[ActsOn]


class Ran(_Shape):
    """What Home Assistant said of an action that was run."""

    state: SubmissionState
    context_id: str | None
    response: Any


class ListedToken(_Shape):
    """A token; never its code."""

    id: str
    action: str
    comment: str
    max_uses: int | None
    uses_left: int | None
    state: TokenState
    valid_from: datetime | None
    expires_at: datetime | None
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    device: bool | None
    weak: bool = False


class MintedToken(ListedToken):
    """A token with its link."""

    url: str


class ImportCounts(_Shape):
    """How many entries of a file have which outcome."""

    taken: int
    changed: int
    known: int
    refused: int


class FoundAction(_Shape):
    """An action of another program; ``source`` is what it is called there."""

    source: str
    name: str | None
    title: str | None
    yaml: str | None
    outcome: ImportOutcome
    notes: list[str]
    warnings: list[str]


class FoundToken(_Shape):
    """A token of another program, by its number; it has an id once it is taken."""

    number: int
    id: str | None
    action: str | None
    comment: str | None
    max_uses: int | None
    uses_left: int | None
    expires_at: datetime | None
    outcome: ImportOutcome
    notes: list[str]


class Import(_Shape):
    """What became of a file, or would; never a code."""

    dry_run: bool
    counts: ImportCounts
    actions: list[FoundAction]
    tokens: list[FoundToken]


class ImportOffer(Import):
    """A file that lies there to be imported; ``digest`` names what was seen."""

    path: str
    digest: str
    modified_at: datetime


class Link(_Shape):
    """A token's link."""

    url: str


class ListedSubmission(_Shape):
    """A submission; ``spent`` says whether its use is gone."""

    id: int
    token_id: str
    action: str
    state: SubmissionState
    reason: str | None
    started_at: datetime
    finished_at: datetime | None
    uses_left: int | None
    spent: bool
    error: str | None
    remote_ip: str | None
    user_agent: str | None
    context_id: str | None


class Day(_Shape):
    """The submissions that began on a day, by outcome."""

    day: date
    executed: int
    failed: int
    unconfirmed: int


class ServiceField(_Shape):
    """A field of the data of one of Home Assistant's actions."""

    name: str
    description: str | None
    required: bool
    example: Any


class Service(_Shape):
    """One of Home Assistant's actions."""

    name: str
    title: str | None
    description: str | None
    fields: list[ServiceField]
    target: bool


class Entity(_Shape):
    """One of Home Assistant's entities."""

    entity_id: str
    name: str | None
    state: str


class ListedKey(_Shape):
    """An API key, without its secret."""

    id: str
    name: str
    scope: Scope
    actions: list[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


class CreatedKey(ListedKey):
    """A new API key: the only answer with the secret."""

    key: str
