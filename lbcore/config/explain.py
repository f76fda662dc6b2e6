"""pydantic's errors in the words of lb.toml: what is wrong with a key, and what to try."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from lbcore.config.findings import choices, nearest
from lbcore.config.models import Config
from lbcore.config.problems import KeyPath

# Keys of other balancers, and of plain words, that resemble none of ours.
_ALSO_KNOWN_AS = {
    "address": "bind",
    "algorithm": "balance",
    "check": "health",
    "default_backend": "pool",
    "health_check": "health",
    "listen": "bind",
    "maxconn": "max_connections",
    "mode": "protocol",
    "port": "bind",
    "location": "path",
    "proxy_pass": "pool",
    "return": "redirect",
    "rule": "host",
    "hosts": "host",
    "method": "methods",
    "path_prefix": "path",
    "path_regexp": "path_regex",
    "regex": "path_regex",
    "queries": "query",
    "header": "headers",
    "routes": "route",
    "add_header": "response_headers",
    "proxy_set_header": "request_headers",
    "client_max_body_size": "max_body",
    "client_header_timeout": "head_timeout",
    "client_body_timeout": "body_timeout",
    "proxy_read_timeout": "read_timeout",
    "error_page": "error_pages",
    "set_real_ip_from": "trusted_proxies",
    "limit_req": "rate_limit",
    "auth_basic": "auth",
    "basic_auth": "auth",
    "access_log": "access",
    "server": "backends",
    "servers": "backends",
    "strategy": "balance",
    "targets": "backends",
    "upstream": "pool",
    "upstreams": "backends",
}
# What lbcore does not do in this version, and people will look for.
_OTHER_PROTOCOLS = {
    "tls": "this version does not end TLS; tcp relays it as it is",
    "cert": "this version does not end TLS; tcp relays it as it is",
}
_TYPE_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Explained:
    """One error: where, what, and what to try."""

    path: KeyPath
    message: str
    hint: str
    spoils: KeyPath      # what cannot be relied on because of it


def model_at(path: KeyPath) -> type[BaseModel] | None:
    """The model of the table at a path of the configuration, or None for anything else."""
    model: Any = Config
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(part))
            if field is None:
                return None
            model = _bare(field.annotation)
        else:
            origin, arguments = typing.get_origin(model), typing.get_args(model)
            if origin not in (list, dict):
                return None
            model = _bare(arguments[-1])
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a table as they stand in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def explain(error: ErrorDetails, path: KeyPath) -> Explained:
    """What a pydantic error at ``path`` (its location in the file) says to a person."""
    if error["type"] == "extra_forbidden":
        return _unknown_key(path)
    message, hint = _wrong_value(error, path)
    return Explained(path, message, hint, path)


def _unknown_key(path: KeyPath) -> Explained:
    table, name = path[:-1], str(path[-1])
    if name in _OTHER_PROTOCOLS:
        return Explained(path, _OTHER_PROTOCOLS[name], "remove this key", path)
    model = model_at(table)
    known = keys_of(model) if model else []
    other = _ALSO_KNOWN_AS.get(name)
    close = other if other in known else nearest(name, known)
    if close:
        return Explained(path, "unknown key", f'did you mean "{close}"?', (*table, close))
    home = next((where for where, keys in _tables() if name in keys), "")
    if home:
        return Explained(path, "unknown key here", f"it belongs into {home}", path)
    return Explained(path, "unknown key", f"known here: {', '.join(known)}", path)


def _tables() -> list[tuple[str, set[str]]]:
    places: list[tuple[str, KeyPath]] = [
        ("[lbcore]", ("lbcore",)),
        ("[admin]", ("admin",)),
        ("[log]", ("log",)),
        ("[[listener]]", ("listener", 0)),
        ("[[listener.route]]", ("listener", 0, "route", 0)),
        ("[pool.NAME]", ("pool", "NAME")),
        ("[pool.NAME.health]", ("pool", "NAME", "health")),
        ("[pool.NAME.ejection]", ("pool", "NAME", "ejection")),
        ("[pool.NAME.sticky]", ("pool", "NAME", "sticky")),
        ("a backend", ("pool", "NAME", "backends", 0)),
    ]
    return [
        (label, set(keys_of(model))) for label, path in places if (model := model_at(path))
    ]


def _wrong_value(error: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "bad_value":
            return str(context["message"]), str(context["hint"])
        case "missing":
            return f'"{path[-1]}" is missing', _missing_hint(path)
        case "literal_error":
            return _not_allowed(path, value)
        case "string_type":
            return f"must be a string, not {_name(value)}", _string_hint(value)
        case "bool_type":
            return f"must be true or false, not {_name(value)}", "without quotation marks"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {_name(value)}", _number_hint(value)
        case "float_type" | "finite_number":
            return f"must be a number, not {_name(value)}", _number_hint(value)
        case "list_type":
            if path == ("listener",):
                return f"must be tables, not {_name(value)}", "begin each with [[listener]]"
            return f"must be a list, not {_name(value)}", "[ ... ] with commas between the items"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must be a table, not {_name(value)}", _table_hint(path)
        case "greater_than_equal":
            return f"{value} is too small", f"at least {context['ge']}"
        case "less_than_equal":
            return f"{value} is too large", f"at most {context['le']}"
        case "string_pattern_mismatch":
            return _bad_pattern(path, value)
        case "too_short":
            return "the list is empty", f"at least {context['min_length']}"
        case "string_too_short":
            return "too short", f"at least {context['min_length']} characters"
        case "too_long" | "string_too_long":
            unit = "characters" if kind == "string_too_long" else "items"
            return "too long", f"at most {context['max_length']} {unit}"
        case "int_parsing_size":
            return "this number is too large", ""
        case _:
            return error["msg"], ""


def _not_allowed(path: KeyPath, value: object) -> tuple[str, str]:
    model = model_at(path[:-1])
    annotation = model.model_fields[str(path[-1])].annotation if model else None
    allowed = [str(word) for word in typing.get_args(_bare(annotation))]
    if path[-1] == "protocol" and value in ("https", "http2", "udp", "tls"):
        return f'this version carries tcp and http, not "{value}"', 'protocol = "http"'
    shown = f'"{value}"' if isinstance(value, str) else _name(value)
    close = nearest(value, allowed) if isinstance(value, str) else ""
    did_you_mean = f'did you mean "{close}"? ' if close else ""
    return f"{shown} is not a choice", f"{did_you_mean}allowed: {choices(allowed)}"


def _bad_pattern(path: KeyPath, value: object) -> tuple[str, str]:
    if path[-1] == "unix_mode":
        return f'"{value}" is not a file mode', 'three octal digits, such as "0660"'
    if path[-1] == "name" or (path[0] == "pool" and len(path) == 2):
        hint = "letters, digits, - _ and ., beginning with a letter or digit, at most 63"
        return f'"{value}" cannot be a name', hint
    if "env" in path[:-1]:
        return f"{value!r} cannot be in an environment", "names: letters, digits and _"
    if path[-1] == "path":
        return f"{value!r} is not a path", 'begin with /, no blanks: "/healthz"'
    return f"{value!r} contains characters that cannot be here", "no control characters or blanks"


def _missing_hint(path: KeyPath) -> str:
    examples = {
        "name": 'name = "web"',
        "bind": 'bind = "127.0.0.1:8080"',
        "pool": "the name of one of the pools",
        "address": 'address = "10.0.0.1:8000"',
    }
    return examples.get(str(path[-1]), "")


def _string_hint(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'put it into quotation marks: "{value}"'
    return ""


def _number_hint(value: object) -> str:
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return f"without quotation marks: {value.strip()}"
    return ""


def _table_hint(path: KeyPath) -> str:
    if path == ("pool",):
        return "each pool is a table: [pool.NAME]"
    if isinstance(path[-1], int):
        return "{ ... } with keys inside"
    header = ".".join(str(part) for part in path)
    return f"begin it with [{header}]" if all(isinstance(part, str) for part in path) else ""


def _name(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind in (str, int, float, list, dict):
        if isinstance(value, kind):
            return _TYPE_NAMES[kind]
    return "a date or time"


def _bare(annotation: Any) -> Any:
    """A type without ``Annotated`` and without ``| None``."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [item for item in typing.get_args(annotation) if item is not type(None)]
        return _bare(inner[0])
    return annotation
