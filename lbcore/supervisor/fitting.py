"""A file and what was changed at run time, put together: checked and compiled as a file is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from lbcore.config import Config, ConfigError, to_plan
from lbcore.config.load import Source, check_tables
from lbcore.config.plan import Plan
from lbcore.config.positions import Positions
from lbcore.supervisor.changes import ORDERING, Change, Overlay
from lbcore.supervisor.settings import Read

CALLED = "the running configuration"     # what problems are said to be in that no file has
Dropped = list[tuple[Change, str]]       # with the reason


def compiled(found: Read, overlay: Overlay) -> tuple[Plan, Config]:
    """What a file and an overlay mean together. Raises ConfigError with every problem.

    Weights by order are in the configuration; in the plan there are the configured ones, beside
    which orders are put into force.
    """
    if not overlay.changes and not overlay.found:
        return found.plan, found.config
    source = Source(CALLED, Positions(""))
    config, _ = check_tables(overlay.applied(found.tables), source, found.directory)
    plan = to_plan(config)
    weights = overlay.configured_weights(found.tables)
    pools = {pool for pool, _ in weights}
    plan = replace(plan, pools=tuple(
        replace(pool, backends=tuple(
            replace(one, weight=weights.get((pool.name, one.name), one.weight))
            for one in pool.backends))
        if pool.name in pools else pool for pool in plan.pools))
    return plan, config


def fitting(found: Read, overlay: Overlay) -> tuple[Plan, Config, Overlay, Dropped]:
    """Another file with as much of an overlay as goes with it, and what does not, and why."""
    overlay, dropped = overlay.rebased(found.tables)
    tables = found.tables.get("pool", {})
    for pool in [pool for pool in overlay.found if "discover" not in tables.get(pool, {})]:
        overlay = overlay.with_found(pool, None)
    plan, config, overlay, more = _that_runs(found, overlay)
    dropped += more
    there = {(pool.name, name) for pool in plan.pools
             for name in [*(one.name for one in pool.backends),
                          *(f"demo-{number}" for number in range(1, pool.demo + 1)),
                          *(pool.app.names if pool.app else ())]}
    gone = [key for key, change in overlay.changes.items()
            if change.op in ORDERING and (change.pool, change.backend) not in there]
    configured = overlay.configured_weights(found.tables)
    said = [key for key, change in overlay.changes.items() if change.op == "weight"
            and configured.get((change.pool, change.backend)) == change.running]
    dropped += [(overlay.changes[key], "the backend is gone") for key in gone]
    dropped += [(overlay.changes[key], "the file says the same now") for key in said]
    return plan, config, overlay.without([*gone, *said]).with_weights(configured), dropped


def _that_runs(found: Read, overlay: Overlay) -> tuple[Plan, Config, Overlay, Dropped]:
    with suppress(ConfigError):
        return *compiled(found, overlay), overlay, []
    dropped: Dropped = []
    for pool in {change.pool for change in overlay.changes.values()} | set(overlay.found):
        try:
            compiled(found, overlay.only(pool))
        except ConfigError as error:
            reason = error.problems[0].message
            dropped += [(one, reason) for one in overlay.changes.values() if one.pool == pool]
            overlay = overlay.forget(pool).with_found(pool, None)
    with suppress(ConfigError):
        return *compiled(found, overlay), overlay, dropped
    dropped += [(one, "the changes do not go with the file") for one in overlay.changes.values()]
    return found.plan, found.config, Overlay(), dropped
