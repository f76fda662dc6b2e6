"""The OpenAPI document of the admin API, made from the table of operations and the models.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import lbcore
from lbcore.admin import models
from lbcore.admin.operations import OPERATIONS, Operation
from lbcore.admin.picture import Versioned
from lbcore.config.fields import NAME

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_VERSION = {"type": "string", "pattern": r'^"[0-9]{1,18}"$', "example": '"7"'}
_IF_MATCH = {
    "name": "If-Match", "in": "header", "required": False,
    "description": "The ETag of an earlier answer: if another version is in force by now, nothing "
                   "changes and the answer is 412. `*` is any version.",
    "schema": {"type": "string", "pattern": r'^("[0-9]{1,18}"|[0-9]{1,18})$'},
}
_PATH = {
    "pool": {"name": "pool", "in": "path", "required": True, "description": "A pool's name.",
             "schema": {"type": "string", "pattern": NAME}},
    "backend": {"name": "backend", "in": "path", "required": True,
                "description": "A backend's name; without one, its address.",
                "schema": {"type": "string", "minLength": 1,
                           "maxLength": models.MAX_BACKEND_NAME,
                           "pattern": r"^[^\x00-\x1f\x7f]+$"}},
}
_LAST_EVENT = {
    "name": "Last-Event-ID", "in": "header", "required": False,
    "description": "The number of the last event that was seen.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,16}$"},
}
_MEANINGS = {
    400: "This is no such request.",
    401: "A token is needed, or this one is wrong.",
    403: "Not for other web pages, nor under this host name.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "Not in this state.",
    412: "Another version is in force.",
    413: "The body is too large.",
    415: "The body must be JSON, and say so.",
    422: "lbcore would not run such a configuration.",
    500: "It failed.",
    503: "Not now.",
}
_ABOUT = """\
What a running lbcore can be asked to tell and to change, on the address of `[admin] listen`.

Every answer about state carries `plan_version`, and an `ETag` made of it. A change may carry
`If-Match` with such an ETag. Over TCP, with `[admin] token_file`, every request shows the token.
"""


def document(token: bool | None = None) -> Json:
    """The whole document. ``token``: whether the address asks for one; None: it may."""
    schemas = _schemas()
    needs: list[Json] = [{"token": []}]
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, token is not False)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lbcore admin API", "version": lbcore.__version__,
                 "description": _ABOUT, "license": {"name": "Apache-2.0",
                                                    "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [*needs, {}] if token is None else needs if token else [],
        "tags": [{"name": "read", "description": "What there is."},
                 {"name": "change", "description": "What is to become different."}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "The first line of the file of `[admin] token_file`."}},
        },
    }


def _schemas() -> Json:
    used: set[type[BaseModel]] = {models.Error, models.Event, models.StreamState}
    for operation in OPERATIONS:
        used.update(model for model in (operation.body, operation.answer) if model is not None)
    ordered = sorted(used, key=lambda model: model.__name__)
    _, made = models_json_schema([(model, "validation") for model in ordered],
                                 ref_template=_REFERENCE)
    schemas: Json = _tidy(made["$defs"])
    return schemas


def _operation(operation: Operation, token: bool) -> Json:
    made: Json = {
        "operationId": operation.name, "summary": operation.summary, "tags": [operation.group],
    }
    if operation.description:
        made["description"] = operation.description
    if operation.open:
        made["security"] = []
    if parameters := list(_parameters(operation)):
        made["parameters"] = parameters
    if operation.body is not None:
        made["requestBody"] = {"required": operation.body_needed,
                               "content": _json(operation.body)}
    made["responses"] = {str(operation.status): _success(operation)} | {
        str(status): {"description": _MEANINGS[status], "content": _json(models.Error)}
        for status in _refusals(operation, token)}
    if operation.name == "readyz":
        made["responses"]["503"] = {"description": "It should not, and why.",
                                    "content": _text(operation.media)}
    return made


def _parameters(operation: Operation) -> Iterable[Json]:
    for name in re.findall(r"{(\w+)}", operation.path):
        yield _PATH[name]
    if operation.query is not None:
        shape = operation.query.model_json_schema(ref_template=_REFERENCE)
        for name, about in _tidy(shape)["properties"].items():
            description = about.pop("description", "")
            # Text has no null: what may be absent is absent.
            if kinds := about.pop("anyOf", None):
                about.update(next(kind for kind in kinds if kind != {"type": "null"}))
            yield {"name": name, "in": "query", "required": False, "description": description,
                   "schema": about}
    if operation.name == "stream":
        yield _LAST_EVENT
    if operation.changes:
        yield _IF_MATCH


def _refusals(operation: Operation, token: bool) -> list[int]:
    found = {403, *operation.errors}
    if operation.query is not None or operation.changes or not operation.open:
        found.add(400)
    if token and not operation.open:
        found.add(401)
    if operation.changes:
        found |= {408, 412, 413, 415, 503}
    return sorted(found)


def _success(operation: Operation) -> Json:
    made: Json = {"description": operation.summary + "."}
    answer = operation.answer
    made["content"] = _json(answer) if answer else _text(operation.media)
    if answer is not None and issubclass(answer, Versioned):
        made["headers"] = {"ETag": {"description": "The plan version.", "required": True,
                                    "schema": _VERSION}}
    if operation.media == "text/event-stream":
        made["content"] = {operation.media: {"schema": {
            "type": "string", "contentMediaType": operation.media,
            "description": "Messages whose data are StreamState and Event."}}}
    return made


def _json(model: type[BaseModel]) -> Json:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _text(media: str) -> Json:
    return {media: {"schema": {"type": "string"}}}


def _tidy(node: Any) -> Any:
    """A schema without titles that are made of the key's own name, and without defaults that only
    stand for absence: tools would send them."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {name: _tidy(item) for name, item in node.items()
            if not (name == "title" and isinstance(item, str)) and name != "x-unit"
            and not (name == "default" and item is None)}
