"""The OpenAPI document of the admin API, generated from its routes and models.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from otsd import __version__
from otsd.core.access import Scope
from otsd.server import shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from otsd.server.api import Route

_REF: Final = "#/components/schemas/{model}"
_VERBS: Final = re.compile(r"\{(\w+):([a-z|]+)\}")
_PLACES: Final = re.compile(r"\{(\w+)\}")
_PROBLEMS: Final = {
    "400": "The body is no JSON, or the request is not in order.",
    "401": "Nobody we know.",
    "403": "The caller may not do this.",
    "404": "There is no such thing.",
    "409": "The state of things forbids it.",
    "413": "The body is too large.",
    "421": "This is not the address of the admin page.",
    "422": "Values are wrong; every one is listed.",
    "429": "Too many event streams.",
    "500": "An error that nobody expected.",
    "502": "Home Assistant answered with an error.",
    "503": "Home Assistant or the store cannot be used at the moment.",
    "504": "Home Assistant did not answer: what ran is unknown.",
}
_QUERY: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "cursor": {"type": "string", "pattern": r"^[0-9]{1,18}$"},
    "state": {"type": "string"},
    "action": {"type": "string"},
    "token": {"type": "string"},
    "q": {"type": "string", "maxLength": 500},
    "days": {"type": "integer", "minimum": 1, "maximum": 400, "default": 28},
    "force": {"type": "boolean", "default": False},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of these routes."""
    models = {route.body for route in routes if route.body is not None}
    answers = {route.answer: _shape(route.answer) for route in routes if route.answer}
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
        for path, name in _spelled_out(route):
            body = None if route.body is None else refs[route.body, "validation"]
            answer = None if route.answer is None else refs[answers[route.answer], "serialization"]
            operation = _operation(route, path, name, body, answer)
            paths.setdefault(path, {})[route.method.lower()] = operation
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


def _shape(name: str) -> type[BaseModel]:
    """Return the model of a name such as ``Link`` or ``Listing[ListedToken]``."""
    outer, _, inner = name.rstrip("]").partition("[")
    model: Any = getattr(shapes, outer)
    found: type[BaseModel] = model[getattr(shapes, inner)] if inner else model
    return found


def _spelled_out(route: Route) -> list[tuple[str, str]]:
    """Return a path for each verb of a route that has several."""
    name = route.handler.__name__
    verbs = _VERBS.search(route.path)
    if verbs is None:
        return [(route.path, name)]
    return [(_VERBS.sub(verb, route.path), f"{verb}_token") for verb in verbs[2].split("|")]


def _operation(
    route: Route,
    path: str,
    name: str,
    body: dict[str, Any] | None,
    answer: dict[str, Any] | None,
) -> dict[str, Any]:
    scopes = [scope.value for scope in Scope if scope is Scope.ADMIN or scope in route.scopes]
    parameters = [
        {"name": place, "in": "path", "required": True, "schema": {"type": "string"}}
        for place in _PLACES.findall(path)
    ]
    for query in route.query:
        schema = dict(_QUERY[query])
        if query == "state" and route.states is not None:
            schema["enum"] = [state.value for state in route.states]
        parameters.append({"name": query, "in": "query", "schema": schema})
    if route.repeatable:
        key = {"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,64}$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": key})
    success: dict[str, Any] = {"description": "Done."}
    if answer is not None:
        success["content"] = {"application/json": {"schema": answer}}
    elif route.kind is not None:
        success["content"] = {route.kind: {"schema": {"type": "string"}}}
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": (route.handler.__doc__ or "").partition("\n")[0],
        "description": f"API keys with the scope {' or '.join(scopes)} may do this.",
        "parameters": parameters,
        "responses": {
            **{str(status): success for status in route.statuses},
            **{
                status: {"description": words, "content": problem}
                for status, words in _PROBLEMS.items()
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation
