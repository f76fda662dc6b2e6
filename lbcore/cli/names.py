"""Names that only the running instance knows, for the shell's completion.

Whoever presses Tab waits for the answer and cannot use an error: there is a time limit, and
whatever goes wrong completes nothing and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    choices: Sequence[str], ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Backends that begin so: as POOL/BACKEND, or by name after a pool; then the choices."""
    before: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    apart = bool(before) and "/" not in before[0]
    if len(before) > apart:
        left = choices if len(before) == 1 + apart else ()
        return [CompletionItem(choice) for choice in left if choice.startswith(incomplete)]
    return [
        CompletionItem(name, help=f"{backend['state']}, {backend['inflight']} connections")
        for pool in _pools(ctx) if not apart or pool["name"] == before[0]
        for backend in pool["backends"]
        for name in [backend["name"] if apart else f"{pool['name']}/{backend['name']}"]
        if name.startswith(incomplete)
    ]


def _pools(ctx: click.Context) -> list[dict[str, Any]]:
    try:
        from lbcore.cli.instance import client_of  # noqa: PLC0415  (it completes by this module)

        said = client_of(ctx.ensure_object(State), PATIENCE).status()
        return list(said["pools"])
    except Exception:        # noqa: BLE001  (see above)
        return []
