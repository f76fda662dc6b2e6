"""Edits of what was changed at run time: what people ask for, as changes over the file.

An :class:`Edit` begins with an overlay and a file and ends with another overlay. A request that
makes no sense raises ControlError, and the edit is thrown away with all that it had done: several
requests of one edit happen together or not at all. Whether the result is a configuration that
lbcore would run is found out later, by checking it like a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lbcore.admin.contract import ControlError
from lbcore.supervisor.changes import (
    ORDERING,
    Change,
    Key,
    Overlay,
    Table,
    Tables,
    name_of,
    of_file,
    same,
    table_of,
)

MAX_WEIGHT = 1000
PATCHABLE = ("weight", "drain", "force", "max_connections")


class Edit:
    """One request, or several that belong together.

    ``own`` are by pool the names of the servers that lbcore runs itself: applications and
    demonstration backends, which no list of backends has. ``apps`` are the pools that run an
    application.
    """

    def __init__(
        self, overlay: Overlay, tables: Tables, own: Mapping[str, Collection[str]] | None = None,
        apps: Collection[str] = (),
    ) -> None:
        self._overlay = overlay
        self._tables = tables
        self._own = own or {}
        self._apps = apps
        self._changes: dict[Key, Change] = dict(overlay.changes)
        self._base: dict[str, dict[str, Table]] = {}
        self._running: dict[str, dict[str, Table]] = {}
        self._now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def done(self) -> Overlay:
        """The overlay as it is now."""
        return replace(self._overlay, changes=self._changes)

    # -- which backends there are

    def add(self, pool: str, given: object) -> str:
        """One backend more; returns its name."""
        running = self._listed(pool)
        table = _given(given)
        name = name_of(table)
        if name in running or name in self._own.get(pool, ()):
            raise ControlError(409, f"pool {pool!r} has a backend {name!r} already",
                               "change it with PATCH, or give the new one another name")
        self._define(pool, name, table)
        return name

    def remove(self, pool: str, name: str) -> None:
        """One less, with all that was ordered of it."""
        running = self._listed(pool)
        self._require(pool, name)
        if name not in running:
            raise ControlError(409, f"backend {name!r} of pool {pool!r} is run by lbcore itself",
                               "drain it, or take what asks for it out of the file")
        if len(running) == 1 and not self._own.get(pool):
            raise ControlError(409, f"backend {name!r} is the last of pool {pool!r}",
                               "add another one first, or drain this one")
        self._define(pool, name, None)

    def replace(self, pool: str, given: Sequence[object]) -> None:
        """These backends in the place of all; what they say of weights is what holds."""
        running = self._listed(pool)
        wanted: dict[str, Table] = {}
        for one in given:
            table: Table = _given(one)
            name = name_of(table)
            if name in wanted and name != "?":
                raise ControlError(422, f"two of the backends for pool {pool!r} are called "
                                   f"{name!r}", "give each its own name; for more traffic, raise "
                                   "its weight")
            wanted[name] = table
        if not wanted and not self._own.get(pool):
            raise ControlError(422, f"pool {pool!r} would have no backends",
                               "drain them, to keep traffic away")
        for name in [name for name in running if name not in wanted]:
            self._define(pool, name, None)
        for name, table in wanted.items():
            self._changes.pop(("weight", pool, name), None)
            self._define(pool, name, table)

    # -- what is wanted of one

    def patch(self, pool: str, name: str, patch: Mapping[str, Any]) -> None:
        """Any of ``weight``, ``drain``, ``force`` and ``max_connections``."""
        self._require(pool, name)
        for key in patch:
            if key not in PATCHABLE:
                raise ControlError(400, f"{key!r} is nothing that can be changed",
                                   f"one of {', '.join(PATCHABLE)}")
        if "max_connections" in patch:
            self._limit(pool, name, patch["max_connections"])
        for op in ORDERING:
            if op in patch:
                self._order(op, pool, name, patch[op])

    def one(self, change: Mapping[str, Any]) -> None:
        """One of a list of changes: ``op``, ``pool``, ``backend`` and, for orders, ``value``."""
        op, pool, backend = change.get("op"), str(change.get("pool")), change.get("backend")
        if op == "add":
            self.add(pool, backend)
        elif op == "remove":
            self.remove(pool, str(backend))
        elif op in ORDERING:
            if "value" not in change:
                raise ControlError(400, f"the change {op!r} has no value")
            self.patch(pool, str(backend), {str(op): change["value"]})
        else:
            raise ControlError(400, f"there is no change {op!r}",
                               f"one of add, remove, {', '.join(ORDERING)}")

    def setting(self, op: str, value: object) -> None:
        """Another number of workers or log level; None is what the file says."""
        file = of_file(self._tables, op)
        self._put(op, "", "", file, value, value is None or value == file)

    # -- inside

    def _listed(self, pool: str) -> dict[str, Table]:
        """The backends that can be added to or removed from. Raises ControlError."""
        self._pool(pool)
        if pool in self._apps:
            raise ControlError(409, f"pool {pool!r} runs an application, which are its backends",
                               "use its keys `instances` and `workers`, and reload")
        return self._backends(pool)

    def _pool(self, pool: str) -> None:
        known = self._tables.get("pool", {})
        if pool not in known:
            raise ControlError(404, f"there is no pool {pool!r}; there are: {', '.join(known)}",
                               "`lbcore status` lists them")

    def _require(self, pool: str, name: str) -> None:
        """Raises ControlError 404 when there is no such backend."""
        self._pool(pool)
        names = self._backends(pool)
        if name not in names and name not in self._own.get(pool, ()):
            there = ", ".join([*self._own.get(pool, ()), *names][:20])
            raise ControlError(404, f"pool {pool!r} has no backend {name!r}; it has: {there}",
                               "`lbcore status` lists them")

    def _backends(self, pool: str) -> dict[str, Table]:
        if pool not in self._running:
            self._running[pool] = {name_of(table): table
                                   for table in self.done().backends(self._tables, pool)}
        return self._running[pool]

    def _file(self, pool: str) -> dict[str, Table]:
        if pool not in self._base:
            self._base[pool] = {name_of(table): table
                                for table in self._overlay.base(self._tables, pool)}
        return self._base[pool]

    def _define(self, pool: str, name: str, table: Table | None) -> None:
        """A backend as in ``table``, or none of that name."""
        running, file = self._backends(pool), self._file(pool).get(name)
        if table is None:
            del running[name]
            for op in ORDERING:
                self._changes.pop((op, pool, name), None)
            self._put("remove", pool, name, file, None, file is None)
            return
        running[name] = table
        self._put("add" if file is None else "set", pool, name, file, table,
                  file is not None and same(file, table))

    def _limit(self, pool: str, name: str, connections: object) -> None:
        running = self._backends(pool)
        if name not in running:
            raise ControlError(409, f"backend {name!r} of pool {pool!r} is run by lbcore itself",
                               "its connections cannot be limited")
        table = dict(running[name])
        before = self._file(pool).get(name, {}).get("max_connections")
        wanted = before if connections is None else connections
        if wanted is None:
            table.pop("max_connections", None)
        else:
            table["max_connections"] = wanted
        self._define(pool, name, table)

    def _order(self, op: str, pool: str, name: str, value: Any) -> None:
        file: Any = ORDERING[op]
        if op == "weight":
            file = self._backends(pool).get(name, {}).get("weight", 1)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 0 <= value <= MAX_WEIGHT):
                raise ControlError(400, f"{value!r} is no weight",
                                   f"a number from 0 to {MAX_WEIGHT}, or null")
            value = file if value is None else value
            if value == 0:
                self._leave_one(pool, name)
        elif op == "drain" and not isinstance(value, bool):
            raise ControlError(400, f"drain is true or false, not {value!r}")
        elif op == "force" and value not in ("up", "down", None):
            raise ControlError(400, f"force is \"up\", \"down\" or null, not {value!r}")
        self._put(op, pool, name, file, value, value == file)

    def _leave_one(self, pool: str, name: str) -> None:
        """Refuses to take the weight of the last of the backends that no file lists.

        Those that a file could list are checked as in a file.
        """
        own = self._own.get(pool, ())
        if not own:
            return
        weights = {one: 1 for one in own} | {
            listed: table.get("weight", 1) for listed, table in self._backends(pool).items()}
        for change in self._changes.values():
            if change.op == "weight" and change.pool == pool:
                weights[change.backend] = change.running
        weights.pop(name, None)
        if not any(weights.values()):
            raise ControlError(
                422, f"every backend of pool {pool!r} would have weight 0, and none would get a "
                "connection", "give another a weight first, or drain this one")

    def _put(self, op: str, pool: str, name: str, file: Any, running: Any, as_file: bool) -> None:
        change = Change(op, pool, name, file, running, self._now)
        old = self._changes.get(change.key)
        if as_file:
            self._changes.pop(change.key, None)
        elif old is None or (old.op, old.running) != (op, running):
            self._changes[change.key] = change


def _given(one: object) -> dict[str, Any]:
    """A backend's table as somebody sent it: null is as good as absent."""
    if not isinstance(one, str | Mapping):
        raise ControlError(400, "a backend is an address, or an object with an address")
    return {key: value for key, value in table_of(one).items() if value is not None}


