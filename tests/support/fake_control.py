"""An instance that is not there, for those who look at one: moving figures, three listeners.

``python -m tests.support.fake_control --port 9900 [--backends 500] [--token SECRET]`` serves it;
every request and change works as with a real instance, and nothing listens but the admin address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import toml
from pydantic import ValidationError

from lbcore.admin.contract import ControlError
from lbcore.admin.figures import FigureSource, InstanceFigures
from lbcore.admin.reading import check_version
from lbcore.admin.server import AdminServer
from lbcore.config.models import Backend
from lbcore.config.plan import AdminPlan

Json = dict[str, Any]
LEVELS = ("debug", "info", "warning", "error")
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
KEPT = 1000


def now() -> str:
    """This moment as answers show it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FakeSubscription:
    """Events as they happen, with a bounded queue."""

    def __init__(self, owner: FakeControl, first: Sequence[Json]) -> None:
        self.dropped = False
        self._owner = owner
        self._queue: asyncio.Queue[Json | None] = asyncio.Queue(256)
        for event in first[-200:]:
            self._queue.put_nowait(event)

    def put(self, event: Json) -> None:
        """One event more."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped = True
            self.close()

    def __aiter__(self) -> AsyncIterator[Json]:
        return self

    async def __anext__(self) -> Json:
        event = None if self.dropped else await self._queue.get()
        if event is None:
            raise StopAsyncIteration
        return event

    def close(self) -> None:
        """The reader is gone."""
        self._owner.subscriptions.discard(self)
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)


class FakeFigures:
    """Figures of an instance in which nothing is counted."""

    def __init__(self, owner: FakeControl) -> None:
        self._owner = owner

    def instance(self) -> InstanceFigures:
        """The instance."""
        moment = time.time()
        return InstanceFigures(
            version="0.0.0", python="3", plan_version=self._owner.plan_version,
            plan_applied_at=moment, started_at=moment, counting_since=moment, generation=1,
            stopping=False, differences=0, changes=0,
            discovered={}, workers_wanted=2, processes={}, events={}, reloads={},
            reload_ok=True, upgrades={}, app_deaths=0, log_dropped=0, access_lines=0,
            access_dropped=0, rates_forgotten=0, learnt_forgotten=0)

    def _none(self) -> Iterator[Any]:
        return iter(())

    workers = listeners = routes = pools = backends = _none


class FakeControl:
    """A control with a memory of its own. ``asked`` is what changes it was asked for."""

    def __init__(self, backends: int = 8, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.asked: list[tuple[Any, ...]] = []
        self.subscriptions: set[FakeSubscription] = set()
        self._watchers: set[asyncio.Event] = set()
        self._events: deque[Json] = deque(maxlen=KEPT)
        self._seq = 0
        self._version = 1
        self._began = time.time()
        self._state = "running"
        self._workers = 2
        self._level = "info"
        self._differences: dict[tuple[str, str, str], Json] = {}
        shares = {"web": max(1, backends // 2), "api": max(1, backends // 4)}
        shares["cache"] = max(1, backends - sum(shares.values()))
        self._pools: dict[str, dict[str, Json]] = {
            pool: {f"{pool}-{number}": self._made(
                {"address": f"10.0.{index}.{number % 250}:{8000 + number // 250}",
                 "name": f"{pool}-{number}"}) for number in range(count)}
            for index, (pool, count) in enumerate(shares.items())}
        self.say("info", "started", "lbcore 0.0.0", workers=2)

    # -- telling

    @property
    def figures(self) -> FigureSource:
        return FakeFigures(self)

    @property
    def plan_version(self) -> int:
        return self._version

    async def status(self) -> Json:
        await asyncio.sleep(0)
        return self._head() | {
            "log_lines_dropped": 0, "rates_forgotten": 0, "learnt_forgotten": 0,
            "events": self._seq,
            "access_log": {"path": "", "format": "none", "lines": 0, "dropped": 0},
            "workers": [self._worker(slot) for slot in range(self._workers)],
            "listeners": [
                self._listener("public", "http", "0.0.0.0:8080", "web"),
                self._listener("internal", "http", "127.0.0.1:8081", "api"),
                self._listener("cache", "tcp", "127.0.0.1:6379", "cache")],
            "pools": [self._pool(name) for name in self._pools],
        }

    async def state(self) -> Json:
        listeners = [
            {"name": "public", "protocol": "http", "bind": ["0.0.0.0:8080"], "pool": "web",
             "connections": self._wave(200, 1), "routes": [
                 {"name": "/api/", "action": "pool", "pool": "api", "match": "path /api/"},
                 {"name": "old", "action": "redirect", "pool": None, "match": "path /old/"},
                 {"name": "default", "action": "pool", "pool": "web", "match": "everything else"}]},
            {"name": "internal", "protocol": "http", "bind": ["127.0.0.1:8081"], "pool": "api",
             "connections": self._wave(20, 2), "routes": [
                 {"name": "default", "action": "pool", "pool": "api", "match": "everything"}]},
            {"name": "cache", "protocol": "tcp", "bind": ["127.0.0.1:6379"], "pool": "cache",
             "connections": self._wave(60, 3), "routes": []}]
        workers = [{key: worker[key] for key in (
            "slot", "pid", "state", "cpu_percent", "connections", "accepts_per_s", "rss_bytes",
            "requests")} for worker in map(self._worker, range(self._workers))]
        slim = ("name", "address", "state", "since", "reason", "weight", "weight_configured",
                "backup", "draining", "forced", "runtime", "inflight", "last_check")
        pools = [{**{key: pool[key] for key in ("name", "balance", "state", "source", "inflight",
                                                "waiting", "app")},
                  "backends": [{key: one[key] for key in slim} for one in pool["backends"]]}
                 for pool in map(self._pool, self._pools)]
        return self._head() | {"workers": workers, "listeners": listeners, "pools": pools}

    async def live(self, window: int) -> Json:
        backends = {pool: {name: self._live_backend(name, one) for name, one in members.items()}
                    for pool, members in self._pools.items()}
        public, internal = self._figures(900, 1), self._figures(120, 2)
        cache = self._figures(300, 3) | {
            "requests_per_s": None, "p50_ms": None, "p90_ms": None, "p99_ms": None,
            "status": None}
        keys = ("requests_per_s", "errors_per_s", "bytes_up_per_s", "bytes_down_per_s", "p50_ms",
                "p90_ms", "p99_ms", "status")
        routes = {"public": {"/api/": 300, "old": 5, "default": 595}, "internal": {"default": 120}}
        return {
            "window_s": float(window), "time": now(), "total": self._figures(1020, 1),
            "listeners": {"public": public, "internal": internal, "cache": cache},
            "routes": {listener: {name: {key: self._figures(rate, index)[key] for key in keys}
                                  for index, (name, rate) in enumerate(found.items())}
                       for listener, found in routes.items()},
            "pools": {name: {
                **{key: self._figures(400, index)[key]
                   for key in ("requests_per_s", "connections_per_s", "errors_per_s", "p50_ms",
                               "p90_ms", "p99_ms")},
                "retries_per_s": 0.2, "queued_per_s": 0.0, "inflight": self._wave(40, index),
                "waiting": 0} for index, name in enumerate(self._pools)},
            "backends": backends,
        }

    def backend(self, pool: str, name: str) -> Json:
        return {"plan_version": self._version, "pool": pool, **self._one(pool, name)}

    def events(self, after: int, limit: int, level: str) -> Json:
        least = LEVELS.index(level)
        found = [event for event in self._events
                 if event["seq"] > after and LEVELS.index(event["level"]) >= least]
        return {"events": found[-limit:], "last": self._seq}

    def subscribe(self, after: int | None = None) -> FakeSubscription:
        first = [] if after is None else self.events(after, KEPT, "debug")["events"]
        subscription = FakeSubscription(self, first)
        self.subscriptions.add(subscription)
        return subscription

    @contextlib.contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def changes(self) -> Json:
        return {"plan_version": self._version, "changes": list(self._differences.values())}

    def config(self) -> Json:
        pools = {name: {"backends": [{key: one[key] for key in ("address", "name", "weight",
                                                                "backup")}
                                     for one in members.values()]}
                 for name, members in self._pools.items()}
        listeners = [{"name": "public", "bind": "0.0.0.0:8080", "protocol": "http", "pool": "web"},
                     {"name": "internal", "bind": "127.0.0.1:8081", "protocol": "http",
                      "pool": "api"},
                     {"name": "cache", "bind": "127.0.0.1:6379", "pool": "cache"}]
        return {"plan_version": self._version, "config": {"listener": listeners, "pool": pools}}

    def config_toml(self) -> str:
        return toml.dumps(self.config()["config"])

    # -- changing

    async def add_backend(self, pool: str, table: Mapping[str, Any], expect: int | None) -> Json:
        self.asked.append(("add", pool, dict(table)))
        check_version(expect, self._version)
        name = self._add(pool, table)
        return self._changed(pool, name)

    async def remove_backend(self, pool: str, name: str, expect: int | None) -> Json:
        self.asked.append(("remove", pool, name))
        check_version(expect, self._version)
        inflight = self._one(pool, name)["inflight"]
        self._remove(pool, name)
        self._rise()
        return {"plan_version": self._version, "pool": pool, "backend": name, "inflight": inflight}

    async def replace_backends(
        self, pool: str, tables: Sequence[Mapping[str, Any] | str], expect: int | None
    ) -> Json:
        self.asked.append(("replace", pool, list(tables)))
        check_version(expect, self._version)
        old = self._members(pool)
        made = [self._made({"address": one} if isinstance(one, str) else one) for one in tables]
        new = {one["name"]: one for one in made}
        if not new or len(new) < len(made):
            raise ControlError(422, "the backends cannot be used", "", [
                {"file": "request", "line": 0, "key": f"pool.{pool}.backends",
                 "message": "no backends" if not new else "a name is there twice", "hint": ""}])
        added, removed = [*(new.keys() - old.keys())], [*(old.keys() - new.keys())]
        for name in removed:
            self._remove(pool, name, last=True)
        for name in added:
            old[name] = new[name] | {"runtime": True}
            self._differ("add", pool, name, None, new[name]["address"])
        self._rise()
        return {"plan_version": self._version, "pool": pool, "added": added, "removed": removed,
                "changed": [], "backends": self._pool(pool)["backends"]}

    async def patch_backend(
        self, pool: str, name: str, patch: Mapping[str, Any], expect: int | None
    ) -> Json:
        self.asked.append(("patch", pool, name, dict(patch)))
        check_version(expect, self._version)
        self._one(pool, name)
        for key, value in patch.items():
            self._set(pool, name, key, value)
        return self._changed(pool, name)

    async def change(self, changes: Sequence[Mapping[str, Any]], expect: int | None) -> Json:
        self.asked.append(("change", [dict(one) for one in changes]))
        check_version(expect, self._version)
        before = {pool: dict(members) for pool, members in self._pools.items()}
        differences = dict(self._differences)
        try:
            for one in changes:
                pool, backend = one["pool"], one["backend"]
                match one["op"]:
                    case "add":
                        self._add(pool, backend)
                    case "remove":
                        self._remove(pool, backend)
                    case key:
                        self._set(pool, backend, key, one["value"])
        except ControlError:
            self._pools, self._differences = before, differences
            raise
        self._rise()
        return self.changes()

    async def forget_changes(self, pool: str | None, expect: int | None) -> Json:
        self.asked.append(("forget", pool))
        check_version(expect, self._version)
        if pool is not None:
            self._members(pool)
        gone = [key for key in self._differences if pool in (None, key[1])]
        for key in gone:
            op, where, name = key
            del self._differences[key]
            members = self._pools.get(where, {})
            if op == "add":
                members.pop(name, None)
            elif name in members:
                members[name] = members[name] | {
                    "draining": False, "forced": None, "weight": members[name]["weight_configured"]}
        self._rise()
        return {"plan_version": self._version, "forgotten": len(gone)}

    async def set_log_level(self, level: str | None, expect: int | None = None) -> Json:
        self.asked.append(("log", level))
        check_version(expect, self._version)
        self._level = level or "info"
        self._rise()
        return {"plan_version": self._version, "level": self._level, "configured": "info"}

    async def set_workers(self, count: int | None, expect: int | None = None) -> Json:
        self.asked.append(("workers", count))
        check_version(expect, self._version)
        self._workers = 2 if count is None else count
        self._rise()
        return {"plan_version": self._version, "workers": self._workers}

    async def reload(self, expect: int | None = None) -> Json:
        self.asked.append(("reload",))
        check_version(expect, self._version)
        self._rise()
        self.say("info", "reloaded", version=self._version)
        return {"plan_version": self._version, "workers_failed": [], "needs_restart": [],
                "not_in_force": [], "dropped": []}

    async def restart(self, pool: str) -> Json:
        self.asked.append(("restart", pool))
        raise ControlError(404, f"pool {pool!r} runs no application")

    async def upgrade(self) -> Json:
        self.asked.append(("upgrade",))
        return {"generation": 1, "next_generation": 2}

    async def stop(self, now: bool) -> Json:
        self.asked.append(("stop", now))
        return {"state": "now" if now else "draining", "drain_timeout_ms": 30000, "pid": 4711}

    # -- what moves by itself

    def say(self, level: str, event: str, message: str = "", **fields: Any) -> None:
        """Something happens."""
        self._seq += 1
        said = {"seq": self._seq, "time": now(), "level": level, "event": event,
                "message": message, "fields": fields}
        self._events.append(said)
        for subscription in list(self.subscriptions):
            subscription.put(said)

    def turn(self, pool: str, name: str, state: str, reason: str) -> None:
        """A backend changes its state."""
        one = self._one(pool, name)
        old = one["state"]
        self._pools[pool][name] = one | {"state": state, "since": now(), "reason": reason}
        self.say("info" if state == "up" else "warning", "backend.state", pool=pool, backend=name,
                 old=old, new=state, reason=reason)
        self._notify()

    async def live_on(self, every: float = 2.0) -> None:
        """Backends go down and come back, for ever."""
        while True:
            await asyncio.sleep(every * self.random.uniform(0.5, 1.5))
            pool = self.random.choice(list(self._pools))
            name = self.random.choice(list(self._pools[pool]))
            if self._pools[pool][name]["state"] == "up":
                self.turn(pool, name, "down", "connection refused")
            else:
                self.turn(pool, name, "up", "2 checks passed")

    # -- inside

    def _head(self) -> Json:
        return {
            "version": "0.0.0", "pid": 4711, "generation": 1, "state": self._state,
            "started": datetime.fromtimestamp(self._began, UTC).isoformat(), "time": now(),
            "uptime_s": round(time.time() - self._began, 1), "config": "/etc/lbcore/lb.toml",
            "admin": "127.0.0.1:9900", "plan": {"version": self._version, "applied_at": now(),
                                                "file_version": 1},
            "plan_version": self._version, "changes": len(self._differences),
            "upgrade": {"state": "none"}, "workers_wanted": self._workers,
        }

    def _wave(self, mean: float, phase: float) -> int:
        return max(0, round(mean * (1 + 0.4 * math.sin(time.time() / 7 + phase)
                                    + self.random.uniform(-0.1, 0.1))))

    def _figures(self, rate: float, phase: float) -> Json:
        requests = float(self._wave(rate, phase))
        errors = round(requests * 0.004, 2)
        half = 2.0 + 1.5 * math.sin(time.time() / 11 + phase)
        return {
            "requests_per_s": requests, "connections_per_s": round(requests / 12, 1),
            "connections": self._wave(rate / 5, phase), "bytes_up_per_s": requests * 420,
            "bytes_down_per_s": requests * 9_000, "errors_per_s": errors,
            "p50_ms": round(half, 2), "p90_ms": round(half * 3, 2), "p99_ms": round(half * 9, 2),
            "status": {"1xx": 0.0, "2xx": requests * 0.95, "3xx": requests * 0.03,
                       "4xx": requests * 0.016, "5xx": errors},
        }

    def _live_backend(self, name: str, one: Json) -> Json:
        takes = one["state"] == "up" and not one["draining"]
        figures = self._figures(40 if takes else 0, sum(map(ord, name)) % 7)
        return {key: figures[key] for key in (
            "requests_per_s", "connections_per_s", "errors_per_s", "bytes_up_per_s",
            "bytes_down_per_s", "p50_ms", "p99_ms")} | {"inflight": one["inflight"]}

    def _worker(self, slot: int) -> Json:
        return {
            "slot": slot, "pid": 5000 + slot, "seat": slot + 1, "state": "serving",
            "uptime_s": 100.0, "cpu_percent": float(self._wave(30, slot)),
            "accepts_per_s": float(self._wave(40, slot)), "cpu": slot,
            "connections": self._wave(120, slot), "accepted": 100_000,
            "plan_version": self._version, "pipes": 4, "buffers": 8, "requests": 1_000_000,
            "idle_upstreams": 12, "spool_bytes": 0, "sources_untracked": 0, "accept_pauses": 0,
            "accept_errors": 0, "heartbeat_age_ms": 100, "uss_bytes": 9 * 2**20,
            "rss_bytes": 18 * 2**20,
        }

    def _listener(self, name: str, protocol: str, bind: str, pool: str) -> Json:
        shown: Json = {
            "name": name, "protocol": protocol, "bind": [bind], "pool": pool,
            "connections": self._wave(100, 1), "accepted": 100_000, "bytes_up": 10**9,
            "bytes_down": 10**10, "paused": 0, "ended": {"normal": 99_000, "client_reset": 10},
        }
        if protocol == "http":
            statuses = dict.fromkeys(STATUSES, 0) | {"2xx": 990_000, "5xx": 100}
            shown |= {"requests": 10**6, "http_ended": {"ok": 999_000}, "retries": 12,
                      "status": statuses, "routes": [{
                          "name": "default", "action": "pool", "pool": pool, "requests": 10**6,
                          "status": statuses, "retries": 12, "bytes_up": 10**9,
                          "bytes_down": 10**10,
                          "total_ms": {"p50": 2.0, "p90": 5.0, "p99": 20.0}}]}
        return shown

    def _pool(self, name: str) -> Json:
        members = self._members(name)
        alive = any(one["state"] == "up" for one in members.values())
        return {"name": name, "balance": "least_conn", "state": "normal" if alive else "none",
                "source": "file", "inflight": sum(one["inflight"] for one in members.values()),
                "waiting": 0, "queued": 3, "app": None, "backends": list(members.values())}

    def _members(self, pool: str) -> dict[str, Json]:
        if pool not in self._pools:
            raise ControlError(404, f"there is no pool {pool!r}", "GET /v1/pools lists them")
        return self._pools[pool]

    def _one(self, pool: str, name: str) -> Json:
        members = self._members(pool)
        if name not in members:
            raise ControlError(404, f"pool {pool!r} has no backend {name!r}",
                               "GET /v1/pools/{pool} lists them")
        return members[name]

    def _made(self, table: Mapping[str, Any]) -> Json:
        try:
            backend = Backend.model_validate(dict(table))
        except ValidationError as error:
            raise ControlError(422, str(error)) from error
        return {
            "name": backend.name or backend.address, "address": backend.address,
            "resolved": backend.address, "backup": backend.backup, "state": "up", "since": now(),
            "reason": "2 checks passed", "draining": False, "underlying": "up", "forced": None,
            "runtime": False, "weight": backend.weight, "weight_configured": backend.weight,
            "weight_overridden": False, "max_connections": backend.max_connections, "ramp": 256,
            "inflight": self.random.randrange(8), "connections": 1000, "failures": 0, "refused": 0,
            "timeouts": 0, "early_resets": 0, "redispatched": 0, "failures_in_a_row": 0,
            "bytes_up": 10**6, "bytes_down": 10**7, "requests": 10_000,
            "status": dict.fromkeys(STATUSES, 0) | {"2xx": 10_000}, "retries": 0, "reused": 9000,
            "response_ms": {"p50": 2.0, "p90": 4.0, "p99": 16.0}, "ejections": 0,
            "ejected_until": None,
            "last_check": {"ok": True, "detail": "200 OK", "ms": 1.2, "at": now()},
        }

    def _add(self, pool: str, table: Mapping[str, Any]) -> str:
        members, made = self._members(pool), self._made(table)
        name = str(made["name"])
        if name in members:
            raise ControlError(409, f"pool {pool!r} has a backend {name!r} already")
        members[name] = made | {"runtime": True}
        self._differ("add", pool, name, None, made["address"])
        return name

    def _remove(self, pool: str, name: str, last: bool = False) -> None:
        self._one(pool, name)
        members = self._members(pool)
        if len(members) == 1 and not last:
            raise ControlError(409, f"{name} is the last backend of pool {pool}")
        if not members.pop(name)["runtime"]:
            self._differ("remove", pool, name, name, None)

    def _set(self, pool: str, name: str, key: str, value: Any) -> None:
        one = dict(self._one(pool, name))
        match key:
            case "weight":
                one["weight"] = one["weight_configured"] if value is None else value
                one["weight_overridden"] = value is not None
            case "drain":
                one["draining"] = value
                one["state"] = "drain" if value else one["underlying"]
            case "force":
                one["forced"] = value
                one["state"] = value or one["underlying"]
                one["reason"] = "forced by the operator" if value else "2 checks passed"
            case "max_connections":
                one["max_connections"] = value or 0
        self._pools[pool][name] = one
        if value in (None, False):
            self._differences.pop((key, pool, name), None)
        else:
            self._differ(key, pool, name, one["weight_configured"] if key == "weight" else None,
                         value)

    def _differ(self, op: str, pool: str, backend: str, file: Any, running: Any) -> None:
        self._differences[op, pool, backend] = {
            "op": op, "pool": pool, "backend": backend, "file": file, "running": running,
            "since": now()}

    def _changed(self, pool: str, name: str) -> Json:
        self._rise()
        self.say("info", "backend.changed", pool=pool, backend=name)
        return self.backend(pool, name)

    def _rise(self) -> None:
        self._version += 1
        self._notify()

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher.set()


async def serve(port: int, backends: int, token: str) -> None:
    """Serves one on 127.0.0.1 until it is killed."""
    control = FakeControl(backends)
    server = AdminServer(control, AdminPlan(token=token))
    with socket.create_server(("127.0.0.1", port)) as listening:
        await server.start(listening)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
        try:
            await control.live_on()
        finally:
            await server.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--backends", type=int, default=8)
    parser.add_argument("--token", default="")
    asked = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(asked.port, asked.backends, asked.token))


if __name__ == "__main__":
    main()
