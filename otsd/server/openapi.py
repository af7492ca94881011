"""The OpenAPI document of the admin API, generated from its routes and models.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from otsd import __version__
from otsd.core.access import Scope
from otsd.core.actions import NAME
from otsd.core.tokens import COMMENT_LENGTH
from otsd.payloads import REQUEST_ID
from otsd.server import shapes
from otsd.server.api import MOST_DAYS
from otsd.server.handling import MOST_ITEMS, SOME_ITEMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from otsd.server.api import Route

_REF: Final = "#/components/schemas/{model}"
_PLACES: Final = re.compile(r"\{(\w+)\}")
_PROBLEMS: Final = {
    400: "The request, or its JSON, cannot be read.",
    401: "Nobody we know.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    409: "The state of things forbids it.",
    413: "The body is too large.",
    421: "This is not the address of the admin page.",
    422: "Values are wrong, or not known; every one is listed.",
    429: "Too many event streams.",
    500: "An error that nobody expected.",
    502: "Home Assistant answered with an error.",
    503: "Home Assistant or the store cannot be used at the moment.",
    504: "Home Assistant was asked, and its answer never came.",
}
# a caller who is not known, or not allowed to; a parameter that there is not; a store that fails
_OF_EVERY_OPERATION: Final = (400, 401, 403, 421, 422, 500, 503)
_OF_A_BODY: Final = (413,)
_QUERY: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_ITEMS, "default": SOME_ITEMS},
    "cursor": {
        "type": "string",
        "pattern": r"^[0-9]{1,18}$",
        "description": "The value of next in the page before.",
    },
    "state": {"type": "string"},
    "action": {"type": "string", "description": "The name of an action."},
    "token": {"type": "string", "description": "The id of a token."},
    "q": {
        "type": "string",
        "maxLength": COMMENT_LENGTH,
        "pattern": r"^[^\u0000]*$",
        "description": "A part of the comment or of the id.",
    },
    "days": {"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": 28},
    "dry_run": {
        "type": "boolean",
        "default": False,
        "description": "Whether to say what would become of it, and change nothing.",
    },
    "brief": {
        "type": "boolean",
        "default": False,
        "description": "Whether to list only the tokens of which there is something to note.",
    },
    "force": {
        "type": "boolean",
        "default": False,
        "description": "Whether to revoke the tokens that use it.",
    },
}
# by the folder that the place is in
_NAMED: Final[dict[str, dict[str, Any]]] = {
    "actions": {"type": "string", "pattern": f"^{NAME.pattern}$", "examples": ["open-door"]},
    "tokens": {"type": "string", "pattern": "^[a-z0-9]{1,64}$", "examples": ["k7m2qx4d"]},
    "submissions": {"type": "integer", "minimum": 1, "examples": [41]},
    "api-keys": {"type": "string", "pattern": "^[a-z0-9]{1,64}$", "examples": ["4f1d2c9a07"]},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of these routes."""
    models = {route.body for route in routes if route.body is not None}
    answers = {route.answer: model_of(route.answer) for route in routes if route.answer}
    refs, schemas = models_json_schema(
        [
            *((model, "validation") for model in sorted(models, key=lambda each: each.__name__)),
            *((answers[name], "serialization") for name in sorted(answers)),
            (shapes.Problem, "serialization"),
        ],
        ref_template=_REF,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        body = None if route.body is None else refs[route.body, "validation"]
        answer = None if route.answer is None else refs[answers[route.answer], "serialization"]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, body, answer)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "otsd",
            "version": __version__,
            "description": "Actions, tokens and submissions of the one time service daemon.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "session": {"type": "apiKey", "in": "cookie", "name": "otsd_session"},
            },
        },
    }


def model_of(name: str) -> type[BaseModel]:
    """Return the model of a name such as ``Link`` or ``Listing[ListedToken]``."""
    outer, _, inner = name.rstrip("]").partition("[")
    model: Any = getattr(shapes, outer)
    found: type[BaseModel] = model[getattr(shapes, inner)] if inner else model
    return found


def _operation(
    route: Route, body: dict[str, Any] | None, answer: dict[str, Any] | None
) -> dict[str, Any]:
    scopes = [scope.value for scope in Scope if scope is Scope.ADMIN or scope in route.scopes]
    parameters = [
        {
            "name": place,
            "in": "path",
            "required": True,
            "schema": _NAMED[route.path.split("/")[1]],
        }
        for place in _PLACES.findall(route.path)
    ]
    for query in route.query:
        schema = dict(_QUERY[query])
        if query == "state" and route.states is not None:
            schema["enum"] = [state.value for state in route.states]
        parameters.append({"name": query, "in": "query", "schema": schema})
    if route.repeatable:
        key = {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": key})
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    fails = {*_OF_EVERY_OPERATION, *route.fails, *(_OF_A_BODY if body is not None else ())}
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": (route.handler.__doc__ or "").partition("\n")[0],
        "description": f"API keys with the scope {' or '.join(scopes)} may do this.",
        "parameters": parameters,
        "responses": {
            **{str(status): _success(route, status, answer) for status in route.statuses},
            **{
                str(status): {"description": _PROBLEMS[status], "content": problem}
                for status in sorted(fails)
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation


def _success(route: Route, status: int, answer: dict[str, Any] | None) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if answer is not None:
        success["content"] = {"application/json": {"schema": answer}}
    elif route.kind == "application/json":
        success["content"] = {route.kind: {"schema": {"type": "object"}}}
    elif route.kind is not None:
        success["content"] = {route.kind: {"schema": {"type": "string"}}}
    if status == HTTPStatus.CREATED:
        where = {"description": "Where it is.", "required": True, "schema": {"type": "string"}}
        success["headers"] = {"Location": where}
    return success
