"""Config -> TOML: the effective configuration, every key that has an effect with its value.

What is written here loads to the same plan. Keys without effect are left out, such as `hash` in
a pool that is not consistent: the file would be refused with them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tomli_w

from lbcore.config import apps, checks_http
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
    return tomli_w.dumps(effective(config))


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
