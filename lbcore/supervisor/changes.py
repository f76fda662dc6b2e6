"""What was changed at run time: the differences between the file and what runs.

The running configuration is the file's tables with the changes put over them, checked and compiled
as a file is. So a change that no file could say is refused, and what runs can be written as a file.
An :class:`Overlay` is never altered: an edit (``edits.py``) makes another one, and nothing has
happened until that is in force. Nothing in here does any I/O.

A discovery source takes the place of the backends that the file lists; it is no change. Changes by
an operator lie over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lbcore.config.models import Backend
from lbcore.health import Orders

Json = dict[str, Any]
Table = Mapping[str, Any]
Tables = dict[str, Any]                  # of a whole file
Key = tuple[str, str, str]               # what is changed, of which pool, of which backend

# The operations that say which backends there are: at most one of them for each backend.
DEFINING = ("add", "remove", "set")
# What an operator wants of a backend that is there, and what stands for nothing.
ORDERING: Mapping[str, Any] = {"weight": None, "drain": False, "force": None}
# Keys of the file that a change takes the place of.
SETTINGS = {"workers": ("lbcore", "workers", "auto"), "log_level": ("log", "level", "info")}
_DEFAULTS = {name: info.default for name, info in Backend.model_fields.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what the file says, what runs, and since when (ISO 8601)."""

    op: str                  # "add", "remove", "set", "weight", "drain", "force", or a setting
    pool: str
    backend: str
    file: Any                # a backend's table, None where the file has nothing
    running: Any
    since: str

    @property
    def key(self) -> Key:
        """What it is about; another change of the same key takes its place."""
        return ("backend" if self.op in DEFINING else self.op, self.pool, self.backend)

    def as_json(self) -> Json:
        """As the admin address shows it."""
        place = {"pool": self.pool, "backend": self.backend} if self.pool else {}
        return {"op": self.op, **place, "file": self.file, "running": self.running,
                "since": self.since}

    def __str__(self) -> str:
        place = f"{self.pool}/{self.backend} " if self.pool else ""
        value = "" if self.op in (*DEFINING, "drain") else f" {self.running}"
        return f"{place}{self.op}{value}"


@dataclass(frozen=True, slots=True)
class Found:
    """Backends that a discovery source has found for a pool."""

    source: str              # what kind: "watched file", "callable"
    backends: tuple[Table, ...]


@dataclass(frozen=True)
class Overlay:
    """All that lies over the file."""

    changes: Mapping[Key, Change] = field(default_factory=dict)
    found: Mapping[str, Found] = field(default_factory=dict)        # by pool

    # -- reading

    def orders(self) -> dict[tuple[str, str], Orders]:
        """What is wanted of single backends, by pool and name."""
        wanted: dict[tuple[str, str], Json] = {}
        for change in self.changes.values():
            if change.op in ORDERING:
                wanted.setdefault((change.pool, change.backend), {})[change.op] = change.running
        return {place: Orders(drain=bool(said.get("drain")), weight=said.get("weight"),
                              force=said.get("force") or "")
                for place, said in wanted.items()}

    def backends(self, tables: Tables, pool: str) -> list[Table]:
        """The backends of a pool, weights by order left aside. The file's first, in its order."""
        running = []
        for table in self.base(tables, pool):
            change = self.changes.get(("backend", pool, name_of(table)))
            if change is None or change.op == "add":
                running.append(table)
            elif change.op == "set":
                running.append(change.running)
        return running + self._added.get(pool, [])

    def base(self, tables: Tables, pool: str) -> list[Table]:
        """The backends of a pool before any change: of its source, or of the file."""
        if pool in self.found:
            return [dict(table) for table in self.found[pool].backends]
        return [table_of(one) for one in tables.get("pool", {}).get(pool, {}).get("backends", [])]

    def applied(self, tables: Tables) -> Tables:
        """The tables of a file with everything put over them that a file can say."""
        result = {**tables}
        orders = self.orders()
        pools = dict(tables.get("pool", {}))
        touched = {change.pool for change in self.changes.values()} | set(self.found)
        for pool in touched & set(pools):
            backends: list[Json] = []
            for table in self.backends(tables, pool):
                order = orders.get((pool, name_of(table)))
                weighed = order is not None and order.weight is not None
                backends.append({**table, "weight": order.weight}  # type: ignore[union-attr]
                                if weighed else dict(table))
            if backends or "backends" in pools[pool]:
                pools[pool] = {**pools[pool], "backends": backends}
        if "pool" in tables:
            result["pool"] = pools
        for op, (table_name, key, _) in SETTINGS.items():
            change = self.changes.get((op, "", ""))
            if change is not None:
                result[table_name] = {**result.get(table_name, {}), key: change.running}
        return result

    def configured_weights(self, tables: Tables) -> dict[tuple[str, str], int]:
        """What is configured for backends whose weight is another by order."""
        pools = {pool for op, pool, _ in self.changes if op == "weight"}
        return {(pool, name_of(table)): int(table.get("weight", 1))
                for pool in pools for table in self.backends(tables, pool)
                if ("weight", pool, name_of(table)) in self.changes}

    def is_runtime(self, pool: str, backend: str) -> bool:
        """Whether a backend is there by a change, not by the file or a source."""
        change = self.changes.get(("backend", pool, backend))
        return change is not None and change.op == "add"

    def source(self, pool: str) -> str:
        """Where the backends of a pool come from: "file", what its source is, or "api"."""
        if pool in self._edited:
            return "api"
        return self.found[pool].source if pool in self.found else "file"

    @cached_property
    def _added(self) -> dict[str, list[Table]]:
        """By pool: somebody with hundreds of pools may have thousands of changes."""
        added: dict[str, list[Table]] = {}
        for change in self.changes.values():
            if change.op == "add":
                added.setdefault(change.pool, []).append(change.running)
        return added

    @cached_property
    def _edited(self) -> frozenset[str]:
        return frozenset(change.pool for change in self.changes.values() if change.op in DEFINING)

    def forget(self, pool: str | None) -> Overlay:
        """Without the changes of a pool, or without any."""
        return replace(self, changes={
            key: change for key, change in self.changes.items()
            if pool is not None and change.pool != pool})

    def with_found(self, pool: str, found: Found | None) -> Overlay:
        """With what a source has found for a pool; None: with what the file lists."""
        others = {name: one for name, one in self.found.items() if name != pool}
        return replace(self, found=others if found is None else {**others, pool: found})

    # -- another file

    def rebased(
        self, tables: Tables, pools: Iterable[str] | None = None,
    ) -> tuple[Overlay, list[tuple[Change, str]]]:
        """What still applies over another file, and what does not, with the reason.

        ``pools``: only the changes of these are looked at. Names of backends that are no longer
        there are found out by the plan, in which applications have theirs.
        """
        kept: dict[Key, Change] = {}
        dropped: list[tuple[Change, str]] = []
        known = tables.get("pool", {})
        found = {pool: one for pool, one in self.found.items() if pool in known}
        made = replace(self, found=found)
        base: dict[str, dict[str, Table]] = {}
        for key, change in self.changes.items():
            reason = ""
            now = change
            if pools is not None and change.pool not in pools:
                pass
            elif change.op in SETTINGS:
                said = of_file(tables, change.op)
                if said == change.running:
                    reason = "the file says the same now"
                elif said != change.file:
                    reason = "the file says something new"
            elif change.pool not in known:
                reason = "the pool is gone"
            elif change.op in DEFINING:
                if change.pool not in base:
                    base[change.pool] = {name_of(one): one
                                         for one in made.base(tables, change.pool)}
                weight = self.changes.get(("weight", change.pool, change.backend))
                now, reason = _over(change, base[change.pool].get(change.backend),
                                    weight.running if weight is not None else None)
            if reason:
                dropped.append((change, reason))
            else:
                kept[key] = now
        return replace(made, changes=kept), dropped

    def only(self, pool: str) -> Overlay:
        """With nothing but what concerns one pool."""
        return Overlay({key: one for key, one in self.changes.items() if one.pool == pool},
                       {name: one for name, one in self.found.items() if name == pool})

    def with_weights(self, configured: Mapping[tuple[str, str], int]) -> Overlay:
        """With other weights as those that the file says, where another is in force."""
        return replace(self, changes={
            key: replace(one, file=configured[one.pool, one.backend])
            if one.op == "weight" and (one.pool, one.backend) in configured else one
            for key, one in self.changes.items()})

    def without(self, keys: Iterable[Key]) -> Overlay:
        """Without these changes."""
        gone = set(keys)
        return replace(self, changes={key: change for key, change in self.changes.items()
                                      if key not in gone})

    # -- keeping

    def export(self) -> Json:
        """As JSON can hold it."""
        return {"changes": [[one.op, one.pool, one.backend, one.file, one.running, one.since]
                            for one in self.changes.values()],
                "found": {pool: [one.source, list(one.backends)]
                          for pool, one in self.found.items()}}

    @classmethod
    def restore(cls, state: Any) -> Overlay:
        """What :meth:`export` gave. What cannot be understood is left out."""
        changes: dict[Key, Change] = {}
        found: dict[str, Found] = {}
        said = state if isinstance(state, Mapping) else {}
        entries, sources = said.get("changes"), said.get("found")
        for entry in entries if isinstance(entries, list) else ():
            try:
                op, pool, backend, file, running, since = entry
                change = Change(op, pool, backend, file, running, since)
                known = op in (*DEFINING, *ORDERING, *SETTINGS)
                if known and (op not in ("add", "set") or isinstance(running, Mapping)):
                    changes[change.key] = change
            except (TypeError, ValueError):
                continue
        for pool, entry in sources.items() if isinstance(sources, Mapping) else ():
            try:
                source, backends = entry
                found[pool] = Found(source, tuple(dict(one) for one in backends))
            except (TypeError, ValueError):
                continue
        return cls(changes, found)


def name_of(table: Table) -> str:
    """What a backend is called: its name, or its address; "?" where neither makes sense."""
    name = table.get("name")
    called = table.get("address") if name is None else name
    return called if isinstance(called, str) else "?"


def of_file(tables: Tables, op: str) -> Any:
    """What a file says of a setting."""
    table, key, default = SETTINGS[op]
    return tables.get(table, {}).get(key, default)


def _over(change: Change, file: Table | None, weight: int | None) -> tuple[Change, str]:
    """A change of a backend as it is over another file, or why it is none any more.

    ``weight`` is that by order: a file that was written of what runs has it as the backend's own.
    """
    if change.op == "remove":
        return change, "the file does not have it any more" if file is None else ""
    if file is None:
        return change, "the backend is gone" if change.op == "set" else ""
    running = change.running if weight is None else {**change.running, "weight": weight}
    if same(file, change.running) or same(file, running):
        return change, "the file says the same now"
    if change.op == "add":
        return change, "the file has a backend of that name now"
    return replace(change, file=dict(file)), ""


def table_of(one: Any) -> Json:
    """A backend's entry in a file as a table: a string is short for its address."""
    return {"address": one} if isinstance(one, str) else dict(one)


def same(one: Table, other: Table) -> bool:
    """Whether two tables mean the same backend."""
    return _lean(one) == _lean(other)


def _lean(table: Table) -> Json:
    """A backend's table without what goes without saying. Types count: True is not 1."""
    return {key: (type(value), value) for key, value in table.items()
            if (key, value) != ("name", table.get("address"))
            and (type(value), value) != (type(_DEFAULTS.get(key)), _DEFAULTS.get(key))}
