"""The keys of a pool whose backends a file or a callable names while lbcore runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from lbcore.config.fields import PositiveDuration, Table, as_written, key
from lbcore.config.http_models import FilePath
from lbcore.config.plan import DiscoverPlan
from lbcore.config.values import BadValue

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")


def _function(text: str) -> None:
    if _FUNCTION.fullmatch(text):
        return
    if _MODULE.fullmatch(text) and not text.endswith(".py"):
        raise BadValue(f'"{text}" does not say which function of the module', f'"{text}:backends"')
    hint = 'MODULE:FUNCTION as Python imports it, such as "discovery:backends"'
    if "/" in text or text.endswith(".py"):
        hint = f"{hint}; where it is imported from is `directory`"
    raise BadValue(f'"{text}" does not name a function', hint)


class Discover(Table):
    """Where a pool's backends come from while lbcore runs: either `file` or `python`.

    What it names takes the place of `backends`, which count until there is a first answer.
    """

    file: FilePath | None = key(
        None,
        "A file that is watched: .json, .toml, or text with an address on each line. Whoever "
        "writes it should put it in place as a whole (rename).",
        "path",
    )
    python: Annotated[str, as_written(_function)] | None = key(
        None,
        "A Python function that returns the backends, or a generator of them, async or not: "
        "`module:function`. It runs in a process of its own, as the user that workers are.",
        "module:function",
    )
    directory: FilePath = key(
        ".", "With python: where it runs and is imported from. Relative to the configuration.",
        "path",
    )
    interval: PositiveDuration = key(
        "2s", "From one look at the file, or one call of the function, to the next.", "duration"
    )
    timeout: PositiveDuration = key(
        "30s",
        "How long the function may take, and how long the start waits for a first answer when "
        "the pool has no backends otherwise.",
        "duration",
    )


def problems(
    discover: Discover, *, own: bool
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What contradicts itself: (keys below discover, message, hint).

    ``own``: the pool has servers that lbcore runs itself.
    """
    if own:
        yield ((), "lbcore runs the servers of this pool itself, so there are none to discover",
               "a pool of its own for what is discovered")
    if discover.file is None and discover.python is None:
        yield (), "this does not say where backends come from", 'file = "/PATH/backends.json"'
    elif discover.file is not None and discover.python is not None:
        yield ("python",), "backends come from file already", "keep one of the two"
    if discover.python is None and "directory" in discover.model_fields_set:
        yield ("directory",), "this has no effect without python", 'python = "module:function"'


def discover_plan(discover: Discover | None) -> DiscoverPlan | None:
    """What the keys mean."""
    if discover is None:
        return None
    return DiscoverPlan(
        file=discover.file or "",
        python=discover.python or "",
        directory=discover.directory if discover.python else "",
        interval_ms=discover.interval,
        timeout_ms=discover.timeout,
    )


def shown(tables: dict[str, Any]) -> None:
    """Takes what has no effect out of what ``lbcore show`` prints."""
    if "python" not in tables:
        tables.pop("directory", None)
