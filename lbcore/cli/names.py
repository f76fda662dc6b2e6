"""Names that only the running instance knows, for the shell's completion.

Whoever presses Tab waits for the answer and cannot use an error: there is a time limit, and
whatever goes wrong completes nothing and says nothing.
"""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from lbcore.cli.options import State

PATIENCE = 1.0               # seconds


def complete_pools(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Pools that begin so."""
    return [CompletionItem(pool["name"], help=f"{len(pool['backends'])} backends")
            for pool in _pools(ctx) if pool["name"].startswith(incomplete)]


def complete_backends(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Backends that begin so: as POOL/BACKEND, or by name after a pool."""
    before: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    pool_named = before[0] if len(before) == 1 and "/" not in before[0] else ""
    if before and not pool_named:
        return []
    return [
        CompletionItem(name, help=f"{backend['state']}, {backend['inflight']} connections")
        for pool in _pools(ctx) if pool_named in ("", pool["name"])
        for backend in pool["backends"]
        for name in [backend["name"] if pool_named else f"{pool['name']}/{backend['name']}"]
        if name.startswith(incomplete)
    ]


def _pools(ctx: click.Context) -> list[dict[str, Any]]:
    try:
        from lbcore.cli.instance import client_of  # noqa: PLC0415  (it completes by this module)

        said = client_of(ctx.ensure_object(State), PATIENCE).status()
        return list(said["pools"])
    except Exception:        # noqa: BLE001  (see above)
        return []
