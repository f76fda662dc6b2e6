"""Config -> TOML: the effective configuration, every key that has an effect with its value.

What is written here loads to the same plan. Keys without effect are left out, such as `hash` in
a pool that is not consistent: the file would be refused with them.
"""

from __future__ import annotations

from typing import Any

import toml

from lbcore.config import apps
from lbcore.config.checks import CONSISTENT_ONLY, HTTP_ONLY
from lbcore.config.compile import admin_address, fast_interval_ms
from lbcore.config.models import Config, Health, Listener, Pool
from lbcore.config.values import format_duration


def effective(config: Config) -> dict[str, Any]:
    """The tables of a configuration with defaults filled in, as they stand in a file."""
    tables = config.model_dump(exclude_none=True)
    tables["admin"]["listen"] = str(admin_address(config))
    for shown, listener in zip(tables["listener"], config.listener, strict=True):
        _listener(shown, listener)
    for name, pool in config.pool.items():
        _pool(tables["pool"][name], pool)
    return tables


def to_toml(config: Config) -> str:
    """``effective`` as the text of a file."""
    encoder = toml.TomlEncoder(dict)
    encoder.dump_funcs[str] = _quoted     # toml's own escapes go wrong after backslashes
    encoder.dump_funcs[list] = lambda items: f"[{', '.join(map(encoder.dump_value, items))}]"
    return toml.dumps(effective(config), encoder=encoder)


def _listener(shown: dict[str, Any], listener: Listener) -> None:
    if not listener.proxy_protocol:
        del shown["proxy_trusted"]


def _pool(shown: dict[str, Any], pool: Pool) -> None:
    if pool.balance != "consistent":
        for key in CONSISTENT_ONLY:
            del shown[key]
    apps.shown(pool, shown)
    if pool.health:
        shown["health"] = _health(shown["health"], pool.health)


def _health(shown: dict[str, Any], health: Health) -> dict[str, Any]:
    shown["fast_interval"] = format_duration(fast_interval_ms(health))
    if health.type != "http":
        for key in HTTP_ONLY:
            del shown[key]
    return {key: shown[key] for key in Health.model_fields if key in shown}


_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\t"): "\\t"} | {
    code: f"\\u{code:04x}" for code in (*range(0x09), *range(0x0B, 0x20), 0x7F)
}


def _quoted(text: str) -> str:
    return '"' + text.translate(_ESCAPES) + '"'
