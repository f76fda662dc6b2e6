"""The reference of lb.toml as Markdown, made from the models.

``python -m lbcore.config.reference > docs/reference.md`` writes it again.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from lbcore.config.discover import Discover
from lbcore.config.http_models import (
    Auth,
    Condition,
    FieldRules,
    RateLimit,
    Respond,
    Retry,
    Route,
    Sticky,
)
from lbcore.config.models import Admin, Backend, Ejection, Health, Listener, Log, Pool, Process
from lbcore.config.schema import json_schema

_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[lbcore]", Process),
    ("[admin]", Admin),
    ("[log]", Log),
    ("[[listener]]", Listener),
    ("[[listener.route]]", Route),
    ("conditions on header fields and query parameters", Condition),
    ("request_headers and response_headers", FieldRules),
    ("auth", Auth),
    ("rate_limit", RateLimit),
    ("retry", Retry),
    ("respond", Respond),
    ("[pool.NAME]", Pool),
    ("backends of a pool", Backend),
    ("[pool.NAME.discover]", Discover),
    ("[pool.NAME.health]", Health),
    ("[pool.NAME.ejection]", Ejection),
    ("[pool.NAME.sticky]", Sticky),
)

_HEAD = """\
# Reference of lb.toml

<!-- Made by `python -m lbcore.config.reference`; changes belong into lbcore/config/models.py. -->

A configuration is one [TOML](https://toml.io) file in UTF-8. It needs at least one
`[[listener]]` and the `[pool.NAME]` that the listener uses; everything else has a default.

```toml
[[listener]]
name = "web"
bind = "0.0.0.0:8080"
pool = "web"

[pool.web]
backends = ["10.0.0.1:8000", "10.0.0.2:8000"]
```

`lbcore check -c FILE` says everything that is wrong with a file, with line and hint.
`lbcore show -c FILE` prints it with every default filled in. `lbcore schema` prints a JSON
Schema, with which editors complete and explain keys.

- **Duration**: a string with a unit, such as `"500ms"`, `"1.5s"`, `"5m"`, `"1h"` or `"1d"`; whole
  milliseconds, at most 24 days. `"0"` is allowed where the text says what it means.
- **Size**: a string with a unit, such as `"512B"`, `"64KiB"`, `"100MiB"` or `"1GiB"`; `kB`, `MB`
  and `GB` are powers of ten. `"0"` is allowed where the text says what it means.
- **Address**: `"10.0.0.1:8000"`, `"[fd00::1]:8000"` or `"unix:/run/app.sock"`; a path has at most
  107 bytes. Backends can also be names: `"app.internal:8000"`.
- **Name**: letters, digits, `-`, `_` and `.`; begins with a letter or digit; at most 63.
- **Template**: text in which `$client_ip`, `$client_port`, `$host` (without port), `$port` (of the
  listener), `$method`, `$scheme`, `$path`, `$query`, `$uri` (path and query), `$request_id`,
  `$listener`, `$route`, `$pool` and `$backend` stand for what they say, `${header.NAME}` and
  `${cookie.NAME}` for a header field and a cookie of the request. `$1` to `$9` are the groups of
  `path_regex`, `$tail` is what follows `path`. `${name}` is the same as `$name`, `$$` is a dollar
  sign. What a request does not have is empty.
- **Path of a file**: absolute, or relative to the directory of the configuration.
- Keys whose meaning begins with "http:" or "tcp:" are for listeners of that protocol, and for pools
  that such listeners use.
- Keys that are not listed here are errors, and so are keys that have no effect where they stand,
  such as `hash` without `balance = "consistent"`.
- A wildcard and a single address of the same port collide, such as `"0.0.0.0:80"` and
  `"10.0.0.1:80"`. `"0.0.0.0:80"` and `"[::]:80"` do not: IPv6 sockets take IPv6 only.
"""


def render() -> str:
    """The whole page."""
    definitions = json_schema()["definitions"]
    sections = [_section(header, model, definitions) for header, model in _TABLES]
    return "\n".join([_HEAD, *sections])


def _section(header: str, model: type[BaseModel], definitions: dict[str, Any]) -> str:
    schema = definitions[model.__name__]
    required = schema.get("required", [])
    lines = [
        f"## {header}" if not header.startswith("[") else f"## `{header}`",
        "",
        schema["description"],
        "",
        "| key | type | default | unit | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, about in schema["properties"].items():
        cells = (
            f"`{name}`",
            _type(about, definitions),
            "required" if name in required else _default(about),
            about["x-unit"],
            about["description"],
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _default(about: dict[str, Any]) -> str:
    """The default as it would stand in the file."""
    return f"`{json.dumps(about['default'])}`" if "default" in about else "absent"


def _type(about: dict[str, Any], definitions: dict[str, Any]) -> str:
    if about.get("x-unit") == "table":
        return "table"
    if about.get("x-unit") in ("duration", "size"):
        return str(about["x-unit"])
    if "enum" in about or "const" in about:
        words = about.get("enum", [about.get("const")])
        return " or ".join(f"`{json.dumps(word)}`" for word in words)
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_type(kind, definitions) for kind in about["anyOf"]))
    if "$ref" in about:
        return "table"
    match about["type"]:
        case "array":
            return f"list of: {_type(about['items'], definitions)}"
        case "integer":
            return "whole number" + _range(about)
        case "number":
            return "number" + _range(about)
        case "object":
            return "table"
        case "boolean":
            return "`true` or `false`"
        case _:
            return "string"


def _range(about: dict[str, Any]) -> str:
    least, most = about.get("minimum"), about.get("maximum")
    if least is None or most is None or most >= 2**31 - 1:
        return "" if least is None else f", {least} or more"
    return f", {least} to {most}"


if __name__ == "__main__":
    print(render(), end="")
