"""Config -> TOML: the effective configuration, every key that has an effect with its value.

What is written here loads to the same plan. Keys without effect are left out, such as `hash` in
a pool that is not consistent: the file would be refused with them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import toml
from toml.decoder import InlineTableDict

from lbcore.config import apps, checks_http, discover
from lbcore.config.checks import CONSISTENT_ONLY, HTTP_ONLY
from lbcore.config.compile import admin_address, fast_interval_ms
from lbcore.config.models import Config, Health, Listener, Pool
from lbcore.config.values import format_duration


def effective(config: Config) -> dict[str, Any]:
    """The tables of a configuration with defaults filled in, as they stand in a file."""
    tables = config.model_dump(exclude_none=True, by_alias=True)
    tables["admin"]["listen"] = str(admin_address(config))
    for shown, listener in zip(tables["listener"], config.listener, strict=True):
        _listener(shown, listener)
    usage = checks_http.usage(config)
    for name, pool in config.pool.items():
        _pool(tables["pool"][name], pool, usage.get(name, ()))
    return tables


def to_toml(config: Config) -> str:
    """``effective`` as the text of a file."""
    tables = effective(config)
    for listener in tables["listener"]:
        for key, value in listener.items():
            if key == "route":
                listener[key] = [
                    {name: _inline(part) for name, part in route.items()} for route in value
                ]
            else:
                listener[key] = _inline(value)
    return toml.dumps(tables, encoder=_Encoder())


class _Inline(dict[str, Any], InlineTableDict):
    """A table that is written in braces, on the line of its key.

    The tables within a listener have to be: under a header of their own, behind those of its
    routes, they would read as the last route's.
    """


class _Encoder(toml.TomlEncoder):  # type: ignore[type-arg]  # a class that takes none at run time
    """``toml``'s, with tables in braces on one line also where they are within others."""

    def __init__(self) -> None:
        super().__init__(dict, preserve=True)
        self.dump_funcs[_Inline] = self._braces
        self.dump_funcs[str] = _quoted      # toml's own escapes go wrong after backslashes
        self.dump_funcs[list] = self._brackets

    def dump_inline_table(self, section: Any) -> str:
        return f"{self._braces(section)}\n"

    def _brackets(self, items: list[Any]) -> str:
        return f"[{', '.join(str(self.dump_value(item)) for item in items)}]"

    def _braces(self, table: dict[str, Any]) -> str:
        parts = (f"{_key(name)} = {self.dump_value(value)}" for name, value in table.items())
        return f"{{ {', '.join(parts)} }}" if table else "{}"


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("-", "a").replace("_", "a").isalnum()
    return name if plain else _quoted(name)


_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\t"): "\\t"} | {
    code: f"\\u{code:04x}" for code in (*range(0x09), *range(0x0B, 0x20), 0x7F)
}


def _quoted(text: str) -> str:
    return '"' + text.translate(_ESCAPES) + '"'


def _inline(value: Any) -> Any:
    if isinstance(value, dict):
        return _Inline({key: _inline(part) for key, part in value.items()})
    if isinstance(value, list | tuple):
        return [_inline(part) for part in value]
    return value


def _listener(shown: dict[str, Any], listener: Listener) -> None:
    if not listener.proxy_protocol:
        del shown["proxy_trusted"]
    if listener.protocol != "http":
        for key in checks_http.HTTP_LISTENER:
            shown.pop(key, None)
        return
    for key in checks_http.TCP_LISTENER:
        del shown[key]
    if not listener.error_pages:
        del shown["error_pages"]
    # What a route does not say it has from its listener, so nothing is filled in there.
    shown["route"] = [
        route.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
        for route in listener.route
    ]


def _pool(shown: dict[str, Any], pool: Pool, protocols: Collection[str]) -> None:
    if pool.balance != "consistent":
        for key in CONSISTENT_ONLY:
            del shown[key]
    apps.shown(pool, shown)
    if pool.discover:
        discover.shown(shown["discover"])
    for keys, *_ in checks_http.without_effect(pool, protocols):
        table = shown
        for part in keys[:-1]:
            table = table.get(str(part), {})
        table.pop(str(keys[-1]), None)
    if pool.health:
        shown["health"] = _health(shown["health"], pool.health)


def _health(shown: dict[str, Any], health: Health) -> dict[str, Any]:
    shown["fast_interval"] = format_duration(fast_interval_ms(health))
    if health.type != "http":
        for key in HTTP_ONLY:
            del shown[key]
    return {key: shown[key] for key in Health.model_fields if key in shown}
