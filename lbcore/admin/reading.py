"""Reading requests: bodies, queries and versions, or everything that is wrong with them.

What does not follow the OpenAPI document is a 400. A body that follows it and says something that
no file could say, such as an address without a port, is a 422. Either names each place.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lbcore.admin.contract import ControlError, Json
from lbcore.config.findings import choices, nearest
from lbcore.config.problems import KeyPath, key_text

Model = TypeVar("Model", bound=BaseModel)
MAX_PROBLEMS = 50                # told at once
_VERSION = re.compile(r'("?)([0-9]{1,18})\1')    # quotation marks are forgotten by hand
_KINDS = {bool: "true or false", str: "a string", int: "a whole number", float: "a number",
          list: "a list", dict: "an object", type(None): "null"}


def body(model: type[Model], text: bytes) -> Model:
    """The body of a request. Raises ControlError: 400 or 422."""
    try:
        said = json.loads(text.decode(), parse_constant=_no_constant, parse_float=_number)
    except UnicodeDecodeError as error:
        raise ControlError(400, "the body is not text in UTF-8") from error
    except RecursionError as error:
        raise ControlError(400, "the body's brackets are nested too deeply") from error
    except ValueError as error:
        raise ControlError(400, f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise ControlError(400, f"the body must be an object, not {_kind(said)}")
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise _refusal("body", model, said, error) from error


def query(model: type[Model], pairs: Iterable[tuple[str, str]]) -> Model:
    """What stands behind the question mark. Raises ControlError: 400."""
    said: dict[str, str] = {}
    for name, value in pairs:
        if name in said:
            raise ControlError(400, f"{name!r} is there twice behind the question mark")
        said[name] = value
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise _refusal("query", model, said, error) from error


def expected_version(headers: Mapping[str, str]) -> int | None:
    """The plan version that If-Match asks for; None: any. Raises ControlError: 400."""
    said = headers.get("If-Match")
    if said is None or said.strip() == "*":
        return None
    found = _VERSION.fullmatch(said.strip())
    if found is None:
        raise ControlError(400, f"If-Match: {said} is no plan version",
                           'the ETag of an earlier answer, such as "7"')
    return int(found[2])


def check_version(expect: int | None, version: int) -> None:
    """Raises ControlError, 412, when another version is in force than the expected one."""
    if expect is not None and expect != version:
        raise ControlError(412, f"plan version {version} is in force, not {expect}",
                           "somebody else changed something: look at it, then try again")


def _refusal(part: str, model: type[BaseModel], said: Any, error: ValidationError) -> ControlError:
    found = error.errors(include_url=False)
    told = [_problem(model, said, detail) for detail in found[:MAX_PROBLEMS]]
    # A misspelt key is told once, not also as the one that is missing.
    meant = {problem.pop("meant") for problem in told}
    problems = [problem for problem, detail in zip(told, found, strict=False)
                if detail["type"] != "missing" or problem["key"] not in meant]
    status = 422 if all(detail["type"] == "bad_value" for detail in found) else 400
    one = problems[0]
    where = f"{one['key']}: " if one["key"] else ""
    if len(problems) == 1:
        return ControlError(status, f"{where}{one['message']}", one["hint"], problems)
    return ControlError(status, f"{len(problems)} problems with the {part}, the first: "
                        f"{where}{one['message']}", one["hint"], problems)


def _problem(model: type[BaseModel], said: Any, detail: ErrorDetails) -> Json:
    path = _place(said, detail["loc"])
    message, hint = _words(path, detail)
    meant = ""
    if detail["type"] == "extra_forbidden":
        known = _keys(model, path[:-1], detail["loc"])
        close = nearest(str(path[-1]), known)
        meant = key_text((*path[:-1], close)) if close else ""
        hint = f'did you mean "{close}"?' if close else f"known here: {', '.join(known) or 'none'}"
    return {"file": "request", "line": 0, "key": key_text(path), "message": message, "hint": hint,
            "meant": meant}


def _place(said: Any, location: tuple[int | str, ...]) -> KeyPath:
    """Where in the request an error is; pydantic's location also names the kind of a choice."""
    path: KeyPath = ()
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(said, dict) and part not in said and not last:
            continue
        path = (*path, part)
        try:
            said = said[part]
        except (LookupError, TypeError):
            said = None
    return path


def _words(path: KeyPath, detail: ErrorDetails) -> tuple[str, str]:
    """What an error says to the person who sent the request, and what to try."""
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "bad_value":
            return str(context["message"]), str(context["hint"])
        case "extra_forbidden":
            return "unknown key", ""
        case "missing" | "union_tag_not_found":
            name = path[-1] if detail["type"] == "missing" else "op"
            return f'"{name}" is missing', ""
        case "literal_error":
            return f"{_shown(value)} is not a choice", f"allowed: {context['expected']}"
        case "union_tag_invalid":
            tags = re.findall(r"'([^']*)'", str(context["expected_tags"]))
            return f'op {_shown(context["tag"])} is not a choice', f"allowed: {choices(tags)}"
        case "greater_than_equal":
            return f"{_shown(value)} is too small", f"at least {context['ge']}"
        case "less_than_equal":
            return f"{_shown(value)} is too large", f"at most {context['le']}"
        case "too_short" | "string_too_short":
            return "too short", f"at least {context['min_length']}"
        case "too_long" | "string_too_long":
            return "too long", f"at most {context['max_length']}"
        case "string_pattern_mismatch":
            return f"{_shown(value)} cannot be here", f"what can: {context['pattern']}"
        case "int_type" | "int_from_float" | "int_parsing" | "int_parsing_size":
            return f"must be a whole number, not {_kind(value)}", ""
        case "float_type" | "float_parsing" | "finite_number":
            return f"must be a number, not {_kind(value)}", ""
        case "bool_type" | "bool_parsing":
            return f"must be true or false, not {_shown(value)}", ""
        case "string_type":
            return f"must be a string, not {_kind(value)}", ""
        case "list_type":
            return f"must be a list, not {_kind(value)}", ""
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be an object, not {_kind(value)}", ""
        case _:
            return detail["msg"], ""


def _keys(model: type[BaseModel], path: KeyPath, location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at a place of a body."""
    found: Any = model
    for part in path:
        if isinstance(part, str):        # what a list holds was found with the list
            found = _inner(found.model_fields[part].annotation, location)
    return list(found.model_fields)


def _inner(annotation: Any, location: tuple[int | str, ...]) -> Any:
    """The model within a type: what a list holds, what may be null, the kind that was chosen."""
    while typing.get_origin(annotation) is not None:
        arguments = [one for one in typing.get_args(annotation) if one is not type(None)]
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            chosen = [one for one in arguments if hasattr(one, "model_fields")
                      and any(part in typing.get_args(one.model_fields["op"].annotation)
                              for part in location)] if len(arguments) > 1 else arguments
            annotation = chosen[0] if chosen else arguments[0]
        else:
            annotation = arguments[0]
    return annotation


def _kind(value: object) -> str:
    return next((words for kind, words in _KINDS.items() if isinstance(value, kind)), "that")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _number(text: str) -> float | int:
    """JSON has one kind of number, in which 5.0 is 5 (JSON Schema 2020-12, 6.1.1)."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return int(number) if number.is_integer() else number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")
