"""Config -> Plan: defaults filled in, names resolved to indexes, strings to addresses."""

from __future__ import annotations

import os
from pathlib import Path

from lbcore.config import apps, files, values
from lbcore.config.compile_http import http_plan, pool_http_plan
from lbcore.config.cpus import usable_cpus
from lbcore.config.discover import discover_plan
from lbcore.config.http_values import parse_hash_on
from lbcore.config.models import Backend, Config, Ejection, Health, Listener, Log, Pool
from lbcore.config.plan import (
    NO_POOL,
    Address,
    AdminPlan,
    BackendPlan,
    EjectionPlan,
    HealthPlan,
    ListenerPlan,
    LogPlan,
    Plan,
    PoolPlan,
    ProxyVersion,
)
from lbcore.config.problems import ConfigError, Problem

FAST_INTERVAL_MS = 500
_PROXY_VERSIONS: dict[str, ProxyVersion] = {"off": 0, "v1": 1, "v2": 2}


def to_plan(config: Config) -> Plan:
    """What a configuration means on this machine, for this user.

    ``config`` comes from ``load``, which has checked what is taken for granted here. Raises
    ConfigError when a file that it names has changed for the worse since then.
    """
    try:
        return _plan(config)
    except values.BadValue as bad:
        raise ConfigError([Problem("lb.toml", 0, "", bad.message, bad.hint)]) from None


def _plan(config: Config) -> Plan:
    process = config.lbcore
    indexes = {name: index for index, name in enumerate(config.pool)}
    return Plan(
        listeners=tuple(_listener(listener, indexes) for listener in config.listener),
        pools=tuple(_pool(name, pool) for name, pool in config.pool.items()),
        workers=usable_cpus() if process.workers == "auto" else process.workers,
        admin=admin_address(config),
        drain_timeout_ms=process.drain_timeout,
        user=process.user,
        group=process.group,
        pid_file=process.pid_file,
        pin_cpus=process.pin_cpus,
        max_pipes=process.max_pipes,
        hang_timeout_ms=process.hang_timeout,
        log=_log(config.log),
        api=_api(config),
    )


def _api(config: Config) -> AdminPlan:
    admin = config.admin
    token = files.token(admin.token_file) if admin.token_file is not None else ""
    return AdminPlan(token, tuple(admin.hosts), admin.dashboard, admin.metrics)


def admin_address(config: Config) -> Address:
    """Where the control API of a configuration listens."""
    if config.admin.listen is not None:
        return values.parse_bind(config.admin.listen)
    return default_admin_address()


def default_admin_address() -> Address:
    """Where the control API listens when no configuration says otherwise.

    A directory of the user's own, so that nobody else can put a socket into its place.
    """
    return Address(path=str(default_directory() / "admin.sock"))


def default_directory() -> Path:
    """Where the files of an instance are when no configuration says otherwise."""
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if uid == 0:
        return Path("/run/lbcore")
    if runtime.startswith("/"):
        return Path(runtime) / "lbcore"
    return Path(f"/tmp/lbcore-{uid}")


def fast_interval_ms(health: Health) -> int:
    """The interval of checks while a backend changes state."""
    if health.fast_interval is not None:
        return health.fast_interval
    return min(FAST_INTERVAL_MS, health.interval)


def _log(log: Log) -> LogPlan:
    return LogPlan(
        level=log.level,
        format="json" if log.format == "json" else "text",
        path=log.path,
        access=log.access or "",
        access_format="combined" if log.format == "combined" else "json",
    )


def _listener(listener: Listener, pools: dict[str, int]) -> ListenerPlan:
    pool = pools[listener.pool] if listener.pool is not None else NO_POOL
    return ListenerPlan(
        name=listener.name,
        binds=tuple(values.parse_listen(text) for text in listener.bind),
        pool=pool,
        protocol=listener.protocol,
        backlog=listener.backlog,
        max_connections=listener.max_connections,
        max_connections_per_source=listener.max_connections_per_source,
        client_idle_ms=listener.client_idle_timeout,
        half_closed_ms=listener.half_closed_timeout,
        proxy_protocol=listener.proxy_protocol,
        proxy_trusted=tuple(values.parse_network(text) for text in listener.proxy_trusted),
        proxy_header_timeout_ms=listener.proxy_header_timeout,
        defer_accept_ms=listener.defer_accept,
        fastopen=listener.fastopen,
        keepalive=listener.keepalive,
        tcp_user_timeout_ms=listener.tcp_user_timeout,
        unix_mode=int(listener.unix_mode, 8),
        http=http_plan(listener, pool, pools) if listener.protocol == "http" else None,
    )


def _pool(name: str, pool: Pool) -> PoolPlan:
    return PoolPlan(
        name=name,
        backends=tuple(_backend(backend) for backend in pool.backends),
        balance=pool.balance,
        hash=pool.hash,
        hash_on=parse_hash_on(pool.hash_on)[0],
        load_bound=pool.load_bound,
        connect_timeout_ms=pool.connect_timeout,
        connect_attempts=pool.connect_attempts,
        connect_budget_ms=pool.connect_budget,
        queue_timeout_ms=pool.queue_timeout,
        server_idle_ms=pool.server_idle_timeout,
        max_queue=pool.max_queue,
        slow_start_ms=pool.slow_start,
        panic_threshold=pool.panic_threshold,
        send_proxy=_PROXY_VERSIONS[pool.send_proxy],
        source=values.parse_source(pool.source) if pool.source else None,
        source_transparent=pool.source_transparent,
        keepalive=pool.keepalive,
        tcp_user_timeout_ms=pool.tcp_user_timeout,
        health=_health(pool.health) if pool.health else None,
        ejection=_ejection(pool.ejection),
        demo=pool.demo,
        http=pool_http_plan(name, pool),
        app=apps.app_plan(pool),
        discover=discover_plan(pool.discover),
    )


def _backend(backend: Backend) -> BackendPlan:
    return BackendPlan(
        name=backend.name or backend.address,
        address=values.parse_backend(backend.address),
        weight=backend.weight,
        backup=backend.backup,
        max_connections=backend.max_connections,
        label=backend.address,
    )


def _health(health: Health) -> HealthPlan:
    return HealthPlan(
        type=health.type,
        path=health.path,
        host=health.host,
        expect_status=tuple(health.expect_status),
        expect_body=health.expect_body,
        port=health.port,
        interval_ms=health.interval,
        fast_interval_ms=fast_interval_ms(health),
        jitter=health.jitter,
        timeout_ms=health.timeout,
        rise=health.rise,
        fall=health.fall,
    )


def _ejection(ejection: Ejection) -> EjectionPlan:
    return EjectionPlan(
        failures=ejection.failures,
        base_ms=ejection.base,
        max_ms=ejection.max,
        max_share=ejection.max_share,
    )
